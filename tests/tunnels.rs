//! Labs over every kind of tunnel and both families of underlay: who reaches whom, and what becomes of large packets.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/devices.rs"]
mod devices;
#[path = "support/transfer.rs"]
mod transfer;
#[path = "support/user.rs"]
#[expect(dead_code, reason = "this test needs part of it")]
mod user;

use std::time::Duration;

use devices::has_devices;
use serde_json::Value;
use transfer::transfer;
use user::User;

/// Two nodes, a bridged and a routed pair between them, over this underlay and by this kind of network.
fn topology(underlay: &str, kind: &str) -> String {
    format!(
        "version: 1
underlay: {{{underlay}}}
nodes: {{node1: {{}}, node2: {{}}}}
networks:
  blue: {{type: {kind}, subnets: [{{cidr: 10.1.0.0/24}}, {{cidr: 'fd00:1::/64'}}]}}
  orange: {{type: {kind}, subnets: [{{cidr: 10.2.0.0/24}}, {{cidr: 'fd00:2::/64'}}]}}
routers: {{r1: {{distributed: true, interfaces: [blue, orange]}}}}
vms:
  blue1: {{node: node1, network: blue, ips: [10.1.0.11, 'fd00:1::11']}}
  blue2: {{node: node2, network: blue, ips: [10.1.0.12, 'fd00:1::12']}}
  orange2: {{node: node2, network: orange, ips: [10.2.0.12, 'fd00:2::12']}}
"
    )
}

fn up(user: &User, topology: &str) {
    up_by(user, topology, "auto");
}

/// Brings a lab up whose tunnels are made by `tunnels`.
fn up_by(user: &User, topology: &str, tunnels: &str) {
    let file = std::env::temp_dir().join(format!("{}.yaml", user.lab));
    std::fs::write(&file, topology).expect("a file that a plain user may read");
    user.good(&["lab", "up", file.to_str().expect("UTF-8"), "--tunnels", tunnels]);
    std::fs::remove_file(&file).expect("our file");
}

const OVER_V4: &str = "cidr: 172.31.5.0/24";
const OVER_V6: &str = "cidr: 'fd00:172:31::/64'";

#[test]
fn everybody_reaches_everybody_by_every_tunnel() {
    for (at, (underlay, kind, octets)) in
        [(OVER_V4, "gre", 42), (OVER_V6, "gre", 62), (OVER_V6, "vxlan", 70), (OVER_V4, "vxlan", 50)]
            .into_iter()
            .enumerate()
    {
        for user in User::everybody(&format!("tunnel{at}")) {
            up(&user, &topology(&format!("{underlay}, vxlan_port: 4790"), kind));
            let report = user.json(&["lab", "test", "-o", "json"]);
            assert_eq!(report["failures"], Value::Array(Vec::new()), "{kind} over {underlay}: {report}");
            assert_eq!(report["reach"], 12, "three VMs with two addresses each");
            let shown = user.good(&["show", "node1"]);
            assert!(shown.contains(&format!("type: {kind}")), "{shown}");
            assert_eq!(shown.contains("udp_port=4790"), kind == "vxlan", "{shown}");
            assert!(shown.contains(&format!("MTU {}", 1500 - octets)), "{shown}");
        }
    }
}

/// Packets larger than the network's MTU in fragments, and bulk in full segments, bridged and routed.
fn large_packets_pass(tunnels: &str, kind: &str, underlay: &str) {
    for mtu in [1500, 1450, 9000] {
        let user = User::new(&format!("{kind}{mtu}-{}{}", &tunnels[..1], underlay.len()), false);
        up_by(&user, &topology(&format!("{underlay}, mtu: {mtu}"), kind), tunnels);
        for address in ["10.1.0.12", "10.2.0.12", "fd00:1::12", "fd00:2::12"] {
            for size in ["1600", "3200"] {
                user.good(&["lab", "exec", "blue1", "--", "ping", "-c", "1", "-W", "5", "-s", size, address]);
            }
        }
        let to = [("blue2", "10.1.0.12"), ("orange2", "10.2.0.12"), ("blue2", "fd00:1::12"), ("orange2", "fd00:2::12")];
        for (vm, address) in to {
            transfer(&user, ("blue1", vm), address);
        }
        let shown = user.good(&["show"]);
        assert!(!shown.contains("port-too-big") && !shown.contains("tunnel-fragmented"), "{shown}");
        let octets: u32 = if kind == "gre" { 42 } else { 50 } + if underlay == OVER_V6 { 20 } else { 0 };
        assert!(shown.contains(&format!("MTU {}", mtu - octets)), "{shown}");
    }
}

