//! What makes the agent look again.
//!
//! A reason that is told twice before the agent hears it is one reason: each kind is a mark that is set or not, or the last
//! word on something, so there is nothing to overflow and none pushes another out. Only readers, who wait for answers of
//! their own, stand in a queue.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::room::Passing;
use crate::api::switch::Standing;
use crate::plan::KernelState;

/// Something happened. Events say *that*, not *what is now*: the agent observes for itself.
#[derive(Debug)]
pub(super) enum Event {
    /// Somebody wants to know whether the node is as it should be.
    Look,
    /// What is desired is another, or why it is not known.
    Desired,
    /// The conversation with the switch ended.
    SwitchLost,
    /// The switch stands otherwise than it did: so, if nothing changed since. Whether that is the agent's doing is for it to
    /// say.
    Switch(Standing),
    /// Other packets pass to the other nodes than did.
    Passing(Passing),
    /// A reader wants the kernel's state as it is.
    Observe(Reader),
}

/// Where a reader waits for the kernel's state.
pub(super) type Reader = std::sync::mpsc::SyncSender<Result<KernelState, String>>;

/// Readers that may wait at once; one more is turned away, which it sees by its channel's end.
pub(super) const READERS_MAX: usize = 256;

/// All that was told since it was last taken.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) look: bool,
    pub(super) desired: bool,
    pub(super) switch_lost: bool,
    pub(super) switch: Option<Standing>,
    pub(super) passing: Option<Passing>,
    pub(super) readers: Vec<Reader>,
}

impl Told {
    const fn is_nothing(&self) -> bool {
        let Self { look, desired, switch_lost, switch, passing, readers } = self;
        !(*look || *desired || *switch_lost) && switch.is_none() && passing.is_none() && readers.is_empty()
    }
}

#[derive(Debug)]
struct Board {
    /// `None` once nobody hears.
    told: Mutex<Option<Told>>,
    came: Notify,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Option<Told>> {
        // Each change is one assignment or one push: a thread that panicked left nothing half-done.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where events are told.
#[derive(Debug, Clone)]
pub(super) struct Events(Arc<Board>);

/// Where they are heard: by the agent alone.
#[derive(Debug)]
pub(super) struct Inbox(Arc<Board>);

impl Events {
    /// Nothing has happened yet.
    pub(super) fn new() -> (Self, Inbox) {
        let board = Arc::new(Board { told: Mutex::new(Some(Told::default())), came: Notify::new() });
        (Self(Arc::clone(&board)), Inbox(board))
    }

    /// Tells the agent, from any thread, without waiting.
    pub(super) fn tell(&self, event: Event) {
        let mut board = self.0.lock();
        // An agent that has ended needs no reasons.
        let Some(told) = &mut *board else { return };
        match event {
            Event::Look => told.look = true,
            Event::Desired => told.desired = true,
            Event::SwitchLost => told.switch_lost = true,
            Event::Switch(standing) => told.switch = Some(standing),
            Event::Passing(passing) => told.passing = Some(passing),
            Event::Observe(reader) if told.readers.len() < READERS_MAX => told.readers.push(reader),
            Event::Observe(_) => {
                tracing::warn!(waiting = READERS_MAX, "a reader of the kernel's state is turned away: too many wait");
            }
        }
        drop(board);
        self.0.came.notify_one();
    }

    /// Whether nobody hears any more.
    pub(super) fn is_over(&self) -> bool {
        self.0.lock().is_none()
    }
}

impl Inbox {
    /// Waits until something was told.
    pub(super) async fn told(&self) -> Told {
        loop {
            let told = self.take();
            if !told.is_nothing() {
                return told;
            }
            self.0.came.notified().await;
        }
    }

    /// What was told, which may be nothing.
    pub(super) fn take(&self) -> Told {
        self.0.lock().as_mut().map(core::mem::take).unwrap_or_default()
    }
}

impl Drop for Inbox {
    /// Nobody hears any more: whoever waits for an answer is not to wait out its limit.
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input: one kind of event told again and again, others among it. Output: none is lost, whatever came before it.
    #[tokio::test]
    async fn no_event_pushes_another_out() {
        let (events, inbox) = Events::new();
        (0..10_000).for_each(|_| events.tell(Event::Desired));
        events.tell(Event::SwitchLost);
        events.tell(Event::Look);
        let told = inbox.told().await;
        assert!(told.desired && told.look && told.switch_lost && told.readers.is_empty(), "{told:?}");
        assert!(inbox.take().is_nothing());
        events.tell(Event::Look);
        let told = inbox.told().await;
        assert!(told.look && !told.desired && !told.switch_lost, "{told:?}");
    }

    /// Input: more readers than may wait. Output: those too many, and all once nobody listens, see their channels end.
    #[test]
    fn a_reader_that_is_not_answered_is_told_so() {
        let (events, inbox) = Events::new();
        let ask = || {
            let (reader, answer) = std::sync::mpsc::sync_channel(1);
            events.tell(Event::Observe(reader));
            answer
        };
        let waiting: Vec<_> = (0..READERS_MAX).map(|_| ask()).collect();
        assert!(ask().recv().is_err(), "too many wait");
        assert!(waiting.iter().all(|answer| answer.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty)));
        drop(inbox);
        assert!(waiting.iter().all(|answer| answer.recv().is_err()));
        assert!(ask().recv().is_err(), "nobody hears");
    }
}
