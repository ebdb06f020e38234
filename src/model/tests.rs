//! The document's promises: every mistake in its words, allocation, and hostile input.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::Index;

use super::problem::{KINDS, SHAPE};
use super::view::Attachment;
use super::*;

/// Mistakes that only a broken build or 16 million objects could bring about.
const UNPROVOKED: [&str; 1] = ["Exhausted"];
/// Mistakes that only edits of what is there already can hold.
const OF_EDITS: [&str; 7] = ["EditTwice", "Absent", "InUse", "Stranded", "GatewayBorne", "Migration", "Unentitled"];

fn under(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end == "yaml"));
    paths.sort();
    assert!(!paths.is_empty(), "no documents");
    paths
}

pub(crate) fn examples() -> Vec<(String, Topology)> {
    let mut examples = vec![("built-in".to_owned(), Topology::example())];
    for path in under("examples/topologies") {
        let text = fs::read_to_string(&path).expect("readable");
        let origin = path.display().to_string();
        let topology = Topology::parse(&text, &origin).unwrap_or_else(|error| panic!("{error}"));
        examples.push((origin, topology));
    }
    examples
}

#[test]
fn the_examples_are_right() {
    let sizes: Vec<_> = examples().iter().map(|(_, topology)| topology.vms().len()).collect();
    assert_eq!(sizes, [4, 4, 40, 9, 6]);
}

/// `DVR_BLESS=1` rewrites the expected texts.
#[test]
fn every_mistake_has_its_words() {
    let mut kinds = BTreeSet::new();
    for path in under("tests/golden/topology-errors") {
        let text = fs::read_to_string(&path).expect("readable");
        let origin = path.file_name().expect("a name").to_string_lossy().into_owned();
        let error = Topology::parse(&text, &origin).expect_err(&origin);
        kinds.extend(error.mistakes().iter().map(Mistake::kind));
        let golden = path.with_extension("txt");
        let actual = format!("{error}\n");
        if std::env::var_os("DVR_BLESS").is_some() {
            fs::write(&golden, &actual).expect("writable");
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(actual, expected, "{origin} is refused in other words");
    }
    let provoked: BTreeSet<&str> = KINDS
        .iter()
        .copied()
        .filter(|kind| !UNPROVOKED.contains(kind) && !OF_EDITS.contains(kind))
        .chain([SHAPE])
        .collect();
    assert_eq!(kinds, provoked, "kinds of mistakes without a document, or the other way round");
}

#[test]
fn the_examples_allocation_is_what_it_was() {
    let topology = Topology::example();
    let vms: Vec<String> = topology
        .vms()
        .values()
        .map(|vm| format!("{} {} {} {:?}", vm.port.name, vm.port.port, vm.port.mac, vm.port.addresses))
        .collect();
    let nodes: Vec<String> =
        topology.nodes().values().map(|node| format!("{} {} {}", node.name, node.tunnel_ip, node.host_mac)).collect();
    let networks: Vec<String> = topology
        .networks()
        .values()
        .map(|network| format!("{} {} {}", network.name, network.segment.vni().expect("a tunnel's"), network.mtu))
        .collect();
    assert_eq!(nodes, ["node1 172.31.0.1 fa:16:3f:94:14:37", "node2 172.31.0.2 fa:16:3f:b5:f6:83"]);
    assert_eq!(networks, ["blue 10823188 1450", "orange 11030971 1450"]);
    let expected = [
        "blue1 tap9341b113-f1 fa:16:3e:e1:01:92 [10.1.0.2/24]",
        "blue2 tapde87bb53-27 fa:16:3e:43:32:39 [10.1.0.3/24]",
        "orange1 tapd6fa54f1-dc fa:16:3e:00:00:20 [10.2.0.20/24]",
        "orange2 tapf2dcd187-1e fa:16:3e:19:e0:bf [10.2.0.2/24]",
    ];
    assert_eq!(vms, expected);
}

pub(crate) fn assert_unique(topology: &Topology) {
    let mut macs: Vec<_> = topology.nodes().values().map(|node| node.host_mac).collect();
    macs.extend(topology.vms().values().map(|vm| vm.port.mac));
    let ports = || topology.routers().values().flat_map(|router| &router.interfaces);
    macs.extend(ports().map(|port| port.mac));
    assert_eq!(macs.iter().collect::<BTreeSet<_>>().len(), macs.len(), "a MAC is given twice");
    let vnis: Vec<_> = topology.networks().values().filter_map(|network| network.segment.vni()).collect();
    assert_eq!(vnis.iter().collect::<BTreeSet<_>>().len(), vnis.len(), "a VNI is given twice");
    let tunnels: BTreeSet<_> = topology.nodes().values().map(|node| node.tunnel_ip).collect();
    assert_eq!(tunnels.len(), topology.nodes().len(), "a node's address is given twice");
    let mut names: Vec<_> = topology.vms().values().map(|vm| vm.port.port.clone()).collect();
    names.extend(ports().map(|port| port.ifname.clone()));
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "an interface's name is given twice");
    let mut seen = BTreeSet::new();
    let vms = topology.vms().values().flat_map(|vm| vm.port.addresses.iter().map(|net| (&vm.network, *net)));
    let routed = ports().flat_map(|port| port.addresses.iter().map(|net| (&port.network, *net)));
    for (network, net) in vms.chain(routed) {
        assert!(seen.insert((network, net.addr())), "{} is given twice on {network}", net.addr());
        let subnets = &topology.networks()[network].subnets;
        assert!(subnets.iter().any(|subnet| subnet.cidr == net.trunc()), "{net} is in no subnet of {network}");
    }
}

