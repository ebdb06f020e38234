//! Desired state at rest: keys and octets with revisions, under two engines with one meaning.
//!
//! It owns durability, transactions, watches and leases. It refuses to know what the values say.
//!
//! - [`Embedded`]: a file of this process. The default: one controller.
//! - [`Etcd`]: an etcd cluster, shared by several controllers.
//!
//! What both promise:
//! - A [`Txn`] happens whole or not at all, and when it is acknowledged it outlives any crash. [`StoreError::Unknown`] is
//!   the one answer that leaves this open; who reads again and expects what it read cannot be overtaken by a late commit.
//! - Every commit that changes something has a [`Revision`] greater than all before it, also across restarts.
//! - A [`Watch`] delivers every revision that touches its prefix, once, in order; or says [`StoreError::Compacted`], and
//!   then it is over: read again and watch from there.
//! - A lease ends when it is not kept for its time to live, and its keys go with it, as a change that watches see. It
//!   never ends early because of a clock that is set; it may end later, by about a second, and by its full time after the
//!   store itself was away.

mod embedded;
mod error;
mod etcd;
mod types;

use std::path::Path;
use std::time::Duration;

pub use self::embedded::{Bounds, Clock, Embedded, EmbeddedWatch, Options};
pub use self::error::StoreError;
pub use self::etcd::{Etcd, EtcdWatch, Tls};
pub use self::types::{
    Batch, Change, Counters, EMBEDDED_MOST, ETCD_MOST, Entry, Expect, KEY_MAX, LEASE_TTL, LEASES_MAX, LeaseId,
    MemberState, Most, Op, Outcome, QUEUE_MAX, Revision, Snapshot, Txn, VALUE_MAX, WATCHES_MAX,
};

/// A store; clones are handles of the same one.
#[derive(Clone)]
pub enum Store {
    /// In a file of this process.
    Embedded(Embedded),
    /// In an etcd cluster.
    Etcd(Etcd),
}

impl Store {
    /// Opens a store in a file, or makes it. Blocks on the disk.
    ///
    /// # Errors
    /// Another process has it, it is of another format, or the disk fails.
    pub fn open_embedded(path: &Path) -> Result<Self, StoreError> {
        Embedded::open(path, Options::default()).map(Self::Embedded)
    }

    /// A store in an etcd cluster, within a tokio runtime; `endpoints` are `http://HOST:PORT`, or `https://` with `tls`. It
    /// connects when it is first used.
    ///
    /// # Errors
    /// An endpoint is not one, or the certificates are none.
    pub fn open_etcd(endpoints: &[String], tls: Option<&Tls>) -> Result<Self, StoreError> {
        Etcd::open(endpoints, tls).map(Self::Etcd)
    }

    /// All entries under a prefix at one instant, later than every commit that was acknowledged before the call.
    ///
    /// # Errors
    /// The engine could not read.
    pub async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        match self {
            Self::Embedded(store) => store.read(prefix).await,
            Self::Etcd(store) => store.read(prefix).await,
        }
    }

    /// Makes all changes of a transaction, or none.
    ///
    /// # Errors
    /// A limit was broken, a lease has ended or the engine failed: nothing has changed. Only after
    /// [`StoreError::Unknown`] it may have.
    pub async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        match self {
            Self::Embedded(store) => store.commit(txn).await,
            Self::Etcd(store) => store.commit(txn).await,
        }
    }

    /// Watches the changes under a prefix after a revision: one from [`Store::read`], or from [`Watch::seen`].
    ///
    /// # Errors
    /// [`WATCHES_MAX`] are open, or the prefix is too long. What else can go wrong, [`Watch::next`] says.
    pub fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        match self {
            Self::Embedded(store) => store.watch(prefix, after).map(Watch::Embedded),
            Self::Etcd(store) => store.watch(prefix, after).map(Box::new).map(Watch::Etcd),
        }
    }

    /// Grants a lease, within [`LEASE_TTL`]; the engine may round it up to whole seconds.
    ///
    /// # Errors
    /// The time is outside, there are too many, or the engine failed.
    pub async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        match self {
            Self::Embedded(store) => store.grant(ttl).await,
            Self::Etcd(store) => store.grant(ttl).await,
        }
    }

    /// Starts a lease's time again.
    ///
    /// # Errors
    /// It has ended, or the engine failed.
    pub async fn keep(&self, lease: LeaseId) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.keep(lease).await,
            Self::Etcd(store) => store.keep(lease).await,
        }
    }

    /// Ends a lease, and deletes its keys in one revision.
    ///
    /// # Errors
    /// It had ended, or the engine failed.
    pub async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.revoke(lease).await,
            Self::Etcd(store) => store.revoke(lease).await,
        }
    }

    /// Forgets the changes up to and with a revision: watches may go on after it, not before.
    ///
    /// # Errors
    /// The revision is not yet, or the engine failed.
    pub async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.compact(revision).await,
            Self::Etcd(store) => store.compact(revision).await,
        }
    }

    /// How much it takes in one transaction.
    #[must_use]
    pub fn most(&self) -> Most {
        match self {
            Self::Embedded(_) => EMBEDDED_MOST,
            Self::Etcd(_) => ETCD_MOST,
        }
    }

    /// Where it is kept, and how that is.
    #[must_use]
    pub fn members(&self) -> Vec<MemberState> {
        match self {
            Self::Embedded(store) => store.members(),
            Self::Etcd(store) => store.members(),
        }
    }

    /// What was counted since it was opened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        match self {
            Self::Embedded(store) => store.counters(),
            Self::Etcd(store) => store.counters(),
        }
    }
}

/// The changes under a prefix, in order.
pub enum Watch {
    /// Of an embedded store.
    Embedded(EmbeddedWatch),
    /// Of an etcd cluster.
    Etcd(Box<EtcdWatch>),
}

impl Watch {
    /// The next revision's changes. When the future is dropped, nothing is lost.
    ///
    /// # Errors
    /// [`StoreError::Compacted`]: what comes next is lost; read again. Others: the store is not there; the watch may be
    /// asked again, and goes on where it was.
    pub async fn next(&mut self) -> Result<Batch, StoreError> {
        match self {
            Self::Embedded(watch) => watch.next().await,
            Self::Etcd(watch) => watch.next().await,
        }
    }

    /// The revision up to which everything has been delivered; a watch after it misses nothing.
    #[must_use]
    pub fn seen(&self) -> Revision {
        match self {
            Self::Embedded(watch) => watch.seen(),
            Self::Etcd(watch) => watch.seen(),
        }
    }
}
