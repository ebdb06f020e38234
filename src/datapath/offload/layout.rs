//! Where a frame's headers are.

use core::ops::Range;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::Sum;
use crate::wire::{checksum, ethernet, ipv4, ipv6, prefix, prefix_mut, tcp, udp};

/// Tags skipped in front of the network header; a frame with more is left alone.
pub(super) const TAG_LIMIT: usize = 4;

/// IPv6 extension headers skipped in front of the transport header.
const EXTENSION_LIMIT: usize = 8;

/// A transport that is cut and joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// The IP version below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Network {
    V4,
    V6,
}

/// The headers of a TCP or UDP packet over IP over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) network: Network,
    pub(super) transport: Transport,
    /// Where the IP header starts.
    pub(super) network_at: usize,
    /// Where the TCP or UDP header starts.
    pub(super) transport_at: usize,
    /// Where the payload starts.
    pub(super) payload_at: usize,
}

impl Layout {
    /// The layout of an unfragmented TCP or UDP packet whose headers are all in `head`; `None` for anything else.
    pub(super) fn of(head: &[u8]) -> Option<Self> {
        let (ether_type, network_at) = skip_tags(head)?;
        let (network, transport_at, protocol) = match ether_type {
            ethernet::TYPE_IPV4 => {
                let (header, _) = prefix::<ipv4::Header>(&head[network_at..]).ok()?;
                let legal = header.version() == 4 && header.header_len() >= ipv4::HEADER_LEN && !header.is_fragment();
                legal.then_some((Network::V4, network_at + header.header_len(), header.protocol))?
            }
            ethernet::TYPE_IPV6 => {
                let (header, _) = prefix::<ipv6::Header>(&head[network_at..]).ok()?;
                let behind = network_at + ipv6::HEADER_LEN;
                let (at, protocol) = skip_extensions(head, behind, header.next_header)?;
                (header.version() == 6).then_some((Network::V6, at, protocol))?
            }
            _ => return None,
        };
        let behind = head.get(transport_at..)?;
        let (transport, length) = match protocol {
            ipv4::PROTOCOL_TCP => {
                let (header, _) = prefix::<tcp::Header>(behind).ok()?;
                (header.header_len() >= tcp::HEADER_LEN).then_some((Transport::Tcp, header.header_len()))?
            }
            ipv4::PROTOCOL_UDP => (Transport::Udp, udp::HEADER_LEN),
            _ => return None,
        };
        let payload_at = transport_at + length;
        (payload_at <= head.len()).then_some(Self { network, transport, network_at, transport_at, payload_at })
    }

    /// Where the addresses are.
    const fn addresses(&self) -> Range<usize> {
        let (from, size) = match self.network {
            Network::V4 => (self.network_at + 12, 4),
            Network::V6 => (self.network_at + 8, 16),
        };
        from..from + 2 * size
    }

    /// The sum of the pseudo header for `length` octets of transport header and payload.
    pub(super) fn pseudo(&self, head: &[u8], length: usize) -> u64 {
        checksum::add(self.beside_addresses(length), &head[self.addresses()])
    }

    /// The pseudo header's sum without the addresses.
    fn beside_addresses(&self, length: usize) -> u64 {
        let length = length as u64;
        u64::from(self.protocol()) + (length >> 16) + (length & 0xffff)
    }

    /// The sum of the pseudo header for `length` octets, and of what `head` has from the transport header on.
    pub(super) fn sum(&self, head: &[u8], length: usize) -> Sum {
        let mut sum = Sum::new(self.beside_addresses(length));
        let addresses = self.addresses();
        if addresses.end == self.transport_at {
            // No options between: one run of octets.
            sum.add(&head[addresses.start..]);
        } else {
            sum.add(&head[addresses]);
            sum.add(&head[self.transport_at..]);
        }
        sum
    }

    /// The transport's protocol number.
    pub(super) const fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp => ipv4::PROTOCOL_TCP,
            Transport::Udp => ipv4::PROTOCOL_UDP,
        }
    }

    /// Where the transport checksum is.
    pub(super) const fn checksum_at(&self) -> usize {
        self.transport_at + self.checksum_offset() as usize
    }

    /// Where the transport checksum is in its header.
    pub(super) const fn checksum_offset(&self) -> u16 {
        match self.transport {
            Transport::Tcp => tcp::CHECKSUM_OFFSET,
            Transport::Udp => udp::CHECKSUM_OFFSET,
        }
    }
}

/// The header of this kind at `at`, in a frame with a [`Layout`] that says so.
#[inline]
pub(super) fn header<H: FromBytes + KnownLayout + Immutable + Unaligned>(head: &[u8], at: usize) -> &H {
    match prefix(&head[at..]) {
        Ok((header, _)) => header,
        Err(_) => unreachable!("all headers of a layout are in its frame"),
    }
}

/// The same, to be written through.
#[inline]
pub(super) fn header_mut<H: FromBytes + IntoBytes + KnownLayout + Unaligned>(head: &mut [u8], at: usize) -> &mut H {
    match prefix_mut(&mut head[at..]) {
        Ok((header, _)) => header,
        Err(_) => unreachable!("all headers of a layout are in its frame"),
    }
}

/// What the checksums of all segments of a stretch have in common: sums of the headers, without the fields in which
/// segments differ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    network: u64,
    transport: u64,
}

