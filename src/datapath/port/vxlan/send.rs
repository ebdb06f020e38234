//! From frames to datagrams.

use core::net::{IpAddr, SocketAddr};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use zerocopy::IntoBytes;

use super::Endpoint;
use crate::datapath::DropReason;
use crate::datapath::offload::{HEADER_LIMIT, Segments, complete, flow_hash};
use crate::datapath::port::send_sys::{self, Course};
use crate::datapath::port::{Tally, of_send};
use crate::datapath::{Packet, TunnelMeta};
use crate::types::Vni;
use crate::wire::{prefix, vxlan};

/// Datagrams in one send: `UDP_MAX_SEGMENTS` before Linux 6.9.
const DATAGRAM_LIMIT: usize = 64;

/// Octets in one send: a 16-bit IP length less the headers of IPv4 or IPv6, and of UDP.
const OCTET_LIMIT: usize = 65_535 - 40 - 8;

/// Pieces in one send: `UIO_MAXIOV` is 1024.
const PIECE_LIMIT: usize = 256;

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

/// Datagrams of one size to one place.
#[derive(Debug)]
struct Waiting {
    course: Option<Course>,
    /// Octets of each but the last.
    size: usize,
    count: usize,
    /// Whether a shorter one ended it.
    closed: bool,
    octets: Vec<u8>,
}

impl Sender {
    /// With nothing waiting, for this endpoint.
    #[must_use]
    pub fn new(endpoint: &Endpoint) -> Self {
        let waiting =
            || Waiting { course: None, size: 0, count: 0, closed: false, octets: Vec::with_capacity(OCTET_LIMIT) };
        Self {
            waiting: endpoint.send.iter().map(|_| waiting()).collect(),
            full: 0,
            headers: vec![0; DATAGRAM_LIMIT * (HEADER_LIMIT + vxlan::HEADER_LEN)],
        }
    }

    /// Sends the frame through the tunnel: now, if it is a super-frame, and at [`Self::flush`] or before otherwise.
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
                self.waiting[index].flush(socket, tally);
                let sent = send_cut(socket, &course, &header, &segments, packet, &mut self.headers);
                if sent == Err(DropReason::TooBig) {
                    tally.too_big(meta.dst, meta.id, packet.head());
                }
                tally.settle(meta.dst, sent, 1, octets);
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

impl Waiting {
    fn put(
        &mut self,
        socket: BorrowedFd<'_>,
        course: &Course,
        header: &vxlan::Header,
        packet: &Packet<'_>,
        tally: &impl Tally,
    ) {
        let length = vxlan::HEADER_LEN + packet.len();
        let fits = self.course.as_ref() == Some(course)
            && !self.closed
            && length <= self.size
            && self.count < DATAGRAM_LIMIT
            && self.octets.len() + length <= OCTET_LIMIT;
        if !fits {
            self.flush(socket, tally);
            self.course = Some(*course);
            self.size = length;
        }
        self.closed = length < self.size;
        self.count += 1;
        self.octets.extend_from_slice(header.as_bytes());
        self.octets.extend_from_slice(packet.head());
        for piece in packet.tail() {
            self.octets.extend_from_slice(piece);
        }
    }

