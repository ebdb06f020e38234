//! ARP for IPv4 over Ethernet (RFC 826).

use core::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::types::Mac;

/// Operation of a request.
pub const REQUEST: u16 = 1;
/// Operation of a reply.
pub const REPLY: u16 = 2;

/// The packet: 28 octets behind the Ethernet header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Packet {
    /// Hardware type: 1 for Ethernet.
    pub hardware: U16,
    /// Protocol type: [`super::ethernet::TYPE_IPV4`].
    pub protocol: U16,
    /// Octets of a hardware address: 6.
    pub hardware_len: u8,
    /// Octets of a protocol address: 4.
    pub protocol_len: u8,
    /// [`REQUEST`] or [`REPLY`].
    pub operation: U16,
    /// Sender's hardware address.
    pub sender_mac: [u8; 6],
    /// Sender's protocol address.
    pub sender_ip: [u8; 4],
    /// Target's hardware address.
    pub target_mac: [u8; 6],
    /// Target's protocol address.
    pub target_ip: [u8; 4],
}

impl Packet {
    /// A packet of this operation from one station to another.
    #[must_use]
    pub fn new(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Self {
        Self {
            hardware: 1.into(),
            protocol: super::ethernet::TYPE_IPV4.into(),
            hardware_len: 6,
            protocol_len: 4,
            operation: operation.into(),
            sender_mac: sender.0.octets(),
            sender_ip: sender.1.octets(),
            target_mac: target.0.octets(),
            target_ip: target.1.octets(),
        }
    }

    /// Whether the four fixed fields say IPv4 over Ethernet.
    #[must_use]
    pub fn is_ipv4_over_ethernet(&self) -> bool {
        self.hardware.get() == 1
            && self.protocol.get() == super::ethernet::TYPE_IPV4
            && self.hardware_len == 6
            && self.protocol_len == 4
    }
}
