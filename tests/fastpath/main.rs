//! The kernel fast path: the same octets as the switch sends, changes at once, restarts in which nothing is lost.
//!
//! It takes BPF, and so the machine's own root: as anybody else most of this is left out, which a line says. That a lab
//! asked to have it works without is tested for everybody.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "../support/devices.rs"]
mod devices;
#[path = "../support/fast.rs"]
mod fast;
mod frames;
mod scenarios;
#[path = "../support/transfer.rs"]
mod transfer;
#[path = "../support/user.rs"]
#[expect(dead_code, reason = "this test needs part of it")]
mod user;

use std::process::Stdio;
use std::time::Duration;

use fast::has_bpf;
use serde_json::Value;
use transfer::transfer;
use user::User;

/// Two nodes over VXLAN, both families, a bridged and a routed pair across.
const TOPOLOGY: &str = "version: 1
underlay: {cidr: 172.31.9.0/24, mtu: 1500}
nodes: {node1: {}, node2: {}}
networks:
  blue: {type: vxlan, vni: 6001, subnets: [{cidr: 10.1.0.0/24}, {cidr: 'fd00:1::/64'}]}
  orange: {type: vxlan, vni: 6002, subnets: [{cidr: 10.2.0.0/24}, {cidr: 'fd00:2::/64'}]}
routers: {r1: {distributed: true, interfaces: [blue, orange]}}
vms:
  blue1: {node: node1, network: blue, ips: [10.1.0.11, 'fd00:1::11']}
  blue2: {node: node2, network: blue, ips: [10.1.0.12, 'fd00:1::12']}
  orange1: {node: node1, network: orange, ips: [10.2.0.11, 'fd00:2::11']}
  orange2: {node: node2, network: orange, ips: [10.2.0.12, 'fd00:2::12']}
";

/// Who blue1 pings to see all ways: bridged and routed, across and on one node, by both families.
const TARGETS: [&str; 5] = ["10.1.0.12", "10.2.0.12", "10.2.0.11", "fd00:1::12", "fd00:2::12"];

/// Has `tc` name the ingress filters of all ports that there are.
const LIST_FILTERS: &str = "export PATH=$PATH:/usr/sbin:/sbin; for port in $(ip -n dvr-ports -o link | sed 's/^[0-9]*: //; s/[@:].*//'); \
     do tc -n dvr-ports filter show dev $port ingress; done";

fn up(user: &User, more: &[&str]) {
    let file = std::env::temp_dir().join(format!("{}.yaml", user.lab));
    std::fs::write(&file, TOPOLOGY).expect("a file that a plain user may read");
    let name = file.display().to_string();
    user.good(&[&["lab", "up", name.as_str()], more].concat());
    std::fs::remove_file(&file).expect("our file");
}

fn as_promised(user: &User) {
    let report = user.json(&["lab", "test", "-o", "json"]);
    assert_eq!(report["failures"], Value::Array(Vec::new()), "{report}\n{}", user.good(&["show"]));
}

/// Pings so often, as fast as replies come, and tells how many came.
fn ping(user: &User, target: &str, count: u32) -> u64 {
    let (count, limit) = (count.to_string(), (count / 10 + 5).to_string());
    let words = ["lab", "exec", "blue1", "--", "ping", "-q", "-A", "-c", &count, "-w", &limit, target];
    let output = user.run(&words);
    replies(&String::from_utf8_lossy(&output.stdout))
}

/// What `ping` says it received; duplicates are not among them, and there are to be none.
fn replies(said: &str) -> u64 {
    assert!(!said.contains("duplicates"), "{said}");
    let words: Vec<&str> = said.split_whitespace().collect();
    let at = words.iter().position(|word| word.starts_with("received")).unwrap_or_else(|| panic!("no count: {said}"));
    words[at - 1].parse().expect("a number")
}

