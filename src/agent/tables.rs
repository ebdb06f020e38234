//! What readers are shown: desired state beside what the kernel and the switch have. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::agent::{
    Converged, Forwarding, Neighbour, Network, Peer, PhysicalNetwork, Responder, Router, RouterInterface, Show, Vm,
};
use crate::api::switch::{Flow, Port};
use crate::netns::NetnsName;
use crate::plan::{Checked, KernelState};
use crate::program::{self, BR_INT, LEARNED_COOKIE, LEARNED_LOCAL_TABLE, ProgramError, UNICAST_TABLE};
use crate::types::{IfName, Mac, VlanId};

use super::canonical::BadFlow;
use super::kernel_spec::narrowed;
use super::node::Held;
use super::{Attach, flows};

/// A bridge as the switch tells it.
pub(super) struct Observed {
    pub(super) ports: Vec<Port>,
    pub(super) flows: Vec<Flow>,
}

/// Why a table cannot be shown.
#[derive(Debug, thiserror::Error)]
pub(super) enum TableError {
    #[error(transparent)]
    Program(#[from] ProgramError),
    #[error(transparent)]
    Flow(#[from] BadFlow),
}

/// The node, as `show` prints it.
pub(super) fn show(held: &Held, state: Converged) -> Show {
    let Held { view, vlans, attach, tunnels_why, passing } = held;
    let tunnels = program::tunnel_ports(view);
    Show {
        node: view.node.name.clone(),
        host_mac: view.node.host_mac,
        tunnel_ip: view.node.tunnel_ip,
        attachment: match attach {
            Attach::Tap => "tap".to_owned(),
            Attach::Veth => "veth".to_owned(),
            Attach::Fast => "veth with the fast path".to_owned(),
        },
        tunnel_backend: view.backend.name().to_owned(),
        tunnels_why: tunnels_why.clone(),
        networks: view
            .networks
            .iter()
            .filter_map(|network| {
                Some(Network {
                    name: network.name.clone(),
                    id: network.id.to_string(),
                    kind: network.segment.kind().name().to_owned(),
                    vni: network.segment.vni(),
                    physical_network: network.segment.physical_network().cloned(),
                    vlan: network.segment.vlan(),
                    local_vlan: *vlans.get(&network.id)?,
                    mtu: network.mtu,
                    narrowed: narrowed(network, view, passing),
                    flood: network.flood.clone(),
                })
            })
            .collect(),
        routers: view
            .routers
            .iter()
            .map(|router| Router {
                name: router.name.clone(),
                netns: router.netns.clone(),
                interfaces: router
                    .interfaces
                    .iter()
                    .map(|port| RouterInterface {
                        ifname: port.ifname.clone(),
                        network: port.network.clone(),
                        mac: port.mac,
                        addresses: port.addresses.clone(),
                    })
                    .collect(),
            })
            .collect(),
        vms: vms(held),
        peers: view
            .peers
            .iter()
            .map(|peer| Peer {
                node: peer.name.clone(),
                host_mac: peer.host_mac,
                tunnel_ip: peer.tunnel_ip,
                ports: ports_to(&tunnels, &peer.name),
            })
            .collect(),
        physical_networks: program::physical_networks(view)
            .into_iter()
            .map(|(name, interface)| PhysicalNetwork {
                name: name.clone(),
                bridge: name.bridge(),
                interface: interface.clone(),
            })
            .collect(),
        state,
    }
}

fn ports_to(tunnels: &BTreeSet<(IfName, &str)>, node: &str) -> Vec<IfName> {
    tunnels.iter().filter(|(_, behind)| *behind == node).map(|(port, _)| port.clone()).collect()
}

fn vms(held: &Held) -> Vec<Vm> {
    let of_network = |network: &crate::model::view::NetworkView| -> Vec<Vm> {
        let vm = |port: &crate::model::view::PortView| Vm {
            name: port.name.clone(),
            network: network.name.clone(),
            mac: port.mac,
            ips: port.addresses.iter().map(ipnet::IpNet::addr).collect(),
            port: port.port.clone(),
        };
        network.local_ports.iter().map(vm).collect()
    };
    held.view.networks.iter().flat_map(of_network).collect()
}

/// Every neighbour a router is to have, with its state in the kernel.
pub(super) fn neighbours(held: &Held, spec: &Checked, observed: &KernelState) -> Vec<Neighbour> {
    let mut rows = Vec::new();
    for router in &held.view.routers {
        let is_it = |name: &NetnsName| matches!(name, NetnsName::Named(name) if name.as_str() == router.netns);
        let Some(netns) = spec.namespaces().find(|netns| is_it(&netns.name)) else { continue };
        let links = observed.namespaces.get(&netns.name).map(|state| &state.links);
        for link in &netns.links {
            let found = links.and_then(|links| links.get(&link.name));
            for wanted in &link.neighbours {
                let there = found.and_then(|link| link.neighbours.iter().find(|entry| entry.ip == wanted.ip));
                let state = match there {
                    None => "missing".to_owned(),
                    Some(entry) if entry.project() == Some(*wanted) => "PERMANENT".to_owned(),
                    Some(entry) if entry.permanent => {
                        format!("PERMANENT at {}", entry.mac.map_or("no address".to_owned(), |mac| mac.to_string()))
                    }
                    Some(_) => "dynamic".to_owned(),
                };
                let (router, ifname) = (router.name.clone(), link.name.clone());
                rows.push(Neighbour { router, ifname, ip: wanted.ip, mac: wanted.mac, state });
            }
        }
    }
    rows
}

/// Every question the responders answer, with how often they did.
pub(super) fn responders(held: &Held, br_int: &Observed) -> Result<Vec<Responder>, TableError> {
    let answered = program::responders(&held.view, &held.vlans)?;
    let (rows, programmed): (Vec<_>, Vec<_>) =
        answered.into_iter().map(|program::Answered { network, ip, mac, flow }| ((network, ip, mac), flow)).unzip();
    let counts = flows::packets(&programmed, &br_int.flows, &br_int.ports)?;
    let row = |((network, ip, mac), answers)| Responder { network, ip, mac, answers };
    Ok(rows.into_iter().zip(counts).map(row).collect())
}

/// Where frames to each known address go: what was populated, then what was learned.
pub(super) fn forwardings(held: &Held, br_int: &Observed, br_tun: &Observed) -> Result<Vec<Forwarding>, TableError> {
    let mut rows = Vec::new();
    let (int, tun): (Vec<_>, Vec<_>) =
        program::populated(&held.view, &held.vlans)?.into_iter().partition(|entry| entry.bridge == BR_INT);
    for (entries, bridge) in [(int, br_int), (tun, br_tun)] {
        let programmed: Vec<_> = entries.iter().map(|entry| entry.flow.clone()).collect();
        let counts = flows::packets(&programmed, &bridge.flows, &bridge.ports)?;
        rows.extend(entries.into_iter().zip(counts).map(|(entry, packets)| Forwarding {
            network: entry.network,
            mac: entry.mac,
            port: entry.port.to_string(),
            node: entry.node,
            origin: "populated".to_owned(),
            packets,
            age_secs: None,
        }));
    }
    let networks: BTreeMap<VlanId, &str> = held
        .view
        .networks
        .iter()
        .filter_map(|network| Some((*held.vlans.get(&network.id)?, network.name.as_str())))
        .collect();
    // Several may be behind one port: then the device's business is which.
    let mut nodes: BTreeMap<String, Option<&str>> = BTreeMap::new();
    for (port, node) in program::tunnel_ports(&held.view) {
        nodes.entry(port.to_string()).and_modify(|one| *one = None).or_insert(Some(node));
    }
    for (bridge, table) in [(br_int, LEARNED_LOCAL_TABLE), (br_tun, UNICAST_TABLE)] {
        for flow in bridge.flows.iter().filter(|flow| flow.table == table && flow.cookie == LEARNED_COOKIE) {
            let Some((vlan, mac, port)) = learned(flow) else { continue };
            rows.push(Forwarding {
                network: networks.get(&vlan).map_or_else(|| format!("VLAN {vlan}"), |name| (*name).to_owned()),
                mac,
                node: nodes.get(&port).copied().flatten().map(str::to_owned),
                port,
                origin: "learned".to_owned(),
                packets: flow.n_packets,
                age_secs: Some(flow.hard_age),
            });
        }
    }
    Ok(rows)
}

/// The VLAN, address and port of a learned flow.
fn learned(flow: &Flow) -> Option<(VlanId, Mac, String)> {
    let word = |key: &str| flow.matching.split(',').find_map(|word| word.strip_prefix(key));
    let vlan = match (word("dl_vlan="), word("vlan_tci=")) {
        (Some(number), _) => number.parse::<u32>().ok()?,
        (None, Some(tci)) => {
            let value = tci.split('/').next()?;
            u32::from_str_radix(value.trim_start_matches("0x"), 16).ok()? & 0xfff
        }
        (None, None) => return None,
    };
    let port = flow.actions.rsplit("output:").next().filter(|port| port.len() < flow.actions.len())?;
    Some((VlanId::new(vlan).ok()?, word("dl_dst=")?.parse().ok()?, port.trim_matches('"').to_owned()))
}
