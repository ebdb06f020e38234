//! One frame on its way through the switch, and what the kernel left undone on it.
//!
//! A port reads into a buffer with room in front; the engine looks at and rewrites the *head*, the contiguous octets
//! that hold every header; the *tail* is payload that no one touches, in as many pieces as it arrived. A 64 KB
//! super-frame is one packet: its [`Offload`] says where to cut it, should a link need it cut.

/// Room a port leaves in front of a frame it reads, for tags that are pushed: four of them.
pub const HEADROOM: usize = 16;

/// The state of a packet's transport checksum (`struct virtio_net_hdr`, VIRTIO 1.2 §5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// Complete in the packet; nobody has verified it.
    #[default]
    Complete,
    /// Complete in the packet, and verified by whoever handed it over (`VIRTIO_NET_HDR_F_DATA_VALID`).
    Verified,
    /// The field holds the folded pseudo-header sum only. The sum from `start` to the packet's end, complemented, is
    /// still to be stored at `start + offset` (`VIRTIO_NET_HDR_F_NEEDS_CSUM`).
    Partial {
        /// Where the sum starts, in octets from the packet's first.
        start: u16,
        /// Where the checksum field is, in octets from `start`.
        offset: u16,
    },
}

/// What kind of segments a super-frame stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP, each segment a datagram (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    Udp,
}

/// How a super-frame is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// The transport that is cut.
    pub kind: SegmentKind,
    /// Octets of transport payload in each segment but the last.
    pub size: u16,
    /// Whether the first segment alone carries CWR (`VIRTIO_NET_HDR_GSO_ECN`).
    pub ecn: bool,
    /// Whether every segment has the same IPv4 identification, as senders with DF may (RFC 6864 §4.1); it counts up
    /// otherwise.
    pub fixed_id: bool,
}

/// Work the sender left to whoever puts the packet on a wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum's state.
    pub checksum: Checksum,
    /// Where to cut, if the packet stands for several.
    pub segmentation: Option<Segmentation>,
    /// Octets of all headers, when the sender said so; a hint, 0 if unknown.
    pub header_len: u16,
}

/// A frame being switched.
#[derive(Debug)]
pub struct Packet<'a> {
    room: &'a mut [u8],
    start: usize,
    end: usize,
    tail: &'a [&'a [u8]],
    /// What is left to do on it.
    pub offload: Offload,
}

impl<'a> Packet<'a> {
    /// The packet in `room[start..end]`, its payload going on in `tail`. All headers must be in the first part; what
    /// is before `start` may be overwritten.
    ///
    /// # Panics
    /// If `start..end` is not a range of `room`: the port that calls this chose both.
    #[must_use]
    pub fn new(room: &'a mut [u8], start: usize, end: usize, tail: &'a [&'a [u8]], offload: Offload) -> Self {
        assert!(start <= end && end <= room.len(), "a packet lies inside its buffer");
        Self { room, start, end, tail, offload }
    }

    /// The contiguous octets from the Ethernet header on.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        &self.room[self.start..self.end]
    }

    /// The same, to be rewritten.
    pub fn head_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.end]
    }

    /// The rest of the payload, in order.
    #[must_use]
    pub const fn tail(&self) -> &'a [&'a [u8]] {
        self.tail
    }

    /// Octets in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end - self.start + self.tail.iter().map(|piece| piece.len()).sum::<usize>()
    }

    /// Whether there is not a single octet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Opens `count` octets at offset `at` of the head, moving what is before them forward into the headroom and the
    /// checksum's start with it. Returns whether there was room; if not, nothing changed.
    #[must_use]
    pub fn open(&mut self, at: usize, count: usize) -> bool {
        if self.start < count || at > self.end - self.start {
            return false;
        }
        let from = self.start;
        self.room.copy_within(from..from + at, from - count);
        self.start -= count;
        self.shift_checksum(at, count, true);
        true
    }

    /// Closes the `count` octets at offset `at` of the head. Returns whether they were there.
    #[must_use]
    pub fn close(&mut self, at: usize, count: usize) -> bool {
        if at + count > self.end - self.start {
            return false;
        }
        let from = self.start;
        self.room.copy_within(from..from + at, from + count);
        self.start += count;
        self.shift_checksum(at, count, false);
        true
    }

    fn shift_checksum(&mut self, at: usize, count: usize, grown: bool) {
        let count = u16::try_from(count).unwrap_or(0);
        if let Checksum::Partial { start, .. } = &mut self.offload.checksum
            && usize::from(*start) >= at
        {
            *start = if grown { start.saturating_add(count) } else { start.saturating_sub(count) };
        }
        if self.offload.header_len != 0 {
            let length = &mut self.offload.header_len;
            *length = if grown { length.saturating_add(count) } else { length.saturating_sub(count) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_opens_and_closes_without_touching_the_payload() {
        let mut room = *b"....addressesTYpayload";
        let offload =
            Offload { checksum: Checksum::Partial { start: 14, offset: 2 }, segmentation: None, header_len: 20 };
        let end = room.len();
        let mut packet = Packet::new(&mut room, 4, end, &[b"tail"], offload);
        assert!(packet.open(9, 4), "there are four octets of headroom");
        packet.head_mut()[9..13].copy_from_slice(b"<--T");
        assert_eq!(packet.head(), b"addresses<--TTYpayload");
        assert_eq!(packet.offload.checksum, Checksum::Partial { start: 18, offset: 2 });
        assert_eq!((packet.len(), packet.offload.header_len), (26, 24));
        assert!(!packet.open(9, 4), "the headroom is used up");
        assert!(packet.close(9, 4), "the tag is there");
        assert_eq!(packet.head(), b"addressesTYpayload");
        assert_eq!((packet.offload, packet.len()), (offload, 22));
    }
}
