//! What a change of a view changes on the node, found from those who bear the same addresses and nobody else. Pure.
//!
//! A port elsewhere has a say in flows and neighbour entries by its addresses alone, and so has any port by those that it
//! took by announcing them ([`Program::of_bearers`], [`neighbours`]). So these are computed twice, before the change and after it, from a *part* of the view: the network,
//! the routers' interfaces on it, and the ports that bear one of the addresses in question. Where the two differ is what a
//! whole pass would find. No other port is looked at, however many there are.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::api::switch::FlowChange;
use crate::model::resource::ClaimedAddress;
use crate::model::view::{NetworkView, NodeView, Peer, PortView, RemotePort, RouterView, TunnelKind, ViewChange};
use crate::neigh::{NeighOp, NeighbourSpec};
use crate::netns::{BadName, Name};
use crate::plan::Op;
use crate::program::{Program, ProgramError, ProgramFlow};
use crate::types::{IfName, Mac};

use super::kernel_spec::neighbours;
use super::vlans::Vlans;

/// What a port is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Address {
    Mac(Mac),
    Ip(IpAddr),
}

/// Which of a network's lists a port is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Local,
    Remote,
}

/// Who bears which address, and which tunnels are in use.
#[derive(Debug, Default)]
pub(super) struct Bearers {
    networks: BTreeMap<String, BTreeSet<(Address, Side, Arc<str>)>>,
    /// How many ports and floods of networks of this kind go to a node.
    tunnels: BTreeMap<(TunnelKind, String), usize>,
}

/// How far a change reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// What comes of it is noted.
    Noted,
    /// Only a whole pass can tell; the bearers are out of date.
    Whole,
}

/// A change that concerns addresses or the flood of a network that is here.
struct Concern {
    /// The network's place in the view.
    at: usize,
    /// The port's addresses, old and new; none for a flood.
    addresses: BTreeSet<Address>,
    old: Option<Bearer>,
    new: Option<Bearer>,
    /// The nodes whose tunnels are used less, and more.
    nodes: (Option<String>, Option<String>),
    flood: bool,
}

/// A port with all that it is known by.
struct Bearer {
    side: Side,
    name: Arc<str>,
    addresses: Vec<Address>,
}

impl Bearer {
    fn local(port: &PortView) -> Self {
        // With those that it may take: the responder treats their bearers otherwise for it.
        let own = port.addresses.iter().chain(port.allowed.iter().map(|allowed| &allowed.ip));
        let own = addresses(port.mac, own.map(ipnet::IpNet::addr));
        let addresses = own.chain(of_claimed(&port.claimed)).collect();
        Self { side: Side::Local, name: port.name.as_str().into(), addresses }
    }

    fn remote(port: &RemotePort) -> Self {
        let own = addresses(port.mac, port.ips.iter().copied());
        let addresses = own.chain(of_claimed(&port.claimed)).collect();
        Self { side: Side::Remote, name: port.name.as_str().into(), addresses }
    }

    /// Its entries among a network's.
    fn entries(&self) -> impl Iterator<Item = (Address, Side, Arc<str>)> {
        self.addresses.iter().map(|address| (*address, self.side, Arc::clone(&self.name)))
    }
}

/// Every address of a port, the link-local one included that it has where there is IPv6.
fn addresses(mac: Mac, ips: impl Iterator<Item = IpAddr>) -> impl Iterator<Item = Address> {
    [Address::Mac(mac), Address::Ip(mac.link_local().into())].into_iter().chain(ips.map(Address::Ip))
}

fn of_claimed(claimed: &[ClaimedAddress]) -> impl Iterator<Item = Address> {
    claimed.iter().flat_map(|claimed| [Address::Mac(claimed.mac), Address::Ip(claimed.ip)])
}

/// The item of a name in a list that is sorted by it.
fn find<'a, T>(list: &'a [T], name: &str, key: impl Fn(&T) -> &str) -> Option<&'a T> {
    list.binary_search_by(|item| key(item).cmp(name)).ok().map(|at| &list[at])
}

