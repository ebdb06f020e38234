//! The programs at work: three nodes, each the engine with its own program, joined by tunnels in memory.
//!
//! ```text
//!  node1: blue1 orange2 teal2 r1      node2: blue2 orange1 r1      node3: teal1
//! ```
//! blue has IPv6 too; r1 joins blue and orange; teal has no router, and node3 has neither blue nor orange.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dvr::api::switch::{BridgeMode, FlowChange, VlanMode};
use dvr::datapath::{DpPort, Ingress, NewPort, NewPortKind, Switch, TunnelMeta};
use dvr::model::Topology;
use dvr::model::view::{NetworkView, PortView, RouterPort};
use dvr::placement;
use dvr::program::{Announced, ProgramFlow};
use dvr::types::{Mac, Timestamp};
use dvr::wire::checksum;
use frames::{arp, dst, ethernet, ipv4, mac_at, nd, question, solicitation, src, too_big};
use proptest::prelude::*;
use simulated::{FRAMES_MAX, Sent, SimNode, TUNNELS, name, v4, v6};

#[path = "program_sim/announced.rs"]
mod announced;
#[path = "support/frames.rs"]
mod frames;
#[path = "program_sim/invariants.rs"]
mod invariants;
#[path = "program_sim/mesh.rs"]
mod mesh;
#[path = "program_sim/moves.rs"]
mod moves;
#[path = "program_sim/routers.rs"]
mod routers;
#[path = "support/simulated.rs"]
mod simulated;

const TOPOLOGY: &str = "
version: 1
nodes: {node1: {}, node2: {}, node3: {}}
networks:
  blue: {type: vxlan, subnets: [{cidr: 10.1.0.0/24}, {cidr: 'fd00:1::/64'}]}
  orange: {type: vxlan, subnets: [{cidr: 10.2.0.0/24}]}
  teal: {type: gre, subnets: [{cidr: 10.3.0.0/24}]}
routers: {r1: {distributed: true, interfaces: [blue, orange]}}
vms:
  blue1: {node: node1, network: blue}
  blue2: {node: node2, network: blue}
  orange1: {node: node2, network: orange}
  orange2: {node: node1, network: orange}
  teal1: {node: node3, network: teal}
  teal2: {node: node1, network: teal}
";

struct Sim {
    nodes: Vec<SimNode>,
}

/// A frame as it was handed to a machine or router.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Delivered {
    node: String,
    port: String,
    frame: Vec<u8>,
}

/// A frame between two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wired {
    to: String,
    vni: u64,
    frame: Vec<u8>,
}

#[derive(Debug, Default)]
struct Outcome {
    delivered: Vec<Delivered>,
    wired: Vec<Wired>,
    announced: Vec<Announced>,
}

impl Sim {
    fn new() -> Self {
        Self::of(TOPOLOGY)
    }

    fn of(text: &str) -> Self {
        Self::place(&Topology::parse(text, "test").unwrap_or_else(|error| panic!("{error}")))
    }

    fn place(topology: &Topology) -> Self {
        let view = |node| SimNode::new(placement::view(topology, node).expect("it is there"));
        Self { nodes: ["node1", "node2", "node3"].map(view).into() }
    }

    fn node(&self, name: &str) -> &SimNode {
        self.nodes.iter().find(|node| node.view.node.name == name).expect("one of three")
    }

    /// Where a machine is, and its port.
    fn vm(&self, name: &str) -> (String, PortView) {
        let of_node = |node: &SimNode| Some((node.view.node.name.clone(), node.vm(name)?.clone()));
        self.nodes.iter().find_map(of_node).expect("a machine of the topology")
    }

    fn mac(&self, vm: &str) -> Mac {
        self.vm(vm).1.mac
    }

    fn v4(&self, vm: &str) -> Ipv4Addr {
        v4(&self.vm(vm).1.addresses)
    }

    fn v6(&self, vm: &str) -> Ipv6Addr {
        v6(&self.vm(vm).1.addresses)
    }

    fn router(&self, network: &str) -> RouterPort {
        self.nodes[0].router(network)
    }

