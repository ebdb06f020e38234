//! Announcements: what the switch heard of addresses that this node's ports take, told to the controllers.
//!
//! ```text
//!  switch ─ notices ─▶ thread ─ bounded queue ─▶ the link's session ─ Claim ─▶ controller
//! ```
//! One at a time and in order, so that the last of two announcements is told last. What a controller refuses is not told
//! again at once, however often it is announced. What is older than [`STALE_AFTER`] when its turn comes is not told, be it
//! that no controller was there or no agent: another may have taken the address since, and who has it announces it again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel, error::TrySendError};
use tokio::time::Instant;
use tonic::Code;

use crate::api;
use crate::api::switch::{Hello, Notice, Notices, Request};
use crate::control::{Client as Control, ControlError};
use crate::program::Announced;
use crate::rpc::Client;
use crate::rpc::proto::ClaimRequest;

/// Announcements that wait for a controller at most; what comes then is dropped, and counted.
const QUEUE_MAX: usize = 256;
/// How often the log is told how many came to nothing.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// How long the switch is asked to wait for something to say, in milliseconds.
const WAIT_MILLIS: u64 = 5_000;
/// How long an answer may take: what it waits for, and then some.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long a switch that is gone is left alone.
const RETRY: Duration = Duration::from_millis(200);
/// How long what was refused is not told again.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// Refusals remembered at most.
const REFUSED_MAX: usize = 1_024;

/// How long an announcement waits for a controller: an older one may have been overtaken by another node's.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// Announcements as they come, each with when it did.
pub(super) type Heard = Arc<Mutex<Receiver<(Announced, Instant)>>>;

/// Starts to listen to the switch.
///
/// # Errors
/// The kernel gives no thread.
pub(super) fn listen(socket: PathBuf) -> io::Result<Heard> {
    let (sender, receiver) = channel(QUEUE_MAX);
    let listen = move || {
        let mut dropped = Lost::default();
        while let Err(error) = follow(&socket, &sender, &mut dropped) {
            if sender.is_closed() {
                return;
            }
            tracing::debug!(%error, "the switch says nothing of announcements");
            std::thread::sleep(RETRY);
        }
    };
    std::thread::Builder::new().name("announcements".to_owned()).spawn(listen)?;
    Ok(Arc::new(Mutex::new(receiver)))
}

/// Announcements that came to nothing, for the log: told at once, and then in one line each [`TOLD_EVERY`].
#[derive(Debug, Default)]
struct Lost {
    untold: u64,
    told_at: Option<Instant>,
}

impl Lost {
    /// How many the log is to be told of now.
    fn due(&mut self, now: Instant) -> Option<u64> {
        let is_due = self.told_at.is_none_or(|at| now.duration_since(at) >= TOLD_EVERY);
        if self.untold == 0 || !is_due {
            return None;
        }
        self.told_at = Some(now);
        Some(core::mem::take(&mut self.untold))
    }
}

/// Hands on what the switch says, until the conversation breaks or nobody listens.
fn follow(socket: &Path, sender: &Sender<(Announced, Instant)>, dropped: &mut Lost) -> Result<(), ControlError> {
    let mut client = Control::connect(socket, ANSWER_LIMIT)?;
    let _hello: Hello = client.call(&Request::Hello { version: api::VERSION })?;
    let mut heard = 0;
    loop {
        let Notices { said } = client.call(&Request::Notices { wait_millis: WAIT_MILLIS, heard })?;
        let now = Instant::now();
        for Notice { number, age_millis, userdata } in said {
            heard = number;
            // A flow of somebody else may say anything.
            let Some(announced) = Announced::read(&userdata) else { continue };
            // One from before this machine was started is older than any limit too.
            let said_at = now.checked_sub(Duration::from_millis(age_millis));
            match said_at.map(|at| sender.try_send((announced, at))) {
                Some(Ok(())) => {}
                Some(Err(TrySendError::Full(_))) | None => dropped.untold += 1,
                Some(Err(TrySendError::Closed(_))) => return Ok(()),
            }
        }
        if let Some(count) = dropped.due(now) {
            tracing::warn!(count, waiting = QUEUE_MAX, "announcements were dropped: no controller takes them");
        }
    }
}

/// Tells a controller of announcements, for as long as it answers.
pub(super) async fn tell(mut client: Client, node: String, heard: Heard) {
    let mut heard = heard.lock().await;
    let mut refused: BTreeMap<Announced, Instant> = BTreeMap::new();
    let mut stale = Lost::default();
    while let Some((announced, at)) = heard.recv().await {
        let now = Instant::now();
        refused.retain(|_, at| now.duration_since(*at) < REFUSED_FOR);
        if now.duration_since(at) > STALE_AFTER {
            stale.untold += 1;
            if let Some(count) = stale.due(now) {
                tracing::warn!(node, count, "announcements had waited too long to be told a controller");
            }
            continue;
        }
        if refused.contains_key(&announced) {
            continue;
        }
        let (ip, mac) = (announced.address.ip.to_string(), announced.address.mac.to_string());
        let request = ClaimRequest { node: node.clone(), port: announced.port.to_string(), ip, mac };
        let Err(status) = client.claim(request).await else { continue };
        if matches!(status.code(), Code::InvalidArgument | Code::NotFound) && refused.len() < REFUSED_MAX {
            tracing::warn!(node, ?announced, why = status.message(), "the controller refuses an announced address");
            refused.insert(announced, now);
        } else {
            tracing::debug!(node, ?announced, %status, "an announcement was not heard");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Input: losses now and then. Output: the first is told at once, those that follow once a period, all of them counted.
    #[test]
    fn what_is_lost_is_told_once_a_period() {
        let mut lost = Lost::default();
        let begun = Instant::now();
        assert_eq!(lost.due(begun), None);
        let mut told = Vec::new();
        for second in 0..25 {
            lost.untold += 3;
            told.extend(lost.due(begun + Duration::from_secs(second)).map(|count| (second, count)));
        }
        assert_eq!(told, [(0, 3), (10, 30), (20, 30)]);
        assert_eq!(lost.due(begun + 2 * TOLD_EVERY + TOLD_EVERY), Some(12));
        assert_eq!(lost.due(begun + 10 * TOLD_EVERY), None);
    }
}
