//! The plan: pure, ordered, printable.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::bridge::{self, BridgeOp, PortSpec, PortState};
use crate::gre::GreOp;
use crate::link::{self, LinkKind, LinkOp, LinkSpec, LinkState, TunnelState};
use crate::neigh::{self, NeighOp};
use crate::netns::{self, Name, NetnsName, NetnsOp, Ownership, Sysctl};
use crate::route::{self, RouteOp, RouteSpec};
use crate::types::IfName;
use crate::vxlan::{self, VxlanOp};

use super::{Blocked, Checked, KernelState, NamespaceSpec, NamespaceState, Op, Plan};

/// The steps from `observed` to `spec`.
///
/// Order: what must go, then namespaces, their switches, links, attributes and switches of links, memberships, up or down,
/// addresses, neighbours, routes; so that each step finds what it needs. Of what is not wanted, only what `ownership` says
/// is ours is removed.
#[must_use]
pub fn diff(spec: &Checked, observed: &KernelState, ownership: &Ownership) -> Plan {
    let mut stage = Stage { observed: observed.clone(), ..Stage::default() };
    stage.namespaces(spec, ownership);
    stage.deletions(spec, ownership);
    stage.creations(spec);
    for netns in spec.namespaces() {
        stage.contents(netns);
    }
    stage.finish()
}

/// A plan in the making: the world as it will be after the removals, and the steps sorted by when they are due.
#[derive(Default)]
struct Stage {
    observed: KernelState,
    removals: Vec<Op>,
    namespaces: Vec<Op>,
    switches: Vec<Op>,
    creations: Vec<Op>,
    attributes: Vec<Op>,
    states: Vec<Op>,
    route_removals: Vec<Op>,
    addresses: Vec<Op>,
    neighbours: Vec<Op>,
    routes: Vec<Op>,
    absent: BTreeSet<(NetnsName, IfName)>,
    awaited: Vec<(NetnsName, IfName)>,
    blocked: Vec<Blocked>,
}

impl Stage {
    fn namespaces(&mut self, spec: &Checked, ownership: &Ownership) {
        let desired: BTreeSet<&Name> = spec
            .namespaces()
            .filter_map(|netns| match &netns.name {
                NetnsName::Own => None,
                NetnsName::Named(name) => Some(name),
            })
            .collect();
        for op in netns::diff(&desired, &self.observed.entries, |name| ownership.owns_netns(name)) {
            match &op {
                NetnsOp::Create(_) => self.namespaces.push(Op::Netns(op)),
                NetnsOp::Remove(_) => self.removals.push(Op::Netns(op)),
            }
        }
    }

    /// Links that must go: ours and no longer wanted, or in the way of a wanted one.
    fn deletions(&mut self, spec: &Checked, ownership: &Ownership) {
        for netns in spec.namespaces() {
            let wanted: BTreeMap<&IfName, &LinkSpec> = netns.links.iter().map(|link| (&link.name, link)).collect();
            let Some(state) = self.observed.namespaces.get(&netns.name) else { continue };
            let doomed: Vec<IfName> = state
                .links
                .iter()
                .filter(|(name, link)| match wanted.get(name) {
                    None => ownership.owns_link(&netns.name, name, link.kind.as_deref()),
                    Some(spec) => self.must_be_remade(&netns.name, spec, link),
                })
                .map(|(name, _)| name.clone())
                .collect();
            for name in doomed {
                // The other end may have been met already, and this end gone with it.
                let there =
                    self.observed.namespaces.get(&netns.name).is_some_and(|state| state.links.contains_key(&name));
                if there {
                    self.observed.remove_link(&netns.name, &name);
                    self.removals.push(Op::Link(netns.name.clone(), LinkOp::Delete(name)));
                }
            }
        }
    }

    /// Whether the link under a wanted name is of the wrong kind, another tunnel, or a veth whose other end is not where it
    /// should be; and may be deleted for it.
    fn must_be_remade(&self, netns: &NetnsName, spec: &LinkSpec, state: &LinkState) -> bool {
        let Some(word) = spec.kind.kernel_word() else { return false };
        if state.kind.as_deref() != Some(word) {
            return *netns != NetnsName::Own;
        }
        match &spec.kind {
            LinkKind::Veth { peer, peer_netns } => {
                let other = self.observed.namespaces.get(peer_netns).and_then(|state| state.links.get(peer));
                !other.is_some_and(|other| are_paired(state, other))
            }
            LinkKind::Vxlan(_) | LinkKind::Gre(_) => {
                *netns != NetnsName::Own && !TunnelState::suits(state.tunnel.as_ref(), &spec.kind)
            }
            LinkKind::Loopback | LinkKind::External | LinkKind::Bridge => false,
        }
    }

