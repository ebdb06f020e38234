//! What must hold for every table and every frame.

use proptest::prelude::*;

use super::random::{Dice, filter, flow, frame, ingress};
use super::*;
use crate::datapath::classifier::Classifier;
use crate::datapath::execute::execute;
use crate::datapath::extract::extract;
use crate::datapath::key::{Bits, Key};
use crate::datapath::matching::{Kept, Match};
use crate::datapath::revision::{Parts, Revisions};
use crate::datapath::text::{FlowText, NumbersOnly, Read, Use};

/// Two bridges with a patch and tunnels: what [`random`] knows.
pub(super) fn bench() -> Bench {
    let mut bench = Bench::new(3);
    bench.switch().add_bridge(&name("other"), BridgeMode::Normal).expect("a new bridge");
    bench.netdev("other", 4, VlanMode::Access(crate::types::VlanId::MIN));
    let port = |own: &str, kind, number| NewPort { name: name(own), kind, vlan: VlanMode::Trunk, number: Some(number) };
    let patch = |peer: &str| NewPortKind::Patch { peer: name(peer) };
    let tunnel =
        |last| NewPortKind::Vxlan { dp: DpPort(9), local: [10, 0, 0, 1].into(), remote: [10, 0, 0, last].into() };
    for (bridge, new) in [
        ("br", port("to", patch("from"), 10)),
        ("other", port("from", patch("to"), 10)),
        ("br", port("tun2", tunnel(2), 11)),
        ("br", port("tun3", tunnel(3), 12)),
    ] {
        bench.switch().add_port(&name(bridge), new).expect("a new port");
    }
    bench
}

/// The slow twin: every frame walks the tables, every effect is had at once.
pub(super) fn uncached(bench: &mut Bench, ingress: &Ingress, frame: &[u8]) -> Vec<Sent> {
    let mut room = vec![0; HEADROOM];
    room.extend_from_slice(frame);
    let end = room.len();
    let mut packet = Packet::new(&mut room, HEADROOM, end, &[], Offload::default());
    let (key, layout) = extract(ingress, &packet);
    let now = bench.now;
    let switch = bench.switch();
    let verdict = switch.walk(ingress, &key, now, true);
    let size = (1, frame.len() as u64);
    switch.credit(&verdict.flows, size, now);
    for effect in &verdict.effects {
        switch.affect_cached(effect, size, now);
    }
    if let Some(reason) = verdict.drop {
        switch.count(reason, 1);
    }
    let mut wire = Wire::default();
    if let Some(reason) = execute(&verdict.actions, &mut packet, layout, &mut wire) {
        bench.switch().count(reason, 1);
    }
    wire.0
}

/// Everything a switch can be asked, at an instant.
pub(super) fn state(bench: &mut Bench) -> Vec<String> {
    let now = bench.now;
    bench.worker.push_stats(&bench.switch, now);
    let mut lines = Vec::new();
    let switch = bench.switch();
    for bridge in switch.bridges().into_iter().map(|view| view.name) {
        let flows = switch.dump_flows(&bridge, "", false, now).expect("a bridge");
        lines.extend(flows.into_iter().map(|flow| flow.line));
        lines.extend(switch.fdb(&bridge, now).expect("a bridge").into_iter().map(|entry| format!("{entry:?}")));
    }
    lines.extend(switch.bridges().into_iter().map(|view| format!("{view:?}")));
    // What could not be learned is counted once a decision, and the cache is there to decide less often.
    let drops = switch.drops().into_iter().filter(|(reason, _)| reason != "learn-limit" && reason != "fdb-full");
    lines.extend(drops.map(|drop| format!("{drop:?}")));
    lines
}

/// Does one step to a switch; packets are sent by `send`.
fn step(
    bench: &mut Bench,
    seed: u64,
    frames: &[Vec<u8>],
    send: impl Fn(&mut Bench, &Ingress, &[u8]) -> Vec<Sent>,
) -> Vec<Sent> {
    let mut dice = Dice(seed);
    let now = bench.now;
    match dice.roll(60) {
        0 => {
            let changes = [FlowChange::Add(flow(&mut dice))];
            // A flow in another's place is idle for as long as that one was, as far as it was told (up to a second late).
            bench.worker.push_stats(&bench.switch, now);
            bench.switch().change_flows(&name("br"), &changes, now).expect("a legal flow");
        }
        1 => {
            let changes = [FlowChange::Delete(filter(&mut dice))];
            // Counters that no one asked for are lost with a flow: settle them first, as `del-flows` does.
            bench.worker.push_stats(&bench.switch, now);
            bench.switch().change_flows(&name("br"), &changes, now).expect("a legal filter");
        }
        2 => {
            // A port goes and comes back.
            bench.worker.push_stats(&bench.switch, now);
            let number = 2;
            if bench.switch().del_port(&name("br"), &name("p2")).is_err() {
                bench.netdev("br", number, VlanMode::Trunk);
            }
        }
        3 | 4 => {
            bench.worker.push_stats(&bench.switch, now);
            bench.now = now + core::time::Duration::from_millis(1 + dice.roll(4_000));
            let now = bench.now;
            bench.switch().expire(now);
        }
        _ => {
            let frame = &frames[usize::try_from(dice.roll(frames.len() as u64)).expect("small")];
            return send(bench, &ingress(&mut dice), frame);
        }
    }
    Vec::new()
}

