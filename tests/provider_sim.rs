//! VLAN and flat networks at work: three nodes, each the engine with its own programs, on one physical network. That is a
//! switch which learns as hardware does, and on which no router's MAC may ever be seen, nor a host's in two places.
//!
//! ```text
//!  node1: blue1 orange1 white1 r1      node2: blue2 orange2 white2 teal2 r1      node3: blue3 r1
//! ```
//! blue is VLAN 100 and has IPv6 too, orange VLAN 200, white untagged; teal is a network of tunnels.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;

use dvr::datapath::{Ingress, TunnelMeta};
use dvr::model::Topology;
use dvr::model::view::{PortView, RouterPort};
use dvr::placement;
use dvr::types::Mac;
use frames::{arp, dst, ethernet, ipv4, mac_at, nd, question, solicitation, src, too_big};
use proptest::prelude::*;
use simulated::{FRAMES_MAX, SimNode, WIRE, v4, v6};

#[path = "support/frames.rs"]
mod frames;
#[path = "support/simulated.rs"]
#[expect(dead_code, reason = "every test binary uses its own part of this")]
mod simulated;

const TOPOLOGY: &str = "
version: 1
nodes:
  node1: {bridge_mappings: {physnet1: eth1}}
  node2: {bridge_mappings: {physnet1: eth1}}
  node3: {bridge_mappings: {physnet1: eth1}}
networks:
  blue: {type: vlan, physical_network: physnet1, vlan: 100, subnets: [{cidr: 10.1.0.0/24}, {cidr: 'fd00:1::/64'}]}
  orange: {type: vlan, physical_network: physnet1, vlan: 200, subnets: [{cidr: 10.2.0.0/24}]}
  white: {type: flat, physical_network: physnet1, subnets: [{cidr: 10.3.0.0/24}]}
  teal: {type: vxlan, subnets: [{cidr: 10.4.0.0/24}]}
routers: {r1: {distributed: true, interfaces: [blue, orange, white, teal]}}
vms:
  blue1: {node: node1, network: blue}
  blue2: {node: node2, network: blue}
  blue3: {node: node3, network: blue}
  orange1: {node: node1, network: orange}
  orange2: {node: node2, network: orange}
  white1: {node: node1, network: white}
  white2: {node: node2, network: white}
  teal2: {node: node2, network: teal}
";

const NODES: [&str; 3] = ["node1", "node2", "node3"];
/// The networks on the wire, with their tags.
const TAGS: [(&str, Option<u16>); 3] = [("blue", Some(100)), ("orange", Some(200)), ("white", None)];
/// A switch of hardware: by VLAN and address, the node behind whose port it is.
#[derive(Default)]
struct Hardware {
    stations: BTreeMap<(Option<u16>, Mac), usize>,
    /// Addresses that were seen behind two ports.
    moved: BTreeSet<Mac>,
}

impl Hardware {
    /// The nodes that a frame from one of them goes on to.
    fn forward(&mut self, from: usize, frame: &[u8]) -> Vec<usize> {
        let vlan = tag(frame);
        if self.stations.insert((vlan, src(frame)), from).is_some_and(|before| before != from) {
            self.moved.insert(src(frame));
        }
        match self.stations.get(&(vlan, dst(frame))) {
            Some(to) => Vec::from_iter(Some(*to).filter(|to| *to != from)),
            None => (0..NODES.len()).filter(|to| *to != from).collect(),
        }
    }
}

/// A frame as it was handed to a machine or router.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Delivered {
    node: &'static str,
    port: String,
    frame: Vec<u8>,
}

#[derive(Debug, Default)]
struct Outcome {
    delivered: Vec<Delivered>,
    /// What nodes sent into the physical network.
    wired: Vec<(&'static str, Vec<u8>)>,
    /// What nodes sent into tunnels.
    tunnelled: Vec<Vec<u8>>,
}

impl Outcome {
    fn only(&self) -> &Delivered {
        assert_eq!(self.delivered.len(), 1, "{self:?}");
        &self.delivered[0]
    }