    /// Links that are missing: bridges and tunnels, then veth pairs, each pair once.
    fn creations(&mut self, spec: &Checked) {
        let mut pairs = Vec::new();
        let mut made: BTreeSet<(&NetnsName, &IfName)> = BTreeSet::new();
        for netns in spec.namespaces() {
            let state = self.observed.namespaces.get(&netns.name);
            for link in &netns.links {
                if let Some(found) = state.and_then(|state| state.links.get(&link.name)) {
                    if link.kind.kernel_word().is_some_and(|word| found.kind.as_deref() != Some(word)) {
                        self.blocked.push(taken(&netns.name, link, found));
                        self.absent.insert((netns.name.clone(), link.name.clone()));
                    }
                    continue;
                }
                match &link.kind {
                    // A namespace that is still to be made is born with its loopback.
                    LinkKind::Loopback if state.is_none() && link.name.as_str() == "lo" => {}
                    LinkKind::Loopback => {
                        self.blocked.push(Blocked::NoLoopback { netns: netns.name.clone(), link: link.name.clone() });
                        self.absent.insert((netns.name.clone(), link.name.clone()));
                    }
                    LinkKind::External => {
                        self.awaited.push((netns.name.clone(), link.name.clone()));
                        self.absent.insert((netns.name.clone(), link.name.clone()));
                    }
                    LinkKind::Bridge => {
                        self.creations.push(Op::Bridge(netns.name.clone(), BridgeOp::Create(link.name.clone())));
                    }
                    LinkKind::Vxlan(device) => {
                        let op = VxlanOp::Create { name: link.name.clone(), device: device.clone() };
                        self.creations.push(Op::Vxlan(netns.name.clone(), op));
                    }
                    LinkKind::Gre(device) => {
                        let op = GreOp::Create { name: link.name.clone(), device: device.clone() };
                        self.creations.push(Op::Gre(netns.name.clone(), op));
                    }
                    LinkKind::Veth { peer, peer_netns } => {
                        if !made.contains(&(peer_netns, peer)) {
                            let (name, peer, peer_netns) = (link.name.clone(), peer.clone(), peer_netns.clone());
                            pairs.push(Op::Link(netns.name.clone(), LinkOp::CreateVeth { name, peer, peer_netns }));
                        }
                        made.insert((&netns.name, &link.name));
                    }
                }
            }
        }
        self.creations.append(&mut pairs);
    }

    fn contents(&mut self, netns: &NamespaceSpec) {
        let mut state = self.observed.namespaces.get(&netns.name).cloned().unwrap_or_default();
        let name = &netns.name;
        let switch = |sysctl: &&Sysctl| state.sysctls.get(&sysctl.key) != Some(&sysctl.value);
        let set = |sysctl: &Sysctl| Op::Sysctl(name.clone(), sysctl.clone());
        self.switches.extend(netns.sysctls.iter().filter(switch).map(set));
        let mut flushed = BTreeSet::new();
        for link in netns.links.iter().filter(|link| !self.absent.contains(&(name.clone(), link.name.clone()))) {
            let mut found = state.links.get(&link.name).cloned().unwrap_or_else(|| newborn(link));
            let fresh = !state.links.contains_key(&link.name);
            let op = |op| Op::Link(name.clone(), op);
            let attributes = link::attributes(link, &found);
            let admin_state = link::admin_state(link, &found);
            flush(&mut found, attributes.as_ref(), admin_state.as_ref());
            self.attributes.extend(attributes.map(op));
            self.attributes.extend(link.sysctls.iter().filter(|sysctl| fresh || switch(sysctl)).map(set));
            let bridge = link.controller.as_ref();
            let index = bridge.and_then(|bridge| state.links.get(bridge)).map(|bridge| bridge.index);
            let member = bridge::membership(
                PortSpec { port: &link.name, bridge },
                PortState { controller: found.controller, bridge: index },
            );
            self.states.extend(member.map(|op| Op::Bridge(name.clone(), op)));
            self.states.extend(admin_state.map(op));
            let shared = is_shared(name, link);
            if shared {
                // What others put on it counts as little as what the kernel did.
                found.addresses.iter_mut().for_each(|state| state.kernel_made = true);
            }
            let addresses = link::addresses(link, &found);
            if loses_ipv4(&addresses, &found) || (found.up && !link.up) {
                flushed.insert(&link.name);
            }
            self.addresses.extend(addresses.into_iter().map(op));
            let mut neighbours = neigh::diff(&link.name, &link.neighbours, &found.neighbours);
            neighbours.retain(|step| !(shared && matches!(step, NeighOp::Remove { .. })));
            self.neighbours.extend(neighbours.into_iter().map(|op| Op::Neigh(name.clone(), op)));
            let fdb = vxlan::diff(&link.name, &link.fdb, &found.fdb);
            self.neighbours.extend(fdb.into_iter().map(|op| Op::Vxlan(name.clone(), op)));
        }
        state.routes.retain(|route| {
            route.destination.addr().is_ipv6() || !route.ifname.as_ref().is_some_and(|link| flushed.contains(link))
        });
        self.routes_of(netns, &state);
    }

