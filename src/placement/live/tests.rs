//! What changes have built must be what the whole says: for every node, after every change, in any order.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;
use uuid::Uuid;

use crate::model::resource::{ClaimedAddress, Edit, InterfaceSpec, NetworkSpec, NodeSpec, Object, RouterSpec};
use crate::model::tests::{examples, parts, topology_of};
use crate::model::view::{NetworkKind, SubnetView};
use crate::model::{Change, Topology, Underlay};
use crate::placement;
use crate::types::{Mac, Mtu, VlanId, Vni};

use super::*;

/// A store's word on a small world, complete but not checked: names may lead nowhere.
fn world() -> impl Strategy<Value = Change> {
    let node = (0_u8..4, 0_u8..2).prop_map(|(n, version)| Change::Put(node_spec(n, version)));
    let network = (0_u8..4, 0_u8..3).prop_map(|(n, version)| Change::Put(network_spec(n, version)));
    let seat = prop::option::weighted(0.4, 0_u8..4);
    let router = (0_u8..3, prop::collection::btree_set(0_u8..4, 0..4), 0_u8..2, seat)
        .prop_map(|(n, joined, version, seat)| Change::Put(seated_spec(n, &joined, version, seat)));
    let place = prop::option::weighted(0.9, 0_u8..4);
    let port = (0_u8..6, 0_u8..4, place, prop::option::weighted(0.3, 0_u8..4), 0_u8..3)
        .prop_map(|(n, network, node, target, version)| Change::Put(port_spec(n, network, node, target, version)));
    let gone = (0_u8..4, 0_u8..6).prop_map(|(kind, n)| {
        let kind = Kind::ALL[usize::from(kind)];
        Change::Delete(Object::new(kind, name(kind, n)))
    });
    prop_oneof![2 => node, 2 => network, 3 => router, 6 => port, 3 => gone]
}

fn name(kind: Kind, n: u8) -> String {
    format!("{}{n}", kind.word())
}

fn node_spec(n: u8, version: u8) -> Resource {
    let (address, mac) = ([172, 31, version, n + 1].into(), Mac::new([0xfa, 0x16, 0x3f, 0, version, n]));
    let mapped = (version == 1).then(|| [("p".parse().expect("legal"), "eth1".parse().expect("legal"))].into());
    Resource::Node(NodeSpec {
        name: name(Kind::Node, n),
        address: Some(address),
        host_mac: Some(mac),
        bridge_mappings: mapped,
    })
}

fn network_spec(n: u8, version: u8) -> Resource {
    let gateway = Some([10, n, 0, 1 + version].into());
    let mut subnets =
        vec![SubnetView { cidr: format!("10.{n}.0.0/24").parse().expect("legal"), gateway, advertise: None }];
    if version == 2 {
        subnets.push(SubnetView {
            cidr: format!("fd00:{n}::/64").parse().expect("legal"),
            gateway: None,
            advertise: None,
        });
    }
    Resource::Network(NetworkSpec {
        name: name(Kind::Network, n),
        id: Some(Uuid::from_u128(u128::from(n) + 1)),
        kind: if version == 1 { NetworkKind::Vlan } else { NetworkKind::Vxlan },
        vni: (version != 1).then(|| Vni::new(u32::from(n) + 1).expect("legal")),
        physical_network: (version == 1).then(|| "p".parse().expect("legal")),
        vlan: (version == 1).then(|| VlanId::new(u32::from(n) + 1).expect("legal")),
        mtu: Some(Mtu::new(1_400 + u32::from(version)).expect("legal")),
        subnets,
    })
}

fn router_spec(n: u8, joined: &BTreeSet<u8>, version: u8) -> Resource {
    seated_spec(n, joined, version, None)
}

