//! What the node's switch is to hold, and the requests that make it so. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use uuid::Uuid;

use crate::api::switch::{BridgeMode, PortConfig, PortKind, Request, Show, VlanMode};
use crate::model::view::{Attachment, NodeView, TunnelKind};
use crate::netns::PORTS_NETNS;
use crate::program::{self, BR_INT, BR_TUN, PATCH_INT, PATCH_TUN, Program, ProgramError, ProgramFlow, fixed};
use crate::types::{IfName, Mac, VlanId};
use crate::vxlan::{self, BadTunnels, TunnelSpec};

use super::{Attach, provider_spec};

/// A bridge as wanted. Each is the agent's alone: a port that is not wanted goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BridgeSpec {
    pub(super) name: IfName,
    pub(super) ports: BTreeMap<IfName, PortKind>,
    pub(super) flows: Vec<ProgramFlow>,
}

/// Why a view has no switch that would do.
#[derive(Debug, thiserror::Error)]
pub(super) enum SwitchSpecError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Tunnels(#[from] BadTunnels),
}

/// The switch's part of `view`: br-int, then the others, the order in which their flows are to change, so that nothing
/// comes from the wire before br-int knows what to do with it.
///
/// # Errors
/// As [`Program::of`] and [`vxlan::tunnels`].
pub(super) fn bridges(
    view: &NodeView,
    vlans: &BTreeMap<Uuid, VlanId>,
    attach: Attach,
    netns_dir: &Path,
) -> Result<Vec<BridgeSpec>, SwitchSpecError> {
    let mut program = Program::of(view, vlans)?;
    let providers = provider_spec::bridges(view, &mut program);
    let Program { br_int, br_tun, providers: _ } = program;
    let integration =
        BridgeSpec { name: fixed(BR_INT), ports: integration_ports(view, attach, netns_dir), flows: br_int };
    let tunnel = BridgeSpec { name: fixed(BR_TUN), ports: tunnel_ports(view)?, flows: br_tun };
    Ok([integration, tunnel].into_iter().chain(providers).collect())
}

fn integration_ports(view: &NodeView, attach: Attach, netns_dir: &Path) -> BTreeMap<IfName, PortKind> {
    let inside = |port: &IfName, netns: &str, ifname: &IfName, mac: Mac| match attach {
        Attach::Tap => PortKind::Tap {
            netns: Some(netns_dir.join(netns)),
            device: (ifname != port).then(|| ifname.clone()),
            mac: Some(mac),
        },
        Attach::Veth => PortKind::Packet { netns: Some(netns_dir.join(PORTS_NETNS)), device: None },
    };
    let mut ports = BTreeMap::from([(fixed(PATCH_TUN), PortKind::Patch { peer: fixed(PATCH_INT) })]);
    ports.extend(provider_spec::patches(view));
    for router in &view.routers {
        for port in &router.interfaces {
            ports.insert(port.ifname.clone(), inside(&port.ifname, &router.netns, &port.ifname, port.mac));
        }
    }
    for vm in view.networks.iter().flat_map(|network| &network.local_ports) {
        let kind = match &vm.attach {
            Attachment::Netns { netns, ifname } => inside(&vm.port, netns, ifname, vm.mac),
            Attachment::Device { device } => {
                PortKind::Packet { netns: None, device: (*device != vm.port).then(|| device.clone()) }
            }
        };
        ports.insert(vm.port.clone(), kind);
    }
    ports
}

fn tunnel_ports(view: &NodeView) -> Result<BTreeMap<IfName, PortKind>, BadTunnels> {
    let mut ports = BTreeMap::from([(fixed(PATCH_INT), PortKind::Patch { peer: fixed(PATCH_TUN) })]);
    for kind in TunnelKind::ALL {
        let needed = program::tunnel_peers_by(kind, view);
        let peers = view.peers.iter().filter(|peer| needed.contains(peer.name.as_str()));
        let name = match kind {
            TunnelKind::Vxlan => program::vxlan_port,
            TunnelKind::Gre => program::gre_port,
        };
        let tunnels = vxlan::tunnels(name, view.node.tunnel_ip, peers.map(|peer| peer.tunnel_ip))?;
        let port = |TunnelSpec { port, local, remote }| match kind {
            TunnelKind::Vxlan => (port, PortKind::Vxlan { remote, local, udp_port: view.vxlan_port }),
            TunnelKind::Gre => (port, PortKind::Gre { remote, local }),
        };
        ports.extend(tunnels.into_iter().map(port));
    }
    Ok(ports)
}

/// What must be asked before the flows: bridges and ports that are missing, and ports that are not as wanted, do not
/// work, or are in `lost` because what they were on is gone.
pub(super) fn preparation(spec: &[BridgeSpec], show: &Show, lost: &BTreeSet<IfName>) -> Vec<Request> {
    let mut requests: Vec<Request> = provider_spec::evictions(spec, show).collect();
    // A name is unique in the switch: a port that is on the wrong bridge leaves it first.
    for bridge in spec {
        let there = show.bridges.iter().find(|there| there.name == bridge.name);
        if there.is_none_or(|there| there.mode != BridgeMode::Flow) {
            requests.push(Request::AddBridge { bridge: bridge.name.clone(), mode: BridgeMode::Flow });
        }
        for port in there.iter().flat_map(|there| &there.ports) {
            let wanted = bridge.ports.get(&port.config.name);
            let fits = wanted.is_some_and(|kind| *kind == port.config.kind && port.config.vlan == VlanMode::Trunk)
                && port.fault.is_none()
                && !lost.contains(&port.config.name);
            let elsewhere = spec.iter().any(|other| other.ports.contains_key(&port.config.name));
            if !fits && elsewhere {
                let port = port.config.name.clone();
                requests.push(Request::DelPort { bridge: bridge.name.clone(), port });
            }
        }
    }
    for bridge in spec {
        let there = show.bridges.iter().find(|there| there.name == bridge.name);
        for (name, kind) in &bridge.ports {
            let is_there = there.is_some_and(|there| there.ports.iter().any(|port| port.config.name == *name));
            let goes = requests.iter().any(|request| {
                matches!(request, Request::DelPort { bridge: from, port } if *from == bridge.name && port == name)
            });
            if !is_there || goes {
                let port = PortConfig { name: name.clone(), kind: kind.clone(), vlan: VlanMode::Trunk };
                requests.push(Request::AddPort { bridge: bridge.name.clone(), port });
            }
        }
    }
    requests
}

/// What is to be asked after the flows: ports that no flow names any more leave, and bridges of physical networks.
pub(super) fn removals(spec: &[BridgeSpec], show: &Show) -> Vec<Request> {
    let mut requests = Vec::new();
    for bridge in spec {
        for there in show.bridges.iter().filter(|there| there.name == bridge.name) {
            let stale = there
                .ports
                .iter()
                .map(|port| &port.config.name)
                .filter(|name| !spec.iter().any(|bridge| bridge.ports.contains_key(*name)));
            requests.extend(stale.map(|port| Request::DelPort { bridge: bridge.name.clone(), port: port.clone() }));
        }
    }
    requests.extend(provider_spec::removals(spec, show));
    requests
}
