//! The frames a machine sends and a router makes of them: just enough of them for a walk. Pure.

use core::net::{IpAddr, Ipv6Addr};

use zerocopy::IntoBytes;

use crate::types::Mac;
use crate::wire::{arp, checksum, ethernet, icmp, ipv4, ipv6, nd, prefix, prefix_mut};

/// The time to live a machine begins with.
const TTL: u8 = 64;

/// An echo request from one station to an address, by way of a MAC. `None` if the addresses are of two families.
pub(super) fn echo(source: (Mac, IpAddr), target: (Mac, IpAddr)) -> Option<Vec<u8>> {
    let kind = if source.1.is_ipv4() { icmp::V4_ECHO_REQUEST } else { icmp::V6_ECHO_REQUEST };
    // Type, code, checksum, identifier, sequence (RFC 792, RFC 4443 §4.1).
    control(source, target, TTL, vec![kind, 0, 0, 0, 0, 1, 0, 1])
}

/// What a station asks to learn an address's MAC: ARP, or a neighbour solicitation.
pub(super) fn question((mac, ip): (Mac, IpAddr), asked: IpAddr) -> Option<Vec<u8>> {
    match (ip, asked) {
        (IpAddr::V4(ip), IpAddr::V4(asked)) => {
            let mut frame = ethernet::Header::new(Mac::BROADCAST, mac, ethernet::TYPE_ARP).as_bytes().to_vec();
            frame.extend(arp::Packet::new(arp::REQUEST, (mac, ip), (Mac::ZERO, asked)).as_bytes());
            Some(frame)
        }
        (IpAddr::V6(_), IpAddr::V6(asked)) => {
            let [.., a, b, c] = asked.octets();
            // The solicited-node group (RFC 4291 §2.7.1), and its Ethernet address (RFC 2464 §7).
            let group = Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
            let mut message = vec![nd::NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
            message.extend(asked.octets());
            message.extend([nd::OPTION_SOURCE_LL, 1]);
            message.extend(mac.octets());
            // RFC 4861 §7.1.1: anything but 255 is not taken.
            control((mac, ip), (Mac::new([0x33, 0x33, 0xff, a, b, c]), IpAddr::V6(group)), 255, message)
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// The MAC that an answer to [`question`] gives for `asked`; `None` if the frame is none.
pub(super) fn answer(frame: &[u8], asked: IpAddr) -> Option<Mac> {
    let (header, rest) = prefix::<ethernet::Header>(frame).ok()?;
    match (header.ether_type.get(), asked) {
        (ethernet::TYPE_ARP, IpAddr::V4(asked)) => {
            let (packet, _) = prefix::<arp::Packet>(rest).ok()?;
            let answers = packet.operation.get() == arp::REPLY && packet.sender_ip == asked.octets();
            answers.then(|| Mac::new(packet.sender_mac))
        }
        (ethernet::TYPE_IPV6, IpAddr::V6(asked)) => {
            let (_, rest) = prefix::<ipv6::Header>(rest).ok()?;
            let (control, rest) = prefix::<icmp::Header>(rest).ok()?;
            let (target, rest) = prefix::<nd::Target>(rest).ok()?;
            let (option, _) = prefix::<nd::LinkLayer>(rest).ok()?;
            let answers = control.kind == nd::NEIGHBOUR_ADVERTISEMENT
                && target.address == asked.octets()
                && option.kind == nd::OPTION_TARGET_LL;
            answers.then(|| Mac::new(option.mac))
        }
        _ => None,
    }
}

/// An ICMP message of the addresses' family in a frame.
fn control(source: (Mac, IpAddr), target: (Mac, IpAddr), ttl: u8, mut message: Vec<u8>) -> Option<Vec<u8>> {
    let length = u16::try_from(message.len()).ok()?;
    match (source.1, target.1) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let sum = checksum::of(&message);
            message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
            let [high, low] = (length + 20).to_be_bytes();
            let mut header = vec![0x45, 0, high, low, 0, 0, 0x40, 0, ttl, ipv4::PROTOCOL_ICMP, 0, 0];
            header.extend(from.octets());
            header.extend(to.octets());
            let sum = checksum::of(&header);
            header.get_mut(10..12)?.copy_from_slice(&sum.to_be_bytes());
            let ethernet = ethernet::Header::new(target.0, source.0, ethernet::TYPE_IPV4);
            Some([ethernet.as_bytes(), &header, &message].concat())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let pseudo = checksum::pseudo(&from.octets(), &to.octets(), ipv4::PROTOCOL_ICMPV6, message.len());
            let sum = !checksum::fold(checksum::add(pseudo, &message));
            message.get_mut(2..4)?.copy_from_slice(&sum.to_be_bytes());
            let [high, low] = length.to_be_bytes();
            let mut header = vec![0x60, 0, 0, 0, high, low, ipv4::PROTOCOL_ICMPV6, ttl];
            header.extend(from.octets());
            header.extend(to.octets());
            let ethernet = ethernet::Header::new(target.0, source.0, ethernet::TYPE_IPV6);
            Some([ethernet.as_bytes(), &header, &message].concat())
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

/// What a frame says to whoever gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    /// Its destination.
    pub(super) mac: Mac,
    /// The destination of the packet in it.
    pub(super) ip: IpAddr,
    /// Hops the packet has left.
    pub(super) ttl: u8,
}

/// Reads an untagged frame with an IP packet.
pub(super) fn said(frame: &[u8]) -> Option<Said> {
    let (ethernet, rest) = prefix::<ethernet::Header>(frame).ok()?;
    let mac = ethernet.destination();
    match ethernet.ether_type.get() {
        ethernet::TYPE_IPV4 => {
            let (header, _) = prefix::<ipv4::Header>(rest).ok()?;
            Some(Said { mac, ip: header.destination().into(), ttl: header.ttl })
        }
        ethernet::TYPE_IPV6 => {
            let (header, _) = prefix::<ipv6::Header>(rest).ok()?;
            Some(Said { mac, ip: header.destination().into(), ttl: header.hop_limit })
        }
        _ => None,
    }
}

/// The frame as a router sends it on: between other MACs, with a hop less. `None` if it has no hop left, or no packet.
pub(super) fn routed(frame: &[u8], from: Mac, to: Mac) -> Option<Vec<u8>> {
    let mut frame = frame.to_vec();
    let (ethernet, rest) = prefix_mut::<ethernet::Header>(&mut frame).ok()?;
    let kind = ethernet.ether_type.get();
    *ethernet = ethernet::Header::new(to, from, kind);
    match kind {
        ethernet::TYPE_IPV4 => {
            let (header, _) = prefix_mut::<ipv4::Header>(rest).ok()?;
            let old = u16::from_be_bytes([header.ttl, header.protocol]);
            header.ttl = header.ttl.checked_sub(1).filter(|left| *left > 0)?;
            let new = u16::from_be_bytes([header.ttl, header.protocol]);
            header.checksum = checksum::update(header.checksum.get(), old, new).into();
        }
        ethernet::TYPE_IPV6 => {
            let (header, _) = prefix_mut::<ipv6::Header>(rest).ok()?;
            header.hop_limit = header.hop_limit.checked_sub(1).filter(|left| *left > 0)?;
        }
        _ => return None,
    }
    Some(frame)
}

#[cfg(test)]
mod tests {
    use core::net::Ipv4Addr;

    use super::*;

    const A: Mac = Mac::new([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac::new([2, 0, 0, 0, 0, 2]);

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn echoes_are_whole_and_lose_a_hop_in_a_router() {
        for (from, to) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let frame = echo((A, ip(from)), (B, ip(to))).expect("one family");
            assert_eq!(said(&frame), Some(Said { mac: B, ip: ip(to), ttl: TTL }));
            let next = routed(&frame, B, A).expect("63 hops left");
            assert_eq!(said(&next), Some(Said { mac: A, ip: ip(to), ttl: TTL - 1 }));
            if from.contains('.') {
                assert_eq!(checksum::of(&next[14..34]), 0, "the header's sum is right");
                assert_eq!(checksum::of(&next[34..]), 0, "the message's sum is right");
            }
            let mut left = frame;
            for _ in 0..TTL - 1 {
                left = routed(&left, A, B).expect("a hop left");
            }
            assert_eq!(routed(&left, A, B), None, "no hop left");
        }
        assert_eq!(echo((A, ip("10.0.0.1")), (B, ip("fd00::2"))), None);
    }

    #[test]
    fn an_answer_is_told_from_a_question() {
        for (from, asked) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let frame = question((A, ip(from)), ip(asked)).expect("one family");
            assert_eq!(answer(&frame, ip(asked)), None);
            for length in 0..frame.len() {
                assert_eq!((answer(&frame[..length], ip(asked)), routed(&frame[..length.min(14)], A, B)), (None, None));
            }
        }
        let (one, two) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        let mut frame = ethernet::Header::new(A, B, ethernet::TYPE_ARP).as_bytes().to_vec();
        frame.extend(arp::Packet::new(arp::REPLY, (B, two), (A, one)).as_bytes());
        assert_eq!(answer(&frame, two.into()), Some(B));
        assert_eq!(answer(&frame, one.into()), None, "of another");
    }
}