/// A node's switch, as `show` tells it.
fn switch(user: &User, node: &str) -> Value {
    let shown = user.json(&["show", node, "-o", "json"]);
    let nodes = shown["nodes"].as_array().or(shown.as_array()).cloned().unwrap_or_else(|| vec![shown]);
    let node = nodes.into_iter().find(|shown| shown["switch"].is_object()).expect("a switch that answers");
    node["switch"].clone()
}

fn carried(user: &User, node: &str) -> u64 {
    switch(user, node)["fast_path"]["packets"].as_u64().expect("a count")
}

#[test]
fn everything_works_with_it_and_counts_as_without() {
    if !has_bpf("a lab with the fast path") {
        return;
    }
    let user = User::new("fast", false);
    up(&user, &["--fast-path", "on"]);
    as_promised(&user);
    for port in ports(&user, "node1") {
        if port["type"] == "packet" {
            assert_eq!(port["fast_path"], "on", "{port}");
        }
    }
    for target in TARGETS {
        let before = carried(&user, "node1");
        assert_eq!(ping(&user, target, 50), 50, "{target}\n{}", user.good(&["show"]));
        let there = carried(&user, "node1") - before;
        // Each request and each reply crosses node1's switch at least once; the first few decide.
        assert!(there >= 90, "{there} frames to and from {target} by the kernel\n{}", user.good(&["show"]));
    }
    for (from, to, address) in
        [("blue1", "blue2", "10.1.0.12"), ("blue1", "orange2", "10.2.0.12"), ("orange2", "blue1", "fd00:1::11")]
    {
        transfer(&user, (from, to), address);
    }
    for size in ["1600", "3200", "9000"] {
        user.good(&["lab", "exec", "blue1", "--", "ping", "-c", "1", "-W", "5", "-s", size, "10.2.0.12"]);
    }
    let shown = user.good(&["show"]);
    for reason in ["port-too-big", "tunnel-fragmented", "port-bad-offload", "port-refused"] {
        assert!(!shown.contains(reason), "{shown}");
    }
}

fn ports(user: &User, node: &str) -> Vec<Value> {
    let switch = switch(user, node);
    let bridges = switch["bridges"].as_array().expect("bridges").clone();
    bridges.iter().flat_map(|bridge| bridge["ports"].as_array().expect("ports").clone()).collect()
}

#[test]
fn counters_of_flows_and_ports_tell_every_frame() {
    if !has_bpf("counters of the fast path") {
        return;
    }
    let user = User::new("fast-count", false);
    up(&user, &["--fast-path", "on"]);
    let counts = |user: &User| {
        let port = ports(user, "node2").into_iter().find(|port| port["name"] == "vx-6001").expect("the tunnel");
        let of = |name: &str| port["counters"][name].as_u64().expect("a count");
        let flows = user.json(&["dump-flows", "node2/br-tun", "-o", "json"]);
        let flows = flows[0]["flows"].as_array().expect("flows").clone();
        let tunnel = flows.iter().filter(|flow| {
            flow["table"] == 4 && flow["match"].as_str().is_some_and(|text| text.contains("tun_id=0x1771"))
        });
        let matched: u64 = tunnel.filter_map(|flow| flow["n_packets"].as_u64()).sum();
        (of("rx_packets"), of("tx_packets"), matched)
    };
    assert_eq!(ping(&user, "10.1.0.12", 10), 10);
    let before = counts(&user);
    assert_eq!(ping(&user, "10.1.0.12", 500), 500);
    let after = counts(&user);
    // Neighbour entries may be looked at meanwhile: a frame or two more, never one less.
    for (what, counted) in [("rx", after.0 - before.0), ("tx", after.1 - before.1), ("flow", after.2 - before.2)] {
        assert!((500..505).contains(&counted), "{what}: {counted}\n{}", user.good(&["show"]));
    }
}

