//! The slow path: bridges, ports, tables and learned addresses, shared by all workers.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::action::{self, Action};
use super::bridge::{Bridge, BridgePorts, BridgeView, NewPort, NewPortKind, Port};
use super::drop::DropReason;
use super::error::SwitchError;
use super::extract::extract;
use super::fdb::{Learned, Station};
use super::io::{DpPort, Ingress};
use super::key::{self, Key, Mask};
use super::learn::LearnedFlow;
use super::matching::{Kept, Match};
use super::packet::{Offload, Packet};
use super::revision::{Revisions, Tag};
use super::routers::Routers;
use super::table::{Flow, FlowRef, LIMIT_FLOWS, Tables};
use super::text::{FlowText, Use};
use super::trace::{self, Recorder, TraceInput};
use super::xlate::{BridgeId, Effect, Verdict, Xlate};
use crate::api::switch::{BridgeMode, PortCounters};
use crate::types::{IfName, Timestamp};

/// Most bridges of a switch.
pub(crate) const LIMIT_BRIDGES: usize = 4096;

/// A port of a bridge.
pub(crate) type Place = (BridgeId, u32);

/// Bridges, ports, tables and learned addresses. One is shared by all [`super::Worker`]s.
#[derive(Debug)]
pub struct Switch {
    /// Most flows of one bridge.
    flow_limit: usize,
    bridges: BTreeMap<BridgeId, Bridge>,
    bridge_names: BTreeMap<IfName, BridgeId>,
    next_bridge: BridgeId,
    port_names: BTreeMap<IfName, Place>,
    netdevs: BTreeMap<DpPort, Place>,
    /// By datapath port, remote and local address.
    tunnels: BTreeMap<(DpPort, IpAddr, IpAddr), Place>,
    revisions: Arc<Revisions>,
    drops: BTreeMap<DropReason, u64>,
    pub(super) routers: Routers,
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

impl Default for Switch {
    fn default() -> Self {
        Self::with_flow_limit(LIMIT_FLOWS)
    }
}

impl Switch {
    /// A switch without bridges.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A switch without bridges, each of which may come to have at most so many flows.
    #[must_use]
    pub fn with_flow_limit(flow_limit: u32) -> Self {
        Self {
            flow_limit: flow_limit as usize,
            bridges: BTreeMap::new(),
            bridge_names: BTreeMap::new(),
            next_bridge: BridgeId::default(),
            port_names: BTreeMap::new(),
            netdevs: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            revisions: Arc::default(),
            drops: BTreeMap::new(),
            routers: Routers::default(),
        }
    }

    /// Most flows of one bridge.
    pub(crate) const fn flow_limit(&self) -> usize {
        self.flow_limit
    }

    /// What changed when: what decisions rest on.
    pub(crate) fn revisions(&self) -> Arc<Revisions> {
        Arc::clone(&self.revisions)
    }

    /// Has every decision made anew: bridges or ports changed.
    fn ports_changed(&mut self, bridge: BridgeId) {
        if let Some(held) = self.bridges.get_mut(&bridge) {
            held.ports_revision += 1;
        }
        self.revisions.touch(Tag::PORTS);
        self.revisions.publish();
    }

    pub(crate) fn bridge(&self, bridge: BridgeId) -> Option<&Bridge> {
        self.bridges.get(&bridge)
    }

    pub(crate) fn bridge_mut(&mut self, bridge: BridgeId) -> Option<&mut Bridge> {
        self.bridges.get_mut(&bridge)
    }

    pub(crate) fn id(&self, bridge: &IfName) -> Result<BridgeId, SwitchError> {
        self.bridge_names.get(bridge).copied().ok_or_else(|| SwitchError::UnknownBridge(bridge.clone()))
    }

    /// The bridge of this name.
    pub(crate) fn named(&self, bridge: &IfName) -> Result<&Bridge, SwitchError> {
        let id = self.id(bridge)?;
        self.bridges.get(&id).ok_or_else(|| SwitchError::UnknownBridge(bridge.clone()))
    }

