//! From what is asked for to what may be stored, in two passes: *declare* reads every explicit value and reference and
//! notes all mistakes; *complete*, only if there were none, allocates what was left out, in the order of names.
//!
//! All edits happen at once: what an edited object had is free for others, and references hold if they hold afterwards.
//! The fabric is only read; what the edits claim is kept beside it.

mod announced;
mod complete;
mod declare;
mod fill;
mod provider;

pub(super) use fill::gateway;

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use uuid::Uuid;

use super::address;
use super::allocate::{HOST_PREFIX, id};
use super::fabric::{Borne, Claim, Claims, Fabric, Owners, claims_of, next, short_id};
use super::names;
use super::problem::{Fault, MAX_MISTAKES, Problem, Refusal};
use super::resource::{Change, Edit, Kind, NetworkSpec, Object, Resource};
use crate::types::Mac;

/// Edits of one plan at most.
const MAX_EDITS: usize = 500_000;
/// Addresses of one virtual machine at most.
const MAX_IPS: usize = 16;
/// Allowed address pairs of one port at most.
const MAX_PAIRS: usize = 64;
/// Subnets of one network at most.
const MAX_SUBNETS: usize = 64;
/// Interfaces of one router at most.
const MAX_INTERFACES: usize = 1_024;
/// Names shown when a reference dangles.
const NAMES_SHOWN: usize = 10;

/// The part of a resource that a fault is in: whoever knows where it was written finds the place by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
    Name,
    Id,
    Mac,
    Address,
    HostMac,
    BridgeMapping(usize),
    Vni,
    PhysicalNetwork,
    Vlan,
    Mtu,
    Subnet(usize),
    Gateway(usize),
    Advertise(usize),
    Distributed,
    Interface(usize),
    InterfaceMac(usize),
    InterfaceIp(usize, usize),
    Node,
    MigratingTo,
    Network,
    Ip(usize),
    Device,
    Pair(usize),
}

/// A fault of one edit, by its number.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) edit: usize,
    pub(super) field: Field,
    pub(super) fault: Fault,
}

/// Everything wrong with some edits.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) found: Vec<Found>,
    pub(super) untold: usize,
}

impl Faults {
    /// In words, for whoever asked for these edits.
    pub(super) fn refusal(self, edits: &[Edit]) -> Refusal {
        let problem = |found: Found| {
            let object = edits.get(found.edit).map_or_else(|| Object::new(Kind::Node, ""), Edit::object);
            let fault = found.fault;
            Problem { kind: fault.kind().to_owned(), object, what: fault.what(), remedy: fault.remedy() }
        };
        Refusal { problems: self.found.into_iter().map(problem).collect(), untold: self.untold }
    }
}

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pass {
    /// Only look for mistakes in what is explicit.
    Declare,
    /// Allocate what was left out as well.
    Complete,
}

/// What may be stored for these edits, or everything wrong with them.
pub(super) fn check(fabric: &Fabric, edits: &[Edit], pass: Pass) -> Result<Vec<Change>, Faults> {
    let mut checker = Checker::new(fabric);
    if edits.len() > MAX_EDITS {
        let fault = Fault::TooMany { what: "edits in one go".to_owned(), most: MAX_EDITS.to_string() };
        checker.mistake(Field::Name, fault);
        return Err(checker.faults);
    }
    let mut entries = fill::entries(&mut checker, edits);
    checker.free(&entries);
    declare::declare(&mut checker, &mut entries);
    if pass == Pass::Complete && checker.faults.found.is_empty() {
        complete::seats(&mut checker, &mut entries);
    }
    if checker.faults.found.is_empty() {
        provider::reach(&mut checker, &entries);
    }
    if pass == Pass::Complete && checker.faults.found.is_empty() {
        complete::complete(&mut checker, &mut entries);
    }
    if !checker.faults.found.is_empty() {
        return Err(checker.faults);
    }
    Ok(changes(fabric, entries))
}

/// One edit, its number, and what is to become of the object: `None` if nothing.
#[derive(Debug)]
struct Entry {
    edit: usize,
    object: Object,
    resource: Option<Resource>,
}

/// What is to be stored, in an order in which each change finds what it refers to, and room.
fn changes(fabric: &Fabric, entries: Vec<Entry>) -> Vec<Change> {
    let mut ranked: Vec<(u8, Change)> = entries
        .into_iter()
        .filter_map(|Entry { edit: _, object, resource }| match resource {
            Some(resource) => {
                let rank = match object.kind {
                    Kind::Node => 2,
                    Kind::Network => 3,
                    Kind::Router => 4,
                    Kind::Port => 5,
                };
                let new = !fabric.holds(&resource);
                new.then_some((rank, Change::Put(resource)))
            }
            None => {
                let rank = match object.kind {
                    Kind::Port => 0,
                    Kind::Router => 1,
                    Kind::Network => 6,
                    Kind::Node => 7,
                };
                Some((rank, Change::Delete(object)))
            }
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, change)| change).collect()
}

