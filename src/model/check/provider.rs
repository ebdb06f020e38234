//! VLAN and flat networks: the keys they take, their segments, and that every node that has one is on its physical
//! network.

use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, Entry, Field};
use crate::model::allocate;
use crate::model::fabric::{Claim, Fabric};
use crate::model::problem::Fault;
use crate::model::resource::{Kind, NetworkSpec, NodeSpec, Object, PortSpec, Resource, RouterSpec};
use crate::model::view::NetworkKind;
use crate::types::{IfName, PhysicalNetwork};

/// A node's interfaces on physical networks: one each, and nobody else's.
pub(super) fn mappings(checker: &mut Checker<'_>, object: &Object, spec: &NodeSpec) {
    let mut seen: BTreeMap<&IfName, &PhysicalNetwork> = BTreeMap::new();
    for (at, (physical_network, interface)) in spec.bridge_mappings.iter().flatten().enumerate() {
        let claim = (spec.name.clone(), interface.clone());
        let owner = match seen.insert(interface, physical_network) {
            Some(other) => Some(format!("physical network `{other}`")),
            None => checker.owner(|claims| &claims.devices, &claim).map(Object::to_string),
        };
        match owner {
            Some(owner) => {
                let fault = Fault::DeviceTwice { device: interface.to_string(), node: spec.name.clone(), owner };
                checker.mistake(Field::BridgeMapping(at), fault);
            }
            None => checker.add(Claim::Device(claim.0, claim.1), object),
        }
    }
}

/// Whether a network's keys are those of its type, and its segment is its own.
pub(super) fn segment(checker: &mut Checker<'_>, object: &Object, spec: &NetworkSpec) {
    let NetworkSpec { name, kind, vni, physical_network, vlan, .. } = spec;
    let provider = kind.tunnel().is_none();
    for (field, key, misplaced) in [
        (Field::Vni, "vni", vni.is_some() && provider),
        (Field::PhysicalNetwork, "physical_network", physical_network.is_some() && !provider),
        (Field::Vlan, "vlan", vlan.is_some() && *kind != NetworkKind::Vlan),
    ] {
        if misplaced {
            checker.mistake(field, Fault::KeyOfType { key: key.to_owned(), kind: kind.name().to_owned() });
        }
    }
    let Some(physical_network) = physical_network.as_ref().filter(|_| provider) else {
        if provider {
            let fault = Fault::NoPhysicalNetwork { network: name.clone(), kind: kind.name().to_owned() };
            checker.mistake(Field::Name, fault);
        }
        return;
    };
    let (field, vlan) = match (kind, vlan) {
        (NetworkKind::Vlan, Some(vlan)) => (Field::Vlan, Some(*vlan)),
        // Its tag is still to be allocated.
        (NetworkKind::Vlan, None) => return,
        (NetworkKind::Flat | NetworkKind::Vxlan | NetworkKind::Gre, _) => (Field::PhysicalNetwork, None),
    };
    let claim = (physical_network.clone(), vlan);
    match checker.owner(|claims| &claims.segments, &claim).map(|other| other.name.clone()) {
        Some(network) => {
            let segment = vlan.map_or_else(|| "what is untagged".to_owned(), |vlan| format!("VLAN {vlan}"));
            let physical_network = physical_network.to_string();
            checker.mistake(field, Fault::SegmentTwice { segment, physical_network, network });
        }
        None => checker.add(Claim::Segment(claim.0, claim.1), object),
    }
}

/// A tag for a VLAN network that has none.
pub(super) fn allocate(checker: &mut Checker<'_>, object: &Object, spec: &mut NetworkSpec) {
    let Some(physical_network) = spec.physical_network.clone().filter(|_| spec.kind == NetworkKind::Vlan) else {
        return;
    };
    if spec.vlan.is_none() {
        let taken = |vlan| {
            let claim = (physical_network.clone(), Some(vlan));
            checker.owner(|claims| &claims.segments, &claim).is_some()
        };
        let vlan = allocate::vlan(&object.name, taken);
        spec.vlan = checker.exhausted(&format!("VLAN of physical network `{physical_network}`"), vlan);
        if spec.vlan.is_some() {
            checker.add(Claim::Segment(physical_network, spec.vlan), object);
        }
    }
}

