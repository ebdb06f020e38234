//! What both bridges' programs need to know of one node, looked up once: each network with its VLAN, its routers'
//! interfaces and every address known on it.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use uuid::Uuid;

use crate::model::view::{Backend, NetworkView, NodeView, Peer, PortView, RouterPort, RouterView};
use crate::types::{IfName, Mac, PhysicalNetwork, VlanId};

use super::flow::{self, port};
use super::{PATCH_TUN, ProgramError, fixed, provider, tunnel_port};

/// A node's view with its references followed.
pub(super) struct Site<'a> {
    pub(super) node: &'a Peer,
    pub(super) peers: &'a [Peer],
    pub(super) backend: Backend,
    /// The physical networks that the node's networks are on, with its interfaces on them.
    pub(super) physical: BTreeMap<&'a PhysicalNetwork, &'a IfName>,
    pub(super) networks: Vec<Net<'a>>,
    routers: &'a [RouterView],
}

/// A network on this node.
pub(super) struct Net<'a> {
    pub(super) view: &'a NetworkView,
    pub(super) vlan: VlanId,
    /// Interfaces of distributed routers, in the routers' order: every node that needs one has the same.
    pub(super) replicas: Vec<&'a RouterPort>,
    /// Interfaces of routers that live on this node alone, in the routers' order: to others, ports like any.
    pub(super) seated: Vec<&'a RouterPort>,
    /// The port of br-int by which frames leave for other nodes; `None` if the node is not on its physical network.
    pub(super) uplink: Option<IfName>,
    /// Where a flood goes: tunnel ports by name. A physical network floods by itself.
    pub(super) flood: Vec<IfName>,
    /// Ports of other nodes: each MAC, the port to it, of br-tun for a tunnel, else of br-int, and the node.
    pub(super) remote: Vec<Remote<'a>>,
}

/// A station on another node.
pub(super) struct Remote<'a> {
    pub(super) mac: Mac,
    pub(super) port: IfName,
    pub(super) node: &'a str,
}

/// An address somebody on a network bears.
pub(super) struct Known<'a> {
    pub(super) mac: Mac,
    /// The port on br-int, if the bearer is on this node or on its way here.
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
            let Elsewhere { flood, remote } = elsewhere(view.backend, network, &peers, uplink.as_ref())?;
            let interfaces = |is_seated: bool| {
                let routers = view.routers.iter().filter(move |router| router.node.is_some() == is_seated);
                let ports = routers.flat_map(|router| &router.interfaces);
                ports.filter(|port| port.network == network.name).collect()
            };
            let (replicas, seated) = (interfaces(false), interfaces(true));
            networks.push(Net { view: network, vlan, replicas, seated, uplink, flood, remote });
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
        Ok(Self {
            node: &view.node,
            peers: &view.peers,
            backend: view.backend,
            physical,
            networks,
            routers: &view.routers,
        })
    }

    /// The subnets that a distributed router's interface leads to: those of the networks that the router's others are on.
    pub(super) fn behind(&self, router: &RouterPort) -> impl Iterator<Item = IpNet> {
        let whole = self.routers.iter().find(|whole| whole.interfaces.iter().any(|port| port.id == router.id));
        let others =
            whole.into_iter().flat_map(|whole| &whole.interfaces).filter(|port| port.network != router.network);
        others.flat_map(|port| port.addresses.iter().map(IpNet::trunc))
    }
}

/// The way to other nodes that have a network: see [`Net`].
struct Elsewhere<'a> {
    flood: Vec<IfName>,
    remote: Vec<Remote<'a>>,
}

/// Where a network's floods and the frames to each of its remote stations go.
fn elsewhere<'a>(
    backend: Backend,
    network: &'a NetworkView,
    peers: &BTreeMap<&str, &Peer>,
    uplink: Option<&IfName>,
) -> Result<Elsewhere<'a>, ProgramError> {
    let macs = remote_macs(network).into_iter();
    let Some((kind, key)) = network.segment.tunnel() else {
        let remote = |uplink: &IfName| macs.map(|(mac, node)| Remote { mac, port: uplink.clone(), node }).collect();
        return Ok(Elsewhere { flood: Vec::new(), remote: uplink.map_or_else(Vec::new, remote) });
    };
    let tunnel = |node: &String| {
        peers
            .get(node.as_str())
            .map(|peer| tunnel_port(backend, kind, key, peer.tunnel_ip))
            .ok_or_else(|| ProgramError::UnknownPeer { network: network.name.clone(), peer: node.clone() })
    };
    let flood: BTreeSet<IfName> = network.flood.iter().map(tunnel).collect::<Result<_, _>>()?;
    let remote = macs.map(|(mac, node)| Ok(Remote { mac, port: tunnel(node)?, node }));
    Ok(Elsewhere { flood: flood.into_iter().collect(), remote: remote.collect::<Result<_, ProgramError>>()? })
}

