//! A machine on its way from node1 to node2: ready on both, in use on one.

use dvr::model::resource::Edit;
use dvr::model::{Fabric, Kind, Object, Resource};

use super::*;

/// The topology of all these tests, with blue1 about to move from node1 to node2.
fn moving() -> Sim {
    let topology = Topology::parse(TOPOLOGY, "test").unwrap_or_else(|error| panic!("{error}"));
    let mut fabric = Fabric::new(topology.underlay().clone());
    let mut done = |edits: Vec<Edit>| {
        let changes = fabric.plan(&edits).unwrap_or_else(|refusal| panic!("{refusal}"));
        changes.into_iter().for_each(|change| drop(fabric.change(change)));
        fabric.clone()
    };
    let fabric = done(topology.resources().into_iter().map(Edit::put).collect());
    let Some(Resource::Port(mut blue1)) = fabric.get(&Object::new(Kind::Port, "blue1")) else { panic!("it is there") };
    blue1.migrating_to = Some("node2".to_owned());
    Sim::place(&done(vec![Edit::put(Resource::Port(blue1))]).topology())
}

/// Input: a broadcast, and a unicast from each node. Output: the former reaches both places, the latter the one in use.
#[test]
fn floods_reach_both_places_and_unicast_the_one_in_use() {
    let mut sim = moving();
    let port = sim.vm("blue1").1.port.to_string();
    let (blue1, blue2) = ((sim.mac("blue1"), sim.v4("blue1")), (sim.mac("blue2"), sim.v4("blue2")));
    let outcome = sim.send_vm("blue2", question(blue2, Ipv4Addr::new(10, 1, 0, 200)));
    for node in ["node1", "node2"] {
        assert!(outcome.places().contains(&(node, port.as_str())), "{node} did not hear it: {outcome:?}");
    }
    let frame = ipv4(blue1.0, blue2.0, (blue2.1, blue1.1));
    assert_eq!(sim.send_vm("blue2", frame).only().node, "node1");
    let router = sim.router("blue");
    for node in ["node1", "node2"] {
        let frame = ipv4(blue1.0, router.mac, (sim.v4("orange1"), blue1.1));
        let outcome = sim.send(node, router.ifname.as_str(), frame);
        assert_eq!(
            (outcome.only().node.as_str(), outcome.only().port.as_str()),
            ("node1", port.as_str()),
            "from {node}"
        );
    }
}

/// Input: the machine announces itself from where it is going, before it has arrived. Output: nobody takes its address from
/// it, all hear it, and it is still reached where it is in use, from everywhere.
#[test]
fn an_early_announcement_moves_nothing() {
    let mut sim = moving();
    let port = sim.vm("blue1").1.port.to_string();
    let (blue1, blue2) = ((sim.mac("blue1"), sim.v4("blue1")), (sim.mac("blue2"), sim.v4("blue2")));
    let (a6, probed) = ((blue1.0, Ipv6Addr::UNSPECIFIED), sim.v6("blue1"));
    for frame in [question(blue1, blue1.1), solicitation(a6, probed), ipv4(blue2.0, blue1.0, (blue1.1, blue2.1))] {
        let outcome = sim.send("node2", &port, frame.clone());
        assert!(!outcome.places().contains(&("node2", port.as_str())), "it was answered: {outcome:?}");
        assert!(!outcome.delivered.is_empty(), "nobody heard {frame:02x?}");
    }
    for node in ["node1", "node2"] {
        let router = sim.router("blue");
        let frame = ipv4(blue1.0, router.mac, (sim.v4("orange1"), blue1.1));
        assert_eq!(sim.send(node, router.ifname.as_str(), frame).only().node, "node1", "from {node}");
    }
    assert_eq!(sim.send_vm("blue2", ipv4(blue1.0, blue2.0, (blue2.1, blue1.1))).only().node, "node1");
}
