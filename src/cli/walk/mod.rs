//! `dvr trace VM VM|IP`: a packet's whole way, through the bridges and routers of every node it meets.
//!
//! Nothing is sent. The machine's frame is made here and given to its node's switch to follow; what leaves by a router's
//! port is routed by the agent's view of that namespace, and what leaves by a tunnel is given to the switch of the node at
//! its other end. The walk ends where the packet does.

mod frames;
mod physical;

use core::net::IpAddr;
use std::collections::VecDeque;

use super::error::{CliError, DONE, FAILED};
use super::output;
use super::target::{self, Site};
use crate::api::agent::{self, Hop, Network, Peer, Route, RouteOf, Show, Vm, Way};
use crate::api::switch::{Dropped, Followed, Request, Sent, Tunnel};
use crate::lab::{Daemon, LabName};
use crate::model::view::{Backend, NetworkKind, TunnelKind};
use crate::program::{BR_INT, BR_TUN, fixed, tunnel_port};
use crate::types::{IfName, Mac, Vni};

/// Steps of one walk at most: what takes more goes round in circles.
const LIMIT_STEPS: usize = 64;

/// What may make either end of a tunnel.
const BACKENDS: [Backend; 2] = [Backend::Userspace, Backend::Kernel];

/// A node whose agent answers.
pub(super) struct Node {
    site: Site,
    show: Show,
}

/// The nodes that a command may mean.
pub(super) struct Nodes {
    answering: Vec<Node>,
    /// Those whose agents do not answer, by name: missed only by a walk that begins or leads there.
    silent: Vec<String>,
}

/// Asks all nodes that a command may mean what they hold.
///
/// # Errors
/// When there is no such lab.
pub(super) fn nodes(lab: Option<&LabName>) -> Result<Nodes, CliError> {
    let mut nodes = Nodes { answering: Vec::new(), silent: Vec::new() };
    for site in target::sites(lab, None)? {
        match target::ask(&site, Daemon::Agent, &agent::Request::Show) {
            Ok(show) => nodes.answering.push(Node { site, show }),
            Err(_) => nodes.silent.push(site.node),
        }
    }
    Ok(nodes)
}

impl Nodes {
    /// Whether some node has a machine of this name.
    pub(super) fn have_vm(&self, name: &str) -> bool {
        find_vm(&self.answering, name).is_some()
    }

    fn absent(&self, name: &str) -> CliError {
        let vms = self.answering.iter().flat_map(|node| &node.show.vms);
        let known: Vec<&str> = vms.map(|vm| vm.name.as_str()).collect();
        let silent = match self.silent.as_slice() {
            [] => String::new(),
            silent => format!("; the agents of these nodes do not answer: {}", silent.join(", ")),
        };
        CliError::Absent(format!("there is no VM `{name}`; those there are: {}{silent}", known.join(", ")))
    }
}

fn find_vm<'a>(nodes: &'a [Node], name: &str) -> Option<(usize, &'a Vm)> {
    nodes.iter().enumerate().find_map(|(index, node)| Some((index, node.show.vms.iter().find(|vm| vm.name == name)?)))
}

