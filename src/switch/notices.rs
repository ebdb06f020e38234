//! What flows' `controller` actions said, until somebody has heard it: a bounded queue of different things, the latest last;
//! and how the switch stands, of which whoever listens is told as soon as it is otherwise than when it was told last.
//!
//! A thing said again moves to the end, so that however many frames say it the queue does not grow, and whoever listens
//! knows which of two was said last. Everything has a number, and stays until a listener says that it heard that number: one
//! that ends with an answer on its way leaves nothing lost. And everything has an age, for a listener that comes late.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::lock;
use crate::api::switch::{self, Notice, Standing};
use crate::clock;
use crate::datapath::Switch;
use crate::types::Timestamp;

/// Different things that may wait at most.
const LIMIT: usize = 1_024;

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Notices {
    waiting: Mutex<Waiting>,
    came: Condvar,
    /// Held while the bridges are looked at, so that nobody tells of them as they were before the last change.
    looking: Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// What was said and when, by number: greater ones were said later.
    said: BTreeMap<u64, (Arc<[u8]>, Timestamp)>,
    /// The number of each.
    numbers: BTreeMap<Arc<[u8]>, u64>,
    /// The greatest number given, and the greatest told to a listener.
    last: u64,
    told: u64,
    standing: Standing,
}

impl Waiting {
    /// Whether this was said last of all, and nobody was told yet: then only its age changes.
    fn is_still_last(&mut self, said: &Arc<[u8]>, now: Timestamp) -> bool {
        match self.said.last_entry() {
            Some(mut last) if *last.key() > self.told && last.get().0 == *said => {
                last.get_mut().1 = now;
                true
            }
            Some(_) | None => false,
        }
    }

    fn forget(&mut self, number: u64) {
        if let Some((said, _)) = self.said.remove(&number) {
            self.numbers.remove(&said);
        }
    }
}

impl Notices {
    /// Adds what was said; `false` if the oldest of what waits was forgotten for it.
    pub(super) fn put(&self, said: &Arc<[u8]>, now: Timestamp) -> bool {
        let mut waiting = lock(&self.waiting);
        // Mostly it is what was said just before.
        if waiting.is_still_last(said, now) {
            return true;
        }
        waiting.last += 1;
        let number = waiting.last;
        if let Some(before) = waiting.numbers.insert(Arc::clone(said), number) {
            waiting.said.remove(&before);
        }
        waiting.said.insert(number, (Arc::clone(said), now));
        let oldest = waiting.said.first_key_value().map(|(number, _)| *number);
        let is_full = waiting.said.len() > LIMIT;
        oldest.filter(|_| is_full).into_iter().for_each(|oldest| waiting.forget(oldest));
        drop(waiting);
        self.came.notify_one();
        !is_full
    }

    /// Something may have changed bridges.
    pub(super) fn look(&self, switch: &Mutex<Switch>) {
        let _looking = lock(&self.looking);
        let revisions = lock(switch).bridge_revisions();
        let mut waiting = lock(&self.waiting);
        if waiting.standing.revisions != revisions {
            waiting.standing.revisions = revisions;
            drop(waiting);
            self.came.notify_all();
        }
    }

    /// A port came to be at fault.
    pub(super) fn fault(&self) {
        lock(&self.waiting).standing.faults += 1;
        self.came.notify_all();
    }

