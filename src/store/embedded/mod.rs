//! The embedded engine: one file, one process. What is acknowledged is on disk; a kill at any instant leaves the last
//! durable write, whole.

mod history;
mod leases;
mod tables;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use redb::{Database, DatabaseError, ReadableDatabase};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

pub use self::history::Bounds;
use self::history::{Found, History};
use self::leases::Leases;
use self::tables::{ENTRIES, FORMAT, META, Meta, Tables, lease};
use self::writer::{Answer, Request, Shared, Tally, Work, Writer};
use super::StoreError;
use super::types::{
    Batch, Counters, EMBEDDED_MOST, Entry, LeaseId, MemberState, Outcome, QUEUE_MAX, Revision, Snapshot, Txn,
    WATCHES_MAX, check_prefix, check_ttl,
};
use crate::types::Timestamp;

/// Where leases take their time from. It should not go back, and nothing breaks if it does.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The most memory that the engine caches pages in.
const CACHE: usize = 64 * 1024 * 1024;

/// How an embedded store is opened.
#[derive(Clone)]
pub struct Options {
    /// How much history watches may resume from.
    pub history: Bounds,
    /// Where leases take their time from.
    pub clock: Clock,
}

impl Default for Options {
    /// The process's monotonic clock.
    fn default() -> Self {
        Self { history: Bounds::default(), clock: Arc::new(crate::clock::monotonic) }
    }
}

/// A store in a file of this process. The last handle to go waits for the write in progress.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    database: Arc<Database>,
    path: PathBuf,
    /// `None` only while it is dropped.
    requests: Option<SyncSender<Request>>,
    writer: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    revision: watch::Receiver<Revision>,
    watches: Arc<Semaphore>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the store's writer had ended before its time");
        }
    }
}

/// What a file holds when it is opened.
struct AtRest {
    revision: Revision,
    compacted: Revision,
    last_lease: u64,
    history: Vec<Batch>,
    leases: Vec<(LeaseId, u64)>,
}

impl Embedded {
    /// Opens a store, or makes it. Blocks on the disk.
    ///
    /// # Errors
    /// Another process has it, it is of another format, or the disk fails.
    pub fn open(path: &Path, options: Options) -> Result<Self, StoreError> {
        let database = Database::builder().set_cache_size(CACHE).create(path).map_err(|error| {
            if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
                StoreError::Held { path: path.to_owned() }
            } else {
                engine("open", path, error.into())
            }
        })?;
        let found = load(&database, path)?;
        let now = (options.clock)();
        let mut history = History::new(options.history, found.compacted);
        for batch in found.history {
            history.push(Arc::new(batch), now);
        }
        let forget = history.trim(now);
        let mut leases = Leases::new(now);
        // Holders could not be heard while it was closed: their time starts again.
        for (lease, ttl_millis) in found.leases {
            leases.insert(lease, Duration::from_millis(ttl_millis));
        }
        let database = Arc::new(database);
        let shared =
            Arc::new(Shared { history: RwLock::new(history), tally: Tally::default(), failed: OnceLock::new() });
        let (sender, requests) = sync_channel(QUEUE_MAX);
        let (announce, revision) = watch::channel(found.revision);
        let writer = Writer {
            database: Arc::clone(&database),
            path: path.to_owned(),
            requests,
            shared: Arc::clone(&shared),
            revision: announce,
            last_lease: found.last_lease,
            leases,
            forget,
            clock: options.clock,
        };
        let writer = std::thread::Builder::new()
            .name("dvr-store".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::Stopped { path: path.to_owned(), reason: error.to_string() })?;
        Ok(Self(Arc::new(Inner {
            database,
            path: path.to_owned(),
            requests: Some(sender),
            writer: Some(writer),
            shared,
            revision,
            watches: Arc::new(Semaphore::new(WATCHES_MAX)),
        })))
    }

    pub(super) async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        check_prefix(prefix)?;
        let (database, path, prefix) = (Arc::clone(&self.0.database), self.0.path.clone(), prefix.to_owned());
        let read = move || snapshot(&database, &prefix).map_err(|error| engine("read", &path, error));
        tokio::task::spawn_blocking(read).await.map_err(|error| self.stopped(error.to_string()))?
    }

    pub(super) async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        txn.check(EMBEDDED_MOST)?;
        match self.ask(Work::Commit(txn)).await? {
            Answer::Outcome(outcome) => Ok(outcome),
            Answer::Lease(_) | Answer::Done => unreachable!("a transaction has an outcome"),
        }
    }

    pub(super) async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        check_ttl(ttl)?;
        match self.ask(Work::Grant(ttl)).await? {
            Answer::Lease(lease) => Ok(lease),
            Answer::Outcome(_) | Answer::Done => unreachable!("a grant makes a lease"),
        }
    }

    pub(super) async fn keep(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(Work::Keep(lease)).await.map(|_| ())
    }

    pub(super) async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(Work::Revoke(lease)).await.map(|_| ())
    }

    pub(super) async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        self.ask(Work::Compact(revision)).await.map(|_| ())
    }

    pub(super) fn watch(&self, prefix: &str, after: Revision) -> Result<EmbeddedWatch, StoreError> {
        check_prefix(prefix)?;
        let seat = Arc::clone(&self.0.watches).try_acquire_owned().map_err(|_| StoreError::TooMany {
            what: "watches",
            count: WATCHES_MAX + 1,
            max: WATCHES_MAX,
        })?;
        Ok(EmbeddedWatch {
            prefix: prefix.to_owned(),
            after,
            path: self.0.path.clone(),
            shared: Arc::clone(&self.0.shared),
            revision: self.0.revision.clone(),
            _seat: seat,
        })
    }

    pub(super) fn members(&self) -> Vec<MemberState> {
        let is_running = self.0.writer.as_ref().is_some_and(|writer| !writer.is_finished());
        let state = match self.0.shared.failed.get() {
            Some(why) => format!("takes no changes any more: {why}"),
            None if is_running => "open".to_owned(),
            None => "its writer has ended: start the controller again".to_owned(),
        };
        vec![MemberState { at: self.0.path.display().to_string(), state }]
    }

    pub(super) fn counters(&self) -> Counters {
        let tally = &self.0.shared.tally;
        Counters {
            commits: tally.commits.load(Relaxed),
            conflicts: tally.conflicts.load(Relaxed),
            unknown: tally.unknown.load(Relaxed),
            syncs: tally.syncs.load(Relaxed),
            expired: tally.expired.load(Relaxed),
            overloads: tally.overloads.load(Relaxed),
            failovers: 0,
            resumes: 0,
            compacted: tally.compacted.load(Relaxed),
        }
    }

    async fn ask(&self, work: Work) -> Result<Answer, StoreError> {
        let (reply, answer) = oneshot::channel();
        let Some(requests) = &self.0.requests else { unreachable!("the writer is asked by a handle that is alive") };
        match requests.try_send(Request { work, reply }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                self.0.shared.tally.overloads.fetch_add(1, Relaxed);
                return Err(StoreError::Overloaded { path: self.0.path.clone() });
            }
            Err(TrySendError::Disconnected(_)) => return Err(self.stopped("its writer has ended".to_owned())),
        }
        // The request was taken and its writer ended before it answered: it may have been written.
        let lost =
            |_| StoreError::Unknown { at: self.0.path.display().to_string(), reason: "its writer ended".to_owned() };
        answer.await.map_err(lost)?
    }

    fn stopped(&self, reason: String) -> StoreError {
        StoreError::Stopped { path: self.0.path.clone(), reason }
    }
}