    fn flush(&mut self, socket: BorrowedFd<'_>, tally: &impl Tally) {
        let Some(course) = self.course.take() else {
            return;
        };
        let (octets, to) = (self.octets.len(), course.to.ip());
        let carried = octets - self.count * vxlan::HEADER_LEN;
        let sent = send_datagrams(socket, &course, self.size, self.count, &[IoSlice::new(&self.octets)]);
        let frames = self.count as u64;
        match sent {
            Err(Refusal::Together(_)) => {
                // One by one, so that those that fit still go.
                for datagram in self.octets.chunks(self.size) {
                    let sent = send_sys::send(socket, &course, None, &[IoSlice::new(datagram)]).map_err(|e| reason(&e));
                    if sent == Err(DropReason::TooBig) {
                        tell(tally, to, datagram);
                    }
                    tally.settle(to, sent, 1, datagram.len() - vxlan::HEADER_LEN);
                }
            }
            Err(Refusal::Plain(reason)) => {
                if reason == DropReason::TooBig {
                    self.octets.chunks(self.size).for_each(|datagram| tell(tally, to, datagram));
                }
                tally.settle(to, Err(reason), frames, carried);
            }
            Ok(()) => tally.settle(to, Ok(()), frames, carried),
        }
        self.octets.clear();
        self.count = 0;
        self.closed = false;
    }
}

/// Tells of a datagram that was too big.
fn tell(tally: &impl Tally, to: IpAddr, datagram: &[u8]) {
    if let Ok((header, frame)) = prefix::<vxlan::Header>(datagram) {
        tally.too_big(to, u64::from(header.vni_bits()), frame);
    }
}

/// Why a send failed.
enum Refusal {
    /// Alone it would fail as well.
    Plain(DropReason),
    /// The kernel does not segment this, here: its size with headers exceeds the MTU, or the device cannot sum.
    Together(io::Error),
}

fn reason(error: &io::Error) -> DropReason {
    of_send(error.raw_os_error().unwrap_or(0))
}

/// Sends `count` datagrams of `size` octets, the last one shorter perhaps, in one call.
fn send_datagrams(
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

/// Pieces of datagrams, in order.
struct Gathered<'a> {
    slices: [IoSlice<'a>; PIECE_LIMIT],
    count: usize,
}

impl<'a> Gathered<'a> {
    /// Whether there was room.
    fn push(&mut self, piece: &'a [u8]) -> bool {
        match self.slices.get_mut(self.count) {
            Some(slot) => {
                *slot = IoSlice::new(piece);
                self.count += 1;
                true
            }
            None => false,
        }
    }
}

/// Cuts a super-frame and sends the segments, as many at once as one call takes.
fn send_cut(
    socket: BorrowedFd<'_>,
    course: &Course,
    header: &vxlan::Header,
    segments: &Segments,
    packet: &Packet<'_>,
    headers: &mut [u8],
) -> Result<(), DropReason> {
    let header_len = vxlan::HEADER_LEN + segments.header_len();
    let size = header_len + segments.size().min(packet.len());
    let most = (OCTET_LIMIT / size).clamp(1, DATAGRAM_LIMIT);
    let mut index = 0;
    while index < segments.count() {
        let count = most.min(segments.count() - index);
        match send_group(socket, course, header, segments, packet, index..index + count, headers) {
            Ok(()) => {}
            Err(Refusal::Plain(reason)) => return Err(reason),
            Err(Refusal::Together(_)) => {
                for one in index..index + count {
                    match send_group(socket, course, header, segments, packet, one..one + 1, headers) {
                        Ok(()) => {}
                        Err(Refusal::Plain(reason)) => return Err(reason),
                        Err(Refusal::Together(error)) => return Err(reason(&error)),
                    }
                }
            }
        }
        index += count;
    }
    Ok(())
}

fn send_group(
    socket: BorrowedFd<'_>,
    course: &Course,
    header: &vxlan::Header,
    segments: &Segments,
    packet: &Packet<'_>,
    range: core::ops::Range<usize>,
    headers: &mut [u8],
) -> Result<(), Refusal> {
    let header_len = vxlan::HEADER_LEN + segments.header_len();
    let mut gathered = Gathered { slices: [IoSlice::new(&[]); PIECE_LIMIT], count: 0 };
    let count = range.len();
    let mut room = true;
    for (index, octets) in range.zip(headers.chunks_exact_mut(header_len)) {
        let (outer, inner) = octets.split_at_mut(vxlan::HEADER_LEN);
        outer.copy_from_slice(header.as_bytes());
        let at = gathered.count;
        room &= gathered.push(&[]);
        segments.cut(packet, index, inner, |piece| room &= gathered.push(piece));
        if let Some(slot) = gathered.slices.get_mut(at) {
            *slot = IoSlice::new(octets);
        }
    }
    if !room {
        return Err(Refusal::Plain(DropReason::Uncuttable));
    }
    let size = header_len + segments.size();
    send_datagrams(socket, course, size, count, &gathered.slices[..gathered.count])
}
