//! What the cache may keep while others change the switch, and that nobody waits for that.

use super::*;
use crate::datapath::{change_flows, dump_flows};

fn frame(source: u8, destination: u8) -> Vec<u8> {
    let mut frame = udp4([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), b"");
    (frame[5], frame[11]) = (destination, source);
    frame
}

fn misses(bench: &Bench) -> u64 {
    bench.worker.counters().misses
}

const LEARN: &str = "table=0,priority=1 actions=learn(table=1,priority=1,hard_timeout=300,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),resubmit(,1)";

#[test]
fn what_is_learned_of_one_station_leaves_what_was_decided_for_others() {
    for flows in [&["actions=NORMAL"][..], &[LEARN, "table=1,priority=0 actions=FLOOD"]] {
        let mut bench = Bench::new(4);
        bench.add(flows);
        for _ in 0..3 {
            bench.send(2, &frame(2, 1));
            bench.send(1, &frame(1, 2));
        }
        let before = misses(&bench);
        // Stations behind port 3 are learned; what is known of the two is as it was.
        (10..20).for_each(|station| drop(bench.send(3, &frame(station, 9))));
        let others = misses(&bench);
        assert_eq!(bench.send(1, &frame(1, 2)).iter().map(|sent| sent.port).collect::<Vec<_>>(), [2], "{flows:?}");
        assert_eq!(misses(&bench), others, "{flows:?}");
        assert!(others > before);
        // It moves: the decision about it goes, and nothing is sent to where it was.
        bench.send(4, &frame(2, 1));
        assert_eq!(bench.send(1, &frame(1, 2)).iter().map(|sent| sent.port).collect::<Vec<_>>(), [4], "{flows:?}");
    }
}

#[test]
fn a_change_elsewhere_leaves_decisions_standing() {
    let mut bench = Bench::new(2);
    bench.add(&["table=0,in_port=1,dl_dst=02:00:00:00:00:02 actions=output:2", "table=5,udp actions=drop"]);
    bench.send(1, &frame(1, 2));
    bench.add(&["table=0,in_port=1,dl_dst=02:00:00:00:00:03 actions=drop", "table=5,tcp actions=drop"]);
    bench.send(1, &frame(1, 2));
    assert_eq!(misses(&bench), 1);
    bench.send(1, &frame(1, 4));
    bench.add(&["table=0,in_port=1,dl_dst=02:00:00:00:00:04 actions=output:2"]);
    assert_eq!(bench.send(1, &frame(1, 4)).len(), 1, "the same mask, where nothing was found before");
    bench.add(&["table=0,priority=40000,in_port=1,udp actions=drop"]);
    assert_eq!(bench.send(1, &frame(1, 2)), [], "another mask, of a higher priority");
    assert_eq!(misses(&bench), 4);
}

#[test]
fn nobody_who_knows_waits_for_a_change_to_end() {
    let mut bench = Bench::new(2);
    bench.add(&["priority=1 actions=output:2"]);
    bench.send(1, &frame(1, 2));
    let (switch, worker, now) = (&bench.switch, &mut bench.worker, bench.now);
    let held = switch.lock().expect("nobody panicked");
    let mut room = [vec![0; HEADROOM], frame(1, 2)].concat();
    let end = room.len();
    let mut packet = Packet::new(&mut room, HEADROOM, end, &[], Offload::default());
    let mut wire = Wire::default();
    worker.process(switch, &Ingress { port: DpPort(1), tunnel: None }, &mut packet, now, &mut wire);
    assert_eq!(wire.0.len(), 1);
    assert!(!worker.try_push_stats(switch, now));
    drop(held);
    assert!(worker.try_push_stats(switch, now));
    let flows = bench.switch().dump_flows(&name("br"), "", false, now).expect("a bridge");
    assert_eq!(flows[0].n_packets, 2);
}

#[test]
fn in_steps_is_as_at_once() {
    let mut bench = Bench::new(3);
    let changes: Vec<FlowChange> =
        (0..1_000).map(|number| FlowChange::Add(format!("dl_vlan={number} actions=output:p2"))).collect();
    let (bridge, now) = (name("br"), bench.now);
    assert_eq!(change_flows(&bench.switch, &bridge, &changes, now), Ok(1_000));
    for (filter, names) in [("", true), ("dl_vlan=7", false), ("out_port=p2", false)] {
        let stepped = dump_flows(&bench.switch, &bridge, filter, names, now).expect("a legal filter");
        let whole = bench.switch().dump_flows(&bridge, filter, names, now).expect("a legal filter");
        assert_eq!(stepped, whole);
    }
    let bad = [FlowChange::Add("actions=output:2".to_owned()), FlowChange::Add("actions=output:p9".to_owned())];
    assert!(matches!(change_flows(&bench.switch, &bridge, &bad, now), Err(SwitchError::BadFlow { number: 2, .. })));
    assert_eq!(bench.flows().len(), 1_000);
}

#[test]
fn loose_changes_touch_what_they_cover_and_nothing_else() {
    let mut bench = Bench::new(2);
    bench.add(&[
        "table=1,priority=5,ip,nw_dst=10.1.0.0/16 actions=output:1",
        "table=1,priority=6,ip,nw_dst=10.1.2.0/24 actions=output:1",
        "table=1,priority=7,ip,nw_dst=10.1.2.0/24 actions=output:1",
        "table=1,priority=7,tcp,nw_dst=10.1.2.3 actions=output:1",
        "table=1,priority=7,ip,nw_dst=10.2.0.0/16 actions=output:1",
        "table=2,priority=7,ip,nw_dst=10.1.2.0/24 actions=output:1",
        "table=1,priority=7 actions=output:1",
    ]);
    let now = bench.now;
    let mut change = |change: FlowChange| bench.switch().change_flows(&name("br"), &[change], now).expect("legal");
    assert_eq!(change(FlowChange::Modify("table=1,ip,nw_dst=10.1.2.0/24 actions=output:2".to_owned())), 3);
    assert_eq!(change(FlowChange::Delete("ip,nw_dst=10.1.2.0/24,out_port=1".to_owned())), 1, "that of table 2");
    assert_eq!(change(FlowChange::DeleteStrict("table=1,priority=7,ip,nw_dst=10.1.2.0/24".to_owned())), 1);
    assert_eq!(change(FlowChange::DeleteStrict("table=1,priority=7,ip,nw_dst=10.1.0.0/16".to_owned())), 0);
    assert_eq!(change(FlowChange::Delete("table=1,ip".to_owned())), 4);
    assert_eq!(bench.flows(), ["7 actions=output:1"]);
}
