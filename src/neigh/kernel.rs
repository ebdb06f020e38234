//! The kernel's side of neighbour entries: equivalents of `ip neigh`, in bulk.

use core::net::IpAddr;
use std::collections::BTreeMap;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState as NudState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::link::kernel::{absent_is_done, index_of, mac};
use crate::netlink::{Connection, Error};

use super::{NeighOp, NeighbourChange, NeighbourSpec, NeighbourState};

/// Every IPv4 and IPv6 entry of the connection's namespace, by its link's index.
///
/// # Errors
/// When the dump fails.
pub(crate) fn observe(connection: &mut Connection) -> Result<BTreeMap<u32, Vec<NeighbourState>>, Error> {
    let mut links: BTreeMap<u32, Vec<NeighbourState>> = BTreeMap::new();
    let question = RouteNetlinkMessage::GetNeighbour(NeighbourMessage::default());
    for (link, state) in connection.dump_with(&question, |octets| Ok(read(octets)))?.into_iter().flatten() {
        links.entry(link).or_default().push(state);
    }
    Ok(links)
}

/// Reads a message of a dump, as [`decode`] does the crate's: of tens of thousands only these few octets are looked at.
/// `struct ndmsg` (`linux/neighbour.h`) and its attributes `NDA_DST` and `NDA_LLADDR`, of a 16-bit length and type each,
/// padded to four octets.
fn read(message: &[u8]) -> Option<(u32, NeighbourState)> {
    const HEADER_OCTETS: usize = 12;
    const INET: u8 = 2;
    const INET6: u8 = 10;
    const PROXY: u8 = 1 << 3;
    const DESTINATION: u16 = 1;
    const ADDRESS: u16 = 2;
    let (header, mut rest) = message.split_at_checked(HEADER_OCTETS)?;
    let [family, _, _, _, i, j, k, l, low, high, flags, _] = *header else { return None };
    if !matches!(family, INET | INET6) || flags & PROXY != 0 {
        return None;
    }
    let (mut ip, mut address) = (None, None);
    while let [a, b, c, d, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = rest.get(4..length)?;
        match u16::from_ne_bytes([c, d]) {
            DESTINATION if family == INET => ip = <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
            DESTINATION => ip = <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
            ADDRESS => address = mac(value),
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let permanent = u16::from_ne_bytes([low, high]) & PERMANENT != 0;
    ip.map(|ip| (u32::from_ne_bytes([i, j, k, l]), NeighbourState { ip, mac: address, permanent }))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Mac;
    use netlink_packet_core::Emitable;
    use proptest::prelude::*;

    fn octets(message: &NeighbourMessage) -> Vec<u8> {
        let mut octets = vec![0; message.buffer_len()];
        message.emit(&mut octets);
        octets
    }

    proptest! {
        /// Input: entries of any family, state and flags, with and without their attributes; and cut anywhere. Output: both
        /// ways of reading come to the same, and what is cut is survived.
        #[test]
        fn both_ways_of_reading_come_to_the_same(
            (link, ip, mac_octets) in (any::<u32>(), any::<IpAddr>(), any::<[u8; 6]>()),
            (permanent, proxy, bridge, has_mac) in any::<(bool, bool, bool, bool)>(),
        ) {
            let mut entry = message(link, ip);
            entry.header.state = if permanent { NudState::Permanent } else { NudState::Stale };
            entry.header.flags.set(NeighbourFlags::Proxy, proxy);
            if bridge {
                entry.header.family = AddressFamily::Bridge;
            }
            if has_mac {
                entry.attributes.insert(0, NeighbourAttribute::LinkLayerAddress(mac_octets.to_vec()));
            }
            entry.attributes.push(NeighbourAttribute::Probes(7));
            let octets = octets(&entry);
            let expected = NeighbourState { ip, mac: has_mac.then(|| Mac::new(mac_octets)), permanent };
            prop_assert_eq!(read(&octets), (!proxy && !bridge).then_some((link, expected)));
            prop_assert_eq!(decode(&entry), read(&octets));
            for cut in 0..octets.len() {
                let _survived = read(&octets[..cut]);
            }
        }
    }
}
