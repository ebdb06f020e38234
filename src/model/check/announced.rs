//! Addresses that ports take by announcing them: who may, who loses it, and what is left of it when a port changes.
//!
//! The newest announcement has the address, as it would on a wire; but only of a port that has an allowed pair of exactly
//! that address, and never against whoever has it as an address of its own.

use core::net::IpAddr;

use crate::model::fabric::Fabric;
use crate::model::problem::Fault;
use crate::model::resource::{AddressClaim, ClaimedAddress, Kind, Object, PortSpec, Resource};

use super::Entry;

/// The ports a claim changes, as they are to be: the one that takes the address and those that had it. None if it is so
/// already.
pub(super) fn settle(fabric: &Fabric, claim: &AddressClaim) -> Result<Vec<PortSpec>, Fault> {
    let AddressClaim { port, node, address } = claim;
    let unentitled = |why: String| Fault::Unentitled { vm: port.clone(), address: address.ip.to_string(), why };
    let spec = fabric.ports().get(port).ok_or_else(|| unentitled("it is not there".to_owned()))?;
    if spec.node.as_ref() != Some(node) {
        return Err(unentitled(format!("it is not on node `{node}`, which heard it")));
    }
    if !spec.is_entitled(*address) {
        return Err(unentitled(format!("it has no allowed pair of that address and MAC {}", address.mac)));
    }
    let network = fabric.networks().get(&spec.network);
    if !network.is_some_and(|network| network.subnets.iter().any(|subnet| subnet.cidr.contains(&address.ip))) {
        return Err(unentitled(format!("it is in no subnet of network `{}`", spec.network)));
    }
    match owner(fabric, &spec.network, address.ip) {
        Some(owner) if owner.kind == Kind::Port && owner.name == *port => return Ok(Vec::new()),
        Some(owner) => return Err(unentitled(format!("it is an address of {owner}"))),
        None => {}
    }
    let mut changed = Vec::new();
    let place = (spec.network.clone(), address.ip);
    let losers = fabric.claims().announced.of(&place).filter(|owner| owner.name != *port);
    for loser in losers.filter_map(|owner| fabric.ports().get(&owner.name)) {
        let mut loser = loser.clone();
        loser.claimed.retain(|other| other.ip != address.ip);
        changed.push(loser);
    }
    if !spec.claimed.contains(address) {
        let mut winner = spec.clone();
        winner.claimed.retain(|other| other.ip != address.ip);
        winner.claimed.push(*address);
        winner.claimed.sort();
        changed.push(winner);
    }
    Ok(changed)
}

/// Who bears an address of a network as its own. A port that is nowhere only keeps it from being allocated.
fn owner<'f>(fabric: &'f Fabric, network: &str, ip: IpAddr) -> Option<&'f Object> {
    let mut owners = fabric.claims().addresses.get(network)?.of(ip);
    owners.find(|owner| match owner.kind {
        Kind::Port => fabric.ports().get(&owner.name).is_some_and(|port| port.node.is_some()),
        Kind::Node | Kind::Network | Kind::Router => true,
    })
}

/// A port as it is to be, as what comes of an edit.
pub(super) fn entry(edit: usize, port: PortSpec) -> Entry {
    Entry { edit, object: Object::new(Kind::Port, &port.name), resource: Some(Resource::Port(port)) }
}

/// What a port keeps of what it took when it becomes another: all that it is still entitled to, while it is somewhere on
/// the same network.
pub(super) fn kept(before: &PortSpec, after: &PortSpec) -> Vec<ClaimedAddress> {
    let stays = after.node.is_some() && after.network == before.network;
    before.claimed.iter().copied().filter(|address| stays && after.is_entitled(*address)).collect()
}
