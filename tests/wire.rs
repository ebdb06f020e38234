//! What crosses the underlay of a real lab, captured there: no router's MAC, no flood of what is known, each unknown
//! question once to each node that has the network, and a key per network.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/capture.rs"]
mod capture;
#[expect(dead_code, reason = "this test needs part of it")]
#[path = "support/user.rs"]
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::Path;

use capture::Capture;
use dvr::types::Mac;
use dvr::wire::{arp, ethernet, icmp, ipv4, ipv6, nd, prefix, udp, vxlan};
use serde_json::Value;
use user::User;

/// A frame in a tunnel.
#[derive(Debug)]
struct Tunnelled {
    from: Ipv4Addr,
    to: Ipv4Addr,
    vni: u32,
    frame: Vec<u8>,
}

impl Tunnelled {
    /// What a frame of the underlay carries, if it is a tunnel's. A super-frame of several datagrams shows its first.
    fn of(frame: &[u8]) -> Option<Self> {
        let (link, rest) = prefix::<ethernet::Header>(frame).ok()?;
        let (ip, _) = prefix::<ipv4::Header>(rest).ok()?;
        if link.ether_type.get() != ethernet::TYPE_IPV4 || ip.protocol != ipv4::PROTOCOL_UDP {
            return None;
        }
        let (datagram, rest) = prefix::<udp::Header>(&rest[ip.header_len()..]).ok()?;
        let (tunnel, inside) = prefix::<vxlan::Header>(rest).ok()?;
        let ours = datagram.destination.get() == vxlan::PORT;
        ours.then(|| Self { from: ip.source(), to: ip.destination(), vni: tunnel.vni_bits(), frame: inside.to_vec() })
    }

    fn ethernet(&self) -> (&ethernet::Header, &[u8]) {
        prefix(&self.frame).expect("a tunnel carries whole Ethernet headers")
    }

    /// Every MAC in the frame: of its header, and of an ARP or neighbour discovery payload.
    fn macs(&self) -> Vec<Mac> {
        let (link, rest) = self.ethernet();
        let mut macs = vec![link.source(), link.destination()];
        if let Some(packet) = self.arp() {
            macs.extend([Mac::new(packet.sender_mac), Mac::new(packet.target_mac)]);
        }
        if let Some(message) = discovery(link, rest)
            && let Ok((option, _)) = prefix::<nd::LinkLayer>(message)
        {
            macs.push(Mac::new(option.mac));
        }
        macs
    }

    fn arp(&self) -> Option<&arp::Packet> {
        let (link, rest) = self.ethernet();
        (link.ether_type.get() == ethernet::TYPE_ARP).then(|| prefix(rest).expect("a whole ARP packet").0)
    }
}

/// The options of a neighbour discovery message.
fn discovery<'a>(link: &ethernet::Header, rest: &'a [u8]) -> Option<&'a [u8]> {
    let (ip, rest) = prefix::<ipv6::Header>(rest).ok()?;
    let (message, rest) = prefix::<icmp::Header>(rest).ok()?;
    let kinds = [nd::NEIGHBOUR_SOLICITATION, nd::NEIGHBOUR_ADVERTISEMENT];
    let ours = link.ether_type.get() == ethernet::TYPE_IPV6
        && ip.next_header == ipv4::PROTOCOL_ICMPV6
        && kinds.contains(&message.kind);
    ours.then(|| prefix::<nd::Target>(rest).map(|(_, options)| options).unwrap_or_default())
}

/// The lab as its readers tell it.
struct Told {
    /// MACs of router interfaces.
    routers: BTreeSet<Mac>,
    /// Each node's host MAC, by its endpoint.
    hosts: BTreeMap<Ipv4Addr, Mac>,
    /// Each network's key.
    keys: BTreeMap<String, u32>,
}

impl Told {
    fn of(user: &User) -> Self {
        let shown = user.json(&["show", "-o", "json"]);
        let mut told = Self { routers: BTreeSet::new(), hosts: BTreeMap::new(), keys: BTreeMap::new() };
        for node in shown.as_array().expect("a list of nodes") {
            let agent = node.get("agent").unwrap_or(node);
            let text = |value: &Value| value.as_str().map(str::to_owned).expect("a text");
            let host = (text(&agent["tunnel_ip"]), text(&agent["host_mac"]));
            told.hosts.insert(host.0.parse().expect("an address"), host.1.parse().expect("a MAC"));
            for router in agent["routers"].as_array().expect("routers") {
                let macs = router["interfaces"].as_array().expect("interfaces").iter().map(|port| text(&port["mac"]));
                told.routers.extend(macs.map(|mac| mac.parse::<Mac>().expect("a MAC")));
            }
            for network in agent["networks"].as_array().expect("networks") {
                let vni = network["vni"].as_u64().and_then(|vni| u32::try_from(vni).ok()).expect("a VNI");
                assert!(told.keys.insert(text(&network["name"]), vni).is_none_or(|known| known == vni));
            }
        }
        told
    }
}

