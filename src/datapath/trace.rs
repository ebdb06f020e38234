//! What becomes of one packet, told as `ofproto/trace` tells it: the packet, every bridge and flow it meets with the
//! actions and their consequences, the packet as it ends, the bits that decided, and what the datapath does.

use core::fmt::Write;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::bridge::{Bridge, BridgePorts};
use super::drop::DropReason;
use super::extract::extract;
use super::io::{DpPort, Ingress, TunnelMeta};
use super::key::{self, Key};
use super::matching::Match;
use super::packet::{Offload, Packet};
use super::switch::{Switch, SwitchError};
use super::table::Flow;
use super::text::{FlowText, NumbersOnly, Use, print_action, print_datapath, print_key, print_match, trim};
use super::xlate::Xlate;
use crate::types::{IfName, Timestamp};

/// The packet of a trace, besides what its flow text says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe<'a> {
    /// A packet as the flow text describes it. Nothing is learned.
    Flow,
    /// The same, with everything that a real packet would bring about.
    Generate,
    /// These octets, from the Ethernet header on, and everything they would bring about. The flow text gives the port
    /// and the tunnel only.
    Octets(&'a [u8]),
}

/// What a line of a trace is.
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

impl Kind {
    /// Whether nothing can be below it.
    const fn is_leaf(self) -> bool {
        matches!(self, Self::Action | Self::Detail | Self::Warning | Self::Error)
    }
}

#[derive(Debug)]
struct Node {
    kind: Kind,
    text: String,
    below: Vec<usize>,
}

/// A place in a trace; all places are the same when nothing is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At(usize);

/// Writes a walk down as it goes.
#[derive(Debug)]
pub(crate) struct Recorder {
    nodes: Vec<Node>,
}

impl Recorder {
    fn new() -> Self {
        Self { nodes: vec![Node { kind: Kind::Root, text: String::new(), below: Vec::new() }] }
    }

    fn add(&mut self, at: At, kind: Kind, text: String) -> At {
        let index = self.nodes.len();
        self.nodes.push(Node { kind, text, below: Vec::new() });
        if let Some(parent) = self.nodes.get_mut(at.0) {
            parent.below.push(index);
        }
        At(index)
    }

    /// A bridge that is entered.
    pub(crate) fn bridge(&mut self, at: At, name: &str) -> At {
        self.add(at, Kind::Bridge, format!("bridge(\"{name}\")"))
    }

    /// A flow that matched.
    pub(crate) fn flow(&mut self, at: At, bridge: &Bridge, flow: &Flow) -> At {
        let mut text = format!("{:2}. ", flow.table);
        print_match(&mut text, &flow.matching, &BridgePorts { bridge, names: false });
        trim(&mut text);
        text.push_str(if text.ends_with('.') { " " } else { ", " });
        let _ = write!(text, "priority {}", flow.priority);
        if flow.cookie != 0 {
            let _ = write!(text, ", cookie {:#x}", flow.cookie);
        }
        self.add(at, Kind::Table, text)
    }

    /// A table in which no flow matched.
    pub(crate) fn miss(&mut self, at: At, table: u8) {
        let at = self.add(at, Kind::Table, format!("{table:2}. No match."));
        self.action(at, "drop".to_owned());
    }

    pub(crate) fn action(&mut self, at: At, text: String) {
        self.add(at, Kind::Action, text);
    }

    pub(crate) fn detail(&mut self, at: At, text: String) {
        self.add(at, Kind::Detail, text);
    }

    /// Something the flows' author may not have meant.
    pub(crate) fn warning(&mut self, at: At, text: String) {
        self.add(at, Kind::Warning, text);
    }

    /// Something wrong with the packet, or the end of the walk.
    pub(crate) fn error(&mut self, at: At, text: String) {
        self.add(at, Kind::Error, text);
    }

    /// The lines; what comes last in its place goes on without a further step to the right.
    fn print(&self) -> String {
        let mut out = String::new();
        // Nodes to print with their levels, the next one last.
        let mut left: Vec<(usize, usize, bool)> = Vec::new();
        let push = |left: &mut Vec<_>, of: usize, level: usize| {
            let below = &self.nodes[of].below;
            let last = below.len();
            left.extend(below.iter().enumerate().map(|(at, node)| (*node, level, at + 1 == last)).rev());
        };
        push(&mut left, 0, 0);
        while let Some((index, level, last)) = left.pop() {
            let Node { kind, text, .. } = &self.nodes[index];
            let more = usize::from(!last || kind.is_leaf());
            let indent = (level + more) * 4;
            let _ = match kind {
                Kind::Bridge => {
                    let _ = writeln!(out, "\n{:indent$}{text}", "");
                    writeln!(out, "{:indent$}{:-<width$}", "", "", width = text.len())
                }
                Kind::Root | Kind::Table | Kind::Action => writeln!(out, "{:indent$}{text}", ""),
                Kind::Detail => writeln!(out, "{:indent$} -> {text}", ""),
                Kind::Warning => writeln!(out, "{:indent$} >> {text}", ""),
                Kind::Error => writeln!(out, "{:indent$} >>>> {text} <<<<", ""),
            };
            push(&mut left, index, level + 2 * more);
        }
        out
    }
}

