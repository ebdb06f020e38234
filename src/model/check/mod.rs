//! From texts to a topology, in two passes: *declare* reads every explicit value and reference and notes all mistakes;
//! *complete*, only if there were none, allocates what was left out, in the order of names.

mod complete;
mod declare;

use core::fmt::Display;
use core::net::IpAddr;
use core::str::FromStr;
use std::collections::BTreeMap;

use ipnet::IpNet;
use serde_saphyr::Location;
use uuid::Uuid;

use super::address::{self, Borne};
use super::allocate::{HOST_PREFIX, id};
use super::document::{Document, Text};
use super::names;
use super::problem::{Mistakes, Problem};
use super::topology::{Topology, Underlay};
use super::view::{NetworkKind, SubnetView};
use crate::types::{IfName, Mac, Mtu, Vni};

/// Addresses of one virtual machine at most.
const MAX_IPS: usize = 16;
/// Subnets of one network at most.
const MAX_SUBNETS: usize = 64;
/// Interfaces of one router at most.
const MAX_INTERFACES: usize = 1_024;
/// Names shown when a reference dangles.
const NAMES_SHOWN: usize = 10;

/// The topology of a document, or everything wrong with its meaning.
pub(super) fn check(document: &Document) -> Result<Topology, Mistakes> {
    let mut checker = Checker::default();
    let declared = declare::declare(&mut checker, document);
    if checker.wrong {
        return Err(checker.mistakes);
    }
    let topology = complete::complete(&mut checker, declared);
    match topology {
        Some(topology) if !checker.wrong => Ok(topology),
        Some(_) | None => Err(checker.mistakes),
    }
}

/// What the document says explicitly, references resolved.
struct Declared<'d> {
    underlay: Underlay,
    nodes: BTreeMap<&'d str, Node>,
    networks: BTreeMap<&'d str, Network>,
    routers: BTreeMap<&'d str, Router<'d>>,
    vms: BTreeMap<&'d str, Vm<'d>>,
}

struct Node {
    place: Location,
    address: Option<IpAddr>,
    host_mac: Option<Mac>,
}

struct Network {
    place: Location,
    id: Option<Uuid>,
    kind: NetworkKind,
    vni: Option<Vni>,
    mtu: Mtu,
    subnets: Vec<SubnetView>,
}

struct Router<'d> {
    place: Location,
    id: Option<Uuid>,
    interfaces: Vec<Interface<'d>>,
}

struct Interface<'d> {
    place: Location,
    network: &'d str,
    mac: Option<Mac>,
    ips: Vec<IpAddr>,
}

struct Vm<'d> {
    place: Location,
    id: Option<Uuid>,
    node: &'d str,
    network: &'d str,
    mac: Option<Mac>,
    ips: Vec<IpAddr>,
    device: Option<IfName>,
}

/// Everything that must be unique, and the mistakes so far.
#[derive(Default)]
struct Checker {
    mistakes: Mistakes,
    wrong: bool,
    ids: BTreeMap<Uuid, String>,
    short_ids: BTreeMap<String, String>,
    macs: BTreeMap<Mac, String>,
    vnis: BTreeMap<Vni, String>,
    underlay: Borne,
    /// By network.
    addresses: BTreeMap<String, Borne>,
}

impl Checker {
    fn mistake(&mut self, place: Location, problem: Problem) {
        self.wrong = true;
        self.mistakes.add(place, problem);
    }

