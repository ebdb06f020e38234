//! The flow cache of one worker: an exact-match layer before masked entries.
//!
//! A masked entry stands for every packet that agrees with it where its mask has ones: the bits the table walk looked
//! at. Entries do not overlap in what they say: any that matches is right. An entry is believed while nothing it rests
//! on changes.

use hashbrown::HashTable;

use super::commit::DpAction;
use super::drop::DropReason;
use super::guard::Guard;
use super::key::{Bits, Key, Mask, MaskShape, Mixer, STATE_WORDS, WORDS};
use super::learn::LearnedFlow;
use super::offer::Deed;
use super::revision::Tag;
use super::table::FlowRef;
use super::xlate::{BridgeId, Effect};
use crate::types::Timestamp;

/// Most masked entries of one worker.
pub(crate) const LIMIT_ENTRIES: usize = 65_536;
/// Most octets of memory its masked entries take: a flood list of thousands of ports makes a large entry.
pub(crate) const LIMIT_OCTETS: usize = 64 << 20;
/// Slots of the exact-match layer; a power of two.
const EXACT_SLOTS: usize = 4096;
/// Seconds an unused entry is kept (OVS's `max-idle`).
const IDLE_SECS: u64 = 10;

/// What to do with packets like one seen before.
#[derive(Debug)]
pub(crate) struct Entry {
    hash: u64,
    mask: usize,
    words: Box<[u64]>,
    /// Packets that it does not admit are not this entry's, whatever the mask says.
    pub(crate) guard: Option<Guard>,
    /// The revision under which it was last known to be right.
    pub(crate) revision: u64,
    /// What it rests on.
    pub(crate) tags: Box<[Tag]>,
    pub(crate) actions: Box<[DpAction]>,
    pub(crate) flows: Box<[(BridgeId, FlowRef)]>,
    pub(crate) effects: Box<[Effect]>,
    pub(crate) drop: Option<DropReason>,
    /// What it does, if that can be offered.
    pub(crate) deed: Option<Deed>,
    /// Frames seen that it could have been offered with, until it is.
    pub(crate) seen: u8,
    /// Not yet told to the switch.
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) used: Timestamp,
    /// Distinguishes this entry from an earlier one in its slot.
    serial: u64,
    /// What it takes.
    octets: usize,
}

/// What an entry is made of.
#[derive(Debug)]
pub(crate) struct NewEntry {
    pub(crate) guard: Option<Guard>,
    pub(crate) revision: u64,
    pub(crate) tags: Box<[Tag]>,
    pub(crate) actions: Box<[DpAction]>,
    pub(crate) flows: Box<[(BridgeId, FlowRef)]>,
    pub(crate) effects: Box<[Effect]>,
    pub(crate) drop: Option<DropReason>,
}

impl NewEntry {
    /// Octets of memory its entry takes, but for what allocators and hash tables add.
    fn octets(&self) -> usize {
        let learned = |effect: &Effect| match effect {
            Effect::Learn { flow, .. } => size_of::<LearnedFlow>() + size_of_val(&*flow.actions),
            Effect::Station { .. } | Effect::Patch { .. } | Effect::Routed { .. } | Effect::FinTimeout { .. } => 0,
        };
        size_of::<Entry>()
            + size_of::<Key>()
            + size_of_val(&*self.tags)
            + size_of_val(&*self.actions)
            + size_of_val(&*self.flows)
            + size_of_val(&*self.effects)
            + self.effects.iter().map(learned).sum::<usize>()
    }
}

#[derive(Debug)]
struct MaskTable {
    mask: Mask,
    shape: MaskShape,
    entries: HashTable<usize>,
    hits: u64,
}

#[derive(Clone, Debug)]
struct Exact {
    key: Key,
    entry: usize,
    serial: u64,
}

/// How a packet was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hit {
    Exact(usize),
    Masked(usize),
}

impl Hit {
    /// The entry.
    pub(crate) const fn index(self) -> usize {
        match self {
            Self::Exact(index) | Self::Masked(index) => index,
        }
    }
}

/// The cache.
#[derive(Debug)]
pub(crate) struct Cache {
    /// Of the entries' hashes.
    seed: u64,
    exact: Box<[Option<Exact>]>,
    /// Tables by mask; empty ones are kept for their slot's sake and reused.
    tables: Vec<MaskTable>,
    /// Which tables to try, most hit first.
    order: Vec<usize>,
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
    /// Where the search for an entry to evict goes on.
    hand: usize,
    serial: u64,
    /// What all entries take.
    octets: usize,
}