    fn host_mac(&self, node: &str) -> Mac {
        self.node(node).view.node.host_mac
    }

    fn vni(&self, network: &str) -> u64 {
        let networks = self.nodes.iter().flat_map(|node| &node.view.networks);
        let mut keys = networks.filter(|view| view.name == network).filter_map(|view| view.segment.vni());
        u64::from(keys.next().expect("it is placed").get())
    }

    /// Sends a frame into a node's port and follows everything that becomes of it.
    fn send(&mut self, node: &str, port: &str, frame: Vec<u8>) -> Outcome {
        let from = Ingress { port: self.node(node).dp(port), tunnel: None };
        self.follow(node.to_owned(), from, frame)
    }

    fn send_vm(&mut self, vm: &str, frame: Vec<u8>) -> Outcome {
        let (node, port) = self.vm(vm);
        self.send(&node, port.port.as_str(), frame)
    }

    /// Sends a frame into a node as if another node's tunnel had brought it.
    fn tunnelled(&mut self, (from, to): (&str, &str), vni: u64, frame: Vec<u8>) -> Outcome {
        let (src, dst) = (self.node(from).view.node.tunnel_ip, self.node(to).view.node.tunnel_ip);
        let tunnel = Some(TunnelMeta { id: vni, src, dst, tos: 0, ttl: 64 });
        self.follow(to.to_owned(), Ingress { port: TUNNELS, tunnel }, frame)
    }

    fn follow(&mut self, node: String, ingress: Ingress, frame: Vec<u8>) -> Outcome {
        let mut queue = VecDeque::from([(node, ingress, frame)]);
        let mut outcome = Outcome::default();
        let mut frames = 0;
        while let Some((at, ingress, frame)) = queue.pop_front() {
            frames += 1;
            assert!(frames < FRAMES_MAX, "a loop: {outcome:?}");
            let index = self.nodes.iter().position(|node| node.view.node.name == at).expect("one of three");
            let Sent(frames, said) = self.nodes[index].process(&ingress, &frame);
            outcome.announced.extend(said.iter().map(|said| Announced::read(said).expect("all of it is ours")));
            for (port, tunnel, frame) in frames {
                let Some(tunnel) = tunnel else {
                    let port = self.nodes[index].ports[&port].clone();
                    outcome.delivered.push(Delivered { node: at.clone(), port, frame });
                    continue;
                };
                let is_it = |node: &&SimNode| node.view.node.tunnel_ip == tunnel.dst;
                let to = self.nodes.iter().find(is_it).expect("tunnels lead to nodes").view.node.name.clone();
                outcome.wired.push(Wired { to: to.clone(), vni: tunnel.id, frame: frame.clone() });
                let arrived = TunnelMeta { src: self.nodes[index].view.node.tunnel_ip, ..tunnel };
                queue.push_back((to, Ingress { port, tunnel: Some(arrived) }, frame));
            }
        }
        outcome
    }
}

impl Outcome {
    fn places(&self) -> BTreeSet<(&str, &str)> {
        self.delivered.iter().map(|delivered| (delivered.node.as_str(), delivered.port.as_str())).collect()
    }

    fn only(&self) -> &Delivered {
        assert_eq!(self.delivered.len(), 1, "{self:?}");
        &self.delivered[0]
    }

    fn is_nothing(&self) -> bool {
        self.delivered.is_empty() && self.wired.is_empty()
    }
}

/// Whether an ICMPv6 message's checksum is right.
fn is_sound(frame: &[u8]) -> bool {
    let message = &frame[54..];
    let sum = checksum::pseudo(&frame[22..38], &frame[38..54], 58, message.len());
    checksum::fold(checksum::add(sum, message)) == 0xffff
}

