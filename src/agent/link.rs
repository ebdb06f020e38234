//! The link to a controller: what this node is to hold comes as a whole, then as changes, for as long as it lasts.
//!
//! ```text
//!  controller ═ whole, changes ═▶ link's thread ─▶ known view ─event─▶ the agent's loop
//!             ◀════ beats ═══════                └─▶ view.json, for a start without any controller
//! ```
//! A thread of its own, so that a long pass neither delays what comes nor lets the node's lease run out. A controller that
//! goes takes nothing with it: what is known stays, and the link goes on with the next address, from where it was.

use core::net::IpAddr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::announced::{self, Heard};
use super::desired::{Desired, DesiredError, News};
use super::events::{Event, Events};
use super::saved::{self, Known, Saver};
use crate::model::view::{NodeView, ViewChange};
use crate::rpc::proto::view_reply::What;
use crate::rpc::proto::{BeatRequest, ViewReply, ViewRequest};
use crate::rpc::{Address, Addresses, Client, RpcError, connect, cut_errors};
use crate::tls::{self, Identity};

/// The first wait before a controller is tried again, and the longest; each failure in a row adds half.
const RETRY: (Duration, Duration) = (Duration::from_millis(3), Duration::from_secs(2));
/// How often a node says that it lives, and how soon it may say again how it is when that changed.
const BEAT: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(1));
/// The latter for a node that was not made to any view yet: whoever brings it up looks for that.
const BEAT_EARLY: Duration = Duration::from_millis(50);
/// Octets of a whole view at most.
const WHOLE_MAX: usize = 512 << 20;

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
    /// Whether so many more are kept one by one.
    const fn has_room(&self, more: usize) -> bool {
        match self {
            Self::Changes(list) => list.len() + more <= FRESH_MAX,
            Self::Whole => false,
        }
    }

    /// Adds changes; `None` stands for more than there is room for.
    fn add(&mut self, changes: Option<Vec<ViewChange>>) {
        match (&mut *self, changes) {
            (Self::Changes(list), Some(changes)) => list.extend(changes),
            (Self::Changes(_), None) | (Self::Whole, _) => *self = Self::Whole,
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
    /// What stands in the way of a later one, as far as a controller is told.
    errors: Vec<String>,
}

impl Shared {
    /// What a controller is told: how far the node is, and what stands in the way. That it has been told nothing yet is no
    /// news to whoever is about to tell it.
    fn said(&self) -> (u64, Vec<String>) {
        (self.applied, if self.known.is_some() { self.errors.clone() } else { Vec::new() })
    }

    /// Goes on from what is known. With nothing left of it to be made, the node is as far as that says, also where the last
    /// of it was not the node's. Gives whether that is news to a controller, which may know only how far the node was told.
    fn go_on(&mut self) -> bool {
        let known = self.known.as_ref().map_or(0, |known| known.revision);
        let nothing_left = matches!(&self.fresh, Fresh::Changes(changes) if changes.is_empty());
        if !nothing_left || known <= self.taken {
            return false;
        }
        let is_there = self.applied == self.taken;
        self.taken = known;
        if is_there {
            self.applied = known;
        }
        is_there
    }

    /// Takes in a whole view. What stood in the way while there was none says nothing of it.
    fn begin(&mut self, known: Known) {
        if self.known.replace(known).is_none() {
            self.errors.clear();
        }
        self.fresh = Fresh::Whole;
    }
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
        let known = saved::load(run_dir, node);
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
        let run_dir = run_dir.to_path_buf();
        let end = End { node: node.to_owned(), run_dir, controllers, shared, changed, events, heard };
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
        let whole = match core::mem::replace(fresh, Fresh::Changes(Vec::new())) {
            Fresh::Whole => Arc::clone(&known.view),
            Fresh::Changes(changes) => return Ok(News::Changes(changes)),
        };
        drop(shared);
        Ok(News::Whole(Box::new(NodeView::clone(&whole))))
    }

    fn came_to(&mut self, errors: &[String]) {
        let errors = cut_errors(errors.to_vec());
        let mut shared = lock(&self.shared);
        let applied = if errors.is_empty() { shared.taken } else { shared.applied };
        if applied != shared.applied || errors != shared.errors {
            shared.applied = applied;
            shared.errors = errors;
            self.changed.notify_one();
        }
    }
}