/// A legal document from names and choices, its mappings in the order handed in.
fn document(parts: &[String; 4], order: &[Index]) -> String {
    let mut text = String::from("version: 1\n");
    let mut sections: Vec<(&str, Vec<&str>)> = ["nodes", "networks", "routers", "vms"]
        .iter()
        .zip(parts)
        .map(|(name, part)| (*name, part.lines().collect()))
        .collect();
    let mut order = order.iter().cycle();
    let mut shuffle = |length: usize| order.next().map_or(0, |index| index.index(length));
    let mut place = |lines: &mut Vec<&str>| {
        for at in (1..lines.len()).rev() {
            let other = shuffle(at + 1);
            lines.swap(at, other);
        }
    };
    for (_, lines) in &mut sections {
        place(lines);
    }
    let mut names: Vec<&str> = sections.iter().map(|(name, _)| *name).collect();
    place(&mut names);
    for name in names {
        let lines = sections.iter().find(|(section, _)| *section == name).map(|(_, lines)| lines.clone());
        let lines = lines.unwrap_or_default();
        text.push_str(&format!("{name}:{}\n", if lines.is_empty() { " {}" } else { "" }));
        for line in lines {
            text.push_str(&format!("  {line}\n"));
        }
    }
    text
}

prop_compose! {
    pub(crate) fn parts()(
        nodes in 1_usize..5,
        networks in 1_usize..6,
        routers in prop::collection::vec((prop::collection::btree_set(0_usize..6, 1..5), 0_usize..4), 0..4),
        vms in prop::collection::vec((any::<Index>(), any::<Index>(), any::<bool>()), 0..30),
    ) -> [String; 4] {
        let node_lines: String = (0..nodes).map(|n| format!("node{n}: {{}}\n")).collect();
        let network_lines: String = (0..networks)
            .map(|n| format!("net{n}: {{subnets: [{{cidr: 10.{n}.0.0/24}}, {{cidr: \"fd00:{n}::/64\"}}]}}\n"))
            .collect();
        let router_lines: String = routers.iter().enumerate().map(|(n, (joined, place))| {
            let joined: Vec<_> = joined.iter().filter(|net| **net < networks).map(|net| format!("net{net}")).collect();
            let place = ["", "", "distributed: false, ", "distributed: false, node: node0, "][*place];
            format!("r{n}: {{{place}interfaces: [{}]}}\n", joined.join(", "))
        }).collect();
        let vm_lines: String = vms.iter().enumerate().map(|(n, (node, network, explicit))| {
            let (node, network) = (node.index(nodes), network.index(networks));
            let ip = if *explicit { format!(", ip: 10.{network}.0.{}, mac: \"fa:16:3e:00:00:{n:02x}\"", n + 5) } else { String::new() };
            format!("vm{n:02}: {{node: node{node}, network: net{network}{ip}}}\n")
        }).collect();
        [node_lines, network_lines, router_lines, vm_lines]
    }
}