/// Input: a packet that node1's router has routed to orange1 on node2. Output: the host MAC on the wire, the router's MAC
/// at the machine, nothing anywhere else, nothing learned.
#[test]
fn a_routed_frame_changes_its_source_twice() {
    let mut sim = Sim::new();
    let router = sim.router("orange");
    let frame = ipv4(sim.mac("orange1"), router.mac, (sim.v4("blue1"), sim.v4("orange1")));
    let outcome = sim.send("node1", router.ifname.as_str(), frame.clone());
    assert_eq!(outcome.wired.len(), 1, "{outcome:?}");
    let wired = &outcome.wired[0];
    assert_eq!((wired.to.as_str(), wired.vni, src(&wired.frame)), ("node2", sim.vni("orange"), sim.host_mac("node1")));
    let delivered = outcome.only();
    let (node, port) = sim.vm("orange1");
    assert_eq!((&delivered.node, delivered.port.as_str()), (&node, port.port.as_str()));
    assert_eq!(delivered.frame, frame, "as if the router were next door");
    assert_eq!(sim.nodes.iter().flat_map(SimNode::learned).count(), 0);
}

/// Input: packets to the gateway, to a neighbour here and to one elsewhere. Output: one copy each, where it belongs.
#[test]
fn known_frames_are_never_flooded() {
    let mut sim = Sim::new();
    let router = sim.router("blue");
    let to_router = ipv4(router.mac, sim.mac("blue1"), (sim.v4("blue1"), sim.v4("orange1")));
    let outcome = sim.send_vm("blue1", to_router.clone());
    assert_eq!(outcome.only(), &Delivered { node: "node1".into(), port: router.ifname.to_string(), frame: to_router });
    assert!(outcome.wired.is_empty(), "a frame to a router left its node");
    let to_blue2 = ipv4(sim.mac("blue2"), sim.mac("blue1"), (sim.v4("blue1"), sim.v4("blue2")));
    let outcome = sim.send_vm("blue1", to_blue2);
    assert_eq!(outcome.only().node, "node2");
    assert_eq!(outcome.wired.len(), 1);
}

/// Input: questions for a gateway, a remote machine and their IPv6 addresses. Output: the answer at the asker's port,
/// and not a frame anywhere else.
#[test]
fn questions_are_answered_where_they_are_asked() {
    let mut sim = Sim::new();
    let asker = (sim.mac("blue1"), sim.v4("blue1"));
    let router = sim.router("blue");
    let gateway = v4(&router.addresses);
    for (ip, mac) in [(gateway, router.mac), (sim.v4("blue2"), sim.mac("blue2"))] {
        let outcome = sim.send_vm("blue1", question(asker, ip));
        assert!(outcome.wired.is_empty(), "{outcome:?}");
        assert_eq!(outcome.only().port, sim.vm("blue1").1.port.as_str());
        assert_eq!(outcome.only().frame, arp(asker.0, 2, (mac, ip), asker), "{ip}");
    }
    // The router asks the same way, and is answered the same way.
    let outcome = sim.send("node1", router.ifname.as_str(), question((router.mac, gateway), sim.v4("blue2")));
    assert_eq!(outcome.only().frame, arp(router.mac, 2, (sim.mac("blue2"), sim.v4("blue2")), (router.mac, gateway)));
    let asker = (sim.mac("blue1"), sim.v6("blue1"));
    let gateway = v6(&router.addresses);
    for (ip, mac, flags) in [
        (gateway, router.mac, 0xe0),
        (router.mac.link_local(), router.mac, 0xe0),
        (sim.v6("blue2"), sim.mac("blue2"), 0x60),
        (sim.mac("blue2").link_local(), sim.mac("blue2"), 0x60),
    ] {
        let outcome = sim.send_vm("blue1", solicitation(asker, ip));
        assert!(outcome.wired.is_empty(), "{outcome:?}");
        let mut expected = nd(asker.0, mac, (ip, asker.1), 136, ip, (2, mac));
        expected[58] = flags;
        let frame = &outcome.only().frame;
        assert!(is_sound(frame), "{ip}: a bad checksum: {frame:02x?}");
        // The checksum covers the flags, which are written after it here.
        expected[56..58].copy_from_slice(&frame[56..58]);
        assert_eq!(*frame, expected, "{ip}");
    }
}

