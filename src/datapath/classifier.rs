//! Finds the flow of highest priority that matches a key: a hash table for every mask in use.
//!
//! Masks are tried from the one whose best flow has the highest priority down, and no further than one that could
//! still win; each in stages, and no further than a stage at which no flow agrees. Whatever was tried is reported, as
//! bits and as [`Parts`]: those decided the outcome.

use std::sync::Arc;

use hashbrown::hash_table::Entry as Place;
use hashbrown::{HashMap, HashTable};

use super::key::{Key, Mask, MaskShape, hash_picked};
use super::matching::{Kept, Match};
use super::revision::{Parts, Revisions, Tag};
use super::table::FlowRef;

/// The flows of one table by match.
#[derive(Clone, Debug)]
pub(crate) struct Classifier {
    /// What stands for this table among tags.
    word: u64,
    /// By descending greatest priority.
    order: Vec<usize>,
    subtables: Vec<Subtable>,
    free: Vec<usize>,
    by_mask: HashMap<Mask, usize>,
    /// Where the last flow was added: mostly the next has the same mask.
    latest: Option<usize>,
    len: usize,
}

/// The flows with one mask.
#[derive(Clone, Debug)]
struct Subtable {
    mask: Mask,
    digest: u64,
    /// Its flows share it.
    shape: Arc<MaskShape>,
    max_priority: u16,
    /// How many flows have each priority.
    priorities: std::collections::BTreeMap<u16, usize>,
    /// For each stage but the last: how many entries there are for each hash.
    partial: Box<[HashTable<(u64, usize)>]>,
    entries: HashTable<Entry>,
}

/// The flows with one mask and value, highest priority first.
#[derive(Clone, Debug)]
struct Entry {
    /// Its flows share them.
    words: Arc<[u64]>,
    first: (u16, FlowRef),
    /// The others, if there are any: mostly there are none, and that takes one word.
    #[expect(clippy::box_collection, reason = "a vector without items is three words in each of a million entries")]
    more: Option<Box<Vec<(u16, FlowRef)>>>,
}

impl Entry {
    fn rules(&self) -> impl Iterator<Item = (u16, FlowRef)> + '_ {
        core::iter::once(self.first).chain(self.more.iter().flat_map(|more| more.iter().copied()))
    }

    fn rule(&self, priority: u16) -> Option<FlowRef> {
        self.rules().find(|(other, _)| *other == priority).map(|(_, flow)| flow)
    }

    fn insert(&mut self, rule: (u16, FlowRef)) {
        let mut all: Vec<_> = self.rules().collect();
        let at = all.partition_point(|(priority, _)| *priority >= rule.0);
        all.insert(at, rule);
        self.set(all);
    }

    /// Takes the rule of `priority` out; returns whether any is left.
    fn remove(&mut self, priority: u16) -> bool {
        let all: Vec<_> = self.rules().filter(|(other, _)| *other != priority).collect();
        if all.is_empty() {
            return false;
        }
        self.set(all);
        true
    }

    /// Has it hold these rules, at least one.
    fn set(&mut self, mut all: Vec<(u16, FlowRef)>) {
        self.first = all.remove(0);
        self.more = if all.is_empty() { None } else { Some(Box::new(all)) };
    }
}

impl Subtable {
    fn new(mask: &Mask, priority: u16) -> Self {
        let shape = Arc::new(MaskShape::staged(mask));
        Self {
            mask: mask.clone(),
            digest: mask.digest(),
            max_priority: priority,
            priorities: std::collections::BTreeMap::new(),
            partial: (1..shape.stages()).map(|_| HashTable::new()).collect(),
            entries: HashTable::new(),
            shape,
        }
    }

    /// The entry for a key. Notes what was looked at to find it, or to find that there is none.
    fn lookup(&self, key: &Key, table: u64, looked_at: &mut Mask, parts: &mut Parts) -> Option<&Entry> {
        let mut found = None;
        let mut last = (0, 0);
        for (stage, hash) in self.shape.hashes(key).enumerate() {
            last = (stage, hash);
            match self.partial.get(stage) {
                Some(known) if known.find(hash, |(other, _)| *other == hash).is_some() => {}
                Some(_) => break,
                None => found = self.entries.find(hash, |entry| self.shape.equals(key, &entry.words)),
            }
        }
        self.shape.raise(last.0, looked_at);
        parts.add(Tag::flows(table, self.digest, last.0, last.1));
        found
    }

