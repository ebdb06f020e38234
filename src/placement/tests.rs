//! Placement on generated and example topologies: what one node is told, every other must be told alike.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::model::tests::{examples, parts, topology_of};
use crate::model::view::{RouterPort, RouterView};

fn topology(text: &str) -> Topology {
    Topology::parse(text, "test").unwrap_or_else(|error| panic!("{error}"))
}

fn views(topology: &Topology) -> BTreeMap<&str, NodeView> {
    let placement = Placement::of(topology);
    topology.nodes().keys().map(|node| (node.as_str(), placement.view(node).expect("a node of the topology"))).collect()
}

fn names(view: &NodeView) -> (Vec<&str>, Vec<&str>) {
    let networks = view.networks.iter().map(|network| network.name.as_str()).collect();
    (networks, view.routers.iter().map(|router| router.name.as_str()).collect())
}

#[test]
fn the_example_puts_both_networks_and_the_router_on_both_nodes() {
    let topology = Topology::example();
    for view in views(&topology).values() {
        assert_eq!(names(view), (vec!["blue", "orange"], vec!["r1"]));
        assert_eq!(view.peers.len(), 1);
    }
    assert_eq!(view(&topology, "node3"), None);
}

const CHAIN: &str = "version: 1
nodes: {n1: {}, n2: {}, n3: {}, n4: {}}
networks:
  a: {subnets: [{cidr: 10.1.0.0/24}]}
  b: {subnets: [{cidr: 10.2.0.0/24}]}
  c: {subnets: [{cidr: 10.3.0.0/24}]}
  d: {subnets: [{cidr: 10.1.0.0/24}]}
routers:
  r1: {interfaces: [a, b]}
  r2: {interfaces: [b, c]}
  r3: {interfaces: []}
vms:
  va: {node: n1, network: a}
  vc: {node: n2, network: c}
  vd: {node: n3, network: d}
  vd2: {node: n1, network: d}
";

#[test]
fn related_routers_follow_and_strangers_stay_away() {
    let topology = topology(CHAIN);
    let views = views(&topology);
    assert_eq!(names(&views["n1"]), (vec!["a", "b", "c", "d"], vec!["r1", "r2"]));
    assert_eq!(names(&views["n2"]), (vec!["a", "b", "c"], vec!["r1", "r2"]));
    assert_eq!(names(&views["n3"]), (vec!["d"], vec![]));
    assert_eq!(names(&views["n4"]), (vec![], vec![]));
    // n2 has network a for its routers alone, and still is where a's floods go.
    assert_eq!(views["n1"].networks[0].flood, ["n2"]);
    assert_eq!(views["n2"].networks[0].remote_ports[0].name, "va");
}