/// Input: a question nobody knows the answer to, an announcement, a duplicate-address probe. Output: each floods once to
/// every node that has the network, and to no other.
#[test]
fn what_is_unknown_floods_once_and_only_where_its_network_is() {
    let mut sim = Sim::new();
    let asker = (sim.mac("blue1"), sim.v4("blue1"));
    let (blue1, blue2) = (sim.vm("blue1").1.port.to_string(), sim.vm("blue2").1.port.to_string());
    let qr = sim.router("blue").ifname.to_string();
    let probed = sim.v6("blue2");
    for (what, frame) in [
        ("question", question(asker, Ipv4Addr::new(10, 1, 0, 200))),
        ("announcement", arp(Mac::BROADCAST, 1, asker, (Mac::ZERO, asker.1))),
        ("probe", solicitation((asker.0, Ipv6Addr::UNSPECIFIED), probed)),
    ] {
        let outcome = sim.send_vm("blue1", frame);
        let to: Vec<_> = outcome.wired.iter().map(|wired| (wired.to.as_str(), wired.vni)).collect();
        assert_eq!(to, [("node2", sim.vni("blue"))], "{what}");
        let expected = BTreeSet::from([("node1", qr.as_str()), ("node2", blue2.as_str())]);
        assert_eq!(outcome.places(), expected, "{what}: not back to {blue1}, and not to the other router");
        assert_eq!(outcome.delivered.len(), 2, "{what}: one copy each");
    }
    let learned = sim.node("node2").learned();
    assert!(learned.len() == 1 && learned[0].contains(&sim.mac("blue1").to_string()), "{learned:?}");
}

/// Input: a router's question for an unknown address, and an answer to it. Output: only the host MAC on the wire, in the
/// payload too; no machine elsewhere hears it; the answer reaches the router under its own MAC.
#[test]
fn a_router_asks_and_is_answered_under_the_host_mac() {
    let mut sim = Sim::new();
    let router = sim.router("blue");
    let (host, blue2) = (sim.host_mac("node1"), sim.mac("blue2"));
    let ip = v4(&router.addresses);
    let unknown = Ipv4Addr::new(10, 1, 0, 200);
    let outcome = sim.send("node1", router.ifname.as_str(), question((router.mac, ip), unknown));
    assert_eq!(outcome.wired.len(), 1);
    assert_eq!(outcome.wired[0].frame, question((host, ip), unknown), "in the payload too");
    assert!(outcome.delivered.iter().all(|delivered| delivered.node == "node1"), "{outcome:?}");
    let answer = arp(host, 2, (blue2, unknown), (host, ip));
    let outcome = sim.tunnelled(("node2", "node1"), sim.vni("blue"), answer);
    assert_eq!(outcome.only().port, router.ifname.as_str());
    assert_eq!(outcome.only().frame, arp(router.mac, 2, (blue2, unknown), (router.mac, ip)));

    let ip = v6(&router.addresses);
    let unknown: Ipv6Addr = "fd00:1::200".parse().expect("an address");
    let outcome = sim.send("node1", router.ifname.as_str(), solicitation((router.mac, ip), unknown));
    assert_eq!(outcome.wired.len(), 1);
    let frame = &outcome.wired[0].frame;
    assert_eq!((src(frame), mac_at(frame, 80)), (host, host), "source and option");
    assert!(is_sound(frame), "{frame:02x?}");
    let answer = nd(host, blue2, (unknown, ip), 136, unknown, (2, blue2));
    let outcome = sim.tunnelled(("node2", "node1"), sim.vni("blue"), answer);
    assert_eq!((outcome.only().port.as_str(), dst(&outcome.only().frame)), (router.ifname.as_str(), router.mac));
}

