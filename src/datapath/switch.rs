//! The slow path: bridges, ports, tables and learned addresses, shared by all workers.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::action::{self, Action};
use super::bridge::{Bridge, BridgePorts, BridgeView, NewPort, NewPortKind, Port};
use super::drop::DropReason;
use super::error::SwitchError;
use super::extract::extract;
use super::fdb::Learned;
use super::io::{DpPort, Ingress};
use super::key::{self, Key, Mask};
use super::learn::LearnedFlow;
use super::matching::Match;
use super::packet::{Offload, Packet};
use super::table::{Filter, Flow, FlowRef, LIMIT_FLOWS};
use super::text::{FlowText, Use};
use super::trace::{self, Recorder, TraceInput};
use super::xlate::{BridgeId, Effect, Verdict, Xlate};
use crate::api::switch::{BridgeMode, FdbEntry, FlowChange, PortCounters};
use crate::types::{IfName, Timestamp};

/// Most bridges of a switch.
pub(crate) const LIMIT_BRIDGES: usize = 4096;

/// A port of a bridge.
type Place = (BridgeId, u32);

/// Bridges, ports, tables and learned addresses. One is shared by all [`super::Worker`]s.
#[derive(Debug, Default)]
pub struct Switch {
    bridges: BTreeMap<BridgeId, Bridge>,
    bridge_names: BTreeMap<IfName, BridgeId>,
    next_bridge: BridgeId,
    port_names: BTreeMap<IfName, Place>,
    netdevs: BTreeMap<DpPort, Place>,
    /// By datapath port, remote and local address.
    tunnels: BTreeMap<(DpPort, IpAddr, IpAddr), Place>,
    /// Grows with every change that a decision may depend on.
    generation: Arc<AtomicU64>,
    drops: BTreeMap<DropReason, u64>,
}

/// What became of a flow that was to be learned.
pub(crate) enum Learnt {
    /// It was there; it is young again.
    Same,
    /// It is there, in place of another.
    New { flow: FlowRef, before: Option<Box<Flow>> },
    /// There is no room for it.
    Full,
}

/// A change of flows, read and found good.
enum Change {
    Add(FlowText),
    Modify { flow: FlowText, strict: bool },
    Delete { flow: FlowText, strict: bool },
}

impl Switch {
    /// A switch without bridges.
    #[must_use]
    pub fn new() -> Self {
        Self { generation: Arc::new(AtomicU64::new(1)), ..Self::default() }
    }

