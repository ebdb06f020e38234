//! Joining segments that arrived one by one into the super-frame they were cut from.
//!
//! The rules are those of Linux's GRO (`net/ipv4/tcp_offload.c`, `net/core/gro.c`), minus what a cut would not give
//! back: cutting what was joined must yield every octet that arrived. So IPv4 identification must count up or, where
//! DF forbids fragments and so gives it no meaning, stay; and a segment whose checksums are wrong is neither joined nor
//! repaired: it goes on as it came, for its receiver to refuse.

use super::checksum::Sum;
use super::layout::{Layout, Network, Standing, Transport};
use crate::datapath::packet::{Checksum, Offload, SegmentKind, Segmentation};
use crate::wire::{checksum, ipv4, ipv6, tcp};

/// The greatest value of the IP length fields.
const IP_LEN_LIMIT: usize = 65_535;

/// Datagrams in one UDP super-frame: Linux's receiving limit before 6.9 (`UDP_MAX_SEGMENTS`).
const DATAGRAM_LIMIT: usize = 64;

/// The most octets of an IP header without options and a TCP header.
const HEADERS_LIMIT: usize = ipv6::HEADER_LEN + 60;

/// Which octets, from the IP header on, are the same in all frames of a train: ones. Zeroes are fields with a rule of their
/// own.
type Same = [u8; HEADERS_LIMIT];

// IPv4's total length, identification and checksum, IPv6's payload length; TCP's sequence number, flags and checksum,
// UDP's length and checksum.
static TCP_V4: Same = all_but(&[(2, 6), (10, 12), (24, 28), (33, 34), (36, 38)]);
static TCP_V6: Same = all_but(&[(4, 6), (44, 48), (53, 54), (56, 58)]);
static UDP_V4: Same = all_but(&[(2, 6), (10, 12), (24, 28)]);
static UDP_V6: Same = all_but(&[(4, 6), (44, 48)]);

const fn all_but(fields: &[(usize, usize)]) -> Same {
    let mut same = [0xff; HEADERS_LIMIT];
    let mut field = 0;
    while field < fields.len() {
        let (mut at, to) = fields[field];
        while at < to {
            same[at] = 0;
            at += 1;
        }
        field += 1;
    }
    same
}

/// What a frame is to a train.
#[derive(Clone, Copy, Debug)]
pub enum Started {
    /// The first of a train.
    Train(Train),
    /// Nothing follows it; its transport checksum is right, not looked at, or only begun.
    Alone(Checksum),
}

/// What became of a frame offered to a train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extended {
    /// It is part of the train, which goes on.
    Taken,
    /// It is part of the train, and the last.
    Last,
    /// It is not part of the train.
    Refused,
}

/// Segments that follow each other. Holds no octets: the first frame is handed in again each time.
#[derive(Clone, Copy, Debug)]
pub struct Train {
    layout: Layout,
    /// Of the first frame, once there is another.
    standing: Option<Standing>,
    /// Octets of payload in each segment but the last.
    size: usize,
    /// Octets of payload so far.
    payload: usize,
    count: usize,
    /// Whether all have the same IPv4 identification, by the first two.
    fixed_id: bool,
    /// PSH and FIN of the last segment.
    closing: u8,
}

impl Train {
    /// Starts a train with this frame, if others may follow it.
    #[must_use]
    pub fn start(frame: &[u8]) -> Started {
        let Some(layout) = Layout::of(frame).filter(|layout| is_plain(layout, frame)) else {
            return Started::Alone(Checksum::Complete);
        };
        if !sums_up(&layout, frame) {
            return Started::Alone(if is_begun(&layout, frame) {
                Checksum::Partial { start: low(layout.transport_at), offset: layout.checksum_offset() }
            } else {
                Checksum::Complete
            });
        }
        let size = frame.len() - layout.payload_at;
        let goes_on = match layout.transport {
            Transport::Tcp => {
                let flags = frame[layout.transport_at + 13];
                flags & (tcp::ACK | tcp::SYN | tcp::RST | tcp::URG | tcp::PSH | tcp::FIN) == tcp::ACK
            }
            Transport::Udp => true,
        };
        if size == 0 || !goes_on {
            return Started::Alone(Checksum::Verified);
        }
        Started::Train(Self { layout, standing: None, size, payload: size, count: 1, fixed_id: false, closing: 0 })
    }

