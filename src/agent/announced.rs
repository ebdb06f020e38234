//! Announcements: what the switch heard of addresses that this node's ports take, told to the controllers.
//!
//! ```text
//!  switch ─ notices ─▶ thread ─ bounded queue ─▶ the link's session ─ Claim ─▶ controller
//! ```
//! One at a time and in order, so that the last of two announcements is told last. What a controller refuses is not told
//! again at once, however often it is announced. Nothing is kept: who has an address announces it again.

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
use crate::api::switch::{Hello, Notices, Request};
use crate::control::{Client as Control, ControlError};
use crate::program::Announced;
use crate::rpc::Client;
use crate::rpc::proto::ClaimRequest;

/// Announcements that wait for a controller at most; what comes then is dropped, and said.
const QUEUE_MAX: usize = 256;
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
        while let Err(error) = follow(&socket, &sender) {
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

/// Hands on what the switch says, until the conversation breaks or nobody listens.
fn follow(socket: &Path, sender: &Sender<(Announced, Instant)>) -> Result<(), ControlError> {
    let mut client = Control::connect(socket, ANSWER_LIMIT)?;
    let _hello: Hello = client.call(&Request::Hello { version: api::VERSION })?;
    loop {
        let Notices { said } = client.call(&Request::Notices { wait_millis: WAIT_MILLIS })?;
        // A flow of somebody else may say anything.
        for announced in said.iter().filter_map(|octets| Announced::read(octets)) {
            match sender.try_send((announced, Instant::now())) {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    tracing::warn!(
                        ?announced,
                        waiting = QUEUE_MAX,
                        "an announcement was dropped: no controller takes them"
                    );
                }
                Err(TrySendError::Closed(_)) => return Ok(()),
            }
        }
    }
}

/// Tells a controller of announcements, for as long as it answers.
pub(super) async fn tell(mut client: Client, node: String, heard: Heard) {
    let mut heard = heard.lock().await;
    let mut refused: BTreeMap<Announced, Instant> = BTreeMap::new();
    while let Some((announced, at)) = heard.recv().await {
        let now = Instant::now();
        refused.retain(|_, at| now.duration_since(*at) < REFUSED_FOR);
        if now.duration_since(at) > STALE_AFTER || refused.contains_key(&announced) {
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
