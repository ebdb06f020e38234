//! What lies in the maps that switch and programs share, octet by octet.
//!
//! ```text
//! CHOSEN  6 × 8     by kind of frame: which mask counts, a number that the kernel's program reads at once
//! MASKS   6·64 × 64 by kind and that number: which octets of a frame count
//! FLOWS   64 → 48   a frame's first octets where its mask has ones, to what becomes of it
//! HIT     40        of each processor: what the socket's program found last, for the ingress program after it
//! ```
//! A key is a frame's first octets as they came, so that nothing is parsed twice: Ethernet, IPv4 without options or IPv6
//! without extension headers, and the four octets behind that are ports or type and code. Where no flow of its kind in the
//! kernel looks, the mask has zeroes, and one entry stands for many frames.

use crate::types::Mac;
use crate::wire::ipv4;

/// Octets of a key.
pub const KEY_LEN: usize = 64;
/// Octets of a frame that a key can hold: Ethernet, IPv6, ports.
pub const FRAME_LEN: usize = 58;
/// Where a key has the number of its kind and mask.
pub(super) const KEY_MASK: usize = 58;
/// Where a key has the index of the interface that the frame came by.
pub(super) const KEY_IFINDEX: usize = 60;

/// Masks of one kind that are told apart. The program reads a mask's number and then the mask; a number is used again
/// after so many others.
pub(super) const MASK_SLOTS: u32 = 64;

/// Where the fields are that the program looks at.
pub mod at {
    /// The Ethernet type.
    pub const ETHER_TYPE: usize = 12;
    /// The first octet of the network header.
    pub const NETWORK: usize = 14;
    /// The IPv4 total length.
    pub const IPV4_TOTAL: usize = 16;
    /// IPv4 flags and fragment offset.
    pub const IPV4_FRAGMENT: usize = 20;
    /// The IPv4 time to live.
    pub const IPV4_TTL: usize = 22;
    /// The IPv4 protocol.
    pub const IPV4_PROTOCOL: usize = 23;
    /// The IPv4 header's checksum.
    pub const IPV4_CHECKSUM: usize = 24;
    /// The IPv4 source address.
    pub const IPV4_SOURCE: usize = 26;
    /// The IPv4 destination address.
    pub const IPV4_DESTINATION: usize = 30;
    /// The transport header behind IPv4.
    pub const IPV4_TRANSPORT: usize = 34;
    /// The IPv6 payload length.
    pub const IPV6_PAYLOAD: usize = 18;
    /// The IPv6 next header.
    pub const IPV6_NEXT: usize = 20;
    /// The IPv6 hop limit.
    pub const IPV6_HOPS: usize = 21;
    /// The IPv6 source address.
    pub const IPV6_SOURCE: usize = 22;
    /// The IPv6 destination address.
    pub const IPV6_DESTINATION: usize = 38;
    /// The transport header behind IPv6.
    pub const IPV6_TRANSPORT: usize = 54;
}

/// Which kind of frame a key is of. Each kind has a mask of its own: where flows of one look, they do not tell frames of
/// another apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// TCP over IPv4.
    Tcp4 = 0,
    /// UDP over IPv4.
    Udp4 = 1,
    /// ICMP.
    Icmp4 = 2,
    /// TCP over IPv6.
    Tcp6 = 3,
    /// UDP over IPv6.
    Udp6 = 4,
    /// ICMPv6.
    Icmp6 = 5,
}

impl Kind {
    /// All of them, each at the place of its number.
    pub const ALL: [Self; 6] = [Self::Tcp4, Self::Udp4, Self::Icmp4, Self::Tcp6, Self::Udp6, Self::Icmp6];

    /// Whether it is of IPv6.
    #[must_use]
    pub const fn is_v6(self) -> bool {
        matches!(self, Self::Tcp6 | Self::Udp6 | Self::Icmp6)
    }

    /// The number of its protocol in the IP header.
    #[must_use]
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Tcp4 | Self::Tcp6 => ipv4::PROTOCOL_TCP,
            Self::Udp4 | Self::Udp6 => ipv4::PROTOCOL_UDP,
            Self::Icmp4 => ipv4::PROTOCOL_ICMP,
            Self::Icmp6 => ipv4::PROTOCOL_ICMPV6,
        }
    }

    /// The kind with this protocol; `None` if there is none.
    #[must_use]
    pub fn of(v6: bool, protocol: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| (kind.is_v6(), kind.protocol()) == (v6, protocol))
    }
}

