//! Where a namespace sends what is for an address: the kernel's own rule, applied to what was observed. Pure.

use core::net::IpAddr;
use std::collections::BTreeMap;

use crate::api::agent::{Hop, Route, RouteOf, Way};
use crate::model::view::{Attachment, PortView};
use crate::netns::NetnsName;
use crate::plan::{KernelState, NamespaceState};
use crate::route::RouteState;
use crate::types::IfName;

use super::node::Held;

/// What was asked about is not on this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node `{node}` has no {kind} `{name}`: `dvr show {node}` lists those it has")]
pub(super) struct Unknown {
    node: String,
    kind: &'static str,
    name: String,
}

/// Where `of` sends what is for `to`.
///
/// # Errors
/// When the node has no such router or machine.
pub(super) fn route(held: &Held, kernel: &KernelState, of: &RouteOf, to: IpAddr) -> Result<Route, Unknown> {
    let unknown = |kind, name: &str| Unknown { node: held.view.node.name.clone(), kind, name: name.to_owned() };
    let inside = |netns: &str, forwards: bool| {
        let there = kernel.namespaces.iter().find(|(name, _)| is_called(name, netns));
        let hop = match there {
            Some((_, state)) => hop(state, to, forwards),
            None => Hop::Nowhere { why: format!("namespace {netns} is not there") },
        };
        Route { netns: Some(netns.to_owned()), hop }
    };
    match of {
        RouteOf::Router(name) => {
            let router = held.view.routers.iter().find(|router| router.name == *name);
            Ok(inside(&router.ok_or_else(|| unknown("router", name))?.netns, true))
        }
        RouteOf::Vm(name) => {
            let mut ports = held.view.networks.iter().flat_map(|network| &network.local_ports);
            let port = ports.find(|port| port.name == *name).ok_or_else(|| unknown("VM", name))?;
            Ok(match &port.attach {
                Attachment::Netns { netns, .. } => inside(netns, false),
                Attachment::Device { device } => Route { netns: None, hop: hop(&promised(port, device), to, false) },
            })
        }
    }
}

fn is_called(netns: &NetnsName, name: &str) -> bool {
    matches!(netns, NetnsName::Named(there) if there.as_str() == name)
}

/// What the topology says of a machine that somebody else runs.
fn promised(port: &PortView, device: &IfName) -> NamespaceState {
    let address =
        |address: &ipnet::IpNet| crate::link::AddressState { address: *address, secondary: false, kernel_made: false };
    let link = crate::link::LinkState {
        mac: Some(port.mac),
        up: true,
        addresses: port.addresses.iter().map(address).collect(),
        ..crate::link::LinkState::default()
    };
    let connected = port.addresses.iter().map(|address| (address.trunc(), None));
    let everywhere = |gateway: &IpAddr| {
        let nothing = if gateway.is_ipv4() {
            IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED)
        };
        (ipnet::IpNet::from(nothing), Some(*gateway))
    };
    let default = port.gateways.iter().map(everywhere).map(|(net, gateway)| {
        (ipnet::IpNet::new(net.addr(), 0).unwrap_or_else(|_| unreachable!("a prefix of no bits is legal")), gateway)
    });
    let route = |(destination, gateway): (ipnet::IpNet, Option<IpAddr>)| RouteState {
        destination,
        gateway,
        ifname: Some(device.clone()),
        protocol: 0,
        metric: 0,
    };
    NamespaceState {
        sysctls: BTreeMap::new(),
        links: BTreeMap::from([(device.clone(), link)]),
        routes: connected.chain(default).map(route).collect(),
    }
}

/// The switch that lets a namespace forward, as `/proc/sys` has it.
const fn forwarding(to: IpAddr) -> &'static str {
    if to.is_ipv4() { "net/ipv4/ip_forward" } else { "net/ipv6/conf/all/forwarding" }
}

