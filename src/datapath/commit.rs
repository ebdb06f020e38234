//! The datapath actions that make the packet as it is into the packet it is to be.
//!
//! Writes of flows change a key only. Before each output the difference to what the packet already has becomes
//! actions: so a value written twice is written once, and one written back is not written at all. The order is that of
//! OVS's `commit_odp_actions()`: Ethernet, network, neighbour discovery, transport, ICMP, VLAN.

use std::sync::Arc;

use super::field::Needs;
use super::io::{DpPort, TunnelMeta};
use super::key::{self, Key, Mask, Place};
use crate::api::switch::Answer;
use crate::wire::{ethernet, ipv4};

/// What is done to a packet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DpAction {
    /// To a datapath port, as it is now.
    Output {
        port: DpPort,
        tunnel: Option<TunnelMeta>,
    },
    /// Writes a field where `mask` has ones.
    Set {
        field: Header,
        value: u128,
        mask: u128,
    },
    PushVlan {
        tpid: u16,
        tci: u16,
    },
    PopVlan,
    /// Says these octets to whoever follows the switch.
    Say(Arc<[u8]>),
    /// Answers the packet, by the port it came in by.
    Answer {
        port: DpPort,
        answer: Arc<Answer>,
    },
}

/// A header's field as it lies in the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Header {
    EthSrc,
    EthDst,
    Ipv4Src,
    Ipv4Dst,
    Ipv4Tos,
    Ipv4Ttl,
    Ipv6Src,
    Ipv6Dst,
    Ipv6Label,
    Ipv6Class,
    Ipv6Hops,
    ArpOp,
    ArpSpa,
    ArpTpa,
    ArpSha,
    ArpTha,
    NdReserved,
    NdOption,
    NdTarget,
    NdSll,
    NdTll,
    TcpSrc,
    TcpDst,
    UdpSrc,
    UdpDst,
    SctpSrc,
    SctpDst,
    IcmpType,
    IcmpCode,
    Icmp6Type,
    Icmp6Code,
}

type Row = (Header, Place);

const ETHERNET: [Row; 2] = [(Header::EthSrc, key::ETH_SRC), (Header::EthDst, key::ETH_DST)];
const IPV4: [Row; 4] = [
    (Header::Ipv4Src, key::IPV4_SRC),
    (Header::Ipv4Dst, key::IPV4_DST),
    (Header::Ipv4Tos, key::IP_TOS),
    (Header::Ipv4Ttl, key::IP_TTL),
];
const IPV6: [Row; 5] = [
    (Header::Ipv6Src, key::IPV6_SRC),
    (Header::Ipv6Dst, key::IPV6_DST),
    (Header::Ipv6Label, key::IPV6_LABEL),
    (Header::Ipv6Class, key::IP_TOS),
    (Header::Ipv6Hops, key::IP_TTL),
];
const ARP: [Row; 5] = [
    (Header::ArpSpa, key::IPV4_SRC),
    (Header::ArpTpa, key::IPV4_DST),
    (Header::ArpOp, key::IP_PROTO),
    (Header::ArpSha, key::ARP_SHA),
    (Header::ArpTha, key::ARP_THA),
];
// The option's type first: it decides which of the two addresses there is.
const ND: [Row; 5] = [
    (Header::NdReserved, key::ND_RESERVED),
    (Header::NdOption, key::ND_OPTION),
    (Header::NdTarget, key::ND_TARGET),
    (Header::NdSll, key::ARP_SHA),
    (Header::NdTll, key::ARP_THA),
];
const TCP: [Row; 2] = [(Header::TcpSrc, key::TP_SRC), (Header::TcpDst, key::TP_DST)];
const UDP: [Row; 2] = [(Header::UdpSrc, key::TP_SRC), (Header::UdpDst, key::TP_DST)];
const SCTP: [Row; 2] = [(Header::SctpSrc, key::TP_SRC), (Header::SctpDst, key::TP_DST)];
const ICMP: [Row; 2] = [(Header::IcmpType, key::TP_SRC), (Header::IcmpCode, key::TP_DST)];
const ICMP6: [Row; 2] = [(Header::Icmp6Type, key::TP_SRC), (Header::Icmp6Code, key::TP_DST)];

