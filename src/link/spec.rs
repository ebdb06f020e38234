//! What is wanted of a link.

use core::fmt;
use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::neigh::NeighbourSpec;
use crate::netns::{NetnsName, Sysctl};
use crate::types::{IfName, Mac, Mtu};
use crate::vxlan::FdbEntry;
use crate::{gre, vxlan};

/// A link as wanted, with what hangs on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSpec {
    /// Its name, unique in its namespace.
    pub name: IfName,
    /// What it is, and who makes it.
    pub kind: LinkKind,
    /// Its MAC; `None`: whatever it has.
    pub mac: Option<Mac>,
    /// Its MTU; `None`: whatever it has.
    pub mtu: Option<Mtu>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Kernel switches to set once the link exists and before it goes up, such as
    /// `net/ipv6/conf/qr-0123456789a/accept_dad`.
    pub sysctls: Vec<Sysctl>,
    /// Its addresses, host bits included. Any other is removed, save those the kernel made itself, and save on a link that
    /// is not ours alone: a loopback, or an [`LinkKind::External`] in the process's own namespace. IPv6 addresses are
    /// added without duplicate address detection: a distributed router's are duplicates by design.
    pub addresses: Vec<IpNet>,
    /// Its PERMANENT neighbour entries. Any other PERMANENT entry is removed, with the same exceptions.
    pub neighbours: Vec<NeighbourSpec>,
    /// The bridge it is a port of, in the same namespace.
    pub controller: Option<IfName>,
    /// The PERMANENT forwarding entries of a [`LinkKind::Vxlan`]. Any other PERMANENT entry is removed.
    pub fdb: BTreeSet<FdbEntry>,
}

impl LinkSpec {
    /// A link of this name and kind, up, with nothing else asked of it.
    #[must_use]
    pub const fn new(name: IfName, kind: LinkKind) -> Self {
        Self {
            name,
            kind,
            mac: None,
            mtu: None,
            up: true,
            sysctls: Vec::new(),
            addresses: Vec::new(),
            neighbours: Vec::new(),
            controller: None,
            fdb: BTreeSet::new(),
        }
    }
}

/// What a link is, and who makes it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum LinkKind {
    /// `lo`: every namespace is born with it.
    Loopback,
    /// Somebody else makes it, such as the switch its TAPs: until then the link is awaited, and no step concerns it.
    External,
    /// One end of a veth pair. Making one end makes both; the other may have a spec of its own, whose kind must then point
    /// back here, and is otherwise just set up.
    Veth {
        /// The other end's name.
        peer: IfName,
        /// The namespace the other end is in.
        peer_netns: NetnsName,
    },
    /// A bridge.
    Bridge,
    /// A VXLAN device, whose packets are those of the process's own namespace.
    Vxlan(vxlan::DeviceSpec),
    /// A GRE device, whose packets are those of the process's own namespace.
    Gre(gre::DeviceSpec),
}

impl LinkKind {
    /// The kernel's word for it (`IFLA_INFO_KIND`), where only one will do.
    #[must_use]
    pub const fn kernel_word(&self) -> Option<&'static str> {
        match self {
            Self::Loopback | Self::External => None,
            Self::Veth { .. } => Some("veth"),
            Self::Bridge => Some("bridge"),
            Self::Vxlan(_) => Some("vxlan"),
            Self::Gre(device) => Some(device.kernel_word()),
        }
    }
}

impl fmt::Display for LinkKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => out.write_str("loopback"),
            Self::External => out.write_str("external"),
            Self::Veth { peer, peer_netns } => write!(out, "veth to {peer} in {peer_netns}"),
            Self::Bridge => out.write_str("bridge"),
            Self::Vxlan(device) => write!(out, "vxlan {} from {}", device.vni, device.local),
            Self::Gre(device) => write!(out, "{} {} to {}", device.kernel_word(), device.key, device.remote),
        }
    }
}
