//! What a packet must be for a field to exist in it.

use crate::datapath::key::{self, Key, Mask};
use crate::wire::{ethernet, ipv4, nd};

/// What a packet must be for a field to exist in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    Vlan,
    Arp,
    Ipv4,
    Ipv6,
    Ip,
    Tcp,
    Udp,
    Sctp,
    Icmp4,
    Icmp6,
    Nd,
    NdSolicit,
    NdAdvert,
}

const fn proto(key: &Key) -> u128 {
    key.get(key::IP_PROTO)
}

/// Whether a packet is neighbour discovery of this type, whose code is always 0 (`is_nd()`).
const fn is_nd(key: &Key, kind: u8) -> bool {
    Needs::Icmp6.met_by(key) && key.get(key::TP_SRC) == kind as u128 && key.get(key::TP_DST) == 0
}

impl Needs {
    /// Whether packets with this `key` have it.
    pub(crate) const fn met_by(self, key: &Key) -> bool {
        let ether_type = key.get16(key::ETH_TYPE);
        let (v4, v6) = (ether_type == ethernet::TYPE_IPV4, ether_type == ethernet::TYPE_IPV6);
        let first = key.get(key::IP_FRAG) & key::FRAG_LATER == 0;
        match self {
            Self::Nothing => true,
            Self::Vlan => key.is_tagged(),
            Self::Arp => ether_type == ethernet::TYPE_ARP || ether_type == ethernet::TYPE_RARP,
            Self::Ipv4 => v4,
            Self::Ipv6 => v6,
            Self::Ip => v4 || v6,
            Self::Tcp => (v4 || v6) && first && proto(key) == ipv4::PROTOCOL_TCP as u128,
            Self::Udp => (v4 || v6) && first && proto(key) == ipv4::PROTOCOL_UDP as u128,
            Self::Sctp => (v4 || v6) && first && proto(key) == ipv4::PROTOCOL_SCTP as u128,
            Self::Icmp4 => v4 && first && proto(key) == ipv4::PROTOCOL_ICMP as u128,
            Self::Icmp6 => v6 && first && proto(key) == ipv4::PROTOCOL_ICMPV6 as u128,
            Self::Nd => Self::NdSolicit.met_by(key) || Self::NdAdvert.met_by(key),
            Self::NdSolicit => is_nd(key, nd::NEIGHBOUR_SOLICITATION),
            Self::NdAdvert => is_nd(key, nd::NEIGHBOUR_ADVERTISEMENT),
        }
    }

    /// Whether every packet that `value` and `mask` match has it.
    pub(crate) const fn ensured_by(self, value: &Key, mask: &Mask) -> bool {
        let typed = mask.get(key::ETH_TYPE) == 0xffff;
        let with_proto = typed && mask.get(key::IP_PROTO) == 0xff;
        let icmp = with_proto && mask.get(key::TP_SRC) & 0xff == 0xff;
        self.met_by(value)
            && match self {
                Self::Nothing | Self::Vlan => true,
                Self::Arp | Self::Ipv4 | Self::Ipv6 | Self::Ip => typed,
                Self::Tcp | Self::Udp | Self::Sctp | Self::Icmp4 | Self::Icmp6 => with_proto,
                Self::Nd | Self::NdSolicit | Self::NdAdvert => icmp,
            }
    }

    /// Marks in `mask` the bits that [`Needs::met_by`] looks at.
    pub(crate) fn unwildcard(self, mask: &mut Mask) {
        match self {
            Self::Nothing => {}
            Self::Vlan => mask.raise(key::VLAN_TCI, key::TCI_PRESENT.into()),
            Self::Arp | Self::Ipv4 | Self::Ipv6 | Self::Ip => mask.raise_all(key::ETH_TYPE),
            Self::Tcp | Self::Udp | Self::Sctp | Self::Icmp4 | Self::Icmp6 => {
                mask.raise_all(key::ETH_TYPE);
                mask.raise_all(key::IP_PROTO);
                mask.raise_all(key::IP_FRAG);
            }
            Self::Nd | Self::NdSolicit | Self::NdAdvert => {
                Self::Icmp6.unwildcard(mask);
                mask.raise_all(key::TP_SRC);
                mask.raise_all(key::TP_DST);
            }
        }
    }

    /// What to say is missing.
    pub(crate) const fn describe(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Vlan => "a VLAN tag",
            Self::Arp => "arp",
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ipv6",
            Self::Ip => "ip or ipv6",
            Self::Tcp => "tcp or tcp6",
            Self::Udp => "udp or udp6",
            Self::Sctp => "sctp or sctp6",
            Self::Icmp4 => "icmp",
            Self::Icmp6 => "icmp6",
            Self::Nd => "icmp6 with icmp_type=135 or 136",
            Self::NdSolicit => "icmp6 with icmp_type=135",
            Self::NdAdvert => "icmp6 with icmp_type=136",
        }
    }
}
