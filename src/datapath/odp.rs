//! Datapath actions in the text of OVS (`odp-util`).

use core::fmt::Write;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::DpPort;
use super::commit::{DpAction, Header};
use crate::types::Mac;
use crate::wire::{ethernet, vxlan};

/// How a header's field is shown: its group, its name there, and whether it is a number in hexadecimal, in decimal, or
/// an address of so many octets.
const fn shown(field: Header) -> (&'static str, &'static str, Shape) {
    match field {
        Header::EthSrc => ("eth", "src", Shape::Mac),
        Header::EthDst => ("eth", "dst", Shape::Mac),
        Header::Ipv4Src => ("ipv4", "src", Shape::Ipv4),
        Header::Ipv4Dst => ("ipv4", "dst", Shape::Ipv4),
        Header::Ipv4Tos => ("ipv4", "tos", Shape::Hex),
        Header::Ipv4Ttl => ("ipv4", "ttl", Shape::Decimal),
        Header::Ipv6Src => ("ipv6", "src", Shape::Ipv6),
        Header::Ipv6Dst => ("ipv6", "dst", Shape::Ipv6),
        Header::Ipv6Label => ("ipv6", "label", Shape::Hex),
        Header::Ipv6Class => ("ipv6", "tclass", Shape::Hex),
        Header::Ipv6Hops => ("ipv6", "hlimit", Shape::Decimal),
        Header::ArpOp => ("arp", "op", Shape::Decimal),
        Header::ArpSpa => ("arp", "sip", Shape::Ipv4),
        Header::ArpTpa => ("arp", "tip", Shape::Ipv4),
        Header::ArpSha => ("arp", "sha", Shape::Mac),
        Header::ArpTha => ("arp", "tha", Shape::Mac),
        Header::NdReserved => ("nd_ext", "nd_reserved", Shape::Hex),
        Header::NdOption => ("nd_ext", "nd_options_type", Shape::Decimal),
        Header::NdTarget => ("nd", "target", Shape::Ipv6),
        Header::NdSll => ("nd", "sll", Shape::Mac),
        Header::NdTll => ("nd", "tll", Shape::Mac),
        Header::TcpSrc => ("tcp", "src", Shape::Decimal),
        Header::TcpDst => ("tcp", "dst", Shape::Decimal),
        Header::UdpSrc => ("udp", "src", Shape::Decimal),
        Header::UdpDst => ("udp", "dst", Shape::Decimal),
        Header::SctpSrc => ("sctp", "src", Shape::Decimal),
        Header::SctpDst => ("sctp", "dst", Shape::Decimal),
        Header::IcmpType => ("icmp", "type", Shape::Decimal),
        Header::IcmpCode => ("icmp", "code", Shape::Decimal),
        Header::Icmp6Type => ("icmpv6", "type", Shape::Decimal),
        Header::Icmp6Code => ("icmpv6", "code", Shape::Decimal),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Decimal,
    Hex,
    Mac,
    Ipv4,
    Ipv6,
}

fn value(out: &mut String, shape: Shape, bits: u128) {
    let _ = match shape {
        Shape::Decimal => write!(out, "{bits}"),
        Shape::Hex if bits == 0 => write!(out, "0"),
        Shape::Hex => write!(out, "{bits:#x}"),
        Shape::Mac => {
            let [.., a, b, c, d, e, f] = bits.to_be_bytes();
            write!(out, "{}", Mac::new([a, b, c, d, e, f]))
        }
        Shape::Ipv4 => write!(out, "{}", Ipv4Addr::from(u32::try_from(bits).unwrap_or(u32::MAX))),
        Shape::Ipv6 => write!(out, "{}", Ipv6Addr::from(bits)),
    };
}

/// All bits of a field.
#[expect(clippy::wildcard_enum_match_arm, reason = "the rest are octets")]
const fn exact(field: Header) -> u128 {
    match shown(field).2 {
        Shape::Mac => super::key::ones(48),
        Shape::Ipv4 => super::key::ones(32),
        Shape::Ipv6 => u128::MAX,
        Shape::Decimal | Shape::Hex => match field {
            Header::Ipv6Label => super::key::ones(20),
            Header::NdReserved => super::key::ones(32),
            Header::TcpSrc
            | Header::TcpDst
            | Header::UdpSrc
            | Header::UdpDst
            | Header::SctpSrc
            | Header::SctpDst
            | Header::IcmpType
            | Header::IcmpCode
            | Header::Icmp6Type
            | Header::Icmp6Code => super::key::ones(16),
            _ => super::key::ones(8),
        },
    }
}

/// Prints actions joined by commas; `drop` if there are none.
pub(crate) fn print(out: &mut String, actions: &[DpAction], is_gre: impl Fn(DpPort) -> bool) {
    if actions.is_empty() {
        out.push_str("drop");
    }
    let mut writer = Writer { out, open: None, first: true };
    let mut tunnel = None;
    // Each output with what is written for it: a tunnel is set up before, and once for several outputs in a row.
    for part in actions.split_inclusive(|action| matches!(action, DpAction::Output { .. })) {
        if let Some(DpAction::Output { port, tunnel: Some(wanted) }) = part.last()
            && tunnel != Some(wanted)
        {
            print_tunnel(writer.next(), wanted, is_gre(*port));
            tunnel = Some(wanted);
        }
        for action in part {
            let _ = match action {
                DpAction::Set { field, value, mask } => {
                    writer.set(*field, *value, *mask);
                    Ok(())
                }
                DpAction::Output { port, .. } => write!(writer.next(), "{}", port.0),
                DpAction::PushVlan { tpid, tci } => {
                    let tpid = if *tpid == ethernet::TYPE_VLAN { String::new() } else { format!("tpid={tpid:#06x},") };
                    write!(writer.next(), "push_vlan({tpid}vid={},pcp={})", tci & 0xfff, tci >> 13)
                }
                DpAction::PopVlan => write!(writer.next(), "pop_vlan"),
                // As OVS shows a `controller` action of a flow: reason 1 is OFPR_ACTION.
                DpAction::Say(_) | DpAction::Answer { .. } => write!(
                    writer.next(),
                    "userspace(pid=0,controller(reason=1,dont_send=0,continuation=0,recirc_id=0,rule_cookie=0,\
                     controller_id=0,max_len=65535))"
                ),
            };
        }
    }
    writer.close();
}

/// Joins actions, and the writes of one header's fields into one action.
struct Writer<'a> {
    out: &'a mut String,
    open: Option<&'static str>,
    first: bool,
}

