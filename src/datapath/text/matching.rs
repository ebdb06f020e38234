//! Matches in text.

use core::fmt::Write;

use super::super::action::is_vlan_type;
use super::super::field::{Field, Info};
use super::super::key::{self, Place};
use super::super::matching::Match;
use super::PortNames;
use super::lexer::{Piece, TextError, Word, words};
use super::value::{masked, print_masked};
use crate::wire::{ethernet, ipv4};

/// Names that stand for an Ethernet type and a protocol (`ovs-fields(7)`).
const PROTOCOLS: [(&str, u16, u8); 17] = [
    ("ip", ethernet::TYPE_IPV4, 0),
    ("ipv4", ethernet::TYPE_IPV4, 0),
    ("ip4", ethernet::TYPE_IPV4, 0),
    ("ipv6", ethernet::TYPE_IPV6, 0),
    ("ip6", ethernet::TYPE_IPV6, 0),
    ("arp", ethernet::TYPE_ARP, 0),
    ("rarp", ethernet::TYPE_RARP, 0),
    ("icmp", ethernet::TYPE_IPV4, ipv4::PROTOCOL_ICMP),
    ("icmp4", ethernet::TYPE_IPV4, ipv4::PROTOCOL_ICMP),
    ("icmp6", ethernet::TYPE_IPV6, ipv4::PROTOCOL_ICMPV6),
    ("icmpv6", ethernet::TYPE_IPV6, ipv4::PROTOCOL_ICMPV6),
    ("tcp", ethernet::TYPE_IPV4, ipv4::PROTOCOL_TCP),
    ("tcp6", ethernet::TYPE_IPV6, ipv4::PROTOCOL_TCP),
    ("udp", ethernet::TYPE_IPV4, ipv4::PROTOCOL_UDP),
    ("udp6", ethernet::TYPE_IPV6, ipv4::PROTOCOL_UDP),
    ("sctp", ethernet::TYPE_IPV4, ipv4::PROTOCOL_SCTP),
    ("sctp6", ethernet::TYPE_IPV6, ipv4::PROTOCOL_SCTP),
];

/// What one word says of a match.
#[derive(Clone, Copy, Debug)]
pub(super) enum Demand {
    /// Nothing: every packet is so.
    Nothing,
    /// An Ethernet type, and a protocol unless that is zero.
    Protocol(u16, u8),
    /// A field's value, where the mask has ones.
    Field(&'static Info, u128, u128),
}

impl Demand {
    /// Has the match say so too.
    pub(super) fn add_to(self, matching: &mut Match) {
        match self {
            Self::Nothing => {}
            Self::Protocol(ether_type, protocol) => {
                matching.demand(key::ETH_TYPE, ether_type.into(), 0xffff);
                if protocol != 0 {
                    matching.demand(key::IP_PROTO, protocol.into(), 0xff);
                }
            }
            Self::Field(info, value, mask) => matching.set_field(info, value, mask),
        }
    }
}

/// What one word says of a match; `None` if it is not one of a match at all.
pub(super) fn read_word(word: Word<'_>, ports: &impl PortNames) -> Result<Option<Demand>, TextError> {
    let name = word.key.text();
    if word.value.is_none() {
        // Every packet here is Ethernet; traces say so in their megaflow.
        if name == "eth" {
            return Ok(Some(Demand::Nothing));
        }
        let Some((_, ether_type, protocol)) = PROTOCOLS.iter().find(|(known, ..)| *known == name) else {
            return match Field::by_name(name) {
                Some(_) => word.needs_value().map(|_| Some(Demand::Nothing)),
                None => Ok(None),
            };
        };
        return Ok(Some(Demand::Protocol(*ether_type, *protocol)));
    }
    let Some(info) = Field::by_name(name) else { return Ok(None) };
    let value = word.needs_value()?;
    let (value, mask) = match value.text() {
        "*" => (0, 0),
        _ => masked(info, value, ports)?,
    };
    Ok(Some(Demand::Field(info, value, mask)))
}

/// Refuses an ICMP type or code that is none. `head` is the match's text.
pub(super) fn check_icmp(matching: &mut Match, head: Piece<'_>) -> Result<(), TextError> {
    let (ether_type, protocol) = matching.protocol();
    let icmp = match ether_type {
        ethernet::TYPE_IPV4 => protocol == ipv4::PROTOCOL_ICMP,
        ethernet::TYPE_IPV6 => protocol == ipv4::PROTOCOL_ICMPV6,
        _ => false,
    };
    for (place, what) in [(key::TP_SRC, "type"), (key::TP_DST, "code")] {
        let mask = matching.mask.get(place);
        if !icmp || mask == 0 {
            continue;
        }
        if matching.value.get(place) > 0xff || mask & 0xff != 0xff {
            return Err(word_on(head, place).error(format!("an ICMP {what} is 0 to 255 and takes no mask")));
        }
        matching.mask.raise_all(place);
    }
    Ok(())
}

/// Refuses what the packets that are otherwise matched cannot have, where Open vSwitch refuses it; the rest it passes
/// over, as [`Match::normalise`] does.
pub(super) fn check_needs(matching: &Match, head: Piece<'_>) -> Result<(), TextError> {
    let (value, mask) = (&matching.value, &matching.mask);
    let (ether_type, protocol) = matching.protocol();
    if ether_type == ethernet::TYPE_IPV4 && mask.get(key::IPV6_LABEL) != 0 {
        return Err(word_on(head, key::IPV6_LABEL).error("packets of IPv4 have no ipv6_label"));
    }
    let transport: &[Place] = match (ether_type, protocol) {
        (ethernet::TYPE_IPV4 | ethernet::TYPE_IPV6, ipv4::PROTOCOL_TCP) => &[key::TP_SRC, key::TP_DST, key::TCP_FLAGS],
        (ethernet::TYPE_IPV4 | ethernet::TYPE_IPV6, ipv4::PROTOCOL_UDP | ipv4::PROTOCOL_SCTP) => {
            &[key::TP_SRC, key::TP_DST]
        }
        _ => &[],
    };
    let later = value.get(key::IP_FRAG) & key::FRAG_LATER != 0;
    match transport.iter().find(|place| later && mask.get(**place) != 0) {
        Some(place) => Err(word_on(head, *place).error("later fragments have neither ports nor TCP's flags")),
        None => Ok(()),
    }
}

/// The last word on a place: the one that stands.
fn word_on(head: Piece<'_>, place: Place) -> Piece<'_> {
    let start = |place: Place| (place.word, place.shift);
    let on = |word: &Word<'_>| Field::by_name(word.key.text()).is_some_and(|info| start(info.place) == start(place));
    words(head).filter_map(Result::ok).filter(on).last().map_or(head, |word| word.whole)
}

struct Printer<'a, P> {
    out: &'a mut String,
    matching: &'a Match,
    ports: &'a P,
}

impl<P: PortNames> Printer<'_, P> {
    /// The mask of a place.
    fn mask(&self, place: Place) -> u128 {
        self.matching.mask.get(place)
    }

