//! What is wanted: one tunnel a remote node; and what a tunnel takes of the underlay's MTU.

use core::net::IpAddr;
use std::collections::BTreeMap;

use uuid::Uuid;

use crate::types::IfName;

/// What a tunnelled frame needs between the underlay's MTU and its own: the inner Ethernet header (14), VXLAN's (8,
/// RFC 7348 §5), UDP's (8), and the outer IP header's (20, or 40 for IPv6). The outer Ethernet header counts for nothing:
/// Linux's MTU leaves it out on both sides.
#[must_use]
pub const fn overhead_octets(endpoint: IpAddr) -> u32 {
    const INNER_ETHERNET: u32 = 14;
    const VXLAN: u32 = 8;
    const UDP: u32 = 8;
    INNER_ETHERNET
        + VXLAN
        + UDP
        + match endpoint {
            IpAddr::V4(_) => 20,
            IpAddr::V6(_) => 40,
        }
}

/// Names for tunnels to IPv6 endpoints are drawn from this space (RFC 9562 §5.5): any constant would do.
const NAMES: Uuid = Uuid::from_u128(0x0d7c_1a52_6f0e_4b3a_9c1d_7678_6c61_6e2d);

/// The name of the port to a remote endpoint: `vxlan-` and, for IPv4, the address in eight hexadecimal digits, as Neutron
/// has it; for IPv6, which does not fit, the first nine digits of a hash. Two IPv6 endpoints may thus share a name, once in
/// 2³⁶ pairs: [`tunnels`] refuses them.
#[must_use]
pub fn port_name(remote: IpAddr) -> IfName {
    let text = match remote {
        IpAddr::V4(ip) => format!("vxlan-{:08x}", ip.to_bits()),
        IpAddr::V6(ip) => {
            let hash = Uuid::new_v5(&NAMES, &ip.octets()).simple().to_string();
            format!("vxlan-{hash:.9}")
        }
    };
    match IfName::new(text) {
        Ok(name) => name,
        Err(_) => unreachable!("six letters and at most nine hexadecimal digits fit"),
    }
}

/// A tunnel as wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TunnelSpec {
    /// Its port's name on br-tun.
    pub port: IfName,
    /// This node's endpoint.
    pub local: IpAddr,
    /// The other node's endpoint.
    pub remote: IpAddr,
}

/// Why a set of endpoints cannot be joined by tunnels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadTunnels {
    /// IPv4 here and IPv6 there, or the reverse.
    #[error("no tunnel joins {local} to {remote}: give both nodes an endpoint of one family")]
    Families {
        /// This node's endpoint.
        local: IpAddr,
        /// The other node's.
        remote: IpAddr,
    },
    /// Two endpoints whose names are one.
    #[error("the ports to {one} and {other} would both be called {port}: change one of the addresses")]
    SameName {
        /// The name.
        port: IfName,
        /// One endpoint.
        one: IpAddr,
        /// The other.
        other: IpAddr,
    },
}

/// The tunnels from `local` to each of `remotes`, by port name: repeated endpoints once, and none to `local` itself.
///
/// # Errors
/// Names the endpoints that cannot be joined or told apart.
pub fn tunnels(local: IpAddr, remotes: impl IntoIterator<Item = IpAddr>) -> Result<Vec<TunnelSpec>, BadTunnels> {
    let mut by_name: BTreeMap<IfName, IpAddr> = BTreeMap::new();
    for remote in remotes.into_iter().filter(|remote| *remote != local) {
        if remote.is_ipv4() != local.is_ipv4() {
            return Err(BadTunnels::Families { local, remote });
        }
        let port = port_name(remote);
        match by_name.insert(port.clone(), remote) {
            Some(other) if other != remote => return Err(BadTunnels::SameName { port, one: other, other: remote }),
            Some(_) | None => {}
        }
    }
    Ok(by_name.into_iter().map(|(port, remote)| TunnelSpec { port, local, remote }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn overhead_is_fifty_or_seventy_octets() {
        assert_eq!(overhead_octets(ip("192.0.2.1")), 50);
        assert_eq!(overhead_octets(ip("2001:db8::1")), 70);
    }

    #[test]
    fn names_say_the_address() {
        assert_eq!(port_name(ip("10.0.0.1")).as_str(), "vxlan-0a000001");
        assert_eq!(port_name(ip("255.255.255.255")).as_str(), "vxlan-ffffffff");
        let name = port_name(ip("2001:db8::1"));
        assert_eq!(name.as_str().len(), IfName::MAX_LEN);
        assert_ne!(name, port_name(ip("2001:db8::2")));
    }

    #[test]
    fn one_tunnel_an_endpoint_and_none_to_oneself() {
        let found =
            tunnels(ip("10.0.0.1"), ["10.0.0.3", "10.0.0.1", "10.0.0.2", "10.0.0.3"].map(ip)).expect("joinable");
        let remotes: Vec<String> = found.iter().map(|tunnel| tunnel.remote.to_string()).collect();
        assert_eq!(remotes, ["10.0.0.2", "10.0.0.3"]);
        assert!(matches!(tunnels(ip("10.0.0.1"), [ip("::1")]), Err(BadTunnels::Families { .. })));
    }
}
