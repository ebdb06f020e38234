//! The kernel's side of neighbour entries: equivalents of `ip neigh`, in bulk.

use core::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as NudState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::link::kernel::{absent_is_done, index_of, mac};
use crate::netlink::{Connection, Error};

use super::{NeighOp, NeighbourChange, NeighbourSpec, NeighbourState};

/// Every IPv4 and IPv6 entry of the connection's namespace, with its link's index.
///
/// # Errors
/// When the dump fails.
pub(crate) fn observe(connection: &mut Connection) -> Result<Vec<(u32, NeighbourState)>, Error> {
    let objects = connection.dump(&RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default()))?;
    Ok(objects.iter().filter_map(entry).collect())
}

/// `NUD_PERMANENT` (`linux/neighbour.h`), one bit of a set.
const PERMANENT: u16 = 0x80;

/// The entry that a message is about, be it new or gone, with its link's index.
pub(crate) fn entry(object: &RouteNetlinkMessage) -> Option<(u32, NeighbourState)> {
    let (RouteNetlinkMessage::NewNeighbour(message) | RouteNetlinkMessage::DelNeighbour(message)) = object else {
        return None;
    };
    decode(message)
}

/// Neither another family's, such as a bridge's forwarding entry, nor one of an address that is answered for.
#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum names every attribute of every kernel")]
fn decode(message: &NeighbourMessage) -> Option<(u32, NeighbourState)> {
    let header = &message.header;
    let is_own = matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6)
        && !header.flags.contains(NeighbourFlags::Proxy);
    let (mut ip, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => ip = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => ip = Some(IpAddr::V6(*v6)),
            NeighbourAttribute::LinkLayerAddress(octets) => address = mac(octets),
            _ => {}
        }
    }
    let permanent = u16::from(header.state) & PERMANENT != 0;
    ip.filter(|_| is_own).map(|ip| (header.ifindex, NeighbourState { ip, mac: address, permanent }))
}

/// What a notification says of an entry.
pub(crate) fn change(object: &RouteNetlinkMessage) -> Option<NeighbourChange> {
    let (link, state) = entry(object)?;
    let is_there = matches!(object, RouteNetlinkMessage::NewNeighbour(_));
    Some(NeighbourChange { link, ip: state.ip, permanent: state.project().filter(|_| is_there).map(|spec| spec.mac) })
}

/// Why an op on many entries failed: at which entry, and why.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The entry, unless the op failed as a whole.
    pub(crate) ip: Option<IpAddr>,
    /// Why.
    pub(crate) source: Error,
}

impl From<Error> for Failure {
    fn from(source: Error) -> Self {
        Self { ip: None, source }
    }
}

/// Carries out one step.
///
/// # Errors
/// The first entry the kernel refused.
pub(crate) fn execute(connection: &mut Connection, op: &NeighOp) -> Result<(), Failure> {
    match op {
        NeighOp::Replace { link, entries } => {
            let index = index_of(connection, link)?;
            let messages = entries.iter().map(|NeighbourSpec { ip, mac }| {
                let mut message = message(index, *ip);
                message.header.state = NudState::Permanent;
                message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec()));
                RouteNetlinkMessage::NewNeighbour(message)
            });
            connection.batch(messages, NLM_F_CREATE | NLM_F_REPLACE).map_err(|failure| {
                let ip = entries.get(failure.index).map(|entry| entry.ip);
                Failure { ip, source: failure.source }
            })
        }
        NeighOp::Remove { link, ips } => {
            let index = index_of(connection, link)?;
            let messages = |ips: &[IpAddr]| -> Vec<RouteNetlinkMessage> {
                ips.iter().map(|ip| RouteNetlinkMessage::DelNeighbour(message(index, *ip))).collect()
            };
            let Err(failure) = connection.batch(messages(ips), 0) else { return Ok(()) };
            // An entry that went by itself stops its batch short: the rest goes one by one.
            let left = failure.index / crate::netlink::BATCH_MAX * crate::netlink::BATCH_MAX;
            for ip in ips.get(left..).unwrap_or_default() {
                let removed = connection.request(RouteNetlinkMessage::DelNeighbour(message(index, *ip)), 0);
                absent_is_done(removed).map_err(|source| Failure { ip: Some(*ip), source })?;
            }
            Ok(())
        }
    }
}

fn message(index: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.ifindex = index;
    let destination = match ip {
        IpAddr::V4(v4) => {
            message.header.family = AddressFamily::Inet;
            NeighbourAddress::Inet(v4)
        }
        IpAddr::V6(v6) => {
            message.header.family = AddressFamily::Inet6;
            NeighbourAddress::Inet6(v6)
        }
    };
    message.attributes.push(NeighbourAttribute::Destination(destination));
    message
}