    fn value(&self, place: Place) -> u128 {
        self.matching.value.get(place)
    }

    /// The field as `name`, if the match demands any bit of it.
    fn named(&mut self, field: Field, name: &str) {
        let info: &Info = field.info();
        let mask = self.mask(info.place) & info.exact();
        if mask == 0 {
            return;
        }
        let value = self.value(info.place) & mask;
        self.out.push_str(name);
        self.out.push('=');
        print_masked(self.out, info, value, mask, self.ports);
        self.out.push(',');
    }

    fn own(&mut self, field: Field) {
        self.named(field, field.info().name);
    }

    /// The short name of type and protocol. Returns whether type and protocol are told by it.
    fn protocol(&mut self) -> (bool, bool) {
        if self.mask(key::ETH_TYPE) != 0xffff {
            return (false, false);
        }
        let ether_type = self.matching.value.get16(key::ETH_TYPE);
        let protocol = if self.mask(key::IP_PROTO) == 0xff { self.value(key::IP_PROTO) } else { 0 };
        let with = |v4: &'static str, v6: &'static str| if ether_type == ethernet::TYPE_IPV4 { v4 } else { v6 };
        let protocol = u8::try_from(protocol).unwrap_or(0);
        let (name, with_protocol) = match (ether_type, protocol) {
            (ethernet::TYPE_ARP, _) => ("arp", false),
            (ethernet::TYPE_RARP, _) => ("rarp", false),
            (ethernet::TYPE_IPV4 | ethernet::TYPE_IPV6, ipv4::PROTOCOL_TCP) => (with("tcp", "tcp6"), true),
            (ethernet::TYPE_IPV4 | ethernet::TYPE_IPV6, ipv4::PROTOCOL_UDP) => (with("udp", "udp6"), true),
            (ethernet::TYPE_IPV4 | ethernet::TYPE_IPV6, ipv4::PROTOCOL_SCTP) => (with("sctp", "sctp6"), true),
            (ethernet::TYPE_IPV4, ipv4::PROTOCOL_ICMP) => ("icmp", true),
            (ethernet::TYPE_IPV6, ipv4::PROTOCOL_ICMPV6) => ("icmp6", true),
            (ethernet::TYPE_IPV4, _) => ("ip", false),
            (ethernet::TYPE_IPV6, _) => ("ipv6", false),
            _ => return (false, false),
        };
        self.out.push_str(name);
        self.out.push(',');
        (true, with_protocol)
    }

