//! Routed packets go past their router's namespace, and all that the namespace does besides forwarding still happens: the
//! very program a user runs, on labs, as whoever runs the tests and as a plain user, and by the kernel fast path.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/fast.rs"]
mod fast;
#[path = "support/user.rs"]
mod user;

use std::time::Duration;

use serde_json::Value;
use user::User;

/// The router's interfaces on node1 with what the kernel received on each.
fn received(user: &User) -> Vec<(String, u64)> {
    let links = user.exec_json("node1/r1", &["ip", "-j", "-s", "link"]);
    let row = |link: &Value| {
        let name = link["ifname"].as_str().unwrap_or_default().to_owned();
        (name, link["stats64"]["rx"]["packets"].as_u64().expect("a counter"))
    };
    let rows = links.as_array().expect("a list").iter().map(row);
    rows.filter(|(name, _)| name.starts_with("qr-")).collect()
}

fn total(user: &User) -> u64 {
    received(user).into_iter().map(|(_, packets)| packets).sum()
}

/// Pings orange1 from blue1. Returns what is said of it, good or bad.
fn ping(user: &User, options: &[&str]) -> String {
    let words = ["lab", "exec", "blue1", "--", "ping", "-c", "1", "-W", "1"];
    let all: Vec<&str> = words.iter().chain(options).chain(&["10.2.0.20"]).copied().collect();
    String::from_utf8_lossy(&user.run(&all).stdout).into_owned()
}

/// What node1's switch tells of its one router, whether the agent is there or not.
fn router(user: &User) -> Value {
    let output = user.run(&["show", "node1", "-o", "json"]);
    let shown: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    shown[0]["switch"]["routers"][0].clone()
}

/// The router's interface towards orange1.
fn outward(user: &User) -> String {
    let routes = user.exec_json("node1/r1", &["ip", "-j", "route", "get", "10.2.0.20"]);
    routes[0]["dev"].as_str().expect("a device").to_owned()
}

/// Does something until it is as wanted, ten seconds at most.
fn until(why: &str, mut done: impl FnMut() -> bool) {
    let tries = std::iter::repeat_with(|| {
        std::thread::sleep(Duration::from_millis(20));
        done()
    });
    assert!(tries.take(500).any(|done| done), "{why}");
}

/// Brings the example up, and waits until node1's switch has looked into its router.
fn up(user: &User) {
    user.up(None);
    until("the router is not looked into", || router(user)["through"].is_null());
}

#[test]
fn what_is_forwarded_goes_past_the_namespace_and_is_counted() {
    for user in fast::every_way("past") {
        up(&user);
        let (kernel, past) = (total(&user), router(&user)["packets"].as_u64().expect("a counter"));
        for _ in 0..5 {
            let said = ping(&user, &[]);
            assert!(said.contains("ttl=63"), "the same hops as through a router: {said}");
        }
        assert_eq!(total(&user), kernel, "the kernel saw some of them");
        assert_eq!(router(&user)["packets"].as_u64(), Some(past + 5));
        let ports = user.json(&["show", "node1", "-o", "json"])[0]["switch"]["bridges"][0]["ports"].clone();
        let crossed = |side: &str| -> u64 {
            let rows = ports.as_array().expect("a list").iter();
            let routers = rows.filter(|port| port["name"].as_str().is_some_and(|name| name.starts_with("qr-")));
            routers.filter_map(|port| port["counters"][side].as_u64()).sum()
        };
        assert!(crossed("tx_packets") >= 5 && crossed("rx_packets") >= 5, "the ports count them: {ports}");
        let said = user.good(&["show", "node1"]);
        assert!(said.contains("Past /run/netns/qrouter-"), "{said}");
        let traced = user.good(&["trace", "blue1", "orange1"]);
        assert!(traced.contains("most frames like it go past") && traced.contains("Delivered to orange1"), "{traced}");
    }
}

/// Input: packets that routers answer. Output: the router's kernel does, others still go past it.
#[test]
fn what_a_router_answers_it_is_asked() {
    for user in fast::every_way("answer") {
        up(&user);
        let said = ping(&user, &["-t", "1"]);
        assert!(said.contains("From 10.1.0.1") && said.contains("Time to live exceeded"), "{said}");
        let gateway = user.good(&["lab", "exec", "blue1", "--", "ping", "-c", "1", "-W", "1", "10.1.0.1"]);
        assert!(gateway.contains("ttl=64"), "{gateway}");
        // What is done to the router is not to be mended.
        user.good(&["lab", "kill", "node1", "agent"]);
        user.good(&["lab", "exec", "node1/r1", "--", "ip", "link", "set", &outward(&user), "mtu", "1300"]);
        until("no word of what is too big", || {
            let said = ping(&user, &["-M", "do", "-s", "1380"]);
            said.contains("From 10.1.0.1") && said.contains("mtu = 1300")
        });
        let kernel = total(&user);
        let said = ping(&user, &["-M", "do", "-s", "1200"]);
        assert!(said.contains("ttl=63"), "{said}");
        assert_eq!(total(&user), kernel, "what fits still goes past");
    }
}

/// Input: changes in the router's namespace. Output: the next packets are under them.
#[test]
fn what_is_done_in_the_namespace_holds_for_what_goes_past_it() {
    for user in fast::every_way("obey") {
        up(&user);
        let inside = |words: &[&str]| {
            let all: Vec<&str> = ["lab", "exec", "node1/r1", "--"].iter().chain(words).copied().collect();
            user.good(&all)
        };
        // What is done is not to be mended.
        user.good(&["lab", "kill", "node1", "agent"]);
        let answers = || ping(&user, &[]).contains("ttl=63");
        assert!(answers());
        inside(&["ip", "route", "add", "blackhole", "10.2.0.20/32"]);
        until("a blackhole is not heeded", || !answers());
        inside(&["ip", "route", "del", "blackhole", "10.2.0.20/32"]);
        until("the blackhole is gone", answers);
        inside(&["ip", "rule", "add", "pref", "9", "to", "10.2.0.20", "blackhole"]);
        until("a rule is not heeded", || !answers());
        assert_eq!(router(&user)["through"], "it has routing rules of its own");
        inside(&["ip", "rule", "del", "pref", "9"]);
        until("the rule is gone", answers);
        until("nothing goes past again", || router(&user)["through"].is_null());
        let kernel = total(&user);
        inside(&["ip", "neigh", "del", "10.2.0.20", "dev", &outward(&user)]);
        until("a neighbour that is gone is still sent to", || {
            ping(&user, &[]);
            total(&user) > kernel
        });
    }
}
