//! Flows as their users change and list them.

use std::sync::Arc;

use super::bridge::{Bridge, BridgePorts, PortNumbers};
use super::error::SwitchError;
use super::matching::Shapes;
use super::switch::Switch;
use super::table::{Filter, Flow, FlowRef};
use super::text::{FlowText, Read, Use};
use crate::api::switch::FlowChange;
use crate::types::{IfName, Timestamp};

/// A change of flows, read and found good.
#[derive(Debug)]
pub(crate) enum Change {
    Add(FlowText),
    Modify { flow: FlowText, strict: bool },
    Delete { flow: FlowText, strict: bool },
}

impl Switch {
    /// Makes changes of a bridge's flows, in order: all of them, or with an error none. Returns how many flows were
    /// added, modified or removed.
    ///
    /// # Errors
    /// [`SwitchError::BadFlow`] says which text is wrong, and where; [`SwitchError::TableFull`];
    /// [`SwitchError::Overlap`] for a flow with `check_overlap`.
    pub fn change_flows(
        &mut self,
        bridge: &IfName,
        changes: &[FlowChange],
        now: Timestamp,
    ) -> Result<usize, SwitchError> {
        let read = self.port_numbers(bridge)?.read(changes)?;
        self.apply_flows(bridge, read, now)
    }

    /// Makes changes that were read with the ports as they are.
    pub(crate) fn apply_flows(
        &mut self,
        bridge: &IfName,
        changes: Vec<Change>,
        now: Timestamp,
    ) -> Result<usize, SwitchError> {
        let id = self.id(bridge)?;
        let more = changes.iter().filter(|change| !matches!(change, Change::Delete { .. })).count();
        let flows = self.named(bridge)?.tables.len();
        let limit = self.flow_limit();
        if flows + more > limit {
            return Err(SwitchError::TableFull { bridge: bridge.clone(), flows, more, limit });
        }
        let Some(held) = self.bridge_mut(id) else { unreachable!("its name was found") };
        // Only a flow that must not overlap can be refused as late as here.
        let strict = |change: &Change| matches!(change, Change::Add(flow) if flow.check_overlap);
        let listed = changes.len();
        let before = (listed > 1 && changes.iter().any(strict)).then(|| held.tables.clone());
        held.tables.defer();
        let (mut count, mut shapes) = (0, Shapes::default());
        for (index, change) in changes.into_iter().enumerate() {
            let Some(touched) = apply(held, change, now, &mut shapes) else {
                // A single change that is refused has changed nothing.
                match before {
                    Some(before) => held.tables = before,
                    None => held.tables.settle(),
                }
                return Err(SwitchError::Overlap { number: index + 1, count: listed });
            };
            count += touched;
        }
        held.tables.settle();
        if count > 0 {
            held.flows_revision += 1;
            self.revisions().publish();
        }
        Ok(count)
    }

    /// A bridge's ports as they are.
    pub(crate) fn port_numbers(&self, bridge: &IfName) -> Result<PortNumbers, SwitchError> {
        self.named(bridge).map(PortNumbers::of)
    }

    /// Whether a bridge's ports are still as they were.
    pub(crate) fn has_ports_as(&self, bridge: &IfName, ports: &PortNumbers) -> Result<bool, SwitchError> {
        self.named(bridge).map(|held| held.ports_revision == ports.revision)
    }

    /// The flows that a filter wants, in no order that means anything.
    pub(crate) fn select_flows(&self, bridge: &IfName, wanted: &FlowText) -> Result<Vec<FlowRef>, SwitchError> {
        self.named(bridge).map(|held| held.tables.select(&filter_of(wanted, None)))
    }

    /// Those of some flows that are still there.
    pub(crate) fn copy_flows(&self, bridge: &IfName, flows: &[FlowRef]) -> Result<Vec<Flow>, SwitchError> {
        let held = self.named(bridge)?;
        Ok(flows.iter().filter_map(|flow| held.tables.get(*flow)).cloned().collect())
    }

    /// The flows of a bridge that a match as of `ovs-ofctl dump-flows` covers, by table, then priority from the
    /// highest. With `names`, ports are shown by name.
    ///
    /// # Errors
    /// [`SwitchError::BadFilter`] if `filter` is no match.
    pub fn dump_flows(
        &self,
        bridge: &IfName,
        filter: &str,
        names: bool,
        now: Timestamp,
    ) -> Result<Vec<crate::api::switch::Flow>, SwitchError> {
        let held = self.named(bridge)?;
        let ports = BridgePorts { bridge: held, names };
        let wanted = FlowText::parse(filter, Use::Filter, &ports).map_err(SwitchError::BadFilter)?;
        let selected = self.select_flows(bridge, &wanted)?;
        let held = selected.into_iter().filter_map(|flow| held.tables.get(flow));
        let mut flows: Vec<_> = held.map(|flow| super::dump::flow(flow, &ports, now)).collect();
        sort_flows(&mut flows);
        Ok(flows)
    }
}

