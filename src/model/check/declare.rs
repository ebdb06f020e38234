//! The first pass: explicit values and references, every mistake noted and the rest checked all the same.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::{
    Checker, Entry, Field, MAX_INTERFACES, MAX_IPS, MAX_PAIRS, MAX_SUBNETS, NAMES_SHOWN, cidr_fault, fill, provider,
};
use crate::model::address;
use crate::model::fabric::Claim;
use crate::model::problem::Fault;
use crate::model::resource::{Kind, NetworkSpec, NodeSpec, Object, PortSpec, Resource, RouterSpec};
use crate::model::view::{NetworkKind, SubnetView};
use crate::types::Mtu;

/// The least MTU of a link that carries IPv6 (RFC 8200 §5).
const IPV6_LEAST_MTU: u32 = 1_280;
/// The greatest length of any name, in octets: `vm-` and a name still make a short path under `/run/netns`.
const MAX_NAME: usize = 32;

pub(super) fn declare(checker: &mut Checker<'_>, entries: &mut [Entry]) {
    for kind in Kind::ALL {
        for entry in entries.iter_mut().filter(|entry| entry.object.kind == kind) {
            checker.at = entry.edit;
            let Entry { edit: _, object, resource } = entry;
            match resource {
                None => delete(checker, object),
                Some(resource) => {
                    name(checker, object);
                    match resource {
                        Resource::Node(spec) => node(checker, object, spec),
                        Resource::Network(spec) => network(checker, object, spec),
                        Resource::Router(spec) => router(checker, object, spec),
                        Resource::Port(spec) => port(checker, object, spec),
                    }
                }
            }
        }
    }
}

fn name(checker: &mut Checker<'_>, object: &Object) {
    let text = object.name.as_bytes();
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let legal = |byte: &u8| plain(byte) || b"-_.".contains(byte);
    if text.len() > MAX_NAME || !text.first().is_some_and(plain) || !text.iter().all(legal) {
        checker.mistake(Field::Name, Fault::BadName { what: word(object.kind).to_owned(), name: object.name.clone() });
    }
}

/// What messages call an object of a kind.
fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Node | Kind::Network | Kind::Router => kind.word(),
        Kind::Port => "virtual machine",
    }
}

/// Nothing that stays may refer to what goes.
fn delete(checker: &mut Checker<'_>, object: &Object) {
    let fabric = checker.fabric;
    if !fabric.contains(object) {
        checker.mistake(Field::Name, Fault::Absent { object: object.to_string() });
        return;
    }
    let name = object.name.as_str();
    let of = |kind: Kind| move |name: &str| Object::new(kind, name);
    let stays = |object: &Object| !checker.edited.contains_key(object);
    let by = match object.kind {
        Kind::Node => {
            let ports = fabric.ports_on(name).map(of(Kind::Port));
            ports.chain(fabric.routers_on(name).map(of(Kind::Router))).find(stays)
        }
        Kind::Network => {
            let ports = fabric.ports_of(name).map(of(Kind::Port));
            ports.chain(fabric.routers_of(name).map(of(Kind::Router))).find(stays)
        }
        Kind::Router | Kind::Port => None,
    };
    if let Some(by) = by {
        checker.mistake(Field::Name, Fault::InUse { object: object.to_string(), by: by.to_string() });
    }
}

fn node(checker: &mut Checker<'_>, object: &Object, spec: &NodeSpec) {
    let NodeSpec { name, address, host_mac, bridge_mappings: _ } = spec;
    let new = !checker.fabric.contains(object);
    if new && checker.fabric.ports().contains_key(name) && checker.there(Kind::Port, name) {
        let fault = Fault::NameTwice { what: word(Kind::Port).to_owned(), name: name.clone() };
        checker.mistake(Field::Name, fault);
    }
    if let Some(address) = *address {
        tunnel(checker, object, address);
    }
    if let Some(mac) = *host_mac {
        checker.mac(Field::HostMac, mac, object);
    }
    provider::mappings(checker, object, spec);
}