    /// The same, to be changed: what was decided before may not hold after.
    pub(super) fn named_mut(&mut self, bridge: &IfName) -> Result<&mut Bridge, SwitchError> {
        let id = self.id(bridge)?;
        self.ports_changed(id);
        self.bridges.get_mut(&id).ok_or_else(|| SwitchError::UnknownBridge(bridge.clone()))
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
        let id = self.next_bridge;
        let tables = Tables::new(id, Arc::clone(&self.revisions));
        // No bridge lives to see 2^32 changes, so no two ever have the same revision.
        let mut bridge = Bridge::new(name.clone(), mode, tables, u64::from(id) << 32);
        if mode == BridgeMode::Normal {
            bridge.tables.insert(Box::new(Flow {
                table: 0,
                priority: 0,
                matching: Kept::of(&Match::ANY),
                cookie: 0,
                actions: [Action::Output(action::port::NORMAL)].into(),
                idle_timeout: 0,
                hard_timeout: 0,
                send_flow_rem: false,
                importance: 0,
                created: Timestamp::ZERO,
                modified: Timestamp::ZERO,
                used: Timestamp::ZERO,
                n_packets: 0,
                n_bytes: 0,
            }));
        }
        self.next_bridge += 1;
        self.bridges.insert(id, bridge);
        self.bridge_names.insert(name.clone(), id);
        self.ports_changed(id);
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
            self.ports_changed(id);
        }
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
            NewPortKind::Vxlan { dp, local, remote } | NewPortKind::Gre { dp, local, remote } => {
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
            let port = Port { name: port.name, kind: port.kind, vlan: port.vlan, counters, router: None };
            bridge.ports.insert(number, port);
        }
        self.ports_changed(id);
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
        if let Some((router, _)) = port.router {
            self.routers.leave(router, (id, number));
        }
        self.ports_changed(id);
        Ok(match port.kind {
            NewPortKind::Netdev { dp } => {
                self.netdevs.remove(&dp);
                Some(dp)
            }
            NewPortKind::Vxlan { dp, local, remote } | NewPortKind::Gre { dp, local, remote } => {
                self.tunnels.remove(&(dp, remote, local));
                (!self.tunnels.keys().any(|(other, ..)| *other == dp)).then_some(dp)
            }
            NewPortKind::Patch { .. } => None,
        })
    }

