//! What objects look like once the names in them lead somewhere; `None` as long as they do not, or as long as something
//! is left out that a plan would have filled in.

use core::net::IpAddr;

use ipnet::IpNet;

use super::Fabric;
use crate::model::names;
use crate::model::resource::{ClaimedAddress, InterfaceSpec, NetworkSpec, NodeSpec, PortSpec, RouterSpec};
use crate::model::topology::{Topology, Vm};
use crate::model::view::{
    AllowedPair, Attachment, BridgeMappings, Network, NetworkKind, Peer, PortView, RemotePort, RouterPort, RouterView,
    Segment, SubnetView,
};

/// Where a port is: the node its traffic goes to and the one it is about to move to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The node its traffic goes to.
    pub node: String,
    /// Another node that is ready for it.
    pub standby: Option<String>,
}

impl Fabric {
    /// A node as others see it.
    #[must_use]
    pub fn peer(&self, name: &str) -> Option<Peer> {
        let NodeSpec { name, address, host_mac, bridge_mappings: _ } = self.nodes().get(name)?;
        Some(Peer { name: name.clone(), tunnel_ip: (*address)?, host_mac: (*host_mac)? })
    }

    /// The interfaces by which a node is on physical networks.
    #[must_use]
    pub fn bridge_mappings(&self, node: &str) -> BridgeMappings {
        self.nodes().get(node).and_then(|spec| spec.bridge_mappings.clone()).unwrap_or_default()
    }

    /// A network.
    #[must_use]
    pub fn network(&self, name: &str) -> Option<Network> {
        network(self.networks().get(name)?)
    }

    /// A router, once all its networks are there, and its node if it is not distributed.
    #[must_use]
    pub fn router(&self, name: &str) -> Option<RouterView> {
        let spec = self.routers().get(name).filter(|spec| self.has_place(spec))?;
        router_view(spec, |network| self.network(network))
    }

    /// Whether there is somewhere for a router to live.
    fn has_place(&self, spec: &RouterSpec) -> bool {
        spec.distributed || spec.node.as_ref().is_some_and(|node| self.peer(node).is_some())
    }

    /// Where a port is, once its network and its node are there.
    #[must_use]
    pub fn binding(&self, port: &PortSpec) -> Option<Binding> {
        let PortSpec { network, node, migrating_to, id, mac, .. } = port;
        id.and(*mac)?;
        self.network(network)?;
        let there = |node: &&String| self.peer(node).is_some();
        let node = node.as_ref().filter(there)?.clone();
        let standby = migrating_to.as_ref().filter(|standby| **standby != node).filter(there).cloned();
        Some(Binding { node, standby })
    }

    /// All that leads somewhere, as a topology: what it promises is what this state promises. Ports that are nowhere
    /// are left out.
    #[must_use]
    pub fn topology(&self) -> Topology {
        let nodes = self.nodes().keys().filter_map(|name| Some((name.clone(), self.peer(name)?)));
        let networks = self.networks().keys().filter_map(|name| Some((name.clone(), self.network(name)?)));
        let networks: std::collections::BTreeMap<_, _> = networks.collect();
        let routers =
            self.routers().values().filter(|spec| self.has_place(spec)).filter_map(|spec| {
                Some((spec.name.clone(), router_view(spec, |network| networks.get(network).cloned())?))
            });
        let vms = self.ports().values().filter_map(|spec| {
            let Binding { node, standby } = self.binding(spec)?;
            let port = port_view(spec, networks.get(&spec.network)?, false)?;
            Some((spec.name.clone(), Vm { node, migrating_to: standby, network: spec.network.clone(), port }))
        });
        let mappings = self.nodes().keys().map(|name| (name.clone(), self.bridge_mappings(name)));
        Topology {
            underlay: self.underlay().clone(),
            nodes: nodes.collect(),
            bridge_mappings: mappings.filter(|(_, mappings)| !mappings.is_empty()).collect(),
            routers: routers.collect(),
            vms: vms.collect(),
            networks,
        }
    }
}

/// A network, nothing left out.
pub(crate) fn network(spec: &NetworkSpec) -> Option<Network> {
    let NetworkSpec { name, id, mtu, subnets, .. } = spec;
    let (id, segment, mtu) = ((*id)?, segment(spec)?, (*mtu)?);
    Some(Network { name: name.clone(), id, segment, mtu, subnets: subnets.clone() })
}

/// What carries a network, nothing left out.
fn segment(spec: &NetworkSpec) -> Option<Segment> {
    let physical_network = || spec.physical_network.clone();
    Some(match spec.kind {
        NetworkKind::Vxlan => Segment::Vxlan { vni: spec.vni? },
        NetworkKind::Gre => Segment::Gre { vni: spec.vni? },
        NetworkKind::Vlan => Segment::Vlan { physical_network: physical_network()?, vlan: spec.vlan? },
        NetworkKind::Flat => Segment::Flat { physical_network: physical_network()? },
    })
}

