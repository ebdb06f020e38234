//! Placement that follows each change: what touched the desired state becomes what to tell which node, at the cost of
//! the nodes concerned.
//!
//! Its truth is [`super::view`] of the whole: for every node, after every change, the view its changes have built equals
//! that. Between calls it keeps where every port is and the regions with the nodes that hold them; the rest it reads
//! from the [`Fabric`], which must be the one the change was put into.

mod regions;
mod seats;

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Underlay;
use crate::model::fabric::{Binding, Fabric, Touched, port_view, remote_port, router_view};
use crate::model::resource::{Kind, PortSpec, Resource};
use crate::model::view::{
    Backend, Early, Network, NetworkView, NodeView, Peer, PortView, RemotePort, RouterView, ViewChange,
};

use regions::{RegionId, Regions};

/// Where everything is, and what to tell whom.
#[derive(Debug, Clone, Default)]
pub struct Live {
    /// By port.
    bound: BTreeMap<String, Bound>,
    /// Routers that live on one node alone, each as that node holds it.
    seats: BTreeMap<String, RouterView>,
    regions: Regions,
    /// Nodes that are there.
    nodes: BTreeSet<String>,
    work: u64,
}

/// Where a port is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bound {
    network: String,
    binding: Binding,
}

impl Bound {
    fn of(fabric: &Fabric, spec: &PortSpec) -> Option<Self> {
        Some(Self { network: spec.network.clone(), binding: fabric.binding(spec)? })
    }

    /// The nodes that host it, ready or in use.
    fn nodes(&self) -> impl Iterator<Item = &str> {
        [Some(&self.binding.node), self.binding.standby.as_ref()].into_iter().flatten().map(String::as_str)
    }

    /// Its network with each of them.
    fn places(&self) -> Vec<(String, String)> {
        self.nodes().map(|node| (self.network.clone(), node.to_owned())).collect()
    }

    /// Whether this node hosts it; and if so, whether the machine is still on its way.
    fn standby_on(&self, node: &str) -> Option<bool> {
        let standby = self.binding.standby.as_deref() == Some(node);
        (standby || self.binding.node == node).then_some(standby)
    }
}

/// What to tell each node.
#[derive(Debug, Default)]
struct Told {
    by_node: BTreeMap<String, Vec<ViewChange>>,
    /// Changes told and nodes looked at.
    work: u64,
}

impl Told {
    fn tell(&mut self, node: &str, change: ViewChange) {
        self.work += 1;
        match self.by_node.get_mut(node) {
            Some(changes) => changes.push(change),
            None => drop(self.by_node.insert(node.to_owned(), vec![change])),
        }
    }
}

/// A port as others may see it: before a change, or after.
struct Seen<'a> {
    bound: &'a Bound,
    spec: &'a PortSpec,
    /// As it was when seen; `None` if it is gone.
    network: Option<&'a Network>,
}

impl Seen<'_> {
    fn local(&self, node: &str) -> Option<Option<PortView>> {
        let standby = self.bound.standby_on(node)?;
        Some(self.network.and_then(|network| port_view(self.spec, network, standby)))
    }

    fn remote(&self) -> Option<RemotePort> {
        self.network.and_then(|network| remote_port(self.spec, network, &self.bound.binding.node))
    }
}

impl Live {
    /// Settles where everything of a fabric is.
    #[must_use]
    pub fn of(fabric: &Fabric) -> Self {
        let nodes = fabric.nodes().keys().filter(|name| fabric.peer(name).is_some()).cloned().collect();
        let mut live = Self { nodes, regions: Regions::of(fabric), ..Self::default() };
        for (name, spec) in fabric.ports() {
            if let Some(bound) = Bound::of(fabric, spec) {
                for node in bound.nodes() {
                    live.regions.host(&bound.network, node);
                }
                live.bound.insert(name.clone(), bound);
            }
        }
        live.seat_all(fabric);
        live
    }

    /// How many changes were told and nodes were looked at since the beginning: what a change cost is the difference.
    #[must_use]
    pub fn work(&self) -> u64 {
        self.work
    }

    /// The nodes that hold a network, by name.
    pub fn holders(&self, network: &str) -> impl Iterator<Item = &str> {
        self.regions.holders(network)
    }

    /// Where a port is: its node, once everything it needs is there.
    #[must_use]
    pub fn node_of(&self, port: &str) -> Option<&str> {
        Some(self.bound.get(port)?.binding.node.as_str())
    }