/// A router on every node that needs it, or on one.
fn seated_spec(n: u8, joined: &BTreeSet<u8>, version: u8, seat: Option<u8>) -> Resource {
    let interface = |network: &u8| InterfaceSpec {
        network: name(Kind::Network, *network),
        id: Some(Uuid::from_u128(0x100 + u128::from(n) * 0x10 + u128::from(*network))),
        mac: Some(Mac::new([0xfa, 0x16, 0x3e, 1, n, *network])),
        ips: vec![[10, *network, 0, 100 + 2 * n + version].into()],
    };
    let interfaces = joined.iter().map(interface).collect();
    let id = Some(Uuid::from_u128(0x10 + u128::from(n)));
    let (distributed, node) = (seat.is_none(), seat.map(|node| name(Kind::Node, node)));
    Resource::Router(RouterSpec { name: name(Kind::Router, n), id, distributed, node, interfaces })
}

/// An address on the network if its number is even, and beyond it if not.
fn claimed(n: u8, network: u8) -> ClaimedAddress {
    ClaimedAddress { ip: [10, network + 100 * (n % 2), 0, 200].into(), mac: Mac::new([2, 0, 0, 0, 0, n]) }
}

fn port_spec(n: u8, network: u8, node: Option<u8>, target: Option<u8>, version: u8) -> Resource {
    Resource::Port(PortSpec {
        name: name(Kind::Port, n),
        id: Some(Uuid::from_u128((0x1000 + u128::from(n)) << 96)),
        network: name(Kind::Network, network),
        node: node.map(|node| name(Kind::Node, node)),
        migrating_to: target.filter(|_| node.is_some()).map(|node| name(Kind::Node, node)),
        mac: Some(Mac::new([0xfa, 0x16, 0x3e, 0, u8::from(version == 1), n])),
        ips: vec![[10, network, 0, 10 + n].into(), format!("fd00:{network}::{}", 10 + n).parse().expect("legal")],
        device: None,
        allowed_address_pairs: Vec::new(),
        port_security: version == 2,
        claimed: if version == 2 { vec![claimed(n, network)] } else { Vec::new() },
    })
}

/// A fabric, and what each node has made of what it was told.
#[derive(Default)]
struct Followed {
    fabric: Fabric,
    live: Live,
    views: BTreeMap<String, NodeView>,
}

impl Followed {
    fn change(&mut self, change: Change) {
        let touched = self.fabric.change(change);
        let told = self.live.change(&self.fabric, &touched);
        if touched.object.kind == Kind::Node && touched.after.is_none() {
            self.views.remove(&touched.object.name);
        }
        for (node, changes) in told {
            let mut changes = changes.into_iter();
            let view = self.views.entry(node).or_insert_with(|| match changes.next() {
                Some(ViewChange::Node(node)) => NodeView::new(node, Mtu::MIN, 0),
                other => panic!("a node's first word is {other:?}"),
            });
            assert!(changes.all(|change| view.apply(change)), "too much arrived early");
        }
    }

    fn assert_whole(&self) -> Result<(), TestCaseError> {
        let topology = self.fabric.topology();
        prop_assert_eq!(self.views.keys().collect::<Vec<_>>(), topology.nodes().keys().collect::<Vec<_>>());
        for (node, view) in &self.views {
            let whole = placement::view(&topology, node);
            prop_assert_eq!(Some(view), whole.as_ref(), "what {} was told", node);
            prop_assert_eq!(self.live.view(&self.fabric, node), whole, "what {} would be told anew", node);
        }
        Ok(())
    }
}