fn tunnel(checker: &mut Checker<'_>, object: &Object, address: IpAddr) {
    if !checker.address(Field::Address, address) {
        return;
    }
    let underlay = checker.fabric.underlay().cidr;
    let (shown, cidr) = (address.to_string(), underlay.to_string());
    let fault = if !address::same_family(underlay, address) {
        Fault::AddressFamily { address: shown, cidr }
    } else if let Some(edge) = address::edge(underlay, address).filter(|_| underlay.contains(&address)) {
        Fault::AddressEdge { address: shown, cidr, edge: edge.to_owned() }
    } else if let Some(other) = checker.bearer(None, address) {
        Fault::AddressTwice { address: shown, owner: other.to_string() }
    } else {
        checker.add(Claim::Tunnel(address), object);
        return;
    };
    checker.mistake(Field::Address, fault);
}

fn network(checker: &mut Checker<'_>, object: &Object, spec: &mut NetworkSpec) {
    let NetworkSpec { name, id, kind, vni, mtu, .. } = &*spec;
    if let Some(id) = *id {
        checker.id(Field::Id, id, object, false);
    }
    if let Some(vni) = *vni {
        match checker.owner(|claims| &claims.vnis, &vni).map(|other| other.name.clone()) {
            Some(network) => checker.mistake(Field::Vni, Fault::VniTwice { vni: vni.to_string(), network }),
            None => checker.add(Claim::Vni(vni), object),
        }
    }
    provider::segment(checker, object, spec);
    let subnets = subnets(checker, name, &spec.subnets);
    let mtu = network_mtu(checker, name, (*kind, *mtu), &subnets);
    spec.mtu = Some(mtu);
    spec.subnets = subnets;
    checker.networks.insert(spec.name.clone(), spec.clone());
    if checker.fabric.contains(object) {
        stranded(checker, spec);
    }
}

fn network_mtu(
    checker: &mut Checker<'_>,
    name: &str,
    (kind, given): (NetworkKind, Option<Mtu>),
    subnets: &[SubnetView],
) -> Mtu {
    let underlay = checker.fabric.underlay();
    let overhead = kind.tunnel().map_or(0, |tunnel| tunnel.overhead_octets(underlay.cidr.addr()));
    let most = Mtu::new(underlay.mtu.get().saturating_sub(overhead)).unwrap_or(Mtu::MIN);
    let mtu = given.unwrap_or(most);
    let shown = mtu.to_string();
    if mtu > most {
        let (most, overhead, kind) = (most.to_string(), overhead.to_string(), kind.name().to_owned());
        let fault = Fault::MtuTooLarge { mtu: shown, most, overhead, kind };
        checker.mistake(Field::Mtu, fault);
    } else if mtu.get() < IPV6_LEAST_MTU && subnets.iter().any(|subnet| subnet.cidr.addr().is_ipv6()) {
        checker.mistake(Field::Mtu, Fault::MtuTooSmall { mtu: shown, network: name.to_owned() });
    }
    mtu
}

/// The subnets that are right, gateways filled in.
fn subnets(checker: &mut Checker<'_>, network: &str, given: &[SubnetView]) -> Vec<SubnetView> {
    if given.is_empty() {
        checker.mistake(Field::Name, Fault::NoSubnet { network: network.to_owned() });
    }
    if given.len() > MAX_SUBNETS {
        let fault = Fault::TooMany { what: "subnets of a network".to_owned(), most: MAX_SUBNETS.to_string() };
        checker.mistake(Field::Subnet(MAX_SUBNETS), fault);
    }
    let mut subnets: Vec<SubnetView> = Vec::new();
    for (at, SubnetView { cidr, gateway, advertise }) in given.iter().enumerate().take(MAX_SUBNETS) {
        let cidr = *cidr;
        if let Some(fault) = cidr_fault(cidr) {
            checker.mistake(Field::Subnet(at), fault);
            continue;
        }
        if let Some(other) = subnets.iter().find(|subnet| address::overlap(subnet.cidr, cidr)) {
            let (cidr, other) = (cidr.to_string(), other.cidr.to_string());
            checker.mistake(Field::Subnet(at), Fault::SubnetsOverlap { cidr, other, network: network.to_owned() });
            continue;
        }
        let gateway = gateway.filter(|gateway| {
            if !checker.address(Field::Gateway(at), *gateway) {
                return false;
            }
            let outside = !cidr.contains(gateway) || address::edge(cidr, *gateway).is_some();
            if outside {
                let fault = Fault::GatewayOutside { gateway: gateway.to_string(), cidr: cidr.to_string() };
                checker.mistake(Field::Gateway(at), fault);
            }
            !outside
        });
        let gateway = Some(gateway.unwrap_or_else(|| address::first_host(cidr)));
        subnets.push(SubnetView { cidr, gateway, advertise: *advertise });
    }
    subnets
}

