//! From frames to packets.

use core::net::{IpAddr, SocketAddr};
use core::ops::Range;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use zerocopy::IntoBytes;

use super::Endpoint;
use crate::datapath::DropReason;
use crate::datapath::offload::{HEADER_LIMIT, Segments, complete};
use crate::datapath::port::send_sys::{self, Course, PACKET_LIMIT};
use crate::datapath::port::{Tally, of_send};
use crate::datapath::{Packet, TunnelMeta};
use crate::wire::{gre, prefix};

/// Octets of one packet: a 16-bit IP length less the headers of IPv4 or IPv6.
const OCTET_LIMIT: usize = 65_535 - 40;

/// Octets that may wait.
const WAITING_LIMIT: usize = 128 << 10;

/// Pieces of the packets that leave together. With its headers, a segment of a frame that arrived in pieces has some four.
const PIECE_LIMIT: usize = 4 * PACKET_LIMIT;

/// One worker's sending side of an endpoint: frames that wait to leave together.
#[derive(Debug)]
pub struct Sender {
    waiting: Vec<Waiting>,
    /// What waits, packet behind packet.
    octets: Vec<u8>,
    /// Headers of segments while they are sent.
    headers: Vec<u8>,
}

/// A packet that waits.
#[derive(Debug, Clone)]
struct Waiting {
    course: Course,
    octets: Range<usize>,
}

impl Sender {
    /// With nothing waiting.
    #[must_use]
    pub fn new() -> Self {
        Self {
            waiting: Vec::with_capacity(PACKET_LIMIT),
            octets: Vec::with_capacity(WAITING_LIMIT),
            headers: vec![0; PACKET_LIMIT * (HEADER_LIMIT + gre::HEADER_LEN)],
        }
    }

    /// Sends the frame through the tunnel: now, if it is a super-frame, and at [`Self::flush`] or before otherwise.
    pub fn send(&mut self, endpoint: &Endpoint, meta: &TunnelMeta, packet: &mut Packet<'_>, tally: &impl Tally) {
        let octets = packet.len();
        let refused = |reason| tally.settle(meta.dst, Err(reason), 1, octets);
        // Flows set a key; zero is what a frame has that none was set for.
        let key = u32::try_from(meta.id).ok().filter(|key| *key != 0);
        let (Some(key), true) = (key, meta.dst.is_ipv4() == endpoint.local.is_ipv4()) else {
            return refused(DropReason::NoTunnel);
        };
        let header = gre::Keyed::new(key);
        let course = Course { to: SocketAddr::new(meta.dst, 0), tos: meta.tos, ttl: meta.ttl };
        let socket = endpoint.socket.as_fd();
        match Segments::of(packet) {
            Ok(Some(segments)) => {
                self.flush(endpoint, tally);
                let sent = send_cut(socket, &course, &header, &segments, packet, &mut self.headers);
                if sent == Err(DropReason::TooBig) {
                    tally.too_big(meta.dst, meta.id, packet.head());
                }
                tally.settle(meta.dst, sent, 1, octets);
            }
            Ok(None) if complete(packet).is_err() => refused(DropReason::BadOffload),
            Ok(None) if octets + gre::HEADER_LEN > OCTET_LIMIT => refused(DropReason::TooBig),
            Ok(None) => {
                let full =
                    self.waiting.len() == PACKET_LIMIT || self.octets.len() + octets + gre::HEADER_LEN > WAITING_LIMIT;
                if full {
                    self.flush(endpoint, tally);
                }
                let start = self.octets.len();
                self.octets.extend_from_slice(header.as_bytes());
                self.octets.extend_from_slice(packet.head());
                packet.tail().iter().for_each(|piece| self.octets.extend_from_slice(piece));
                self.waiting.push(Waiting { course, octets: start..self.octets.len() });
            }
            Err(_) => refused(DropReason::Uncuttable),
        }
    }

