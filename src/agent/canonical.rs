//! Flows in the engine's own words, so that two texts of one flow compare equal. Pure.
//!
//! The words are had by asking: the flows are put into a bridge that carries nothing, of an engine that is our own, with
//! ports of the same names and numbers, and read back.

use std::collections::BTreeMap;

use crate::api::switch::{BridgeMode, Flow, FlowChange, Port, VlanMode};
use crate::datapath::{DpPort, NewPort, NewPortKind, Switch, SwitchError};
use crate::program::{ProgramFlow, fixed};
use crate::types::{IfName, Timestamp};

/// A flow that makes no sense to the engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the program does not fit the engine: {0}")]
pub(super) struct BadFlow(#[from] SwitchError);

/// A flow's match and actions, each in one text only, beside its table and priority.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Canonical {
    pub(super) table: u8,
    pub(super) priority: u16,
    pub(super) matching: String,
    pub(super) actions: String,
}

impl Canonical {
    /// The flow as the switch that dumped it says it.
    pub(super) fn dumped(flow: &Flow) -> Self {
        let Flow { table, priority, matching, actions, .. } = flow;
        Self { table: *table, priority: *priority, matching: matching.clone(), actions: actions.clone() }
    }
}

/// Each of `flows`, as the engine would dump it in a bridge with these ports.
///
/// # Errors
/// Names the first flow that the engine refuses.
pub(super) fn canonical(flows: &[ProgramFlow], ports: &[Port]) -> Result<Vec<Canonical>, BadFlow> {
    let bridge: IfName = fixed("scratch");
    let mut scratch = Switch::new();
    scratch.add_bridge(&bridge, BridgeMode::Flow)?;
    for port in ports {
        let kind = NewPortKind::Netdev { dp: DpPort(port.number) };
        let (name, number) = (port.config.name.clone(), Some(port.number));
        scratch.add_port(&bridge, NewPort { name, kind, vlan: VlanMode::Trunk, number })?;
    }
    // Its place in the list is each flow's cookie.
    let text = |(at, flow): (usize, &ProgramFlow)| {
        FlowChange::Add(format!("cookie={at:#x},{} actions={}", flow.strict_match(), flow.actions))
    };
    let changes: Vec<FlowChange> = flows.iter().enumerate().map(text).collect();
    scratch.change_flows(&bridge, &changes, Timestamp::ZERO)?;
    let dumped = scratch.dump_flows(&bridge, "", true, Timestamp::ZERO)?;
    let by_place: BTreeMap<u64, Canonical> = dumped.iter().map(|flow| (flow.cookie, Canonical::dumped(flow))).collect();
    let of = |(at, flow): (u64, &ProgramFlow)| {
        by_place.get(&at).cloned().unwrap_or_else(|| {
            // One that a later flow replaced says nothing of its own.
            let ProgramFlow { table, priority, matching, actions } = flow.clone();
            Canonical { table, priority, matching, actions }
        })
    };
    Ok((0..).zip(flows).map(of).collect())
}
