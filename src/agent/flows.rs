//! From the flows a bridge has to the flows it is to have, by the fewest changes. Pure.
//!
//! Flows are compared as the engine understands them, not as they are written. Only flows under the program's own
//! cookie are looked at: what was learned, and what somebody else added, stays. An unchanged flow is not touched, so it
//! keeps its counters; one with other actions is modified in place, for the same reason.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::api::switch::{Flow, FlowChange, Port};
use crate::program::{COOKIE, ProgramFlow};

use super::canonical::{BadFlow, Canonical, canonical};

/// What tells one flow from another in a bridge: table, priority, match.
type Key = (u8, u16, String);

/// Flows by what tells them apart, each with its actions.
type Wanted<'a> = BTreeMap<Key, (&'a ProgramFlow, String)>;

/// The changes, to be made at one instant: modifications, additions, removals.
///
/// # Errors
/// When a wanted flow makes no sense to the engine.
pub(super) fn changes(desired: &[ProgramFlow], observed: &[Flow], ports: &[Port]) -> Result<Vec<FlowChange>, BadFlow> {
    let mut wanted = keyed(desired, ports)?;
    let mut differing = Vec::new();
    for flow in observed.iter().filter(|flow| flow.cookie == COOKIE) {
        if !take_equal(&mut wanted, Canonical::dumped(flow)) {
            differing.push(flow);
        }
    }
    // A switch of another release may say the same in other words: ours are tried before anything is changed.
    let again: Vec<Cow<'_, ProgramFlow>> = differing.iter().map(|flow| Cow::Owned(as_program(flow))).collect();
    let dumped = || differing.iter().map(|flow| Canonical::dumped(flow)).collect();
    let again = if again.is_empty() { Vec::new() } else { canonical(&again, ports).unwrap_or_else(|_| dumped()) };
    let mut changes = Vec::new();
    let mut removals = Vec::new();
    for (flow, said) in differing.into_iter().zip(again) {
        let key = (said.table, said.priority, said.matching.clone());
        if take_equal(&mut wanted, said) {
            continue;
        }
        match wanted.remove(&key) {
            Some((flow, _)) => {
                changes.push(FlowChange::ModifyStrict(format!("{} actions={}", flow.strict_match(), flow.actions)));
            }
            None => removals.push(FlowChange::DeleteStrict(as_program(flow).strict_match())),
        }
    }
    changes.extend(wanted.into_values().map(|(flow, _)| FlowChange::Add(flow.to_string())));
    changes.append(&mut removals);
    Ok(changes)
}

fn keyed<'a>(flows: &'a [ProgramFlow], ports: &[Port]) -> Result<Wanted<'a>, BadFlow> {
    let borrowed: Vec<Cow<'_, ProgramFlow>> = flows.iter().map(Cow::Borrowed).collect();
    let said = canonical(&borrowed, ports)?;
    let entry =
        |(flow, said): (&'a ProgramFlow, Canonical)| ((said.table, said.priority, said.matching), (flow, said.actions));
    Ok(flows.iter().zip(said).map(entry).collect())
}

/// Takes the wanted flow out if the observed one is the same in everything.
fn take_equal(wanted: &mut Wanted<'_>, observed: Canonical) -> bool {
    let Canonical { table, priority, matching, actions } = observed;
    let key = (table, priority, matching);
    let is_equal = wanted.get(&key).is_some_and(|(_, same)| *same == actions);
    is_equal && wanted.remove(&key).is_some()
}

fn as_program(flow: &Flow) -> ProgramFlow {
    let Canonical { table, priority, matching, actions } = Canonical::dumped(flow);
    ProgramFlow { table, priority, matching, actions }
}

/// How often each flow of `flows` matched, in their order; zero for one that is not there.
///
/// # Errors
/// As [`changes`].
pub(super) fn packets(flows: &[ProgramFlow], observed: &[Flow], ports: &[Port]) -> Result<Vec<u64>, BadFlow> {
    let ours = observed.iter().filter(|flow| flow.cookie == COOKIE);
    let counts: BTreeMap<Key, u64> =
        ours.map(|flow| ((flow.table, flow.priority, flow.matching.clone()), flow.n_packets)).collect();
    let borrowed: Vec<Cow<'_, ProgramFlow>> = flows.iter().map(Cow::Borrowed).collect();
    let count = |said: Canonical| counts.get(&(said.table, said.priority, said.matching)).copied().unwrap_or(0);
    Ok(canonical(&borrowed, ports)?.into_iter().map(count).collect())
}
