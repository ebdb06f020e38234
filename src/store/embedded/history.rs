//! The last changes, in memory, from which every watch is served: bounded in revisions, octets and age. What a watch has
//! not taken when it goes, the watch is told of.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::store::types::{Batch, Change, Revision};
use crate::types::Timestamp;

/// How much history is kept. The bounds are of what watches may resume from, not of the entries.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most revisions.
    pub revisions: usize,
    /// The most octets, keys and values; the last revision is always kept.
    pub octets: usize,
    /// The greatest age. What was there when the store was opened counts from then.
    pub age: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { revisions: 10_000, octets: 64 * 1024 * 1024, age: Duration::from_secs(3600) }
    }
}

struct Kept {
    batch: Arc<Batch>,
    octets: usize,
    at: Timestamp,
}

/// The changes after revision `compacted`, all of them.
pub(super) struct History {
    bounds: Bounds,
    compacted: Revision,
    kept: VecDeque<Kept>,
    octets: usize,
}

/// What a watch finds.
pub(super) enum Found {
    /// The next changes under its prefix.
    Batch(Batch),
    /// None up to this revision.
    NoneUpTo(Revision),
    /// What comes next is lost; all after this revision is kept.
    Compacted(Revision),
}

fn octets_of(batch: &Batch) -> usize {
    let octets = |change: &Change| match change {
        Change::Put(entry) => entry.key.len() + entry.value.len(),
        Change::Delete { key } => key.len(),
    };
    batch.changes.iter().map(octets).sum()
}

impl History {
    pub(super) fn new(bounds: Bounds, compacted: Revision) -> Self {
        Self { bounds, compacted, kept: VecDeque::new(), octets: 0 }
    }

    pub(super) fn compacted(&self) -> Revision {
        self.compacted
    }

    /// The last revision of which it knows.
    pub(super) fn last(&self) -> Revision {
        self.kept.back().map_or(self.compacted, |kept| kept.batch.revision)
    }

    /// Adds the next revision.
    pub(super) fn push(&mut self, batch: Arc<Batch>, now: Timestamp) {
        let octets = octets_of(&batch);
        self.octets += octets;
        self.kept.push_back(Kept { batch, octets, at: now });
    }

    /// Takes out what the bounds do not allow; the caller forgets it on disk too.
    pub(super) fn trim(&mut self, now: Timestamp) -> Vec<Arc<Batch>> {
        let mut gone = Vec::new();
        while let Some(oldest) = self.kept.front() {
            let over = self.kept.len() > self.bounds.revisions || self.octets > self.bounds.octets;
            if !(over && self.kept.len() > 1) && now.since(oldest.at) <= self.bounds.age {
                break;
            }
            gone.extend(self.pop());
        }
        gone
    }

    /// Takes out everything up to and with `revision`.
    pub(super) fn compact(&mut self, revision: Revision) -> Vec<Arc<Batch>> {
        let mut gone = Vec::new();
        while self.kept.front().is_some_and(|kept| kept.batch.revision <= revision) {
            gone.extend(self.pop());
        }
        gone
    }

    fn pop(&mut self) -> Option<Arc<Batch>> {
        let kept = self.kept.pop_front()?;
        self.octets -= kept.octets;
        self.compacted = kept.batch.revision;
        Some(kept.batch)
    }

    /// What a watch that has seen everything up to `after` gets next.
    pub(super) fn next(&self, prefix: &str, after: Revision) -> Found {
        if after < self.compacted {
            return Found::Compacted(self.compacted);
        }
        let from = self.kept.partition_point(|kept| kept.batch.revision <= after);
        for kept in self.kept.range(from..) {
            let changes: Vec<Change> =
                kept.batch.changes.iter().filter(|change| change.key().starts_with(prefix)).cloned().collect();
            if !changes.is_empty() {
                return Found::Batch(Batch { revision: kept.batch.revision, changes });
            }
        }
        Found::NoneUpTo(self.last().max(after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(revision: Revision, keys: &[&str]) -> Arc<Batch> {
        let changes = keys.iter().map(|key| Change::Delete { key: (*key).to_owned() }).collect();
        Arc::new(Batch { revision, changes })
    }

    fn history(bounds: Bounds, count: Revision) -> History {
        let mut history = History::new(bounds, 1);
        for revision in 2..2 + count {
            history.push(
                batch(revision, &[if revision % 2 == 0 { "even" } else { "odd" }]),
                Timestamp::from_secs(revision),
            );
        }
        history
    }

    #[test]
    fn each_bound_alone_lets_go_of_the_oldest() {
        let wide = Bounds { revisions: 1000, octets: 1000, age: Duration::from_secs(1000) };
        let cases = [
            (wide, 1),
            (Bounds { revisions: 4, ..wide }, 7),
            (Bounds { octets: 8, ..wide }, 9),
            (Bounds { octets: 1, ..wide }, 10),
            (Bounds { age: Duration::from_secs(3), ..wide }, 7),
        ];
        for (bounds, compacted) in cases {
            let mut history = history(bounds, 10);
            let gone: Vec<Revision> =
                history.trim(Timestamp::from_secs(11)).iter().map(|batch| batch.revision).collect();
            assert_eq!(history.compacted(), compacted, "{bounds:?}");
            assert_eq!(gone, (2..=compacted).collect::<Vec<_>>(), "{bounds:?}");
            assert!(matches!(history.next("", compacted), Found::Batch(batch) if batch.revision == compacted + 1));
            if compacted > 1 {
                assert!(matches!(history.next("", compacted - 1), Found::Compacted(oldest) if oldest == compacted));
            }
        }
    }

    #[test]
    fn everything_may_grow_old() {
        let mut history = history(Bounds::default(), 3);
        assert_eq!(history.trim(Timestamp::from_secs(100_000)).len(), 3);
        assert_eq!((history.compacted(), history.last(), history.octets), (4, 4, 0));
        assert!(matches!(history.next("", 4), Found::NoneUpTo(4)));
    }

    #[test]
    fn a_prefix_sees_its_own_and_passes_over_the_rest() {
        let history = history(Bounds::default(), 4);
        let Found::Batch(first) = history.next("od", 1) else { panic!("a batch") };
        assert_eq!(first.revision, 3);
        assert!(matches!(history.next("od", 5), Found::NoneUpTo(5)));
        assert!(matches!(history.next("none", 1), Found::NoneUpTo(5)));
    }
}
