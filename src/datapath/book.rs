//! Flows apart from any traffic: read as a bridge would read them, compared, sorted.
//!
//! A text says one flow in many ways; a bridge says it in one. A [`FlowBook`] is a bridge that carries nothing: what is
//! put into it comes out as `dump-flows` would tell it, and only then are two flows compared.

use core::cmp::Ordering;
use std::collections::BTreeMap;

use super::bridge::{BridgePorts, NewPort, NewPortKind};
use super::error::SwitchError;
use super::field::{Field, Info};
use super::io::DpPort;
use super::matching::{DEFAULT_PRIORITY, Match};
use super::switch::Switch;
use super::text::{FlowText, Use};
use crate::api::switch::{BridgeMode, Flow, FlowChange, VlanMode};
use crate::types::{IfName, Timestamp};

/// A bridge of flows alone.
#[derive(Debug)]
pub struct FlowBook {
    switch: Switch,
    bridge: IfName,
}

impl FlowBook {
    /// An empty book whose flows may name these ports.
    ///
    /// # Errors
    /// When two ports share a name or a number, or a number is reserved.
    pub fn new(ports: impl IntoIterator<Item = (u32, IfName)>) -> Result<Self, SwitchError> {
        let bridge = IfName::new("flows").unwrap_or_else(|_| unreachable!("five letters name a bridge"));
        let mut switch = Switch::new();
        switch.add_bridge(&bridge, BridgeMode::Flow)?;
        for (number, name) in ports {
            let kind = NewPortKind::Netdev { dp: DpPort(number) };
            switch.add_port(&bridge, NewPort { name, kind, vlan: VlanMode::Trunk, number: Some(number) })?;
        }
        Ok(Self { switch, bridge })
    }

    /// Makes changes as [`Switch::change_flows`] does.
    ///
    /// # Errors
    /// As there.
    pub fn change(&mut self, changes: &[FlowChange]) -> Result<usize, SwitchError> {
        self.switch.change_flows(&self.bridge, changes, Timestamp::ZERO)
    }

    /// Its flows as [`Switch::dump_flows`] tells them, of no age.
    ///
    /// # Errors
    /// None: the bridge is its own.
    pub fn flows(&self, names: bool) -> Result<Vec<Flow>, SwitchError> {
        self.switch.dump_flows(&self.bridge, "", names, Timestamp::ZERO)
    }

    /// Sorts dumped flows by several keys, the first deciding first. As `ovs-ofctl` does it, a flow that does not
    /// match a field comes after those that do, whichever way it is sorted.
    ///
    /// # Errors
    /// [`SwitchError::BadFilter`] for a flow whose match cannot be read, such as one that names an unknown port.
    pub fn sort(&self, flows: &mut Vec<Flow>, keys: &[SortKey]) -> Result<(), SwitchError> {
        let id = self.switch.id(&self.bridge)?;
        let Some(bridge) = self.switch.bridge(id) else { unreachable!("it was made with the book") };
        let ports = BridgePorts { bridge, names: false };
        let read = |flow: Flow| {
            let text = FlowText::parse(&flow.matching, Use::Filter, &ports).map_err(SwitchError::BadFilter)?;
            Ok((keys.iter().map(|key| key.rank(&flow, &text.matching)).collect::<Vec<_>>(), flow))
        };
        let mut ranked: Vec<(Vec<Rank>, Flow)> =
            core::mem::take(flows).into_iter().map(read).collect::<Result<_, _>>()?;
        ranked.sort_by(|(one, _), (two, _)| {
            let each = keys.iter().zip(one.iter().zip(two)).map(|(key, (one, two))| key.compare(*one, *two));
            each.fold(Ordering::Equal, Ordering::then)
        });
        flows.extend(ranked.into_iter().map(|(_, flow)| flow));
        Ok(())
    }
}

/// What a flow is sorted by: its value, if it has one.
type Rank = Option<u128>;

/// One thing to sort flows by.
#[derive(Debug, Clone, Copy)]
pub struct SortKey {
    /// The field; the priority without it.
    field: Option<&'static Info>,
    descending: bool,
}

impl SortKey {
    /// By `priority`, or by the field of this name; `None` if there is no such field.
    #[must_use]
    pub fn new(name: &str, descending: bool) -> Option<Self> {
        let field = if name == "priority" { None } else { Some(Field::by_name(name)?) };
        Some(Self { field, descending })
    }

    fn rank(self, flow: &Flow, matching: &Match) -> Rank {
        let Some(info) = self.field else { return Some(flow.priority.into()) };
        let matched = matching.mask.get(info.place) & info.exact() != 0 && info.needs.met_by(&matching.value);
        matched.then(|| matching.value.get(info.place) & info.exact())
    }

    fn compare(self, one: Rank, two: Rank) -> Ordering {
        match (one, two) {
            (Some(one), Some(two)) if self.descending => two.cmp(&one),
            (Some(one), Some(two)) => one.cmp(&two),
            (one, two) => two.is_some().cmp(&one.is_some()),
        }
    }
}

/// What tells one flow of a bridge from another: table, priority from the highest, match.
type Place<'a> = (u8, core::cmp::Reverse<u16>, &'a str);