    /// Sends all that waits.
    pub fn flush(&mut self, endpoint: &Endpoint, tally: &impl Tally) {
        if self.waiting.is_empty() {
            return;
        }
        let mut slices = [IoSlice::new(&[]); PACKET_LIMIT];
        for (slice, waiting) in slices.iter_mut().zip(&self.waiting) {
            *slice = IoSlice::new(&self.octets[waiting.octets.clone()]);
        }
        let nowhere = Course { to: SocketAddr::new(IpAddr::from([0; 4]), 0), tos: 0, ttl: 0 };
        let mut packets: [(Course, &[IoSlice<'_>]); PACKET_LIMIT] = [(nowhere, &[]); PACKET_LIMIT];
        for ((packet, slice), waiting) in packets.iter_mut().zip(slices.chunks(1)).zip(&self.waiting) {
            *packet = (waiting.course, slice);
        }
        let waiting = &self.waiting;
        send_sys::send_many(endpoint.socket.as_fd(), &packets[..waiting.len()], |index, sent| {
            let Waiting { course, octets } = &waiting[index];
            let (to, packet) = (course.to.ip(), &self.octets[octets.clone()]);
            let sent = sent.map_err(|error| reason(&error));
            if let (Err(DropReason::TooBig), Ok((header, frame))) = (sent, prefix::<gre::Keyed>(packet)) {
                tally.too_big(to, u64::from(header.key.get()), frame);
            }
            tally.settle(to, sent, 1, packet.len() - gre::HEADER_LEN);
        });
        self.waiting.clear();
        self.octets.clear();
    }
}

impl Default for Sender {
    fn default() -> Self {
        Self::new()
    }
}

fn reason(error: &io::Error) -> DropReason {
    of_send(error.raw_os_error().unwrap_or(0))
}

/// Cuts a super-frame and sends the segments, as many at once as one call takes.
fn send_cut(
    socket: BorrowedFd<'_>,
    course: &Course,
    header: &gre::Keyed,
    segments: &Segments,
    packet: &Packet<'_>,
    headers: &mut [u8],
) -> Result<(), DropReason> {
    let mut index = 0;
    while index < segments.count() {
        let last = (index + PACKET_LIMIT).min(segments.count());
        let taken = send_group(socket, course, header, segments, packet, index..last, headers)?;
        index += taken;
    }
    Ok(())
}

/// Sends the first segments of `range`, as many as there are pieces for; says how many.
fn send_group(
    socket: BorrowedFd<'_>,
    course: &Course,
    header: &gre::Keyed,
    segments: &Segments,
    packet: &Packet<'_>,
    range: Range<usize>,
    headers: &mut [u8],
) -> Result<usize, DropReason> {
    let header_len = gre::HEADER_LEN + segments.header_len();
    let mut slices = [IoSlice::new(&[]); PIECE_LIMIT];
    let mut ends = [0; PACKET_LIMIT];
    let (mut used, mut count) = (0, 0);
    for ((index, octets), end) in range.zip(headers.chunks_exact_mut(header_len)).zip(&mut ends) {
        let (outer, inner) = octets.split_at_mut(gre::HEADER_LEN);
        outer.copy_from_slice(header.as_bytes());
        let first = used;
        used += 1;
        segments.cut(packet, index, inner, |piece| {
            if let Some(slot) = slices.get_mut(used) {
                *slot = IoSlice::new(piece);
            }
            used += 1;
        });
        if used > PIECE_LIMIT {
            break;
        }
        slices[first] = IoSlice::new(octets);
        *end = used;
        count += 1;
    }
    if count == 0 {
        return Err(DropReason::Uncuttable);
    }
    let mut packets: [(Course, &[IoSlice<'_>]); PACKET_LIMIT] = [(*course, &[]); PACKET_LIMIT];
    let mut start = 0;
    for (packet, end) in packets.iter_mut().zip(&ends[..count]) {
        packet.1 = &slices[start..*end];
        start = *end;
    }
    let mut failed = Ok(());
    send_sys::send_many(socket, &packets[..count], |_, sent| {
        if let (Err(error), Ok(())) = (sent, failed) {
            failed = Err(reason(&error));
        }
    });
    failed.map(|()| count)
}
