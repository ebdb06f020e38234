//! What to change on a link, and on its addresses.

use core::fmt;

use ipnet::IpNet;

use crate::netns::NetnsName;
use crate::types::{IfName, Mac, Mtu};

use super::{LinkSpec, LinkState};

/// One step on one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkOp {
    /// Make a veth pair, this end here and the other end directly where it belongs.
    CreateVeth {
        /// This end.
        name: IfName,
        /// The other end.
        peer: IfName,
        /// The other end's namespace.
        peer_netns: NetnsName,
    },
    /// Delete a link; a veth takes its other end along. One that is gone already is no error.
    Delete(IfName),
    /// Set what has a value here.
    Set {
        /// The link.
        name: IfName,
        /// The MAC to set.
        mac: Option<Mac>,
        /// The MTU to set.
        mtu: Option<Mtu>,
    },
    /// Set the link up.
    Up(IfName),
    /// Set the link down.
    Down(IfName),
    /// Add an address.
    AddAddress {
        /// The link.
        name: IfName,
        /// The address.
        address: IpNet,
    },
    /// Remove an address. One that is gone already is no error.
    RemoveAddress {
        /// The link.
        name: IfName,
        /// The address.
        address: IpNet,
    },
}

impl fmt::Display for LinkOp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateVeth { name, peer, peer_netns } => {
                write!(out, "add veth {name} with peer {peer} in {peer_netns}")
            }
            Self::Delete(name) => write!(out, "delete link {name}"),
            Self::Set { name, mac, mtu } => {
                write!(out, "set {name}")?;
                if let Some(mac) = mac {
                    write!(out, " address {mac}")?;
                }
                if let Some(mtu) = mtu {
                    write!(out, " mtu {mtu}")?;
                }
                Ok(())
            }
            Self::Up(name) => write!(out, "set {name} up"),
            Self::Down(name) => write!(out, "set {name} down"),
            Self::AddAddress { name, address } => write!(out, "add address {address} to {name}"),
            Self::RemoveAddress { name, address } => write!(out, "remove address {address} from {name}"),
        }
    }
}

/// The MAC and MTU to set.
#[must_use]
pub fn attributes(desired: &LinkSpec, observed: &LinkState) -> Option<LinkOp> {
    let mac = desired.mac.filter(|mac| observed.mac != Some(*mac));
    let mtu = desired.mtu.filter(|mtu| observed.mtu != mtu.get());
    (mac.is_some() || mtu.is_some()).then(|| LinkOp::Set { name: desired.name.clone(), mac, mtu })
}

/// The step that makes the administrative state right.
#[must_use]
pub fn admin_state(desired: &LinkSpec, observed: &LinkState) -> Option<LinkOp> {
    match (desired.up, observed.up) {
        (true, false) => Some(LinkOp::Up(desired.name.clone())),
        (false, true) => Some(LinkOp::Down(desired.name.clone())),
        (true, true) | (false, false) => None,
    }
}

/// The steps that make the link's addresses exactly the wanted ones, beside those the kernel made.
///
/// Removing an IPv4 primary takes its secondaries along, unless `promote_secondaries` is set. So a wanted secondary under
/// a doomed primary is removed and added again: the result is the same under either setting.
#[must_use]
pub fn addresses(desired: &LinkSpec, observed: &LinkState) -> Vec<LinkOp> {
    let wanted = |address: &IpNet| desired.addresses.contains(address);
    let doomed_primary = |address: &IpNet| {
        observed.addresses.iter().any(|state| {
            !state.secondary
                && !state.kernel_made
                && !wanted(&state.address)
                && matches!(state.address, IpNet::V4(_))
                && state.address.trunc() == address.trunc()
        })
    };
    let doomed: Vec<(bool, IpNet)> = observed
        .addresses
        .iter()
        .filter(|state| match wanted(&state.address) {
            true => state.secondary && doomed_primary(&state.address),
            false => !state.kernel_made,
        })
        .map(|state| (state.secondary, state.address))
        .collect();
    let (secondary, primary): (Vec<_>, Vec<_>) = doomed.iter().partition(|(secondary, _)| *secondary);
    let removals = secondary
        .into_iter()
        .chain(primary)
        .map(|(_, address)| LinkOp::RemoveAddress { name: desired.name.clone(), address });
    let kept = |address: &IpNet| {
        observed.addresses.iter().any(|state| state.address == *address)
            && !doomed.iter().any(|(_, removed)| removed == address)
    };
    let additions = desired
        .addresses
        .iter()
        .enumerate()
        .filter(|(index, address)| !kept(address) && !desired.addresses[..*index].contains(address))
        .map(|(_, address)| LinkOp::AddAddress { name: desired.name.clone(), address: *address });
    removals.chain(additions).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{AddressState, LinkKind};

    fn spec(addresses: &[&str]) -> LinkSpec {
        let mut spec = LinkSpec::new(IfName::new("qr-1").expect("a legal name"), LinkKind::External);
        spec.addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
        spec
    }

    fn state(addresses: &[(&str, bool, bool)]) -> LinkState {
        let address = |(text, secondary, kernel_made): &(&str, bool, bool)| AddressState {
            address: text.parse().expect("an address"),
            secondary: *secondary,
            kernel_made: *kernel_made,
        };
        LinkState { addresses: addresses.iter().map(address).collect(), ..LinkState::default() }
    }

    fn printed(ops: &[LinkOp]) -> Vec<String> {
        ops.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_the_kernel_made_stays() {
        let observed =
            state(&[("fe80::1/64", false, true), ("fe80::2/64", false, false), ("10.0.0.1/24", false, false)]);
        let ops = addresses(&spec(&["10.0.0.1/24", "fd00::1/64", "fd00::1/64"]), &observed);
        assert_eq!(printed(&ops), ["remove address fe80::2/64 from qr-1", "add address fd00::1/64 to qr-1"]);
    }

    #[test]
    fn a_secondary_survives_its_primary() {
        let observed =
            state(&[("10.0.0.1/24", false, false), ("10.0.0.2/24", true, false), ("10.1.0.2/24", false, false)]);
        let ops = addresses(&spec(&["10.0.0.2/24", "10.1.0.2/24"]), &observed);
        assert_eq!(
            printed(&ops),
            [
                "remove address 10.0.0.2/24 from qr-1",
                "remove address 10.0.0.1/24 from qr-1",
                "add address 10.0.0.2/24 to qr-1",
            ]
        );
    }

    #[test]
    fn a_changed_prefix_length_is_another_address() {
        let ops = addresses(&spec(&["10.0.0.1/16"]), &state(&[("10.0.0.1/24", false, false)]));
        assert_eq!(printed(&ops), ["remove address 10.0.0.1/24 from qr-1", "add address 10.0.0.1/16 to qr-1"]);
    }

    #[test]
    fn sets_only_what_differs() {
        let mut desired = spec(&[]);
        desired.mac = Some(Mac::new([2, 0, 0, 0, 0, 1]));
        desired.mtu = Mtu::new(1450).ok();
        let mut observed = LinkState { mac: desired.mac, mtu: 1500, up: false, ..LinkState::default() };
        assert_eq!(attributes(&desired, &observed).map(|op| op.to_string()).as_deref(), Some("set qr-1 mtu 1450"));
        assert_eq!(admin_state(&desired, &observed).map(|op| op.to_string()).as_deref(), Some("set qr-1 up"));
        observed.mtu = 1450;
        observed.up = true;
        assert_eq!((attributes(&desired, &observed), admin_state(&desired, &observed)), (None, None));
    }
}