/// Input: machines that pretend to be a router, a host or a group; tunnels that bring a router's MAC, a tag, a foreign
/// key. Output: nothing.
#[test]
fn pretenders_are_not_heard() {
    let mut sim = Sim::new();
    let router = sim.router("blue");
    let blue2 = sim.mac("blue2");
    let ips = (sim.v4("blue1"), sim.v4("blue2"));
    for mac in [router.mac, sim.host_mac("node1"), sim.host_mac("node3"), Mac::new([1, 0, 0, 0, 0, 1])] {
        assert!(sim.send_vm("blue1", ipv4(blue2, mac, ips)).is_nothing(), "{mac} was heard");
    }
    let mut tagged = ipv4(blue2, sim.mac("blue1"), ips);
    tagged.splice(12..12, [0x81, 0, 0, 2]);
    assert!(sim.send_vm("blue1", tagged.clone()).is_nothing(), "a tag chose the network");
    let blue = sim.vni("blue");
    for (what, vni, frame) in [
        ("router's MAC", blue, ipv4(blue2, router.mac, ips)),
        ("own host MAC", blue, ipv4(blue2, sim.host_mac("node2"), ips)),
        ("inner tag", blue, tagged),
        ("foreign key", 77, ipv4(blue2, sim.mac("blue1"), ips)),
    ] {
        assert!(sim.tunnelled(("node1", "node2"), vni, frame).is_nothing(), "{what} was heard");
    }
    assert_eq!(sim.nodes.iter().flat_map(SimNode::learned).count(), 0);
}

/// Input: a machine in a machine talks. Output: it is found where it spoke, from both nodes; a populated address is not
/// taken over by pretending.
#[test]
fn addresses_behind_machines_are_learned() {
    let mut sim = Sim::new();
    let nested = Mac::new([2, 0, 0, 0, 0, 9]);
    let (ips, blue2) = ((sim.v4("blue1"), sim.v4("blue2")), sim.mac("blue2"));
    let (node, port) = sim.vm("blue1");
    assert_eq!(sim.send_vm("blue1", ipv4(blue2, nested, ips)).only().node, "node2");
    let outcome = sim.send_vm("blue2", ipv4(nested, blue2, (ips.1, ips.0)));
    assert_eq!((&outcome.only().node, outcome.only().port.as_str()), (&node, port.port.as_str()));
    assert_eq!(outcome.wired.len(), 1, "a learned address is not flooded to");
    let router = sim.router("blue");
    let outcome = sim.send("node1", router.ifname.as_str(), ipv4(nested, router.mac, ips));
    assert_eq!(outcome.only().port, port.port.as_str());
    // blue1 pretends to be blue2: the router still finds blue2 on its own node.
    sim.send_vm("blue1", ipv4(nested, blue2, ips));
    let outcome = sim.send("node1", router.ifname.as_str(), ipv4(blue2, router.mac, ips));
    assert_eq!(outcome.only().node, "node2");
}

