//! What a Neutron node runs.

use super::*;

/// br-tun of a node with two GRE tunnels; the learned flow of table 20 included.
const BR_TUN: &str = include_str!("../../../tests/data/br-tun-gre.flows");

/// The learned flow of the file.
const LEARNED: &str = "table=20,hard_timeout=300";

fn br_tun(learned: bool) -> Bench {
    let mut bench = Bench::new(1);
    let tunnels = [(2, [10, 0, 0, 2]), (3, [10, 0, 0, 3])];
    for (number, remote) in tunnels {
        let kind = NewPortKind::Vxlan { dp: DpPort(9), local: [10, 0, 0, 1].into(), remote: remote.into() };
        let port = NewPort { name: name(&format!("gre-{number}")), kind, vlan: VlanMode::Trunk, number: Some(number) };
        bench.switch().add_port(&name("br"), port).expect("a new port");
    }
    let flows: Vec<&str> = BR_TUN.lines().filter(|line| learned || !line.starts_with(LEARNED)).collect();
    bench.add(&flows);
    bench
}

/// A line without its statistics, as the file has it.
fn plain(line: &str) -> String {
    let kept = |part: &&str| {
        let part = part.trim();
        !["cookie=", "duration=", "n_packets=", "n_bytes=", "idle_age=", "hard_age="]
            .iter()
            .any(|stat| part.starts_with(stat))
    };
    let (head, rest) = line.split_once("priority=").expect("a priority");
    let head: Vec<&str> = head.split(", ").filter(kept).map(str::trim).filter(|part| !part.is_empty()).collect();
    format!("{},priority={rest}", head.join(","))
}

fn dump(bench: &mut Bench) -> Vec<String> {
    let now = bench.now;
    bench.worker.push_stats(&bench.switch, now);
    let flows = bench.switch().dump_flows(&name("br"), "", false, now).expect("a bridge");
    let mut lines: Vec<String> = flows.iter().map(|flow| plain(&flow.line)).collect();
    lines.sort();
    lines
}

fn expected() -> Vec<String> {
    let mut lines: Vec<String> = BR_TUN.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn neutrons_br_tun_dumps_back_as_it_was_loaded() {
    assert_eq!(dump(&mut br_tun(true)), expected());
}

#[test]
fn neutrons_br_tun_learns_the_flow_that_the_node_had_learned() {
    let mut bench = br_tun(false);
    let frame = hex("ffffffffffff fa163e1f1955 0806 0001 0800 06 04 0001 fa163e1f1955 0a000002 000000000000 0a000001");
    let tunnel = TunnelMeta { id: 0x1388, src: [10, 0, 0, 3].into(), dst: [10, 0, 0, 1].into(), tos: 0, ttl: 64 };
    let sent = bench.send_with(Ingress { port: DpPort(9), tunnel: Some(tunnel) }, &frame);
    let mut tagged = frame.clone();
    tagged.splice(12..12, hex("8100 0001"));
    assert_eq!(sent, [Sent { port: 1, tunnel: None, octets: tagged }]);
    assert_eq!(dump(&mut bench), expected());

    let mut reply = frame.clone();
    reply[..12].copy_from_slice(&hex("fa163e1f1955 fa163e000001"));
    let mut tagged_reply = reply.clone();
    tagged_reply.splice(12..12, hex("8100 0001"));
    let sent = bench.send(1, &tagged_reply);
    let back = TunnelMeta { id: 0x1388, src: [10, 0, 0, 1].into(), dst: [10, 0, 0, 3].into(), tos: 0, ttl: 64 };
    assert_eq!(sent, [Sent { port: 9, tunnel: Some(back), octets: reply }]);
}

#[test]
fn what_is_learned_lives_while_it_is_seen() {
    let mut bench = br_tun(false);
    let frame = hex("ffffffffffff fa163e1f1955 88b5 00");
    let tunnel = TunnelMeta { id: 0x1388, src: [10, 0, 0, 3].into(), dst: [10, 0, 0, 1].into(), tos: 0, ttl: 64 };
    for _ in 0..500 {
        bench.send_with(Ingress { port: DpPort(9), tunnel: Some(tunnel) }, &frame);
        bench.now = bench.now + core::time::Duration::from_secs(1);
        let now = bench.now;
        bench.worker.push_stats(&bench.switch, now);
        assert_eq!(bench.switch().expire(now), 0, "it was refreshed a second ago");
    }
    let counters = bench.worker.counters();
    assert_eq!(counters.misses, 2, "the first frame learned, the second saw what was learned: {counters:?}");
    bench.now = bench.now + core::time::Duration::from_secs(300);
    let now = bench.now;
    assert_eq!(bench.switch().expire(now), 1);
}
