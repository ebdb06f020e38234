//! What a walk did, as `ofproto/trace` tells it: a tree of bridges, tables, actions and remarks.

use core::fmt::Write;

use super::action::Action;
use super::bridge::{Bridge, BridgePorts};
use super::field::{Needs, Subfield};
use super::io::TunnelMeta;
use super::key::{self, Key, Mask};
use super::learn::LearnedFlow;
use super::matching::Match;
use super::odp;
use super::switch::Switch;
use super::table::Flow;
use super::text::{PortNames, print_actions, print_bits, print_match, print_plain, print_subfield};
use super::xlate::Verdict;
use crate::wire::{ethernet, ipv4};

/// What is to be traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceInput {
    /// A packet described in the syntax of flows.
    Flow(String),
    /// A frame, and the number of the port it comes in by.
    Frame {
        /// The port's number in its bridge.
        in_port: u32,
        /// What its tunnel said, if it came by one.
        tunnel: Option<TunnelMeta>,
        /// The frame from its Ethernet header on.
        octets: Vec<u8>,
    },
}

/// A frame to be traced of which nothing says where it comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame is traced from a port: give its number as `in_port=N` and nothing else")]
pub struct NoPort;

impl TraceInput {
    /// What a command line gives: a flow, or a frame and `in_port=N` for its flow.
    ///
    /// # Errors
    /// [`NoPort`] if there is a frame and `flow` is anything but `in_port=N`.
    pub fn of(flow: String, frame: Option<Vec<u8>>) -> Result<Self, NoPort> {
        let Some(octets) = frame else { return Ok(Self::Flow(flow)) };
        let in_port = flow.trim().strip_prefix("in_port=").and_then(|number| number.parse().ok()).ok_or(NoPort)?;
        Ok(Self::Frame { in_port, tunnel: None, octets })
    }
}

/// Most nodes of one tree; what would be more is not told. Enough for as many lookups as one packet may have, each with
/// a dozen actions and remarks.
const LIMIT_NODES: usize = 65_536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Root,
    Bridge,
    Table,
    Action,
    Detail,
    Warning,
    Error,
}

#[derive(Debug)]
struct Node {
    kind: Kind,
    text: String,
    children: Vec<usize>,
}

/// Names a node.
pub(crate) type NodeId = usize;

/// Writes a walk down as it goes.
#[derive(Debug)]
pub(crate) struct Recorder {
    nodes: Vec<Node>,
}

impl Recorder {
    pub(crate) const ROOT: NodeId = 0;

    pub(crate) fn new() -> Self {
        Self { nodes: vec![Node { kind: Kind::Root, text: String::new(), children: Vec::new() }] }
    }

    fn add(&mut self, parent: NodeId, kind: Kind, text: String) -> NodeId {
        if self.nodes.len() >= LIMIT_NODES {
            return parent;
        }
        self.nodes.push(Node { kind, text, children: Vec::new() });
        let node = self.nodes.len() - 1;
        self.nodes[parent].children.push(node);
        node
    }

    pub(crate) fn bridge(&mut self, parent: NodeId, name: &str) -> NodeId {
        self.add(parent, Kind::Bridge, format!("bridge(\"{name}\")"))
    }

    pub(crate) fn flow(&mut self, parent: NodeId, bridge: &Bridge, flow: &Flow) -> NodeId {
        let ports = BridgePorts { bridge, names: false };
        let mut text = format!("{:2}. ", flow.table);
        let mut matching = String::new();
        print_match(&mut matching, &flow.matching.whole(), &ports);
        if matching.pop().is_some() {
            let _ = write!(text, "{matching}, ");
        }
        let _ = write!(text, "priority {}", flow.priority);
        if flow.cookie != 0 {
            let _ = write!(text, ", cookie {:#x}", flow.cookie);
        }
        let node = self.add(parent, Kind::Table, text);
        if flow.actions.is_empty() {
            self.add(node, Kind::Action, "drop".to_owned());
        }
        node
    }