/// Everything that must agree between the views of one topology.
fn assert_consistent(topology: &Topology) {
    let views = views(topology);
    let mut routers: BTreeMap<&str, &RouterView> = BTreeMap::new();
    let mut placed = BTreeSet::new();
    for (&node, view) in &views {
        let has: BTreeSet<&str> = view.networks.iter().map(|network| network.name.as_str()).collect();
        for router in &view.routers {
            assert_eq!(*routers.entry(&router.name).or_insert(router), router, "a router differs between nodes");
            let joined = |port: &RouterPort| has.contains(port.network.as_str());
            assert!(router.interfaces.iter().all(joined), "{node} has {} but not all its networks", router.name);
        }
        // A network is here for a machine or for a router that is here, and a router that joins it is here with it.
        for network in &view.networks {
            let joins = |router: &&RouterView| router.interfaces.iter().any(|port| port.network == network.name);
            let here: Vec<_> = view.routers.iter().filter(joins).map(|router| &router.name).collect();
            let lives = |router: &&RouterView| router.node.as_ref().is_none_or(|own| own == node);
            let all: Vec<_> =
                topology.routers().values().filter(joins).filter(lives).map(|router| &router.name).collect();
            assert_eq!(here, all, "{node} has {} but not all its routers", network.name);
            assert!(!here.is_empty() || !network.local_ports.is_empty(), "{node} has {} for nothing", network.name);
            placed.extend(network.local_ports.iter().map(|port| port.name.as_str()));
            let local: BTreeSet<_> = network.local_ports.iter().map(|port| port.name.as_str()).collect();
            let remote: BTreeSet<_> = network.remote_ports.iter().map(|port| port.name.as_str()).collect();
            let members =
                topology.vms().values().filter(|vm| vm.network == network.name).map(|vm| vm.port.name.clone());
            let elsewhere = topology.routers().values().filter(joins).filter(|router| !lives(router));
            let members = members.chain(elsewhere.map(|router| format!("router {}", router.name)));
            assert_eq!(local.union(&remote).map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), members.collect());
            for port in &network.remote_ports {
                if port.router {
                    let routers = views[port.node.as_str()].routers.iter().flat_map(|router| &router.interfaces);
                    let mut ports = routers.filter(|own| own.network == network.name);
                    assert!(ports.any(|own| own.mac == port.mac), "{} is not where {node} thinks", port.name);
                    continue;
                }
                let there = views[port.node.as_str()].networks.iter().find(|other| other.name == network.name);
                let local = there.and_then(|there| there.local_ports.iter().find(|local| local.name == port.name));
                let local = local.unwrap_or_else(|| panic!("{} is not where {node} thinks", port.name));
                let ips: Vec<_> = local.addresses.iter().map(ipnet::IpNet::addr).collect();
                assert_eq!((local.mac, ips), (port.mac, port.ips.clone()));
            }
            let others = views.iter().filter(|(other, _)| **other != node);
            let holders = others.filter(|(_, view)| view.networks.iter().any(|other| other.name == network.name));
            let holders: Vec<&str> = holders.map(|(other, _)| *other).collect();
            assert_eq!(network.flood, holders, "{node} floods {} elsewhere", network.name);
        }
        let seats = |router: &RouterView| router.node.as_deref() == Some(node) && !router.interfaces.is_empty();
        let hosts = topology.vms().values().any(|vm| vm.node == node) || topology.routers().values().any(seats);
        assert!(hosts || view.networks.is_empty(), "{node} hosts nothing and has networks");
    }
    assert_eq!(placed.len(), topology.vms().len(), "a machine is nowhere");
}

#[test]
fn views_of_the_examples_agree() {
    for (_, topology) in examples() {
        assert_consistent(&topology);
    }
    assert_consistent(&topology(CHAIN));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn views_of_any_topology_agree(parts in parts()) {
        assert_consistent(&topology_of(&parts));
    }

    #[test]
    fn promises_of_one_network_and_back_agree(parts in parts()) {
        let topology = topology_of(&parts);
        let promises = promises(&topology);
        let vms = topology.vms().len();
        prop_assert_eq!(promises.len(), vms * vms.saturating_sub(1) * 2);
        let reach: BTreeMap<_, _> = promises
            .iter()
            .map(|promise| ((&promise.from, &promise.to, promise.target.is_ipv4()), promise.expect))
            .collect();
        for promise in &promises {
            let (from, to) = (&topology.vms()[&promise.from], &topology.vms()[&promise.to]);
            let back = reach[&(&promise.to, &promise.from, promise.target.is_ipv4())];
            let reach = |expect| expect == Expectation::Reach;
            prop_assert_eq!(reach(back), reach(promise.expect), "an answer one way only: {:?}", promise);
            prop_assert!((back, promise.expect) != (Expectation::OneWay, Expectation::OneWay), "{:?}", promise);
            if from.network == to.network {
                prop_assert_eq!(&promise.why, &Why::SameNetwork);
            }
            if promise.expect == Expectation::Reach {
                prop_assert_eq!(promise.answered_by.as_ref(), Some(&promise.to));
            }
        }
    }
}

