//! What makes the agent look again.

use tokio::sync::mpsc;

use crate::plan::KernelState;

/// Something happened. Events say *that*, never *what is now*: the agent observes for itself.
#[derive(Debug)]
pub(super) enum Event {
    /// Somebody wants to know whether the node is as it should be.
    Look,
    /// What is desired is another, or why it is not known.
    Desired,
    /// The conversation with the switch ended.
    SwitchLost,
    /// A reader wants the kernel's state as it is.
    Observe(std::sync::mpsc::SyncSender<Result<KernelState, String>>),
}

/// Events on their way that the agent has not seen; with more than this, one that asks for a look adds nothing.
pub(super) const EVENTS_MAX: usize = 256;

/// Where events are told.
#[derive(Debug, Clone)]
pub(super) struct Events(mpsc::Sender<Event>);

impl Events {
    /// A queue of [`EVENTS_MAX`] events.
    pub(super) fn new() -> (Self, mpsc::Receiver<Event>) {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        (Self(sender), receiver)
    }

    /// Tells the agent, from any thread. In a full queue there are enough reasons to look already, and an agent that has
    /// ended needs none; a reader that is not answered sees its channel close.
    pub(super) fn tell(&self, event: Event) {
        if let Err(error) = self.0.try_send(event) {
            tracing::debug!(%error, "an event was not queued");
        }
    }
}
