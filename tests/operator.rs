//! What an operator does beside the agents of a lab: looks a packet's whole way up, and has bridges and flows of their own.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[expect(dead_code, reason = "this test needs part of it")]
#[path = "support/user.rs"]
mod user;

use std::path::Path;

use user::User;

/// What a walk prints, and its exit code.
fn walk(user: &User, from: &str, to: &str) -> (Option<i32>, String) {
    let output = user.run(&["trace", from, to]);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), format!("{out}{err}"))
}

/// Walks, and checks headings in order, the verdict and the exit code.
fn expect(user: &User, (from, to): (&str, &str), headings: &[&str], verdict: &str) {
    let (code, text) = walk(user, from, to);
    let found: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once(". ").filter(|(number, _)| number.parse::<u32>().is_ok()))
        .map(|(_, heading)| heading)
        .filter(|heading| heading.contains(": "))
        .collect();
    assert_eq!(found.len(), headings.len(), "{from} to {to}: {found:?}\n{text}");
    for (found, wanted) in found.iter().zip(headings) {
        assert!(found.starts_with(wanted), "{from} to {to}: `{found}` is not `{wanted}`\n{text}");
    }
    let last = text.lines().last().unwrap_or_default();
    assert!(last.starts_with(verdict), "{from} to {to}: `{last}` is not `{verdict}`\n{text}");
    assert_eq!(code, Some(i32::from(!verdict.starts_with("Delivered"))), "{from} to {to}");
}

fn example(user: &User, file: &str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/topologies");
    let text = std::fs::read_to_string(dir.join(file).with_extension("yaml")).expect("an example");
    // Where a plain user may read it, too.
    let copy = std::env::temp_dir().join(format!("{}.yaml", user.lab));
    std::fs::write(&copy, text).expect("a copy");
    user.up(Some(&copy));
    std::fs::remove_file(&copy).expect("our copy");
}

#[test]
fn a_walk_tells_the_whole_way_and_where_it_ends() {
    for user in User::everybody("walk") {
        user.up(None);
        let int = "node1: from VM blue1 into br-int";
        let routed = [
            int,
            "node1/r1: from port qr-",
            "node1: from router r1 into br-int",
            "wire: node1 > node2, tunnel",
            "node2: from node node1 into br-tun",
        ];
        expect(&user, ("blue1", "10.2.0.20"), &routed, "Delivered to orange1 on node2");
        expect(&user, ("blue1", "orange1"), &routed, "Delivered to orange1 on node2");
        expect(&user, ("blue1", "orange2"), &routed[..3], "Delivered to orange2 on node1");
        expect(&user, ("blue1", "blue2"), &[int, routed[3], routed[4]], "Delivered to blue2 on node2");
        expect(&user, ("blue1", "10.1.0.1"), &routed[..2], "Delivered to router r1 on node1: 10.1.0.1 is its own");
        expect(&user, ("blue1", "10.2.0.1"), &routed[..2], "Delivered to router r1 on node1: 10.2.0.1 is its own");
        expect(&user, ("blue1", "blue1"), &[], "Delivered to node1/blue1 itself");
        expect(&user, ("blue1", "10.2.0.99"), &routed[..2], "Dropped at node1/r1: 10.2.0.99 has no neighbour entry");
        expect(&user, ("blue1", "203.0.113.9"), &routed[..2], "Dropped at node1/r1: no route to 203.0.113.9");
        expect(&user, ("blue1", "10.1.0.99"), &[], "Dropped at node1/blue1: nobody answers for 10.1.0.99");
        let (_, text) = walk(&user, "blue1", "orange1");
        let first = text.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("ARP: who has 10.1.0.1? asks blue1 on network blue; the responder of node1/br-int"),
            "{first}"
        );
        assert!(text.contains("63 hops left") && text.contains("(PERMANENT)"), "{text}");
        assert_eq!(walk(&user, "green9", "10.1.0.1").0, Some(3));
        assert_eq!(walk(&user, "blue1", "green9").0, Some(3));

        // A flow in the way is named, with its node, bridge and table.
        user.good(&["add-flow", "node2/br-int", "table=60,priority=99,icmp,nw_dst=10.2.0.20,actions=drop"]);
        expect(&user, ("blue1", "orange1"), &routed, "Dropped at node2/br-int/table 60: no-output");
        user.good(&["del-flows", "node2/br-int", "cookie=0/-1"]);
        expect(&user, ("blue1", "orange1"), &routed, "Delivered to orange1");
        let counted = user.good(&["dump-flows", "node2/br-tun", "table=9"]);
        let again = walk(&user, "blue1", "orange1");
        assert_eq!(again.0, Some(0));
        let packets = |text: &str| -> Vec<String> {
            text.lines()
                .filter_map(|line| Some(line.split("n_packets=").nth(1)?.split(',').next()?.to_owned()))
                .collect()
        };
        assert_eq!(
            packets(&user.good(&["dump-flows", "node2/br-tun", "table=9"])),
            packets(&counted),
            "a walk counts nothing"
        );
    }
}

