//! Datagrams that wait to leave together, and super-frames that take them along.
//!
//! One send carries at most 64 KB with all headers, which is 43 of the 45 segments of a full super-frame at an MTU of
//! 1500. Sent by themselves the other two would cost both nodes nearly what the 43 do: so they wait, copied, for the next
//! super-frame of the batch.

use core::net::IpAddr;
use core::ops::Range;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use zerocopy::IntoBytes;

use super::send::{DATAGRAM_LIMIT, OCTET_LIMIT, Refusal, reason, send_datagrams};
use crate::datapath::offload::Segments;
use crate::datapath::port::Tally;
use crate::datapath::port::send_sys::{self, Course};
use crate::datapath::{DropReason, Packet};
use crate::wire::{prefix, vxlan};

/// Pieces in one send: `UIO_MAXIOV` is 1024.
const PIECE_LIMIT: usize = 256;

/// Segments at a super-frame's end that wait for the next. More are sent at once: copying them would cost what a send does.
const HELD_LIMIT: usize = 16;

/// Datagrams of one size to one place.
#[derive(Debug)]
pub(super) struct Waiting {
    course: Option<Course>,
    /// Octets of each but the last.
    size: usize,
    count: usize,
    /// Whether a shorter one ended it.
    closed: bool,
    octets: Vec<u8>,
    /// Whose they are, in order.
    frames: Vec<Held>,
}

/// A frame of which datagrams wait: its only one, or the last ones of a super-frame.
#[derive(Debug)]
struct Held {
    datagrams: usize,
    /// Octets of all of the frame.
    octets: usize,
}

/// A super-frame on its way out.
pub(super) struct Cut<'p, 'a> {
    pub(super) header: vxlan::Header,
    pub(super) segments: Segments,
    pub(super) packet: &'p Packet<'a>,
}

impl Cut<'_, '_> {
    /// Octets of headers in each datagram.
    const fn header_len(&self) -> usize {
        vxlan::HEADER_LEN + self.segments.header_len()
    }

    /// Octets of each datagram but the last.
    const fn size(&self) -> usize {
        self.header_len() + self.segments.size()
    }

    /// Whether the last datagram is as long as the others.
    fn is_even(&self) -> bool {
        self.segments.range(self.segments.count() - 1).len() == self.segments.size()
    }
}