    /// A value of a type that parses itself.
    fn parse<T>(&mut self, what: &str, text: &Text, like: &str) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let parsed = text.value.parse();
        parsed.map_err(|why: T::Err| self.not_of(what, text, &why.to_string(), like)).ok()
    }

    fn not_of(&mut self, what: &str, text: &Text, why: &str, like: &str) {
        let (what, value) = (what.to_owned(), text.value.clone());
        self.mistake(text.referenced, Problem::NotOf { what, value, why: why.to_owned(), like: like.to_owned() });
    }

    /// A bounded number.
    fn number<T>(&mut self, what: &str, text: &Text, like: &str) -> Option<T>
    where
        T: TryFrom<u32>,
        T::Error: Display,
    {
        let Ok(number) = text.value.parse::<u32>() else {
            self.not_of(what, text, "it is not a whole number in decimal digits, or far too large", like);
            return None;
        };
        T::try_from(number).map_err(|why| self.not_of(what, text, &why.to_string(), like)).ok()
    }

    /// A prefix fit for a subnet.
    fn cidr(&mut self, text: &Text) -> Option<IpNet> {
        let net: IpNet = self.parse("a prefix", text, "10.1.0.0/24 or fd00:1::/64")?;
        let cidr = net.to_string();
        let lengths = address::lengths(net);
        let problem = if net != net.trunc() {
            Problem::HostBits { cidr, network: net.trunc().to_string() }
        } else if !lengths.contains(&net.prefix_len()) {
            Problem::CidrLength { cidr, least: lengths.start().to_string(), most: lengths.end().to_string() }
        } else if let Some(special) = address::special_net(net) {
            Problem::CidrSpecial { cidr, special: special.to_owned() }
        } else {
            return Some(net);
        };
        self.mistake(text.referenced, problem);
        None
    }

    /// An address a host may bear.
    fn address(&mut self, text: &Text) -> Option<IpAddr> {
        let address: IpAddr = self.parse("an address", text, "10.1.0.10 or fd00:1::10, without a prefix length")?;
        if let Some(special) = address::special(address) {
            let problem = Problem::AddressSpecial { address: address.to_string(), special: special.to_owned() };
            self.mistake(text.referenced, problem);
            return None;
        }
        Some(address)
    }

    /// An explicit MAC, claimed for its owner.
    fn mac(&mut self, text: &Text, owner: &str, of_host: bool) -> Option<Mac> {
        let mac: Mac = match text.value.parse() {
            Ok(mac) => mac,
            Err(_) => {
                self.not_of(
                    "a MAC",
                    text,
                    "it is not six hexadecimal octets joined by colons",
                    "\"fa:16:3e:00:00:20\"",
                );
                return None;
            }
        };
        let shown = mac.to_string();
        let [a, b, c, ..] = mac.octets();
        let problem = if mac.is_multicast() {
            Problem::MacGroup { mac: shown }
        } else if mac == Mac::ZERO {
            Problem::MacZero { mac: shown }
        } else if !of_host && [a, b, c] == HOST_PREFIX {
            Problem::MacHost { mac: shown }
        } else if let Some(other) = self.macs.get(&mac) {
            Problem::MacTwice { mac: shown, owner: other.clone() }
        } else {
            self.macs.insert(mac, owner.to_owned());
            return Some(mac);
        };
        self.mistake(text.referenced, problem);
        None
    }

    /// An explicit id, claimed for its owner; a port's in its short form too.
    fn id(&mut self, text: &Text, owner: &str, of_port: bool) -> Option<Uuid> {
        let like = "6b2c1f0e-9a51-5d0b-8a6e-2f4f3a1c7d90";
        let id: Uuid = match text.value.parse() {
            Ok(id) => id,
            Err(_) => {
                self.not_of("an id", text, "it is not a UUID", like);
                return None;
            }
        };
        if id.is_nil() {
            self.not_of("an id", text, "the nil UUID identifies nothing", like);
            return None;
        }
        let problem = if let Some(other) = self.ids.get(&id) {
            Problem::IdTwice { id: id.to_string(), owner: other.clone() }
        } else if let Some(other) = self.short_ids.get(&names::short_id(id)).filter(|_| of_port) {
            Problem::IdShort { short: names::short_id(id), owner: other.clone() }
        } else {
            self.claim_id(id, owner, of_port);
            return Some(id);
        };
        self.mistake(text.referenced, problem);
        None
    }

    fn claim_id(&mut self, id: Uuid, owner: &str, of_port: bool) {
        self.ids.insert(id, owner.to_owned());
        if of_port {
            self.short_ids.insert(names::short_id(id), owner.to_owned());
        }
    }

    /// A derived id, claimed for its owner.
    fn derive_id(&mut self, place: Location, kind: &str, name: &str, owner: &str, of_port: bool) -> Option<Uuid> {
        const ATTEMPTS: u32 = 64;
        let taken =
            |id: &Uuid| self.ids.contains_key(id) || of_port && self.short_ids.contains_key(&names::short_id(*id));
        let found = (0..ATTEMPTS).map(|attempt| id(kind, name, attempt)).find(|id| !taken(id));
        match found {
            Some(id) => self.claim_id(id, owner, of_port),
            None => self.mistake(place, Problem::Exhausted { what: "id".to_owned() }),
        }
        found
    }

    fn exhausted<T>(&mut self, place: Location, what: &str, found: Option<T>) -> Option<T> {
        if found.is_none() {
            self.mistake(place, Problem::Exhausted { what: what.to_owned() });
        }
        found
    }
}
