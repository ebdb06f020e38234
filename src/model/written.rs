//! What a document says, as edits of an empty fabric: each text becomes a value or a mistake, and every part keeps its
//! place, so that whatever the check finds wrong can be shown where it is written.

use core::fmt::Display;
use core::net::IpAddr;
use core::str::FromStr;
use std::collections::BTreeMap;

use ipnet::IpNet;
use serde_saphyr::Location;
use uuid::Uuid;

use super::LIKE_ID;
use super::check::{self, Faults, Field, Found, Pass, cidr_fault};
use super::document::{
    Document, Entries, InterfaceDoc, NetworkDoc, NodeDoc, PairDoc, RouterDoc, SubnetDoc, Text, UnderlayDoc, VmDoc,
};
use super::fabric::Fabric;
use super::problem::{Fault, Mistakes};
use super::resource::{AddressPair, Edit, InterfaceSpec, NetworkSpec, NodeSpec, PortSpec, Resource, RouterSpec};
use super::topology::Underlay;
use super::view::{BridgeMappings, NetworkKind, SubnetView, TunnelKind};
use crate::types::{Mac, Mtu, PhysicalNetwork, VlanId, Vni};

/// The fabric of a document, or everything wrong with its meaning.
pub(super) fn check(document: &Document) -> Result<Fabric, Mistakes> {
    let mut reader = Reader::default();
    let underlay = reader.document(document);
    let mut fabric = Fabric::new(underlay);
    let Reader { mut mistakes, wrong, edits, places, bare, .. } = reader;
    let pass = if wrong { Pass::Declare } else { Pass::Complete };
    match check::check(&fabric, &edits, pass) {
        Ok(changes) if !wrong => {
            for change in changes {
                fabric.change(change);
            }
            return Ok(fabric);
        }
        Ok(_) => {}
        Err(Faults { found, untold }) => {
            for Found { edit, field, fault } in found {
                // A network of which these are illegible has been reported for that.
                if matches!(fault, Fault::NoSubnet { .. } | Fault::NoPhysicalNetwork { .. }) && bare.contains(&edit) {
                    continue;
                }
                mistakes.add(place(&places, edit, field), fault);
            }
            mistakes.add_untold(untold);
        }
    }
    Err(mistakes)
}

/// Where a part of an edit is written; the object's name for what is not written at all.
fn place(places: &[BTreeMap<Field, Location>], edit: usize, field: Field) -> Location {
    let places = places.get(edit);
    let found = places.and_then(|places| places.get(&field).or_else(|| places.get(&Field::Name)));
    found.copied().unwrap_or(Location::UNKNOWN)
}

#[derive(Default)]
struct Reader {
    mistakes: Mistakes,
    wrong: bool,
    edits: Vec<Edit>,
    /// By edit.
    places: Vec<BTreeMap<Field, Location>>,
    /// Edits of networks none of whose subnets is legible, or whose physical network is not.
    bare: Vec<usize>,
    /// Of the object being read.
    here: BTreeMap<Field, Location>,
}

impl Reader {
    fn document(&mut self, document: &Document) -> Underlay {
        let Document { version, underlay, nodes, networks, routers, vms } = document;
        if version.value != "1" {
            self.mistake(version, Fault::Version { version: version.value.clone() });
        }
        let underlay = self.underlay(underlay);
        for (name, doc) in &nodes.0 {
            let spec = self.node(name, doc.as_ref());
            self.put(name, Resource::Node(spec));
        }
        for (name, doc) in &networks.0 {
            let spec = self.network(name, doc);
            let unread = doc.physical_network.is_some() && spec.physical_network.is_none();
            if unread || spec.subnets.is_empty() && !doc.subnets.is_empty() {
                self.bare.push(self.edits.len());
            }
            self.put(name, Resource::Network(spec));
        }
        for (name, doc) in &routers.0 {
            let spec = self.router(name, doc);
            self.put(name, Resource::Router(spec));
        }
        for (name, doc) in &vms.0 {
            let spec = self.vm(name, doc);
            self.put(name, Resource::Port(spec));
        }
        underlay
    }

    fn put(&mut self, name: &Text, resource: Resource) {
        self.edits.push(Edit::put(resource));
        let mut places = core::mem::take(&mut self.here);
        places.insert(Field::Name, name.referenced);
        self.places.push(places);
    }

    fn mistake(&mut self, text: &Text, fault: Fault) {
        self.wrong = true;
        self.mistakes.add(text.referenced, fault);
    }