/// Hashes what a packet can bring in a key: metadata and registers are zero before the first table. Pairs of words are
/// multiplied with each other, each pair with constants of its own, so that a processor works on many at once and words
/// that change places change the hash.
#[expect(clippy::cast_possible_truncation, reason = "both halves of the product are used")]
fn full_hash(key: &Key) -> u64 {
    let mut hash = 0;
    let mut constant = 0x9e37_79b9_7f4a_7c15_u64;
    let mut add = |words: &[[u64; 2]]| {
        for [one, other] in words {
            let product = u128::from(one ^ constant) * u128::from(other ^ constant.rotate_left(32));
            hash ^= product as u64 ^ (product >> 64) as u64;
            constant = constant.wrapping_mul(0xd6e8_feb8_6659_fd93);
        }
    };
    add(key.0[..STATE_WORDS.start].as_chunks().0);
    add(key.0[STATE_WORDS.end..].as_chunks().0);
    let mut mixer = Mixer::new(hash);
    mixer.add(hash);
    mixer.finish()
}

const _: () = assert!(STATE_WORDS.start.is_multiple_of(2) && (WORDS - STATE_WORDS.end).is_multiple_of(2));

fn slot(hash: u64) -> usize {
    usize::try_from(hash >> 40).unwrap_or(0) % EXACT_SLOTS
}

impl Cache {
    /// An empty one. Who sends packets chooses keys: by a seed that he does not know he cannot choose many with one hash, so
    /// that each lookup would compare them all. Of a packet known by all its bits just one place is looked at.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            exact: vec![None; EXACT_SLOTS].into(),
            tables: Vec::new(),
            order: Vec::new(),
            entries: Vec::new(),
            free: Vec::new(),
            hand: 0,
            serial: 0,
            octets: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn masks(&self) -> usize {
        self.order.len()
    }

    pub(crate) fn entry(&self, index: usize) -> Option<&Entry> {
        self.entries.get(index)?.as_ref()
    }

    pub(crate) fn entry_mut(&mut self, index: usize) -> Option<&mut Entry> {
        self.entries.get_mut(index)?.as_mut()
    }

    /// Which bits an entry looks at.
    pub(crate) fn mask(&self, entry: &Entry) -> &Mask {
        &self.tables[entry.mask].mask
    }

    /// The entry for a key, whether it still stands or not.
    pub(crate) fn lookup(&mut self, key: &Key) -> Option<Hit> {
        let at = slot(full_hash(key));
        if let Some(exact) = &self.exact[at]
            && exact.key == *key
            && self.entries[exact.entry].as_ref().is_some_and(|entry| entry.serial == exact.serial)
        {
            return Some(Hit::Exact(exact.entry));
        }
        for index in &self.order {
            let table = &mut self.tables[*index];
            let hash = table.shape.seeded_hash(key, self.seed);
            let entries = &self.entries;
            let shape = &table.shape;
            let same = |entry: &usize| {
                entries[*entry].as_ref().is_some_and(|entry| entry.hash == hash && shape.equals(key, &entry.words))
            };
            if let Some(found) = table.entries.find(hash, same).copied() {
                table.hits += 1;
                self.remember(at, key, found);
                return Some(Hit::Masked(found));
            }
        }
        None
    }

    fn remember(&mut self, at: usize, key: &Key, entry: usize) {
        let serial = self.entries[entry].as_ref().map_or(0, |entry| entry.serial);
        self.exact[at] = Some(Exact { key: key.clone(), entry, serial });
    }

