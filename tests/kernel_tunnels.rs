//! Labs whose tunnels the kernel makes: all nodes, one of two, and a plain bridge in a node's place; what becomes of the
//! devices when the agent ends, changes its mind, or finds the work of others.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/devices.rs"]
mod devices;
#[path = "support/transfer.rs"]
mod transfer;
#[path = "support/user.rs"]
#[expect(dead_code, reason = "this test needs part of it")]
mod user;

use devices::has_devices;
use serde_json::Value;
use transfer::transfer;
use user::User;

/// Three nodes over this underlay: a bridged pair and a routed one across, and a network that only two of them have.
fn topology(underlay: &str) -> String {
    format!(
        "version: 1
underlay: {{{underlay}}}
nodes: {{node1: {{}}, node2: {{}}, node3: {{}}}}
networks:
  blue: {{type: vxlan, vni: 5001, subnets: [{{cidr: 10.1.0.0/24}}, {{cidr: 'fd00:1::/64'}}]}}
  orange: {{type: vxlan, vni: 5002, subnets: [{{cidr: 10.2.0.0/24}}]}}
routers: {{r1: {{distributed: true, interfaces: [blue, orange]}}}}
vms:
  blue1: {{node: node1, network: blue, ips: [10.1.0.11, 'fd00:1::11']}}
  blue2: {{node: node2, network: blue, ips: [10.1.0.12, 'fd00:1::12']}}
  orange1: {{node: node1, network: orange, ip: 10.2.0.11}}
  orange2: {{node: node2, network: orange, ip: 10.2.0.12}}
  orange3: {{node: node3, network: orange, ip: 10.2.0.13}}
"
    )
}

const OVER_V4: &str = "cidr: 172.31.7.0/24, mtu: 1500";
const OVER_V6: &str = "cidr: 'fd00:172:32::/64', mtu: 1500, vxlan_port: 4790";

/// Brings up a lab of this topology, with more arguments.
fn up(user: &User, topology: &str, more: &[&str]) {
    let file = std::env::temp_dir().join(format!("{}.yaml", user.lab));
    std::fs::write(&file, topology).expect("a file that a plain user may read");
    let name = file.display().to_string();
    user.good(&[&["lab", "up", name.as_str()], more].concat());
    std::fs::remove_file(&file).expect("our file");
}

/// Everybody reaches everybody they should, in large and small packets, and nothing was too big on the way.
fn all_is_well(user: &User) {
    let report = user.json(&["lab", "test", "-o", "json"]);
    assert_eq!(report["failures"], Value::Array(Vec::new()), "{report}\n{}", user.good(&["show"]));
    for address in ["10.1.0.12", "10.2.0.12", "10.2.0.13", "fd00:1::12"] {
        for size in ["1600", "3200"] {
            user.good(&["lab", "exec", "blue1", "--", "ping", "-c", "1", "-W", "5", "-s", size, address]);
        }
    }
    for (from, to, address) in [
        ("blue1", "blue2", "10.1.0.12"),
        ("blue2", "blue1", "10.1.0.11"),
        ("blue1", "orange2", "10.2.0.12"),
        ("orange3", "blue1", "10.1.0.11"),
        ("blue1", "blue2", "fd00:1::12"),
        ("blue2", "blue1", "fd00:1::11"),
    ] {
        transfer(user, (from, to), address);
    }
    let shown = user.good(&["show"]);
    for reason in ["port-too-big", "tunnel-fragmented", "tunnel-bad", "port-bad-offload", "port-refused"] {
        assert!(!shown.contains(reason), "{shown}");
    }
}

#[test]
fn the_kernel_carries_everything_over_either_family() {
    for (at, underlay) in [OVER_V4, OVER_V6].into_iter().enumerate() {
        for user in User::everybody(&format!("kernel{at}")) {
            up(&user, &topology(underlay), &["--tunnels", "kernel"]);
            all_is_well(&user);
            let shown = user.good(&["show", "node1"]);
            assert!(shown.contains("tunnels by kernel"), "{shown}");
            assert!(shown.contains("vx-5001") && !shown.contains("type: vxlan"), "{shown}");
        }
    }
}

