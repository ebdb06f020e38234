//! A masked match, and what OpenFlow calls normal: no bits for fields the packets cannot have.

use std::sync::Arc;

use hashbrown::HashMap;

use super::field::{Field, Info, Needs};
use super::key::{self, Bits, Key, Mask, MaskShape, Place};
use crate::wire::{ethernet, ipv4, nd};

/// The priority of a flow that names none (`OFP_DEFAULT_PRIORITY`).
pub(crate) const DEFAULT_PRIORITY: u16 = 0x8000;

/// The VLAN's and the priority's bits of a tag.
const TCI_VID: u128 = 0x0fff;
const TCI_PCP: u128 = 0xe000;

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

    /// Demands of a field just this, as a word of a text does: what an earlier word said of its bits is forgotten, and
    /// without a mask nothing is demanded of them.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all but tags are just their bits")]
    pub(crate) fn set_field(&mut self, info: &Info, value: u128, mask: u128) {
        match info.field {
            Field::DlVlan | Field::VlanVid if mask == 0 => self.forget_of_tag(TCI_VID, TCI_PCP),
            Field::DlVlanPcp | Field::VlanPcp if mask == 0 => self.forget_of_tag(TCI_PCP, TCI_VID),
            // Either leaves the other, and that there is a tag.
            Field::DlVlan | Field::DlVlanPcp | Field::VlanPcp => self.demand_field(info, value, mask),
            _ => {
                self.forget_bits(info.place, info.exact());
                self.demand_field(info, value, mask);
            }
        }
    }

    /// Whether `key` is for it.
    #[cfg(test)]
    pub(crate) fn covers(&self, key: &Key) -> bool {
        self.value.agrees(key, &self.mask)
    }

    fn forget(&mut self, place: Place) {
        self.forget_bits(place, place.ones());
    }

    fn forget_bits(&mut self, place: Place, bits: u128) {
        self.value.set_masked(place, 0, bits);
        self.mask.set_masked(place, 0, bits);
    }

    /// Forgets `part` of the tag, and the tag with it unless `other` is demanded, which needs one.
    fn forget_of_tag(&mut self, part: u128, other: u128) {
        let rest = self.mask.get(key::VLAN_TCI) & other != 0;
        self.forget_bits(key::VLAN_TCI, if rest { part } else { key::VLAN_TCI.ones() });
    }

    /// The Ethernet type and the protocol that it demands; 0 for none.
    pub(crate) fn protocol(&self) -> (u16, u8) {
        let typed = if self.mask.get(key::ETH_TYPE) == 0xffff { self.value.get16(key::ETH_TYPE) } else { 0 };
        let proto =
            if self.mask.get(key::IP_PROTO) == 0xff { self.value.get(key::IP_PROTO).to_be_bytes()[15] } else { 0 };
        (typed, proto)
    }

    /// Drops demands on fields that the match does not ensure to exist, as `ofputil_normalize_match()` does: a
    /// switch would ignore them. Returns whether there were any.
    pub(crate) fn normalise(&mut self) -> bool {
        let before = self.mask.clone();
        let (typed, proto) = self.protocol();
        let (v4, v6) = (typed == ethernet::TYPE_IPV4, typed == ethernet::TYPE_IPV6);
        let arp = Needs::Arp.ensured_by(&self.value, &self.mask);
        if !(v4 || v6 || arp) {
            self.forget(key::IP_PROTO);
        }
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
        let neighbour = icmp6 && self.mask.get(key::TP_SRC) & 0xff == 0xff && self.value.get(key::TP_DST) == 0;
        let is = |wanted: u8| neighbour && kind == u128::from(wanted);
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

/// A match as a flow keeps it: a flow looks at three to six words of a key's thirty, and there may be a million flows.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    /// Which bits count: what all flows of one mask share once they are in a table.
    shape: Arc<MaskShape>,
    /// The values of those bits, which a table finds the flow by.
    words: Arc<[u64]>,
}

const _: () = assert!(size_of::<Kept>() == 24, "a match of three words");

impl Kept {
    /// What says the same as `matching`, alone.
    pub(crate) fn of(matching: &Match) -> Self {
        Self::among(&Arc::new(MaskShape::staged(&matching.mask)), &matching.value)
    }

    /// The match of these bits of `value`.
    pub(crate) fn among(shape: &Arc<MaskShape>, value: &Key) -> Self {
        Self { shape: Arc::clone(shape), words: shape.pick(value) }
    }

    /// The match of these bits, with these values.
    pub(crate) fn new(shape: &Arc<MaskShape>, words: &Arc<[u64]>) -> Self {
        Self { shape: Arc::clone(shape), words: Arc::clone(words) }
    }

    /// Which bits count.
    pub(crate) const fn shape(&self) -> &Arc<MaskShape> {
        &self.shape
    }

    /// The values of those bits.
    pub(crate) const fn picked(&self) -> &Arc<[u64]> {
        &self.words
    }

    /// The mask alone.
    pub(crate) fn mask(&self) -> Mask {
        let mut mask = Mask::ZERO;
        self.raise(&mut mask);
        mask
    }

    /// The places of the words, with mask and value; the bits of a word may be told in several parts.
    fn words(&self) -> impl Iterator<Item = (usize, u64, u64)> + '_ {
        self.shape.unpick(&self.words)
    }

    /// The match, to be looked at field by field.
    pub(crate) fn whole(&self) -> Match {
        let mut whole = Match::ANY;
        for (at, mask, value) in self.words() {
            whole.mask.0[at] |= mask;
            whole.value.0[at] |= value;
        }
        whole
    }

    /// Whether `key` is for it.
    pub(crate) fn covers(&self, key: &Key) -> bool {
        self.words().all(|(at, mask, value)| key.0[at] & mask == value)
    }

    /// Whether some packet is matched by both.
    pub(crate) fn meets(&self, other: &Match) -> bool {
        self.words().all(|(at, mask, value)| (value ^ other.value.0[at]) & mask & other.mask.0[at] == 0)
    }

    /// Adds to `looked_at` the bits that it looks at.
    pub(crate) fn raise(&self, looked_at: &mut Mask) {
        for (at, mask, _) in self.words() {
            looked_at.0[at] |= mask;
        }
    }
}

/// Shapes by their masks, for a list of flows: those of one mask share theirs from the start.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    latest: Option<(Mask, Arc<MaskShape>)>,
    all: HashMap<Mask, Arc<MaskShape>>,
}

impl Shapes {
    /// The match as a flow keeps it.
    pub(crate) fn keep(&mut self, matching: &Match) -> Kept {
        let Match { value, mask } = matching;
        match &self.latest {
            // As in most lists the flows with one mask follow each other.
            Some((known, shape)) if known == mask => Kept::among(shape, value),
            Some(_) | None => {
                let shape = self.all.entry(mask.clone()).or_insert_with(|| Arc::new(MaskShape::staged(mask)));
                self.latest = Some((mask.clone(), Arc::clone(shape)));
                Kept::among(shape, value)
            }
        }
    }
}
