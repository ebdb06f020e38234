//! Cutting the underlay between two nodes, and healing it.

use core::net::IpAddr;
use std::os::fd::OwnedFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sched::{CloneFlags, setns};

use super::{Error, Outline, Place, Record, space};
use crate::netlink::Connection;

/// Cuts the way between two nodes: each sends into the void what is for the other's tunnel endpoint, as if the cable were
/// broken. Cut already is as good. Needs one thread, and leaves this process in the lab's user namespace.
///
/// # Errors
/// [`Error::NoPlace`] for a node there is not; [`Error::Wire`] when the kernel refuses.
pub fn cut(record: &Record, outline: &Outline, nodes: [&str; 2]) -> Result<(), Error> {
    both_ways(record, outline, nodes, |connection, message| {
        match connection.request(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL) {
            Err(error) if !error.is_exists() => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    })
}

/// Undoes [`cut`]. Whole already is as good.
///
/// # Errors
/// As [`cut`].
pub fn heal(record: &Record, outline: &Outline, nodes: [&str; 2]) -> Result<(), Error> {
    both_ways(record, outline, nodes, |connection, message| {
        match connection.request(RouteNetlinkMessage::DelRoute(message), 0) {
            Err(error) if !error.is_absent() => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    })
}

fn both_ways(
    record: &Record,
    outline: &Outline,
    nodes: [&str; 2],
    change: impl Fn(&mut Connection, RouteMessage) -> Result<(), crate::netlink::Error> + Sync,
) -> Result<(), Error> {
    space::enter_user_of(record.init.pid)?;
    let mut ends = Vec::new();
    for node in nodes {
        let place = Place::find(record.name.as_str(), outline, node)?;
        let Some(view) = outline.views.get(node).filter(|_| place.netns.is_none()) else {
            let known = format!("`{node}` is no node; wires are between nodes");
            return Err(Error::NoPlace { lab: record.name.to_string(), place: node.to_owned(), known });
        };
        ends.push((place.open_netns(record)?, view.node.tunnel_ip));
    }
    let [(one, one_ip), (other, other_ip)] = ends.as_slice() else { unreachable!("two nodes, two ends") };
    for (netns, target, name) in [(one, other_ip, nodes[0]), (other, one_ip, nodes[1])] {
        inside(netns, *target, &change).map_err(|why| Error::Wire { node: name.to_owned(), target: *target, why })?;
    }
    Ok(())
}

/// Changes the void's route to `target` on a thread that is in the namespace.
fn inside(
    netns: &OwnedFd,
    target: IpAddr,
    change: &(impl Fn(&mut Connection, RouteMessage) -> Result<(), crate::netlink::Error> + Sync),
) -> Result<(), String> {
    let work = || -> Result<(), String> {
        setns(netns, CloneFlags::CLONE_NEWNET).map_err(|errno| errno.to_string())?;
        let mut connection = Connection::open().map_err(|error| error.to_string())?;
        change(&mut connection, void(target)).map_err(|error| error.to_string())
    };
    std::thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|_| Err("the thread panicked".to_owned()))
}

/// A blackhole route to one address.
fn void(target: IpAddr) -> RouteMessage {
    let (address_family, length, address) = match target {
        IpAddr::V4(ip) => (AddressFamily::Inet, 32, RouteAddress::Inet(ip)),
        IpAddr::V6(ip) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(ip)),
    };
    let mut message = RouteMessage::default();
    message.header.address_family = address_family;
    message.header.destination_prefix_length = length;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::BlackHole;
    message.attributes = vec![RouteAttribute::Destination(address)];
    message
}