    fn not_of(&mut self, what: &str, text: &Text, why: &str, like: &str) {
        let (what, value) = (what.to_owned(), text.value.clone());
        self.mistake(text, Fault::NotOf { what, value, why: why.to_owned(), like: like.to_owned() });
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

    fn cidr(&mut self, text: &Text) -> Option<IpNet> {
        self.parse("a prefix", text, "10.1.0.0/24 or fd00:1::/64")
    }

    /// A prefix, or a single address.
    fn pair(&mut self, text: &Text) -> Option<IpNet> {
        match text.value.parse::<IpAddr>() {
            Ok(address) => Some(IpNet::from(address)),
            Err(_) => self.parse("an address or prefix", text, "10.1.0.100 or 10.1.0.0/28"),
        }
    }

    fn address(&mut self, text: &Text) -> Option<IpAddr> {
        self.parse("an address", text, "10.1.0.10 or fd00:1::10, without a prefix length")
    }

    fn mac(&mut self, text: &Text) -> Option<Mac> {
        let mac = text.value.parse().ok();
        if mac.is_none() {
            self.not_of("a MAC", text, "it is not six hexadecimal octets joined by colons", "\"fa:16:3e:00:00:20\"");
        }
        mac
    }

    fn truth(&mut self, what: &str, text: &Text) -> Option<bool> {
        let truth = text.value.parse().ok();
        if truth.is_none() {
            self.not_of(what, text, "it is neither true nor false", "true");
        }
        truth
    }

    fn id(&mut self, text: &Text) -> Option<Uuid> {
        let id = text.value.parse().ok();
        if id.is_none() {
            self.not_of("an id", text, "it is not a UUID", LIKE_ID);
        }
        id
    }

    /// A part that may be left out: its place is kept, its value read.
    fn part<T>(
        &mut self,
        field: Field,
        text: Option<&Text>,
        read: impl FnOnce(&mut Self, &Text) -> Option<T>,
    ) -> Option<T> {
        let text = text?;
        self.here.insert(field, text.referenced);
        read(self, text)
    }

    /// A list's parts: those that are legible, numbered as they come out.
    fn parts<'t, T>(
        &mut self,
        texts: impl Iterator<Item = &'t Text>,
        field: impl Fn(usize) -> Field,
        read: impl Fn(&mut Self, &Text) -> Option<T>,
    ) -> Vec<T> {
        let mut parts = Vec::new();
        for text in texts {
            if let Some(part) = read(self, text) {
                self.here.insert(field(parts.len()), text.referenced);
                parts.push(part);
            }
        }
        parts
    }

    fn underlay(&mut self, doc: &UnderlayDoc) -> Underlay {
        let UnderlayDoc { cidr, mtu, vxlan_port } = doc;
        let default = Underlay::default();
        let cidr = cidr.as_ref().and_then(|text| {
            let cidr = self.cidr(text)?;
            let fault = cidr_fault(cidr);
            let right = fault.is_none();
            fault.into_iter().for_each(|fault| self.mistake(text, fault));
            right.then_some(cidr)
        });
        let cidr = cidr.unwrap_or(default.cidr);
        let vxlan_port = vxlan_port.as_ref().and_then(|text| self.udp_port(text)).unwrap_or(default.vxlan_port);
        let overhead = TunnelKind::ALL.map(|kind| kind.overhead_octets(cidr.addr())).into_iter().max();
        let least = Mtu::MIN.get() + overhead.unwrap_or(0);
        let given = mtu.as_ref().and_then(|text| Some((text, self.number::<Mtu>("an MTU", text, "1500")?)));
        if let Some((text, mtu)) = given.filter(|(_, mtu)| mtu.get() < least) {
            self.mistake(text, Fault::UnderlayMtu { mtu: mtu.to_string(), least: least.to_string() });
            return Underlay { cidr, mtu: default.mtu, vxlan_port };
        }
        Underlay { cidr, mtu: given.map_or(default.mtu, |(_, mtu)| mtu), vxlan_port }
    }

    fn udp_port(&mut self, text: &Text) -> Option<u16> {
        let port = text.value.parse().ok().filter(|port| *port != 0);
        if port.is_none() {
            self.not_of("a UDP port", text, "it is not a whole number from 1 to 65535", "4789");
        }
        port
    }

    fn node(&mut self, name: &Text, doc: Option<&NodeDoc>) -> NodeSpec {
        let name = name.value.clone();
        let Some(NodeDoc { address, host_mac, bridge_mappings }) = doc else {
            return NodeSpec { name, ..NodeSpec::default() };
        };
        let address = self.part(Field::Address, address.as_ref(), Self::address);
        let host_mac = self.part(Field::HostMac, host_mac.as_ref(), Self::mac);
        let bridge_mappings = bridge_mappings.as_ref().map(|entries| self.mappings(entries));
        NodeSpec { name, address, host_mac, bridge_mappings }
    }

    fn mappings(&mut self, entries: &Entries<Text>) -> BridgeMappings {
        let mut read = BTreeMap::new();
        for (name, interface) in &entries.0 {
            let name = self.physical_network(name).map(|legal| (legal, name.referenced));
            let interface = self.parse("an interface", interface, "eth1");
            read.extend(name.zip(interface).map(|((name, place), interface)| (name, (interface, place))));
        }
        let places = read.values().enumerate().map(|(at, (_, place))| (Field::BridgeMapping(at), *place));
        self.here.extend(places);
        read.into_iter().map(|(name, (interface, _))| (name, interface)).collect()
    }

