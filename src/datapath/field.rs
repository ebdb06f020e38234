//! The fields by name: one table that parsing, printing, prerequisites and actions share.
//!
//! Names, widths and prerequisites are those of Open vSwitch's `ovs-fields(7)`.

mod needs;

use std::sync::LazyLock;

use hashbrown::HashMap;

pub(crate) use self::needs::Needs;
use super::key::{self, Key, Mask, Place};
use crate::wire::arp;

/// A field a match can name or an action can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Field {
    TunId,
    TunSrc,
    TunDst,
    TunV6Src,
    TunV6Dst,
    TunTos,
    TunTtl,
    Metadata,
    InPort,
    Reg(u8),
    XReg(u8),
    XxReg(u8),
    EthSrc,
    EthDst,
    EthType,
    VlanTci,
    DlVlan,
    DlVlanPcp,
    VlanVid,
    VlanPcp,
    Ipv4Src,
    Ipv4Dst,
    Ipv6Src,
    Ipv6Dst,
    Ipv6Label,
    IpProto,
    IpTos,
    IpDscp,
    IpEcn,
    IpTtl,
    IpFrag,
    ArpOp,
    ArpSpa,
    ArpTpa,
    ArpSha,
    ArpTha,
    TcpSrc,
    TcpDst,
    TcpFlags,
    UdpSrc,
    UdpDst,
    SctpSrc,
    SctpDst,
    Icmp4Type,
    Icmp4Code,
    Icmp6Type,
    Icmp6Code,
    NdTarget,
    NdSll,
    NdTll,
    NdReserved,
    NdOption,
}

/// How a field's value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Decimal,
    Hex,
    Mac,
    Ipv4,
    Ipv6,
    Port,
    Frag,
    TcpFlags,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Info {
    pub(crate) field: Field,
    /// Its own name, and the one matches were written with in OpenFlow 1.0.
    pub(crate) name: &'static str,
    pub(crate) alias: &'static str,
    /// What `load`, `move` and `learn` call it; the first is printed. Empty if they cannot.
    pub(crate) nxm: &'static str,
    pub(crate) oxm: &'static str,
    pub(crate) place: Place,
    /// Bits that `[]` means.
    pub(crate) bits: u8,
    pub(crate) format: Format,
    pub(crate) needs: Needs,
    pub(crate) maskable: bool,
    pub(crate) writable: bool,
}

