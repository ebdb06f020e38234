//! Neighbour discovery (RFC 4861 §4): the messages with a target, router advertisements, and their options.

use zerocopy::network_endian::{U16, U32};
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
/// Option: a prefix on the link.
pub const OPTION_PREFIX: u8 = 3;
/// Option: the link's MTU.
pub const OPTION_MTU: u8 = 5;
/// Flag in [`Prefix::flags`]: addresses of the prefix are on the link.
pub const PREFIX_ON_LINK: u8 = 0x80;
/// The hop limit of every message: none has been through a router.
pub const HOP_LIMIT: u8 = 255;
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

/// What follows the ICMPv6 header in a router advertisement (RFC 4861 §4.2), up to its options.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RouterAdvertisement {
    /// The hop limit machines are to use; zero leaves it to them.
    pub hop_limit: u8,
    /// Whether addresses and other things are to be had by DHCPv6.
    pub flags: u8,
    /// Seconds for which the sender is a default router; zero: it is none.
    pub lifetime: U16,
    /// Milliseconds for which a neighbour counts as reachable; zero leaves it to the machines.
    pub reachable: U32,
    /// Milliseconds between solicitations; zero leaves it to the machines.
    pub retransmit: U32,
}

/// An option that tells the link's MTU (RFC 4861 §4.6.4).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LinkMtu {
    /// [`OPTION_MTU`].
    pub kind: u8,
    /// Length in units of 8 octets: 1.
    pub length: u8,
    /// Zero.
    pub reserved: U16,
    /// The MTU.
    pub mtu: U32,
}

/// An option that tells a prefix (RFC 4861 §4.6.2).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Prefix {
    /// [`OPTION_PREFIX`].
    pub kind: u8,
    /// Length in units of 8 octets: 4.
    pub length: u8,
    /// Its leading bits that count.
    pub prefix_len: u8,
    /// [`PREFIX_ON_LINK`], or nothing.
    pub flags: u8,
    /// Seconds for which it is on the link; all ones: for good.
    pub valid: U32,
    /// Seconds for which addresses made from it are preferred.
    pub preferred: U32,
    /// Zero.
    pub reserved: U32,
    /// The prefix.
    pub prefix: [u8; 16],
}
