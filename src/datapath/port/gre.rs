//! GRE over raw IP sockets (RFC 2784, RFC 2890): every tunnel of one local endpoint.
//!
//! There is no segmentation by the kernel for what it does not know, so a super-frame is cut here and its packets leave
//! many at a time, gathered from where their payload lies; small frames wait, copied, and leave together at the end of
//! the batch. What arrives is joined by its inner headers, so that one frame of 64 KB goes on.

mod receive;
mod send;

pub use receive::read;
pub use send::Sender;

use core::net::{IpAddr, SocketAddr};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockaddrStorage, bind, recv};

use super::batch_sys::tell_fragments;
use super::packet::grow;
use super::{PortError, netns, packet_sys, steer_sys};

/// Octets of packets that may wait in the socket, each way.
const BUFFER_OCTETS: libc::c_int = 16 << 20;

/// Packets thrown away at most before the socket is used: those of other endpoints that came between its making and its
/// binding.
const DRAIN_LIMIT: usize = 4096;

/// One worker's socket of a local endpoint.
#[derive(Debug)]
pub struct Endpoint {
    /// Bound to the endpoint; receives and sends.
    pub socket: OwnedFd,
    /// The endpoint's address.
    pub local: IpAddr,
}

/// Opens the sockets of a local endpoint for `workers` workers; a filter spreads flows over them.
///
/// # Errors
/// [`PortError`] says which step failed.
pub fn open(netns: Option<&Path>, local: IpAddr, workers: usize) -> Result<Vec<Endpoint>, PortError> {
    let workers = workers.max(1);
    netns::within(netns, || {
        let endpoint = |worker| Ok(Endpoint { socket: open_socket(local, worker, workers)?, local });
        (0..workers).map(endpoint).collect()
    })
}

fn open_socket(local: IpAddr, worker: usize, workers: usize) -> Result<OwnedFd, PortError> {
    let failed = |what| move |source: io::Error| PortError::Kernel { port: format!("gre at {local}"), what, source };
    let (level, discover, tos, ttl) = match local {
        IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_RECVTOS, libc::IP_RECVTTL),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_RECVTCLASS, libc::IPV6_RECVHOPLIMIT),
    };
    let fd = packet_sys::raw_socket(local, libc::IPPROTO_GRE).map_err(failed("open a raw socket"))?;
    let set = |option, value| packet_sys::set_option(fd.as_fd(), level, option, value);
    // Outer packets are never fragmented: one that does not fit is a wrong MTU, and is counted.
    set(discover, libc::IP_PMTUDISC_DO).map_err(failed("forbid fragments"))?;
    set(tos, 1).map_err(failed("ask for the outer type of service"))?;
    set(ttl, 1).map_err(failed("ask for the outer time to live"))?;
    tell_fragments(fd.as_fd(), local).map_err(failed("ask which packets came in fragments"))?;
    grow(fd.as_fd(), BUFFER_OCTETS).map_err(failed("enlarge the buffers"))?;
    if workers > 1 {
        steer_sys::steer(fd.as_fd(), local, worker, workers).map_err(failed("share the packets"))?;
    }
    let address = SockaddrStorage::from(SocketAddr::new(local, 0));
    bind(fd.as_raw_fd(), &address).map_err(|errno| failed("bind")(errno.into()))?;
    let mut octet = [0];
    let mut drained = 0;
    while drained < DRAIN_LIMIT && recv(fd.as_raw_fd(), &mut octet, MsgFlags::MSG_DONTWAIT) != Err(Errno::EAGAIN) {
        drained += 1;
    }
    Ok(fd)
}
