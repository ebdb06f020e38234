//! Why a store did not do as asked.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::types::{KEY_MAX, LEASE_TTL, LeaseId, QUEUE_MAX, Revision, VALUE_MAX};

/// Why a store did not do as asked. Unless it says otherwise, nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// A key or prefix of a length that none may have.
    #[error("a key of {octets} octets: keys have 1 to {KEY_MAX}; shorten the name")]
    KeyLength {
        /// Its length.
        octets: usize,
    },
    /// A value that is too long.
    #[error("the value of {key} has {octets} octets: {VALUE_MAX} are the most; split the object")]
    ValueTooLong {
        /// The key.
        key: String,
        /// Its value's length.
        octets: usize,
    },
    /// A count above its limit.
    #[error("{count} {what}: {max} are the most; use fewer, or several transactions")]
    TooMany {
        /// What was counted.
        what: &'static str,
        /// How many there would be.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A transaction changes a key twice.
    #[error("a transaction changes {key} twice: join the two changes")]
    Twice {
        /// The key.
        key: String,
    },
    /// A lease shorter or longer than any may be.
    #[error("a lease of {ttl:?}: leases live {:?} to {:?}", LEASE_TTL.start(), LEASE_TTL.end())]
    Ttl {
        /// What was asked for.
        ttl: Duration,
    },
    /// The lease has ended, or never was: its keys are gone.
    #[error("lease {lease} has ended: grant another and put its keys again")]
    LeaseGone {
        /// The lease.
        lease: LeaseId,
    },
    /// The changes after this revision are no longer all kept.
    #[error("changes after revision {after} are kept from {oldest} on: read again, and watch from there")]
    Compacted {
        /// Where the watch was to go on.
        after: Revision,
        /// The first revision after which all is kept.
        oldest: Revision,
    },
    /// A revision that is not yet.
    #[error("revision {asked} is not yet: the store is at {revision}")]
    Future {
        /// What was asked for.
        asked: Revision,
        /// The store's.
        revision: Revision,
    },
    /// A commit that may or may not have happened, or may still happen: the only failure of a commit that is not certain.
    #[error("whether {at} committed is unknown: {reason}; read again before deciding")]
    Unknown {
        /// Path or endpoint.
        at: String,
        /// What went wrong.
        reason: String,
    },
    /// Too many requests wait.
    #[error("{QUEUE_MAX} requests wait for {}: try again when some are answered", path.display())]
    Overloaded {
        /// The store's file.
        path: PathBuf,
    },
    /// Another process has the file.
    #[error("cannot open {}: another process has it open; stop the other controller, or talk to it", path.display())]
    Held {
        /// The store's file.
        path: PathBuf,
    },
    /// The file is of a version that this program does not know.
    #[error("cannot open {}: it has format {found}, this program knows {known}; use the program that wrote it", path.display())]
    Format {
        /// The store's file.
        path: PathBuf,
        /// What it says.
        found: u64,
        /// What is known.
        known: u64,
    },
    /// The embedded engine failed.
    #[error("cannot {action} {}: {source}; see to disk space and permissions, then start again", path.display())]
    Engine {
        /// What was attempted.
        action: &'static str,
        /// The store's file.
        path: PathBuf,
        /// What the engine said.
        source: Arc<redb::Error>,
    },
    /// A thread of the store could not start, or has ended.
    #[error("the store {} is not running: {reason}; start the controller again", path.display())]
    Stopped {
        /// The store's file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No endpoint is given, or one that is none.
    #[error("cannot use `{endpoint}` as an etcd endpoint: {reason}; give http://HOST:PORT or https://HOST:PORT")]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// No endpoint answered in time.
    #[error("cannot {action} in etcd: {last} (the last of {tried} attempts); see to its members and the way there")]
    Unavailable {
        /// What was attempted.
        action: &'static str,
        /// How often.
        tried: usize,
        /// Endpoint and cause of the last failure.
        last: String,
    },
    /// etcd refused, and would again.
    #[error("cannot {action} at {endpoint}: {reason}")]
    Refused {
        /// What was attempted.
        action: &'static str,
        /// The member that refused.
        endpoint: String,
        /// Its words.
        reason: String,
    },
    /// etcd said what its protocol does not allow, or holds keys of someone else.
    #[error("cannot understand the answer of {endpoint}: {reason}; is something else writing under this prefix?")]
    Foreign {
        /// The member that answered.
        endpoint: String,
        /// What is wrong.
        reason: String,
    },
}