/// Every node that hosts something on a network of a physical network, or on one that distributed routers join to it, must
/// be on that physical network: it is to have the network, as [`crate::placement`] says. Costs nothing where there is none.
pub(super) fn reach(checker: &mut Checker<'_>, entries: &[Entry]) {
    if !has_any(checker, entries) {
        return;
    }
    let after = After::of(checker.fabric, &checker.edited, entries);
    let mut regions = Regions { after: &after, of_network: BTreeMap::new(), all: Vec::new() };
    let mut missing: BTreeMap<(&str, &PhysicalNetwork), (usize, &str)> = BTreeMap::new();
    for entry in entries {
        for (network, nodes) in after.concerned(entry) {
            let region = regions.of(network);
            if region.physical.is_empty() {
                continue;
            }
            let nodes = nodes.unwrap_or_else(|| after.hosts(region));
            for node in nodes {
                let mappings = after.node(node).and_then(|spec| spec.bridge_mappings.as_ref());
                let unmapped = |name: &&PhysicalNetwork| mappings.is_none_or(|mappings| !mappings.contains_key(*name));
                for (name, network) in region.physical.iter().filter(|(name, _)| unmapped(name)) {
                    missing.entry((node, name)).or_insert((entry.edit, network));
                }
            }
        }
    }
    let faults: Vec<(usize, Fault)> = missing
        .into_iter()
        .map(|((node, physical_network), (edit, network))| {
            // Told at the node, if that is asked for too.
            let at = after.put.get(&Object::new(Kind::Node, node)).map_or(edit, |entry| entry.edit);
            let (node, physical_network) = (node.to_owned(), physical_network.to_string());
            (at, Fault::Unmapped { node, physical_network, network: network.to_owned() })
        })
        .collect();
    for (edit, fault) in faults {
        checker.at = edit;
        checker.mistake(Field::Name, fault);
    }
}

/// Whether any network is to be a physical network's.
fn has_any(checker: &Checker<'_>, entries: &[Entry]) -> bool {
    let of_provider =
        |entry: &Entry| matches!(&entry.resource, Some(Resource::Network(spec)) if spec.physical_network.is_some());
    checker.fabric.claims().segments.len() > 0 || entries.iter().any(of_provider)
}

/// Where routers may live that live on one node and are not told which: by the router's name, the nodes that are on every
/// physical network it needs. Of routers that need none there is nothing.
pub(super) fn places(checker: &Checker<'_>, entries: &[Entry]) -> BTreeMap<String, BTreeSet<String>> {
    if !has_any(checker, entries) {
        return BTreeMap::new();
    }
    let after = After::of(checker.fabric, &checker.edited, entries);
    let mut places = BTreeMap::new();
    for entry in entries {
        let Some(Resource::Router(spec)) = &entry.resource else { continue };
        if spec.distributed || spec.node.is_some() {
            continue;
        }
        let regions = spec.interfaces.iter().map(|port| after.region(&port.network));
        let needs: BTreeSet<&PhysicalNetwork> = regions.flat_map(|region| region.physical.into_keys()).collect();
        if !needs.is_empty() {
            let has_all = |node: &&NodeSpec| {
                let mappings = node.bridge_mappings.as_ref();
                needs.iter().all(|name| mappings.is_some_and(|mappings| mappings.contains_key(*name)))
            };
            let nodes = after.nodes().filter(has_all).map(|node| node.name.clone()).collect();
            places.insert(spec.name.clone(), nodes);
        }
    }
    places
}

/// Networks that distributed routers join.
#[derive(Default)]
struct Region<'a> {
    networks: BTreeSet<&'a str>,
    /// Physical networks, each with a network on it.
    physical: BTreeMap<&'a PhysicalNetwork, &'a str>,
}

struct Regions<'r, 'a> {
    after: &'r After<'a>,
    of_network: BTreeMap<&'a str, usize>,
    all: Vec<Region<'a>>,
}

impl<'a> Regions<'_, 'a> {
    fn of(&mut self, network: &'a str) -> &Region<'a> {
        let at = self.of_network.get(network).copied().unwrap_or_else(|| {
            let region = self.after.region(network);
            self.of_network.extend(region.networks.iter().map(|network| (*network, self.all.len())));
            self.all.push(region);
            self.all.len() - 1
        });
        &self.all[at]
    }
}

/// The fabric as it will be.
struct After<'a> {
    fabric: &'a Fabric,
    edited: &'a BTreeMap<Object, bool>,
    put: BTreeMap<&'a Object, &'a Entry>,
    /// By network: routers that are put.
    routers: BTreeMap<&'a str, Vec<&'a RouterSpec>>,
    /// By network: ports that are put.
    ports: BTreeMap<&'a str, Vec<&'a PortSpec>>,
    /// By node: ports that are put.
    hosted: BTreeMap<&'a str, Vec<&'a PortSpec>>,
    /// By node: routers that are put, and live there alone.
    seated: BTreeMap<&'a str, Vec<&'a RouterSpec>>,
}