    /// What a change, which the fabric has taken in, means to each node. A node that is gone is told nothing: its view
    /// is no more. A new node is told all, from [`ViewChange::Node`] on.
    pub fn change(&mut self, fabric: &Fabric, touched: &Touched) -> BTreeMap<String, Vec<ViewChange>> {
        let mut told = Told::default();
        let Touched { object, before, after } = touched;
        match object.kind {
            Kind::Node => self.node(fabric, &object.name, &mut told),
            Kind::Network => self.network(fabric, &object.name, before.as_ref(), &mut told),
            Kind::Router => self.router(fabric, &object.name, &mut told),
            Kind::Port => {
                let spec = |resource: &Option<Resource>| match resource {
                    Some(Resource::Port(spec)) => Some(spec.clone()),
                    Some(Resource::Node(_) | Resource::Network(_) | Resource::Router(_)) | None => None,
                };
                self.port(fabric, &object.name, spec(before).as_ref(), spec(after).as_ref(), &mut told);
            }
        }
        told.by_node.retain(|node, _| self.nodes.contains(node));
        self.work += told.work;
        told.by_node
    }

    /// What a node must hold; `None` if there is no such node.
    #[must_use]
    pub fn view(&self, fabric: &Fabric, node: &str) -> Option<NodeView> {
        let own = fabric.peer(node)?;
        let ports = fabric.ports_on(node).filter_map(|port| self.bound.get(port)).map(|bound| &bound.network);
        let seated = || self.seats_on(fabric, node);
        let joined = seated().flat_map(|router| &router.interfaces).map(|port| &port.network);
        let regions: BTreeSet<RegionId> =
            ports.chain(joined).filter_map(|network| self.regions.of_network(network)).collect();
        let peers = self.nodes.iter().filter(|name| *name != node).filter_map(|name| fabric.peer(name));
        let mut networks: Vec<NetworkView> = Vec::new();
        let mut routers: Vec<RouterView> = seated().cloned().collect();
        for region in regions {
            let region = self.regions.get(region);
            networks.extend(region.networks.iter().filter_map(|name| self.network_view(fabric, name, node)));
            routers.extend(region.routers.iter().filter_map(|name| fabric.router(name)));
        }
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        routers.sort_by(|a, b| a.name.cmp(&b.name));
        let Underlay { cidr: _, mtu: underlay_mtu, vxlan_port } = *fabric.underlay();
        Some(NodeView {
            node: own,
            underlay_mtu,
            vxlan_port,
            bridge_mappings: fabric.bridge_mappings(node),
            peers: peers.collect(),
            networks,
            routers,
            backend: Backend::default(),
            early: Early::default(),
        })
    }

    fn network_view(&self, fabric: &Fabric, name: &str, node: &str) -> Option<NetworkView> {
        let network = fabric.network(name)?;
        let (mut local_ports, mut remote_ports) = (Vec::new(), Vec::new());
        for port in fabric.ports_of(name) {
            let (Some(bound), Some(spec)) = (self.bound.get(port), fabric.ports().get(port)) else { continue };
            let seen = Seen { bound, spec, network: Some(&network) };
            local_ports.extend(seen.local(node).flatten());
            remote_ports.extend(seen.remote().filter(|_| bound.binding.node != node));
        }
        remote_ports.extend(self.interfaces_beyond(fabric, name, node));
        remote_ports.sort_by(|a, b| a.name.cmp(&b.name));
        let flood = self.regions.holders(name).filter(|holder| *holder != node).map(str::to_owned).collect();
        let Network { name, id, segment, mtu, subnets } = network;
        Some(NetworkView { name, id, segment, mtu, subnets, local_ports, remote_ports, flood })
    }

    fn node(&mut self, fabric: &Fabric, name: &str, told: &mut Told) {
        match fabric.peer(name) {
            Some(peer) => {
                let new = self.nodes.insert(name.to_owned());
                self.introduce(fabric, &peer, new, told);
                self.rebind(fabric, name, told);
            }
            None => {
                self.rebind(fabric, name, told);
                if self.nodes.remove(name) {
                    for other in &self.nodes {
                        told.tell(other, ViewChange::PeerGone { name: name.to_owned() });
                    }
                }
            }
        }
    }

    /// Tells everybody of a node and, if it is new, the node of everybody.
    fn introduce(&self, fabric: &Fabric, peer: &Peer, new: bool, told: &mut Told) {
        told.tell(&peer.name, ViewChange::Node(peer.clone()));
        if new {
            told.tell(
                &peer.name,
                ViewChange::Underlay { mtu: fabric.underlay().mtu, vxlan_port: fabric.underlay().vxlan_port },
            );
        }
        told.tell(&peer.name, ViewChange::BridgeMappings(fabric.bridge_mappings(&peer.name)));
        for other in self.nodes.iter().filter(|other| **other != peer.name) {
            told.tell(other, ViewChange::Peer(peer.clone()));
            if let Some(other) = fabric.peer(other).filter(|_| new) {
                told.tell(&peer.name, ViewChange::Peer(other));
            }
        }
    }

