//! A flow as the text `ovs-ofctl add-flow` takes, and the action chains both bridges use.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::types::{IfName, Mac, VlanId, Vni};

use super::COOKIE;

/// Every group address has this bit.
pub(super) const GROUP: &str = "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00";
/// Every station's address lacks it.
pub(super) const UNICAST: &str = "dl_dst=00:00:00:00:00:00/01:00:00:00:00:00";
/// No 802.1Q tag: the bit OVS keeps for "tag present" and the VLAN id are zero.
pub(super) const UNTAGGED: &str = "vlan_tci=0x0000/0x1fff";
/// A neighbour solicitation (RFC 4861 §4.3).
pub(super) const SOLICITATION: &str = "icmp6,icmp_type=135,icmp_code=0";
/// A neighbour advertisement (RFC 4861 §4.4).
pub(super) const ADVERTISEMENT: &str = "icmp6,icmp_type=136,icmp_code=0";
/// Word of a packet that is too big for the way: fragmentation needed (RFC 792).
pub(super) const TOO_BIG_V4: &str = "icmp,icmp_type=3,icmp_code=4";
/// The same of IPv6 (RFC 4443 §3.2).
pub(super) const TOO_BIG_V6: &str = "icmp6,icmp_type=2,icmp_code=0";

/// One flow of a program. Its `Display` is a line that `add-flow` takes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProgramFlow {
    /// Its table.
    pub table: u8,
    /// Its priority.
    pub priority: u16,
    /// Its match, ports by name; empty for all.
    pub matching: String,
    /// Its actions.
    pub actions: String,
}

impl ProgramFlow {
    pub(super) fn new(table: u8, priority: u16, matching: impl Into<String>, actions: impl Into<String>) -> Self {
        Self { table, priority, matching: matching.into(), actions: actions.into() }
    }

    /// The text that names exactly this flow, as `--strict del-flows` takes it.
    #[must_use]
    pub fn strict_match(&self) -> String {
        let comma = if self.matching.is_empty() { "" } else { "," };
        format!("table={},priority={}{comma}{}", self.table, self.priority, self.matching)
    }
}

impl fmt::Display for ProgramFlow {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, priority, matching, actions } = self;
        let comma = if matching.is_empty() { "" } else { "," };
        write!(out, "cookie={COOKIE:#x},table={table},priority={priority}{comma}{matching} actions={actions}")
    }
}

/// A port's name where a flow names a port. Names the program makes need no quotes; others get them, because a
/// reserved word (`local`, `flood`) or a comma in a name would be read as something else.
pub(super) fn port(name: &IfName) -> String {
    let text = name.as_str();
    let prefixes = ["tap", "qr-", "vxlan-", "gre-", "vx-", "patch-", "int-", "phy-"];
    let ours = prefixes.iter().any(|prefix| text.starts_with(prefix));
    let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if ours && plain { text.to_owned() } else { format!("\"{text}\"") }
}

/// `output:` for each port, or nothing.
pub(super) fn outputs<'a>(ports: impl IntoIterator<Item = &'a IfName>) -> Vec<String> {
    ports.into_iter().map(|name| format!("output:{}", port(name))).collect()
}

/// An address as the number `load` takes.
pub(super) fn mac_number(mac: Mac) -> String {
    let bits = mac.octets().into_iter().fold(0_u64, |bits, octet| bits << 8 | u64::from(octet));
    format!("0x{bits:012x}")
}

/// The match on a network's local VLAN.
pub(super) fn vlan(vlan: VlanId) -> String {
    format!("dl_vlan={vlan}")
}

/// The match on an ARP packet that asks for, or is sent to, an address.
pub(super) fn arp_for(ip: Ipv4Addr) -> String {
    format!("arp,arp_tpa={ip}")
}

/// The match on a solicitation of an address.
pub(super) fn solicitation_of(ip: Ipv6Addr) -> String {
    format!("{SOLICITATION},nd_target={ip}")
}

/// The match on a question for an address, of either family.
pub(super) fn question(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => arp_for(ip),
        IpAddr::V6(ip) => solicitation_of(ip),
    }
}

/// Octets as `userdata` has them.
pub(super) fn userdata(octets: &[u8]) -> String {
    let octets: Vec<String> = octets.iter().map(|octet| format!("{octet:02x}")).collect();
    octets.join(".")
}

/// Off with the VLAN, on with the tunnel key.
pub(super) fn encapsulate(vni: Vni) -> String {
    format!("strip_vlan,set_tunnel:{:#x}", vni.get())
}

/// Turns an ARP request into its answer, out of the port it came in by (RFC 826, "Packet Reception").
pub(super) fn arp_reply(ip: Ipv4Addr, mac: Mac) -> String {
    let number = mac_number(mac);
    format!(
        "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],mod_dl_src:{mac},load:0x2->NXM_OF_ARP_OP[],\
         move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],\
         load:{number}->NXM_NX_ARP_SHA[],load:{:#x}->NXM_OF_ARP_SPA[],strip_vlan,in_port",
        ip.to_bits(),
    )
}

/// Turns a neighbour solicitation with a source link-layer option into its solicited advertisement, out of the port
/// it came in by (RFC 4861 §7.2.4): flags Solicited and Override, and Router for a router's address.
pub(super) fn nd_reply(ip: Ipv6Addr, mac: Mac, router: bool) -> String {
    let flags = if router { "0xe0000000" } else { "0x60000000" };
    format!(
        "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],mod_dl_src:{mac},move:NXM_NX_IPV6_SRC[]->NXM_NX_IPV6_DST[],\
         set_field:{ip}->ipv6_src,set_field:136->icmpv6_type,set_field:{flags}->nd_reserved,\
         set_field:2->nd_options_type,set_field:{mac}->nd_tll,strip_vlan,in_port"
    )
}