#[test]
fn both_families_are_walked() {
    let user = User::new("walk6", false);
    example(&user, "dual-stack");
    let shown = user.json(&["show", "-o", "json"]);
    let vms: Vec<_> = shown
        .as_array()
        .expect("nodes")
        .iter()
        .flat_map(|node| node["agent"]["vms"].as_array().cloned().unwrap_or_default())
        .collect();
    let mut walked = (0, 0);
    for from in &vms {
        for to in &vms {
            for ip in to["ips"].as_array().expect("addresses") {
                let (name, ip) = (from["name"].as_str().expect("a name"), ip.as_str().expect("an address"));
                let (code, text) = walk(&user, name, ip);
                assert_eq!(code, Some(0), "{name} to {ip}:\n{text}");
                assert!(text.contains("Delivered to"), "{text}");
                if ip.contains(':') {
                    walked.1 += 1;
                } else {
                    walked.0 += 1;
                }
            }
        }
    }
    assert!(walked.0 > 3 && walked.1 > 3, "{walked:?}: not both families");
}

#[test]
fn tenants_are_not_walked_into() {
    let user = User::new("walkt", false);
    example(&user, "tenants");
    let report = user.json(&["lab", "test", "-o", "json"]);
    assert_eq!(report["failures"].as_array().map(Vec::len), Some(0), "{report}");
    let shown = user.json(&["show", "-o", "json"]);
    let vms: Vec<_> = shown
        .as_array()
        .expect("nodes")
        .iter()
        .flat_map(|node| node["agent"]["vms"].as_array().cloned().unwrap_or_default())
        .collect();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let (mut own, mut others) = (0, 0);
    for from in &vms {
        for to in &vms {
            let (code, told) = walk(&user, &text(&from["name"]), &text(&to["name"]));
            // Tenants use the same addresses: what is delivered may be delivered to one's own machine of that address.
            let arrives = told.contains(&format!("Delivered to {} on", text(&to["name"])));
            if from["network"] == to["network"] && from["name"] != to["name"] {
                assert!(arrives && code == Some(0), "{told}");
                own += 1;
            } else if text(&from["name"]).split('-').next() != text(&to["name"]).split('-').next() {
                assert!(!arrives && code == Some(1), "{told}");
                others += 1;
            }
        }
    }
    assert!(own > 0 && others > 0, "{own} {others}");
}

/// The agents' own are br-int and br-tun, and in them the flows with their cookie: an agent that starts anew leaves all
/// else as it was.
#[test]
fn what_is_not_the_agents_survives_it() {
    let user = User::new("foreign", false);
    user.up(None);
    user.good(&["add-br", "node1/mine", "--mode", "flow"]);
    user.good(&["add-br", "node1/other"]);
    for (bridge, port, peer) in [("node1/mine", "m0", "o0"), ("node1/other", "o0", "m0")] {
        user.good(&["add-port", bridge, port, "--type", "patch", "--peer", peer]);
    }
    // Where the user may not open /dev/net/tun, ports are veth pairs, and there is no TAP to plant.
    if user.good(&["show", "node1", "-o", "json"]).contains("\"veth\"") {
        user.good(&["add-port", "node1/mine", "mtap", "--type", "patch", "--peer", "nowhere"]);
    } else {
        user.good(&["add-port", "node1/mine", "mtap", "--type", "tap"]);
    }
    user.good(&["fdb", "add", "node1/other", "o0", "0", "02:00:00:00:00:01"]);
    user.good(&["add-flow", "node1/mine", "in_port=m0,actions=output:mtap"]);
    user.good(&["add-flow", "node1/br-int", "table=60,priority=99,cookie=0x5,udp,tp_dst=9,actions=drop"]);
    user.good(&["add-flow", "node1/br-tun", "table=200,actions=drop"]);
    let held = || {
        let bare = |bridge: &str, filter: &str| user.good(&["dump-flows", bridge, filter, "--no-stats"]);
        let shown = user.json(&["show", "node1", "-o", "json"]);
        let bridges = shown[0]["switch"]["bridges"].as_array().expect("bridges").clone();
        let ports: Vec<(String, String)> = bridges
            .iter()
            .flat_map(|bridge| {
                bridge["ports"]
                    .as_array()
                    .cloned()
                    .unwrap_or_default()
                    .into_iter()
                    .map(|port| (bridge["name"].to_string(), format!("{} {}", port["number"], port["name"])))
            })
            .collect();
        let stations = user.json(&["fdb", "show", "node1/other", "-o", "json"]);
        (
            [
                bare("node1/mine", ""),
                bare("node1/other", ""),
                bare("node1/br-int", "cookie=0x5/-1"),
                bare("node1/br-tun", "cookie=0/-1"),
            ],
            ports,
            stations[0]["static"].clone(),
        )
    };
    let before = held();
    assert_eq!(before.0[2].lines().count(), 1);
    assert_eq!(before.0[3].lines().count(), 1);
    assert!(before.1.iter().any(|(bridge, port)| bridge.contains("mine") && port.contains("mtap")), "{:?}", before.1);
    user.good(&["lab", "restart", "node1", "agent"]);
    user.good(&["lab", "test"]);
    assert_eq!(held(), before);
    user.good(&["del-br", "node1/mine"]);
    user.good(&["lab", "test"]);
}