/// The link's own end.
struct End {
    node: String,
    run_dir: PathBuf,
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
        let mut saver = Saver::new(&self.run_dir);
        for turn in 0_usize.. {
            let address = self.controllers.addresses.turn(turn).clone();
            let mut heard = false;
            let Err(ended) = self.session(&address, &mut heard, &mut saver).await;
            saver.flush(|| self.known()).await;
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
            retry = next_wait(retry, heard, &ended);
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

    fn known(&self) -> Option<Known> {
        lock(&self.shared).known.clone()
    }

    async fn session(
        &self,
        address: &Address,
        heard: &mut bool,
        saver: &mut Saver,
    ) -> Result<core::convert::Infallible, Ended> {
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
        loop {
            let reply = tokio::select! {
                reply = stream.message() => reply,
                () = saver.turn(|| self.known()) => continue,
            };
            let reply = reply.map_err(refused)?.ok_or_else(|| Ended::Closed(address.clone()))?;
            if !*heard {
                tracing::info!(node = self.node, %address, revision = reply.revision, "following the controller");
                *heard = true;
                lock(&self.shared).trouble.clear();
            }
            let nonsense = |why: String| Ended::Nonsense { address: address.clone(), why };
            if self.take(reply, &mut whole).map_err(nonsense)? {
                saver.changed(Instant::now());
            }
        }
    }

    /// Takes in what was said. Gives whether what is known changed.
    fn take(&self, reply: ViewReply, whole: &mut Vec<u8>) -> Result<bool, String> {
        let ViewReply { epoch, revision, what } = reply;
        let changed = match what {
            None => return Err("it says nothing".to_owned()),
            Some(What::Resumed(_)) => {
                if lock(&self.shared).go_on() {
                    self.changed.notify_one();
                }
                false
            }
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
                let view: Arc<NodeView> = Arc::new(serde_json::from_slice(&octets).map_err(|error| error.to_string())?);
                lock(&self.shared).begin(Known { epoch, revision, view });
                true
            }
            Some(What::Changes(octets)) => {
                let changes: Vec<ViewChange> = serde_json::from_slice(&octets).map_err(|error| error.to_string())?;
                // Only how far it has come: nothing to do, and not worth writing down.
                let is_news = !changes.is_empty();
                let mut shared = lock(&self.shared);
                let Shared { known, fresh, .. } = &mut *shared;
                let Some(known) = known else { return Err("changes come before the whole".to_owned()) };
                // Copied only while it is written down or taken whole.
                let view = Arc::make_mut(&mut known.view);
                let kept = fresh.has_room(changes.len()).then(|| changes.clone());
                if !changes.into_iter().all(|change| view.apply(change)) {
                    // Nothing to go on from: the next session asks for the whole.
                    known.epoch.clear();
                    return Err("changes of networks that never came".to_owned());
                }
                known.revision = revision;
                fresh.add(kept);
                is_news
            }
        };
        if changed {
            self.events.tell(Event::Desired);
        }
        Ok(changed)
    }
}

/// Says that the node lives, and how it is, until dropped. What fails here fails on the stream too, which tells.
async fn beat(mut client: Client, node: String, shared: Arc<Mutex<Shared>>, changed: Arc<Notify>) {
    loop {
        let (applied, errors) = lock(&shared).said();
        let request = BeatRequest { node: node.clone(), applied, errors };
        if let Err(status) = client.beat(request).await {
            tracing::debug!(node, %status, "a beat was not heard");
        }
        let (most, least) = BEAT;
        let rest = if applied == 0 { BEAT_EARLY } else { least };
        sleep(rest).await;
        // A beat that is due anyway is as good as one for a change.
        let _due = timeout(most - rest, changed.notified()).await;
    }
}