/// Ports that stay must still have their addresses in a network that changes; routers follow by themselves.
fn stranded(checker: &mut Checker<'_>, network: &NetworkSpec) {
    let fabric = checker.fabric;
    if fabric.networks().get(&network.name).is_some_and(|before| before.subnets == network.subnets) {
        return;
    }
    for port in fabric.ports_of(&network.name).filter_map(|port| fabric.ports().get(port)) {
        let object = Object::new(Kind::Port, &port.name);
        if checker.edited.contains_key(&object) {
            continue;
        }
        for address in &port.ips {
            let owner = object.to_string();
            let subnet = network.subnets.iter().find(|subnet| subnet.cidr.contains(address));
            let fault = match subnet {
                None => Fault::Stranded { address: address.to_string(), owner, network: network.name.clone() },
                Some(subnet) if fill::gateway(subnet) == *address => {
                    Fault::GatewayBorne { gateway: address.to_string(), owner }
                }
                Some(_) => continue,
            };
            checker.mistake(Field::Name, fault);
        }
    }
}

/// A reference that leads nowhere, with names that would lead somewhere, not endlessly many.
fn dangling(checker: &mut Checker<'_>, field: Field, kind: Kind, name: &str) {
    let fabric = checker.fabric;
    let there = |name: &&str| checker.there(kind, name);
    let held: Vec<&str> = match kind {
        Kind::Node => fabric.nodes().keys().map(String::as_str).filter(there).take(NAMES_SHOWN + 1).collect(),
        Kind::Network => fabric.networks().keys().map(String::as_str).filter(there).take(NAMES_SHOWN + 1).collect(),
        Kind::Router | Kind::Port => Vec::new(),
    };
    let least = Object::new(kind, "");
    let edited = checker.edited.range(least..).take_while(|(object, _)| object.kind == kind);
    let put = edited.filter(|(_, there)| **there).map(|(object, _)| object.name.as_str()).take(NAMES_SHOWN + 1);
    let names: BTreeSet<&str> = held.into_iter().chain(put).collect();
    let mut shown: Vec<String> = names.iter().take(NAMES_SHOWN).map(|name| format!("`{name}`")).collect();
    if shown.is_empty() {
        shown.push("(none is declared)".to_owned());
    } else if names.len() > NAMES_SHOWN {
        shown.push("…".to_owned());
    }
    let fault = Fault::Unknown { what: word(kind).to_owned(), name: name.to_owned(), known: shown.join(", ") };
    checker.mistake(field, fault);
}

