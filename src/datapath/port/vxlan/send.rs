//! From frames to datagrams.

use core::net::SocketAddr;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use super::Endpoint;
use super::waiting::{Cut, Waiting};
use crate::datapath::DropReason;
use crate::datapath::offload::{HEADER_LIMIT, Segments, complete, flow_hash};
use crate::datapath::port::send_sys::{self, Course};
use crate::datapath::port::{Tally, of_send};
use crate::datapath::{Packet, TunnelMeta};
use crate::types::Vni;
use crate::wire::vxlan;

/// Datagrams in one send: `UDP_MAX_SEGMENTS` before Linux 6.9.
pub(super) const DATAGRAM_LIMIT: usize = 64;

/// Octets in one send: a 16-bit IP length less the headers of IPv4 or IPv6, and of UDP.
pub(super) const OCTET_LIMIT: usize = 65_535 - 40 - 8;

/// One worker's sending side of an endpoint: frames that wait to leave together.
#[derive(Debug)]
pub struct Sender {
    /// One for each socket, so that a flow, which is tied to its socket, stays in order.
    waiting: Vec<Waiting>,
    /// Sockets with something waiting, as bits.
    full: u32,
    /// Headers of segments while they are sent.
    headers: Vec<u8>,
}

impl Sender {
    /// With nothing waiting, for this endpoint.
    #[must_use]
    pub fn new(endpoint: &Endpoint) -> Self {
        Self {
            waiting: endpoint.send.iter().map(|_| Waiting::new()).collect(),
            full: 0,
            headers: vec![0; DATAGRAM_LIMIT * (HEADER_LIMIT + vxlan::HEADER_LEN)],
        }
    }

    /// Sends the frame through the tunnel, at [`Self::flush`] at the latest; of a super-frame most goes now.
    pub fn send(&mut self, endpoint: &Endpoint, meta: &TunnelMeta, packet: &mut Packet<'_>, tally: &impl Tally) {
        let octets = packet.len();
        let refused = |reason| tally.settle(meta.dst, Err(reason), 1, octets);
        let vni = u32::try_from(meta.id).ok().and_then(|id| Vni::new(id).ok());
        let (Some(vni), true) = (vni, meta.dst.is_ipv4() == endpoint.local.is_ipv4()) else {
            return refused(DropReason::NoTunnel);
        };
        let header = vxlan::Header::new(vni);
        let course = Course { to: SocketAddr::new(meta.dst, endpoint.udp_port), tos: meta.tos, ttl: meta.ttl };
        let index = flow_hash(packet.head()) as usize % self.waiting.len();
        let socket = endpoint.send[index].as_fd();
        match Segments::of(packet) {
            Ok(Some(segments)) => {
                let cut = Cut { header, segments, packet };
                self.waiting[index].cut(socket, &course, &cut, &mut self.headers, tally);
                self.full |= u32::from(!self.waiting[index].is_empty()) << index;
            }
            Ok(None) if complete(packet).is_err() => refused(DropReason::BadOffload),
            Ok(None) if octets + vxlan::HEADER_LEN > OCTET_LIMIT => refused(DropReason::TooBig),
            Ok(None) => {
                self.waiting[index].put(socket, &course, &header, packet, tally);
                self.full |= 1 << index;
            }
            Err(_) => refused(DropReason::Uncuttable),
        }
    }

    /// Sends all that waits.
    pub fn flush(&mut self, endpoint: &Endpoint, tally: &impl Tally) {
        while self.full != 0 {
            let index = self.full.trailing_zeros() as usize;
            self.full &= self.full - 1;
            self.waiting[index].flush(endpoint.send[index].as_fd(), tally);
        }
    }
}

/// Why a send failed.
pub(super) enum Refusal {
    /// Alone it would fail as well.
    Plain(DropReason),
    /// The kernel does not segment this, here: its size with headers exceeds the MTU, or the device cannot sum.
    Together(io::Error),
}

pub(super) fn reason(error: &io::Error) -> DropReason {
    of_send(error.raw_os_error().unwrap_or(0))
}

/// Sends `count` datagrams of `size` octets, the last one shorter perhaps, in one call.
pub(super) fn send_datagrams(
    socket: BorrowedFd<'_>,
    course: &Course,
    size: usize,
    count: usize,
    slices: &[IoSlice<'_>],
) -> Result<(), Refusal> {
    let segment = if count > 1 { u16::try_from(size).ok() } else { None };
    send_sys::send(socket, course, segment, slices).map_err(|error| match error.raw_os_error() {
        // Segments beyond the MTU are EINVAL before Linux 6.14 and EMSGSIZE since (`udp_send_skb`, `net/ipv4/udp.c`).
        Some(libc::EINVAL | libc::EMSGSIZE | libc::EIO | libc::EOPNOTSUPP) if segment.is_some() => {
            Refusal::Together(error)
        }
        _ => Refusal::Plain(reason(&error)),
    })
}