impl<'a> After<'a> {
    fn of(fabric: &'a Fabric, edited: &'a BTreeMap<Object, bool>, entries: &'a [Entry]) -> Self {
        let (put, routers, ports) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (hosted, seated) = (BTreeMap::new(), BTreeMap::new());
        let mut after = Self { fabric, edited, put, routers, ports, hosted, seated };
        for entry in entries {
            let Some(resource) = &entry.resource else { continue };
            after.put.insert(&entry.object, entry);
            match resource {
                Resource::Node(_) | Resource::Network(_) => {}
                Resource::Router(spec) => {
                    for port in &spec.interfaces {
                        after.routers.entry(&port.network).or_default().push(spec);
                    }
                    if let Some(node) = &spec.node {
                        after.seated.entry(node).or_default().push(spec);
                    }
                }
                Resource::Port(spec) => {
                    after.ports.entry(&spec.network).or_default().push(spec);
                    for node in nodes_of(spec) {
                        after.hosted.entry(node).or_default().push(spec);
                    }
                }
            }
        }
        after
    }

    /// Whether an object stays as it is.
    fn kept(&self, kind: Kind, name: &str) -> bool {
        !self.edited.contains_key(&Object::new(kind, name))
    }

    /// Where what is put may have made a node need a physical network: a network and its nodes, all of them without.
    fn concerned(&self, entry: &'a Entry) -> Vec<(&'a str, Option<BTreeSet<&'a str>>)> {
        match &entry.resource {
            None => Vec::new(),
            Some(Resource::Network(spec)) => vec![(&spec.name, None)],
            Some(Resource::Router(spec)) if !spec.distributed => {
                let node: BTreeSet<&str> = spec.node.as_deref().into_iter().collect();
                spec.interfaces.iter().map(|port| (port.network.as_str(), Some(node.clone()))).collect()
            }
            // All its networks are in one region.
            Some(Resource::Router(spec)) => {
                spec.interfaces.first().map(|port| (port.network.as_str(), None)).into_iter().collect()
            }
            Some(Resource::Port(spec)) => vec![(&spec.network, Some(nodes_of(spec).collect()))],
            Some(Resource::Node(spec)) => {
                let node: &'a str = &spec.name;
                let kept = self.fabric.ports_on(node).filter(|port| self.kept(Kind::Port, port));
                let kept = kept.filter_map(|port| self.fabric.ports().get(port));
                let ports = kept.chain(self.hosted.get(node).into_iter().flatten().copied());
                let kept = self.fabric.routers_on(node).filter(|router| self.kept(Kind::Router, router));
                let kept = kept.filter_map(|router| self.fabric.routers().get(router));
                let routers = kept.chain(self.seated.get(node).into_iter().flatten().copied());
                let joined = routers.flat_map(|router| &router.interfaces).map(|port| port.network.as_str());
                let networks: BTreeSet<&str> = ports.map(|port| port.network.as_str()).chain(joined).collect();
                networks.into_iter().map(|network| (network, Some(BTreeSet::from([node])))).collect()
            }
        }
    }

