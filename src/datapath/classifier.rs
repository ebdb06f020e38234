//! Finds the flow of highest priority that matches a key: a hash table for every mask in use.
//!
//! Masks are tried from the one whose best flow has the highest priority down, and no further than one that could
//! still win. Whatever mask was tried is reported: those bits decided the outcome.

use hashbrown::{HashMap, HashTable};

use super::key::{Key, Mask, MaskShape, Mixer};
use super::matching::Match;
use super::table::FlowRef;

/// The flows of one table by match.
#[derive(Clone, Default, Debug)]
pub(crate) struct Classifier {
    /// By descending greatest priority.
    order: Vec<usize>,
    subtables: Vec<Subtable>,
    free: Vec<usize>,
    by_mask: HashMap<Mask, usize>,
    len: usize,
}

/// The flows with one mask.
#[derive(Clone, Debug)]
struct Subtable {
    mask: Mask,
    shape: MaskShape,
    max_priority: u16,
    /// How many flows have each priority.
    priorities: std::collections::BTreeMap<u16, usize>,
    entries: HashTable<Entry>,
}

/// The flows with one mask and value, highest priority first.
#[derive(Clone, Debug)]
struct Entry {
    hash: u64,
    words: Box<[u64]>,
    first: (u16, FlowRef),
    more: Vec<(u16, FlowRef)>,
}

impl Entry {
    fn rules(&self) -> impl Iterator<Item = (u16, FlowRef)> + '_ {
        core::iter::once(self.first).chain(self.more.iter().copied())
    }

    fn insert(&mut self, rule: (u16, FlowRef)) {
        let mut all: Vec<_> = self.rules().collect();
        let at = all.partition_point(|(priority, _)| *priority >= rule.0);
        all.insert(at, rule);
        self.first = all.remove(0);
        self.more = all;
    }

    /// Takes the rule of `priority` out; returns whether any is left.
    fn remove(&mut self, priority: u16) -> bool {
        let mut all: Vec<_> = self.rules().filter(|(other, _)| *other != priority).collect();
        if all.is_empty() {
            return false;
        }
        self.first = all.remove(0);
        self.more = all;
        true
    }
}

impl Classifier {
    /// Flows in it.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// The best flow for `key`. Adds to `looked_at` every bit that had a say.
    pub(crate) fn lookup(&self, key: &Key, looked_at: &mut Mask) -> Option<FlowRef> {
        let mut best: Option<(u16, FlowRef)> = None;
        for index in &self.order {
            let subtable = &self.subtables[*index];
            if best.is_some_and(|(priority, _)| priority >= subtable.max_priority) {
                break;
            }
            looked_at.union(&subtable.mask);
            let hash = subtable.shape.hash(key);
            if let Some(entry) = subtable.entries.find(hash, |entry| subtable.shape.equals(key, &entry.words))
                && best.is_none_or(|(priority, _)| entry.first.0 > priority)
            {
                best = Some(entry.first);
            }
        }
        best.map(|(_, flow)| flow)
    }

    /// The flow with exactly this match and priority.
    pub(crate) fn find(&self, matching: &Match, priority: u16) -> Option<FlowRef> {
        let subtable = &self.subtables[*self.by_mask.get(&matching.mask)?];
        let hash = subtable.shape.hash(&matching.value);
        let entry = subtable.entries.find(hash, |entry| subtable.shape.equals(&matching.value, &entry.words))?;
        entry.rules().find(|(other, _)| *other == priority).map(|(_, flow)| flow)
    }

    /// Adds a flow; the caller made sure there is none with this match and priority.
    pub(crate) fn insert(&mut self, matching: &Match, priority: u16, flow: FlowRef) {
        let index = match self.by_mask.get(&matching.mask) {
            Some(index) => *index,
            None => self.new_subtable(&matching.mask, priority),
        };
        let subtable = &mut self.subtables[index];
        let Subtable { shape, entries, .. } = subtable;
        let hash = shape.hash(&matching.value);
        match entries.find_mut(hash, |entry| shape.equals(&matching.value, &entry.words)) {
            Some(entry) => entry.insert((priority, flow)),
            None => {
                let words = shape.pick(&matching.value);
                let entry = Entry { hash, words, first: (priority, flow), more: Vec::new() };
                entries.insert_unique(hash, entry, |entry| entry.hash);
            }
        }
        *subtable.priorities.entry(priority).or_insert(0) += 1;
        self.len += 1;
        if subtable.max_priority != greatest(&subtable.priorities) {
            subtable.max_priority = greatest(&subtable.priorities);
            self.sort();
        }
    }

    /// Removes the flow with exactly this match and priority, which is there.
    pub(crate) fn remove(&mut self, matching: &Match, priority: u16) {
        let Some(index) = self.by_mask.get(&matching.mask).copied() else { return };
        let subtable = &mut self.subtables[index];
        let Subtable { shape, entries, .. } = subtable;
        let hash = shape.hash(&matching.value);
        let Ok(mut found) = entries.find_entry(hash, |entry| shape.equals(&matching.value, &entry.words)) else {
            return;
        };
        if !found.get_mut().remove(priority) {
            found.remove();
        }
        self.len -= 1;
        if let Some(count) = subtable.priorities.get_mut(&priority) {
            *count -= 1;
            if *count == 0 {
                subtable.priorities.remove(&priority);
            }
        }
        if subtable.priorities.is_empty() {
            self.by_mask.remove(&matching.mask);
            self.order.retain(|other| *other != index);
            self.free.push(index);
        } else if subtable.max_priority != greatest(&subtable.priorities) {
            subtable.max_priority = greatest(&subtable.priorities);
            self.sort();
        }
    }

    fn new_subtable(&mut self, mask: &Mask, priority: u16) -> usize {
        let subtable = Subtable {
            mask: mask.clone(),
            shape: MaskShape::new(mask),
            max_priority: priority,
            priorities: std::collections::BTreeMap::new(),
            entries: HashTable::new(),
        };
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
        self.sort();
        index
    }

    fn sort(&mut self) {
        let Self { order, subtables, .. } = self;
        // Masks of equal priority in an order that does not depend on history, so that results repeat.
        order.sort_by_cached_key(|index| {
            let mut mixer = Mixer::new(0);
            subtables[*index].mask.0.iter().for_each(|word| mixer.add(*word));
            (core::cmp::Reverse(subtables[*index].max_priority), mixer.finish())
        });
    }
}

fn greatest(priorities: &std::collections::BTreeMap<u16, usize>) -> u16 {
    priorities.last_key_value().map_or(0, |(priority, _)| *priority)
}