/// A router on these networks.
pub(crate) fn router_view(spec: &RouterSpec, network: impl Fn(&str) -> Option<Network>) -> Option<RouterView> {
    let RouterSpec { name, id, distributed, node, interfaces } = spec;
    let id = (*id)?;
    let node = node.clone().filter(|_| !distributed);
    let interfaces = interfaces.iter().map(|port| router_port(port, &network(&port.network)?));
    let interfaces: Option<Vec<RouterPort>> = interfaces.collect();
    Some(RouterView { name: name.clone(), id, netns: names::router_netns(id), node, interfaces: interfaces? })
}

fn router_port(spec: &InterfaceSpec, on: &Network) -> Option<RouterPort> {
    let InterfaceSpec { network, id, mac, ips } = spec;
    let id = (*id)?;
    let address = |subnet: &SubnetView| {
        let address = ips.iter().find(|address| subnet.cidr.contains(*address))?;
        Some(within(subnet.cidr, *address))
    };
    Some(RouterPort {
        id,
        ifname: names::router_port(id),
        network: network.clone(),
        mac: (*mac)?,
        addresses: on.subnets.iter().filter_map(address).collect(),
    })
}

/// A port as its own node sees it, on this network.
pub(crate) fn port_view(spec: &PortSpec, on: &Network, standby: bool) -> Option<PortView> {
    let PortSpec { name, id, mac, ips, device, allowed_address_pairs, port_security, claimed, .. } = spec;
    let (id, mac) = ((*id)?, (*mac)?);
    let subnet = |address: &IpAddr| on.subnets.iter().find(|subnet| subnet.cidr.contains(address));
    let borne: Vec<(IpAddr, &SubnetView)> =
        ips.iter().filter_map(|address| Some((*address, subnet(address)?))).collect();
    let gateway = |ipv4: bool| borne.iter().find(|(address, _)| address.is_ipv4() == ipv4)?.1.gateway;
    let attach = match device {
        Some(device) => Attachment::Device { device: device.clone() },
        None => Attachment::Netns { netns: names::vm_netns(name), ifname: names::vm_interface() },
    };
    let allowed = allowed_address_pairs.iter().map(|pair| AllowedPair { ip: pair.ip, mac: pair.mac.unwrap_or(mac) });
    Some(PortView {
        name: name.clone(),
        id,
        port: names::vm_port(id),
        mac,
        gateways: [true, false].into_iter().filter_map(gateway).collect(),
        addresses: borne.into_iter().map(|(address, subnet)| within(subnet.cidr, address)).collect(),
        attach,
        standby,
        port_security: *port_security,
        allowed: allowed.collect(),
        claimed: claimed_on(on, claimed),
    })
}

/// A port on this network, as other nodes than the one it is on see it.
pub(crate) fn remote_port(spec: &PortSpec, on: &Network, node: &str) -> Option<RemotePort> {
    let PortSpec { name, mac, ips, claimed, .. } = spec;
    let within = |address: &&IpAddr| on.subnets.iter().any(|subnet| subnet.cidr.contains(*address));
    let ips = ips.iter().filter(within).copied().collect();
    let claimed = claimed_on(on, claimed);
    Some(RemotePort { name: name.clone(), mac: (*mac)?, ips, node: node.to_owned(), router: false, claimed })
}

/// Those of claimed addresses that belong to the network.
fn claimed_on(on: &Network, claimed: &[ClaimedAddress]) -> Vec<ClaimedAddress> {
    let within = |address: &&ClaimedAddress| on.subnets.iter().any(|subnet| subnet.cidr.contains(&address.ip));
    claimed.iter().filter(within).copied().collect()
}

/// The interfaces of a router that lives on one node, as other nodes see them, each with its network; none of a
/// distributed router.
pub(crate) fn remote_interfaces(router: &RouterView) -> impl Iterator<Item = (&str, RemotePort)> {
    let of_node = move |node: &String| {
        let port = |port: &RouterPort| RemotePort {
            name: format!("router {}", router.name),
            mac: port.mac,
            ips: port.addresses.iter().map(IpNet::addr).collect(),
            node: node.clone(),
            router: true,
            claimed: Vec::new(),
        };
        router.interfaces.iter().map(|own| (own.network.as_str(), port(own))).collect::<Vec<_>>()
    };
    router.node.iter().flat_map(of_node)
}

/// An address with its subnet's prefix length.
fn within(cidr: IpNet, address: IpAddr) -> IpNet {
    match IpNet::new(address, cidr.prefix_len()) {
        Ok(net) => net,
        Err(_) => unreachable!("an address inside a prefix is of its family"),
    }
}
