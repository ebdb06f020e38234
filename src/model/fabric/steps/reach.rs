//! Physical networks: a node that is to have a network of one must be on it, also between two changes.
//!
//! What puts something there waits for the node that gains the mapping, and a node that loses one waits for all that
//! leaves. Where a node is on neither side of a physical network, what joins networks to it waits for what leaves that
//! node, and what comes to that node for what cuts them off.

use std::collections::{BTreeMap, BTreeSet};

use super::{Needs, Turn};
use crate::model::Fabric;
use crate::model::resource::{NodeSpec, Resource};
use crate::types::PhysicalNetwork;

/// Networks that are or will be joined, all by one another.
#[derive(Default)]
struct Region {
    physical: BTreeSet<PhysicalNetwork>,
    /// Changes by which networks come to be joined, or to be on a physical network; and cease to be.
    join: Vec<usize>,
    part: Vec<usize>,
}

/// A network and a node that has it.
type Place<'t> = (&'t str, &'t str);

/// What is known while the order is settled.
struct Reach<'t> {
    fabric: &'t Fabric,
    /// Nodes that are put, as they will be.
    nodes: BTreeMap<&'t str, &'t NodeSpec>,
    of_network: BTreeMap<String, usize>,
    regions: Vec<Region>,
}

pub(super) fn by_reach(fabric: &Fabric, turns: &[Turn], needs: &mut Needs) {
    let physical = |turn: &Turn| {
        [&turn.before, &turn.after]
            .into_iter()
            .any(|side| matches!(side, Some(Resource::Network(spec)) if spec.physical_network.is_some()))
    };
    if turns.len() < 2 || (fabric.claims.segments.len() == 0 && !turns.iter().any(physical)) {
        return;
    }
    let put = turns.iter().filter_map(|turn| match &turn.after {
        Some(Resource::Node(spec)) => Some((spec.name.as_str(), spec)),
        Some(Resource::Network(_) | Resource::Router(_) | Resource::Port(_)) | None => None,
    });
    let mut reach = Reach { fabric, nodes: put.collect(), of_network: BTreeMap::new(), regions: Vec::new() };
    reach.join(turns);
    for (number, turn) in turns.iter().enumerate() {
        let (before, after) = (joins(turn.before.as_ref()), joins(turn.after.as_ref()));
        for (network, _) in after.difference(&before) {
            reach.region(network).join.push(number);
        }
        for (network, _) in before.difference(&after) {
            reach.region(network).part.push(number);
        }
    }
    reach.order(turns, needs);
}

/// Networks that a distributed router joins, or a network that is on a physical one.
fn joins(resource: Option<&Resource>) -> BTreeSet<(&str, Option<&PhysicalNetwork>)> {
    match resource {
        Some(Resource::Router(spec)) if spec.distributed => {
            spec.interfaces.iter().map(|port| (port.network.as_str(), None)).collect()
        }
        Some(Resource::Network(spec)) => {
            spec.physical_network.iter().map(|physical| (spec.name.as_str(), Some(physical))).collect()
        }
        Some(Resource::Router(_) | Resource::Node(_) | Resource::Port(_)) | None => BTreeSet::new(),
    }
}

/// Where something has a network on a node.
fn places(resource: Option<&Resource>) -> BTreeSet<Place<'_>> {
    match resource {
        Some(Resource::Router(spec)) if !spec.distributed => {
            let node = spec.node.as_deref();
            node.into_iter()
                .flat_map(|node| spec.interfaces.iter().map(move |port| (port.network.as_str(), node)))
                .collect()
        }
        Some(Resource::Port(spec)) => {
            let nodes = [&spec.node, &spec.migrating_to].into_iter().flatten();
            nodes.map(|node| (spec.network.as_str(), node.as_str())).collect()
        }
        Some(Resource::Router(_) | Resource::Node(_) | Resource::Network(_)) | None => BTreeSet::new(),
    }
}

/// Whether a node is on a physical network.
fn mapped(node: Option<&NodeSpec>, physical: &PhysicalNetwork) -> bool {
    node.and_then(|spec| spec.bridge_mappings.as_ref()).is_some_and(|mappings| mappings.contains_key(physical))
}