#[test]
fn large_packets_pass_by_the_switch_over_any_underlay() {
    for (kind, underlay) in [("gre", OVER_V4), ("vxlan", OVER_V4), ("gre", OVER_V6), ("vxlan", OVER_V6)] {
        large_packets_pass("userspace", kind, underlay);
    }
}

#[test]
fn large_packets_pass_by_the_kernels_vxlan_over_any_underlay() {
    for underlay in [OVER_V4, OVER_V6] {
        if has_devices("vxlan") {
            large_packets_pass("kernel", "vxlan", underlay);
        }
    }
}

/// `tests/vm/suite` runs this on a kernel that has the devices.
#[test]
fn large_packets_pass_by_the_kernels_gre_over_any_underlay() {
    for (underlay, device) in [(OVER_V4, "gretap"), (OVER_V6, "ip6gretap")] {
        if has_devices(device) {
            large_packets_pass("kernel", "gre", underlay);
        }
    }
}

/// What a machine's port counts in one direction, `rx` from the machine or `tx` to it: octets a frame.
fn octets_a_frame(user: &User, node: &str, machine: &str, way: &str) -> u64 {
    let shown = user.json(&["show", node, "-o", "json"]);
    let all = |value: &Value| value.as_array().expect("a list").clone();
    let machines = all(&shown[0]["agent"]["vms"]);
    let port = machines.iter().find(|vm| vm["name"] == machine).expect("it is there")["port"].clone();
    let ports = all(&shown[0]["switch"]["bridges"]).into_iter().flat_map(|bridge| all(&bridge["ports"]));
    let counters = ports.into_iter().find(|found| found["name"] == port).expect("its port")["counters"].clone();
    let count = |what: &str| counters[format!("{way}_{what}")].as_u64().expect("a counter");
    count("bytes") / count("packets").max(1)
}

/// Bulk crosses both switches, the router and the tunnel in frames of many segments: none has cut what the next could take.
#[test]
fn bulk_crosses_as_super_frames() {
    for user in User::everybody("super") {
        up_by(&user, &topology(OVER_V4, "vxlan"), "userspace");
        transfer(&user, ("blue1", "orange2"), "10.2.0.12");
        let sent = octets_a_frame(&user, "node1", "blue1", "rx");
        let come = octets_a_frame(&user, "node2", "orange2", "tx");
        assert!(sent > 4 * 1_500 && come > 4 * 1_500, "octets a frame: {sent} from the sender, {come} to the receiver");
        println!("octets a frame: {sent} from the sender, {come} to the receiver");
    }
}

/// A hop that takes less than tunnels need is named, by the node that has it and by one behind it.
#[test]
fn doctor_names_the_hop_that_is_too_small() {
    for (kind, underlay, needed) in [("vxlan", OVER_V4, 1500), ("gre", OVER_V6, 1500)] {
        for user in User::everybody(&format!("hops-{kind}")) {
            up(&user, &topology(underlay, kind));
            let told = |node: &str, other: &str| {
                let output = user.run(&["doctor", node, "-o", "json"]);
                let findings: Value = serde_json::from_slice(&output.stdout).expect("JSON");
                let what = [format!("{node} to {other}"), format!("tunnels of {node}")];
                let found = what.iter().find_map(|what| {
                    findings.as_array()?.iter().find(|finding| finding["what"] == what.as_str()).cloned()
                });
                found.unwrap_or_else(|| panic!("nothing of {node}: {findings}"))
            };
            let words = |finding: &Value| finding["found"].as_str().expect("a text").to_owned();
            let fine = words(&told("node1", "node2"));
            assert!(fine.contains("chosen: ") && fine.contains(&format!("{needed} octets pass")), "{fine}");
            let set = |node: &str, mtu: &str| {
                user.good(&["lab", "exec", node, "--", "ip", "link", "set", "eth0", "mtu", mtu]);
            };
            set("node1", "1400");
            let own = told("node1", "node2");
            assert!(words(&own).contains(&format!("{needed} octets do not pass: this node's interface takes 1400")));
            assert!(own["remedy"].as_str().expect("a text").contains("mtu: 1400"), "{own}");
            // The other end of a veth pair drops what is too large for it, and says nothing.
            let vanish = words(&told("node2", "node1"));
            assert!(vanish.contains(&format!("{needed} octets vanish on the way, 1400 pass")), "{vanish}");
            set("node1", "1500");
            assert_eq!(told("node1", "node2")["verdict"], "ok");
            let shown = user.good(&["show", "node1"]);
            assert!(shown.contains("answers in") && shown.contains(&format!("{needed} octets pass")), "{shown}");
        }
    }
}

