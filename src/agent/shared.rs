//! What the main loop publishes and conversations read: replaced whole, never locked over a request.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::api::agent::Converged;
use crate::model::view::ViewChange;

use super::events::{Event, Events};
use super::node::Held;

#[derive(Default)]
struct Published {
    held: Option<Arc<Held>>,
    state: Option<Converged>,
    /// Passes begun, and the last whole one that ended.
    begun: u64,
    ended: u64,
}

/// The published state.
#[derive(Default)]
pub(super) struct Shared {
    published: Mutex<Published>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Published> {
        // What is published is replaced whole: a thread that panicked left nothing half-done.
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pass begins.
    pub(super) fn begin(&self) {
        self.lock().begun += 1;
    }

    /// A whole pass ended: what is held, if that changed, and what it came to.
    pub(super) fn end(&self, held: Option<Held>, state: Converged) {
        let mut published = self.lock();
        if let Some(held) = held {
            published.held = Some(Arc::new(held));
        }
        published.state = Some(state);
        published.ended = published.begun;
        drop(published);
        self.changed.notify_all();
    }

    /// A pass ended that only made these changes, and looked at nothing else: whoever waits for one that does goes on
    /// waiting.
    pub(super) fn amend(&self, changes: Vec<ViewChange>, state: Converged) {
        let mut published = self.lock();
        if let Some(held) = &mut published.held {
            // Copied only while a reader has it.
            let view = Arc::make_mut(&mut Arc::make_mut(held).view);
            for change in changes {
                // What is dropped concerns networks that are not there, which no reader is shown.
                let _kept = view.apply(change);
            }
        }
        published.state = Some(state);
    }

    /// What is held, and what the last pass came to.
    pub(super) fn read(&self) -> Option<(Arc<Held>, Converged)> {
        let published = self.lock();
        Some((published.held.clone()?, published.state.clone()?))
    }

    /// What is held, waited for at most `limit` while that is not known.
    pub(super) fn held(&self, limit: Duration) -> Option<Arc<Held>> {
        let unknown = |published: &mut Published| published.held.is_none();
        let waited = self.changed.wait_timeout_while(self.lock(), limit, unknown);
        waited.unwrap_or_else(PoisonError::into_inner).0.held.clone()
    }

    /// Waits, at most `limit`, for a pass that began after the question to find the node as it should be; so what was
    /// changed before the question was asked is accounted for. Returns what the last pass came to.
    pub(super) fn wait(&self, events: &Events, limit: Duration) -> Converged {
        let published = self.lock();
        let due = published.begun + 1;
        events.tell(Event::Look);
        let unsettled = |published: &mut Published| {
            published.ended < due || !published.state.as_ref().is_some_and(|state| state.converged)
        };
        let waited = self.changed.wait_timeout_while(published, limit, unsettled);
        let (published, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        let state = published.state.clone();
        let mut state = state.unwrap_or(Converged {
            converged: false,
            operations: 0,
            took_micros: 0,
            disturbed: 0,
            errors: Vec::new(),
        });
        if timeout.timed_out() && state.converged {
            // The last pass ended before the question.
            state.converged = false;
            state.errors.push(format!("no pass that began since ended within {limit:?}"));
        }
        state
    }
}