impl Bearers {
    /// Those of a view.
    pub(super) fn of(view: &NodeView) -> Self {
        let mut bearers = Self::default();
        for network in &view.networks {
            let mut all = Vec::new();
            network.local_ports.iter().for_each(|port| all.extend(Bearer::local(port).entries()));
            let mut nodes: BTreeMap<&str, usize> = BTreeMap::new();
            for port in &network.remote_ports {
                all.extend(Bearer::remote(port).entries());
                *nodes.entry(&port.node).or_default() += 1;
            }
            network.flood.iter().for_each(|node| *nodes.entry(node).or_default() += 1);
            if let Some(kind) = network.segment.kind().tunnel() {
                for (node, uses) in nodes {
                    *bearers.tunnels.entry((kind, node.to_owned())).or_default() += uses;
                }
            }
            bearers.networks.insert(network.name.clone(), all.into_iter().collect());
        }
        bearers
    }

    /// Takes a change into the view, and into `delta` what comes of it.
    pub(super) fn take(
        &mut self,
        view: &mut NodeView,
        vlans: &Vlans,
        change: ViewChange,
        delta: &mut Delta,
    ) -> Result<Extent, EarlyFull> {
        let concern = match concern(view, &change) {
            Reach::Nothing => None,
            Reach::Part(concern) => Some(concern),
            Reach::Whole => {
                return if view.apply(change) { Ok(Extent::Whole) } else { Err(EarlyFull) };
            }
        };
        let Some(concern) = concern else {
            return if view.apply(change) { Ok(Extent::Noted) } else { Err(EarlyFull) };
        };
        let Some(kind) = view.networks[concern.at].segment.kind().tunnel() else {
            // Where a physical network's frames go hangs on the node's interface on it, which no part of a view has.
            return if view.apply(change) { Ok(Extent::Whole) } else { Err(EarlyFull) };
        };
        let before = self.part(view, &concern);
        let same_tunnels = self.retunnel(kind, &concern.nodes);
        self.replace(&view.networks[concern.at].name, &concern);
        if !view.apply(change) {
            return Err(EarlyFull);
        }
        let after = self.part(view, &concern);
        if same_tunnels && delta.note(vlans, &before, &after).is_ok() {
            return Ok(Extent::Noted);
        }
        Ok(Extent::Whole)
    }

    /// The MAC that the routers' neighbour entries are to have for an address of a network, if any.
    pub(super) fn neighbour(&self, view: &NodeView, network: &str, ip: IpAddr) -> Option<Mac> {
        let at = view.networks.binary_search_by(|view| view.name.as_str().cmp(network)).ok()?;
        let concern = Concern { addresses: [Address::Ip(ip)].into(), ..Concern::nothing(at) };
        let part = self.part(view, &concern);
        let found = neighbours(part.networks.first()?);
        found.into_iter().find(|entry| entry.ip == ip).map(|entry| entry.mac)
    }

    /// What of a view a change is computed from.
    fn part(&self, view: &NodeView, concern: &Concern) -> NodeView {
        let whole = &view.networks[concern.at];
        let mut names: BTreeSet<(Side, &str)> = BTreeSet::new();
        if let Some(bearers) = self.networks.get(&whole.name) {
            for address in &concern.addresses {
                let first = (*address, Side::Local, Arc::from(""));
                let those = bearers.range(first..).take_while(|(other, ..)| other == address);
                names.extend(those.map(|(_, side, name)| (*side, &**name)));
            }
        }
        // A machine on its way here is one with its port elsewhere, whatever addresses each is said to bear.
        let elsewhere: Vec<&str> =
            names.iter().filter(|(side, _)| *side == Side::Remote).map(|(_, name)| *name).collect();
        let is_standby =
            |name: &&str| find(&whole.local_ports, name, |port| &port.name).is_some_and(|port| port.standby);
        names.extend(elsewhere.into_iter().filter(is_standby).map(|name| (Side::Local, name)));
        let of = |wanted: Side| names.iter().filter(move |(side, _)| *side == wanted).map(|(_, name)| *name);
        let remote = |name| find(&whole.remote_ports, name, |port| &port.name).cloned();
        let local = |name| find(&whole.local_ports, name, |port| &port.name).cloned();
        let network = NetworkView {
            name: whole.name.clone(),
            id: whole.id,
            segment: whole.segment.clone(),
            mtu: whole.mtu,
            subnets: whole.subnets.clone(),
            local_ports: of(Side::Local).filter_map(local).collect(),
            remote_ports: of(Side::Remote).filter_map(remote).collect(),
            flood: if concern.flood { whole.flood.clone() } else { Vec::new() },
        };
        let mut part = NodeView::new(view.node.clone(), view.underlay_mtu, view.vxlan_port);
        let nodes = network.remote_ports.iter().map(|port| &port.node).chain(&network.flood);
        let nodes: BTreeSet<&str> = nodes.map(String::as_str).collect();
        let peer = |name: &str| find(&view.peers, name, |peer: &Peer| &peer.name).cloned();
        part.peers = nodes.into_iter().filter_map(peer).collect();
        part.routers = view.routers.iter().filter_map(|router| on(router, &network.name)).collect();
        part.networks = vec![network];
        part
    }

