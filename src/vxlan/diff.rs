//! Which forwarding entries to write and to remove; and the steps on a device.

use core::fmt;
use std::collections::BTreeSet;

use crate::types::IfName;

use super::{DeviceSpec, FdbEntry, FdbState};

/// One step on a VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VxlanOp {
    /// Make a device whose packets leave and arrive in the process's own namespace, wherever the device is.
    Create {
        /// Its name.
        name: IfName,
        /// What it is.
        device: DeviceSpec,
    },
    /// Write these entries: a station's in place of the one it had, a flood's beside those there are.
    SetFdb {
        /// The device.
        device: IfName,
        /// The entries, in order.
        entries: Vec<FdbEntry>,
    },
    /// Remove these entries. One that is gone already is no error.
    RemoveFdb {
        /// The device.
        device: IfName,
        /// The entries, in order.
        entries: Vec<FdbEntry>,
    },
}

/// How many entries an op prints before it says "and N more".
const PRINTED_MAX: usize = 4;

impl fmt::Display for VxlanOp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create { name, device: DeviceSpec { vni, local, udp_port } } => {
                write!(out, "add vxlan {name} id {vni} local {local} dstport {udp_port}")
            }
            Self::SetFdb { device, entries } => listed(out, "set fdb of", device, entries),
            Self::RemoveFdb { device, entries } => listed(out, "remove fdb of", device, entries),
        }
    }
}

fn listed(out: &mut fmt::Formatter<'_>, verb: &str, device: &IfName, entries: &[FdbEntry]) -> fmt::Result {
    write!(out, "{verb} {device}:")?;
    for (index, entry) in entries.iter().take(PRINTED_MAX).enumerate() {
        write!(out, "{} {entry}", if index == 0 { "" } else { "," })?;
    }
    match entries.len().saturating_sub(PRINTED_MAX) {
        0 => Ok(()),
        more => write!(out, ", and {more} more"),
    }
}

/// The changes that make `device`'s PERMANENT entries exactly `desired`. The device is ours alone, so any other PERMANENT
/// entry is one that is no longer wanted.
///
/// A station that moved is written over, not removed and added: in between its frames would go to every node.
#[must_use]
pub fn diff(device: &IfName, desired: &BTreeSet<FdbEntry>, observed: &[FdbState]) -> Vec<VxlanOp> {
    let there: BTreeSet<FdbEntry> = observed.iter().filter(|state| state.permanent).map(|state| state.entry).collect();
    let is_overwritten = |old: &FdbEntry| {
        !old.is_flood()
            && desired.iter().any(|new| new.mac == old.mac && !there.contains(new))
            && there.iter().filter(|other| other.mac == old.mac).count() == 1
    };
    let gone: Vec<FdbEntry> = there.difference(desired).filter(|entry| !is_overwritten(entry)).copied().collect();
    let new: Vec<FdbEntry> = desired.difference(&there).copied().collect();
    let mut ops = Vec::new();
    if !gone.is_empty() {
        ops.push(VxlanOp::RemoveFdb { device: device.clone(), entries: gone });
    }
    if !new.is_empty() {
        ops.push(VxlanOp::SetFdb { device: device.clone(), entries: new });
    }
    ops
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::Mac;

    fn entry(mac: u8, remote: u8) -> FdbEntry {
        let mac = if mac == 0 { Mac::ZERO } else { Mac::new([2, 0, 0, 0, 0, mac]) };
        FdbEntry { mac, remote: [10, 0, 0, remote].into() }
    }

    fn state(mac: u8, remote: u8, permanent: bool) -> FdbState {
        FdbState { entry: entry(mac, remote), permanent }
    }

    fn printed(desired: &[FdbEntry], observed: &[FdbState]) -> Vec<String> {
        let device = IfName::new("vx-7").expect("a legal name");
        diff(&device, &desired.iter().copied().collect(), observed).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn writes_what_differs_and_removes_permanent_entries_only() {
        let desired = [entry(0, 2), entry(0, 3), entry(1, 2), entry(2, 3)];
        let observed = [state(0, 2, true), state(0, 4, true), state(1, 2, true), state(2, 2, true), state(9, 2, false)];
        assert_eq!(
            printed(&desired, &observed),
            [
                "remove fdb of vx-7: flood to 10.0.0.4",
                "set fdb of vx-7: flood to 10.0.0.3, 02:00:00:00:00:02 to 10.0.0.3"
            ]
        );
        assert_eq!(printed(&desired, &desired.map(|entry| FdbState { entry, permanent: true })), [""; 0]);
    }

    #[test]
    fn a_station_in_two_places_keeps_one() {
        let observed = [state(1, 2, true), state(1, 3, true)];
        assert_eq!(printed(&[entry(1, 3)], &observed), ["remove fdb of vx-7: 02:00:00:00:00:01 to 10.0.0.2"]);
    }

    proptest! {
        /// Carried out as the kernel does, the steps end at what is wanted, and then there are none.
        #[test]
        fn the_steps_lead_there(
            desired in proptest::collection::btree_map(1_u8..5, 2_u8..5, 0..4),
            flood in proptest::collection::btree_set(2_u8..6, 0..4),
            observed in proptest::collection::btree_set((0_u8..5, 2_u8..6), 0..8),
        ) {
            let device = IfName::new("vx-7").expect("a legal name");
            let wanted: BTreeSet<FdbEntry> =
                desired.into_iter().chain(flood.into_iter().map(|to| (0, to))).map(|(mac, to)| entry(mac, to)).collect();
            let mut there: BTreeSet<FdbEntry> = observed.into_iter().map(|(mac, to)| entry(mac, to)).collect();
            let states = |there: &BTreeSet<FdbEntry>| -> Vec<FdbState> {
                there.iter().map(|entry| FdbState { entry: *entry, permanent: true }).collect()
            };
            for op in diff(&device, &wanted, &states(&there)) {
                match op {
                    VxlanOp::Create { .. } => prop_assert!(false, "nothing is to be made"),
                    VxlanOp::RemoveFdb { entries, .. } => {
                        entries.iter().for_each(|entry| prop_assert_removed(&mut there, entry));
                    }
                    VxlanOp::SetFdb { entries, .. } => for new in entries {
                        if !new.is_flood() {
                            there.retain(|old| old.mac != new.mac);
                        }
                        there.insert(new);
                    },
                }
            }
            prop_assert_eq!(&there, &wanted);
            prop_assert_eq!(diff(&device, &wanted, &states(&there)), vec![]);
        }
    }

    fn prop_assert_removed(there: &mut BTreeSet<FdbEntry>, entry: &FdbEntry) {
        assert!(there.remove(entry), "{entry} is not there to be removed");
    }
}
