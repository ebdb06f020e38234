//! What a tunnel takes of the underlay's MTU, and its port's name.

use core::net::IpAddr;

use crate::types::IfName;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overhead_is_forty_two_or_sixty_two_octets() {
        let ip = |text: &str| text.parse().expect("an address");
        assert_eq!(overhead_octets(ip("192.0.2.1")), 42);
        assert_eq!(overhead_octets(ip("2001:db8::1")), 62);
        assert_eq!(port_name(ip("10.0.0.1")).as_str(), "gre-0a000001");
        assert_eq!(port_name(ip("2001:db8::1")).as_str().len(), IfName::MAX_LEN);
    }
}