    /// Counts the uses of tunnels anew. Gives whether the same ones are in use.
    fn retunnel(&mut self, kind: TunnelKind, (less, more): &(Option<String>, Option<String>)) -> bool {
        if less == more {
            return true;
        }
        let mut same = true;
        if let Some(node) = more {
            let uses = self.tunnels.entry((kind, node.clone())).or_default();
            same &= *uses > 0;
            *uses += 1;
        }
        if let Some(node) = less
            && let Some(uses) = self.tunnels.get_mut(&(kind, node.clone()))
        {
            *uses -= 1;
            if *uses == 0 {
                same = false;
                self.tunnels.remove(&(kind, node.clone()));
            }
        }
        same
    }

    fn replace(&mut self, network: &str, concern: &Concern) {
        let Some(bearers) = self.networks.get_mut(network) else { return };
        for entry in concern.old.iter().flat_map(Bearer::entries) {
            bearers.remove(&entry);
        }
        bearers.extend(concern.new.iter().flat_map(Bearer::entries));
    }
}

/// A router with its interfaces on this network alone; `None` if it has none.
fn on(router: &RouterView, network: &str) -> Option<RouterView> {
    let interfaces: Vec<_> = router.interfaces.iter().filter(|port| port.network == network).cloned().collect();
    let RouterView { name, id, netns, node, interfaces: _ } = router;
    (!interfaces.is_empty()).then(|| RouterView {
        name: name.clone(),
        id: *id,
        netns: netns.clone(),
        node: node.clone(),
        interfaces,
    })
}

/// More waits for networks that are not there than a view keeps: the view must be asked for anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many changes came of networks that did not: the whole is needed")]
pub(super) struct EarlyFull;

impl Concern {
    const fn nothing(at: usize) -> Self {
        Self { at, addresses: BTreeSet::new(), old: None, new: None, nodes: (None, None), flood: false }
    }

    /// A port that was one and is another.
    fn bearer(at: usize, old: Option<Bearer>, new: Option<Bearer>) -> Self {
        let addresses = [&old, &new].into_iter().flatten().flat_map(|port| port.addresses.iter().copied()).collect();
        Self { addresses, old, new, ..Self::nothing(at) }
    }

    fn remote(at: usize, old: Option<&RemotePort>, new: Option<&RemotePort>) -> Reach {
        let node = |port: Option<&RemotePort>| port.map(|port| port.node.clone());
        let nodes = (node(old), node(new));
        Reach::Part(Box::new(Self { nodes, ..Self::bearer(at, old.map(Bearer::remote), new.map(Bearer::remote)) }))
    }

    /// A port of this node that took addresses, or lost them to others, and is as it was else.
    fn claims(at: usize, old: &PortView, new: &PortView) -> Reach {
        let is_same = PortView { claimed: new.claimed.clone(), ..old.clone() } == *new;
        if !is_same || new.standby {
            return Reach::Whole;
        }
        Reach::Part(Box::new(Self::bearer(at, Some(Bearer::local(old)), Some(Bearer::local(new)))))
    }
}

