//! What all of a controller's tasks share, and the one that follows the store.

use core::convert::Infallible;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::sleep;

use super::beats::Heard;
use super::claims::Claims;
use super::door::Places;
use super::keys;
use super::streams::Open;
use super::world::World;
use crate::store::{Expect, Op, Outcome, Snapshot, Store, StoreError, Txn};

/// How long to wait before a store that fails is asked again; each failure in a row doubles it.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// Edits that may wait for their turn to be written, of all requests together.
const EDITS_WAITING: usize = 2 * super::write::EDITS_MAX;
/// Whole views that are on their way at once: each is a copy of much that the state holds, and takes the one thread
/// milliseconds in which nobody else is heard.
const WHOLES: usize = 8;

/// Lists that are made at once: each is a copy of all that it tells, as long as it is read.
const LISTS: usize = 16;

/// What happened since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
    /// Connections open.
    pub(super) connections: u64,
    /// Those of them that have not shown who they are.
    pub(super) strangers: u64,
    /// Connections not taken because there were too many.
    pub(super) turned_away: u64,
    /// Connections ended because they did not show who they are.
    pub(super) shown_out: u64,
    /// Connections that ended before they showed who they are.
    pub(super) unknown: u64,
    /// View streams open.
    pub(super) views: u64,
    /// Watches open.
    pub(super) watches: u64,
    /// Whole views sent.
    pub(super) wholes: u64,
    /// Streams that went on from a revision.
    pub(super) resumes: u64,
    /// Streams that fell behind and started anew.
    pub(super) resets: u64,
    /// Streams that ended because their node opened another.
    pub(super) replaced: u64,
    /// Requests refused because a limit was met.
    pub(super) limited: u64,
    /// Commits that another writer overtook.
    pub(super) overtaken: u64,
    /// Claims by ports that are not entitled.
    pub(super) unentitled: u64,
    /// Claims that waited because their address had moved too often.
    pub(super) claims_delayed: u64,
    /// Claims never written because a newer one of their address came.
    pub(super) claims_outdated: u64,
}

/// What tasks share.
pub(super) struct Hub {
    pub(super) store: Store,
    world: Mutex<World>,
    counters: Mutex<Counters>,
    /// Why nobody can be served yet; `None` as soon as they can.
    absence: Mutex<Option<String>>,
    /// Held by whoever writes.
    pub(super) writers: tokio::sync::Mutex<()>,
    /// A permit for each edit that waits to be written.
    pub(super) waiting: Semaphore,
    /// A permit for each whole view on its way.
    pub(super) wholes: Semaphore,
    /// A permit for each list on its way.
    pub(super) lists: Semaphore,
    /// Addresses that ports announced.
    pub(super) claims: Claims,
    /// The places of connections.
    pub(super) places: Mutex<Places>,
    /// Each node that this controller hears.
    pub(super) heard: Mutex<BTreeMap<String, Heard>>,
    /// Each node's stream.
    pub(super) open: Mutex<BTreeMap<String, Open>>,
}

impl Hub {
    /// Of a store that was not read yet.
    pub(super) fn new(store: Store) -> Arc<Self> {
        Arc::new(Self {
            store,
            world: Mutex::new(World::new()),
            counters: Mutex::default(),
            absence: Mutex::new(Some("it has not been read yet".to_owned())),
            writers: tokio::sync::Mutex::default(),
            waiting: Semaphore::new(EDITS_WAITING),
            wholes: Semaphore::new(WHOLES),
            lists: Semaphore::new(LISTS),
            claims: Claims::default(),
            places: Mutex::default(),
            heard: Mutex::default(),
            open: Mutex::default(),
        })
    }

    /// Reads the store once.
    ///
    /// # Errors
    /// As the store says.
    pub(super) async fn open(&self) -> Result<(), StoreError> {
        let snapshot = self.read().await?;
        self.world().load(&snapshot);
        Ok(())
    }

    async fn read(&self) -> Result<Snapshot, StoreError> {
        let txn = Txn {
            expect: vec![Expect::Absent(keys::EPOCH.to_owned())],
            ops: vec![Op::Put { key: keys::EPOCH.to_owned(), value: fresh_epoch(), lease: None }],
        };
        // There already, or put by another controller at this moment: either is fine, and read below.
        match self.store.commit(txn).await {
            Ok(Outcome::Committed(_) | Outcome::Conflict { .. }) | Err(StoreError::Unknown { .. }) => {}
            Err(error) => return Err(error),
        }
        self.store.read(keys::PREFIX).await
    }

    /// Reads the store if it is there.
    ///
    /// # Errors
    /// What time does not mend.
    pub(super) async fn open_if_there(&self) -> Result<bool, StoreError> {
        match self.open().await {
            Ok(()) => Ok(true),
            Err(error @ (StoreError::Unavailable { .. } | StoreError::Unknown { .. })) => {
                if lock(&self.absence).replace(error.to_string()).is_none_or(|before| before != error.to_string()) {
                    tracing::warn!(%error, "the store is not there: waiting for it");
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the store as soon as it is there.
    ///
    /// # Errors
    /// What time does not mend.
    pub(super) async fn wait_for_store(&self) -> Result<(), StoreError> {
        let mut retry = RETRY.0;
        while !self.open_if_there().await? {
            sleep(retry).await;
            retry = (retry * 2).min(RETRY.1);
        }
        Ok(())
    }

    /// From here on everybody is served.
    pub(super) fn serve(&self) {
        *lock(&self.absence) = None;
    }

    /// Why nobody can be served yet.
    pub(super) fn absence(&self) -> Option<String> {
        lock(&self.absence).clone()
    }

    /// The state. Never held over a wait.
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    pub(super) fn counters(&self) -> Counters {
        *lock(&self.counters)
    }

    pub(super) fn counted<T>(&self, count: impl FnOnce(&mut Counters) -> T) -> T {
        count(&mut lock(&self.counters))
    }
}

/// What is locked is changed in steps that leave it whole: a task that panicked left nothing half-done.
pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A name for a new history: as the kernel makes unique ones, each read another.
fn fresh_epoch() -> Vec<u8> {
    let drawn = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    // Without it: the process and its address space, which differ enough between two stores.
    let drawn = if drawn.is_empty() { format!("{}-{:p}", std::process::id(), &raw const drawn) } else { drawn };
    drawn.trim().as_bytes().to_vec()
}

/// Follows the store for ever: every change in order, the whole again when history does not reach back far enough.
pub(super) async fn follow(hub: &Hub) -> Infallible {
    let mut retry = RETRY.0;
    loop {
        let after = hub.world().revision;
        let error = match hub.store.watch(keys::PREFIX, after) {
            Err(error) => error,
            Ok(mut watch) => loop {
                match watch.next().await {
                    Ok(batch) => {
                        hub.world().take(&batch);
                        retry = RETRY.0;
                    }
                    Err(error) => break error,
                }
            },
        };
        if matches!(error, StoreError::Compacted { .. }) {
            tracing::info!(%error, "the store's history does not reach back to what was followed: reading all of it");
            match hub.store.read(keys::PREFIX).await {
                Ok(snapshot) => {
                    hub.world().load(&snapshot);
                    continue;
                }
                Err(error) => tracing::warn!(%error, "cannot read the store; what was read is still served"),
            }
        } else {
            tracing::warn!(%error, "cannot follow the store; what was read is still served");
        }
        sleep(retry).await;
        retry = (retry * 2).min(RETRY.1);
    }
}
