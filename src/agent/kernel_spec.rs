//! What the node's kernel is to hold: namespaces of routers and machines, with everything in them. Pure.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::link::{LinkKind, LinkSpec};
use crate::model::view::{
    Attachment, Backend, NetworkView, NodeView, PortView, RemotePort, RouterPort, RouterView, TunnelKind,
};
use crate::neigh::NeighbourSpec;
use crate::netns::{BadName, Name, NetnsName, PORTS_NETNS, Sysctl, TUNNELS_NETNS};
use crate::plan::{KernelSpec, KernelState, NamespaceSpec};
use crate::route::RouteSpec;
use crate::types::{IfName, Mac, Mtu};
use crate::vxlan::{BadTunnels, FdbEntry, TunnelSpec};
use crate::{gre, program, vxlan};

use super::Attach;
use super::room::Passing;

/// GRE devices of one node at most: each is a port of the switch, which has room for four times as many ports.
const GRE_DEVICES_MAX: usize = 1024;

/// Why a view has no kernel state that would do.
#[derive(Debug, thiserror::Error)]
pub(super) enum KernelSpecError {
    #[error(transparent)]
    Name(#[from] BadName),
    #[error(transparent)]
    Tunnels(#[from] BadTunnels),
    #[error(
        "the kernel would need {0} GRE devices, one for each remote node of each network, and {GRE_DEVICES_MAX} are the \
         most: leave tunnels to the switch with --tunnels userspace"
    )]
    GreDevices(usize),
}

/// The kernel's part of `view`, while this is what passes to other nodes.
///
/// # Errors
/// When a namespace of the view cannot be named so, or its nodes cannot be joined by tunnels.
pub(super) fn kernel_spec(view: &NodeView, attach: Attach, passing: &Passing) -> Result<KernelSpec, KernelSpecError> {
    let outer: NetnsName = Name::new(PORTS_NETNS)?.into();
    let kind = |port: &IfName| match attach {
        Attach::Tap => LinkKind::External,
        Attach::Veth | Attach::Fast => LinkKind::Veth { peer: port.clone(), peer_netns: outer.clone() },
    };
    let networks: BTreeMap<&str, &NetworkView> =
        view.networks.iter().map(|network| (network.name.as_str(), network)).collect();
    let mut namespaces = Vec::new();
    for router in &view.routers {
        namespaces.push(router_namespace(router, &networks, &kind)?);
    }
    for network in &view.networks {
        for vm in &network.local_ports {
            if let Attachment::Netns { netns, ifname } = &vm.attach {
                namespaces.push(machine_namespace(network, vm, netns, ifname, kind(&vm.port))?);
            }
        }
    }
    let mut devices = tunnel_devices(view, passing)?;
    if attach == Attach::Fast && !(namespaces.is_empty() && devices.is_empty()) {
        namespaces.push(tunnels_namespace(outer, core::mem::take(&mut devices)));
    } else if attach == Attach::Veth && !namespaces.is_empty() {
        let mut ports = NamespaceSpec::new(outer);
        // What the kernel says on an outer end goes into the inner one: it is to say nothing.
        ports.sysctls =
            switches(&[("net/ipv6/conf/all/disable_ipv6", "1"), ("net/ipv6/conf/default/disable_ipv6", "1")]);
        namespaces.push(ports);
    }
    if !devices.is_empty() {
        namespaces.push(tunnels_namespace(Name::new(TUNNELS_NETNS)?.into(), devices));
    }
    Ok(KernelSpec { namespaces })
}

/// A namespace of tunnels. What machines say is for the switch alone: the namespace bears no address, forwards nothing and
/// says nothing.
fn tunnels_namespace(name: NetnsName, devices: Vec<LinkSpec>) -> NamespaceSpec {
    let mut tunnels = NamespaceSpec::new(name);
    tunnels.sysctls = switches(&[
        ("net/ipv4/ip_forward", "0"),
        ("net/ipv6/conf/all/disable_ipv6", "1"),
        ("net/ipv6/conf/default/disable_ipv6", "1"),
    ]);
    tunnels.links = devices;
    tunnels
}

