//! What changed when, by parts so small that a change of one leaves what was decided about the others standing.
//!
//! Every decision notes the parts it rests on, as [`Tag`]s; whoever changes a part says so here, before the change is
//! published as one more revision. Different parts may share a tag: that costs a decision made again, never a wrong one.

use core::net::IpAddr;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Condvar, Mutex, PoisonError};

use super::key::{MaskShape, Mixer};
use super::matching::Match;
use crate::types::Mac;

/// Different tags.
const TAGS: usize = 1 << 16;
/// Most parts a decision may note; one that rests on more rests on everything.
const LIMIT_TAGS: usize = 256;

/// Stands for a part of a switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tag(u16);

impl Tag {
    /// Bridges and ports. Every decision rests on them.
    pub(crate) const PORTS: Self = Self(0);
    /// Everything.
    pub(crate) const ANY: Self = Self(1);

    #[expect(clippy::cast_possible_truncation, reason = "a hash is as good by its lowest bits")]
    fn of(words: &[u64]) -> Self {
        let mut mixer = Mixer::new(0);
        words.iter().for_each(|word| mixer.add(*word));
        Self(mixer.finish() as u16)
    }

    /// Which masks a table has, and in which order they are tried.
    pub(crate) fn order(table: u64) -> Self {
        Self::of(&[table, 1])
    }

    /// Whether there are flows with this mask whose bits, up to a stage, hash to this.
    pub(crate) fn flows(table: u64, mask: u64, stage: usize, hash: u64) -> Self {
        Self::of(&[table, 2, mask, stage as u64, hash])
    }

    /// All that is known of a router but its neighbours.
    pub(crate) fn router(router: u32) -> Self {
        Self::of(&[u64::from(router), 4])
    }

    /// A router's neighbour.
    #[expect(clippy::cast_possible_truncation, reason = "halves of 128 bits")]
    pub(crate) fn neighbour(router: u32, link: u32, ip: IpAddr) -> Self {
        let (kind, bits) = match ip {
            IpAddr::V4(ip) => (5, u128::from(u32::from(ip))),
            IpAddr::V6(ip) => (6, u128::from(ip)),
        };
        let [high, low] = [bits >> 64, bits].map(|half| half as u64);
        Self::of(&[u64::from(router) << 32 | u64::from(link), kind, high, low])
    }

    /// Where a bridge saw a station.
    pub(crate) fn station(bridge: u32, vlan: u16, mac: Mac) -> Self {
        let [a, b, c, d, e, f] = mac.octets();
        let [high, low] = vlan.to_be_bytes();
        Self::of(&[u64::from(bridge), 3, u64::from_be_bytes([high, low, a, b, c, d, e, f])])
    }
}

/// What stands for a table of a bridge among tags.
pub(crate) fn table_word(bridge: u32, table: u8) -> u64 {
    u64::from(bridge) << 8 | u64::from(table)
}

/// The part that one flow is, given that it is looked up whole.
pub(crate) fn flow_tag(bridge: u32, table: u8, matching: &Match) -> Tag {
    let shape = MaskShape::staged(&matching.mask);
    Tag::flows(table_word(bridge, table), matching.mask.digest(), shape.stages() - 1, shape.hash(&matching.value))
}

/// The parts a decision rests on.
#[derive(Debug)]
pub(crate) struct Parts(Vec<Tag>);

impl Parts {
    /// Bridges and ports, to begin with.
    pub(crate) fn new() -> Self {
        Self(vec![Tag::PORTS])
    }

    pub(crate) fn add(&mut self, tag: Tag) {
        if self.0.len() == LIMIT_TAGS {
            self.0.sort_unstable();
            self.0.dedup();
        }
        if self.0.len() == LIMIT_TAGS {
            self.0[0] = Tag::ANY;
            return;
        }
        self.0.push(tag);
    }

    /// Each of them once.
    pub(crate) fn into_tags(mut self) -> Box<[Tag]> {
        if self.0.contains(&Tag::ANY) {
            return [Tag::ANY].into();
        }
        self.0.sort_unstable();
        self.0.dedup();
        self.0.into()
    }
}

/// The revision each part was last changed with. Written by whoever holds the switch, read by all workers.
#[derive(Debug)]
pub(crate) struct Revisions {
    current: AtomicU64,
    changed: Box<[AtomicU64]>,
    /// Whether anybody was ever to be told of what is published.
    told: AtomicBool,
    turn: Mutex<()>,
    published: Condvar,
}

impl Default for Revisions {
    fn default() -> Self {
        Self {
            current: AtomicU64::new(1),
            changed: (0..TAGS).map(|_| AtomicU64::new(0)).collect(),
            told: AtomicBool::new(false),
            turn: Mutex::default(),
            published: Condvar::new(),
        }
    }
}

impl Revisions {
    /// The revision published last.
    pub(crate) fn current(&self) -> u64 {
        // All changes up to this revision are seen by whoever sees it.
        self.current.load(Ordering::Acquire)
    }

    /// Says that a part is changed by the next revision.
    pub(crate) fn touch(&self, tag: Tag) {
        self.changed[usize::from(tag.0)].store(self.current.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Publishes what was changed.
    pub(crate) fn publish(&self) {
        self.touch(Tag::ANY);
        self.current.store(self.current.load(Ordering::Relaxed) + 1, Ordering::Release);
        // Either this sees that somebody waits, or who begins to wait sees the revision.
        fence(Ordering::SeqCst);
        if self.told.load(Ordering::Relaxed) {
            self.wake();
        }
    }

    /// Waits for another revision than `known`, or for `stops` to be set and [`Self::wake`] called. Returns the current one.
    pub(crate) fn wait(&self, known: u64, stops: &AtomicBool) -> u64 {
        self.told.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let current = self.current();
            if current != known || stops.load(Ordering::Relaxed) {
                return current;
            }
            turn = self.published.wait(turn).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Has everybody who waits look again.
    pub(crate) fn wake(&self) {
        // Whoever has looked and not yet begun to wait has it.
        drop(self.turn.lock().unwrap_or_else(PoisonError::into_inner));
        self.published.notify_all();
    }

    /// Whether nothing a decision rests on changed after `revision`.
    pub(crate) fn stands(&self, tags: &[Tag], revision: u64) -> bool {
        tags.iter().all(|tag| self.changed[usize::from(tag.0)].load(Ordering::Relaxed) <= revision)
    }
}