/// How far a change may reach.
enum Reach {
    Nothing,
    Part(Box<Concern>),
    Whole,
}

/// What a change concerns.
fn concern(view: &NodeView, change: &ViewChange) -> Reach {
    let there = |network: &str| view.networks.binary_search_by(|view| view.name.as_str().cmp(network)).ok();
    let port_of = |at: usize, name: &str| find(&view.networks[at].remote_ports, name, |port| &port.name);
    // Flows that are not its own hang on a router that lives elsewhere.
    let is_plain = |port: &RemotePort| !port.router;
    // And a machine on its way here changes what is said of its port elsewhere.
    let is_awaited = |at: usize, name: &str| {
        find(&view.networks[at].local_ports, name, |port| &port.name).is_some_and(|port| port.standby)
    };
    match change {
        ViewChange::RemotePort { port, .. } if !is_plain(port) => Reach::Whole,
        ViewChange::RemotePort { network, port: RemotePort { name, .. } }
        | ViewChange::RemotePortGone { network, name, .. }
            if there(network)
                .is_some_and(|at| is_awaited(at, name) || port_of(at, name).is_some_and(|port| !is_plain(port))) =>
        {
            Reach::Whole
        }
        ViewChange::RemotePort { network, port } => {
            there(network).map_or(Reach::Nothing, |at| Concern::remote(at, port_of(at, &port.name), Some(port)))
        }
        ViewChange::RemotePortGone { network, name, node } => {
            let found = there(network).and_then(|at| Some((at, port_of(at, name).filter(|port| port.node == *node)?)));
            found.map_or(Reach::Nothing, |(at, port)| Concern::remote(at, Some(port), None))
        }
        ViewChange::LocalPort { network, port } => {
            let old = |at: usize| find(&view.networks[at].local_ports, &port.name, |port| &port.name);
            let found = there(network).and_then(|at| Some((at, old(at)?)));
            found.map_or(Reach::Whole, |(at, old)| Concern::claims(at, old, port))
        }
        ViewChange::Flood { network, node } | ViewChange::FloodGone { network, node } => {
            let Some(at) = there(network) else { return Reach::Nothing };
            let comes = matches!(change, ViewChange::Flood { .. });
            let is_there = find(&view.networks[at].flood, node, |node| node).is_some();
            let nodes = match (comes, is_there) {
                (true, false) => (None, Some(node.clone())),
                (false, true) => (Some(node.clone()), None),
                (true, true) | (false, false) => return Reach::Nothing,
            };
            Reach::Part(Box::new(Concern { nodes, flood: true, ..Concern::nothing(at) }))
        }
        ViewChange::Node(_)
        | ViewChange::Underlay { .. }
        | ViewChange::BridgeMappings(_)
        | ViewChange::Peer(_)
        | ViewChange::PeerGone { .. }
        | ViewChange::Network(_)
        | ViewChange::NetworkGone { .. }
        | ViewChange::LocalPortGone { .. }
        | ViewChange::Router(_)
        | ViewChange::RouterGone { .. } => Reach::Whole,
    }
}

/// Something that was one way and becomes another.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Turn<T> {
    before: Option<T>,
    after: Option<T>,
}

/// A table, priority and match.
type Place = (u8, u16, String);
type Turns<K, T> = BTreeMap<K, Turn<T>>;

/// Notes in `turns` where two states differ. What was noted before stays what it was first.
fn turn<K: Ord + Clone, T: PartialEq + Clone>(
    turns: &mut Turns<K, T>,
    before: &BTreeMap<K, T>,
    after: &BTreeMap<K, T>,
) {
    for (key, value) in before.iter().filter(|(key, value)| after.get(key) != Some(value)) {
        turns.entry(key.clone()).or_insert_with(|| Turn { before: Some(value.clone()), after: None }).after =
            after.get(key).cloned();
    }
    for (key, value) in after.iter().filter(|(key, _)| !before.contains_key(key)) {
        turns.entry(key.clone()).or_insert_with(|| Turn { before: None, after: None }).after = Some(value.clone());
    }
}

