//! Open vSwitch as a node of a lab, by its userspace datapath or the kernel's and under the flows of Neutron's agent in DVR
//! mode: the other end of our tunnels, and the other replica of our router, are not ours.
//!
//! ```text
//!  node1, ours: blue1 orange1 r1      node2, OVS: blue2 orange2 r1
//! ```
//! `data/neutron-br-int.flows` and `data/neutron-br-tun.flows` are what Neutron would have written for node2, and
//! `data/ovs-node.sh` is the rest of its agent. In userspace it makes no TAP, and so runs wherever a lab does. Where
//! `openvswitch-switch` is not installed a line says so, and nothing is tested; with `DVR_REQUIRE_PEERS=1`, as in CI, that
//! is a failure. The kernel's datapath takes its module, which `tests/vm/suite` boots a kernel for, and
//! `DVR_REQUIRE_KERNEL=1` there makes its lack a failure.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/capture.rs"]
mod capture;
#[path = "support/transfer.rs"]
mod transfer;
#[path = "support/user.rs"]
#[expect(dead_code, reason = "this test needs part of it")]
mod user;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Stdio};

use capture::Capture;
use dvr::types::Mac;
use dvr::wire::{arp, ethernet, gre, ipv4, prefix, udp, vxlan};
use transfer::transfer;
use user::User;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const HOLDER: &str = include_str!("data/ovs-node.sh");
const BR_INT: &str = include_str!("data/neutron-br-int.flows");
const BR_TUN: &str = include_str!("data/neutron-br-tun.flows");
const ROUTER: &str = "5e7ab1e5-0000-4000-8000-000000000001";

/// The second node is to be OVS's.
const TOPOLOGY: &str = "version: 1
underlay: {cidr: 172.31.6.0/24}
nodes: {node1: {host_mac: 'OTHER_HOST'}, node2: {host_mac: 'OWN_HOST'}}
networks:
  blue: {type: KIND, vni: 5001, mtu: 1400, subnets: [{cidr: 10.1.0.0/24}]}
  orange: {type: KIND, vni: 5002, mtu: 1400, subnets: [{cidr: 10.2.0.0/24}]}
routers:
  r1: {id: ROUTER_ID, interfaces: [{network: blue, mac: 'BLUE_ROUTER'}, {network: orange, mac: 'ORANGE_ROUTER'}]}
vms:
  blue1: {node: node1, network: blue, ip: 10.1.0.11, mac: 'BLUE_REMOTE'}
  blue2: {node: node2, network: blue, ip: BLUE_IP, mac: 'BLUE_VM'}
  orange1: {node: node1, network: orange, ip: 10.2.0.11, mac: 'ORANGE_REMOTE'}
  orange2: {node: node2, network: orange, ip: ORANGE_IP, mac: 'ORANGE_VM'}
";

/// The words that stand for values in the topology and the flows, as seen from node2.
const WORDS: [(&str, &str); 11] = [
    ("ROUTER_ID", ROUTER),
    ("OWN_HOST", "fa:16:3f:00:00:02"),
    ("OTHER_HOST", "fa:16:3f:00:00:01"),
    ("BLUE_ROUTER", "fa:16:3e:00:01:01"),
    ("ORANGE_ROUTER", "fa:16:3e:00:01:02"),
    ("BLUE_VM", "fa:16:3e:00:00:12"),
    ("ORANGE_VM", "fa:16:3e:00:00:22"),
    ("BLUE_REMOTE", "fa:16:3e:00:00:11"),
    ("ORANGE_REMOTE", "fa:16:3e:00:00:21"),
    ("BLUE_IP", "10.1.0.12"),
    ("ORANGE_IP", "10.2.0.12"),
];

/// What table 10 of br-tun learns into table 20.
const LEARN: &str = "learn(table=20,hard_timeout=300,priority=1,NXM_OF_VLAN_TCI[0..11],\
    NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:0->NXM_OF_VLAN_TCI[],load:NXM_NX_TUN_ID[]->NXM_NX_TUN_ID[],\
    output:NXM_OF_IN_PORT[])";

fn word(of: &str) -> &'static str {
    WORDS.iter().find(|(name, _)| *name == of).expect("a word").1
}

