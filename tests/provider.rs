//! Labs whose networks are on a physical network: who reaches whom, what crosses the wire, and what becomes of bulk and
//! of what is too large.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/capture.rs"]
mod capture;
#[path = "support/transfer.rs"]
mod transfer;
#[path = "support/user.rs"]
#[expect(dead_code, reason = "this test needs part of it")]
mod user;

use std::collections::{BTreeMap, BTreeSet};

use capture::Capture;
use dvr::types::Mac;
use dvr::wire::{arp, ethernet, prefix};
use serde_json::Value;
use transfer::transfer;
use user::User;

const NODES: [&str; 3] = ["node1", "node2", "node3"];

/// Two VLANs and a flat network, joined with a network of tunnels; a machine of the first on each of three nodes.
const TOPOLOGY: &str = "version: 1
nodes:
  node1: {bridge_mappings: {physnet1: eth1}}
  node2: {bridge_mappings: {physnet1: eth1}}
  node3: {bridge_mappings: {physnet1: eth1}}
networks:
  blue: {type: vlan, physical_network: physnet1, vlan: 100, subnets: [{cidr: 10.1.0.0/24}, {cidr: 'fd00:1::/64'}]}
  orange: {type: vlan, physical_network: physnet1, subnets: [{cidr: 10.2.0.0/24}, {cidr: 'fd00:2::/64'}]}
  white: {type: flat, physical_network: physnet1, subnets: [{cidr: 10.3.0.0/24}]}
  teal: {type: vxlan, subnets: [{cidr: 10.4.0.0/24}]}
routers: {r1: {distributed: true, interfaces: [blue, orange, white, teal]}}
vms:
  blue1: {node: node1, network: blue, ips: [10.1.0.11, 'fd00:1::11']}
  blue2: {node: node2, network: blue, ips: [10.1.0.12, 'fd00:1::12']}
  blue3: {node: node3, network: blue}
  orange1: {node: node1, network: orange}
  orange2: {node: node2, network: orange, ips: [10.2.0.12, 'fd00:2::12']}
  white1: {node: node1, network: white}
  white2: {node: node2, network: white, ip: 10.3.0.12}
  teal2: {node: node2, network: teal, ip: 10.4.0.12}
";

fn up(user: &User, topology: &str) {
    let file = std::env::temp_dir().join(format!("{}.yaml", user.lab));
    std::fs::write(&file, topology).expect("a file that a plain user may read");
    user.up(Some(&file));
    std::fs::remove_file(&file).expect("our file");
}

/// What the lab's readers tell of it.
struct Told {
    /// MACs of router interfaces.
    routers: BTreeSet<Mac>,
    /// Each node's host MAC.
    hosts: BTreeMap<String, Mac>,
    /// Tags of the networks on the wire, with their networks.
    tags: BTreeMap<Option<u16>, String>,
}

impl Told {
    fn of(user: &User) -> Self {
        let mut told = Self { routers: BTreeSet::new(), hosts: BTreeMap::new(), tags: BTreeMap::new() };
        let text = |value: &Value| value.as_str().map(str::to_owned).expect("a text");
        let mac = |value: &Value| text(value).parse::<Mac>().expect("a MAC");
        for node in user.json(&["show", "-o", "json"]).as_array().expect("a list of nodes") {
            let agent = &node["agent"];
            told.hosts.insert(text(&agent["node"]), mac(&agent["host_mac"]));
            for router in agent["routers"].as_array().expect("routers") {
                told.routers
                    .extend(router["interfaces"].as_array().expect("interfaces").iter().map(|port| mac(&port["mac"])));
            }
            for network in agent["networks"].as_array().expect("networks") {
                if network["physical_network"] == "physnet1" {
                    let vlan = network["vlan"].as_u64().map(|vlan| u16::try_from(vlan).expect("a VLAN"));
                    told.tags.insert(vlan, text(&network["name"]));
                }
            }
        }
        told
    }
}

/// A frame's tag, its addresses, and what is behind the tag, with its type.
fn parts(frame: &[u8]) -> (Option<u16>, Mac, Mac, u16, &[u8]) {
    let (link, rest) = prefix::<ethernet::Header>(frame).expect("a whole header");
    let word = |at: usize| u16::from_be_bytes([rest[at], rest[at + 1]]);
    if link.ether_type.get() == ethernet::TYPE_VLAN {
        return (Some(word(0) & 0xfff), link.source(), link.destination(), word(2), &rest[4..]);
    }
    (None, link.source(), link.destination(), link.ether_type.get(), rest)
}

