//! Cutting a super-frame: header templates and payload ranges, no payload touched.
//!
//! What differs from segment to segment is what Linux makes differ (`net/ipv4/tcp_offload.c`, `udp_offload.c`,
//! `af_inet.c`): IPv4 identification counts up; lengths, sequence numbers and checksums follow; PSH and FIN stay for the
//! last segment, CWR for the first.

use core::ops::Range;

use super::checksum::Sum;
use super::layout::{Layout, Network, Standing, Transport, header_mut};
use crate::datapath::packet::{Packet, SegmentKind};
use crate::wire::{checksum, ipv4, ipv6, tcp, udp};

/// Segments one super-frame may be cut into. 64 KB at TCP's least segment of Linux (`TCP_MIN_MSS`, 88 octets) are
/// 745; a sender that asks for more is up to something.
pub const SEGMENT_LIMIT: usize = 1024;

/// Octets of headers a segment may have.
pub const HEADER_LIMIT: usize = 256;

/// Why a super-frame cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Uncuttable {
    /// Its headers are not those of the transport it claims.
    #[error("the headers are not those of an unfragmented {0:?} packet")]
    NotThat(SegmentKind),
    /// A segment size of zero, or more segments than [`SEGMENT_LIMIT`].
    #[error("{payload} octets are not cut into segments of {size}")]
    Size {
        /// Octets of payload.
        payload: usize,
        /// Octets asked for in each segment.
        size: u16,
    },
    /// The headers are longer than [`HEADER_LIMIT`].
    #[error("headers of {0} octets are too long to be repeated")]
    Headers(usize),
}

/// A super-frame, ready to be cut. Holds no octets: the packet is handed in again for each segment.
#[derive(Clone, Copy, Debug)]
pub struct Segments {
    layout: Layout,
    standing: Standing,
    size: usize,
    payload: usize,
    count: usize,
    fixed_id: bool,
}

impl Segments {
    /// How the packet is to be cut; `None` if it stands for itself alone.
    ///
    /// # Errors
    /// Says why it cannot be cut as it asks to be.
    pub fn of(packet: &Packet<'_>) -> Result<Option<Self>, Uncuttable> {
        let Some(segmentation) = packet.offload.segmentation else {
            return Ok(None);
        };
        let kind = segmentation.kind;
        let layout = Layout::of(packet.head()).ok_or(Uncuttable::NotThat(kind))?;
        let fits = match kind {
            SegmentKind::TcpV4 => layout.transport == Transport::Tcp && layout.network == Network::V4,
            SegmentKind::TcpV6 => layout.transport == Transport::Tcp && layout.network == Network::V6,
            SegmentKind::Udp => layout.transport == Transport::Udp,
        };
        if !fits {
            return Err(Uncuttable::NotThat(kind));
        }
        if layout.payload_at > HEADER_LIMIT {
            return Err(Uncuttable::Headers(layout.payload_at));
        }
        let payload = packet.len() - layout.payload_at;
        let size = usize::from(segmentation.size);
        if size == 0 || payload.div_ceil(size) > SEGMENT_LIMIT {
            return Err(Uncuttable::Size { payload, size: segmentation.size });
        }
        let count = payload.div_ceil(size).max(1);
        let standing = Standing::of(&layout, packet.head());
        Ok(Some(Self { layout, standing, size, payload, count, fixed_id: segmentation.fixed_id }))
    }

    /// How many segments there are: at least one.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Octets of headers in each.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        self.layout.payload_at
    }

    /// Octets of payload in each but the last.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.size
    }

    /// Which part of the payload a segment carries, in octets from the payload's first.
    #[must_use]
    pub fn range(&self, index: usize) -> Range<usize> {
        let from = index * self.size;
        from.min(self.payload)..(from + self.size).min(self.payload)
    }

    /// Writes a segment's headers to `header`, which is [`Self::header_len`] long, and hands the pieces of its payload to
    /// `take` in order.
    pub fn cut<'p>(&self, packet: &'p Packet<'_>, index: usize, header: &mut [u8], mut take: impl FnMut(&'p [u8])) {
        let Layout { network, transport, network_at, transport_at, payload_at } = self.layout;
        let range = self.range(index);
        let length = payload_at - transport_at + range.len();
        header.copy_from_slice(&packet.head()[..payload_at]);
        match network {
            Network::V4 => {
                let header: &mut ipv4::Header = header_mut(header, network_at);
                let step = if self.fixed_id { 0 } else { low(index) };
                header.total_len.set(low(transport_at - network_at + length));
                header.identification.set(header.identification.get().wrapping_add(step));
                header.checksum.set(!checksum::fold(self.standing.ipv4(header)));
            }
            Network::V6 => {
                let header: &mut ipv6::Header = header_mut(header, network_at);
                header.payload_len.set(low(transport_at - network_at - ipv6::HEADER_LEN + length));
            }
        }
        // TCP headers are whole words and UDP's is 8 octets, so the payload starts even.
        let mut sum = Sum::default();
        pieces(packet, payload_at, range, |piece| {
            sum.add(piece);
            take(piece);
        });
        let payload = u64::from(sum.fold());
        match transport {
            Transport::Tcp => {
                let header: &mut tcp::Header = header_mut(header, transport_at);
                self.follow(index, header);
                header.checksum.set(!checksum::fold(self.standing.tcp(header, length) + payload));
            }
            Transport::Udp => {
                let header: &mut udp::Header = header_mut(header, transport_at);
                header.length.set(low(length));
                let folded = !checksum::fold(self.standing.udp(length) + payload);
                header.checksum.set(if folded == 0 { 0xffff } else { folded });
            }
        }
    }

    /// Gives a TCP header the sequence number and the flags of segment `index`.
    fn follow(&self, index: usize, header: &mut tcp::Header) {
        let offset = u32::try_from(index * self.size).unwrap_or(0);
        header.sequence.set(header.sequence.get().wrapping_add(offset));
        if index != 0 {
            header.flags &= !tcp::CWR;
        }
        if index + 1 != self.count {
            header.flags &= !(tcp::PSH | tcp::FIN);
        }
    }
}

/// Hands out the payload's octets `range`, piece by piece, in order.
fn pieces<'p>(packet: &'p Packet<'_>, payload_at: usize, range: Range<usize>, mut take: impl FnMut(&'p [u8])) {
    let mut from = range.start + payload_at;
    let mut left = range.len();
    // Of what was read from one descriptor at once, all is in one piece.
    if let Some(piece) = packet.head().get(from..from + left).filter(|piece| !piece.is_empty()) {
        return take(piece);
    }
    let mut base = 0;
    for piece in core::iter::once(packet.head()).chain(packet.tail().iter().copied()) {
        if left == 0 {
            return;
        }
        if from < base + piece.len() {
            let here = &piece[from - base..];
            let here = &here[..left.min(here.len())];
            take(here);
            from += here.len();
            left -= here.len();
        }
        base += piece.len();
    }
}

/// A length or count as the 16-bit field that carries it. Lengths are bounded by the segment's size, which is 16 bits,
/// and the headers' length; one that does not fit comes of a sender's nonsense and makes a packet no one takes.
#[expect(clippy::cast_possible_truncation, reason = "a field of 16 bits is all there is")]
const fn low(value: usize) -> u16 {
    value as u16
}
