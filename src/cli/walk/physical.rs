//! The part of a walk that crosses a physical network.

use super::{Step, Walk};
use crate::api::switch::Sent;
use crate::types::Mac;

impl Walk<'_> {
    /// Whether the port is a node's interface on a physical network.
    pub(super) fn is_physical(&self, node: usize, sent: &Sent) -> bool {
        let physical = &self.nodes[node].show.physical_networks;
        physical.iter().any(|network| network.bridge == sent.bridge && network.interface == sent.port)
    }

    /// Over a physical network: to the node that has the frame's destination, as a switch that has heard of it would do, or
    /// to every node on it.
    pub(super) fn cross_physical(&mut self, node: usize, sent: Sent) {
        let name = self.nodes[node].site.node.clone();
        let Some(to) = sent.frame.first_chunk().map(|octets| Mac::new(*octets)) else { return };
        let nodes = self.nodes;
        let there = nodes.iter().enumerate().filter(|(index, _)| *index != node).filter_map(|(index, other)| {
            let network = other.show.physical_networks.iter().find(|network| network.bridge == sent.bridge)?;
            Some((index, network))
        });
        let there: Vec<_> = there.collect();
        let has = |index: usize| {
            let show = &nodes[index].show;
            show.host_mac == to || show.vms.iter().any(|vm| vm.mac == to)
        };
        let known = there.iter().any(|(index, _)| has(*index));
        let reached: Vec<_> = there.into_iter().filter(|(index, _)| !known || has(*index)).collect();
        let others: Vec<&str> = reached.iter().map(|(index, _)| nodes[*index].site.node.as_str()).collect();
        let ends = if others.is_empty() { "nobody known".to_owned() } else { others.join(", ") };
        self.heading(&format!("wire: {name} > {ends}, by {} on {}", sent.port, sent.bridge));
        if reached.is_empty() {
            let what = format!("Leaves {name} by port {} of {}, beyond which nothing is known", sent.port, sent.bridge);
            self.end(false, what);
        }
        self.told.push_str(&format!("{} octets for {to}\n", sent.frame.len()));
        for (there, network) in reached {
            let (bridge, port) = (network.bridge.clone(), network.interface.clone());
            let from = format!("node {name}");
            let frame = sent.frame.clone();
            self.waiting.push_back(Step { node: there, bridge, port, tunnel: None, frame, from });
        }
    }
}
