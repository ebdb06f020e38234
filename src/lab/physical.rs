//! The lab's physical networks: each a bridge in the lab's own namespace, which lets every VLAN through, and a veth pair
//! from it to the interface by which each node is on it.

use std::collections::{BTreeMap, BTreeSet};

use super::underlay::{WIRE, name, quiet};
use super::{Error, Outline};
use crate::link::{LinkKind, LinkSpec};
use crate::netns::{Name, NetnsName};
use crate::types::{IfName, Mtu, PhysicalNetwork};

/// The links they are made of.
pub(super) struct Physical {
    /// In the lab's own namespace.
    pub(super) own: Vec<LinkSpec>,
    /// In each node's.
    pub(super) nodes: BTreeMap<String, Vec<LinkSpec>>,
}

/// The links of every physical network.
///
/// # Errors
/// [`Error::Underlay`] if a node's interface is one it has already.
pub(super) fn links(outline: &Outline) -> Result<Physical, Error> {
    let mtu = outline.underlay.mtu;
    let mut links = Physical { own: Vec::new(), nodes: BTreeMap::new() };
    let mapped = || outline.views.values().flat_map(|view| view.bridge_mappings.keys());
    let networks: BTreeSet<&PhysicalNetwork> = mapped().collect();
    for (number, physical) in networks.into_iter().enumerate() {
        let bridge = physical.bridge();
        links.own.push(link(bridge.clone(), LinkKind::Bridge, mtu));
        for (index, (node, view)) in outline.views.iter().enumerate() {
            let Some(wire) = view.bridge_mappings.get(physical) else { continue };
            if [WIRE, "lo"].contains(&wire.as_str()) {
                return Err(Error::Underlay(format!(
                    "node `{node}` cannot be on physical network `{physical}` by {wire}, which every node of a lab has \
                     already: write another interface, such as eth1"
                )));
            }
            let netns = NetnsName::from(Name::new(node).map_err(|error| Error::Underlay(error.to_string()))?);
            let port = name(&format!("phys{number}-{index}"));
            let mut outer = link(port.clone(), LinkKind::Veth { peer: wire.clone(), peer_netns: netns }, mtu);
            outer.controller = Some(bridge.clone());
            links.own.push(outer);
            let inner = link(wire.clone(), LinkKind::Veth { peer: port, peer_netns: NetnsName::Own }, mtu);
            links.nodes.entry(node.clone()).or_default().push(inner);
        }
    }
    Ok(links)
}

fn link(link: IfName, kind: LinkKind, mtu: Mtu) -> LinkSpec {
    let mut spec = LinkSpec::new(link, kind);
    spec.sysctls = quiet(&spec.name);
    spec.mtu = Some(mtu);
    spec
}
