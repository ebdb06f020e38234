//! The key of a frame, from its first octets. Total: whatever a header lacks stays zero, as in OVS's `flow_extract()`.

use core::net::IpAddr;

use super::field::arp_operation;
use super::io::Ingress;
use super::key::{self, Bits, FRAG_ANY, FRAG_LATER, Key, TCI_PRESENT};
use super::packet::Packet;
use crate::types::Mac;
use crate::wire::{self, arp, ethernet, icmp, ipv4, ipv6, nd, tcp, udp};

/// Where the headers of a frame are, in octets from its first; 0 for a header that is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The IP or ARP header.
    pub(crate) network: u16,
    /// The transport header of a first or only fragment.
    pub(crate) transport: u16,
    /// The protocol of the transport header.
    pub(crate) protocol: u8,
}

/// Most extension headers of an IPv6 packet that are looked through.
const LIMIT_EXTENSIONS: usize = 16;
/// Octets behind an IP packet that are taken for padding; more, and the packet is malformed (as OVS has it).
const LIMIT_PADDING: usize = 255;

pub(crate) fn mac_bits(mac: Mac) -> u128 {
    mac.octets().iter().fold(0, |bits, octet| bits << 8 | u128::from(*octet))
}

fn word16(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(octets.get(at..at + 2)?.try_into().ok()?))
}

/// The key of `packet` as it came in, with the datapath port as its port.
pub(crate) fn extract(ingress: &Ingress, packet: &Packet<'_>) -> (Key, Layout) {
    let mut key = Bits::ZERO;
    key.set(key::IN_PORT, ingress.port.0.into());
    if let Some(tunnel) = &ingress.tunnel {
        key.set(key::TUN_ID, tunnel.id.into());
        for (address, v4, v6) in
            [(tunnel.src, key::TUN_SRC, key::TUN_V6_SRC), (tunnel.dst, key::TUN_DST, key::TUN_V6_DST)]
        {
            match address {
                IpAddr::V4(address) => key.set(v4, u32::from(address).into()),
                IpAddr::V6(address) => key.set(v6, address.into()),
            }
        }
        key.set(key::TUN_TOS, tunnel.tos.into());
        key.set(key::TUN_TTL, tunnel.ttl.into());
    }
    let layout = Extractor { key: &mut key, head: packet.head(), length: packet.len() }.run();
    (key, layout)
}

struct Extractor<'a> {
    key: &'a mut Key,
    head: &'a [u8],
    /// Octets of the whole frame, of which `head` holds the headers.
    length: usize,
}