    /// The entry of a match with this mask.
    fn entry(&self, picked: &[u64]) -> Option<&Entry> {
        self.entries.find(hash_picked(picked), |entry| *entry.words == *picked)
    }

    /// Says that the flows with this value are not what they were, to whoever found them or looked for them in vain.
    fn touch(&self, picked: &[u64], table: u64, revisions: &Revisions) {
        for (stage, hash) in self.shape.picked_hashes(picked).enumerate() {
            revisions.touch(Tag::flows(table, self.digest, stage, hash));
        }
    }

    /// Counts one more entry in the stages before the last.
    fn enter(&mut self, picked: &[u64]) {
        for (known, hash) in self.partial.iter_mut().zip(self.shape.picked_hashes(picked)) {
            match known.entry(hash, |(other, _)| *other == hash, |(other, _)| *other) {
                Place::Occupied(mut held) => held.get_mut().1 += 1,
                Place::Vacant(place) => {
                    place.insert((hash, 1));
                }
            }
        }
    }

    /// Counts one entry less.
    fn leave(&mut self, picked: &[u64]) {
        for (known, hash) in self.partial.iter_mut().zip(self.shape.picked_hashes(picked)) {
            if let Ok(mut held) = known.find_entry(hash, |(other, _)| *other == hash) {
                held.get_mut().1 -= 1;
                if held.get().1 == 0 {
                    held.remove();
                }
            }
        }
    }
}

impl Classifier {
    /// A table without flows, for which `word` stands among tags.
    pub(crate) fn new(word: u64) -> Self {
        let (order, subtables, free) = (Vec::new(), Vec::new(), Vec::new());
        Self { word, order, subtables, free, by_mask: HashMap::new(), latest: None, len: 0 }
    }

    /// Flows in it.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The best flow for `key`. Adds to `looked_at` every bit that had a say, and to `parts` what else had one.
    pub(crate) fn lookup(&self, key: &Key, looked_at: &mut Mask, parts: &mut Parts) -> Option<FlowRef> {
        let mut best: Option<(u16, FlowRef)> = None;
        for index in &self.order {
            let subtable = &self.subtables[*index];
            if best.is_some_and(|(priority, _)| priority >= subtable.max_priority) {
                break;
            }
            if let Some(entry) = subtable.lookup(key, self.word, looked_at, parts)
                && best.is_none_or(|(priority, _)| entry.first.0 > priority)
            {
                best = Some(entry.first);
            }
        }
        best.map(|(_, flow)| flow)
    }

    fn entry(&self, matching: &Match) -> Option<&Entry> {
        let subtable = &self.subtables[*self.by_mask.get(&matching.mask)?];
        let hash = subtable.shape.hash(&matching.value);
        subtable.entries.find(hash, |entry| subtable.shape.equals(&matching.value, &entry.words))
    }

    /// The flow with exactly this match and priority.
    pub(crate) fn find(&self, matching: &Match, priority: u16) -> Option<FlowRef> {
        self.entry(matching)?.rule(priority)
    }

    /// The match as a flow is to keep it: of its mask it shares what flows with that mask share.
    pub(crate) fn keep(&self, matching: &Match) -> Kept {
        match self.by_mask.get(&matching.mask) {
            Some(index) => Kept::among(&self.subtables[*index].shape, &matching.value),
            None => Kept::of(matching),
        }
    }

    /// The flow with exactly this match, as flows keep it, and priority.
    pub(crate) fn find_kept(&self, matching: &Kept, priority: u16) -> Option<FlowRef> {
        self.subtables[self.place(matching)?].entry(matching.picked())?.rule(priority)
    }

    /// Where the flows with this mask are.
    fn place(&self, matching: &Kept) -> Option<usize> {
        let shape = matching.shape();
        let is_same = |index: &usize| {
            let there = &self.subtables[*index].shape;
            Arc::ptr_eq(there, shape) || there == shape
        };
        self.latest.filter(is_same).or_else(|| self.by_mask.get(&matching.mask()).copied())
    }

