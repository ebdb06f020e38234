//! Any desired state after any other, on a real kernel: a node that came to a state by changes is the node that began with
//! it, and nothing of anybody else's is touched.
//!
//! `DVR_DESIRED_CASES=200 cargo test --test desired` tries more states than the few that every run does.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod agents;
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use agents::controller::OneView;
use agents::{Bench, ifname};
use dvr::agent::purge;
use dvr::api::agent::{Request as Ask, Show};
use dvr::api::switch::{BridgeMode, FlowChange};
use dvr::model::Topology;
use dvr::model::view::{NodeView, ViewChange};
use dvr::netns::Name;
use dvr::plan::monitor::{Monitor, Pulse};
use dvr::plan::{KernelSpec, NamespaceSpec};
use dvr::program::COOKIE;
use dvr::types::Mac;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::Value;
use support::{block_on, in_namespace, ip, ip_json};

/// Cases of three states each, unless told otherwise.
const CASES: u32 = 8;

const NETWORKS: [(&str, &str, &str); 4] = [
    ("blue", "vxlan", "{cidr: 10.1.0.0/24}, {cidr: \"fd00:1::/64\"}"),
    ("green", "vxlan", "{cidr: 10.2.0.0/24}"),
    ("grey", "gre", "{cidr: 10.3.0.0/24}"),
    ("red", "vxlan", "{cidr: \"fd00:4::/64\"}"),
];
const ROUTERS: [&str; 2] = ["r1: {interfaces: [blue, green]}", "r2: {interfaces: [grey, red]}"];
const VMS: u8 = 7;

/// A machine: where it is, on which network, and which of two addresses it bears; `None` if it is not there.
type Vm = Option<(u8, usize, bool, bool)>;

fn any_topology() -> impl Strategy<Value = String> {
    let vm = prop::option::weighted(0.8, (1_u8..=3, 0..NETWORKS.len(), any::<bool>(), any::<bool>()));
    let vms = prop::collection::vec(vm, usize::from(VMS));
    (vms, [any::<bool>(), any::<bool>()]).prop_map(|(vms, routers)| topology(&vms, routers))
}

fn topology(vms: &[Vm], routers: [bool; 2]) -> String {
    let mut text = "version: 1\nnodes: {node1: {}, node2: {}, node3: {}}\nnetworks:\n".to_owned();
    for (name, kind, subnets) in NETWORKS {
        writeln!(text, "  {name}: {{type: {kind}, subnets: [{subnets}]}}").expect("a string");
    }
    let routers: Vec<&str> =
        ROUTERS.into_iter().zip(routers).filter(|(_, there)| *there).map(|(text, _)| text).collect();
    writeln!(text, "routers: {{{}}}\nvms:", routers.join(", ")).expect("a string");
    // One that is always there, so that there is always a namespace to plant something in.
    writeln!(text, "  anchor: {{node: node1, network: blue}}").expect("a string");
    for (at, (node, network, other_mac, other_ip)) in vms.iter().enumerate().filter_map(|(at, vm)| Some((at, (*vm)?))) {
        let last = 20 + at * 2 + usize::from(other_ip);
        let ips = match NETWORKS[network].0 {
            "blue" => format!("10.1.0.{last}, \"fd00:1::{last}\""),
            "green" => format!("10.2.0.{last}"),
            "grey" => format!("10.3.0.{last}"),
            _ => format!("\"fd00:4::{last}\""),
        };
        let (network, mac) = (NETWORKS[network].0, at * 2 + usize::from(other_mac));
        let vm = format!("network: {network}, ips: [{ips}], mac: \"fa:16:3e:00:00:{mac:02x}\"");
        writeln!(text, "  vm{at}: {{node: node{node}, {vm}}}").expect("a string");
    }
    text
}

fn view(topology: &str) -> NodeView {
    let parsed = Topology::parse(topology, "test").unwrap_or_else(|error| panic!("{error}\n{topology}"));
    dvr::placement::view(&parsed, "node1").expect("a node of it")
}

/// What of a view a change is about.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest make nothing")]
fn subject(change: &ViewChange) -> (u8, String) {
    match change {
        ViewChange::Node(_) => (0, String::new()),
        ViewChange::Underlay { .. } => (1, String::new()),
        ViewChange::Peer(peer) => (2, peer.name.clone()),
        ViewChange::Network(network) => (3, network.name.clone()),
        ViewChange::LocalPort { network, port } => (4, format!("{network}/{}", port.name)),
        ViewChange::RemotePort { network, port } => (5, format!("{network}/{}", port.name)),
        ViewChange::Flood { network, node } => (6, format!("{network}/{node}")),
        ViewChange::Router(router) => (7, router.name.clone()),
        ViewChange::BridgeMappings(_) => (8, String::new()),
        gone => panic!("{gone:?} makes nothing"),
    }
}

