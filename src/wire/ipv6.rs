//! The IPv6 header (RFC 8200 §3) and its fragment header (§4.5).

use core::net::Ipv6Addr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets of the fixed header.
pub const HEADER_LEN: usize = 40;
/// Next header: hop-by-hop options.
pub const NEXT_HOP_BY_HOP: u8 = 0;
/// Next header: routing.
pub const NEXT_ROUTING: u8 = 43;
/// Next header: fragment.
pub const NEXT_FRAGMENT: u8 = 44;
/// Next header: authentication (RFC 4302).
pub const NEXT_AUTHENTICATION: u8 = 51;
/// Next header: none.
pub const NEXT_NONE: u8 = 59;
/// Next header: destination options.
pub const NEXT_DESTINATION: u8 = 60;

/// The 40 octets every packet starts with.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Version (4 bits), traffic class (8 bits), flow label (20 bits).
    pub version_class_label: U32,
    /// Octets behind this header, extension headers included.
    pub payload_len: U16,
    /// What follows.
    pub next_header: u8,
    /// Hops left.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

impl Header {
    /// The IP version in the first half octet.
    #[must_use]
    pub const fn version(&self) -> u8 {
        (self.version_class_label.get() >> 28) as u8
    }

    /// DSCP (6 bits) and ECN (2 bits).
    #[must_use]
    pub const fn traffic_class(&self) -> u8 {
        (self.version_class_label.get() >> 20 & 0xff) as u8
    }

    /// The 20-bit flow label.
    #[must_use]
    pub const fn flow_label(&self) -> u32 {
        self.version_class_label.get() & 0xf_ffff
    }

    /// The source as an address.
    #[must_use]
    pub const fn source(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.source)
    }

    /// The destination as an address.
    #[must_use]
    pub const fn destination(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.destination)
    }
}

/// The fragment extension header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Fragment {
    /// What follows the reassembled header.
    pub next_header: u8,
    /// Zero when sent, ignored when received.
    pub reserved: u8,
    /// Offset in 8-octet units (13 bits), reserved (2), more fragments (1).
    pub offset_more: U16,
    /// Identification of a packet's fragments.
    pub identification: U32,
}