/// Walks from a machine to another or to an address. The exit code tells whether the packet arrives.
///
/// # Errors
/// When a name means nothing, or a daemon on the way cannot be asked.
pub(super) fn walk(known: &Nodes, from: &str, to: &str) -> Result<u8, CliError> {
    let nodes = known.answering.as_slice();
    let (start, source) = find_vm(nodes, from).ok_or_else(|| known.absent(from))?;
    let (target, wanted) = match to.parse::<IpAddr>() {
        Ok(ip) => (ip, None),
        Err(_) => {
            let (_, other) = find_vm(nodes, to).ok_or_else(|| known.absent(to))?;
            let same = other.ips.iter().find(|ip| source.ips.iter().any(|own| own.is_ipv4() == ip.is_ipv4()));
            let families =
                || CliError::Usage(format!("{from} and {to} have no addresses of one family: give an address"));
            (*same.ok_or_else(families)?, Some(other.name.clone()))
        }
    };
    let mut walk =
        Walk { nodes, target, wanted, steps: 0, told: String::new(), ends: Vec::new(), waiting: VecDeque::new() };
    walk.depart(start, source)?;
    while let Some(step) = walk.waiting.pop_front() {
        if walk.steps >= LIMIT_STEPS {
            walk.end(false, format!("given up after {LIMIT_STEPS} steps: the packet goes round in circles"));
            break;
        }
        walk.step(step)?;
    }
    walk.told.push('\n');
    // The worst is told first, and what matters last.
    walk.ends.sort_by_key(|(arrived, _)| *arrived);
    for (_, end) in &walk.ends {
        walk.told.push_str(end);
        walk.told.push('\n');
    }
    output::print(&walk.told)?;
    Ok(if walk.ends.iter().any(|(arrived, _)| *arrived) { DONE } else { FAILED })
}

/// A frame about to enter a bridge.
struct Step {
    node: usize,
    bridge: IfName,
    port: IfName,
    tunnel: Option<Tunnel>,
    frame: Vec<u8>,
    /// From whom, in words.
    from: String,
}

struct Walk<'a> {
    nodes: &'a [Node],
    target: IpAddr,
    /// The machine that was asked for by name: another may have the same address.
    wanted: Option<String>,
    steps: usize,
    told: String,
    /// What became of the packet, and whether that is what was wanted; several if it was flooded.
    ends: Vec<(bool, String)>,
    waiting: VecDeque<Step>,
}

