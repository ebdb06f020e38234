//! What carries a network's frames between nodes: a tunnel with a key, or a VLAN of a physical network.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::types::{PhysicalNetwork, VlanId, Vni};
use crate::{gre, vxlan};

/// A network's type, as documents have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkKind {
    /// VXLAN (RFC 7348): UDP.
    #[default]
    Vxlan,
    /// GRE with a key (RFC 2784, RFC 2890): an IP protocol of its own.
    Gre,
    /// A VLAN of a physical network (IEEE 802.1Q).
    Vlan,
    /// A physical network's untagged frames.
    Flat,
}

impl NetworkKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Vxlan, Self::Gre, Self::Vlan, Self::Flat];

    /// Its name in documents and listings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Gre => "gre",
            Self::Vlan => "vlan",
            Self::Flat => "flat",
        }
    }

    /// The tunnels that carry it; `None` on a physical network.
    #[must_use]
    pub const fn tunnel(self) -> Option<TunnelKind> {
        match self {
            Self::Vxlan => Some(TunnelKind::Vxlan),
            Self::Gre => Some(TunnelKind::Gre),
            Self::Vlan | Self::Flat => None,
        }
    }
}

/// A kind of tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TunnelKind {
    /// VXLAN.
    Vxlan,
    /// GRE with a key.
    Gre,
}

impl TunnelKind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Vxlan, Self::Gre];

    /// What a frame's way through a tunnel takes of the underlay's MTU.
    #[must_use]
    pub const fn overhead_octets(self, endpoint: IpAddr) -> u32 {
        match self {
            Self::Vxlan => vxlan::overhead_octets(endpoint),
            Self::Gre => gre::overhead_octets(endpoint),
        }
    }
}

/// Where a network's frames are between nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Segment {
    /// In VXLAN tunnels.
    Vxlan {
        /// Their key.
        vni: Vni,
    },
    /// In GRE tunnels.
    Gre {
        /// Their key, of as many bits as a VNI.
        vni: Vni,
    },
    /// Tagged on a physical network.
    Vlan {
        /// The physical network.
        physical_network: PhysicalNetwork,
        /// The tag.
        vlan: VlanId,
    },
    /// Untagged on a physical network.
    Flat {
        /// The physical network.
        physical_network: PhysicalNetwork,
    },
}

impl Segment {
    /// The network's type.
    #[must_use]
    pub const fn kind(&self) -> NetworkKind {
        match self {
            Self::Vxlan { .. } => NetworkKind::Vxlan,
            Self::Gre { .. } => NetworkKind::Gre,
            Self::Vlan { .. } => NetworkKind::Vlan,
            Self::Flat { .. } => NetworkKind::Flat,
        }
    }

    /// The kind of its tunnels and their key, if tunnels carry it.
    #[must_use]
    pub const fn tunnel(&self) -> Option<(TunnelKind, Vni)> {
        match self {
            Self::Vxlan { vni } => Some((TunnelKind::Vxlan, *vni)),
            Self::Gre { vni } => Some((TunnelKind::Gre, *vni)),
            Self::Vlan { .. } | Self::Flat { .. } => None,
        }
    }

    /// Its key, if tunnels carry it.
    #[must_use]
    pub const fn vni(&self) -> Option<Vni> {
        match self {
            Self::Vxlan { vni } | Self::Gre { vni } => Some(*vni),
            Self::Vlan { .. } | Self::Flat { .. } => None,
        }
    }

    /// Its physical network, if one carries it.
    #[must_use]
    pub const fn physical_network(&self) -> Option<&PhysicalNetwork> {
        match self {
            Self::Vxlan { .. } | Self::Gre { .. } => None,
            Self::Vlan { physical_network, .. } | Self::Flat { physical_network } => Some(physical_network),
        }
    }

    /// Its tag on the physical network, if it has one.
    #[must_use]
    pub const fn vlan(&self) -> Option<VlanId> {
        match self {
            Self::Vlan { vlan, .. } => Some(*vlan),
            Self::Vxlan { .. } | Self::Gre { .. } | Self::Flat { .. } => None,
        }
    }
}
