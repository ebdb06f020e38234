//! From the flows a bridge has to the flows it is to have, by the fewest changes. Pure.
//!
//! Flows are compared as the engine understands them, not as they are written. Only flows under the program's own
//! cookie are looked at: what was learned, and what somebody else added, stays. An unchanged flow is not touched, so it
//! keeps its counters; one with other actions is modified in place, for the same reason.

use std::collections::BTreeMap;

use crate::api::switch::{Flow, FlowChange, Port};
use crate::program::{COOKIE, ProgramFlow};

use super::canonical::{BadFlow, Canonical, Numbers};

/// What tells one flow from another in a bridge: table, priority, match.
type Key = (u8, u16, String);

/// The changes, to be made at one instant: additions and modifications first.
///
/// # Errors
/// When a flow of either side makes no sense to the engine.
pub(super) fn changes(desired: &[ProgramFlow], observed: &[Flow], ports: &[Port]) -> Result<Vec<FlowChange>, BadFlow> {
    let numbers = Numbers::new(ports);
    let mut wanted: BTreeMap<Key, (&ProgramFlow, String)> = BTreeMap::new();
    for flow in desired {
        let Canonical { matching, actions } = Canonical::of(flow.table, &flow.matching, &flow.actions, &numbers)?;
        wanted.insert((flow.table, flow.priority, matching), (flow, actions));
    }
    let mut upserts = Vec::new();
    let mut deletions = Vec::new();
    for flow in observed.iter().filter(|flow| flow.cookie == COOKIE) {
        let Canonical { matching, actions } = Canonical::of(flow.table, &flow.matching, &flow.actions, &numbers)?;
        match wanted.remove(&(flow.table, flow.priority, matching)) {
            Some((_, same)) if same == actions => {}
            Some((flow, _)) => {
                let text = format!("{} actions={}", flow.strict_match(), flow.actions);
                upserts.push(FlowChange::ModifyStrict(text));
            }
            None => deletions.push(FlowChange::DeleteStrict(strict(flow))),
        }
    }
    upserts.extend(wanted.into_values().map(|(flow, _)| FlowChange::Add(flow.to_string())));
    upserts.append(&mut deletions);
    Ok(upserts)
}

fn strict(flow: &Flow) -> String {
    let Flow { table, priority, matching, .. } = flow;
    ProgramFlow { table: *table, priority: *priority, matching: matching.clone(), actions: String::new() }
        .strict_match()
}

/// How often each flow of `flows` matched, in their order; zero for one that is not there.
///
/// # Errors
/// As [`changes`].
pub(super) fn packets(flows: &[ProgramFlow], observed: &[Flow], ports: &[Port]) -> Result<Vec<u64>, BadFlow> {
    let numbers = Numbers::new(ports);
    let mut counts: BTreeMap<Key, u64> = BTreeMap::new();
    for flow in observed.iter().filter(|flow| flow.cookie == COOKIE) {
        let matching = Canonical::of(flow.table, &flow.matching, &flow.actions, &numbers)?.matching;
        counts.insert((flow.table, flow.priority, matching), flow.n_packets);
    }
    flows
        .iter()
        .map(|flow| {
            let matching = Canonical::of(flow.table, &flow.matching, &flow.actions, &numbers)?.matching;
            Ok(counts.get(&(flow.table, flow.priority, matching)).copied().unwrap_or(0))
        })
        .collect()
}
