//! When leases end: pure, by the time that the store itself has lived.
//!
//! A lease must end when its holder is gone, not when the holder could not be heard. So time counts only while the store
//! runs: it looks at the clock at least every [`STEP_MAX`] while there are leases, and what lies between two looks counts
//! for no more than that. A machine that slept, a process that was stopped and a clock that leaps cost a holder one step
//! at most; a clock that goes back costs nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::store::types::LeaseId;
use crate::types::Timestamp;

/// The most that one look at the clock lets pass.
pub(super) const STEP_MAX: Duration = Duration::from_millis(500);

struct Lease {
    ttl: Duration,
    /// In lived time.
    ends: Duration,
}

/// The leases that live, and how long the store has.
pub(super) struct Leases {
    leases: BTreeMap<LeaseId, Lease>,
    looked: Timestamp,
    lived: Duration,
}

impl Leases {
    pub(super) fn new(now: Timestamp) -> Self {
        Self { leases: BTreeMap::new(), looked: now, lived: Duration::ZERO }
    }

    pub(super) fn len(&self) -> usize {
        self.leases.len()
    }

    /// Starts a lease, or starts one that a reopened store finds.
    pub(super) fn insert(&mut self, id: LeaseId, ttl: Duration) {
        self.leases.insert(id, Lease { ttl, ends: self.lived + ttl });
    }

    /// Starts its time again; false if it has ended.
    pub(super) fn keep(&mut self, id: LeaseId) -> bool {
        match self.leases.get_mut(&id) {
            Some(lease) => {
                lease.ends = self.lived + lease.ttl;
                true
            }
            None => false,
        }
    }

    pub(super) fn remove(&mut self, id: LeaseId) {
        self.leases.remove(&id);
    }

    /// Takes a look at the clock.
    pub(super) fn look(&mut self, now: Timestamp) {
        self.lived += now.since(self.looked).min(STEP_MAX);
        self.looked = now;
    }

    /// Those whose time is over. They stay until they are removed: their keys have to go first.
    pub(super) fn over(&self) -> Vec<LeaseId> {
        self.leases.iter().filter(|(_, lease)| lease.ends <= self.lived).map(|(id, _)| *id).collect()
    }

    /// How long until the next look is due; `None` without leases.
    pub(super) fn wait(&self) -> Option<Duration> {
        let first = self.leases.values().map(|lease| lease.ends).min()?;
        Some(first.saturating_sub(self.lived).min(STEP_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(2);
    const ID: LeaseId = LeaseId(7);

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn leases() -> Leases {
        let mut leases = Leases::new(at(10_000));
        leases.insert(ID, TTL);
        leases
    }

    /// Looks every 400 ms from `from` on, until the lease is over; when that was.
    fn ends(leases: &mut Leases, from: u64) -> u64 {
        let mut now = from;
        while leases.over().is_empty() {
            now += 400;
            leases.look(at(now));
        }
        now
    }

    #[test]
    fn a_lease_ends_after_its_time_unless_it_is_kept() {
        assert_eq!(ends(&mut leases(), 10_000), 12_000);
        let mut kept = leases();
        kept.look(at(10_400));
        assert!(kept.keep(ID));
        assert_eq!(ends(&mut kept, 10_400), 12_400);
        kept.remove(ID);
        assert!(!kept.keep(ID));
        assert_eq!((kept.len(), kept.wait()), (0, None));
    }

    #[test]
    fn a_clock_that_leaps_costs_one_step_and_one_that_goes_back_none() {
        let mut ahead = leases();
        ahead.look(at(99_000_000));
        assert!(ahead.over().is_empty());
        assert_eq!(ends(&mut ahead, 99_000_000), 99_001_600);
        let mut back = leases();
        back.look(at(3));
        assert!(back.over().is_empty());
        assert_eq!(ends(&mut back, 3), 2_003);
    }

    #[test]
    fn the_next_look_is_due_no_later_than_the_first_end() {
        let mut leases = leases();
        assert_eq!(leases.wait(), Some(STEP_MAX));
        for now in [10_500, 11_000, 11_500, 11_700] {
            leases.look(at(now));
        }
        assert_eq!(leases.wait(), Some(Duration::from_millis(300)));
    }
}
