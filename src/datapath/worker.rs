//! The fast path of one thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::cache::{Cache, Entry, Hit, NewEntry};
use super::drop::DropReason;
use super::execute::execute;
use super::extract::{Layout, extract};
use super::guard::Guard;
use super::io::{Egress, Ingress};
use super::key::{DETOUR, Key};
use super::offer::{FRAMES_FIRST, Offer, Offered, Sample};
use super::packet::Packet;
use super::revision::Revisions;
use super::switch::Switch;
use super::upcall::{UpcallLimit, Upcalls};
use crate::api::switch::CacheCounters;
use crate::types::Timestamp;

/// Entries told to the switch in one go, while nobody else can have it.
const PUSH_STEP: usize = 1024;

/// The fast path of one thread: its cache of what the switch decided.
#[derive(Debug)]
pub struct Worker {
    cache: Cache,
    /// What changes in the switch, once one has been seen.
    revisions: Option<Arc<Revisions>>,
    counters: CacheCounters,
    /// Who may have the tables walked.
    upcalls: Upcalls,
    /// Frames that could not be rewritten, answered or looked up, not yet told to the switch.
    no_room: u64,
    unanswered: u64,
    refused: u64,
    /// The first entry not yet told to the switch in this round.
    pushed: usize,
    /// What the strictest of all routers asks of packets.
    least: Option<Guard>,
}

/// What the cache has for a packet.
#[derive(Clone, Copy)]
enum Found {
    /// An entry to be believed.
    Stands(Hit),
    /// One that rests on what changed since.
    Stale(usize),
    Nothing,
}

impl Found {
    const fn stale(self) -> Option<usize> {
        match self {
            Self::Stale(index) => Some(index),
            Self::Stands(_) | Self::Nothing => None,
        }
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self::new()
    }
}