    pub(crate) fn miss(&mut self, parent: NodeId, table: u8) {
        let node = self.add(parent, Kind::Table, format!("{table:2}. No match."));
        self.add(node, Kind::Action, "drop".to_owned());
    }

    pub(crate) fn action(&mut self, parent: NodeId, action: &Action, ports: &impl PortNames) {
        let mut text = String::new();
        print_actions(&mut text, core::slice::from_ref(action), ports);
        self.add(parent, Kind::Action, text);
    }

    pub(crate) fn detail(&mut self, parent: NodeId, text: String) {
        self.add(parent, Kind::Detail, text);
    }

    pub(crate) fn warn(&mut self, parent: NodeId, text: String) {
        self.add(parent, Kind::Warning, text);
    }

    pub(crate) fn error(&mut self, parent: NodeId, text: String) {
        self.add(parent, Kind::Error, text);
    }

    /// The bridge and the table that the walk came to last.
    pub(crate) fn last(&self) -> (Option<String>, Option<u8>) {
        let bridge = self.nodes.iter().rfind(|node| node.kind == Kind::Bridge);
        let name = bridge.and_then(|node| Some(node.text.strip_prefix("bridge(\"")?.strip_suffix("\")")?.to_owned()));
        let table = self.nodes.iter().rfind(|node| node.kind == Kind::Table);
        (name, table.and_then(|node| node.text.split('.').next()?.trim().parse().ok()))
    }

    /// Prints the tree: a branch is indented unless it is the last of its parent and goes on.
    pub(crate) fn print(&self, out: &mut String) {
        // Children are visited from a stack of its own: a tree is as deep as a walk.
        let mut left: Vec<(NodeId, usize, usize)> = Vec::new();
        let push = |left: &mut Vec<(NodeId, usize, usize)>, parent: NodeId, level: usize| {
            let children = &self.nodes[parent].children;
            for (index, child) in children.iter().enumerate().rev() {
                let ends = matches!(self.nodes[*child].kind, Kind::Action | Kind::Detail | Kind::Warning | Kind::Error);
                let more = usize::from(index + 1 != children.len() || ends);
                left.push((*child, level + more, level + 2 * more));
            }
        };
        push(&mut left, Self::ROOT, 0);
        while let Some((node, level, inner)) = left.pop() {
            let Node { kind, text, .. } = &self.nodes[node];
            let indent = level * 4;
            let _ = match kind {
                Kind::Root => Ok(()),
                Kind::Bridge => {
                    let rule = "-".repeat(text.len());
                    writeln!(out, "\n{:indent$}{text}\n{:indent$}{rule}", "", "")
                }
                Kind::Table | Kind::Action => writeln!(out, "{:indent$}{text}", ""),
                Kind::Detail => writeln!(out, "{:indent$} -> {text}", ""),
                Kind::Warning => writeln!(out, "{:indent$} >> {text}", ""),
                Kind::Error => writeln!(out, "{:indent$} >>>> {text} <<<<", ""),
            };
            push(&mut left, node, inner);
        }
    }
}

