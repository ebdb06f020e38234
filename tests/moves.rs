//! What moves while it is in use: a router between all nodes and one, a machine between two. Whole labs, by the very
//! program a user runs, under pings.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "what is measured is told, and not asserted")]

#[path = "support/fast.rs"]
mod fast;
#[path = "support/user.rs"]
#[expect(dead_code, reason = "every test binary uses its own part of this")]
mod user;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use dvr::rpc::proto::{ApplyRequest, ClaimRequest, Edit, StatusRequest, edit};
use dvr::rpc::{Address, Client, connect};
use serde_json::Value;
use tonic::Code;
use user::User;

/// How often a state is looked for before the test gives up; each look takes a program's start.
const LOOKS: usize = 600;

/// A file of this test, gone when it is over.
struct Scratch(PathBuf);

impl Scratch {
    fn new(user: &User, text: &str) -> Self {
        let file = Self(std::env::temp_dir().join(format!("{}.yaml", user.lab)));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).expect("the temporary directory is writable");
    }

    fn text(&self) -> String {
        self.0.display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

/// A ping that goes on until it is ended.
struct Ping(Option<Child>);

impl Ping {
    fn start(user: &User, from: &str, to: &str) -> Self {
        let words = ["lab", "exec", from, "--name", &user.lab, "--", "ping", "-n", "-i", "0.02", to];
        let mut command = user.command(&words);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Self(Some(child.expect("it starts")))
    }

    /// Ends it. Gives the replies' sequence numbers, and the number of requests.
    fn end(mut self) -> (BTreeSet<u64>, u64) {
        let child = self.0.take().expect("it was not ended before");
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("process ids fit"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("our child");
        let out = child.wait_with_output().expect("our child");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let number = |line: &str| line.split("icmp_seq=").nth(1)?.split(' ').next()?.parse().ok();
        let replies = text.lines().filter(|line| line.contains("bytes from")).filter_map(number).collect();
        let sent = text.lines().find_map(|line| line.split_once(" packets transmitted")?.0.parse().ok());
        (replies, sent.unwrap_or_else(|| panic!("ping has no summary: {text}")))
    }
}

impl Drop for Ping {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// The most requests in a row without a reply between two replies; and how many replies there are at all.
fn longest_gap(replies: &BTreeSet<u64>) -> (u64, usize) {
    let gaps = replies.iter().zip(replies.iter().skip(1)).map(|(one, next)| next - one - 1);
    (gaps.max().unwrap_or(0), replies.len())
}

/// Looks until a node's agents say that all is as it is to be.
fn settle(user: &User, what: &str, is_there: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..LOOKS {
        let output = user.run(&["show", "-o", "json"]);
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        let nodes = shown.as_array().cloned().unwrap_or_default();
        let converged = nodes.iter().all(|node| node["agent"]["state"]["converged"] == true);
        if !nodes.is_empty() && converged && is_there(&shown) {
            return shown;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("{what}: it does not come to be: {}", user.good(&["show"]));
}

/// The routers of every node, as its agent has them.
fn routers(shown: &Value) -> BTreeMap<String, Vec<String>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let node = |node: &Value| {
        let routers = node["agent"]["routers"].as_array().cloned().unwrap_or_default();
        (text(&node["node"]), routers.iter().map(|router| text(&router["name"])).collect())
    };
    shown.as_array().into_iter().flatten().map(node).collect()
}

/// Everything of a node that a router leaves its mark in: flows but learned ones, namespaces, neighbours.
fn marks(user: &User, node: &str) -> Vec<String> {
    let mut marks = Vec::new();
    for bridge in ["br-int", "br-tun"] {
        let dump = user.good(&["dump-flows", &format!("{node}/{bridge}"), "--no-stats", "--names"]);
        let learned = format!("cookie={:#x},", dvr::program::LEARNED_COOKIE);
        let kept = dump.lines().filter(|line| !line.contains(&learned));
        marks.extend(kept.map(|line| format!("{bridge}: {}", line.trim())));
    }
    let netns = user.good(&["lab", "exec", node, "--", "ip", "netns"]);
    marks.extend(netns.lines().filter_map(|line| Some(format!("netns: {}", line.split(' ').next()?))));
    let neighbours = user.json(&["neigh", node, "-o", "json"]);
    marks.extend(neighbours.as_array().into_iter().flatten().map(|row| format!("neighbour: {row}")));
    marks.sort();
    marks
}

fn with_router(place: &str) -> String {
    format!(
        "version: 1
nodes:    {{node1: {{}}, node2: {{}}, node3: {{}}}}
networks: {{blue: {{subnets: [{{cidr: 10.1.0.0/24}}]}}, orange: {{subnets: [{{cidr: 10.2.0.0/24}}]}}}}
routers:  {{r1: {{{place}interfaces: [blue, orange]}}}}
vms:      {{b2: {{node: node2, network: blue, ip: 10.1.0.12}}, o3: {{node: node3, network: orange, ip: 10.2.0.13}}}}
"
    )
}

/// Input: a router made centralised, moved, and distributed again while machines ping through it. Output: it is where it
/// was put and nowhere else, the ping goes on after each move, and in the end every node is as it was.
#[test]
fn a_router_moves_between_all_nodes_and_one() {
    for user in fast::every_way("router-moves") {
        let file = Scratch::new(&user, &with_router(""));
        user.up(Some(&file.0));
        let nodes = ["node1", "node2", "node3"];
        let before: Vec<Vec<String>> = nodes.iter().map(|node| marks(&user, node)).collect();
        let ping = Ping::start(&user, "b2", "10.2.0.13");
        for (place, expected) in [
            ("distributed: false, node: node1, ", [true, false, false]),
            ("distributed: false, node: node3, ", [false, false, true]),
            ("", [false, true, true]),
        ] {
            file.write(&with_router(place));
            user.good(&["apply", "-f", &file.text()]);
            settle(&user, place, |shown| {
                routers(shown).values().map(|routers| !routers.is_empty()).eq(expected.iter().copied())
            });
            let report = user.json(&["lab", "test", "-o", "json"]);
            assert_eq!(report["failures"], Value::Array(Vec::new()), "{place}");
            for (node, holds) in nodes.iter().zip(expected) {
                let marks = marks(&user, node);
                let traces: Vec<&String> = marks.iter().filter(|mark| mark.contains("qr")).collect();
                assert_eq!(!traces.is_empty(), holds, "{place}: {node} has {traces:#?}");
            }
        }
        let after: Vec<Vec<String>> = nodes.iter().map(|node| marks(&user, node)).collect();
        assert_eq!(after, before);
        let (replies, sent) = ping.end();
        let (gap, count) = longest_gap(&replies);
        eprintln!("a router moved three times: {sent} requests, {count} replies, at most {gap} in a row lost");
        assert!(replies.last().is_some_and(|last| last + 2 >= sent), "it does not answer any more: {replies:?}");
    }
}

/// Where a node sends frames for an address, as its control plane populated it.
fn populated(user: &User, node: &str, mac: &str) -> Vec<Value> {
    let rows = user.json(&["fdb", node, "-o", "json"]);
    let rows = rows.as_array().cloned().unwrap_or_default();
    let is_it = |row: &&Value| row["mac"] == mac && row["origin"] == "populated";
    rows.iter().filter(is_it).map(|row| row["node"].clone()).collect()
}

/// Input: a machine made ready on another node and then activated there, while it is pinged. Output: ready on both, reached
/// on the one in use; then on the other, and gone from the first.
#[test]
fn a_machine_moves_live() {
    for user in fast::every_way("vm-moves") {
        let file = Scratch::new(&user, &with_router(""));
        user.up(Some(&file.0));
        let mac = user.json(&["get", "vm", "b2", "-o", "json"])[0]["mac"].clone();
        let mac = mac.as_str().expect("it has a MAC").to_owned();
        let machine = |nodes: &str| format!("kind: port\nname: b2\nnetwork: blue\nips: [10.1.0.12]\n{nodes}\n");
        let hosts = |shown: &Value| -> Vec<String> {
            let has = |node: &&Value| {
                let vms = node["agent"]["vms"].as_array().cloned().unwrap_or_default();
                vms.iter().any(|vm| vm["name"] == "b2")
            };
            let nodes = shown.as_array().into_iter().flatten().filter(has);
            nodes.filter_map(|node| node["node"].as_str().map(str::to_owned)).collect()
        };
        let ping = Ping::start(&user, "o3", "10.1.0.12");
        for (nodes, ready, used) in [
            ("node: node2\nmigrating_to: node1", vec!["node1", "node2"], "node2"),
            ("node: node1", vec!["node1"], "node1"),
            ("node: node1\nmigrating_to: node2", vec!["node1", "node2"], "node1"),
            ("node: node1", vec!["node1"], "node1"),
        ] {
            file.write(&machine(nodes));
            user.good(&["apply", "-f", &file.text()]);
            settle(&user, nodes, |shown| hosts(shown) == ready && routers(shown).values().flatten().count() > 1);
            // What is told of one node's port reaches the others in the same moment, or the next.
            let found = (0..LOOKS).find(|_| {
                let at = populated(&user, "node3", &mac);
                assert_eq!(at.len(), 1, "{nodes}: {at:?}");
                at[0] == used
            });
            assert!(found.is_some(), "{nodes}: node3 does not find it on {used}");
            let report = user.json(&["lab", "test", "-o", "json"]);
            assert_eq!(report["failures"], Value::Array(Vec::new()), "{nodes}");
        }
        let (replies, sent) = ping.end();
        let (gap, count) = longest_gap(&replies);
        eprintln!("a machine moved once: {sent} requests, {count} replies, at most {gap} in a row lost");
        assert!(replies.last().is_some_and(|last| last + 2 >= sent), "it does not answer any more: {replies:?}");
    }
}

/// Two machines that may take one address, on nodes of their own, and one in another subnet on a third.
const VIRTUAL: &str = "version: 1
nodes:    {node1: {}, node2: {}, node3: {}}
networks: {blue: {subnets: [{cidr: 10.1.0.0/24}]}, orange: {subnets: [{cidr: 10.2.0.0/24}]}}
routers:  {r1: {interfaces: [blue, orange]}}
vms:
  a: {node: node1, network: blue, port_security: true, allowed_address_pairs: [{ip: 10.1.0.100}]}
  b: {node: node2, network: blue, port_security: true, allowed_address_pairs: [{ip: 10.1.0.100}]}
  c: {node: node2, network: blue}
  o: {node: node3, network: orange}
";

/// Echo requests that a machine has received, as its kernel counts.
fn received(user: &User, vm: &str) -> u64 {
    let table = user.good(&["lab", "exec", vm, "--", "cat", "/proc/net/snmp"]);
    let mut lines = table.lines().filter(|line| line.starts_with("Icmp:")).map(|line| line.split(' '));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let found = names.zip(values).find(|(name, _)| *name == "InEchos").and_then(|(_, value)| value.parse().ok());
    found.expect("the kernel counts them")
}

/// Input: an address that fails over from one machine to another, as keepalived has it do; then a machine that may not take
/// it says that it has it. Output: pings from another subnet, on a third node, arrive at whoever announced it last and may.
#[test]
fn a_virtual_address_follows_its_announcements() {
    for user in User::everybody("vip") {
        let file = Scratch::new(&user, VIRTUAL);
        user.up(Some(&file.0));
        // An address of the loopback: the agent keeps a machine's interface as it is to be. Whatever is sent from it is
        // asked for under it, and that is an announcement (RFC 826: the sender's own address is in every question).
        let announce = |vm: &str, target: &str| {
            user.good(&["lab", "exec", vm, "--", "ip", "addr", "add", "10.1.0.100/32", "dev", "lo"]);
            user.run(&["lab", "exec", vm, "--", "ping", "-c", "1", "-W", "1", "-I", "10.1.0.100", target]);
        };
        let pinged = || {
            let output = user.run(&["lab", "exec", "o", "--", "ping", "-c", "1", "-W", "1", "10.1.0.100"]);
            output.status.success()
        };
        let holder = || {
            let ports = user.json(&["get", "ports", "-o", "json"]);
            let has = |port: &&Value| port["claimed"].as_array().is_some_and(|claimed| !claimed.is_empty());
            let names = ports.as_array().expect("a list").iter().filter(has).map(|port| port["name"].to_string());
            names.collect::<Vec<_>>()
        };
        assert!(!pinged(), "nobody has it");
        for (vm, other, silent) in [("a", "b", "10.1.0.201"), ("b", "a", "10.1.0.202")] {
            announce(vm, silent);
            let moved = (0..LOOKS).find(|_| {
                let before = received(&user, vm);
                pinged() && received(&user, vm) > before
            });
            assert!(moved.is_some(), "{vm} announced it, and is not reached: {:?} has it", holder());
            assert_eq!(holder(), [format!("\"{vm}\"")]);
            let before = received(&user, other);
            assert!(pinged());
            assert_eq!(received(&user, other), before, "{other} still hears what is for {vm}");
        }
        announce("c", "10.1.0.203");
        let before = received(&user, "b");
        assert!(pinged() && received(&user, "b") > before, "c may not take it");
        assert_eq!(holder(), ["\"b\""]);
    }
}

/// A controller of its own, ended when the test is over.
struct Controller {
    child: Child,
    dir: PathBuf,
}

impl Controller {
    fn start(user: &User) -> Self {
        let dir = std::env::temp_dir().join(format!("dvr-{}", user.lab));
        std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
        let mut command = user.command(&["controller", "--socket"]);
        command.arg(dir.join("c.sock")).arg("--store").arg(dir.join("store"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { child: child.expect("the program starts"), dir }
    }

    async fn client(&self) -> Client {
        let address = Address::Unix(self.dir.join("c.sock"));
        for _ in 0..LOOKS {
            if let Ok(client) = connect(&address, None).await {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("the controller does not serve");
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        let _gone = std::fs::remove_dir_all(&self.dir);
    }
}

/// Input: claims by a port that may take the address, by one that may not, from a node that neither is on, of no port.
/// Output: the first is done and told; the others are refused, counted, and change nothing.
#[test]
fn a_claim_without_right_is_refused_and_counted() {
    let user = User::new("claims", false);
    let controller = Controller::start(&user);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    runtime.block_on(async {
        let mut client = controller.client().await;
        let ids = ["11111111-0000-4000-8000-000000000000", "22222222-0000-4000-8000-000000000000"];
        let port = |name: &str, id: &str, pairs: &str| {
            format!(r#"{{"kind":"port","name":"{name}","id":"{id}","network":"a","node":"n1","mac":"fa:16:3e:00:00:{name}"{pairs}}}"#)
        };
        let texts = [
            r#"{"kind":"node","name":"n1"}"#.to_owned(),
            r#"{"kind":"network","name":"a","subnets":[{"cidr":"10.1.0.0/24"}]}"#.to_owned(),
            port("01", ids[0], r#","allowed_address_pairs":[{"ip":"10.1.0.100/32"}]"#),
            port("02", ids[1], ""),
        ];
        let put = |text: String| Edit { what: Some(edit::What::Put(text.into_bytes())), revision: None };
        let edits = texts.into_iter().map(put).collect();
        let request = ApplyRequest { edits, dry_run: false, underlay: Vec::new() };
        let applied = client.apply(request).await.expect("it is right").into_inner();
        let claim = |node: &str, id: &str, last: &str| ClaimRequest {
            node: node.to_owned(),
            port: id.to_owned(),
            ip: "10.1.0.100".to_owned(),
            mac: format!("fa:16:3e:00:00:{last}"),
        };
        let done = client.claim(claim("n1", ids[0], "01")).await.expect("it may").into_inner();
        assert!(done.revision > applied.revision);
        let again = client.claim(claim("n1", ids[0], "01")).await.expect("it has it").into_inner();
        assert_eq!(again.revision, done.revision, "nothing is written twice");
        for (claim, code) in [
            (claim("n1", ids[1], "02"), Code::InvalidArgument),
            (claim("n1", ids[0], "02"), Code::InvalidArgument),
            (claim("n2", ids[0], "01"), Code::InvalidArgument),
            (claim("n1", "33333333-0000-4000-8000-000000000000", "01"), Code::NotFound),
        ] {
            let refused = client.claim(claim.clone()).await.expect_err("it may not");
            assert_eq!(refused.code(), code, "{claim:?}: {refused}");
        }
        let status = client.status(StatusRequest {}).await.expect("it answers").into_inner();
        assert_eq!((status.unentitled, status.revision), (3, done.revision));
    });
}
