//! What a packet must be to go past routers: whatever one would answer, refuse or change in another way than the rest must
//! go through its namespace.

use super::extract::Layout;
use super::packet::{Packet, SegmentKind};
use crate::wire::{checksum, ethernet, ipv4, ipv6, tcp, udp};

/// A condition that packets of a cache entry meet, or the entry is not for them.
///
/// They are IPv4 without options and with a right header checksum, or IPv6 with neither hop-by-hop options nor a routing
/// header right behind its own; nothing follows what their IP length says; and they are no longer than `mtu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Guard {
    /// Octets of the greatest IP packet, headers included; of a super-frame, of its segments.
    pub(crate) mtu: u32,
}

impl Guard {
    /// Both at once.
    pub(crate) fn and(self, other: Option<Self>) -> Self {
        Self { mtu: other.map_or(self.mtu, |other| self.mtu.min(other.mtu)) }
    }

    /// Whether a packet meets it.
    pub(crate) fn admits(self, packet: &Packet<'_>, layout: Layout) -> bool {
        let at = usize::from(layout.network);
        let Some(ip) = packet.head().get(at..).filter(|_| at >= ethernet::HEADER_LEN) else { return false };
        let length = packet.len() - at;
        let told = match (u16::from_be_bytes([packet.head()[at - 2], packet.head()[at - 1]]), ip) {
            (ethernet::TYPE_IPV4, [0x45, _, high, low, ..]) if ip.len() >= ipv4::HEADER_LEN => {
                if checksum::of(&ip[..ipv4::HEADER_LEN]) != 0 {
                    return false;
                }
                usize::from(u16::from_be_bytes([*high, *low]))
            }
            (ethernet::TYPE_IPV6, [0x60..=0x6f, _, _, _, high, low, next, ..]) if ip.len() >= ipv6::HEADER_LEN => {
                if matches!(*next, ipv6::NEXT_HOP_BY_HOP | ipv6::NEXT_ROUTING) {
                    return false;
                }
                ipv6::HEADER_LEN + usize::from(u16::from_be_bytes([*high, *low]))
            }
            _ => return false,
        };
        let longest = match packet.offload.segmentation {
            None => Some(length),
            Some(cut) => headers(packet, layout, cut.kind).map(|headers| headers + usize::from(cut.size)),
        };
        told == length && longest.is_some_and(|longest| longest <= self.mtu as usize)
    }
}

/// Octets of the headers of each segment, from the IP header on.
fn headers(packet: &Packet<'_>, layout: Layout, kind: SegmentKind) -> Option<usize> {
    let at = usize::from(layout.transport);
    let own = match kind {
        SegmentKind::TcpV4 | SegmentKind::TcpV6 => {
            let offset = packet.head().get(at + core::mem::offset_of!(tcp::Header, offset_reserved))?;
            usize::from(offset >> 4) * 4
        }
        SegmentKind::Udp => udp::HEADER_LEN,
    };
    (at != 0).then(|| at - usize::from(layout.network) + own)
}
