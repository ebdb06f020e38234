//! Echo requests whose payload says who sent them to whom: octets only, no socket.

use core::net::IpAddr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, IntoBytes};

use crate::wire::icmp::{self, Echo, Header};
use crate::wire::{checksum, ipv4};

/// Begins every payload, so that others' echoes are not taken for ours.
const MAGIC: [u8; 8] = *b"dvr-echo";
/// Octets of the payload: as many as ping(8) sends.
const PAYLOAD_LEN: usize = 56;

/// What a payload says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Nonce {
    /// Which run of the pinger: echoes of another are nobody's business.
    pub run: u64,
    /// Which probe of the run.
    pub probe: u32,
    /// Which attempt of the probe, from 0.
    pub attempt: u32,
}

/// What a raw ICMP socket received of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Heard {
    /// Whether it is a request, else a reply.
    pub request: bool,
    /// What it says.
    pub nonce: Nonce,
    /// Hops it had left, where the octets say so (IPv4).
    pub ttl: Option<u8>,
}

/// An echo request to `target`: ICMP header and payload, what a raw socket takes. The kernel adds ICMPv6's checksum.
#[must_use]
pub(super) fn request(target: IpAddr, nonce: Nonce) -> Vec<u8> {
    let kind = if target.is_ipv4() { icmp::V4_ECHO_REQUEST } else { icmp::V6_ECHO_REQUEST };
    let header = Header { kind, code: 0, checksum: U16::ZERO };
    let [_, _, high, low] = nonce.probe.to_be_bytes();
    let [_, _, upper, lower] = nonce.attempt.to_be_bytes();
    let echo = Echo { identifier: U16::from_bytes([high, low]), sequence: U16::from_bytes([upper, lower]) };
    let mut octets = Vec::with_capacity(8 + PAYLOAD_LEN);
    octets.extend_from_slice(header.as_bytes());
    octets.extend_from_slice(echo.as_bytes());
    octets.extend_from_slice(&MAGIC);
    octets.extend_from_slice(&nonce.run.to_be_bytes());
    octets.extend_from_slice(&nonce.probe.to_be_bytes());
    octets.extend_from_slice(&nonce.attempt.to_be_bytes());
    octets.resize(8 + PAYLOAD_LEN, 0);
    if target.is_ipv4() {
        let sum = checksum::of(&octets);
        octets[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    octets
}

/// What a raw socket of IPv4 (which gives the IP header too) or IPv6 (which does not) received; `None` if it is not ours.
#[must_use]
pub(super) fn heard(v4: bool, octets: &[u8]) -> Option<Heard> {
    let (message, ttl) = if v4 {
        let (header, _) = ipv4::Header::ref_from_prefix(octets).ok()?;
        (octets.get(usize::from(header.version_ihl & 0xf) * 4..)?, Some(header.ttl))
    } else {
        (octets, None)
    };
    let (header, rest) = Header::ref_from_prefix(message).ok()?;
    let (_, payload) = Echo::ref_from_prefix(rest).ok()?;
    let request = match (v4, header.kind) {
        (true, icmp::V4_ECHO_REQUEST) | (false, icmp::V6_ECHO_REQUEST) => true,
        (true, icmp::V4_ECHO_REPLY) | (false, icmp::V6_ECHO_REPLY) => false,
        _ => return None,
    };
    let fields = payload.strip_prefix(&MAGIC)?;
    let (run, fields) = fields.split_first_chunk::<8>()?;
    let (probe, fields) = fields.split_first_chunk::<4>()?;
    let (attempt, _) = fields.split_first_chunk::<4>()?;
    let nonce = Nonce {
        run: u64::from_be_bytes(*run),
        probe: u32::from_be_bytes(*probe),
        attempt: u32::from_be_bytes(*attempt),
    };
    Some(Heard { request, nonce, ttl })
}

#[cfg(test)]
mod tests {
    use core::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    const NONCE: Nonce = Nonce { run: 0x0102_0304_0506_0708, probe: 70_000, attempt: 3 };

    fn with_header(message: &[u8], ttl: u8) -> Vec<u8> {
        let mut octets = vec![0; 20];
        octets[0] = 0x45;
        octets[8] = ttl;
        octets.extend_from_slice(message);
        octets
    }

    #[test]
    fn what_is_sent_is_heard() {
        let sent = request(Ipv4Addr::LOCALHOST.into(), NONCE);
        assert_eq!(checksum::of(&sent), 0, "a message with its checksum sums to nothing");
        assert_eq!(heard(true, &with_header(&sent, 63)), Some(Heard { request: true, nonce: NONCE, ttl: Some(63) }));
        let sent = request(Ipv6Addr::LOCALHOST.into(), NONCE);
        assert_eq!(heard(false, &sent), Some(Heard { request: true, nonce: NONCE, ttl: None }));
    }

    #[test]
    fn a_reply_is_told_from_a_request() {
        let mut reply = request(Ipv6Addr::LOCALHOST.into(), NONCE);
        reply[0] = icmp::V6_ECHO_REPLY;
        assert_eq!(heard(false, &reply), Some(Heard { request: false, nonce: NONCE, ttl: None }));
        let unreachable = [3, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(heard(true, &with_header(&unreachable, 64)), None);
    }

    proptest! {
        #[test]
        fn noise_is_never_ours(octets in proptest::collection::vec(any::<u8>(), 0..120), v4 in any::<bool>()) {
            prop_assert_eq!(heard(v4, &octets), None);
        }
    }
}