    fn places(&self) -> BTreeSet<(&str, &str)> {
        let places: Vec<_> = self.delivered.iter().map(|at| (at.node, at.port.as_str())).collect();
        let set: BTreeSet<_> = places.iter().copied().collect();
        assert_eq!(set.len(), places.len(), "two copies at one port: {self:?}");
        set
    }

    fn is_nothing(&self) -> bool {
        self.delivered.is_empty() && self.wired.is_empty() && self.tunnelled.is_empty()
    }
}

struct Sim {
    nodes: Vec<SimNode>,
    hardware: Hardware,
}

impl Sim {
    fn new() -> Self {
        let topology = Topology::parse(TOPOLOGY, "test").unwrap_or_else(|error| panic!("{error}"));
        let view = |node| SimNode::new(placement::view(&topology, node).expect("it is there"));
        Self { nodes: NODES.map(view).into(), hardware: Hardware::default() }
    }

    /// Where a machine is, and its port.
    fn vm(&self, name: &str) -> (usize, PortView) {
        let of_node = |(index, node): (usize, &SimNode)| Some((index, node.vm(name)?.clone()));
        self.nodes.iter().enumerate().find_map(of_node).expect("a machine of the topology")
    }

    fn port(&self, vm: &str) -> String {
        self.vm(vm).1.port.to_string()
    }

    fn mac(&self, vm: &str) -> Mac {
        self.vm(vm).1.mac
    }

    fn ip(&self, vm: &str) -> Ipv4Addr {
        v4(&self.vm(vm).1.addresses)
    }

    fn router(&self, network: &str) -> RouterPort {
        self.nodes[0].router(network)
    }

    fn host_mac(&self, node: usize) -> Mac {
        self.nodes[node].view.node.host_mac
    }

    fn send_vm(&mut self, vm: &str, frame: Vec<u8>) -> Outcome {
        let (node, port) = self.vm(vm);
        self.send(node, port.port.as_str(), frame)
    }

    /// Sends a frame into a node's port and follows everything that becomes of it.
    fn send(&mut self, node: usize, port: &str, frame: Vec<u8>) -> Outcome {
        let ingress = Ingress { port: self.nodes[node].dp(port), tunnel: None };
        self.follow(VecDeque::from([(node, ingress, frame)]))
    }

    /// A frame from somewhere on the physical network, to every node.
    fn outside(&mut self, frame: &[u8]) -> Outcome {
        let ingress = Ingress { port: WIRE, tunnel: None };
        self.follow((0..NODES.len()).map(|node| (node, ingress, frame.to_vec())).collect())
    }

