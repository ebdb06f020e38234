//! The GRE header (RFC 2784 §2), with its key and sequence number (RFC 2890 §2).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-----------------+-----+-------------------------------+
//! |C|-|K|S|    reserved     | ver |         protocol type         |
//! +-+-+-+-+-----------------+-----+-------------------------------+
//! |  checksum, with the C bit     |          reserved             |
//! |                     key, with the K bit                       |
//! |               sequence number, with the S bit                 |
//! +---------------------------------------------------------------+
//! ```

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Truncated, checksum, prefix};

/// The protocol type of bridged Ethernet frames ("transparent Ethernet bridging", IEEE 802 numbers).
pub const TYPE_ETHERNET: u16 = 0x6558;
/// Octets of the header that [`Keyed`] is.
pub const HEADER_LEN: usize = 8;
/// The C bit: a checksum over header and payload is there.
pub const FLAG_CHECKSUM: u16 = 0x8000;
/// The K bit: a key is there.
pub const FLAG_KEY: u16 = 0x2000;
/// The S bit: a sequence number is there.
pub const FLAG_SEQUENCE: u16 = 0x1000;
/// Bits 1, 4 and 5, of which a receiver that knows only RFC 2784 and 2890 must take none: source routes and recursion
/// of RFC 1701. Bits 6 to 12 are ignored.
pub const FLAGS_REFUSED: u16 = 0x4c00;
/// The version's bits: 0, save for the GRE of PPTP.
pub const VERSION_MASK: u16 = 0x0007;

/// The four octets every header has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// What follows, reserved bits and the version.
    pub flags: U16,
    /// The payload's EtherType.
    pub protocol: U16,
}

/// The header we emit: a frame's, with a key and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Keyed {
    /// [`FLAG_KEY`].
    pub flags: U16,
    /// [`TYPE_ETHERNET`].
    pub protocol: U16,
    /// The tunnel key.
    pub key: U32,
}

impl Keyed {
    /// The header that carries frames under this key.
    #[must_use]
    pub const fn new(key: u32) -> Self {
        Self { flags: U16::new(FLAG_KEY), protocol: U16::new(TYPE_ETHERNET), key: U32::new(key) }
    }
}

/// Why octets are no GRE packet that carries a frame under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadGre {
    /// The header does not end within the octets.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// Bits that must be zero are set, or the version is another.
    #[error("flags {0:#06x} are not those of RFC 2784 and RFC 2890")]
    Flags(u16),
    /// The payload is no Ethernet frame.
    #[error("protocol {0:#06x} is no Ethernet frame")]
    Protocol(u16),
    /// The checksum is there, and wrong.
    #[error("the checksum is wrong")]
    Checksum,
    /// There is no key.
    #[error("there is no key")]
    Keyless,
}

/// The key of a GRE packet that carries an Ethernet frame, and how many octets its header has. A checksum is verified,
/// and a sequence number passed over: frames are delivered in the order they come (RFC 2890 §2.2 leaves that open).
///
/// # Errors
/// [`BadGre`] in the order in which the fields are looked at.
pub fn open(octets: &[u8]) -> Result<(u32, usize), BadGre> {
    let (header, rest) = prefix::<Header>(octets)?;
    let flags = header.flags.get();
    if flags & (FLAGS_REFUSED | VERSION_MASK) != 0 {
        return Err(BadGre::Flags(flags));
    }
    if header.protocol.get() != TYPE_ETHERNET {
        return Err(BadGre::Protocol(header.protocol.get()));
    }
    let rest = if flags & FLAG_CHECKSUM == 0 {
        rest
    } else {
        let (_, rest) = prefix::<U32>(rest)?;
        if checksum::of(octets) != 0 {
            return Err(BadGre::Checksum);
        }
        rest
    };
    if flags & FLAG_KEY == 0 {
        return Err(BadGre::Keyless);
    }
    let (key, rest) = prefix::<U32>(rest)?;
    let rest = if flags & FLAG_SEQUENCE == 0 { rest } else { prefix::<U32>(rest)?.1 };
    Ok((key.get(), octets.len() - rest.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_octets_both_ways() {
        let octets = [0x20, 0, 0x65, 0x58, 0, 0, 0x13, 0x88];
        assert_eq!(Keyed::new(5000).as_bytes(), octets);
        assert_eq!(open(&octets), Ok((5000, HEADER_LEN)));
        assert_eq!(open(&[&octets[..], b"frame"].concat()), Ok((5000, HEADER_LEN)));
    }

    /// Checksum, key, sequence number, then a payload of odd length.
    fn all_options() -> Vec<u8> {
        let mut octets = vec![0xb0, 0, 0x65, 0x58, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1, 1, 2, 3];
        let sum = checksum::of(&octets);
        octets[4..6].copy_from_slice(&sum.to_be_bytes());
        octets
    }

    #[test]
    fn options_are_passed_over_in_order() {
        assert_eq!(open(&all_options()), Ok((7, 16)));
        assert_eq!(open(&[0x30, 0, 0x65, 0x58, 0, 0, 0, 9, 0, 0, 0, 1]), Ok((9, 12)));
        // Reserved bits that a receiver ignores (RFC 2784 §2.1).
        assert_eq!(open(&[0x23, 0xf8, 0x65, 0x58, 0, 0, 0, 9]), Ok((9, 8)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let keyed = |flags: u16| [&flags.to_be_bytes()[..], &[0x65, 0x58, 0, 0, 0, 1]].concat();
        for refused in [0x6000, 0x2800, 0x2400, 0x2001, 0x2007] {
            assert_eq!(open(&keyed(refused)), Err(BadGre::Flags(refused)));
        }
        assert_eq!(open(&[0x20, 0, 0x08, 0, 0, 0, 0, 1]), Err(BadGre::Protocol(0x0800)));
        assert_eq!(open(&[0, 0, 0x65, 0x58, 0, 0, 0, 1]), Err(BadGre::Keyless));
        let mut damaged = all_options();
        damaged[18] ^= 1;
        assert_eq!(open(&damaged), Err(BadGre::Checksum));
        for length in [0, 3, 4, 7] {
            assert!(matches!(open(&keyed(0x2000)[..length]), Err(BadGre::Truncated(_))), "{length}");
        }
    }

    proptest! {
        /// Whatever the octets, a header that is accepted ends within them.
        #[test]
        fn any_octets_are_read_or_refused(octets in proptest::collection::vec(any::<u8>(), 0..40), ours in any::<bool>()) {
            let mut octets = octets;
            if ours && octets.len() >= 4 {
                octets[2..4].copy_from_slice(&TYPE_ETHERNET.to_be_bytes());
                octets[0] &= 0xb0;
                octets[1] = 0;
            }
            if let Ok((_, length)) = open(&octets) {
                prop_assert!((HEADER_LEN..=16).contains(&length) && length <= octets.len());
            }
        }
    }
}
