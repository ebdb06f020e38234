//! Keeps the switch's picture of routers' namespaces true: one thread that listens in each of them and looks again when
//! something changed.
//!
//! What becomes of neighbours is taken over as it is told. Anything else has nothing go past the namespace until it was
//! looked into whole again, which is at once, or [`QUIET`] and [`QUIET_LOOKS`] after the last time. Rules of iptables are told by nobody: for
//! those it looks every [`LOOK_EVERY`], and also for namespaces that are gone or are others by now.

mod observe;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use netlink_sys::Socket;
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Sentinel, Shared, lock};
use crate::clock;
use crate::datapath::router::{Closed, NeighbourUpdate};
use crate::netlink::{Connection, filter, monitor};
use crate::types::Timestamp;

/// How often is looked for what nobody tells.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The least time between two looks into one namespace: many changes at once cost one or two.
const QUIET: Duration = Duration::from_millis(20);
/// The same as a multiple of what the last look took: while thousands of neighbours are written, more than the kernel
/// tells without loss, whoever writes them needs the processor.
const QUIET_LOOKS: u32 = 8;
/// Descriptors told ready by one wait.
const EVENT_LIMIT: usize = 64;
/// What stands for the wake-up among events; namespaces have numbers of their own.
const WAKE: u64 = u64::MAX;

/// The way to the thread.
#[derive(Debug)]
pub(super) struct Watch {
    wake: EventFd,
    stops: AtomicBool,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { wake, stops: AtomicBool::new(false) })
    }

    /// Has it look at which routers there are.
    pub(super) fn look(&self) {
        // It fails only if so many asked before that it wakes anyway.
        let _ = self.wake.write(1);
    }

    pub(super) fn stop(&self) {
        self.stops.store(true, Ordering::SeqCst);
        self.look();
    }
}

/// Starts the thread.
pub(super) fn spawn(shared: &Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&shared.watch.wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
    let shared = Arc::clone(shared);
    let watch = move || {
        let _sentinel = Sentinel(Arc::clone(&shared.died));
        let buffer = vec![0; monitor::DATAGRAM_OCTETS];
        Watcher {
            shared,
            epoll,
            spaces: BTreeMap::new(),
            has_routers: false,
            next: 0,
            looked: Timestamp::ZERO,
            buffer,
        }
        .run();
    };
    thread::Builder::new().name("routers".to_owned()).spawn(watch)
}

/// A namespace that is listened in.
struct Space {
    number: u64,
    netns: File,
    connection: Connection,
    told: Socket,
    /// Tells of nftables, on kernels that have them.
    filters: Option<Socket>,
    /// Whether there were tables of iptables.
    tables: bool,
    /// When it was last looked into, how long that took, and when it is to be looked into next.
    seen: Timestamp,
    took: Duration,
    due: Option<Timestamp>,
}