/// Everybody reaches everybody they are promised, and on every port of the physical network's bridge there are host MACs
/// and machines' own, in the networks' tags, and no router's, in a payload neither.
#[test]
fn everybody_reaches_everybody_and_no_router_is_seen_on_the_wire() {
    for user in User::everybody("provider") {
        up(&user, TOPOLOGY);
        let told = Told::of(&user);
        assert_eq!(told.tags.len(), 3, "{:?}", told.tags);
        let captures = NODES.map(|node| (node, Capture::start(&user, node, &["-i", "eth1"])));
        let report = user.json(&["lab", "test", "-o", "json"]);
        assert_eq!(report["failures"], Value::Array(Vec::new()), "{report}");
        let mut tags = BTreeSet::new();
        let mut routed = BTreeSet::new();
        // By tag and address: behind which node it spoke.
        let mut places: BTreeMap<(Option<u16>, Mac), BTreeSet<&str>> = BTreeMap::new();
        for (node, capture) in captures {
            for frame in capture.end() {
                let (tag, from, to, kind, payload) = parts(&frame);
                assert!(told.tags.contains_key(&tag), "a tag of no network: {frame:02x?}");
                tags.insert(tag);
                assert!(!told.routers.contains(&from) && !told.routers.contains(&to), "a router's MAC: {frame:02x?}");
                if kind == ethernet::TYPE_ARP {
                    let (packet, _) = prefix::<arp::Packet>(payload).expect("a whole ARP packet");
                    assert!(!told.routers.contains(&Mac::new(packet.sender_mac)), "a router speaks: {frame:02x?}");
                }
                let host = told.hosts.iter().find(|(_, mac)| **mac == from);
                routed.extend(host.map(|(name, _)| name.clone()));
                places.entry((tag, from)).or_default().insert(node);
            }
        }
        assert_eq!(tags, told.tags.keys().copied().collect(), "all networks were used");
        assert_eq!(routed, NODES.map(str::to_owned).into(), "every node routes under its host MAC");
        assert!(!places.is_empty());
    }
}

/// Bulk and fragments, bridged and routed, by tag and without, and from tunnels to a VLAN: at the wire's full MTU.
#[test]
fn large_packets_pass() {
    let user = User::new("provider-large", false);
    up(&user, TOPOLOGY);
    let shown = user.good(&["show", "node1"]);
    assert!(shown.contains("vlan 100 of physnet1") && shown.contains("flat on physnet1"), "{shown}");
    assert!(shown.contains("MTU 1500") && shown.contains("MTU 1450"), "no tunnel, no overhead: {shown}");
    for (from, to, address) in [
        ("blue1", "blue2", "10.1.0.12"),
        ("blue1", "blue2", "fd00:1::12"),
        ("blue1", "orange2", "10.2.0.12"),
        ("blue1", "orange2", "fd00:2::12"),
        ("white1", "white2", "10.3.0.12"),
        ("blue1", "white2", "10.3.0.12"),
        ("blue1", "teal2", "10.4.0.12"),
        ("teal2", "blue1", "10.1.0.11"),
    ] {
        transfer(&user, (from, to), address);
    }
    let fits = ["lab", "exec", "blue1", "--", "ping", "-M", "do", "-c", "1", "-W", "5", "-s", "1472", "10.2.0.12"];
    user.good(&fits);
    let shown = user.good(&["show"]);
    assert!(!shown.contains("port-too-big") && !shown.contains("port-refused"), "{shown}");
}

/// A question that nobody answers: once on the wire, and once at each machine of its network.
#[test]
fn what_must_flood_leaves_once() {
    let user = User::new("provider-flood", false);
    up(&user, TOPOLOGY);
    let wires = NODES.map(|node| Capture::start(&user, node, &["-i", "eth1"]));
    let machines = ["blue1", "blue2", "blue3", "orange1"].map(|vm| Capture::start(&user, vm, &[]));
    // The kernel is to ask once, not again while the captures end one by one.
    let ask = "echo 1 > /proc/sys/net/ipv4/neigh/eth0/mcast_solicit; echo hello > /dev/udp/10.1.0.99/9";
    user.run(&["lab", "exec", "blue1", "--", "bash", "-c", ask]);
    user.good(&["lab", "test"]);
    let asks = |frame: &Vec<u8>| {
        let (_, _, _, kind, payload) = parts(frame);
        let asked = |packet: &arp::Packet| packet.target_ip == [10, 1, 0, 99];
        kind == ethernet::TYPE_ARP && prefix::<arp::Packet>(payload).is_ok_and(|(packet, _)| asked(packet))
    };
    let count = |capture: Capture| capture.end().iter().filter(|frame| asks(frame)).count();
    let [asked, blue2, blue3, orange1] = machines.map(count);
    let wires = wires.map(count);
    assert_eq!(asked, 1, "the kernel asks for an address it does not know");
    assert_eq!(wires, [asked; 3], "sent once, and received once by each other node");
    assert_eq!([blue2, blue3, orange1], [asked, asked, 0]);
}

