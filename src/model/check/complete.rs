//! The second pass: what was left out is allocated, in the order of names, around everything explicit.
//!
//! Routers get their addresses before virtual machines, so that a machine's arrival never moves a router.

use core::net::IpAddr;
use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Checker, Entry, Field, provider};
use crate::model::allocate;
use crate::model::fabric::Claim;
use crate::model::names;
use crate::model::problem::Fault;
use crate::model::resource::{InterfaceSpec, Kind, NetworkSpec, NodeSpec, Object, PortSpec, Resource, RouterSpec};
use crate::model::view::SubnetView;
use crate::types::{IfName, Mac};

/// Fills in what is left out but for [`seats`], which come first. What could not be allocated is a mistake in the checker.
pub(super) fn complete(checker: &mut Checker<'_>, entries: &mut [Entry]) {
    for Entry { edit, object, resource } in &mut *entries {
        checker.at = *edit;
        match resource {
            None => {}
            Some(Resource::Node(spec)) => node(checker, object, spec),
            Some(Resource::Network(spec)) => network(checker, object, spec),
            Some(Resource::Router(spec)) => router(checker, object, spec),
            Some(Resource::Port(spec)) => port(checker, object, spec),
        }
    }
    for Entry { edit, object: _, resource } in &*entries {
        if let Some(Resource::Port(spec)) = resource {
            checker.at = *edit;
            devices(checker, entries, spec);
        }
    }
}

fn node(checker: &mut Checker<'_>, object: &Object, spec: &mut NodeSpec) {
    if spec.address.is_none() {
        let cidr = checker.fabric.underlay().cidr;
        match checker.lowest(None, cidr, None) {
            Some(address) => {
                checker.add(Claim::Tunnel(address), object);
                spec.address = Some(address);
            }
            None => no_room(checker, Field::Name, object, format!("underlay `{cidr}`")),
        }
    }
    if spec.host_mac.is_none() {
        let count = checker.fabric.claims().macs.len() + checker.added.macs.len();
        let taken = |mac: Mac| checker.owner(|claims| &claims.macs, &mac).is_some();
        let mac = allocate::host_mac(&object.name, taken, count);
        spec.host_mac = checker.exhausted("host MAC", mac);
        claim_mac(checker, spec.host_mac, object);
    }
}

fn claim_mac(checker: &mut Checker<'_>, mac: Option<Mac>, owner: &Object) {
    if let Some(mac) = mac {
        checker.add(Claim::Mac(mac), owner);
    }
}

fn network(checker: &mut Checker<'_>, object: &Object, spec: &mut NetworkSpec) {
    if spec.id.is_none() {
        spec.id = checker.derive_id("network", &object.name, object, false);
    }
    provider::allocate(checker, object, spec);
    if spec.vni.is_none() && spec.kind.tunnel().is_some() {
        let count = checker.fabric.claims().vnis.len() + checker.added.vnis.len();
        let taken = |vni| checker.owner(|claims| &claims.vnis, &vni).is_some();
        let vni = allocate::vni(&object.name, taken, count);
        spec.vni = checker.exhausted("VNI", vni);
        if let Some(vni) = spec.vni {
            checker.add(Claim::Vni(vni), object);
        }
    }
}

/// Routers that live on one node, and are not told which, stay where they are; others go where fewest of them live, to
/// the first such node by name, among those that are on the physical networks they need.
pub(super) fn seats(checker: &mut Checker<'_>, entries: &mut [Entry]) {
    entries.sort_by(|a, b| a.object.cmp(&b.object));
    let fabric = checker.fabric;
    let places = provider::places(checker, entries);
    let mut homeless: Vec<(usize, &mut RouterSpec)> = Vec::new();
    let mut seated: Vec<String> = Vec::new();
    for Entry { edit, object: _, resource } in entries {
        let Some(Resource::Router(spec)) = resource else { continue };
        if spec.distributed {
            continue;
        }
        let before = fabric.routers().get(&spec.name).and_then(|before| before.node.clone());
        spec.node = spec.node.take().or(before.filter(|node| checker.there(Kind::Node, node)));
        match &spec.node {
            Some(node) => seated.push(node.clone()),
            None => homeless.push((*edit, spec)),
        }
    }
    if homeless.is_empty() {
        return;
    }
    let put = checker.edited.iter().filter(|(object, there)| object.kind == Kind::Node && **there);
    let nodes = fabric.nodes().keys().filter(|name| checker.there(Kind::Node, name));
    let nodes = nodes.chain(put.map(|(object, _)| &object.name));
    let stays = |router: &&str| !checker.edited.contains_key(&Object::new(Kind::Router, *router));
    let mut counts: BTreeMap<String, usize> =
        nodes.map(|node| (node.clone(), fabric.routers_on(node).filter(stays).count())).collect();
    for node in seated {
        *counts.entry(node).or_default() += 1;
    }
    for (edit, spec) in homeless {
        // Where none will do, the checks that follow tell of one what it lacks.
        let may = places.get(&spec.name).filter(|nodes| !nodes.is_empty());
        let nodes = counts.iter_mut().filter(|(node, _)| may.is_none_or(|may| may.contains(*node)));
        let Some((node, count)) = nodes.min_by_key(|(_, count)| **count) else {
            checker.at = edit;
            checker.mistake(Field::Name, Fault::NoNode { router: spec.name.clone() });
            continue;
        };
        *count += 1;
        spec.node = Some(node.clone());
    }
}

fn router(checker: &mut Checker<'_>, object: &Object, spec: &mut RouterSpec) {
    if spec.id.is_none() {
        spec.id = checker.derive_id("router", &object.name, object, false);
    }
    for (at, port) in spec.interfaces.iter_mut().enumerate() {
        interface(checker, object, Field::Interface(at), port);
    }
}

