//! Flows and the tables that hold them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::action::{Action, Actions, port};
use super::classifier::Classifier;
use super::key::{Key, Mask};
use super::matching::{Kept, Match};
use super::revision::{Parts, Revisions, Tag, table_word};
use crate::types::Timestamp;

/// Most flows of one bridge, unless a switch is told another limit.
pub const LIMIT_FLOWS: u32 = 2_000_000;

/// Names a flow for as long as it exists; a later flow in its slot has another serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FlowRef {
    slot: u32,
    serial: u32,
}

/// One flow.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub(crate) table: u8,
    pub(crate) priority: u16,
    pub(crate) matching: Kept,
    pub(crate) cookie: u64,
    pub(crate) actions: Actions,
    pub(crate) idle_timeout: u16,
    pub(crate) hard_timeout: u16,
    pub(crate) send_flow_rem: bool,
    pub(crate) importance: u16,
    pub(crate) created: Timestamp,
    pub(crate) modified: Timestamp,
    pub(crate) used: Timestamp,
    pub(crate) n_packets: u64,
    pub(crate) n_bytes: u64,
}

impl Flow {
    /// When its time is up, if ever: later than this, not at it (`rule_expire()`).
    fn due(&self) -> Option<Timestamp> {
        let end = |since: Timestamp, timeout: u16| {
            (timeout != 0).then(|| since + core::time::Duration::from_secs(timeout.into()))
        };
        let ends = [end(self.modified, self.hard_timeout), end(self.used, self.idle_timeout)];
        ends.into_iter().flatten().min()
    }

    /// Whether some action sends to `port`.
    pub(crate) fn outputs_to(&self, port: u32) -> bool {
        outputs_to(&self.actions, port)
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "no other action sends to a port it names")]
fn outputs_to(actions: &[Action], port: u32) -> bool {
    actions.iter().any(|action| match action {
        Action::Output(number) => *number == port,
        Action::Clone(inner) => outputs_to(inner, port),
        _ => false,
    })
}

/// Which flows are meant.
#[derive(Clone, Debug)]
pub(crate) struct Filter<'a> {
    pub(crate) table: Option<u8>,
    pub(crate) matching: &'a Match,
    pub(crate) cookie: Option<(u64, u64)>,
    pub(crate) out_port: Option<u32>,
    /// Only the flows of exactly this match and priority: one a table.
    pub(crate) strict: Option<u16>,
}

impl Filter<'_> {
    /// Whether a flow of the right table, match and priority is wanted.
    fn wants(&self, flow: &Flow) -> bool {
        self.cookie.is_none_or(|(cookie, mask)| flow.cookie & mask == cookie)
            && self.out_port.is_none_or(|number| number == port::NONE || flow.outputs_to(number))
    }
}

/// A place for flows, one after another.
#[derive(Clone, Debug, Default)]
struct Slot {
    /// The latest flow's.
    serial: u32,
    flow: Option<Box<Flow>>,
}

/// The tables of one bridge.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    /// The bridge, as tags name it.
    bridge: u32,
    revisions: Arc<Revisions>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    tables: BTreeMap<u8, Classifier>,
    /// Flows with a timeout, by when to look at them: no later than when their time is up.
    timed: BTreeSet<(Timestamp, FlowRef)>,
    /// Where each of them is among those.
    due: BTreeMap<FlowRef, Timestamp>,
    /// How many flows each table has with each cookie: what `learn`'s limit counts.
    cookies: BTreeMap<(u8, u64), usize>,
    /// How many flows may still learn into each table with each cookie, and want that gone when they go.
    teachers: BTreeMap<(u8, u64), usize>,
    /// What no flow teaches any more, while that is kept for the end of several changes.
    kept: Option<Vec<(u8, u64)>>,
    len: usize,
}

/// Tables and cookies whose flows go with these actions. As in OVS a `learn` within a `clone` leaves what it taught
/// (`next_learn_with_delete()`).
#[expect(clippy::wildcard_enum_match_arm, reason = "no other action teaches")]
fn taught(actions: &[Action]) -> Vec<(u8, u64)> {
    let wants = |action: &Action| match action {
        Action::Learn(learn) if learn.delete_learned => Some((learn.table, learn.cookie)),
        _ => None,
    };
    actions.iter().filter_map(wants).collect()
}

impl Tables {
    /// The tables of a bridge, without flows.
    pub(crate) fn new(bridge: u32, revisions: Arc<Revisions>) -> Self {
        Self {
            bridge,
            revisions,
            slots: Vec::new(),
            free: Vec::new(),
            tables: BTreeMap::new(),
            timed: BTreeSet::new(),
            due: BTreeMap::new(),
            cookies: BTreeMap::new(),
            teachers: BTreeMap::new(),
            kept: None,
            len: 0,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, flow: FlowRef) -> Option<&Flow> {
        let held = self.slots.get(flow.slot as usize)?;
        if held.serial == flow.serial { held.flow.as_deref() } else { None }
    }

    pub(crate) fn get_mut(&mut self, flow: FlowRef) -> Option<&mut Flow> {
        let held = self.slots.get_mut(flow.slot as usize)?;
        if held.serial == flow.serial { held.flow.as_deref_mut() } else { None }
    }

    /// Every flow, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (FlowRef, &Flow)> {
        let reference = |slot, held: &Slot| FlowRef { slot, serial: held.serial };
        (0..).zip(&self.slots).filter_map(move |(slot, held)| Some((reference(slot, held), held.flow.as_deref()?)))
    }