fn by_place(flows: &[Flow]) -> BTreeMap<Place<'_>, &Flow> {
    flows.iter().map(|flow| ((flow.table, core::cmp::Reverse(flow.priority), flow.matching.as_str()), flow)).collect()
}

/// A flow that two lists do not have alike.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference<'a> {
    /// The flow of the first, if it has one there.
    pub old: Option<&'a Flow>,
    /// The flow of the second.
    pub new: Option<&'a Flow>,
}

/// Where two lists of flows differ, by table, then priority from the highest, then match. Both must tell ports the same
/// way. Counters and ages do not count; neither do differences that `ovs-ofctl diff-flows` passes over, flags among them.
#[must_use]
pub fn differences<'a>(old: &'a [Flow], new: &'a [Flow]) -> Vec<Difference<'a>> {
    let (olds, news) = (by_place(old), by_place(new));
    let mut found: BTreeMap<Place<'a>, Difference<'a>> = BTreeMap::new();
    for (place, flow) in &olds {
        let other = news.get(place).copied();
        if other.is_none_or(|other| !same(flow, other)) {
            found.insert(*place, Difference { old: Some(flow), new: other });
        }
    }
    for (place, flow) in news.iter().filter(|(place, _)| !olds.contains_key(*place)) {
        found.insert(*place, Difference { old: None, new: Some(flow) });
    }
    found.into_values().collect()
}

fn same(one: &Flow, two: &Flow) -> bool {
    let said = |flow: &Flow| (flow.cookie, flow.idle_timeout, flow.hard_timeout, flow.importance);
    said(one) == said(two) && one.actions == two.actions
}

/// The changes that make the flows of a bridge those of `new`: what is gone is removed, what differs is put in its place
/// anew, what is alike keeps its counters.
#[must_use]
pub(super) fn replacement(old: &[Flow], new: &[Flow]) -> Vec<FlowChange> {
    let differences = differences(old, new);
    let gone = differences.iter().filter(|difference| difference.new.is_none()).filter_map(|difference| difference.old);
    let removed = gone.map(|flow| FlowChange::DeleteStrict(strict(flow)));
    let added = differences.iter().filter_map(|difference| difference.new).map(|flow| FlowChange::Add(add(flow)));
    removed.chain(added).collect()
}

fn strict(flow: &Flow) -> String {
    let comma = if flow.matching.is_empty() { "" } else { "," };
    format!("table={},priority={}{comma}{}", flow.table, flow.priority, flow.matching)
}

/// The flow as `add-flow` takes it.
fn add(flow: &Flow) -> String {
    let Flow { cookie, idle_timeout, hard_timeout, importance, actions, .. } = flow;
    let flag = if flow.send_flow_rem { "send_flow_rem," } else { "" };
    let head = format!(
        "cookie={cookie:#x},idle_timeout={idle_timeout},hard_timeout={hard_timeout},importance={importance},{flag}"
    );
    format!("{head}{} actions={actions}", strict(flow))
}

/// The flow as `ovs-ofctl diff-flows` prints it.
#[must_use]
pub fn plain(flow: &Flow) -> String {
    let mut out = String::new();
    if flow.table != 0 {
        out.push_str(&format!("table={} ", flow.table));
    }
    out.push_str(&priority_and_match(flow));
    if flow.cookie != 0 {
        out.push_str(&format!(" cookie={:#x}", flow.cookie));
    }
    let numbers =
        [("idle_timeout", flow.idle_timeout), ("hard_timeout", flow.hard_timeout), ("importance", flow.importance)];
    for (name, number) in numbers {
        if number != 0 {
            out.push_str(&format!(" {name}={number}"));
        }
    }
    out.push_str(" actions=");
    out.push_str(&flow.actions);
    out
}

/// The flow as `ovs-ofctl dump-flows --no-stats` prints it: without what changes by itself.
#[must_use]
pub fn without_stats(flow: &Flow) -> String {
    let mut out = String::new();
    if flow.cookie != 0 {
        out.push_str(&format!("cookie={:#x}, ", flow.cookie));
    }
    if flow.table != 0 {
        out.push_str(&format!("table={}, ", flow.table));
    }
    for (name, seconds) in [("idle_timeout", flow.idle_timeout), ("hard_timeout", flow.hard_timeout)] {
        if seconds != 0 {
            out.push_str(&format!("{name}={seconds}, "));
        }
    }
    if flow.send_flow_rem {
        out.push_str("send_flow_rem ");
    }
    if flow.importance != 0 {
        out.push_str(&format!("importance={}, ", flow.importance));
    }
    let head = priority_and_match(flow);
    if !head.is_empty() {
        out.push_str(&head);
        out.push(' ');
    }
    out.push_str("actions=");
    out.push_str(&flow.actions);
    out
}

