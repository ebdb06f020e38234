//! The program's flows as a switch is told them, and beside those it has. Pure.

use core::fmt::Write as _;
use std::collections::BTreeMap;

use crate::api::switch::{Flow, Port};
use crate::program::{COOKIE, ProgramFlow};

use super::canonical::{BadFlow, Canonical, canonical};

/// What tells one flow from another in a bridge: table, priority, match.
type Key = (u8, u16, String);

/// Flows as a switch takes them all at once.
pub(super) fn lines(flows: &[ProgramFlow]) -> String {
    let mut text = String::new();
    for flow in flows {
        let ProgramFlow { table, priority, matching, actions } = flow;
        // Writing to a string cannot fail.
        let _written = writeln!(text, "table={table},priority={priority},{matching} actions={actions}");
    }
    text
}

/// How often each flow of `flows` matched, in their order; zero for one that is not there.
///
/// # Errors
/// When a flow makes no sense to the engine.
pub(super) fn packets(flows: &[ProgramFlow], observed: &[Flow], ports: &[Port]) -> Result<Vec<u64>, BadFlow> {
    let ours = observed.iter().filter(|flow| flow.cookie == COOKIE);
    let counts: BTreeMap<Key, u64> =
        ours.map(|flow| ((flow.table, flow.priority, flow.matching.clone()), flow.n_packets)).collect();
    let count = |said: Canonical| counts.get(&(said.table, said.priority, said.matching)).copied().unwrap_or(0);
    Ok(canonical(flows, ports)?.into_iter().map(count).collect())
}