fn router(checker: &mut Checker<'_>, object: &Object, spec: &RouterSpec) {
    let RouterSpec { name, id, distributed, node, interfaces } = spec;
    match node {
        Some(node) if *distributed => {
            checker.mistake(Field::Node, Fault::RouterNode { router: name.clone(), node: node.clone() });
        }
        Some(node) if !checker.there(Kind::Node, node) => dangling(checker, Field::Node, Kind::Node, node),
        Some(_) | None => {}
    }
    if let Some(id) = *id {
        checker.id(Field::Id, id, object, false);
    }
    if interfaces.len() > MAX_INTERFACES {
        let fault = Fault::TooMany { what: "interfaces of a router".to_owned(), most: MAX_INTERFACES.to_string() };
        checker.mistake(Field::Interface(MAX_INTERFACES), fault);
    }
    let mut joined = BTreeSet::new();
    let mut prefixes: BTreeMap<IpNet, &str> = BTreeMap::new();
    for (at, port) in interfaces.iter().enumerate().take(MAX_INTERFACES) {
        let Some(network) = checker.network(&port.network).cloned() else {
            dangling(checker, Field::Interface(at), Kind::Network, &port.network);
            continue;
        };
        if !joined.insert(&port.network) {
            let fault = Fault::NetworkTwice { router: name.clone(), network: port.network.clone() };
            checker.mistake(Field::Interface(at), fault);
            continue;
        }
        match overlap(&network, &prefixes) {
            Some((cidr, other_cidr, other)) => {
                let fault = Fault::RouterOverlap {
                    router: name.clone(),
                    network: port.network.clone(),
                    cidr: cidr.to_string(),
                    other: other.to_owned(),
                    other_cidr: other_cidr.to_string(),
                };
                checker.mistake(Field::Interface(at), fault);
            }
            None => prefixes.extend(network.subnets.iter().map(|subnet| (subnet.cidr, port.network.as_str()))),
        }
        if let Some(id) = port.id {
            checker.id(Field::Interface(at), id, object, true);
        }
        if let Some(mac) = port.mac {
            checker.mac(Field::InterfaceMac(at), mac, object);
        }
        interface_ips(checker, object, at, &network, &port.ips);
    }
}

/// The first prefix of a network that overlaps one of these, and that one.
fn overlap<'p>(network: &NetworkSpec, prefixes: &BTreeMap<IpNet, &'p str>) -> Option<(IpNet, IpNet, &'p str)> {
    // These prefixes are disjoint, so the only ones that can overlap are a covering one or one within.
    network.subnets.iter().find_map(|subnet| {
        let covering = (0..=subnet.cidr.prefix_len()).find_map(|length| {
            let wider = IpNet::new(subnet.cidr.addr(), length).ok()?.trunc();
            prefixes.get_key_value(&wider)
        });
        let within = || prefixes.range(subnet.cidr..).next().filter(|(other, _)| subnet.cidr.contains(*other));
        covering.or_else(within).map(|(other, name)| (subnet.cidr, *other, *name))
    })
}

/// The subnet of an explicit address, if a host may bear it there.
fn place<'n>(
    checker: &mut Checker<'_>,
    field: Field,
    address: IpAddr,
    network: &'n NetworkSpec,
) -> Option<&'n SubnetView> {
    if !checker.address(field, address) {
        return None;
    }
    let shown = address.to_string();
    let Some(subnet) = network.subnets.iter().find(|subnet| subnet.cidr.contains(&address)) else {
        let cidrs: Vec<String> =
            network.subnets.iter().take(NAMES_SHOWN).map(|subnet| subnet.cidr.to_string()).collect();
        // A network whose prefixes are all wrong has been reported for that.
        if !cidrs.is_empty() {
            let network = network.name.clone();
            checker.mistake(field, Fault::AddressOutside { address: shown, network, cidrs: cidrs.join(", ") });
        }
        return None;
    };
    if let Some(edge) = address::edge(subnet.cidr, address) {
        let fault = Fault::AddressEdge { address: shown, cidr: subnet.cidr.to_string(), edge: edge.to_owned() };
        checker.mistake(field, fault);
        return None;
    }
    Some(subnet)
}

/// Claims an address of a network.
fn claim(checker: &mut Checker<'_>, field: Field, network: &str, address: IpAddr, owner: &Object) {
    match checker.bearer(Some(network), address).map(Object::to_string) {
        Some(owner) => checker.mistake(field, Fault::AddressTwice { address: address.to_string(), owner }),
        None => checker.add(Claim::Address(network.to_owned(), address), owner),
    }
}

