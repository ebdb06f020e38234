//! What all of a controller's tasks share, and the one that follows the store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::sleep;

use super::keys;
use super::world::World;
use crate::store::{Expect, LeaseId, Op, Outcome, Store, StoreError, Txn};

/// How long to wait before a store that fails is asked again; each failure in a row doubles it.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// What happened since the start.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counters {
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
    /// Requests refused because a limit was met.
    pub(super) limited: u64,
    /// Commits that another writer overtook.
    pub(super) overtaken: u64,
    /// Claims by ports that are not entitled.
    pub(super) unentitled: u64,
}

/// What tasks share.
pub(super) struct Hub {
    pub(super) store: Store,
    world: Mutex<World>,
    counters: Mutex<Counters>,
    /// Held by whoever writes.
    pub(super) writers: tokio::sync::Mutex<()>,
    /// The lease of each node that this controller hears.
    pub(super) leases: Mutex<BTreeMap<String, LeaseId>>,
}

impl Hub {
    /// Reads the store once.
    ///
    /// # Errors
    /// As the store says.
    pub(super) async fn open(store: Store) -> Result<Arc<Self>, StoreError> {
        let txn = Txn {
            expect: vec![Expect::Absent(keys::EPOCH.to_owned())],
            ops: vec![Op::Put { key: keys::EPOCH.to_owned(), value: fresh_epoch(), lease: None }],
        };
        // There already, or put by another controller at this moment: either is fine, and read below.
        match store.commit(txn).await {
            Ok(Outcome::Committed(_) | Outcome::Conflict { .. }) | Err(StoreError::Unknown { .. }) => {}
            Err(error) => return Err(error),
        }
        let snapshot = store.read(keys::PREFIX).await?;
        let mut world = World::new();
        world.load(&snapshot);
        Ok(Arc::new(Self {
            store,
            world: Mutex::new(world),
            counters: Mutex::default(),
            writers: tokio::sync::Mutex::default(),
            leases: Mutex::default(),
        }))
    }

    /// The state. Never held over a wait.
    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counters(&self) -> Counters {
        *self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn counted<T>(&self, count: impl FnOnce(&mut Counters) -> T) -> T {
        count(&mut self.counters.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A name for a new history: as the kernel makes unique ones, each read another.
fn fresh_epoch() -> Vec<u8> {
    let drawn = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    // Without it: the process and its address space, which differ enough between two stores.
    let drawn = if drawn.is_empty() { format!("{}-{:p}", std::process::id(), &raw const drawn) } else { drawn };
    drawn.trim().as_bytes().to_vec()
}

/// Follows the store for ever: every change in order, the whole again when history does not reach back far enough.
pub(super) async fn follow(hub: &Hub) {
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
