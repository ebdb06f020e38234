//! What flows' `controller` actions said, until somebody asks: a bounded queue of different things, the latest last.
//!
//! A thing said again moves to the end, so that however many frames say it the queue does not grow, and whoever listens
//! knows which of two was said last.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::lock;
use crate::api::switch;

/// Different things that may wait at most.
const LIMIT: usize = 1_024;

/// The queue.
#[derive(Debug, Default)]
pub(super) struct Notices {
    waiting: Mutex<Vec<Arc<[u8]>>>,
    came: Condvar,
}

impl Notices {
    /// Adds what was said; `false` if too much waits already.
    pub(super) fn put(&self, said: &Arc<[u8]>) -> bool {
        let mut waiting = lock(&self.waiting);
        // Mostly it is the one that was said just before.
        if let Some(at) = waiting.iter().rposition(|other| other == said) {
            let again = waiting.remove(at);
            waiting.push(again);
        } else if waiting.len() < LIMIT {
            waiting.push(Arc::clone(said));
        } else {
            return false;
        }
        drop(waiting);
        self.came.notify_one();
        true
    }

    /// Takes all that waits; waits so long for something if nothing does.
    pub(super) fn take(&self, wait: Duration) -> switch::Notices {
        let waiting = lock(&self.waiting);
        let waited = self.came.wait_timeout_while(waiting, wait, |waiting| waiting.is_empty());
        let (mut waiting, _timed_out) = waited.unwrap_or_else(PoisonError::into_inner);
        switch::Notices { said: waiting.drain(..).map(|said| said.to_vec()).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(number: usize) -> Arc<[u8]> {
        number.to_be_bytes().into()
    }

    #[test]
    fn what_is_said_again_is_heard_once_and_last() {
        let notices = Notices::default();
        for number in [1, 2, 3, 1] {
            assert!(notices.put(&said(number)));
        }
        let heard = notices.take(Duration::ZERO).said;
        assert_eq!(heard, [2, 3, 1].map(|number| said(number).to_vec()));
        assert!(notices.take(Duration::ZERO).said.is_empty());
    }

    #[test]
    fn what_is_too_much_is_refused_until_somebody_listens() {
        let notices = Notices::default();
        assert!((0..LIMIT).all(|number| notices.put(&said(number))));
        assert!(!notices.put(&said(LIMIT)));
        assert!(notices.put(&said(0)), "it waits already");
        assert_eq!(notices.take(Duration::ZERO).said.len(), LIMIT);
        assert!(notices.put(&said(LIMIT)));
    }
}
