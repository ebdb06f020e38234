//! What is left of a node when some of its ports carry nothing. Pure.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use super::provider_spec;
use super::switch_spec::BridgeSpec;
use crate::api::switch::Show;
use crate::model::view::NodeView;
use crate::program;
use crate::types::IfName;

/// Wanted ports that are there and carry nothing, each with the reason.
pub(super) fn faults(spec: &[BridgeSpec], show: &Show) -> BTreeMap<IfName, String> {
    let wanted = |name: &IfName| spec.iter().any(|bridge| bridge.ports.contains_key(name));
    show.bridges
        .iter()
        .flat_map(|bridge| &bridge.ports)
        .filter(|port| wanted(&port.config.name))
        .filter_map(|port| Some((port.config.name.clone(), port.fault.clone()?)))
        .collect()
}

/// The view without what is behind these ports.
pub(super) fn without(view: &NodeView, ports: &BTreeSet<IfName>) -> NodeView {
    let mut view = view.clone();
    provider_spec::without(&mut view, ports);
    let endpoints: BTreeMap<String, IpAddr> =
        view.peers.iter().map(|peer| (peer.name.clone(), peer.tunnel_ip)).collect();
    let backend = view.backend;
    for network in &mut view.networks {
        let carrier = network.segment.tunnel();
        let tunnel = |ip: &IpAddr| carrier.map(|(kind, key)| program::tunnel_port(backend, kind, key, *ip));
        let cut = |node: &String| endpoints.get(node).and_then(tunnel).is_some_and(|port| ports.contains(&port));
        network.local_ports.retain(|vm| !ports.contains(&vm.port));
        network.remote_ports.retain(|port| !cut(&port.node));
        network.flood.retain(|node| !cut(node));
    }
    for router in &mut view.routers {
        router.interfaces.retain(|port| !ports.contains(&port.ifname));
    }
    view
}