    /// The flow for `key` in `table`; adds to `looked_at` the bits that had a say, and to `parts` what else had one.
    pub(crate) fn lookup(&self, table: u8, key: &Key, looked_at: &mut Mask, parts: &mut Parts) -> Option<FlowRef> {
        parts.add(Tag::order(table_word(self.bridge, table)));
        self.tables.get(&table)?.lookup(key, looked_at, parts)
    }

    /// The flow of exactly this match and priority.
    pub(crate) fn find(&self, table: u8, matching: &Match, priority: u16) -> Option<FlowRef> {
        self.tables.get(&table)?.find(matching, priority)
    }

    /// Whether a flow with another match, but this priority, matches packets that `matching` does too. One with the
    /// very same match is replaced, not overlapped.
    pub(crate) fn overlaps(&self, table: u8, priority: u16, matching: &Match) -> bool {
        let same = |flow: &Flow| flow.table == table && flow.priority == priority;
        self.find(table, matching, priority).is_none()
            && self.iter().any(|(_, flow)| same(flow) && flow.matching.meets(matching))
    }

    /// Flows of a table with a cookie.
    pub(crate) fn with_cookie(&self, table: u8, cookie: u64) -> usize {
        self.cookies.get(&(table, cookie)).copied().unwrap_or(0)
    }

    /// The flows `filter` wants, in no order that means anything.
    pub(crate) fn select(&self, filter: &Filter<'_>) -> Vec<FlowRef> {
        let tables = self.tables.iter().filter(|(table, _)| filter.table.is_none_or(|wanted| wanted == **table));
        let mut found = Vec::new();
        for (_, classifier) in tables {
            match filter.strict {
                Some(priority) => found.extend(classifier.find(filter.matching, priority)),
                None => classifier.covered(filter.matching, &mut found),
            }
        }
        if filter.cookie.is_some() || filter.out_port.is_some() {
            found.retain(|flow| self.get(*flow).is_some_and(|held| filter.wants(held)));
        }
        found
    }

    /// The match as a flow of a table is to keep it.
    pub(crate) fn keep(&self, table: u8, matching: &Match) -> Kept {
        self.tables.get(&table).map_or_else(|| Kept::of(matching), |classifier| classifier.keep(matching))
    }

    /// The flow of a table with exactly this match, as flows keep it, and priority.
    pub(crate) fn find_kept(&self, table: u8, matching: &Kept, priority: u16) -> Option<FlowRef> {
        self.tables.get(&table)?.find_kept(matching, priority)
    }

    /// Adds a flow, in place of the one with its table, match and priority if there is one: what is still to be
    /// counted for that one is not counted for this, but it is idle for as long as that one was.
    pub(crate) fn insert(&mut self, mut flow: Box<Flow>) -> FlowRef {
        if let Some(old) = self.find_kept(flow.table, &flow.matching, flow.priority)
            && let Some(gone) = self.remove_one(old)
        {
            flow.used = gone.used;
            let orphans = self.discount(old, &gone, &flow.actions);
            let new = self.insert_new(flow);
            self.remove_learned(&orphans);
            return new;
        }
        self.insert_new(flow)
    }

    /// Adds a flow without actions, for tests of lookups.
    #[cfg(test)]
    pub(crate) fn dummy(&mut self, matching: &Match, priority: u16) -> FlowRef {
        let zero = Timestamp::ZERO;
        self.insert(Box::new(Flow {
            table: 0,
            priority,
            matching: Kept::of(matching),
            cookie: 0,
            actions: Actions::default(),
            idle_timeout: 0,
            hard_timeout: 0,
            send_flow_rem: false,
            importance: 0,
            created: zero,
            modified: zero,
            used: zero,
            n_packets: 0,
            n_bytes: 0,
        }))
    }

