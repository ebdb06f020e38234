//! The kernel's side of links: equivalents of `ip link` and `ip address`.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::os::fd::RawFd;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol,
};
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkUnspec, LinkVeth};

use crate::netlink::{Connection, Error};
use crate::types::{IfName, Mac};
use crate::{gre, vxlan};

use super::{AddressState, LinkOp, LinkState, Links, TunnelState};

/// Every link of the connection's namespace, with its addresses and without its neighbours.
///
/// # Errors
/// When either dump fails.
pub(crate) fn observe(connection: &mut Connection) -> Result<Links, Error> {
    let mut links = Links::new();
    for object in connection.dump(&RouteNetlinkMessage::GetLink(LinkMessage::default()))? {
        if let RouteNetlinkMessage::NewLink(message) = object
            && let Some((name, link)) = decode_link(&message)
        {
            links.insert(name, link);
        }
    }
    let mut by_index: BTreeMap<u32, (&IfName, &mut LinkState)> =
        links.iter_mut().map(|(name, link)| (link.index, (name, link))).collect();
    for object in connection.dump(&RouteNetlinkMessage::GetAddress(AddressMessage::default()))? {
        if let RouteNetlinkMessage::NewAddress(message) = object
            && let Some((name, link)) = by_index.get_mut(&message.header.index)
        {
            link.addresses.extend(decode_address(&message, name, link.mac));
        }
    }
    Ok(links)
}

/// A link as frames are redirected to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) index: u32,
    /// In octets.
    pub(crate) mtu: u32,
    /// Whether it is one end of a veth pair whose other end is in another namespace.
    pub(crate) pair: bool,
    /// Whether it is a tunnel's device, which joins segments that arrive (`gro_cells_receive()`, `net/core/gro_cells.c`).
    pub(crate) joins: bool,
}

/// The link of this name, as frames are redirected to it.
///
/// # Errors
/// [`Error::NoLink`] when there is none.
pub(crate) fn exit(connection: &mut Connection, name: &IfName) -> Result<Exit, Error> {
    let (message, LinkState { index, mtu, kind, .. }) = named(connection, name)?;
    let elsewhere = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::LinkNetNsId(_));
    let pair = kind.as_deref() == Some("veth") && message.attributes.iter().any(elsewhere);
    let joins = matches!(kind.as_deref(), Some("vxlan" | "gretap" | "ip6gretap"));
    Ok(Exit { index, mtu, pair, joins })
}

/// Frames that the link of this name has received; a tunnel's device counts them before it joins any.
///
/// # Errors
/// [`Error::NoLink`] when there is none.
pub(crate) fn received(connection: &mut Connection, name: &IfName) -> Result<u64, Error> {
    let (message, _) = named(connection, name)?;
    let counted = |attribute: &LinkAttribute| {
        if let LinkAttribute::Stats64(stats) = attribute { Some(stats.rx_packets) } else { None }
    };
    let missing = || Error::Malformed(format!("the kernel told no statistics of link {name}"));
    message.attributes.iter().find_map(counted).ok_or_else(missing)
}

/// What kind of link has this name, such as `veth`; `None` for one without a kind, such as a card.
///
/// # Errors
/// [`Error::NoLink`] when there is none.
pub(crate) fn kind(connection: &mut Connection, name: &IfName) -> Result<Option<String>, Error> {
    named(connection, name).map(|(_, link)| link.kind)
}

/// Frames that the link of this name was given to send, and dropped.
///
/// # Errors
/// [`Error::NoLink`] when there is none.
pub(crate) fn undelivered(connection: &mut Connection, name: &IfName) -> Result<u64, Error> {
    let (message, _) = named(connection, name)?;
    let dropped = message.attributes.iter().find_map(|attribute| {
        if let LinkAttribute::Stats64(stats) = attribute { Some(stats.tx_dropped) } else { None }
    });
    dropped.ok_or_else(|| Error::Malformed(format!("the kernel told nothing of what link {name} dropped")))
}

