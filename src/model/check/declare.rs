//! The first pass: explicit values and references, every mistake noted and the rest checked all the same.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use ipnet::{IpNet, Ipv4Net};
use serde_saphyr::Location;

use super::{Checker, Declared, Interface, MAX_INTERFACES, MAX_IPS, MAX_SUBNETS, NAMES_SHOWN};
use super::{Network, Node, Router, Vm};
use crate::model::address::{self, Borne};
use crate::model::document::{Document, Entries, InterfaceDoc, NetworkDoc, NodeDoc, RouterDoc, SubnetDoc, Text};
use crate::model::document::{UnderlayDoc, VmDoc};
use crate::model::problem::Problem;
use crate::model::topology::Underlay;
use crate::model::view::{NetworkKind, SubnetView};
use crate::types::Mtu;
use crate::wire;

/// Where nodes get addresses when the document names no prefix.
const UNDERLAY_CIDR: IpNet = IpNet::V4(Ipv4Net::new_assert(core::net::Ipv4Addr::new(172, 31, 0, 0), 24));
/// Ethernet's usual payload (IEEE 802.3 §3.2.7).
const UNDERLAY_MTU: u32 = 1_500;
/// The least MTU of a link that carries IPv6 (RFC 8200 §5).
const IPV6_LEAST_MTU: u32 = 1_280;
/// The greatest length of any name, in octets: `vm-` and a name still make a short path under `/run/netns`.
const MAX_NAME: usize = 32;

pub(super) fn declare<'d>(checker: &mut Checker, document: &'d Document) -> Declared<'d> {
    let Document { version, underlay, nodes, networks, routers, vms } = document;
    if version.value != "1" {
        checker.mistake(version.referenced, Problem::Version { version: version.value.clone() });
    }
    names(checker, "node", nodes);
    names(checker, "network", networks);
    names(checker, "router", routers);
    names(checker, "virtual machine", vms);
    let underlay = self::underlay(checker, underlay);
    let nodes = nodes.0.iter().map(|(name, node)| (name.value.as_str(), self::node(checker, name, node, &underlay)));
    let nodes: BTreeMap<_, _> = nodes.collect();
    let networks = networks.0.iter().map(|(name, doc)| (name.value.as_str(), network(checker, name, doc, &underlay)));
    let networks: BTreeMap<_, _> = networks.collect();
    let routers = routers.0.iter().map(|(name, doc)| (name.value.as_str(), router(checker, name, doc, &networks)));
    let routers = routers.collect();
    let mut devices = BTreeMap::new();
    let mut declared_vms = BTreeMap::new();
    for (name, doc) in &vms.0 {
        if nodes.contains_key(name.value.as_str()) {
            let problem = Problem::NameTwice { what: "virtual machine".to_owned(), name: name.value.clone() };
            checker.mistake(name.referenced, problem);
        }
        if let Some(vm) = vm(checker, name, doc, &nodes, &networks, &mut devices) {
            declared_vms.insert(name.value.as_str(), vm);
        }
    }
    Declared { underlay, nodes, networks, routers, vms: declared_vms }
}

fn names<T>(checker: &mut Checker, what: &str, entries: &Entries<T>) {
    for (name, _) in &entries.0 {
        let text = name.value.as_bytes();
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let legal = |byte: &u8| plain(byte) || b"-_.".contains(byte);
        if text.len() > MAX_NAME || !text.first().is_some_and(plain) || !text.iter().all(legal) {
            let problem = Problem::BadName { what: what.to_owned(), name: name.value.clone() };
            checker.mistake(name.referenced, problem);
        }
    }
}

