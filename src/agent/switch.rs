//! The conversation with this node's switch.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::api;
use crate::api::switch::{Flow, FlowChange, Hello, Request, Show, Synced};
use crate::control::{Client, ControlError};
use crate::program::COOKIE;
use crate::types::IfName;

use super::events::{Event, Events};

/// How long one answer may take. The switch answers in milliseconds; a hundred thousand flows take it seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A switch that may come and go.
pub(super) struct Switch {
    socket: PathBuf,
    open: Option<(Client, Hello)>,
    /// Told when an open conversation ends; `None` for a conversation that nobody waits on.
    events: Option<Events>,
}

impl Switch {
    pub(super) const fn new(socket: PathBuf, events: Option<Events>) -> Self {
        Self { socket, open: None, events }
    }

    /// What the switch said of itself, after connecting if need be.
    ///
    /// # Errors
    /// When it is not there, or of another release.
    pub(super) fn hello(&mut self) -> Result<Hello, ControlError> {
        if let Some((_, hello)) = &self.open {
            return Ok(hello.clone());
        }
        let mut client = Client::connect(&self.socket, ANSWER_LIMIT)?;
        let hello: Hello = client.call(&Request::Hello { version: api::VERSION })?;
        if let Some(events) = &self.events {
            watch(&self.socket, events.clone());
        }
        self.open = Some((client, hello.clone()));
        Ok(hello)
    }

    /// Asks one thing. Anything but a refusal ends the conversation; the next question opens another.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub(super) fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ControlError> {
        self.with(|client| client.call(request))
    }

    fn with<T>(&mut self, ask: impl FnOnce(&mut Client) -> Result<T, ControlError>) -> Result<T, ControlError> {
        self.hello()?;
        let Some((client, _)) = &mut self.open else { unreachable!("hello leaves it open") };
        let answer = ask(client);
        // Of what was too long nothing was said.
        let is_over =
            |error: &ControlError| error.refusal().is_none() && !matches!(error, ControlError::TooLong { .. });
        if answer.as_ref().is_err_and(is_over) {
            self.open = None;
        }
        answer
    }

    /// Forgets the conversation, if there is one.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    pub(super) fn show(&mut self) -> Result<Show, ControlError> {
        self.call(&Request::Show)
    }

    /// Every flow of a bridge, ports by name.
    pub(super) fn flows(&mut self, bridge: &IfName) -> Result<Vec<Flow>, ControlError> {
        self.call(&Request::DumpFlows { bridge: bridge.clone(), filter: String::new(), names: true })
    }

    /// Begins to make the program's flows of a bridge these, one a line.
    ///
    /// # Errors
    /// As [`Client::begin`].
    pub(super) fn begin_sync(&mut self, bridge: &IfName, flows: String) -> Result<(), ControlError> {
        let request = Request::SyncFlows { bridge: bridge.clone(), cookie: COOKIE, flows };
        self.with(|client| client.begin(&request))
    }

    /// Waits for what became of the bridge that was begun first.
    ///
    /// # Errors
    /// As [`Client::end`].
    pub(super) fn end_sync(&mut self) -> Result<Synced, ControlError> {
        self.with(Client::end)
    }

    /// Changes flows. Gives how many were touched.
    pub(super) fn change(&mut self, bridge: &IfName, changes: Vec<FlowChange>) -> Result<usize, ControlError> {
        self.call(&Request::Flows { bridge: bridge.clone(), changes })
    }

    /// Asks for something to be done; what is answered beside "done" does not matter.
    pub(super) fn ask(&mut self, request: &Request) -> Result<(), ControlError> {
        self.call::<serde::de::IgnoredAny>(request).map(|_| ())
    }
}

/// Tells when the switch goes: a silent connection of its own ends when the switch does.
fn watch(socket: &PathBuf, events: Events) {
    let Ok(mut silent) = UnixStream::connect(socket) else {
        return events.tell(Event::SwitchLost);
    };
    let wait = move || {
        // Nothing is asked, so nothing comes but the end.
        let _ended = silent.read(&mut [0]);
        events.tell(Event::SwitchLost);
    };
    if let Err(error) = std::thread::Builder::new().name("switch-watch".to_owned()).spawn(wait) {
        tracing::warn!(%error, "no thread to watch the switch: its loss is noticed at the next question");
    }
}