impl Extractor<'_> {
    fn run(mut self) -> Layout {
        let mut layout = Layout::default();
        let Some(header) = self.head.get(..ethernet::HEADER_LEN) else { return layout };
        let Ok((ethernet, _)) = wire::prefix::<ethernet::Header>(header) else { return layout };
        self.key.set(key::ETH_DST, mac_bits(ethernet.destination()));
        self.key.set(key::ETH_SRC, mac_bits(ethernet.source()));
        let mut at = ethernet::HEADER_LEN;
        let mut ether_type = ethernet.ether_type.get();
        if super::action::is_vlan_type(ether_type)
            && let (Some(control), Some(inner)) = (word16(self.head, at), word16(self.head, at + 2))
        {
            self.key.set(key::VLAN_TPID, ether_type.into());
            self.key.set(key::VLAN_TCI, (control | TCI_PRESENT).into());
            ether_type = inner;
            at += ethernet::TAG_LEN;
        }
        self.key.set(key::ETH_TYPE, self.ether_type(ether_type, at).into());
        layout.network = u16::try_from(at).unwrap_or(0);
        layout.transport = match self.key.get16(key::ETH_TYPE) {
            ethernet::TYPE_IPV4 => self.ipv4(at),
            ethernet::TYPE_IPV6 => self.ipv6(at),
            ethernet::TYPE_ARP | ethernet::TYPE_RARP => {
                self.arp(at);
                None
            }
            _ => None,
        }
        .and_then(|at| u16::try_from(at).ok())
        .unwrap_or(0);
        layout.protocol = u8::try_from(self.key.get(key::IP_PROTO)).unwrap_or(0);
        layout
    }

    /// An 802.3 frame's type is that of its SNAP header, or 0x05ff (`FLOW_DL_TYPE_NONE`).
    fn ether_type(&self, found: u16, at: usize) -> u16 {
        if found >= ethernet::TYPE_LEAST {
            return found;
        }
        match self.head.get(at..at + 8) {
            Some([0xaa, 0xaa, 0x03, 0, 0, 0, high, low]) => {
                let inner = u16::from_be_bytes([*high, *low]);
                if inner >= ethernet::TYPE_LEAST { inner } else { 0x05ff }
            }
            Some(_) | None => 0x05ff,
        }
    }

    fn arp(&mut self, at: usize) {
        let Ok((arp, _)) = wire::prefix::<arp::Packet>(&self.head[at.min(self.head.len())..]) else { return };
        if !arp.is_ipv4_over_ethernet() {
            return;
        }
        self.key.set(key::IP_PROTO, arp_operation(arp.operation.get()).into());
        self.key.set(key::IPV4_SRC, u32::from_be_bytes(arp.sender_ip).into());
        self.key.set(key::IPV4_DST, u32::from_be_bytes(arp.target_ip).into());
        self.key.set(key::ARP_SHA, mac_bits(Mac::new(arp.sender_mac)));
        self.key.set(key::ARP_THA, mac_bits(Mac::new(arp.target_mac)));
    }

    /// Returns where the transport header starts, if this fragment has one.
    fn ipv4(&mut self, at: usize) -> Option<usize> {
        let (header, _) = wire::prefix::<ipv4::Header>(self.head.get(at..)?).ok()?;
        let (present, total) = (self.length - at, usize::from(header.total_len.get()));
        let length = header.header_len();
        let whole = length >= ipv4::HEADER_LEN
            && length <= total
            && total <= present
            && present - total <= LIMIT_PADDING
            && at + length <= self.head.len();
        if !whole {
            return None;
        }
        let (protocol, later) = (header.protocol, header.is_later_fragment());
        let fragment = header.is_fragment();
        self.key.set(key::IPV4_SRC, u32::from(header.source()).into());
        self.key.set(key::IPV4_DST, u32::from(header.destination()).into());
        self.key.set(key::IP_PROTO, protocol.into());
        self.key.set(key::IP_TOS, header.tos.into());
        self.key.set(key::IP_TTL, header.ttl.into());
        self.fragment(fragment, later);
        if later {
            return None;
        }
        self.transport(protocol, at + length, at + total);
        Some(at + length)
    }

    fn fragment(&mut self, fragment: bool, later: bool) {
        if fragment {
            self.key.raise(key::IP_FRAG, FRAG_ANY | if later { FRAG_LATER } else { 0 });
        }
    }

    fn ipv6(&mut self, at: usize) -> Option<usize> {
        let (header, _) = wire::prefix::<ipv6::Header>(self.head.get(at..)?).ok()?;
        let present = self.length - at - ipv6::HEADER_LEN;
        let payload = usize::from(header.payload_len.get());
        if payload > present || present - payload > LIMIT_PADDING {
            return None;
        }
        self.key.set(key::IPV6_SRC, header.source().into());
        self.key.set(key::IPV6_DST, header.destination().into());
        self.key.set(key::IPV6_LABEL, header.flow_label().into());
        self.key.set(key::IP_TOS, header.traffic_class().into());
        self.key.set(key::IP_TTL, header.hop_limit.into());
        let next = header.next_header;
        let end = at + ipv6::HEADER_LEN + payload;
        let (protocol, at) = self.extensions(next, at + ipv6::HEADER_LEN, end)?;
        self.key.set(key::IP_PROTO, protocol.into());
        if self.key.get(key::IP_FRAG) & FRAG_LATER != 0 {
            return None;
        }
        self.transport(protocol, at, end);
        Some(at)
    }

    /// Walks the extension headers. Returns the protocol behind them and where it starts.
    fn extensions(&mut self, mut next: u8, mut at: usize, end: usize) -> Option<(u8, usize)> {
        for _ in 0..LIMIT_EXTENSIONS {
            let octets = &self.head[..self.head.len().min(end)];
            match next {
                ipv6::NEXT_HOP_BY_HOP | ipv6::NEXT_ROUTING | ipv6::NEXT_DESTINATION | ipv6::NEXT_AUTHENTICATION => {
                    let [following, units] = octets.get(at..at + 2)?.try_into().ok()?;
                    // RFC 4302 §2.2: an authentication header counts four octets, less two; the others eight, less one.
                    let length = if next == ipv6::NEXT_AUTHENTICATION {
                        (usize::from(units) + 2) * 4
                    } else {
                        (usize::from(units) + 1) * 8
                    };
                    octets.get(at..at + length)?;
                    next = following;
                    at += length;
                }
                ipv6::NEXT_FRAGMENT => {
                    let octets = octets.get(at..at + 8)?;
                    let (following, offset) = (octets[0], u16::from_be_bytes([octets[2], octets[3]]));
                    // RFC 8200 §4.5: thirteen bits of offset, two reserved, "more fragments".
                    let (later, more) = (offset & 0xfff8 != 0, offset & 1 != 0);
                    next = following;
                    at += 8;
                    if later || more {
                        self.fragment(true, later);
                    }
                    if later {
                        // What follows is not the start of a header, whatever its type (`parse_ipv6_ext_hdrs()`).
                        return Some((ipv6::NEXT_FRAGMENT, at));
                    }
                }
                _ => return Some((next, at)),
            }
        }
        None
    }

    fn transport(&mut self, protocol: u8, at: usize, end: usize) {
        let length = self.length.min(end).saturating_sub(at);
        let ports = |head: &[u8]| Some((word16(head, at)?, word16(head, at + 2)?));
        match protocol {
            ipv4::PROTOCOL_TCP if length >= tcp::HEADER_LEN => {
                let (Some((src, dst)), Some(flags)) = (ports(self.head), word16(self.head, at + 12)) else { return };
                self.key.set(key::TP_SRC, src.into());
                self.key.set(key::TP_DST, dst.into());
                self.key.set(key::TCP_FLAGS, (flags & 0xfff).into());
            }
            ipv4::PROTOCOL_UDP if length >= udp::HEADER_LEN => self.ports(ports(self.head)),
            ipv4::PROTOCOL_SCTP if length >= 12 => self.ports(ports(self.head)),
            ipv4::PROTOCOL_ICMP if self.key.get16(key::ETH_TYPE) == ethernet::TYPE_IPV4 && length >= 8 => {
                self.icmp(at);
            }
            ipv4::PROTOCOL_ICMPV6 if self.key.get16(key::ETH_TYPE) == ethernet::TYPE_IPV6 && length >= 8 => {
                self.icmp(at);
                self.neighbour(at, end.min(self.head.len()));
            }
            _ => {}
        }
    }

    fn ports(&mut self, ports: Option<(u16, u16)>) {
        if let Some((src, dst)) = ports {
            self.key.set(key::TP_SRC, src.into());
            self.key.set(key::TP_DST, dst.into());
        }
    }

    fn icmp(&mut self, at: usize) {
        let Ok((icmp, _)) = wire::prefix::<icmp::Header>(self.head.get(at..).unwrap_or(&[])) else { return };
        self.key.set(key::TP_SRC, icmp.kind.into());
        self.key.set(key::TP_DST, icmp.code.into());
    }

    fn neighbour(&mut self, at: usize, end: usize) {
        let kind = self.key.get(key::TP_SRC);
        let solicit = kind == u128::from(nd::NEIGHBOUR_SOLICITATION);
        if self.key.get(key::TP_DST) != 0 || !(solicit || kind == u128::from(nd::NEIGHBOUR_ADVERTISEMENT)) {
            return;
        }
        // RFC 4861 §4.3 and §4.4: four octets of ICMP header, four of flags, the target, options.
        let Some(body) = self.head.get(at + 4..end) else { return };
        let Some(reserved) = body.get(..4).and_then(|octets| octets.try_into().ok()) else { return };
        self.key.set(key::ND_RESERVED, u32::from_be_bytes(reserved).into());
        let Some(target) = body.get(4..20).and_then(|octets| octets.try_into().ok()) else { return };
        self.key.set(key::ND_TARGET, u128::from_be_bytes(target));
        let mut options = &body[20..];
        while let [kind, units, _, _, _, _, _, _, ..] = options {
            let length = usize::from(*units) * 8;
            if length == 0 || length > options.len() {
                return;
            }
            let place = match *kind {
                nd::OPTION_SOURCE_LL if length == 8 => Some(key::ARP_SHA),
                nd::OPTION_TARGET_LL if length == 8 => Some(key::ARP_THA),
                _ => None,
            };
            if let Some(place) = place {
                if self.key.get(place) != 0 {
                    return self.forget_neighbour();
                }
                if self.key.get(key::ND_OPTION) == 0 {
                    self.key.set(key::ND_OPTION, (*kind).into());
                }
                let address = options[2..8].iter().fold(0, |bits, octet| bits << 8 | u128::from(*octet));
                self.key.set(place, address);
            }
            options = &options[length..];
        }
    }

    /// An address given twice takes the rest with it (`parse_icmpv6()`).
    fn forget_neighbour(&mut self) {
        for place in [key::ND_TARGET, key::ARP_SHA, key::ARP_THA] {
            self.key.set(place, 0);
        }
    }
}
