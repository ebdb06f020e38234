//! Plans: what they refuse, what they fill in, what they leave alone.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::model::problem::KINDS;
use crate::model::resource::{AddressClaim, AddressPair, ClaimedAddress, InterfaceSpec};
use crate::model::tests::{assert_unique, parts, topology_of};
use crate::types::Mac;

fn resource(text: &str) -> Resource {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(super) fn puts(texts: &[&str]) -> Vec<Edit> {
    texts.iter().map(|text| Edit::put(resource(text))).collect()
}

pub(super) fn done(fabric: &mut Fabric, edits: &[Edit]) -> Vec<Change> {
    let changes = fabric.plan(edits).unwrap_or_else(|refusal| panic!("{refusal}"));
    changes.iter().cloned().for_each(|change| drop(fabric.change(change)));
    changes
}

/// Two nodes, two networks, a router, two machines.
pub(super) fn fabric() -> Fabric {
    let mut fabric = Fabric::default();
    let edits = puts(&[
        "{kind: port, name: v1, network: blue, node: n1}",
        "{kind: port, name: v2, network: blue, node: n2, device: tap-v2}",
        "{kind: router, name: r1, interfaces: [{network: blue}, {network: orange}]}",
        "{kind: network, name: blue, subnets: [{cidr: 10.1.0.0/24}]}",
        "{kind: network, name: orange, subnets: [{cidr: 10.2.0.0/24}]}",
        "{kind: node, name: n1}",
        "{kind: node, name: n2}",
    ]);
    done(&mut fabric, &edits);
    fabric
}

fn port(fabric: &Fabric, name: &str) -> PortSpec {
    fabric.ports()[name].clone()
}

fn kinds(fabric: &Fabric, edits: &[Edit]) -> Vec<String> {
    fabric.plan(edits).expect_err("it was taken").problems.into_iter().map(|problem| problem.kind).collect()
}

#[test]
fn what_is_left_out_is_filled_in_and_then_stays() {
    let mut fabric = fabric();
    let before = fabric.resources();
    let bare = puts(&[
        "{kind: port, name: v2, network: blue, node: n2, device: tap-v2}",
        "{kind: router, name: r1, interfaces: [{network: blue}, {network: orange}]}",
        "{kind: network, name: blue, subnets: [{cidr: 10.1.0.0/24}]}",
        "{kind: node, name: n1}",
    ]);
    assert_eq!(done(&mut fabric, &bare), []);
    assert_eq!(fabric.resources(), before);
    assert_eq!(port(&fabric, "v2").ips, [core::net::IpAddr::from([10, 1, 0, 3])]);
}

#[test]
fn edits_happen_at_once() {
    let mut fabric = fabric();
    let swap = puts(&[
        "{kind: port, name: v1, network: blue, node: n1, ips: [10.1.0.3]}",
        "{kind: port, name: v2, network: blue, node: n2, ips: [10.1.0.2]}",
    ]);
    done(&mut fabric, &swap);
    assert_eq!(
        (port(&fabric, "v1").ips, port(&fabric, "v2").ips),
        (vec![[10, 1, 0, 3].into()], vec![[10, 1, 0, 2].into()])
    );
    // A node goes in the same go as its port moves off it, and a network with all that is on it.
    let mut edits = puts(&["{kind: port, name: v1, network: orange, node: n2}"]);
    edits.extend([Edit::delete(Kind::Node, "n1"), Edit::delete(Kind::Network, "blue"), Edit::delete(Kind::Port, "v2")]);
    edits.extend(puts(&["{kind: router, name: r1, interfaces: [{network: orange}]}"]));
    let order: Vec<String> = done(&mut fabric, &edits).iter().map(|change| change.object().to_string()).collect();
    assert_eq!(order, ["virtual machine `v2`", "router `r1`", "virtual machine `v1`", "network `blue`", "node `n1`"]);
    assert_eq!(port(&fabric, "v1").ips, [core::net::IpAddr::from([10, 2, 0, 2])]);
}

#[test]
fn routers_follow_their_networks_subnets() {
    let mut fabric = fabric();
    let edits = puts(&[
        "{kind: network, name: blue, subnets: [{cidr: 10.1.0.0/24, gateway: 10.1.0.9}, {cidr: 'fd00:1::/64'}]}",
    ]);
    let changes = done(&mut fabric, &edits);
    assert_eq!(changes.len(), 2, "{changes:?}");
    let ips = fabric.routers()["r1"].interfaces[0].ips.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(ips, ["10.1.0.9", "fd00:1::1"]);
    // Prefixes that meet in the router are refused, whoever brings them together.
    let edits = puts(&["{kind: network, name: blue, subnets: [{cidr: 10.1.0.0/24}, {cidr: 10.2.0.0/16}]}"]);
    assert_eq!(kinds(&fabric, &edits), ["RouterOverlap"]);
}

#[test]
fn a_centralised_router_is_given_a_node_and_keeps_it() {
    let mut fabric = fabric();
    let node = |fabric: &Fabric, name: &str| fabric.routers()[name].node.clone().unwrap_or_default();
    let made = puts(&[
        "{kind: router, name: c3, distributed: false}",
        "{kind: router, name: c2, distributed: false}",
        "{kind: router, name: c1, distributed: false, node: n1}",
    ]);
    done(&mut fabric, &made);
    assert_eq!(["c1", "c2", "c3"].map(|name| node(&fabric, name)), ["n1", "n2", "n1"], "the one with fewest, by name");
    done(&mut fabric, &[Edit::delete(Kind::Router, "c1")]);
    done(&mut fabric, &[Edit::delete(Kind::Router, "c3")]);
    assert_eq!(done(&mut fabric, &puts(&["{kind: router, name: c2, distributed: false}"])), []);
    assert_eq!(kinds(&fabric, &[Edit::delete(Kind::Node, "n2")]), ["InUse"]);
    // Its node goes, and it was not asked to live there.
    let mut gone = puts(&["{kind: router, name: c2, distributed: false}", "{kind: port, name: v2, network: blue}"]);
    gone.push(Edit::delete(Kind::Node, "n2"));
    done(&mut fabric, &gone);
    assert_eq!(node(&fabric, "c2"), "n1");
    // What was one becomes the other, and is the same router.
    let same = |fabric: &Fabric| (fabric.routers()["r1"].id, fabric.routers()["r1"].interfaces.clone());
    let before = same(&fabric);
    for text in ["distributed: false", "distributed: true"] {
        done(
            &mut fabric,
            &puts(&[&format!(
                "{{kind: router, name: r1, {text}, interfaces: [{{network: blue}}, {{network: orange}}]}}"
            )]),
        );
        assert_eq!(same(&fabric), before);
    }
    assert_eq!(fabric.routers()["r1"].node, None);
    let nowhere = Fabric::default();
    assert_eq!(kinds(&nowhere, &puts(&["{kind: router, name: c1, distributed: false}"])), ["NoNode"]);
}

/// Input: two ports that may take an address, and what becomes of them. Output: the newest has it, as long as it may.
#[test]
fn an_address_goes_with_who_may_have_it() {
    let mut fabric = fabric();
    let pair = "allowed_address_pairs: [{ip: 10.1.0.100/32}, {ip: 10.1.0.64/28}, {ip: 10.1.0.2/32}]";
    let put = |name: &str, node: &str, rest: &str| {
        puts(&[&format!("{{kind: port, name: {name}, network: blue, node: {node}, {rest}}}")])
    };
    done(&mut fabric, &[put("v1", "n1", pair), put("v2", "n2", pair)].concat());
    let claim = |fabric: &Fabric, name: &str, node: &str, last: u8| {
        let address = ClaimedAddress { ip: [10, 1, 0, last].into(), mac: port(fabric, name).mac.expect("filled in") };
        [Edit::Claim(AddressClaim { port: name.to_owned(), node: node.to_owned(), address })]
    };
    let holders = |fabric: &Fabric| -> Vec<String> {
        let has = fabric.ports().values().filter(|port| !port.claimed.is_empty());
        has.map(|port| port.name.clone()).collect()
    };
    for (name, node) in [("v1", "n1"), ("v2", "n2"), ("v1", "n1")] {
        let edit = claim(&fabric, name, node, 100);
        done(&mut fabric, &edit);
        assert_eq!(holders(&fabric), [name]);
        assert_eq!(done(&mut fabric, &edit), [], "it has it already");
    }
    for (name, node, last) in [("v2", "n1", 100), ("v2", "n2", 65), ("v2", "n2", 101), ("v2", "n2", 2)] {
        assert_eq!(kinds(&fabric, &claim(&fabric, name, node, last)), ["Unentitled"], "{name} on {node}: {last}");
    }
    // It moves with its port, and ends with its pair.
    done(&mut fabric, &put("v1", "n2", pair));
    assert_eq!(holders(&fabric), ["v1"]);
    let unsaid = PortSpec { claimed: Vec::new(), ..port(&fabric, "v1") };
    assert_eq!(done(&mut fabric, &[Edit::put(Resource::Port(unsaid))]), [], "what is not to be asked for stays");
    done(&mut fabric, &put("v1", "n2", ""));
    assert_eq!(holders(&fabric), Vec::<String>::new());
    // An unbound port only keeps the address from being given to somebody else.
    done(&mut fabric, &puts(&["{kind: port, name: vip, network: blue, ips: [10.1.0.100]}"]));
    let edit = claim(&fabric, "v2", "n2", 100);
    done(&mut fabric, &edit);
    assert_eq!(holders(&fabric), ["v2"]);
    done(&mut fabric, &[Edit::delete(Kind::Port, "v2")]);
    assert_eq!(holders(&fabric), Vec::<String>::new());
}

#[test]
fn what_cannot_be_is_refused() {
    let fabric = fabric();
    let v2 = port(&fabric, "v2");
    let cases: Vec<(Vec<Edit>, &str)> = vec![
        (puts(&["{kind: node, name: n9}", "{kind: node, name: n9}"]), "EditTwice"),
        (vec![Edit::delete(Kind::Router, "r9")], "Absent"),
        (vec![Edit::delete(Kind::Node, "n1")], "InUse"),
        (vec![Edit::delete(Kind::Network, "orange")], "InUse"),
        (puts(&["{kind: network, name: blue, subnets: [{cidr: 10.3.0.0/24}]}"]), "Stranded Stranded"),
        (puts(&["{kind: network, name: blue, subnets: [{cidr: 10.1.0.0/24, gateway: 10.1.0.2}]}"]), "GatewayBorne"),
        (puts(&["{kind: port, name: v3, network: blue, migrating_to: n1}"]), "Migration"),
        (puts(&["{kind: port, name: v3, network: blue, node: n1, migrating_to: n1}"]), "Migration"),
        (puts(&["{kind: port, name: v3, network: blue, node: n3}"]), "Unknown"),
        (puts(&["{kind: port, name: v3, network: blue, ips: [10.1.0.2]}"]), "AddressTwice"),
        (puts(&["{kind: port, name: v3, network: blue, ips: [10.1.0.1]}"]), "AddressGateway"),
        (puts(&["{kind: port, name: v3, network: blue, node: n2, device: tap-v2}"]), "DeviceTwice"),
        (puts(&["{kind: port, name: n1, network: blue}"]), "NameTwice"),
        (puts(&["{kind: node, name: v1}"]), "NameTwice"),
        (puts(&["{kind: router, name: r2, node: n1}"]), "RouterNode"),
        (puts(&["{kind: router, name: r2, distributed: false, node: n3}"]), "Unknown"),
        (puts(&["{kind: network, name: teal, subnets: []}"]), "NoSubnet"),
        (puts(&["{kind: port, name: v3, network: blue, allowed_address_pairs: [{ip: 10.1.0.9/24}]}"]), "HostBits"),
        (
            vec![Edit::put(Resource::Port(PortSpec { name: "v3".to_owned(), ..v2 }))],
            "DeviceTwice IdTwice MacTwice AddressTwice",
        ),
    ];
    for (edits, expected) in cases {
        assert_eq!(kinds(&fabric, &edits).join(" "), expected, "{edits:?}");
    }
    assert!(KINDS.contains(&"Stranded"));
}

#[test]
fn a_refusal_names_the_object_and_the_remedy() {
    let refusal = fabric().plan(&[Edit::delete(Kind::Node, "n1")]).expect_err("v1 is on it");
    let expected = "node `n1`: node `n1` cannot go while virtual machine `v1` is on it\n  = remedy: delete or move \
                    virtual machine `v1` first, or in the same go";
    assert_eq!(refusal.to_string(), expected);
}

#[test]
fn ten_thousand_nodes_have_host_macs_of_their_own_and_free_them() {
    let underlay = Underlay { cidr: "10.0.0.0/8".parse().expect("legal"), ..Underlay::default() };
    let mut fabric = Fabric::new(underlay);
    let node = |n: usize| Edit::put(Resource::Node(NodeSpec { name: format!("n{n}"), ..NodeSpec::default() }));
    let edits: Vec<Edit> = (0..10_000).map(node).collect();
    // Half in one go, half one by one, as they register.
    done(&mut fabric, &edits[..5_000]);
    for edit in &edits[5_000..] {
        done(&mut fabric, core::slice::from_ref(edit));
    }
    let macs: BTreeSet<Mac> = fabric.nodes().values().filter_map(|node| node.host_mac).collect();
    assert_eq!(macs.len(), 10_000);
    assert!(macs.iter().all(|mac| mac.octets()[..3] == [0xfa, 0x16, 0x3f]));
    let gone = fabric.nodes()["n7"].clone();
    done(&mut fabric, &[Edit::delete(Kind::Node, "n7")]);
    let heir = NodeSpec { name: "heir".to_owned(), ..gone.clone() };
    done(&mut fabric, &[Edit::put(Resource::Node(heir))]);
    assert_eq!(kinds(&fabric, &[Edit::put(Resource::Node(gone))]), ["AddressTwice", "MacTwice"]);
}

/// What somebody may ask for in a small world: much of it impossible.
pub(super) fn asked() -> impl Strategy<Value = Edit> {
    let mappings = prop_oneof![
        3 => Just(""),
        1 => Just(", bridge_mappings: {}"),
        1 => Just(", bridge_mappings: {p: eth8}"),
        1 => Just(", bridge_mappings: {q: eth9}"),
        1 => Just(", bridge_mappings: {p: eth8, q: eth9}"),
    ];
    let node = (0_u8..3, mappings).prop_map(|(n, mappings)| format!("{{kind: node, name: n{n}{mappings}}}"));
    let segment = prop_oneof![
        4 => Just(""),
        1 => Just("type: vlan, physical_network: p, "),
        1 => Just("type: vlan, physical_network: q, "),
    ];
    let network = (0_u8..3, 0_u8..4, segment).prop_map(|(n, version, segment)| {
        let subnets = [
            "{cidr: 10.N.0.0/29}",
            "{cidr: 10.N.0.0/29, gateway: 10.N.0.4}",
            "{cidr: 10.N.0.0/28}, {cidr: 'fd00:N::/64'}",
            "{cidr: 10.9.0.0/24}",
        ];
        let subnets = subnets[usize::from(version)].replace('N', &n.to_string());
        format!("{{kind: network, name: net{n}, {segment}subnets: [{subnets}]}}")
    });
    let place = prop_oneof![
        2 => Just(String::new()),
        1 => Just(", distributed: false".to_owned()),
        1 => (0_u8..3).prop_map(|node| format!(", distributed: false, node: n{node}")),
    ];
    let router = (0_u8..2, prop::collection::btree_set(0_u8..3, 0..3), place).prop_map(|(n, joined, place)| {
        let joined: Vec<String> = joined.iter().map(|network| format!("{{network: net{network}}}")).collect();
        format!("{{kind: router, name: r{n}, interfaces: [{}]{place}}}", joined.join(", "))
    });
    let port =
        (0_u8..6, 0_u8..3, prop::option::of(0_u8..3), prop::option::of(2_u8..7)).prop_map(|(n, network, node, ip)| {
            let node = node.map_or(String::new(), |node| format!(", node: n{node}"));
            let ip = ip.map_or(String::new(), |ip| format!(", ips: [10.{network}.0.{ip}]"));
            format!("{{kind: port, name: v{n}, network: net{network}{node}{ip}}}")
        });
    let put = prop_oneof![1 => node, 1 => network, 1 => router, 3 => port].prop_map(|text| Edit::put(resource(&text)));
    let gone = (0_usize..4, 0_u8..6).prop_map(|(kind, n)| {
        let prefix = ["n", "net", "r", "v"][kind];
        Edit::delete(Kind::ALL[kind], format!("{prefix}{n}"))
    });
    prop_oneof![4 => put, 1 => gone]
}

/// A port of the small world that may take addresses, and what it or another says that it took.
fn contended() -> impl Strategy<Value = Edit> {
    let pairs = prop::collection::btree_set((100_u8..103, prop::option::of(0_u8..2)), 0..3);
    let port = (0_u8..4, prop::option::weighted(0.8, 0_u8..2), pairs).prop_map(|(n, node, pairs)| {
        let node = node.map_or(String::new(), |node| format!(", node: n{node}"));
        let mac = |mac: &Option<u8>| mac.map_or(String::new(), |mac| format!(", mac: '00:00:5e:00:01:0{mac}'"));
        let pairs = pairs.iter().map(|(ip, with)| format!("{{ip: 10.0.0.{ip}/32{}}}", mac(with)));
        let pairs = pairs.collect::<Vec<_>>().join(", ");
        let text = format!("{{kind: port, name: v{n}, network: net0{node}, allowed_address_pairs: [{pairs}]}}");
        Edit::put(resource(&text))
    });
    let claim = (0_u8..4, 0_u8..2, 99_u8..104, prop::option::of(0_u8..2)).prop_map(|(n, node, ip, mac)| {
        let mac = mac.map_or(Mac::ZERO, |mac| Mac::new([0, 0, 0x5e, 0, 1, mac]));
        let address = ClaimedAddress { ip: [10, 0, 0, ip].into(), mac };
        Edit::Claim(AddressClaim { port: format!("v{n}"), node: format!("n{node}"), address })
    });
    let gone = (0_u8..4).prop_map(|n| Edit::delete(Kind::Port, format!("v{n}")));
    prop_oneof![3 => port, 6 => claim, 1 => gone]
}

/// Whoever took an address is entitled to it, is somewhere, and has it alone.
fn assert_entitled(fabric: &Fabric) {
    let mut taken = BTreeSet::new();
    for port in fabric.ports().values() {
        for address in &port.claimed {
            assert!(port.is_entitled(*address), "{} took {address:?}", port.name);
            assert!(port.node.is_some(), "{} is nowhere and has {address:?}", port.name);
            assert!(taken.insert((&port.network, address.ip)), "{address:?} is taken twice");
        }
    }
}

pub(super) fn assert_sound(fabric: &Fabric) {
    let topology = fabric.topology();
    assert_unique(&topology);
    let placed = fabric.ports().values().filter(|port| port.node.is_some()).count();
    let sizes = [topology.nodes().len(), topology.networks().len(), topology.routers().len(), topology.vms().len()];
    assert_eq!(
        sizes,
        [fabric.nodes.len(), fabric.networks.len(), fabric.routers.len(), placed],
        "something leads nowhere"
    );
    // What is there may be asked for again, and nothing comes of it but addresses of a family that a port's network has
    // gained since: a network's change asks for no change of its ports.
    let again: Vec<Edit> = fabric.resources().into_iter().map(Edit::put).collect();
    for change in fabric.plan(&again).expect("what is there is sound") {
        let Change::Put(Resource::Port(mut port)) = change else { panic!("{change:?} comes of nothing") };
        let was = &fabric.ports()[&port.name];
        assert!(port.ips.len() > was.ips.len() && port.ips.starts_with(&was.ips), "{port:?}");
        port.ips.clone_from(&was.ips);
        assert_eq!(port, *was);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_planned_is_sound(edits in prop::collection::vec(prop::collection::vec(asked(), 1..6), 1..12)) {
        let mut fabric = Fabric::default();
        for edits in edits {
            match fabric.plan(&edits) {
                Ok(changes) => changes.into_iter().for_each(|change| drop(fabric.change(change))),
                Err(refusal) => prop_assert!(!refusal.problems.is_empty()),
            }
            assert_sound(&fabric);
        }
        // All of it can go at once, and nothing of it is kept.
        let gone: Vec<Edit> =
            fabric.resources().iter().map(|gone| Edit::delete(gone.kind(), gone.name())).collect();
        done(&mut fabric, &gone);
        prop_assert!(fabric.ports_of.is_empty() && fabric.ports_on.is_empty());
        prop_assert!(fabric.routers_of.is_empty() && fabric.routers_on.is_empty());
        prop_assert_eq!(fabric.claims.macs.len() + fabric.claims.ids.len() + fabric.claims.vnis.len(), 0);
        prop_assert!(fabric.claims.addresses.is_empty());
    }

    #[test]
    fn nobody_takes_what_it_is_not_entitled_to(edits in prop::collection::vec(contended(), 1..40)) {
        let mut fabric = Fabric::default();
        let base = ["{kind: node, name: n0}", "{kind: node, name: n1}", "{kind: network, name: net0, subnets: [{cidr: 10.0.0.0/24}]}"];
        done(&mut fabric, &puts(&base));
        for mut edit in edits {
            // A claim without a MAC of its own is made with the port's.
            if let Edit::Claim(AddressClaim { port, address, .. }) = &mut edit
                && address.mac == Mac::ZERO
                && let Some(mac) = fabric.ports().get(port.as_str()).and_then(|port| port.mac)
            {
                address.mac = mac;
            }
            let planned = fabric.plan(core::slice::from_ref(&edit));
            let before = fabric.clone();
            let is_done = planned.is_ok();
            planned.into_iter().flatten().for_each(|change| drop(fabric.change(change)));
            assert_entitled(&fabric);
            if let Edit::Claim(AddressClaim { port, node, address }) = &edit {
                let spec = before.ports().get(port.as_str());
                let may = spec.is_some_and(|spec| spec.is_entitled(*address) && spec.node.as_ref() == Some(node));
                prop_assert_eq!(is_done, may, "{:?}", &edit);
                prop_assert!(!may || fabric.ports()[port.as_str()].claimed.contains(address), "the newest has it");
            }
        }
    }

    #[test]
    fn one_by_one_or_at_once_is_the_same(parts in parts()) {
        let topology = topology_of(&parts);
        let mut fabric = Fabric::new(topology.underlay().clone());
        for resource in topology.resources() {
            done(&mut fabric, &[Edit::put(resource)]);
        }
        prop_assert_eq!(fabric.topology(), topology);
    }

    #[test]
    fn resources_say_themselves_in_json_and_yaml(
        parts in parts(),
        pair in any::<Index>(),
        mac in prop::option::of(any::<[u8; 6]>()),
    ) {
        let mut resources = topology_of(&parts).resources();
        if let Some(Resource::Port(spec)) = resources.last_mut() {
            let ip = if pair.index(2) == 0 { "10.0.0.0/8" } else { "fd00::1/128" };
            spec.allowed_address_pairs.push(AddressPair { ip: ip.parse().expect("legal"), mac: mac.map(Mac::new) });
            spec.node = None;
        }
        for resource in resources {
            let json = serde_json::to_string(&resource).expect("it serializes");
            prop_assert_eq!(&serde_json::from_str::<Resource>(&json).expect("it parses"), &resource);
            let yaml = serde_saphyr::to_string(&resource).expect("it serializes");
            prop_assert_eq!(&self::resource(&yaml), &resource);
        }
    }
}

#[test]
fn unknown_fields_are_refused() {
    for text in [
        "{kind: node, name: n1, colour: red}",
        "{kind: network, name: a, subnets: [{cidr: 10.1.0.0/24, dhcp: yes}]}",
        "{kind: router, name: r1, interfaces: [{network: a, speed: 1}]}",
        "{kind: port, name: v1, network: a, ip: 10.1.0.2}",
        "{kind: bridge, name: b}",
        "{name: n1}",
    ] {
        assert!(serde_saphyr::from_str::<Resource>(text).is_err(), "{text} was taken");
        assert!(serde_saphyr::from_str::<InterfaceSpec>(text).is_err(), "{text} was taken");
    }
}
