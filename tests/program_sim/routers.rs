//! Routers that live on one node, and several on one network.
//!
//! ```text
//!  node1: c1        node2: blue1 orange1 r1      node3: teal1 blue2 r1
//! ```
//! c1 joins blue and teal and is centralised; r1 joins blue and orange and is distributed, so it is on node1 too.

use super::invariants::{networks, payload};
use super::*;

const SEATED: &str = "
version: 1
nodes: {node1: {}, node2: {}, node3: {}}
networks:
  blue: {subnets: [{cidr: 10.1.0.0/24}, {cidr: 'fd00:1::/64'}]}
  orange: {subnets: [{cidr: 10.2.0.0/24}]}
  teal: {type: gre, subnets: [{cidr: 10.3.0.0/24}]}
routers:
  c1: {distributed: false, node: node1, interfaces: [blue, teal]}
  r1: {interfaces: [blue, orange]}
vms:
  blue1: {node: node2, network: blue}
  blue2: {node: node3, network: blue}
  orange1: {node: node2, network: orange}
  teal1: {node: node3, network: teal}
";

const TWO: &str = "
version: 1
nodes: {node1: {}, node2: {}, node3: {}}
networks: {blue: {subnets: [{cidr: 10.1.0.0/24}]}, orange: {subnets: [{cidr: 10.2.0.0/24}]}, teal: {subnets: [{cidr: 10.3.0.0/24}]}}
routers: {r1: {interfaces: [blue, orange]}, r2: {interfaces: [blue, teal]}}
vms: {blue1: {node: node1, network: blue}, blue2: {node: node2, network: blue}}
";

/// A router's interface on a network, as node1 has it.
fn interface(sim: &Sim, router: &str, network: &str) -> RouterPort {
    let routers = &sim.node("node1").view.routers;
    let router = routers.iter().find(|view| view.name == router).expect("node1 has it");
    router.interfaces.iter().find(|port| port.network == network).expect("it joins it").clone()
}

/// Input: blue1's whole way through c1 to teal1, each on a node of its own. Output: the question is answered at home; one
/// copy to c1's node, one from there, each under the speaker's own MAC; nobody learns c1's.
#[test]
fn a_centralised_router_is_reached_and_answers_as_any_station() {
    let mut sim = Sim::of(SEATED);
    assert_eq!(sim.node("node2").view.routers.len(), 1, "c1 is not there");
    let (inside, outside) = (interface(&sim, "c1", "blue"), interface(&sim, "c1", "teal"));
    let asker = (sim.mac("blue1"), sim.v4("blue1"));
    let outcome = sim.send_vm("blue1", question(asker, v4(&inside.addresses)));
    assert!(outcome.wired.is_empty(), "{outcome:?}");
    assert_eq!(outcome.only().frame, arp(asker.0, 2, (inside.mac, v4(&inside.addresses)), asker));
    let asker6 = (sim.mac("blue1"), sim.v6("blue1"));
    let gateway6 = v6(&inside.addresses);
    let outcome = sim.send_vm("blue1", solicitation(asker6, gateway6));
    assert_eq!(outcome.only().frame[58], 0xe0, "it is not said to be a router");

    let frame = ipv4(inside.mac, asker.0, (asker.1, sim.v4("teal1")));
    let outcome = sim.send_vm("blue1", frame.clone());
    assert_eq!(outcome.wired.iter().map(|wired| wired.to.as_str()).collect::<Vec<_>>(), ["node1"]);
    let expected = Delivered { node: "node1".into(), port: inside.ifname.to_string(), frame };
    assert_eq!(outcome.only(), &expected);

    let frame = ipv4(sim.mac("teal1"), outside.mac, (asker.1, sim.v4("teal1")));
    let outcome = sim.send("node1", outside.ifname.as_str(), frame.clone());
    assert_eq!(outcome.wired, [Wired { to: "node3".into(), vni: sim.vni("teal"), frame: frame.clone() }]);
    assert_eq!(outcome.only().frame, frame);
    let learned: Vec<String> = sim.nodes.iter().flat_map(SimNode::learned).collect();
    assert!(!learned.iter().any(|line| line.contains(&outside.mac.to_string())), "{learned:?}");
}

/// Input: r1 on node2 sends to c1, and c1 to r1's address. Output: c1 sees r1's MAC; r1 is met on c1's own node.
#[test]
fn a_distributed_router_and_a_centralised_one_meet_on_a_network() {
    let mut sim = Sim::of(SEATED);
    let (seated, replica) = (interface(&sim, "c1", "blue"), interface(&sim, "r1", "blue"));
    let ips = (sim.v4("orange1"), v4(&seated.addresses));
    let frame = ipv4(seated.mac, replica.mac, ips);
    let outcome = sim.send("node2", replica.ifname.as_str(), frame.clone());
    assert_eq!(outcome.wired.len(), 1);
    assert_eq!(src(&outcome.wired[0].frame), sim.host_mac("node2"));
    assert_eq!(outcome.only(), &Delivered { node: "node1".into(), port: seated.ifname.to_string(), frame });
    let asker = (seated.mac, v4(&seated.addresses));
    let outcome = sim.send("node1", seated.ifname.as_str(), question(asker, v4(&replica.addresses)));
    assert_eq!(outcome.only().frame, arp(seated.mac, 2, (replica.mac, v4(&replica.addresses)), asker));
    let outcome = sim.send("node1", seated.ifname.as_str(), ipv4(replica.mac, seated.mac, (ips.1, ips.0)));
    assert!(outcome.wired.is_empty() && outcome.only().port == replica.ifname.as_str(), "{outcome:?}");
}

