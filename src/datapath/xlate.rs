//! Walks the tables for one key and says what is to be done to every packet like it.
//!
//! The walk keeps its own stack: `resubmit` and patch ports nest 64 deep in the worst case, each level with a chain of
//! forward jumps, and a thread's stack is not for that. What it looked at becomes the mask of a cache entry.

mod output;
mod routed;

use std::sync::Arc;

use super::action::{Action, Actions};
use super::bridge::BridgePorts;
use super::commit::DpAction;
use super::drop::DropReason;
use super::field::Needs;
use super::guard::Guard;
use super::key::{self, Key, Mask};
use super::learn::{self, LearnedFlow};
use super::revision::{Parts, Tag, flow_tag};
use super::routers::RouterId;
use super::switch::{Learnt, Place, Switch};
use super::table::{Flow, FlowRef};
use super::trace::{NodeId, Recorder};
use crate::types::{Mac, Timestamp};

/// Deepest nesting (OVS's `MAX_DEPTH`).
pub(crate) const LIMIT_DEPTH: usize = 64;
/// Most lookups for one packet (OVS's `MAX_RESUBMITS`).
pub(crate) const LIMIT_LOOKUPS: usize = 4096;
/// Most datapath actions for one packet.
pub(crate) const LIMIT_ACTIONS: usize = 65_536;
/// The outer time to live of tunnels (OVS's `DEFAULT_TTL`).
const TUNNEL_TTL: u8 = 64;

/// Names a bridge for as long as the switch exists.
pub(crate) type BridgeId = u32;

/// What every packet of a cache entry does besides being sent.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// Learns a flow, or keeps it young.
    Learn { bridge: BridgeId, flow: Arc<LearnedFlow> },
    /// Learns where a station is.
    Station { bridge: BridgeId, vlan: u16, mac: Mac, port: u32 },
    /// Counts on both ends of a patch.
    Patch { from: Place, to: Place },
    /// Counts on the interfaces by which it would have entered and left a router's namespace.
    Routed { router: RouterId, from: Place, to: Place },
    /// Shortens a flow's timeouts.
    FinTimeout { bridge: BridgeId, flow: FlowRef, idle: u16, hard: u16 },
}

/// What a walk found.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) actions: Vec<DpAction>,
    /// What packets must be for it, if they go past a router.
    pub(crate) guard: Option<Guard>,
    /// The bits that had a say.
    pub(crate) mask: Mask,
    /// What else had one.
    pub(crate) tags: Box<[Tag]>,
    /// The flows that matched, each as often as it did.
    pub(crate) flows: Vec<(BridgeId, FlowRef)>,
    pub(crate) effects: Vec<Effect>,
    /// Why nothing is sent.
    pub(crate) drop: Option<DropReason>,
    /// The key as the last action left it.
    pub(crate) last: Key,
}

/// What is left to do.
enum Frame {
    Run {
        actions: Actions,
        next: usize,
    },
    /// The end of a flow's actions: back to the flow that resubmitted.
    Return {
        table: u8,
        depth: usize,
        flow: Option<FlowRef>,
        node: NodeId,
    },
    /// The end of a patch's other side, or of a clone: everything as before, but the packet.
    Restore(Box<Saved>),
}

struct Saved {
    key: Key,
    bridge: BridgeId,
    table: u8,
    depth: usize,
    flow: Option<FlowRef>,
    node: NodeId,
    view: usize,
}

/// A flow that a walk taught.
struct Taught {
    bridge: BridgeId,
    table: u8,
    flow: FlowRef,
    /// The flow that it took the place of.
    before: Option<Box<Flow>>,
}

