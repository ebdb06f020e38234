//! VXLAN over UDP sockets (RFC 7348): every tunnel of one local endpoint.
//!
//! A super-frame leaves in `sendmsg` of up to 64 datagrams each, gathered from where its payload lies; small frames of
//! one size to one place, and the few segments of a super-frame that the last send had no room for, wait, copied, and
//! leave together at the end of the batch, or before it with the next super-frame. What arrives joined by the
//! kernel is joined once more by its inner headers, so that one frame of 64 KB goes on.

mod receive;
mod send;
mod waiting;

pub use receive::read;
pub use send::Sender;

use core::net::{IpAddr, SocketAddr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt};

use super::batch_sys::tell_fragments;
use super::packet::grow;
use super::{PortError, netns, packet_sys};

/// Sockets a worker sends from: so many source ports spread its flows over the underlay's paths and queues.
const SPREAD: usize = 8;

/// Octets of datagrams that may wait in the receiving socket.
const BUFFER_OCTETS: libc::c_int = 16 << 20;

/// One worker's sockets of a local endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Bound to the endpoint; receives only.
    pub receive: OwnedFd,
    /// Bound to ports of the kernel's choice; send only.
    pub send: Vec<OwnedFd>,
    /// The endpoint's address.
    pub local: IpAddr,
    /// The UDP port of both sides.
    pub udp_port: u16,
}

/// Opens the sockets of a local endpoint for `workers` workers; the kernel spreads flows over them. The endpoint is this
/// caller's alone.
///
/// # Errors
/// [`PortError`] says which step failed.
pub fn open(netns: Option<&Path>, local: IpAddr, udp_port: u16, workers: usize) -> Result<Vec<Endpoint>, PortError> {
    netns::within(netns, || {
        let mut endpoints = Vec::with_capacity(workers);
        for _ in 0..workers.max(1) {
            let receive = open_socket(local, udp_port, !endpoints.is_empty())?;
            if workers > 1 && endpoints.is_empty() {
                // Not before it is bound: whoever shares from the start shares with strangers of the same user too.
                share(&receive).map_err(failed(SocketAddr::new(local, udp_port), "share the port"))?;
            }
            let mut send = Vec::with_capacity(SPREAD);
            for _ in 0..SPREAD {
                send.push(open_socket(local, 0, false)?);
            }
            endpoints.push(Endpoint { receive, send, local, udp_port });
        }
        Ok(endpoints)
    })
}

fn failed(at: SocketAddr, what: &'static str) -> impl FnOnce(io::Error) -> PortError {
    move |source| PortError::Kernel { port: at.to_string(), what, source }
}

/// Lets others of the same user that do so too have the socket's address, and part of what comes.
fn share(socket: &OwnedFd) -> io::Result<()> {
    Ok(setsockopt(socket, sockopt::ReusePort, &true)?)
}

/// A socket bound to `port`: to receive if that is given, to send if it is 0. One that `joins` shares the port with those
/// that have it.
fn open_socket(local: IpAddr, port: u16, joins: bool) -> Result<OwnedFd, PortError> {
    let failed = |what| failed(SocketAddr::new(local, port), what);
    let (family, level, discover, probe) = match local {
        IpAddr::V4(_) => (AddressFamily::Inet, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
        IpAddr::V6(_) => (AddressFamily::Inet6, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IP_PMTUDISC_DO),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd =
        socket(family, SockType::Datagram, flags, None).map_err(|errno| failed("open a UDP socket")(errno.into()))?;
    let set = |level, option, value| packet_sys::set_option(fd.as_fd(), level, option, value);
    if local.is_ipv6() {
        set(level, libc::IPV6_V6ONLY, 1).map_err(failed("keep IPv4 out"))?;
    }
    // Outer packets are never fragmented: one that does not fit is a wrong MTU, and is counted.
    set(level, discover, probe).map_err(failed("forbid fragments"))?;
    if port == 0 {
        // Nobody sends to it; whatever comes anyway is to take no memory.
        set(libc::SOL_SOCKET, libc::SO_RCVBUF, 0).map_err(failed("shrink the receive buffer"))?;
        packet_sys::set_option(fd.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER_OCTETS)
            .or_else(|_| set(libc::SOL_SOCKET, libc::SO_SNDBUF, BUFFER_OCTETS))
            .map_err(failed("enlarge the send buffer"))?;
    } else {
        grow(fd.as_fd(), BUFFER_OCTETS).map_err(failed("enlarge the buffers"))?;
        set(libc::SOL_UDP, libc::UDP_GRO, 1).map_err(failed("ask for joined datagrams"))?;
        let (tos, ttl) = match local {
            IpAddr::V4(_) => (libc::IP_RECVTOS, libc::IP_RECVTTL),
            IpAddr::V6(_) => (libc::IPV6_RECVTCLASS, libc::IPV6_RECVHOPLIMIT),
        };
        set(level, tos, 1).map_err(failed("ask for the outer type of service"))?;
        set(level, ttl, 1).map_err(failed("ask for the outer time to live"))?;
        tell_fragments(fd.as_fd(), local).map_err(failed("ask which packets came in fragments"))?;
        if joins {
            share(&fd).map_err(failed("share the port"))?;
        }
    }
    let address = SockaddrStorage::from(SocketAddr::new(local, port));
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &address).map_err(|errno| failed("bind")(errno.into()))?;
    Ok(fd)
}
