//! What labs are put through, under the fast path: other tunnels, devices that vanish, flows that look closely; and what
//! `show` tells of each flow in the kernel.

use serde_json::Value;

use super::{as_promised, carried, ping, ports, up};
use crate::devices::has_devices;
use crate::fast::{every_way, has_bpf, with_fast_path};
use crate::user::User;

/// Two nodes over GRE; blue1 and orange1 on the first.
const OVER_GRE: &str = "version: 1
nodes: {node1: {}, node2: {}}
networks:
  blue: {type: gre, subnets: [{cidr: 10.1.0.0/24}]}
  orange: {type: gre, subnets: [{cidr: 10.2.0.0/24}]}
routers: {r1: {distributed: true, interfaces: [blue, orange]}}
vms:
  blue1: {node: node1, network: blue, ip: 10.1.0.11}
  blue2: {node: node2, network: blue, ip: 10.1.0.12}
  orange1: {node: node1, network: orange, ip: 10.2.0.11}
  orange2: {node: node2, network: orange, ip: 10.2.0.12}
";

/// Frames of 50 pings to an address and back that the kernel carried on node1.
fn carried_of_pings(user: &User, target: &str) -> u64 {
    let before = carried(user, "node1");
    assert_eq!(ping(user, target, 50), 50, "{target}\n{}", user.good(&["show"]));
    carried(user, "node1") - before
}

/// Input: networks over GRE, with the fast path and without. Output: all is as promised; with it the kernel carries what
/// stays on a node, and what is tunnelled where it has GRE devices: elsewhere that is the switch's.
#[test]
fn what_the_kernel_cannot_tunnel_stays_with_the_switch() {
    for user in every_way("fast-gre") {
        let file = std::env::temp_dir().join(format!("{}.yaml", user.lab));
        std::fs::write(&file, OVER_GRE).expect("a file that a plain user may read");
        user.up(Some(&file));
        std::fs::remove_file(&file).expect("our file");
        as_promised(&user);
        if !user.fast {
            continue;
        }
        let shown = user.good(&["show", "node1"]);
        assert!(carried_of_pings(&user, "10.2.0.11") >= 90, "{shown}");
        for target in ["10.1.0.12", "10.2.0.12"] {
            let there = carried_of_pings(&user, target);
            if has_devices("gretap") {
                assert!(shown.contains("tunnels by kernel") && there >= 90, "{there} to {target}: {shown}");
            } else {
                assert!(shown.contains("tunnels by userspace") && there == 0, "{there} to {target}: {shown}");
            }
        }
    }
}

/// The flows in a node's kernel, as `show` tells them, and how many there are.
fn offloaded(user: &User, node: &str, option: &str) -> (Vec<Value>, u64) {
    let shown = user.json(&["show", node, option, "-o", "json"]);
    let offloaded = &shown[0]["offloaded"];
    (offloaded["flows"].as_array().expect("a list").clone(), offloaded["total"].as_u64().expect("a count"))
}

fn text<'a>(flow: &'a Value, field: &str) -> &'a str {
    flow[field].as_str().expect("a text")
}

#[test]
fn each_flow_in_the_kernel_is_told_with_what_it_does() {
    if !has_bpf("the list of offloaded flows") {
        return;
    }
    let user = with_fast_path("fast-list");
    up(&user, &["--fast-path", "on"]);
    assert_eq!(ping(&user, "10.1.0.12", 30), 30);
    // A request, out of its machine, routed, into the tunnel: one of two flows if the router was passed by.
    let to_orange2 = |flow: &&Value| {
        let (matching, actions) = (text(flow, "matching"), text(flow, "actions"));
        matching.contains(",icmp,") && matching.contains("nw_dst=10.2.0.12") && actions.ends_with("vx-6002")
    };
    // What changes meanwhile takes flows out of the kernel, and only another packet puts them there again.
    let listed = (0..10).map(|_| {
        assert_eq!(ping(&user, "10.2.0.12", 60), 60);
        offloaded(&user, "node1", "--offloaded")
    });
    let mut listed = listed.skip_while(|(flows, _)| !flows.iter().any(|flow| to_orange2(&flow)));
    let (flows, total) = listed.next().expect("a flow to orange2 stays for a moment");
    assert_eq!(flows.len() as u64, total, "fewer than a hundred");
    let packets: Vec<u64> = flows.iter().map(|flow| flow["packets"].as_u64().expect("a count")).collect();
    assert!(packets.is_sorted_by(|one, next| one >= next), "{packets:?}");
    let routed = flows.iter().find(to_orange2).expect("it is there");
    assert!(text(routed, "matching").starts_with("in_port="), "{routed}");
    assert!(text(routed, "actions").contains("set(eth(src=fa:16:3f:"), "the node's host MAC: {routed}");
    assert!(text(routed, "actions").contains("set(ipv4(ttl=63))"), "{routed}");
    // Those since it was last made anew.
    assert!((1..=600).contains(&routed["packets"].as_u64().expect("a count")), "{routed}");
    assert!(routed["idle_secs"].as_f64().is_some_and(|idle| idle < 60.0), "{routed}");

    let (busiest, still) = offloaded(&user, "node1", "--offloaded=1");
    assert_eq!((busiest.len(), still), (1, total));
    let said = user.good(&["show", "node1", "--offloaded=1"]);
    assert!(said.contains(" packets:") && said.contains(&format!("and {} more", total - 1)), "{said}");
    assert!(!user.good(&["show", "node1"]).contains(" packets:"), "nobody asked");
}

