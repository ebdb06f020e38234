//! The kernel's side of routes: equivalents of `ip route`, main table.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::link::Links;
use crate::link::kernel::{absent_is_done, index_of};
use crate::netlink::{Connection, Error};

use super::{PROTOCOL, RouteOp, RouteSpec, RouteState};

/// Every unicast route of the connection's main tables.
///
/// Everything is dumped and sorted out here: filters in the request are ignored or too strict, by kernel.
///
/// # Errors
/// When either dump fails.
pub(crate) fn observe(connection: &mut Connection, links: &Links) -> Result<Vec<RouteState>, Error> {
    let mut routes = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut question = RouteMessage::default();
        question.header.address_family = family;
        for object in connection.dump(&RouteNetlinkMessage::GetRoute(question))? {
            if let RouteNetlinkMessage::NewRoute(message) = object {
                routes.extend(decode(&message, links));
            }
        }
    }
    Ok(routes)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum names every attribute of every kernel")]
fn decode(message: &RouteMessage, links: &Links) -> Option<RouteState> {
    let header = &message.header;
    if header.kind != RouteType::Unicast || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut table = u32::from(header.table);
    let mut destination = match header.address_family {
        AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let (mut gateway, mut index, mut metric) = (None, None, 0);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Oif(number) => index = Some(*number),
            RouteAttribute::Priority(number) => metric = *number,
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    if table != u32::from(RouteHeader::RT_TABLE_MAIN) {
        return None;
    }
    let ifname = links.iter().find(|(_, link)| Some(link.index) == index).map(|(name, _)| name.clone());
    let destination = IpNet::new(destination, header.destination_prefix_length).ok()?;
    Some(RouteState { destination, gateway, ifname, protocol: header.protocol.into(), metric })
}

/// The address in a route's attribute, if it is one of IP.
#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum names every attribute of every kernel")]
pub(crate) fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some(IpAddr::V4(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::V6(*v6)),
        _ => None,
    }
}

/// Carries out one step.
///
/// # Errors
/// When the kernel refuses, or the link is missing.
pub(crate) fn execute(connection: &mut Connection, op: &RouteOp) -> Result<(), Error> {
    match op {
        RouteOp::Add(route) => {
            let message = message(connection, route)?;
            connection.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL)
        }
        RouteOp::Remove(route) => match message(connection, route) {
            Ok(message) => absent_is_done(connection.request(RouteNetlinkMessage::DelRoute(message), 0)),
            Err(Error::NoLink(_)) => Ok(()),
            Err(error) => Err(error),
        },
    }
}

fn message(connection: &mut Connection, route: &RouteSpec) -> Result<RouteMessage, Error> {
    let RouteSpec { destination, gateway, ifname } = route;
    let mut message = RouteMessage::default();
    let prefix = destination.trunc();
    message.header.address_family = match prefix {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = prefix.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::from(PROTOCOL);
    message.header.kind = RouteType::Unicast;
    message.header.scope = if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    if prefix.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(prefix.addr().into()));
    }
    if let Some(gateway) = gateway {
        message.attributes.push(RouteAttribute::Gateway((*gateway).into()));
    }
    if let Some(ifname) = ifname {
        message.attributes.push(RouteAttribute::Oif(index_of(connection, ifname)?));
    }
    Ok(message)
}
