//! The bridges of physical networks in the node's switch. Pure.
//!
//! The agent owns those that are patched to br-int, whose ports are the agent's alone: so it finds what it made after
//! it has forgotten why, and leaves other bridges of the same name alone until a network needs one.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::switch::{Bridge, PortKind, Request, Show};
use crate::model::view::NodeView;
use crate::program;
use crate::types::{IfName, PhysicalNetwork};

use super::switch_spec::BridgeSpec;

/// The bridge of each physical network that a network of the view is on.
pub(super) fn bridges(view: &NodeView) -> impl Iterator<Item = BridgeSpec> {
    let bridge = |(name, interface): (&PhysicalNetwork, &IfName)| BridgeSpec {
        name: name.bridge(),
        ports: BTreeMap::from([
            (name.phy_port(), PortKind::Patch { peer: name.int_port() }),
            (interface.clone(), PortKind::Packet { netns: None, device: None, fast: false }),
        ]),
        routers: BTreeMap::new(),
    };
    program::physical_networks(view).into_iter().map(bridge)
}

/// br-int's ends of their patches.
pub(super) fn patches(view: &NodeView) -> impl Iterator<Item = (IfName, PortKind)> {
    let patch = |name: &PhysicalNetwork| (name.int_port(), PortKind::Patch { peer: name.phy_port() });
    program::physical_networks(view).into_keys().map(patch)
}

/// Bridges of physical networks that the agent made.
pub(super) fn ours(show: &Show) -> impl Iterator<Item = &IfName> {
    let is_ours = |bridge: &&Bridge| {
        PhysicalNetwork::of_bridge(&bridge.name).is_some_and(|name| {
            let patch = PortKind::Patch { peer: name.int_port() };
            bridge.ports.iter().any(|port| port.config.name == name.phy_port() && port.config.kind == patch)
        })
    };
    show.bridges.iter().filter(is_ours).map(|bridge| &bridge.name)
}

/// The removal, before anything is made, of those whose interface is wanted on another bridge.
pub(super) fn evictions<'s>(spec: &'s [BridgeSpec], show: &'s Show) -> impl Iterator<Item = Request> + 's {
    let holds_wanted = |request: &Request| {
        let Request::DelBridge { bridge: name } = request else { return false };
        let ports = show.bridges.iter().filter(|bridge| bridge.name == *name).flat_map(|bridge| &bridge.ports);
        ports.map(|port| &port.config.name).any(|port| spec.iter().any(|bridge| bridge.ports.contains_key(port)))
    };
    removals(spec, show).filter(holds_wanted)
}

/// The removal of those that are not wanted any more.
pub(super) fn removals<'s>(spec: &'s [BridgeSpec], show: &'s Show) -> impl Iterator<Item = Request> + 's {
    let unwanted = |name: &&IfName| !spec.iter().any(|bridge| bridge.name == **name);
    ours(show).filter(unwanted).map(|name| Request::DelBridge { bridge: name.clone() })
}

/// The view without the physical networks that would be reached by these interfaces, nor anything behind them.
pub(super) fn without(view: &mut NodeView, ports: &BTreeSet<IfName>) {
    let cut = |name: &PhysicalNetwork, interface: &IfName| {
        [&name.int_port(), &name.phy_port(), interface].into_iter().any(|port| ports.contains(port))
    };
    view.bridge_mappings.retain(|name, interface| !cut(name, interface));
}