    /// Looks again at the ports and seats of a node that came or went.
    fn rebind(&mut self, fabric: &Fabric, node: &str, told: &mut Told) {
        for port in fabric.ports_on(node) {
            let spec = fabric.ports().get(port);
            self.port(fabric, port, spec, spec, told);
        }
        for router in fabric.routers_on(node) {
            self.reseat(fabric, router, told);
        }
    }

    fn network(&mut self, fabric: &Fabric, name: &str, before: Option<&Resource>, told: &mut Told) {
        let was = self.regions.of_network(name).is_some();
        let is = fabric.network(name);
        match (was, is) {
            (false, None) => {}
            (true, Some(network)) => {
                let before = match before {
                    Some(Resource::Network(spec)) => crate::model::fabric::network(spec),
                    Some(Resource::Node(_) | Resource::Router(_) | Resource::Port(_)) | None => None,
                };
                if let Some(before) = before.filter(|before| *before != network) {
                    self.network_changed(fabric, &before, &network, told);
                    for router in fabric.routers_of(name) {
                        self.reseat(fabric, router, told);
                    }
                }
            }
            (false, Some(_)) => {
                self.reshape(fabric, BTreeSet::from([name.to_owned()]), fabric.routers_of(name), told);
                self.look_again(fabric, name, told);
            }
            (true, None) => {
                self.look_again(fabric, name, told);
                self.reshape(fabric, BTreeSet::from([name.to_owned()]), fabric.routers_of(name), told);
            }
        }
    }

    /// Looks again at the ports of a network that came or went, and at the seats of routers that join it.
    fn look_again(&mut self, fabric: &Fabric, network: &str, told: &mut Told) {
        for port in fabric.ports_of(network) {
            let spec = fabric.ports().get(port);
            self.port(fabric, port, spec, spec, told);
        }
        for router in fabric.routers_of(network) {
            self.reseat(fabric, router, told);
        }
    }

    /// Tells the holders of a network what is new of it, of its ports and of its routers.
    fn network_changed(&self, fabric: &Fabric, before: &Network, after: &Network, told: &mut Told) {
        let holders: Vec<&str> = self.regions.holders(&after.name).collect();
        for node in &holders {
            told.tell(node, ViewChange::Network(after.clone()));
        }
        for port in fabric.ports_of(&after.name) {
            let (Some(bound), Some(spec)) = (self.bound.get(port), fabric.ports().get(port)) else { continue };
            told.work += 1;
            let [before, after] = [before, after].map(|network| Seen { bound, spec, network: Some(network) });
            difference(Some(&before), Some(&after), &holders, told);
        }
        for router in fabric.routers_of(&after.name).filter(|router| !self.seats.contains_key(*router)) {
            let Some(spec) = fabric.routers().get(router) else { continue };
            let old =
                router_view(spec, |name| if name == before.name { Some(before.clone()) } else { fabric.network(name) });
            let Some(new) = fabric.router(router).filter(|new| old.as_ref() != Some(new)) else { continue };
            for node in &holders {
                told.tell(node, ViewChange::Router(new.clone()));
            }
        }
    }

    /// Moves a port from where it was to where it is.
    fn port(
        &mut self,
        fabric: &Fabric,
        name: &str,
        before: Option<&PortSpec>,
        after: Option<&PortSpec>,
        told: &mut Told,
    ) {
        let old = self.bound.remove(name);
        let new = after.and_then(|spec| Bound::of(fabric, spec));
        if let Some(new) = &new {
            self.bound.insert(name.to_owned(), new.clone());
        }
        let places = |bound: &Option<Bound>| bound.as_ref().map(Bound::places).unwrap_or_default();
        let joined = self.settle(fabric, &places(&old), &places(&new), told);
        let network = |bound: &Option<Bound>| fabric.network(&bound.as_ref()?.network);
        let (old_network, new_network) = (network(&old), network(&new));
        let seen = |bound, spec, network| Some(Seen { bound, spec, network });
        let was = old.as_ref().zip(before).and_then(|(bound, spec)| seen(bound, spec, old_network.as_ref()));
        let is = new.as_ref().zip(after).and_then(|(bound, spec)| seen(bound, spec, new_network.as_ref()));
        let same = old.as_ref().zip(new.as_ref()).is_some_and(|(old, new)| old.network == new.network);
        let told_before = |bound: &Bound| self.told_before(&bound.network, &joined);
        if same {
            let holders = new.as_ref().map(told_before).unwrap_or_default();
            difference(was.as_ref(), is.as_ref(), &holders, told);
        } else {
            let holders = old.as_ref().map(told_before).unwrap_or_default();
            difference(was.as_ref(), None, &holders, told);
            let holders = new.as_ref().map(told_before).unwrap_or_default();
            difference(None, is.as_ref(), &holders, told);
        }
    }