/// The topology of generated parts, in the order written.
pub(crate) fn topology_of(parts: &[String; 4]) -> Topology {
    let text = document(parts, &[]);
    Topology::parse(&text, "generated").unwrap_or_else(|error| panic!("{error}\n{text}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn allocation_is_unique_and_knows_no_order(parts in parts(), order in prop::collection::vec(any::<Index>(), 1..40)) {
        let straight = topology_of(&parts);
        assert_unique(&straight);
        let text = document(&parts, &order);
        let shuffled = Topology::parse(&text, "shuffled").unwrap_or_else(|error| panic!("{error}\n{text}"));
        prop_assert_eq!(straight, shuffled);
    }

    #[test]
    fn a_new_network_and_machine_move_nothing(parts in parts()) {
        let before = topology_of(&parts);
        let [nodes, networks, routers, vms] = &parts;
        let more = [
            nodes.clone(),
            format!("{networks}a-new: {{subnets: [{{cidr: 10.99.0.0/24}}]}}\n"),
            routers.clone(),
            format!("{vms}zz: {{node: node0, network: net0}}\n"),
        ];
        let after = topology_of(&more);
        for (name, network) in before.networks() {
            prop_assert_eq!(network, &after.networks()[name]);
        }
        for (name, vm) in before.vms() {
            prop_assert_eq!(vm, &after.vms()[name]);
        }
        prop_assert_eq!(before.routers(), after.routers());
        prop_assert_eq!(before.nodes(), after.nodes());
    }
}

/// What a mutation does to a document.
#[derive(Debug, Clone)]
enum Mutation {
    Byte(Index, u8),
    Delete(Index),
    Insert(Index, u8),
    DropLine(Index),
    DoubleLine(Index),
    SwapTokens(Index, Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Byte(at, byte)),
        any::<Index>().prop_map(Mutation::Delete),
        (any::<Index>(), prop::sample::select(b"{}[],:&*!|>'\"-#%@ \n\t0".to_vec()))
            .prop_map(|(at, byte)| Mutation::Insert(at, byte)),
        any::<Index>().prop_map(Mutation::DropLine),
        any::<Index>().prop_map(Mutation::DoubleLine),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Mutation::SwapTokens(a, b)),
    ]
}

