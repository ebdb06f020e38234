//! Joining segments that arrived one by one into the super-frame they were cut from.
//!
//! The rules are those of Linux's GRO (`net/ipv4/tcp_offload.c`, `net/core/gro.c`), minus what a cut would not give
//! back: cutting what was joined must yield every octet that arrived. So IPv4 identification must count up or, where
//! DF forbids fragments and so gives it no meaning, stay; and a segment whose checksums are wrong is neither joined nor
//! repaired: it goes on as it came, for its receiver to refuse.

use super::layout::{Layout, Network, Standing, TAG_LIMIT, Transport, header};
use crate::datapath::packet::{Checksum, Offload, SegmentKind, Segmentation};
use crate::wire::{checksum, ethernet, ipv4, ipv6, tcp, udp};

/// The greatest value of the IP length fields.
const IP_LEN_LIMIT: usize = 65_535;

/// Datagrams in one UDP super-frame: Linux's receiving limit before 6.9 (`UDP_MAX_SEGMENTS`).
const DATAGRAM_LIMIT: usize = 64;

/// The most octets of Ethernet header and tags.
const LINK_LIMIT: usize = ethernet::HEADER_LEN + TAG_LIMIT * ethernet::TAG_LEN;

/// The most octets of those, of an IP header without options and of a TCP header.
const HEADERS_LIMIT: usize = LINK_LIMIT + ipv6::HEADER_LEN + 60;

/// Which octets of the headers are the same in all frames of a train: ones. Zeroes are fields with a rule of their own. The
/// IP header is at [`LINK_LIMIT`].
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
            same[LINK_LIMIT + at] = 0;
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
        let Layout { transport, network_at, transport_at, payload_at, .. } = self.layout;
        let Some(payload) = frame.get(payload_at..).filter(|payload| !payload.is_empty()) else {
            return Extended::Refused;
        };
        let size = payload.len();
        let limit = match transport {
            Transport::Tcp => super::SEGMENT_LIMIT,
            Transport::Udp => DATAGRAM_LIMIT,
        };
        let too_much = payload_at - network_at + self.payload + size > IP_LEN_LIMIT;
        if size > self.size || too_much || self.count >= limit || !self.is_alike(first, frame) {
            return Extended::Refused;
        }
        let standing = *self.standing.get_or_insert_with(|| Standing::of(&self.layout, first));
        let Some(fixed_id) = self.network_follows(&standing, first, frame) else {
            return Extended::Refused;
        };
        let length = frame.len() - transport_at;
        let (follows, sum, stored) = match transport {
            Transport::Tcp => {
                let header: &tcp::Header = header(frame, transport_at);
                (self.tcp_follows(first, header), standing.tcp(header, length), header.checksum.get())
            }
            Transport::Udp => {
                let header: &udp::Header = header(frame, transport_at);
                (usize::from(header.length.get()) == length, standing.udp(length), header.checksum.get())
            }
        };
        // The sum last: it takes longer than all else.
        if !follows
            || stored == other_zero(transport)
            || checksum::fold(checksum::add(sum + u64::from(stored), payload)) != 0xffff
        {
            return Extended::Refused;
        }
        self.fixed_id = fixed_id;
        self.payload += size;
        self.count += 1;
        if transport == Transport::Tcp {
            self.closing = frame[transport_at + 13] & (tcp::PSH | tcp::FIN);
        }
        if size < self.size || self.closing != 0 { Extended::Last } else { Extended::Taken }
    }

    /// Whether all header fields are the first frame's but those with a rule of their own.
    fn is_alike(&self, first: &[u8], frame: &[u8]) -> bool {
        let Layout { network, transport, network_at, payload_at, .. } = self.layout;
        let same = match (network, transport) {
            (Network::V4, Transport::Tcp) => &TCP_V4,
            (Network::V6, Transport::Tcp) => &TCP_V6,
            (Network::V4, Transport::Udp) => &UDP_V4,
            (Network::V6, Transport::Udp) => &UDP_V6,
        };
        let from = LINK_LIMIT - network_at;
        !differ(&first[..payload_at], &frame[..payload_at], &same[from..from + payload_at])
    }

    /// Whether the IP header's other fields are what the next segment's would be, and IPv4's checksum is right; and if so,
    /// whether the train has one IPv4 identification for all with this frame: the second one decides.
    fn network_follows(&self, standing: &Standing, first: &[u8], frame: &[u8]) -> Option<bool> {
        let at = self.layout.network_at;
        match self.layout.network {
            Network::V4 => {
                let (first, header): (&ipv4::Header, &ipv4::Header) = (header(first, at), header(frame, at));
                let (before, this) = (first.identification.get(), header.identification.get());
                let undecided = self.count == 1;
                let fixed =
                    if undecided { first.fragment.get() & ipv4::FLAG_DF != 0 && before == this } else { self.fixed_id };
                let step = if fixed { 0 } else { low(self.count) };
                let follows = usize::from(header.total_len.get()) == frame.len() - at
                    && this == before.wrapping_add(step)
                    && is_right(standing.ipv4(header), header.checksum.get());
                follows.then_some(fixed)
            }
            Network::V6 => {
                let header: &ipv6::Header = header(frame, at);
                (usize::from(header.payload_len.get()) == frame.len() - at - ipv6::HEADER_LEN).then_some(false)
            }
        }
    }

    /// Whether sequence number and flags of a TCP header are the next segment's.
    fn tcp_follows(&self, first: &[u8], next: &tcp::Header) -> bool {
        let first: &tcp::Header = header(first, self.layout.transport_at);
        // CWR is the first segment's alone; a second one is a mark of its own.
        let flags = first.flags & !tcp::CWR;
        let behind = u32::try_from(self.payload).unwrap_or(0);
        next.sequence.get() == first.sequence.get().wrapping_add(behind) && next.flags & !(tcp::PSH | tcp::FIN) == flags
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

/// Whether headers of one length, which is 8 octets at least, differ where `same` has ones.
fn differ(first: &[u8], frame: &[u8], same: &[u8]) -> bool {
    let word = |octets: &[u8; 8]| u64::from_ne_bytes(*octets);
    // Words at once, the last one over some octets again: a branch for each field would take longer than the payload's sum.
    let (Some(a), Some(b), Some(mask)) = (first.last_chunk(), frame.last_chunk(), same.last_chunk()) else {
        unreachable!("an Ethernet header is longer");
    };
    let last = (word(a) ^ word(b)) & word(mask);
    let words = first.as_chunks().0.iter().zip(frame.as_chunks().0).zip(same.as_chunks().0);
    words.fold(last, |differing, ((a, b), same)| differing | (word(a) ^ word(b)) & word(same)) != 0
}

fn read(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}

fn write(octets: &mut [u8], at: usize, value: u16) {
    octets[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// A length, bounded by [`IP_LEN_LIMIT`], or a count as its 16-bit field.
#[expect(clippy::cast_possible_truncation, reason = "at most IP_LEN_LIMIT, or a counter that wraps like its field")]
const fn low(value: usize) -> u16 {
    value as u16
}