fn underlay(checker: &mut Checker, doc: &UnderlayDoc) -> Underlay {
    let UnderlayDoc { cidr, mtu, vxlan_port } = doc;
    let default_mtu = Mtu::new(UNDERLAY_MTU).unwrap_or(Mtu::MAX);
    let cidr = cidr.as_ref().and_then(|text| checker.cidr(text)).unwrap_or(UNDERLAY_CIDR);
    let vxlan_port = vxlan_port.as_ref().and_then(|text| udp_port(checker, text)).unwrap_or(wire::vxlan::PORT);
    let most_overhead = NetworkKind::ALL.map(|kind| kind.overhead_octets(cidr.addr())).into_iter().max().unwrap_or(0);
    let least = Mtu::MIN.get() + most_overhead;
    let given = mtu.as_ref().and_then(|text| Some((text, checker.number::<Mtu>("an MTU", text, "1500")?)));
    if let Some((text, mtu)) = given.filter(|(_, mtu)| mtu.get() < least) {
        let problem = Problem::UnderlayMtu { mtu: mtu.to_string(), least: least.to_string() };
        checker.mistake(text.referenced, problem);
        return Underlay { cidr, mtu: default_mtu, vxlan_port };
    }
    Underlay { cidr, mtu: given.map_or(default_mtu, |(_, mtu)| mtu), vxlan_port }
}

fn udp_port(checker: &mut Checker, text: &Text) -> Option<u16> {
    let port = text.value.parse().ok().filter(|port| *port != 0);
    if port.is_none() {
        checker.not_of("a UDP port", text, "it is not a whole number from 1 to 65535", "4789");
    }
    port
}

fn node(checker: &mut Checker, name: &Text, doc: &Option<NodeDoc>, underlay: &Underlay) -> Node {
    let owner = format!("node `{}`", name.value);
    let place = name.referenced;
    let Some(NodeDoc { address, host_mac }) = doc else { return Node { place, address: None, host_mac: None } };
    let address = address.as_ref().and_then(|text| {
        let address = checker.address(text)?;
        let (shown, cidr) = (address.to_string(), underlay.cidr.to_string());
        let problem = if !address::same_family(underlay.cidr, address) {
            Problem::AddressFamily { address: shown, cidr }
        } else if let Some(edge) = address::edge(underlay.cidr, address).filter(|_| underlay.cidr.contains(&address)) {
            Problem::AddressEdge { address: shown, cidr, edge: edge.to_owned() }
        } else if let Err(other) = checker.underlay.claim(address, || owner.clone()) {
            Problem::AddressTwice { address: shown, owner: other }
        } else {
            return Some(address);
        };
        checker.mistake(text.referenced, problem);
        None
    });
    let host_mac = host_mac.as_ref().and_then(|text| checker.mac(text, &owner, true));
    Node { place, address, host_mac }
}

fn network(checker: &mut Checker, name: &Text, doc: &NetworkDoc, underlay: &Underlay) -> Network {
    let NetworkDoc { id, kind, vni, mtu, subnets } = doc;
    let owner = format!("network `{}`", name.value);
    let kind = kind.as_ref().map_or(Some(NetworkKind::default()), |text| {
        let known = NetworkKind::ALL.into_iter().find(|kind| kind.name() == text.value);
        if known.is_none() {
            checker.mistake(text.referenced, Problem::Kind { kind: text.value.clone() });
        }
        known
    });
    let kind = kind.unwrap_or_default();
    let id = id.as_ref().and_then(|text| checker.id(text, &owner, false));
    let vni = vni.as_ref().and_then(|text| {
        let vni = checker.number("a VNI", text, "5001")?;
        if let Some(network) = checker.vnis.get(&vni).cloned() {
            checker.mistake(text.referenced, Problem::VniTwice { vni: text.value.clone(), network });
            return None;
        }
        checker.vnis.insert(vni, name.value.clone());
        Some(vni)
    });
    let subnets = self::subnets(checker, name, subnets);
    let mtu = network_mtu(checker, name, mtu.as_ref(), (kind, underlay), &subnets);
    checker.addresses.insert(name.value.clone(), Borne::default());
    Network { place: name.referenced, id, kind, vni, mtu, subnets }
}