/// What changes come to, taken together.
#[derive(Debug, Default)]
pub(super) struct Delta {
    br_int: Turns<Place, String>,
    br_tun: Turns<Place, String>,
    /// By namespace and link.
    neighbours: BTreeMap<(String, IfName), Turns<IpAddr, Mac>>,
    /// How many ports, flows and entries were looked at.
    pub(super) looked_at: usize,
}

impl Delta {
    fn note(&mut self, vlans: &Vlans, before: &NodeView, after: &NodeView) -> Result<(), ProgramError> {
        let (old, new) = (Program::of_bearers(before, vlans)?, Program::of_bearers(after, vlans)?);
        for part in [before, after] {
            let ports = part.networks.iter().map(|network| network.local_ports.len() + network.remote_ports.len());
            self.looked_at += ports.sum::<usize>();
        }
        for (turns, old, new) in
            [(&mut self.br_int, old.br_int, new.br_int), (&mut self.br_tun, old.br_tun, new.br_tun)]
        {
            self.looked_at += old.len() + new.len();
            turn(turns, &keyed(old), &keyed(new));
        }
        let entries = |part: &NodeView| -> BTreeMap<IpAddr, Mac> {
            part.networks.iter().flat_map(neighbours).map(|NeighbourSpec { ip, mac }| (ip, mac)).collect()
        };
        let (old, new) = (entries(before), entries(after));
        for router in &after.routers {
            for port in &router.interfaces {
                self.looked_at += old.len() + new.len();
                let link = (router.netns.clone(), port.ifname.clone());
                turn(self.neighbours.entry(link).or_default(), &old, &new);
            }
        }
        Ok(())
    }

    /// The changes of br-int's flows, then of br-tun's: modifications and additions, then removals.
    pub(super) fn flows(&self) -> [Vec<FlowChange>; 2] {
        [changes(&self.br_int), changes(&self.br_tun)]
    }

    /// The changes of neighbour entries.
    ///
    /// # Errors
    /// When a router's namespace cannot be named so.
    pub(super) fn neighbours(&self) -> Result<Vec<Op>, BadName> {
        let mut ops = Vec::new();
        for ((netns, link), turns) in &self.neighbours {
            let (mut ips, mut entries) = (Vec::new(), Vec::new());
            for (ip, Turn { before, after }) in turns.iter().filter(|(_, turn)| turn.before != turn.after) {
                match (before, after) {
                    (_, Some(mac)) => entries.push(NeighbourSpec { ip: *ip, mac: *mac }),
                    (_, None) => ips.push(*ip),
                }
            }
            let netns = crate::netns::NetnsName::from(Name::new(netns)?);
            if !ips.is_empty() {
                ops.push(Op::Neigh(netns.clone(), NeighOp::Remove { link: link.clone(), ips }));
            }
            if !entries.is_empty() {
                ops.push(Op::Neigh(netns, NeighOp::Replace { link: link.clone(), entries }));
            }
        }
        Ok(ops)
    }
}

/// Flows by what tells them apart; the later of two counts.
fn keyed(flows: Vec<ProgramFlow>) -> BTreeMap<Place, String> {
    flows
        .into_iter()
        .map(|ProgramFlow { table, priority, matching, actions }| ((table, priority, matching), actions))
        .collect()
}

fn changes(turns: &Turns<Place, String>) -> Vec<FlowChange> {
    let (mut changes, mut removals) = (Vec::new(), Vec::new());
    for ((table, priority, matching), Turn { before, after }) in turns.iter() {
        if before == after {
            continue;
        }
        let actions = after.clone().unwrap_or_default();
        let flow = ProgramFlow { table: *table, priority: *priority, matching: matching.clone(), actions };
        match (before, after) {
            (_, None) => removals.push(FlowChange::DeleteStrict(flow.strict_match())),
            (None, Some(_)) => changes.push(FlowChange::Add(flow.to_string())),
            (Some(_), Some(actions)) => {
                changes.push(FlowChange::ModifyStrict(format!("{} actions={actions}", flow.strict_match())));
            }
        }
    }
    changes.append(&mut removals);
    changes
}

#[cfg(test)]
mod tests;
