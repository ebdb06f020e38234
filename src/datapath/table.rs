//! Flows and the tables that hold them.

use std::collections::{BTreeMap, BTreeSet};

use super::action::{Action, Actions, port};
use super::classifier::Classifier;
use super::key::{Key, Mask};
use super::matching::Match;
use crate::types::Timestamp;

/// Most flows of one bridge.
pub(crate) const LIMIT_FLOWS: usize = 2_000_000;

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
    pub(crate) matching: Match,
    pub(crate) cookie: u64,
    pub(crate) actions: Actions,
    pub(crate) idle_timeout: u16,
    pub(crate) hard_timeout: u16,
    pub(crate) send_flow_rem: bool,
    pub(crate) created: Timestamp,
    pub(crate) modified: Timestamp,
    pub(crate) used: Timestamp,
    pub(crate) n_packets: u64,
    pub(crate) n_bytes: u64,
}

impl Flow {
    /// Whether its time is up.
    pub(crate) fn expired(&self, now: Timestamp) -> bool {
        // Later than the timeout, not at it (`rule_expire()`).
        let over = |since: Timestamp, timeout: u16| {
            timeout != 0 && now.since(since) > core::time::Duration::from_secs(timeout.into())
        };
        over(self.modified, self.hard_timeout) || over(self.used, self.idle_timeout)
    }

    /// Whether some action sends to `port`.
    pub(crate) fn outputs_to(&self, port: u32) -> bool {
        outputs_to(&self.actions, port)
    }

    fn timed(&self) -> bool {
        self.idle_timeout != 0 || self.hard_timeout != 0
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
    /// Only the flow of exactly this match and priority.
    pub(crate) strict: Option<u16>,
}

impl Filter<'_> {
    fn wants(&self, flow: &Flow) -> bool {
        self.table.is_none_or(|table| table == flow.table)
            && self.cookie.is_none_or(|(cookie, mask)| flow.cookie & mask == cookie)
            && self.out_port.is_none_or(|number| number == port::NONE || flow.outputs_to(number))
            && match self.strict {
                Some(priority) => flow.priority == priority && flow.matching == *self.matching,
                None => self.matching.contains(&flow.matching),
            }
    }
}

/// The tables of one bridge.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    slots: Vec<(u32, Option<Box<Flow>>)>,
    free: Vec<u32>,
    tables: BTreeMap<u8, Classifier>,
    /// Flows with a timeout.
    timed: BTreeSet<FlowRef>,
    /// How many flows each table has with each cookie: what `learn`'s limit counts.
    cookies: BTreeMap<(u8, u64), usize>,
    /// How many flows may still learn into each table with each cookie, and want that gone when they go.
    teachers: BTreeMap<(u8, u64), usize>,
    len: usize,
}

/// Tables and cookies whose flows go with these actions.
#[expect(clippy::wildcard_enum_match_arm, reason = "no other action teaches")]
fn taught(actions: &[Action]) -> Vec<(u8, u64)> {
    let mut found = Vec::new();
    for action in actions {
        match action {
            Action::Learn(learn) if learn.delete_learned => found.push((learn.table, learn.cookie)),
            Action::Clone(inner) => found.extend(taught(inner)),
            _ => {}
        }
    }
    found
}