/// The change that takes back another.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest cannot be taken back")]
fn undo(change: &ViewChange) -> ViewChange {
    match change {
        ViewChange::Peer(peer) => ViewChange::PeerGone { name: peer.name.clone() },
        ViewChange::Network(network) => ViewChange::NetworkGone { name: network.name.clone() },
        ViewChange::LocalPort { network, port } => {
            ViewChange::LocalPortGone { network: network.clone(), name: port.name.clone() }
        }
        ViewChange::RemotePort { network, port } => {
            let (network, name, node) = (network.clone(), port.name.clone(), port.node.clone());
            ViewChange::RemotePortGone { network, name, node }
        }
        ViewChange::Flood { network, node } => ViewChange::FloodGone { network: network.clone(), node: node.clone() },
        ViewChange::Router(router) => ViewChange::RouterGone { name: router.name.clone() },
        other => panic!("{other:?} stays"),
    }
}

/// The changes from one view to another: what goes, the last first, then what comes.
fn changes(from: &NodeView, to: &NodeView) -> Vec<ViewChange> {
    let (old, new) = (from.changes(), to.changes());
    let kept: BTreeSet<_> = new.iter().map(subject).collect();
    let gone = old.iter().rev().filter(|change| !kept.contains(&subject(change))).map(undo);
    gone.chain(new.iter().filter(|change| !old.contains(change)).cloned()).collect()
}

/// A node with an agent that follows a controller of ours.
struct Node {
    bench: Bench,
    controller: Option<OneView>,
}

impl Node {
    fn new() -> Self {
        let mut bench = Bench::new();
        bench.start_switch();
        Self { bench, controller: None }
    }

    /// An agent that knows nothing, and is told this.
    fn start(&mut self, view: &NodeView) {
        self.controller = Some(self.bench.start_following(view));
        // Before it is told anything it goes by the last view that an agent here knew.
        self.catch_up(view);
    }

    /// Waits until the agent has come to what its controller told.
    fn catch_up(&self, view: &NodeView) {
        let controller = self.controller.as_ref().expect("started");
        // A peer that comes and goes tells that everything before it has come.
        for known in [true, false] {
            let marker = dvr::model::view::Peer { name: "zz-marker".to_owned(), ..view.peers[0].clone() };
            let name = marker.name.clone();
            let change = if known { ViewChange::Peer(marker) } else { ViewChange::PeerGone { name: name.clone() } };
            controller.tell(&[change]);
            while self.show().is_none_or(|show| show.peers.iter().any(|peer| peer.node == name) != known) {
                std::thread::yield_now();
            }
        }
        self.bench.settled();
    }

    /// The same agent is told the changes to this, a few at a time.
    fn become_(&self, view: &NodeView, at_a_time: usize) {
        let controller = self.controller.as_ref().expect("started");
        for some in changes(&controller.view(), view).chunks(at_a_time) {
            controller.tell(some);
        }
        assert_eq!(controller.view(), *view, "the changes lead elsewhere");
        self.catch_up(view);
    }

    /// What the agent holds, if it has anything yet.
    fn show(&self) -> Option<Show> {
        self.bench.client().call(&Ask::Show).ok()
    }

    /// The agent ends, and all it made goes.
    fn stop(&mut self) {
        self.bench.stop_agent();
        purge(&self.bench.config).expect("everything goes");
    }

    /// Both bridges' flows without what counts, networks in the place of their local VLANs: those depend on history.
    fn flows(&self) -> Vec<String> {
        let vlans: BTreeMap<String, String> = self
            .show()
            .expect("it holds something")
            .networks
            .into_iter()
            .map(|network| (network.local_vlan.to_string(), network.name))
            .collect();
        let named = |text: &str, key: &str| -> String {
            let mut parts = text.split(key);
            let mut out = parts.next().unwrap_or_default().to_owned();
            for part in parts {
                let end = part.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(part.len());
                let vlan = vlans.get(&part[..end]).map_or(&part[..end], String::as_str);
                write!(out, "{key}{vlan}{}", &part[end..]).expect("a string");
            }
            out
        };
        let mut all = Vec::new();
        for bridge in ["br-int", "br-tun"] {
            for flow in self.bench.switch.flows(bridge) {
                let line = format!("{bridge} {}", dvr::datapath::without_stats(&flow));
                all.push(named(&named(&line, "dl_vlan="), "mod_vlan_vid:"));
            }
        }
        all.sort();
        all
    }
}

