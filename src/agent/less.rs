//! What is left of a node when some of its ports carry nothing; and which those will be. Pure.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use super::provider_spec;
use super::switch_spec::BridgeSpec;
use crate::api::switch::Show;
use crate::gre::GreOp;
use crate::link::LinkOp;
use crate::model::view::{Attachment, NodeView};
use crate::netns::{NetnsName, PORTS_NETNS};
use crate::plan::{Op, Plan};
use crate::program;
use crate::types::IfName;
use crate::vxlan::VxlanOp;

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

/// The ports whose interfaces are not there yet, or not the ones they were, once the plan is carried out.
pub(super) fn lost_ports(view: &NodeView, plan: &Plan) -> BTreeSet<IfName> {
    let mut ports = BTreeMap::new();
    for vm in view.networks.iter().flat_map(|network| &network.local_ports) {
        if let Attachment::Netns { netns, ifname } = &vm.attach {
            ports.insert((netns.clone(), ifname.clone()), vm.port.clone());
        }
    }
    let port_of = |netns: &NetnsName, link: &IfName| {
        let at = (netns.to_string(), link.clone());
        // A router's port bears its interface's name, and so does the outer end of every veth pair.
        ports.get(&at).cloned().unwrap_or_else(|| link.clone())
    };
    let remade = plan.ops.iter().filter_map(|op| match op {
        Op::Link(netns, LinkOp::CreateVeth { name, peer, .. }) if netns.to_string() == PORTS_NETNS => {
            Some(port_of(netns, name)).filter(|_| !peer.as_str().is_empty())
        }
        Op::Link(netns, LinkOp::CreateVeth { name, .. }) => Some(port_of(netns, name)),
        // A tunnel's port bears its device's name.
        Op::Vxlan(_, VxlanOp::Create { name, .. }) | Op::Gre(_, GreOp::Create { name, .. }) => Some(name.clone()),
        Op::Vxlan(_, VxlanOp::SetFdb { .. } | VxlanOp::RemoveFdb { .. })
        | Op::Link(..)
        | Op::Netns(_)
        | Op::Sysctl(..)
        | Op::Bridge(..)
        | Op::Neigh(..)
        | Op::Route(..) => None,
    });
    plan.awaited.iter().map(|(netns, link)| port_of(netns, link)).chain(remade).collect()
}
