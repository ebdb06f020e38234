//! What the switch says by itself, heard on a thread of its own: announcements, for the link to the controllers, and how it
//! stands, for the agent's loop.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::mpsc::error::TrySendError;
use tokio::time::Instant;

use super::announced::{self, Heard, Lost, Said, Teller};
use super::events::{Event, Events};
use crate::api;
use crate::api::switch::{Hello, Notice, Notices, Request, Standing};
use crate::control::{Client, ControlError};
use crate::program::Announced;

/// How long the switch is asked to wait for something to say, in milliseconds.
const WAIT_MILLIS: u64 = 5_000;
/// How long an answer may take: what it waits for, and then some.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long a switch that is gone is left alone.
const RETRY: Duration = Duration::from_millis(200);

/// Starts to listen to the switch.
///
/// # Errors
/// The kernel gives no thread.
pub(super) fn listen(socket: PathBuf, events: Events) -> io::Result<Heard> {
    let (teller, heard) = announced::queue();
    let listen = move || {
        let mut ears = Ears { events, teller, dropped: Lost::default(), standing: Standing::default() };
        while let Err(error) = ears.follow(&socket) {
            if ears.events.is_over() {
                return;
            }
            tracing::debug!(%error, "the switch says nothing");
            std::thread::sleep(RETRY);
        }
    };
    std::thread::Builder::new().name("notices".to_owned()).spawn(listen)?;
    Ok(heard)
}

/// Who hears, and what was heard last.
struct Ears {
    events: Events,
    teller: Teller,
    /// Announcements for which there was no room.
    dropped: Lost,
    standing: Standing,
}

impl Ears {
    /// Hands on what the switch says, until the conversation breaks or nobody listens.
    fn follow(&mut self, socket: &Path) -> Result<(), ControlError> {
        let mut client = Client::connect(socket, ANSWER_LIMIT)?;
        let _hello: Hello = client.call(&Request::Hello { version: api::VERSION })?;
        let mut heard = 0;
        while !self.events.is_over() {
            let standing = Some(self.standing.clone());
            let asked = Request::Notices { wait_millis: WAIT_MILLIS, heard, standing };
            let Notices { said, standing } = client.call(&asked)?;
            if standing != self.standing {
                self.standing = standing.clone();
                self.events.tell(Event::Switch(standing));
            }
            let now = Instant::now();
            for Notice { number, age_millis, userdata } in said {
                heard = number;
                // A flow of somebody else may say anything.
                let Some(announced) = Announced::read(&userdata) else { continue };
                // One from before this machine was started is older than any limit too.
                let said_at = now.checked_sub(Duration::from_millis(age_millis));
                let told = said_at.map(|at| self.teller.try_send(Said { announced, at }));
                // An agent without controllers takes none.
                self.dropped.untold += u64::from(matches!(told, None | Some(Err(TrySendError::Full(_)))));
            }
            if let Some(count) = self.dropped.due(now) {
                tracing::warn!(count, "announcements were dropped: no controller takes them");
            }
        }
        Ok(())
    }
}