/// Own addresses first; then the longest prefix, and of equal ones the least metric (`fib_table_lookup()`).
fn hop(state: &NamespaceState, to: IpAddr, forwards: bool) -> Hop {
    let bears = |link: &crate::link::LinkState| link.addresses.iter().any(|there| there.address.addr() == to);
    if let Some((ifname, _)) = state.links.iter().find(|(_, link)| bears(link)) {
        return Hop::Here { ifname: ifname.clone() };
    }
    let nowhere = |why: String| Hop::Nowhere { why };
    if forwards && state.sysctls.get(forwarding(to)).is_none_or(|value| value != "1") {
        return nowhere(format!("{} is off", forwarding(to).replace('/', ".")));
    }
    let up = |route: &&RouteState| {
        route.ifname.as_ref().is_none_or(|name| state.links.get(name).is_some_and(|link| link.up))
    };
    let candidates = state.routes.iter().filter(|route| route.destination.contains(&to)).filter(up);
    let best = candidates.min_by_key(|route| (core::cmp::Reverse(route.destination.prefix_len()), route.metric));
    let Some(route) = best else { return nowhere(format!("no route to {to}")) };
    let Some((ifname, link)) = route.ifname.as_ref().and_then(|name| Some((name, state.links.get(name)?))) else {
        return nowhere(format!("the route {} has several next hops, which are not followed", route.destination));
    };
    let next_hop = route.gateway.unwrap_or(to);
    let entry = link.neighbours.iter().find(|entry| entry.ip == next_hop);
    let own = || link.addresses.iter().map(|there| there.address).filter(|own| own.addr().is_ipv4() == to.is_ipv4());
    let source = own().find(|own| own.contains(&next_hop)).or_else(|| own().next()).map(|own| own.addr());
    Hop::Out(Box::new(Way {
        destination: route.destination,
        gateway: route.gateway,
        ifname: ifname.clone(),
        mac: link.mac,
        source,
        next_hop,
        neighbour: entry.and_then(|entry| entry.mac),
        permanent: entry.is_some_and(|entry| entry.permanent),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::{AddressState, LinkState};
    use crate::neigh::NeighbourState;
    use crate::types::Mac;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn link(address: &str, up: bool, neighbour: &str) -> LinkState {
        let neighbour = NeighbourState { ip: ip(neighbour), mac: Some(Mac::new([2; 6])), permanent: true };
        let address =
            AddressState { address: address.parse().expect("a prefix"), secondary: false, kernel_made: false };
        LinkState { up, addresses: vec![address], neighbours: vec![neighbour], ..LinkState::default() }
    }

    fn router() -> NamespaceState {
        let name = |text: &str| -> IfName { text.parse().expect("a name") };
        let route = |net: &str, gateway: Option<&str>, link: &str, metric| RouteState {
            destination: net.parse().expect("a prefix"),
            gateway: gateway.map(ip),
            ifname: Some(name(link)),
            protocol: 2,
            metric,
        };
        NamespaceState {
            sysctls: [("net/ipv4/ip_forward".to_owned(), "1".to_owned())].into(),
            links: [
                (name("qr-a"), link("10.1.0.1/24", true, "10.1.0.9")),
                (name("qr-b"), link("10.2.0.1/24", true, "10.2.0.20")),
                (name("qr-c"), link("10.2.0.2/24", false, "10.2.0.20")),
            ]
            .into(),
            routes: vec![
                route("0.0.0.0/0", Some("10.1.0.9"), "qr-a", 0),
                route("10.1.0.0/24", None, "qr-a", 0),
                route("10.2.0.0/24", None, "qr-b", 5),
                route("10.2.0.0/25", None, "qr-c", 0),
                route("10.2.0.0/24", Some("10.1.0.9"), "qr-a", 7),
            ],
        }
    }

    #[test]
    fn the_longest_prefix_of_a_link_that_is_up_decides() {
        let out = |to: &str| {
            let Hop::Out(way) = hop(&router(), ip(to), true) else { panic!("{to} is routed") };
            (way.ifname.to_string(), way.next_hop, way.neighbour.is_some(), way.source)
        };
        assert_eq!(out("10.2.0.20"), ("qr-b".to_owned(), ip("10.2.0.20"), true, Some(ip("10.2.0.1"))));
        assert_eq!(out("10.2.0.21"), ("qr-b".to_owned(), ip("10.2.0.21"), false, Some(ip("10.2.0.1"))));
        assert_eq!(out("192.0.2.1"), ("qr-a".to_owned(), ip("10.1.0.9"), true, Some(ip("10.1.0.1"))));
    }

    #[test]
    fn its_own_and_the_unroutable_go_nowhere() {
        assert_eq!(hop(&router(), ip("10.1.0.1"), true), Hop::Here { ifname: "qr-a".parse().expect("a name") });
        let mut closed = router();
        closed.sysctls.clear();
        let why = |state: &NamespaceState, to: &str| {
            let Hop::Nowhere { why } = hop(state, ip(to), true) else { panic!("{to} is not routed") };
            why
        };
        assert_eq!(why(&closed, "10.2.0.20"), "net.ipv4.ip_forward is off");
        closed.sysctls.insert("net/ipv6/conf/all/forwarding".to_owned(), "1".to_owned());
        assert_eq!(why(&closed, "2001:db8::1"), "no route to 2001:db8::1");
    }
}