/// What the edits claim beside what the fabric holds, and the mistakes so far.
struct Checker<'f> {
    fabric: &'f Fabric,
    faults: Faults,
    /// The edit looked at.
    at: usize,
    /// Objects that are edited, and whether they will be there: what they had counts no longer.
    edited: BTreeMap<Object, bool>,
    /// Addresses that edited objects had and nobody has yet: of the underlay under no name.
    freed: BTreeMap<Option<String>, BTreeSet<IpAddr>>,
    added: Claims,
    /// Networks that are put, as far as they are right.
    networks: BTreeMap<String, NetworkSpec>,
}

impl<'f> Checker<'f> {
    fn new(fabric: &'f Fabric) -> Self {
        Self {
            fabric,
            faults: Faults::default(),
            at: 0,
            edited: BTreeMap::new(),
            freed: BTreeMap::new(),
            added: Claims::default(),
            networks: BTreeMap::new(),
        }
    }

    fn mistake(&mut self, field: Field, fault: Fault) {
        if self.faults.found.len() < MAX_MISTAKES {
            self.faults.found.push(Found { edit: self.at, field, fault });
        } else {
            self.faults.untold += 1;
        }
    }

    /// Notes what is edited, and the addresses that become free by it.
    fn free(&mut self, entries: &[Entry]) {
        let fabric = self.fabric;
        self.edited.extend(entries.iter().map(|entry| (entry.object.clone(), entry.resource.is_some())));
        for resource in entries.iter().filter_map(|entry| fabric.get(&entry.object)) {
            for claim in claims_of(&resource) {
                let Some((place, address)) = claim.address() else { continue };
                if self.bearer(place, address).is_none() {
                    self.freed.entry(place.map(str::to_owned)).or_default().insert(address);
                }
            }
        }
    }

    /// Whether an object will be there.
    fn there(&self, kind: Kind, name: &str) -> bool {
        let object = Object::new(kind, name);
        self.edited.get(&object).copied().unwrap_or_else(|| self.fabric.contains(&object))
    }

    /// A network as it will be.
    fn network(&self, name: &str) -> Option<&NetworkSpec> {
        if let Some(network) = self.networks.get(name) {
            return Some(network);
        }
        self.fabric.networks().get(name).filter(|_| self.there(Kind::Network, name))
    }

    /// Who will have a value.
    fn owner<'a, K: Ord + Clone + 'a>(
        &'a self,
        sort: impl Fn(&'a Claims) -> &'a Owners<K>,
        key: &K,
    ) -> Option<&'a Object> {
        let kept = sort(self.fabric.claims()).of(key).find(|owner| !self.edited.contains_key(*owner));
        kept.or_else(|| sort(&self.added).of(key).next())
    }

    /// Who will bear an address of a network, or of the underlay.
    fn bearer(&self, place: Option<&str>, address: IpAddr) -> Option<&Object> {
        let kept = borne(self.fabric.claims(), place).into_iter().flat_map(|borne| borne.of(address));
        let mut kept = kept.filter(|owner| !self.edited.contains_key(*owner));
        kept.next().or_else(|| borne(&self.added, place)?.of(address).next())
    }

    /// Claims a value that nobody has.
    fn add(&mut self, claim: Claim, owner: &Object) {
        if let Some((place, address)) = claim.address().filter(|_| !self.freed.is_empty())
            && let Some(freed) = self.freed.get_mut(&place.map(str::to_owned))
        {
            freed.remove(&address);
        }
        self.added.add(claim, owner);
    }

    /// The lowest host address of a prefix that nobody will bear.
    fn lowest(&self, place: Option<&str>, cidr: IpNet, avoid: Option<IpAddr>) -> Option<IpAddr> {
        let (mut at, last) = address::host_range(cidr);
        let (kept, added) = (borne(self.fabric.claims(), place), borne(&self.added, place));
        let freed = if self.freed.is_empty() { None } else { self.freed.get(&place.map(str::to_owned)) };
        // Each turn passes a run of addresses that are borne.
        loop {
            let kept = kept.map_or(Some(at), |borne| borne.next_free(at));
            let freed = freed.and_then(|freed| freed.range(at..).next().copied());
            let candidate = kept.into_iter().chain(freed).min().filter(|address| *address <= last)?;
            let free = added.map_or(Some(candidate), |borne| borne.next_free(candidate))?;
            if free == candidate && avoid != Some(free) {
                return Some(free);
            }
            at = if free == candidate { next(free)? } else { free };
        }
    }