impl PortNumbers {
    /// Reads changes of flows: all of them, or with an error none.
    pub(crate) fn read<'a>(&self, changes: &'a [FlowChange]) -> Result<Vec<Change>, SwitchError> {
        let mut before = Read::default();
        let mut parse = |text: &'a str, purpose| FlowText::parse_among(text, purpose, self, &mut before);
        let read = |(index, change): (usize, &'a FlowChange)| {
            let parsed = match change {
                FlowChange::Add(text) => parse(text, Use::Add).map(Change::Add),
                FlowChange::Modify(text) => parse(text, Use::Modify).map(|flow| Change::Modify { flow, strict: false }),
                FlowChange::ModifyStrict(text) => {
                    parse(text, Use::Modify).map(|flow| Change::Modify { flow, strict: true })
                }
                FlowChange::Delete(text) => {
                    parse(text, Use::Delete { strict: false }).map(|flow| Change::Delete { flow, strict: false })
                }
                FlowChange::DeleteStrict(text) => {
                    parse(text, Use::Delete { strict: true }).map(|flow| Change::Delete { flow, strict: true })
                }
            };
            parsed.map_err(|source| SwitchError::BadFlow { number: index + 1, count: changes.len(), source })
        };
        changes.iter().enumerate().map(read).collect()
    }
}

/// By table, then priority from the highest, then match.
pub(crate) fn sort_flows(flows: &mut [crate::api::switch::Flow]) {
    flows.sort_by(|one, two| {
        let key = |flow: &crate::api::switch::Flow| (flow.table, core::cmp::Reverse(flow.priority));
        key(one).cmp(&key(two)).then_with(|| one.matching.cmp(&two.matching))
    });
}

fn filter_of(flow: &FlowText, strict: Option<u16>) -> Filter<'_> {
    Filter { table: flow.table, matching: &flow.matching, cookie: flow.cookie_filter, out_port: flow.out_port, strict }
}

/// Makes one change. Returns how many flows it touched; `None` if the flow to be added must not overlap and does.
fn apply(bridge: &mut Bridge, change: Change, now: Timestamp, shapes: &mut Shapes) -> Option<usize> {
    Some(match change {
        Change::Add(flow) => {
            if flow.check_overlap && bridge.tables.overlaps(flow.table.unwrap_or(0), flow.priority, &flow.matching) {
                return None;
            }
            bridge.tables.insert(fresh(flow, now, shapes));
            1
        }
        Change::Modify { flow, strict } => {
            let selected = bridge.tables.select(&filter_of(&flow, strict.then_some(flow.priority)));
            if selected.is_empty() {
                // With a new cookie to give, and none asked for, a modification that finds nothing adds.
                if flow.cookie.is_some() && flow.cookie_filter.is_none() {
                    bridge.tables.insert(fresh(flow, now, shapes));
                    return Some(1);
                }
                return Some(0);
            }
            for reference in &selected {
                bridge.tables.modify(*reference, |held| {
                    if let Some(actions) = &flow.actions {
                        held.actions = Arc::clone(actions);
                    }
                    held.cookie = flow.cookie.unwrap_or(held.cookie);
                    held.modified = now;
                    if flow.reset_counts {
                        (held.n_packets, held.n_bytes) = (0, 0);
                    }
                });
            }
            selected.len()
        }
        Change::Delete { flow, strict } => {
            let selected = bridge.tables.select(&filter_of(&flow, strict.then_some(flow.priority)));
            selected.into_iter().filter(|reference| bridge.tables.remove(*reference).is_some()).count()
        }
    })
}

/// The flow as it is when it is added.
pub(super) fn fresh(flow: FlowText, now: Timestamp, shapes: &mut Shapes) -> Box<Flow> {
    Box::new(Flow {
        table: flow.table.unwrap_or(0),
        priority: flow.priority,
        matching: shapes.keep(&flow.matching),
        cookie: flow.cookie.unwrap_or(0),
        actions: flow.actions.unwrap_or_default(),
        idle_timeout: flow.idle_timeout,
        hard_timeout: flow.hard_timeout,
        send_flow_rem: flow.send_flow_rem,
        importance: flow.importance,
        created: now,
        modified: now,
        used: now,
        n_packets: 0,
        n_bytes: 0,
    })
}
