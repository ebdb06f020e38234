//! The two bridges of a node as flows: what Neutron's Open vSwitch agent writes, from one complete view of the node.
//!
//! It owns which table decides what. It knows no socket, no kernel and no engine: [`Program::of`] is a pure function
//! from a [`NodeView`] and the local VLANs to text that any `ovs-ofctl` would take.
//!
//! ```text
//!  VM, qr- ─▶ br-int 0 classify ─▶ 20 question? ─▶ 21 responder ─▶ back out of the port
//!                │                      └────────────▶ 60 known local MAC ─▶ port
//!                │                                       └▶ 61 learned ─▶ 62 unknown ─▶ patch-tun
//!  patch-tun ────┴─▶ 1 from a remote router: its MAC restored ─▶ 60      3 what is said to this router ─▶ qr-
//!
//!  patch-int ─▶ br-tun 0 ─▶ 1 router's MAC becomes the host's ─▶ 2 ─▶ 20 unicast ─▶ tunnel
//!                                                                 └▶ 22 flood ─▶ every tunnel of the network
//!  vxlan-… ──▶ 0 ─▶ 4 ┐
//!  gre-… ────▶ 0 ─▶ 3 ┴ key to VLAN ─▶ 9 from a host MAC: not learned ─▶ 10 learn ─▶ patch-int
//! ```
//! VLAN and flat networks leave by int-NAME and the bridge of their physical network, br-NAME: see `provider.rs`.
//!
//! Where the kernel makes the tunnels ([`Backend::Kernel`]) their ports are devices of one network each, which table 0
//! gives that network's key. All else is the same, and the device chooses the remote node where it has several.
//!
//! Where it differs from Neutron, and why:
//! - *The responder is in br-int*, not br-tun: a question is answered where it is asked, so neither the other local
//!   ports nor the wire see a flood. It knows local machines and routers too, and answers IPv6 solicitations.
//! - *No `NORMAL`*: every known local address is a flow of table 60, so that nothing is flooded to local ports for
//!   want of learning (a routed frame never is: the return path crosses another replica, so a learning bridge would
//!   flood each of them). Only addresses behind a machine (nested ones) are learned, by a flow, in table 61. An unknown
//!   unicast from a local port goes to the tunnels and not to other local ports.
//! - *ARP and ND payloads* carry the host MAC on the wire as well, so that no switch or station outside ever hears of
//!   a router's MAC, and table 3 undoes it on the way back.
//! - *Port security* is in br-int's tables 10 and 11, between 0 and 20, for the ports that have it.
//! - *Announcements* of addresses that a port may take by its allowed pairs are copied to the agent in table 12, for the
//!   control plane to follow.
//! - *DHCP and router solicitations* are answered by the switch, where Neutron has dnsmasq and radvd: see `advertised.rs`.
//! - *Router traffic to groups* other than ARP and ND stays on the node, save that of a router that lives there alone:
//!   such a one is a station like any machine, under its own MAC, and no other node learns that.

mod advertised;
mod announced;
mod flow;
mod integration;
mod provider;
mod security;
mod site;
mod tunnel;
mod vlan;

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::model::view::{Backend, NetworkView, NodeView, TunnelKind};
use crate::types::{IfName, Mac, PhysicalNetwork, VlanId, Vni};
use crate::{gre, vxlan};

pub use crate::gre::port_name as gre_port;
pub use crate::vxlan::port_name as vxlan_port;
pub use announced::Announced;
pub use flow::ProgramFlow;
pub use site::remote_macs;
pub use vlan::{OutOfVlans, local_vlans};

use site::Site;

/// The cookie of every flow of a program ("dvr" in its upper octets): a flow without it is somebody else's.
pub const COOKIE: u64 = 0x6476_7200_0000_0000;

/// The cookie of flows that the program's flows learn.
pub const LEARNED_COOKIE: u64 = COOKIE | 1;

/// The integration bridge: machines, routers.
pub const BR_INT: &str = "br-int";
/// The tunnel bridge.
pub const BR_TUN: &str = "br-tun";
/// br-int's end of the patch.
pub const PATCH_TUN: &str = "patch-tun";
/// br-tun's end of the patch.
pub const PATCH_INT: &str = "patch-int";

/// Table of br-int where addresses behind local machines are learned.
pub const LEARNED_LOCAL_TABLE: u8 = 61;
/// Table of br-tun where addresses behind tunnels are populated and learned.
pub const UNICAST_TABLE: u8 = 20;

/// Seconds a learned address lives without being seen again, as in Neutron.
pub const LEARNED_SECS: u16 = 300;

