//! What a flow has the switch answer by itself: the `userdata` of a `controller` action that is for the switch, and for
//! nobody who follows it. To any other switch it is a note to a controller like any.

use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv6Net;

use crate::types::Mac;

/// Begins a [`Lease`].
const LEASE: &[u8; 4] = b"DHCP";
/// Begins an [`Advertisement`].
const ADVERTISEMENT: &[u8; 4] = b"ND-R";

/// The most prefixes an [`Advertisement`] tells of: they fit the least MTU that IPv6 has (RFC 8200 §5).
pub const PREFIXES_MAX: usize = 32;

/// An answer that goes out by the port the question came in by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To a machine that asks for its address by DHCP.
    Lease(Lease),
    /// To a machine that solicits routers.
    Advertisement(Advertisement),
}

/// The address of a machine, as DHCP gives it (RFC 2131): always the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Who answers: the subnet's gateway.
    pub server: Ipv4Addr,
    /// Its MAC.
    pub server_mac: Mac,
    /// The machine's address.
    pub address: Ipv4Addr,
    /// Its subnet's prefix length.
    pub prefix_len: u8,
    /// Whether the gateway is a router, and not just an address nobody bears.
    pub routes: bool,
    /// The network's MTU.
    pub mtu: u16,
    /// How long the address may be used without asking again, in seconds.
    pub seconds: u32,
}

/// What a router says of its link (RFC 4861 §4.2): the MTU, and which prefixes are on it. It is nobody's default router by
/// this, for nobody says it again in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    /// The router's MAC.
    pub router: Mac,
    /// The network's MTU.
    pub mtu: u16,
    /// The prefixes, [`PREFIXES_MAX`] at most.
    pub prefixes: Vec<Ipv6Net>,
}

impl Answer {
    /// As `userdata` has it.
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        match self {
            Self::Lease(Lease { server, server_mac, address, prefix_len, routes, mtu, seconds }) => [
                &LEASE[..],
                &server.octets(),
                &server_mac.octets(),
                &address.octets(),
                &[*prefix_len, u8::from(*routes)],
                &mtu.to_be_bytes(),
                &seconds.to_be_bytes(),
            ]
            .concat(),
            Self::Advertisement(Advertisement { router, mtu, prefixes }) => {
                let mut octets = [&ADVERTISEMENT[..], &router.octets(), &mtu.to_be_bytes()].concat();
                for prefix in prefixes {
                    octets.push(prefix.prefix_len());
                    octets.extend(prefix.addr().octets());
                }
                octets
            }
        }
    }

    /// What `userdata` says; `None` if it is for somebody else.
    #[must_use]
    pub fn read(octets: &[u8]) -> Option<Self> {
        let (kind, rest) = octets.split_first_chunk::<4>()?;
        match kind {
            LEASE => Lease::read(rest).map(Self::Lease),
            ADVERTISEMENT => Advertisement::read(rest).map(Self::Advertisement),
            _ => None,
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lease(Lease { server, address, prefix_len, mtu, seconds, .. }) => {
                write!(out, "DHCP: {address}/{prefix_len} for {seconds} s, MTU {mtu}, from {server}")
            }
            Self::Advertisement(Advertisement { router, mtu, prefixes }) => {
                write!(out, "router advertisement: MTU {mtu}")?;
                prefixes.iter().try_for_each(|prefix| write!(out, ", {prefix}"))?;
                write!(out, ", from {}", router.link_local())
            }
        }
    }
}

impl Lease {
    fn read(octets: &[u8]) -> Option<Self> {
        let (server, rest) = octets.split_first_chunk::<4>()?;
        let (server_mac, rest) = rest.split_first_chunk::<6>()?;
        let (address, rest) = rest.split_first_chunk::<4>()?;
        let [prefix_len @ 0..=32, routes @ 0..=1, m1, m2, ref seconds @ ..] = *rest else { return None };
        Some(Self {
            server: Ipv4Addr::from_octets(*server),
            server_mac: Mac::new(*server_mac),
            address: Ipv4Addr::from_octets(*address),
            prefix_len,
            routes: routes == 1,
            mtu: u16::from_be_bytes([m1, m2]),
            seconds: u32::from_be_bytes(seconds.try_into().ok()?),
        })
    }
}

impl Advertisement {
    fn read(octets: &[u8]) -> Option<Self> {
        let (router, rest) = octets.split_first_chunk::<6>()?;
        let (mtu, rest) = rest.split_first_chunk::<2>()?;
        let (prefixes, []) = rest.as_chunks::<17>() else { return None };
        if prefixes.len() > PREFIXES_MAX {
            return None;
        }
        let prefix = |[length, address @ ..]: &[u8; 17]| Ipv6Net::new(Ipv6Addr::from_octets(*address), *length).ok();
        let prefixes = prefixes.iter().map(prefix).collect::<Option<_>>()?;
        Some(Self { router: Mac::new(*router), mtu: u16::from_be_bytes(*mtu), prefixes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_and_nothing_else_does() {
        let mac = Mac::new([2, 0, 0, 0, 0, 1]);
        let lease = Lease {
            server: Ipv4Addr::new(10, 1, 0, 1),
            server_mac: mac,
            address: Ipv4Addr::new(10, 1, 0, 2),
            prefix_len: 24,
            routes: true,
            mtu: 1450,
            seconds: 3600,
        };
        let prefixes = ["fd00:1::/64", "fd00:2::/64"].map(|text| text.parse().expect("legal")).to_vec();
        for answer in [
            Answer::Lease(lease),
            Answer::Lease(Lease { routes: false, prefix_len: 0, ..lease }),
            Answer::Advertisement(Advertisement { router: mac, mtu: 1430, prefixes: prefixes.clone() }),
            Answer::Advertisement(Advertisement { router: mac, mtu: 1430, prefixes: Vec::new() }),
        ] {
            let octets = answer.octets();
            assert_eq!(Answer::read(&octets), Some(answer.clone()));
            let longer = [&octets[..], &[0]].concat();
            for other in [&octets[..octets.len() - 1], &longer, &octets[1..]] {
                assert_eq!(Answer::read(other), None, "{answer:?}");
            }
        }
        let mut octets = Answer::Lease(lease).octets();
        octets[18] = 33;
        assert_eq!(Answer::read(&octets), None, "a prefix of 33 bits");
        let many = |count: usize| {
            let prefixes = vec![prefixes[0]; count];
            Answer::read(&Answer::Advertisement(Advertisement { router: mac, mtu: 1430, prefixes }).octets())
        };
        assert!(many(PREFIXES_MAX).is_some() && many(PREFIXES_MAX + 1).is_none());
    }
}