/// Promises as lines.
fn told(topology: &Topology, from: &str) -> Vec<String> {
    let told = promises(topology).into_iter().filter(|promise| promise.from == from);
    told.map(|promise| {
        let Promise { from, to, target, expect, why, answered_by } = promise;
        format!("{from} → {to} {target}: {expect:?}, {why}, {}", answered_by.as_deref().unwrap_or("nobody"))
    })
    .collect()
}

#[test]
fn promises_of_the_example() {
    let expected = [
        "blue1 → blue2 10.1.0.3: Reach, same network, blue2",
        "blue1 → orange1 10.2.0.20: Reach, routed via r1, orange1",
        "blue1 → orange2 10.2.0.2: Reach, routed via r1, orange2",
    ];
    assert_eq!(told(&Topology::example(), "blue1"), expected);
}

#[test]
fn a_chain_of_routers_promises_nothing_and_a_namesake_is_named() {
    let expected = [
        "va → vc 10.3.0.2: Isolated, no common router, nobody",
        "va → vd 10.1.0.2: Isolated, no common router, va",
        "va → vd2 10.1.0.3: Isolated, no common router, nobody",
    ];
    assert_eq!(told(&topology(CHAIN), "va"), expected);
}

#[test]
fn tenants_with_one_prefix_never_meet() {
    let (_, tenants) = examples().into_iter().find(|(name, _)| name.ends_with("tenants.yaml")).expect("it exists");
    for promise in promises(&tenants) {
        let tenant = |name: &str| name.split('-').next().map(str::to_owned);
        let same = tenant(&promise.from) == tenant(&promise.to);
        assert_eq!(promise.expect == Expectation::Reach, same, "{promise:?}");
        assert!(same || promise.answered_by.as_ref() != Some(&promise.to), "{promise:?}");
    }
}

#[test]
fn a_way_there_and_none_back_is_told() {
    let (_, large) = examples().into_iter().find(|(name, _)| name.ends_with("large.yaml")).expect("it exists");
    let promises = promises(&large);
    let one_way = || promises.iter().filter(|promise| promise.expect == Expectation::OneWay);
    assert_eq!(one_way().count(), 80, "five machines whose gateway sends on to sixteen that have another");
    for promise in one_way() {
        assert_eq!((&promise.why, &promise.answered_by), (&Why::NoWayBack, &None), "{promise:?}");
        let back = promises.iter().find(|back| back.from == promise.to && back.to == promise.from).expect("it is told");
        assert_eq!(back.expect, Expectation::Isolated, "{back:?}");
    }
}

#[test]
fn a_second_router_is_no_way_unless_it_is_the_gateway() {
    let text = "version: 1
nodes: {n1: {}}
networks:
  a: {subnets: [{cidr: 10.1.0.0/24}]}
  b: {subnets: [{cidr: 10.2.0.0/24}]}
  s: {subnets: [{cidr: 10.9.0.0/24}]}
  v6: {subnets: [{cidr: 'fd00:6::/64'}]}
routers: {r1: {interfaces: [a, s]}, r2: {interfaces: [s, b, v6]}}
vms:
  va: {node: n1, network: a}
  vb: {node: n1, network: b}
  vs: {node: n1, network: s}
  v6: {node: n1, network: v6}
";
    let expected = [
        "vs → v6 fd00:6::2: Isolated, no address of that family, nobody",
        "vs → va 10.1.0.2: Reach, routed via r1, va",
        "vs → vb 10.2.0.2: Isolated, no common router, nobody",
    ];
    assert_eq!(told(&topology(text), "vs"), expected);
    // r2 is the gateway of b and connected to s; the gateway of s knows nothing of b.
    assert!(told(&topology(text), "vb").contains(&"vb → vs 10.9.0.3: OneWay, no way back, nobody".to_owned()));
}