impl Walk<'_> {
    fn end(&mut self, arrived: bool, what: String) {
        self.ends.push((arrived, what));
    }

    /// The packet ended in a machine that bears its address: whether it is the one that was asked for.
    fn delivered(&mut self, name: &str, what: String) {
        match &self.wanted {
            Some(wanted) if wanted != name => {
                let what = format!("{what}: it has the same address as {wanted}");
                self.end(false, what);
            }
            Some(_) | None => self.end(true, what),
        }
    }

    /// A heading, numbered.
    fn heading(&mut self, text: &str) {
        self.steps += 1;
        let line = format!("{}. {text}", self.steps);
        let rule = "=".repeat(line.chars().count());
        self.told.push_str(&format!("\n{line}\n{rule}\n"));
    }

    fn follow(&self, step: &Step) -> Result<Followed, CliError> {
        let Step { node, bridge, port, tunnel, frame, .. } = step;
        let request =
            Request::Follow { bridge: bridge.clone(), port: port.clone(), tunnel: *tunnel, frame: frame.clone() };
        target::ask(&self.nodes[*node].site, Daemon::Switch, &request)
    }

    fn route(&self, node: usize, of: RouteOf) -> Result<Route, CliError> {
        target::ask(&self.nodes[node].site, Daemon::Agent, &agent::Request::Route { of, to: self.target })
    }

    /// The machine's own part: its route, its question for the next hop, its frame.
    fn depart(&mut self, node: usize, vm: &Vm) -> Result<(), CliError> {
        let place = format!("{}/{}", self.nodes[node].site.node, vm.name);
        let target = self.target;
        let way = match self.route(node, RouteOf::Vm(vm.name.clone()))?.hop {
            Hop::Out(way) => way,
            Hop::Here { ifname } => {
                self.delivered(
                    &vm.name,
                    format!("Delivered to {place} itself: {target} is the address of its {ifname}"),
                );
                return Ok(());
            }
            Hop::Nowhere { why } => {
                self.end(false, format!("Dropped at {place}: {why}"));
                return Ok(());
            }
        };
        let own = || vm.ips.iter().find(|ip| ip.is_ipv4() == target.is_ipv4()).copied();
        let Some(source) = way.source.or_else(own) else {
            self.end(false, format!("Dropped at {place}: it has no address of the family of {target}"));
            return Ok(());
        };
        let Some(mac) = self.resolve(node, vm, source, way.next_hop)? else {
            let what =
                format!("nobody answers for {}: no VM or router of network {} bears it", way.next_hop, vm.network);
            self.end(false, format!("Dropped at {place}: {what}"));
            return Ok(());
        };
        let by = way.gateway.map_or_else(|| "on its own network".to_owned(), |gateway| format!("by way of {gateway}"));
        self.told.push_str(&format!("{place}: {source} sends to {target} {by}, {} > {mac}\n", vm.mac));
        let Some(frame) = frames::echo((vm.mac, source), (mac, target)) else {
            self.end(false, format!("Dropped at {place}: {source} and {target} are of different families"));
            return Ok(());
        };
        let from = format!("VM {}", vm.name);
        self.waiting.push_back(Step { node, bridge: fixed(BR_INT), port: vm.port.clone(), tunnel: None, frame, from });
        Ok(())
    }

    /// How the machine's question for its next hop is answered, which is told first.
    fn resolve(&mut self, node: usize, vm: &Vm, source: IpAddr, asked: IpAddr) -> Result<Option<Mac>, CliError> {
        let Some(frame) = frames::question((vm.mac, source), asked) else { return Ok(None) };
        let protocol = if asked.is_ipv4() { "ARP" } else { "ND" };
        let from = String::new();
        let step = Step { node, bridge: fixed(BR_INT), port: vm.port.clone(), tunnel: None, frame, from };
        let sent = self.follow(&step)?.sent;
        let back = sent.iter().find(|sent| sent.port == vm.port).and_then(|sent| frames::answer(&sent.frame, asked));
        let name = &self.nodes[node].site.node;
        let question = format!("{protocol}: who has {asked}? asks {} on network {}", vm.name, vm.network);
        if let Some(mac) = back {
            self.told.push_str(&format!("{question}; the responder of {name}/{BR_INT} answers {mac}\n"));
            return Ok(Some(mac));
        }
        let bearer = self.nodes.iter().flat_map(|node| &node.show.vms);
        let bearer = bearer.filter(|there| there.network == vm.network).find(|there| there.ips.contains(&asked));
        let flooded: Vec<&str> = sent.iter().map(|sent| sent.port.as_str()).collect();
        let ports = if flooded.is_empty() { "nowhere".to_owned() } else { flooded.join(", ") };
        match bearer {
            Some(other) => {
                self.told.push_str(&format!(
                    "{question}; it is flooded to {ports}, and {} answers {}\n",
                    other.name, other.mac
                ));
            }
            None => self.told.push_str(&format!("{question}; it is flooded to {ports}, and nobody answers\n")),
        }
        Ok(bearer.filter(|_| !flooded.is_empty()).map(|other| other.mac))
    }

    /// A frame through the bridges of a node.
    fn step(&mut self, step: Step) -> Result<(), CliError> {
        let name = self.nodes[step.node].site.node.clone();
        self.heading(&format!("{name}: from {} into {}, port {}", step.from, step.bridge, step.port));
        let Followed { text, sent, dropped } = self.follow(&step)?;
        self.told.push_str(&text);
        if let Some(Dropped { reason, bridge, table }) = dropped {
            let bridge = bridge.unwrap_or_else(|| step.bridge.to_string());
            let table = table.map_or_else(String::new, |table| format!("/table {table}"));
            self.end(false, format!("Dropped at {name}/{bridge}{table}: {reason}"));
        } else if sent.is_empty() {
            self.end(false, format!("Dropped at {name}/{}: it leaves by no port", step.bridge));
        }
        for sent in sent {
            self.leave(step.node, sent)?;
        }
        Ok(())
    }

    /// A frame that left a bridge: into a machine, a router, a tunnel.
    fn leave(&mut self, node: usize, sent: Sent) -> Result<(), CliError> {
        let show = &self.nodes[node].show;
        let name = &self.nodes[node].site.node;
        if let Some(tunnel) = sent.tunnel {
            self.cross(node, sent, tunnel);
            return Ok(());
        }
        if let Some(vm) = show.vms.iter().find(|vm| vm.port == sent.port) {
            let place = format!("{} on {name}, by port {} of {}", vm.name, sent.port, sent.bridge);
            let vm = vm.clone();
            match frames::said(&sent.frame) {
                Some(said) if said.mac != vm.mac => {
                    self.end(false, format!("Reaches {place}, which drops it: it is for {}", said.mac));
                }
                Some(said) if vm.ips.contains(&said.ip) => self.delivered(&vm.name, format!("Delivered to {place}")),
                Some(said) => {
                    self.end(false, format!("Reaches {place}, which drops it: it has no address {}", said.ip))
                }
                None => self.end(false, format!("Reaches {place}, which drops it: it is no untagged packet")),
            }
            return Ok(());
        }
        if self.is_physical(node, &sent) {
            self.cross_physical(node, sent);
            return Ok(());
        }
        let router = show.routers.iter().find_map(|router| {
            Some((router.name.clone(), router.interfaces.iter().find(|port| port.ifname == sent.port)?.mac))
        });
        if let Some((router, mac)) = router {
            return self.through_router(node, &router, mac, &sent);
        }
        let tunnels = self.by_device(node, &sent);
        if tunnels.is_empty() {
            let what = format!("Leaves {name} by port {} of {}, beyond which nothing is known", sent.port, sent.bridge);
            self.end(false, what);
        }
        for tunnel in tunnels {
            self.cross(node, sent.clone(), tunnel);
        }
        Ok(())
    }

    /// Where the kernel's tunnel device of that name takes a frame: to the node that has the machine it is for, else to
    /// every node that has the network, as its forwarding entries say.
    fn by_device(&self, node: usize, sent: &Sent) -> Vec<Tunnel> {
        let show = &self.nodes[node].show;
        let behind = |network: &&Network| {
            let kind = NetworkKind::ALL.into_iter().find(|kind| kind.name() == network.kind);
            let kind = kind.and_then(NetworkKind::tunnel);
            let port = |peer: &Peer| Some(tunnel_port(Backend::Kernel, kind?, network.vni?, peer.tunnel_ip));
            show.peers.iter().any(|peer| port(peer).as_ref() == Some(&sent.port))
        };
        let Some(network) = show.networks.iter().find(behind) else { return Vec::new() };
        let to = frames::said(&sent.frame).map(|said| said.mac);
        let has = |peer: &&Peer| {
            let there = self.nodes.iter().filter(|there| there.show.node == peer.node);
            let mut vms = there.flat_map(|there| &there.show.vms);
            vms.any(|vm| vm.network == network.name && Some(vm.mac) == to)
        };
        let at_port: Vec<&Peer> = show.peers.iter().filter(|peer| peer.ports.contains(&sent.port)).collect();
        let known: Vec<&Peer> = at_port.iter().copied().filter(|peer| has(peer)).collect();
        let flood = || at_port.into_iter().filter(|peer| network.flood.contains(&peer.node)).collect();
        let peers = if known.is_empty() { flood() } else { known };
        let Some(key) = network.vni.map(|vni| vni.get().into()) else { return Vec::new() };
        let tunnel = |peer: &Peer| Tunnel { key, source: show.tunnel_ip, destination: peer.tunnel_ip };
        peers.into_iter().map(tunnel).collect()
    }

    fn through_router(&mut self, node: usize, router: &str, mac: Mac, sent: &Sent) -> Result<(), CliError> {
        let name = self.nodes[node].site.node.clone();
        let place = format!("{name}/{router}");
        let Route { netns, hop } = self.route(node, RouteOf::Router(router.to_owned()))?;
        let netns = netns.unwrap_or_default();
        self.heading(&format!("{place}: from port {} into namespace {netns}", sent.port));
        let said = frames::said(&sent.frame);
        if let Some(said) = said.filter(|said| said.mac != mac) {
            self.told.push_str(&format!("for {}, and the port has {mac}\n", said.mac));
            self.end(false, format!("Dropped at {place}: the frame is not for this router"));
            return Ok(());
        }
        let target = self.target;
        let way: Way = match hop {
            Hop::Out(way) => *way,
            Hop::Here { ifname } => {
                self.told.push_str(&format!("{target} is the address of {ifname}\n"));
                self.end(true, format!("Delivered to router {router} on {name}: {target} is its own address"));
                return Ok(());
            }
            Hop::Nowhere { why } => {
                self.told.push_str(&format!("{why}\n"));
                self.end(false, format!("Dropped at {place}: {why}"));
                return Ok(());
            }
        };
        let via = way.gateway.map_or_else(String::new, |gateway| format!(" via {gateway}"));
        self.told.push_str(&format!("route {}{via} dev {}\n", way.destination, way.ifname));
        let (Some(own), Some(neighbour)) = (way.mac, way.neighbour) else {
            let what =
                format!("{} has no neighbour entry on {}: no VM of the topology bears it", way.next_hop, way.ifname);
            self.told.push_str(&format!("neighbour {} is not known\n", way.next_hop));
            self.end(false, format!("Dropped at {place}: {what}"));
            return Ok(());
        };
        let kind = if way.permanent { "PERMANENT" } else { "learned" };
        self.told.push_str(&format!("neighbour {} at {neighbour} ({kind})\n", way.next_hop));
        let Some(frame) = frames::routed(&sent.frame, own, neighbour) else {
            self.end(false, format!("Dropped at {place}: the packet has no hop left"));
            return Ok(());
        };
        let left = frames::said(&frame).map_or(0, |said| said.ttl);
        self.told.push_str(&format!("sent on as {own} > {neighbour}, {left} hops left\n"));
        let from = format!("router {router}");
        self.waiting.push_back(Step { node, bridge: fixed(BR_INT), port: way.ifname, tunnel: None, frame, from });
        Ok(())
    }

    /// Over the wire, to the node at the tunnel's other end.
    fn cross(&mut self, node: usize, sent: Sent, tunnel: Tunnel) {
        let Tunnel { key, source, destination } = tunnel;
        let show = &self.nodes[node].show;
        let name = self.nodes[node].site.node.clone();
        let peer = show.peers.iter().find(|peer| peer.tunnel_ip == destination);
        let other = peer.map_or_else(|| destination.to_string(), |peer| peer.node.clone());
        self.heading(&format!("wire: {name} > {other}, tunnel {key:#x} from {source} to {destination}"));
        let there = self.nodes.iter().position(|node| node.show.tunnel_ip == destination);
        let Some(there) = there else {
            let what = format!(
                "Leaves {name} by tunnel port {} for node {other}, whose agent does not answer here",
                sent.port
            );
            self.end(false, what);
            return;
        };
        // Both ends are of one kind, whatever makes them.
        let wire =
            |kind, backend, ip| Vni::new(u32::try_from(key).ok()?).ok().map(|key| tunnel_port(backend, kind, key, ip));
        let leads =
            |kind: &TunnelKind| BACKENDS.iter().any(|by| wire(*kind, *by, destination).as_ref() == Some(&sent.port));
        let kind = TunnelKind::ALL.into_iter().find(leads);
        let back = self.nodes[there].show.peers.iter().find(|peer| peer.tunnel_ip == source);
        let ends = |by: &Backend| {
            let port = wire(kind?, *by, source)?;
            back.filter(|peer| peer.ports.contains(&port)).map(|_| (port, *by))
        };
        let Some((port, by)) = BACKENDS.iter().find_map(ends) else {
            self.end(false, format!("Dropped at {other}: it has no tunnel from {name}"));
            return;
        };
        // What comes by a device of the kernel's comes as a plain frame.
        let tunnel = match by {
            Backend::Userspace => Some(tunnel),
            Backend::Kernel => None,
        };
        self.told.push_str(&format!("{} octets in the tunnel\n", sent.frame.len()));
        let from = format!("node {name}");
        let bridge = fixed(BR_TUN);
        self.waiting.push_back(Step { node: there, bridge, port, tunnel, frame: sent.frame, from });
    }
}