/// A view that refers to what it does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// A network reaches a node that is not among the peers.
    #[error("network `{network}` is on node `{peer}`, which the view does not list as a peer")]
    UnknownPeer {
        /// The network.
        network: String,
        /// The node.
        peer: String,
    },
    /// A router's interface is on a network the node does not have.
    #[error("router `{router}` has an interface on network `{network}`, which the view does not hold")]
    UnknownNetwork {
        /// The router.
        router: String,
        /// The network.
        network: String,
    },
    /// A network without a local VLAN.
    #[error("network `{network}` has no local VLAN: allocate them with `local_vlans` first")]
    NoVlan {
        /// The network.
        network: String,
    },
}

/// The flows of a node's bridges, by table, then highest priority first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// The integration bridge's.
    pub br_int: Vec<ProgramFlow>,
    /// The tunnel bridge's.
    pub br_tun: Vec<ProgramFlow>,
    /// Those of each physical network's.
    pub providers: BTreeMap<PhysicalNetwork, Vec<ProgramFlow>>,
}

impl Program {
    /// What `view` asks for.
    ///
    /// # Errors
    /// Names a reference in `view` that leads nowhere, or a network without a VLAN.
    pub fn of(view: &NodeView, vlans: &BTreeMap<Uuid, VlanId>) -> Result<Self, ProgramError> {
        let mut each = Self::each(view, vlans)?;
        let (br_int, br_tun) = (each.next().unwrap_or_default(), each.next().unwrap_or_default());
        Ok(Self { br_int, br_tun, providers: physical_networks(view).into_keys().cloned().zip(each).collect() })
    }

    /// The same bridge by bridge, each when it is asked for: br-int's, br-tun's, and those of each physical network's in
    /// their order.
    ///
    /// # Errors
    /// As [`Self::of`], before any of them.
    pub fn each<'a>(
        view: &'a NodeView,
        vlans: &'a BTreeMap<Uuid, VlanId>,
    ) -> Result<impl Iterator<Item = Vec<ProgramFlow>> + 'a, ProgramError> {
        let site = Site::new(view, vlans)?;
        let physical: Vec<(&PhysicalNetwork, &IfName)> =
            site.physical.iter().map(|(name, interface)| (*name, *interface)).collect();
        let bridges = 2 + physical.len();
        let flows = move |at: usize| {
            ordered(match at.checked_sub(2).map(|at| physical[at]) {
                Some((name, interface)) => provider::flows(&site, name, interface),
                None if at == 0 => integration::flows(&site),
                None => tunnel::flows(&site),
            })
        };
        Ok((0..bridges).map(flows))
    }

    /// The part of [`Self::of`] in which ports and floods elsewhere have a say, and what ports have taken by announcing it,
    /// in no order; of two flows with one match the later counts. Each of these flows depends on the ports that bear an
    /// address, on a network's routers, and on its flood list; so the same flows of a view that lacks other ports are the
    /// same.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn of_bearers(view: &NodeView, vlans: &BTreeMap<Uuid, VlanId>) -> Result<Self, ProgramError> {
        let site = Site::new(view, vlans)?;
        let br_int = site.networks.iter().flat_map(integration::of_bearers).collect();
        let br_tun = site.networks.iter().flat_map(tunnel::elsewhere).collect();
        Ok(Self { br_int, br_tun, providers: BTreeMap::new() })
    }
}

/// The physical networks a node needs a bridge for, each with the interface by which the node is on it.
#[must_use]
pub fn physical_networks(view: &NodeView) -> BTreeMap<&PhysicalNetwork, &IfName> {
    provider::bridges(view)
}

/// A name that is fixed in the program.
pub(crate) fn fixed(name: &'static str) -> IfName {
    IfName::new(name).unwrap_or_else(|_| unreachable!("the fixed names are legal"))
}

fn ordered(mut flows: Vec<ProgramFlow>) -> Vec<ProgramFlow> {
    flows.sort_by_key(|flow| (flow.table, core::cmp::Reverse(flow.priority)));
    flows
}

/// A question the responder answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The network's name.
    pub network: String,
    /// The address asked for.
    pub ip: IpAddr,
    /// The answer.
    pub mac: Mac,
    /// The flow that gives it.
    pub flow: ProgramFlow,
}