/// Lets the switch's ends of veth pairs take what is larger than the network's MTU, as a TAP does.
fn widen(user: &User) {
    let inside =
        |words: &[&str]| user.good(&[&["lab", "exec", "node1", "--", "ip", "-n", "dvr-ports"], words].concat());
    let links: Value = serde_json::from_str(&inside(&["-j", "link"])).expect("ip prints JSON");
    for link in links.as_array().expect("a list").iter().filter_map(|link| link["ifname"].as_str()) {
        if link != "lo" {
            inside(&["link", "set", link, "mtu", "65535"]);
        }
    }
}

/// A machine that thinks its network's MTU larger than it is: the switch tells it, and the router does.
#[test]
fn what_is_too_big_is_answered_with_the_inner_mtu() {
    for (kind, underlay, mtu) in
        [("gre", OVER_V4, 1458), ("vxlan", OVER_V6, 1430), ("gre", OVER_V6, 1438), ("vxlan", OVER_V4, 1450)]
    {
        let user = User::new(&format!("toobig-{kind}{mtu}"), false);
        up(&user, &topology(underlay, kind));
        let veth = user.good(&["show", "node1", "-o", "json"]).contains("\"veth\"");
        // The agent would set it right at once.
        user.good(&["lab", "kill", "node1", "agent"]);
        user.good(&["lab", "exec", "blue1", "--", "ip", "link", "set", "eth0", "mtu", "1500"]);
        if veth {
            widen(&user);
        }
        let large = |address: &str, size: &str| {
            let words = ["lab", "exec", "blue1", "--", "ping", "-M", "do", "-c", "3", "-W", "5", "-s", size, address];
            let output = user.run(&words);
            assert_eq!(output.status.code(), Some(1), "{address} answered what does not fit");
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        };
        let told = large("10.1.0.12", "1472");
        assert!(told.contains(&format!("mtu = {mtu}")), "bridged: {told}");
        let told = large("10.2.0.12", "1472");
        // Into a veth pair the kernel lets nothing that its other end, the router's, would not send: the router never sees it.
        assert!(veth || told.contains("From 10.1.0.1") && told.contains(&format!("mtu = {mtu}")), "routed: {told}");
        let told = large("fd00:1::12", "1452");
        assert!(told.contains(&format!("mtu={mtu}")) || told.contains(&format!("mtu = {mtu}")), "IPv6: {told}");
        let shown = user.run(&["show", "node1"]);
        assert!(String::from_utf8_lossy(&shown.stdout).contains(" port-too-big: "), "it is not counted");
        // Who was told sends what fits.
        transfer(&user, ("blue1", "blue2"), "10.1.0.12");
    }
}

/// Times a node is asked until what it says must be right, and the pause between two: without, an emulated processor does
/// nothing but ask.
const ASKED_MAX: usize = 240;
const ASKED_EVERY: Duration = Duration::from_millis(250);

/// Waits until a node says that less passes than tunnels need, or that nothing is in the way.
fn until_narrowed(user: &User, node: &str, mtu: Option<u32>) {
    let is_so = |shown: &String| match mtu {
        Some(mtu) => shown.matches(&format!("(by tunnels {mtu}: no more passes)")).count() == 2,
        None => !shown.contains("by tunnels"),
    };
    let ask = |again: usize| {
        if again > 0 {
            std::thread::sleep(ASKED_EVERY);
        }
        user.good(&["show", node])
    };
    let shown = (0..ASKED_MAX).map(ask).find(is_so);
    assert!(shown.is_some(), "never {mtu:?}: {}", user.good(&["show", node]));
}

