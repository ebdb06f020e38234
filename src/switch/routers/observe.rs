//! A look into a router's namespace: what the kernel tells, as the model takes it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;

use ipnet::IpNet;
use netlink_packet_route::link::{
    AfSpecInet, AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkFlags, LinkMessage, LinkXdp, XdpAttached,
};
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::datapath::router::{Closed, NeighbourUpdate, RouterLink, RouterModel, RouterRoute};
use crate::link::kernel::mac;
use crate::neigh::{NeighbourState, kernel as neigh};
use crate::netlink::{Connection, Error, filter};
use crate::netns::kernel::sysctl;
use crate::route::kernel::ip;
use crate::types::{IfName, Mac};

/// The rules every namespace has, by family: priority and table (`fib_default_rules_init()` and `fib6_rules_net_init()`).
const DEFAULT_RULES: [(AddressFamily, &[(u32, u32)]); 2] = [
    (AddressFamily::Inet, &[(0, LOCAL), (0x7ffe, MAIN), (0x7fff, DEFAULT)]),
    (AddressFamily::Inet6, &[(0, LOCAL), (0x7ffe, MAIN)]),
];
/// `RT_TABLE_LOCAL`, `RT_TABLE_MAIN` and `RT_TABLE_DEFAULT` (`linux/rtnetlink.h`).
const LOCAL: u32 = 255;
const MAIN: u32 = 254;
const DEFAULT: u32 = 253;
/// Queueing disciplines that a device may have without anybody's doing.
const USUAL_QUEUES: [&str; 7] = ["noqueue", "noop", "mq", "pfifo_fast", "fq_codel", "fq", "sfq"];
/// Where iptables' tables are listed, those of the old kind, which nfnetlink does not know (`xt_proto_init()`).
const XTABLES: [&str; 2] = ["/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names"];

/// What a notification means.
pub(super) enum Heard {
    Neighbour(NeighbourUpdate),
    /// Something else changed, or may have.
    Change,
    Nothing,
}

/// What a notification means; `None` is one that was lost.
pub(super) fn heard(message: Option<&RouteNetlinkMessage>) -> Heard {
    match message {
        Some(message @ RouteNetlinkMessage::NewNeighbour(_)) => {
            decode_neighbour(message).map_or(Heard::Nothing, Heard::Neighbour)
        }
        Some(message @ RouteNetlinkMessage::DelNeighbour(_)) => {
            decode_neighbour(message).map_or(Heard::Nothing, |(key, _)| Heard::Neighbour((key, None)))
        }
        _ => Heard::Change,
    }
}

/// Whether there is a table of iptables in the calling thread's namespace; one that may not be looked at counts.
pub(super) fn has_xtables() -> bool {
    XTABLES.into_iter().any(|path| match std::fs::read(path) {
        Ok(names) => !names.is_empty(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    })
}

/// Looks into the calling thread's namespace, which is the connection's.
///
/// # Errors
/// When a dump fails.
pub(super) fn observe(connection: &mut Connection, xtables: bool) -> Result<Result<RouterModel, Closed>, Error> {
    if xtables || filter::has_tables()? {
        return Ok(Err(Closed::Filter));
    }
    if !has_default_rules(connection)? {
        return Ok(Err(Closed::Rules));
    }
    let forwards6 = sysctl("net/ipv6/conf/all/forwarding").ok().flatten().is_some_and(|value| value != "0");
    let mut links = BTreeMap::new();
    for object in connection.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
        if let RouteNetlinkMessage::NewLink(message) = object {
            if has_queue(&message) {
                return Ok(Err(Closed::Queueing));
            }
            links.extend(decode_link(&message, forwards6));
        }
    }
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        for object in connection.dump(&RouteNetlinkMessage::GetRoute(question))? {
            if let RouteNetlinkMessage::NewRoute(message) = object {
                routes.extend(decode_route(&message));
            }
        }
    }
    let mut neighbours = BTreeMap::new();
    for object in connection.dump(&RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))? {
        if let Some((key, Some(mac))) = decode_neighbour(&object) {
            neighbours.insert(key, mac);
        }
    }
    Ok(RouterModel::new(links, &routes, neighbours))
}

