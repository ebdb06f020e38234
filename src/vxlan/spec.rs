//! What is wanted: of the switch one tunnel a remote node, of the kernel one device a network; and what a tunnel takes of
//! the underlay's MTU.

use core::fmt;
use core::net::IpAddr;
use std::collections::BTreeMap;

use crate::types::{IfName, Mac, Vni};
use crate::wire::{ethernet, ipv4, ipv6, udp, vxlan};

/// What a tunnelled frame needs between the underlay's MTU and its own: the inner Ethernet header (14), VXLAN's (8,
/// RFC 7348 §5), UDP's (8), and the outer IP header's (20, or 40 for IPv6). The outer Ethernet header counts for nothing:
/// Linux's MTU leaves it out on both sides.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "a sum of four small constants")]
pub const fn overhead_octets(endpoint: IpAddr) -> u32 {
    let outer = match endpoint {
        IpAddr::V4(_) => ipv4::HEADER_LEN,
        IpAddr::V6(_) => ipv6::HEADER_LEN,
    };
    (ethernet::HEADER_LEN + vxlan::HEADER_LEN + udp::HEADER_LEN + outer) as u32
}

/// The name of the port to a remote endpoint: `vxlan-` and what [`IfName::of_endpoint`] makes of the address.
#[must_use]
pub fn port_name(remote: IpAddr) -> IfName {
    IfName::of_endpoint("vxlan-", remote)
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

/// The tunnels from `local` to each of `remotes`, by port name, which `name` gives: repeated endpoints once, and none to
/// `local` itself.
///
/// # Errors
/// Names the endpoints that cannot be joined or told apart.
pub fn tunnels(
    name: fn(IpAddr) -> IfName,
    local: IpAddr,
    remotes: impl IntoIterator<Item = IpAddr>,
) -> Result<Vec<TunnelSpec>, BadTunnels> {
    let mut by_name: BTreeMap<IfName, IpAddr> = BTreeMap::new();
    for remote in remotes.into_iter().filter(|remote| *remote != local) {
        if remote.is_ipv4() != local.is_ipv4() {
            return Err(BadTunnels::Families { local, remote });
        }
        let port = name(remote);
        match by_name.insert(port.clone(), remote) {
            Some(other) if other != remote => return Err(BadTunnels::SameName { port, one: other, other: remote }),
            Some(_) | None => {}
        }
    }
    Ok(by_name.into_iter().map(|(port, remote)| TunnelSpec { port, local, remote }).collect())
}

/// The name of a network's device: `vx-` and its VNI, at most eleven letters.
#[must_use]
pub fn device_name(vni: Vni) -> IfName {
    IfName::new(format!("vx-{vni}")).unwrap_or_else(|bad| unreachable!("a VNI has at most eight digits: {bad}"))
}

/// A network's VXLAN device as wanted. What is not said here is the same for all: it learns nothing, its entries being
/// populated; what it sends has a UDP checksum and may not be fragmented, as what the switch sends itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceSpec {
    /// The network's VNI.
    pub vni: Vni,
    /// This node's endpoint.
    pub local: IpAddr,
    /// The UDP port of both ends.
    pub udp_port: u16,
}

/// A forwarding entry of a device: behind which node a station is; or, for [`Mac::ZERO`], a node that gets what is for
/// groups and for stations without an entry (`vxlan_xmit()`, `drivers/net/vxlan/vxlan_core.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FdbEntry {
    /// The station.
    pub mac: Mac,
    /// The node's endpoint.
    pub remote: IpAddr,
}

impl FdbEntry {
    /// A flood's entry.
    #[must_use]
    pub const fn flood(remote: IpAddr) -> Self {
        Self { mac: Mac::ZERO, remote }
    }

    /// Whether it is a flood's: of those there may be many.
    #[must_use]
    pub fn is_flood(&self) -> bool {
        self.mac == Mac::ZERO
    }
}

impl fmt::Display for FdbEntry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_flood() {
            write!(out, "flood to {}", self.remote)
        } else {
            write!(out, "{} to {}", self.mac, self.remote)
        }
    }
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
    fn devices_are_named_by_their_network() {
        let name = |vni| device_name(Vni::new(vni).expect("a VNI"));
        assert_eq!((name(1).as_str(), name(0xff_ffff).as_str()), ("vx-1", "vx-16777215"));
    }

    #[test]
    fn one_tunnel_an_endpoint_and_none_to_oneself() {
        let found = tunnels(port_name, ip("10.0.0.1"), ["10.0.0.3", "10.0.0.1", "10.0.0.2", "10.0.0.3"].map(ip))
            .expect("joinable");
        let remotes: Vec<String> = found.iter().map(|tunnel| tunnel.remote.to_string()).collect();
        assert_eq!(remotes, ["10.0.0.2", "10.0.0.3"]);
        assert!(matches!(tunnels(port_name, ip("10.0.0.1"), [ip("::1")]), Err(BadTunnels::Families { .. })));
    }
}
