//! Which addresses a host may bear, and which of a subnet are free.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Prefixes no host here may have an address in (RFC 6890 and its registries), with what they are.
const SPECIAL: [(IpNet, &str); 8] = [
    (v4([0, 0, 0, 0], 8), "\"this network\" (0.0.0.0/8)"),
    (v4([127, 0, 0, 0], 8), "loopback (127.0.0.0/8)"),
    (v4([169, 254, 0, 0], 16), "link-local (169.254.0.0/16)"),
    (v4([224, 0, 0, 0], 4), "multicast (224.0.0.0/4)"),
    (v4([240, 0, 0, 0], 4), "reserved space (240.0.0.0/4)"),
    // Unspecified, loopback, IPv4-mapped and IPv4-compatible addresses.
    (v6([0, 0, 0, 0, 0, 0, 0, 0], 8), "reserved space (::/8, IPv4-mapped addresses among it)"),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10), "link-local (fe80::/10)"),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0], 8), "multicast (ff00::/8)"),
];

const fn v4(octets: [u8; 4], len: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::from_octets(octets), len))
}

const fn v6(s: [u16; 8], len: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]), len))
}

/// What makes an address one that no host may bear.
pub(super) fn special(address: IpAddr) -> Option<&'static str> {
    SPECIAL.iter().find(|(net, _)| net.contains(&address)).map(|(_, words)| *words)
}

/// What a prefix has in common with addresses no host may bear.
pub(super) fn special_net(net: IpNet) -> Option<&'static str> {
    SPECIAL.iter().find(|(special, _)| overlap(*special, net)).map(|(_, words)| *words)
}

/// Whether two prefixes share an address.
pub(super) fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Prefix lengths a subnet of the family may have: room for a gateway and another host.
pub(super) fn lengths(net: IpNet) -> RangeInclusive<u8> {
    match net {
        IpNet::V4(_) => 8..=30,
        IpNet::V6(_) => 8..=126,
    }
}

/// Whether two addresses are of one family.
pub(super) fn same_family(net: IpNet, address: IpAddr) -> bool {
    net.addr().is_ipv4() == address.is_ipv4()
}

/// The first and last host address: without network and broadcast (RFC 919 §7) or subnet-router anycast
/// (RFC 4291 §2.6.1).
fn hosts(net: IpNet) -> (u128, u128) {
    match net {
        IpNet::V4(net) => (u128::from(net.network().to_bits()) + 1, u128::from(net.broadcast().to_bits()) - 1),
        IpNet::V6(net) => (net.network().to_bits() + 1, net.broadcast().to_bits()),
    }
}

/// Why an address inside the prefix is not a host's.
pub(super) fn edge(net: IpNet, address: IpAddr) -> Option<&'static str> {
    let number = number(address);
    let (first, last) = hosts(net);
    if number < first {
        Some(if net.addr().is_ipv4() { "network" } else { "subnet-router anycast" })
    } else if number > last {
        Some("broadcast")
    } else {
        None
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The first host address.
pub(super) fn first_host(net: IpNet) -> IpAddr {
    of_family(net, hosts(net).0)
}

fn of_family(net: IpNet, number: u128) -> IpAddr {
    match net {
        IpNet::V4(_) => match u32::try_from(number) {
            Ok(bits) => IpAddr::V4(Ipv4Addr::from_bits(bits)),
            Err(_) => unreachable!("host addresses of an IPv4 prefix have 32 bits"),
        },
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

/// The first and last host address, as addresses.
pub(super) fn host_range(net: IpNet) -> (IpAddr, IpAddr) {
    let (first, last) = hosts(net);
    (of_family(net, first), of_family(net, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a legal prefix")
    }

    #[test]
    fn edges_are_told() {
        let v4 = net("10.0.0.0/30");
        let edges: Vec<_> = (0..4).map(|low| edge(v4, IpAddr::from([10, 0, 0, low]))).collect();
        assert_eq!(edges, [Some("network"), None, None, Some("broadcast")]);
        assert_eq!(edge(net("fd00::/126"), "fd00::".parse().expect("legal")), Some("subnet-router anycast"));
        assert_eq!(edge(net("fd00::/126"), "fd00::3".parse().expect("legal")), None);
    }
}