    /// Every node there will be.
    fn nodes(&self) -> impl Iterator<Item = &'a NodeSpec> {
        let put = self.put.values().filter_map(|entry| match &entry.resource {
            Some(Resource::Node(spec)) => Some(spec),
            Some(Resource::Network(_) | Resource::Router(_) | Resource::Port(_)) | None => None,
        });
        self.fabric.nodes().values().filter(|spec| self.kept(Kind::Node, &spec.name)).chain(put)
    }

    fn node(&self, name: &str) -> Option<&'a NodeSpec> {
        match self.put.get(&Object::new(Kind::Node, name)).and_then(|entry| entry.resource.as_ref()) {
            Some(Resource::Node(spec)) => Some(spec),
            Some(Resource::Network(_) | Resource::Router(_) | Resource::Port(_)) | None => {
                self.fabric.nodes().get(name)
            }
        }
    }

    fn network(&self, name: &str) -> Option<&'a NetworkSpec> {
        match self.put.get(&Object::new(Kind::Network, name)).and_then(|entry| entry.resource.as_ref()) {
            Some(Resource::Network(spec)) => Some(spec),
            Some(Resource::Node(_) | Resource::Router(_) | Resource::Port(_)) | None => {
                self.fabric.networks().get(name)
            }
        }
    }

    fn routers(&self, network: &str) -> impl Iterator<Item = &'a RouterSpec> {
        let kept = self.fabric.routers_of(network).filter(|router| self.kept(Kind::Router, router));
        let kept: Vec<&RouterSpec> = kept.filter_map(|router| self.fabric.routers().get(router)).collect();
        kept.into_iter().chain(self.routers.get(network).into_iter().flatten().copied())
    }

    /// The networks that distributed routers join to this one, itself included.
    fn region(&self, network: &'a str) -> Region<'a> {
        let mut region = Region::default();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut open = vec![network];
        // Each network and each router is opened once.
        while let Some(network) = open.pop() {
            if !region.networks.insert(network) {
                continue;
            }
            let physical = self.network(network).and_then(|spec| spec.physical_network.as_ref());
            region.physical.extend(physical.map(|physical| (physical, network)));
            let joining = self.routers(network).filter(|router| router.distributed);
            for router in joining.filter(|router| seen.insert(&router.name)) {
                open.extend(router.interfaces.iter().map(|port| port.network.as_str()));
            }
        }
        region
    }

    /// The nodes that host something in a region.
    fn hosts(&self, region: &Region<'a>) -> BTreeSet<&'a str> {
        let of_network = |network: &&'a str| {
            let kept = self.fabric.ports_of(network).filter(|port| self.kept(Kind::Port, port));
            let kept: Vec<&PortSpec> = kept.filter_map(|port| self.fabric.ports().get(port)).collect();
            kept.into_iter().chain(self.ports.get(*network).into_iter().flatten().copied())
        };
        let ports = region.networks.iter().flat_map(of_network).flat_map(nodes_of);
        let routers = region.networks.iter().flat_map(|network| self.routers(network));
        ports.chain(routers.filter_map(|router| router.node.as_deref())).collect()
    }
}