/// What OVS calls the ends of a walk that went too far.
const fn failure(reason: DropReason) -> Option<&'static str> {
    match reason {
        DropReason::TooDeep => Some("Recursion too deep"),
        DropReason::TooManyLookups => Some("Too many resubmits"),
        DropReason::TooManyActions => Some("Resubmits yielded over 64 kB of actions"),
        DropReason::UnknownPort
        | DropReason::TableMiss
        | DropReason::NoOutput
        | DropReason::VlanRefused
        | DropReason::Reserved
        | DropReason::Hairpin
        | DropReason::NoPeer
        | DropReason::TtlExpired
        | DropReason::NoRoom
        | DropReason::LearnLimit
        | DropReason::FdbFull => None,
    }
}

/// The tunnel that a packet's key says it came by.
fn tunnel(packet: &Key) -> Option<TunnelMeta> {
    let v4 = |place| IpAddr::V4(Ipv4Addr::from(packet.get32(place)));
    let v6 = |place| IpAddr::V6(Ipv6Addr::from(packet.get(place)));
    let (src, dst) = if packet.get(key::TUN_DST) != 0 {
        (v4(key::TUN_SRC), v4(key::TUN_DST))
    } else {
        (v6(key::TUN_V6_SRC), v6(key::TUN_V6_DST))
    };
    let octet = |place| packet.get16(place).to_be_bytes()[1];
    let id = u64::try_from(packet.get(key::TUN_ID)).unwrap_or(u64::MAX);
    packet.has_tunnel().then(|| TunnelMeta { id, src, dst, tos: octet(key::TUN_TOS), ttl: octet(key::TUN_TTL) })
}

impl Switch {
    /// Tells what becomes of a packet on `bridge`, as `ofproto/trace` prints it. `flow` describes the packet, at least
    /// with `in_port`.
    ///
    /// # Errors
    /// [`SwitchError::UnknownBridge`]; [`SwitchError::BadFilter`] if `flow` describes no packet.
    pub fn trace(
        &mut self,
        bridge: &IfName,
        flow: &str,
        probe: Probe<'_>,
        now: Timestamp,
    ) -> Result<String, SwitchError> {
        let id = self.id(bridge)?;
        let Some(held) = self.bridge(id) else { return Err(SwitchError::UnknownBridge(bridge.clone())) };
        let ports = BridgePorts { bridge: held, names: false };
        let described = FlowText::parse(flow, Use::Packet, &ports).map_err(SwitchError::BadFilter)?.matching.value;
        let number = described.get32(key::IN_PORT);
        let packet = match probe {
            Probe::Flow | Probe::Generate => described,
            Probe::Octets(octets) => {
                let mut room = octets.to_vec();
                let end = room.len();
                let frame = Packet::new(&mut room, 0, end, &[], Offload::default());
                let ingress = Ingress { port: DpPort(0), tunnel: tunnel(&described) };
                let (mut packet, _) = extract(&ingress, &frame);
                packet.set(key::IN_PORT, number.into());
                packet
            }
        };
        let mut out = "Flow: ".to_owned();
        print_key(&mut out, &packet, &ports);
        out.push('\n');
        let mut recorder = Recorder::new();
        let learns = probe != Probe::Flow;
        let verdict = Xlate::walk(self, (id, number), &packet, now, learns, Some(&mut recorder));
        out.push_str(&recorder.print());
        let Some(held) = self.bridge(id) else { return Err(SwitchError::UnknownBridge(bridge.clone())) };
        let ports = BridgePorts { bridge: held, names: false };
        out.push_str("\nFinal flow: ");
        if verdict.last == packet {
            out.push_str("unchanged");
        } else {
            print_key(&mut out, &verdict.last, &ports);
        }
        out.push_str("\nMegaflow: ");
        let megaflow = Match { value: packet.masked(&verdict.mask), mask: verdict.mask };
        print_match(&mut out, &megaflow, &ports);
        trim(&mut out);
        let actions = print_datapath(&verdict.actions, crate::wire::vxlan::PORT);
        let _ = write!(out, "\nDatapath actions: {actions}");
        if let Some(why) = verdict.drop.and_then(failure) {
            let _ = write!(out, "\nTranslation failed ({why}), packet is dropped.");
        }
        out.push('\n');
        Ok(out)
    }
}

/// An action as a trace tells of it.
pub(crate) fn action(bridge: Option<&Bridge>, action: &super::action::Action) -> String {
    let mut out = String::new();
    match bridge {
        Some(bridge) => print_action(&mut out, action, &BridgePorts { bridge, names: false }),
        None => print_action(&mut out, action, &NumbersOnly),
    }
    out
}

/// A learned flow as a trace tells of it.
pub(crate) fn learned(bridge: &Bridge, flow: &super::learn::LearnedFlow) -> String {
    let ports = BridgePorts { bridge, names: false };
    let mut out = format!("table={} ", flow.table);
    print_match(&mut out, &flow.matching, &ports);
    trim(&mut out);
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
    super::text::print_actions(&mut out, &flow.actions, &ports);
    out
}