    /// Adds an entry for packets that agree with `key` where `mask` has ones. Returns it, and the entries that had to
    /// go for it.
    pub(crate) fn insert(&mut self, key: &Key, mask: &Mask, new: NewEntry, now: Timestamp) -> (usize, Vec<Entry>) {
        let octets = new.octets();
        let deed = Deed::of(&new.actions, &new.effects, mask);
        let evicted = self.make_room(octets);
        self.octets += octets;
        let table = self.table(mask);
        let shape = &self.tables[table].shape;
        let hash = shape.seeded_hash(key, self.seed);
        self.serial += 1;
        let entry = Entry {
            hash,
            mask: table,
            words: shape.pick(key),
            guard: new.guard,
            revision: new.revision,
            tags: new.tags,
            actions: new.actions,
            flows: new.flows,
            effects: new.effects,
            drop: new.drop,
            deed,
            seen: 0,
            packets: 0,
            bytes: 0,
            used: now,
            serial: self.serial,
            octets,
        };
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index] = Some(entry);
                index
            }
            None => {
                self.entries.push(Some(entry));
                self.entries.len() - 1
            }
        };
        let entries = &self.entries;
        let rehash = |index: &usize| entries[*index].as_ref().map_or(0, |entry| entry.hash);
        self.tables[table].entries.insert_unique(hash, index, rehash);
        self.remember(slot(full_hash(key)), key, index);
        (index, evicted)
    }

    /// Takes out entries until one more of so many octets fits.
    fn make_room(&mut self, octets: usize) -> Vec<Entry> {
        let mut evicted = Vec::new();
        while self.len() >= LIMIT_ENTRIES || self.octets + octets > LIMIT_OCTETS {
            let Some(entry) = self.evict() else { break };
            evicted.push(entry);
        }
        evicted
    }

    fn table(&mut self, mask: &Mask) -> usize {
        if let Some(index) = self.order.iter().find(|index| self.tables[**index].mask == *mask) {
            return *index;
        }
        let table = MaskTable { mask: mask.clone(), shape: MaskShape::new(mask), entries: HashTable::new(), hits: 0 };
        let unused = (0..self.tables.len()).find(|index| !self.order.contains(index));
        let index = match unused {
            Some(index) => {
                self.tables[index] = table;
                index
            }
            None => {
                self.tables.push(table);
                self.tables.len() - 1
            }
        };
        self.order.push(index);
        index
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, index: usize) -> Option<Entry> {
        let entry = self.entries.get_mut(index)?.take()?;
        self.free.push(index);
        self.octets -= entry.octets;
        let table = &mut self.tables[entry.mask];
        if let Ok(found) = table.entries.find_entry(entry.hash, |other| *other == index) {
            found.remove();
        }
        if table.entries.is_empty() {
            table.mask = Bits::ZERO;
            self.order.retain(|other| *other != entry.mask);
        }
        Some(entry)
    }

    /// Takes out the oldest of a few entries in turn: good enough an order, at a bounded cost.
    fn evict(&mut self) -> Option<Entry> {
        const TRIES: usize = 8;
        let total = self.entries.len();
        let candidates =
            (0..total).map(|step| (self.hand + step) % total).filter(|index| self.entries[*index].is_some());
        let oldest =
            candidates.take(TRIES).min_by_key(|index| self.entries[*index].as_ref().map(|entry| entry.used))?;
        self.hand = (self.hand + TRIES) % total;
        self.remove(oldest)
    }

    /// How many places for entries there are, taken or not.
    pub(crate) const fn places(&self) -> usize {
        self.entries.len()
    }

    /// Whether an entry has been of no use for long.
    pub(crate) fn is_idle(&self, index: usize, now: Timestamp) -> bool {
        self.entry(index).is_some_and(|entry| now.since(entry.used).as_secs() >= IDLE_SECS)
    }

    /// Puts the masks that are hit most first.
    pub(crate) fn rank(&mut self) {
        let Self { order, tables, .. } = self;
        order.sort_by_key(|index| core::cmp::Reverse(tables[*index].hits));
        for table in tables {
            table.hits /= 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::datapath::key::{
        ETH_DST, ETH_SRC, IN_PORT, IPV4_DST, IPV4_SRC, IPV6_DST, IPV6_SRC, TP_DST, TP_SRC, TUN_ID, VLAN_TCI,
    };

    /// Input: flows that differ in one field, by counting. Output: about as many slots as chance would take.
    #[test]
    fn whatever_flows_differ_in_spreads_them_over_the_exact_layer() {
        for place in
            [IN_PORT, TUN_ID, VLAN_TCI, ETH_SRC, ETH_DST, IPV4_SRC, IPV4_DST, IPV6_SRC, IPV6_DST, TP_SRC, TP_DST]
        {
            for shift in [0, 4, 8] {
                let key = |number: u128| {
                    let mut key = Bits::ZERO;
                    key.set(place, number << shift);
                    key
                };
                let slots: BTreeSet<usize> = (0..256).map(|number| slot(full_hash(&key(number)))).collect();
                // 256 thrown into 4,096 take 248 on average; in 1 throw of a million as few as 235.
                assert!(slots.len() > 230, "{place:?} << {shift}: {}", slots.len());
            }
        }
    }

    /// Input: flows chosen so that by one seed they lie at one place. Output: by another they lie about as chance has it.
    #[test]
    fn who_does_not_know_the_seed_cannot_choose_where_entries_lie() {
        let mut mask = Bits::ZERO;
        mask.set(TP_SRC, u128::from(u16::MAX));
        let shape = MaskShape::new(&mask);
        let place = |key: &Key, seed| shape.seeded_hash(key, seed) % 256;
        let key = |port: u16| {
            let mut key = Bits::ZERO;
            key.set(TP_SRC, port.into());
            key
        };
        let chosen: Vec<Key> = (0..=u16::MAX).map(key).filter(|key| place(key, 0) == 0).collect();
        assert!(chosen.len() > 150, "{}", chosen.len());
        for seed in [1, 0x1234_5678, 1 << 40, u64::MAX] {
            let places: BTreeSet<u64> = chosen.iter().map(|key| place(key, seed)).collect();
            // 256 thrown into 256 take 162 on average.
            assert!(places.len() > 90, "{seed:#x}: {} of {}", places.len(), chosen.len());
        }
    }
}