/// The nodes that host a port, ready or in use.
fn nodes_of(port: &PortSpec) -> impl Iterator<Item = &str> {
    [&port.node, &port.migrating_to].into_iter().flatten().map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resource::{Change, Edit, InterfaceSpec};
    use crate::model::view::BridgeMappings;
    use crate::model::{Fabric, Topology};

    /// b's machine is on a node that is not on a's physical network; nothing joins the two.
    const TEXT: &str = "version: 1
nodes: {n1: {bridge_mappings: {p: eth1}}, n2: {}}
networks:
  a: {type: vlan, physical_network: p, vlan: 7, subnets: [{cidr: 10.1.0.0/24}]}
  b: {subnets: [{cidr: 10.2.0.0/24}]}
routers: {r: {interfaces: [b]}}
vms: {v1: {node: n1, network: a}, v2: {node: n2, network: b}}
";

    fn fabric() -> Fabric {
        let topology = Topology::parse(TEXT, "test").unwrap_or_else(|error| panic!("{error}"));
        let mut fabric = Fabric::new(topology.underlay().clone());
        topology.resources().into_iter().for_each(|resource| drop(fabric.put(resource)));
        fabric
    }

    fn node(name: &str, mappings: Option<&[(&str, &str)]>) -> Edit {
        let parse = |(name, interface): &(&str, &str)| {
            (name.parse().expect("a legal name"), interface.parse().expect("a legal name"))
        };
        let bridge_mappings = mappings.map(|mappings| mappings.iter().map(parse).collect::<BridgeMappings>());
        Edit::put(Resource::Node(NodeSpec { name: name.to_owned(), bridge_mappings, ..NodeSpec::default() }))
    }

    /// r, joined to a as well.
    fn joined(fabric: &Fabric) -> Edit {
        let mut router = fabric.routers()["r"].clone();
        router.interfaces.push(InterfaceSpec { network: "a".to_owned(), ..InterfaceSpec::default() });
        Edit::put(Resource::Router(router))
    }

    /// The same, living on one node alone.
    fn seated(fabric: &Fabric, node: &str) -> Edit {
        let mut router = fabric.routers()["r"].clone();
        router.interfaces.push(InterfaceSpec { network: "a".to_owned(), ..InterfaceSpec::default() });
        (router.distributed, router.node) = (false, Some(node.to_owned()));
        Edit::put(Resource::Router(router))
    }

    #[test]
    fn every_node_that_is_to_have_the_network_is_on_its_physical_network() {
        let fabric = fabric();
        let mut port = fabric.ports()["v2"].clone();
        (port.network, port.ips) = ("a".to_owned(), Vec::new());
        let moved = Edit::put(Resource::Port(port));
        for (edits, object) in [
            (vec![joined(&fabric)], "router `r`"),
            (vec![node("n1", Some(&[]))], "node `n1`"),
            (vec![node("n1", Some(&[("q", "eth1")]))], "node `n1`"),
            (vec![moved.clone()], "virtual machine `v2`"),
            (vec![node("n2", Some(&[("q", "eth1")])), moved.clone()], "node `n2`"),
            (vec![seated(&fabric, "n2")], "router `r`"),
        ] {
            let refusal = fabric.plan(&edits).expect_err(object);
            let told: Vec<(String, String)> =
                refusal.problems.iter().map(|problem| (problem.kind.clone(), problem.object.to_string())).collect();
            assert_eq!(told, [("Unmapped".to_owned(), object.to_owned())]);
        }
        let here = seated(&fabric, "n1");
        assert_eq!(
            fabric.plan(&[here]).map(|changes| changes.len()),
            Ok(1),
            "its other network's nodes need none of it"
        );
        for edit in [joined(&fabric), seated(&fabric, "n2"), moved] {
            let edits = [edit, node("n2", Some(&[("p", "eth0")]))];
            assert_eq!(fabric.plan(&edits).map(|changes| changes.len()), Ok(2));
        }
    }

    /// The node with fewest routers will not do if it is not on what the router joins.
    #[test]
    fn a_router_is_given_a_node_that_has_its_physical_networks() {
        let text = TEXT.replace("n1: {bridge_mappings: {p: eth1}}, n2: {}", "n1: {}, n2: {bridge_mappings: {p: eth1}}");
        let text = text.replace("v1: {node: n1", "v1: {node: n2").replace("v2: {node: n2", "v2: {node: n1");
        let text = text.replace(
            "{r: {interfaces: [b]}}",
            "{r: {interfaces: [a], distributed: false}, s: {interfaces: [b], distributed: false}}",
        );
        let topology = Topology::parse(&text, "test").unwrap_or_else(|error| panic!("{error}"));
        let seats: BTreeMap<String, Option<String>> = topology
            .resources()
            .into_iter()
            .filter_map(|resource| match resource {
                Resource::Router(spec) => Some((spec.name, spec.node)),
                Resource::Node(_) | Resource::Network(_) | Resource::Port(_) => None,
            })
            .collect();
        let on = |node: &str| Some(node.to_owned());
        assert_eq!(seats, BTreeMap::from([("r".to_owned(), on("n2")), ("s".to_owned(), on("n1"))]));
        let nowhere = text.replace("{bridge_mappings: {p: eth1}}", "{}").replace("v1: {node: n2", "v1: {node: n1");
        let refused = Topology::parse(&nowhere, "test").expect_err("nobody is on it").to_string();
        assert!(refused.contains("physical network"), "{refused}");
    }

    #[test]
    fn what_is_left_out_stays_while_it_fits() {
        let fabric = fabric();
        assert_eq!(fabric.plan(&[node("n1", None)]), Ok(Vec::new()), "the mappings stay");
        let asked = |kind: NetworkKind, physical: Option<&str>| NetworkSpec {
            name: "a".to_owned(),
            kind,
            physical_network: physical.map(|name| name.parse().expect("a legal name")),
            subnets: fabric.networks()["a"].subnets.clone(),
            ..NetworkSpec::default()
        };
        let put = |spec: NetworkSpec| {
            let changes =
                fabric.plan(&[Edit::put(Resource::Network(spec)), node("n1", Some(&[("p", "eth1"), ("q", "eth2")]))]);
            let of_network = |change| match change {
                Change::Put(Resource::Network(spec)) => Some(spec),
                Change::Put(Resource::Node(_) | Resource::Router(_) | Resource::Port(_)) | Change::Delete(_) => None,
            };
            changes.expect("nothing is wrong with it").into_iter().find_map(of_network)
        };
        assert_eq!(put(asked(NetworkKind::Vlan, None)), None, "nothing changes");
        let tunnels = put(asked(NetworkKind::Gre, None)).expect("another type");
        assert!(tunnels.vni.is_some() && tunnels.vlan.is_none() && tunnels.physical_network.is_none(), "{tunnels:?}");
        assert_eq!(tunnels.mtu.map(|mtu| mtu.get()), Some(1458));
        let other = put(asked(NetworkKind::Vlan, Some("q"))).expect("another physical network");
        assert_eq!(other.vlan, allocate::vlan("a", |_| false), "a tag of its own, by its name");
        assert_ne!(allocate::vlan("a", |vlan| Some(vlan) == other.vlan), other.vlan);
        assert_eq!(allocate::vlan("a", |_| true), None);
    }
}