fn mac(of: &str) -> Mac {
    word(of).parse().expect("a MAC")
}

/// The text with its words' values.
fn filled(text: &str, kind: &str) -> String {
    let by_kind = if kind == "gre" { "3" } else { "4" };
    let text = text.replace("BY_KIND", by_kind).replace("KIND", kind).replace("LEARN", LEARN);
    let text = text.replace("ANSWER_BLUE", &answer("BLUE_REMOTE", Ipv4Addr::new(10, 1, 0, 11)));
    let text = text.replace("ANSWER_ORANGE", &answer("ORANGE_REMOTE", Ipv4Addr::new(10, 2, 0, 11)));
    WORDS.iter().fold(text, |text, (name, value)| text.replace(name, value))
}

/// The responder's actions.
fn answer(of: &str, ip: Ipv4Addr) -> String {
    let (mac, number) = (word(of), word(of).replace(':', ""));
    format!(
        "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],mod_dl_src:{mac},load:2->NXM_OF_ARP_OP[],\
         move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],\
         load:0x{number}->NXM_NX_ARP_SHA[],load:{:#x}->NXM_OF_ARP_SPA[],in_port",
        ip.to_bits()
    )
}

/// What of OVS moves frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Datapath {
    Userspace,
    Kernel,
}

impl Datapath {
    /// Its type in OVS's words.
    const fn name(self) -> &'static str {
        match self {
            Self::Userspace => "dummy",
            Self::Kernel => "system",
        }
    }
}

/// OVS in a node's place, until dropped.
struct Ovs(Child);

impl Ovs {
    fn start(user: &User, datapath: Datapath, kind: &str) -> Self {
        let (br_int, br_tun, netns) = (filled(BR_INT, kind), filled(BR_TUN, kind), format!("qrouter-{ROUTER}"));
        let inside = ["lab", "exec", "node2", "--name", &user.lab, "--", "sh", "-c", HOLDER, "holder"];
        let before = [&inside[..], &[datapath.name(), SCHEMA, kind]].concat();
        let macs = ["BLUE_ROUTER", "ORANGE_ROUTER", "BLUE_REMOTE", "ORANGE_REMOTE"].map(word);
        let words = [&before[..], &[&br_int, &br_tun, &netns], &macs].concat();
        let mut child =
            user.command(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.as_mut().expect("piped"));
        let (mut told, mut line) = (String::new(), String::new());
        while line != "ready\n" {
            told += &line;
            line.clear();
            assert!(lines.read_line(&mut line).expect("text") > 0, "OVS did not start:\n{told}");
        }
        Self(child)
    }

    /// Ends it; what its flows were by then.
    fn end(mut self) -> String {
        self.finish()
    }

    fn finish(&mut self) -> String {
        let mut told = String::new();
        if let (Some(input), Some(mut output)) = (self.0.stdin.take(), self.0.stdout.take()) {
            drop(input);
            let _read = output.read_to_string(&mut told);
            let _ended = self.0.wait();
        }
        told
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        let told = self.finish();
        if !told.is_empty() {
            println!("OVS at its end:\n{told}");
        }
    }
}

/// How often the flow that a dump has with these words was used.
fn used(dump: &str, table: u8, words: &[&str]) -> u64 {
    let table = format!("table={table}, ");
    let is_it = |line: &&str| line.contains(&table) && words.iter().all(|word| line.contains(word));
    let line = dump.lines().find(is_it).unwrap_or_else(|| panic!("no flow {table}{words:?} in:\n{dump}"));
    let count = line.split("n_packets=").nth(1).and_then(|rest| rest.split(',').next());
    count.and_then(|count| count.parse().ok()).expect("a count")
}

