//! The link to a controller: what this node is to hold comes as a whole, then as changes, for as long as it lasts.
//!
//! ```text
//!  controller ═ whole, changes ═▶ link's thread ─▶ known view ─event─▶ the agent's loop
//!             ◀════ beats ═══════                └─▶ view.json, for a start without any controller
//! ```
//! A thread of its own, so that a long pass neither delays what comes nor lets the node's lease run out. A controller that
//! goes takes nothing with it: what is known stays, and the link goes on with the next address, from where it was.

use core::net::IpAddr;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::announced::{self, Heard};
use super::desired::{Desired, DesiredError, News};
use super::events::{Event, Events};
use crate::model::view::{NodeView, ViewChange};
use crate::rpc::proto::view_reply::What;
use crate::rpc::proto::{BeatRequest, ViewReply, ViewRequest};
use crate::rpc::{Address, Addresses, Client, RpcError, connect};
use crate::tls::{self, Identity};

/// The first wait before a controller is tried again, and the longest; each failure in a row adds half.
const RETRY: (Duration, Duration) = (Duration::from_millis(3), Duration::from_secs(2));
/// How often a node says that it lives, and how soon it may say again how it is when that changed.
const BEAT: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(1));
/// How long what came may wait to be written down, so that a burst is written once.
const SAVE_DELAY: Duration = Duration::from_millis(200);
/// Octets of a whole view at most.
const WHOLE_MAX: usize = 512 << 20;
/// Where what is known is kept in the run directory.
const FILE: &str = "view.json";

/// How the agent reaches its controllers.
#[derive(Debug, Clone)]
pub struct Controllers {
    /// Where they are.
    pub addresses: Addresses,
    /// Where this node's certificate is, for those over TCP.
    pub certs: PathBuf,
    /// Where this node's tunnels end; `None`: where desired state says.
    pub tunnel_ip: Option<IpAddr>,
}

/// What is known, as it is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Known {
    epoch: String,
    revision: u64,
    view: NodeView,
}

/// Changes kept for the agent one by one; with more, it takes the whole again, which then costs less.
const FRESH_MAX: usize = 1024;

/// What the agent has yet to take of what is known.
#[derive(Debug)]
enum Fresh {
    /// All of it.
    Whole,
    /// These changes, which may be none.
    Changes(Vec<ViewChange>),
}

impl Fresh {
    fn add(&mut self, changes: Vec<ViewChange>) {
        match self {
            Self::Changes(list) if list.len() + changes.len() <= FRESH_MAX => list.extend(changes),
            Self::Changes(_) | Self::Whole => *self = Self::Whole,
        }
    }
}

/// What the link's thread and the agent's loop share.
#[derive(Debug)]
struct Shared {
    known: Option<Known>,
    /// What changed since the agent took it.
    fresh: Fresh,
    /// Why there is no link; empty while there is one.
    trouble: String,
    /// The revision of what the agent took last.
    taken: u64,
    /// The revision that the node is made to.
    applied: u64,
    /// What stands in the way of a later one.
    errors: Vec<String>,
}

