//! The last of a sequence: what a stream that is a little behind can still be told. Pure.
//!
//! A ring is the queue of every reader at once: each keeps only the revision it has reached. A reader that is overrun
//! finds what it needs gone, and starts from the whole again; nothing is ever kept for it alone.

use std::collections::VecDeque;

use crate::store::Revision;

/// What happened at each of the last revisions, bounded by count and by octets.
#[derive(Debug)]
pub(super) struct Ring<T> {
    kept: VecDeque<(Revision, usize, T)>,
    /// All that came after this is kept.
    floor: Revision,
    octets: usize,
    most: Bound,
}

/// How much a ring keeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound {
    pub(super) items: usize,
    pub(super) octets: usize,
}

impl<T> Ring<T> {
    /// Nothing, from a revision on.
    pub(super) const fn new(floor: Revision, most: Bound) -> Self {
        Self { kept: VecDeque::new(), floor, octets: 0, most }
    }

    /// Adds what happened at a revision later than all before, and forgets the oldest. `octets` are those that the item
    /// holds beside itself.
    pub(super) fn push(&mut self, revision: Revision, octets: usize, item: T) {
        let octets = octets + size_of::<(Revision, usize, T)>();
        self.kept.push_back((revision, octets, item));
        self.octets += octets;
        while self.kept.len() > self.most.items || self.octets > self.most.octets {
            let Some((revision, octets, _)) = self.kept.pop_front() else { break };
            self.floor = revision;
            self.octets -= octets;
        }
    }

    /// Forgets all: whoever is before `floor` starts anew.
    pub(super) fn clear(&mut self, floor: Revision) {
        self.kept.clear();
        self.octets = 0;
        self.floor = floor;
    }

    /// What came after a revision, oldest first; `None` if some of that is forgotten.
    pub(super) fn after(&self, revision: Revision) -> Option<impl Iterator<Item = (Revision, &T)>> {
        if revision < self.floor {
            return None;
        }
        let from = self.kept.partition_point(|(at, _, _)| *at <= revision);
        Some(self.kept.range(from..).map(|(at, _, item)| (*at, item)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(ring: &Ring<char>, after: Revision) -> Option<Vec<(Revision, char)>> {
        ring.after(after).map(|all| all.map(|(at, item)| (at, *item)).collect())
    }

    #[test]
    fn tells_what_came_after_or_that_it_forgot() {
        let mut ring = Ring::new(10, Bound { items: 2, octets: 1_000 });
        assert_eq!(told(&ring, 9), None);
        assert_eq!(told(&ring, 10), Some(vec![]));
        ring.push(12, 1, 'a');
        ring.push(15, 1, 'b');
        assert_eq!(told(&ring, 10), Some(vec![(12, 'a'), (15, 'b')]));
        assert_eq!(told(&ring, 13), Some(vec![(15, 'b')]));
        ring.push(16, 1, 'c');
        assert_eq!(told(&ring, 11), None, "what came at 12 is forgotten");
        assert_eq!(told(&ring, 12), Some(vec![(15, 'b'), (16, 'c')]));
        assert_eq!(told(&ring, 16), Some(vec![]));
        ring.clear(20);
        assert_eq!((told(&ring, 19), told(&ring, 20)), (None, Some(vec![])));
    }

    #[test]
    fn one_item_too_large_is_forgotten_at_once() {
        let own = size_of::<(Revision, usize, char)>();
        let mut ring = Ring::new(0, Bound { items: 8, octets: 10 + own });
        ring.push(1, 6, 'a');
        ring.push(2, 6, 'b');
        assert_eq!(told(&ring, 0), None, "an item is more than what it holds");
        assert_eq!(told(&ring, 1), Some(vec![(2, 'b')]));
        ring.push(3, 11, 'c');
        assert_eq!(told(&ring, 2), None);
        assert_eq!(told(&ring, 3), Some(vec![]));
    }
}
