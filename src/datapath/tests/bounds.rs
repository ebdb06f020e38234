//! Limits, each met on purpose: the switch lives, and says by name what it left undone.

use super::*;

fn drops(bench: &mut Bench) -> std::collections::BTreeMap<String, u64> {
    let now = bench.now;
    bench.worker.push_stats(&bench.switch, now);
    bench.switch().drops()
}

/// A frame from one station of many to a station that nobody knows.
fn from_station(number: u32) -> Vec<u8> {
    let mut frame = udp4([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), b"");
    frame[0..6].copy_from_slice(&hex("02ffffffffff"));
    frame[8..12].copy_from_slice(&number.to_be_bytes());
    frame
}

#[test]
fn a_flow_that_learns_itself_away_is_gone_for_the_next_packet() {
    let mut bench = Bench::new(2);
    bench.add(&[
        "table=0,priority=1 actions=learn(table=0,priority=1,load:7->NXM_NX_REG0[],output:NXM_OF_IN_PORT[]),output:2",
    ]);
    let frame = from_station(1);
    assert_eq!(bench.send(1, &frame).len(), 1, "what it was when the packet came");
    assert_eq!(bench.send(1, &frame), [], "back where it came from");
    assert_eq!(bench.flows(), ["1 actions=load:0x7->NXM_NX_REG0[],output:1"]);
}

#[test]
fn flows_that_teach_each_other_end() {
    let mut bench = Bench::new(2);
    let teach = |table: u8, cookie: u8| {
        format!(
            "learn(table={table},priority=1,cookie={cookie},delete_learned,NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[])"
        )
    };
    bench.add(&[
        &format!("table=0,cookie=1 actions={},resubmit(,1),output:2", teach(1, 2)),
        &format!("table=1,priority=2,cookie=2 actions={},{}", teach(1, 2), teach(0, 1)),
    ]);
    for number in 0..50 {
        bench.send(1 + number % 2, &from_station(number % 5));
    }
    let now = bench.now;
    let changes = [FlowChange::Delete("table=1".to_owned()), FlowChange::Delete("table=0".to_owned())];
    bench.switch().change_flows(&name("br"), &changes, now).expect("legal filters");
    assert_eq!(bench.flows(), Vec::<String>::new(), "what they taught went with them");
}

#[test]
fn learning_stops_at_its_limit() {
    let mut bench = Bench::new(2);
    bench.add(&["actions=learn(table=1,cookie=5,limit=10,NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),output:2"]);
    for number in 0..100 {
        assert_eq!(bench.send(1, &from_station(number)).len(), 1, "the packet goes on");
    }
    assert_eq!(bench.flows().len(), 11);
    assert_eq!(drops(&mut bench).get("learn-limit"), Some(&90));
    // Room for one: whoever comes first has it.
    let now = bench.now;
    let changes = [FlowChange::Delete("table=1,dl_src=02:00:00:00:00:00/ff:ff:00:00:00:00,cookie=5/-1".to_owned())];
    assert!(bench.switch().change_flows(&name("br"), &changes, now).is_ok());
    bench.send(1, &from_station(99));
    assert_eq!(drops(&mut bench).get("learn-limit"), Some(&90));
}

#[test]
fn a_scan_by_one_port_leaves_what_is_known_of_others() {
    let mut bench = Bench::new(3);
    bench.add(&["actions=NORMAL"]);
    bench.send(2, &from_station(1_000_000));
    for number in 0..9_000 {
        bench.send(1, &from_station(number));
    }
    let mut reply = from_station(1);
    reply[0..6].copy_from_slice(&hex("0200000f4240"));
    assert_eq!(bench.send(3, &reply).iter().map(|sent| sent.port).collect::<Vec<_>>(), [2]);
    assert_eq!(drops(&mut bench).get("fdb-full"), Some(&(9_000 + 2 - 8_192)));
}

#[test]
fn floods_to_very_many_ports_and_bridges_meet_no_limit() {
    for actions in ["FLOOD", "ALL", "NORMAL"] {
        let mut bench = Bench::new(2_001);
        bench.add(&[&format!("actions={actions}")]);
        assert_eq!(bench.send(1, &from_station(1)).len(), 2_000, "{actions}");
    }
    let mut bench = Bench::new(1);
    for number in 0..500 {
        let (bridge, near, far) = (format!("net{number}"), format!("near{number}"), format!("far{number}"));
        bench.switch().add_bridge(&name(&bridge), BridgeMode::Normal).expect("a new bridge");
        bench.netdev(&bridge, 10_000 + number, VlanMode::Trunk);
        for (holder, own, peer) in [("br", &near, &far), (&*bridge, &far, &near)] {
            let kind = NewPortKind::Patch { peer: name(peer) };
            let port = NewPort { name: name(own), kind, vlan: VlanMode::Trunk, number: None };
            bench.switch().add_port(&name(holder), port).expect("a new port");
        }
    }
    bench.add(&["actions=FLOOD"]);
    assert_eq!(bench.send(1, &from_station(1)).len(), 500);
    assert_eq!(drops(&mut bench).len(), 0);
}

