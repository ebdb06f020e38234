//! What must be unique, and who has it.
//!
//! While changes of one transaction come in one by one, two objects may have one value for a moment: both are noted, so
//! that whatever the order the last one to leave frees it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::model::resource::{Kind, Object, Resource};
use crate::model::view::NetworkKind;
use crate::types::{IfName, Mac, PhysicalNetwork, VlanId, Vni};

/// One value that an object has to itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::model) enum Claim {
    /// An id, not of a port.
    Id(Uuid),
    /// A port's id: interface names bear its beginning.
    PortId(Uuid),
    /// A MAC.
    Mac(Mac),
    /// A tunnel key.
    Vni(Vni),
    /// A VLAN of a physical network; its untagged frames without one.
    Segment(PhysicalNetwork, Option<VlanId>),
    /// A device of a node.
    Device(String, IfName),
    /// A tunnel endpoint.
    Tunnel(IpAddr),
    /// An address of a network.
    Address(String, IpAddr),
    /// An address of a network that a port took by announcing it.
    Announced(String, IpAddr),
}

impl Claim {
    /// The address, if it is one that someone bears: of a network, or of the underlay.
    pub(in crate::model) fn address(&self) -> Option<(Option<&str>, IpAddr)> {
        match self {
            Self::Tunnel(address) => Some((None, *address)),
            Self::Address(network, address) => Some((Some(network), *address)),
            Self::Id(_)
            | Self::PortId(_)
            | Self::Mac(_)
            | Self::Vni(_)
            | Self::Segment(..)
            | Self::Device(..)
            | Self::Announced(..) => None,
        }
    }
}

/// Everything an object has to itself.
pub(in crate::model) fn claims_of(resource: &Resource) -> Vec<Claim> {
    let mut claims = Vec::new();
    match resource {
        Resource::Node(node) => {
            claims.extend(node.address.map(Claim::Tunnel));
            claims.extend(node.host_mac.map(Claim::Mac));
            let mapped = node.bridge_mappings.iter().flat_map(|mappings| mappings.values());
            claims.extend(mapped.map(|interface| Claim::Device(node.name.clone(), interface.clone())));
        }
        Resource::Network(network) => {
            claims.extend(network.id.map(Claim::Id));
            claims.extend(network.vni.map(Claim::Vni));
            // A VLAN network without its tag yet has nothing to itself.
            let whole = network.vlan.is_some() || network.kind == NetworkKind::Flat;
            let segment = network.physical_network.clone().filter(|_| whole);
            claims.extend(segment.map(|physical_network| Claim::Segment(physical_network, network.vlan)));
        }
        Resource::Router(router) => {
            claims.extend(router.id.map(Claim::Id));
            for port in &router.interfaces {
                claims.extend(port.id.map(Claim::PortId));
                claims.extend(port.mac.map(Claim::Mac));
                claims.extend(port.ips.iter().map(|ip| Claim::Address(port.network.clone(), *ip)));
            }
        }
        Resource::Port(port) => {
            claims.extend(port.id.map(Claim::PortId));
            claims.extend(port.mac.map(Claim::Mac));
            claims.extend(port.ips.iter().map(|ip| Claim::Address(port.network.clone(), *ip)));
            for node in [&port.node, &port.migrating_to].into_iter().flatten() {
                claims.extend(port.device.iter().map(|device| Claim::Device(node.clone(), device.clone())));
            }
            claims.extend(port.claimed.iter().map(|address| Claim::Announced(port.network.clone(), address.ip)));
        }
    }
    claims
}

/// Who has which value of one sort.
#[derive(Debug, Clone)]
pub(in crate::model) struct Owners<K>(BTreeSet<(K, Object)>);