/// A panic elsewhere leaves the switch as its last whole change made it.
pub(crate) fn locked(switch: &Mutex<Switch>) -> MutexGuard<'_, Switch> {
    switch.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Worker {
    /// A worker that knows nothing yet, whose cache hashes the same way in every run, with the usual limit.
    #[must_use]
    pub fn new() -> Self {
        Self::seeded(0)
    }

    /// The same, whose cache hashes by a seed: one that senders of packets cannot know.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::with(seed, UpcallLimit::default())
    }

    /// The same as [`Self::new`], with another limit.
    #[must_use]
    pub fn with_upcall_limit(limit: UpcallLimit) -> Self {
        Self::with(0, limit)
    }

    fn with(seed: u64, limit: UpcallLimit) -> Self {
        Self {
            cache: Cache::new(seed),
            revisions: None,
            counters: CacheCounters::default(),
            upcalls: Upcalls::new(limit),
            no_room: 0,
            unanswered: 0,
            refused: 0,
            pushed: 0,
            least: None,
        }
    }

    /// Does to one frame what the switch's flows say. Locks the switch only if the cache does not know, and not even then
    /// if that happens too often.
    pub fn process(
        &mut self,
        switch: &Mutex<Switch>,
        ingress: &Ingress,
        packet: &mut Packet<'_>,
        now: Timestamp,
        egress: &mut impl Egress,
    ) {
        let (mut key, layout) = extract(ingress, packet);
        let mut found = self.find(&key);
        let mut stale = [found.stale(), None];
        if self.goes_through(found, packet, layout) {
            key.raise_all(DETOUR);
            found = self.find(&key);
            stale[1] = found.stale();
        }
        let index = match found {
            Found::Stands(hit) => {
                match hit {
                    Hit::Exact(_) => self.counters.exact_hits += 1,
                    Hit::Masked(_) => self.counters.masked_hits += 1,
                }
                // Octets as they came in: the frame is rewritten in place.
                let takes = egress.takes_offers(ingress.port);
                if let Some(sample) = takes.then(|| self.sample(hit.index(), &key, packet)).flatten() {
                    self.run(hit.index(), packet, layout, now, egress);
                    return self.offer((hit.index(), ingress), &sample, now, egress);
                }
                hit.index()
            }
            Found::Stale(_) | Found::Nothing => {
                self.counters.misses += 1;
                if !self.upcalls.admit(ingress, stale.iter().any(Option::is_some), now) {
                    self.refused += 1;
                    return;
                }
                self.miss(switch, (&mut key, ingress), stale, (packet, layout), now)
            }
        };
        self.run(index, packet, layout, now, egress);
    }

    /// The frame, if its entry is to be offered with it.
    fn sample(&mut self, index: usize, key: &Key, packet: &Packet<'_>) -> Option<Sample> {
        let entry = self.cache.entry_mut(index).filter(|entry| entry.deed.is_some())?;
        if entry.seen < FRAMES_FIRST {
            entry.seen += 1;
            return None;
        }
        Sample::of(key, packet.head())
    }

    fn offer(&self, (index, ingress): (usize, &Ingress), sample: &Sample, now: Timestamp, egress: &mut impl Egress) {
        let (Some(entry), Some(revisions)) = (self.cache.entry(index), &self.revisions) else { return };
        let Some(deed) = entry.deed else { return };
        let offered = Offered {
            deed,
            mask: self.cache.mask(entry),
            guard: entry.guard,
            revisions,
            revision: entry.revision,
            tags: &entry.tags,
            flows: &entry.flows,
            effects: &entry.effects,
        };
        egress.offer(&Offer::of(ingress.port, sample, offered), now);
    }

    fn find(&mut self, key: &Key) -> Found {
        match self.cache.lookup(key) {
            Some(hit) if self.stands(hit.index()) => Found::Stands(hit),
            Some(hit) => Found::Stale(hit.index()),
            None => Found::Nothing,
        }
    }

    /// Whether a packet goes through the namespace of a router that others of its kind may go past.
    fn goes_through(&self, found: Found, packet: &Packet<'_>, layout: Layout) -> bool {
        let guard = match found {
            Found::Stands(hit) => self.cache.entry(hit.index()).and_then(|entry| entry.guard),
            // Nobody knows yet whether there is a router; one that no router minds does as others do.
            Found::Stale(_) | Found::Nothing => self.least,
        };
        guard.is_some_and(|guard| !guard.admits(packet, layout))
    }

    /// Whether what an entry rests on is as it was.
    fn stands(&mut self, index: usize) -> bool {
        let (Some(entry), Some(revisions)) = (self.cache.entry_mut(index), &self.revisions) else { return false };
        let current = revisions.current();
        if entry.revision != current {
            if !revisions.stands(&entry.tags, entry.revision) {
                return false;
            }
            entry.revision = current;
        }
        true
    }

    /// Asks the switch, in place of stale entries if there are any. Returns the new entry.
    fn miss(
        &mut self,
        switch: &Mutex<Switch>,
        (key, ingress): (&mut Key, &Ingress),
        stale: [Option<usize>; 2],
        (packet, layout): (&Packet<'_>, Layout),
        now: Timestamp,
    ) -> usize {
        let mut switch = locked(switch);
        let revisions = self.revisions.get_or_insert_with(|| switch.revisions());
        for entry in stale.into_iter().flatten().filter_map(|index| self.cache.remove(index)) {
            push(&mut switch, &entry);
        }
        self.least = switch.least_guard();
        // Taken before the walk: what the walk itself changes (`learn`) makes its own verdict stale.
        let revision = revisions.current();
        // A packet that some router minds may be one that its own does not; and it is to teach nothing on a way it will
        // not go.
        let minds = |guard: Option<Guard>| guard.is_some_and(|guard| !guard.admits(packet, layout));
        key.set(DETOUR, 0);
        if minds(self.least) && minds(switch.walk(ingress, key, now, false).guard) {
            key.raise_all(DETOUR);
        }
        let verdict = switch.walk(ingress, key, now, true);
        let new = NewEntry {
            guard: verdict.guard,
            revision,
            tags: verdict.tags,
            actions: verdict.actions.into(),
            flows: verdict.flows.into(),
            effects: verdict.effects.into(),
            drop: verdict.drop,
        };
        let (index, evicted) = self.cache.insert(key, &verdict.mask, new, now);
        self.counters.evictions += evicted.len() as u64;
        for entry in evicted {
            push(&mut switch, &entry);
        }
        index
    }

    fn run(&mut self, index: usize, packet: &mut Packet<'_>, layout: Layout, now: Timestamp, egress: &mut impl Egress) {
        let Some(entry) = self.cache.entry_mut(index) else { return };
        entry.packets += 1;
        entry.bytes += packet.len() as u64;
        entry.used = now;
        match execute(&entry.actions, packet, layout, egress) {
            None => {}
            Some(DropReason::Unanswered) => self.unanswered += 1,
            Some(_) => self.no_room += 1,
        }
    }

    /// Tells the switch what the cache did in its name, and forgets what has been of no use for long. To be called
    /// about once a second, and before flows are shown. Locks the switch in turns short enough for others to have
    /// theirs between.
    pub fn push_stats(&mut self, switch: &Mutex<Switch>, now: Timestamp) {
        self.push_anew();
        while !self.push_step(&mut locked(switch), now) {}
    }

    /// Does as [`Self::push_stats`] as far as it can without waiting: goes on where it stopped last time, and returns
    /// whether it came to the end. So a change of very many flows stops no worker.
    pub fn try_push_stats(&mut self, switch: &Mutex<Switch>, now: Timestamp) -> bool {
        loop {
            let mut switch = match switch.try_lock() {
                Ok(switch) => switch,
                Err(TryLockError::Poisoned(error)) => error.into_inner(),
                Err(TryLockError::WouldBlock) => return false,
            };
            if self.push_step(&mut switch, now) {
                return true;
            }
        }
    }

    /// Has the next [`Self::try_push_stats`] begin with the first entry.
    pub const fn push_anew(&mut self) {
        self.pushed = 0;
    }

    /// Tells the switch of the next few entries. Returns whether those were the last.
    fn push_step(&mut self, switch: &mut Switch, now: Timestamp) -> bool {
        let end = self.cache.places().min(self.pushed + PUSH_STEP);
        for index in self.pushed..end {
            let Some(entry) = self.cache.entry_mut(index) else { continue };
            push(switch, entry);
            (entry.packets, entry.bytes) = (0, 0);
            if self.cache.is_idle(index, now) {
                self.cache.remove(index);
            }
        }
        self.pushed = end;
        if end < self.cache.places() {
            return false;
        }
        self.pushed = 0;
        switch.count(DropReason::NoRoom, core::mem::take(&mut self.no_room));
        switch.count(DropReason::Unanswered, core::mem::take(&mut self.unanswered));
        switch.count(DropReason::UpcallLimit, core::mem::take(&mut self.refused));
        self.upcalls.forget(now);
        self.cache.rank();
        true
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
