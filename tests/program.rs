//! The programs of both bridges against golden text, and what must hold of any program's text.
//!
//! Each case is a directory of `tests/golden/program`: input `view.json` (a `NodeView`), or `node`, the name of a node of
//! `topology.yaml` or, without that, of the built-in example, whose tunnels the kernel makes if there is a file `kernel`;
//! VLANs are allocated from scratch; outputs `br-int.txt`, `br-tun.txt` and one for the bridge of each physical network.
//! `DVR_REGENERATE=1 cargo test --test program` writes the outputs.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use dvr::model::Topology;
use dvr::model::view::{Backend, NodeView};
use dvr::placement;
use dvr::program::{Program, ProgramFlow, local_vlans, physical_networks, populated, responders, tunnel_ports};

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/program");
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(root).expect("the cases").map(|entry| entry.expect("an entry").path()).collect();
    cases.sort();
    assert!(cases.len() >= 3, "only {cases:?}");
    cases
}

fn view(case: &Path) -> NodeView {
    let text = match std::fs::read_to_string(case.join("node")) {
        Ok(node) => {
            let topology = std::fs::read_to_string(case.join("topology.yaml"));
            let parse = |text: String| Topology::parse(&text, "test").unwrap_or_else(|error| panic!("{error}"));
            let topology = topology.map_or_else(|_| Topology::example(), parse);
            let mut view = placement::view(&topology, node.trim()).expect("a node of the topology");
            if case.join("kernel").exists() {
                view.backend = Backend::Kernel;
            }
            return view;
        }
        Err(_) => std::fs::read_to_string(case.join("view.json")).expect("view.json"),
    };
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", case.display()))
}

fn program(view: &NodeView) -> Program {
    let vlans = local_vlans(&BTreeMap::new(), view.networks.iter().map(|network| network.id)).expect("few networks");
    Program::of(view, &vlans).expect("a view whose references hold")
}

/// Every bridge of a program.
fn bridges(program: &Program) -> Vec<(String, &[ProgramFlow])> {
    let Program { br_int, br_tun, providers } = program;
    let fixed = [("br-int".to_owned(), &br_int[..]), ("br-tun".to_owned(), &br_tun[..])];
    fixed.into_iter().chain(providers.iter().map(|(name, flows)| (name.bridge().to_string(), &flows[..]))).collect()
}

#[test]
fn programs_match_their_golden_text() {
    for case in cases() {
        let program = program(&view(&case));
        for (name, flows) in bridges(&program) {
            let text: String = flows.iter().map(|flow| format!("{flow}\n")).collect();
            let path = case.join(format!("{name}.txt"));
            if std::env::var_os("DVR_REGENERATE").is_some() {
                std::fs::write(&path, &text).expect("the golden file is writable");
            }
            let golden = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(text == golden, "{} differs; look, then regenerate. Got:\n{text}", path.display());
        }
    }
}

/// The numbers and names after each `key` in `text`, up to a delimiter.
fn after<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let tails = text.match_indices(key).map(|(at, key)| &text[at + key.len()..]);
    tails.map(|tail| tail.split([',', ')']).next().unwrap_or(tail)).collect()
}

fn each_bridge(check: impl Fn(&NodeView, &str, &[ProgramFlow])) {
    for case in cases() {
        let view = view(&case);
        let program = program(&view);
        for (bridge, flows) in bridges(&program) {
            check(&view, &bridge, flows);
        }
    }
}

#[test]
fn no_two_flows_are_the_same_flow() {
    each_bridge(|_, bridge, flows| {
        let mut seen = BTreeSet::new();
        for flow in flows {
            assert!(seen.insert(flow.strict_match()), "{bridge} has two of {}", flow.strict_match());
        }
    });
}

#[test]
fn every_table_a_frame_is_sent_to_ends_in_a_flow_for_the_rest() {
    each_bridge(|_, bridge, flows| {
        let ends: BTreeSet<u8> = flows
            .iter()
            .filter(|flow| flow.matching.is_empty() || flow.matching.ends_with("/01:00:00:00:00:00"))
            .map(|flow| flow.table)
            .collect();
        for flow in flows {
            for table in after(&flow.actions, "resubmit(,") {
                let table: u8 = table.parse().expect("a table number");
                assert!(ends.contains(&table), "{bridge}: {flow} goes to table {table}, which ends in nothing");
                assert!(table > flow.table, "{bridge}: {flow} goes back: it could go round");
            }
        }
    });
}

#[test]
fn flows_name_only_ports_the_node_has() {
    each_bridge(|view, bridge, flows| {
        let machines = view.networks.iter().flat_map(|network| &network.local_ports).map(|port| &port.port);
        let routers = view.routers.iter().flat_map(|router| &router.interfaces).map(|port| &port.ifname);
        let mut known: BTreeSet<String> = machines.chain(routers).map(ToString::to_string).collect();
        if bridge == "br-tun" {
            known = tunnel_ports(view).into_iter().map(|(port, _)| port.to_string()).collect();
        }
        let physical = physical_networks(view);
        match physical.iter().find(|(name, _)| name.bridge().as_str() == bridge) {
            Some((name, interface)) => known = [name.phy_port().to_string(), interface.to_string()].into(),
            None => drop(known.insert(if bridge == "br-int" { "patch-tun" } else { "patch-int" }.to_owned())),
        }
        if bridge == "br-int" {
            known.extend(physical.keys().map(|name| name.int_port().to_string()));
        }
        for flow in flows {
            let line = flow.to_string().replace("\"veth0,odd\"", "odd");
            for name in after(&line, "output:").into_iter().chain(after(&line, "in_port=")) {
                let name = name.split(' ').next().unwrap_or(name).trim_matches('"');
                let known = known.contains(name) || name == "NXM_OF_IN_PORT[]" || name == "odd" && bridge == "br-int";
                assert!(known, "{bridge}: {line} names port {name}");
            }
        }
    });
}

#[test]
fn what_is_shown_is_what_is_installed() {
    for case in cases() {
        let view = view(&case);
        let vlans =
            local_vlans(&BTreeMap::new(), view.networks.iter().map(|network| network.id)).expect("few networks");
        let program = Program::of(&view, &vlans).expect("a program");
        let answered = responders(&view, &vlans).expect("responders");
        assert!(answered.iter().all(|answer| program.br_int.contains(&answer.flow)));
        for forwarding in populated(&view, &vlans).expect("forwardings") {
            let flows = if forwarding.bridge == "br-tun" { &program.br_tun } else { &program.br_int };
            assert!(flows.contains(&forwarding.flow), "{} is not installed", forwarding.flow);
        }
    }
}

#[test]
fn a_reference_that_leads_nowhere_is_named() {
    let case = cases().into_iter().find(|case| case.ends_with("east-west-node1")).expect("the case");
    let whole = view(&case);
    let vlans = local_vlans(&BTreeMap::new(), whole.networks.iter().map(|network| network.id)).expect("few");
    let broken = |edit: &dyn Fn(&mut NodeView)| {
        let mut view = whole.clone();
        edit(&mut view);
        Program::of(&view, &vlans).expect_err("it was taken").to_string()
    };
    assert!(broken(&|view| view.peers.clear()).contains("node `node2`"));
    assert!(broken(&|view| view.routers[0].interfaces[0].network = "teal".to_owned()).contains("network `teal`"));
    assert!(broken(&|view| view.networks[0].id = uuid::Uuid::nil()).contains("no local VLAN"));
}
