//! What `ofproto/trace` prints of packets: a packet's fields, and the datapath's actions.

use core::fmt::Write;
use core::net::{Ipv4Addr, Ipv6Addr};

use super::super::commit::{DpAction, Header};
use super::super::field::Needs;
use super::super::io::TunnelMeta;
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
        for place in
            [key::TUN_ID, key::TUN_SRC, key::TUN_DST, key::TUN_V6_SRC, key::TUN_V6_DST, key::TUN_TOS, key::TUN_TTL]
        {
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
    if packet.get(key::VLAN_TCI) != 0 {
        mask.raise_all(key::INNER_TCI);
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
        for place in [key::ND_TARGET, key::ARP_SHA, key::ARP_THA] {
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
            // As C prints it: zero has no prefix.
            let _ = if value == 0 { write!(out, "0") } else { write!(out, "{value:#x}") };
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

/// The writes of a header that follow each other, as one action.
struct Writer<'a> {
    out: &'a mut String,
    open: Option<&'static str>,
}

impl Writer<'_> {
    fn close(&mut self) {
        if self.open.take().is_some() {
            self.out.push_str("))");
        }
    }

    fn next(&mut self) {
        if !self.out.is_empty() {
            self.out.push(',');
        }
    }

    fn set(&mut self, field: Header, value: u128, mask: u128) {
        let (header, name) = names(field);
        if self.open != Some(header) {
            self.close();
            self.next();
            let _ = write!(self.out, "set({header}(");
            self.open = Some(header);
        } else {
            self.out.push(',');
        }
        let _ = write!(self.out, "{name}=");
        print_value(self.out, field, value, mask);
    }

    fn plain(&mut self, text: &str) {
        self.close();
        self.next();
        self.out.push_str(text);
    }
}

fn tunnel_text(tunnel: &TunnelMeta, port: u16) -> String {
    let six = if tunnel.dst.is_ipv6() { "ipv6_" } else { "" };
    let tos = if tunnel.tos == 0 { String::new() } else { format!("tos={:#x},", tunnel.tos) };
    let TunnelMeta { id, src, dst, tos: _, ttl } = tunnel;
    format!("set(tunnel(tun_id={id:#x},{six}src={src},{six}dst={dst},{tos}ttl={ttl},tp_dst={port},flags(df|key)))")
}

/// Prints what is done to a packet as `format_odp_actions()` does; nothing is `drop`. Tunnels go to UDP `port`.
pub(crate) fn print_datapath(actions: &[DpAction], port: u16) -> String {
    let mut out = String::new();
    let mut writer = Writer { out: &mut out, open: None };
    let mut tunnel = None;
    // Each output with what is written for it: a tunnel is set up before, and once for several outputs in a row.
    for part in actions.split_inclusive(|action| matches!(action, DpAction::Output { .. })) {
        if let Some(DpAction::Output { tunnel: Some(wanted), .. }) = part.last()
            && tunnel != Some(wanted)
        {
            writer.plain(&tunnel_text(wanted, port));
            tunnel = Some(wanted);
        }
        for action in part {
            match action {
                DpAction::Set { field, value, mask } => writer.set(*field, *value, *mask),
                DpAction::PopVlan => writer.plain("pop_vlan"),
                DpAction::PushVlan { tpid, tci } => {
                    let tpid = if *tpid == ethernet::TYPE_VLAN { String::new() } else { format!("tpid={tpid:#06x},") };
                    writer.plain(&format!("push_vlan({tpid}vid={},pcp={})", tci & 0xfff, tci >> 13));
                }
                DpAction::Output { port, .. } => writer.plain(&port.0.to_string()),
            }
        }
    }
    writer.close();
    if out.is_empty() { "drop".to_owned() } else { out }
}
