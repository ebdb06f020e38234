//! What the command line asks of an agent.

use core::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::types::{self, IfName, Mac, Mtu, VlanId, Vni};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Opens a conversation; answered with [`Hello`].
    Hello {
        /// The client's [`super::VERSION`].
        version: u32,
    },
    /// What the node holds; answered with [`Show`].
    Show,
    /// Waits until the node has converged on its desired state; answered with [`Converged`].
    Wait {
        /// How long at most, in milliseconds.
        timeout_millis: u64,
    },
    /// The permanent neighbours of its routers; answered with a list of [`Neighbour`].
    Neighbours,
    /// What the ARP and ND responders answer; answered with a list of [`Responder`].
    Responders,
    /// Where a router or a machine of the node sends what is for an address, by the kernel's routes and neighbours as
    /// they are now; answered with [`Route`].
    Route {
        /// Whose routes.
        of: RouteOf,
        /// The address.
        to: IpAddr,
    },
    /// Where frames to remote and local addresses go, populated and learned; answered with a list of [`Forwarding`].
    Forwardings,
    /// The ways to the other nodes, tried now; answered with a list of [`PeerPath`].
    Paths,
}

/// Whose routes are asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RouteOf {
    /// A router's, by its name.
    Router(String),
    /// A virtual machine's, by its name.
    Vm(String),
}

/// What an agent says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The agent's [`super::VERSION`].
    pub version: u32,
    /// The program's version.
    pub release: String,
    /// The node it runs.
    pub node: String,
    /// Its process id, as it sees it.
    pub pid: u32,
}

/// What the last reconciliation came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Converged {
    /// Whether observed equals desired.
    pub converged: bool,
    /// Operations the last change needed.
    pub operations: usize,
    /// How long it took, in microseconds.
    pub took_micros: u64,
    /// How often somebody else was found to have changed the switch's flows or ports, or a port to have failed, since the
    /// agent was started. What happens before it was looked at counts once.
    #[serde(default)]
    pub disturbed: u64,
    /// Every error that stands, one a line.
    pub errors: Vec<String>,
}

/// The node, in answer to [`Request::Show`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Show {
    /// Its name.
    pub node: String,
    /// Its host MAC.
    pub host_mac: Mac,
    /// Its tunnel endpoint.
    pub tunnel_ip: IpAddr,
    /// How its ports are attached: `tap` or `veth`.
    pub attachment: String,
    /// How its tunnels are made: `userspace` or `kernel`.
    pub tunnel_backend: String,
    /// Why by that: as asked, or what was found when it was chosen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tunnels_why: String,
    /// Its networks.
    pub networks: Vec<Network>,
    /// Its routers.
    pub routers: Vec<Router>,
    /// Its virtual machines.
    pub vms: Vec<Vm>,
    /// The other nodes.
    pub peers: Vec<Peer>,
    /// The physical networks that its networks are on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub physical_networks: Vec<PhysicalNetwork>,
    /// What the last reconciliation came to.
    pub state: Converged,
}

/// A physical network the node is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhysicalNetwork {
    /// Its name.
    pub name: types::PhysicalNetwork,
    /// Its bridge in the switch.
    pub bridge: IfName,
    /// The interface by which the node is on it, a port of that bridge.
    pub interface: IfName,
}

/// A network the node hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// What carries it between nodes: `vxlan`, `gre`, `vlan` or `flat`.
    #[serde(default)]
    pub kind: String,
    /// Its tunnel key, if tunnels carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<Vni>,
    /// The physical network that carries it, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_network: Option<types::PhysicalNetwork>,
    /// Its tag there; a flat network has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanId>,
    /// Its VLAN on this node's br-int.
    pub local_vlan: VlanId,
    /// The MTU of everything on it.
    pub mtu: Mtu,
    /// The largest packets that tunnels take to all of its nodes, if less passes than its MTU: senders of larger ones are told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub narrowed: Option<Mtu>,
    /// Remote nodes that have it.
    pub flood: Vec<String>,
}

/// A router on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub netns: String,
    /// Its interfaces.
    pub interfaces: Vec<RouterInterface>,
}

