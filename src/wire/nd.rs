//! Neighbour discovery (RFC 4861 §4): the messages with a target, and link-layer address options.

use zerocopy::network_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// ICMPv6 type of a router solicitation.
pub const ROUTER_SOLICITATION: u8 = 133;
/// ICMPv6 type of a router advertisement.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// ICMPv6 type of a neighbour solicitation.
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
/// ICMPv6 type of a neighbour advertisement.
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// ICMPv6 type of a redirect, the last of neighbour discovery's.
pub const REDIRECT: u8 = 137;
/// Option: source link-layer address.
pub const OPTION_SOURCE_LL: u8 = 1;
/// Option: target link-layer address.
pub const OPTION_TARGET_LL: u8 = 2;
/// Flag in an advertisement's [`Target::flags`]: the sender is a router.
pub const FLAG_ROUTER: u32 = 0x8000_0000;
/// Flag in an advertisement's [`Target::flags`]: the answer to a solicitation.
pub const FLAG_SOLICITED: u32 = 0x4000_0000;
/// Flag in an advertisement's [`Target::flags`]: replace a cached address.
pub const FLAG_OVERRIDE: u32 = 0x2000_0000;

/// What follows the ICMPv6 header in a solicitation or advertisement of a neighbour.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Target {
    /// Flags of an advertisement; reserved in a solicitation.
    pub flags: U32,
    /// The address asked for or answered.
    pub address: [u8; 16],
}

/// A link-layer address option for Ethernet: 8 octets.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LinkLayer {
    /// [`OPTION_SOURCE_LL`] or [`OPTION_TARGET_LL`].
    pub kind: u8,
    /// Length in units of 8 octets: 1.
    pub length: u8,
    /// The address.
    pub mac: [u8; 6],
}