impl<K> Default for Owners<K> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<K: Ord + Clone> Owners<K> {
    /// Who has a value, by kind and name.
    pub(in crate::model) fn of<'a>(&'a self, key: &K) -> impl Iterator<Item = &'a Object> + use<'a, K> {
        let key = key.clone();
        let least = (key.clone(), Object::new(Kind::Node, ""));
        self.0.range(least..).take_while(move |(other, _)| *other == key).map(|(_, owner)| owner)
    }

    /// How many values have an owner, those with two counted twice.
    pub(in crate::model) fn len(&self) -> usize {
        self.0.len()
    }

    fn add(&mut self, key: K, owner: &Object) {
        self.0.insert((key, owner.clone()));
    }

    fn remove(&mut self, key: K, owner: &Object) {
        self.0.remove(&(key, owner.clone()));
    }
}

/// The addresses of one place (a network or the underlay) that somebody bears.
#[derive(Debug, Clone, Default)]
pub(in crate::model) struct Borne {
    owners: Owners<IpAddr>,
    runs: Runs,
}

impl Borne {
    /// Who bears an address.
    pub(in crate::model) fn of<'a>(&'a self, address: IpAddr) -> impl Iterator<Item = &'a Object> + use<'a> {
        self.owners.of(&address)
    }

    /// The first address from this one on, in its family, that nobody bears.
    pub(in crate::model) fn next_free(&self, address: IpAddr) -> Option<IpAddr> {
        self.runs.next_free(address)
    }

    fn add(&mut self, address: IpAddr, owner: &Object) {
        self.owners.add(address, owner);
        self.runs.insert(address);
    }

    fn remove(&mut self, address: IpAddr, owner: &Object) {
        self.owners.remove(address, owner);
        if self.of(address).next().is_none() {
            self.runs.remove(address);
        }
    }
}

/// A set of addresses as runs of neighbours, first to last: finding a free one costs a look-up however many are taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Runs(BTreeMap<IpAddr, IpAddr>);

/// The next address of the family.
pub(in crate::model) fn next(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits().checked_add(1)?)),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits().checked_add(1)?)),
    })
}

/// The address before, of the family.
fn previous(address: IpAddr) -> Option<IpAddr> {
    Some(match address {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from_bits(address.to_bits().checked_sub(1)?)),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits().checked_sub(1)?)),
    })
}

impl Runs {
    /// The run that holds an address. IPv4 addresses sort before IPv6 ones, so no run spans both.
    fn run(&self, address: IpAddr) -> Option<(IpAddr, IpAddr)> {
        let (&first, &last) = self.0.range(..=address).next_back()?;
        (last >= address).then_some((first, last))
    }

    fn next_free(&self, address: IpAddr) -> Option<IpAddr> {
        match self.run(address) {
            Some((_, last)) => next(last),
            None => Some(address),
        }
    }

    fn insert(&mut self, address: IpAddr) {
        if self.run(address).is_some() {
            return;
        }
        let before = previous(address).and_then(|previous| self.run(previous));
        let after = next(address).and_then(|next| self.0.remove(&next));
        let first = before.map_or(address, |(first, _)| first);
        self.0.insert(first, after.unwrap_or(address));
    }

    fn remove(&mut self, address: IpAddr) {
        let Some((first, last)) = self.run(address) else { return };
        self.0.remove(&first);
        if let Some(end) = previous(address).filter(|end| first <= *end && first < address) {
            self.0.insert(first, end);
        }
        if let Some(start) = next(address).filter(|start| *start <= last && address < last) {
            self.0.insert(start, last);
        }
    }
}

/// Every value that must be unique.
#[derive(Debug, Clone, Default)]
pub(in crate::model) struct Claims {
    /// Of every object, ports included.
    pub(in crate::model) ids: Owners<Uuid>,
    /// What of ports' ids their interfaces' names bear.
    pub(in crate::model) short_ids: Owners<u64>,
    /// Of ports and hosts.
    pub(in crate::model) macs: Owners<Mac>,
    /// Of networks.
    pub(in crate::model) vnis: Owners<Vni>,
    /// Of networks.
    pub(in crate::model) segments: Owners<(PhysicalNetwork, Option<VlanId>)>,
    /// By node.
    pub(in crate::model) devices: Owners<(String, IfName)>,
    /// Tunnel endpoints.
    pub(in crate::model) underlay: Borne,
    /// By network.
    pub(in crate::model) addresses: BTreeMap<String, Borne>,
    /// By network and address.
    pub(in crate::model) announced: Owners<(String, IpAddr)>,
}