const fn row(
    field: Field,
    names: [&'static str; 2],
    xm: [&'static str; 2],
    place: Place,
    format: Format,
    needs: Needs,
    flags: (bool, bool),
) -> Info {
    let (maskable, writable) = flags;
    Info {
        field,
        name: names[0],
        alias: names[1],
        nxm: xm[0],
        oxm: xm[1],
        place,
        bits: place.bits,
        format,
        needs,
        maskable,
        writable,
    }
}

const fn sized(info: Info, bits: u8) -> Info {
    Info { bits, ..info }
}

macro_rules! registers {
    ($($n:literal),*) => {
        [$(row(Field::Reg($n), [concat!("reg", $n), ""], [concat!("NXM_NX_REG", $n), ""], key::register($n),
            Format::Hex, Needs::Nothing, (true, true)),)*]
    };
}
macro_rules! double_registers {
    ($($n:literal),*) => {
        [$(row(Field::XReg($n), [concat!("xreg", $n), ""], [concat!("OXM_OF_PKT_REG", $n), ""],
            Place { word: 9 + $n, shift: 0, bits: 64 }, Format::Hex, Needs::Nothing, (true, true)),)*]
    };
}
macro_rules! quad_registers {
    ($($n:literal),*) => {
        [$(row(Field::XxReg($n), [concat!("xxreg", $n), ""], [concat!("NXM_NX_XXREG", $n), ""],
            Place { word: 9 + 2 * $n, shift: 0, bits: 128 }, Format::Hex, Needs::Nothing, (true, true)),)*]
    };
}

const BOTH: (bool, bool) = (true, true);
const WRITE: (bool, bool) = (false, true);
const READ: (bool, bool) = (false, false);
const MASK: (bool, bool) = (true, false);

static REGISTERS: [Info; 16] = registers!(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
static DOUBLE: [Info; 8] = double_registers!(0, 1, 2, 3, 4, 5, 6, 7);
static QUAD: [Info; 4] = quad_registers!(0, 1, 2, 3);

const DSCP: Place = Place { word: 17, shift: 2, bits: 6 };
const ECN: Place = Place { word: 17, shift: 0, bits: 2 };
const VID: Place = Place { word: 0, shift: 0, bits: 13 };
const PCP: Place = Place { word: 0, shift: 13, bits: 3 };
const FLAGS: Place = Place { word: 25, shift: 32, bits: 12 };

static FIELDS: [Info; 49] = {
    use Field as F;
    use Format as S;
    use Needs as N;
    [
        row(
            F::TunId,
            ["tun_id", "tunnel_id"],
            ["NXM_NX_TUN_ID", "OXM_OF_TUNNEL_ID"],
            key::TUN_ID,
            S::Hex,
            N::Nothing,
            BOTH,
        ),
        row(F::TunSrc, ["tun_src", ""], ["NXM_NX_TUN_IPV4_SRC", ""], key::TUN_SRC, S::Ipv4, N::Nothing, BOTH),
        row(F::TunDst, ["tun_dst", ""], ["NXM_NX_TUN_IPV4_DST", ""], key::TUN_DST, S::Ipv4, N::Nothing, BOTH),
        row(F::TunV6Src, ["tun_ipv6_src", ""], ["NXM_NX_TUN_IPV6_SRC", ""], key::TUN_V6_SRC, S::Ipv6, N::Nothing, BOTH),
        row(F::TunV6Dst, ["tun_ipv6_dst", ""], ["NXM_NX_TUN_IPV6_DST", ""], key::TUN_V6_DST, S::Ipv6, N::Nothing, BOTH),
        row(F::TunTos, ["tun_tos", ""], ["", ""], key::TUN_TOS, S::Hex, N::Nothing, WRITE),
        row(F::TunTtl, ["tun_ttl", ""], ["", ""], key::TUN_TTL, S::Decimal, N::Nothing, WRITE),
        row(F::Metadata, ["metadata", ""], ["OXM_OF_METADATA", ""], key::METADATA, S::Hex, N::Nothing, BOTH),
        sized(row(F::InPort, ["in_port", ""], ["NXM_OF_IN_PORT", ""], key::IN_PORT, S::Port, N::Nothing, WRITE), 16),
        row(
            F::EthSrc,
            ["eth_src", "dl_src"],
            ["NXM_OF_ETH_SRC", "OXM_OF_ETH_SRC"],
            key::ETH_SRC,
            S::Mac,
            N::Nothing,
            BOTH,
        ),
        row(
            F::EthDst,
            ["eth_dst", "dl_dst"],
            ["NXM_OF_ETH_DST", "OXM_OF_ETH_DST"],
            key::ETH_DST,
            S::Mac,
            N::Nothing,
            BOTH,
        ),
        row(
            F::EthType,
            ["eth_type", "dl_type"],
            ["NXM_OF_ETH_TYPE", "OXM_OF_ETH_TYPE"],
            key::ETH_TYPE,
            S::Hex,
            N::Nothing,
            READ,
        ),
        row(F::VlanTci, ["vlan_tci", ""], ["NXM_OF_VLAN_TCI", ""], key::VLAN_TCI, S::Hex, N::Nothing, BOTH),
        sized(row(F::DlVlan, ["dl_vlan", ""], ["", ""], VID, S::Decimal, N::Nothing, WRITE), 12),
        row(F::DlVlanPcp, ["dl_vlan_pcp", ""], ["", ""], PCP, S::Decimal, N::Nothing, WRITE),
        sized(row(F::VlanVid, ["vlan_vid", ""], ["OXM_OF_VLAN_VID", ""], VID, S::Decimal, N::Nothing, BOTH), 12),
        row(F::VlanPcp, ["vlan_pcp", ""], ["OXM_OF_VLAN_PCP", ""], PCP, S::Decimal, N::Vlan, WRITE),
        row(
            F::Ipv4Src,
            ["ip_src", "nw_src"],
            ["NXM_OF_IP_SRC", "OXM_OF_IPV4_SRC"],
            key::IPV4_SRC,
            S::Ipv4,
            N::Ipv4,
            BOTH,
        ),
        row(
            F::Ipv4Dst,
            ["ip_dst", "nw_dst"],
            ["NXM_OF_IP_DST", "OXM_OF_IPV4_DST"],
            key::IPV4_DST,
            S::Ipv4,
            N::Ipv4,
            BOTH,
        ),
        row(
            F::Ipv6Src,
            ["ipv6_src", ""],
            ["NXM_NX_IPV6_SRC", "OXM_OF_IPV6_SRC"],
            key::IPV6_SRC,
            S::Ipv6,
            N::Ipv6,
            BOTH,
        ),
        row(
            F::Ipv6Dst,
            ["ipv6_dst", ""],
            ["NXM_NX_IPV6_DST", "OXM_OF_IPV6_DST"],
            key::IPV6_DST,
            S::Ipv6,
            N::Ipv6,
            BOTH,
        ),
        row(
            F::Ipv6Label,
            ["ipv6_label", ""],
            ["NXM_NX_IPV6_LABEL", "OXM_OF_IPV6_FLABEL"],
            key::IPV6_LABEL,
            S::Hex,
            N::Ipv6,
            BOTH,
        ),
        row(
            F::IpProto,
            ["nw_proto", "ip_proto"],
            ["NXM_OF_IP_PROTO", "OXM_OF_IP_PROTO"],
            key::IP_PROTO,
            S::Decimal,
            N::Ip,
            READ,
        ),
        row(F::IpTos, ["nw_tos", ""], ["NXM_OF_IP_TOS", ""], key::IP_TOS, S::Decimal, N::Ip, WRITE),
        row(F::IpDscp, ["ip_dscp", ""], ["OXM_OF_IP_DSCP", ""], DSCP, S::Decimal, N::Ip, WRITE),
        row(F::IpEcn, ["nw_ecn", "ip_ecn"], ["NXM_NX_IP_ECN", "OXM_OF_IP_ECN"], ECN, S::Decimal, N::Ip, WRITE),
        row(F::IpTtl, ["nw_ttl", ""], ["NXM_NX_IP_TTL", ""], key::IP_TTL, S::Decimal, N::Ip, WRITE),
        sized(row(F::IpFrag, ["ip_frag", "nw_frag"], ["NXM_NX_IP_FRAG", ""], key::IP_FRAG, S::Frag, N::Ip, MASK), 8),
        sized(
            row(F::ArpOp, ["arp_op", ""], ["NXM_OF_ARP_OP", "OXM_OF_ARP_OP"], key::IP_PROTO, S::Decimal, N::Arp, WRITE),
            16,
        ),
        row(F::ArpSpa, ["arp_spa", ""], ["NXM_OF_ARP_SPA", "OXM_OF_ARP_SPA"], key::IPV4_SRC, S::Ipv4, N::Arp, BOTH),
        row(F::ArpTpa, ["arp_tpa", ""], ["NXM_OF_ARP_TPA", "OXM_OF_ARP_TPA"], key::IPV4_DST, S::Ipv4, N::Arp, BOTH),
        row(F::ArpSha, ["arp_sha", ""], ["NXM_NX_ARP_SHA", "OXM_OF_ARP_SHA"], key::ARP_SHA, S::Mac, N::Arp, BOTH),
        row(F::ArpTha, ["arp_tha", ""], ["NXM_NX_ARP_THA", "OXM_OF_ARP_THA"], key::ARP_THA, S::Mac, N::Arp, BOTH),
        row(
            F::TcpSrc,
            ["tcp_src", "tp_src"],
            ["NXM_OF_TCP_SRC", "OXM_OF_TCP_SRC"],
            key::TP_SRC,
            S::Decimal,
            N::Tcp,
            BOTH,
        ),
        row(
            F::TcpDst,
            ["tcp_dst", "tp_dst"],
            ["NXM_OF_TCP_DST", "OXM_OF_TCP_DST"],
            key::TP_DST,
            S::Decimal,
            N::Tcp,
            BOTH,
        ),
        row(F::TcpFlags, ["tcp_flags", ""], ["NXM_NX_TCP_FLAGS", "OXM_OF_TCP_FLAGS"], FLAGS, S::TcpFlags, N::Tcp, MASK),
        row(F::UdpSrc, ["udp_src", ""], ["NXM_OF_UDP_SRC", "OXM_OF_UDP_SRC"], key::TP_SRC, S::Decimal, N::Udp, BOTH),
        row(F::UdpDst, ["udp_dst", ""], ["NXM_OF_UDP_DST", "OXM_OF_UDP_DST"], key::TP_DST, S::Decimal, N::Udp, BOTH),
        row(F::SctpSrc, ["sctp_src", ""], ["OXM_OF_SCTP_SRC", ""], key::TP_SRC, S::Decimal, N::Sctp, BOTH),
        row(F::SctpDst, ["sctp_dst", ""], ["OXM_OF_SCTP_DST", ""], key::TP_DST, S::Decimal, N::Sctp, BOTH),
        sized(
            row(
                F::Icmp4Type,
                ["icmp_type", ""],
                ["NXM_OF_ICMP_TYPE", "OXM_OF_ICMPV4_TYPE"],
                key::TP_SRC,
                S::Decimal,
                N::Icmp4,
                WRITE,
            ),
            8,
        ),
        sized(
            row(
                F::Icmp4Code,
                ["icmp_code", ""],
                ["NXM_OF_ICMP_CODE", "OXM_OF_ICMPV4_CODE"],
                key::TP_DST,
                S::Decimal,
                N::Icmp4,
                WRITE,
            ),
            8,
        ),
        sized(
            row(
                F::Icmp6Type,
                ["icmpv6_type", ""],
                ["NXM_NX_ICMPV6_TYPE", "OXM_OF_ICMPV6_TYPE"],
                key::TP_SRC,
                S::Decimal,
                N::Icmp6,
                WRITE,
            ),
            8,
        ),
        sized(
            row(
                F::Icmp6Code,
                ["icmpv6_code", ""],
                ["NXM_NX_ICMPV6_CODE", "OXM_OF_ICMPV6_CODE"],
                key::TP_DST,
                S::Decimal,
                N::Icmp6,
                WRITE,
            ),
            8,
        ),
        row(
            F::NdTarget,
            ["nd_target", ""],
            ["NXM_NX_ND_TARGET", "OXM_OF_IPV6_ND_TARGET"],
            key::ND_TARGET,
            S::Ipv6,
            N::Nd,
            BOTH,
        ),
        row(
            F::NdSll,
            ["nd_sll", ""],
            ["NXM_NX_ND_SLL", "OXM_OF_IPV6_ND_SLL"],
            key::ARP_SHA,
            S::Mac,
            N::NdSolicit,
            BOTH,
        ),
        row(F::NdTll, ["nd_tll", ""], ["NXM_NX_ND_TLL", "OXM_OF_IPV6_ND_TLL"], key::ARP_THA, S::Mac, N::NdAdvert, BOTH),
        row(
            F::NdReserved,
            ["nd_reserved", ""],
            ["ERICOXM_OF_ICMPV6_ND_RESERVED", ""],
            key::ND_RESERVED,
            S::Decimal,
            N::Nd,
            WRITE,
        ),
        row(
            F::NdOption,
            ["nd_options_type", ""],
            ["ERICOXM_OF_ICMPV6_ND_OPTIONS_TYPE", ""],
            key::ND_OPTION,
            S::Decimal,
            N::Nd,
            WRITE,
        ),
    ]
};

impl Field {
    /// Every field.
    pub(crate) fn all() -> impl Iterator<Item = &'static Info> {
        FIELDS.iter().chain(&REGISTERS).chain(&DOUBLE).chain(&QUAD)
    }

    /// Its row.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all but the registers are in one table")]
    pub(crate) fn info(self) -> &'static Info {
        match self {
            Self::Reg(index) => &REGISTERS[usize::from(index)],
            Self::XReg(index) => &DOUBLE[usize::from(index)],
            Self::XxReg(index) => &QUAD[usize::from(index)],
            other => {
                let Some(info) = FIELDS.iter().find(|info| info.field == other) else {
                    unreachable!("every field has a row")
                };
                info
            }
        }
    }

    /// The field a match or `set_field` calls by `name`.
    pub(crate) fn by_name(name: &str) -> Option<&'static Info> {
        // As actions call the IPv4 and ARP fields interchangeably with NXM names.
        BY_NAME.get(name).copied().or_else(|| Self::by_xm(name))
    }

    /// The field that `load` or `move` calls by `name`.
    pub(crate) fn by_xm(name: &str) -> Option<&'static Info> {
        BY_XM.get(name).copied()
    }
}