/// Who sends to whom across the nodes, bridged and routed, by either family.
const ACROSS: [(&str, &str, &str); 4] = [
    ("blue1", "blue2", "10.1.0.12"),
    ("blue1", "orange2", "10.2.0.12"),
    ("blue1", "blue2", "fd00:1::12"),
    ("blue1", "orange2", "fd00:2::12"),
];
/// And back.
const BACK: [(&str, &str, &str); 4] = [
    ("blue2", "blue1", "10.1.0.11"),
    ("orange2", "blue1", "10.1.0.11"),
    ("blue2", "blue1", "fd00:1::11"),
    ("orange2", "blue1", "fd00:1::11"),
];

/// What becomes of packets as large as a network's MTU, which may not be fragmented.
fn full_sized(user: &User, pairs: &[(&str, &str, &str)], mtu: u32, check: impl Fn(bool, &str)) {
    for (from, _, address) in pairs {
        let size = (mtu - if address.contains(':') { 48 } else { 28 }).to_string();
        let ping = ["ping", "-M", "do", "-c", "1", "-W", "5", "-s", &size, address];
        let output = user.run(&[&["lab", "exec", from, "--"], &ping[..]].concat());
        check(output.status.success(), &format!("{from} to {address}: {}", String::from_utf8_lossy(&output.stdout)));
    }
}

/// Whether a ping's words tell that so many octets fit.
fn is_told(words: &str, mtu: u32) -> bool {
    words.contains(&format!("mtu = {mtu}")) || words.contains(&format!("mtu={mtu}"))
}

/// An interface of the underlay, of either node, takes less than tunnels need: senders are told what passes,
/// bridged and routed, by either family, and their streams flow. Then it takes more again, and so do the tunnels.
fn senders_are_told_of_a_narrow_underlay(user: &User, (tunnels, kind): (&str, &str), underlay: &str, node: &str) {
    up_by(user, &topology(underlay, kind), tunnels);
    let overhead = if kind == "gre" { 42 } else { 50 } + if underlay == OVER_V6 { 20 } else { 0 };
    let (wide, narrow) = (1500 - overhead, 1400 - overhead);
    let set = |mtu: &str| user.good(&["lab", "exec", node, "--", "ip", "link", "set", "eth0", "mtu", mtu]);
    set("1400");
    for each in ["node1", "node2"] {
        until_narrowed(user, each, Some(narrow));
    }
    let output = user.run(&["doctor", "node1"]);
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(found.contains(&format!("senders on blue are told to send {narrow} octets at most")), "{found}");
    // An agent that starts anew begins with what was found.
    user.good(&["lab", "restart", "node1", "agent"]);
    let refused = |passed: bool, told: &str| {
        assert!(!passed && is_told(told, narrow), "{kind} by {tunnels}, {node}: {told}\n{}", user.good(&["show"]));
    };
    // Fragments are not answered, so the other end is to know before it answers in some.
    full_sized(user, &ACROSS, wide, refused);
    full_sized(user, &BACK, wide, refused);
    for (from, to, address) in ACROSS {
        transfer(user, (from, to), address);
    }
    set("1500");
    for each in ["node1", "node2"] {
        until_narrowed(user, each, None);
    }
    // What machines were told they remember for ten minutes.
    for vm in ["blue1", "blue2", "orange2"] {
        user.good(&["lab", "exec", vm, "--", "sh", "-c", "ip route flush cache; ip -6 route flush cache"]);
    }
    full_sized(user, &ACROSS, wide, |passed, told| assert!(passed, "{told}"));
}

#[test]
fn senders_are_told_by_the_kernels_vxlan_of_a_narrow_interface() {
    if has_devices("vxlan") {
        for user in User::everybody("narrow-own") {
            senders_are_told_of_a_narrow_underlay(&user, ("kernel", "vxlan"), OVER_V4, "node1");
        }
    }
}

#[test]
fn senders_are_told_by_the_kernels_vxlan_of_a_narrow_underlay() {
    if has_devices("vxlan") {
        let user = User::new("narrow-far", false);
        senders_are_told_of_a_narrow_underlay(&user, ("kernel", "vxlan"), OVER_V6, "node2");
    }
}