/// The same things in another order.
fn shuffled(mut resources: Vec<Resource>, order: &[Index]) -> Vec<Resource> {
    let mut order = order.iter().cycle();
    for at in (1..resources.len()).rev() {
        let other = order.next().map_or(0, |index| index.index(at + 1));
        resources.swap(at, other);
    }
    resources
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_changes_built_is_what_the_whole_says(changes in prop::collection::vec(world(), 1..60)) {
        let mut followed = Followed::default();
        for change in changes {
            followed.change(change);
            followed.assert_whole()?;
        }
        let anew = Live::of(&followed.fabric);
        for (node, view) in &followed.views {
            prop_assert_eq!(anew.view(&followed.fabric, node), Some(view.clone()));
        }
    }

    #[test]
    fn there_and_back_is_where_it_was(
        first in prop::collection::vec(world(), 1..40),
        second in prop::collection::vec(world(), 1..40),
    ) {
        let mut followed = Followed::default();
        for change in first {
            followed.change(change);
        }
        let (resources, views) = (followed.fabric.resources(), followed.views.clone());
        for change in second {
            followed.change(change);
        }
        let kept: BTreeSet<Object> = resources.iter().map(Resource::object).collect();
        for gone in followed.fabric.resources().iter().map(Resource::object).filter(|object| !kept.contains(object)) {
            followed.change(Change::Delete(gone));
        }
        for resource in resources {
            followed.change(Change::Put(resource));
        }
        prop_assert_eq!(&followed.views, &views);
        followed.assert_whole()?;
    }

    #[test]
    fn any_order_comes_to_the_same(
        changes in prop::collection::vec(world(), 1..50),
        order in prop::collection::vec(any::<Index>(), 1..40),
    ) {
        let mut straight = Followed::default();
        for change in changes {
            straight.change(change);
        }
        let mut early = Followed::default();
        for resource in shuffled(straight.fabric.resources(), &order) {
            early.change(Change::Put(resource));
        }
        prop_assert_eq!(&early.views, &straight.views);
        // And out again, dependents not first.
        for resource in shuffled(straight.fabric.resources(), &order) {
            early.change(Change::Delete(resource.object()));
            early.assert_whole()?;
        }
        prop_assert_eq!(early.fabric.resources(), Vec::new());
    }

    #[test]
    fn an_applied_topology_is_placed_as_itself(parts in parts()) {
        let topology = topology_of(&parts);
        assert_applied(&topology)?;
    }
}

fn assert_applied(topology: &Topology) -> Result<(), TestCaseError> {
    let mut followed = Followed { fabric: Fabric::new(topology.underlay().clone()), ..Followed::default() };
    let edits: Vec<Edit> = topology.resources().into_iter().map(Edit::put).collect();
    let changes = followed.fabric.plan(&edits);
    for change in changes.unwrap_or_else(|refusal| panic!("{refusal}")) {
        followed.change(change);
    }
    prop_assert_eq!(&followed.fabric.topology(), topology);
    followed.assert_whole()
}