/// The agent's side of the link.
#[derive(Debug)]
pub(super) struct Link {
    shared: Arc<Mutex<Shared>>,
    /// Says that there is something new to say of the node.
    changed: Arc<Notify>,
    addresses: Addresses,
    node: String,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // What is shared is replaced whole: a thread that panicked left nothing half-done.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Starts the link's thread; what was known at the last run is known at once.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub(super) fn start(
        node: &str,
        run_dir: &Path,
        controllers: Controllers,
        events: Events,
        heard: Heard,
    ) -> io::Result<Self> {
        let file = run_dir.join(FILE);
        let known = load(&file, node);
        if let Some(known) = &known {
            tracing::info!(node, revision = known.revision, "the last view is known from before");
        }
        let trouble = "no controller has answered yet".to_owned();
        let shared = Shared { known, fresh: Fresh::Whole, trouble, taken: 0, applied: 0, errors: Vec::new() };
        let shared = Arc::new(Mutex::new(shared));
        let changed = Arc::new(Notify::new());
        let link = Self {
            shared: Arc::clone(&shared),
            changed: Arc::clone(&changed),
            addresses: controllers.addresses.clone(),
            node: node.to_owned(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let end = End { node: node.to_owned(), file, controllers, shared, changed, events, heard };
        std::thread::Builder::new().name("controller-link".to_owned()).spawn(move || runtime.block_on(end.keep()))?;
        Ok(link)
    }
}

impl Desired for Link {
    fn news(&mut self) -> Result<News, DesiredError> {
        let mut shared = lock(&self.shared);
        let Shared { known, fresh, trouble, taken, .. } = &mut *shared;
        let known = known.as_ref().ok_or_else(|| DesiredError::Unknown {
            node: self.node.clone(),
            controllers: self.addresses.to_string(),
            why: trouble.clone(),
        })?;
        *taken = known.revision;
        Ok(match core::mem::replace(fresh, Fresh::Changes(Vec::new())) {
            Fresh::Whole => News::Whole(Box::new(known.view.clone())),
            Fresh::Changes(changes) => News::Changes(changes),
        })
    }

    fn has_news(&self) -> bool {
        let shared = lock(&self.shared);
        match &shared.fresh {
            Fresh::Whole => shared.known.is_some(),
            Fresh::Changes(changes) => !changes.is_empty(),
        }
    }

    fn came_to(&mut self, errors: &[String]) {
        let mut shared = lock(&self.shared);
        let applied = if errors.is_empty() { shared.taken } else { shared.applied };
        if applied != shared.applied || errors != shared.errors {
            shared.applied = applied;
            shared.errors = errors.to_vec();
            self.changed.notify_one();
        }
    }
}

/// The link's own end.
struct End {
    node: String,
    file: PathBuf,
    controllers: Controllers,
    shared: Arc<Mutex<Shared>>,
    changed: Arc<Notify>,
    events: Events,
    /// Announcements, for whatever controller there is.
    heard: Heard,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    #[error("the controller at {0} ended the stream")]
    Closed(Address),
    #[error("the controller at {address} said what makes no sense: {why}; use the same release of both")]
    Nonsense { address: Address, why: String },
}

/// A task that goes on as long as this is held.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl End {
    /// Keeps the link for ever.
    async fn keep(self) {
        let mut retry = RETRY.0;
        for turn in 0_usize.. {
            let address = self.controllers.addresses.turn(turn).clone();
            let mut heard = false;
            let Err(ended) = self.session(&address, &mut heard).await;
            let (trouble, ended) = (ended.to_string(), ended);
            let known = lock(&self.shared).known.is_some();
            match (heard, &ended) {
                (true, _) => {
                    tracing::warn!(node = self.node, error = %ended, "the controller is lost; what the node holds stays")
                }
                (false, Ended::Rpc(error)) if error.is_absent() => tracing::debug!(node = self.node, %error, "no link"),
                (false, _) => tracing::warn!(node = self.node, error = %ended, known, "no link to the controller"),
            }
            self.troubled(trouble);
            retry = if heard { RETRY.0 } else { retry };
            sleep(retry.mul_f64(spread(&self.node))).await;
            retry = retry.mul_f64(1.5).min(RETRY.1);
        }
    }

    /// Notes why there is no link; the agent looks if that is why it holds nothing.
    fn troubled(&self, why: String) {
        let mut shared = lock(&self.shared);
        let told = shared.known.is_none() && shared.trouble != why;
        shared.trouble = why;
        drop(shared);
        if told {
            self.events.tell(Event::Desired);
        }
    }

    async fn session(&self, address: &Address, heard: &mut bool) -> Result<core::convert::Infallible, Ended> {
        let tls = match address {
            Address::Unix(_) => None,
            // Read anew each time: they may have been renewed.
            Address::Tls(_) => Some(tls::client_config(&self.controllers.certs, &Identity::Node(self.node.clone()))?),
        };
        let mut client = connect(address, tls.as_ref()).await?;
        let (epoch, revision) = lock(&self.shared)
            .known
            .as_ref()
            .map_or_else(Default::default, |known| (known.epoch.clone(), known.revision));
        let tunnel_ip = self.controllers.tunnel_ip.map(|ip| ip.to_string()).unwrap_or_default();
        let request = ViewRequest { node: self.node.clone(), tunnel_ip, epoch, revision };
        let refused = |status| RpcError::of(address, &status);
        let mut stream = client.view(request).await.map_err(refused)?.into_inner();
        let _announced =
            Task(tokio::spawn(announced::tell(client.clone(), self.node.clone(), Arc::clone(&self.heard))));
        let (shared, changed) = (Arc::clone(&self.shared), Arc::clone(&self.changed));
        let _beats = Task(tokio::spawn(beat(client, self.node.clone(), shared, changed)));
        let mut whole = Vec::new();
        let mut save_at = None;
        loop {
            let reply = tokio::select! {
                reply = stream.message() => reply,
                () = until(save_at), if save_at.is_some() => {
                    save_at = None;
                    self.save();
                    continue;
                }
            };
            let lost = |ended| {
                if save_at.is_some() {
                    self.save();
                }
                Err(ended)
            };
            let reply = match reply {
                Ok(Some(reply)) => reply,
                Ok(None) => return lost(Ended::Closed(address.clone())),
                Err(status) => return lost(refused(status).into()),
            };
            if !*heard {
                tracing::info!(node = self.node, %address, revision = reply.revision, "following the controller");
                *heard = true;
                lock(&self.shared).trouble.clear();
            }
            let nonsense = |why: String| Ended::Nonsense { address: address.clone(), why };
            if self.take(reply, &mut whole).map_err(nonsense)? {
                save_at.get_or_insert_with(|| Instant::now() + SAVE_DELAY);
            }
        }
    }

    /// Takes in what was said. Gives whether what is known changed.
    fn take(&self, reply: ViewReply, whole: &mut Vec<u8>) -> Result<bool, String> {
        let ViewReply { epoch, revision, what } = reply;
        let changed = match what {
            None => return Err("it says nothing".to_owned()),
            Some(What::Resumed(_)) => false,
            Some(What::Absent(why)) => {
                let known = lock(&self.shared).known.is_some();
                if known {
                    tracing::warn!(node = self.node, why, "desired state no longer has this node; what it holds stays");
                }
                self.troubled(why);
                false
            }
            Some(What::Whole(part)) => {
                if whole.len() + part.octets.len() > WHOLE_MAX {
                    return Err(format!("a view of more than {WHOLE_MAX} octets"));
                }
                whole.extend_from_slice(&part.octets);
                if !part.last {
                    return Ok(false);
                }
                let octets = core::mem::take(whole);
                let view: NodeView = serde_json::from_slice(&octets).map_err(|error| error.to_string())?;
                let mut shared = lock(&self.shared);
                shared.known = Some(Known { epoch, revision, view });
                shared.fresh = Fresh::Whole;
                true
            }
            Some(What::Changes(octets)) => {
                let changes: Vec<ViewChange> = serde_json::from_slice(&octets).map_err(|error| error.to_string())?;
                let mut shared = lock(&self.shared);
                let Shared { known, fresh, .. } = &mut *shared;
                let Some(known) = known else { return Err("changes come before the whole".to_owned()) };
                if !changes.iter().cloned().all(|change| known.view.apply(change)) {
                    // Nothing to go on from: the next session asks for the whole.
                    known.epoch.clear();
                    return Err("changes of networks that never came".to_owned());
                }
                known.revision = revision;
                fresh.add(changes);
                true
            }
        };
        if changed {
            self.events.tell(Event::Desired);
        }
        Ok(changed)
    }

    /// Writes down what is known. Without it the next start only needs a controller.
    fn save(&self) {
        let text = lock(&self.shared).known.as_ref().map(serde_json::to_vec);
        let Some(Ok(text)) = text else { return };
        let draft = self.file.with_extension("new");
        let written = write_private(&draft, &text).and_then(|()| std::fs::rename(&draft, &self.file));
        if let Err(error) = written {
            tracing::warn!(file = %self.file.display(), %error, "what is known cannot be kept for the next start");
        }
    }
}