    /// The counter that grows with every change a cached decision may depend on.
    pub(crate) fn generation(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.generation)
    }

    fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn bridge(&self, bridge: BridgeId) -> Option<&Bridge> {
        self.bridges.get(&bridge)
    }

    pub(crate) fn id(&self, bridge: &IfName) -> Result<BridgeId, SwitchError> {
        self.bridge_names.get(bridge).copied().ok_or_else(|| SwitchError::UnknownBridge(bridge.clone()))
    }

    fn named(&self, bridge: &IfName) -> Result<&Bridge, SwitchError> {
        let id = self.id(bridge)?;
        self.bridges.get(&id).ok_or_else(|| SwitchError::UnknownBridge(bridge.clone()))
    }

    /// The other end of a patch port.
    pub(crate) fn peer(&self, bridge: BridgeId, number: u32) -> Option<Place> {
        let port = self.bridges.get(&bridge)?.ports.get(&number)?;
        let NewPortKind::Patch { peer } = &port.kind else { return None };
        let place = *self.port_names.get(peer)?;
        let other = self.bridges.get(&place.0)?.ports.get(&place.1)?;
        matches!(&other.kind, NewPortKind::Patch { peer: back } if *back == port.name).then_some(place)
    }

    /// Adds a bridge. In [`BridgeMode::Normal`] it starts with the flow `priority=0 actions=NORMAL`.
    ///
    /// # Errors
    /// [`SwitchError::BridgeExists`], [`SwitchError::TooManyBridges`].
    pub fn add_bridge(&mut self, name: &IfName, mode: BridgeMode) -> Result<(), SwitchError> {
        if self.bridge_names.contains_key(name) {
            return Err(SwitchError::BridgeExists(name.clone()));
        }
        if self.bridges.len() >= LIMIT_BRIDGES {
            return Err(SwitchError::TooManyBridges(name.clone()));
        }
        let mut bridge = Bridge::new(name.clone(), mode);
        if mode == BridgeMode::Normal {
            bridge.tables.insert(Flow {
                table: 0,
                priority: 0,
                matching: Match::ANY,
                cookie: 0,
                actions: [Action::Output(action::port::NORMAL)].into(),
                idle_timeout: 0,
                hard_timeout: 0,
                send_flow_rem: false,
                created: Timestamp::ZERO,
                modified: Timestamp::ZERO,
                used: Timestamp::ZERO,
                n_packets: 0,
                n_bytes: 0,
            });
        }
        let id = self.next_bridge;
        self.next_bridge += 1;
        self.bridges.insert(id, bridge);
        self.bridge_names.insert(name.clone(), id);
        self.changed();
        Ok(())
    }

    /// Removes a bridge with its ports. Returns the datapath ports that lost their last port.
    ///
    /// # Errors
    /// [`SwitchError::UnknownBridge`].
    pub fn del_bridge(&mut self, name: &IfName) -> Result<Vec<DpPort>, SwitchError> {
        let names: Vec<IfName> = self.named(name)?.ports.values().map(|port| port.name.clone()).collect();
        let mut lost = Vec::new();
        for port in names {
            lost.extend(self.del_port(name, &port)?);
        }
        if let Some(id) = self.bridge_names.remove(name) {
            self.bridges.remove(&id);
        }
        self.changed();
        Ok(lost)
    }

    /// Adds a port. Returns its number.
    ///
    /// # Errors
    /// Says what is taken or unknown; nothing is changed then.
    pub fn add_port(&mut self, bridge: &IfName, port: NewPort) -> Result<u32, SwitchError> {
        let id = self.id(bridge)?;
        if let Some((holder, _)) = self.port_names.get(&port.name) {
            let bridge = self.bridges.get(holder).map_or_else(|| bridge.clone(), |bridge| bridge.name.clone());
            return Err(SwitchError::PortExists { bridge, port: port.name });
        }
        let number = self.free_number(id, &port)?;
        let place = (id, number);
        let taken = |what: String| SwitchError::Taken { port: port.name.clone(), what };
        match &port.kind {
            NewPortKind::Netdev { dp } => {
                let shared = self.tunnels.keys().any(|(other, ..)| other == dp);
                if shared || self.netdevs.contains_key(dp) {
                    return Err(taken(format!("datapath port {}", dp.0)));
                }
                self.netdevs.insert(*dp, place);
            }
            NewPortKind::Vxlan { dp, local, remote } => {
                if self.netdevs.contains_key(dp) {
                    return Err(taken(format!("datapath port {}", dp.0)));
                }
                let key = (*dp, *remote, *local);
                if self.tunnels.contains_key(&key) {
                    return Err(taken(format!("the tunnel from {local} to {remote}")));
                }
                self.tunnels.insert(key, place);
            }
            NewPortKind::Patch { .. } => {}
        }
        self.port_names.insert(port.name.clone(), place);
        let counters = PortCounters::default();
        if let Some(bridge) = self.bridges.get_mut(&id) {
            bridge.ports.insert(number, Port { name: port.name, kind: port.kind, vlan: port.vlan, counters });
        }
        self.changed();
        Ok(number)
    }

    fn free_number(&self, id: BridgeId, port: &NewPort) -> Result<u32, SwitchError> {
        let Some(bridge) = self.bridges.get(&id) else { unreachable!("its name was found") };
        let free = |number: &u32| !bridge.ports.contains_key(number);
        let legal = |number: &u32| (1..=action::port::MAX).contains(number) || *number == action::port::LOCAL;
        let bad = |number: u32| SwitchError::BadNumber { port: port.name.clone(), number };
        match port.number {
            Some(number) if legal(&number) && free(&number) => Ok(number),
            Some(number) => Err(bad(number)),
            None => (1..=action::port::MAX).find(free).ok_or_else(|| bad(action::port::MAX)),
        }
    }

    /// Removes a port. Returns its datapath port if no other port shares that.
    ///
    /// # Errors
    /// [`SwitchError::UnknownBridge`], [`SwitchError::UnknownPort`].
    pub fn del_port(&mut self, bridge: &IfName, name: &IfName) -> Result<Option<DpPort>, SwitchError> {
        let id = self.id(bridge)?;
        let place = self.port_names.get(name).filter(|(holder, _)| *holder == id).copied();
        let unknown = || SwitchError::UnknownPort { bridge: bridge.clone(), port: name.clone() };
        let (_, number) = place.ok_or_else(unknown)?;
        self.port_names.remove(name);
        let held = self.bridges.get_mut(&id).ok_or_else(unknown)?;
        held.fdb.flush_port(number);
        let port = held.ports.remove(&number).ok_or_else(unknown)?;
        self.changed();
        Ok(match port.kind {
            NewPortKind::Netdev { dp } => {
                self.netdevs.remove(&dp);
                Some(dp)
            }
            NewPortKind::Vxlan { dp, local, remote } => {
                self.tunnels.remove(&(dp, remote, local));
                (!self.tunnels.keys().any(|(other, ..)| *other == dp)).then_some(dp)
            }
            NewPortKind::Patch { .. } => None,
        })
    }

    /// Every bridge, by name.
    #[must_use]
    pub fn bridges(&self) -> Vec<BridgeView> {
        self.bridge_names.values().filter_map(|id| self.bridges.get(id)).map(Bridge::view).collect()
    }

    /// Makes changes of a bridge's flows, in order: all of them, or with an error none. Returns how many flows were
    /// added, modified or removed.
    ///
    /// # Errors
    /// [`SwitchError::BadFlow`] says which text is wrong, and where; [`SwitchError::TableFull`];
    /// [`SwitchError::Overlap`] for a flow with `check_overlap`.
    pub fn change_flows(
        &mut self,
        bridge: &IfName,
        changes: &[FlowChange],
        now: Timestamp,
    ) -> Result<usize, SwitchError> {
        let id = self.id(bridge)?;
        let held = self.named(bridge)?;
        let ports = BridgePorts { bridge: held, names: false };
        let read = |(index, change): (usize, &FlowChange)| {
            let parsed = match change {
                FlowChange::Add(text) => FlowText::parse(text, Use::Add, &ports).map(Change::Add),
                FlowChange::Modify(text) => {
                    FlowText::parse(text, Use::Modify, &ports).map(|flow| Change::Modify { flow, strict: false })
                }
                FlowChange::ModifyStrict(text) => {
                    FlowText::parse(text, Use::Modify, &ports).map(|flow| Change::Modify { flow, strict: true })
                }
                FlowChange::Delete(text) => FlowText::parse(text, Use::Delete { strict: false }, &ports)
                    .map(|flow| Change::Delete { flow, strict: false }),
                FlowChange::DeleteStrict(text) => FlowText::parse(text, Use::Delete { strict: true }, &ports)
                    .map(|flow| Change::Delete { flow, strict: true }),
            };
            parsed.map_err(|source| SwitchError::BadFlow { number: index + 1, count: changes.len(), source })
        };
        let checked: Vec<Change> = changes.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        let more = checked.iter().filter(|change| !matches!(change, Change::Delete { .. })).count();
        let flows = held.tables.len();
        if flows + more > LIMIT_FLOWS {
            return Err(SwitchError::TableFull { bridge: bridge.clone(), flows, more });
        }
        let Some(held) = self.bridges.get_mut(&id) else { unreachable!("its name was found") };
        // Only a flow that must not overlap can be refused as late as here.
        let strict = |change: &Change| matches!(change, Change::Add(flow) if flow.check_overlap);
        let before = (checked.len() > 1 && checked.iter().any(strict)).then(|| held.tables.clone());
        let mut count = 0;
        for (index, change) in checked.into_iter().enumerate() {
            let Some(touched) = apply(held, change, now) else {
                if let Some(before) = before {
                    held.tables = before;
                }
                return Err(SwitchError::Overlap { number: index + 1, count: changes.len() });
            };
            count += touched;
        }
        if count > 0 {
            self.changed();
        }
        Ok(count)
    }

    /// The flows of a bridge that a match as of `ovs-ofctl dump-flows` covers, by table, then priority from the
    /// highest. With `names`, ports are shown by name.
    ///
    /// # Errors
    /// [`SwitchError::BadFilter`] if `filter` is no match.
    pub fn dump_flows(
        &self,
        bridge: &IfName,
        filter: &str,
        names: bool,
        now: Timestamp,
    ) -> Result<Vec<crate::api::switch::Flow>, SwitchError> {
        let held = self.named(bridge)?;
        let ports = BridgePorts { bridge: held, names };
        let wanted = FlowText::parse(filter, Use::Filter, &ports).map_err(SwitchError::BadFilter)?;
        let filter = filter_of(&wanted, None);
        let selected = held.tables.select(&filter);
        let mut flows: Vec<_> = selected
            .into_iter()
            .filter_map(|flow| held.tables.get(flow))
            .map(|flow| super::dump::flow(flow, &ports, now))
            .collect();
        flows.sort_by(|one, two| {
            let key = |flow: &crate::api::switch::Flow| (flow.table, core::cmp::Reverse(flow.priority));
            key(one).cmp(&key(two)).then_with(|| one.matching.cmp(&two.matching))
        });
        Ok(flows)
    }

    /// The addresses a bridge learned for `NORMAL`, by VLAN and address.
    ///
    /// # Errors
    /// [`SwitchError::UnknownBridge`].
    pub fn fdb(&self, bridge: &IfName, now: Timestamp) -> Result<Vec<FdbEntry>, SwitchError> {
        let held = self.named(bridge)?;
        let entry = |(vlan, mac, seen): (u16, _, super::fdb::Seen)| FdbEntry {
            port: seen.port,
            port_name: held.ports.get(&seen.port).map(|port| port.name.to_string()).unwrap_or_default(),
            vlan,
            mac,
            age_secs: now.since(seen.at).as_secs(),
        };
        Ok(held.fdb.iter().map(entry).collect())
    }

    /// Removes flows and learned addresses whose time is up. To be called about once a second. Returns how many went.
    pub fn expire(&mut self, now: Timestamp) -> usize {
        let gone = self.bridges.values_mut().map(|bridge| bridge.tables.expire(now) + bridge.fdb.expire(now)).sum();
        if gone > 0 {
            self.changed();
        }
        gone
    }

    /// Frames dropped so far by the reason's name; what was cut short is counted too.
    #[must_use]
    pub fn drops(&self) -> BTreeMap<String, u64> {
        self.drops.iter().map(|(reason, count)| (reason.name().to_owned(), *count)).collect()
    }

    pub(crate) fn count(&mut self, reason: DropReason, packets: u64) {
        if packets > 0 {
            *self.drops.entry(reason).or_insert(0) += packets;
        }
    }

    /// The port a frame came in by.
    fn place(&self, ingress: &Ingress) -> Option<Place> {
        match &ingress.tunnel {
            None => self.netdevs.get(&ingress.port).copied(),
            Some(tunnel) => {
                let any = if tunnel.dst.is_ipv4() {
                    IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED)
                } else {
                    IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED)
                };
                let exact = self.tunnels.get(&(ingress.port, tunnel.src, tunnel.dst));
                exact.or_else(|| self.tunnels.get(&(ingress.port, tunnel.src, any))).copied()
            }
        }
    }

    /// Decides what becomes of packets like the one with this key.
    pub(crate) fn walk(&mut self, ingress: &Ingress, key: &Key, now: Timestamp, learns: bool) -> Verdict {
        match self.place(ingress) {
            Some(place) => Xlate::walk(self, place, key, now, learns, None),
            None => {
                let mut mask = Mask::ZERO;
                for place in [key::IN_PORT, key::TUN_SRC, key::TUN_DST, key::TUN_V6_SRC, key::TUN_V6_DST] {
                    mask.raise_all(place);
                }
                Verdict {
                    actions: Vec::new(),
                    mask,
                    flows: Vec::new(),
                    effects: Vec::new(),
                    drop: Some(DropReason::UnknownPort),
                    last: key.clone(),
                }
            }
        }
    }

    /// Tells what becomes of a packet, step by step, as `ofproto/trace` does. Changes nothing, unless `generate` has
    /// it learn.
    ///
    /// # Errors
    /// [`SwitchError::UnknownBridge`]; [`SwitchError::BadFilter`] if the packet's text is wrong.
    pub fn trace(
        &mut self,
        bridge: &IfName,
        input: &TraceInput,
        generate: bool,
        now: Timestamp,
    ) -> Result<String, SwitchError> {
        let id = self.id(bridge)?;
        let ports = BridgePorts { bridge: self.named(bridge)?, names: false };
        let mut key = match input {
            TraceInput::Flow(text) => {
                FlowText::parse(text, Use::Packet, &ports).map_err(SwitchError::BadFilter)?.matching.value
            }
            TraceInput::Frame { in_port, tunnel, octets } => {
                let mut octets = octets.clone();
                let end = octets.len();
                let ingress = Ingress { port: DpPort(*in_port), tunnel: *tunnel };
                extract(&ingress, &Packet::new(&mut octets, 0, end, &[], Offload::default())).0
            }
        };
        if key.is_tagged() && key.get(key::VLAN_TPID) == 0 {
            key.set(key::VLAN_TPID, crate::wire::ethernet::TYPE_VLAN.into());
        }
        let number = key.get32(key::IN_PORT);
        let mut recorder = Recorder::new();
        let verdict = Xlate::walk(self, (id, number), &key, now, generate, Some(&mut recorder));
        let ports = BridgePorts { bridge: self.named(bridge)?, names: false };
        Ok(trace::report(&recorder, &key, &verdict, &ports))
    }

    /// Counts packets for the flows they matched.
    pub(crate) fn credit(&mut self, flows: &[(BridgeId, FlowRef)], (packets, bytes): (u64, u64), used: Timestamp) {
        for (bridge, flow) in flows {
            let Some(held) = self.bridges.get_mut(bridge).and_then(|bridge| bridge.tables.get_mut(*flow)) else {
                continue;
            };
            held.n_packets += packets;
            held.n_bytes += bytes;
            held.used = held.used.max(used);
        }
    }

    /// Has an effect of a walk.
    pub(crate) fn affect(&mut self, effect: &Effect, now: Timestamp) {
        match effect {
            Effect::Learn { bridge, flow } => {
                self.learn(*bridge, flow, now);
            }
            Effect::Station { bridge, vlan, mac, port } => {
                let Some(held) = self.bridges.get_mut(bridge) else { return };
                match held.fdb.learn(*vlan, *mac, *port, now) {
                    Learned::Same => {}
                    Learned::Changed { evicted } => {
                        self.count(DropReason::FdbFull, evicted.into());
                        self.changed();
                    }
                }
            }
            // Counted when the packets are.
            Effect::Patch { .. } => {}
            Effect::FinTimeout { bridge, flow, idle, hard } => self.fin_timeout(*bridge, *flow, (*idle, *hard)),
        }
    }

    /// Has an effect once more, for packets that a cache let through: what was learned stays young, but what is gone
    /// stays gone. The next packet that misses the cache learns it again.
    pub(crate) fn affect_cached(&mut self, effect: &Effect, (packets, bytes): (u64, u64), used: Timestamp) {
        match effect {
            Effect::Learn { bridge, flow } => {
                self.refresh(*bridge, flow, used);
            }
            Effect::Station { bridge, vlan, mac, port } => {
                if let Some(held) = self.bridges.get_mut(bridge)
                    && !held.fdb.would_change(*vlan, *mac, *port)
                {
                    held.fdb.learn(*vlan, *mac, *port, used);
                }
            }
            Effect::Patch { from, to } => self.count_patch(*from, *to, (packets, bytes)),
            Effect::FinTimeout { bridge, flow, idle, hard } => self.fin_timeout(*bridge, *flow, (*idle, *hard)),
        }
    }

    fn count_patch(&mut self, from: Place, to: Place, (packets, bytes): (u64, u64)) {
        if let Some(port) = self.bridges.get_mut(&from.0).and_then(|bridge| bridge.ports.get_mut(&from.1)) {
            port.counters.tx_packets += packets;
            port.counters.tx_bytes += bytes;
        }
        if let Some(port) = self.bridges.get_mut(&to.0).and_then(|bridge| bridge.ports.get_mut(&to.1)) {
            port.counters.rx_packets += packets;
            port.counters.rx_bytes += bytes;
        }
    }

    /// Keeps a learned flow young. Returns whether it was there, exactly as learned.
    fn refresh(&mut self, bridge: BridgeId, flow: &LearnedFlow, now: Timestamp) -> bool {
        let Some(held) = self.bridges.get_mut(&bridge) else { return true };
        let found = held.tables.find(flow.table, &flow.matching, flow.priority);
        let Some(old) = found.and_then(|found| held.tables.get_mut(found)) else { return false };
        let same = old.actions == flow.actions
            && old.cookie == flow.cookie
            && old.idle_timeout == flow.idle_timeout
            && old.hard_timeout == flow.hard_timeout
            && old.send_flow_rem == flow.send_flow_rem;
        if same {
            old.modified = old.modified.max(now);
        }
        same
    }

    /// Learns a flow, or keeps it young.
    pub(crate) fn learn(&mut self, bridge: BridgeId, flow: &LearnedFlow, now: Timestamp) -> Learnt {
        if self.refresh(bridge, flow, now) {
            return Learnt::Same;
        }
        let Some(held) = self.bridges.get_mut(&bridge) else { return Learnt::Same };
        // At the limit one that is there already is not learned anew either (`ofproto_flow_mod_learn()`).
        if flow.limit != 0 && held.tables.with_cookie(flow.table, flow.cookie) >= flow.limit as usize {
            self.count(DropReason::LearnLimit, 1);
            return Learnt::Full;
        }
        let Some(held) = self.bridges.get_mut(&bridge) else { return Learnt::Same };
        let known = held.tables.find(flow.table, &flow.matching, flow.priority);
        if known.is_none() && held.tables.len() >= LIMIT_FLOWS {
            self.count(DropReason::LearnLimit, 1);
            return Learnt::Full;
        }
        // A flow learned anew in place of another goes on where that one was.
        let old = known.and_then(|known| held.tables.get(known));
        let past = |old: &Flow| (old.created, old.used, old.n_packets, old.n_bytes);
        let (created, used, n_packets, n_bytes) = old.map_or((now, now, 0, 0), past);
        let before = old.cloned().map(Box::new);
        let flow = Flow {
            table: flow.table,
            priority: flow.priority,
            matching: flow.matching.clone(),
            cookie: flow.cookie,
            actions: Arc::clone(&flow.actions),
            idle_timeout: flow.idle_timeout,
            hard_timeout: flow.hard_timeout,
            send_flow_rem: flow.send_flow_rem,
            created,
            modified: now,
            used,
            n_packets,
            n_bytes,
        };
        let flow = match known {
            Some(known) => {
                held.tables.replace(known, flow);
                known
            }
            None => held.tables.insert(flow),
        };
        self.changed();
        Learnt::New { flow, before }
    }

    fn fin_timeout(&mut self, bridge: BridgeId, flow: FlowRef, (idle, hard): (u16, u16)) {
        let Some(held) = self.bridges.get_mut(&bridge) else { return };
        let Some(old) = held.tables.get(flow) else { return };
        let shorter = |old: u16, new: u16| if new != 0 && (old == 0 || new < old) { new } else { old };
        let (idle, hard) = (shorter(old.idle_timeout, idle), shorter(old.hard_timeout, hard));
        if (idle, hard) != (old.idle_timeout, old.hard_timeout) {
            held.tables.modify(flow, |flow| (flow.idle_timeout, flow.hard_timeout) = (idle, hard));
        }
    }
}