/// A frame's first octets, or which of them count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Octets(pub [u8; FRAME_LEN]);

impl Octets {
    /// None.
    pub const ZERO: Self = Self([0; FRAME_LEN]);

    /// The first octets of a frame, with zeroes behind its end.
    #[must_use]
    pub fn of(frame: &[u8]) -> Self {
        let mut octets = [0; FRAME_LEN];
        let length = frame.len().min(FRAME_LEN);
        octets[..length].copy_from_slice(&frame[..length]);
        Self(octets)
    }

    /// Adds the ones of the lowest `bits` bits of `ones` from octet `at` on.
    pub fn raise(&mut self, at: usize, bits: usize, ones: u128) {
        let octets = ones.to_be_bytes();
        let length = bits.div_ceil(8);
        for (to, from) in self.0[at..at + length].iter_mut().zip(&octets[octets.len() - length..]) {
            *to |= from;
        }
    }

    /// The number that `bits` bits, 128 at most, from octet `at` on make: the lowest ones, if they are no whole octets.
    #[must_use]
    pub fn number(&self, at: usize, bits: usize) -> u128 {
        self.0[at..at + bits.div_ceil(8)].iter().fold(0, |number, octet| number << 8 | u128::from(*octet))
    }

    /// Adds the ones of `other`.
    pub fn union(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(to, from)| *to |= from);
    }

    /// Whether every bit of `other` is one of this.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).all(|(own, needed)| own & needed == *needed)
    }

    /// The key of frames that agree with this one where `mask` has ones: `number` is the mask's, `ifindex` where they come
    /// by.
    #[must_use]
    pub fn key(&self, mask: &Self, number: u16, ifindex: u32) -> [u8; KEY_LEN] {
        let mut key = [0; KEY_LEN];
        for (to, (own, ones)) in key.iter_mut().zip(self.0.iter().zip(&mask.0)) {
            *to = own & ones;
        }
        key[KEY_MASK..KEY_IFINDEX].copy_from_slice(&number.to_ne_bytes());
        key[KEY_IFINDEX..].copy_from_slice(&ifindex.to_ne_bytes());
        key
    }
}

/// What becomes of a frame: it is rewritten so, and leaves by an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewrite {
    /// The destination address it gets.
    pub destination: Option<Mac>,
    /// The source address it gets.
    pub source: Option<Mac>,
    /// The time to live it had, which its key says, and the one it gets.
    pub ttl: Option<(u8, u8)>,
}

/// The interface a frame leaves by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Its index.
    pub ifindex: u32,
    /// The most octets of a network packet that it takes; more is left to the switch.
    pub mtu: u32,
    /// Whether it is one end of a pair, and the frame is handed to the other end as if it had come out there.
    pub pair: bool,
    /// Whether a frame must be as a router takes it: nothing behind its packet, the checksum of an IPv4 header right.
    pub strict: bool,
}

/// Octets of what a key leads to.
pub const VALUE_LEN: usize = 48;
/// Its parts.
pub(super) mod value {
    pub(crate) const DESTINATION: usize = 0;
    pub(crate) const SOURCE: usize = 6;
    pub(crate) const FLAGS: usize = 12;
    pub(crate) const TTL: usize = 14;
    pub(crate) const IFINDEX: usize = 16;
    pub(crate) const MTU: usize = 20;
    /// The time to live before and after as the checksum sees them: with a zero in place of the protocol.
    pub(crate) const OLD_WORD: usize = 24;
    pub(crate) const NEW_WORD: usize = 26;
    /// What is not counted, and copied when it is found.
    pub(crate) const ACTION_LEN: usize = 32;
    pub(crate) const PACKETS: usize = 32;
    pub(crate) const BYTES: usize = 40;
}

/// What is to be done, in a value.
pub(super) mod flag {
    pub(crate) const DESTINATION: u16 = 1;
    pub(crate) const SOURCE: u16 = 2;
    pub(crate) const IPV4_TTL: u16 = 4;
    pub(crate) const IPV6_HOPS: u16 = 8;
    pub(crate) const PAIR: u16 = 16;
    pub(crate) const STRICT: u16 = 32;
}

