//! What the node's switch is to hold, and the requests that make it so. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::api::switch::{BridgeMode, FastPathState, PortConfig, PortKind, Request, RouterInterface, Show, VlanMode};
use crate::model::view::{Attachment, Backend, NodeView, RouterPort, RouterView, TunnelKind};
use crate::netns::PORTS_NETNS;
use crate::program::{self, BR_INT, BR_TUN, PATCH_INT, PATCH_TUN, fixed};
use crate::types::{IfName, Mac, PhysicalNetwork};
use crate::vxlan::{self, BadTunnels, TunnelSpec};

use super::kernel_spec::{KernelSpecError, tunnel_devices};
use super::room::Passing;
use super::{Attach, Attachment as Wish, FastPath, provider_spec};

/// A bridge as wanted. Each is the agent's alone: a port that is not wanted goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BridgeSpec {
    pub(super) name: IfName,
    pub(super) ports: BTreeMap<IfName, PortKind>,
    /// Those of them that are routers' interfaces.
    pub(super) routers: BTreeMap<IfName, RouterInterface>,
}

/// Why a view has no switch that would do.
#[derive(Debug, thiserror::Error)]
pub(super) enum SwitchSpecError {
    #[error(transparent)]
    Tunnels(#[from] BadTunnels),
    #[error(transparent)]
    Devices(#[from] KernelSpecError),
}

/// The bridges of `view`: br-int, then br-tun, then those of physical networks, in the order of their programs.
pub(super) fn names(view: &NodeView) -> Vec<IfName> {
    let providers = program::physical_networks(view).into_keys().map(PhysicalNetwork::bridge);
    [fixed(BR_INT), fixed(BR_TUN)].into_iter().chain(providers).collect()
}

/// The switch's part of `view` but for the flows: br-int, then the others.
///
/// # Errors
/// As [`vxlan::tunnels`].
pub(super) fn bridges(view: &NodeView, attach: Attach, netns_dir: &Path) -> Result<Vec<BridgeSpec>, SwitchSpecError> {
    let ports = integration_ports(view, attach, netns_dir);
    let integration = BridgeSpec { name: fixed(BR_INT), ports, routers: router_interfaces(view, netns_dir) };
    let ports = tunnel_ports(view, attach, netns_dir)?;
    let tunnel = BridgeSpec { name: fixed(BR_TUN), ports, routers: BTreeMap::new() };
    Ok([integration, tunnel].into_iter().chain(provider_spec::bridges(view)).collect())
}

fn router_interfaces(view: &NodeView, netns_dir: &Path) -> BTreeMap<IfName, RouterInterface> {
    let interfaces = view.routers.iter().flat_map(|router| router.interfaces.iter().map(move |port| (router, port)));
    let interface = |(router, port): (&RouterView, &RouterPort)| {
        let inside = RouterInterface { netns: netns_dir.join(&router.netns), ifname: port.ifname.clone() };
        (port.ifname.clone(), inside)
    };
    interfaces.map(interface).collect()
}

fn integration_ports(view: &NodeView, attach: Attach, netns_dir: &Path) -> BTreeMap<IfName, PortKind> {
    let inside = |port: &IfName, netns: &str, ifname: &IfName, mac: Mac| match attach {
        Attach::Tap => PortKind::Tap {
            netns: Some(netns_dir.join(netns)),
            device: (ifname != port).then(|| ifname.clone()),
            mac: Some(mac),
        },
        Attach::Veth | Attach::Fast => {
            PortKind::Packet { netns: Some(netns_dir.join(PORTS_NETNS)), device: None, fast: attach == Attach::Fast }
        }
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
                PortKind::Packet { netns: None, device: (*device != vm.port).then(|| device.clone()), fast: false }
            }
        };
        ports.insert(vm.port.clone(), kind);
    }
    ports
}

fn tunnel_ports(
    view: &NodeView,
    attach: Attach,
    netns_dir: &Path,
) -> Result<BTreeMap<IfName, PortKind>, SwitchSpecError> {
    let mut ports = BTreeMap::from([(fixed(PATCH_INT), PortKind::Patch { peer: fixed(PATCH_TUN) })]);
    let kinds: &[TunnelKind] = match view.backend {
        Backend::Userspace => &TunnelKind::ALL,
        Backend::Kernel => {
            let (netns, fast) = (netns_dir.join(attach.tunnels_netns()), attach == Attach::Fast);
            let port = || PortKind::Packet { netns: Some(netns.clone()), device: None, fast };
            // Their names, which what passes has no say in.
            let devices = tunnel_devices(view, &Passing::default())?;
            ports.extend(devices.into_iter().map(|device| (device.name, port())));
            &[]
        }
    };
    for &kind in kinds {
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
                && bridge.routers.get(&port.config.name) == port.config.router.as_ref()
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
                let router = bridge.routers.get(name).cloned();
                let port = PortConfig { name: name.clone(), kind: kind.clone(), vlan: VlanMode::Trunk, router };
                requests.push(Request::AddPort { bridge: bridge.name.clone(), port });
            }
        }
    }
    requests
}

/// What must be asked before the kernel makes tunnels: the switch's own leave, for both would have one UDP port.
pub(super) fn tunnels_of_the_switch(show: &Show) -> Vec<Request> {
    let tunnels = |kind: &PortKind| matches!(kind, PortKind::Vxlan { .. } | PortKind::Gre { .. });
    let br_tun = show.bridges.iter().find(|bridge| bridge.name.as_str() == BR_TUN);
    let ports = br_tun.into_iter().flat_map(|bridge| &bridge.ports).filter(|port| tunnels(&port.config.kind));
    ports.map(|port| Request::DelPort { bridge: fixed(BR_TUN), port: port.config.name.clone() }).collect()
}

/// What the switch is to know of what passes to tunnels' endpoints: nothing, if they are not its own.
pub(super) fn passing(show: &Show, view: &NodeView, passing: &Passing) -> Option<Request> {
    let octets = match view.backend {
        Backend::Userspace => passing.octets().clone(),
        Backend::Kernel => BTreeMap::new(),
    };
    (show.passing != octets).then_some(Request::Passing { octets })
}

/// What is to be asked once the flows are there: the fast path of ports that wait for it.
pub(super) fn fast_path(show: &Show) -> &'static [Request] {
    let mut ports = show.bridges.iter().flat_map(|bridge| &bridge.ports);
    if ports.any(|port| port.fast_path == Some(FastPathState::Waiting)) { &[Request::FastPath] } else { &[] }
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

/// How ports are attached, given what is wished and why the switch makes no TAPs, if it does not.
///
/// # Errors
/// When what is wished cannot be had.
pub(super) fn attach(wish: Wish, fast_path: FastPath, tap_refused: Option<&str>) -> Result<Attach, String> {
    match (fast_path, wish) {
        (FastPath::Off, _) => {}
        (FastPath::On, Wish::Auto | Wish::Veth) => return Ok(Attach::Fast),
        (FastPath::On, Wish::Tap) => {
            return Err("ports are to be TAPs, which have no fast path: leave one of both out".to_owned());
        }
    }
    match (wish, tap_refused) {
        (Wish::Auto | Wish::Tap, None) => Ok(Attach::Tap),
        (Wish::Auto, Some(_)) | (Wish::Veth, _) => Ok(Attach::Veth),
        (Wish::Tap, Some(why)) => {
            Err(format!("ports are to be TAPs, and the switch cannot make any: {why}; allow it, or use veth"))
        }
    }
}
