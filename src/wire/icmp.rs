//! The four octets ICMP (RFC 792) and ICMPv6 (RFC 4443 §2.1) share, and the echo messages.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// ICMP type of an echo reply.
pub const V4_ECHO_REPLY: u8 = 0;
/// ICMP type of "destination unreachable".
pub const V4_UNREACHABLE: u8 = 3;
/// Its code for a packet that must not be fragmented and would have to be (RFC 1191 §4).
pub const V4_FRAGMENTATION_NEEDED: u8 = 4;
/// ICMPv6 type of "packet too big".
pub const V6_PACKET_TOO_BIG: u8 = 2;
/// ICMP type of an echo request.
pub const V4_ECHO_REQUEST: u8 = 8;
/// ICMPv6 type of an echo request.
pub const V6_ECHO_REQUEST: u8 = 128;
/// ICMPv6 type of an echo reply.
pub const V6_ECHO_REPLY: u8 = 129;

/// Type, code and checksum.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// What the message is.
    pub kind: u8,
    /// The type's variant.
    pub code: u8,
    /// Ones' complement sum; ICMPv6 covers a pseudo header too.
    pub checksum: U16,
}

/// What follows in an echo request or reply.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Echo {
    /// Which pinger.
    pub identifier: U16,
    /// Which ping of it.
    pub sequence: U16,
}