impl Writer<'_> {
    fn close(&mut self) {
        if self.open.take().is_some() {
            self.out.push_str("))");
        }
    }

    /// Where the next action is written.
    fn next(&mut self) -> &mut String {
        self.close();
        if !core::mem::take(&mut self.first) {
            self.out.push(',');
        }
        self.out
    }

    fn set(&mut self, field: Header, bits: u128, mask: u128) {
        let (group, name, shape) = shown(field);
        if self.open == Some(group) {
            self.out.push(',');
        } else {
            let _ = write!(self.next(), "set({group}(");
            self.open = Some(group);
        }
        let _ = write!(self.out, "{name}=");
        value(self.out, shape, bits);
        if mask != exact(field) {
            self.out.push('/');
            value(self.out, if shape == Shape::Decimal { Shape::Hex } else { shape }, mask);
        }
    }
}

fn print_tunnel(out: &mut String, tunnel: &super::TunnelMeta, gre: bool) {
    let six = if tunnel.dst.is_ipv6() { "ipv6_" } else { "" };
    let _ = write!(out, "set(tunnel(tun_id={:#x},", tunnel.id);
    if !matches!(tunnel.src, IpAddr::V4(Ipv4Addr::UNSPECIFIED) | IpAddr::V6(Ipv6Addr::UNSPECIFIED)) {
        let _ = write!(out, "{six}src={},", tunnel.src);
    }
    let _ = write!(out, "{six}dst={},", tunnel.dst);
    if tunnel.tos != 0 {
        let _ = write!(out, "tos={:#x},", tunnel.tos);
    }
    let _ = write!(out, "ttl={},", tunnel.ttl);
    if !gre {
        let _ = write!(out, "tp_dst={},", vxlan::PORT);
    }
    out.push_str("flags(df|key)))");
}
