//! The megaflow a trace prints: it is for the packet traced, and right for every other packet it is for.

use proptest::prelude::*;

use super::properties::{bench, cases};
use super::random::{Dice, flow, frame};
use super::*;
use crate::datapath::extract::extract;
use crate::datapath::key::{self, Key, Place};
use crate::datapath::matching::Match;
use crate::datapath::text::{FlowText, NumbersOnly, Use};

/// A frame, the number of the port it comes in by, and what its tunnel said.
#[derive(Clone, Debug)]
struct Arrival {
    in_port: u32,
    tunnel: Option<TunnelMeta>,
    octets: Vec<u8>,
}

/// What a word of a megaflow says of a place, if it is one that no flow may say: part of an outer TOS, an inner tag.
fn demand(word: &str) -> Option<(Place, u128, u128)> {
    let number = |text: &str| u128::from_str_radix(text.trim_start_matches("0x"), 16).expect("a number");
    let decimal = |text: &str| text.parse::<u128>().expect("a number");
    let present = u128::from(key::TCI_PRESENT);
    match word.split_once('=')? {
        ("tun_tos", value) => value.split_once('/').map(|(bits, mask)| (key::TUN_TOS, number(bits), number(mask))),
        ("dl_vlan1", vid) => Some((key::INNER_TCI, decimal(vid) | present, 0xfff | present)),
        ("dl_vlan_pcp1", pcp) => Some((key::INNER_TCI, decimal(pcp) << 13 | present, 0xe000 | present)),
        ("vlan_tci1", value) => {
            let (bits, mask) = value.split_once('/').unwrap_or((value, "0xffff"));
            Some((key::INNER_TCI, number(bits), number(mask)))
        }
        _ => None,
    }
}

/// Reads a megaflow back. It may say what no flow may: that is read here.
fn read(megaflow: &str) -> Match {
    let masked = |word: &str| demand(word).is_some();
    let (bits, words): (Vec<&str>, Vec<&str>) = megaflow.split(',').partition(|word| masked(word));
    let text = words.join(",");
    let read = FlowText::parse(&text, Use::Packet, &NumbersOnly);
    let mut matching = read.unwrap_or_else(|error| panic!("{error}: {text}")).matching;
    for (place, value, mask) in bits.into_iter().filter_map(demand) {
        matching.demand(place, value, mask);
    }
    matching
}

impl Arrival {
    fn random(dice: &mut Dice) -> Self {
        let rolled = dice.roll(5);
        let src = [10, 0, 0, 2 + u8::try_from(rolled & 1).expect("small")];
        let tos = [0, 1, 2, 3][usize::try_from(dice.roll(4)).expect("small")];
        let meta = TunnelMeta { id: 7 + dice.roll(2), src: src.into(), dst: [10, 0, 0, 1].into(), tos, ttl: 64 };
        let octets = frame(dice);
        match rolled {
            0 | 1 => Self { in_port: 11 + u32::from(rolled == 1), tunnel: Some(meta), octets },
            _ => Self { in_port: u32::try_from(rolled - 1).expect("small"), tunnel: None, octets },
        }
    }

    fn key(&self) -> Key {
        let mut octets = self.octets.clone();
        let end = octets.len();
        let ingress = Ingress { port: DpPort(self.in_port), tunnel: self.tunnel };
        extract(&ingress, &Packet::new(&mut octets, 0, end, &[], Offload::default())).0
    }

    /// The megaflow that a trace prints for it, and all it prints of what is done to its packets.
    fn trace(&self, bench: &mut Bench) -> (Match, String) {
        let input = TraceInput::Frame { in_port: self.in_port, tunnel: self.tunnel, octets: self.octets.clone() };
        let now = bench.now;
        let text = bench.switch().trace(&name("br"), &input, false, now).expect("a bridge");
        let (_, rest) = text.split_once("\nMegaflow: recirc_id=0,eth,").expect("every trace has one");
        let (megaflow, done) = rest.split_once('\n').expect("there is a next line");
        (read(megaflow), done.to_owned())
    }