/// Why a namespace cannot be watched.
#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("cannot enter it: {0}")]
    Enter(#[source] io::Error),
    #[error(transparent)]
    Netlink(#[from] crate::netlink::Error),
    #[error("cannot wait for it: {0}")]
    Wait(#[source] io::Error),
}

/// Moves the calling thread, which nobody but this module uses, into a namespace.
fn enter(netns: &File) -> Result<(), WatchError> {
    setns(netns, CloneFlags::CLONE_NEWNET).map_err(|errno| WatchError::Enter(errno.into()))
}

/// Which namespace a path or a descriptor stands for.
fn identity(found: io::Result<fs::Metadata>) -> Option<(u64, u64)> {
    found.ok().map(|found| (found.dev(), found.ino()))
}

impl Space {
    fn open(path: &Path, number: u64, epoll: &Epoll) -> Result<Self, WatchError> {
        let netns = File::open(path).map_err(WatchError::Enter)?;
        enter(&netns)?;
        // Listening before looking: what changes meanwhile is heard afterwards.
        let told = monitor::forwarding_socket()?;
        let filters = filter::socket()?;
        let connection = Connection::open()?;
        let wait = |socket: &Socket| epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, number));
        [Some(&told), filters.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(wait)
            .map_err(|errno| WatchError::Wait(errno.into()))?;
        let due = Some(Timestamp::ZERO);
        let (seen, took) = (Timestamp::ZERO, Duration::ZERO);
        Ok(Self { number, netns, connection, told, filters, tables: false, seen, took, due })
    }

    /// Reads what it was told. Returns the neighbours that changed, or `None` if anything else did.
    fn read(&mut self, buffer: &mut [u8]) -> Option<Vec<NeighbourUpdate>> {
        let mut updates = Some(Vec::new());
        let heard = monitor::read(&self.told, buffer, |message| match observe::heard(message.as_ref()) {
            observe::Heard::Neighbour(update) => {
                if let Some(updates) = &mut updates {
                    updates.push(update);
                }
            }
            observe::Heard::Nothing => {}
            observe::Heard::Change => updates = None,
        });
        let filters = self.filters.as_ref().is_some_and(|socket| is_told(socket, buffer));
        if heard.is_err() || filters { None } else { updates }
    }
}

/// Whether anything waits at a socket, which is read empty, up to a limit.
fn is_told(socket: &Socket, buffer: &mut [u8]) -> bool {
    for read in 0..monitor::DRAIN_MAX {
        match socket.recv(&mut &mut buffer[..], 0) {
            Err(error) if error.raw_os_error() == Some(Errno::EAGAIN as i32) => return read > 0,
            // What was lost was something.
            Ok(_) | Err(_) => {}
        }
    }
    true
}

struct Watcher {
    shared: Arc<Shared>,
    epoll: Epoll,
    spaces: BTreeMap<PathBuf, Space>,
    /// Whether there is any namespace to be listened in, open or not.
    has_routers: bool,
    next: u64,
    /// When it last looked for what nobody tells.
    looked: Timestamp,
    buffer: Vec<u8>,
}

impl Watcher {
    fn run(&mut self) {
        let mut events = [EpollEvent::empty(); EVENT_LIMIT];
        while !self.shared.watch.stops.load(Ordering::SeqCst) {
            let ready = match self.epoll.wait(&mut events, self.patience(clock::monotonic())) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(errno) => unreachable!("an epoll descriptor and its array are always good: {errno}"),
            };
            let now = clock::monotonic();
            let told: Vec<u64> = events[..ready].iter().map(EpollEvent::data).collect();
            if told.contains(&WAKE) {
                let _ = self.shared.watch.wake.read();
            }
            if told.contains(&WAKE) || now.since(self.looked) >= LOOK_EVERY {
                self.looked = now;
                self.look(now);
            }
            self.hear(&told, now);
            self.catch_up(now);
        }
    }

    /// How long to wait at most.
    fn patience(&self, now: Timestamp) -> EpollTimeout {
        if !self.has_routers {
            return EpollTimeout::NONE;
        }
        let due = self.spaces.values().filter_map(|space| space.due);
        let next = due.chain([self.looked + LOOK_EVERY]).min().unwrap_or(now);
        // A part of a millisecond is waited for whole.
        let millis = next.since(now).as_micros().div_ceil(1000);
        EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::ZERO)
    }

    /// Looks which namespaces there are to be listened in, and for what nobody tells of them.
    fn look(&mut self, now: Timestamp) {
        let wanted = lock(&self.shared.switch).router_namespaces();
        self.has_routers = !wanted.is_empty();
        self.spaces.retain(|path, _| wanted.contains(path));
        for path in wanted {
            let there = identity(fs::metadata(&path));
            if self.spaces.get(&path).is_some_and(|space| identity(space.netns.metadata()) != there) {
                self.spaces.remove(&path);
            }
            match self.spaces.get_mut(&path) {
                Some(space) => {
                    if enter(&space.netns).is_ok() && observe::has_xtables() != space.tables {
                        space.due.get_or_insert(now);
                    }
                }
                None => self.open(path, there.is_some()),
            }
        }
    }

    fn open(&mut self, path: PathBuf, is_there: bool) {
        let number = self.next;
        self.next += 1;
        let opened = is_there.then(|| Space::open(&path, number, &self.epoll));
        match opened {
            Some(Ok(space)) => {
                self.spaces.insert(path, space);
            }
            // It is tried again with the next look.
            Some(Err(error)) => {
                tracing::warn!(netns = %path.display(), %error, "nothing goes past this router");
                lock(&self.shared.switch).observe_router(&path, Err(Closed::Gone));
            }
            None => lock(&self.shared.switch).observe_router(&path, Err(Closed::Gone)),
        }
    }

    /// Reads what namespaces tell.
    fn hear(&mut self, told: &[u64], now: Timestamp) {
        for (path, space) in self.spaces.iter_mut().filter(|(_, space)| told.contains(&space.number)) {
            match space.read(&mut self.buffer) {
                Some(updates) if updates.is_empty() => {}
                Some(updates) => lock(&self.shared.switch).observe_neighbours(path, &updates),
                None => {
                    lock(&self.shared.switch).observe_router(path, Err(Closed::Changing));
                    let quiet = QUIET.max(space.took * QUIET_LOOKS).min(LOOK_EVERY);
                    space.due.get_or_insert_with(|| now.max(space.seen + quiet));
                }
            }
        }
    }

    /// Looks into the namespaces whose time has come.
    fn catch_up(&mut self, now: Timestamp) {
        for (path, space) in &mut self.spaces {
            if space.due.is_none_or(|due| due > now) {
                continue;
            }
            space.seen = now;
            space.due = None;
            let found = enter(&space.netns).and_then(|()| {
                space.tables = observe::has_xtables();
                Ok(observe::observe(&mut space.connection, space.tables)?)
            });
            let model = found.unwrap_or_else(|error| {
                tracing::warn!(netns = %path.display(), %error, "nothing goes past this router until it can be looked into");
                space.due = Some(now + LOOK_EVERY);
                Err(Closed::Gone)
            });
            space.took = clock::monotonic().since(now);
            lock(&self.shared.switch).observe_router(path, model);
        }
    }
}