/// The mask of every field that a packet with this key has (`flow_wildcards_init_for_packet()`).
fn present(key: &Key) -> Mask {
    let mut mask = Mask::ZERO;
    let mut all = |places: &[key::Place]| places.iter().for_each(|place| mask.raise_all(*place));
    all(&[key::ETH_SRC, key::ETH_DST, key::ETH_TYPE, key::VLAN_TCI]);
    if key.get(key::VLAN_TCI) != 0 {
        all(&[key::INNER_TCI]);
    }
    if key.has_tunnel() {
        all(&[key::TUN_ID, key::TUN_SRC, key::TUN_DST, key::TUN_V6_SRC, key::TUN_V6_DST, key::TUN_TOS, key::TUN_TTL]);
    } else if key.get(key::TUN_ID) != 0 {
        all(&[key::TUN_ID]);
    }
    for place in [key::IN_PORT, key::METADATA] {
        if key.get(place) != 0 {
            all(&[place]);
        }
    }
    for index in 0..16 {
        if key.get(key::register(index)) != 0 {
            all(&[key::register(index)]);
        }
    }
    let ip = [key::IP_PROTO, key::IP_TOS, key::IP_TTL, key::IP_FRAG];
    match key.get16(key::ETH_TYPE) {
        ethernet::TYPE_IPV4 => {
            all(&[key::IPV4_SRC, key::IPV4_DST]);
            all(&ip);
        }
        ethernet::TYPE_IPV6 => {
            all(&[key::IPV6_SRC, key::IPV6_DST, key::IPV6_LABEL]);
            all(&ip);
        }
        ethernet::TYPE_ARP | ethernet::TYPE_RARP => {
            all(&[key::IPV4_SRC, key::IPV4_DST, key::IP_PROTO, key::ARP_SHA, key::ARP_THA]);
        }
        _ => {}
    }
    let ported = [Needs::Tcp, Needs::Udp, Needs::Sctp, Needs::Icmp4, Needs::Icmp6];
    if ported.iter().any(|needs| needs.met_by(key)) {
        all(&[key::TP_SRC, key::TP_DST]);
    }
    if key.get(key::IP_PROTO) == u128::from(ipv4::PROTOCOL_TCP) && Needs::Tcp.met_by(key) {
        all(&[key::TCP_FLAGS]);
    }
    if Needs::Nd.met_by(key) {
        all(&[key::ND_TARGET, key::ARP_SHA, key::ARP_THA]);
    }
    mask
}

fn print_key(out: &mut String, key: &Key, ports: &impl PortNames) {
    let mask = present(key);
    print_match(out, &Match { value: key.masked(&mask), mask }, ports);
    out.pop();
}

/// What a subfield is after a `move`.
pub(crate) fn written(to: Subfield, key: &Key, ports: &impl PortNames) -> String {
    let mut out = String::new();
    print_subfield(&mut out, to);
    out.push_str(" is now ");
    if to.is_whole() {
        print_plain(&mut out, to.field.info(), to.read(key), ports);
    } else {
        print_bits(&mut out, to.read(key));
    }
    out
}

/// A flow that a packet teaches.
pub(crate) fn learned(flow: &LearnedFlow, ports: &impl PortNames) -> String {
    let mut out = format!("table={} ", flow.table);
    print_match(&mut out, &flow.matching, ports);
    out.truncate(out.trim_end_matches([',', ' ']).len());
    let _ = write!(out, " priority={}", flow.priority);
    if flow.cookie != 0 {
        let _ = write!(out, " cookie={:#x}", flow.cookie);
    }
    for (name, seconds) in [("idle", flow.idle_timeout), ("hard", flow.hard_timeout)] {
        if seconds != 0 {
            let _ = write!(out, " {name}={seconds}");
        }
    }
    if flow.send_flow_rem {
        out.push_str(" send_flow_rem");
    }
    out.push_str(" actions=");
    print_actions(&mut out, &flow.actions, ports);
    out
}

/// The whole text of a trace.
pub(crate) fn report(
    recorder: &Recorder,
    start: &Key,
    verdict: &Verdict,
    ports: &impl PortNames,
    switch: &Switch,
) -> String {
    let mut out = String::from("Flow: ");
    print_key(&mut out, start, ports);
    out.push('\n');
    recorder.print(&mut out);
    out.push_str("\nFinal flow: ");
    if verdict.last == *start {
        out.push_str("unchanged");
    } else {
        print_key(&mut out, &verdict.last, ports);
    }
    out.push_str("\nMegaflow: recirc_id=0,eth,");
    print_match(&mut out, &Match { value: start.masked(&verdict.mask), mask: verdict.mask.clone() }, ports);
    out.pop();
    out.push_str("\nDatapath actions: ");
    odp::print(&mut out, &verdict.actions, |port| switch.is_gre(port));
    out.push('\n');
    if let Some(reason) = verdict.drop {
        let _ = writeln!(out, "Dropped: {}", reason.name());
    }
    out
}