/// Has a place send what a wire would carry, where that matters: what the kernel's tunnels send over a lab's veth pairs
/// comes uncut, and the switch at the other end cannot hand that to a veth pair of a machine's.
fn cut_early(user: &User, place: &str, device: &str) {
    if user.good(&["show", "node1"]).contains("ports by veth") {
        let cut = format!("PATH=$PATH:/usr/sbin:/sbin ip link set {device} gso_max_segs 1");
        user.good(&["lab", "exec", place, "--", "sh", "-c", &cut]);
    }
}

/// The same octets are on the wire, whoever puts them there.
#[test]
fn one_node_by_the_kernel_and_the_others_by_the_switch() {
    for (at, underlay) in [OVER_V4, OVER_V6].into_iter().enumerate() {
        let user = User::new(&format!("mixed{at}"), false);
        up(&user, &topology(underlay), &["--tunnels", "node1=kernel"]);
        cut_early(&user, "blue1", "eth0");
        all_is_well(&user);
        for (node, by) in [("node1", "kernel"), ("node2", "userspace")] {
            let shown = user.good(&["show", node]);
            assert!(shown.contains(&format!("tunnels by {by}")), "{shown}");
        }
        for (from, to) in [("blue1", "blue2"), ("blue2", "blue1"), ("orange3", "blue1")] {
            let told = user.good(&["trace", from, to]);
            assert!(told.contains(&format!("Delivered to {to}")), "{told}");
        }
    }
}

/// A shell's words on a node, and what they print.
fn on(user: &User, node: &str, words: &str) -> String {
    user.good(&["lab", "exec", node, "--", "sh", "-c", &format!("export PATH=$PATH:/usr/sbin:/sbin; {words}")])
}

/// Times a node is asked until what it says must be right: each takes some tens of milliseconds at least.
const ASKED_MAX: usize = 1_000;

/// Asks with a shell's words on a node until they print what they should.
fn until(user: &User, node: &str, words: &str, wanted: &str) {
    let said = (0..ASKED_MAX).map(|_| on(user, node, words)).find(|said| said == wanted);
    assert!(said.is_some(), "{words}: {}\n{}", on(user, node, words), user.good(&["show", node]));
}

fn settled(user: &User) {
    let report = user.json(&["lab", "test", "-o", "json"]);
    assert_eq!(report["failures"], Value::Array(Vec::new()), "{report}\n{}", user.good(&["show"]));
}

#[test]
fn a_node_changes_its_mind_and_nothing_stays() {
    let user = User::new("switched", false);
    up(&user, &topology(OVER_V4), &[]);
    // Foreign devices: one beside ours, with our prefix and in nobody's way.
    on(&user, "node1", "ip link add vx-foreign type vxlan id 77 dstport 9999 local 172.31.7.1");
    let foreign = on(&user, "node1", "ip -o link show dev vx-foreign");
    let before = on(&user, "node1", "ip netns list | sort");
    user.good(&["lab", "restart", "node1", "agent", "--tunnels", "kernel"]);
    settled(&user);
    assert!(on(&user, "node1", "ip netns list").contains("dvr-tunnels"));
    let shown = user.good(&["show", "node1"]);
    assert!(!shown.contains("vxlan-"), "a port of the switch's stayed: {shown}");
    user.good(&["lab", "restart", "node1", "agent", "--tunnels", "userspace"]);
    settled(&user);
    assert_eq!(on(&user, "node1", "ip netns list | sort"), before);
    let shown = user.good(&["show", "node1"]);
    assert!(!shown.contains("vx-"), "a port of the kernel's stayed: {shown}");
    assert_eq!(on(&user, "node1", "ip -o link show dev vx-foreign"), foreign);
}

