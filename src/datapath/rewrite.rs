//! Actions that write fields: each write is of the key only, and is noted in the mask.

use super::action::Action;
use super::drop::DropReason;
use super::field::{Field, Needs, Subfield};
use super::key::{self, Place};
use super::xlate::Xlate;
use crate::wire::ethernet;

impl Xlate<'_> {
    pub(super) fn write(&mut self, place: Place, value: u128, mask: u128) {
        self.mask.raise(place, mask);
        self.key.set_masked(place, value, mask);
    }

    pub(super) fn write_all(&mut self, place: Place, value: u128) {
        self.write(place, value, place.ones());
    }

    /// Whether the packet has what `needs` says; that was looked at then.
    pub(super) fn has(&mut self, needs: Needs) -> bool {
        needs.unwildcard(&mut self.mask);
        needs.met_by(&self.key)
    }

    pub(super) fn set_field(&mut self, field: Field, value: u128, mask: u128) {
        let info = field.info();
        if self.has(info.needs) {
            self.write(info.place, value, mask);
            self.written(field);
        } else {
            self.warn(|| format!("unmet prerequisites for {}, set_field ignored", info.name));
        }
    }

    /// A tag that a field write brought into being gets a type (`flow_fix_vlan_tpid()`).
    pub(super) fn written(&mut self, field: Field) {
        if matches!(field, Field::VlanTci | Field::VlanVid | Field::DlVlan | Field::VlanPcp | Field::DlVlanPcp) {
            if matches!(field, Field::DlVlan | Field::VlanPcp | Field::DlVlanPcp) {
                self.write(key::VLAN_TCI, u128::from(key::TCI_PRESENT), u128::from(key::TCI_PRESENT));
            }
            self.mask.raise(key::VLAN_TCI, u128::from(key::TCI_PRESENT));
            if self.key.get(key::VLAN_TCI) != 0 && self.key.get16(key::VLAN_TPID) == 0 {
                self.key.set(key::VLAN_TPID, ethernet::TYPE_VLAN.into());
            }
        }
    }

    pub(super) fn copy(&mut self, from: Subfield, to: Subfield) {
        if self.has(from.field.info().needs) && self.has(to.field.info().needs) {
            from.raise(&mut self.mask);
            to.raise(&mut self.mask);
            let value = from.read(&self.key);
            to.write(&mut self.key, value);
            self.written(to.field);
        }
        self.tell(|ports, walk| super::trace::written(to, &walk.key, ports));
    }

    pub(super) fn tag(&mut self, value: u128, mask: u128) {
        let present = u128::from(key::TCI_PRESENT);
        self.write(key::VLAN_TCI, value | present, mask | present);
        self.written(Field::VlanTci);
    }

    pub(super) fn pop_vlan(&mut self) {
        self.mask.raise(key::VLAN_TCI, u128::from(key::TCI_PRESENT));
        if self.key.is_tagged() {
            let (tci, tpid) = (self.key.get(key::INNER_TCI), self.key.get(key::INNER_TPID));
            self.key.set(key::VLAN_TCI, tci);
            self.key.set(key::VLAN_TPID, tpid);
            self.key.set(key::INNER_TCI, 0);
            self.key.set(key::INNER_TPID, 0);
        }
    }

    pub(super) fn push_vlan(&mut self, tpid: u16) {
        self.mask.raise_all(key::VLAN_TCI);
        self.mask.raise_all(key::VLAN_TPID);
        let (tci, old) = (self.key.get(key::VLAN_TCI), self.key.get(key::VLAN_TPID));
        self.key.set(key::INNER_TCI, tci);
        self.key.set(key::INNER_TPID, old);
        self.key.set(key::VLAN_TCI, u128::from(key::TCI_PRESENT));
        self.key.set(key::VLAN_TPID, tpid.into());
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "the caller sends no others here")]
    pub(super) fn network(&mut self, action: &Action) {
        match action {
            Action::ModIpSrc(address) if self.has(Needs::Ipv4) => self.write_all(key::IPV4_SRC, u128::from(*address)),
            Action::ModIpDst(address) if self.has(Needs::Ipv4) => self.write_all(key::IPV4_DST, u128::from(*address)),
            Action::ModIpTos(tos) if self.has(Needs::Ip) => self.write(key::IP_TOS, u128::from(*tos), 0xfc),
            Action::ModIpEcn(ecn) if self.has(Needs::Ip) => self.write(key::IP_TOS, u128::from(*ecn), 3),
            Action::ModIpTtl(ttl) if self.has(Needs::Ip) => self.write_all(key::IP_TTL, u128::from(*ttl)),
            Action::ModTpSrc(number) if self.has_ports() => self.write_all(key::TP_SRC, u128::from(*number)),
            Action::ModTpDst(number) if self.has_ports() => self.write_all(key::TP_DST, u128::from(*number)),
            Action::DecTtl if self.has(Needs::Ip) => {
                self.mask.raise_all(key::IP_TTL);
                let ttl = self.key.get(key::IP_TTL);
                if ttl > 1 {
                    self.key.set(key::IP_TTL, ttl - 1);
                } else {
                    self.reason.get_or_insert(DropReason::TtlExpired);
                    let six = Needs::Ipv6.met_by(&self.key);
                    self.warn(|| format!("IPv{} decrement TTL exception", if six { 6 } else { 4 }));
                    self.stop = true;
                }
            }
            _ => {}
        }
    }

    /// Whether there is something where ports are. As in OVS that may be of any protocol: of ICMP it is type and code.
    pub(super) fn has_ports(&mut self) -> bool {
        let first = self.key.get(key::IP_FRAG) & key::FRAG_LATER == 0;
        if first && self.has(Needs::Ip) {
            self.mask.raise_all(key::IP_PROTO);
            return true;
        }
        false
    }
}
