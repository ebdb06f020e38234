//! Seats: the nodes of routers that live on one node alone. Each interface is there as a machine's port would be: its node
//! holds all of the network's region, and other nodes are told of it as of any port that is not theirs.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::fabric::{Fabric, remote_interfaces};
use crate::model::view::{RemotePort, RouterView, ViewChange};

use super::{Live, Told};

/// A router that has a seat, as its node holds it; `None` also of one without interfaces, which is nowhere.
fn seated(fabric: &Fabric, router: &str) -> Option<RouterView> {
    fabric.router(router).filter(|view| view.node.is_some() && !view.interfaces.is_empty())
}

/// Each network a router joins, with the router's one node.
fn places(router: Option<&RouterView>) -> Vec<(String, String)> {
    let of_node = |(router, node): (&RouterView, &String)| -> Vec<(String, String)> {
        router.interfaces.iter().map(|port| (port.network.clone(), node.clone())).collect()
    };
    router.and_then(|router| Some((router, router.node.as_ref()?))).map(of_node).unwrap_or_default()
}

fn interfaces(router: Option<&RouterView>) -> BTreeMap<&str, RemotePort> {
    router.into_iter().flat_map(remote_interfaces).collect()
}

impl Live {
    /// Seats every router of a fabric that has a seat.
    pub(super) fn seat_all(&mut self, fabric: &Fabric) {
        for name in fabric.routers().keys() {
            let Some(view) = seated(fabric, name) else { continue };
            for (network, node) in places(Some(&view)) {
                self.regions.host(&network, &node);
            }
            self.seats.insert(name.clone(), view);
        }
    }

    /// A router came, went or changed: its seat before its place in the regions if it has a seat now, and after it if not,
    /// so that its node does not forget in between what it goes on holding.
    pub(super) fn router(&mut self, fabric: &Fabric, name: &str, told: &mut Told) {
        let has_seat = seated(fabric, name).is_some();
        if has_seat {
            self.reseat(fabric, name, told);
        }
        self.reshape(fabric, BTreeSet::new(), [name].into_iter(), told);
        if !has_seat {
            self.reseat(fabric, name, told);
        }
    }

    /// Moves a router from the seat it had, if it had one, to the one it has.
    pub(super) fn reseat(&mut self, fabric: &Fabric, name: &str, told: &mut Told) {
        let (old, new) = (self.seats.remove(name), seated(fabric, name));
        if let Some(new) = &new {
            self.seats.insert(name.to_owned(), new.clone());
        }
        if old == new {
            return;
        }
        let joined = self.settle(fabric, &places(old.as_ref()), &places(new.as_ref()), told);
        let (was, is) = (interfaces(old.as_ref()), interfaces(new.as_ref()));
        for network in was.keys().chain(is.keys()).collect::<BTreeSet<_>>() {
            for node in self.told_before(network, &joined) {
                tell_interface(network, node, was.get(network), is.get(network), told);
            }
        }
        let node = |view: &Option<RouterView>| view.as_ref().and_then(|view| view.node.clone());
        if let Some(left) = node(&old).filter(|left| node(&new).as_ref() != Some(left) && !self.spans(name, left)) {
            told.tell(&left, ViewChange::RouterGone { name: name.to_owned() });
        }
        if let Some((node, view)) = node(&new).zip(new) {
            told.tell(&node, ViewChange::Router(view));
        }
    }

    /// Whether a router is distributed, and on this node too.
    fn spans(&self, router: &str, node: &str) -> bool {
        let network = self.regions.routers.get(router).and_then(BTreeSet::first);
        let region = network.and_then(|network| self.regions.of_network(network));
        region.is_some_and(|region| self.regions.get(region).nodes.contains_key(node))
    }

    /// A network's seated interfaces that are not this node's.
    pub(super) fn interfaces_beyond(&self, fabric: &Fabric, network: &str, node: &str) -> Vec<RemotePort> {
        let routers = fabric.routers_of(network).filter_map(|router| self.seats.get(router));
        let ports = routers.flat_map(remote_interfaces).filter(|(on, _)| *on == network);
        ports.map(|(_, port)| port).filter(|port| port.node != node).collect()
    }

    /// The routers that have their seat on a node.
    pub(super) fn seats_on<'l>(&'l self, fabric: &'l Fabric, node: &str) -> impl Iterator<Item = &'l RouterView> {
        fabric.routers_on(node).filter_map(|router| self.seats.get(router))
    }
}

/// Tells a node that holds the network, and knows the interface as it was, what is new of it.
fn tell_interface(network: &str, node: &str, was: Option<&RemotePort>, is: Option<&RemotePort>, told: &mut Told) {
    told.work += 1;
    let beyond = |port: &&RemotePort| port.node != node;
    let network = network.to_owned();
    match (was.filter(beyond), is.filter(beyond)) {
        (Some(was), None) => {
            let (name, owner) = (was.name.clone(), was.node.clone());
            told.tell(node, ViewChange::RemotePortGone { network, name, node: owner });
        }
        (was, Some(is)) if was != Some(is) => {
            told.tell(node, ViewChange::RemotePort { network, port: is.clone() });
        }
        (Some(_) | None, _) => {}
    }
}
