//! The VXLAN header (RFC 7348 §5).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-----------------------------------------------+
//! |R|R|R|R|I|R|R|R|                   reserved                    |
//! +-+-+-+-+-+-+-+-+-----------------------------+-----------------+
//! |                      VNI                      |   reserved    |
//! +-----------------------------------------------+---------------+
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::types::Vni;

/// The UDP port IANA gave it.
pub const PORT: u16 = 4789;
/// Octets of the header.
pub const HEADER_LEN: usize = 8;
/// The I flag: the VNI counts.
pub const FLAG_VNI: u8 = 0x08;

/// The whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// [`FLAG_VNI`] and reserved bits.
    pub flags: u8,
    /// Zero when sent.
    pub reserved: [u8; 3],
    /// The network identifier.
    pub vni: [u8; 3],
    /// Zero when sent.
    pub reserved_tail: u8,
}

impl Header {
    /// The header that carries this network's frames.
    #[must_use]
    pub fn new(vni: Vni) -> Self {
        let [_, a, b, c] = vni.get().to_be_bytes();
        Self { flags: FLAG_VNI, reserved: [0; 3], vni: [a, b, c], reserved_tail: 0 }
    }

    /// The 24 bits of the identifier, whatever they are.
    #[must_use]
    pub const fn vni_bits(&self) -> u32 {
        let [a, b, c] = self.vni;
        u32::from_be_bytes([0, a, b, c])
    }

    /// Whether anything is set that must be zero when sent.
    #[must_use]
    pub const fn has_reserved(&self) -> bool {
        self.flags & !FLAG_VNI != 0 || !matches!(self.reserved, [0, 0, 0]) || self.reserved_tail != 0
    }

    /// Whether the I flag is set.
    #[must_use]
    pub const fn has_vni(&self) -> bool {
        self.flags & FLAG_VNI != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_octets_both_ways() {
        let octets = [0x08, 0, 0, 0, 0x00, 0x13, 0x88, 0];
        let header = Header::new(Vni::new(5000).expect("in range"));
        assert_eq!(header.as_bytes(), octets);
        let (read, rest) = crate::wire::prefix::<Header>(&octets).expect("eight octets");
        assert!(read.has_vni() && read.vni_bits() == 5000 && rest.is_empty());
    }
}
