//! The scene as kernel objects, for peers that do not bring their own: the underlay, machines and routers in namespaces,
//! each with a veth pair whose other end is the node's.

use core::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};

use crate::datapath::port::within;
use crate::link::{LinkKind, LinkSpec};
use crate::neigh::NeighbourSpec;
use crate::netns::{Name, NetnsName, Sysctl};
use crate::plan::{KernelSpec, NamespaceSpec};
use crate::route::RouteSpec;
use crate::types::{IfName, Mtu};

use super::Error;
use super::addresses::{MTU, Network, Node, Station, UNDERLAY_MTU};
use super::traffic::End;

/// Where named namespaces are.
const NETNS_DIR: &str = "/run/netns";
/// A node's way out.
pub(super) const WIRE: &str = "eth0";
/// What a machine's interface is called.
const ETH0: &str = "eth0";

/// A name made here.
pub(super) fn ifname(text: impl Into<String>) -> IfName {
    IfName::new(text).unwrap_or_else(|bad| unreachable!("made of a few short words: {bad}"))
}

fn netns(text: &str) -> NetnsName {
    Name::new(text).unwrap_or_else(|bad| unreachable!("made of short words: {bad}")).into()
}

pub(super) fn mtu(octets: u32) -> Mtu {
    Mtu::new(octets).unwrap_or_else(|bad| unreachable!("a usual MTU: {bad}"))
}

/// The file of a namespace made here.
pub(super) fn netns_path(name: &str) -> PathBuf {
    [NETNS_DIR, name].iter().collect()
}

/// The machine as traffic sees it.
pub(super) fn end(station: Station) -> End {
    End { name: station.name(), netns: netns_path(station.name()), ip: station.ip() }
}

/// The namespace of a node's router.
pub(super) const fn router_netns(node: Node) -> &'static str {
    match node {
        Node::One => "router1",
        Node::Two => "router2",
    }
}

/// The node's end of a machine's pair.
pub(super) fn machine_port(station: Station) -> IfName {
    ifname(format!("p-{}", station.name()))
}

/// The router's end of its pair into a network.
pub(super) fn gateway_port(network: Network) -> IfName {
    ifname(format!("qr-{}", network.name()))
}

/// The node's end of it.
pub(super) fn router_port(network: Network) -> IfName {
    ifname(format!("q-{}", network.name()))
}

/// The stations of a node.
pub(super) fn stations_of(node: Node) -> impl Iterator<Item = Station> {
    Station::ALL.into_iter().filter(move |station| station.node == node)
}

/// Both nodes' namespaces and what joins them: a bridge, as in a lab.
///
/// # Errors
/// [`Error::Scene`] with the kernel's words.
pub(super) fn build_underlay() -> Result<(), Error> {
    let bridge = ifname("underlay");
    let mut own = NamespaceSpec::new(NetnsName::Own);
    let mut floor = LinkSpec::new(bridge.clone(), LinkKind::Bridge);
    floor.mtu = Some(mtu(UNDERLAY_MTU));
    floor.sysctls = quiet(&floor.name);
    own.links.push(floor);
    let mut namespaces = Vec::new();
    for node in Node::ALL {
        let wire = ifname(WIRE);
        let (mut outer, mut inner) =
            pair((ifname(node.name()), NetnsName::Own), (wire, netns(node.name())), UNDERLAY_MTU);
        outer.controller = Some(bridge.clone());
        inner.addresses = vec![net(node.endpoint(), 24)];
        own.links.push(outer);
        let mut inside = NamespaceSpec::new(netns(node.name()));
        inside.links.push(inner);
        namespaces.push(inside);
    }
    namespaces.insert(0, own);
    apply(&KernelSpec { namespaces })
}