/// How long to wait after a session that ended, before `spread`, when the last wait was to be followed by one of `grown`.
/// What makes no sense will make none the next moment, however much of it was heard.
fn next_wait(grown: Duration, heard: bool, ended: &Ended) -> Duration {
    match ended {
        Ended::Nonsense { .. } => grown,
        Ended::Rpc(_) | Ended::Tls(_) | Ended::Closed(_) if heard => RETRY.0,
        Ended::Rpc(_) | Ended::Tls(_) | Ended::Closed(_) => grown,
    }
}

/// A factor between 0.75 and 1.25, each node its own: so a thousand agents do not come back at one instant.
fn spread(node: &str) -> f64 {
    let hash = node.bytes().fold(0_u8, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte));
    0.75 + f64::from(hash) / 510.0
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

    /// Input: a node in trouble that was told nothing yet, then its view, then another. Output: what was in the way before
    /// there was a view is not told; what is then stays until the agent says otherwise.
    #[test]
    fn trouble_counts_from_the_first_view_on() {
        let topology = crate::model::Topology::example();
        let view = Arc::new(crate::placement::view(&topology, "node1").expect("it has the node"));
        let errors = vec!["no switch".to_owned()];
        let mut shared = Shared {
            known: None,
            fresh: Fresh::Whole,
            trouble: String::new(),
            taken: 0,
            applied: 0,
            errors: errors.clone(),
        };
        assert_eq!(shared.said(), (0, Vec::new()));
        let known = |revision| Known { epoch: "one".to_owned(), revision, view: Arc::clone(&view) };
        shared.begin(known(7));
        assert_eq!(shared.said(), (0, Vec::new()));
        shared.errors.clone_from(&errors);
        shared.begin(known(9));
        assert_eq!(shared.said(), (0, errors));
    }

    /// Input: a node that is as desired at 7 and knows that nothing up to 11 was its own, or is still being made, or is to
    /// take changes; its session resumes. Output: it says 11 once, and only if nothing is left to be made.
    #[test]
    fn who_resumes_says_how_far_it_is() {
        let topology = crate::model::Topology::example();
        let view = Arc::new(crate::placement::view(&topology, "node1").expect("it has the node"));
        let made = |applied, fresh| Shared {
            known: Some(Known { epoch: "one".to_owned(), revision: 11, view: Arc::clone(&view) }),
            fresh,
            trouble: String::new(),
            taken: 7,
            applied,
            errors: Vec::new(),
        };
        let mut shared = made(7, Fresh::Changes(Vec::new()));
        assert!(shared.go_on() && !shared.go_on());
        assert_eq!((shared.taken, shared.applied), (11, 11));
        let mut shared = made(5, Fresh::Changes(Vec::new()));
        assert!(!shared.go_on(), "it is at work on 7");
        assert_eq!((shared.taken, shared.applied), (11, 5), "whose end is 11's too");
        let mut shared = made(7, Fresh::Whole);
        assert!(!shared.go_on());
        assert_eq!((shared.taken, shared.applied), (7, 7));
    }

    /// Input: ends of sessions in which something was heard, or nothing. Output: only after one that made sense the waits
    /// begin anew; a controller of another release is not asked for whole views without a pause.
    #[test]
    fn waits_begin_anew_only_after_a_session_that_made_sense() {
        let address = || Address::Unix("/run/dvr/controller.sock".into());
        let nonsense = || Ended::Nonsense { address: address(), why: "it says nothing".to_owned() };
        let long = RETRY.1;
        for (ended, heard, expected) in [
            (Ended::Closed(address()), true, RETRY.0),
            (Ended::Closed(address()), false, long),
            (nonsense(), true, long),
            (nonsense(), false, long),
        ] {
            assert_eq!(next_wait(long, heard, &ended), expected, "{ended}, heard: {heard}");
        }
    }
}