fn apply(text: &str, mutation: &Mutation) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let mut lines: Vec<&str> = text.lines().collect();
    if bytes.is_empty() || lines.is_empty() {
        return text.to_owned();
    }
    match mutation {
        Mutation::Byte(at, byte) => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        Mutation::Delete(at) => {
            bytes.remove(at.index(bytes.len()));
        }
        Mutation::Insert(at, byte) => bytes.insert(at.index(bytes.len()), *byte),
        Mutation::DropLine(at) => {
            lines.remove(at.index(lines.len()));
            return lines.join("\n");
        }
        Mutation::DoubleLine(at) => {
            let at = at.index(lines.len());
            lines.insert(at, lines[at]);
            return lines.join("\n");
        }
        Mutation::SwapTokens(a, b) => {
            let mut tokens: Vec<&str> = text.split_inclusive([' ', ',', '{', '}', '\n']).collect();
            let (a, b) = (a.index(tokens.len()), b.index(tokens.len()));
            tokens.swap(a, b);
            return tokens.concat();
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

const RICH: &str = include_str!("../../examples/topologies/dual-stack.yaml");

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_mutated_document_is_taken_or_refused_with_place_and_remedy(edits in prop::collection::vec(mutation(), 1..6)) {
        let text = edits.iter().fold(RICH.to_owned(), |text, edit| apply(&text, edit));
        match Topology::parse(&text, "mutated") {
            Ok(topology) => assert_unique(&topology),
            Err(error) => {
                prop_assert!(!error.mistakes().is_empty());
                let lines = u64::try_from(text.lines().count() + 1).expect("few lines");
                for mistake in error.mistakes() {
                    prop_assert!(mistake.line() >= 1 && mistake.line() <= lines, "line {} of {lines}", mistake.line());
                    prop_assert!(mistake.column() >= 1 && !mistake.what().is_empty() && !mistake.remedy().is_empty());
                }
                prop_assert!(!error.to_string().contains('\u{1b}'), "control characters are shown raw");
            }
        }
    }
}

#[test]
fn an_alias_bomb_is_refused_before_it_grows() {
    let mut text = String::from(
        "version: 1\nnetworks:\n  n0: &a0 {subnets: [{cidr: 10.0.0.0/24}]}\nvms:\n  b0: &b0 [x, x, x, x, x, x, x, x, x]\n",
    );
    for level in 1..30 {
        let below = vec![format!("*b{}", level - 1); 9].join(", ");
        text.push_str(&format!("  b{level}: &b{level} [{below}]\n"));
    }
    let error = Topology::parse(&text, "bomb").expect_err("a bomb");
    assert_eq!(error.mistakes().len(), 1);
    // The same where aliases may legally stand: in a list of texts.
    let mut text = format!("version: 1\nvms:\n  a: {{node: n, network: n, ips: &l [{}]}}\n", "x, ".repeat(3_000));
    for vm in 0..900 {
        text.push_str(&format!("  v{vm}: {{node: n, network: n, ips: *l}}\n"));
    }
    let error = Topology::parse(&text, "bomb").expect_err("a bomb");
    assert!(error.to_string().contains("remedy"), "{error}");
}

#[test]
fn nesting_is_bounded() {
    let text = format!("version: 1\nnodes: {}", "[".repeat(100_000));
    assert!(Topology::parse(&text, "deep").is_err());
    let text = format!("version: 1\nnodes: {}", "{a: ".repeat(100_000));
    assert!(Topology::parse(&text, "deep").is_err());
}

#[test]
fn one_anchor_serves_many_machines_and_a_large_topology_is_taken() {
    let mut text = String::from(
        "version: 1\nnodes: {n1: {}}\nnetworks: {a: {subnets: [{cidr: 10.0.0.0/8}]}}\nvms:\n  v: &v {node: n1, network: a}\n",
    );
    for vm in 0..1_000 {
        text.push_str(&format!("  v{vm:04}: *v\n  w{vm:04}: {{node: n1, network: a}}\n"));
    }
    let topology = Topology::parse(&text, "large").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(topology.vms().len(), 2_001);
    assert_unique(&topology);
}

#[test]
fn aliases_that_repeat_little_are_taken() {
    let text = "version: 1\nnodes: {n1: {}}\nnetworks:\n  a: &net {subnets: [{cidr: 10.1.0.0/24}]}\n  b: *net\n";
    let topology = Topology::parse(text, "alias").unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(topology.networks()["a"].subnets, topology.networks()["b"].subnets);
}

#[test]
fn a_device_is_attached_where_it_is_and_ids_are_kept() {
    let text = "version: 1\nnodes: {n1: {}}\nnetworks: {a: {subnets: [{cidr: 10.1.0.0/24}]}}\n\
        vms: {v: {node: n1, network: a, device: tap01234567-89, id: 01234567-89ab-cdef-0123-456789abcdef}}\n";
    let topology = Topology::parse(text, "device").unwrap_or_else(|error| panic!("{error}"));
    let port = &topology.vms()["v"].port;
    assert_eq!(port.port.as_str(), "tap01234567-89");
    assert!(matches!(&port.attach, Attachment::Device { device } if device.as_str() == "tap01234567-89"));
}

#[test]
fn routers_share_a_subnet_by_name() {
    let text = "version: 1\nnodes: {n1: {}}\nnetworks: {a: {subnets: [{cidr: 10.1.0.0/24}]}}\n\
        routers: {r2: {interfaces: [a]}, r1: {interfaces: [a]}}\nvms: {v: {node: n1, network: a}}\n";
    let topology = Topology::parse(text, "routers").unwrap_or_else(|error| panic!("{error}"));
    let address = |router: &str| topology.routers()[router].interfaces[0].addresses[0].to_string();
    assert_eq!((address("r1"), address("r2")), ("10.1.0.1/24".to_owned(), "10.1.0.2/24".to_owned()));
    assert_eq!(topology.vms()["v"].port.addresses[0].to_string(), "10.1.0.3/24");
}

#[test]
fn a_topology_prints_as_json() {
    let json = serde_json::to_value(Topology::example()).expect("it serializes");
    let keys: BTreeMap<String, serde_json::Value> = serde_json::from_value(json).expect("a mapping");
    assert_eq!(keys.keys().collect::<Vec<_>>(), ["networks", "nodes", "routers", "underlay", "vms"]);
}