fn tunnelled(frames: &[Vec<u8>]) -> Vec<Tunnelled> {
    frames.iter().filter_map(|frame| Tunnelled::of(frame)).collect()
}

/// Sends one datagram from a VM, by the one tool every machine has.
fn send(user: &User, vm: &str, to: &str) {
    user.run(&["lab", "exec", vm, "--", "bash", "-c", &format!("echo hello > /dev/udp/{to}/9")]);
}

/// ARP requests for `ip` among frames as they are.
fn questions<'a>(frames: impl IntoIterator<Item = &'a [u8]>, ip: Ipv4Addr) -> usize {
    let asks = |frame: &&[u8]| {
        prefix::<ethernet::Header>(frame).is_ok_and(|(link, rest)| {
            link.ether_type.get() == ethernet::TYPE_ARP
                && prefix::<arp::Packet>(rest)
                    .is_ok_and(|(packet, _)| packet.operation.get() == arp::REQUEST && packet.target_ip == ip.octets())
        })
    };
    frames.into_iter().filter(asks).count()
}

#[test]
fn what_is_known_crosses_once_and_under_the_host_mac() {
    for user in User::everybody("known") {
        user.up(Some(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/four-nodes.yaml"))));
        let told = Told::of(&user);
        let captures = ["node1", "node2", "node3", "node4"].map(|node| Capture::start(&user, node, &[]));
        user.good(&["lab", "test"]);
        let mut keys = BTreeMap::<u32, usize>::new();
        let mut routed = 0;
        for capture in captures {
            let frames = tunnelled(&capture.end());
            // green's gateway is nobody's: VMs that must not reach others still ask for it.
            let unborne = |seen: &&Tunnelled| questions([seen.frame.as_slice()], Ipv4Addr::new(10, 3, 0, 1)) == 0;
            // The VMs' kernels tell ff02::16 which groups they listen to, at times of their own (RFC 3810, section 6.1).
            let asked_for =
                |seen: &&Tunnelled| seen.ethernet().0.destination() != Mac::new([0x33, 0x33, 0, 0, 0, 0x16]);
            for seen in frames.iter().filter(unborne).filter(asked_for) {
                *keys.entry(seen.vni).or_default() += 1;
                let router = seen.macs().into_iter().find(|mac| told.routers.contains(mac));
                assert_eq!(router, None, "a router's MAC is on the wire: {seen:?}");
                assert!(seen.arp().is_none(), "a question about a known address crossed: {seen:?}");
                let (link, _) = seen.ethernet();
                // A VM's own reports to IPv6 groups (33:33:…) are for the whole network; questions (33:33:ff:…) are not.
                let report = matches!(link.destination().octets(), [0x33, 0x33, group, ..] if group != 0xff);
                assert!(report || !link.destination().is_multicast(), "a flood crossed: {seen:?}");
                if let Some(host) = told.hosts.values().find(|host| **host == link.source()) {
                    assert_eq!(told.hosts.get(&seen.from), Some(host), "under another node's host MAC: {seen:?}");
                    routed += 1;
                }
            }
        }
        assert!(routed > 0, "routed frames cross under a host MAC");
        let used: BTreeSet<u32> = keys.into_keys().collect();
        let given: BTreeSet<u32> = told.keys.values().copied().collect();
        assert_eq!(used, given, "each network has a key of its own, and all were used");
        assert_eq!(given.len(), 3);
    }
}

#[test]
fn an_unknown_question_reaches_each_node_of_its_network_once() {
    for user in User::everybody("unknown") {
        user.up(Some(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/four-nodes.yaml"))));
        let told = Told::of(&user);
        let unknown = Ipv4Addr::new(10, 1, 0, 99);
        let (asker, wire) = (Capture::start(&user, "blue1", &[]), Capture::start(&user, "node1", &[]));
        let hearers = ["blue2", "blue3", "orange1", "green1"].map(|vm| Capture::start(&user, vm, &[]));
        // Asked again a second later, while captures end one after another, it would be another number for each of them.
        let once = "echo 1 >/proc/sys/net/ipv4/neigh/eth0/mcast_solicit";
        user.good(&["lab", "exec", "blue1", "--", "sh", "-c", once]);
        send(&user, "blue1", "10.1.0.99");
        // A ping that is answered comes after the question on every queue it shares with it.
        user.good(&["lab", "test"]);
        let asked = questions(asker.end().iter().map(Vec::as_slice), unknown);
        assert!(asked > 0, "the kernel asks for an address it does not know");
        let mut crossed = BTreeMap::<Ipv4Addr, usize>::new();
        for seen in tunnelled(&wire.end()) {
            if questions([seen.frame.as_slice()], unknown) == 1 {
                assert_eq!(seen.vni, told.keys["blue"], "in its network's key");
                *crossed.entry(seen.to).or_default() += 1;
            }
        }
        // By name: node1 to node4 have the underlay's addresses in that order.
        let endpoints: Vec<Ipv4Addr> = told.hosts.keys().copied().collect();
        let wanted = BTreeMap::from([(endpoints[1], asked), (endpoints[2], asked)]);
        assert_eq!(crossed, wanted, "once to each other node of the network, and to no other");
        let [blue2, blue3, orange1, green1] =
            hearers.map(|capture| questions(capture.end().iter().map(Vec::as_slice), unknown));
        assert_eq!(
            [blue2, blue3, orange1, green1],
            [asked, asked, 0, 0],
            "heard by all of its network and nobody else"
        );
    }
}

#[test]
fn a_routers_own_question_goes_under_the_host_mac() {
    for user in User::everybody("asks") {
        user.up(Some(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/four-nodes.yaml"))));
        let told = Told::of(&user);
        let wire = Capture::start(&user, "node1", &[]);
        send(&user, "blue1", "10.2.0.99");
        user.good(&["lab", "test"]);
        let asked: Vec<Tunnelled> = tunnelled(&wire.end())
            .into_iter()
            .filter(|seen| questions([seen.frame.as_slice()], Ipv4Addr::new(10, 2, 0, 99)) == 1)
            .collect();
        assert!(!asked.is_empty(), "the router asks for a machine that nobody registered");
        for seen in asked {
            assert_eq!(seen.vni, told.keys["orange"]);
            let host = told.hosts[&seen.from];
            let sender = seen.arp().map(|packet| Mac::new(packet.sender_mac));
            assert_eq!((seen.ethernet().0.source(), sender), (host, Some(host)), "header and payload say the host MAC");
        }
    }
}

/// What one machine says to its network without end, each datagram once and told from every other, until dropped. Nobody is
/// a member of the group: it floods.
struct Speaker(std::process::Child);

impl Speaker {
    fn start(user: &User, vm: &str) -> Self {
        // Until its standard input ends, which `read` tells from its time being up.
        let words = format!(
            "while read -t 0.01 _; [ $? -gt 128 ]; do n=$((n+1)); echo said-{vm}-$n. >/dev/udp/239.9.9.9/9; done"
        );
        let mut command = user.command(&["lab", "exec", vm, "--name", &user.lab, "--", "bash", "-c", &words]);
        let command = command.stdin(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
        Self(command.spawn().expect("the program starts"))
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _reaped = self.0.wait();
    }
}

/// What a frame says, if a speaker said it.
fn said(frame: &[u8]) -> Option<&[u8]> {
    // Where a frame of this kind has them: a sender's super-datagram is captured before it is cut, and what follows its first
    // frame, a larger one, is another's.
    let words = frame.get(14 + 20 + 8..).filter(|words| words.starts_with(b"said-"))?;
    let end = words.iter().position(|octet| *octet == b'.')?;
    Some(&words[..end])
}

/// Whatever daemons end, start and start again, and while a machine moves: nothing comes twice to anybody, nothing comes
/// back to who said it, and no router's MAC is on any wire.
#[test]
fn nothing_comes_twice_while_nodes_start_and_machines_move() {
    for user in User::everybody("twice") {
        user.up(Some(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/four-nodes.yaml"))));
        let told = Told::of(&user);
        let wires = ["node1", "node2", "node3"].map(|node| Capture::start(&user, node, &["-i", "eth0"]));
        let hearers = ["blue1", "blue3"].map(|vm| Capture::start(&user, vm, &["-i", "eth0"]));
        let speakers = ["blue1", "blue2", "blue3"].map(|vm| Speaker::start(&user, vm));
        user.good(&["lab", "test"]);
        for (node, daemon) in [("node2", "agent"), ("node2", "switch"), ("node2", "all")] {
            user.good(&["lab", "kill", node, daemon]);
            user.good(&["lab", "restart", node, daemon]);
            user.good(&["lab", "test"]);
        }
        let yaml = user.good(&["get", "vm", "orange2", "-o", "yaml"]);
        let file = std::env::temp_dir().join(format!("{}-moved.yaml", user.lab));
        std::fs::write(&file, yaml.replace("node: node2", "node: node3")).expect("a file");
        user.good(&["apply", "-f", file.to_str().expect("UTF-8")]);
        std::fs::remove_file(&file).expect("our file");
        user.good(&["lab", "test"]);
        drop(speakers);
        for (vm, hearer) in ["blue1", "blue3"].into_iter().zip(hearers) {
            let mut heard = BTreeMap::<Vec<u8>, usize>::new();
            for frame in hearer.end() {
                if let Some(words) = said(&frame) {
                    *heard.entry(words.to_vec()).or_default() += 1;
                }
            }
            let others = heard.keys().filter(|words| !words.starts_with(format!("said-{vm}-").as_bytes())).count();
            assert!(others > 20, "{vm} heard {others}");
            let twice = heard.iter().find(|(_, times)| **times > 1);
            assert_eq!(twice.map(|(words, times)| (String::from_utf8_lossy(words), times)), None, "{vm} heard it");
        }
        for wire in wires {
            let mut crossed = BTreeMap::<(Ipv4Addr, Ipv4Addr, Vec<u8>), usize>::new();
            for seen in tunnelled(&wire.end()) {
                let router = seen.macs().into_iter().find(|mac| told.routers.contains(mac));
                assert_eq!(router, None, "a router's MAC is on the wire: {seen:?}");
                if let Some(words) = said(&seen.frame) {
                    assert_eq!(seen.vni, told.keys["blue"], "in its network's key: {seen:?}");
                    *crossed.entry((seen.from, seen.to, words.to_vec())).or_default() += 1;
                }
            }
            assert!(crossed.len() > 20, "{} crossed", crossed.len());
            let twice = crossed.iter().find(|(_, times)| **times > 1);
            assert_eq!(twice, None, "the same twice from one node to one other");
        }
    }
}

/// A question that nobody answers crosses once to each of many other nodes, and the last one's machine hears it once.
/// `DVR_TEST_NODES` says how many nodes, eight without.
#[test]
fn a_flood_reaches_each_of_many_nodes_once() {
    let nodes: usize = std::env::var("DVR_TEST_NODES").map_or(8, |count| count.parse().expect("a number"));
    let lines = |line: fn(usize) -> String| (1..=nodes).map(line).collect::<String>();
    let text = format!(
        "version: 1\nnodes:\n{}networks: {{blue: {{subnets: [{{cidr: 10.0.0.0/16}}]}}}}\nvms:\n{}",
        lines(|node| format!("  n{node:03}: {{}}\n")),
        lines(|node| format!("  v{node:03}: {{node: n{node:03}, network: blue}}\n")),
    );
    let user = User::new("many", false);
    let file = std::env::temp_dir().join(format!("{}.yaml", user.lab));
    std::fs::write(&file, text).expect("a file");
    user.up(Some(&file));
    std::fs::remove_file(&file).expect("our file");
    let told = Told::of(&user);
    let unknown = Ipv4Addr::new(10, 0, 200, 1);
    let (asker, wire) = (Capture::start(&user, "v001", &[]), Capture::start(&user, "n001", &["-i", "eth0"]));
    let far = Capture::start(&user, &format!("v{nodes:03}"), &[]);
    send(&user, "v001", "10.0.200.1");
    // A ping that is answered comes after the question on every queue it shares with it.
    let report = user.json(&["lab", "test", "-o", "json"]);
    assert_eq!(report["failures"], Value::Array(Vec::new()), "{report}");
    let count = |capture: Capture| questions(capture.end().iter().map(Vec::as_slice), unknown);
    let asked = count(asker);
    assert!(asked > 0, "the kernel asks for an address it does not know");
    assert_eq!(count(far), asked, "heard once for each time it was asked");
    let mut crossed = BTreeMap::<Ipv4Addr, usize>::new();
    for seen in tunnelled(&wire.end()).iter().filter(|seen| questions([seen.frame.as_slice()], unknown) == 1) {
        *crossed.entry(seen.to).or_default() += 1;
    }
    let others = told.hosts.keys().skip(1).map(|endpoint| (*endpoint, asked)).collect();
    assert_eq!(crossed, others, "once to each other node for each time it was asked");
}