/// What a frame of the underlay carries in a tunnel, and the tunnel's source. A super-frame of several datagrams shows its
/// first.
fn inside(frame: &[u8]) -> Option<(Ipv4Addr, Vec<u8>)> {
    let (link, rest) = prefix::<ethernet::Header>(frame).ok()?;
    let (ip, _) = prefix::<ipv4::Header>(rest).ok()?;
    let rest = rest.get(ip.header_len()..)?;
    if link.ether_type.get() != ethernet::TYPE_IPV4 {
        return None;
    }
    let inner = match ip.protocol {
        ipv4::PROTOCOL_GRE => rest.get(gre::open(rest).ok()?.1..)?,
        ipv4::PROTOCOL_UDP => {
            let (datagram, rest) = prefix::<udp::Header>(rest).ok()?;
            prefix::<vxlan::Header>(rest).ok().filter(|_| datagram.destination.get() == vxlan::PORT)?.1
        }
        _ => return None,
    };
    Some((ip.source(), inner.to_vec()))
}

/// ARP questions for an address among frames.
fn questions(frames: &[Vec<u8>], ip: [u8; 4]) -> usize {
    let asks = |frame: &&Vec<u8>| {
        prefix::<ethernet::Header>(frame).is_ok_and(|(link, rest)| {
            link.ether_type.get() == ethernet::TYPE_ARP
                && prefix::<arp::Packet>(rest)
                    .is_ok_and(|(packet, _)| packet.operation.get() == arp::REQUEST && packet.target_ip == ip)
        })
    };
    frames.iter().filter(asks).count()
}

/// On the wire there are machines' own MACs and each node's host MAC, and no router's; and no question, for each node
/// answers those it knows the answer to.
fn check_wire(frames: &[Vec<u8>]) {
    let routers = ["BLUE_ROUTER", "ORANGE_ROUTER"].map(mac);
    let (ours, theirs) = (Ipv4Addr::new(172, 31, 6, 1), Ipv4Addr::new(172, 31, 6, 2));
    let mut speakers = BTreeSet::new();
    for (from, frame) in frames.iter().filter_map(|frame| inside(frame)) {
        let (link, _) = prefix::<ethernet::Header>(&frame).expect("a tunnel carries whole Ethernet headers");
        assert!(!routers.contains(&link.source()), "a router's MAC is on the wire: {frame:02x?}");
        assert!(!routers.contains(&link.destination()), "a router's MAC is on the wire: {frame:02x?}");
        assert!(link.ether_type.get() != ethernet::TYPE_ARP, "a question crossed: {frame:02x?}");
        speakers.insert((from, link.source()));
    }
    let expected =
        [(ours, mac("OTHER_HOST")), (ours, mac("BLUE_REMOTE")), (theirs, mac("OWN_HOST")), (theirs, mac("BLUE_VM"))];
    assert_eq!(speakers, BTreeSet::from(expected), "who speaks, and from where");
}

/// Whether OVS is there, which is said where it is not.
fn is_installed(kind: &str) -> bool {
    let installed = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join("ovs-vswitchd").is_file());
    if !installed || !Path::new(SCHEMA).exists() {
        let missing =
            format!("Open vSwitch is not installed (Debian: openvswitch-switch): {kind} was not tried with it");
        assert!(std::env::var_os("DVR_REQUIRE_PEERS").is_none(), "{missing}");
        println!("{missing}");
        return false;
    }
    true
}

fn joins_a_lab(kind: &str) {
    if is_installed(kind) {
        for user in User::everybody(&format!("ovs-{kind}")) {
            joins_the_lab_of(&user, Datapath::Userspace, kind);
        }
    }
}

/// The kernel's datapath, by root where the module is loaded: only root's machines take the super-frames it sends.
fn joins_a_lab_by_the_kernel(kind: &str) {
    if !(nix::unistd::geteuid().is_root() && Path::new("/sys/module/openvswitch").exists()) {
        let missing = format!("not root, or no module openvswitch: {kind} was not tried with OVS's kernel datapath");
        assert!(std::env::var_os("DVR_REQUIRE_KERNEL").is_none(), "{missing}");
        println!("{missing}");
    } else if is_installed(kind) {
        joins_the_lab_of(&User::new(&format!("ovs-kernel-{kind}"), false), Datapath::Kernel, kind);
    }
}

