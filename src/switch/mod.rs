//! The switch's daemon: threads that carry frames between ports and engine, and the socket they are ruled by.
//!
//! ```text
//!  clients ══ control threads ──▶ Table: ports and their descriptors ── Command ──▶ worker 0 … n
//!                    │                                                                  │
//!                    └────────────▶ Mutex<Switch>: bridges, flows ◀── on a cache miss ──┘
//! ```
//! Every descriptor is owned by a `line::Line` in one `table::Table`; workers hold it by reference count. Each
//! worker has its own queue of every line, its own cache and its own counters, so that in the steady state workers share
//! nothing that is written.

mod fast;
mod heap_sys;
mod line;
mod notices;
mod outputs;
mod routers;
mod service;
mod table;

#[cfg(test)]
mod tests;
mod worker;

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;

use crate::api::switch::CacheCounters;
use crate::control::{self, Server, ServerError};
use crate::datapath::port::{DropCounters, tap};
use crate::datapath::{LIMIT_FLOWS, Switch};
use fast::Fast;
use notices::Notices;
use routers::Watch;
use service::SwitchService;
use worker::{Stale, WorkerLink};

/// How often idle and hard timeouts are looked at.
const EXPIRY_PERIOD: Duration = Duration::from_secs(1);

/// Worker threads at most.
const WORKER_LIMIT: usize = 64;

/// What a switch is told at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchConfig {
    /// Where its socket is, `switch.sock`; made if it is not there.
    pub run_dir: PathBuf,
    /// Worker threads; by default one on up to two processors, and one each up to eight on more.
    pub workers: Option<usize>,
    /// Most flows of one bridge; by default [`LIMIT_FLOWS`].
    pub flow_limit: Option<u32>,
    /// By default [`Routed::Bypass`].
    pub routed: Routed,
}

/// The way of frames that a router's namespace would just forward.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Routed {
    /// Past the namespace, from one of its ports to another, for as long as its tables say the same.
    #[default]
    Bypass,
    /// Through it, as all others.
    Namespace,
}

impl SwitchConfig {
    /// The defaults, in this run directory.
    #[must_use]
    pub const fn new(run_dir: PathBuf) -> Self {
        Self { run_dir, workers: None, flow_limit: None, routed: Routed::Bypass }
    }

    fn workers(&self) -> usize {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        // With two processors the machines' own stacks need the other one.
        let chosen = self.workers.unwrap_or(if processors <= 2 { 1 } else { processors.min(8) });
        chosen.clamp(1, WORKER_LIMIT)
    }
}

/// Why a switch could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum SwitchdError {
    /// The run directory cannot be made.
    #[error("cannot make the run directory {}: {source}; choose another with --run-dir", path.display())]
    RunDir {
        /// The directory.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// The socket cannot be served.
    #[error(transparent)]
    Control(#[from] ServerError),
    /// A thread or its descriptors cannot be made.
    #[error("cannot start {what}: {source}")]
    Start {
        /// What it was to do.
        what: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
    /// A thread ended that must not.
    #[error("a thread of the switch died; this is a bug: please report it with the log above")]
    Died,
}

/// By endpoint, the octets of the largest packet that passes to it.
type Passing = BTreeMap<IpAddr, u32>;

/// What all threads see.
#[derive(Debug)]
struct Shared {
    switch: Mutex<Switch>,
    /// What the kernel carries out.
    fast: Arc<Fast>,
    /// Frames the ports lost, one set a worker.
    drops: Vec<DropCounters>,
    /// What flows said of frames, and nobody has heard.
    notices: Notices,
    /// What passes to tunnels' endpoints where that is less than the kernel says.
    passing: Mutex<Arc<Passing>>,
    /// Set when a thread dies.
    died: Arc<AtomicBool>,
    /// Whether frames go past routers' namespaces.
    past_routers: bool,
    /// The way to the thread that looks into routers' namespaces.
    watch: Watch,
}

impl Shared {
    fn new(flow_limit: u32, workers: usize, past_routers: bool, watch: Watch) -> Self {
        let switch = Mutex::new(Switch::with_flow_limit(flow_limit));
        let died = Arc::new(AtomicBool::new(false));
        Self {
            fast: Arc::new(Fast::new(&switch, Arc::clone(&died))),
            switch,
            drops: (0..workers).map(|_| DropCounters::default()).collect(),
            notices: Notices::default(),
            passing: Mutex::default(),
            died,
            past_routers,
            watch,
        }
    }
}

/// What a lock holds, even if a thread died holding it: the process is ending then, and says so.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the process in order if the thread that owns it panics: a switch without one of its threads would look alive.
struct Sentinel(Arc<AtomicBool>);

impl Drop for Sentinel {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
            // It fails only for lack of a process, which is this one.
            let _ = kill(Pid::this(), Signal::SIGTERM);
        }
    }
}