/// A router's interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterInterface {
    /// Its name.
    pub ifname: IfName,
    /// The network it is on.
    pub network: String,
    /// Its address, the same on every node.
    pub mac: Mac,
    /// Its IP addresses with their prefix lengths.
    pub addresses: Vec<ipnet::IpNet>,
}

/// A virtual machine on the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// Its name.
    pub name: String,
    /// Its network.
    pub network: String,
    /// Its address.
    pub mac: Mac,
    /// Its IP addresses.
    pub ips: Vec<IpAddr>,
    /// Its port on br-int.
    pub port: IfName,
}

/// Another node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub node: String,
    /// Its host MAC.
    pub host_mac: Mac,
    /// Its tunnel endpoint.
    pub tunnel_ip: IpAddr,
    /// The tunnel ports on br-tun that lead to it, some to others too; none if no network is shared.
    #[serde(default)]
    pub ports: Vec<IfName>,
}

/// The way to another node, as it was when it was asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerPath {
    /// The node.
    pub node: String,
    /// Its tunnel endpoint.
    pub tunnel_ip: IpAddr,
    /// Octets of the largest packet a tunnel would send there, outer IP header included; 0 if no tunnel leads there.
    pub needed: u32,
    /// How long a small echo took, in microseconds; `None` if nothing answered.
    pub answered_micros: Option<u64>,
    /// Whether a packet of the octets needed passes.
    pub room: Room,
}

/// Whether packets of the size needed pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Room {
    /// They do.
    Enough,
    /// This node's own interface takes less.
    Interface {
        /// The octets it takes.
        mtu: u32,
    },
    /// A router on the way takes less, and says so.
    Hop {
        /// The router.
        hop: IpAddr,
        /// The octets it takes.
        mtu: u32,
    },
    /// Somebody on the way takes less, and says nothing.
    Silent {
        /// The octets of the largest that passed, of those that were tried.
        passes: u32,
    },
    /// It cannot be told: nothing answers, or it was not tried.
    Unknown,
}

/// A permanent neighbour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// The router.
    pub router: String,
    /// Its interface.
    pub ifname: IfName,
    /// The neighbour's IP address.
    pub ip: IpAddr,
    /// Its address.
    pub mac: Mac,
    /// Its state in the kernel: `PERMANENT` unless something is wrong; `missing` if it is not there.
    pub state: String,
}

/// An address the responders answer for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Responder {
    /// The network.
    pub network: String,
    /// The address asked for.
    pub ip: IpAddr,
    /// The answer.
    pub mac: Mac,
    /// How often it was given.
    pub answers: u64,
}

/// Where frames to an address go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forwarding {
    /// The network.
    pub network: String,
    /// The address.
    pub mac: Mac,
    /// A local port, or a tunnel port.
    pub port: String,
    /// The remote node, if it is not this one.
    pub node: Option<String>,
    /// `populated` or `learned`.
    pub origin: String,
    /// Frames sent to it.
    pub packets: u64,
    /// Seconds since it was last seen or refreshed; `None` for populated entries.
    pub age_secs: Option<u64>,
}

/// Where something for an address goes, in answer to [`Request::Route`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The namespace whose routes say so; `None` for a machine that is not the agent's, of which the topology says it.
    pub netns: Option<String>,
    /// Where to.
    pub hop: Hop,
}

/// A step of a route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "goes", rename_all = "kebab-case")]
pub enum Hop {
    /// Nowhere: the address is its own.
    Here {
        /// The link that bears it.
        ifname: IfName,
    },
    /// Out by a link.
    Out(Box<Way>),
    /// Nowhere: it is dropped.
    Nowhere {
        /// Why.
        why: String,
    },
}

/// The way out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// The route that was found.
    pub destination: ipnet::IpNet,
    /// Its gateway, if it has one.
    pub gateway: Option<IpAddr>,
    /// The link.
    pub ifname: IfName,
    /// The link's address.
    pub mac: Option<Mac>,
    /// The address that would be the source of what is sent from here.
    pub source: Option<IpAddr>,
    /// Whom it is handed to: the gateway, or the address itself.
    pub next_hop: IpAddr,
    /// That one's address in the neighbour table, if it is there.
    pub neighbour: Option<Mac>,
    /// Whether that entry is permanent.
    pub permanent: bool,
}