impl Waiting {
    pub(super) fn new() -> Self {
        let (octets, frames) = (Vec::with_capacity(OCTET_LIMIT), Vec::with_capacity(DATAGRAM_LIMIT));
        Self { course: None, size: 0, count: 0, closed: false, octets, frames }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Has a frame that stands for itself wait, behind what waits already; what cannot wait together is sent first.
    pub(super) fn put(
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
        self.frames.push(Held { datagrams: 1, octets: packet.len() });
        self.octets.extend_from_slice(header.as_bytes());
        self.octets.extend_from_slice(packet.head());
        for piece in packet.tail() {
            self.octets.extend_from_slice(piece);
        }
    }

    /// Cuts a super-frame and sends the segments, as many at once as one call takes, with what waits in front of them; a
    /// short rest waits in turn. `headers` has room for the headers of [`DATAGRAM_LIMIT`] segments.
    pub(super) fn cut(
        &mut self,
        socket: BorrowedFd<'_>,
        course: &Course,
        cut: &Cut<'_, '_>,
        headers: &mut [u8],
        tally: &impl Tally,
    ) {
        let (size, total) = (cut.size(), cut.segments.count());
        let most = (OCTET_LIMIT / size).clamp(1, DATAGRAM_LIMIT);
        if self.course.as_ref() != Some(course) || self.closed || self.size != size || self.count >= most {
            self.flush(socket, tally);
        }
        let mut index = 0;
        while index < total {
            let (left, room) = (total - index, most - self.count);
            if left < room && left <= HELD_LIMIT && cut.is_even() {
                return self.hold(course, cut, index, headers);
            }
            let range = index..index + left.min(room);
            index = range.end;
            if let Err(reason) = self.send_with(socket, course, cut, range, headers, tally) {
                if reason == DropReason::TooBig {
                    tally.too_big(course.to.ip(), u64::from(cut.header.vni_bits()), cut.packet.head());
                }
                return tally.settle(course.to.ip(), Err(reason), 1, cut.packet.len());
            }
        }
        tally.settle(course.to.ip(), Ok(()), 1, cut.packet.len());
    }

    /// Has a super-frame's segments from `index` on wait: all that went before of it did go.
    fn hold(&mut self, course: &Course, cut: &Cut<'_, '_>, index: usize, headers: &mut [u8]) {
        let header = &mut headers[..cut.segments.header_len()];
        for one in index..cut.segments.count() {
            self.octets.extend_from_slice(cut.header.as_bytes());
            let at = self.octets.len();
            self.octets.extend_from_slice(header);
            cut.segments.cut(cut.packet, one, header, |piece| self.octets.extend_from_slice(piece));
            self.octets[at..at + header.len()].copy_from_slice(header);
        }
        let datagrams = cut.segments.count() - index;
        (self.course, self.size) = (Some(*course), cut.size());
        self.count += datagrams;
        self.frames.push(Held { datagrams, octets: cut.packet.len() });
    }

    /// Sends what waits and these segments of a super-frame in one call, and says what became of the segments.
    fn send_with(
        &mut self,
        socket: BorrowedFd<'_>,
        course: &Course,
        cut: &Cut<'_, '_>,
        range: Range<usize>,
        headers: &mut [u8],
        tally: &impl Tally,
    ) -> Result<(), DropReason> {
        match send_group(socket, course, cut, range.clone(), headers, self) {
            Ok(()) => {
                self.settle(Ok(()), tally);
                Ok(())
            }
            Err(Refusal::Plain(reason)) => {
                self.settle(Err(reason), tally);
                Err(reason)
            }
            Err(Refusal::Together(_)) => {
                self.send_each(socket, tally);
                for one in range {
                    match send_group(socket, course, cut, one..one + 1, headers, self) {
                        Ok(()) => {}
                        Err(Refusal::Plain(reason)) => return Err(reason),
                        Err(Refusal::Together(error)) => return Err(reason(&error)),
                    }
                }
                Ok(())
            }
        }
    }

    /// Sends all that waits.
    pub(super) fn flush(&mut self, socket: BorrowedFd<'_>, tally: &impl Tally) {
        let Some(course) = &self.course else {
            return;
        };
        match send_datagrams(socket, course, self.size, self.count, &[IoSlice::new(&self.octets)]) {
            Ok(()) => self.settle(Ok(()), tally),
            Err(Refusal::Plain(reason)) => self.settle(Err(reason), tally),
            Err(Refusal::Together(_)) => self.send_each(socket, tally),
        }
    }

    /// Sends what waits one by one, so that what fits still goes.
    fn send_each(&mut self, socket: BorrowedFd<'_>, tally: &impl Tally) {
        let Some(course) = self.course.take() else {
            return;
        };
        let mut datagrams = self.octets.chunks(self.size);
        for frame in &self.frames {
            let mut outcome = Ok(());
            for datagram in datagrams.by_ref().take(frame.datagrams) {
                let sent = send_sys::send(socket, &course, None, &[IoSlice::new(datagram)]).map_err(|e| reason(&e));
                if outcome.is_ok() && sent == Err(DropReason::TooBig) {
                    tell(tally, course.to.ip(), datagram);
                }
                outcome = outcome.and(sent);
            }
            tally.settle(course.to.ip(), outcome, 1, frame.octets);
        }
        self.clear();
    }

    /// Counts all that waited as sent or lost together, and forgets it.
    fn settle(&mut self, sent: Result<(), DropReason>, tally: &impl Tally) {
        let Some(course) = self.course.take() else {
            return;
        };
        if sent == Err(DropReason::TooBig) {
            self.octets.chunks(self.size).for_each(|datagram| tell(tally, course.to.ip(), datagram));
        }
        let octets = self.frames.iter().map(|frame| frame.octets).sum();
        tally.settle(course.to.ip(), sent, self.frames.len() as u64, octets);
        self.clear();
    }

    fn clear(&mut self) {
        self.course = None;
        self.octets.clear();
        self.frames.clear();
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

/// Sends what waits, which is of the segments' size if anything is, and these segments of a super-frame in one call.
fn send_group(
    socket: BorrowedFd<'_>,
    course: &Course,
    cut: &Cut<'_, '_>,
    range: Range<usize>,
    headers: &mut [u8],
    waiting: &Waiting,
) -> Result<(), Refusal> {
    let mut gathered = Gathered { slices: [IoSlice::new(&[]); PIECE_LIMIT], count: 0 };
    let count = waiting.count + range.len();
    let mut room = waiting.is_empty() || gathered.push(&waiting.octets);
    for (index, octets) in range.zip(headers.chunks_exact_mut(cut.header_len())) {
        let (outer, inner) = octets.split_at_mut(vxlan::HEADER_LEN);
        outer.copy_from_slice(cut.header.as_bytes());
        let at = gathered.count;
        room &= gathered.push(&[]);
        cut.segments.cut(cut.packet, index, inner, |piece| room &= gathered.push(piece));
        if let Some(slot) = gathered.slices.get_mut(at) {
            *slot = IoSlice::new(octets);
        }
    }
    if !room {
        return Err(Refusal::Plain(DropReason::Uncuttable));
    }
    send_datagrams(socket, course, cut.size(), count, &gathered.slices[..gathered.count])
}