#[test]
fn a_restart_adopts_the_devices_and_drift_is_undone() {
    let user = User::new("adopted", false);
    up(&user, &topology(OVER_V4), &["--tunnels", "kernel"]);
    let links = "ip -n dvr-tunnels -o link show type vxlan | sort";
    let fdb = "bridge -n dvr-tunnels fdb show | grep dst | sort";
    let (devices, entries) = (on(&user, "node1", links), on(&user, "node1", fdb));
    assert_eq!(devices.lines().count(), 2, "{devices}");
    // Two stations and a flood each: blue2 on node2, orange2 on node2 and orange3 on node3; node3 has blue by its router.
    assert_eq!(entries.lines().filter(|line| line.starts_with("00:00:00:00:00:00")).count(), 4, "{entries}");
    assert_eq!(entries.lines().count(), 7, "{entries}");
    user.good(&["lab", "restart", "node1", "agent"]);
    settled(&user);
    assert_eq!((on(&user, "node1", links), on(&user, "node1", fdb)), (devices, entries.clone()), "made anew");
    on(&user, "node1", "bridge -n dvr-tunnels fdb del 00:00:00:00:00:00 dev vx-5001 dst 172.31.7.2 self");
    until(&user, "node1", fdb, &entries);
    on(&user, "node1", "bridge -n dvr-tunnels fdb append 00:00:00:00:00:00 dev vx-5001 dst 172.31.7.99 self");
    until(&user, "node1", fdb, &entries);
    on(&user, "node1", "ip -n dvr-tunnels link del vx-5001");
    until(&user, "node1", fdb, &entries);
    settled(&user);
    // What an agent made goes with `purge`, the switch's ports first.
    user.good(&["lab", "kill", "node1", "agent"]);
    on(&user, "node1", &format!("{} purge", user.program.display()));
    assert_eq!(on(&user, "node1", "ip netns list"), "");
}

