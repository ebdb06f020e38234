//! Writes to packets whose transport checksum is only begun: finished afterwards, they are what a complete one became.

use proptest::prelude::*;

use super::*;
use crate::datapath::offload::{Segments, complete};

/// Finishes what is sent as a port does: cut into segments, or with its checksum completed.
#[derive(Default)]
struct Finisher(Vec<Vec<u8>>);

impl Egress for Finisher {
    fn transmit(&mut self, _: DpPort, _: Option<&TunnelMeta>, packet: &mut Packet<'_>) {
        match Segments::of(packet).expect("it can be cut") {
            Some(segments) => {
                for index in 0..segments.count() {
                    let mut octets = vec![0; segments.header_len()];
                    let mut payload = Vec::new();
                    segments.cut(packet, index, &mut octets, |piece| payload.extend_from_slice(piece));
                    octets.extend(payload);
                    self.0.push(octets);
                }
            }
            None => {
                complete(packet).expect("its word is good");
                self.0.push(packet.head().to_vec());
            }
        }
    }
}

/// A frame of this transport, its checksum complete or only begun; and where that is.
fn frame(v6: bool, protocol: u8, payload: &[u8], begun: bool) -> (Vec<u8>, Checksum) {
    let (mut transport, offset) = match protocol {
        6 => (hex("0102 0304 00000005 00000006 5010 0100 0000 0000"), 16),
        17 => (hex("0102 0304 0000 0000"), 6),
        // A solicitation, whose addresses and option flows rewrite.
        _ => (hex("87000000 00000000 fd000000000000000000000000000009 0101020000000001"), 2),
    };
    if protocol != 58 {
        transport.extend_from_slice(payload);
    }
    let length = u16::try_from(transport.len()).expect("short");
    if protocol == 17 {
        transport[4..6].copy_from_slice(&length.to_be_bytes());
    }
    let mut packet = if v6 {
        let mut header = hex("60000000 0000 00 40 fd000000000000000000000000000001 fd000000000000000000000000000002");
        header[4..6].copy_from_slice(&length.to_be_bytes());
        header[6] = protocol;
        header
    } else {
        let mut header = hex("4500 0000 1234 4000 40 00 0000 0a000001 0a000002");
        header[2..4].copy_from_slice(&(length + 20).to_be_bytes());
        header[9] = protocol;
        let sum = checksum::of(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    };
    let addresses = if v6 { packet[8..40].to_vec() } else { packet[12..20].to_vec() };
    let (source, destination) = addresses.split_at(addresses.len() / 2);
    let pseudo = checksum::pseudo(source, destination, protocol, transport.len());
    let sum = if begun { checksum::fold(pseudo) } else { !checksum::fold(checksum::add(pseudo, &transport)) };
    transport[offset..offset + 2].copy_from_slice(&sum.to_be_bytes());
    let start = u16::try_from(14 + packet.len()).expect("short");
    packet.extend(transport);
    let ether_type = hex(if v6 { "86dd" } else { "0800" });
    let checksum = Checksum::Partial { start, offset: u16::try_from(offset).expect("few") };
    ([hex("020000000002 020000000001"), ether_type, packet].concat(), checksum)
}

fn sent(flow: &str, (frame, checksum): (Vec<u8>, Checksum), segmentation: Option<Segmentation>) -> Vec<Vec<u8>> {
    let mut bench = Bench::new(2);
    bench.add(&[flow]);
    let mut room = [vec![0; HEADROOM], frame].concat();
    let end = room.len();
    let offload = Offload { checksum, segmentation, header_len: 0 };
    let mut packet = Packet::new(&mut room, HEADROOM, end, &[], offload);
    let mut finisher = Finisher::default();
    let ingress = Ingress { port: DpPort(1), tunnel: None };
    bench.worker.process(&bench.switch, &ingress, &mut packet, bench.now, &mut finisher);
    finisher.0
}

/// Zero has two forms in ones' complement; which one is left depends on the way there.
fn with_one_zero(mut frame: Vec<u8>, at: usize) -> Vec<u8> {
    if frame[at..at + 2] == [0xff, 0xff] {
        frame[at..at + 2].fill(0);
    }
    frame
}

const fn matching(v6: bool, protocol: u8) -> &'static str {
    match (v6, protocol) {
        (false, 6) => "tcp",
        (false, _) => "udp",
        (true, 6) => "tcp6",
        (true, 17) => "udp6",
        (true, _) => "icmp6,icmp_type=135",
    }
}