/// Runs a switch until SIGTERM or SIGINT. Call it before other threads exist: it blocks both signals for all.
///
/// # Errors
/// Says what kept it from starting, or what died.
pub fn run(config: SwitchConfig) -> Result<(), SwitchdError> {
    heap_sys::return_large_blocks();
    let ends = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    let start = |what| move |source| SwitchdError::Start { what, source };
    ends.thread_block().map_err(|errno| start("signal handling")(errno.into()))?;
    // With several workers a TAP takes a descriptor each: the usual soft limit would be met by some hundred ports.
    control::raise_descriptor_limit();
    let count = config.workers();
    let flow_limit = config.flow_limit.unwrap_or(LIMIT_FLOWS);
    let past_routers = config.routed == Routed::Bypass;
    let path = config.run_dir;
    let socket = path.join("switch.sock");
    std::fs::create_dir_all(&path).map_err(|source| SwitchdError::RunDir { path, source })?;
    let server = Server::bind(&socket)?;

    let watch = Watch::new().map_err(start("the watch over routers"))?;
    let shared = Arc::new(Shared::new(flow_limit, count, past_routers, watch));
    let mut links = Vec::with_capacity(count);
    let mut threads = Vec::with_capacity(count);
    for index in 0..count {
        let (link, thread) = worker::spawn(index, &shared).map_err(start("a worker"))?;
        links.push(link);
        threads.push(thread);
    }
    let links: Arc<[WorkerLink]> = links.into();
    let stopper = server.stopper();
    let control = serve(server, &shared, &links).map_err(start("the control socket"))?;
    let watch = routers::spawn(&shared).map_err(start("the watch over routers"))?;
    let (stop, stopped) = mpsc::channel();
    let expiry = expire(stopped, &shared, &links).map_err(start("expiry"))?;

    let tap = tap::probe();
    tracing::info!(socket = %socket.display(), workers = count, tap = tap.as_deref().unwrap_or("yes"), "the switch runs");
    let ended = ends.wait();
    tracing::info!(signal = ?ended.ok(), "the switch ends");
    stopper.stop();
    shared.watch.stop();
    shared.fast.stop();
    drop(stop);
    for link in links.iter() {
        link.stop();
    }
    let mut died = shared.died.load(Ordering::SeqCst);
    for thread in threads {
        died |= thread.join().is_err();
    }
    died |= expiry.join().is_err() | watch.join().is_err();
    match control.join() {
        Ok(served) => served?,
        Err(_) => died = true,
    }
    if died { Err(SwitchdError::Died) } else { Ok(()) }
}

/// Brings the switch's counters up to date with workers and kernel; tells what the workers' caches count.
fn refresh(shared: &Shared, links: &[WorkerLink]) -> Result<CacheCounters, Stale> {
    let counters = worker::refresh(links)?;
    shared.fast.refresh(&shared.switch, crate::clock::monotonic());
    Ok(counters)
}

/// The thread that answers on the control socket.
fn serve(
    server: Server,
    shared: &Arc<Shared>,
    links: &Arc<[WorkerLink]>,
) -> io::Result<JoinHandle<Result<(), ServerError>>> {
    let service = Arc::new(SwitchService::new(Arc::clone(shared), Arc::clone(links)));
    let sentinel = Sentinel(Arc::clone(&shared.died));
    let serve = move || {
        let _sentinel = sentinel;
        let served = server.serve(&service);
        if served.is_err() {
            // Nobody could rule it any more: it ends, and says why.
            let _ = kill(Pid::this(), Signal::SIGTERM);
        }
        served
    };
    thread::Builder::new().name("accept".to_owned()).spawn(serve)
}

/// The thread that ends flows and stations when their time has come, until `stopped` has no other end.
fn expire(stopped: Receiver<()>, shared: &Arc<Shared>, links: &Arc<[WorkerLink]>) -> io::Result<JoinHandle<()>> {
    let sentinel = Sentinel(Arc::clone(&shared.died));
    let (shared, links) = (Arc::clone(shared), Arc::clone(links));
    let expire = move || {
        let _sentinel = sentinel;
        while stopped.recv_timeout(EXPIRY_PERIOD) == Err(RecvTimeoutError::Timeout) {
            // By counters that are not up to date, flows in use would seem idle.
            match refresh(&shared, &links) {
                Ok(_) => {
                    lock(&shared.switch).expire(crate::clock::monotonic());
                    shared.fast.revalidate();
                }
                Err(stale) => tracing::warn!(%stale, "nothing expires in this round"),
            }
        }
    };
    thread::Builder::new().name("expiry".to_owned()).spawn(expire)
}