    /// Adds a flow where there is none with its table, match and priority.
    pub(crate) fn insert_new(&mut self, mut flow: Box<Flow>) -> FlowRef {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot::default());
                // Fewer than the limit, which is 32 bits: the switch checks before it adds.
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let serial = self.slots[slot as usize].serial.wrapping_add(1);
        let reference = FlowRef { slot, serial };
        let word = table_word(self.bridge, flow.table);
        let classifier = self.tables.entry(flow.table).or_insert_with(|| Classifier::new(word));
        let priority = flow.priority;
        classifier.insert(&mut flow.matching, priority, reference, &self.revisions);
        self.account(reference, &flow);
        let held = &mut self.slots[slot as usize];
        (held.serial, held.flow) = (serial, Some(flow));
        self.len += 1;
        reference
    }

    /// Puts `flow` where one with the same table, match and priority is, as its continuation.
    pub(crate) fn replace(&mut self, reference: FlowRef, mut flow: Flow) {
        if let Some(classifier) = self.tables.get(&flow.table) {
            classifier.touch(&flow.matching, &self.revisions);
        }
        let Some(old) = self.slots[reference.slot as usize].flow.take() else { return };
        let orphans = self.discount(reference, &old, &flow.actions);
        // The same, and shared with the table.
        flow.matching = old.matching;
        self.account(reference, &flow);
        self.slots[reference.slot as usize].flow = Some(Box::new(flow));
        self.remove_learned(&orphans);
    }

    /// Gives a flow other actions, and whatever else `change` does but its table, match and priority.
    pub(crate) fn modify(&mut self, reference: FlowRef, change: impl FnOnce(&mut Flow)) {
        let Some(flow) = self.get(reference).cloned() else { return };
        let mut changed = flow;
        change(&mut changed);
        self.replace(reference, changed);
    }

    /// Removes a flow, and what it taught if it wants that.
    pub(crate) fn remove(&mut self, reference: FlowRef) -> Option<Flow> {
        let flow = self.remove_one(reference)?;
        let orphans = self.discount(reference, &flow, &[]);
        self.remove_learned(&orphans);
        Some(flow)
    }

    fn remove_one(&mut self, reference: FlowRef) -> Option<Flow> {
        self.get(reference)?;
        let flow = self.slots[reference.slot as usize].flow.take()?;
        self.free.push(reference.slot);
        if let Some(classifier) = self.tables.get_mut(&flow.table) {
            classifier.remove(&flow.matching, flow.priority, &self.revisions);
            if classifier.len() == 0 {
                self.tables.remove(&flow.table);
            }
        }
        self.len -= 1;
        Some(*flow)
    }

    fn account(&mut self, reference: FlowRef, flow: &Flow) {
        self.time(reference, flow.due());
        *self.cookies.entry((flow.table, flow.cookie)).or_insert(0) += 1;
        for key in taught(&flow.actions) {
            *self.teachers.entry(key).or_insert(0) += 1;
        }
    }

    /// Has a flow looked at when this is past, and no earlier.
    fn time(&mut self, reference: FlowRef, due: Option<Timestamp>) {
        let old = match due {
            Some(due) => {
                self.timed.insert((due, reference));
                self.due.insert(reference, due)
            }
            None => self.due.remove(&reference),
        };
        if let Some(old) = old
            && Some(old) != due
        {
            self.timed.remove(&(old, reference));
        }
    }

    /// The reverse of [`Self::account`]. Returns what no flow teaches any more, `successor` included.
    fn discount(&mut self, reference: FlowRef, flow: &Flow, successor: &[Action]) -> Vec<(u8, u64)> {
        self.time(reference, None);
        if let Some(count) = self.cookies.get_mut(&(flow.table, flow.cookie)) {
            *count -= 1;
            if *count == 0 {
                self.cookies.remove(&(flow.table, flow.cookie));
            }
        }
        let kept = taught(successor);
        let mut orphans = Vec::new();
        for key in taught(&flow.actions) {
            if let Some(count) = self.teachers.get_mut(&key) {
                *count -= 1;
                if *count == 0 {
                    self.teachers.remove(&key);
                    if !kept.contains(&key) {
                        orphans.push(key);
                    }
                }
            }
        }
        orphans
    }

    /// Keeps learned flows whose teachers go until [`Self::settle`]: as in OVS the changes of a bundle are all made
    /// before what their flows taught goes, and with it what the bundle itself put among that.
    pub(crate) fn defer(&mut self) {
        self.kept.get_or_insert_default();
    }

    /// Removes what was kept since [`Self::defer`].
    pub(crate) fn settle(&mut self) {
        if let Some(orphans) = self.kept.take() {
            self.remove_learned(&orphans);
        }
    }

    /// Removes learned flows whose teachers are gone; they may have been teachers themselves.
    fn remove_learned(&mut self, orphans: &[(u8, u64)]) {
        if let Some(kept) = &mut self.kept {
            kept.extend(orphans);
            return;
        }
        let mut left = orphans.to_vec();
        while let Some((table, cookie)) = left.pop() {
            let filter = Filter {
                table: Some(table),
                matching: &Match::ANY,
                cookie: Some((cookie, u64::MAX)),
                out_port: None,
                strict: None,
            };
            for reference in self.select(&filter) {
                if let Some(flow) = self.remove_one(reference) {
                    left.extend(self.discount(reference, &flow, &[]));
                }
            }
        }
    }

    /// Removes the flows whose time is up. Returns how many. Looks only at those whose time could be up.
    pub(crate) fn expire(&mut self, now: Timestamp) -> usize {
        let mut gone = 0;
        while let Some((_, reference)) = self.timed.first().copied().filter(|(due, _)| *due < now) {
            // It may have been used since.
            match self.get(reference).and_then(Flow::due) {
                Some(due) if due >= now => self.time(reference, Some(due)),
                _ if self.remove(reference).is_some() => gone += 1,
                _ => unreachable!("timed flows exist"),
            }
        }
        gone
    }
}
