//! From tunnelled packets to frames: what several of them carry is joined where a card would have.

use core::ops::Range;
use std::os::fd::BorrowedFd;

use super::{Batch, Ready, Received, TAIL_LIMIT};
use crate::datapath::offload::{Extended, Started, Train};
use crate::datapath::{Checksum, DropReason, Offload, Packet, TunnelMeta};

/// A packet's frame and what its tunnel said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) meta: TunnelMeta,
    /// Where the frame is in the batch's memory.
    pub(super) frame: Range<usize>,
}

/// A frame that came through a tunnel, or why a packet carries none.
pub type Arrival<'p, 'a> = Result<(&'p TunnelMeta, &'p mut Packet<'a>), DropReason>;

/// Where the payload is of each frame but the first that is being joined.
type Tails = [(usize, usize); TAIL_LIMIT];

/// Frames being joined: the first one's place, and how many others there are.
struct Joining {
    first: Segment,
    train: Train,
    count: usize,
}

/// Reads what waits at a tunnel's socket, at most one batch, and unpacks it.
pub(super) fn read(
    socket: BorrowedFd<'_>,
    batch: &mut Batch,
    open: impl Fn(&Received, &[u8], Range<usize>) -> Result<Segment, DropReason>,
    take: &mut impl FnMut(Arrival<'_, '_>),
) -> Ready {
    match batch.receive(socket) {
        Ok(count) => {
            unpack(batch.parts(), open, take);
            batch.ready(count)
        }
        // Errors of the underlay are no state of this socket: it is not connected.
        Err(error) => match error.raw_os_error() {
            Some(libc::EBADF | libc::ENOTSOCK) => Ready::Gone,
            _ => Ready::Empty,
        },
    }
}

/// Takes the frame out of each packet, by `open`, joins what belongs together, and hands each to `take`.
fn unpack(
    (memory, received): (&mut [u8], &[Received]),
    open: impl Fn(&Received, &[u8], Range<usize>) -> Result<Segment, DropReason>,
    take: &mut impl FnMut(Arrival<'_, '_>),
) {
    let mut joining: Option<Joining> = None;
    // Too large to be moved about with each train.
    let mut tails = [(0, 0); TAIL_LIMIT];
    for message in received {
        for datagram in datagrams(message) {
            let segment = match open(message, memory, datagram) {
                Ok(segment) => segment,
                Err(reason) => {
                    take(Err(reason));
                    continue;
                }
            };
            if let Some(current) = &mut joining {
                match current.offer(memory, &mut tails, &segment) {
                    Extended::Taken => continue,
                    Extended::Last => {
                        emit(memory, joining.take(), &tails, take);
                        continue;
                    }
                    Extended::Refused => emit(memory, joining.take(), &tails, take),
                }
            }
            match Train::start(&memory[segment.frame.clone()]) {
                Started::Train(train) => {
                    joining = Some(Joining { first: segment, train, count: 0 });
                }
                Started::Alone(checksum) => single(memory, &segment, checksum, take),
            }
        }
    }
    emit(memory, joining, &tails, take);
}

/// The places of the datagrams in a message: several if the kernel joined them.
fn datagrams(message: &Received) -> impl Iterator<Item = Range<usize>> + use<> {
    let (start, end) = (message.start, message.start + message.len);
    let step = if message.segment == 0 { message.len.max(1) } else { message.segment };
    // An empty datagram is a datagram.
    (0..message.len.div_ceil(step).max(1)).map(move |index| {
        let from = start + index * step;
        from..(from + step).min(end)
    })
}

impl Joining {
    fn offer(&mut self, memory: &[u8], tails: &mut Tails, segment: &Segment) -> Extended {
        if segment.meta != self.first.meta {
            return Extended::Refused;
        }
        let Some(slot) = tails.get_mut(self.count) else {
            return Extended::Refused;
        };
        let extended = self.train.extend(&memory[self.first.frame.clone()], &memory[segment.frame.clone()]);
        match extended {
            Extended::Taken | Extended::Last => {
                *slot = (segment.frame.start + self.train.header_len(), segment.frame.end);
                self.count += 1;
            }
            Extended::Refused => {}
        }
        extended
    }
}

fn single(memory: &mut [u8], segment: &Segment, checksum: Checksum, take: &mut impl FnMut(Arrival<'_, '_>)) {
    let offload = Offload { checksum, segmentation: None, header_len: 0 };
    // Everything in front was handed on before, so that the packet may grow over it.
    let Range { start, end } = segment.frame;
    take(Ok((&segment.meta, &mut Packet::new(memory, start, end, &[], offload))));
}

fn emit(memory: &mut [u8], joining: Option<Joining>, tails: &Tails, take: &mut impl FnMut(Arrival<'_, '_>)) {
    let Some(Joining { first, train, count }) = joining else {
        return;
    };
    let Range { start, end } = first.frame;
    let offload = train.finish(&mut memory[start..end]);
    if count == 0 {
        take(Ok((&first.meta, &mut Packet::new(memory, start, end, &[], offload))));
        return;
    }
    // The first frame and all in front may be written; the payloads behind are only read.
    let (room, behind) = memory.split_at_mut(end);
    let behind = &*behind;
    let mut slices: [&[u8]; TAIL_LIMIT] = [&[]; TAIL_LIMIT];
    for (slice, (from, to)) in slices.iter_mut().zip(&tails[..count]) {
        *slice = &behind[from - end..to - end];
    }
    take(Ok((&first.meta, &mut Packet::new(room, start, end, &slices[..count], offload))));
}