type ByName = HashMap<&'static str, &'static Info>;

/// Fields by their names in matches; of two with one name, the first.
static BY_NAME: LazyLock<ByName> = LazyLock::new(|| named(|info| [info.name, info.alias]));
/// Fields by their NXM and OXM names.
static BY_XM: LazyLock<ByName> =
    LazyLock::new(|| named(|info| [info.nxm, if info.nxm.is_empty() { "" } else { info.oxm }]));

fn named(names: impl Fn(&Info) -> [&'static str; 2]) -> ByName {
    let mut all = ByName::new();
    for info in Field::all() {
        for name in names(info).into_iter().filter(|name| !name.is_empty()) {
            all.entry(name).or_insert(info);
        }
    }
    all
}

impl Info {
    /// The bits of the place that writing or matching the whole field concerns.
    pub(crate) const fn exact(&self) -> u128 {
        if matches!(self.field, Field::IpTos) { 0xfc } else { self.place.ones() }
    }
}

/// Adjacent bits of a field: `NAME[from..from + bits - 1]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Subfield {
    pub(crate) field: Field,
    pub(crate) from: u8,
    pub(crate) bits: u8,
}

impl Subfield {
    pub(crate) fn whole(field: Field) -> Self {
        Self { field, from: 0, bits: field.info().bits }
    }