    /// The nodes that hold a network, but those who joined and so were told of everything as it is.
    fn told_before(&self, network: &str, joined: &BTreeSet<(RegionId, String)>) -> Vec<&str> {
        let region = self.regions.of_network(network);
        let newcomer = |node: &&str| region.is_some_and(|region| joined.contains(&(region, (*node).to_owned())));
        self.regions.holders(network).filter(|node| !newcomer(node)).collect()
    }

    /// Takes a move, from networks' nodes to networks' nodes, into the regions. Nodes that lose their last port of a region
    /// forget the region, nodes that get their first learn it all; the latter are returned.
    fn settle(
        &mut self,
        fabric: &Fabric,
        old: &[(String, String)],
        new: &[(String, String)],
        told: &mut Told,
    ) -> BTreeSet<(RegionId, String)> {
        let mut left = BTreeSet::new();
        let mut joined = BTreeSet::new();
        for (network, node) in old {
            left.extend(self.regions.unhost(network, node).map(|region| (region, node.clone())));
        }
        for (network, node) in new {
            let place = self.regions.host(network, node).map(|region| (region, node.clone()));
            joined.extend(place.filter(|place| !left.remove(place)));
        }
        for (region, node) in &left {
            self.leave(*region, node, &joined, told);
        }
        for (region, node) in &joined {
            self.join(fabric, *region, node, &joined, told);
        }
        joined
    }

    fn leave(&self, id: RegionId, node: &str, joined: &BTreeSet<(RegionId, String)>, told: &mut Told) {
        let region = self.regions.get(id);
        for name in &region.routers {
            told.tell(node, ViewChange::RouterGone { name: name.clone() });
        }
        for name in &region.networks {
            told.tell(node, ViewChange::NetworkGone { name: name.clone() });
        }
        for holder in region.nodes.keys().filter(|holder| !joined.contains(&(id, (*holder).clone()))) {
            for network in &region.networks {
                told.tell(holder, ViewChange::FloodGone { network: network.clone(), node: node.to_owned() });
            }
        }
    }

    fn join(&self, fabric: &Fabric, id: RegionId, node: &str, joined: &BTreeSet<(RegionId, String)>, told: &mut Told) {
        let region = self.regions.get(id);
        for name in &region.networks {
            self.learn(fabric, name, node, told);
        }
        for router in region.routers.iter().filter_map(|name| fabric.router(name)) {
            told.tell(node, ViewChange::Router(router));
        }
        for holder in region.nodes.keys().filter(|holder| !joined.contains(&(id, (*holder).clone()))) {
            for network in &region.networks {
                told.tell(holder, ViewChange::Flood { network: network.clone(), node: node.to_owned() });
            }
        }
    }

    /// Tells a node all of a network.
    fn learn(&self, fabric: &Fabric, network: &str, node: &str, told: &mut Told) {
        for change in self.network_view(fabric, network, node).iter().flat_map(NetworkView::changes) {
            told.tell(node, change);
        }
    }
}

/// Tells nodes that hold a port's network, and know the port as it was, what is new of it.
fn difference(was: Option<&Seen<'_>>, is: Option<&Seen<'_>>, holders: &[&str], told: &mut Told) {
    let Some(any) = is.or(was) else { return };
    let (network, name) = (any.bound.network.as_str(), any.spec.name.as_str());
    let (old, new) = (was.and_then(Seen::remote), is.and_then(Seen::remote));
    let hosts = |node: &str| [was, is].into_iter().flatten().any(|seen| seen.bound.standby_on(node).is_some());
    // Nodes that never hosted the port see it alike: one comparison serves them all.
    let alike = was.is_some() == is.is_some() && old == new;
    for node in holders.iter().copied() {
        told.work += 1;
        if alike && !hosts(node) {
            continue;
        }
        let (local_before, local) = (was.and_then(|seen| seen.local(node)), is.and_then(|seen| seen.local(node)));
        if let Some(port) = local.clone().flatten().filter(|_| local != local_before) {
            told.tell(node, ViewChange::LocalPort { network: network.to_owned(), port });
        } else if local.is_none() && local_before.is_some() {
            let (network, name) = (network.to_owned(), name.to_owned());
            told.tell(node, ViewChange::LocalPortGone { network, name });
        }
        let remote = |seen: Option<&Seen<'_>>| seen.filter(|seen| seen.bound.binding.node != node).is_some();
        match (remote(was), remote(is)) {
            (true, false) => {
                let owner = was.map(|seen| seen.bound.binding.node.clone()).unwrap_or_default();
                let (network, name) = (network.to_owned(), name.to_owned());
                told.tell(node, ViewChange::RemotePortGone { network, name, node: owner });
            }
            (before, true) => {
                if let Some(port) = new.clone().filter(|_| !before || old != new) {
                    told.tell(node, ViewChange::RemotePort { network: network.to_owned(), port });
                }
            }
            (false, false) => {}
        }
    }
}

#[cfg(test)]
mod tests;
