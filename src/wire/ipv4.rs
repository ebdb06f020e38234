//! The IPv4 header (RFC 791 §3.1) and the protocol numbers both IP versions share.

use core::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// Protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// Protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// Protocol number of GRE.
pub const PROTOCOL_GRE: u8 = 47;
/// Protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;
/// Protocol number of SCTP.
pub const PROTOCOL_SCTP: u8 = 132;
/// "Don't fragment", in [`Header::fragment`].
pub const FLAG_DF: u16 = 0x4000;
/// "More fragments", in [`Header::fragment`].
pub const FLAG_MF: u16 = 0x2000;
/// The offset's bits in [`Header::fragment`], in units of 8 octets.
pub const OFFSET_MASK: u16 = 0x1fff;
/// Octets without options.
pub const HEADER_LEN: usize = 20;

/// The 20 octets every header has.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Version (4 bits) and header length in 32-bit words (4 bits).
    pub version_ihl: u8,
    /// DSCP (6 bits) and ECN (2 bits).
    pub tos: u8,
    /// Octets of header and payload.
    pub total_len: U16,
    /// Identification of a datagram's fragments.
    pub identification: U16,
    /// Flags (3 bits) and fragment offset (13 bits).
    pub fragment: U16,
    /// Hops left.
    pub ttl: u8,
    /// What the payload is.
    pub protocol: u8,
    /// Ones' complement sum over the header.
    pub checksum: U16,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

impl Header {
    /// The IP version in the first half octet.
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Octets of the header with its options.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.version_ihl & 0xf) as usize * 4
    }

    /// Whether the packet is a fragment, first or later.
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.fragment.get() & (FLAG_MF | OFFSET_MASK) != 0
    }

    /// Whether the packet is a fragment without the transport header.
    #[must_use]
    pub const fn is_later_fragment(&self) -> bool {
        self.fragment.get() & OFFSET_MASK != 0
    }

    /// The source as an address.
    #[must_use]
    pub const fn source(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.source)
    }

    /// The destination as an address.
    #[must_use]
    pub const fn destination(&self) -> Ipv4Addr {
        Ipv4Addr::from_octets(self.destination)
    }
}
