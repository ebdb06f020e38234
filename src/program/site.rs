//! What both bridges' programs need to know of one node, looked up once: each network with its VLAN, its routers'
//! interfaces and every address known on it.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::model::view::{NetworkView, NodeView, Peer, PortView, RouterPort};
use crate::types::{IfName, Mac, PhysicalNetwork, VlanId};

use super::flow::{self, port};
use super::{PATCH_TUN, ProgramError, fixed, provider, tunnel_port};

/// A node's view with its references followed.
pub(super) struct Site<'a> {
    pub(super) node: &'a Peer,
    pub(super) peers: &'a [Peer],
    /// The physical networks that the node's networks are on, with its interfaces on them.
    pub(super) physical: BTreeMap<&'a PhysicalNetwork, &'a IfName>,
    pub(super) networks: Vec<Net<'a>>,
}

/// A network on this node.
pub(super) struct Net<'a> {
    pub(super) view: &'a NetworkView,
    pub(super) vlan: VlanId,
    /// Router interfaces on it, in the routers' order.
    pub(super) routers: Vec<&'a RouterPort>,
    /// The port of br-int by which frames leave for other nodes; `None` if the node is not on its physical network.
    pub(super) uplink: Option<IfName>,
    /// Where a flood goes: tunnel ports by name. A physical network floods by itself.
    pub(super) flood: Vec<IfName>,
    /// Ports of other nodes: each address and the port to it, of br-tun for a tunnel, else of br-int.
    pub(super) remote: Vec<(Mac, IfName)>,
}

/// An address somebody on a network bears.
pub(super) struct Known<'a> {
    pub(super) mac: Mac,
    /// The port on br-int, if the bearer is on this node.
    pub(super) owner: Option<&'a IfName>,
    pub(super) router: bool,
}

impl<'a> Site<'a> {
    /// Follows every reference of `view`.
    ///
    /// # Errors
    /// Names the reference that leads nowhere.
    pub(super) fn new(view: &'a NodeView, vlans: &BTreeMap<Uuid, VlanId>) -> Result<Self, ProgramError> {
        let peers: BTreeMap<&str, &Peer> = view.peers.iter().map(|peer| (peer.name.as_str(), peer)).collect();
        let physical = provider::bridges(view);
        let mut networks = Vec::with_capacity(view.networks.len());
        for network in &view.networks {
            let uplink = match network.segment.physical_network() {
                Some(name) => physical.get(name).map(|_| name.int_port()),
                None => Some(fixed(PATCH_TUN)),
            };
            let vlan = *vlans.get(&network.id).ok_or_else(|| ProgramError::NoVlan { network: network.name.clone() })?;
            let Elsewhere { flood, remote } = elsewhere(network, &peers, uplink.as_ref())?;
            let routers = view
                .routers
                .iter()
                .flat_map(|router| &router.interfaces)
                .filter(|port| port.network == network.name)
                .collect();
            networks.push(Net { view: network, vlan, routers, uplink, flood, remote });
        }
        for router in &view.routers {
            for port in &router.interfaces {
                if !view.networks.iter().any(|network| network.name == port.network) {
                    return Err(ProgramError::UnknownNetwork {
                        router: router.name.clone(),
                        network: port.network.clone(),
                    });
                }
            }
        }
        Ok(Self { node: &view.node, peers: &view.peers, physical, networks })
    }
}

/// The way to other nodes that have a network: see [`Net`].
struct Elsewhere {
    flood: Vec<IfName>,
    remote: Vec<(Mac, IfName)>,
}