/// What is in and around a node, as seen from inside: its machines and its router with their pairs, the node's ends ports
/// of a bridge if `bridge` names one for their network; and `links` besides.
///
/// # Errors
/// [`Error::Scene`] with the kernel's words.
pub(super) fn build_node(node: Node, bridge: fn(Network) -> Option<IfName>, links: Vec<LinkSpec>) -> Result<(), Error> {
    let mut own = NamespaceSpec::new(NetnsName::Own);
    own.links = links;
    let mut namespaces = Vec::new();
    for station in stations_of(node) {
        let network = station.network;
        let name = netns(station.name());
        let (mut outer, mut inner) = pair((machine_port(station), NetnsName::Own), (ifname(ETH0), name.clone()), MTU);
        outer.controller = bridge(network);
        inner.mac = Some(station.mac());
        inner.addresses = vec![net(station.ip(), Network::PREFIX_LEN)];
        // Who is asked for is known, as everywhere that an address is registered.
        let same = |other: &Station| other.network == network && other.node != node;
        let others = Station::ALL.into_iter().filter(same).map(|other| (other.ip(), other.mac()));
        inner.neighbours = neighbours(others.chain([(network.gateway(), network.router_mac())]));
        own.links.push(outer);
        let mut inside = NamespaceSpec::new(name);
        let gateway = Some(IpAddr::V4(network.gateway()));
        inside.routes.push(RouteSpec { destination: net(Ipv4Addr::UNSPECIFIED, 0), gateway, ifname: None });
        inside.links.push(inner);
        namespaces.push(inside);
    }
    let name = netns(router_netns(node));
    let mut router = NamespaceSpec::new(name.clone());
    router.sysctls =
        vec![Sysctl::new("net/ipv4/ip_forward", "1"), Sysctl::new("net/ipv4/conf/all/send_redirects", "0")];
    for network in Network::ALL {
        let inside = (gateway_port(network), name.clone());
        let (mut outer, mut inner) = pair((router_port(network), NetnsName::Own), inside, MTU);
        outer.controller = bridge(network);
        inner.mac = Some(network.router_mac());
        inner.addresses = vec![net(network.gateway(), Network::PREFIX_LEN)];
        let known = Station::ALL.into_iter().filter(|station| station.network == network);
        inner.neighbours = neighbours(known.map(|station| (station.ip(), station.mac())));
        own.links.push(outer);
        router.links.push(inner);
    }
    namespaces.extend([own, router]);
    let spec = KernelSpec { namespaces };
    within(Some(&netns_path(node.name())), || Ok(apply(&spec))).map_err(|error| Error::Scene(error.to_string()))?
}

fn neighbours(known: impl Iterator<Item = (Ipv4Addr, crate::types::Mac)>) -> Vec<NeighbourSpec> {
    known.map(|(ip, mac)| NeighbourSpec { ip: ip.into(), mac }).collect()
}

/// Both ends of a veth pair.
pub(super) fn pair(one: (IfName, NetnsName), other: (IfName, NetnsName), octets: u32) -> (LinkSpec, LinkSpec) {
    let end = |(name, _): &(IfName, NetnsName), (peer, peer_netns): &(IfName, NetnsName)| {
        let kind = LinkKind::Veth { peer: peer.clone(), peer_netns: peer_netns.clone() };
        let mut link = LinkSpec::new(name.clone(), kind);
        link.mtu = Some(mtu(octets));
        link.sysctls = quiet(name);
        link
    };
    (end(&one, &other), end(&other, &one))
}

/// No IPv6 of its own: nothing but what is measured is to be on the way.
pub(super) fn quiet(link: &IfName) -> Vec<Sysctl> {
    vec![Sysctl::new(format!("net/ipv6/conf/{link}/disable_ipv6"), "1")]
}

pub(super) fn net(ip: Ipv4Addr, length: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new(ip, length).unwrap_or_else(|bad| unreachable!("a length of at most 32: {bad}")))
}

/// Makes all of it, in the caller's namespace and named ones.
///
/// # Errors
/// [`Error::Scene`] with the kernel's words.
pub(super) fn apply(spec: &KernelSpec) -> Result<(), Error> {
    crate::lab::underlay::make(spec).map_err(Error::Scene)
}