/// Every namespace there is.
fn namespaces() -> Vec<String> {
    let listed = ip("netns list");
    let mut names: Vec<String> =
        listed.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect();
    names.sort();
    names
}

/// What a namespace holds, as iproute2 tells it, without what the kernel numbers, measures or does in its own time.
fn contents(netns: &str) -> Vec<Value> {
    let questions = ["addr", "-4 route show table all", "-6 route show table all", "rule", "-6 rule", "neigh"];
    let within = if netns.is_empty() { String::new() } else { format!("-n {netns} ") };
    let mut rows = Vec::new();
    for what in questions {
        for mut row in ip_json(&format!("{within}{what}")).as_array().cloned().unwrap_or_default() {
            plain(&mut row, netns);
            let text = row.to_string();
            // The kernel makes and drops these as links come up, at its leisure.
            let own = text.contains("\"fe80::") || text.contains("\"ff00::");
            let passing = what == "neigh" && !text.contains("PERMANENT");
            if !(passing || what.contains("route") && own) {
                rows.push(serde_json::json!({ what: row }));
            }
        }
    }
    rows.sort_by_key(Value::to_string);
    rows
}

/// Takes out of a row what differs between two equal objects.
fn plain(row: &mut Value, netns: &str) {
    let Some(fields) = row.as_object_mut() else { return };
    let outer = netns == "dvr-ports";
    for volatile in ["ifindex", "link_index", "link_netnsid", "operstate", "link_netns", "qdisc"] {
        fields.remove(volatile);
    }
    // Nobody chose the MACs of outer ends.
    if outer {
        fields.remove("address");
    }
    if let Some(flags) = fields.get_mut("flags").and_then(Value::as_array_mut) {
        flags.retain(|flag| !matches!(flag.as_str(), Some("LOWER_UP" | "NO-CARRIER" | "M-DOWN" | "linkdown")));
    }
    if let Some(addresses) = fields.get_mut("addr_info").and_then(Value::as_array_mut) {
        addresses.retain(|address| !address["local"].as_str().is_some_and(|local| local.starts_with("fe80::")));
        for address in addresses.iter_mut().filter_map(Value::as_object_mut) {
            address.remove("tentative");
        }
    }
}

type Kernel = BTreeMap<String, Vec<Value>>;

fn kernel(of: impl Fn(&str) -> bool) -> Kernel {
    let names = namespaces().into_iter().chain([String::new()]);
    names.filter(|name| of(name)).map(|name| (name.clone(), contents(&name))).collect()
}

/// Whether a namespace may be an agent's.
fn is_ours(name: &str) -> bool {
    ["qrouter-", "vm-", "dvr-ports"].iter().any(|prefix| name.starts_with(prefix))
}

/// Whether the kernel is done with what it does in its own time when links come up: carriers, link-local addresses.
fn is_calm(netns: &str) -> bool {
    let links = ip_json(&format!("-n {netns} addr"));
    links.as_array().expect("a list").iter().filter(|link| link["ifname"] != "lo").all(|link| {
        let addresses = link["addr_info"].as_array().expect("a list");
        let of = |prefix: &str| {
            addresses.iter().find(|address| address["local"].as_str().is_some_and(|ip| ip.starts_with(prefix)))
        };
        let settled = of("fe80:").is_some_and(|address| address["tentative"] != true);
        link["operstate"] == "UP" && (of("fd00:").is_none() || settled)
    })
}

/// Waits until it is, in every namespace of an agent's.
fn calm() {
    for name in namespaces().iter().filter(|name| is_ours(name)) {
        while !is_calm(name) {
            std::thread::yield_now();
        }
    }
}

/// What the kernel and the switch have of the agent's, once the kernel is done.
fn held(node: &Node) -> (Kernel, Vec<String>) {
    calm();
    (kernel(is_ours), node.flows())
}

