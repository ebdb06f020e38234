//! Cached against uncached while everything a decision rests on changes between packets.

use proptest::prelude::*;

use super::properties::{cases, state, uncached};
use super::random::{Dice, filter, flow, frame};
use super::*;
use crate::types::VlanId;

fn vlan(id: u32) -> VlanId {
    VlanId::new(id).expect("legal")
}

/// Ports that come and go, each with its bridge.
fn ports() -> Vec<(&'static str, NewPort)> {
    let netdev = |number| NewPortKind::Netdev { dp: DpPort(number) };
    let patch = |peer| NewPortKind::Patch { peer: name(peer) };
    let tunnel =
        |last| NewPortKind::Vxlan { dp: DpPort(9), local: [10, 0, 0, 1].into(), remote: [10, 0, 0, last].into() };
    let native = VlanMode::Native { tag: vlan(1), trunks: vec![vlan(2)] };
    let all = [
        ("br", "p1", netdev(1), VlanMode::Trunk, 1),
        ("br", "p2", netdev(2), VlanMode::Access(vlan(1)), 2),
        ("br", "p3", netdev(3), VlanMode::Trunk, 3),
        ("br", "to", patch("from"), VlanMode::Trunk, 10),
        ("br", "tun2", tunnel(2), VlanMode::Trunk, 11),
        ("br", "tun3", tunnel(3), VlanMode::Access(vlan(2)), 12),
        ("other", "p4", netdev(4), VlanMode::Access(vlan(1)), 4),
        ("other", "p5", netdev(5), VlanMode::Trunks(vec![vlan(1), vlan(2)]), 5),
        ("other", "p6", netdev(6), native, 6),
        ("other", "from", patch("to"), VlanMode::Trunk, 10),
        ("other", "up", patch("down"), VlanMode::Trunk, 11),
        ("third", "p7", netdev(7), VlanMode::Trunk, 7),
        ("third", "p8", netdev(8), VlanMode::Access(vlan(2)), 8),
        ("third", "down", patch("up"), VlanMode::Trunk, 11),
        ("third", "tun4", tunnel(4), VlanMode::Trunk, 12),
    ];
    let port =
        |(bridge, own, kind, vlan, number)| (bridge, NewPort { name: name(own), kind, vlan, number: Some(number) });
    all.into_iter().map(port).collect()
}

/// Three bridges in a row, all ports there.
fn bench() -> Bench {
    let mut bench = Bench::new(0);
    for other in ["other", "third"] {
        bench.switch().add_bridge(&name(other), BridgeMode::Normal).expect("a new bridge");
    }
    for (bridge, port) in ports() {
        bench.switch().add_port(&name(bridge), port).expect("a new port");
    }
    bench
}

fn ingress(dice: &mut Dice) -> Ingress {
    match dice.roll(11) {
        rolled @ 0..=2 => {
            let src = [10, 0, 0, 2 + u8::try_from(rolled).expect("small")];
            let tunnel =
                TunnelMeta { id: 7 + dice.roll(2), src: src.into(), dst: [10, 0, 0, 1].into(), tos: 0, ttl: 64 };
            Ingress { port: DpPort(9), tunnel: Some(tunnel) }
        }
        rolled => Ingress { port: DpPort(u32::try_from(rolled - 2).expect("small")), tunnel: None },
    }
}

fn change(dice: &mut Dice) -> FlowChange {
    let text = flow(dice);
    let head = text.split_once(" actions=").expect("it has actions").0.to_owned();
    match dice.roll(7) {
        0 => FlowChange::Delete(filter(dice)),
        1 => FlowChange::DeleteStrict(head),
        2 => FlowChange::ModifyStrict(text),
        3 => FlowChange::Modify(text),
        _ => FlowChange::Add(text),
    }
}

/// Takes a port away, or puts it back; perhaps with other VLANs.
fn toggle(bench: &mut Bench, dice: &mut Dice) {
    let mut ports = ports();
    let (bridge, mut port) = ports.swap_remove(usize::try_from(dice.roll(ports.len() as u64)).expect("small"));
    let removed = bench.switch().del_port(&name(bridge), &port.name).is_ok();
    let other = dice.roll(3);
    if other == 0 {
        port.vlan = [VlanMode::Trunk, VlanMode::Access(vlan(1)), VlanMode::Access(vlan(2))]
            [usize::try_from(dice.roll(3)).expect("small")]
        .clone();
    }
    if !removed || other == 0 {
        bench.switch().add_port(&name(bridge), port).expect("its place is free");
    }
}

/// What a step did that can be compared.
#[derive(Debug, PartialEq)]
enum Seen {
    Sent(Vec<Sent>),
    Changed(Result<usize, SwitchError>),
    State(Vec<String>),
}

fn step(
    bench: &mut Bench,
    seed: u64,
    frames: &[Vec<u8>],
    send: impl Fn(&mut Bench, &Ingress, &[u8]) -> Vec<Sent>,
) -> Seen {
    let mut dice = Dice(seed);
    let kind = dice.roll(30);
    if kind < 8 {
        // Counters that no one asked for are lost with a flow or a patch.
        let now = bench.now;
        bench.worker.push_stats(&bench.switch, now);
    }
    match kind {
        0..=3 => {
            let bridge = dice.pick(&["br", "br", "other", "third"]);
            let changes: Vec<FlowChange> = (0..1 + dice.roll(3)).map(|_| change(&mut dice)).collect();
            let now = bench.now;
            Seen::Changed(bench.switch().change_flows(&name(bridge), &changes, now))
        }
        4 => {
            toggle(bench, &mut dice);
            Seen::State(Vec::new())
        }
        5..=7 => {
            let most = if dice.roll(8) == 0 { 310_000 } else { 4_000 };
            bench.now = bench.now + core::time::Duration::from_millis(1 + dice.roll(most));
            let now = bench.now;
            bench.switch().expire(now);
            Seen::State(state(bench))
        }
        _ => {
            let frame = &frames[usize::try_from(dice.roll(frames.len() as u64)).expect("small")];
            Seen::Sent(send(bench, &ingress(&mut dice), frame))
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn cached_equals_uncached_whatever_changes(
        seeds in proptest::collection::vec(any::<u64>(), 0..8),
        steps in proptest::collection::vec(any::<u64>(), 1..200),
        packets in any::<u64>(),
    ) {
        let flows: Vec<String> = seeds.iter().map(|seed| flow(&mut Dice(*seed))).collect();
        let mut dice = Dice(packets);
        let frames: Vec<Vec<u8>> = (0..10).map(|_| frame(&mut dice)).collect();
        let (mut fast, mut slow) = (bench(), bench());
        for bench in [&mut fast, &mut slow] {
            bench.add(&["priority=0 actions=NORMAL"]);
            bench.add(&flows.iter().map(String::as_str).collect::<Vec<_>>());
        }
        for seed in steps {
            let seen = step(&mut fast, seed, &frames, |bench, ingress, frame| bench.send_with(*ingress, frame));
            let wanted = step(&mut slow, seed, &frames, uncached);
            prop_assert_eq!(seen, wanted);
        }
        let (fast, slow) = (state(&mut fast), state(&mut slow));
        prop_assert_eq!(fast, slow);
    }
}
