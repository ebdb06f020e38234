//! That a scan of new flows leaves those that are known, and other ports' new ones, alone.

use core::time::Duration;
use std::net::IpAddr;

use super::*;

const LIMIT: UpcallLimit = UpcallLimit { each: Duration::from_millis(1), burst: 40 };
/// New flows that a port may bring at one instant.
const PORT: u64 = 30;
/// The same of a tunnel's endpoint.
const ENDPOINT: u64 = 120;

fn port(number: u32) -> Ingress {
    Ingress { port: DpPort(number), tunnel: None }
}

fn endpoint(number: u8) -> Ingress {
    let (src, dst) = (IpAddr::from([192, 0, 2, number]), IpAddr::from([192, 0, 2, 1]));
    Ingress { port: DpPort(9), tunnel: Some(TunnelMeta { id: 7, src, dst, tos: 0, ttl: 64 }) }
}

/// A frame to a station of this number.
fn to(number: u32) -> Vec<u8> {
    let mut frame = udp4([10, 0, 0, 1], [10, 0, 0, 2], (1, 2), b"");
    frame[2..6].copy_from_slice(&number.to_be_bytes());
    frame
}

/// Ports of which each sends to port 4, each station by a decision of its own.
fn bench() -> Bench {
    let mut bench = Bench::new(4);
    bench.worker = Worker::with_upcall_limit(LIMIT);
    for remote in [2, 3] {
        let kind =
            NewPortKind::Vxlan { dp: DpPort(9), local: [192, 0, 2, 1].into(), remote: [192, 0, 2, remote].into() };
        let port = NewPort { name: name(&format!("tun{remote}")), kind, vlan: VlanMode::Trunk, number: None };
        bench.switch().add_port(&name("br"), port).expect("a new port");
    }
    bench.add(&["actions=move:NXM_OF_ETH_DST[0..31]->NXM_NX_REG0[],output:4"]);
    bench
}

fn sent(bench: &mut Bench, ingress: Ingress, stations: core::ops::Range<u32>) -> usize {
    stations.filter(|number| bench.send_with(ingress, &to(*number)).len() == 1).count()
}

fn refused(bench: &mut Bench) -> u64 {
    let now = bench.now;
    bench.worker.push_stats(&bench.switch, now);
    bench.switch().drops().get("upcall-limit").copied().unwrap_or(0)
}

/// Frames for which the tables were walked.
fn walks(bench: &mut Bench) -> u64 {
    bench.worker.counters().misses - refused(bench)
}

#[test]
fn a_scan_of_one_port_leaves_what_is_known_of_all() {
    let mut bench = bench();
    assert_eq!(sent(&mut bench, port(1), 0..10), 10);
    assert_eq!(sent(&mut bench, port(2), 100..110), 10);
    let mut new = 0;
    for number in 0..1_000 {
        new += sent(&mut bench, port(1), 1_000 + number..1_001 + number);
        let known = number % 10;
        assert_eq!(sent(&mut bench, port(1), known..known + 1), 1, "of the port itself, after {number} of the scan");
        assert_eq!(sent(&mut bench, port(2), 100 + known..101 + known), 1, "of another, after {number} of the scan");
    }
    assert_eq!(new as u64, PORT - 10);
    assert_eq!(walks(&mut bench), PORT + 10);
    assert_eq!(refused(&mut bench), 1_000 - (PORT - 10), "what was not looked up is counted");
    let now = bench.now;
    let flows = bench.switch().dump_flows(&name("br"), "", false, now).expect("a bridge");
    assert_eq!(flows[0].n_packets, 10 + 10 + 2_000 + PORT - 10, "and no flow counts it");
}

#[test]
fn new_flows_of_others_are_looked_up_during_a_scan() {
    let mut bench = bench();
    assert_eq!(sent(&mut bench, port(1), 0..1_000) as u64, PORT);
    assert_eq!(sent(&mut bench, port(2), 1_000..1_020), 20);
    assert_eq!(refused(&mut bench), 1_000 - PORT);
}

#[test]
fn a_scan_goes_on_as_time_pays_for_it() {
    let mut bench = bench();
    let start = bench.now;
    assert_eq!(sent(&mut bench, port(1), 0..100) as u64, PORT);
    for (millis, new) in [(1, 1), (2, 1), (7, 5), (1_007, PORT)] {
        bench.now = start + Duration::from_millis(millis);
        let first = 1_000 * u32::try_from(millis).expect("small");
        assert_eq!(sent(&mut bench, port(1), first..first + 100) as u64, new, "{millis} ms");
    }
}

#[test]
fn decisions_that_a_change_made_stale_are_renewed_before_new_ones_are_made() {
    let mut bench = bench();
    assert_eq!(sent(&mut bench, port(1), 0..10), 10);
    assert_eq!(sent(&mut bench, port(1), 1_000..2_000) as u64, PORT - 10);
    bench.netdev("br", 20, VlanMode::Trunk);
    assert_eq!(sent(&mut bench, port(1), 2_000..3_000), 0, "nobody knows these");
    let before = bench.worker.counters().misses;
    assert_eq!(sent(&mut bench, port(1), 0..10), 10, "a port more leaves no decision standing");
    assert_eq!(bench.worker.counters().misses, before + 10);
    assert_eq!(sent(&mut bench, port(1), 0..10), 10, "known again");
    assert_eq!(bench.worker.counters().misses, before + 10);
}

#[test]
fn a_tunnel_is_bounded_by_endpoint() {
    let mut bench = bench();
    assert_eq!(sent(&mut bench, endpoint(2), 0..1_000) as u64, ENDPOINT);
    assert_eq!(sent(&mut bench, endpoint(3), 1_000..1_100), 100, "another node's new flows");
    assert_eq!(sent(&mut bench, endpoint(2), 0..100), 100, "what is known of the one that scans");
    assert_eq!(refused(&mut bench), 1_000 - ENDPOINT);
}

#[test]
fn what_one_machine_or_node_may_start_at_once_passes_the_usual_limit() {
    let mut bench = bench();
    bench.worker = Worker::new();
    assert_eq!(sent(&mut bench, port(1), 0..6_000), 6_000);
    assert_eq!(sent(&mut bench, endpoint(2), 10_000..30_000), 20_000);
    assert_eq!(refused(&mut bench), 0);
}