/// Octets of what a processor found last: a number that grows, and the action.
pub const HIT_LEN: usize = 8 + value::ACTION_LEN;

/// The value for a new key.
#[must_use]
pub fn encode(kind: Kind, rewrite: &Rewrite, way: &Way) -> [u8; VALUE_LEN] {
    let mut octets = [0; VALUE_LEN];
    let mut put = |at: usize, part: &[u8]| octets[at..at + part.len()].copy_from_slice(part);
    let mut flags = 0;
    if let Some(mac) = rewrite.destination {
        flags |= flag::DESTINATION;
        put(value::DESTINATION, &mac.octets());
    }
    if let Some(mac) = rewrite.source {
        flags |= flag::SOURCE;
        put(value::SOURCE, &mac.octets());
    }
    if let Some((old, new)) = rewrite.ttl {
        flags |= if kind.is_v6() { flag::IPV6_HOPS } else { flag::IPV4_TTL };
        put(value::TTL, &[new]);
        put(value::OLD_WORD, &[old, 0]);
        put(value::NEW_WORD, &[new, 0]);
    }
    if way.pair {
        flags |= flag::PAIR;
    }
    if way.strict {
        flags |= flag::STRICT;
    }
    put(value::FLAGS, &flags.to_ne_bytes());
    put(value::IFINDEX, &way.ifindex.to_ne_bytes());
    put(value::MTU, &way.mtu.to_ne_bytes());
    octets
}

/// What a value counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Frames; a super-frame is one.
    pub packets: u64,
    /// Their octets, Ethernet headers among them.
    pub bytes: u64,
}

impl Count {
    /// What is counted in a value.
    #[must_use]
    pub fn of(octets: &[u8; VALUE_LEN]) -> Self {
        let number = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&octets[at..at + 8]);
            u64::from_ne_bytes(word)
        };
        Self { packets: number(value::PACKETS), bytes: number(value::BYTES) }
    }

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }

    /// What was counted since `before`.
    #[must_use]
    pub const fn since(self, before: Self) -> Self {
        Self { packets: self.packets.saturating_sub(before.packets), bytes: self.bytes.saturating_sub(before.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_are_raised_where_the_field_lies() {
        let mut mask = Octets::ZERO;
        mask.raise(at::IPV4_SOURCE, 32, 0xffff_ff00);
        mask.raise(0, 48, (1 << 48) - 1);
        assert_eq!(&mask.0[..7], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);
        assert_eq!(&mask.0[25..31], &[0, 0xff, 0xff, 0xff, 0, 0]);
    }

    #[test]
    fn a_key_has_what_the_mask_lets_through_and_where_it_came_by() {
        let frame = Octets::of(&(0..80).collect::<Vec<u8>>());
        let mut mask = Octets::ZERO;
        mask.raise(4, 16, 0xff0f);
        let key = frame.key(&mask, 0x0102, 7);
        assert_eq!(&key[..7], &[0, 0, 0, 0, 4, 5, 0]);
        assert_eq!(
            (&key[KEY_MASK..60], &key[KEY_IFINDEX..]),
            (&0x0102_u16.to_ne_bytes()[..], &7_u32.to_ne_bytes()[..])
        );
    }

    #[test]
    fn a_value_says_what_changes_and_counts_from_zero() {
        let rewrite = Rewrite { destination: None, source: Some(Mac::new([2, 0, 0, 0, 0, 9])), ttl: Some((64, 63)) };
        let octets = encode(Kind::Udp6, &rewrite, &Way { ifindex: 9, mtu: 1450, pair: true, strict: false });
        assert_eq!(octets[value::FLAGS..value::TTL], (flag::SOURCE | flag::IPV6_HOPS | flag::PAIR).to_ne_bytes());
        assert_eq!(octets[value::SOURCE..value::FLAGS], [2, 0, 0, 0, 0, 9]);
        assert_eq!((octets[value::TTL], octets[value::OLD_WORD]), (63, 64));
        assert_eq!(Count::of(&octets), Count::default());
    }
}