/// Asks the agent to look again, and makes sure that it told neither the switch nor the kernel anything.
fn look_changes_nothing(node: &Node) {
    calm();
    let names = namespaces();
    block_on(async {
        let mut monitor = Monitor::new("/run/netns".into());
        let namespace = |name: &String| NamespaceSpec::new(Name::new(name).expect("a legal name").into());
        let spec = KernelSpec { namespaces: names.iter().map(namespace).collect() };
        monitor.watch(&spec.check().expect("no contradiction")).expect("watching");
        let told = node.bench.switch.memory().changes;
        assert_eq!(node.bench.settled().operations, 0, "a second apply did something");
        assert_eq!(node.bench.switch.memory().changes, told, "the switch was told something");
        // What is heard first in each namespace is what is done to it after that.
        let sentinel = "02:00:00:00:00:99";
        for name in &names {
            ip(&format!("-n {name} neigh add 192.0.2.99 lladdr {sentinel} dev lo nud permanent"));
        }
        let mut heard = BTreeSet::new();
        while heard.len() < names.len() {
            let pulse = monitor.next().await.expect("a pulse");
            let Pulse::Neighbours(netns, entries) = pulse else { panic!("a second apply was heard: {pulse:?}") };
            let is_sentinel = |mac: Option<Mac>| mac.is_some_and(|mac| mac.to_string() == sentinel);
            assert!(entries.iter().all(|entry| is_sentinel(entry.permanent)), "{netns}: {entries:?}");
            heard.insert(netns);
        }
        for name in &names {
            ip(&format!("-n {name} neigh flush dev lo nud permanent"));
        }
    });
}

/// Plants what is nobody's business but ours.
fn plant(node: &Node) {
    ip("link add ours0 type veth peer name ours1");
    ip("addr add 198.51.100.1/24 dev ours0");
    ip("link set ours0 up");
    ip("neigh add 198.51.100.9 lladdr 02:00:00:00:00:09 dev ours0 nud permanent");
    ip("netns add foreign");
    ip("-n foreign link add qr-like type veth peer name other");
    ip("-n foreign addr add 10.1.0.1/24 dev qr-like");
    ip("-n foreign route add blackhole 10.9.0.0/16");
    let mut memory = node.bench.switch.memory();
    memory.engine.add_bridge(&ifname("br-foreign"), BridgeMode::Normal).expect("it is not there");
}

fn foreign_flow() -> FlowChange {
    FlowChange::Add(format!("cookie={:#x},table=5,priority=1 actions=drop", COOKIE ^ 0xff))
}

/// Input: random states A and B. Output: A made from nothing, B come to by changes, A come to again: each is the same node as
/// one that began with it; looking again changes nothing; what was planted is as it was.
#[test]
fn any_desired_state_after_any_other() {
    in_namespace("any_desired_state_after_any_other", || {
        let cases = std::env::var("DVR_DESIRED_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES);
        let config = Config { cases, failure_persistence: None, max_shrink_iters: 0, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let mut node = Node::new();
        plant(&node);
        let foreign = kernel(|name| !is_ours(name));
        let node = std::cell::RefCell::new(&mut node);
        let outcome = runner.run(&(any_topology(), any_topology(), 1..4_usize), |(a, b, at_a_time)| {
            let mut node = node.borrow_mut();
            let (a, b) = (view(&a), view(&b));
            node.start(&a);
            node.bench.switch.change("br-int", &[foreign_flow()]);
            let of_a = held(&node);
            look_changes_nothing(&node);
            node.become_(&b, at_a_time);
            let of_b = held(&node);
            look_changes_nothing(&node);
            node.become_(&a, at_a_time);
            same(&held(&node), &of_a, "A after B");
            look_changes_nothing(&node);
            node.stop();
            prop_assert_eq!(kernel(is_ours), Kernel::new());
            node.start(&b);
            node.bench.switch.change("br-int", &[foreign_flow()]);
            same(&of_b, &held(&node), "B after A");
            node.stop();
            prop_assert_eq!(kernel(|name| !is_ours(name)), foreign.clone());
            let bridges = node.bench.switch.memory().engine.bridges();
            prop_assert_eq!(bridges.iter().map(|bridge| bridge.name.as_str()).collect::<Vec<_>>(), ["br-foreign"]);
            prop_assert_eq!(bridges[0].flows, 1);
            Ok(())
        });
        if let Err(error) = outcome {
            panic!("{error}");
        }
    });
}

/// Tells where two nodes differ, and not all that they have.
fn same((kernel, flows): &(Kernel, Vec<String>), (other, others): &(Kernel, Vec<String>), what: &str) {
    let names: BTreeSet<&String> = kernel.keys().chain(other.keys()).collect();
    for name in names {
        assert_eq!(kernel.get(name), other.get(name), "{what}: namespace {name}");
    }
    let only = |one: &[String], two: &[String]| -> Vec<String> {
        one.iter().filter(|line| !two.contains(line)).cloned().collect()
    };
    assert_eq!((only(flows, others), only(others, flows)), (Vec::new(), Vec::new()), "{what}: flows");
    assert_eq!(flows.len(), others.len(), "{what}: flows");
}