/// Input: a secured machine speaks as itself, as its pairs, and as what it is not. Output: the former is heard, the latter
/// comes to nothing and teaches nobody anything.
#[test]
fn a_secured_machine_is_heard_as_itself_only() {
    let secured =
        "port_security: true, allowed_address_pairs: [{ip: 10.1.0.100}, {ip: 10.1.0.64/28, mac: '02:00:00:00:00:77'}]";
    let mut sim = Sim::of(&TOPOLOGY.replace("blue1: {", &format!("blue1: {{{secured}, ")));
    let (mac, v4, v6) = (sim.mac("blue1"), sim.v4("blue1"), sim.v6("blue1"));
    let (to, to4, to6) = (sim.mac("blue2"), sim.v4("blue2"), sim.v6("blue2"));
    let (stranger, paired) = (Mac::new([2, 0, 0, 0, 0, 9]), Mac::new([2, 0, 0, 0, 0, 0x77]));
    let (vip, other) = (Ipv4Addr::new(10, 1, 0, 100), Ipv4Addr::new(10, 1, 0, 99));
    let shared = Ipv4Addr::new(10, 1, 0, 65);
    let (unknown, other6) = (Ipv4Addr::new(10, 1, 0, 200), Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0x99));
    let advertise = |mac: Mac, ips, target, said| nd(to, mac, ips, 136, target, (2, said));
    let forged = |sha: Mac, spa| {
        let mut frame = question((sha, spa), unknown);
        frame[6..12].copy_from_slice(&mac.octets());
        frame
    };
    let (none, none6) = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
    let heard = [
        ("itself", ipv4(to, mac, (v4, to4))),
        ("its pair", ipv4(to, mac, (vip, to4))),
        ("its pair with a MAC", ipv4(to, paired, (shared, to4))),
        ("ARP", question((mac, v4), unknown)),
        ("ARP of its pair", question((mac, vip), vip)),
        ("ARP of its pair with a MAC", question((paired, shared), unknown)),
        ("an ARP probe", question((mac, none), vip)),
        ("a solicitation", solicitation((mac, v6), other6)),
        ("an advertisement", advertise(mac, (v6, to6), v6, mac)),
        ("its link-local address", advertise(mac, (mac.link_local(), to6), mac.link_local(), mac)),
    ];
    for (what, frame) in heard {
        assert!(!sim.send_vm("blue1", frame).is_nothing(), "{what} was not heard");
    }
    let learned = sim.nodes[0].learned().len();
    let unheard = [
        ("a strange MAC", ipv4(to, stranger, (v4, to4))),
        ("another's address", ipv4(to, mac, (to4, to4))),
        ("a strange address", ipv4(to, mac, (other, to4))),
        ("its own address under its pair's MAC", ipv4(to, paired, (v4, to4))),
        ("its pair's address under its own MAC", ipv4(to, mac, (shared, to4))),
        ("ARP of a strange address", question((mac, other), unknown)),
        ("ARP of a strange station", forged(stranger, v4)),
        ("an ARP probe for a strange address", question((mac, none), other)),
        ("a solicitation from a strange address", solicitation((mac, other6), to6)),
        ("a probe for a strange address", nd(Mac::BROADCAST, mac, (none6, to6), 135, other6, (14, mac))),
        ("a solicitation of a strange station", nd(to, mac, (v6, to6), 135, to6, (1, stranger))),
        ("an advertisement of a strange address", advertise(mac, (v6, to6), other6, mac)),
        ("an advertisement of a strange station", advertise(mac, (v6, to6), v6, stranger)),
        ("an advertisement from a strange address", advertise(mac, (other6, to6), v6, mac)),
        ("a router's advertisement", nd(to, mac, (mac.link_local(), to6), 134, v6, (1, mac))),
        ("neither ARP nor IP", ethernet(to, mac, 0x88cc, &[0; 50])),
    ];
    for (what, frame) in unheard {
        assert!(sim.send_vm("blue1", frame).is_nothing(), "{what} was heard");
    }
    assert_eq!(sim.nodes[0].learned().len(), learned, "a pretender was learned");
}

#[test]
fn every_flow_prints_back_as_it_was_read() {
    let sim = Sim::new();
    for node in &sim.nodes {
        let switch = node.switch.lock().expect("no thread panicked");
        for bridge in [name("br-int"), name("br-tun")] {
            let dumped = switch.dump_flows(&bridge, "", true, Timestamp::ZERO).expect("it is there");
            let again: Vec<FlowChange> = dumped
                .iter()
                .map(|flow| {
                    let (table, priority) = (flow.table, flow.priority);
                    let (matching, actions) = (flow.matching.clone(), flow.actions.clone());
                    FlowChange::Add(ProgramFlow { table, priority, matching, actions }.to_string())
                })
                .collect();
            let mut copy = Switch::new();
            copy.add_bridge(&bridge, BridgeMode::Flow).expect("a new name");
            let view = switch.bridges().into_iter().find(|view| view.name == bridge).expect("it is there");
            for port in &view.ports {
                let kind = NewPortKind::Netdev { dp: DpPort(port.number) };
                let (name, number) = (port.name.clone(), Some(port.number));
                copy.add_port(&bridge, NewPort { name, kind, vlan: VlanMode::Trunk, number }).expect("a new port");
            }
            copy.change_flows(&bridge, &again, Timestamp::ZERO).unwrap_or_else(|error| panic!("{error}"));
            let printed = copy.dump_flows(&bridge, "", true, Timestamp::ZERO).expect("it is there");
            let lines = |flows: Vec<dvr::api::switch::Flow>| {
                flows.into_iter().map(|flow| flow.line).collect::<BTreeSet<String>>()
            };
            assert_eq!(lines(printed), lines(dumped));
        }
    }
}
