//! Port security: a machine speaks only as itself and as its allowed address pairs, in Ethernet, ARP, IPv4, IPv6 and
//! neighbour discovery alike. Neutron does the same in its tables 24 and 25.
//!
//! ```text
//!  0 its MACs ─▶ 10 what ARP and ND claim ─▶ 11 the packet's source ─▶ 20
//! ```
//! A machine that is no server of addresses may ask for one, and no more: router advertisements, redirects and answers
//! of DHCP are dropped. So is everything that is neither ARP nor IP, for nothing says whom it speaks for.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::model::view::PortView;
use crate::types::Mac;

use super::flow::{ADVERTISEMENT, ProgramFlow, SOLICITATION, port};

/// Table of what ARP and ND claim; a secured port's frames come here.
pub(super) const PAYLOAD: u8 = 10;
/// Table of packets' sources.
const SOURCE: u8 = 11;

/// Whom a port may speak as: each MAC with its addresses.
pub(super) fn speakers(vm: &PortView) -> BTreeMap<Mac, BTreeSet<IpNet>> {
    let mut speakers: BTreeMap<Mac, BTreeSet<IpNet>> = BTreeMap::new();
    let own = vm.addresses.iter().map(|address| (vm.mac, IpNet::from(address.addr())));
    for (mac, ip) in own.chain(vm.allowed.iter().map(|pair| (pair.mac, pair.ip))) {
        speakers.entry(mac).or_default().insert(ip);
    }
    // A port without an address still asks for one.
    speakers.entry(vm.mac).or_default();
    for (mac, ips) in &mut speakers {
        ips.insert(IpNet::from(IpAddr::V6(mac.link_local())));
    }
    speakers
}

/// What both tables do with the rest.
pub(super) fn defaults() -> [ProgramFlow; 2] {
    [PAYLOAD, SOURCE].map(|table| ProgramFlow::new(table, 0, "", "drop"))
}

/// Both tables' flows for a secured port; what passes goes on to the table `onward`.
pub(super) fn flows(vm: &PortView, onward: u8) -> Vec<ProgramFlow> {
    let at = format!("in_port={}", port(&vm.port));
    let onward = format!("resubmit(,{onward})");
    let to_source = format!("resubmit(,{SOURCE})");
    let refuse = |matching: &str| ProgramFlow::new(PAYLOAD, 2, format!("{at},{matching}"), "drop");
    let mut flows = vec![
        refuse("arp"),
        // Router advertisements, neighbour messages and redirects (RFC 4861 §4.2 to §4.5).
        refuse("icmp6,icmp_type=134"),
        refuse("icmp6,icmp_type=135"),
        refuse("icmp6,icmp_type=136"),
        refuse("icmp6,icmp_type=137"),
        // A server's answers (RFC 2131 §4.1, RFC 8415 §7.2).
        refuse("udp,tp_src=67,tp_dst=68"),
        refuse("udp6,tp_src=547,tp_dst=546"),
        ProgramFlow::new(PAYLOAD, 1, at.clone(), to_source.clone()),
    ];
    for (mac, ips) in speakers(vm) {
        let from = format!("{at},dl_src={mac}");
        let claim = |matching: String, to: &str| ProgramFlow::new(PAYLOAD, 3, format!("{from},{matching}"), to);
        let source = |matching: String| ProgramFlow::new(SOURCE, 1, format!("{from},{matching}"), onward.clone());
        // The option may be missing, and is zero then.
        for said in [mac, Mac::ZERO] {
            flows.push(claim(format!("{SOLICITATION},nd_sll={said}"), &to_source));
        }
        for ip in &ips {
            match ip.addr() {
                IpAddr::V4(_) => {
                    let sender = format!("arp_sha={mac}");
                    flows.push(claim(format!("arp,{sender}{}", masked("arp_spa", *ip)), &onward));
                    // Whoever is about to take an address asks for it first (RFC 5227 §2.1.1).
                    let probe = format!("arp,arp_op=1,{sender},arp_spa={}", Ipv4Addr::UNSPECIFIED);
                    flows.push(claim(format!("{probe}{}", masked("arp_tpa", *ip)), &onward));
                    flows.push(source(format!("ip{}", masked("nw_src", *ip))));
                }
                IpAddr::V6(_) => {
                    for said in [mac, Mac::ZERO] {
                        let target = masked("nd_target", *ip);
                        flows.push(claim(format!("{ADVERTISEMENT},nd_tll={said}{target}"), &to_source));
                    }
                    flows.push(probe(&from, *ip, &onward));
                    flows.push(source(format!("ipv6{}", masked("ipv6_src", *ip))));
                }
            }
        }
        flows.extend(beginners().map(source));
    }
    // Two prefixes may ask for one flow, as 0.0.0.0/0 does with any other family's.
    let mut seen = BTreeSet::new();
    flows.retain(|flow| seen.insert(flow.strict_match()));
    flows
}

/// A duplicate-address probe (RFC 4862 §5.4.2): from no address, for one that is its own.
fn probe(from: &str, ip: IpNet, onward: &str) -> ProgramFlow {
    let matching = format!("{from},{SOLICITATION},ipv6_src={},nd_sll={}", Ipv6Addr::UNSPECIFIED, Mac::ZERO)
        + &masked("nd_target", ip);
    ProgramFlow::new(PAYLOAD, 4, matching, onward)
}

/// What a machine says before it has an address: DHCP's questions (RFC 2131 §4.1), router solicitations (RFC 4861 §4.1)
/// and reports of the groups it listens to (RFC 3810 §5.2.13, RFC 2710 §4).
fn beginners() -> impl Iterator<Item = String> {
    let dhcp = format!("udp,nw_src={},nw_dst={},tp_src=68,tp_dst=67", Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST);
    let messages = [131, 133, 143].map(|kind| format!("icmp6,icmp_type={kind},ipv6_src={}", Ipv6Addr::UNSPECIFIED));
    core::iter::once(dhcp).chain(messages)
}

/// A match on a prefix, with its comma; nothing for all addresses.
fn masked(field: &str, net: IpNet) -> String {
    match net.prefix_len() {
        0 => String::new(),
        len if len == net.max_prefix_len() => format!(",{field}={}", net.addr()),
        len => format!(",{field}={}/{len}", net.addr()),
    }
}