impl Tables {
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, flow: FlowRef) -> Option<&Flow> {
        let (serial, held) = self.slots.get(flow.slot as usize)?;
        if *serial == flow.serial { held.as_deref() } else { None }
    }

    pub(crate) fn get_mut(&mut self, flow: FlowRef) -> Option<&mut Flow> {
        let (serial, held) = self.slots.get_mut(flow.slot as usize)?;
        if *serial == flow.serial { held.as_deref_mut() } else { None }
    }

    /// Every flow, in no order that means anything.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (FlowRef, &Flow)> {
        (0..)
            .zip(&self.slots)
            .filter_map(|(slot, (serial, held))| held.as_deref().map(|flow| (FlowRef { slot, serial: *serial }, flow)))
    }

    /// The flow for `key` in `table`; adds to `looked_at` the bits that had a say.
    pub(crate) fn lookup(&self, table: u8, key: &Key, looked_at: &mut Mask) -> Option<FlowRef> {
        self.tables.get(&table)?.lookup(key, looked_at)
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

    /// The flows `filter` wants.
    pub(crate) fn select(&self, filter: &Filter<'_>) -> Vec<FlowRef> {
        if let (Some(priority), Some(table)) = (filter.strict, filter.table) {
            let found = self.find(table, filter.matching, priority);
            return found.filter(|flow| self.get(*flow).is_some_and(|held| filter.wants(held))).into_iter().collect();
        }
        self.iter().filter(|(_, flow)| filter.wants(flow)).map(|(flow, _)| flow).collect()
    }

    /// Adds a flow, in place of the one with its table, match and priority if there is one: what is still to be
    /// counted for that one is not counted for this, but it is idle for as long as that one was.
    pub(crate) fn insert(&mut self, mut flow: Flow) -> FlowRef {
        if let Some(old) = self.find(flow.table, &flow.matching, flow.priority)
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
        self.insert(Flow {
            table: 0,
            priority,
            matching: matching.clone(),
            cookie: 0,
            actions: Actions::default(),
            idle_timeout: 0,
            hard_timeout: 0,
            send_flow_rem: false,
            created: zero,
            modified: zero,
            used: zero,
            n_packets: 0,
            n_bytes: 0,
        })
    }

    fn insert_new(&mut self, flow: Flow) -> FlowRef {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push((0, None));
                // Fewer than LIMIT_FLOWS: the switch checks before it adds.
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        let serial = self.slots[slot as usize].0.wrapping_add(1);
        let reference = FlowRef { slot, serial };
        self.tables.entry(flow.table).or_default().insert(&flow.matching, flow.priority, reference);
        self.account(reference, &flow);
        self.slots[slot as usize] = (serial, Some(Box::new(flow)));
        self.len += 1;
        reference
    }

    /// Puts `flow` where one with the same table, match and priority is, as its continuation.
    pub(crate) fn replace(&mut self, reference: FlowRef, flow: Flow) {
        let Some(old) = self.slots[reference.slot as usize].1.take() else { return };
        let orphans = self.discount(reference, &old, &flow.actions);
        self.account(reference, &flow);
        self.slots[reference.slot as usize].1 = Some(Box::new(flow));
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
        let flow = self.slots[reference.slot as usize].1.take()?;
        self.free.push(reference.slot);
        if let Some(classifier) = self.tables.get_mut(&flow.table) {
            classifier.remove(&flow.matching, flow.priority);
            if classifier.len() == 0 {
                self.tables.remove(&flow.table);
            }
        }
        self.len -= 1;
        Some(*flow)
    }

    fn account(&mut self, reference: FlowRef, flow: &Flow) {
        if flow.timed() {
            self.timed.insert(reference);
        }
        *self.cookies.entry((flow.table, flow.cookie)).or_insert(0) += 1;
        for key in taught(&flow.actions) {
            *self.teachers.entry(key).or_insert(0) += 1;
        }
    }

    /// The reverse of [`Self::account`]. Returns what no flow teaches any more, `successor` included.
    fn discount(&mut self, reference: FlowRef, flow: &Flow, successor: &[Action]) -> Vec<(u8, u64)> {
        self.timed.remove(&reference);
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

    /// Removes learned flows whose teachers are gone; they may have been teachers themselves.
    fn remove_learned(&mut self, orphans: &[(u8, u64)]) {
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

    /// Removes the flows whose time is up. Returns how many.
    pub(crate) fn expire(&mut self, now: Timestamp) -> usize {
        let over = |flow: &&FlowRef| self.get(**flow).is_some_and(|flow| flow.expired(now));
        let expired: Vec<FlowRef> = self.timed.iter().filter(over).copied().collect();
        expired.into_iter().filter(|flow| self.remove(*flow).is_some()).count()
    }
}
