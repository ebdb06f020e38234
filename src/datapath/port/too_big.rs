//! What is said to the sender of a frame that does not fit through a tunnel or a link: an ICMP "fragmentation needed" (RFC 792,
//! RFC 1191 §4) or an ICMPv6 "packet too big" (RFC 4443 §3.2), as if from whoever it was sent to, which is what Linux's own
//! tunnel devices say for bridged frames (`skb_tunnel_check_pmtu`, `net/ipv4/ip_tunnel_core.c`).
//!
//! Routed packets come here where less passes than the network's MTU, which their router's interfaces have: their answer
//! goes to the host MAC that they left under, and from there by the router.

use core::time::Duration;

use zerocopy::IntoBytes;

use crate::types::Timestamp;
use crate::wire::{checksum, ethernet, icmp, ipv4, ipv6, prefix};

/// Octets of an IPv4 packet that carries an error, at most (RFC 1812 §4.3.2.3).
const V4_LIMIT: usize = 576;
/// The same for IPv6: its least MTU (RFC 4443 §2.4(c)).
const V6_LIMIT: usize = 1280;
/// The hops an answer may take.
const HOPS: u8 = 64;
/// Tags in front of a packet that are understood.
const TAGS_MAX: usize = 2;

/// The answer to a frame that is too big, for a link whose MTU is `mtu`; `None` if nobody is to be told: it is no IP, or
/// IPv4 that may be fragmented, a fragment other than the first, an error itself, or not from one station to one station.
///
/// Only the octets in `frame` are quoted, which may be the front of it.
pub(super) fn answer(frame: &[u8], mtu: u32) -> Option<Vec<u8>> {
    let (link, mut packet) = prefix::<ethernet::Header>(frame).ok()?;
    let is_group = |mac: [u8; 6]| mac[0] & 1 != 0;
    if is_group(link.destination) || is_group(link.source) {
        return None;
    }
    let mut kind = link.ether_type.get();
    for _ in 0..TAGS_MAX {
        if matches!(kind, ethernet::TYPE_VLAN | ethernet::TYPE_SERVICE_VLAN) {
            let (tag, behind) = packet.split_first_chunk::<{ ethernet::TAG_LEN }>()?;
            kind = u16::from_be_bytes([tag[2], tag[3]]);
            packet = behind;
        }
    }
    let reply = match kind {
        ethernet::TYPE_IPV4 => answer_v4(packet, mtu)?,
        ethernet::TYPE_IPV6 => answer_v6(packet, mtu)?,
        _ => return None,
    };
    // What it is a packet of, tags included, the answer is too.
    let tags = &frame[ethernet::HEADER_LEN..frame.len() - packet.len()];
    let head = ethernet::Header { destination: link.source, source: link.destination, ether_type: link.ether_type };
    Some([head.as_bytes(), tags, &reply].concat())
}