fn network_mtu(
    checker: &mut Checker,
    name: &Text,
    text: Option<&Text>,
    (kind, underlay): (NetworkKind, &Underlay),
    subnets: &[SubnetView],
) -> Mtu {
    let overhead = kind.overhead_octets(underlay.cidr.addr());
    let most = Mtu::new(underlay.mtu.get().saturating_sub(overhead)).unwrap_or(Mtu::MIN);
    let given = text.and_then(|text| checker.number::<Mtu>("an MTU", text, "1450"));
    let mtu = given.unwrap_or(most);
    let place = text.map_or(name.referenced, |text| text.referenced);
    let shown = mtu.to_string();
    if mtu > most {
        let problem = Problem::MtuTooLarge { mtu: shown, most: most.to_string(), overhead: overhead.to_string() };
        checker.mistake(place, problem);
    } else if mtu.get() < IPV6_LEAST_MTU && subnets.iter().any(|subnet| subnet.cidr.addr().is_ipv6()) {
        checker.mistake(place, Problem::MtuTooSmall { mtu: shown, network: name.value.clone() });
    }
    mtu
}

fn subnets(checker: &mut Checker, name: &Text, docs: &[SubnetDoc]) -> Vec<SubnetView> {
    if docs.is_empty() {
        checker.mistake(name.referenced, Problem::NoSubnet { network: name.value.clone() });
    }
    if let Some(excess) = docs.get(MAX_SUBNETS) {
        let problem = Problem::TooMany { what: "subnets of a network".to_owned(), most: MAX_SUBNETS.to_string() };
        checker.mistake(excess.cidr.referenced, problem);
    }
    let mut subnets: Vec<SubnetView> = Vec::new();
    for SubnetDoc { cidr: text, gateway } in docs.iter().take(MAX_SUBNETS) {
        let Some(cidr) = checker.cidr(text) else { continue };
        if let Some(other) = subnets.iter().find(|subnet| address::overlap(subnet.cidr, cidr)) {
            let (cidr, other) = (cidr.to_string(), other.cidr.to_string());
            let problem = Problem::SubnetsOverlap { cidr, other, network: name.value.clone() };
            checker.mistake(text.referenced, problem);
            continue;
        }
        let gateway = gateway.as_ref().and_then(|text| {
            let gateway = checker.address(text)?;
            if !cidr.contains(&gateway) || address::edge(cidr, gateway).is_some() {
                let problem = Problem::GatewayOutside { gateway: gateway.to_string(), cidr: cidr.to_string() };
                checker.mistake(text.referenced, problem);
                return None;
            }
            Some(gateway)
        });
        subnets.push(SubnetView { cidr, gateway: Some(gateway.unwrap_or_else(|| address::first_host(cidr))) });
    }
    subnets
}

/// Names for a remedy, not endlessly many.
fn known<T>(names: &BTreeMap<&str, T>) -> String {
    let mut shown: Vec<String> = names.keys().take(NAMES_SHOWN).map(|name| format!("`{name}`")).collect();
    if shown.is_empty() {
        shown.push("(none is declared)".to_owned());
    } else if names.len() > NAMES_SHOWN {
        shown.push("…".to_owned());
    }
    shown.join(", ")
}

fn dangling<T>(checker: &mut Checker, what: &str, text: &Text, names: &BTreeMap<&str, T>) {
    let (what, name) = (what.to_owned(), text.value.clone());
    checker.mistake(text.referenced, Problem::Unknown { what, name, known: known(names) });
}