    /// All that waits but what is `heard`, up to that number, which is forgotten; waits so long for something if nothing
    /// does, and the switch stands as is `known` or that is nobody's question.
    pub(super) fn take(&self, heard: u64, known: Option<&Standing>, wait: Duration) -> switch::Notices {
        let mut waiting = lock(&self.waiting);
        while let Some(number) = waiting.said.first_key_value().map(|(number, _)| *number).filter(|at| *at <= heard) {
            waiting.forget(number);
        }
        let is_news = |waiting: &Waiting| known.is_some_and(|known| *known != waiting.standing);
        let waited =
            self.came.wait_timeout_while(waiting, wait, |waiting| waiting.said.is_empty() && !is_news(waiting));
        let (mut waiting, _timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
        let now = clock::monotonic();
        let notice = |(number, (said, at)): (&u64, &(Arc<[u8]>, Timestamp))| Notice {
            number: *number,
            age_millis: u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX),
            userdata: said.to_vec(),
        };
        let said: Vec<Notice> = waiting.said.iter().map(notice).collect();
        waiting.told = said.last().map_or(waiting.told, |last| last.number);
        switch::Notices { said, standing: waiting.standing.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::ZERO;

    fn said(number: usize) -> Arc<[u8]> {
        number.to_be_bytes().into()
    }

    fn take(notices: &Notices, heard: u64) -> (Vec<Vec<u8>>, u64) {
        let taken = notices.take(heard, None, Duration::ZERO).said;
        let last = taken.last().map_or(heard, |notice| notice.number);
        (taken.into_iter().map(|notice| notice.userdata).collect(), last)
    }

    #[test]
    fn what_is_said_again_is_heard_once_and_last() {
        let notices = Notices::default();
        for number in [1, 2, 3, 3, 1, 1] {
            assert!(notices.put(&said(number), NOW));
        }
        let (heard, last) = take(&notices, 0);
        assert_eq!(heard, [2, 3, 1].map(|number| said(number).to_vec()));
        assert!(take(&notices, last).0.is_empty());
    }

    /// Input: a listener that ends before it says what it heard, and another. Output: the other hears all of it, and what
    /// was said again meanwhile even if the first one's word comes after.
    #[test]
    fn what_nobody_says_was_heard_is_told_again() {
        let notices = Notices::default();
        assert!(notices.put(&said(1), NOW) && notices.put(&said(2), NOW));
        let (heard, last) = take(&notices, 0);
        assert_eq!(heard.len(), 2);
        assert!(notices.put(&said(2), NOW), "said again after it was told");
        assert_eq!(take(&notices, 0).0, heard);
        assert_eq!(take(&notices, last).0, [said(2).to_vec()]);
    }

    /// Input: something said twice, and a late listener. Output: it is as old as when it was said last.
    #[test]
    fn the_age_is_that_of_the_last_time() {
        let notices = Notices::default();
        assert!(notices.put(&said(1), Timestamp::ZERO));
        assert!(notices.put(&said(1), clock::monotonic() + Duration::from_secs(3_600)));
        assert_eq!(notices.take(0, None, Duration::ZERO).said[0].age_millis, 0);
    }

    /// Input: bridges that come, change and go, and a port that fails, between questions of two listeners. Output: each
    /// hears at once that the switch stands otherwise than it knew, as it does then, and waits if it does not.
    #[test]
    fn whoever_knows_the_switch_as_it_was_is_told() {
        let (notices, switch) = (Notices::default(), Mutex::new(Switch::new()));
        let name: crate::types::IfName = "br".parse().expect("a name");
        let forever = Duration::from_secs(3_600);
        let mut known = [Standing::default(), Standing::default()];
        let mut step = |change: &dyn Fn(), listener: usize| {
            change();
            notices.look(&switch);
            let before = core::mem::take(&mut known[listener]);
            // Else this would last an hour.
            known[listener] = notices.take(0, Some(&before), forever).standing;
            assert_eq!(notices.take(0, Some(&known[listener]), Duration::ZERO).standing, known[listener]);
            known[listener].clone()
        };
        let with = |change: &dyn Fn(&mut Switch)| change(&mut lock(&switch));
        let made =
            step(&|| with(&|switch| switch.add_bridge(&name, switch::BridgeMode::Normal).expect("the first")), 0);
        assert_eq!(made.revisions, lock(&switch).bridge_revisions());
        assert_eq!(step(&|| (), 1), made);
        let failed = step(&|| notices.fault(), 0);
        assert_eq!((failed.faults, &failed.revisions), (1, &made.revisions));
        let gone = step(&|| with(&|switch| drop(switch.del_bridge(&name).expect("it is there"))), 1);
        assert!(gone.revisions.is_empty() && gone.faults == 1);
        assert_eq!(step(&|| (), 0), gone);
    }

    #[test]
    fn the_oldest_is_forgotten_for_what_is_too_much() {
        let notices = Notices::default();
        assert!((0..LIMIT).all(|number| notices.put(&said(number), NOW)));
        assert!(notices.put(&said(0), NOW), "it waits already");
        assert!(!notices.put(&said(LIMIT), NOW));
        let (heard, last) = take(&notices, 0);
        assert_eq!((heard.len(), &heard[0]), (LIMIT, &said(2).to_vec()), "1 was the oldest");
        assert_eq!(heard[LIMIT - 2..], [0, LIMIT].map(|number| said(number).to_vec()));
        assert!(take(&notices, last).0.is_empty());
        assert!(notices.put(&said(LIMIT), NOW));
    }
}