/// Where a network's floods and the frames to each of its remote ports go.
fn elsewhere(
    network: &NetworkView,
    peers: &BTreeMap<&str, &Peer>,
    uplink: Option<&IfName>,
) -> Result<Elsewhere, ProgramError> {
    let Some(kind) = network.segment.kind().tunnel() else {
        let remote = |uplink: &IfName| network.remote_ports.iter().map(|port| (port.mac, uplink.clone())).collect();
        return Ok(Elsewhere { flood: Vec::new(), remote: uplink.map_or_else(Vec::new, remote) });
    };
    let tunnel = |node: &String| {
        peers
            .get(node.as_str())
            .map(|peer| tunnel_port(kind, peer.tunnel_ip))
            .ok_or_else(|| ProgramError::UnknownPeer { network: network.name.clone(), peer: node.clone() })
    };
    let flood: BTreeSet<IfName> = network.flood.iter().map(tunnel).collect::<Result<_, _>>()?;
    let remote = network.remote_ports.iter().map(|port| Ok((port.mac, tunnel(&port.node)?)));
    Ok(Elsewhere { flood: flood.into_iter().collect(), remote: remote.collect::<Result<_, ProgramError>>()? })
}

impl<'a> Net<'a> {
    /// Whether a physical network carries it.
    pub(super) fn is_physical(&self) -> bool {
        self.view.segment.physical_network().is_some()
    }

    /// The match on its frames as they come into br-int from other nodes, and what gives them the local VLAN.
    pub(super) fn arrival(&self) -> (String, String) {
        match &self.uplink {
            Some(uplink) if self.is_physical() => {
                (format!("in_port={},{}", port(uplink), provider::tag(self)), format!("mod_vlan_vid:{},", self.vlan))
            }
            Some(_) | None => (flow::vlan(self.vlan), String::new()),
        }
    }

    /// Whether a subnet is IPv6, and so every station has a link-local address too.
    pub(super) fn has_ipv6(&self) -> bool {
        self.view.subnets.iter().any(|subnet| subnet.cidr.addr().is_ipv6())
    }

    /// The ports of machines that are here; one on its way here is where it still is.
    pub(super) fn machines(&self) -> impl Iterator<Item = &'a PortView> + use<'a> {
        self.view.local_ports.iter().filter(|port| !port.standby)
    }

    /// The local machines' ports, of those on their way here too.
    pub(super) fn vm_ports(&self) -> impl Iterator<Item = &'a IfName> {
        self.view.local_ports.iter().map(|port| &port.port)
    }

    /// Every address borne on the network, with the link-local ones that EUI-64 gives each MAC where there is IPv6.
    /// An address given explicitly wins over a derived one.
    pub(super) fn known(&self) -> BTreeMap<IpAddr, Known<'a>> {
        let mut bearers: Vec<(Mac, Option<&'a IfName>, bool, Vec<IpAddr>)> = Vec::new();
        for port in &self.routers {
            let ips = port.addresses.iter().map(ipnet::IpNet::addr).collect();
            bearers.push((port.mac, Some(&port.ifname), true, ips));
        }
        for port in self.machines() {
            let ips = port.addresses.iter().map(ipnet::IpNet::addr).collect();
            bearers.push((port.mac, Some(&port.port), false, ips));
        }
        for port in &self.view.remote_ports {
            bearers.push((port.mac, None, false, port.ips.clone()));
        }
        let mut known = BTreeMap::new();
        for (mac, owner, router, ips) in &bearers {
            for ip in ips {
                known.entry(*ip).or_insert(Known { mac: *mac, owner: *owner, router: *router });
            }
        }
        if self.has_ipv6() {
            for (mac, owner, router, _) in &bearers {
                let ip = IpAddr::V6(mac.link_local());
                known.entry(ip).or_insert(Known { mac: *mac, owner: *owner, router: *router });
            }
        }
        known
    }

    /// A router interface's addresses, its link-local one included where there is IPv6.
    pub(super) fn router_ips(&self, port: &RouterPort) -> BTreeSet<IpAddr> {
        let mut ips: BTreeSet<IpAddr> = port.addresses.iter().map(ipnet::IpNet::addr).collect();
        if self.has_ipv6() {
            ips.insert(IpAddr::V6(port.mac.link_local()));
        }
        ips
    }
}