    /// Whether a datapath port is GRE's.
    pub(crate) fn is_gre(&self, dp: DpPort) -> bool {
        const LEAST: IpAddr = IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED);
        // All tunnels of a datapath port are of one kind.
        let first = self.tunnels.range((dp, LEAST, LEAST)..).next();
        let place = first.filter(|((there, ..), _)| *there == dp).map(|(_, place)| *place);
        let port = place.and_then(|(bridge, number)| self.bridges.get(&bridge)?.ports.get(&number));
        port.is_some_and(|port| matches!(port.kind, NewPortKind::Gre { .. }))
    }

    /// Every bridge, by name.
    #[must_use]
    pub fn bridges(&self) -> Vec<BridgeView> {
        self.bridge_names.values().filter_map(|id| self.bridges.get(id)).map(Bridge::view).collect()
    }

    /// Every bridge's revision: see [`BridgeView::revision`].
    #[must_use]
    pub fn bridge_revisions(&self) -> BTreeMap<IfName, u64> {
        self.bridges.values().map(|bridge| (bridge.name.clone(), bridge.revision())).collect()
    }

    /// Removes flows and learned addresses whose time is up. To be called about once a second. Returns how many went.
    pub fn expire(&mut self, now: Timestamp) -> usize {
        let mut gone = 0;
        for (id, bridge) in &mut self.bridges {
            gone += bridge.tables.expire(now);
            let stations = bridge.fdb.expire(now);
            gone += stations.len();
            stations.iter().for_each(|(vlan, mac)| self.revisions.touch(Tag::station(*id, *vlan, *mac)));
        }
        if gone > 0 {
            self.revisions.publish();
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
                    guard: None,
                    tags: [Tag::PORTS].into(),
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
                let packet = Packet::new(&mut octets, 0, end, &[], Offload::default());
                let (mut key, layout) = extract(&ingress, &packet);
                let guard = Xlate::walk(self, (id, *in_port), &key, now, false, None).guard;
                if guard.is_some_and(|guard| !guard.admits(&packet, layout)) {
                    key.raise_all(key::DETOUR);
                }
                key
            }
        };
        if key.is_tagged() && key.get(key::VLAN_TPID) == 0 {
            key.set(key::VLAN_TPID, crate::wire::ethernet::TYPE_VLAN.into());
        }
        let number = key.get32(key::IN_PORT);
        let mut recorder = Recorder::new();
        let verdict = Xlate::walk(self, (id, number), &key, now, generate, Some(&mut recorder));
        let ports = BridgePorts { bridge: self.named(bridge)?, names: false };
        Ok(trace::report(&recorder, &key, &verdict, &ports, self))
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

    /// Has an effect of a walk. Returns whether there was room for it.
    pub(crate) fn affect(&mut self, effect: &Effect, now: Timestamp) -> bool {
        match effect {
            Effect::Learn { bridge, flow } => return !matches!(self.learn(*bridge, flow, now), Learnt::Full),
            Effect::Station { bridge, vlan, mac, port } => {
                return self.learn_station(*bridge, (*vlan, *mac), *port, now);
            }
            // Counted when the packets are.
            Effect::Patch { .. } | Effect::Routed { .. } => {}
            Effect::FinTimeout { bridge, flow, idle, hard } => self.fin_timeout(*bridge, *flow, (*idle, *hard)),
        }
        true
    }

    /// Returns whether there was room.
    fn learn_station(&mut self, bridge: BridgeId, (vlan, mac): Station, port: u32, now: Timestamp) -> bool {
        let Some(held) = self.bridges.get_mut(&bridge) else { return true };
        let evicted = match held.fdb.learn(vlan, mac, port, now) {
            Learned::Same => return true,
            Learned::Refused => {
                self.count(DropReason::FdbFull, 1);
                return false;
            }
            Learned::Changed { evicted } => evicted,
        };
        self.count(DropReason::FdbFull, evicted.is_some().into());
        for (vlan, mac) in evicted.into_iter().chain([(vlan, mac)]) {
            self.revisions.touch(Tag::station(bridge, vlan, mac));
        }
        self.revisions.publish();
        true
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
            Effect::Patch { from, to } => self.count_crossing(*from, *to, (packets, bytes)),
            Effect::Routed { router, from, to } => {
                self.routers.count(*router, (packets, bytes));
                self.count_crossing(*from, *to, (packets, bytes));
            }
            Effect::FinTimeout { bridge, flow, idle, hard } => self.fin_timeout(*bridge, *flow, (*idle, *hard)),
        }
    }

    fn count_crossing(&mut self, from: Place, to: Place, (packets, bytes): (u64, u64)) {
        if let Some(port) = self.bridges.get_mut(&from.0).and_then(|bridge| bridge.ports.get_mut(&from.1)) {
            port.counters.tx_packets += packets;
            port.counters.tx_bytes += bytes;
        }
        if let Some(port) = self.bridges.get_mut(&to.0).and_then(|bridge| bridge.ports.get_mut(&to.1)) {
            port.counters.rx_packets += packets;
            port.counters.rx_bytes += bytes;
        }
    }

    /// Keeps a learned flow young. Returns whether it was there, with what it does as learned; the times and flags of
    /// one that is there are its own, as in OVS (`replace_rule_start()`).
    fn refresh(&mut self, bridge: BridgeId, flow: &LearnedFlow, now: Timestamp) -> bool {
        let Some(held) = self.bridges.get_mut(&bridge) else { return true };
        let found = held.tables.find(flow.table, &flow.matching, flow.priority);
        let Some(old) = found.and_then(|found| held.tables.get_mut(found)) else { return false };
        let same = old.actions == flow.actions && old.cookie == flow.cookie;
        if same {
            old.modified = old.modified.max(now);
        }
        same
    }

    /// Learns a flow, or keeps it young.
    pub(crate) fn learn(&mut self, bridge: BridgeId, flow: &LearnedFlow, now: Timestamp) -> Learnt {
        let Some(held) = self.bridges.get(&bridge) else { return Learnt::Same };
        let known = held.tables.find(flow.table, &flow.matching, flow.priority);
        let exactly = known.and_then(|known| held.tables.get(known)).is_some_and(|old| flow.is(old));
        // At the limit one that is there but not exactly so is not learned anew either (`ofproto_flow_mod_learn()`).
        if flow.limit != 0 && !exactly && held.tables.with_cookie(flow.table, flow.cookie) >= flow.limit as usize {
            self.count(DropReason::LearnLimit, 1);
            return Learnt::Full;
        }
        if self.refresh(bridge, flow, now) {
            return Learnt::Same;
        }
        let Some(held) = self.bridges.get_mut(&bridge) else { return Learnt::Same };
        if known.is_none() && held.tables.len() >= self.flow_limit {
            self.count(DropReason::LearnLimit, 1);
            return Learnt::Full;
        }
        // A flow learned anew in place of another goes on where that one was.
        let old = known.and_then(|known| held.tables.get(known));
        let past = |old: &Flow| (old.created, old.used, old.n_packets, old.n_bytes);
        let (created, used, n_packets, n_bytes) = old.map_or((now, now, 0, 0), past);
        let kept = |old: &Flow| (old.idle_timeout, old.hard_timeout, old.send_flow_rem, old.importance);
        let (idle_timeout, hard_timeout, send_flow_rem, importance) =
            old.map_or((flow.idle_timeout, flow.hard_timeout, flow.send_flow_rem, 0), kept);
        let before = old.cloned().map(Box::new);
        let flow = Flow {
            table: flow.table,
            priority: flow.priority,
            matching: held.tables.keep(flow.table, &flow.matching),
            cookie: flow.cookie,
            actions: Arc::clone(&flow.actions),
            idle_timeout,
            hard_timeout,
            send_flow_rem,
            importance,
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
            None => held.tables.insert_new(Box::new(flow)),
        };
        self.revisions.publish();
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