#[test]
fn a_change_of_flows_holds_when_it_is_answered() {
    if !has_bpf("changes of flows with the fast path") {
        return;
    }
    let user = User::new("fast-change", false);
    up(&user, &["--fast-path", "on"]);
    for _ in 0..10 {
        assert_eq!(ping(&user, "10.2.0.12", 10), 10);
        assert!(switch(&user, "node1")["fast_path"]["flows"].as_u64().is_some_and(|flows| flows > 0));
        user.good(&["add-flow", "node1/br-int", "priority=999,icmp,actions=drop"]);
        let words = ["lab", "exec", "blue1", "--", "ping", "-q", "-c", "2", "-i", "0.05", "-W", "1", "10.2.0.12"];
        assert_eq!(replies(&String::from_utf8_lossy(&user.run(&words).stdout)), 0, "{}", user.good(&["show"]));
        user.good(&["del-flows", "node1/br-int", "priority=999,icmp", "--strict"]);
    }
}

#[test]
fn what_is_known_goes_on_while_switch_and_agent_are_dead_and_when_they_are_back() {
    if !has_bpf("restarts with the fast path") {
        return;
    }
    let user = User::new("fast-restart", false);
    up(&user, &["--fast-path", "on"]);
    for target in ["10.1.0.12", "10.2.0.12"] {
        assert_eq!(ping(&user, target, 20), 20);
        let mut pings = user.command(&[
            "lab", "exec", "blue1", "--name", &user.lab, "--", "ping", "-q", "-i", "0.002", "-c", "2000", "-w", "60",
            target,
        ]);
        let pings = pings.stdout(Stdio::piped()).spawn().expect("ping starts");
        // Whatever the timing, nothing may be lost: the pause only lets some of the pings fall into the outage.
        std::thread::sleep(Duration::from_millis(300));
        user.good(&["lab", "kill", "node1"]);
        std::thread::sleep(Duration::from_millis(300));
        user.good(&["lab", "restart", "node1"]);
        let output = pings.wait_with_output().expect("ping ends");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(replies(&said), 2000, "{said}\n{}", user.good(&["show"]));
        as_promised(&user);
        assert!(carried(&user, "node1") > 0, "{}", user.good(&["show"]));
    }
}

#[test]
fn it_is_off_by_one_flag_and_leaves_nothing() {
    if !has_bpf("switching the fast path off") {
        return;
    }
    let user = User::new("fast-off", false);
    up(&user, &["--fast-path", "on"]);
    assert_eq!(ping(&user, "10.2.0.12", 10), 10);
    for (tunnels, by) in [("auto", "kernel"), ("userspace", "userspace")] {
        user.good(&["lab", "restart", "node1", "agent", "--fast-path", "off", "--tunnels", tunnels]);
        as_promised(&user);
        let shown = user.good(&["show", "node1"]);
        assert!(!shown.contains("fast path: on") && shown.contains(&format!("tunnels by {by}")), "{shown}");
        let filters = ["lab", "exec", "node1", "--", "sh", "-c", LIST_FILTERS];
        assert_eq!(user.good(&filters), "", "{shown}");
        if by == "kernel" {
            assert!(scenarios::joins(&user, "dvr-tunnels"), "as a device does of itself");
        }
        user.good(&["lab", "restart", "node1", "agent", "--fast-path", "on", "--tunnels", "auto"]);
        as_promised(&user);
        let before = carried(&user, "node1");
        assert_eq!(ping(&user, "10.2.0.12", 10), 10);
        assert!(carried(&user, "node1") > before, "{}", user.good(&["show"]));
        assert_ne!(user.good(&filters), "");
    }
}

#[test]
fn where_it_cannot_be_had_all_works_without() {
    for user in User::everybody("fast-none").into_iter().filter(|user| user.plain || !nix::unistd::geteuid().is_root())
    {
        up(&user, &["--fast-path", "on"]);
        as_promised(&user);
        let shown = user.good(&["show", "node1"]);
        assert!(shown.contains("fast path: refused: ") && shown.contains("CAP_BPF"), "{shown}");
    }
}
