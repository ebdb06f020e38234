//! Regions: networks joined by routers, and the nodes that host a port in one and so hold all of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::fabric::Fabric;
use crate::model::view::ViewChange;

use super::{Live, Told};

/// A region's number: never used again.
pub(super) type RegionId = u64;

/// One region.
#[derive(Debug, Clone, Default)]
pub(super) struct Region {
    pub(super) networks: BTreeSet<String>,
    pub(super) routers: BTreeSet<String>,
    /// Nodes with how many ports each hosts.
    pub(super) nodes: BTreeMap<String, usize>,
}

/// All regions. A network that is there is in exactly one.
#[derive(Debug, Clone, Default)]
pub(super) struct Regions {
    of_network: BTreeMap<String, RegionId>,
    regions: BTreeMap<RegionId, Region>,
    /// By network: its nodes with how many ports each hosts.
    hosted: BTreeMap<String, BTreeMap<String, usize>>,
    /// Distributed routers that are placed, with the networks each joins.
    pub(super) routers: BTreeMap<String, BTreeSet<String>>,
    next: RegionId,
}

impl Regions {
    /// The regions of a fabric, with nobody in them.
    pub(super) fn of(fabric: &Fabric) -> Self {
        let mut regions = Self::default();
        let networks = fabric.networks().keys().filter(|name| fabric.network(name).is_some()).cloned().collect();
        for name in fabric.routers().keys() {
            regions.routers.extend(joined(fabric, name).map(|networks| (name.clone(), networks)));
        }
        regions.divide(networks, regions.routers.keys().cloned().collect());
        regions
    }

    pub(super) fn of_network(&self, network: &str) -> Option<RegionId> {
        self.of_network.get(network).copied()
    }

    pub(super) fn get(&self, id: RegionId) -> &Region {
        self.regions.get(&id).unwrap_or_else(|| unreachable!("numbers of regions come from `of_network`"))
    }

    /// The nodes that hold a network.
    pub(super) fn holders(&self, network: &str) -> impl Iterator<Item = &str> {
        let region = self.of_network(network).map(|id| self.get(id));
        region.into_iter().flat_map(|region| region.nodes.keys()).map(String::as_str)
    }

    /// Notes a port of a network on a node; the region, if the node hosted nothing in it before.
    pub(super) fn host(&mut self, network: &str, node: &str) -> Option<RegionId> {
        let id = self.of_network(network)?;
        count_up(self.hosted.entry(network.to_owned()).or_default(), node);
        let region = self.regions.get_mut(&id)?;
        count_up(&mut region.nodes, node).then_some(id)
    }

    /// Forgets a port of a network on a node; the region, if the node hosts nothing in it any longer.
    pub(super) fn unhost(&mut self, network: &str, node: &str) -> Option<RegionId> {
        let id = self.of_network(network)?;
        if let Some(hosted) = self.hosted.get_mut(network) {
            count_down(hosted, node);
            if hosted.is_empty() {
                self.hosted.remove(network);
            }
        }
        let region = self.regions.get_mut(&id)?;
        count_down(&mut region.nodes, node).then_some(id)
    }

    /// Makes regions of networks that are in none, joined by these routers.
    fn divide(&mut self, mut networks: BTreeSet<String>, routers: BTreeSet<String>) {
        let mut joining: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for router in &routers {
            for network in self.routers.get(router).into_iter().flatten() {
                joining.entry(network).or_default().push(router);
            }
        }
        let mut regions = Vec::new();
        while let Some(first) = networks.pop_first() {
            let mut region = Region::default();
            let mut open = vec![first];
            // Each network is opened once, each router taken in once.
            while let Some(network) = open.pop() {
                for router in joining.get(network.as_str()).into_iter().flatten() {
                    if region.routers.insert((*router).clone()) {
                        let beyond = self.routers.get(*router).into_iter().flatten();
                        open.extend(beyond.filter_map(|network| networks.take(network)));
                    }
                }
                for (node, count) in self.hosted.get(&network).into_iter().flatten() {
                    *region.nodes.entry(node.clone()).or_default() += count;
                }
                region.networks.insert(network);
            }
            regions.push(region);
        }
        for region in regions {
            let id = self.next;
            self.next += 1;
            self.of_network.extend(region.networks.iter().map(|network| (network.clone(), id)));
            self.regions.insert(id, region);
        }
    }
}

/// Whether it is the first.
fn count_up(counts: &mut BTreeMap<String, usize>, node: &str) -> bool {
    match counts.get_mut(node) {
        Some(count) => {
            *count += 1;
            false
        }
        None => counts.insert(node.to_owned(), 1).is_none(),
    }
}

/// Whether it was the last.
fn count_down(counts: &mut BTreeMap<String, usize>, node: &str) -> bool {
    match counts.get_mut(node) {
        Some(count) if *count > 1 => {
            *count -= 1;
            false
        }
        Some(_) => counts.remove(node).is_some(),
        None => false,
    }
}

