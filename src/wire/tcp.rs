//! The TCP header (RFC 9293 §3.1).

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Octets without options.
pub const HEADER_LEN: usize = 20;
/// Where the checksum is in the header.
pub const CHECKSUM_OFFSET: u16 = 16;
/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// Synchronise sequence numbers.
pub const SYN: u8 = 0x02;
/// Reset the connection.
pub const RST: u8 = 0x04;
/// Push.
pub const PSH: u8 = 0x08;
/// The acknowledgement field counts.
pub const ACK: u8 = 0x10;
/// The urgent pointer counts.
pub const URG: u8 = 0x20;
/// ECN echo (RFC 3168).
pub const ECE: u8 = 0x40;
/// Congestion window reduced (RFC 3168).
pub const CWR: u8 = 0x80;

/// The 20 octets every header has.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Source port.
    pub source: U16,
    /// Destination port.
    pub destination: U16,
    /// First octet of this segment.
    pub sequence: U32,
    /// Next octet expected from the peer.
    pub acknowledgement: U32,
    /// Header length in 32-bit words (4 bits) and reserved bits, of which the lowest is accurate ECN's.
    pub offset_reserved: u8,
    /// The eight control bits.
    pub flags: u8,
    /// Receive window.
    pub window: U16,
    /// Sum over pseudo header, header and payload.
    pub checksum: U16,
    /// End of urgent data.
    pub urgent: U16,
}

impl Header {
    /// Octets of the header with its options.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.offset_reserved >> 4) as usize * 4
    }
}