fn priority_and_match(flow: &Flow) -> String {
    match (flow.priority, flow.matching.as_str()) {
        (DEFAULT_PRIORITY, matching) => matching.to_owned(),
        (priority, "") => format!("priority={priority}"),
        (priority, matching) => format!("priority={priority},{matching}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file that the recorded outputs of `ovs-ofctl` 3.1.0 below were made with.
    const FLOWS: [&str; 6] = [
        "table=0,priority=5,ip,nw_dst=10.0.0.0/8,actions=output:2",
        "priority=0,actions=NORMAL",
        "table=3,actions=drop",
        "tcp,tp_dst=80,idle_timeout=10,hard_timeout=20,importance=9,cookie=0x7,send_flow_rem,actions=1",
        "table=1 priority=7 in_port=1 actions=resubmit(,2)",
        "table=1 priority=7 in_port=2 dl_src=00:00:00:00:00:01 actions=resubmit(,2)",
    ];

    fn name(text: &str) -> IfName {
        text.parse().expect("a legal name")
    }

    fn flows(texts: &[&str], names: bool) -> (FlowBook, Vec<Flow>) {
        let mut book = FlowBook::new([(1, name("p1")), (2, name("p2"))]).expect("two ports");
        let adds: Vec<FlowChange> = texts.iter().map(|text| FlowChange::Add((*text).to_owned())).collect();
        book.change(&adds).expect("good flows");
        let flows = book.flows(names).expect("its own bridge");
        (book, flows)
    }

    fn sorted(keys: &[(&str, bool)], names: bool) -> Vec<String> {
        let (book, mut flows) = flows(&FLOWS, names);
        let keys: Vec<SortKey> =
            keys.iter().map(|(name, descending)| SortKey::new(name, *descending).expect("a field")).collect();
        book.sort(&mut flows, &keys).expect("what it dumped");
        flows.iter().map(without_stats).collect()
    }

    #[test]
    fn no_stats_and_orders_are_those_of_ovs() {
        let by_priority = [
            "priority=0 actions=NORMAL",
            "priority=5,ip,nw_dst=10.0.0.0/8 actions=output:2",
            "table=1, priority=7,in_port=1 actions=resubmit(,2)",
            "table=1, priority=7,in_port=2,dl_src=00:00:00:00:00:01 actions=resubmit(,2)",
            "cookie=0x7, idle_timeout=10, hard_timeout=20, send_flow_rem importance=9, tcp,tp_dst=80 actions=output:1",
            "table=3, actions=drop",
        ];
        assert_eq!(sorted(&[("priority", false)], false), by_priority);
        let by_port = [by_priority[3], by_priority[2], by_priority[4], by_priority[5], by_priority[1], by_priority[0]];
        assert_eq!(sorted(&[("in_port", true), ("priority", true)], false), by_port);
        let first = |keys: &[(&str, bool)], names| sorted(keys, names).remove(0);
        assert_eq!(first(&[("nw_dst", false)], false), by_priority[1], "with the field before without it");
        assert_eq!(
            first(&[("in_port", false)], true),
            "table=1, priority=7,in_port=p1 actions=resubmit(,2)",
            "ports by name sort by number"
        );
        assert!(SortKey::new("bogus", false).is_none());
    }

    #[test]
    fn differences_are_those_of_ovs() {
        let (_, old) = flows(&FLOWS, false);
        let (_, new) = flows(
            &[
                "table=0,priority=6,ip,nw_dst=10.0.0.0/8,actions=output:2",
                FLOWS[1],
                "tcp,tp_dst=80,idle_timeout=10,hard_timeout=20,cookie=0x8,send_flow_rem,actions=1",
                FLOWS[4],
                FLOWS[5],
                "table=9,reg0=1,priority=1,actions=drop",
            ],
            false,
        );
        let lines = |difference: &Difference<'_>| {
            let signed = [("-", difference.old), ("+", difference.new)];
            signed.into_iter().filter_map(|(sign, flow)| Some(format!("{sign}{}", plain(flow?)))).collect::<Vec<_>>()
        };
        assert_eq!(
            differences(&old, &new).iter().flat_map(lines).collect::<Vec<_>>(),
            [
                "-tcp,tp_dst=80 cookie=0x7 idle_timeout=10 hard_timeout=20 importance=9 actions=output:1",
                "+tcp,tp_dst=80 cookie=0x8 idle_timeout=10 hard_timeout=20 actions=output:1",
                "+priority=6,ip,nw_dst=10.0.0.0/8 actions=output:2",
                "-priority=5,ip,nw_dst=10.0.0.0/8 actions=output:2",
                "-table=3  actions=drop",
                "+table=9 priority=1,reg0=0x1 actions=drop",
            ]
        );
        assert!(differences(&old, &old).is_empty());
    }

    #[test]
    fn a_replacement_leaves_nothing_else_and_touches_nothing_alike() {
        let (mut book, old) = flows(&FLOWS, false);
        let (_, new) =
            flows(&[FLOWS[1], "table=3,cookie=5,hard_timeout=9,importance=4,send_flow_rem,actions=output:1"], false);
        let changes = replacement(&old, &new);
        assert_eq!(changes.len(), 4 + 1, "four go, one differs, one stays: {changes:?}");
        book.change(&changes).expect("its own words");
        assert_eq!(book.flows(false).expect("its own bridge"), new);
        assert!(replacement(&new, &new).is_empty());
    }
}