/// Somebody else has the VNI: the error names the device and what to do, and the other network goes on.
#[test]
fn what_others_have_is_left_alone_and_told() {
    let user = User::new("taken", false);
    up(&user, &topology(OVER_V4), &[]);
    on(&user, "node1", "ip link add theirs type vxlan id 5001 dstport 4789 local 172.31.7.1");
    let output = user.run(&["lab", "restart", "node1", "agent", "--tunnels", "kernel"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("vx-5001") && told.contains("remove it"), "{told}");
    user.good(&["lab", "exec", "orange1", "--", "ping", "-c", "1", "-W", "5", "10.2.0.13"]);
    on(&user, "node1", "ip link show dev theirs && ip link del theirs");
    settled(&user);
}

/// Left to itself a node has the switch make its tunnels; the kernel, which shares its ports, where somebody else's device
/// has the UDP port; and then keeps to that.
#[test]
fn auto_takes_what_can_be_had() {
    let user = User::new("auto", false);
    up(&user, &topology(OVER_V4), &[]);
    let by = |by: &str, why: &str| {
        let shown = user.good(&["show", "node1"]);
        assert!(shown.contains(&format!("tunnels by {by}\n")) && shown.contains(why), "{shown}");
        settled(&user);
    };
    by("userspace", "chosen: only the switch knows");
    user.good(&["lab", "kill", "node1", "all"]);
    on(&user, "node1", "ip link add theirs type vxlan id 77 dstport 4789 local 172.31.7.1 && ip link set theirs up");
    user.good(&["lab", "restart", "node1", "all"]);
    by("kernel", "chosen: the switch cannot: port 172.31.7.1:4789: cannot bind: Address already in use");
    on(&user, "node1", "ip link del theirs");
    user.good(&["lab", "restart", "node1", "agent"]);
    by("kernel", "kept");
    user.good(&["lab", "restart", "node1", "agent", "--tunnels", "userspace"]);
    by("userspace", "as asked");
}

/// A plain bridge and a vxlan device, set up by hand, in the place of a node; by either backend of ours.
#[test]
fn a_plain_bridge_joins_as_a_node() {
    const TOPOLOGY: &str = "version: 1
underlay: {cidr: 172.31.8.0/24}
nodes: {node1: {}, node2: {}}
networks: {blue: {type: vxlan, vni: 5001, subnets: [{cidr: 10.1.0.0/24}]}}
vms:
  blue1: {node: node1, network: blue, ip: 10.1.0.11}
  blue2: {node: node2, network: blue, ip: 10.1.0.12, mac: 'fa:16:3e:00:00:12'}
";
    for by in ["kernel", "userspace"] {
        let user = User::new(&format!("plain-{by}"), false);
        up(&user, TOPOLOGY, &["--tunnels", &format!("node1={by}")]);
        user.good(&["lab", "kill", "node2", "all"]);
        on(
            &user,
            "node2",
            "ip link add vxlan0 type vxlan id 5001 dstport 4789 local 172.31.8.2 remote 172.31.8.1 &&
             ip link add br0 address fa:16:3e:00:00:12 type bridge && ip link set vxlan0 master br0 mtu 1450 up &&
             ip link set br0 mtu 1450 up && ip address add 10.1.0.12/24 dev br0",
        );
        for device in ["br0", "vxlan0"] {
            cut_early(&user, "node2", device);
        }
        // The bridge asks who has the address through its tunnel; our responder knows the bridge's.
        user.good(&["lab", "exec", "node2", "--", "ping", "-c", "1", "-W", "5", "10.1.0.11"]);
        user.good(&["lab", "exec", "blue1", "--", "ping", "-c", "1", "-W", "5", "10.1.0.12"]);
        transfer(&user, ("blue1", "node2"), "10.1.0.12");
        transfer(&user, ("node2", "blue1"), "10.1.0.11");
    }
}

/// `tests/vm/suite` runs this on a kernel that has the devices.
#[test]
fn gre_by_the_kernel_wherever_it_can() {
    for (at, (underlay, kind)) in [(OVER_V4, "gretap"), (OVER_V6, "ip6gretap")].into_iter().enumerate() {
        for by in ["kernel", "node1=kernel"] {
            let user = User::new(&format!("gre{at}{}", by.len()), false);
            if !has_devices(kind) {
                continue;
            }
            let topology = topology(underlay).replace("type: vxlan", "type: gre");
            up(&user, &topology, &["--tunnels", by]);
            cut_early(&user, "blue1", "eth0");
            all_is_well(&user);
            let shown = user.good(&["show", "node1"]);
            assert!(shown.contains("tunnels by kernel") && !shown.contains("type: gre"), "{shown}");
            let told = user.good(&["trace", "blue1", "orange3"]);
            assert!(told.contains("Delivered to orange3"), "{told}");
            let devices = on(&user, "node1", "ip -n dvr-tunnels -o link");
            // What a device drops of what it was given, nobody is told of: super-frames it makes nothing of, for one.
            let counters = on(&user, "node1", "ip -n dvr-tunnels -j -s link");
            let counters: Value = serde_json::from_str(&counters).expect("JSON");
            let lost = |link: &&Value| link["stats64"]["tx"]["dropped"] != 0 || link["stats64"]["tx"]["errors"] != 0;
            assert_eq!(counters.as_array().expect("links").iter().find(lost), None);
            user.good(&["lab", "restart", "node1", "agent", "--tunnels", "userspace"]);
            settled(&user);
            user.good(&["lab", "restart", "node1", "agent", "--tunnels", "kernel"]);
            settled(&user);
            assert_eq!(on(&user, "node1", "ip -n dvr-tunnels -o link").lines().count(), devices.lines().count());
        }
    }
}

/// A kernel without the devices is told of, by name and with what to do.
#[test]
fn a_kernel_without_gre_devices_is_told_of() {
    let user = User::new("gre-none", false);
    if has_devices("gretap") {
        return;
    }
    let topology = topology(OVER_V4).replace("type: vxlan, vni: 5001", "type: gre, vni: 5001");
    up(&user, &topology, &[]);
    let output = user.run(&["lab", "restart", "node1", "agent", "--tunnels", "kernel"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && told.contains("gretap k001389ac1f0702"), "{told}");
    assert!(told.contains("Unknown device type") && told.contains("--tunnels userspace"), "{told}");
    // The other network has what it needs.
    user.good(&["lab", "exec", "orange1", "--", "ping", "-c", "1", "-W", "5", "10.2.0.13"]);
}