/// The actions that a mask of bits chooses for a packet.
fn actions(v6: bool, protocol: u8, chosen: u16, value: u16) -> String {
    let [high, low] = value.to_be_bytes();
    let ports = [format!("mod_tp_src:{value}"), format!("mod_tp_dst:{low}")];
    let network = if v6 {
        [format!("set_field:fd00::{value:x}->ipv6_src"), format!("set_field:2001:db8:{value:x}::1->ipv6_dst")]
    } else {
        [format!("mod_nw_src:10.9.{high}.{low}"), format!("mod_nw_dst:192.{low}.{high}.1")]
    };
    let payload = if protocol == 58 {
        [format!("set_field:fd00::{value:x}->nd_target"), format!("set_field:02:00:00:00:{high:02x}:{low:02x}->nd_sll")]
    } else {
        ports
    };
    let other = [
        "dec_ttl".to_owned(),
        format!("mod_nw_tos:{}", low & 0xfc),
        "mod_vlan_vid:7".to_owned(),
        "push_vlan:0x8100".to_owned(),
    ];
    let all = network.into_iter().chain(payload).chain(other);
    all.enumerate().filter(|(bit, _)| chosen >> bit & 1 != 0).map(|(_, action)| action + ",").collect()
}

proptest! {
    #[test]
    fn what_was_begun_ends_as_what_was_complete(
        (v6, protocol) in prop_oneof![
            (any::<bool>(), prop_oneof![Just(6_u8), Just(17)]), Just((true, 58))
        ],
        payload in proptest::collection::vec(any::<u8>(), 0..40),
        (chosen, value) in any::<(u16, u16)>(),
    ) {
        let flow = format!("{} actions={}output:2", matching(v6, protocol), actions(v6, protocol, chosen, value));
        let (complete, _) = frame(v6, protocol, &payload, false);
        let begun = frame(v6, protocol, &payload, true);
        let Checksum::Partial { start, offset } = begun.1 else { unreachable!("as made above") };
        let finished = sent(&flow, begun, None);
        let wanted = sent(&flow, (complete.clone(), Checksum::Complete), None);
        prop_assert_eq!(finished.len(), 1, "{}", flow);
        let tags = wanted[0].len() - complete.len();
        let at = usize::from(start + offset) + tags;
        prop_assert_eq!(with_one_zero(finished[0].clone(), at), with_one_zero(wanted[0].clone(), at), "{}", flow);
    }

    #[test]
    fn what_is_cut_after_a_write_is_sound(v6 in any::<bool>(), tcp in any::<bool>(), chosen: u16, value: u16, size in 5_u16..40) {
        let (protocol, kind) = match (tcp, v6) {
            (true, false) => (6, SegmentKind::TcpV4),
            (true, true) => (6, SegmentKind::TcpV6),
            (false, _) => (17, SegmentKind::Udp),
        };
        // No tags: the twin below reads at fixed places.
        let flow = format!("{} actions={}output:2", matching(v6, protocol), actions(v6, protocol, chosen & 0x3f, value));
        let segmentation = Segmentation { kind, size, ecn: false, fixed_id: false };
        let cut = sent(&flow, frame(v6, protocol, &[9; 100], true), Some(segmentation));
        prop_assert_eq!(cut.len(), 100_usize.div_ceil(usize::from(size)));
        for segment in cut {
            let (addresses, at) = if v6 { (22..54, 54) } else { (26..34, 34) };
            let (source, destination) = segment[addresses.clone()].split_at(addresses.len() / 2);
            let pseudo = checksum::pseudo(source, destination, protocol, segment.len() - at);
            prop_assert_eq!(checksum::fold(checksum::add(pseudo, &segment[at..])), 0xffff);
            prop_assert!(v6 || checksum::of(&segment[14..34]) == 0);
            if chosen & 4 != 0 {
                prop_assert_eq!(&segment[at..at + 2], &value.to_be_bytes());
            }
        }
    }
}
