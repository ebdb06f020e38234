//! A masked match, and what OpenFlow calls normal: no bits for fields the packets cannot have.

use super::field::{Field, Info, Needs};
use super::key::{self, Bits, Key, Mask, Place};
use crate::wire::{ethernet, ipv4, nd};

/// The priority of a flow that names none (`OFP_DEFAULT_PRIORITY`).
pub(crate) const DEFAULT_PRIORITY: u16 = 0x8000;

/// Which packets a flow is for: those that agree with `value` where `mask` has ones.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Match {
    pub(crate) value: Key,
    pub(crate) mask: Mask,
}

impl Match {
    /// Every packet.
    pub(crate) const ANY: Self = Self { value: Bits::ZERO, mask: Bits::ZERO };

    /// Also demands these bits of a place.
    pub(crate) fn demand(&mut self, place: Place, value: u128, mask: u128) {
        self.value.set_masked(place, value & mask, mask);
        self.mask.raise(place, mask);
    }

    /// Also demands that `field` is `value` where `mask` has ones, as a match in text means it.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all but tags mean just their bits")]
    pub(crate) fn demand_field(&mut self, info: &Info, value: u128, mask: u128) {
        match info.field {
            // 0xffff stands for "no tag" (OFP_VLAN_NONE); any other id for a tag with it.
            Field::DlVlan if value == 0xffff => self.demand(key::VLAN_TCI, 0, 0xffff),
            Field::DlVlan => {
                self.demand(info.place, value & 0xfff | u128::from(key::TCI_PRESENT), 0x1fff);
            }
            Field::DlVlanPcp | Field::VlanPcp => {
                self.demand(key::VLAN_TCI, u128::from(key::TCI_PRESENT), u128::from(key::TCI_PRESENT));
                self.demand(info.place, value, info.place.ones());
            }
            _ => self.demand(info.place, value, mask & info.exact()),
        }
    }

    /// Whether `key` is for it.
    pub(crate) fn covers(&self, key: &Key) -> bool {
        self.value.agrees(key, &self.mask)
    }

    /// Whether some packet is matched by both.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let both = self.mask.masked(&other.mask);
        self.value.agrees(&other.value, &both)
    }

    fn forget(&mut self, place: Place) {
        self.value.set(place, 0);
        self.mask.set(place, 0);
    }

    /// Drops demands on fields that the match does not ensure to exist, as `ofputil_normalize_match()` does: a
    /// switch would ignore them. Returns whether there were any.
    pub(crate) fn normalise(&mut self) -> bool {
        let before = self.mask.clone();
        let typed = if self.mask.get(key::ETH_TYPE) == 0xffff { self.value.get16(key::ETH_TYPE) } else { 0 };
        let (v4, v6) = (typed == ethernet::TYPE_IPV4, typed == ethernet::TYPE_IPV6);
        let arp = Needs::Arp.ensured_by(&self.value, &self.mask);
        if !(v4 || v6 || arp) {
            self.forget(key::IP_PROTO);
        }
        let proto =
            if self.mask.get(key::IP_PROTO) == 0xff { self.value.get(key::IP_PROTO).to_be_bytes()[15] } else { 0 };
        let ported = match proto {
            ipv4::PROTOCOL_TCP | ipv4::PROTOCOL_UDP | ipv4::PROTOCOL_SCTP => v4 || v6,
            ipv4::PROTOCOL_ICMP => v4,
            ipv4::PROTOCOL_ICMPV6 => v6,
            _ => false,
        };
        if !(v4 || arp) {
            self.forget(key::IPV4_SRC);
            self.forget(key::IPV4_DST);
        }
        if !(v4 || v6) {
            self.forget(key::IP_TOS);
            self.forget(key::IP_TTL);
            self.forget(key::IP_FRAG);
        }
        if !v6 {
            self.forget(key::IPV6_SRC);
            self.forget(key::IPV6_DST);
            self.forget(key::IPV6_LABEL);
        }
        if !ported {
            self.forget(key::TP_SRC);
            self.forget(key::TP_DST);
        }
        if proto != ipv4::PROTOCOL_TCP || !ported {
            self.forget(key::TCP_FLAGS);
        }
        self.normalise_neighbour(v6 && proto == ipv4::PROTOCOL_ICMPV6, arp);
        self.mask != before
    }

    fn normalise_neighbour(&mut self, icmp6: bool, arp: bool) {
        let kind = self.value.get(key::TP_SRC);
        let is = |wanted: u8| icmp6 && self.mask.get(key::TP_SRC) & 0xff == 0xff && kind == u128::from(wanted);
        let (solicit, advert) = (is(nd::NEIGHBOUR_SOLICITATION), is(nd::NEIGHBOUR_ADVERTISEMENT));
        if !(solicit || advert) {
            self.forget(key::ND_TARGET);
            self.forget(key::ND_RESERVED);
            self.forget(key::ND_OPTION);
        }
        if !(arp || solicit) {
            self.forget(key::ARP_SHA);
        }
        if !(arp || advert) {
            self.forget(key::ARP_THA);
        }
    }
}