    fn routes_of(&mut self, netns: &NamespaceSpec, state: &NamespaceState) {
        let name = &netns.name;
        let usable = |route: &&RouteSpec| {
            let link = route.ifname.as_ref().or_else(|| link_towards(netns, route));
            !link.is_some_and(|link| self.absent.contains(&(name.clone(), link.clone())))
        };
        let routes: Vec<RouteSpec> = netns.routes.iter().filter(usable).cloned().collect();
        // In a namespace that others use too, the protocol number alone is no proof: the link must be ours as well.
        let ours = |ifname: &IfName| netns.links.iter().any(|link| link.name == *ifname && !is_shared(name, link));
        for op in route::diff(&routes, &state.routes) {
            match &op {
                RouteOp::Remove(route) if *name == NetnsName::Own && !route.ifname.as_ref().is_some_and(ours) => {}
                RouteOp::Add(_) => self.routes.push(Op::Route(name.clone(), op)),
                RouteOp::Remove(_) => self.route_removals.push(Op::Route(name.clone(), op)),
            }
        }
    }

    fn finish(self) -> Plan {
        let Self { observed: _, removals, namespaces, switches, creations, attributes, states, .. } = self;
        let tail = [self.route_removals, self.addresses, self.neighbours, self.routes];
        let head = [removals, namespaces, switches, creations, attributes, states];
        Plan { ops: head.into_iter().chain(tail).flatten().collect(), awaited: self.awaited, blocked: self.blocked }
    }
}

/// Whether others may have put addresses and neighbours of theirs on the link: on a loopback, and on what we did not make
/// in the process's own namespace. From such a link nothing is removed.
pub(super) fn is_shared(netns: &NetnsName, link: &LinkSpec) -> bool {
    match link.kind {
        LinkKind::Loopback => true,
        LinkKind::External => *netns == NetnsName::Own,
        LinkKind::Veth { .. } | LinkKind::Bridge | LinkKind::Vxlan(_) | LinkKind::Gre(_) => false,
    }
}

/// Takes out of `found` what the kernel drops by itself when the link is changed so: neighbours, PERMANENT ones too, when
/// its MAC changes or it goes down (`neigh_changeaddr()`, `neigh_ifdown()`, `net/core/neighbour.c`), and IPv6 addresses
/// when it goes down (`addrconf_ifdown()`, `net/ipv6/addrconf.c`).
fn flush(found: &mut LinkState, attributes: Option<&LinkOp>, admin_state: Option<&LinkOp>) {
    let down = matches!(admin_state, Some(LinkOp::Down(_)));
    if down || matches!(attributes, Some(LinkOp::Set { mac: Some(_), .. })) {
        found.neighbours.clear();
    }
    if down {
        found.addresses.retain(|state| state.address.addr().is_ipv4());
    }
}

/// Whether the steps leave the link without any IPv4 address, if only until the additions: with the last one the kernel
/// removes every IPv4 route through the link (`fib_inetaddr_event()`, `net/ipv4/fib_frontend.c`).
fn loses_ipv4(steps: &[LinkOp], found: &LinkState) -> bool {
    let count = found.addresses.iter().filter(|state| state.address.addr().is_ipv4()).count();
    let removal = |step: &&LinkOp| matches!(step, LinkOp::RemoveAddress { address: IpNet::V4(_), .. });
    count > 0 && steps.iter().filter(removal).count() == count
}

/// Whether two links are the ends of one veth pair: each one's `IFLA_LINK` is the other's index.
pub(super) fn are_paired(one: &LinkState, other: &LinkState) -> bool {
    let veth = |link: &LinkState| link.kind.as_deref() == Some("veth");
    veth(one) && veth(other) && one.peer == Some(other.index) && other.peer == Some(one.index)
}

/// The link of the spec whose subnet holds the route's gateway.
fn link_towards<'a>(netns: &'a NamespaceSpec, route: &RouteSpec) -> Option<&'a IfName> {
    let gateway = route.gateway?;
    netns.links.iter().find(|link| link.addresses.iter().any(|net| net.contains(&gateway))).map(|link| &link.name)
}

/// A link as the kernel makes it: nothing set but what the kernel sets. `lo` is set up when its namespace is made.
fn newborn(spec: &LinkSpec) -> LinkState {
    let up = spec.kind == LinkKind::Loopback;
    LinkState { kind: spec.kind.kernel_word().map(str::to_owned), up, ..LinkState::default() }
}

fn taken(netns: &NetnsName, spec: &LinkSpec, state: &LinkState) -> Blocked {
    Blocked::Taken {
        netns: netns.clone(),
        link: spec.name.clone(),
        observed: state.kind.clone().unwrap_or_else(|| "a device of no kind".to_owned()),
        wanted: spec.kind.to_string(),
    }
}
