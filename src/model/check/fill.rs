//! Before the passes: what is left out stays as it is, if the object is there and it still fits; and routers follow the
//! subnets of their networks.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use super::{Checker, Entry, Field, announced};
use crate::model::address::first_host;
use crate::model::fabric::Fabric;
use crate::model::problem::Fault;
use crate::model::resource::{Edit, InterfaceSpec, NetworkSpec, NodeSpec, PortSpec, Resource, RouterSpec};
use crate::model::view::SubnetView;

/// Networks as they are asked for.
type Asked<'e> = BTreeMap<&'e str, &'e NetworkSpec>;

/// The edits, each object once, with what stays as it is; and the routers that are touched by them.
pub(super) fn entries(checker: &mut Checker<'_>, edits: &[Edit]) -> Vec<Entry> {
    let fabric = checker.fabric;
    let asked: Asked<'_> = edits.iter().filter_map(network_of).map(|spec| (spec.name.as_str(), spec)).collect();
    let mut entries = Vec::with_capacity(edits.len());
    let mut seen = BTreeSet::new();
    for (number, edit) in edits.iter().enumerate() {
        checker.at = number;
        let object = edit.object();
        if !seen.insert(object.clone()) {
            checker.mistake(Field::Name, Fault::EditTwice { object: object.to_string() });
            continue;
        }
        let resource = match edit {
            Edit::Put { resource, .. } => Some(fill(fabric, &asked, resource)),
            Edit::Delete { .. } => None,
            Edit::Claim(claim) => {
                match announced::settle(fabric, claim) {
                    Ok(ports) => {
                        for entry in ports.into_iter().map(|port| announced::entry(number, port)) {
                            if entry.object == object || seen.insert(entry.object.clone()) {
                                entries.push(entry);
                            } else {
                                checker.mistake(Field::Name, Fault::EditTwice { object: entry.object.to_string() });
                            }
                        }
                    }
                    Err(fault) => checker.mistake(Field::Name, fault),
                }
                continue;
            }
        };
        entries.push(Entry { edit: number, object, resource });
    }
    for (number, edit) in edits.iter().enumerate() {
        let Some(spec) = network_of(edit) else { continue };
        let moved =
            fabric.networks().get(&spec.name).is_some_and(|before| !same_subnets(&before.subnets, &spec.subnets));
        let followers = fabric.routers_of(&spec.name).filter_map(|router| fabric.routers().get(router));
        // Not only those of a network that moves: what was written in parts may have left some behind.
        for before in followers.filter(|router| moved || !fits(router, spec)) {
            let mut router = before.clone();
            router.interfaces.iter_mut().for_each(|port| port.ips.clear());
            let resource = Resource::Router(fill_router(fabric, &asked, router));
            if seen.insert(resource.object()) {
                entries.push(Entry { edit: number, object: resource.object(), resource: Some(resource) });
            }
        }
    }
    entries
}

fn network_of(edit: &Edit) -> Option<&NetworkSpec> {
    match edit {
        Edit::Put { resource: Resource::Network(spec), .. } => Some(spec),
        Edit::Put { resource: Resource::Node(_) | Resource::Router(_) | Resource::Port(_), .. }
        | Edit::Delete { .. }
        | Edit::Claim(_) => None,
    }
}

/// Whether a router has an address in each subnet of a network, and none elsewhere.
fn fits(router: &RouterSpec, network: &NetworkSpec) -> bool {
    let mut ports = router.interfaces.iter().filter(|port| port.network == network.name);
    ports.all(|port| {
        port.ips.iter().all(|ip| subnet_of(&network.subnets, *ip).is_some())
            && network.subnets.iter().all(|subnet| port.ips.iter().any(|ip| subnet.cidr.contains(ip)))
    })
}

/// The gateway a subnet has or will have.
pub(in crate::model) fn gateway(subnet: &SubnetView) -> IpAddr {
    subnet.gateway.unwrap_or_else(|| first_host(subnet.cidr))
}

fn same_subnets(before: &[SubnetView], after: &[SubnetView]) -> bool {
    before.len() == after.len() && before.iter().zip(after).all(|(a, b)| a.cidr == b.cidr && gateway(a) == gateway(b))
}