    /// Octets of headers in each of its frames.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        self.layout.payload_at
    }

    /// Offers the frame that came next. `first` is the frame the train started with, unchanged.
    pub fn extend(&mut self, first: &[u8], frame: &[u8]) -> Extended {
        let Layout { transport, network_at, payload_at, .. } = self.layout;
        if frame.len() <= payload_at {
            return Extended::Refused;
        }
        let standing = *self.standing.get_or_insert_with(|| Standing::of(&self.layout, first));
        if !self.follows(&standing, first, frame) {
            return Extended::Refused;
        }
        let size = frame.len() - payload_at;
        let limit = match transport {
            Transport::Tcp => super::SEGMENT_LIMIT,
            Transport::Udp => DATAGRAM_LIMIT,
        };
        let too_much = payload_at - network_at + self.payload + size > IP_LEN_LIMIT;
        if size > self.size || too_much || self.count >= limit || !self.sums_up(&standing, frame) {
            return Extended::Refused;
        }
        self.fixed_id = self.has_fixed_id(first, frame);
        self.payload += size;
        self.count += 1;
        if transport == Transport::Tcp {
            self.closing = frame[self.layout.transport_at + 13] & (tcp::PSH | tcp::FIN);
        }
        if size < self.size || self.closing != 0 { Extended::Last } else { Extended::Taken }
    }

    /// Whether the train has one IPv4 identification for all if this frame joins: the second one decides.
    fn has_fixed_id(&self, first: &[u8], frame: &[u8]) -> bool {
        let at = self.layout.network_at;
        let undecided = self.count == 1 && self.layout.network == Network::V4;
        if undecided { read(first, at + 6) & ipv4::FLAG_DF != 0 && same_id(first, frame, at) } else { self.fixed_id }
    }

    /// Whether the transport checksum of a frame that follows is right, and written as a cut would write it.
    fn sums_up(&self, standing: &Standing, frame: &[u8]) -> bool {
        let Layout { transport, transport_at, payload_at, .. } = self.layout;
        let stored = read(frame, self.layout.checksum_at());
        let mut sum = Sum::new(standing.transport(frame, frame.len() - transport_at) + u64::from(stored));
        sum.add(&frame[payload_at..]);
        stored != other_zero(transport) && sum.fold() == 0xffff
    }

    /// Whether every header field of `frame` is what the next segment's would be, and an IPv4 header's checksum right. The
    /// transport's is left to [`Self::sums_up`].
    fn follows(&self, standing: &Standing, first: &[u8], frame: &[u8]) -> bool {
        let Layout { network, transport, network_at, transport_at, payload_at } = self.layout;
        let same = match (network, transport) {
            (Network::V4, Transport::Tcp) => &TCP_V4,
            (Network::V6, Transport::Tcp) => &TCP_V6,
            (Network::V4, Transport::Udp) => &UDP_V4,
            (Network::V6, Transport::Udp) => &UDP_V6,
        };
        // All octets at once: a branch for each field would take longer than the sum of the payload.
        let headers = first[network_at..payload_at].iter().zip(&frame[network_at..payload_at]).zip(same);
        let differing = headers.fold(0, |differing, ((a, b), same)| differing | (a ^ b) & same);
        if differing != 0 || first[..network_at] != frame[..network_at] {
            return false;
        }
        let network_follows = match network {
            Network::V4 => {
                let step = if self.has_fixed_id(first, frame) { 0 } else { low(self.count) };
                usize::from(read(frame, network_at + 2)) == frame.len() - network_at
                    && read(frame, network_at + 4) == read(first, network_at + 4).wrapping_add(step)
                    && is_right(standing.network(frame), read(frame, network_at + 10))
            }
            Network::V6 => usize::from(read(frame, network_at + 4)) == frame.len() - network_at - ipv6::HEADER_LEN,
        };
        network_follows
            && match transport {
                Transport::Tcp => {
                    // CWR is the first segment's alone; a second one is a mark of its own.
                    let flags = first[transport_at + 13] & !tcp::CWR;
                    let behind = u32::try_from(self.payload).unwrap_or(0);
                    long(frame, transport_at + 4) == long(first, transport_at + 4).wrapping_add(behind)
                        && frame[transport_at + 13] & !(tcp::PSH | tcp::FIN) == flags
                }
                Transport::Udp => usize::from(read(frame, transport_at + 4)) == frame.len() - transport_at,
            }
    }

    /// Ends the train: rewrites the first frame's headers, of which `head` must hold at least those, to stand for all of
    /// it, and says what the super-frame asks of its receiver.
    pub fn finish(self, head: &mut [u8]) -> Offload {
        if self.count == 1 {
            return Offload { checksum: Checksum::Verified, segmentation: None, header_len: 0 };
        }
        let Layout { network, transport, network_at, transport_at, payload_at } = self.layout;
        let length = payload_at - transport_at + self.payload;
        match network {
            Network::V4 => {
                write(head, network_at + 2, low(transport_at - network_at + length));
                write(head, network_at + 10, 0);
                let sum = checksum::of(&head[network_at..transport_at]);
                write(head, network_at + 10, sum);
            }
            Network::V6 => write(head, network_at + 4, low(length)),
        }
        let ecn = match transport {
            Transport::Tcp => {
                head[transport_at + 13] |= self.closing;
                head[transport_at + 13] & tcp::CWR != 0
            }
            Transport::Udp => {
                write(head, transport_at + 4, low(length));
                false
            }
        };
        let pseudo = checksum::fold(self.layout.pseudo(head, length));
        write(head, self.layout.checksum_at(), pseudo);
        let kind = match (transport, network) {
            (Transport::Tcp, Network::V4) => SegmentKind::TcpV4,
            (Transport::Tcp, Network::V6) => SegmentKind::TcpV6,
            (Transport::Udp, _) => SegmentKind::Udp,
        };
        Offload {
            checksum: Checksum::Partial { start: low(transport_at), offset: self.layout.checksum_offset() },
            segmentation: Some(Segmentation { kind, size: low(self.size), ecn, fixed_id: self.fixed_id }),
            header_len: low(payload_at),
        }
    }
}