    pub(crate) fn read(self, key: &Key) -> u128 {
        key.get_part(self.field.info().place.part(self.from, self.bits))
    }

    pub(crate) fn write(self, key: &mut Key, value: u128) {
        key.set_part(self.field.info().place.part(self.from, self.bits), value);
    }

    /// Marks its bits.
    pub(crate) fn raise(self, mask: &mut Mask) {
        self.write(mask, u128::MAX);
    }

    pub(crate) fn is_whole(self) -> bool {
        self.from == 0 && self.bits == self.field.info().bits
    }
}

/// An ARP operation as it is kept: octets above 255 are not represented, as in OVS.
pub(crate) const fn arp_operation(operation: u16) -> u8 {
    if operation <= 0xff { operation.to_be_bytes()[1] } else { 0 }
}

const _: () = assert!(arp_operation(arp::REPLY) == 2, "the low octet is kept");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_row() {
        for info in Field::all() {
            assert_eq!(info.field.info().name, info.name);
            for name in [info.name, info.alias].into_iter().filter(|name| !name.is_empty()) {
                assert_eq!(Field::by_name(name).map(|found| found.field), Some(info.field), "{name}");
            }
            for name in [info.nxm, info.oxm].into_iter().filter(|name| !name.is_empty()) {
                assert_eq!(Field::by_xm(name).map(|found| found.field), Some(info.field), "{name}");
            }
        }
    }
}