    /// Adds to `found` the flows whose packets `matching` matches all.
    pub(crate) fn covered(&self, matching: &Match, found: &mut Vec<FlowRef>) {
        for index in &self.order {
            let subtable = &self.subtables[*index];
            if subtable.mask == matching.mask {
                found.extend(self.entry(matching).into_iter().flat_map(Entry::rules).map(|(_, flow)| flow));
            } else if subtable.mask.contains(&matching.mask) {
                let meeting = subtable.entries.iter().filter(|entry| subtable.shape.meets(&entry.words, matching));
                found.extend(meeting.flat_map(Entry::rules).map(|(_, flow)| flow));
            }
        }
    }

    /// Says that the flow with this match is not what it was.
    pub(crate) fn touch(&self, matching: &Kept, revisions: &Revisions) {
        if let Some(index) = self.place(matching) {
            self.subtables[index].touch(matching.picked(), self.word, revisions);
        }
    }

    /// Adds a flow; the caller made sure there is none with this match and priority. Has the match share what others have.
    pub(crate) fn insert(&mut self, matching: &mut Kept, priority: u16, flow: FlowRef, revisions: &Revisions) {
        let index = match self.place(matching) {
            Some(index) => index,
            None => self.new_subtable(&matching.mask(), priority, revisions),
        };
        self.latest = Some(index);
        let subtable = &mut self.subtables[index];
        let picked = matching.picked();
        match subtable.entries.find_mut(hash_picked(picked), |entry| entry.words == *picked) {
            Some(entry) => {
                entry.insert((priority, flow));
                *matching = Kept::new(&subtable.shape, &entry.words);
            }
            None => {
                let entry = Entry { words: Arc::clone(picked), first: (priority, flow), more: None };
                subtable.entries.insert_unique(hash_picked(picked), entry, |entry| hash_picked(&entry.words));
                subtable.enter(picked);
                *matching = Kept::new(&subtable.shape, picked);
            }
        }
        *subtable.priorities.entry(priority).or_insert(0) += 1;
        subtable.touch(matching.picked(), self.word, revisions);
        self.len += 1;
        self.settle(index, revisions);
    }

    /// Removes the flow with exactly this match and priority, which is there.
    pub(crate) fn remove(&mut self, matching: &Kept, priority: u16, revisions: &Revisions) {
        let Some(index) = self.place(matching) else { return };
        let subtable = &mut self.subtables[index];
        let picked = matching.picked();
        let Ok(mut found) = subtable.entries.find_entry(hash_picked(picked), |entry| entry.words == *picked) else {
            return;
        };
        if !found.get_mut().remove(priority) {
            found.remove();
            subtable.leave(picked);
        }
        subtable.touch(picked, self.word, revisions);
        self.len -= 1;
        if let Some(count) = subtable.priorities.get_mut(&priority) {
            *count -= 1;
            if *count == 0 {
                subtable.priorities.remove(&priority);
            }
        }
        if subtable.priorities.is_empty() {
            self.by_mask.remove(&subtable.mask);
            self.order.retain(|other| *other != index);
            self.free.push(index);
            self.latest = None;
        } else {
            self.settle(index, revisions);
        }
    }

    /// Puts a mask where its flows' greatest priority wants it.
    fn settle(&mut self, index: usize, revisions: &Revisions) {
        let subtable = &mut self.subtables[index];
        let greatest = subtable.priorities.last_key_value().map_or(0, |(priority, _)| *priority);
        if subtable.max_priority != greatest {
            subtable.max_priority = greatest;
            self.sort(revisions);
        }
    }

    fn new_subtable(&mut self, mask: &Mask, priority: u16, revisions: &Revisions) -> usize {
        let subtable = Subtable::new(mask, priority);
        let index = match self.free.pop() {
            Some(index) => {
                self.subtables[index] = subtable;
                index
            }
            None => {
                self.subtables.push(subtable);
                self.subtables.len() - 1
            }
        };
        self.by_mask.insert(mask.clone(), index);
        self.order.push(index);
        self.sort(revisions);
        index
    }

    fn sort(&mut self, revisions: &Revisions) {
        let Self { order, subtables, .. } = self;
        // Masks of equal priority in an order that does not depend on history, so that results repeat.
        order.sort_by_key(|index| (core::cmp::Reverse(subtables[*index].max_priority), subtables[*index].digest));
        revisions.touch(Tag::order(self.word));
    }
}