#[test]
fn the_examples_are_placed_as_themselves() {
    for (_, topology) in examples() {
        assert_applied(&topology).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// A world of this many nodes; network `n` has a port on nodes `n` to `n + 3`, and every ten networks share a router.
fn large(nodes: u8) -> Followed {
    let mut followed = Followed::default();
    (0..nodes).for_each(|n| followed.change(Change::Put(node_spec(n, 0))));
    (0..nodes).for_each(|n| followed.change(Change::Put(network_spec(n, 0))));
    for n in 0..nodes {
        for port in 0..4 {
            followed.change(Change::Put(port_named(n, port, (n + port) % nodes)));
        }
    }
    followed
}

fn port_named(network: u8, port: u8, node: u8) -> Resource {
    let Resource::Port(spec) = port_spec(port, network, Some(node), None, 0) else { unreachable!("it is a port's") };
    Resource::Port(PortSpec { name: format!("port{network}-{port}"), ..spec })
}

#[test]
fn work_is_that_of_the_nodes_concerned() {
    let cost = |nodes: u8| {
        let mut followed = large(nodes);
        let before = followed.live.work();
        // A second port on a node that has the network.
        followed.change(Change::Put(port_named(1, 4, 1)));
        let second = followed.live.work();
        // The first port of a network on a node.
        followed.change(Change::Put(port_named(1, 5, 9)));
        let first = followed.live.work();
        followed.change(Change::Delete(Object::new(Kind::Port, "port1-5")));
        let last = followed.live.work();
        followed.assert_whole().unwrap_or_else(|error| panic!("{error}"));
        (second - before, first - second, last - first)
    };
    let small = cost(20);
    assert_eq!(small, cost(80), "the size of the whole tells in a port's cost");
    assert!(small.0 <= 8 && small.1 <= 24 && small.2 <= 16, "{small:?}");
}

#[test]
fn a_live_migration_holds_both_and_points_at_one() {
    let mut followed = Followed { fabric: Fabric::new(Underlay::default()), ..Followed::default() };
    (0..3).for_each(|n| followed.change(Change::Put(node_spec(n, 0))));
    (0..2).for_each(|n| followed.change(Change::Put(network_spec(n, 0))));
    followed.change(Change::Put(router_spec(0, &BTreeSet::from([0, 1]), 0)));
    followed.change(Change::Put(port_spec(0, 0, Some(0), None, 0)));
    followed.change(Change::Put(port_spec(1, 1, Some(2), None, 0)));
    let state = |followed: &Followed| -> Vec<String> {
        let port = |view: &NodeView| {
            let Some(network) = view.networks.first() else { return "nothing".to_owned() };
            let local = network.local_ports.first().map_or("", |port| if port.standby { "ready " } else { "here " });
            let remote = network.remote_ports.first().map_or(String::new(), |port| format!("at {} ", port.node));
            format!("{local}{remote}{} router", view.routers.len())
        };
        followed.views.values().map(port).collect()
    };
    assert_eq!(state(&followed), ["here 1 router", "nothing", "at node0 1 router"]);
    followed.change(Change::Put(port_spec(0, 0, Some(0), Some(1), 0)));
    assert_eq!(state(&followed), ["here 1 router", "ready at node0 1 router", "at node0 1 router"]);
    followed.change(Change::Put(port_spec(0, 0, Some(1), None, 0)));
    assert_eq!(state(&followed), ["nothing", "here 1 router", "at node1 1 router"]);
    followed.assert_whole().unwrap_or_else(|error| panic!("{error}"));
}

/// Input: a router that is distributed, then centralised, then moves, then is distributed again. Output: who holds what.
#[test]
fn a_router_is_where_it_was_put_and_nowhere_else() {
    let mut followed = Followed { fabric: Fabric::new(Underlay::default()), ..Followed::default() };
    (0..3).for_each(|n| followed.change(Change::Put(node_spec(n, 0))));
    (0..2).for_each(|n| followed.change(Change::Put(network_spec(n, 0))));
    followed.change(Change::Put(port_spec(0, 0, Some(0), None, 0)));
    followed.change(Change::Put(port_spec(1, 1, Some(2), None, 0)));
    let state = |followed: &mut Followed, seat: Option<u8>| -> Vec<String> {
        followed.change(Change::Put(seated_spec(0, &BTreeSet::from([0, 1]), 0, seat)));
        followed.assert_whole().unwrap_or_else(|error| panic!("{error}"));
        let node = |view: &NodeView| {
            let beyond = view.networks.iter().flat_map(|network| &network.remote_ports).filter(|port| port.router);
            let beyond: BTreeSet<&str> = beyond.map(|port| port.node.as_str()).collect();
            format!("{} networks, {} routers, beyond {beyond:?}", view.networks.len(), view.routers.len())
        };
        followed.views.values().map(node).collect()
    };
    let (whole, nothing) = ("2 networks, 1 routers, beyond {}", "0 networks, 0 routers, beyond {}");
    let aside = |seat: u8| format!("1 networks, 0 routers, beyond {{\"node{seat}\"}}");
    assert_eq!(state(&mut followed, None), [whole, nothing, whole]);
    assert_eq!(state(&mut followed, Some(1)), [&aside(1), whole, &aside(1)]);
    assert_eq!(state(&mut followed, Some(2)), [&aside(2), nothing, whole]);
    assert_eq!(state(&mut followed, None), [whole, nothing, whole]);
}

#[test]
fn a_late_removal_erases_nothing_newer() {
    let mut followed = large(4);
    let view = followed.views.get_mut("node0").expect("it is there");
    let port = |view: &NodeView| view.networks[1].remote_ports[0].clone();
    let (before, network) = (port(view), "network1".to_owned());
    let gone = |node: &str| ViewChange::RemotePortGone {
        network: network.clone(),
        name: before.name.clone(),
        node: node.to_owned(),
    };
    assert!(view.apply(gone("node3")));
    assert_eq!(port(view), before);
    assert!(view.apply(gone("node1")));
    assert_ne!(port(view), before);
}
