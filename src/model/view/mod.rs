//! What one node must hold: the outcome of placement, complete and checked, with every name resolved; and how it
//! changes, one [`ViewChange`] at a time.

mod change;
mod segment;

use core::net::IpAddr;
use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::resource::ClaimedAddress;
use crate::types::{IfName, Mac, Mtu, PhysicalNetwork};

pub use change::{EARLY_MOST, Early, ViewChange};
pub use segment::{NetworkKind, Segment, TunnelKind};

/// The interfaces by which a node is on physical networks.
pub type BridgeMappings = BTreeMap<PhysicalNetwork, IfName>;

/// Everything one node's agent needs to know, and nothing about networks the node does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// This node.
    pub node: Peer,
    /// The MTU of the underlay.
    pub underlay_mtu: Mtu,
    /// The UDP port of VXLAN on every node.
    #[serde(default = "vxlan_port")]
    pub vxlan_port: u16,
    /// The interfaces by which this node is on physical networks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bridge_mappings: BridgeMappings,
    /// Every other node, by name: their host MACs must be known before any frame of theirs arrives.
    pub peers: Vec<Peer>,
    /// The networks this node has a port on, a router's included, by name.
    pub networks: Vec<NetworkView>,
    /// The routers this node holds, by name.
    pub routers: Vec<RouterView>,
    /// What makes its tunnels: the node's own choice, and no part of what it is told.
    #[serde(default, skip_serializing_if = "Backend::is_userspace")]
    pub backend: Backend,
    /// What arrived before the network it belongs to; empty in a complete view.
    #[serde(default, skip_serializing_if = "Early::is_empty")]
    pub early: Early,
}

const fn vxlan_port() -> u16 {
    crate::wire::vxlan::PORT
}

/// What makes a node's tunnels. Both put the same octets on the wire, so nodes need not agree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// The switch, by sockets: a port of br-tun for each remote node.
    #[default]
    Userspace,
    /// The kernel, by devices that are ports of br-tun: for VXLAN one a network, for GRE one a network and remote node.
    Kernel,
}

impl Backend {
    /// Its name in listings and arguments.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Userspace => "userspace",
            Self::Kernel => "kernel",
        }
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls takes a reference")]
    const fn is_userspace(&self) -> bool {
        matches!(self, Self::Userspace)
    }
}

/// A node as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its tunnel endpoint.
    pub tunnel_ip: IpAddr,
    /// The MAC that stands for every router on its wire (Neutron's DVR host MAC, `fa:16:3f:…`).
    pub host_mac: Mac,
}

/// A network, wherever it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
    /// What carries it between nodes.
    #[serde(flatten)]
    pub segment: Segment,
    /// The MTU of everything on it.
    pub mtu: Mtu,
    /// Its subnets, in the order given; no two overlap.
    pub subnets: Vec<SubnetView>,
}

/// A network as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkView {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
    /// What carries it between nodes.
    #[serde(flatten)]
    pub segment: Segment,
    /// The MTU of everything on it.
    pub mtu: Mtu,
    /// Its subnets, in the order given.
    pub subnets: Vec<SubnetView>,
    /// Ports of virtual machines on this node, by name.
    pub local_ports: Vec<PortView>,
    /// Ports on other nodes, by name.
    pub remote_ports: Vec<RemotePort>,
    /// Other nodes that have the network, by name: where a flood goes.
    pub flood: Vec<String>,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubnetView {
    /// Its prefix, with no host bits.
    pub cidr: IpNet,
    /// The gateway's address, which a router interface bears if there is one; the first host address if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Whether machines that ask are told what they need to know of it: by DHCP their address, the gateway and the MTU, or
    /// in router advertisements the prefix and the MTU. Left out: in networks of tunnels, for a physical network may have
    /// somebody else who does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<bool>,
}

/// A virtual machine's port on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortView {
    /// The virtual machine's name, unique in the topology.
    pub name: String,
    /// The port's id.
    pub id: Uuid,
    /// The port's name on br-int.
    pub port: IfName,
    /// Its address.
    pub mac: Mac,
    /// Its IP addresses, each with its subnet's prefix length.
    pub addresses: Vec<IpNet>,
    /// Where default routes point, at most one a family.
    pub gateways: Vec<IpAddr>,
    /// What it is attached to.
    pub attach: Attachment,
    /// Whether the machine is still on its way here (live migration): the port is ready, and traffic for it goes to the
    /// node where it is a remote port's.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub standby: bool,
    /// Whether the port may speak only as itself and its allowed pairs.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub port_security: bool,
    /// Addresses besides its own that it may speak as.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<AllowedPair>,
    /// Those of them that it has taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claimed: Vec<ClaimedAddress>,
}

/// An address pair a port may speak as besides its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowedPair {
    /// The addresses.
    pub ip: IpNet,
    /// The MAC they are spoken for with.
    pub mac: Mac,
}

/// What a port is attached to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attachment {
    /// A namespace that stands for the machine; the agent makes it and the interface in it, and configures both.
    Netns {
        /// The namespace's name.
        netns: String,
        /// The interface's name in it.
        ifname: IfName,
    },
    /// An interface that somebody else made and configures, such as a hypervisor's TAP.
    Device {
        /// Its name in the node's own namespace.
        device: IfName,
    },
}

/// A port on another node: a virtual machine's, or an interface of a router that lives there alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemotePort {
    /// The virtual machine's name, or `router` and the router's, which no machine can be called.
    pub name: String,
    /// Its address.
    pub mac: Mac,
    /// Its IP addresses.
    pub ips: Vec<IpAddr>,
    /// The node it is on.
    pub node: String,
    /// Whether it is a router's interface.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub router: bool,
    /// Addresses it has taken besides its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claimed: Vec<ClaimedAddress>,
}

/// A router as one node holds it: the same on every node that does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterView {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
    /// The namespace it lives in: `qrouter-<id>`.
    pub netns: String,
    /// The one node it lives on, if it is not distributed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its interfaces, in the order given.
    pub interfaces: Vec<RouterPort>,
}

/// A router's interface: one a network, with an address in each of the network's subnets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterPort {
    /// The port's id.
    pub id: Uuid,
    /// `qr-` and the first 11 characters of the id.
    pub ifname: IfName,
    /// The name of the network it is on.
    pub network: String,
    /// Its address, the same on every node.
    pub mac: Mac,
    /// Its IP addresses with their prefix lengths, the same on every node.
    pub addresses: Vec<IpNet>,
}