fn router<'d>(
    checker: &mut Checker,
    name: &Text,
    doc: &'d RouterDoc,
    networks: &BTreeMap<&str, Network>,
) -> Router<'d> {
    let RouterDoc { id, distributed, interfaces } = doc;
    let owner = format!("router `{}`", name.value);
    if let Some(text) = distributed.as_ref().filter(|text| text.value != "true") {
        let problem = if text.value == "false" {
            Problem::Centralised { router: name.value.clone(), value: text.value.clone() }
        } else {
            let (what, why) = ("`distributed`".to_owned(), "it is neither true nor false".to_owned());
            Problem::NotOf { what, value: text.value.clone(), why, like: "true".to_owned() }
        };
        checker.mistake(text.referenced, problem);
    }
    let id = id.as_ref().and_then(|text| checker.id(text, &owner, false));
    if let Some(excess) = interfaces.get(MAX_INTERFACES) {
        let problem = Problem::TooMany { what: "interfaces of a router".to_owned(), most: MAX_INTERFACES.to_string() };
        checker.mistake(excess.network.referenced, problem);
    }
    let mut joined: BTreeMap<&str, ()> = BTreeMap::new();
    let mut prefixes: BTreeMap<IpNet, &str> = BTreeMap::new();
    let mut declared = Vec::new();
    for interface in interfaces.iter().take(MAX_INTERFACES) {
        let InterfaceDoc { network: text, mac, ips } = interface;
        let Some(network) = networks.get(text.value.as_str()) else {
            dangling(checker, "network", text, networks);
            continue;
        };
        if joined.insert(&text.value, ()).is_some() {
            let problem = Problem::NetworkTwice { router: name.value.clone(), network: text.value.clone() };
            checker.mistake(text.referenced, problem);
            continue;
        }
        router_overlap(checker, name, text, network, &mut prefixes);
        let mac = mac.as_ref().and_then(|text| checker.mac(text, &owner, false));
        let ips = interface_ips(checker, &owner, &text.value, network, ips);
        declared.push(Interface { place: text.referenced, network: &text.value, mac, ips });
    }
    Router { place: name.referenced, id, interfaces: declared }
}

/// Notes the first prefix of a network that overlaps one the router has already; takes the others in.
fn router_overlap<'d>(
    checker: &mut Checker,
    router: &Text,
    joined: &'d Text,
    network: &Network,
    prefixes: &mut BTreeMap<IpNet, &'d str>,
) {
    // Prefixes taken in so far are disjoint, so the only ones that can overlap are a covering one or one within.
    let clash = network.subnets.iter().find_map(|subnet| {
        let covering = (0..=subnet.cidr.prefix_len()).find_map(|length| {
            let wider = IpNet::new(subnet.cidr.addr(), length).ok()?.trunc();
            prefixes.get_key_value(&wider)
        });
        let within = || prefixes.range(subnet.cidr..).next().filter(|(other, _)| subnet.cidr.contains(*other));
        covering.or_else(within).map(|(other, name)| (subnet.cidr, *other, *name))
    });
    if let Some((cidr, other_cidr, other)) = clash {
        let problem = Problem::RouterOverlap {
            router: router.value.clone(),
            network: joined.value.clone(),
            cidr: cidr.to_string(),
            other: other.to_owned(),
            other_cidr: other_cidr.to_string(),
        };
        checker.mistake(joined.referenced, problem);
        return;
    }
    prefixes.extend(network.subnets.iter().map(|subnet| (subnet.cidr, joined.value.as_str())));
}

/// The subnet of an explicit address, if a host may bear it there.
fn place_address<'n>(
    checker: &mut Checker,
    text: &Text,
    name: &str,
    network: &'n Network,
) -> Option<(IpAddr, &'n SubnetView)> {
    let address = checker.address(text)?;
    let shown = address.to_string();
    let Some(subnet) = network.subnets.iter().find(|subnet| subnet.cidr.contains(&address)) else {
        let cidrs: Vec<String> =
            network.subnets.iter().take(NAMES_SHOWN).map(|subnet| subnet.cidr.to_string()).collect();
        // A network whose prefixes are all wrong has been reported for that.
        if !cidrs.is_empty() {
            let problem = Problem::AddressOutside { address: shown, network: name.to_owned(), cidrs: cidrs.join(", ") };
            checker.mistake(text.referenced, problem);
        }
        return None;
    };
    if let Some(edge) = address::edge(subnet.cidr, address) {
        let problem = Problem::AddressEdge { address: shown, cidr: subnet.cidr.to_string(), edge: edge.to_owned() };
        checker.mistake(text.referenced, problem);
        return None;
    }
    Some((address, subnet))
}

