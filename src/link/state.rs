//! What is there: a link as the kernel tells it.

use ipnet::IpNet;

use crate::neigh::NeighbourState;
use crate::types::{IfName, Mac};
use crate::{gre, vxlan};

use super::LinkKind;

/// A link, with what hangs on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LinkState {
    /// Its number in its namespace.
    pub index: u32,
    /// Its kind in the kernel's word (`IFLA_INFO_KIND`); `None` for hardware and loopback.
    pub kind: Option<String>,
    /// Its MAC; `None` when it has none of six octets.
    pub mac: Option<Mac>,
    /// Its MTU in octets.
    pub mtu: u32,
    /// Whether it is administratively up (`IFF_UP`).
    pub up: bool,
    /// The index of the bridge or other device it is a port of (`IFLA_MASTER`).
    pub controller: Option<u32>,
    /// The index of the other end, or of the device below (`IFLA_LINK`), in that one's namespace.
    pub peer: Option<u32>,
    /// Its addresses.
    pub addresses: Vec<AddressState>,
    /// Its neighbour entries.
    pub neighbours: Vec<NeighbourState>,
    /// What it is as a tunnel, if it is one.
    pub tunnel: Option<TunnelState>,
    /// Its forwarding entries that lead to other nodes, if it is a VXLAN device.
    pub fdb: Vec<vxlan::FdbState>,
}

/// What a link is as a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelState {
    /// A VXLAN device.
    Vxlan(vxlan::DeviceState),
    /// A GRE device.
    Gre(gre::DeviceState),
}

impl TunnelState {
    /// Whether it is what a link of this kind is to be; of kinds that are no tunnels every link is.
    #[must_use]
    pub fn suits(found: Option<&Self>, kind: &LinkKind) -> bool {
        match (kind, found) {
            (LinkKind::Vxlan(spec), Some(Self::Vxlan(state))) => state.is(spec),
            (LinkKind::Gre(spec), Some(Self::Gre(state))) => state.is(spec),
            (LinkKind::Vxlan(_) | LinkKind::Gre(_), _) => false,
            (LinkKind::Loopback | LinkKind::External | LinkKind::Veth { .. } | LinkKind::Bridge, _) => true,
        }
    }
}

/// An address of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressState {
    /// The address and its prefix length.
    pub address: IpNet,
    /// Whether IPv4 holds it as a secondary, which goes when its primary goes (`IFA_F_SECONDARY`).
    pub secondary: bool,
    /// Whether the kernel made it by itself: loopback's own, an IPv6 link-local, one from a router advertisement.
    pub kernel_made: bool,
}

/// The links of a namespace, by name.
pub type Links = std::collections::BTreeMap<IfName, LinkState>;