impl Standing {
    /// That of the segment with these headers.
    pub(super) fn of(layout: &Layout, head: &[u8]) -> Self {
        let Layout { network, transport, network_at, transport_at, payload_at } = *layout;
        // In ones' complement a number is taken out by adding its complement (RFC 1071 §4(3)).
        let without = |octets: &[u8], fields: u64| checksum::add(u64::from(!checksum::fold(fields)), octets);
        let network_sum = match network {
            Network::V4 => {
                let header: &ipv4::Header = header(head, network_at);
                let fields = of_ipv4(header) + u64::from(header.checksum.get());
                without(&head[network_at..transport_at], fields)
            }
            Network::V6 => 0,
        };
        let fields = match transport {
            Transport::Tcp => {
                let header: &tcp::Header = header(head, transport_at);
                of_tcp(header) + u64::from(header.checksum.get())
            }
            Transport::Udp => {
                let header: &udp::Header = header(head, transport_at);
                u64::from(header.length.get()) + u64::from(header.checksum.get())
            }
        };
        let transport_sum = layout.pseudo(head, 0) + without(&head[transport_at..payload_at], fields);
        Self { network: network_sum, transport: transport_sum }
    }

    /// The sum of an IPv4 header without its checksum.
    pub(super) const fn ipv4(&self, header: &ipv4::Header) -> u64 {
        self.network + of_ipv4(header)
    }

    /// The sum of the pseudo header for `length` octets and of a TCP header without its checksum.
    pub(super) const fn tcp(&self, header: &tcp::Header, length: usize) -> u64 {
        self.transport + length as u64 + of_tcp(header)
    }

    /// The sum of the pseudo header for `length` octets and of a UDP header that says so, without its checksum.
    pub(super) const fn udp(&self, length: usize) -> u64 {
        self.transport + 2 * length as u64
    }
}

/// The sum of the fields in which IPv4 headers differ, but for the checksum.
const fn of_ipv4(header: &ipv4::Header) -> u64 {
    header.total_len.get() as u64 + header.identification.get() as u64
}

/// The sum of the fields in which TCP headers differ, but for the checksum. A long word sums to what its halves do.
const fn of_tcp(header: &tcp::Header) -> u64 {
    header.sequence.get() as u64 + u16::from_be_bytes([header.offset_reserved, header.flags]) as u64
}

/// The EtherType behind all tags, and where its header starts; at most at the frame's end.
fn skip_tags(head: &[u8]) -> Option<(u16, usize)> {
    let mut at = ethernet::HEADER_LEN;
    for _ in 0..=TAG_LIMIT {
        let octets = head.get(at - 2..at)?;
        let ether_type = u16::from_be_bytes([octets[0], octets[1]]);
        match ether_type {
            ethernet::TYPE_VLAN | ethernet::TYPE_SERVICE_VLAN => at += ethernet::TAG_LEN,
            _ => return Some((ether_type, at)),
        }
    }
    None
}

/// The transport header's place and protocol, behind options only: a fragment has no whole transport, and a routing
/// header changes what its checksum covers (RFC 8200 §8.1).
fn skip_extensions(head: &[u8], mut at: usize, mut next: u8) -> Option<(usize, u8)> {
    for _ in 0..=EXTENSION_LIMIT {
        match next {
            ipv6::NEXT_HOP_BY_HOP | ipv6::NEXT_DESTINATION => {
                let octets = head.get(at..at + 2)?;
                next = octets[0];
                at += (usize::from(octets[1]) + 1) * 8;
            }
            protocol => return Some((at, protocol)),
        }
    }
    None
}

/// Whether finishing a checksum at `start + offset` leaves alone what flows look at: a TCP or UDP checksum in its own
/// place, or something behind those headers, as of a tunnel inside. Of other packets, anything behind the fixed IP
/// header or, without one, the EtherType. A guest that says otherwise would have its addresses or ports rewritten once
/// the flows have let them pass.
#[must_use]
pub fn is_finishable(head: &[u8], start: u16, offset: u16) -> bool {
    let from = usize::from(start);
    if let Some(layout) = Layout::of(head) {
        let own = from == layout.transport_at && offset == layout.checksum_offset();
        return own || from >= layout.payload_at;
    }
    match skip_tags(head) {
        Some((ethernet::TYPE_IPV4, at)) => from >= at + ipv4::HEADER_LEN,
        Some((ethernet::TYPE_IPV6, at)) => from >= at + ipv6::HEADER_LEN,
        Some((_, at)) => from >= at,
        None => false,
    }
}

/// A hash of the addresses and ports of the frame's flow, the same for all its frames: what a tunnel chooses its
/// source port by (RFC 7348 §5). Not seeded: whoever aims at one port gains nothing but his own flows there.
#[must_use]
pub fn flow_hash(head: &[u8]) -> u32 {
    let mut hash = Mixer(0x9e37_79b9_7f4a_7c15);
    if let Some(layout) = Layout::of(head) {
        let (from, size) = match layout.network {
            Network::V4 => (layout.network_at + 12, 8),
            Network::V6 => (layout.network_at + 8, 32),
        };
        hash.add(&head[from..from + size]);
        hash.add(&head[layout.transport_at..layout.transport_at + 4]);
    } else {
        hash.add(head.get(..ethernet::HEADER_LEN).unwrap_or(head));
        // Fragments and other protocols: by address, where the EtherType says that there is one.
        match skip_tags(head) {
            Some((ethernet::TYPE_IPV4, at)) => hash.add(head.get(at + 12..at + 20).unwrap_or_default()),
            Some((ethernet::TYPE_IPV6, at)) => hash.add(head.get(at + 8..at + 40).unwrap_or_default()),
            Some(_) | None => {}
        }
    }
    hash.finish()
}

/// Multiply, fold: enough to spread over a handful of sockets.
struct Mixer(u64);

impl Mixer {
    fn add(&mut self, octets: &[u8]) {
        for chunk in octets.chunks(4) {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0.rotate_left(23) ^ u64::from(u32::from_be_bytes(word))).wrapping_mul(0x2127_599b_f432_5c37);
        }
    }

    const fn finish(self) -> u32 {
        (self.0 >> 32) as u32
    }
}