/// A walk.
pub(crate) struct Xlate<'a> {
    pub(crate) switch: &'a mut Switch,
    pub(crate) now: Timestamp,
    /// Whether to learn.
    pub(crate) learns: bool,
    pub(crate) bridge: BridgeId,
    pub(crate) key: Key,
    base: Key,
    pub(crate) mask: Mask,
    pub(crate) parts: Parts,
    table: u8,
    depth: usize,
    lookups: usize,
    flow: Option<FlowRef>,
    stack: Vec<Frame>,
    pending: Vec<Frame>,
    pub(super) stop: bool,
    /// Whether `exit` skips what is left on this side of a patch.
    exits: bool,
    actions: Vec<DpAction>,
    flows: Vec<(BridgeId, FlowRef)>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) reason: Option<DropReason>,
    fatal: Option<DropReason>,
    /// What this walk taught, in order. As in OVS it sees a bridge's tables as they were when it began or last came to
    /// that bridge by a patch (`tables_version`): what it taught from `view` on is out of its sight.
    taught: Vec<Taught>,
    view: usize,
    guard: Option<Guard>,
    /// Routers it is past, one after another.
    routers: usize,
    pub(crate) trace: Option<&'a mut Recorder>,
    /// In the trace: the flow whose actions are run.
    node: NodeId,
}

impl<'a> Xlate<'a> {
    /// Walks the tables of the bridge that `key` came in to, as its port `number`.
    pub(crate) fn walk(
        switch: &'a mut Switch,
        (bridge, number): (BridgeId, u32),
        key: &Key,
        now: Timestamp,
        learns: bool,
        trace: Option<&'a mut Recorder>,
    ) -> Verdict {
        let mut base = key.clone();
        base.set(key::IN_PORT, number.into());
        let mut mask = Mask::ZERO;
        mask.raise_all(key::IN_PORT);
        mask.raise_all(key::ETH_TYPE);
        if Needs::Ip.met_by(&base) {
            mask.raise_all(key::IP_FRAG);
        }
        if base.has_tunnel() {
            for place in [key::TUN_SRC, key::TUN_DST, key::TUN_V6_SRC, key::TUN_V6_DST] {
                mask.raise_all(place);
            }
        }
        let mut walk = Self {
            switch,
            now,
            learns,
            bridge,
            key: base.clone(),
            base,
            mask,
            parts: Parts::new(),
            table: 0,
            depth: 0,
            lookups: 0,
            flow: None,
            stack: Vec::new(),
            pending: Vec::new(),
            stop: false,
            exits: false,
            actions: Vec::new(),
            flows: Vec::new(),
            effects: Vec::new(),
            reason: None,
            fatal: None,
            taught: Vec::new(),
            view: 0,
            guard: None,
            routers: 0,
            trace,
            node: Recorder::ROOT,
        };
        walk.enter_bridge(true);
        walk.congestion();
        walk.run();
        walk.finish()
    }

