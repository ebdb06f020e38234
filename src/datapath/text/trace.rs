//! What `ofproto/trace` prints of packets: a packet's fields, and the datapath's actions.

use core::fmt::Write;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::super::commit::{DpAction, Header};
use super::super::field::Needs;
use super::super::key::{self, Key, Mask};
use super::super::matching::Match;
use super::{PortNames, print_match};
use crate::types::Mac;
use crate::wire::ethernet;

/// Prints every field that the packet has; metadata and registers only if they are not zero (`flow_format()`).
pub(crate) fn print_key(out: &mut String, packet: &Key, ports: &impl PortNames) {
    let mask = fields_of(packet);
    print_match(out, &Match { value: packet.masked(&mask), mask }, ports);
    trim(out);
}

/// Removes what a match's last part leaves for a next one.
pub(crate) fn trim(out: &mut String) {
    out.truncate(out.trim_end_matches([',', ' ']).len());
}

/// The fields that a packet with this key has (`flow_wildcards_init_for_flow()`).
fn fields_of(packet: &Key) -> Mask {
    let mut mask = Mask::ZERO;
    if packet.has_tunnel() {
        for place in [
            key::TUN_ID,
            key::TUN_SRC,
            key::TUN_DST,
            key::TUN_V6_SRC,
            key::TUN_V6_DST,
            key::TUN_TOS,
            key::TUN_TTL,
        ] {
            mask.raise_all(place);
        }
    } else if packet.get(key::TUN_ID) != 0 {
        mask.raise_all(key::TUN_ID);
    }
    let registers = (0..16).map(key::register);
    for place in registers.chain([key::METADATA, key::IN_PORT]).filter(|place| packet.get(*place) != 0) {
        mask.raise_all(place);
    }
    for place in [key::VLAN_TCI, key::ETH_SRC, key::ETH_DST, key::ETH_TYPE] {
        mask.raise_all(place);
    }
    let network: &[key::Place] = match packet.get16(key::ETH_TYPE) {
        ethernet::TYPE_IPV4 => &[key::IPV4_SRC, key::IPV4_DST],
        ethernet::TYPE_IPV6 => &[key::IPV6_SRC, key::IPV6_DST, key::IPV6_LABEL],
        ethernet::TYPE_ARP | ethernet::TYPE_RARP => {
            &[key::IPV4_SRC, key::IPV4_DST, key::IP_PROTO, key::ARP_SHA, key::ARP_THA]
        }
        _ => &[],
    };
    network.iter().for_each(|place| mask.raise_all(*place));
    if Needs::Ip.met_by(packet) {
        for place in [key::IP_FRAG, key::IP_TOS, key::IP_TTL, key::IP_PROTO] {
            mask.raise_all(place);
        }
    }
    let ported = [Needs::Tcp, Needs::Udp, Needs::Sctp, Needs::Icmp4, Needs::Icmp6];
    if ported.into_iter().any(|needs| needs.met_by(packet)) {
        mask.raise_all(key::TP_SRC);
        mask.raise_all(key::TP_DST);
    }
    if Needs::Tcp.met_by(packet) {
        mask.raise_all(key::TCP_FLAGS);
    }
    if Needs::Nd.met_by(packet) {
        for place in [key::ND_TARGET, key::ARP_SHA, key::ARP_THA, key::ND_RESERVED, key::ND_OPTION] {
            mask.raise_all(place);
        }
    }
    mask
}

/// The datapath's name for a field's header, and the header's for the field.
const fn names(field: Header) -> (&'static str, &'static str) {
    match field {
        Header::EthSrc => ("eth", "src"),
        Header::EthDst => ("eth", "dst"),
        Header::Ipv4Src => ("ipv4", "src"),
        Header::Ipv4Dst => ("ipv4", "dst"),
        Header::Ipv4Tos => ("ipv4", "tos"),
        Header::Ipv4Ttl => ("ipv4", "ttl"),
        Header::Ipv6Src => ("ipv6", "src"),
        Header::Ipv6Dst => ("ipv6", "dst"),
        Header::Ipv6Label => ("ipv6", "label"),
        Header::Ipv6Class => ("ipv6", "tclass"),
        Header::Ipv6Hops => ("ipv6", "hlimit"),
        Header::ArpOp => ("arp", "op"),
        Header::ArpSpa => ("arp", "sip"),
        Header::ArpTpa => ("arp", "tip"),
        Header::ArpSha => ("arp", "sha"),
        Header::ArpTha => ("arp", "tha"),
        Header::NdReserved => ("nd_ext", "nd_reserved"),
        Header::NdOption => ("nd_ext", "nd_options_type"),
        Header::NdTarget => ("nd", "target"),
        Header::NdSll => ("nd", "sll"),
        Header::NdTll => ("nd", "tll"),
        Header::TcpSrc => ("tcp", "src"),
        Header::TcpDst => ("tcp", "dst"),
        Header::UdpSrc => ("udp", "src"),
        Header::UdpDst => ("udp", "dst"),
        Header::SctpSrc => ("sctp", "src"),
        Header::SctpDst => ("sctp", "dst"),
        Header::IcmpType => ("icmp", "type"),
        Header::IcmpCode => ("icmp", "code"),
        Header::Icmp6Type => ("icmpv6", "type"),
        Header::Icmp6Code => ("icmpv6", "code"),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "a field of 32 bits")]