fn filter_of(flow: &FlowText, strict: Option<u16>) -> Filter<'_> {
    Filter { table: flow.table, matching: &flow.matching, cookie: flow.cookie_filter, out_port: flow.out_port, strict }
}

/// Makes one change. Returns how many flows it touched; `None` if the flow to be added must not overlap and does.
fn apply(bridge: &mut Bridge, change: Change, now: Timestamp) -> Option<usize> {
    Some(match change {
        Change::Add(flow) => {
            if flow.check_overlap && bridge.tables.overlaps(flow.table.unwrap_or(0), flow.priority, &flow.matching) {
                return None;
            }
            add(bridge, flow, now);
            1
        }
        Change::Modify { flow, strict } => {
            let selected = bridge.tables.select(&filter_of(&flow, strict.then_some(flow.priority)));
            if selected.is_empty() {
                // With a new cookie to give, and none asked for, a modification that finds nothing adds.
                if flow.cookie.is_some() && flow.cookie_filter.is_none() {
                    add(bridge, flow, now);
                    return Some(1);
                }
                return Some(0);
            }
            for reference in &selected {
                bridge.tables.modify(*reference, |held| {
                    if let Some(actions) = &flow.actions {
                        held.actions = Arc::clone(actions);
                    }
                    held.cookie = flow.cookie.unwrap_or(held.cookie);
                    held.modified = now;
                    if flow.reset_counts {
                        (held.n_packets, held.n_bytes) = (0, 0);
                    }
                });
            }
            selected.len()
        }
        Change::Delete { flow, strict } => {
            let selected = bridge.tables.select(&filter_of(&flow, strict.then_some(flow.priority)));
            selected.into_iter().filter(|reference| bridge.tables.remove(*reference).is_some()).count()
        }
    })
}

fn add(bridge: &mut Bridge, flow: FlowText, now: Timestamp) {
    bridge.tables.insert(Flow {
        table: flow.table.unwrap_or(0),
        priority: flow.priority,
        matching: flow.matching,
        cookie: flow.cookie.unwrap_or(0),
        actions: flow.actions.unwrap_or_default(),
        idle_timeout: flow.idle_timeout,
        hard_timeout: flow.hard_timeout,
        send_flow_rem: flow.send_flow_rem,
        created: now,
        modified: now,
        used: now,
        n_packets: 0,
        n_bytes: 0,
    });
}