/// Input: a flow of TCP that looks at ports, removed again. Output: ICMP is never told apart by what TCP's flows look at,
/// and no trace of it stays once TCP's flows have gone.
#[test]
fn what_one_flow_looks_at_tells_no_others_apart() {
    if !has_bpf("masks of the fast path") {
        return;
    }
    let user = with_fast_path("fast-mask");
    up(&user, &["--fast-path", "on"]);
    let matches = |user: &User, kind: &str| -> Vec<String> {
        let (flows, _) = offloaded(user, "node1", "--offloaded");
        let all = flows.iter().map(|flow| text(flow, "matching").to_owned());
        all.filter(|matching| matching.contains(&format!(",{kind},"))).collect()
    };
    user.good(&["add-flow", "node1/br-int", "priority=999,tcp,tp_dst=9,actions=drop"]);
    super::transfer(&user, ("blue1", "blue2"), "10.1.0.12");
    assert_eq!(ping(&user, "10.1.0.12", 10), 10);
    let (tcp, icmp) = (matches(&user, "tcp"), matches(&user, "icmp"));
    assert!(!tcp.is_empty() && tcp.iter().all(|matching| matching.contains("tp_dst=")), "{tcp:#?}");
    assert!(!icmp.is_empty() && !icmp.iter().any(|matching| matching.contains("icmp_code")), "{icmp:#?}");
    user.good(&["del-flows", "node1/br-int", "priority=999,tcp,tp_dst=9", "--strict"]);
    // All decisions rest on which bridges there are, so all flows leave the kernel.
    user.good(&["add-br", "node1/passing"]);
    user.good(&["del-br", "node1/passing"]);
    super::transfer(&user, ("blue1", "blue2"), "10.1.0.12");
    let tcp = matches(&user, "tcp");
    assert!(!tcp.is_empty() && !tcp.iter().any(|matching| matching.contains("tp_")), "{tcp:#?}");
}

/// Input: a tunnel's device removed by somebody, and a port's interface set down and up. Output: the agent makes the device
/// anew, and the kernel carries frames by both again.
#[test]
fn what_is_made_anew_has_the_fast_path_again() {
    if !has_bpf("devices that vanish under the fast path") {
        return;
    }
    let user = with_fast_path("fast-drift");
    up(&user, &["--fast-path", "on"]);
    let inside =
        |words: &[&str]| user.good(&[&["lab", "exec", "node1", "--", "ip", "-n", "dvr-ports", "link"], words].concat());
    let blue1 = ports(&user, "node1").into_iter().find_map(|port| {
        let name = port["name"].as_str()?.to_owned();
        (port["type"] == "packet" && name.starts_with("tap")).then_some(name)
    });
    let blue1 = blue1.expect("a machine's port");
    for harm in [&[&["del", "vx-6001"][..]][..], &[&["set", &blue1, "down"], &["set", &blue1, "up"]]] {
        assert!(carried_of_pings(&user, "10.1.0.12") >= 90);
        harm.iter().for_each(|words| drop(inside(words)));
        let whole = std::iter::repeat_with(|| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            user.run(&["lab", "test"]).status.success()
        });
        assert!(whole.take(200).any(|whole| whole), "{harm:?}\n{}", user.good(&["show", "node1"]));
        let all = ports(&user, "node1").into_iter().filter(|port| port["type"] == "packet");
        for port in all {
            assert_eq!(port["fast_path"], "on", "{harm:?}: {port}");
        }
        assert!(carried_of_pings(&user, "10.1.0.12") >= 90, "{harm:?}\n{}", user.good(&["show", "node1"]));
    }
}

/// Whether the device `vx-6001` of node1, in this namespace, joins the segments it receives.
pub(crate) fn joins(user: &User, netns: &str) -> bool {
    let ask = format!("PATH=$PATH:/usr/sbin:/sbin ip netns exec {netns} ethtool -k vx-6001");
    let said = user.good(&["lab", "exec", "node1", "--", "sh", "-c", &ask]);
    let line =
        said.lines().find_map(|line| line.strip_prefix("generic-receive-offload: ")).expect("every device has it");
    line == "on"
}

/// Input: streams that arrive whole, then in segments, then pings. Output: the tunnel's device joins while there are
/// segments to join, and neither before nor after.
#[test]
fn a_tunnel_joins_segments_while_there_are_any() {
    if !has_bpf("joining of segments under the fast path") {
        return;
    }
    let user = with_fast_path("fast-join");
    up(&user, &["--fast-path", "on"]);
    let shown = || user.good(&["show", "node1"]);
    let cut = |whole: &str| {
        let set = format!("PATH=$PATH:/usr/sbin:/sbin ethtool -K eth0 gso {whole} tso {whole}");
        user.good(&["lab", "exec", "node2", "--", "sh", "-c", &set]);
    };
    for (whole, joined) in [("on", false), ("off", true)] {
        cut(whole);
        super::transfer(&user, ("blue2", "blue1"), "10.1.0.11");
        // What is shown has been counted, and what was counted judged.
        let shown = shown();
        assert_eq!(joins(&user, "dvr-ports"), joined, "{whole}: {shown}");
    }
    cut("on");
    for _ in 0..2 {
        assert_eq!(ping(&user, "10.1.0.12", 400), 400);
        shown();
    }
    assert!(!joins(&user, "dvr-ports"), "{}", shown());
}