/// Writes a file that nobody else may read: it tells who is where, also of others' networks.
fn write_private(path: &Path, octets: &[u8]) -> io::Result<()> {
    // What an earlier run left half-done may have other rights.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    std::fs::File::options().write(true).create_new(true).mode(0o600).open(path)?.write_all(octets)
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => core::future::pending().await,
    }
}

/// Says that the node lives, and how it is, until dropped. What fails here fails on the stream too, which tells.
async fn beat(mut client: Client, node: String, shared: Arc<Mutex<Shared>>, changed: Arc<Notify>) {
    loop {
        let request = {
            let shared = lock(&shared);
            BeatRequest { node: node.clone(), applied: shared.applied, errors: shared.errors.clone() }
        };
        if let Err(status) = client.beat(request).await {
            tracing::debug!(node, %status, "a beat was not heard");
        }
        let (most, least) = BEAT;
        sleep(least).await;
        // A beat that is due anyway is as good as one for a change.
        let _due = timeout(most - least, changed.notified()).await;
    }
}

/// A factor between 0.75 and 1.25, each node its own: so a thousand agents do not come back at one instant.
fn spread(node: &str) -> f64 {
    let hash = node.bytes().fold(0_u8, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte));
    0.75 + f64::from(hash) / 510.0
}

fn load(file: &Path, node: &str) -> Option<Known> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "the last view cannot be read: a controller is needed");
            return None;
        }
    };
    match serde_json::from_slice::<Known>(&text) {
        Ok(known) if known.view.node.name == node => Some(known),
        Ok(known) => {
            tracing::warn!(file = %file.display(), of = known.view.node.name, "the last view is another node's: left");
            None
        }
        Err(error) => {
            tracing::warn!(file = %file.display(), %error, "the last view makes no sense to this release: left");
            None
        }
    }
}

/// Forgets what is known, for whoever removes a node.
///
/// # Errors
/// The kernel's word.
pub(super) fn forget(run_dir: &Path) -> io::Result<()> {
    match std::fs::remove_file(run_dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_back_at_different_times() {
        let spreads: Vec<f64> = (0..100).map(|number| spread(&format!("node{number}"))).collect();
        assert!(spreads.iter().all(|spread| (0.75..=1.25).contains(spread)));
        let mut sorted = spreads;
        sorted.sort_by(f64::total_cmp);
        sorted.dedup();
        assert!(sorted.len() > 50, "{} different", sorted.len());
    }
}
