//! Which neighbour entries to write and to remove.

use core::fmt;
use core::net::IpAddr;
use std::borrow::Cow;
use std::collections::BTreeMap;

use hashbrown::HashMap;

use crate::types::{IfName, Mac};

use super::{NeighbourSpec, NeighbourState};

/// A change to one link's neighbour entries. Entries travel in bulk: a router may have ten thousand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NeighOp {
    /// Write these PERMANENT entries, over whatever state an entry for the address is in.
    Replace {
        /// The link.
        link: IfName,
        /// The entries, by address.
        entries: Vec<NeighbourSpec>,
    },
    /// Remove the entries for these addresses.
    Remove {
        /// The link.
        link: IfName,
        /// The addresses, in order.
        ips: Vec<IpAddr>,
    },
}

/// How many entries an op prints before it says "and N more".
const PRINTED_MAX: usize = 4;

impl fmt::Display for NeighOp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replace { link, entries } => listed(out, "set neighbours of", link, entries),
            Self::Remove { link, ips } => listed(out, "remove neighbours of", link, ips),
        }
    }
}

fn listed(out: &mut fmt::Formatter<'_>, verb: &str, link: &IfName, items: &[impl fmt::Display]) -> fmt::Result {
    write!(out, "{verb} {link}:")?;
    for (index, item) in items.iter().take(PRINTED_MAX).enumerate() {
        write!(out, "{} {item}", if index == 0 { "" } else { "," })?;
    }
    match items.len().saturating_sub(PRINTED_MAX) {
        0 => Ok(()),
        more => write!(out, ", and {more} more"),
    }
}

/// The changes that make `link`'s PERMANENT entries exactly `desired`; entries in other states are the kernel's own and
/// stay unless an entry for their address is wanted.
///
/// When two wanted entries name one address, the later one counts.
#[must_use]
pub fn diff(link: &IfName, desired: &[NeighbourSpec], observed: &[NeighbourState]) -> Vec<NeighOp> {
    // Mostly it is in order already, and long.
    let wanted: Cow<'_, [NeighbourSpec]> = if desired.is_sorted_by(|one, other| one.ip < other.ip) {
        Cow::Borrowed(desired)
    } else {
        let last: BTreeMap<IpAddr, NeighbourSpec> = desired.iter().map(|spec| (spec.ip, *spec)).collect();
        Cow::Owned(last.into_values().collect())
    };
    let present: HashMap<IpAddr, Mac> =
        observed.iter().filter_map(NeighbourState::project).map(|spec| (spec.ip, spec.mac)).collect();
    let is_wanted = |ip: &IpAddr| wanted.binary_search_by(|spec| spec.ip.cmp(ip)).is_ok();
    let mut ips: Vec<IpAddr> =
        observed.iter().filter(|state| state.permanent && !is_wanted(&state.ip)).map(|state| state.ip).collect();
    ips.sort_unstable();
    let entries: Vec<NeighbourSpec> =
        wanted.iter().filter(|spec| present.get(&spec.ip) != Some(&spec.mac)).copied().collect();
    let mut ops = Vec::new();
    if !ips.is_empty() {
        ops.push(NeighOp::Remove { link: link.clone(), ips });
    }
    if !entries.is_empty() {
        ops.push(NeighOp::Replace { link: link.clone(), entries });
    }
    ops
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(ip: &str, last: u8) -> NeighbourSpec {
        NeighbourSpec { ip: ip.parse().expect("an address"), mac: Mac::new([2, 0, 0, 0, 0, last]) }
    }

    fn state(ip: &str, last: u8, permanent: bool) -> NeighbourState {
        let NeighbourSpec { ip, mac } = entry(ip, last);
        NeighbourState { ip, mac: Some(mac), permanent }
    }

    #[test]
    fn writes_what_differs_and_removes_only_permanent_entries() {
        let link = IfName::new("qr-1").expect("a legal name");
        // In no order, and with one that a later one overrules.
        let desired = [
            entry("fd00::1", 4),
            entry("10.0.0.1", 1),
            entry("10.0.0.2", 7),
            entry("10.0.0.3", 3),
            entry("10.0.0.2", 2),
        ];
        let observed = [
            state("10.0.0.1", 1, true),
            state("10.0.0.2", 9, true),
            state("10.0.0.3", 3, false),
            state("10.0.0.8", 8, true),
            state("10.0.0.9", 9, false),
        ];
        let ops = diff(&link, &desired, &observed);
        let sorted: BTreeMap<IpAddr, NeighbourSpec> = desired.iter().map(|entry| (entry.ip, *entry)).collect();
        assert_eq!(
            ops,
            diff(&link, &sorted.into_values().collect::<Vec<_>>(), &observed),
            "in order it means the same"
        );
        let printed: Vec<String> = ops.iter().map(ToString::to_string).collect();
        assert_eq!(
            printed,
            [
                "remove neighbours of qr-1: 10.0.0.8",
                "set neighbours of qr-1: 10.0.0.2 lladdr 02:00:00:00:00:02, 10.0.0.3 lladdr 02:00:00:00:00:03, \
                 fd00::1 lladdr 02:00:00:00:00:04",
            ]
        );
    }

    #[test]
    fn a_long_list_is_cut() {
        let link = IfName::new("qr-1").expect("a legal name");
        let ips = (1..=6).map(|last| IpAddr::from([10, 0, 0, last])).collect();
        let op = NeighOp::Remove { link, ips };
        assert_eq!(op.to_string(), "remove neighbours of qr-1: 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, and 2 more");
    }
}
