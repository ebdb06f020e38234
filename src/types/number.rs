//! Bounded numbers: VNI, VLAN id, MTU.

use core::fmt;

use serde::{Deserialize, Serialize};

/// A number outside its field's range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value} is out of range: use {least} to {most}")]
pub struct BadNumber {
    what: &'static str,
    value: u32,
    least: u32,
    most: u32,
}

macro_rules! bounded {
    ($(#[$doc:meta])* $name:ident, $what:literal, $least:literal ..= $most:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "u32", into = "u32")]
        pub struct $name(u32);

        impl $name {
            /// The least legal value.
            pub const MIN: Self = Self($least);
            /// The greatest legal value.
            pub const MAX: Self = Self($most);

            /// The value, if it is in range.
            ///
            /// # Errors
            /// Names the range when `value` is outside it.
            pub const fn new(value: u32) -> Result<Self, BadNumber> {
                if value < $least || value > $most {
                    return Err(BadNumber { what: $what, value, least: $least, most: $most });
                }
                Ok(Self(value))
            }

            /// The number itself.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0
            }
        }

        impl TryFrom<u32> for $name {
            type Error = BadNumber;

            fn try_from(value: u32) -> Result<Self, BadNumber> {
                Self::new(value)
            }
        }

        impl From<$name> for u32 {
            fn from(value: $name) -> u32 {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, out)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

bounded! {
    /// A VXLAN network identifier: 24 bits, zero kept for "none" (RFC 7348 §5).
    Vni, "VNI", 1..=16_777_215
}

bounded! {
    /// A VLAN id that may carry frames: 0 means "priority tag only" and 4095 is reserved (IEEE 802.1Q-2018 table 9-2).
    VlanId, "VLAN id", 1..=4094
}

bounded! {
    /// A link's MTU in octets of payload, as Linux counts it: without the Ethernet header. From IPv4's least
    /// (RFC 791 §3.2) to the most a 16-bit IP length can say.
    Mtu, "MTU", 68..=65_535
}

impl Mtu {
    /// Ethernet's usual payload (IEEE 802.3 §3.2.7).
    pub const ETHERNET: Self = Self(1_500);
}

impl VlanId {
    /// The number as the 16-bit field that carries it.
    #[must_use]
    pub const fn tci_bits(self) -> u16 {
        // In range by construction: at most 4094.
        (self.0 & 0xfff) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_exact() {
        assert!(
            Vni::new(0).is_err()
                && Vni::new(1).is_ok()
                && Vni::new((1 << 24) - 1).is_ok()
                && Vni::new(1 << 24).is_err()
        );
        assert!(VlanId::new(0).is_err() && VlanId::new(4094).is_ok() && VlanId::new(4095).is_err());
        assert!(Mtu::new(67).is_err() && Mtu::new(68).is_ok() && Mtu::new(65_535).is_ok() && Mtu::new(65_536).is_err());
    }

    #[test]
    fn the_error_says_the_range() {
        let error = Vni::new(1 << 24).expect_err("one too many");
        assert_eq!(error.to_string(), "VNI 16777216 is out of range: use 1 to 16777215");
    }
}
