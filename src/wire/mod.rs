//! Octets and their meaning: one module a protocol, each a fixed header that reads and writes in place.
//!
//! Headers are `#[repr(C)]`, unaligned and in network order, so a reference to one *is* the octets: reading copies
//! nothing and writing changes the frame. A header is taken from the front of a slice with [`prefix`] or
//! [`prefix_mut`], which fail only when octets lack. Legality beyond length (a version, a length field) is a method
//! of the header, so that a bad packet can still be printed.

pub mod arp;
pub mod checksum;
pub mod dhcp;
pub mod ethernet;
pub mod gre;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod nd;
pub mod tcp;
pub mod udp;
pub mod vxlan;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The frame ends before the header does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("truncated: {needed} octets needed, {present} present")]
pub struct Truncated {
    /// How many the header takes.
    pub needed: usize,
    /// How many there are.
    pub present: usize,
}

/// The header at the front of `octets`, and what follows it.
///
/// # Errors
/// [`Truncated`] when fewer octets are present than the header takes.
pub fn prefix<H: FromBytes + KnownLayout + Immutable + Unaligned>(octets: &[u8]) -> Result<(&H, &[u8]), Truncated> {
    H::ref_from_prefix(octets).map_err(|_| Truncated { needed: size_of::<H>(), present: octets.len() })
}

/// The header at the front of `octets`, to be written through, and what follows it.
///
/// # Errors
/// [`Truncated`] when fewer octets are present than the header takes.
pub fn prefix_mut<H: FromBytes + IntoBytes + KnownLayout + Unaligned>(
    octets: &mut [u8],
) -> Result<(&mut H, &mut [u8]), Truncated> {
    let present = octets.len();
    H::mut_from_prefix(octets).map_err(|_| Truncated { needed: size_of::<H>(), present })
}