#[test]
fn senders_are_told_by_the_switchs_vxlan_of_a_narrow_underlay() {
    for user in User::everybody("narrow-vxlan") {
        senders_are_told_of_a_narrow_underlay(&user, ("userspace", "vxlan"), OVER_V4, "node2");
    }
}

#[test]
fn senders_are_told_by_the_switchs_gre_of_a_narrow_underlay() {
    let user = User::new("narrow-gre", false);
    senders_are_told_of_a_narrow_underlay(&user, ("userspace", "gre"), OVER_V6, "node2");
}

/// What the node's own kernel knows the switch's tunnels know at once, and no agent has to find out.
#[test]
fn senders_are_told_by_the_switch_of_a_narrow_interface_at_once() {
    for (kind, underlay, mtu) in [("vxlan", OVER_V4, 1350), ("gre", OVER_V6, 1338)] {
        let user = User::new(&format!("narrow-own-{kind}"), false);
        up_by(&user, &topology(underlay, kind), "userspace");
        user.good(&["lab", "kill", "node1", "agent"]);
        user.good(&["lab", "exec", "node1", "--", "ip", "link", "set", "eth0", "mtu", "1400"]);
        full_sized(&user, &ACROSS, mtu + 100, |passed, told| assert!(!passed && is_told(told, mtu), "{kind}: {told}"));
        full_sized(&user, &ACROSS, mtu, |passed, told| assert!(passed, "{told}"));
    }
}

/// `tests/vm/suite` runs this on a kernel that has the devices.
#[test]
fn senders_are_told_by_the_kernels_gre_of_a_narrow_underlay() {
    for (underlay, device) in [(OVER_V4, "gretap"), (OVER_V6, "ip6gretap")] {
        if has_devices(device) {
            let user = User::new(&format!("narrowg-{device}"), false);
            senders_are_told_of_a_narrow_underlay(&user, ("kernel", "gre"), underlay, "node2");
        }
    }
}

/// What the kernels of a place have counted under this name (/proc/net/snmp and /proc/net/snmp6, which nstat prints).
fn counted(user: &User, place: &str, name: &str) -> u64 {
    let script = "PATH=$PATH:/usr/sbin:/sbin nstat -a -s -z";
    let told = user.good(&["lab", "exec", place, "--", "sh", "-c", script]);
    let line = told.lines().find(|line| line.split_whitespace().next() == Some(name));
    let value = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    value.unwrap_or_else(|| panic!("{name} is not counted: {told}"))
}

/// Where no device finishes a checksum it is on the wire as whoever began it left it, and the other node's kernel verifies
/// it before anybody gets the packet, as a real receiver does.
fn checksums_hold_on_a_wire(user: &User, tunnels: &str, underlay: &str) {
    up_by(user, &topology(underlay, "vxlan"), tunnels);
    for node in ["node1", "node2"] {
        let finish = "PATH=$PATH:/usr/sbin:/sbin ethtool -K eth0 tx off";
        user.good(&["lab", "exec", node, "--", "sh", "-c", finish]);
    }
    for (from, to, address) in ACROSS.into_iter().chain(BACK) {
        transfer(user, (from, to), address);
    }
    let family = if underlay == OVER_V6 { "Udp6" } else { "Udp" };
    for node in ["node1", "node2"] {
        let (came, bad) = (format!("{family}InDatagrams"), format!("{family}InCsumErrors"));
        assert!(counted(user, node, &came) > 1_000, "{tunnels} over {underlay}: {node} verified nothing");
        assert_eq!(counted(user, node, &bad), 0, "{tunnels} over {underlay}: {node}");
    }
    for vm in ["blue1", "blue2", "orange2"] {
        for bad in ["TcpInCsumErrors", "UdpInCsumErrors", "Udp6InCsumErrors"] {
            assert_eq!(counted(user, vm, bad), 0, "{tunnels} over {underlay}: {vm}");
        }
    }
}

#[test]
fn checksums_hold_where_no_device_finishes_them() {
    for (at, underlay) in [OVER_V4, OVER_V6].into_iter().enumerate() {
        for tunnels in ["userspace", "kernel"] {
            for user in User::everybody(&format!("sums{at}{}", &tunnels[..1])) {
                checksums_hold_on_a_wire(&user, tunnels, underlay);
            }
        }
    }
}