fn engine(action: &'static str, path: &Path, source: redb::Error) -> StoreError {
    StoreError::Engine { action, path: path.to_owned(), source: Arc::new(source) }
}

fn load(database: &Database, path: &Path) -> Result<AtRest, StoreError> {
    let failed = |error: redb::Error| engine("open", path, error);
    let transaction = database.begin_write().map_err(|error| failed(error.into()))?;
    let found = {
        let mut tables = Tables::open(&transaction).map_err(failed)?;
        match tables.meta(Meta::Format).map_err(failed)? {
            None => tables.set_meta(Meta::Format, FORMAT).map_err(failed)?,
            Some(FORMAT) => {}
            Some(found) => return Err(StoreError::Format { path: path.to_owned(), found, known: FORMAT }),
        }
        AtRest {
            revision: tables.meta(Meta::Revision).map_err(failed)?.unwrap_or(1),
            compacted: tables.meta(Meta::Compacted).map_err(failed)?.unwrap_or(1),
            last_lease: tables.meta(Meta::Lease).map_err(failed)?.unwrap_or(0),
            history: tables.history().map_err(failed)?,
            leases: tables.leases().map_err(failed)?,
        }
    };
    transaction.commit().map_err(|error| failed(error.into()))?;
    Ok(found)
}

fn snapshot(database: &Database, prefix: &str) -> Result<Snapshot, redb::Error> {
    let transaction = database.begin_read()?;
    let revision = transaction.open_table(META)?.get(Meta::Revision.name())?.map_or(1, |revision| revision.value());
    let mut entries = Vec::new();
    for row in transaction.open_table(ENTRIES)?.range(prefix..)? {
        let (key, entry) = row?;
        if !key.value().starts_with(prefix) {
            break;
        }
        let (modified, number, value) = entry.value();
        entries.push(Entry { key: key.value().to_owned(), value: value.to_vec(), modified, lease: lease(number) });
    }
    Ok(Snapshot { revision, entries })
}

/// A watch on an embedded store. It holds a place in the history and no queue of its own: who is slow falls behind until
/// the history lets go, and then is told.
pub struct EmbeddedWatch {
    prefix: String,
    after: Revision,
    path: PathBuf,
    shared: Arc<Shared>,
    revision: watch::Receiver<Revision>,
    _seat: OwnedSemaphorePermit,
}

impl EmbeddedWatch {
    pub(super) fn seen(&self) -> Revision {
        self.after
    }

    pub(super) async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            self.revision.borrow_and_update();
            let found =
                self.shared.history.read().unwrap_or_else(PoisonError::into_inner).next(&self.prefix, self.after);
            match found {
                Found::Batch(batch) => {
                    self.after = batch.revision;
                    return Ok(batch);
                }
                Found::NoneUpTo(revision) => self.after = revision,
                Found::Compacted(oldest) => {
                    self.shared.tally.compacted.fetch_add(1, Relaxed);
                    return Err(StoreError::Compacted { after: self.after, oldest });
                }
            }
            if self.revision.changed().await.is_err() {
                return Err(StoreError::Stopped { path: self.path.clone(), reason: "it was closed".to_owned() });
            }
        }
    }
}
