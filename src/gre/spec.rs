//! What a tunnel takes of the underlay's MTU, its port's name; and a device as wanted.

use core::net::IpAddr;

use crate::types::{IfName, Vni};
use crate::wire::{ethernet, gre, ipv4, ipv6};

/// What a tunnelled frame needs between the underlay's MTU and its own: the inner Ethernet header (14), GRE's with a key
/// (8, RFC 2890 §2), and the outer IP header's (20, or 40 for IPv6).
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "a sum of three small constants")]
pub const fn overhead_octets(endpoint: IpAddr) -> u32 {
    let outer = match endpoint {
        IpAddr::V4(_) => ipv4::HEADER_LEN,
        IpAddr::V6(_) => ipv6::HEADER_LEN,
    };
    (ethernet::HEADER_LEN + gre::HEADER_LEN + outer) as u32
}

/// The name of the port to a remote endpoint: `gre-` and what [`IfName::of_endpoint`] makes of the address.
#[must_use]
pub fn port_name(remote: IpAddr) -> IfName {
    IfName::of_endpoint("gre-", remote)
}

/// The name of the device for a network and a remote endpoint: `k`, the key in six hexadecimal digits, and eight that
/// [`IfName::of_endpoint`] makes of the address; fifteen in all. Two IPv6 endpoints may thus share a name, once in 2³²
/// pairs.
#[must_use]
pub fn device_name(key: Vni, remote: IpAddr) -> IfName {
    let endpoint = IfName::of_endpoint("k123456", remote);
    let name = format!("k{:06x}{}", key.get(), &endpoint.as_str()["k123456".len()..]);
    IfName::new(name).unwrap_or_else(|bad| unreachable!("a key has at most six digits: {bad}"))
}

/// A GRE device as wanted. What is not said here is the same for all: packets have the key and no checksum, may not be
/// fragmented, and have as many hops as the switch gives its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceSpec {
    /// The network's key.
    pub key: Vni,
    /// This node's endpoint.
    pub local: IpAddr,
    /// The other node's endpoint, of the same family.
    pub remote: IpAddr,
}

impl DeviceSpec {
    /// The kernel's word for such a device (`IFLA_INFO_KIND`).
    #[must_use]
    pub const fn kernel_word(&self) -> &'static str {
        match self.local {
            IpAddr::V4(_) => "gretap",
            IpAddr::V6(_) => "ip6gretap",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_by_key_and_endpoint() {
        let ip = |text: &str| text.parse().expect("an address");
        let name = |key, remote| device_name(Vni::new(key).expect("a key"), ip(remote)).to_string();
        assert_eq!(name(0x3e9, "10.0.0.2"), "k0003e90a000002");
        assert_eq!(name(0xff_ffff, "2001:db8::1").len(), IfName::MAX_LEN);
        assert_ne!(name(1, "2001:db8::1"), name(1, "2001:db8::2"));
    }

    #[test]
    fn overhead_is_forty_two_or_sixty_two_octets() {
        let ip = |text: &str| text.parse().expect("an address");
        assert_eq!(overhead_octets(ip("192.0.2.1")), 42);
        assert_eq!(overhead_octets(ip("2001:db8::1")), 62);
        assert_eq!(port_name(ip("10.0.0.1")).as_str(), "gre-0a000001");
        assert_eq!(port_name(ip("2001:db8::1")).as_str().len(), IfName::MAX_LEN);
    }
}