#[test]
fn patches_that_double_a_packet_end() {
    let mut bench = Bench::new(2);
    bench.switch().add_bridge(&name("other"), BridgeMode::Flow).expect("a new bridge");
    for (bridge, own, peer) in [("br", "to", "from"), ("other", "from", "to")] {
        let kind = NewPortKind::Patch { peer: name(peer) };
        let port = NewPort { name: name(own), kind, vlan: VlanMode::Trunk, number: Some(10) };
        bench.switch().add_port(&name(bridge), port).expect("a new port");
    }
    bench.add(&["actions=output:10,in_port,clone(output:10,in_port)"]);
    bench.add_to("other", &["actions=in_port,clone(in_port),in_port"]);
    bench.send(1, &from_station(1));
    bench.add(&["in_port=2 actions=output:10,output:10"]);
    assert_eq!(bench.send(2, &from_station(2)), []);
    let named = drops(&mut bench);
    assert!(named.keys().all(|reason| reason.starts_with("resubmit-too-")), "{named:?}");
    assert!(!named.is_empty());
}

#[test]
fn a_cache_of_large_entries_is_bounded_by_memory() {
    let mut bench = Bench::new(2_001);
    bench.add(&["actions=load:1->NXM_NX_REG0[],move:NXM_OF_ETH_SRC[0..15]->NXM_NX_REG1[0..15],FLOOD"]);
    let packets = 700;
    for number in 0..packets {
        bench.send(1, &from_station(number));
    }
    let counters = bench.worker.counters();
    assert!(counters.evictions > 0, "{counters:?}");
    assert_eq!(counters.entries + counters.evictions, u64::from(packets));
    let now = bench.now;
    bench.worker.push_stats(&bench.switch, now);
    let flows = bench.switch().dump_flows(&name("br"), "", false, now).expect("a bridge");
    assert_eq!(flows[0].n_packets, u64::from(packets), "what was forgotten had been told");
}

/// One million addresses in release builds, fewer where each frame costs ten times as much.
const MANY: u32 = if cfg!(debug_assertions) { 12_000 } else { 1_000_000 };

#[test]
fn very_many_addresses_by_one_port_leave_those_of_others() {
    let mut bench = Bench::new(3);
    bench.add(&["actions=NORMAL"]);
    // Stations that nobody hears of again; the flood comes by port 1.
    for number in 0..100 {
        bench.send(2, &from_station(2_000_000 + number));
    }
    for number in 0..MANY {
        assert_eq!(bench.send(1, &from_station(number)).len(), 2, "a frame to nobody known goes everywhere");
    }
    assert_eq!(drops(&mut bench).get("fdb-full"), Some(&(u64::from(MANY) + 100 - 8_192)));
    let now = bench.now;
    let stations = bench.switch().fdb(&name("br"), now).expect("a bridge");
    assert_eq!(stations.len(), 8_192);
    assert_eq!(stations.iter().filter(|station| station.port == 2).count(), 100, "the quiet port keeps its own");
    let counters = bench.worker.counters();
    assert!(counters.entries <= 65_536 && counters.entries + counters.evictions >= 8_192, "{counters:?}");
}

#[test]
fn a_full_table_learns_no_more_and_lives() {
    let mut bench = Bench::with_flow_limit(3, 1_000);
    bench.add(&[
        "table=0,in_port=1 actions=resubmit(,1)",
        "table=0,priority=0 actions=learn(table=1,priority=1,hard_timeout=9,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),output:1",
        "table=1,priority=0 actions=FLOOD",
    ]);
    bench.send(2, &from_station(2_000_000));
    for number in 0..MANY {
        assert_eq!(bench.send(3, &from_station(number)).len(), 1, "the packet goes on");
    }
    assert_eq!(bench.flows().len(), 1_000);
    let refused = u64::from(MANY) + 1 - 997;
    assert_eq!(drops(&mut bench).get("learn-limit"), Some(&refused));
    let mut reply = from_station(1);
    reply[0..6].copy_from_slice(&hex("0200001e8480"));
    let ports = |sent: Vec<Sent>| sent.iter().map(|sent| sent.port).collect::<Vec<_>>();
    assert_eq!(ports(bench.send(1, &reply)), [2], "who was learned is found");
    let now = bench.now;
    let more = [FlowChange::Add("table=2,actions=drop".to_owned())];
    let error = bench.switch().change_flows(&name("br"), &more, now).expect_err("it is full");
    assert!(error.to_string().contains("has 1000 flows, and 1 more would be over its limit of 1000"), "{error}");
    // Time makes room.
    bench.now = now + core::time::Duration::from_secs(10);
    let later = bench.now;
    assert_eq!(bench.switch().expire(later), 997);
    bench.send(3, &from_station(MANY));
    assert_eq!(bench.flows().len(), 4);
    assert_eq!(drops(&mut bench).get("learn-limit"), Some(&refused));
}
