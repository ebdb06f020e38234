//! Ethernet II and the 802.1Q tag (IEEE 802.3-2018 §3, IEEE 802.1Q-2018 §9).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::types::Mac;

/// EtherType of IPv4.
pub const TYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const TYPE_ARP: u16 = 0x0806;
/// Tag protocol id of a customer VLAN tag (802.1Q).
pub const TYPE_VLAN: u16 = 0x8100;
/// EtherType of reverse ARP (RFC 903).
pub const TYPE_RARP: u16 = 0x8035;
/// EtherType of IPv6.
pub const TYPE_IPV6: u16 = 0x86dd;
/// Tag protocol id of a service VLAN tag (802.1ad).
pub const TYPE_SERVICE_VLAN: u16 = 0x88a8;
/// Values below this are an 802.3 length, not a type.
pub const TYPE_LEAST: u16 = 0x0600;
/// Octets of the header without tags.
pub const HEADER_LEN: usize = 14;
/// Octets of one tag.
pub const TAG_LEN: usize = 4;

/// Destination, source and type.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Destination address.
    pub destination: [u8; 6],
    /// Source address.
    pub source: [u8; 6],
    /// EtherType, or the length of an 802.3 frame.
    pub ether_type: U16,
}

impl Header {
    /// A header of these three.
    #[must_use]
    pub fn new(destination: Mac, source: Mac, ether_type: u16) -> Self {
        Self { destination: destination.octets(), source: source.octets(), ether_type: ether_type.into() }
    }

    /// The destination as an address.
    #[must_use]
    pub const fn destination(&self) -> Mac {
        Mac::new(self.destination)
    }

    /// The source as an address.
    #[must_use]
    pub const fn source(&self) -> Mac {
        Mac::new(self.source)
    }
}

/// What follows a tag protocol id: the tag and the type it hides.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Tag {
    /// Priority (3 bits), drop eligible (1), VLAN id (12).
    pub control: U16,
    /// EtherType of what the tag wraps.
    pub ether_type: U16,
}