/// Input: c1 asks for an address nobody registered; a machine that has it answers. Output: heard under c1's own MAC by
/// every machine of the network and no replica; the answer comes back to c1.
#[test]
fn a_centralised_router_finds_what_nobody_registered() {
    let mut sim = Sim::of(SEATED);
    let seated = interface(&sim, "c1", "blue");
    let (asker, unknown) = ((seated.mac, v4(&seated.addresses)), Ipv4Addr::new(10, 1, 0, 200));
    let frame = question(asker, unknown);
    let outcome = sim.send("node1", seated.ifname.as_str(), frame.clone());
    assert!(outcome.wired.iter().all(|wired| wired.frame == frame), "{outcome:?}");
    let heard = outcome.places();
    for vm in ["blue1", "blue2"] {
        let (node, port) = sim.vm(vm);
        assert!(heard.contains(&(node.as_str(), port.port.as_str())), "{vm} did not hear: {outcome:?}");
    }
    assert!(heard.iter().all(|(node, port)| *node == "node1" || !port.starts_with("qr-")), "{outcome:?}");
    let answer = arp(seated.mac, 2, (sim.mac("blue2"), unknown), asker);
    let outcome = sim.send_vm("blue2", answer.clone());
    assert_eq!(outcome.only(), &Delivered { node: "node1".into(), port: seated.ifname.to_string(), frame: answer });
}

/// Input: machines and tunnels that pretend to be c1. Output: nothing.
#[test]
fn nobody_pretends_to_be_a_centralised_router() {
    let mut sim = Sim::of(SEATED);
    let seated = interface(&sim, "c1", "blue");
    let ips = (v4(&seated.addresses), sim.v4("blue2"));
    let frame = ipv4(sim.mac("blue2"), seated.mac, ips);
    assert!(sim.send_vm("blue1", frame.clone()).is_nothing(), "a machine was heard as c1");
    let blue = sim.vni("blue");
    assert!(sim.tunnelled(("node2", "node1"), blue, frame).is_nothing(), "c1's own node heard c1 from elsewhere");
}