fn has_default_rules(connection: &mut Connection) -> Result<bool, Error> {
    for (family, wanted) in DEFAULT_RULES {
        let mut question = RuleMessage::default();
        question.header.family = family;
        let rules = match connection.dump(&RouteNetlinkMessage::GetRule(question)) {
            // A kernel without rules.
            Err(error) if error.is_unsupported() => continue,
            rules => rules?,
        };
        let mut found = Vec::new();
        for object in rules {
            let RouteNetlinkMessage::NewRule(message) = object else { continue };
            match decode_rule(&message) {
                Some(rule) => found.push(rule),
                None => return Ok(false),
            }
        }
        if found != wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A rule's priority and table, if it is for all packets.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else a rule says makes it one of its own")]
fn decode_rule(message: &RuleMessage) -> Option<(u32, u32)> {
    let header = &message.header;
    let plain = header.action == RuleAction::ToTable
        && (header.dst_len, header.src_len, header.tos) == (0, 0, 0)
        && !header.flags.contains(RuleFlags::Invert);
    let (mut priority, mut table) = (0, u32::from(header.table));
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(number) => priority = *number,
            RuleAttribute::Table(number) => table = *number,
            // Nothing is suppressed.
            RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::Protocol(_) => {}
            _ => return None,
        }
    }
    plain.then_some((priority, table))
}

fn has_queue(message: &LinkMessage) -> bool {
    message
        .attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::Qdisc(name) if !USUAL_QUEUES.contains(&name.as_str())))
}

/// A link, unless nothing of it can be forwarded.
#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enums name every attribute of every kernel")]
fn decode_link(message: &LinkMessage, forwards6: bool) -> Option<(u32, RouterLink)> {
    let flags = message.header.flags;
    let mut works = flags.contains(LinkFlags::Up | LinkFlags::Running) && !flags.contains(LinkFlags::Loopback);
    let (mut name, mut address, mut mtu, mut mtu6, mut forwards4, mut six) = (None, None, 0, u32::MAX, false, false);
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = IfName::new(text.as_str()).ok(),
            LinkAttribute::Address(octets) => address = mac(octets),
            LinkAttribute::Mtu(octets) => mtu = *octets,
            // What comes in by it is a bridge's, or a VRF's.
            LinkAttribute::Controller(_) => works = false,
            LinkAttribute::Xdp(parts) => {
                works &= parts.iter().all(|part| !matches!(part, LinkXdp::Attached(by) if *by != XdpAttached::None));
            }
            LinkAttribute::AfSpecUnspec(families) => {
                for family in families {
                    match family {
                        AfSpecUnspec::Inet(parts) => {
                            forwards4 = parts
                                .iter()
                                .any(|part| matches!(part, AfSpecInet::DevConf(conf) if conf.forwarding != 0));
                        }
                        AfSpecUnspec::Inet6(parts) => {
                            for part in parts {
                                if let AfSpecInet6::DevConf(conf) = part {
                                    mtu6 = u32::try_from(conf.mtu6).unwrap_or(0);
                                    six = conf.disable_ipv6 == 0;
                                }
                            }
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let (name, mac) = (name?, address?);
    let mtu6 = mtu6.min(mtu);
    let forwards6 = forwards6 && six;
    Some((message.header.index, RouterLink { name, mac, mtu, mtu6, works, forwards4, forwards6 }))
}

/// A route of the two tables that are asked.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else a route says is for the kernel to understand")]
fn decode_route(message: &RouteMessage) -> Option<RouterRoute> {
    let header = &message.header;
    if header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return None,
    };
    let (mut table, mut destination) = (u32::from(header.table), unspecified);
    let (mut gateway, mut link) = (None, None);
    let odd = RouteFlags::Dead | RouteFlags::Linkdown | RouteFlags::Unresolved | RouteFlags::Trap | RouteFlags::Offload;
    let mut plain = header.kind == RouteType::Unicast
        && (header.source_prefix_length, header.tos) == (0, 0)
        && !header.flags.intersects(odd);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => gateway = Some(ip(address)?),
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::CacheInfo(info) => plain &= info.expires == 0,
            RouteAttribute::Priority(_) | RouteAttribute::PrefSource(_) | RouteAttribute::Preference(_) => {}
            _ => plain = false,
        }
    }
    let prefix = IpNet::new(destination, header.destination_prefix_length).ok()?.trunc();
    let local = match table {
        LOCAL => true,
        MAIN => false,
        _ => return None,
    };
    Some(RouterRoute { local, prefix, way: link.filter(|_| plain).map(|link| (link, gateway)) })
}

/// Which neighbour a message is about, and its address if that is for good.
fn decode_neighbour(message: &RouteNetlinkMessage) -> Option<((u32, IpAddr), Option<Mac>)> {
    let (link, NeighbourState { ip, mac, permanent }) = neigh::entry(message)?;
    Some(((link, ip), mac.filter(|mac| permanent && mac.is_unicast())))
}