/// Cases of the dearest properties; `DVR_PROPERTY_CASES` asks for more.
pub(super) fn cases() -> u32 {
    std::env::var("DVR_PROPERTY_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn cached_equals_uncached(seeds in proptest::collection::vec(any::<u64>(), 1..12), steps in proptest::collection::vec(any::<u64>(), 1..150), packets in any::<u64>()) {
        let flows: Vec<String> = seeds.iter().map(|seed| flow(&mut Dice(*seed))).collect();
        let mut dice = Dice(packets);
        let frames: Vec<Vec<u8>> = (0..12).map(|_| frame(&mut dice)).collect();
        let (mut fast, mut slow) = (bench(), bench());
        for bench in [&mut fast, &mut slow] {
            bench.add(&flows.iter().map(String::as_str).collect::<Vec<_>>());
        }
        for seed in steps {
            let sent = step(&mut fast, seed, &frames, |bench, ingress, frame| bench.send_with(*ingress, frame));
            let wanted = step(&mut slow, seed, &frames, uncached);
            prop_assert_eq!(sent, wanted);
        }
        let (fast, slow) = (state(&mut fast), state(&mut slow));
        prop_assert_eq!(fast, slow);
    }

    #[test]
    fn flows_print_as_they_are_read(seed in any::<u64>()) {
        let text = flow(&mut Dice(seed));
        let print = |text: &str| {
            let mut bench = Bench::new(0);
            bench.add(&[text]);
            let now = bench.now;
            bench.switch().dump_flows(&name("br"), "", false, now).expect("a bridge").remove(0).line
        };
        let printed = print(&text);
        prop_assert_eq!(print(printed.trim()), printed.clone(), "of {}", text);
    }

    /// Input: a list of flows, each followed by itself with one letter another, so that most words repeat the line before and
    /// some only nearly; for each of the purposes that change between lines. Output: each reads as it does alone, or fails so.
    #[test]
    fn a_flow_of_a_list_reads_as_it_does_alone(
        flows in proptest::collection::vec((any::<u64>(), any::<proptest::sample::Index>(), any::<proptest::sample::Index>()), 1..12),
    ) {
        const LETTERS: [&str; 12] = ["", ",", " ", "(", ")", "=", ":", "\"", "0", "1", "a", "->"];
        let flow = |(seed, at, letter): &(u64, proptest::sample::Index, proptest::sample::Index)| {
            let text = flow(&mut Dice(*seed));
            let at = at.index(text.len());
            let other = format!("{}{}{}", &text[..at], letter.get(&LETTERS), &text[at + 1..]);
            [text.clone(), other, text]
        };
        let list: Vec<String> = flows.iter().flat_map(flow).collect();
        let mut read = Read::default();
        for (line, purpose) in list.iter().zip([Use::Add, Use::Add, Use::Modify, Use::Add, Use::Packet].into_iter().cycle()) {
            let alone = FlowText::parse(line, purpose, &NumbersOnly);
            let among = FlowText::parse_among(line, purpose, &NumbersOnly, &mut read);
            prop_assert_eq!(format!("{among:?}"), format!("{alone:?}"), "{:?} of {}", purpose, line);
        }
    }

    #[test]
    fn the_classifier_equals_a_linear_scan(seeds in proptest::collection::vec(any::<u64>(), 1..80), packets in any::<u64>()) {
        let revisions = std::sync::Arc::new(Revisions::default());
        let mut tables = table::Tables::new(0, std::sync::Arc::clone(&revisions));
        let mut classifier = Classifier::new(0);
        let mut kept: Vec<(Match, u16)> = Vec::new();
        for seed in seeds {
            let text = flow(&mut Dice(seed));
            let parsed = FlowText::parse(&text, Use::Add, &NumbersOnly).expect("a legal flow");
            let one = (parsed.matching.clone(), parsed.priority);
            if kept.contains(&one) {
                classifier.remove(&Kept::of(&one.0), one.1, &revisions);
                kept.retain(|other| *other != one);
            } else {
                let mut matching = Kept::of(&one.0);
                classifier.insert(&mut matching, one.1, tables.dummy(&one.0, one.1), &revisions);
                prop_assert_eq!(matching.whole(), one.0.clone());
                kept.push(one);
            }
        }
        prop_assert_eq!(classifier.len(), kept.len());
        let mut dice = Dice(packets);
        for _ in 0..50 {
            let ingress = ingress(&mut dice);
            let mut octets = frame(&mut dice);
            let end = octets.len();
            let key: Key = extract(&ingress, &Packet::new(&mut octets, 0, end, &[], Offload::default())).0;
            let mut looked_at = Bits::ZERO;
            let found = classifier.lookup(&key, &mut looked_at, &mut Parts::new());
            let best = kept.iter().filter(|(matching, _)| matching.covers(&key)).map(|(_, priority)| *priority).max();
            prop_assert_eq!(found.and_then(|found| tables.get(found)).map(|flow| flow.priority), best);
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_survived(flows in proptest::collection::vec(any::<u64>(), 20), packet in any::<u64>()) {
        let (mut fast, mut slow) = (bench(), bench());
        let flows: Vec<String> = flows.iter().map(|seed| flow(&mut Dice(*seed))).collect();
        for bench in [&mut fast, &mut slow] {
            bench.add(&flows.iter().map(String::as_str).collect::<Vec<_>>());
        }
        let mut dice = Dice(packet);
        let (whole, ingress) = (frame(&mut dice), ingress(&mut dice));
        for length in 0..whole.len() {
            let frame = &whole[..length];
            prop_assert_eq!(fast.send_with(ingress, frame), uncached(&mut slow, &ingress, frame));
        }
    }

    #[test]
    fn random_octets_are_survived(flows in proptest::collection::vec(any::<u64>(), 20), tail in proptest::collection::vec(any::<u8>(), 0..120), kind in 0_usize..6) {
        let mut bench = bench();
        let flows: Vec<String> = flows.iter().map(|seed| flow(&mut Dice(*seed))).collect();
        bench.add(&flows.iter().map(String::as_str).collect::<Vec<_>>());
        let kind = ["", "0800", "0800 45", "86dd 60", "8100 0001 86dd", "0806 0001"][kind];
        let octets = [hex("020000000002 020000000001"), hex(kind), tail].concat();
        bench.send(1, &octets);
    }
}

proptest! {
    #[test]
    fn checksums_stay_right(seeds in proptest::collection::vec(any::<u64>(), 10), packet in any::<u64>()) {
        let mut bench = bench();
        let flows: Vec<String> = seeds.iter().map(|seed| flow(&mut Dice(*seed))).collect();
        bench.add(&flows.iter().map(String::as_str).collect::<Vec<_>>());
        let mut dice = Dice(packet);
        for _ in 0..20 {
            let (frame, ingress) = (frame(&mut dice), ingress(&mut dice));
            for sent in bench.send_with(ingress, &frame) {
                prop_assert_eq!(sums(&sent.octets), sums(&frame), "{:02x?} became {:02x?}", frame, sent.octets);
            }
        }
    }
}

/// What the checksums of a frame say: for the IPv4 header and the transport, whether each is right.
fn sums(frame: &[u8]) -> Vec<bool> {
    let mut at = 12;
    while frame[at..at + 2] == [0x81, 0] {
        at += 4;
    }
    let ip = &frame[at + 2..];
    match frame[at..at + 2] {
        [0x08, 0x00] => {
            let length = usize::from(ip[0] & 15) * 4;
            let header = checksum::fold(checksum::add(0, &ip[..length])) == 0xffff;
            let body = &ip[length..];
            let whole = ip[6] & 0x3f == 0 && ip[7] == 0;
            let pseudo = match ip[9] {
                6 => checksum::pseudo(&ip[12..16], &ip[16..20], 6, body.len()),
                17 if body[6..8] != [0, 0] => checksum::pseudo(&ip[12..16], &ip[16..20], 17, body.len()),
                1 => 0,
                _ => return vec![header],
            };
            if !whole {
                return vec![header];
            }
            vec![header, checksum::fold(checksum::add(pseudo, body)) == 0xffff]
        }
        [0x86, 0xdd] => {
            let body = &ip[40..];
            vec![
                checksum::fold(checksum::add(checksum::pseudo(&ip[8..24], &ip[24..40], ip[6], body.len()), body))
                    == 0xffff,
            ]
        }
        _ => Vec::new(),
    }
}