/// Each MAC of a network that is on another node, with the node: first the ports' own, in their order, then those that
/// they speak for claimed addresses with. A MAC that is somebody's own is nobody else's.
#[must_use]
pub fn remote_macs(network: &NetworkView) -> Vec<(Mac, &String)> {
    let mut macs: Vec<(Mac, &String)> = network.remote_ports.iter().map(|port| (port.mac, &port.node)).collect();
    if network.remote_ports.iter().all(|port| port.claimed.is_empty()) {
        return macs;
    }
    let mut taken: BTreeSet<Mac> = macs.iter().map(|(mac, _)| *mac).collect();
    let here = network.local_ports.iter().filter(|port| !port.standby);
    taken.extend(here.flat_map(|port| port.claimed.iter().map(|claimed| claimed.mac).chain([port.mac])));
    for port in &network.remote_ports {
        macs.extend(port.claimed.iter().map(|claimed| (claimed.mac, &port.node)).filter(|(mac, _)| taken.insert(*mac)));
    }
    macs
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

    /// The interfaces of every router on this node.
    pub(super) fn routers(&self) -> impl Iterator<Item = &'a RouterPort> {
        self.replicas.iter().chain(&self.seated).copied()
    }

    /// The addresses of routers that live on another node alone.
    pub(super) fn routers_beyond(&self) -> impl Iterator<Item = Mac> + use<'a> {
        self.view.remote_ports.iter().filter(|port| port.router).map(|port| port.mac)
    }

    /// The ports of machines that are here; one on its way here is where it still is.
    pub(super) fn machines(&self) -> impl Iterator<Item = &'a PortView> + use<'a> {
        self.view.local_ports.iter().filter(|port| !port.standby)
    }

    /// The MACs of machines that are here, each with its port and its addresses: their own, then those they speak for
    /// claimed addresses with, each once.
    pub(super) fn stations(&self) -> Vec<(Mac, &'a IfName, Vec<IpAddr>)> {
        let own = |port: &'a PortView| (port.mac, &port.port, port.addresses.iter().map(IpNet::addr).collect());
        let mut stations: Vec<(Mac, &'a IfName, Vec<IpAddr>)> = self.machines().map(own).collect();
        if self.machines().all(|port| port.claimed.is_empty()) {
            return stations;
        }
        let mut taken: BTreeSet<Mac> = stations.iter().map(|(mac, ..)| *mac).collect();
        taken.extend(self.view.remote_ports.iter().map(|port| port.mac));
        taken.extend(self.routers().map(|router| router.mac));
        for port in self.machines() {
            let macs = port.claimed.iter().map(|claimed| claimed.mac).filter(|mac| taken.insert(*mac));
            stations.extend(macs.map(|mac| (mac, &port.port, Vec::new())));
        }
        stations
    }

    /// The ports on this node that may take an address by announcing it.
    pub(super) fn contenders(&self, ip: IpAddr) -> impl Iterator<Item = &'a IfName> + use<'a> {
        let pair = IpNet::from(ip);
        let may = move |port: &&PortView| port.allowed.iter().any(|allowed| allowed.ip == pair);
        self.view.local_ports.iter().filter(may).map(|port| &port.port)
    }

    /// The local machines' ports, of those on their way here too.
    pub(super) fn vm_ports(&self) -> impl Iterator<Item = &'a IfName> {
        self.view.local_ports.iter().map(|port| &port.port)
    }

    /// Every address borne on the network, with the link-local ones that EUI-64 gives each MAC where there is IPv6.
    /// An address given explicitly wins over a derived one.
    pub(super) fn known(&self) -> BTreeMap<IpAddr, Known<'a>> {
        let mut bearers: Vec<(Mac, Option<&'a IfName>, bool, Vec<IpAddr>)> = Vec::new();
        for port in self.routers() {
            let ips = port.addresses.iter().map(IpNet::addr).collect();
            bearers.push((port.mac, Some(&port.ifname), true, ips));
        }
        for port in self.machines() {
            let ips = port.addresses.iter().map(IpNet::addr).collect();
            bearers.push((port.mac, Some(&port.port), false, ips));
        }
        let standbys: Vec<&'a PortView> = self.view.local_ports.iter().filter(|port| port.standby).collect();
        for port in &self.view.remote_ports {
            // A machine on its way here announces itself before it is told that it has arrived.
            let standby = standbys.iter().find(|own| own.name == port.name);
            bearers.push((port.mac, standby.map(|own| &own.port), port.router, port.ips.clone()));
        }
        let mut known = BTreeMap::new();
        for (mac, owner, router, ips) in &bearers {
            for ip in ips {
                known.entry(*ip).or_insert(Known { mac: *mac, owner: *owner, router: *router });
            }
        }
        for port in self.machines() {
            for claimed in &port.claimed {
                known.entry(claimed.ip).or_insert(Known { mac: claimed.mac, owner: Some(&port.port), router: false });
            }
        }
        for claimed in self.view.remote_ports.iter().flat_map(|port| &port.claimed) {
            known.entry(claimed.ip).or_insert(Known { mac: claimed.mac, owner: None, router: false });
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
        let mut ips: BTreeSet<IpAddr> = port.addresses.iter().map(IpNet::addr).collect();
        if self.has_ipv6() {
            ips.insert(IpAddr::V6(port.mac.link_local()));
        }
        ips
    }
}