/// Claims an address of a network.
fn claim(checker: &mut Checker, place: Location, network: &str, address: IpAddr, owner: &str) -> bool {
    let borne = checker.addresses.entry(network.to_owned()).or_default();
    match borne.claim(address, || owner.to_owned()) {
        Ok(()) => true,
        Err(owner) => {
            checker.mistake(place, Problem::AddressTwice { address: address.to_string(), owner });
            false
        }
    }
}

fn interface_ips(checker: &mut Checker, owner: &str, name: &str, network: &Network, texts: &[Text]) -> Vec<IpAddr> {
    let mut ips: BTreeMap<IpNet, IpAddr> = BTreeMap::new();
    for text in texts {
        let Some((address, subnet)) = place_address(checker, text, name, network) else { continue };
        match ips.entry(subnet.cidr) {
            Entry::Occupied(_) => {
                let problem = Problem::TwoInSubnet { address: address.to_string(), cidr: subnet.cidr.to_string() };
                checker.mistake(text.referenced, problem);
            }
            Entry::Vacant(free) => {
                if claim(checker, text.referenced, name, address, owner) {
                    free.insert(address);
                }
            }
        }
    }
    ips.into_values().collect()
}

fn vm<'d>(
    checker: &mut Checker,
    name: &'d Text,
    doc: &'d VmDoc,
    nodes: &BTreeMap<&str, Node>,
    networks: &BTreeMap<&str, Network>,
    devices: &mut BTreeMap<(&'d str, &'d str), &'d str>,
) -> Option<Vm<'d>> {
    let VmDoc { node, network, ip, ips, mac, id, device } = doc;
    let owner = format!("virtual machine `{}`", name.value);
    if !nodes.contains_key(node.value.as_str()) {
        dangling(checker, "node", node, nodes);
    }
    let id = id.as_ref().and_then(|text| checker.id(text, &owner, true));
    let mac = mac.as_ref().and_then(|text| checker.mac(text, &owner, false));
    let device = device.as_ref().and_then(|text| {
        let device = checker.parse("a device", text, "tap0")?;
        if let Some(other) = devices.insert((&node.value, &text.value), &name.value) {
            let (device, node) = (text.value.clone(), node.value.clone());
            let owner = format!("virtual machine `{other}`");
            checker.mistake(text.referenced, Problem::DeviceTwice { device, node, owner });
        }
        Some(device)
    });
    if let Some(text) = ip.as_ref().filter(|_| !ips.is_empty()) {
        checker.mistake(text.referenced, Problem::IpAndIps { vm: name.value.clone() });
    }
    if let Some(excess) = ips.get(MAX_IPS) {
        let problem = Problem::TooMany { what: "addresses of a virtual machine".to_owned(), most: MAX_IPS.to_string() };
        checker.mistake(excess.referenced, problem);
    }
    let Some(found) = networks.get(network.value.as_str()) else {
        dangling(checker, "network", network, networks);
        return None;
    };
    let texts = ip.iter().chain(ips.iter().take(MAX_IPS));
    let ips = texts.filter_map(|text| vm_ip(checker, &owner, &network.value, found, text)).collect();
    Some(Vm { place: name.referenced, id, node: &node.value, network: &network.value, mac, ips, device })
}

fn vm_ip(checker: &mut Checker, owner: &str, name: &str, network: &Network, text: &Text) -> Option<IpAddr> {
    let (address, subnet) = place_address(checker, text, name, network)?;
    if subnet.gateway == Some(address) {
        let problem = Problem::AddressGateway { address: address.to_string(), cidr: subnet.cidr.to_string() };
        checker.mistake(text.referenced, problem);
        return None;
    }
    claim(checker, text.referenced, name, address, owner).then_some(address)
}
