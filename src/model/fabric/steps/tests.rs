//! Steps: what must come first comes first, what belongs together stays together, and every state between is sound.

use proptest::prelude::*;

use super::super::tests::{asked, assert_sound, done, fabric, puts};
use super::*;
use crate::model::resource::Edit;

/// Plans edits and gives the steps in words.
fn words(fabric: &Fabric, edits: &[Edit]) -> Vec<String> {
    let changes = fabric.plan(edits).unwrap_or_else(|refusal| panic!("{refusal}"));
    let word = |at: &usize| {
        let object = changes[*at].object();
        match &changes[*at] {
            Change::Put(_) => object.name,
            Change::Delete(_) => format!("-{}", object.name),
        }
    };
    fabric.steps(&changes).iter().map(|step| step.iter().map(word).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn what_is_new_comes_in_the_order_of_the_plan() {
    let edits = puts(&[
        "{kind: port, name: v3, network: teal, node: n3}",
        "{kind: router, name: r2, interfaces: [{network: teal}]}",
        "{kind: network, name: teal, subnets: [{cidr: 10.3.0.0/24}]}",
        "{kind: node, name: n3}",
    ]);
    assert_eq!(words(&fabric(), &edits), ["n3", "teal", "r2", "v3"]);
}

#[test]
fn a_network_whose_gateway_moves_goes_with_its_router() {
    let edits = puts(&["{kind: network, name: blue, subnets: [{cidr: 10.1.0.0/24, gateway: 10.1.0.9}]}"]);
    assert_eq!(words(&fabric(), &edits), ["blue r1"]);
}

#[test]
fn values_are_let_go_before_they_are_taken() {
    let mut fabric = fabric();
    // A new port takes the address of one that gets another; the name would put it first.
    let edits = puts(&[
        "{kind: port, name: a, network: blue, node: n1, ips: [10.1.0.2]}",
        "{kind: port, name: v1, network: blue, node: n1, ips: [10.1.0.7]}",
    ]);
    assert_eq!(words(&fabric, &edits), ["v1", "a"]);
    let swap = puts(&[
        "{kind: port, name: v1, network: blue, node: n1, ips: [10.1.0.3]}",
        "{kind: port, name: v2, network: blue, node: n2, device: tap-v2, ips: [10.1.0.2]}",
    ]);
    assert_eq!(words(&fabric, &swap), ["v1 v2"]);
    // A node's successor has its host MAC and its tunnel's end, once it is gone, and that is once its port has left it.
    let old = fabric.nodes()["n1"].clone();
    let heir = Resource::Node(crate::model::resource::NodeSpec { name: "heir".to_owned(), ..old });
    let mut edits = vec![Edit::put(heir.clone()), Edit::delete(Kind::Node, "n1")];
    edits.extend(puts(&["{kind: port, name: v1, network: blue, node: n2}"]));
    assert_eq!(words(&fabric, &edits), ["v1", "-n1", "heir"]);
    // Where the port goes to the successor, all three are one.
    let mut edits = vec![Edit::put(heir), Edit::delete(Kind::Node, "n1")];
    edits.extend(puts(&["{kind: port, name: v1, network: blue, node: heir}"]));
    assert_eq!(words(&fabric, &edits), ["heir v1 -n1"]);
    done(&mut fabric, &edits);
    assert_sound(&fabric);
}

/// Input: nodes that gain and lose their places on physical networks, with what needs them. Output: never a need between.
#[test]
fn a_node_is_on_a_physical_network_as_long_as_it_needs_to_be() {
    let mut fabric = fabric();
    let come = puts(&[
        "{kind: node, name: n1, bridge_mappings: {p: eth1}}",
        "{kind: network, name: teal, type: vlan, physical_network: p, subnets: [{cidr: 10.3.0.0/24}]}",
        "{kind: port, name: v3, network: teal, node: n1}",
    ]);
    assert_eq!(words(&fabric, &come), ["n1", "teal", "v3"]);
    done(&mut fabric, &come);
    // The port has left before the node does, though nodes come first where nothing speaks against it.
    let leave = puts(&["{kind: node, name: n1, bridge_mappings: {}}", "{kind: port, name: v3, network: teal}"]);
    assert_eq!(words(&fabric, &leave), ["v3", "n1"]);
    // It moves where the other node gains it; both are on one side or the other.
    let swap = puts(&[
        "{kind: node, name: n1, bridge_mappings: {}}",
        "{kind: node, name: n2, bridge_mappings: {p: eth1}}",
        "{kind: port, name: v3, network: teal, node: n2}",
    ]);
    assert_eq!(words(&fabric, &swap), ["n2", "v3", "n1"]);
    // A router that joins blue to it waits for blue's machine on n2, which never is on it, to leave.
    let join = puts(&[
        "{kind: router, name: r0, interfaces: [{network: blue, ips: [10.1.0.200]}, {network: teal}]}",
        "{kind: router, name: r1, interfaces: [{network: orange}]}",
        "{kind: port, name: v2, network: blue, node: n1, device: tap-v2}",
    ]);
    let order = words(&fabric, &join);
    let at = |word: &str| order.iter().position(|step| step.split(' ').any(|one| one == word));
    assert!(at("v2") < at("r0"), "{order:?}");
    done(&mut fabric, &join);
    assert_sound(&fabric);
}

#[test]
fn a_long_chain_needs_no_long_stack() {
    let needs: Vec<Vec<usize>> = (0..200_000).map(|at| if at < 199_999 { vec![at + 1] } else { Vec::new() }).collect();
    let chain = circles(&needs);
    assert_eq!((chain.len(), chain[0].as_slice()), (200_000, &[199_999][..]));
    let ring: Vec<Vec<usize>> = (0..1_000).map(|at| vec![(at + 1) % 1_000]).collect();
    assert_eq!(circles(&ring), [(0..1_000).collect::<Vec<_>>()]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_state_between_is_sound(batches in prop::collection::vec(prop::collection::vec(asked(), 1..8), 1..12)) {
        let mut fabric = Fabric::default();
        for edits in batches {
            let Ok(changes) = fabric.plan(&edits) else { continue };
            let steps = fabric.steps(&changes);
            let mut all: Vec<usize> = steps.iter().flatten().copied().collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..changes.len()).collect::<Vec<_>>());
            for step in steps {
                step.iter().for_each(|at| drop(fabric.change(changes[*at].clone())));
                assert_sound(&fabric);
            }
        }
    }
}