/// The link of this name, and the message that told of it.
fn named(connection: &mut Connection, name: &IfName) -> Result<(LinkMessage, LinkState), Error> {
    let question = LinkUnspec::new_with_name(name.as_str()).build();
    let other = || Error::Malformed(format!("asked for link {name}, the kernel told of something else"));
    match connection.get(RouteNetlinkMessage::GetLink(question)) {
        Ok(RouteNetlinkMessage::NewLink(message)) => {
            let (_, link) = decode_link(&message).ok_or_else(other)?;
            Ok((message, link))
        }
        Ok(_) => Err(other()),
        Err(error) if error.is_absent() => Err(Error::NoLink(name.clone())),
        Err(error) => Err(error),
    }
}

/// The index of the link of this name.
///
/// # Errors
/// [`Error::NoLink`] when there is none.
pub(crate) fn index_of(connection: &mut Connection, name: &IfName) -> Result<u32, Error> {
    named(connection, name).map(|(_, link)| link.index)
}

/// A link from its message; `None` for one whose name we could not write ourselves, which cannot be ours.
#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum names every attribute of every kernel")]
fn decode_link(message: &LinkMessage) -> Option<(IfName, LinkState)> {
    let mut name = None;
    let mut link = LinkState {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..LinkState::default()
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(text) => name = IfName::new(text.as_str()).ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(octets) => link.mac = mac(octets),
            LinkAttribute::Controller(index) => link.controller = Some(*index),
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::LinkInfo(parts) => {
                for part in parts {
                    match part {
                        LinkInfo::Kind(kind) => link.kind = Some(kind.to_string()),
                        LinkInfo::Data(data) => link.tunnel = decode_tunnel(data),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    name.map(|name| (name, link))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum names every kind of link of every kernel")]
fn decode_tunnel(data: &InfoData) -> Option<TunnelState> {
    match data {
        InfoData::Vxlan(parts) => Some(TunnelState::Vxlan(vxlan::kernel::decode(parts))),
        InfoData::GreTap(parts) => Some(TunnelState::Gre(gre::kernel::decode(parts))),
        InfoData::GreTap6(parts) => Some(TunnelState::Gre(gre::kernel::decode6(parts))),
        _ => None,
    }
}

/// A MAC from a link-layer address, if it is one.
pub(crate) fn mac(octets: &[u8]) -> Option<Mac> {
    <[u8; 6]>::try_from(octets).ok().map(Mac::new)
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum names every attribute of every kernel")]
fn decode_address(message: &AddressMessage, link: &IfName, mac: Option<Mac>) -> Option<AddressState> {
    let (mut local, mut remote, mut protocol) = (None, None, None);
    let mut flags = AddressFlags::from_bits_retain(u32::from(message.header.flags.bits()));
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Address(ip) => remote = Some(*ip),
            AddressAttribute::Flags(all) => flags = *all,
            AddressAttribute::Protocol(maker) => protocol = Some(*maker),
            _ => {}
        }
    }
    // On a point-to-point link the other one is the far end's.
    let ip = local.or(remote)?;
    let address = IpNet::new(ip, message.header.prefix_len).ok()?;
    // Kernels before 5.18 do not say who made an address, so the two they always make are known by what they are.
    let by_protocol = protocol.is_some_and(|maker| !matches!(maker, AddressProtocol::Other(_)));
    let generated = match ip {
        IpAddr::V4(ip) => ip.is_loopback() && link.as_str() == "lo",
        IpAddr::V6(ip) => {
            (ip.is_loopback() && link.as_str() == "lo")
                || (ip.is_unicast_link_local() && mac.is_some_and(|mac| mac.link_local() == ip))
        }
    };
    let kernel_made = by_protocol || generated || !flags.contains(AddressFlags::Permanent);
    Some(AddressState { address, secondary: ip.is_ipv4() && flags.contains(AddressFlags::Secondary), kernel_made })
}

/// Carries out one step. `peer_netns` is the namespace for the other end of a new veth pair, when it is another one.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn execute(connection: &mut Connection, op: &LinkOp, peer_netns: Option<RawFd>) -> Result<(), Error> {
    let by_name = |name: &IfName| LinkUnspec::new_with_name(name.as_str());
    match op {
        LinkOp::CreateVeth { name, peer, peer_netns: _ } => {
            let message = veth(name, peer, peer_netns);
            connection.request(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL)
        }
        LinkOp::Delete(name) => {
            absent_is_done(connection.request(RouteNetlinkMessage::DelLink(by_name(name).build()), 0))
        }
        LinkOp::Set { name, mac, mtu } => {
            let mut message = by_name(name);
            if let Some(mac) = mac {
                message = message.address(mac.octets().to_vec());
            }
            if let Some(mtu) = mtu {
                message = message.mtu(mtu.get());
            }
            connection.request(RouteNetlinkMessage::SetLink(message.build()), 0)
        }
        LinkOp::Up(name) => connection.request(RouteNetlinkMessage::SetLink(by_name(name).up().build()), 0),
        LinkOp::Down(name) => connection.request(RouteNetlinkMessage::SetLink(by_name(name).down().build()), 0),
        LinkOp::AddAddress { name, address } => {
            let index = index_of(connection, name)?;
            let message = RouteNetlinkMessage::NewAddress(address_message(index, *address));
            // The link is ours, so an address that is there already, kept where others would be dropped, is as good.
            connection.request(message, NLM_F_CREATE | NLM_F_REPLACE)
        }
        LinkOp::RemoveAddress { name, address } => {
            let index = index_of(connection, name)?;
            absent_is_done(connection.request(RouteNetlinkMessage::DelAddress(address_message(index, *address)), 0))
        }
    }
}

/// The device group (`IFLA_GROUP`) that links are put in to be deleted together: `dvr` in ASCII. Groups are a number anyone
/// may use, so this is for namespaces that go with everything in them.
const DOOMED_GROUP: u32 = 0x0064_7672;

/// Deletes the veth pairs that end in the connection's namespace and the tunnels in it, whose packets are another's, all
/// at once: one by one, each would wait for the kernel's readers (`synchronize_net()`), which takes some 20 ms.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn delete_ties(connection: &mut Connection) -> Result<(), Error> {
    let ties = |link: &LinkState| link.kind.as_deref() == Some("veth") || link.tunnel.is_some();
    let found = observe(connection)?;
    let doomed: Vec<IfName> = found.into_iter().filter(|(_, link)| ties(link)).map(|(name, _)| name).collect();
    if doomed.is_empty() {
        return Ok(());
    }
    let group = |name: &IfName| LinkUnspec::new_with_name(name.as_str()).link_group(DOOMED_GROUP).build();
    let messages = doomed.iter().map(|name| RouteNetlinkMessage::SetLink(group(name)));
    connection.batch(messages, 0).map_err(|failure| failure.source)?;
    let all = LinkUnspec::new_with_index(0).link_group(DOOMED_GROUP).build();
    absent_is_done(connection.request(RouteNetlinkMessage::DelLink(all), 0))
}

/// What is to be removed may have gone with something else.
pub(crate) fn absent_is_done(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(error) if error.is_absent() => Ok(()),
        other => other,
    }
}

fn veth(name: &IfName, peer: &IfName, peer_netns: Option<RawFd>) -> LinkMessage {
    let mut other = LinkUnspec::new_with_name(peer.as_str());
    if let Some(fd) = peer_netns {
        other = other.setns_by_fd(fd);
    }
    LinkVeth::new(name.as_str(), peer.as_str()).set_info_data(InfoData::Veth(InfoVeth::Peer(other.build()))).build()
}

fn address_message(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.prefix_len = address.prefix_len();
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    match address {
        IpNet::V4(_) => message.header.family = AddressFamily::Inet,
        IpNet::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            message.header.flags = AddressHeaderFlags::Nodad;
        }
    }
    message
}