fn interface_ips(checker: &mut Checker<'_>, object: &Object, interface: usize, network: &NetworkSpec, ips: &[IpAddr]) {
    let mut taken: BTreeSet<IpNet> = BTreeSet::new();
    for (at, address) in ips.iter().enumerate() {
        let field = Field::InterfaceIp(interface, at);
        let Some(subnet) = place(checker, field, *address, network) else { continue };
        if taken.insert(subnet.cidr) {
            claim(checker, field, &network.name, *address, object);
        } else {
            let fault = Fault::TwoInSubnet { address: address.to_string(), cidr: subnet.cidr.to_string() };
            checker.mistake(field, fault);
        }
    }
}

fn port(checker: &mut Checker<'_>, object: &Object, spec: &PortSpec) {
    let PortSpec { name, id, network, mac, ips, .. } = spec;
    if checker.there(Kind::Node, name) {
        let fault = Fault::NameTwice { what: word(Kind::Port).to_owned(), name: name.clone() };
        checker.mistake(Field::Name, fault);
    }
    binding(checker, object, spec);
    if let Some(id) = *id {
        checker.id(Field::Id, id, object, true);
    }
    if let Some(mac) = *mac {
        checker.mac(Field::Mac, mac, object);
    }
    pairs(checker, spec);
    if ips.len() > MAX_IPS {
        let fault = Fault::TooMany { what: "addresses of a virtual machine".to_owned(), most: MAX_IPS.to_string() };
        checker.mistake(Field::Ip(MAX_IPS), fault);
    }
    let Some(network) = checker.network(network).cloned() else {
        dangling(checker, Field::Network, Kind::Network, network);
        return;
    };
    for (at, address) in ips.iter().enumerate().take(MAX_IPS) {
        let Some(subnet) = place(checker, Field::Ip(at), *address, &network) else { continue };
        if subnet.gateway == Some(*address) {
            let fault = Fault::AddressGateway { address: address.to_string(), cidr: subnet.cidr.to_string() };
            checker.mistake(Field::Ip(at), fault);
        } else {
            claim(checker, Field::Ip(at), &network.name, *address, object);
        }
    }
}

/// Where a port is to be, and what it is attached to there.
fn binding(checker: &mut Checker<'_>, object: &Object, spec: &PortSpec) {
    let PortSpec { name, node, migrating_to, device, .. } = spec;
    for (field, node) in [(Field::Node, node), (Field::MigratingTo, migrating_to)] {
        let Some(node) = node else { continue };
        if !checker.there(Kind::Node, node) {
            dangling(checker, field, Kind::Node, node);
        }
    }
    if migrating_to.is_some() && (node.is_none() || migrating_to == node) {
        let why = if node.is_none() { "it is bound to no node" } else { "it is on that node already" };
        checker.mistake(Field::MigratingTo, Fault::Migration { vm: name.clone(), why: why.to_owned() });
        return;
    }
    for (node, device) in [node, migrating_to].into_iter().flatten().zip(device.iter().cycle()) {
        match checker.owner(|claims| &claims.devices, &(node.clone(), device.clone())).map(Object::to_string) {
            Some(owner) => {
                let fault = Fault::DeviceTwice { device: device.to_string(), node: node.clone(), owner };
                checker.mistake(Field::Device, fault);
            }
            None => checker.add(Claim::Device(node.clone(), device.clone()), object),
        }
    }
}

fn pairs(checker: &mut Checker<'_>, spec: &PortSpec) {
    let pairs = &spec.allowed_address_pairs;
    if pairs.len() > MAX_PAIRS {
        let fault = Fault::TooMany { what: "allowed address pairs of a port".to_owned(), most: MAX_PAIRS.to_string() };
        checker.mistake(Field::Pair(MAX_PAIRS), fault);
    }
    for (at, pair) in pairs.iter().enumerate().take(MAX_PAIRS) {
        if pair.ip != pair.ip.trunc() {
            let (cidr, network) = (pair.ip.to_string(), pair.ip.trunc().to_string());
            checker.mistake(Field::Pair(at), Fault::HostBits { cidr, network });
        }
        if let Some(mac) = pair.mac {
            checker.mac_of_station(Field::Pair(at), mac, false);
        }
    }
}