    /// An address a host may bear.
    fn address(&mut self, field: Field, address: IpAddr) -> bool {
        let special = address::special(address);
        if let Some(special) = special {
            let fault = Fault::AddressSpecial { address: address.to_string(), special: special.to_owned() };
            self.mistake(field, fault);
        }
        special.is_none()
    }

    /// A MAC a station may have; a host's own comes from the hosts' block.
    fn mac_of_station(&mut self, field: Field, mac: Mac, of_host: bool) -> bool {
        let shown = mac.to_string();
        let [a, b, c, ..] = mac.octets();
        let fault = if mac.is_multicast() {
            Fault::MacGroup { mac: shown }
        } else if mac == Mac::ZERO {
            Fault::MacZero { mac: shown }
        } else if !of_host && [a, b, c] == HOST_PREFIX {
            Fault::MacHost { mac: shown }
        } else {
            return true;
        };
        self.mistake(field, fault);
        false
    }

    /// An explicit MAC, claimed for its owner.
    fn mac(&mut self, field: Field, mac: Mac, owner: &Object) {
        if !self.mac_of_station(field, mac, owner.kind == Kind::Node) {
            return;
        }
        match self.owner(|claims| &claims.macs, &mac).map(Object::to_string) {
            Some(owner) => self.mistake(field, Fault::MacTwice { mac: mac.to_string(), owner }),
            None => self.add(Claim::Mac(mac), owner),
        }
    }

    /// An explicit id, claimed for its owner; a port's in its short form too.
    fn id(&mut self, field: Field, id: Uuid, owner: &Object, of_port: bool) {
        let short = self.owner(|claims| &claims.short_ids, &short_id(id)).filter(|_| of_port);
        let fault = if id.is_nil() {
            Fault::NotOf {
                what: "an id".to_owned(),
                value: id.to_string(),
                why: "the nil UUID identifies nothing".to_owned(),
                like: super::LIKE_ID.to_owned(),
            }
        } else if let Some(other) = self.owner(|claims| &claims.ids, &id) {
            Fault::IdTwice { id: id.to_string(), owner: other.to_string() }
        } else if let Some(other) = short {
            Fault::IdShort { short: names::short_id(id), owner: other.to_string() }
        } else {
            self.add(if of_port { Claim::PortId(id) } else { Claim::Id(id) }, owner);
            return;
        };
        self.mistake(field, fault);
    }

    /// A derived id, claimed for its owner.
    fn derive_id(&mut self, kind: &str, name: &str, owner: &Object, of_port: bool) -> Option<Uuid> {
        const ATTEMPTS: u32 = 64;
        let taken = |id: &Uuid| {
            self.owner(|claims| &claims.ids, id).is_some()
                || of_port && self.owner(|claims| &claims.short_ids, &short_id(*id)).is_some()
        };
        let found = (0..ATTEMPTS).map(|attempt| id(kind, name, attempt)).find(|id| !taken(id));
        match found {
            Some(id) => self.add(if of_port { Claim::PortId(id) } else { Claim::Id(id) }, owner),
            None => self.mistake(Field::Name, Fault::Exhausted { what: "id".to_owned() }),
        }
        found
    }

    fn exhausted<T>(&mut self, what: &str, found: Option<T>) -> Option<T> {
        if found.is_none() {
            self.mistake(Field::Name, Fault::Exhausted { what: what.to_owned() });
        }
        found
    }
}

/// The addresses of a network that somebody bears, or of the underlay.
fn borne<'a>(claims: &'a Claims, place: Option<&str>) -> Option<&'a Borne> {
    match place {
        Some(network) => claims.addresses.get(network),
        None => Some(&claims.underlay),
    }
}

/// What keeps a prefix from being a subnet's.
pub(super) fn cidr_fault(net: IpNet) -> Option<Fault> {
    let cidr = net.to_string();
    let lengths = address::lengths(net);
    if net != net.trunc() {
        Some(Fault::HostBits { cidr, network: net.trunc().to_string() })
    } else if !lengths.contains(&net.prefix_len()) {
        Some(Fault::CidrLength { cidr, least: lengths.start().to_string(), most: lengths.end().to_string() })
    } else {
        let special = address::special_net(net)?;
        Some(Fault::CidrSpecial { cidr, special: special.to_owned() })
    }
}