/// The part of a port's id that its interface's name bears, as a number: [`crate::model::names::short_id`].
pub(in crate::model) fn short_id(id: Uuid) -> u64 {
    // Ten of 32 hexadecimal digits.
    u64::try_from(id.as_u128() >> 88).unwrap_or_else(|_| unreachable!("128 less 88 are 40 bits"))
}

impl Claims {
    /// Notes that somebody has a value.
    pub(in crate::model) fn add(&mut self, claim: Claim, owner: &Object) {
        match claim {
            Claim::Id(id) => self.ids.add(id, owner),
            Claim::PortId(id) => {
                self.ids.add(id, owner);
                self.short_ids.add(short_id(id), owner);
            }
            Claim::Mac(mac) => self.macs.add(mac, owner),
            Claim::Vni(vni) => self.vnis.add(vni, owner),
            Claim::Segment(physical_network, vlan) => self.segments.add((physical_network, vlan), owner),
            Claim::Device(node, device) => self.devices.add((node, device), owner),
            Claim::Tunnel(address) => self.underlay.add(address, owner),
            Claim::Address(network, address) => self.addresses.entry(network).or_default().add(address, owner),
            Claim::Announced(network, address) => self.announced.add((network, address), owner),
        }
    }

    /// Notes that somebody has a value no longer.
    pub(in crate::model) fn remove(&mut self, claim: Claim, owner: &Object) {
        match claim {
            Claim::Id(id) => self.ids.remove(id, owner),
            Claim::PortId(id) => {
                self.ids.remove(id, owner);
                self.short_ids.remove(short_id(id), owner);
            }
            Claim::Mac(mac) => self.macs.remove(mac, owner),
            Claim::Vni(vni) => self.vnis.remove(vni, owner),
            Claim::Segment(physical_network, vlan) => self.segments.remove((physical_network, vlan), owner),
            Claim::Device(node, device) => self.devices.remove((node, device), owner),
            Claim::Tunnel(address) => self.underlay.remove(address, owner),
            Claim::Address(network, address) => {
                if let Some(borne) = self.addresses.get_mut(&network) {
                    borne.remove(address, owner);
                    if borne.owners.len() == 0 {
                        self.addresses.remove(&network);
                    }
                }
            }
            Claim::Announced(network, address) => self.announced.remove((network, address), owner),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(low: u8) -> IpAddr {
        IpAddr::from([255, 255, 255, low])
    }

    proptest! {
        #[test]
        fn runs_are_a_set(steps in prop::collection::vec((any::<bool>(), 240_u8..=255), 0..60)) {
            let (mut runs, mut set) = (Runs::default(), BTreeSet::new());
            for (insert, low) in steps {
                if insert {
                    runs.insert(address(low));
                    set.insert(low);
                } else {
                    runs.remove(address(low));
                    set.remove(&low);
                }
                for from in 240..=255 {
                    let free = (from..=255).find(|low| !set.contains(low)).map(address);
                    prop_assert_eq!(runs.next_free(address(from)), free);
                }
            }
            for low in set {
                runs.remove(address(low));
            }
            prop_assert_eq!(runs, Runs::default());
        }
    }

    #[test]
    fn the_last_owner_frees_a_value() {
        let (one, two) = (Object::new(Kind::Port, "one"), Object::new(Kind::Port, "two"));
        let mut claims = Claims::default();
        let claim = Claim::Address("blue".to_owned(), address(1));
        claims.add(claim.clone(), &one);
        claims.add(claim.clone(), &two);
        claims.remove(claim.clone(), &two);
        assert_eq!(claims.addresses["blue"].of(address(1)).next(), Some(&one));
        assert_eq!(claims.addresses["blue"].next_free(address(1)), Some(address(2)));
        claims.remove(claim, &one);
        assert!(claims.addresses.is_empty());
    }
}