fn fill(fabric: &Fabric, asked: &Asked<'_>, resource: &Resource) -> Resource {
    match resource.clone() {
        Resource::Node(spec) => {
            let before = fabric.nodes().get(&spec.name);
            let address = spec.address.or_else(|| before?.address);
            let host_mac = spec.host_mac.or_else(|| before?.host_mac);
            let mappings = spec.bridge_mappings.or_else(|| before?.bridge_mappings.clone());
            let bridge_mappings = mappings.filter(|mappings| !mappings.is_empty());
            Resource::Node(NodeSpec { address, host_mac, bridge_mappings, ..spec })
        }
        Resource::Network(spec) => Resource::Network(fill_network(fabric, spec)),
        Resource::Router(spec) => Resource::Router(fill_router(fabric, asked, spec)),
        Resource::Port(spec) => Resource::Port(fill_port(fabric, asked, spec)),
    }
}

/// What a network of another type had is not for this one, its id apart.
fn fill_network(fabric: &Fabric, mut spec: NetworkSpec) -> NetworkSpec {
    let Some(before) = fabric.networks().get(&spec.name) else { return spec };
    spec.id = spec.id.or(before.id);
    if spec.kind == before.kind {
        spec.vni = spec.vni.or(before.vni);
        spec.mtu = spec.mtu.or(before.mtu);
        spec.physical_network = spec.physical_network.or_else(|| before.physical_network.clone());
        // A tag may be another network's elsewhere.
        spec.vlan = spec.vlan.or(before.vlan.filter(|_| spec.physical_network == before.physical_network));
    }
    spec
}

/// A network's subnets as asked for, or as they are.
fn subnets<'a>(fabric: &'a Fabric, asked: &Asked<'a>, network: &str) -> &'a [SubnetView] {
    let spec = asked.get(network).copied().or_else(|| fabric.networks().get(network));
    spec.map_or(&[], |spec| &spec.subnets)
}

fn subnet_of(subnets: &[SubnetView], address: IpAddr) -> Option<&SubnetView> {
    subnets.iter().find(|subnet| subnet.cidr.contains(&address))
}

fn fill_router(fabric: &Fabric, asked: &Asked<'_>, mut spec: RouterSpec) -> RouterSpec {
    let Some(before) = fabric.routers().get(&spec.name) else { return spec };
    spec.id = spec.id.or(before.id);
    for port in &mut spec.interfaces {
        let Some(old) = before.interfaces.iter().find(|old| old.network == port.network) else { continue };
        port.id = port.id.or(old.id);
        port.mac = port.mac.or(old.mac);
        let kept = kept_addresses(fabric, asked, port, old);
        port.ips.extend(kept);
    }
    spec
}

/// An interface's former addresses in the subnets where it is given none; not a former gateway's.
fn kept_addresses(fabric: &Fabric, asked: &Asked<'_>, port: &InterfaceSpec, old: &InterfaceSpec) -> Vec<IpAddr> {
    let is = subnets(fabric, asked, &port.network);
    let was = fabric.networks().get(&port.network).map_or(&[][..], |spec| &spec.subnets);
    let fits = |address: &IpAddr| {
        let Some(subnet) = subnet_of(is, *address) else { return false };
        let demoted =
            subnet_of(was, *address).is_some_and(|was| gateway(was) == *address) && gateway(subnet) != *address;
        !demoted && !port.ips.iter().any(|given| subnet.cidr.contains(given))
    };
    old.ips.iter().copied().filter(fits).collect()
}

fn fill_port(fabric: &Fabric, asked: &Asked<'_>, mut spec: PortSpec) -> PortSpec {
    spec.claimed.clear();
    let Some(before) = fabric.ports().get(&spec.name) else { return spec };
    spec.id = spec.id.or(before.id);
    spec.mac = spec.mac.or(before.mac);
    spec.claimed = announced::kept(before, &spec);
    if spec.network == before.network {
        let is = subnets(fabric, asked, &spec.network);
        let fits = |address: &&IpAddr| {
            let subnet = subnet_of(is, **address);
            let free = subnet.is_some_and(|subnet| gateway(subnet) != **address);
            free && !spec.ips.iter().any(|given| given.is_ipv4() == address.is_ipv4())
        };
        let kept: Vec<IpAddr> = before.ips.iter().filter(fits).copied().collect();
        spec.ips.extend(kept);
    }
    spec
}