/// Input: two distributed routers on one network. Output: each is asked and reached apart; what either routed arrives.
#[test]
fn two_distributed_routers_share_a_network() {
    let mut sim = Sim::of(TWO);
    let asker = (sim.mac("blue1"), sim.v4("blue1"));
    for router in ["r1", "r2"] {
        let port = interface(&sim, router, "blue");
        let outcome = sim.send_vm("blue1", question(asker, v4(&port.addresses)));
        assert_eq!(outcome.only().frame, arp(asker.0, 2, (port.mac, v4(&port.addresses)), asker), "{router}");
        let frame = ipv4(port.mac, asker.0, (asker.1, Ipv4Addr::new(10, 9, 0, 1)));
        let outcome = sim.send_vm("blue1", frame);
        assert!(outcome.wired.is_empty() && outcome.only().port == port.ifname.as_str(), "{router}: {outcome:?}");
        let frame = ipv4(sim.mac("blue2"), port.mac, (Ipv4Addr::new(10, 2, 0, 9), sim.v4("blue2")));
        let outcome = sim.send("node1", port.ifname.as_str(), frame);
        assert_eq!(src(&outcome.wired[0].frame), sim.host_mac("node1"), "{router}");
        assert_eq!(outcome.only().port, sim.vm("blue2").1.port.as_str(), "{router}");
        let host = sim.host_mac("node1");
        let answer = arp(host, 2, (sim.mac("blue2"), Ipv4Addr::new(10, 1, 0, 200)), (host, v4(&port.addresses)));
        let outcome = sim.tunnelled(("node2", "node1"), sim.vni("blue"), answer);
        assert_eq!((outcome.only().port.as_str(), dst(&outcome.only().frame)), (port.ifname.as_str(), port.mac));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever machines and routers of both kinds send, in whatever order.
    #[test]
    fn both_kinds_keep_apart(frames in proptest::collection::vec(
        (0_usize..16, 0_usize..12, 0_usize..12, 0_usize..6, 0_usize..25), 1..30,
    )) {
        let mut sim = Sim::of(SEATED);
        let networks = networks(&sim);
        let (seated, replica) = (interface(&sim, "c1", "blue"), interface(&sim, "r1", "blue"));
        let hosts = ["node1", "node2", "node3"].map(|node| sim.host_mac(node));
        let mut macs: Vec<Mac> = ["blue1", "blue2", "orange1", "teal1"].map(|vm| sim.mac(vm)).into();
        macs.extend([seated.mac, replica.mac, Mac::BROADCAST, Mac::new([2, 0, 0, 0, 0, 9])]);
        macs.extend(hosts);
        let own: BTreeMap<String, Mac> = sim.nodes.iter().flat_map(|node| &node.view.routers)
            .flat_map(|router| &router.interfaces).map(|port| (port.ifname.to_string(), port.mac)).collect();
        let ports: Vec<(String, String)> = sim.nodes.iter()
            .flat_map(|node| node.ports.values().map(|port| (node.view.node.name.clone(), port.clone())))
            .collect();
        for (port, to, from, kind, pick) in frames {
            let (node, port) = ports[port % ports.len()].clone();
            let from = own.get(&port).copied().unwrap_or(macs[from % macs.len()]);
            let frame = payload(&sim, kind, (macs[to % macs.len()], from), pick);
            let outcome = sim.send(&node, &port, frame.clone());
            let mut copies = BTreeSet::new();
            for Delivered { node: at, port: to, frame: out } in &outcome.delivered {
                prop_assert_eq!(&networks[to].0, &networks[&port].0, "it changed networks: {:02x?}", &frame);
                prop_assert!(copies.insert((at, to)), "two copies to {} of {:02x?}", to, &frame);
                prop_assert!(!hosts.contains(&src(out)), "a host MAC reached {}", to);
                let is_replica = own.get(to).is_some_and(|mac| *mac == replica.mac);
                prop_assert!(!is_replica || *at == node, "a replica elsewhere heard {:02x?}", &frame);
            }
            for Wired { frame: out, .. } in &outcome.wired {
                let on_blue = networks[&port].0 == "blue";
                prop_assert!(!on_blue || src(out) != replica.mac, "a replica's MAC on the wire");
                prop_assert!(!on_blue || src(out) != seated.mac || node == "node1", "c1 spoke elsewhere");
            }
        }
        for node in &sim.nodes {
            for line in node.learned() {
                let is_router = node.router_stations().iter().any(|(vlan, mac)| {
                    line.contains(vlan.as_str()) && line.contains(&format!("dl_dst={mac}"))
                });
                prop_assert!(!is_router && !hosts.iter().any(|mac| line.contains(&mac.to_string())), "learned: {}", line);
            }
        }
    }
}

/// Input: what a tunnel says of a packet that the node's router sent on under the host MAC, by either family. Output: the
/// router hears it under its own MAC, from where it sent the packet to.
#[test]
fn a_router_is_told_what_was_too_big_of_it() {
    let mut sim = Sim::new();
    let host = sim.host_mac("node1");
    let (orange1, blue2) = (sim.mac("orange1"), sim.mac("blue2"));
    let sender = IpAddr::from(sim.v4("blue1"));
    let beyond = "fd00:9::9".parse().expect("an address of some other network");
    let cases =
        [("orange", orange1, IpAddr::from(sim.v4("orange1")), sender), ("blue", blue2, sim.v6("blue2").into(), beyond)];
    for (network, station, from, to) in cases {
        let (router, vni) = (sim.router(network), sim.vni(network));
        let outcome = sim.tunnelled(("node2", "node1"), vni, too_big((host, station), from, to));
        assert_eq!(outcome.only().port, router.ifname.as_str());
        assert_eq!(outcome.only().frame, too_big((router.mac, station), from, to));
        assert!(outcome.wired.is_empty(), "{outcome:?}");
        // No other message is for the host MAC, a port or host that is unreachable neither.
        let mut other = too_big((host, station), from, to);
        other[if from.is_ipv4() { 35 } else { 54 }] = 1;
        assert!(sim.tunnelled(("node2", "node1"), vni, other).is_nothing());
    }
}

/// Input: the same on a network with two routers, from either of the networks behind them. Output: the router that leads to
/// the packet's sender hears it.
#[test]
fn of_two_routers_the_one_that_leads_to_the_sender_is_told() {
    let mut sim = Sim::of(TWO);
    let (host, blue2, from) = (sim.host_mac("node1"), sim.mac("blue2"), IpAddr::from(sim.v4("blue2")));
    for (router, sender) in [("r1", [10, 2, 0, 7]), ("r2", [10, 3, 0, 7]), ("r1", [192, 0, 2, 7])] {
        let port = interface(&sim, router, "blue");
        let outcome = sim.tunnelled(("node2", "node1"), sim.vni("blue"), too_big((host, blue2), from, sender.into()));
        assert_eq!(outcome.only().port, port.ifname.as_str(), "{router}");
        assert_eq!(dst(&outcome.only().frame), port.mac);
    }
}