    fn physical_network(&mut self, text: &Text) -> Option<PhysicalNetwork> {
        self.parse("a physical network", text, "physnet1")
    }

    fn network(&mut self, name: &Text, doc: &NetworkDoc) -> NetworkSpec {
        let NetworkDoc { id, kind, vni, physical_network, vlan, mtu, subnets } = doc;
        let kind = kind.as_ref().and_then(|text| {
            let known = NetworkKind::ALL.into_iter().find(|kind| kind.name() == text.value);
            if known.is_none() {
                self.mistake(text, Fault::Kind { kind: text.value.clone() });
            }
            known
        });
        let kind = kind.unwrap_or_default();
        let id = self.part(Field::Id, id.as_ref(), Self::id);
        let vni = self.part(Field::Vni, vni.as_ref(), |reader, text| reader.number::<Vni>("a VNI", text, "5001"));
        let physical_network = self.part(Field::PhysicalNetwork, physical_network.as_ref(), Self::physical_network);
        let vlan = self.part(Field::Vlan, vlan.as_ref(), |reader, text| reader.number::<VlanId>("a VLAN", text, "100"));
        let mtu = self.part(Field::Mtu, mtu.as_ref(), |reader, text| reader.number::<Mtu>("an MTU", text, "1450"));
        let mut read = Vec::new();
        for SubnetDoc { cidr: text, gateway, advertise } in subnets {
            let at = read.len();
            let advertise =
                self.part(Field::Advertise(at), advertise.as_ref(), |reader, text| reader.truth("`advertise`", text));
            let gateway = self.part(Field::Gateway(at), gateway.as_ref(), Self::address);
            if let Some(cidr) = self.part(Field::Subnet(at), Some(text), Self::cidr) {
                read.push(SubnetView { cidr, gateway, advertise });
            }
        }
        NetworkSpec { name: name.value.clone(), id, kind, vni, physical_network, vlan, mtu, subnets: read }
    }

    fn router(&mut self, name: &Text, doc: &RouterDoc) -> RouterSpec {
        let RouterDoc { id, distributed, node, interfaces } = doc;
        let distributed =
            self.part(Field::Distributed, distributed.as_ref(), |reader, text| reader.truth("`distributed`", text));
        let id = self.part(Field::Id, id.as_ref(), Self::id);
        let node = self.part(Field::Node, node.as_ref(), |_, text| Some(text.value.clone()));
        let mut read = Vec::new();
        for (at, InterfaceDoc { network, mac, ips }) in interfaces.iter().enumerate() {
            self.here.insert(Field::Interface(at), network.referenced);
            let mac = self.part(Field::InterfaceMac(at), mac.as_ref(), Self::mac);
            let ips = self.parts(ips.iter(), |ip| Field::InterfaceIp(at, ip), Self::address);
            read.push(InterfaceSpec { network: network.value.clone(), id: None, mac, ips });
        }
        RouterSpec { name: name.value.clone(), id, distributed: distributed.unwrap_or(true), node, interfaces: read }
    }

    fn vm(&mut self, name: &Text, doc: &VmDoc) -> PortSpec {
        let VmDoc { node, network, ip, ips, mac, id, device, port_security, allowed_address_pairs } = doc;
        self.here.extend([(Field::Node, node.referenced), (Field::Network, network.referenced)]);
        if let Some(text) = ip.as_ref().filter(|_| !ips.is_empty()) {
            self.mistake(text, Fault::IpAndIps { vm: name.value.clone() });
        }
        // Machines of a topology file may shelter others: port security is theirs to ask for.
        let secured = port_security.as_ref().and_then(|text| self.truth("`port_security`", text));
        let mut pairs = Vec::new();
        for PairDoc { ip, mac } in allowed_address_pairs {
            self.here.insert(Field::Pair(pairs.len()), ip.referenced);
            let mac = mac.as_ref().and_then(|text| self.mac(text));
            pairs.extend(self.pair(ip).map(|ip| AddressPair { ip, mac }));
        }
        PortSpec {
            name: name.value.clone(),
            id: self.part(Field::Id, id.as_ref(), Self::id),
            network: network.value.clone(),
            node: Some(node.value.clone()),
            migrating_to: None,
            mac: self.part(Field::Mac, mac.as_ref(), Self::mac),
            ips: self.parts(ip.iter().chain(ips), Field::Ip, Self::address),
            device: self.part(Field::Device, device.as_ref(), |reader, text| reader.parse("a device", text, "tap0")),
            allowed_address_pairs: pairs,
            port_security: secured.unwrap_or(false),
            claimed: Vec::new(),
        }
    }
}