fn joins_the_lab_of(user: &User, datapath: Datapath, kind: &str) {
    let file = std::env::temp_dir().join(format!("{}.yaml", user.lab));
    std::fs::write(&file, filled(TOPOLOGY, kind)).expect("a file");
    user.up(Some(&file));
    std::fs::remove_file(&file).expect("our file");
    user.good(&["lab", "kill", "node2", "all"]);
    if datapath == Datapath::Userspace {
        // A veth pair hands checksums on unfinished, which a wire would not, and OVS's userspace refuses.
        let finish = "PATH=$PATH:/usr/sbin:/sbin ethtool -K eth0 tx off";
        user.good(&["lab", "exec", "node1", "--", "sh", "-c", finish]);
    }
    let ovs = Ovs::start(user, datapath, kind);
    let ping = |place: &str, address: &str| {
        let words = ["lab", "exec", place, "--", "ping", "-c", "3", "-W", "5", "-i", "0.2", address];
        let output = user.run(&words);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{place} to {address} by {kind}: {told}{}", user.good(&["show", "node1"]));
        assert!(!told.contains("DUP!"), "{told}");
        told
    };
    let wire = Capture::start(user, "node1", &["-i", "eth0"]);
    // Bridged, then routed, begun by either side.
    ping("blue2", "10.1.0.11");
    ping("blue1", "10.1.0.12");
    for (place, address) in [("blue1", "10.2.0.12"), ("orange2", "10.1.0.11"), ("orange1", "10.1.0.12")] {
        let told = ping(place, address);
        assert!(told.contains("ttl=63"), "one router, on the asker's node: {told}");
    }
    check_wire(&wire.end());
    // What nobody knows floods over the tunnel, either way, to each machine once.
    for (asker, hearer, ip) in [("blue1", "blue2", [10, 1, 0, 98]), ("blue2", "blue1", [10, 1, 0, 99])] {
        let captures = [asker, hearer].map(|vm| Capture::start(user, vm, &[]));
        let address = Ipv4Addr::from(ip).to_string();
        let unanswered = user.run(&["lab", "exec", asker, "--", "ping", "-c", "1", "-W", "1", &address]);
        assert!(!unanswered.status.success(), "somebody answers at {address}");
        ping(asker, if asker == "blue1" { "10.1.0.12" } else { "10.1.0.11" });
        let [asked, heard] = captures.map(|capture| questions(&capture.end(), ip));
        assert!(asked > 0 && asked == heard, "{asker} asked {asked} times and {hearer} heard {heard}");
    }
    transfer(user, ("blue1", "blue2"), "10.1.0.12");
    transfer(user, ("blue2", "blue1"), "10.1.0.11");
    transfer(user, ("blue1", "orange2"), "10.2.0.12");
    transfer(user, ("orange2", "blue1"), "10.1.0.11");
    let dump = ovs.end();
    assert!(used(&dump, 21, &["arp_tpa=10.1.0.11"]) > 0, "its responder was never asked:\n{dump}");
    for vm in ["BLUE_VM", "ORANGE_VM"] {
        let restored = used(&dump, 1, &[&format!("dl_dst={}", word(vm)), "mod_dl_src"]);
        assert!(restored > 0, "no routed frame came for {}:\n{dump}", word(vm));
    }
    assert!(used(&dump, 9, &[word("OTHER_HOST")]) > 0, "our host MAC never came:\n{dump}");
    let learned = dump.lines().find(|line| line.contains("dl_dst=fa:16:3f") && line.contains("table=20"));
    assert_eq!(learned, None, "a host MAC was learned");
    if datapath == Datapath::Kernel {
        let hits = dump.split("lookups: hit:").nth(1).and_then(|rest| rest.split_whitespace().next());
        assert!(hits.is_some_and(|hits| hits != "0"), "the kernel's datapath forwarded nothing:\n{dump}");
    }
}

#[test]
fn open_vswitch_joins_by_vxlan() {
    joins_a_lab("vxlan");
}

#[test]
fn open_vswitch_joins_by_gre() {
    joins_a_lab("gre");
}

#[test]
fn open_vswitch_joins_by_vxlan_and_the_kernel() {
    joins_a_lab_by_the_kernel("vxlan");
}

#[test]
fn open_vswitch_joins_by_gre_and_the_kernel() {
    joins_a_lab_by_the_kernel("gre");
}