    /// Another that differs a little, or altogether.
    fn mutate(&self, dice: &mut Dice) -> Self {
        if dice.roll(8) == 0 {
            return Self::random(dice);
        }
        let mut other = self.clone();
        for _ in 0..1 + dice.roll(3) {
            let at = usize::try_from(dice.roll(other.octets.len() as u64)).expect("small");
            match dice.roll(16) {
                0 if at > 0 => other.octets.truncate(at),
                1..=4 => other.octets[at] = u8::try_from(dice.roll(256)).expect("an octet"),
                _ => other.octets[at] ^= 1 << dice.roll(8),
            }
        }
        if let Some(tunnel) = &mut other.tunnel
            && dice.roll(4) == 0
        {
            (tunnel.id, tunnel.tos) = (tunnel.id ^ dice.roll(2), u8::try_from(dice.roll(4)).expect("small"));
            tunnel.ttl = u8::try_from(dice.roll(256)).expect("an octet");
        }
        other
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn a_printed_megaflow_is_right_for_all_its_packets(
        seeds in proptest::collection::vec(any::<u64>(), 1..12),
        packet in any::<u64>(),
    ) {
        let mut bench = bench();
        let flows: Vec<String> = seeds.iter().map(|seed| flow(&mut Dice(*seed))).collect();
        bench.add(&flows.iter().map(String::as_str).collect::<Vec<_>>());
        let mut dice = Dice(packet);
        let arrival = Arrival::random(&mut dice);
        // Something is known to `NORMAL` and was learned before.
        for _ in 0..3 {
            let Arrival { octets, .. } = Arrival::random(&mut dice);
            bench.send(1 + u32::try_from(dice.roll(4)).expect("small"), &octets);
        }
        let (megaflow, done) = arrival.trace(&mut bench);
        prop_assert!(megaflow.covers(&arrival.key()), "{:?} is not for its own packet {:?}", megaflow, arrival);
        for _ in 0..60 {
            let other = arrival.mutate(&mut dice);
            if megaflow.covers(&other.key()) {
                let (_, others) = other.trace(&mut bench);
                prop_assert_eq!(&done, &others, "{:?} and {:?} of {:?}", arrival, other, flows);
            }
        }
    }
}

/// The megaflow's text for a packet in text.
fn megaflow(flows: &[&str], packet: &str) -> String {
    let mut bench = Bench::new(2);
    bench.add(flows);
    let now = bench.now;
    let text = bench.switch().trace(&name("br"), &TraceInput::Flow(packet.to_owned()), false, now).expect("a packet");
    let (_, rest) = text.split_once("\nMegaflow: recirc_id=0,eth,").expect("every trace has one");
    rest.split_once('\n').expect("there is a next line").0.to_owned()
}

#[test]
fn a_stage_that_decides_keeps_later_ones_out() {
    let flows = [
        "priority=9,dl_dst=02:00:00:00:00:09,tcp,nw_dst=10.0.0.9,tp_dst=80 actions=drop",
        "priority=8,in_port=2,udp,tp_src=5 actions=drop",
        "priority=0 actions=output:2",
    ];
    let told = |packet: &str| megaflow(&flows, packet);
    assert_eq!(
        told("in_port=1,tcp,dl_dst=02:00:00:00:00:01,nw_dst=10.0.0.1,tp_dst=80"),
        "ip,in_port=1,dl_dst=02:00:00:00:00:01,nw_frag=no",
        "no flow is for that destination: neither address nor port are looked at"
    );
    assert_eq!(
        told("in_port=1,tcp,dl_dst=02:00:00:00:00:09,nw_dst=10.0.0.1,tp_dst=80"),
        "tcp,in_port=1,dl_dst=02:00:00:00:00:09,nw_dst=10.0.0.1,nw_frag=no"
    );
    assert_eq!(
        told("in_port=1,tcp,dl_dst=02:00:00:00:00:09,nw_dst=10.0.0.9,tp_dst=81"),
        "tcp,in_port=1,dl_dst=02:00:00:00:00:09,nw_dst=10.0.0.9,nw_frag=no,tp_dst=81"
    );
}