/// The kernel's tunnel devices, if it is the kernel that makes tunnels: ports of br-tun.
///
/// # Errors
/// When nodes cannot be joined, or would need too many devices.
pub(super) fn tunnel_devices(view: &NodeView, passing: &Passing) -> Result<Vec<LinkSpec>, KernelSpecError> {
    let mut devices = Vec::new();
    match view.backend {
        Backend::Userspace => return Ok(devices),
        Backend::Kernel => {}
    }
    let local = view.node.tunnel_ip;
    let mut gre_devices = 0;
    for network in &view.networks {
        let Some((kind, key)) = network.segment.tunnel() else { continue };
        let there: BTreeSet<&str> = program::remote_nodes(network).collect();
        let peers: BTreeMap<&str, IpAddr> = view
            .peers
            .iter()
            .filter(|peer| there.contains(peer.name.as_str()))
            .map(|peer| (peer.name.as_str(), peer.tunnel_ip))
            .collect();
        let tunnels = vxlan::tunnels(program::vxlan_port, local, peers.values().copied())?;
        if tunnels.is_empty() {
            continue;
        }
        let device = |name, mtu, kind| LinkSpec { mtu: Some(mtu), ..LinkSpec::new(name, kind) };
        let mtu = |ends: &[TunnelSpec]| {
            passing.mtu(network.mtu, kind.overhead_octets(local), ends.iter().map(|tunnel| tunnel.remote))
        };
        match kind {
            TunnelKind::Vxlan => {
                let spec = vxlan::DeviceSpec { vni: key, local, udp_port: view.vxlan_port };
                let mut device = device(vxlan::device_name(key), mtu(&tunnels), LinkKind::Vxlan(spec));
                device.fdb = forwarding(network, &peers);
                devices.push(device);
            }
            TunnelKind::Gre => {
                gre_devices += tunnels.len();
                devices.extend(tunnels.into_iter().map(|tunnel| {
                    let spec = gre::DeviceSpec { key, local, remote: tunnel.remote };
                    let mtu = mtu(core::slice::from_ref(&tunnel));
                    device(gre::device_name(key, tunnel.remote), mtu, LinkKind::Gre(spec))
                }));
            }
        }
    }
    if gre_devices > GRE_DEVICES_MAX { Err(KernelSpecError::GreDevices(gre_devices)) } else { Ok(devices) }
}

/// The MTU of what passes to all nodes that have a network, if that is less than the network's.
pub(super) fn narrowed(network: &NetworkView, view: &NodeView, passing: &Passing) -> Option<Mtu> {
    let overhead = network.segment.kind().tunnel()?.overhead_octets(view.node.tunnel_ip);
    let there: BTreeSet<&str> = program::remote_nodes(network).collect();
    let peers = view.peers.iter().filter(|peer| there.contains(peer.name.as_str()));
    Some(passing.mtu(network.mtu, overhead, peers.map(|peer| peer.tunnel_ip))).filter(|mtu| *mtu < network.mtu)
}

/// The forwarding entries of a network's device: behind which node each known station is, and whom a flood goes to.
fn forwarding(network: &NetworkView, peers: &BTreeMap<&str, IpAddr>) -> BTreeSet<FdbEntry> {
    let endpoint = |node: &String| peers.get(node.as_str()).copied();
    let stations = program::remote_macs(network)
        .into_iter()
        .filter_map(|(mac, node)| Some((mac, endpoint(node)?)))
        .collect::<BTreeMap<_, _>>();
    let floods = network.flood.iter().filter_map(endpoint).map(FdbEntry::flood);
    stations.into_iter().map(|(mac, remote)| FdbEntry { mac, remote }).chain(floods).collect()
}

fn switches(pairs: &[(&str, &str)]) -> Vec<Sysctl> {
    pairs.iter().map(|(key, value)| Sysctl::new(*key, *value)).collect()
}

fn has_ipv6(network: &NetworkView) -> bool {
    network.subnets.iter().any(|subnet| subnet.cidr.addr().is_ipv6())
}

/// A router's namespace, as Neutron sets it up. A fresh IPv4 configuration is copied from the first namespace's, so every
/// switch that matters is spelled out; IPv6 is off until a link has it switched on, so that no address appears early.
fn router_namespace(
    router: &RouterView,
    networks: &BTreeMap<&str, &NetworkView>,
    kind: &impl Fn(&IfName) -> LinkKind,
) -> Result<NamespaceSpec, BadName> {
    let mut spec = NamespaceSpec::new(Name::new(&router.netns)?.into());
    spec.sysctls = switches(&[
        ("net/ipv4/ip_forward", "1"),
        // An address is answered for on its own interface only, and asks under its own name only.
        ("net/ipv4/conf/all/arp_ignore", "1"),
        ("net/ipv4/conf/all/arp_announce", "2"),
        // Removing one address of an interface keeps the others.
        ("net/ipv4/conf/all/promote_secondaries", "1"),
        // The way out may be another replica's: telling a machine a better way would be wrong.
        ("net/ipv4/conf/all/send_redirects", "0"),
        ("net/ipv4/conf/default/send_redirects", "0"),
        ("net/ipv6/conf/all/forwarding", "1"),
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        ("net/ipv6/conf/default/disable_ipv6", "1"),
    ]);
    for port in &router.interfaces {
        let Some(network) = networks.get(port.network.as_str()) else { continue };
        spec.links.push(router_link(port, network, kind(&port.ifname)));
    }
    Ok(spec)
}