    fn finish(mut self) -> Verdict {
        if let Some(reason) = self.fatal {
            self.actions.clear();
            self.reason = Some(reason);
        }
        self.mask.clear(key::STATE_WORDS);
        let sent = self.actions.iter().any(|action| matches!(action, DpAction::Output { .. }));
        // What is said of a packet is all that becomes of some; one that was dropped besides is dropped all the same.
        let said = self.actions.iter().any(|action| matches!(action, DpAction::Say(_) | DpAction::Answer { .. }));
        let drop = match (sent, said) {
            (true, _) => None,
            (false, true) => self.reason,
            (false, false) => Some(self.reason.unwrap_or(DropReason::NoOutput)),
        };
        if !sent && !said {
            self.actions.clear();
        }
        Verdict {
            actions: self.actions,
            guard: self.guard,
            mask: self.mask,
            tags: self.parts.into_tags(),
            flows: self.flows,
            effects: self.effects,
            drop,
            last: self.key,
        }
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.detail(self.node, text());
        }
    }

    pub(crate) fn warn(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.warn(self.node, text());
        }
    }

    /// Notes what concerns this bridge's ports, in words made only if there is a trace.
    pub(super) fn tell(&mut self, text: impl FnOnce(&BridgePorts<'_>, &Self) -> String) {
        if self.trace.is_some()
            && let Some(bridge) = self.switch.bridge(self.bridge)
        {
            let text = text(&BridgePorts { bridge, names: false }, self);
            self.note(|| text);
        }
    }

    pub(crate) fn error(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.error(self.node, text());
        }
    }

    /// Ends the walk, or only the other side of a patch.
    fn fail(&mut self, reason: DropReason, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.error(self.node, text());
        }
        self.fatal = Some(reason);
    }

    /// Takes over that a tunnel's outer header says "congestion experienced", or drops a packet that cannot say so
    /// (`tnl_process_ecn()`; RFC 6040 §4.2). As in OVS the first lookup is over by then.
    fn congestion(&mut self) {
        if !self.key.has_tunnel() || !Needs::Ip.met_by(&self.key) {
            return;
        }
        self.mask.raise(key::TUN_TOS, 3);
        if self.key.get(key::TUN_TOS) & 3 != 3 {
            return;
        }
        self.mask.raise(key::IP_TOS, 3);
        if self.key.get(key::IP_TOS) & 3 == 0 {
            self.pending.clear();
            self.reason.get_or_insert(DropReason::NotEcnCapable);
        } else {
            self.key.raise(key::IP_TOS, 3);
        }
    }

    fn enter_bridge(&mut self, first: bool) {
        self.table = 0;
        let in_port = self.key.get32(key::IN_PORT);
        if let Some(trace) = &mut self.trace
            && let Some(bridge) = self.switch.bridge(self.bridge)
        {
            self.node = trace.bridge(self.node, bridge.name.as_str());
        }
        if !self.lookup(0, in_port, first) && self.fatal.is_none() {
            self.reason.get_or_insert(DropReason::TableMiss);
        }
    }

    fn run(&mut self) {
        self.stack.append(&mut self.pending);
        while let Some(frame) = self.stack.pop() {
            match frame {
                // What was saved is brought back even then.
                Frame::Run { .. } if self.fatal.is_some() || self.exits => {}
                Frame::Run { actions, mut next } => {
                    while let Some(action) = actions.get(next) {
                        next += 1;
                        self.tell_action(action);
                        self.action(action);
                        if self.stop || !self.pending.is_empty() || self.fatal.is_some() {
                            break;
                        }
                    }
                    if core::mem::take(&mut self.stop) {
                        continue;
                    }
                    if next < actions.len() {
                        self.stack.push(Frame::Run { actions, next });
                    }
                    self.stack.append(&mut self.pending);
                }
                Frame::Return { table, depth, flow, node } => {
                    (self.table, self.depth, self.flow, self.node) = (table, depth, flow, node);
                }
                Frame::Restore(saved) => {
                    let Saved { key, bridge, table, depth, flow, node, view } = *saved;
                    (self.key, self.bridge, self.table) = (key, bridge, table);
                    (self.depth, self.flow, self.node, self.view) = (depth, flow, node, view);
                }
            }
        }
    }

    /// Tells the trace of an action.
    fn tell_action(&mut self, action: &Action) {
        if let Some(trace) = &mut self.trace
            && let Some(bridge) = self.switch.bridge(self.bridge)
        {
            trace.action(self.node, action, &BridgePorts { bridge, names: false });
        }
    }

    fn save(&self) -> Frame {
        Frame::Restore(Box::new(Saved {
            key: self.key.clone(),
            bridge: self.bridge,
            table: self.table,
            depth: self.depth,
            flow: self.flow,
            node: self.node,
            view: self.view,
        }))
    }

    /// Looks `table` up as if by port `in_port`; what it finds is run next. Returns whether anything matched.
    fn lookup(&mut self, table: u8, in_port: u32, first: bool) -> bool {
        if self.depth >= LIMIT_DEPTH {
            self.fail(DropReason::TooDeep, || format!("over max translation depth {LIMIT_DEPTH}"));
            return false;
        }
        if self.lookups >= LIMIT_LOOKUPS {
            self.fail(DropReason::TooManyLookups, || format!("over {LIMIT_LOOKUPS} resubmit actions"));
            return false;
        }
        self.lookups += usize::from(!first);
        let own = self.key.get(key::IN_PORT);
        self.key.set(key::IN_PORT, in_port.into());
        let ports = [key::TP_SRC, key::TP_DST].map(|place| (place, self.key.get(place)));
        if self.key.get(key::IP_FRAG) != 0 {
            // No fragment shows its ports to flows, not even the first (`OFPUTIL_FRAG_NORMAL`).
            ports.iter().for_each(|(place, _)| self.key.set(*place, 0));
        }
        let found = self.find(table);
        self.key.set(key::IN_PORT, own);
        ports.iter().for_each(|(place, value)| self.key.set(*place, *value));
        let Some((flow, actions, before)) = found else {
            if let Some(trace) = &mut self.trace {
                trace.miss(self.node, table);
            }
            return false;
        };
        self.flows.push((self.bridge, flow));
        self.pending.push(Frame::Return { table: self.table, depth: self.depth, flow: self.flow, node: self.node });
        if !first && table <= self.table {
            self.depth += 1;
        }
        self.table = table;
        self.flow = Some(flow);
        if let Some(trace) = &mut self.trace
            && let Some(bridge) = self.switch.bridge(self.bridge)
            && let Some(held) = bridge.tables.get(flow)
        {
            self.node = trace.flow(self.node, bridge, before.as_ref().unwrap_or(held));
        }
        self.pending.push(Frame::Run { actions, next: 0 });
        true
    }

    /// The flow for the key in a table of this bridge as this walk sees it, its actions, and the flow itself if it is
    /// there no more.
    fn find(&mut self, table: u8) -> Option<(FlowRef, Actions, Option<Flow>)> {
        let tables = &self.switch.bridge(self.bridge)?.tables;
        let found = tables.lookup(table, &self.key, &mut self.mask, &mut self.parts);
        let hidden = |taught: &&Taught| taught.bridge == self.bridge && taught.table == table;
        let hidden: Vec<&Taught> = self.taught[self.view..].iter().filter(hidden).collect();
        if hidden.is_empty() {
            let found = found?;
            return Some((found, Arc::clone(&tables.get(found)?.actions), None));
        }
        // So rare that looking at every flow will do, and resting on all of them.
        self.parts.add(Tag::ANY);
        let mut best: Option<(u16, FlowRef, Option<&Flow>)> = None;
        for (reference, flow) in tables.iter().filter(|(_, flow)| flow.table == table) {
            flow.matching.raise(&mut self.mask);
            let before = match hidden.iter().find(|taught| taught.flow == reference) {
                Some(Taught { before: None, .. }) => continue,
                Some(Taught { before, .. }) => before.as_deref(),
                None => None,
            };
            if flow.matching.covers(&self.key) && best.is_none_or(|(priority, ..)| priority < flow.priority) {
                best = Some((flow.priority, reference, before));
            }
        }
        let (_, reference, before) = best?;
        let actions = before.or_else(|| tables.get(reference)).map(|flow| Arc::clone(&flow.actions))?;
        Some((reference, actions, before.cloned()))
    }

    fn action(&mut self, action: &Action) {
        match action {
            Action::Output(number) => self.output(*number),
            Action::OutputField(from) => {
                from.raise(&mut self.mask);
                let number = from.read(&self.key);
                self.note(|| format!("output port is {number}"));
                if let Ok(number) = u16::try_from(number) {
                    self.output(number.into());
                }
            }
            Action::Resubmit { port, table, .. } => {
                let in_port = port.unwrap_or(self.key.get32(key::IN_PORT));
                let table = table.unwrap_or(self.table);
                self.lookup(table, in_port, false);
            }
            Action::GotoTable(table) => {
                if !self.lookup(*table, self.key.get32(key::IN_PORT), false) && self.fatal.is_none() {
                    self.reason.get_or_insert(DropReason::TableMiss);
                }
            }
            Action::WriteMetadata { value, mask } => {
                self.write(key::METADATA, u128::from(*value), u128::from(*mask));
            }
            Action::SetTunnel { id, .. } => self.key.set(key::TUN_ID, u128::from(*id)),
            Action::Learn(learn) => self.learn(learn),
            Action::Note(_) => {}
            Action::Controller(said) => self.say(said),
            Action::Clone(inner) => {
                self.pending.push(self.save());
                self.pending.push(Frame::Run { actions: Arc::clone(inner), next: 0 });
            }
            Action::FinTimeout { idle, hard } => self.fin_timeout(*idle, *hard),
            Action::Exit => (self.stop, self.exits) = (true, true),
            Action::ModEthSrc(mac) => self.write_all(key::ETH_SRC, super::extract::mac_bits(*mac)),
            Action::ModEthDst(mac) => self.write_all(key::ETH_DST, super::extract::mac_bits(*mac)),
            Action::ModVlanVid(vid) => self.tag(u128::from(*vid), 0xfff),
            Action::ModVlanPcp(pcp) => self.tag(u128::from(*pcp) << 13, 0xe000),
            Action::PopVlan { .. } => self.pop_vlan(),
            Action::PushVlan(tpid) => self.push_vlan(*tpid),
            Action::ModIpSrc(_)
            | Action::ModIpDst(_)
            | Action::ModIpTos(_)
            | Action::ModIpEcn(_)
            | Action::ModIpTtl(_)
            | Action::ModTpSrc(_)
            | Action::ModTpDst(_)
            | Action::DecTtl => self.network(action),
            Action::SetField { field, value } => self.set_field(*field, value.0, field.info().exact()),
            Action::SetBits(set) => self.set_field(set.field, set.value, set.mask),
            Action::Load { to, value } => {
                if self.has(to.field.info().needs) {
                    to.raise(&mut self.mask);
                    to.write(&mut self.key, value.0);
                    self.written(to.field);
                }
            }
            Action::Move { from, to } => self.copy(*from, *to),
        }
    }

    fn fin_timeout(&mut self, idle: u16, hard: u16) {
        if !self.has(Needs::Tcp) {
            return;
        }
        let ended = u128::from(crate::wire::tcp::FIN | crate::wire::tcp::RST);
        self.mask.raise(key::TCP_FLAGS, ended);
        if self.key.get(key::TCP_FLAGS) & ended != 0
            && let Some(flow) = self.flow
        {
            self.effect(Effect::FinTimeout { bridge: self.bridge, flow, idle, hard });
        }
    }

    fn learn(&mut self, learn: &super::action::Learn) {
        learn::looked_at(learn, &mut self.mask);
        if !self.learns {
            let node = self.node;
            if let Some(trace) = &mut self.trace {
                trace.warn(node, "suppressing side effects, so learn action ignored".to_owned());
            }
        }
        let flow = Arc::new(learn::make(learn, &self.key));
        // What is learned is learned again when it is gone; with a limit, when anything is.
        self.parts.add(flow_tag(self.bridge, flow.table, &flow.matching));
        if flow.limit != 0 {
            self.parts.add(Tag::ANY);
        }
        self.tell(|ports, _| super::trace::learned(&flow, ports));
        let mut full = false;
        if self.learns {
            let (bridge, table) = (self.bridge, flow.table);
            match self.switch.learn(bridge, &flow, self.now) {
                Learnt::Full => {
                    full = true;
                    // Any change may make room.
                    self.parts.add(Tag::ANY);
                }
                Learnt::Same => {}
                Learnt::New { flow, before } => self.taught.push(Taught { bridge, table, flow, before }),
            }
        }
        self.effects.push(Effect::Learn { bridge: self.bridge, flow });
        if let Some(bit) = learn.result {
            bit.raise(&mut self.mask);
            bit.write(&mut self.key, u128::from(!full));
            self.tell(|ports, walk| super::trace::written(bit, &walk.key, ports));
        }
        if full {
            self.note(|| "Limit exceeded, learn failed".to_owned());
        }
    }

    /// Notes an effect, and has it at once if this walk may.
    pub(crate) fn effect(&mut self, effect: Effect) {
        if self.learns {
            self.affect(&effect);
        }
        self.effects.push(effect);
    }

    fn affect(&mut self, effect: &Effect) {
        if !self.switch.affect(effect, self.now) {
            // There was no room for it; any change may make some.
            self.parts.add(Tag::ANY);
        }
    }
}
