//! VLAN and flat networks: br-int's way from a physical network, and the bridge of each physical network.
//!
//! ```text
//!  br-int:  int-NAME ─▶ 0 tag to local VLAN ─▶ 60
//!                       ├▶ 2 from a remote router: its MAC restored, tag to local VLAN ─▶ 60
//!                       └▶ 4 answers to this router's questions ─▶ qr-
//!  br-NAME: phy-NAME ─▶ 0 ─▶ 1 router's MAC becomes the host's ─▶ 2 local VLAN to tag ─▶ interface
//!           interface ─▶ 0 ─▶ 3 what comes back, or pretends to be a router: dropped ─▶ phy-NAME
//! ```
//! The bridge learns nothing and floods nothing: it has two ports, and what a group or nobody known is meant for leaves
//! once; the physical network does the rest.

use std::collections::BTreeMap;

use crate::model::view::NodeView;
use crate::types::{IfName, PhysicalNetwork};

use super::flow::{self, ProgramFlow, UNTAGGED, port};
use super::site::{Net, Site};
use super::tunnel;

const CLASSIFY: u8 = 0;
const FROM_ROUTER: u8 = 1;
const TRANSLATE: u8 = 2;
const FROM_WIRE: u8 = 3;

/// The physical networks a node needs a bridge for, each with the interface by which the node is on it.
pub(super) fn bridges(view: &NodeView) -> BTreeMap<&PhysicalNetwork, &IfName> {
    let used = view.networks.iter().filter_map(|network| network.segment.physical_network());
    used.filter_map(|name| Some((name, view.bridge_mappings.get(name)?))).collect()
}

/// The flows of a physical network's bridge.
pub(super) fn flows(site: &Site<'_>, physical: &PhysicalNetwork, interface: &IfName) -> Vec<ProgramFlow> {
    let (patch, wire) = (port(&physical.phy_port()), port(interface));
    let to = |table: u8| format!("resubmit(,{table})");
    let mut flows = vec![
        ProgramFlow::new(CLASSIFY, 2, format!("in_port={patch}"), to(FROM_ROUTER)),
        ProgramFlow::new(CLASSIFY, 1, format!("in_port={wire}"), to(FROM_WIRE)),
        ProgramFlow::new(CLASSIFY, 0, "", "drop"),
        ProgramFlow::new(FROM_ROUTER, 0, "", to(TRANSLATE)),
        ProgramFlow::new(TRANSLATE, 0, "", "drop"),
        // Sent back by somebody.
        ProgramFlow::new(FROM_WIRE, 2, format!("dl_src={}", site.node.host_mac), "drop"),
        ProgramFlow::new(FROM_WIRE, 0, "", format!("output:{patch}")),
    ];
    for net in site.networks.iter().filter(|net| net.view.segment.physical_network() == Some(physical)) {
        flows.extend(net.replicas.iter().flat_map(|router| tunnel::from_router(net, router, site.node.host_mac)));
        let pretends = |mac| ProgramFlow::new(FROM_WIRE, 2, format!("{},dl_src={mac}", tag(net)), "drop");
        flows.extend(net.replicas.iter().map(|router| pretends(router.mac)));
        let translated = net.view.segment.vlan().map_or("strip_vlan".to_owned(), |vlan| format!("mod_vlan_vid:{vlan}"));
        let actions = format!("{translated},output:{wire}");
        flows.push(ProgramFlow::new(TRANSLATE, 4, flow::vlan(net.vlan), actions));
    }
    flows
}

/// br-int's table 0 for what comes from physical networks: for this node's host MAC, from another's, or a station's.
pub(super) fn classify(site: &Site<'_>, [from_router, to_host, local]: [u8; 3]) -> Vec<ProgramFlow> {
    let mut flows = Vec::new();
    for patch in site.physical.keys().map(|name| port(&name.int_port())) {
        let from_wire = |priority, matching: &str, table: u8| {
            ProgramFlow::new(CLASSIFY, priority, format!("in_port={patch}{matching}"), format!("resubmit(,{table})"))
        };
        flows.push(from_wire(10, &format!(",dl_dst={}", site.node.host_mac), to_host));
        let peers = site.peers.iter();
        flows.extend(peers.map(|peer| from_wire(5, &format!(",dl_src={}", peer.host_mac), from_router)));
    }
    for net in &site.networks {
        if let Some(uplink) = net.uplink.as_ref().filter(|_| net.view.segment.physical_network().is_some()) {
            let matching = format!("in_port={},{}", port(uplink), tag(net));
            let actions = format!("mod_vlan_vid:{},resubmit(,{local})", net.vlan);
            flows.push(ProgramFlow::new(CLASSIFY, 3, matching, actions));
        }
    }
    flows
}

/// The match on a network's frames as they are on the physical network.
pub(super) fn tag(net: &Net<'_>) -> String {
    net.view.segment.vlan().map_or(UNTAGGED.to_owned(), flow::vlan)
}
