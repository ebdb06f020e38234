//! Finishing what a sender left to the card: the transport checksum of a frame that is not cut.

use crate::datapath::packet::{Checksum, Packet};
use crate::wire::checksum;

/// The frame's own word about its checksum points outside its headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the checksum to complete is at octet {at}, and the headers end at {end}")]
pub struct Unfinished {
    at: usize,
    end: usize,
}

/// A sum over pieces of any length: a piece that starts at an odd octet counts with its octets swapped (RFC 1071 §2(B)).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum {
    total: u64,
    odd: bool,
}

impl Sum {
    pub(super) const fn new(total: u64) -> Self {
        Self { total, odd: false }
    }

    pub(super) fn add(&mut self, piece: &[u8]) {
        let sum = checksum::fold(checksum::add(0, piece));
        self.total += u64::from(if self.odd { sum.swap_bytes() } else { sum });
        self.odd ^= piece.len() % 2 == 1;
    }

    /// The sum folded into 16 bits, not complemented.
    pub(super) const fn fold(self) -> u16 {
        checksum::fold(self.total)
    }
}

/// Completes a partial checksum in place; a frame without one stays as it is. An IPv4 or IPv6 sum of zero is stored as
/// all ones, which is the same number, and which UDP does not take for "no checksum" (RFC 768).
///
/// # Errors
/// [`Unfinished`] when the frame says that its checksum is where no header is; the frame is not changed.
pub fn complete(packet: &mut Packet<'_>) -> Result<(), Unfinished> {
    let Checksum::Partial { start, offset } = packet.offload.checksum else {
        return Ok(());
    };
    let (start, end) = (usize::from(start), packet.head().len());
    let at = start + usize::from(offset);
    if at + 2 > end {
        return Err(Unfinished { at, end });
    }
    let mut sum = Sum::default();
    sum.add(&packet.head()[start..]);
    for piece in packet.tail() {
        sum.add(piece);
    }
    let folded = !sum.fold();
    let stored = if folded == 0 { 0xffff } else { folded };
    packet.head_mut()[at..at + 2].copy_from_slice(&stored.to_be_bytes());
    packet.offload.checksum = Checksum::Complete;
    Ok(())
}