impl Reach<'_> {
    /// Finds the regions of all networks that the changes are about.
    fn join(&mut self, turns: &[Turn]) {
        let mut joining: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        let mut physical: BTreeMap<&str, Vec<&PhysicalNetwork>> = BTreeMap::new();
        let mut open: Vec<(String, usize)> = Vec::new();
        let mut about: BTreeSet<&str> = BTreeSet::new();
        for side in turns.iter().flat_map(|turn| [turn.before.as_ref(), turn.after.as_ref()]) {
            let joined = joins(side);
            let first = joined.iter().next().map(|(network, _)| *network);
            for (network, on) in joined {
                about.insert(network);
                physical.entry(network).or_default().extend(on);
                // All of a router's with its first, both ways.
                if let Some(first) = first.filter(|first| *first != network) {
                    joining.entry(first).or_default().push(network);
                    joining.entry(network).or_default().push(first);
                }
            }
            about.extend(places(side).into_iter().map(|(network, _)| network));
            if let Some(Resource::Node(spec)) = side {
                about.extend(hosted(self.fabric, &spec.name));
            }
        }
        for network in about {
            if self.of_network.contains_key(network) {
                continue;
            }
            open.push((network.to_owned(), self.regions.len()));
            self.regions.push(Region::default());
            while let Some((network, region)) = open.pop() {
                if self.of_network.contains_key(&network) {
                    continue;
                }
                let kept = self.fabric.networks().get(&network).and_then(|spec| spec.physical_network.clone());
                let put = physical.get(network.as_str()).into_iter().flatten().map(|on| (*on).clone());
                self.regions[region].physical.extend(kept.into_iter().chain(put));
                let routers = self.fabric.routers_of(&network).filter_map(|name| self.fabric.routers().get(name));
                let kept = routers.filter(|router| router.distributed).flat_map(|router| &router.interfaces);
                open.extend(kept.map(|port| (port.network.clone(), region)));
                let put = joining.get(network.as_str()).into_iter().flatten();
                open.extend(put.map(|network| ((*network).to_owned(), region)));
                self.of_network.insert(network, region);
            }
        }
    }

    fn region(&mut self, network: &str) -> &mut Region {
        match self.of_network.get(network) {
            Some(at) => &mut self.regions[*at],
            None => unreachable!("every network that a change is about has a region"),
        }
    }

    fn of(&self, network: &str) -> Option<&Region> {
        self.of_network.get(network).map(|at| &self.regions[*at])
    }

    /// A node before and after.
    fn node(&self, name: &str) -> [Option<&NodeSpec>; 2] {
        let before = self.fabric.nodes().get(name);
        let after = self.nodes.get(name).copied().or(before);
        [before.or(after), after]
    }

    /// Whether a node never is on one of a region's physical networks.
    fn is_never_on(&self, node: &str, region: &Region) -> bool {
        let sides = self.node(node);
        region.physical.iter().any(|physical| sides.iter().all(|side| !mapped(*side, physical)))
    }

    fn order(&self, turns: &[Turn], needs: &mut Needs) {
        let at: BTreeMap<&str, usize> =
            turns.iter().enumerate().filter_map(|(number, turn)| Some((node_of(turn)?, number))).collect();
        for (number, turn) in turns.iter().enumerate() {
            let (before, after) = (places(turn.before.as_ref()), places(turn.after.as_ref()));
            for (network, node) in before.difference(&after) {
                let Some(region) = self.of(network) else { continue };
                if self.is_never_on(node, region) {
                    region.join.iter().filter(|join| **join != number).for_each(|join| needs[*join].push(number));
                }
                if let Some(at) = at.get(node).filter(|_| self.loses(node, region)) {
                    needs[*at].push(number);
                }
            }
            for (network, node) in after.difference(&before) {
                let Some(region) = self.of(network) else { continue };
                if self.is_never_on(node, region) {
                    needs[number].extend(region.part.iter().filter(|part| **part != number));
                }
                needs[number].extend(at.get(node).filter(|_| self.gains(node, region)));
            }
            if let Some(node) = node_of(turn) {
                self.order_node(node, number, needs);
            }
        }
        for region in self.regions.iter().filter(|region| !region.join.is_empty() && !region.part.is_empty()) {
            if self.has_somebody_outside(region, turns) {
                for join in &region.join {
                    needs[*join].extend(region.part.iter().filter(|part| *part != join));
                }
            }
        }
    }

    /// A node that gains a mapping comes before what joins networks that it has; one that loses one, after what parts them.
    fn order_node(&self, node: &str, number: usize, needs: &mut Needs) {
        let networks: BTreeSet<&str> = hosted(self.fabric, node).collect();
        for region in networks.into_iter().filter_map(|network| self.of(network)) {
            if self.gains(node, region) {
                region.join.iter().for_each(|join| needs[*join].push(number));
            }
            if self.loses(node, region) {
                needs[number].extend(&region.part);
            }
        }
    }

    fn gains(&self, node: &str, region: &Region) -> bool {
        let [before, after] = self.node(node);
        region.physical.iter().any(|physical| !mapped(before, physical) && mapped(after, physical))
    }

    fn loses(&self, node: &str, region: &Region) -> bool {
        let [before, after] = self.node(node);
        region.physical.iter().any(|physical| mapped(before, physical) && !mapped(after, physical))
    }

    /// Whether a node that has a network of a region is never on one of its physical networks.
    fn has_somebody_outside(&self, region: &Region, turns: &[Turn]) -> bool {
        let within = |network: &str| self.of(network).is_some_and(|other| core::ptr::eq(other, region));
        let put = turns.iter().flat_map(|turn| [turn.before.as_ref(), turn.after.as_ref()]).flat_map(places);
        let put = put.filter(|(network, _)| within(network)).map(|(_, node)| node);
        let nodes: BTreeSet<&str> = put.collect();
        let kept = || {
            let networks = self.of_network.keys().filter(|network| within(network));
            networks.flat_map(|network| hosts(self.fabric, network))
        };
        nodes.into_iter().chain(kept()).any(|node| self.is_never_on(node, region))
    }
}

/// The node that a change keeps and puts anew.
fn node_of(turn: &Turn) -> Option<&str> {
    if let (Some(Resource::Node(_)), Some(Resource::Node(spec))) = (&turn.before, &turn.after) {
        return Some(&spec.name);
    }
    None
}

/// The networks that a node has something on.
fn hosted<'f>(fabric: &'f Fabric, node: &str) -> impl Iterator<Item = &'f str> {
    let ports = fabric.ports_on(node).filter_map(|port| fabric.ports().get(port)).map(|port| port.network.as_str());
    let routers = fabric.routers_on(node).filter_map(|router| fabric.routers().get(router));
    ports.chain(routers.flat_map(|router| &router.interfaces).map(|port| port.network.as_str()))
}

/// The nodes that have something on a network.
fn hosts<'f>(fabric: &'f Fabric, network: &str) -> impl Iterator<Item = &'f str> {
    let ports = fabric.ports_of(network).filter_map(|port| fabric.ports().get(port));
    let ports = ports.flat_map(|port| [&port.node, &port.migrating_to].into_iter().flatten());
    let routers = fabric.routers_of(network).filter_map(|router| fabric.routers().get(router));
    ports.chain(routers.filter_map(|router| router.node.as_ref())).map(String::as_str)
}