fn router_link(port: &RouterPort, network: &NetworkView, kind: LinkKind) -> LinkSpec {
    let mut link = LinkSpec::new(port.ifname.clone(), kind);
    link.mac = Some(port.mac);
    link.mtu = Some(network.mtu);
    link.addresses.clone_from(&port.addresses);
    link.neighbours = neighbours(network);
    link.sysctls = vec![Sysctl::new(format!("net/ipv4/conf/{}/send_redirects", port.ifname), "0")];
    link.sysctls.extend(ipv6_switches(&port.ifname, network));
    link
}

/// IPv6 on a link: off where the network has none, and otherwise nothing that addresses itself or waits for silence: a
/// router's address is a duplicate by design, and a machine's comes from the topology.
fn ipv6_switches(link: &IfName, network: &NetworkView) -> Vec<Sysctl> {
    let key = |name: &str| format!("net/ipv6/conf/{link}/{name}");
    if !has_ipv6(network) {
        return vec![Sysctl::new(key("disable_ipv6"), "1")];
    }
    // Order: once IPv6 is on, the link-local address is made by the rules then in force.
    vec![Sysctl::new(key("accept_dad"), "0"), Sysctl::new(key("accept_ra"), "0"), Sysctl::new(key("disable_ipv6"), "0")]
}

/// Every machine's addresses on the network, local or remote, with its link-local one where there is IPv6; then what they
/// have taken by announcing it. By address; of several with one the first.
pub(super) fn neighbours(network: &NetworkView) -> Vec<NeighbourSpec> {
    let ipv6 = has_ipv6(network);
    let link_local = |mac: Mac| ipv6.then(|| IpAddr::from(mac.link_local()));
    let ports = network.local_ports.len() + network.remote_ports.len();
    let mut all = Vec::with_capacity(ports * if ipv6 { 3 } else { 1 });
    for PortView { mac, addresses, .. } in &network.local_ports {
        let ips = addresses.iter().map(IpNet::addr).chain(link_local(*mac));
        all.extend(ips.map(|ip| NeighbourSpec { ip, mac: *mac }));
    }
    for RemotePort { mac, ips, .. } in &network.remote_ports {
        all.extend(ips.iter().copied().chain(link_local(*mac)).map(|ip| NeighbourSpec { ip, mac: *mac }));
    }
    let here = network.local_ports.iter().flat_map(|port| &port.claimed);
    let claimed = here.chain(network.remote_ports.iter().flat_map(|port| &port.claimed));
    all.extend(claimed.map(|claimed| NeighbourSpec { ip: claimed.ip, mac: claimed.mac }));
    // The first of an address stays first.
    all.sort_by_key(|entry| entry.ip);
    all.dedup_by_key(|entry| entry.ip);
    all
}

/// The namespace that stands for a machine.
fn machine_namespace(
    network: &NetworkView,
    vm: &PortView,
    netns: &str,
    ifname: &IfName,
    kind: LinkKind,
) -> Result<NamespaceSpec, BadName> {
    let mut spec = NamespaceSpec::new(Name::new(netns)?.into());
    spec.sysctls = switches(&[
        ("net/ipv6/conf/all/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_dad", "0"),
        ("net/ipv6/conf/default/accept_ra", "0"),
        ("net/ipv6/conf/default/disable_ipv6", "1"),
    ]);
    let mut link = LinkSpec::new(ifname.clone(), kind);
    link.mac = Some(vm.mac);
    link.mtu = Some(network.mtu);
    link.addresses.clone_from(&vm.addresses);
    link.sysctls = ipv6_switches(ifname, network);
    spec.links.push(link);
    spec.routes = vm
        .gateways
        .iter()
        .map(|gateway| RouteSpec {
            destination: if gateway.is_ipv4() { DEFAULT_V4 } else { DEFAULT_V6 },
            gateway: Some(*gateway),
            ifname: Some(ifname.clone()),
        })
        .collect();
    Ok(spec)
}

const DEFAULT_V4: IpNet = IpNet::V4(ipnet::Ipv4Net::new_assert(core::net::Ipv4Addr::UNSPECIFIED, 0));
const DEFAULT_V6: IpNet = IpNet::V6(ipnet::Ipv6Net::new_assert(core::net::Ipv6Addr::UNSPECIFIED, 0));

/// The networks that routers' links are on.
pub(super) fn router_links(view: &NodeView, observed: &KernelState) -> BTreeMap<(NetnsName, u32), String> {
    let mut links = BTreeMap::new();
    for (netns, state) in &observed.namespaces {
        let NetnsName::Named(name) = netns else { continue };
        let routers = view.routers.iter().filter(|router| router.netns == name.as_str());
        for port in routers.flat_map(|router| &router.interfaces) {
            if let Some(link) = state.links.get(&port.ifname) {
                links.insert((netns.clone(), link.index), port.network.clone());
            }
        }
    }
    links
}