fn rows(out: &mut Vec<DpAction>, rows: &[Row], key: &Key, base: &mut Key, mask: &Mask) {
    for (field, place) in rows {
        let value = key.get(*place);
        if value != base.get(*place) {
            base.set(*place, value);
            // A bit that was written was looked at, so it is in the mask.
            let bits = mask.get(*place);
            out.push(DpAction::Set { field: *field, value: value & bits, mask: bits });
        }
    }
}

/// Adds to `out` what makes `base` into `key`; `base` is `key` then, as far as packets go.
pub(crate) fn commit(out: &mut Vec<DpAction>, key: &Key, base: &mut Key, mask: &mut Mask) {
    rows(out, &ETHERNET, key, base, mask);
    let protocol = u8::try_from(key.get(key::IP_PROTO)).unwrap_or(0);
    let network: &[Row] = match base.get16(key::ETH_TYPE) {
        ethernet::TYPE_IPV4 => &IPV4,
        ethernet::TYPE_IPV6 => &IPV6,
        ethernet::TYPE_ARP => &ARP,
        _ => &[],
    };
    if network.iter().any(|(_, place)| key.get(*place) != base.get(*place)) {
        mask.raise_all(key::IP_PROTO);
    }
    // A packet whose network header could not be read has none to be written (`commit_set_nw_action()`).
    if protocol == 0 {
        return vlan(out, key, base, mask);
    }
    let whole = key.get(key::IP_FRAG) & key::FRAG_LATER == 0;
    let ip = match base.get16(key::ETH_TYPE) {
        ethernet::TYPE_IPV4 => {
            rows(out, &IPV4, key, base, mask);
            true
        }
        ethernet::TYPE_IPV6 => {
            rows(out, &IPV6, key, base, mask);
            if whole && protocol == ipv4::PROTOCOL_ICMPV6 && (Needs::Nd.met_by(base) || Needs::Nd.met_by(key)) {
                rows(out, &ND, key, base, mask);
            }
            true
        }
        ethernet::TYPE_ARP => {
            rows(out, &ARP, key, base, mask);
            false
        }
        _ => false,
    };
    if ip && whole {
        let v6 = base.get16(key::ETH_TYPE) == ethernet::TYPE_IPV6;
        match protocol {
            ipv4::PROTOCOL_TCP => rows(out, &TCP, key, base, mask),
            ipv4::PROTOCOL_UDP => rows(out, &UDP, key, base, mask),
            ipv4::PROTOCOL_SCTP => rows(out, &SCTP, key, base, mask),
            ipv4::PROTOCOL_ICMP if !v6 => rows(out, &ICMP, key, base, mask),
            ipv4::PROTOCOL_ICMPV6 if v6 => rows(out, &ICMP6, key, base, mask),
            _ => {}
        }
    }
    vlan(out, key, base, mask);
}

const TAGS: [(Place, Place); 2] = [(key::VLAN_TPID, key::VLAN_TCI), (key::INNER_TPID, key::INNER_TCI)];

/// The tags of a key, outermost first.
fn tags(key: &Key) -> Vec<(u16, u16)> {
    let tag = |(tpid, tci): &(Place, Place)| (key.get16(*tpid), key.get16(*tci));
    TAGS.iter().map(tag).take_while(|(_, tci)| tci & key::TCI_PRESENT != 0).collect()
}

fn vlan(out: &mut Vec<DpAction>, key: &Key, base: &mut Key, mask: &mut Mask) {
    let (wanted, present) = (tags(key), tags(base));
    if wanted == present {
        return;
    }
    let common = wanted.iter().rev().zip(present.iter().rev()).take_while(|(one, two)| one == two).count();
    for _ in common..present.len() {
        out.push(DpAction::PopVlan);
    }
    for (tpid, tci) in wanted[..wanted.len() - common].iter().rev() {
        out.push(DpAction::PushVlan { tpid: *tpid, tci: *tci & !key::TCI_PRESENT });
    }
    for (tpid, tci) in TAGS {
        base.set(tpid, key.get(tpid));
        base.set(tci, key.get(tci));
    }
    mask.raise_all(key::VLAN_TCI);
    mask.raise_all(key::VLAN_TPID);
}