/// The networks a distributed router joins, once they are all there; `None` also of a router without interfaces, which is
/// nowhere, and of one that lives on one node and so brings its networks nowhere else.
fn joined(fabric: &Fabric, router: &str) -> Option<BTreeSet<String>> {
    let view = fabric.router(router).filter(|view| view.node.is_none())?;
    let networks: BTreeSet<String> = view.interfaces.into_iter().map(|port| port.network).collect();
    (!networks.is_empty()).then_some(networks)
}

impl Live {
    /// Draws the regions anew around networks that came or went and routers that came, went or changed.
    pub(super) fn reshape<'n>(
        &mut self,
        fabric: &Fabric,
        mut networks: BTreeSet<String>,
        routers: impl Iterator<Item = &'n str>,
        told: &mut Told,
    ) {
        let mut changed = BTreeSet::new();
        for router in routers {
            networks.extend(self.regions.routers.remove(router).into_iter().flatten());
            if let Some(joined) = joined(fabric, router) {
                networks.extend(joined.iter().cloned());
                self.regions.routers.insert(router.to_owned(), joined);
            }
            changed.insert(router.to_owned());
        }
        let ids: BTreeSet<RegionId> = networks.iter().filter_map(|network| self.regions.of_network(network)).collect();
        let old: BTreeMap<RegionId, Region> =
            ids.into_iter().filter_map(|id| Some((id, self.regions.regions.remove(&id)?))).collect();
        let mut was = BTreeMap::new();
        let mut affected = changed.clone();
        for (id, region) in &old {
            networks.extend(region.networks.iter().cloned());
            affected.extend(region.routers.iter().cloned());
            was.extend(region.networks.iter().map(|network| (network.clone(), *id)));
        }
        for network in &networks {
            self.regions.of_network.remove(network);
        }
        let there = networks.iter().filter(|network| fabric.network(network).is_some()).cloned().collect();
        let placed = affected.iter().filter(|router| self.regions.routers.contains_key(*router)).cloned().collect();
        self.regions.divide(there, placed);
        self.redraw(fabric, &networks, &old, &was, told);
        self.reroute(fabric, &affected, &changed, &old, told);
    }

    /// Tells nodes of networks that came to them or left them as regions were joined or parted.
    fn redraw(
        &self,
        fabric: &Fabric,
        networks: &BTreeSet<String>,
        old: &BTreeMap<RegionId, Region>,
        was: &BTreeMap<String, RegionId>,
        told: &mut Told,
    ) {
        let nobody = BTreeMap::new();
        // Networks that went the same way have the same newcomers and leavers: compared once.
        let mut ways: BTreeMap<(Option<RegionId>, Option<RegionId>), Vec<&String>> = BTreeMap::new();
        for network in networks {
            ways.entry((was.get(network).copied(), self.regions.of_network(network))).or_default().push(network);
        }
        for ((before, after), networks) in ways {
            let before = before.and_then(|id| old.get(&id)).map_or(&nobody, |region| &region.nodes);
            let after = after.map_or(&nobody, |id| &self.regions.get(id).nodes);
            told.work += u64::try_from(before.len() + after.len()).unwrap_or(u64::MAX);
            let left: Vec<&String> = before.keys().filter(|node| !after.contains_key(*node)).collect();
            let came: Vec<&String> = after.keys().filter(|node| !before.contains_key(*node)).collect();
            if left.is_empty() && came.is_empty() {
                continue;
            }
            for network in networks {
                for node in &left {
                    told.tell(node, ViewChange::NetworkGone { name: network.clone() });
                }
                for node in &came {
                    self.learn(fabric, network, node, told);
                }
                for holder in before.keys().filter(|node| after.contains_key(*node)) {
                    for node in &came {
                        told.tell(holder, ViewChange::Flood { network: network.clone(), node: (*node).clone() });
                    }
                    for node in &left {
                        told.tell(holder, ViewChange::FloodGone { network: network.clone(), node: (*node).clone() });
                    }
                }
            }
        }
    }

    /// Tells nodes of routers that came to them, changed, or left them.
    fn reroute(
        &self,
        fabric: &Fabric,
        routers: &BTreeSet<String>,
        changed: &BTreeSet<String>,
        old: &BTreeMap<RegionId, Region>,
        told: &mut Told,
    ) {
        let nobody = BTreeMap::new();
        for name in routers {
            let before =
                old.values().find(|region| region.routers.contains(name)).map_or(&nobody, |region| &region.nodes);
            let network = self.regions.routers.get(name).and_then(BTreeSet::first);
            let after = network.and_then(|network| self.regions.of_network(network));
            let after = after.map_or(&nobody, |id| &self.regions.get(id).nodes);
            let seat = self.seats.get(name).and_then(|view| view.node.as_ref());
            for node in before.keys().filter(|node| !after.contains_key(*node) && seat != Some(node)) {
                told.tell(node, ViewChange::RouterGone { name: name.clone() });
            }
            let Some(view) = fabric.router(name) else { continue };
            let news = |node: &&String| changed.contains(name) || !before.contains_key(*node);
            for node in after.keys().filter(news) {
                told.tell(node, ViewChange::Router(view.clone()));
            }
        }
    }
}