    fn follow(&mut self, mut queue: VecDeque<(usize, Ingress, Vec<u8>)>) -> Outcome {
        let mut outcome = Outcome::default();
        let mut frames = 0;
        while let Some((at, ingress, frame)) = queue.pop_front() {
            frames += 1;
            assert!(frames < FRAMES_MAX, "a loop: {outcome:?}");
            for (port, tunnel, frame) in self.nodes[at].process(&ingress, &frame).0 {
                if let Some(tunnel) = tunnel {
                    let is_it = |node: &SimNode| node.view.node.tunnel_ip == tunnel.dst;
                    let to = self.nodes.iter().position(is_it).expect("tunnels lead to nodes");
                    let arrived = TunnelMeta { src: self.nodes[at].view.node.tunnel_ip, ..tunnel };
                    outcome.tunnelled.push(frame.clone());
                    queue.push_back((to, Ingress { port, tunnel: Some(arrived) }, frame));
                } else if port == WIRE {
                    outcome.wired.push((NODES[at], frame.clone()));
                    let ingress = Ingress { port: WIRE, tunnel: None };
                    let reached = self.hardware.forward(at, &frame);
                    queue.extend(reached.into_iter().map(|to| (to, ingress, frame.clone())));
                } else {
                    let port = self.nodes[at].ports[&port].clone();
                    outcome.delivered.push(Delivered { node: NODES[at], port, frame });
                }
            }
        }
        outcome
    }
}

/// The VLAN of a frame.
fn tag(frame: &[u8]) -> Option<u16> {
    (frame[12..14] == [0x81, 0]).then(|| u16::from_be_bytes([frame[14], frame[15]]) & 0xfff)
}

fn tagged(vlan: Option<u16>, frame: &[u8]) -> Vec<u8> {
    let tag = vlan.map_or_else(Vec::new, |vlan| [&[0x81, 0][..], &vlan.to_be_bytes()].concat());
    [&frame[..12], &tag, &frame[12..]].concat()
}

/// Input: packets that node1's router has routed to a machine on node2, into each network. Output: once on the wire, in the
/// network's tag, from the host MAC; at the machine as if the router were next door; nothing at node3, to which the switch
/// floods it as long as it has not heard of the machine; nothing learned.
#[test]
fn a_routed_frame_changes_its_source_twice() {
    for ((network, vlan), vm) in TAGS.into_iter().zip(["blue2", "orange2", "white2"]) {
        let mut sim = Sim::new();
        let router = sim.router(network);
        let frame = ipv4(sim.mac(vm), router.mac, (Ipv4Addr::new(10, 9, 0, 1), sim.ip(vm)));
        let outcome = sim.send(0, router.ifname.as_str(), frame.clone());
        let mut masked = frame.clone();
        masked[6..12].copy_from_slice(&sim.host_mac(0).octets());
        assert_eq!(outcome.wired, [("node1", tagged(vlan, &masked))], "{network}");
        assert_eq!(outcome.only(), &Delivered { node: "node2", port: sim.port(vm), frame }, "{network}");
        assert!(outcome.tunnelled.is_empty());
        assert_eq!(sim.nodes.iter().flat_map(SimNode::learned).count(), 0);
    }
}

/// Input: a packet routed from a VLAN into a network of tunnels, and back. Output: each by what carries its network.
#[test]
fn a_router_joins_tunnels_and_vlans() {
    let mut sim = Sim::new();
    let (teal, blue) = (sim.router("teal"), sim.router("blue"));
    let there = ipv4(sim.mac("teal2"), teal.mac, (sim.ip("blue1"), sim.ip("teal2")));
    let outcome = sim.send(0, teal.ifname.as_str(), there.clone());
    assert_eq!((outcome.wired.len(), outcome.tunnelled.len(), &outcome.only().frame), (0, 1, &there));
    let back = ipv4(sim.mac("blue1"), blue.mac, (sim.ip("teal2"), sim.ip("blue1")));
    let outcome = sim.send(1, blue.ifname.as_str(), back.clone());
    assert_eq!((outcome.wired.len(), outcome.tunnelled.len(), &outcome.only().frame), (1, 0, &back));
    assert_eq!(src(&outcome.wired[0].1), sim.host_mac(1));
}

/// Input: a machine's packets to another node's machine and to its gateway. Output: to the former once on the wire, under
/// its own MAC; the latter not at all.
#[test]
fn bridged_frames_cross_as_they_are_and_frames_to_a_router_stay() {
    for ((network, vlan), (from, to)) in
        TAGS.into_iter().zip([("blue1", "blue2"), ("orange1", "orange2"), ("white1", "white2")])
    {
        let mut sim = Sim::new();
        let frame = ipv4(sim.mac(to), sim.mac(from), (sim.ip(from), sim.ip(to)));
        // The second time the switch has heard of it.
        for _ in 0..2 {
            let outcome = sim.send_vm(from, frame.clone());
            assert_eq!(outcome.wired, [("node1", tagged(vlan, &frame))], "{network}");
            assert_eq!(outcome.only(), &Delivered { node: "node2", port: sim.port(to), frame: frame.clone() });
            sim.send_vm(to, ipv4(sim.mac(from), sim.mac(to), (sim.ip(to), sim.ip(from))));
        }
        let router = sim.router(network);
        let outcome = sim.send_vm(from, ipv4(router.mac, sim.mac(from), (sim.ip(from), Ipv4Addr::new(10, 9, 0, 1))));
        assert_eq!((outcome.only().node, outcome.only().port.as_str()), ("node1", router.ifname.as_str()));
        assert!(outcome.wired.is_empty() && outcome.tunnelled.is_empty());
        assert!(sim.hardware.moved.is_empty());
    }
}

/// Input: a question nobody knows the answer to, and an announcement. Output: once on the wire; one copy at each machine
/// of the network and at the asker's own router; none in a tunnel, back at the asker, or at another node's router.
#[test]
fn what_is_unknown_leaves_once() {
    let mut sim = Sim::new();
    let asker = (sim.mac("blue1"), sim.ip("blue1"));
    for frame in [question(asker, Ipv4Addr::new(10, 1, 0, 200)), arp(Mac::BROADCAST, 1, asker, (Mac::ZERO, asker.1))] {
        let outcome = sim.send_vm("blue1", frame.clone());
        assert_eq!(outcome.wired, [("node1", tagged(Some(100), &frame))]);
        assert!(outcome.tunnelled.is_empty());
        let (qr, blue2, blue3) = (sim.router("blue").ifname, sim.port("blue2"), sim.port("blue3"));
        let expected = BTreeSet::from([("node1", qr.as_str()), ("node2", blue2.as_str()), ("node3", blue3.as_str())]);
        assert_eq!(outcome.places(), expected);
    }
    // An unknown station is one for the physical network, whether anybody there knows it or not.
    let outcome = sim.send_vm("blue1", ipv4(Mac::new([2, 0, 0, 0, 0, 9]), asker.0, (asker.1, asker.1)));
    assert_eq!((outcome.wired.len(), outcome.tunnelled.len()), (1, 0));
}

/// Input: questions for a machine and for the gateway. Output: one answer, where it was asked; the question for the gateway
/// leaves as well, which tells the switch where the asker is, and no router answers it.
#[test]
fn questions_are_answered_where_they_are_asked() {
    let mut sim = Sim::new();
    let asker = (sim.mac("blue1"), sim.ip("blue1"));
    let router = sim.router("blue");
    let gateway = v4(&router.addresses);
    for (ip, mac, leaves) in [(sim.ip("blue2"), sim.mac("blue2"), 0), (gateway, router.mac, 1)] {
        let frame = question(asker, ip);
        let outcome = sim.send_vm("blue1", frame.clone());
        assert_eq!(outcome.wired, vec![("node1", tagged(Some(100), &frame)); leaves], "{ip}");
        let answers: Vec<_> = outcome.delivered.iter().filter(|at| at.node == "node1").collect();
        assert_eq!(answers.len(), 1, "{outcome:?}");
        let answer = arp(asker.0, 2, (mac, ip), asker);
        assert_eq!((answers[0].port.as_str(), &answers[0].frame), (sim.port("blue1").as_str(), &answer));
        let routers: BTreeSet<String> =
            sim.nodes[0].view.routers[0].interfaces.iter().map(|port| port.ifname.to_string()).collect();
        assert!(outcome.delivered.iter().all(|at| !routers.contains(&at.port)), "a router heard it: {outcome:?}");
    }
    // What is routed to blue1 then goes to node1 alone, though blue1 has sent nothing else.
    let frame = ipv4(asker.0, router.mac, (Ipv4Addr::new(10, 9, 0, 1), asker.1));
    sim.send(1, router.ifname.as_str(), frame);
    assert_eq!(sim.hardware.stations.get(&(Some(100), asker.0)), Some(&0));
    let asker6 = (asker.0, v6(&sim.vm("blue1").1.addresses));
    let outcome = sim.send_vm("blue1", solicitation(asker6, v6(&router.addresses)));
    assert_eq!(outcome.delivered.iter().filter(|at| at.port == sim.port("blue1")).count(), 1);
}

/// Input: a router's question for an unknown address, and an answer from outside. Output: only the host MAC on the wire, in
/// the payload too; the answer reaches the router under its own MAC, in its own network only.
#[test]
fn a_router_asks_and_is_answered_under_the_host_mac() {
    let mut sim = Sim::new();
    let (host, other) = (sim.host_mac(0), Mac::new([2, 0, 0, 0, 0, 9]));
    for (network, vlan) in TAGS {
        let router = sim.router(network);
        let ip = v4(&router.addresses);
        let unknown = Ipv4Addr::from_bits(ip.to_bits() + 199);
        let outcome = sim.send(0, router.ifname.as_str(), question((router.mac, ip), unknown));
        assert_eq!(outcome.wired, [("node1", tagged(vlan, &question((host, ip), unknown)))], "in the payload too");
        assert!(outcome.delivered.iter().all(|at| at.node == "node1"), "{outcome:?}");
        let answer = arp(host, 2, (other, unknown), (host, ip));
        let outcome = sim.outside(&tagged(vlan, &answer));
        assert_eq!((outcome.only().node, outcome.only().port.as_str()), ("node1", router.ifname.as_str()));
        assert_eq!(outcome.only().frame, arp(router.mac, 2, (other, unknown), (router.mac, ip)));
        assert!(sim.outside(&tagged(Some(300), &answer)).is_nothing(), "another VLAN's answer was heard");
    }
    let router = sim.router("blue");
    let (ip, unknown) = (v6(&router.addresses), "fd00:1::200".parse().expect("an address"));
    let outcome = sim.send(0, router.ifname.as_str(), solicitation((router.mac, ip), unknown));
    let (_, frame) = &outcome.wired[0];
    assert_eq!(
        (outcome.wired.len(), src(frame), mac_at(frame, 84)),
        (1, host, host),
        "source and option, past the tag"
    );
    let answer = nd(host, other, (unknown, ip), 136, unknown, (2, other));
    let outcome = sim.outside(&tagged(Some(100), &answer));
    assert_eq!((outcome.only().port.as_str(), dst(&outcome.only().frame)), (router.ifname.as_str(), router.mac));
}

/// Input: what a link says of a packet that the node's router sent on under the host MAC, in each network and in none.
/// Output: the router hears it under its own MAC, and in its network only.
#[test]
fn a_router_is_told_what_was_too_big_of_it() {
    let mut sim = Sim::new();
    let (host, other) = (sim.host_mac(0), Mac::new([2, 0, 0, 0, 0, 9]));
    for (network, vlan) in TAGS {
        let router = sim.router(network);
        let told = |dst| too_big((dst, other), [10, 9, 0, 9].into(), [10, 4, 0, 7].into());
        let outcome = sim.outside(&tagged(vlan, &told(host)));
        assert_eq!((outcome.only().node, outcome.only().port.as_str()), ("node1", router.ifname.as_str()));
        assert_eq!(outcome.only().frame, told(router.mac));
        assert!(sim.outside(&tagged(Some(300), &told(host))).is_nothing(), "another VLAN's was heard");
    }
}

/// Input: stations outside talk to a machine and to everybody. Output: heard once, where their VLAN is.
#[test]
fn stations_outside_are_heard_in_their_vlan() {
    let mut sim = Sim::new();
    let station = (Mac::new([2, 0, 0, 0, 0, 9]), Ipv4Addr::new(10, 1, 0, 200));
    let frame = ipv4(sim.mac("blue2"), station.0, (station.1, sim.ip("blue2")));
    let outcome = sim.outside(&tagged(Some(100), &frame));
    assert_eq!(outcome.only(), &Delivered { node: "node2", port: sim.port("blue2"), frame: frame.clone() });
    let outcome = sim.outside(&tagged(Some(200), &question(station, sim.ip("orange2"))));
    let (orange1, orange2) = (sim.port("orange1"), sim.port("orange2"));
    assert_eq!(outcome.places(), BTreeSet::from([("node1", orange1.as_str()), ("node2", orange2.as_str())]));
    assert!(outcome.wired.is_empty(), "what came from the wire went back to it");
    for vlan in [None, Some(200), Some(300)] {
        let outcome = sim.outside(&tagged(vlan, &frame));
        assert!(outcome.delivered.iter().all(|at| at.port != sim.port("blue2")), "VLAN {vlan:?} reached blue");
    }
}

/// Input: the wire brings a router's MAC, a node's own, two tags. Output: nothing.
#[test]
fn pretenders_are_not_heard() {
    let mut sim = Sim::new();
    let ips = (Ipv4Addr::new(10, 1, 0, 200), sim.ip("blue2"));
    let to = |from| ipv4(sim.mac("blue2"), from, ips);
    let (routed, own, two) = (to(sim.router("blue").mac), to(sim.host_mac(1)), to(Mac::new([2, 0, 0, 0, 0, 9])));
    let mut group = two.clone();
    group[6] |= 1;
    for (what, frame) in [
        ("router's MAC", tagged(Some(100), &routed)),
        ("group's MAC", tagged(Some(100), &group)),
        ("inner tag", tagged(Some(300), &tagged(Some(100), &two))),
    ] {
        assert!(sim.outside(&frame).is_nothing(), "{what} was heard");
    }
    let outcome = sim.outside(&tagged(Some(100), &own));
    assert!(outcome.delivered.iter().all(|at| at.node != "node2"), "a node hears its own host MAC: {outcome:?}");
}

/// A node that is not on the physical network of its networks: they work on the node, and no flow names a port it lacks.
#[test]
fn without_the_physical_network_a_network_ends_at_the_node() {
    let topology = Topology::parse(TOPOLOGY, "test").expect("a topology");
    let mut view = placement::view(&topology, "node1").expect("it is there");
    view.bridge_mappings.clear();
    let mut sim = Sim { nodes: vec![SimNode::new(view)], hardware: Hardware::default() };
    let asker = (sim.mac("blue1"), sim.ip("blue1"));
    let outcome = sim.send_vm("blue1", question(asker, Ipv4Addr::new(10, 1, 0, 200)));
    assert!(outcome.wired.is_empty() && outcome.tunnelled.is_empty(), "{outcome:?}");
    assert_eq!(outcome.only().port, sim.router("blue").ifname.as_str());
    assert!(sim.send_vm("blue1", ipv4(Mac::new([2; 6]), asker.0, (asker.1, asker.1))).is_nothing());
}

/// Each port's network, and whether it is a router's.
fn ports(sim: &Sim) -> Vec<(usize, String, String, bool)> {
    let mut all = Vec::new();
    for (index, node) in sim.nodes.iter().enumerate() {
        for network in &node.view.networks {
            all.extend(network.local_ports.iter().map(|vm| (index, vm.port.to_string(), network.name.clone(), false)));
        }
        let interfaces = node.view.routers.iter().flat_map(|router| &router.interfaces);
        all.extend(interfaces.map(|port| (index, port.ifname.to_string(), port.network.clone(), true)));
    }
    all
}

proptest! {
    // Three nodes, and every frame to all of them: a third of the usual number of cases takes as long as elsewhere.
    #![proptest_config(ProptestConfig::with_cases(85))]

    /// Whatever machines and routers send, in whatever order.
    #[test]
    fn invariants_hold(frames in proptest::collection::vec(
        (0_usize..30, 0_usize..16, 0_usize..16, 0_usize..4, 0_usize..25), 1..40,
    )) {
        let mut sim = Sim::new();
        let ports = ports(&sim);
        let networks: BTreeMap<(usize, &str), (&str, bool)> =
            ports.iter().map(|(node, port, network, router)| ((*node, port.as_str()), (network.as_str(), *router))).collect();
        let rmacs: BTreeMap<&str, Mac> = ["blue", "orange", "white", "teal"].map(|on| (on, sim.router(on).mac)).into();
        let hosts: Vec<Mac> = (0..NODES.len()).map(|node| sim.host_mac(node)).collect();
        let mut macs: Vec<Mac> = ["blue1", "blue2", "blue3", "orange2", "white1", "teal2"].map(|vm| sim.mac(vm)).into();
        macs.extend(rmacs.values().chain(&hosts));
        macs.extend([Mac::BROADCAST, Mac::new([2, 0, 0, 0, 0, 9]), Mac::new([0x33, 0x33, 0xff, 0, 0, 1])]);
        let mut ips: Vec<Ipv4Addr> = ["blue1", "blue2", "orange2", "white1"].map(|vm| sim.ip(vm)).into();
        ips.push(Ipv4Addr::new(10, 1, 0, 1));
        for (port, to, from, kind, pick) in frames {
            let (node, port, network, is_router) = &ports[port % ports.len()];
            // A router speaks under its own MAC; a machine may pretend anything.
            let from = if *is_router { rmacs[network.as_str()] } else { macs[from] };
            let (to, (a, b)) = (macs[to], (ips[pick % 5], ips[pick / 5]));
            let frame = match kind {
                0 => ipv4(to, from, (a, b)),
                1 => arp(to, 1, (from, a), (Mac::ZERO, b)),
                2 => arp(to, 2, (from, a), (to, b)),
                _ => ethernet(to, from, 0x88b5, &[0; 46]),
            };
            let outcome = sim.send(*node, port, frame.clone());
            let mut copies = BTreeSet::new();
            for Delivered { node: at, port: to, frame: out } in &outcome.delivered {
                let index = NODES.iter().position(|name| name == at).expect("a node");
                let (their, router) = networks[&(index, to.as_str())];
                prop_assert_eq!(their, network, "it changed networks: {:02x?}", frame);
                prop_assert!(copies.insert((at, to)), "two copies to {} of {:02x?}", to, frame);
                prop_assert!(!hosts.contains(&src(out)), "a host MAC reached {}", to);
                // What answers a router's question, its host asked.
                let answer = kind == 2 && dst(&frame) == hosts[index];
                prop_assert!(!router || index == *node || answer, "a router elsewhere heard {:02x?}", frame);
                prop_assert!(tag(out).is_none(), "a tag got out");
            }
            let expected = TAGS.iter().find(|(name, _)| name == network);
            prop_assert!(outcome.wired.len() <= usize::from(expected.is_some()), "twice, or another's: {:?}", outcome);
            prop_assert!(outcome.tunnelled.is_empty() || network == "teal");
            for (sender, out) in &outcome.wired {
                prop_assert_eq!(*sender, NODES[*node]);
                prop_assert_eq!(Some(tag(out)), expected.map(|(_, vlan)| *vlan), "another tag");
                let rmac = rmacs[network.as_str()];
                prop_assert!(src(out) != rmac && dst(out) != rmac, "a router's MAC on the wire");
                let payload = 14 + if tag(out).is_some() { 4 } else { 0 };
                let speaker = if kind == 1 || kind == 2 { Some(mac_at(out, payload + 8)) } else { None };
                prop_assert!(!is_router || speaker.is_none_or(|mac| mac == hosts[*node]), "a router's MAC in a payload");
                prop_assert!(!hosts.contains(&src(out)) || src(out) == hosts[*node] && *is_router, "another's host MAC");
            }
        }
        prop_assert!(sim.hardware.moved.iter().all(|mac| !hosts.contains(mac)), "a host MAC moved");
        for line in sim.nodes.iter().flat_map(SimNode::learned) {
            prop_assert!(!hosts.iter().any(|mac| line.contains(&mac.to_string())), "learned: {}", line);
        }
    }
}