/// A machine moves, a network gets another tag and goes: the wire follows, and so does the switch.
#[test]
fn changes_follow_live() {
    let user = User::new("provider-live", false);
    up(&user, TOPOLOGY);
    let file = std::env::temp_dir().join(format!("{}-changed.yaml", user.lab));
    let path = file.display().to_string();
    let apply = |topology: &str| {
        std::fs::write(&file, topology).expect("a file");
        user.good(&["apply", "-f", &path, "--prune"]);
        let report = user.json(&["lab", "test", "-o", "json"]);
        assert_eq!(report["failures"], Value::Array(Vec::new()), "{report}");
    };
    apply(&TOPOLOGY.replace("blue2: {node: node2", "blue2: {node: node3"));
    apply(&TOPOLOGY.replace("vlan: 100", "vlan: 101"));
    let wire = Capture::start(&user, "node1", &["-i", "eth1"]);
    user.good(&["lab", "exec", "blue1", "--", "ping", "-c", "1", "-W", "5", "10.1.0.12"]);
    assert!(wire.end().iter().all(|frame| parts(frame).0 == Some(101)), "another tag is on the wire");
    let tunnels = TOPOLOGY.replace("type: vlan, physical_network: physnet1, vlan: 100", "type: gre");
    let tunnels = tunnels.replace("type: vlan, physical_network: physnet1", "type: vxlan");
    apply(&tunnels.replace("type: flat, physical_network: physnet1", "type: vxlan"));
    let shown = user.good(&["show"]);
    assert!(!shown.contains("physnet1"), "the bridge of a physical network nobody uses stays: {shown}");
    apply(TOPOLOGY);
    std::fs::remove_file(&file).expect("our file");
    let walked = user.good(&["trace", "blue1", "orange2"]);
    assert!(walked.contains("br-physnet1") && walked.contains("Delivered to orange2 on node2"), "{walked}");
}

/// A router that lives on one node, chosen among those that are on the physical network, and an address that a machine of a
/// VLAN takes by announcing it.
const CENTRAL: &str = "version: 1
nodes:
  node1: {}
  node2: {bridge_mappings: {physnet1: eth1}}
  node3: {bridge_mappings: {physnet1: eth1}}
networks:
  blue: {type: vlan, physical_network: physnet1, vlan: 100, subnets: [{cidr: 10.1.0.0/24}]}
  orange: {type: vlan, physical_network: physnet1, vlan: 200, subnets: [{cidr: 10.2.0.0/24}]}
  teal: {type: vxlan, subnets: [{cidr: 10.4.0.0/24}]}
routers: {r1: {distributed: false, interfaces: [blue, orange]}, r2: {distributed: false, interfaces: [teal]}}
vms:
  blue2: {node: node2, network: blue, ip: 10.1.0.12, allowed_address_pairs: [{ip: 10.1.0.100}]}
  blue3: {node: node3, network: blue, ip: 10.1.0.13, allowed_address_pairs: [{ip: 10.1.0.100}]}
  orange3: {node: node3, network: orange, ip: 10.2.0.13}
  teal1: {node: node1, network: teal}
";

#[test]
fn a_router_on_one_node_and_a_virtual_address_on_vlans() {
    for user in User::everybody("provider-central") {
        up(&user, CENTRAL);
        let report = user.json(&["lab", "test", "-o", "json"]);
        assert_eq!(report["failures"], Value::Array(Vec::new()), "{report}");
        let shown = user.good(&["show", "node2"]);
        assert!(shown.contains("Router r1"), "the first by name that is on the physical network: {shown}");
        assert!(!user.good(&["show", "node3"]).contains("Router r1"), "it is on one node");
        let wire = Capture::start(&user, "node3", &["-i", "eth1"]);
        let ping = |from: &str, to: &str| {
            let output = user.run(&["lab", "exec", from, "--", "ping", "-c", "1", "-W", "5", to]);
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        };
        // Both machines are on node3, and their way is over node2 and back.
        let told = ping("blue3", "10.2.0.13").expect("an answer");
        assert!(told.contains("ttl=63"), "{told}");
        let tags: BTreeSet<Option<u16>> = wire.end().iter().map(|frame| parts(frame).0).collect();
        assert!(tags.is_superset(&BTreeSet::from([Some(100), Some(200)])), "{tags:?}");
        transfer(&user, ("blue3", "orange3"), "10.2.0.13");
        assert!(ping("orange3", "10.1.0.100").is_none(), "nobody has it");
        // The router's neighbour entry for an address.
        let neighbour = |ip: &str| {
            let table = user.good(&["neigh", "node2"]);
            let mac = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
            mac.filter(|words| words.get(3) == Some(&ip)).find_map(|words| words.get(4).map(ToString::to_string))
        };
        for (vm, own, silent) in [("blue2", "10.1.0.12", "10.1.0.201"), ("blue3", "10.1.0.13", "10.1.0.202")] {
            user.good(&["lab", "exec", vm, "--", "ip", "addr", "add", "10.1.0.100/32", "dev", "lo"]);
            user.run(&["lab", "exec", vm, "--", "ping", "-c", "1", "-W", "1", "-I", "10.1.0.100", silent]);
            let mac = neighbour(own);
            let settled = (0..600).find(|_| neighbour("10.1.0.100") == mac && ping("orange3", "10.1.0.100").is_some());
            assert!(settled.is_some(), "{vm} announced it: {}", user.good(&["neigh"]));
        }
    }
}