    fn vlan(&mut self, tag: Place, index: &str) {
        let mask = self.matching.mask.get16(tag);
        if mask == 0 {
            return;
        }
        let value = self.matching.value.get16(tag);
        let (vid, pcp, present) = (mask & 0xfff, mask & 0xe000, mask & key::TCI_PRESENT);
        let clean = (vid == 0 || vid == 0xfff) && (pcp == 0 || pcp == 0xe000) && (vid | pcp) != 0;
        if present & value != 0 && clean {
            if vid != 0 {
                let _ = write!(self.out, "dl_vlan{index}={},", value & 0xfff);
            }
            if pcp != 0 {
                let _ = write!(self.out, "dl_vlan_pcp{index}={},", value >> 13);
            }
        } else if mask == 0xffff {
            let _ = write!(self.out, "vlan_tci{index}={value:#06x},");
        } else {
            let _ = write!(self.out, "vlan_tci{index}={value:#06x}/{mask:#06x},");
        }
    }

    fn network(&mut self, (typed, with_protocol): (bool, bool)) {
        let ether_type = if self.mask(key::ETH_TYPE) == 0xffff { self.matching.value.get16(key::ETH_TYPE) } else { 0 };
        let arp = ether_type == ethernet::TYPE_ARP || ether_type == ethernet::TYPE_RARP;
        if !typed && self.mask(key::ETH_TYPE) != 0 {
            let _ = write!(self.out, "dl_type={:#06x},", self.value(key::ETH_TYPE));
        }
        if ether_type == ethernet::TYPE_IPV6 {
            self.own(Field::Ipv6Src);
            self.own(Field::Ipv6Dst);
            self.own(Field::Ipv6Label);
        } else if arp {
            self.own(Field::ArpSpa);
            self.own(Field::ArpTpa);
        } else {
            self.named(Field::Ipv4Src, "nw_src");
            self.named(Field::Ipv4Dst, "nw_dst");
        }
        if arp {
            self.own(Field::ArpOp);
            self.own(Field::ArpSha);
            self.own(Field::ArpTha);
        } else if !with_protocol {
            self.own(Field::IpProto);
        }
        self.own(Field::IpTos);
        self.named(Field::IpEcn, "nw_ecn");
        self.own(Field::IpTtl);
        self.named(Field::IpFrag, "nw_frag");
        if !arp {
            self.transport(ether_type);
        }
    }

    fn transport(&mut self, ether_type: u16) {
        let protocol = if self.mask(key::IP_PROTO) == 0xff { self.value(key::IP_PROTO) } else { 0 };
        if ether_type == ethernet::TYPE_IPV4 && protocol == u128::from(ipv4::PROTOCOL_ICMP) {
            self.named(Field::Icmp4Type, "icmp_type");
            self.named(Field::Icmp4Code, "icmp_code");
        } else if ether_type == ethernet::TYPE_IPV6 && protocol == u128::from(ipv4::PROTOCOL_ICMPV6) {
            self.named(Field::Icmp6Type, "icmp_type");
            self.named(Field::Icmp6Code, "icmp_code");
            self.own(Field::NdTarget);
            self.own(Field::NdSll);
            self.own(Field::NdTll);
            self.own(Field::NdReserved);
            self.own(Field::NdOption);
        } else {
            self.port(key::TP_SRC, "tp_src");
            self.port(key::TP_DST, "tp_dst");
        }
        self.own(Field::TcpFlags);
    }

    fn port(&mut self, place: Place, name: &str) {
        let (value, mask) = (self.value(place), self.mask(place));
        let _ = match mask {
            0 => Ok(()),
            0xffff => write!(self.out, "{name}={value},"),
            _ => write!(self.out, "{name}={value:#x}/{mask:#x},"),
        };
    }
}

/// Prints a match in the order of `ovs-ofctl`, each part followed by a comma.
pub(crate) fn print_match(out: &mut String, matching: &Match, ports: &impl PortNames) {
    let mut printer = Printer { out, matching, ports };
    let told = printer.protocol();
    for index in 0..16 {
        printer.own(Field::Reg(index));
    }
    for field in [Field::TunId, Field::TunSrc, Field::TunDst, Field::TunV6Src, Field::TunV6Dst] {
        printer.own(field);
    }
    printer.own(Field::TunTos);
    printer.own(Field::TunTtl);
    printer.own(Field::Metadata);
    printer.own(Field::InPort);
    printer.vlan(key::VLAN_TCI, "");
    printer.vlan(key::INNER_TCI, "1");
    printer.named(Field::EthSrc, "dl_src");
    printer.named(Field::EthDst, "dl_dst");
    printer.network(told);
}

/// A type that `push_vlan` may push.
pub(super) const fn pushable(ether_type: u16) -> bool {
    is_vlan_type(ether_type)
}
