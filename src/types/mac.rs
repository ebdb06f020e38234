//! Ethernet addresses.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// A 48-bit Ethernet address (IEEE 802-2014 §8).
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac([u8; 6]);

/// A text that is not six hexadecimal octets joined by colons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address: write six hexadecimal octets joined by colons, like fa:16:3e:00:00:20")]
pub struct BadMac(String);

impl Mac {
    /// All ones: every station.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// All zeroes: no station.
    pub const ZERO: Self = Self([0; 6]);

    /// The address made of these octets, in wire order.
    #[must_use]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// The octets, in wire order.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether the group bit is set: broadcast or multicast.
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether this is [`Mac::BROADCAST`].
    #[must_use]
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// Whether a station may own it: a group address or zero may not.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && self != Self::ZERO
    }

    /// The IPv6 link-local address formed from it (RFC 4291 appendix A: modified EUI-64).
    #[must_use]
    pub const fn link_local(self) -> core::net::Ipv6Addr {
        let [a, b, c, d, e, f] = self.0;
        core::net::Ipv6Addr::from_octets([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Programs are made of these: thirty thousand for ten thousand machines.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [b':'; 17];
        for (at, octet) in self.0.into_iter().enumerate() {
            text[at * 3] = DIGITS[usize::from(octet >> 4)];
            text[at * 3 + 1] = DIGITS[usize::from(octet & 0xf)];
        }
        out.write_str(core::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Self, BadMac> {
        let bad = || BadMac(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(bad)?;
            if part.is_empty() || part.len() > 2 || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Self(octets)) }
    }
}

impl TryFrom<String> for Mac {
    type Error = BadMac;

    fn try_from(text: String) -> Result<Self, BadMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_what_it_parses() {
        let mac: Mac = "fa:16:3e:0:00:2F".parse().expect("a legal address");
        assert_eq!(mac.to_string(), "fa:16:3e:00:00:2f");
        assert_eq!(mac.to_string().parse(), Ok(mac));
    }

    #[test]
    fn refuses_other_shapes() {
        for text in [
            "",
            "fa:16:3e:00:00",
            "fa:16:3e:00:00:20:01",
            "fa-16-3e-00-00-20",
            "+a:16:3e:00:00:20",
            "fa:16:3e:00:00:200",
            "::::::",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text} was taken");
        }
    }

    #[test]
    fn link_local_flips_the_universal_bit() {
        let mac: Mac = "fa:16:3e:00:00:20".parse().expect("a legal address");
        assert_eq!(mac.link_local().to_string(), "fe80::f816:3eff:fe00:20");
    }
}