/// Every question the responder answers, by network and address.
///
/// # Errors
/// As [`Program::of`].
pub fn responders(view: &NodeView, vlans: &BTreeMap<Uuid, VlanId>) -> Result<Vec<Answered>, ProgramError> {
    let site = Site::new(view, vlans)?;
    let of_network = |net: &site::Net<'_>| -> Vec<Answered> {
        let answer = |(ip, known): (IpAddr, site::Known<'_>)| Answered {
            network: net.view.name.clone(),
            ip,
            mac: known.mac,
            flow: integration::answer(net, ip, &known),
        };
        net.known().into_iter().map(answer).collect()
    };
    Ok(site.networks.iter().flat_map(of_network).collect())
}

/// A populated unicast address and the flow that forwards to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Populated {
    /// The network's name.
    pub network: String,
    /// The address.
    pub mac: Mac,
    /// The port it is behind.
    pub port: IfName,
    /// The node it is on, if not this one.
    pub node: Option<String>,
    /// The bridge that has the port and the flow: br-tun for what is behind a tunnel, else br-int.
    pub bridge: &'static str,
    /// The flow.
    pub flow: ProgramFlow,
}

/// Every populated unicast address, by network: local ones first.
///
/// # Errors
/// As [`Program::of`].
pub fn populated(view: &NodeView, vlans: &BTreeMap<Uuid, VlanId>) -> Result<Vec<Populated>, ProgramError> {
    let site = Site::new(view, vlans)?;
    let mut all = Vec::new();
    for net in &site.networks {
        let network = || net.view.name.clone();
        for (mac, port) in integration::stations(net) {
            let flow = integration::deliver(net.vlan, mac, port);
            all.push(Populated { network: network(), mac, port: port.clone(), node: None, bridge: BR_INT, flow });
        }
        for site::Remote { mac, port, node } in &net.remote {
            let (bridge, flow) = match net.view.segment.vni() {
                Some(vni) => (BR_TUN, tunnel::deliver(net, vni, *mac, port)),
                None => (BR_INT, integration::leave(net.vlan, *mac, port)),
            };
            let node = Some((*node).to_owned());
            all.push(Populated { network: network(), mac: *mac, port: port.clone(), node, bridge, flow });
        }
    }
    Ok(all)
}

/// The peers that share a network of tunnels with this node, by name: those it needs one to.
#[must_use]
pub fn tunnel_peers(view: &NodeView) -> BTreeSet<&str> {
    TunnelKind::ALL.into_iter().flat_map(|kind| tunnel_peers_by(kind, view)).collect()
}

/// The peers that share a network of this kind with this node, by name.
#[must_use]
pub fn tunnel_peers_by(kind: TunnelKind, view: &NodeView) -> BTreeSet<&str> {
    let networks = view.networks.iter().filter(|network| network.segment.kind().tunnel() == Some(kind));
    let named: BTreeSet<&str> = networks.flat_map(remote_nodes).collect();
    view.peers.iter().map(|peer| peer.name.as_str()).filter(|name| named.contains(name)).collect()
}

/// The nodes that a network's frames may go to, some more than once.
pub fn remote_nodes(network: &NetworkView) -> impl Iterator<Item = &str> {
    network.flood.iter().chain(network.remote_ports.iter().map(|port| &port.node)).map(String::as_str)
}

/// The name of br-tun's port that carries frames of the network of this kind and key to a remote endpoint: the switch's
/// port for the endpoint, whatever the network; the kernel's VXLAN device for the network, whatever the endpoint; or its GRE
/// device for both.
#[must_use]
pub fn tunnel_port(backend: Backend, kind: TunnelKind, key: Vni, remote: IpAddr) -> IfName {
    match (backend, kind) {
        (Backend::Userspace, TunnelKind::Vxlan) => vxlan_port(remote),
        (Backend::Userspace, TunnelKind::Gre) => gre_port(remote),
        (Backend::Kernel, TunnelKind::Vxlan) => vxlan::device_name(key),
        (Backend::Kernel, TunnelKind::Gre) => gre::device_name(key, remote),
    }
}

/// The tunnel ports of br-tun that lead to each peer, for every network of tunnels that is there and here.
#[must_use]
pub fn tunnel_ports(view: &NodeView) -> BTreeSet<(IfName, &str)> {
    let mut ports = BTreeSet::new();
    for network in &view.networks {
        let Some((kind, key)) = network.segment.tunnel() else { continue };
        let there: BTreeSet<&str> = remote_nodes(network).collect();
        let peers = view.peers.iter().filter(|peer| there.contains(peer.name.as_str()));
        ports.extend(peers.map(|peer| (tunnel_port(view.backend, kind, key, peer.tunnel_ip), peer.name.as_str())));
    }
    ports
}
