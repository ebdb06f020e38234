//! A line a frame, for people: time, interface, direction, and what the frame is, down to what a tunnel carries.

use core::fmt::Write as _;
use core::time::Duration;
use std::io::{self, Write};

use super::{Direction, Sink};
use crate::wire::{arp, ethernet, gre, icmp, ipv4, ipv6, nd, prefix, tcp, udp, vxlan};

/// Writes a line a frame.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    vxlan_port: u16,
    interfaces: Vec<String>,
}

impl<W: Write> Writer<W> {
    /// Lines into `out`; what is for UDP port `vxlan_port` is looked into.
    pub const fn new(out: W, vxlan_port: u16) -> Self {
        Self { out, vxlan_port, interfaces: Vec::new() }
    }
}

impl<W: Write> Sink for Writer<W> {
    fn interface(&mut self, name: &str) -> io::Result<u32> {
        self.interfaces.push(name.to_owned());
        u32::try_from(self.interfaces.len() - 1).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
    }

    fn frame(&mut self, interface: u32, time: Duration, direction: Direction, octets: &[u8]) -> io::Result<()> {
        let name = usize::try_from(interface).ok().and_then(|index| self.interfaces.get(index));
        let name = name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the interface was not declared"))?;
        // The time of day in UTC: enough to order frames and to compare with logs.
        let (secs, micros) = (time.as_secs() % 86_400, time.subsec_micros());
        let way = match direction {
            Direction::Inbound => "in ",
            Direction::Outbound => "out",
        };
        let clock = format!("{:02}:{:02}:{:02}.{micros:06}", secs / 3_600, secs / 60 % 60, secs % 60);
        writeln!(self.out, "{clock} {name} {way} {}", summary(octets, self.vxlan_port))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What a frame is, in one line; what is for UDP port `vxlan_port` is looked into. Total: what cannot be read is said to
/// be cut off.
#[must_use]
pub fn summary(frame: &[u8], vxlan_port: u16) -> String {
    let mut text = String::new();
    ethernet(&mut text, frame, Look { tunnels: 1, vxlan_port });
    text
}

/// How deep to look.
#[derive(Clone, Copy)]
struct Look {
    /// How many tunnel headers are still looked into.
    tunnels: u8,
    vxlan_port: u16,
}

impl Look {
    /// Inside a tunnel, if that is looked into.
    fn inside(self) -> Option<Self> {
        self.tunnels.checked_sub(1).map(|tunnels| Self { tunnels, ..self })
    }
}

fn ethernet(text: &mut String, frame: &[u8], look: Look) {
    let Ok((header, mut rest)) = prefix::<ethernet::Header>(frame) else {
        text.push_str("cut off in the Ethernet header");
        return;
    };
    let _ = write!(text, "{} > {}, ", header.source(), header.destination());
    let mut kind = header.ether_type.get();
    if kind == ethernet::TYPE_VLAN
        && let Ok((tag, inside)) = prefix::<ethernet::Tag>(rest)
    {
        let _ = write!(text, "vlan {}, ", tag.control.get() & 0xfff);
        (kind, rest) = (tag.ether_type.get(), inside);
    }
    match kind {
        ethernet::TYPE_ARP => arp(text, rest),
        ethernet::TYPE_IPV4 => ip4(text, rest, look),
        ethernet::TYPE_IPV6 => ip6(text, rest, look),
        other => {
            let _ = write!(text, "type {other:#06x}");
        }
    }
    let _ = write!(text, ", {} octets", frame.len());
}

fn arp(text: &mut String, rest: &[u8]) {
    let Ok((packet, _)) = prefix::<arp::Packet>(rest) else {
        text.push_str("ARP, cut off");
        return;
    };
    let ip = core::net::Ipv4Addr::from_octets;
    let mac = crate::types::Mac::new;
    let _ = match packet.operation.get() {
        arp::REQUEST => write!(
            text,
            "ARP who has {}? tell {} at {}",
            ip(packet.target_ip),
            ip(packet.sender_ip),
            mac(packet.sender_mac)
        ),
        arp::REPLY => write!(text, "ARP {} is at {}", ip(packet.sender_ip), mac(packet.sender_mac)),
        other => write!(text, "ARP operation {other}"),
    };
}

fn ip4(text: &mut String, rest: &[u8], look: Look) {
    let Ok((header, _)) = prefix::<ipv4::Header>(rest) else {
        text.push_str("IPv4, cut off");
        return;
    };
    let _ = write!(text, "{} > {} ttl {}, ", header.source(), header.destination(), header.ttl);
    if header.is_later_fragment() {
        text.push_str("fragment");
    } else {
        transport(text, header.protocol, rest.get(header.header_len()..).unwrap_or_default(), look);
    }
}

fn ip6(text: &mut String, rest: &[u8], look: Look) {
    let Ok((header, rest)) = prefix::<ipv6::Header>(rest) else {
        text.push_str("IPv6, cut off");
        return;
    };
    let _ = write!(text, "{} > {} hops {}, ", header.source(), header.destination(), header.hop_limit);
    transport(text, header.next_header, rest, look);
}

fn transport(text: &mut String, protocol: u8, rest: &[u8], look: Look) {
    match protocol {
        ipv4::PROTOCOL_TCP => match prefix::<tcp::Header>(rest) {
            Ok((header, _)) => {
                let _ = write!(text, "TCP {} > {} flags {:#04x}", header.source, header.destination, header.flags);
            }
            Err(_) => text.push_str("TCP, cut off"),
        },
        ipv4::PROTOCOL_UDP => datagram(text, rest, look),
        ipv4::PROTOCOL_GRE => match gre::open(rest) {
            Ok((key, header)) => {
                let _ = write!(text, "GRE {key}");
                if let Some(look) = look.inside() {
                    text.push_str(" [");
                    ethernet(text, rest.get(header..).unwrap_or_default(), look);
                    text.push(']');
                }
            }
            Err(bad) => {
                let _ = write!(text, "GRE, {bad}");
            }
        },
        ipv4::PROTOCOL_ICMP | ipv4::PROTOCOL_ICMPV6 => control(text, protocol == ipv4::PROTOCOL_ICMPV6, rest),
        other => {
            let _ = write!(text, "protocol {other}");
        }
    }
}

fn datagram(text: &mut String, rest: &[u8], look: Look) {
    let Ok((header, payload)) = prefix::<udp::Header>(rest) else {
        text.push_str("UDP, cut off");
        return;
    };
    if header.destination.get() == look.vxlan_port
        && let Some(look) = look.inside()
        && let Ok((tunnel, inside)) = prefix::<vxlan::Header>(payload)
    {
        let _ = write!(text, "VXLAN {} [", tunnel.vni_bits());
        ethernet(text, inside, look);
        text.push(']');
        return;
    }
    let _ = write!(text, "UDP {} > {}", header.source, header.destination);
}

fn control(text: &mut String, v6: bool, rest: &[u8]) {
    let Ok((header, body)) = prefix::<icmp::Header>(rest) else {
        text.push_str("ICMP, cut off");
        return;
    };
    let target = || prefix::<nd::Target>(body).map(|(target, _)| core::net::Ipv6Addr::from_octets(target.address));
    let sequence = || prefix::<icmp::Echo>(body).map_or(0, |(echo, _)| echo.sequence.get());
    let _ = match (v6, header.kind) {
        (false, icmp::V4_ECHO_REQUEST) | (true, icmp::V6_ECHO_REQUEST) => {
            write!(text, "echo request {}", sequence())
        }
        (false, icmp::V4_ECHO_REPLY) | (true, icmp::V6_ECHO_REPLY) => write!(text, "echo reply {}", sequence()),
        (true, nd::NEIGHBOUR_SOLICITATION) => match target() {
            Ok(target) => write!(text, "neighbour solicitation of {target}"),
            Err(_) => write!(text, "neighbour solicitation, cut off"),
        },
        (true, nd::NEIGHBOUR_ADVERTISEMENT) => match target() {
            Ok(target) => write!(text, "neighbour advertisement of {target}"),
            Err(_) => write!(text, "neighbour advertisement, cut off"),
        },
        (_, kind) => write!(text, "ICMP{} type {kind} code {}", if v6 { "v6" } else { "" }, header.code),
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::*;
    use crate::types::{Mac, Vni};

    fn question() -> Vec<u8> {
        let (mac, ip) = (Mac::new([0xfa, 0x16, 0x3e, 0, 0, 1]), core::net::Ipv4Addr::new(10, 1, 0, 2));
        let asked = core::net::Ipv4Addr::new(10, 1, 0, 9);
        let mut frame = ethernet::Header::new(Mac::BROADCAST, mac, ethernet::TYPE_ARP).as_bytes().to_vec();
        frame.extend(arp::Packet::new(arp::REQUEST, (mac, ip), (Mac::ZERO, asked)).as_bytes());
        frame
    }

    #[test]
    fn a_question_in_a_tunnel() {
        let inner = question();
        let mut frame =
            ethernet::Header::new(Mac::new([2; 6]), Mac::new([4; 6]), ethernet::TYPE_IPV4).as_bytes().to_vec();
        frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 172, 31, 0, 1, 172, 31, 0, 2]);
        let port = frame.len() + 2;
        frame.extend([0xc0, 0, 0x12, 0xb5, 0, 0, 0, 0]);
        frame.extend(vxlan::Header::new(Vni::new(5001).expect("in range")).as_bytes());
        frame.extend(inner);
        assert_eq!(
            summary(&frame, vxlan::PORT),
            "04:04:04:04:04:04 > 02:02:02:02:02:02, 172.31.0.1 > 172.31.0.2 ttl 64, VXLAN 5001 \
             [fa:16:3e:00:00:01 > ff:ff:ff:ff:ff:ff, ARP who has 10.1.0.9? tell 10.1.0.2 at fa:16:3e:00:00:01, \
             42 octets], 92 octets"
        );
        frame[port..port + 2].copy_from_slice(&4790_u16.to_be_bytes());
        assert!(summary(&frame, vxlan::PORT).contains("ttl 64, UDP 49152 > 4790, "));
        assert!(summary(&frame, 4790).contains("ttl 64, VXLAN 5001 ["));
    }

    #[test]
    fn a_question_in_a_tunnel_without_ports() {
        let mut frame =
            ethernet::Header::new(Mac::new([2; 6]), Mac::new([4; 6]), ethernet::TYPE_IPV4).as_bytes().to_vec();
        frame.extend([0x45, 0, 0, 0, 0, 0, 0, 0, 64, 47, 0, 0, 172, 31, 0, 1, 172, 31, 0, 2]);
        let keyless = [&frame[..], &[0, 0, 0x65, 0x58]].concat();
        assert!(summary(&keyless, vxlan::PORT).contains("GRE, there is no key"), "{}", summary(&keyless, vxlan::PORT));
        frame.extend(gre::Keyed::new(5001).as_bytes());
        frame.extend(question());
        assert!(
            summary(&frame, vxlan::PORT).contains("ttl 64, GRE 5001 [fa:16:3e:00:00:01 > "),
            "{}",
            summary(&frame, vxlan::PORT)
        );
    }

    #[test]
    fn a_frame_cut_anywhere_is_still_a_line() {
        let frame = question();
        for length in 0..frame.len() {
            assert!(summary(&frame[..length], vxlan::PORT).contains("cut off"), "at {length}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_are_a_line(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(!summary(&octets, vxlan::PORT).contains('\n'));
        }
    }
}