/// Whether the packet has no options below its transport and its lengths are exactly the frame's.
fn is_plain(layout: &Layout, frame: &[u8]) -> bool {
    let Layout { network, transport, network_at, transport_at, .. } = *layout;
    let behind = frame.len() - transport_at;
    let network_plain = match network {
        Network::V4 => {
            transport_at - network_at == 20
                && usize::from(read(frame, network_at + 2)) == frame.len() - network_at
                && header_sums_up(&frame[network_at..transport_at])
        }
        Network::V6 => transport_at - network_at == 40 && usize::from(read(frame, network_at + 4)) == behind,
    };
    network_plain
        && match transport {
            Transport::Tcp => true,
            Transport::Udp => usize::from(read(frame, transport_at + 4)) == behind,
        }
}

/// Whether an IPv4 header's checksum is right, and written as a cut would write it.
fn header_sums_up(header: &[u8]) -> bool {
    checksum::of(header) == 0 && read(header, 10) != 0xffff
}

/// Whether `stored` is the checksum of a header that sums to `sum` without it, and not zero's other form.
const fn is_right(sum: u64, stored: u16) -> bool {
    stored != 0xffff && checksum::fold(sum + stored as u64) == 0xffff
}

/// Whether the transport checksum is right, and written as a cut would write it: zero has two forms.
fn sums_up(layout: &Layout, frame: &[u8]) -> bool {
    read(frame, layout.checksum_at()) != other_zero(layout.transport)
        && layout.sum(frame, frame.len() - layout.transport_at).fold() == 0xffff
}

/// The form of a checksum of zero that no cut writes.
const fn other_zero(transport: Transport) -> u16 {
    match transport {
        Transport::Tcp => 0xffff,
        Transport::Udp => 0,
    }
}

/// Whether the checksum field holds the pseudo header's sum and no more: the frame never saw a wire, and its sender left
/// the rest to a card. A kernel vxlan device over a veth hands such frames on as they are. A wrong checksum looks like
/// that once in 65,536.
fn is_begun(layout: &Layout, frame: &[u8]) -> bool {
    let pseudo = layout.pseudo(frame, frame.len() - layout.transport_at);
    read(frame, layout.checksum_at()) == checksum::fold(pseudo)
}

/// Whether two IPv4 headers at `at` have the same identification.
fn same_id(first: &[u8], frame: &[u8], at: usize) -> bool {
    read(first, at + 4) == read(frame, at + 4)
}

fn read(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}

fn long(octets: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
}

fn write(octets: &mut [u8], at: usize, value: u16) {
    octets[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// A length, bounded by [`IP_LEN_LIMIT`], or a count as its 16-bit field.
#[expect(clippy::cast_possible_truncation, reason = "at most IP_LEN_LIMIT, or a counter that wraps like its field")]
const fn low(value: usize) -> u16 {
    value as u16
}