fn subnets_of(checker: &Checker<'_>, network: &str) -> Vec<SubnetView> {
    let network = checker.network(network);
    network.unwrap_or_else(|| unreachable!("references were settled by the first pass")).subnets.clone()
}

fn interface(checker: &mut Checker<'_>, object: &Object, field: Field, port: &mut InterfaceSpec) {
    if port.id.is_none() {
        port.id = checker.derive_id("router-port", &format!("{}/{}", object.name, port.network), object, true);
    }
    port.mac = port.mac.or_else(|| port_mac(checker, port.id?, object));
    let mut ips = Vec::new();
    for subnet in subnets_of(checker, &port.network) {
        let explicit = port.ips.iter().copied().find(|address| subnet.cidr.contains(address));
        ips.extend(explicit.or_else(|| router_address(checker, object, field, &port.network, &subnet)));
    }
    port.ips = ips;
}

/// The subnet's gateway if nobody has it yet, else the lowest free address.
fn router_address(
    checker: &mut Checker<'_>,
    object: &Object,
    field: Field,
    network: &str,
    subnet: &SubnetView,
) -> Option<IpAddr> {
    let gateway = subnet.gateway.filter(|gateway| checker.bearer(Some(network), *gateway).is_none());
    let found = gateway.or_else(|| checker.lowest(Some(network), subnet.cidr, subnet.gateway));
    match found {
        Some(address) => checker.add(Claim::Address(network.to_owned(), address), object),
        None => no_room(checker, field, object, format!("subnet `{}` of network `{network}`", subnet.cidr)),
    }
    found
}

/// A MAC for the port of this id, claimed for its owner.
fn port_mac(checker: &mut Checker<'_>, id: Uuid, owner: &Object) -> Option<Mac> {
    let count = checker.fabric.claims().macs.len() + checker.added.macs.len();
    let mac = allocate::port_mac(id, |mac| checker.owner(|claims| &claims.macs, &mac).is_some(), count);
    let mac = checker.exhausted("port MAC", mac);
    claim_mac(checker, mac, owner);
    mac
}

fn port(checker: &mut Checker<'_>, object: &Object, spec: &mut PortSpec) {
    if spec.id.is_none() {
        spec.id = checker.derive_id("vm", &object.name, object, true);
    }
    spec.mac = spec.mac.or_else(|| port_mac(checker, spec.id?, object));
    let subnets = subnets_of(checker, &spec.network);
    let mut ips = Vec::new();
    // The explicit ones, then one from the first subnet of each family that has none.
    for ipv4 in [true, false] {
        let explicit = ips.len();
        ips.extend(spec.ips.iter().filter(|address| address.is_ipv4() == ipv4));
        let subnet = subnets.iter().find(|subnet| subnet.cidr.addr().is_ipv4() == ipv4);
        let Some(subnet) = subnet.filter(|_| ips.len() == explicit) else { continue };
        match checker.lowest(Some(&spec.network), subnet.cidr, subnet.gateway) {
            Some(address) => {
                checker.add(Claim::Address(spec.network.clone(), address), object);
                ips.push(address);
            }
            None => {
                no_room(checker, Field::Name, object, format!("subnet `{}` of network `{}`", subnet.cidr, spec.network))
            }
        }
    }
    spec.ips = ips;
}

fn no_room(checker: &mut Checker<'_>, field: Field, what: &Object, place: String) {
    checker.mistake(field, Fault::NoRoom { what: what.to_string(), place });
}

/// No device may bear the name that another port has on the same node. A hypervisor names a TAP after its own port's id:
/// that one is no clash. The entries are in the order of their objects.
fn devices(checker: &mut Checker<'_>, entries: &[Entry], spec: &PortSpec) {
    for node in [&spec.node, &spec.migrating_to].into_iter().flatten() {
        if let Some(device) = spec.device.as_ref().filter(|device| taken(checker, entries, device, node, &spec.name)) {
            checker.mistake(Field::Device, Fault::DeviceOurs { device: device.to_string() });
        }
        let Some(own) = spec.id.map(names::vm_port) else { continue };
        let mut kept = checker.fabric.claims().devices.of(&(node.clone(), own.clone()));
        if kept.any(|owner| owner.name != spec.name && !checker.edited.contains_key(owner)) {
            checker.mistake(Field::Name, Fault::DeviceOurs { device: own.to_string() });
        }
    }
}

/// Whether a device bears the name of another machine's port on this node.
fn taken(checker: &Checker<'_>, entries: &[Entry], device: &IfName, node: &str, own: &str) -> bool {
    let owner = tap_id(device).and_then(|id| checker.owner(|claims| &claims.short_ids, &id));
    let Some(owner) = owner.filter(|owner| owner.kind == Kind::Port && owner.name != own) else { return false };
    let edited = entries.binary_search_by(|entry| entry.object.cmp(owner)).ok();
    let spec = match edited.and_then(|at| entries[at].resource.as_ref()) {
        Some(Resource::Port(spec)) => Some(spec),
        Some(Resource::Node(_) | Resource::Network(_) | Resource::Router(_)) => None,
        None => checker.fabric.ports().get(&owner.name),
    };
    spec.is_some_and(|spec| [&spec.node, &spec.migrating_to].into_iter().flatten().any(|other| other == node))
}

/// The short id that a machine port's name bears, as [`short_id`](crate::model::fabric::short_id) makes it.
fn tap_id(device: &IfName) -> Option<u64> {
    let (high, low) = device.as_str().strip_prefix(names::VM_PORT)?.split_once('-')?;
    let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let legal = high.len() == 8 && low.len() == 2 && high.bytes().chain(low.bytes()).all(digits);
    u64::from_str_radix(&format!("{high}{low}"), 16).ok().filter(|_| legal)
}
