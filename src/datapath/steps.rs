//! What takes long on a switch that workers share, in steps short enough for the frames that wait for it.
//!
//! A worker needs the switch for what its cache does not know. So texts are read and printed by what was copied from
//! the switch, and only what must be one change is one step.

use std::sync::Mutex;

use super::book::replacement;
use super::bridge::PortNumbers;
use super::error::SwitchError;
use super::flows::sort_flows;
use super::switch::Switch;
use super::text::{FlowText, Use};
use super::worker::locked;
use crate::api::switch::{Flow, FlowChange, Synced};
use crate::types::{IfName, Timestamp};

/// Flows copied in one step.
const DUMP_STEP: usize = 256;
/// How often changes are read again because ports that their texts may name have changed meanwhile.
const READ_LIMIT: usize = 4;

/// Makes changes as [`Switch::change_flows`] does. The switch is locked for the changes themselves, not to read them.
///
/// # Errors
/// As [`Switch::change_flows`].
pub fn change_flows(
    switch: &Mutex<Switch>,
    bridge: &IfName,
    changes: &[FlowChange],
    now: Timestamp,
) -> Result<usize, SwitchError> {
    for _ in 0..READ_LIMIT {
        let ports = locked(switch).port_numbers(bridge)?;
        let read = ports.read(changes)?;
        let mut switch = locked(switch);
        if switch.has_ports_as(bridge, &ports)? {
            return switch.apply_flows(bridge, read, now);
        }
    }
    // Ports come and go faster than texts are read: they have to wait for once.
    locked(switch).change_flows(bridge, changes, now)
}

/// Makes the flows under a cookie those of `text` as [`Switch::sync_flows`] does. The switch is locked for the comparison
/// and the changes, not to read the text.
///
/// # Errors
/// As [`Switch::sync_flows`].
pub fn sync_flows(
    switch: &Mutex<Switch>,
    bridge: &IfName,
    (cookie, text): (u64, &str),
    now: Timestamp,
) -> Result<Synced, SwitchError> {
    for _ in 0..READ_LIMIT {
        let ports = locked(switch).port_numbers(bridge)?;
        let wanted = ports.read_lines(text, cookie, now)?;
        let mut switch = locked(switch);
        if switch.has_ports_as(bridge, &ports)? {
            return switch.apply_sync(bridge, cookie, wanted);
        }
    }
    locked(switch).sync_flows(bridge, cookie, text, now)
}

/// Makes a bridge's flows these, as a dump tells them, at one instant; flows that are alike stay as they are. Returns how
/// many flows were added, modified or removed. The switch is locked for the changes themselves, unless its tables keep
/// changing while they are compared.
///
/// # Errors
/// As [`Switch::change_flows`].
pub fn replace_flows(
    switch: &Mutex<Switch>,
    bridge: &IfName,
    wanted: &[Flow],
    now: Timestamp,
) -> Result<usize, SwitchError> {
    for _ in 0..READ_LIMIT {
        let revision = locked(switch).revisions().current();
        let changes = replacement(&dump_flows(switch, bridge, "", false, now)?, wanted);
        let ports = locked(switch).port_numbers(bridge)?;
        let read = ports.read(&changes)?;
        let mut switch = locked(switch);
        // Any change, of ports too, is published as a revision.
        if switch.revisions().current() == revision {
            return switch.apply_flows(bridge, read, now);
        }
    }
    let mut switch = locked(switch);
    let changes = replacement(&switch.dump_flows(bridge, "", false, now)?, wanted);
    switch.change_flows(bridge, &changes, now)
}

/// The flows of a bridge as [`Switch::dump_flows`] has them, but not of one instant: those that are gone before their
/// turn are left out. The switch is locked to find them and to copy a few at a time, not to print them.
///
/// # Errors
/// As [`Switch::dump_flows`].
pub fn dump_flows(
    switch: &Mutex<Switch>,
    bridge: &IfName,
    filter: &str,
    names: bool,
    now: Timestamp,
) -> Result<Vec<Flow>, SwitchError> {
    let ports: PortNumbers = locked(switch).port_numbers(bridge)?;
    let ports = ports.shown(names);
    let wanted = FlowText::parse(filter, Use::Filter, &ports).map_err(SwitchError::BadFilter)?;
    let selected = locked(switch).select_flows(bridge, &wanted)?;
    let mut flows = Vec::with_capacity(selected.len());
    for some in selected.chunks(DUMP_STEP) {
        let copied = locked(switch).copy_flows(bridge, some)?;
        flows.extend(copied.iter().map(|flow| super::dump::flow(flow, &ports, now)));
    }
    sort_flows(&mut flows);
    Ok(flows)
}
