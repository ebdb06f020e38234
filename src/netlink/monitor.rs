//! What the kernel tells without being asked: that something changed.
//!
//! Whoever hears of a change looks again at the whole; so a lost notification (`ENOBUFS`) costs no more than any other. What
//! became of neighbour entries is passed on as it came: whoever writes thousands of them would look again for each.

use std::io;
use std::os::fd::AsRawFd;

use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::unix::AsyncFd;

use super::connection::decode;
use super::{Error, sys};

/// What was heard since the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// These neighbour entries changed, in this order, and nothing else: messages of new ones and of those that are gone.
    Neighbours(Vec<RouteNetlinkMessage>),
    /// Something changed that may matter.
    Change,
    /// The kernel dropped notifications because they were not read fast enough: anything may have changed.
    Overrun,
}

/// A socket that hears of changes in one namespace: to links, neighbours, addresses, routes, and to those switches of which
/// the kernel tells, such as `ip_forward`.
pub struct Listener {
    socket: AsyncFd<Socket>,
    buffer: Vec<u8>,
}

/// Multicast groups (`enum rtnetlink_groups`, `linux/rtnetlink.h`) as the bits of a bind: LINK 1, NEIGH 3, IPV4_IFADDR 5,
/// IPV4_ROUTE 7, IPV6_IFADDR 9, IPV6_ROUTE 11, IPV4_NETCONF 24, IPV6_NETCONF 25. The last two are told when forwarding,
/// `rp_filter`, `proxy_arp`, `proxy_ndp` or `ignore_routes_with_linkdown` change, and of no other switch.
const GROUPS: u32 = 1 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 23 | 1 << 24;
/// The greatest notification taken; the kernel's own are at most a page and a half.
pub const DATAGRAM_OCTETS: usize = 1 << 16;
/// How many notifications are read in one go before the caller is told.
pub const DRAIN_MAX: usize = 1024;
/// `NUD_FAILED` and `NUD_PERMANENT` (`linux/neighbour.h`). Entries in other states come and go with traffic.
const TELLING_STATES: u16 = 0x20 | 0x80;

/// What else says how packets are forwarded: TC 4, IPV4_RULE 8, IPV6_IFINFO 12, IPV6_RULE 19, NEXTHOP 32.
const FORWARDING_GROUPS: u32 = GROUPS | 1 << 3 | 1 << 7 | 1 << 11 | 1 << 18 | 1 << 31;

/// A socket bound to the groups and not yet watched: it may be made on any thread, and belongs to that thread's namespace.
///
/// # Errors
/// When the kernel grants no socket.
pub fn socket() -> Result<Socket, Error> {
    bound(GROUPS)
}

/// The same for all that says how a namespace forwards packets.
///
/// # Errors
/// When the kernel grants no socket.
pub fn forwarding_socket() -> Result<Socket, Error> {
    bound(FORWARDING_GROUPS)
}

fn bound(groups: u32) -> Result<Socket, Error> {
    let mut socket = Socket::new(NETLINK_ROUTE).map_err(Error::Open)?;
    socket.bind(&SocketAddr::new(0, groups)).map_err(Error::Open)?;
    socket.set_non_blocking(true).map_err(Error::Open)?;
    Ok(socket)
}

/// Reads what waits at a socket, [`DRAIN_MAX`] notifications at most, into `buffer`, of [`DATAGRAM_OCTETS`]. Hands each
/// message over; `None` stands for what was lost, or cannot be read.
///
/// # Errors
/// When the socket breaks.
#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else comes may have been anything")]
pub fn read(
    socket: &Socket,
    buffer: &mut [u8],
    mut hear: impl FnMut(Option<RouteNetlinkMessage>),
) -> Result<(), Error> {
    for _ in 0..DRAIN_MAX {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
            Ok(length) => match buffer.get(..length).and_then(|octets| decode(octets).ok()) {
                Some(messages) => messages.into_iter().for_each(|message| match message.payload {
                    NetlinkPayload::InnerMessage(message) => hear(Some(message)),
                    _ => hear(None),
                }),
                None => hear(None),
            },
            Err(Errno::ENOBUFS) => hear(None),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Ok(()),
            Err(errno) => return Err(Error::Receive(errno.into())),
        }
    }
    Ok(())
}

impl Listener {
    /// Watches the socket on the current runtime.
    ///
    /// # Errors
    /// When the runtime cannot take it.
    pub fn new(socket: Socket) -> Result<Self, Error> {
        let socket = sys::watch(socket).map_err(Error::Open)?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM_OCTETS] })
    }

    /// Waits for a change that may matter, reads all there is to read, and tells. May be cancelled at any time.
    ///
    /// # Errors
    /// When the socket breaks.
    pub async fn next(&mut self) -> Result<Heard, Error> {
        let Self { socket, buffer } = self;
        loop {
            let mut ready = socket.readable().await.map_err(Error::Receive)?;
            let drained = ready.try_io(|socket| drain(socket.get_ref(), buffer));
            match drained {
                Ok(Ok(Some(heard))) => return Ok(heard),
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(error)) => return Err(Error::Receive(error)),
            }
        }
    }
}

impl Heard {
    /// Hears this message too.
    fn hear(&mut self, payload: NetlinkPayload<RouteNetlinkMessage>) {
        let NetlinkPayload::InnerMessage(message) = payload else { return self.hear_change() };
        match (self, message) {
            (_, RouteNetlinkMessage::NewNeighbour(entry)) if u16::from(entry.header.state) & TELLING_STATES == 0 => {}
            (
                Self::Neighbours(entries),
                message @ (RouteNetlinkMessage::NewNeighbour(_) | RouteNetlinkMessage::DelNeighbour(_)),
            ) => entries.push(message),
            (heard, _) => heard.hear_change(),
        }
    }

    fn hear_change(&mut self) {
        if matches!(self, Self::Neighbours(_)) {
            *self = Self::Change;
        }
    }
}

/// Reads until nothing is left, or [`DRAIN_MAX`] notifications; `None` if nothing mattered, WouldBlock only if there was
/// nothing at all.
fn drain(socket: &Socket, buffer: &mut [u8]) -> io::Result<Option<Heard>> {
    let mut heard = Heard::Neighbours(Vec::new());
    for read in 0..DRAIN_MAX {
        match recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC) {
            Ok(length) => match buffer.get(..length).and_then(|octets| decode(octets).ok()) {
                Some(messages) => messages.into_iter().for_each(|message| heard.hear(message.payload)),
                // What cannot be read may have been anything.
                None => heard.hear_change(),
            },
            Err(Errno::ENOBUFS) => heard = Heard::Overrun,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if read == 0 => return Err(io::ErrorKind::WouldBlock.into()),
            Err(Errno::EAGAIN) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    let nothing = Heard::Neighbours(Vec::new());
    Ok((heard != nothing).then_some(heard))
}
