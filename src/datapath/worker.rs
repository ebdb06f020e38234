//! The fast path of one thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cache::{Cache, Entry, Hit, NewEntry};
use super::drop::DropReason;
use super::execute::execute;
use super::extract::{Layout, extract};
use super::io::{Egress, Ingress};
use super::key::Key;
use super::packet::Packet;
use super::switch::Switch;
use crate::api::switch::CacheCounters;
use crate::types::Timestamp;

/// The fast path of one thread: its cache of what the switch decided.
#[derive(Debug)]
pub struct Worker {
    cache: Cache,
    /// The switch's generation, once one has been seen.
    generation: Option<Arc<AtomicU64>>,
    counters: CacheCounters,
    /// Frames dropped while being rewritten, not yet told to the switch.
    no_room: u64,
}

impl Default for Worker {
    fn default() -> Self {
        Self::new()
    }
}

/// A panic elsewhere leaves the switch as its last whole change made it.
fn locked(switch: &Mutex<Switch>) -> MutexGuard<'_, Switch> {
    switch.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Worker {
    /// A worker that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self { cache: Cache::new(), generation: None, counters: CacheCounters::default(), no_room: 0 }
    }

    /// Does to one frame what the switch's flows say. Locks the switch only if the cache does not know.
    pub fn process(
        &mut self,
        switch: &Mutex<Switch>,
        ingress: &Ingress,
        packet: &mut Packet<'_>,
        now: Timestamp,
        egress: &mut impl Egress,
    ) {
        let (key, layout) = extract(ingress, packet);
        // Relaxed: a change is seen a moment later at worst, as if the frame had come a moment earlier.
        let current = self.generation.as_ref().map(|generation| generation.load(Ordering::Relaxed));
        let hit = self.cache.lookup(&key);
        let index = match hit {
            Some(Hit::Exact(index) | Hit::Masked(index)) => index,
            None => usize::MAX,
        };
        if self.cache.entry(index).is_some_and(|entry| Some(entry.generation) == current) {
            match hit {
                Some(Hit::Exact(_)) => self.counters.exact_hits += 1,
                Some(Hit::Masked(_)) | None => self.counters.masked_hits += 1,
            }
            self.run(index, packet, layout, now, egress);
            return;
        }
        self.counters.misses += 1;
        let index = self.miss(switch, (&key, ingress), index, now);
        self.run(index, packet, layout, now, egress);
    }

    /// Asks the switch, in place of the stale entry at `stale` if there is one. Returns the new entry.
    fn miss(
        &mut self,
        switch: &Mutex<Switch>,
        (key, ingress): (&Key, &Ingress),
        stale: usize,
        now: Timestamp,
    ) -> usize {
        let mut switch = locked(switch);
        if self.generation.is_none() {
            self.generation = Some(switch.generation());
        }
        if let Some(entry) = self.cache.remove(stale) {
            push(&mut switch, &entry);
        }
        // Taken before the walk: what the walk itself changes (`learn`) makes its own verdict stale.
        let generation = switch.generation().load(Ordering::Relaxed);
        let verdict = switch.walk(ingress, key, now, true);
        let new = NewEntry {
            generation,
            actions: verdict.actions.into(),
            flows: verdict.flows.into(),
            effects: verdict.effects.into(),
            drop: verdict.drop,
        };
        let (index, evicted) = self.cache.insert(key, &verdict.mask, new, now);
        if let Some(entry) = evicted {
            push(&mut switch, &entry);
        }
        index
    }

    fn run(&mut self, index: usize, packet: &mut Packet<'_>, layout: Layout, now: Timestamp, egress: &mut impl Egress) {
        let Some(entry) = self.cache.entry_mut(index) else { return };
        entry.packets += 1;
        entry.bytes += packet.len() as u64;
        entry.used = now;
        if execute(&entry.actions, packet, layout, egress).is_some() {
            self.no_room += 1;
        }
    }

    /// Tells the switch what the cache did in its name, and forgets what has been of no use for long. To be called
    /// about once a second, and before flows are shown.
    pub fn push_stats(&mut self, switch: &Mutex<Switch>, now: Timestamp) {
        let mut switch = locked(switch);
        for index in self.cache.indices() {
            let Some(entry) = self.cache.entry_mut(index) else { continue };
            push(&mut switch, entry);
            (entry.packets, entry.bytes) = (0, 0);
            if self.cache.is_idle(index, now) {
                self.cache.remove(index);
            }
        }
        switch.count(DropReason::NoRoom, core::mem::take(&mut self.no_room));
        self.cache.rank();
    }

    /// What the cache did so far, and how much it holds.
    #[must_use]
    pub fn counters(&self) -> CacheCounters {
        CacheCounters { entries: self.cache.len() as u64, masks: self.cache.masks() as u64, ..self.counters }
    }
}

/// Tells the switch what an entry did.
fn push(switch: &mut Switch, entry: &Entry) {
    if entry.packets == 0 {
        return;
    }
    switch.credit(&entry.flows, (entry.packets, entry.bytes), entry.used);
    for effect in &entry.effects {
        switch.affect_cached(effect, (entry.packets, entry.bytes), entry.used);
    }
    if let Some(reason) = entry.drop {
        switch.count(reason, entry.packets);
    }
}