fn answer_v4(packet: &[u8], mtu: u32) -> Option<Vec<u8>> {
    let (header, _) = prefix::<ipv4::Header>(packet).ok()?;
    let behind = packet.get(header.header_len()..)?;
    let is_station = |ip: core::net::Ipv4Addr| !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast();
    let is_error = header.protocol == ipv4::PROTOCOL_ICMP
        && !matches!(behind.first(), Some(&(icmp::V4_ECHO_REPLY | icmp::V4_ECHO_REQUEST)));
    let may_tell = header.fragment.get() & ipv4::FLAG_DF != 0 && !header.is_later_fragment() && !is_error;
    if header.version() != 4 || !may_tell || !is_station(header.source()) || !is_station(header.destination()) {
        return None;
    }
    let quoted = &packet[..packet.len().min(V4_LIMIT - ipv4::HEADER_LEN - 8)];
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    let mut message = vec![icmp::V4_UNREACHABLE, icmp::V4_FRAGMENTATION_NEEDED, 0, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(quoted);
    let sum = checksum::of(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let total = u16::try_from(ipv4::HEADER_LEN + message.len()).ok()?;
    let mut outer = ipv4::Header {
        version_ihl: 0x45,
        tos: 0,
        total_len: total.into(),
        identification: 0.into(),
        fragment: ipv4::FLAG_DF.into(),
        ttl: HOPS,
        protocol: ipv4::PROTOCOL_ICMP,
        checksum: 0.into(),
        source: header.destination,
        destination: header.source,
    };
    outer.checksum = checksum::of(outer.as_bytes()).into();
    Some([outer.as_bytes(), &message].concat())
}

fn answer_v6(packet: &[u8], mtu: u32) -> Option<Vec<u8>> {
    let (header, behind) = prefix::<ipv6::Header>(packet).ok()?;
    let is_station = |ip: core::net::Ipv6Addr| !ip.is_unspecified() && !ip.is_multicast();
    // Errors are the types below 128 (RFC 4443 §2.1).
    let is_error = header.next_header == ipv4::PROTOCOL_ICMPV6 && behind.first().is_none_or(|kind| *kind < 128);
    if header.version() != 6 || is_error || !is_station(header.source()) || !is_station(header.destination()) {
        return None;
    }
    let quoted = &packet[..packet.len().min(V6_LIMIT - ipv6::HEADER_LEN - 8)];
    let mut message = vec![icmp::V6_PACKET_TOO_BIG, 0, 0, 0];
    message.extend(mtu.to_be_bytes());
    message.extend(quoted);
    let pseudo = checksum::pseudo(&header.destination, &header.source, ipv4::PROTOCOL_ICMPV6, message.len());
    let sum = !checksum::fold(checksum::add(pseudo, &message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let outer = ipv6::Header {
        version_class_label: (6 << 28).into(),
        payload_len: u16::try_from(message.len()).ok()?.into(),
        next_header: ipv4::PROTOCOL_ICMPV6,
        hop_limit: HOPS,
        source: header.destination,
        destination: header.source,
    };
    Some([outer.as_bytes(), &message].concat())
}

/// How often answers are given: a bucket of tokens that time refills.
#[derive(Debug)]
pub(super) struct Pace {
    tokens: u32,
    refilled: Timestamp,
}

impl Pace {
    /// Answers in one go, at most.
    const BURST: u32 = 32;
    /// The time after which one more may be given: 100 in a second.
    const INTERVAL: Duration = Duration::from_millis(10);

    /// A full bucket.
    pub(super) const fn new() -> Self {
        Self { tokens: Self::BURST, refilled: Timestamp::ZERO }
    }

    /// Whether one more may be given now.
    pub(super) fn may(&mut self, now: Timestamp) -> bool {
        let earned = now.since(self.refilled).as_nanos() / Self::INTERVAL.as_nanos();
        if earned > 0 {
            self.tokens = Self::BURST.min(self.tokens.saturating_add(u32::try_from(earned).unwrap_or(u32::MAX)));
            self.refilled = now;
        }
        let may = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame of UDP over IPv4 with these flags and fragment offset.
    fn v4(fragment: u16, payload: usize) -> Vec<u8> {
        let total = u16::try_from(28 + payload).expect("it fits").to_be_bytes();
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, total[0], total[1], 0, 9];
        frame.extend(fragment.to_be_bytes());
        frame.extend([64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 7, 0, 7, 0, 0, 0, 0]);
        frame.resize(frame.len() + payload, 7);
        frame
    }

    fn v6(next: u8, first: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0, 0, 0];
        frame.extend(u16::try_from(payload).expect("it fits").to_be_bytes());
        frame.extend([next, 64, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        frame.resize(frame.len() + payload, first);
        frame
    }

    #[test]
    fn the_sender_is_told_the_inner_mtu() {
        let frame = v4(ipv4::FLAG_DF, 1472);
        let told = answer(&frame, 1450).expect("a station with DF");
        assert_eq!(told[..14], [2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
        assert_eq!(checksum::of(&told[14..34]), 0);
        assert_eq!(told[26..34], [10, 0, 0, 2, 10, 0, 0, 1]);
        assert_eq!((&told[34..36], &told[38..42]), (&[3, 4][..], &[0, 0, 5, 0xaa][..]));
        assert_eq!((checksum::of(&told[34..]), told.len()), (0, 14 + 576));
        assert_eq!(told[42..], frame[14..][..548]);

        let frame = v6(17, 7, 1460);
        let told = answer(&frame, 1430).expect("a station");
        assert_eq!((told.len(), told[54], told[55]), (14 + 1280, 2, 0));
        assert_eq!(told[58..62], [0, 0, 5, 0x96]);
        let pseudo = checksum::pseudo(&told[22..38], &told[38..54], 58, told.len() - 54);
        assert_eq!(checksum::fold(checksum::add(pseudo, &told[54..])), 0xffff);
        assert_eq!(told[62..], frame[14..][..1232]);
    }

    #[test]
    fn tags_stay() {
        let plain = v4(ipv4::FLAG_DF, 1472);
        for tags in [&[0x81, 0, 0, 100][..], &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 100]] {
            let tagged = [&plain[..12], tags, &plain[12..]].concat();
            let (told, same) = (answer(&tagged, 1450).expect("told"), answer(&plain, 1450).expect("told"));
            assert_eq!(told, [&same[..12], tags, &same[12..]].concat());
        }
        let thrice = [&plain[..12], &[0x81, 0, 0, 1].repeat(3), &plain[12..]].concat();
        assert_eq!(answer(&thrice, 1450), None);
    }

    #[test]
    fn some_are_not_told() {
        let with = |frame: Vec<u8>, at: usize, octet: u8| {
            let mut frame = frame;
            frame[at] = octet;
            frame
        };
        let df = || v4(ipv4::FLAG_DF, 100);
        for (frame, why) in [
            (v4(0, 1472), "it may be fragmented"),
            (v4(ipv4::FLAG_DF | 8, 100), "a later fragment"),
            (with(with(df(), 23, 1), 34, 3), "an error"),
            (with(df(), 0, 1), "to a group"),
            (with(df(), 30, 224), "to a group's address"),
            (with(df(), 12, 9), "no IP"),
            (v6(58, 1, 100), "an error"),
            (with(v6(17, 7, 100), 38, 0xff), "to a group's address"),
            (df()[..20].to_vec(), "truncated"),
        ] {
            assert_eq!(answer(&frame, 1400), None, "{why}");
        }
        assert!(answer(&with(with(df(), 23, 1), 34, icmp::V4_ECHO_REQUEST), 1400).is_some());
    }

    #[test]
    fn answers_have_a_pace() {
        let mut pace = Pace::new();
        let start = Timestamp::from_secs(5);
        assert_eq!((0..100).filter(|_| pace.may(start)).count(), 32);
        assert_eq!((0..100).filter(|_| pace.may(start + Duration::from_millis(35))).count(), 3);
        assert_eq!((0..100).filter(|_| pace.may(Timestamp::from_secs(50))).count(), 32);
    }

    proptest! {
        /// Any octets are answered or not, and an answer is never answered.
        #[test]
        fn an_answer_is_not_answered(octets in proptest::collection::vec(any::<u8>(), 0..80), six in any::<bool>()) {
            let mut frame = if six { v6(17, 1, 60) } else { v4(ipv4::FLAG_DF, 60) };
            let at = frame.len() - octets.len().min(frame.len());
            frame[at..].copy_from_slice(&octets[..octets.len().min(94)]);
            if let Some(told) = answer(&frame, 1400) {
                prop_assert_eq!(answer(&told, 1400), None);
            }
        }
    }
}