const fn low32(value: u128) -> u32 {
    value as u32
}

fn mac(value: u128) -> Mac {
    let [.., a, b, c, d, e, f] = value.to_be_bytes();
    Mac::new([a, b, c, d, e, f])
}

/// A field's value, with its mask unless that is all ones.
fn print_value(out: &mut String, field: Header, value: u128, mask: u128) {
    let exact = mask == field.place().ones();
    let _ = match field {
        Header::EthSrc | Header::EthDst | Header::ArpSha | Header::ArpTha | Header::NdSll | Header::NdTll => {
            let _ = write!(out, "{}", mac(value));
            if exact { Ok(()) } else { write!(out, "/{}", mac(mask)) }
        }
        Header::Ipv4Src | Header::Ipv4Dst | Header::ArpSpa | Header::ArpTpa => {
            let _ = write!(out, "{}", Ipv4Addr::from(low32(value)));
            if exact { Ok(()) } else { write!(out, "/{}", Ipv4Addr::from(low32(mask))) }
        }
        Header::Ipv6Src | Header::Ipv6Dst | Header::NdTarget => {
            let _ = write!(out, "{}", Ipv6Addr::from(value));
            if exact { Ok(()) } else { write!(out, "/{}", Ipv6Addr::from(mask)) }
        }
        Header::Ipv4Tos | Header::Ipv6Label | Header::Ipv6Class | Header::NdReserved => {
            let _ = write!(out, "{value:#x}");
            if exact { Ok(()) } else { write!(out, "/{mask:#x}") }
        }
        Header::Ipv4Ttl
        | Header::Ipv6Hops
        | Header::ArpOp
        | Header::NdOption
        | Header::TcpSrc
        | Header::TcpDst
        | Header::UdpSrc
        | Header::UdpDst
        | Header::SctpSrc
        | Header::SctpDst
        | Header::IcmpType
        | Header::IcmpCode
        | Header::Icmp6Type
        | Header::Icmp6Code => {
            let _ = write!(out, "{value}");
            if exact { Ok(()) } else { write!(out, "/{mask:#x}") }
        }
    };
}

/// Prints what is done to a packet as `format_odp_actions()` does; nothing is `drop`. Tunnels go to `tunnel_port`.
pub(crate) fn print_datapath(out: &mut String, actions: &[DpAction], tunnel_port: u16) {
    if actions.is_empty() {
        out.push_str("drop");
        return;
    }
    let mut open = None;
    for action in actions {
        let header = match action {
            DpAction::Set { field, .. } => Some(names(*field).0),
            DpAction::Output { .. } | DpAction::PushVlan { .. } | DpAction::PopVlan => None,
        };
        if open.is_some() && open != header {
            out.push_str("))");
        }
        if !out.is_empty() && !out.ends_with(' ') {
            out.push(',');
        }
        let _ = match action {
            DpAction::Set { field, value, mask } => {
                let (header, name) = names(*field);
                if open != Some(header) {
                    let _ = write!(out, "set({header}(");
                }
                let _ = write!(out, "{name}=");
                print_value(out, *field, *value, *mask);
                Ok(())
            }
            DpAction::PopVlan => write!(out, "pop_vlan"),
            DpAction::PushVlan { tpid, tci } => {
                let (vid, pcp) = (tci & 0xfff, tci >> 13);
                match *tpid {
                    ethernet::TYPE_VLAN => write!(out, "push_vlan(vid={vid},pcp={pcp})"),
                    tpid => write!(out, "push_vlan(tpid={tpid:#06x},vid={vid},pcp={pcp})"),
                }
            }
            DpAction::Output { port, tunnel: None } => write!(out, "{}", port.0),
            DpAction::Output { port, tunnel: Some(tunnel) } => {
                let _ = write!(out, "set(tunnel(tun_id={:#x},", tunnel.id);
                let six = if tunnel.dst.is_ipv6() { "ipv6_" } else { "" };
                let _ = write!(out, "{six}src={},{six}dst={},", tunnel.src, tunnel.dst);
                if tunnel.tos != 0 {
                    let _ = write!(out, "tos={:#x},", tunnel.tos);
                }
                write!(out, "ttl={},tp_dst={tunnel_port},flags(df|key))),{}", tunnel.ttl, port.0)
            }
        };
        open = header;
    }
    if open.is_some() {
        out.push_str("))");
    }
}
