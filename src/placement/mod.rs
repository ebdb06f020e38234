//! Placement: which node holds what of a checked topology, and what its machines are promised. Pure and total.
//!
//! Neutron's rule: a router lives on each node that hosts a port on one of its networks; and routers that share a
//! network with it ("related" ones) follow it there, transitively, or a chain of routers would end halfway. So networks
//! joined by routers form *regions*, and a node that hosts a port in a region holds all of the region.
//! A node learns nothing of regions it has no port in.
//!
//! A centralised router (Neutron's "legacy" one) joins no regions: it has a *seat* on its one node, where its interfaces
//! are ports like any machine's, and other nodes see them as such.

mod live;
mod promise;

use std::collections::{BTreeMap, BTreeSet};

pub use live::Live;
pub use promise::{Expectation, Promise, Why, promises};

use crate::model::fabric::remote_interfaces;
use crate::model::view::{Backend, Early, NetworkView, NodeView, Peer, PortView, RemotePort, RouterView};
use crate::model::{Network, Topology, Vm};

/// What one node of a topology must hold; `None` if the topology has no node of that name. For all nodes of a large
/// topology, make one [`Placement`] and ask it for each.
#[must_use]
pub fn view(topology: &Topology, node: &str) -> Option<NodeView> {
    Placement::of(topology).view(node)
}

/// Who has what, for every node at once.
#[derive(Debug)]
pub struct Placement<'t> {
    topology: &'t Topology,
    /// By network: the nodes that have it.
    holders: BTreeMap<&'t str, BTreeSet<&'t str>>,
    /// By network: its machines, by name.
    machines: BTreeMap<&'t str, Vec<&'t Vm>>,
    /// By network: the routers that join it and live on one node, by name.
    seated: BTreeMap<&'t str, Vec<&'t RouterView>>,
}

impl<'t> Placement<'t> {
    /// Settles where everything in a topology lives.
    #[must_use]
    pub fn of(topology: &'t Topology) -> Self {
        let mut machines: BTreeMap<&str, Vec<&Vm>> = BTreeMap::new();
        for vm in topology.vms().values() {
            machines.entry(&vm.network).or_default().push(vm);
        }
        let mut seated: BTreeMap<&str, Vec<&RouterView>> = BTreeMap::new();
        for router in topology.routers().values().filter(|router| router.node.is_some()) {
            for port in &router.interfaces {
                seated.entry(&port.network).or_default().push(router);
            }
        }
        let mut holders = BTreeMap::new();
        for region in regions(topology) {
            let hosted = region.iter().filter_map(|network| machines.get(network)).flatten();
            let nodes = hosted.flat_map(|vm| vm.migrating_to.iter().chain([&vm.node])).map(String::as_str);
            let routers = region.iter().filter_map(|network| seated.get(network)).flatten();
            let nodes: BTreeSet<&str> = nodes.chain(routers.filter_map(|router| router.node.as_deref())).collect();
            holders.extend(region.into_iter().map(|network| (network, nodes.clone())));
        }
        Self { topology, holders, machines, seated }
    }

    /// What this node must hold.
    #[must_use]
    pub fn view(&self, node: &str) -> Option<NodeView> {
        let topology = self.topology;
        let own = topology.nodes().get(node)?;
        let peers: Vec<Peer> = topology.nodes().values().filter(|peer| peer.name != node).cloned().collect();
        let networks = topology
            .networks()
            .values()
            .filter(|network| self.has(node, &network.name))
            .map(|network| self.network(node, network));
        let routers = topology.routers().values().filter(|router| self.holds(node, router)).cloned();
        Some(NodeView {
            node: own.clone(),
            underlay_mtu: topology.underlay().mtu,
            vxlan_port: topology.underlay().vxlan_port,
            bridge_mappings: topology.bridge_mappings(node),
            peers,
            networks: networks.collect(),
            routers: routers.collect(),
            backend: Backend::default(),
            early: Early::default(),
        })
    }

    /// Whether a node has a network.
    fn has(&self, node: &str, network: &str) -> bool {
        self.holders.get(network).is_some_and(|nodes| nodes.contains(node))
    }

    /// Whether a node holds a router: all networks of a distributed one are in one region, so one of them tells.
    fn holds(&self, node: &str, router: &RouterView) -> bool {
        match &router.node {
            Some(own) => own == node && !router.interfaces.is_empty(),
            None => router.interfaces.iter().any(|port| self.has(node, &port.network)),
        }
    }

    fn network(&self, node: &str, network: &Network) -> NetworkView {
        let Network { name, id, segment, mtu, subnets } = network;
        let machines = self.machines.get(name.as_str()).map_or(&[][..], Vec::as_slice);
        let here = machines.iter().filter_map(|vm| {
            let standby = vm.migrating_to.as_deref() == Some(node);
            (standby || vm.node == node).then(|| PortView { standby, ..vm.port.clone() })
        });
        let remote_ports = machines.iter().filter(|vm| vm.node != node).map(|vm| RemotePort {
            name: vm.port.name.clone(),
            mac: vm.port.mac,
            ips: vm.port.addresses.iter().map(ipnet::IpNet::addr).collect(),
            node: vm.node.clone(),
            router: false,
            claimed: vm.port.claimed.clone(),
        });
        let seated = self.seated.get(name.as_str()).into_iter().flatten();
        let seated = seated.flat_map(|router| remote_interfaces(router)).filter(|(on, _)| on == name);
        let seated = seated.map(|(_, port)| port).filter(|port| port.node != node);
        let mut remote_ports: Vec<RemotePort> = remote_ports.chain(seated).collect();
        remote_ports.sort_by(|a, b| a.name.cmp(&b.name));
        let flood = self.holders.get(name.as_str()).into_iter().flatten().filter(|holder| **holder != node);
        NetworkView {
            name: name.clone(),
            id: *id,
            segment: segment.clone(),
            mtu: *mtu,
            subnets: subnets.clone(),
            local_ports: here.collect(),
            remote_ports,
            flood: flood.map(|&holder| holder.to_owned()).collect(),
        }
    }
}

/// The networks, grouped by the routers that join them.
fn regions(topology: &Topology) -> Vec<BTreeSet<&str>> {
    let mut neighbours: BTreeMap<&str, Vec<&RouterView>> = BTreeMap::new();
    for router in topology.routers().values().filter(|router| router.node.is_none()) {
        for port in &router.interfaces {
            neighbours.entry(&port.network).or_default().push(router);
        }
    }
    let mut regions = Vec::new();
    let mut seen_networks: BTreeSet<&str> = BTreeSet::new();
    let mut seen_routers: BTreeSet<&str> = BTreeSet::new();
    for network in topology.networks().keys() {
        if !seen_networks.insert(network) {
            continue;
        }
        let mut region = BTreeSet::from([network.as_str()]);
        let mut open = vec![network.as_str()];
        // Each network and each router is opened once.
        while let Some(network) = open.pop() {
            for router in neighbours.get(network).into_iter().flatten() {
                if !seen_routers.insert(&router.name) {
                    continue;
                }
                let joined = router.interfaces.iter().map(|port| port.network.as_str());
                let fresh: Vec<&str> = joined.filter(|network| seen_networks.insert(network)).collect();
                region.extend(&fresh);
                open.extend(fresh);
            }
        }
        regions.push(region);
    }
    regions
}

#[cfg(test)]
mod tests;
