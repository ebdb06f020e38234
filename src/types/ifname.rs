//! Interface names as Linux takes them.

use core::fmt;
use core::net::IpAddr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Names for tunnels to IPv6 endpoints are drawn from this space (RFC 9562 §5.5): any constant would do.
const ENDPOINTS: Uuid = Uuid::from_u128(0x0d7c_1a52_6f0e_4b3a_9c1d_7678_6c61_6e2d);

/// A network interface's name: 1 to 15 octets (`IFNAMSIZ` is 16 with its terminator, `linux/if.h`), as
/// `dev_valid_name()` in `net/core/dev.c` accepts it; and printable ASCII, so that it can be shown.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);

/// Why a text cannot name an interface.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadIfName {
    /// No octets at all.
    #[error("an interface name cannot be empty")]
    Empty,
    /// Longer than the kernel's limit.
    #[error("interface name `{0}` is {len} octets long: at most 15 fit", len = .0.len())]
    TooLong(String),
    /// `.`, `..`, a slash, a colon, a space or an unprintable octet.
    #[error("interface name `{0}` has an illegal character: use letters, digits, '-', '_' and '.'")]
    Illegal(String),
}

impl IfName {
    /// The greatest length in octets.
    pub const MAX_LEN: usize = 15;

    /// The name, if the kernel would take it.
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn new(text: impl Into<String>) -> Result<Self, BadIfName> {
        let text = text.into();
        if text.is_empty() {
            return Err(BadIfName::Empty);
        }
        if text.len() > Self::MAX_LEN {
            return Err(BadIfName::TooLong(text));
        }
        let legal = |byte: u8| byte.is_ascii_graphic() && byte != b'/' && byte != b':' && byte != b'"';
        if text == "." || text == ".." || !text.bytes().all(legal) {
            return Err(BadIfName::Illegal(text));
        }
        Ok(Self(text))
    }

    /// A name that says a tunnel's remote endpoint: the prefix and, for IPv4, the address in eight hexadecimal digits, as
    /// Neutron has it; for IPv6, which does not fit, the first digits of a hash, as many as there is room for. Two IPv6
    /// endpoints may thus share a name: once in 2³⁶ pairs after a prefix of six letters.
    #[must_use]
    pub fn of_endpoint(prefix: &'static str, endpoint: IpAddr) -> Self {
        let text = match endpoint {
            IpAddr::V4(ip) => format!("{prefix}{:08x}", ip.to_bits()),
            IpAddr::V6(ip) => {
                let hash = Uuid::new_v5(&ENDPOINTS, &ip.octets()).simple().to_string();
                format!("{prefix}{hash:.*}", Self::MAX_LEN - prefix.len())
            }
        };
        match Self::new(text) {
            Ok(name) => name,
            Err(bad) => unreachable!("prefixes are words of at most seven letters: {bad}"),
        }
    }
}

super::text_name!(IfName, BadIfName);

impl fmt::Debug for IfName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, out)
    }
}

impl AsRef<str> for IfName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_the_kernel_takes() {
        for text in ["lo", "qr-0123456789a", "eth0.100", "123456789012345"] {
            assert!(IfName::new(text).is_ok(), "{text} was refused");
        }
    }

    #[test]
    fn refuses_what_the_kernel_refuses() {
        for text in ["", "1234567890123456", ".", "..", "a/b", "a b", "a:b", "ä"] {
            assert!(IfName::new(text).is_err(), "{text} was taken");
        }
    }
}
