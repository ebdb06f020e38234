//! What goes into a store and comes out of it, and how large it may be.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::StoreError;

/// A number that grows with every commit that changes something; of the whole store, not of one key. An empty store is at
/// 1, so that 0 is before everything.
pub type Revision = u64;

/// The longest key and prefix, in octets.
pub const KEY_MAX: usize = 512;
/// The longest value, in octets.
pub const VALUE_MAX: usize = 256 * 1024;
/// How much one transaction may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Operations, and as many expectations.
    pub operations: usize,
    /// Octets of keys and values.
    pub octets: usize,
}

/// What etcd is asked for: it takes 128 operations and requests of 1.5 MiB unless it is told otherwise.
pub const ETCD_MOST: Most = Most { operations: 100, octets: 1 << 20 };
/// What the embedded store takes: its writer has nothing else to do meanwhile.
pub const EMBEDDED_MOST: Most = Most { operations: 20_000, octets: 16 << 20 };
/// The most watches open at once on one store.
pub const WATCHES_MAX: usize = 1024;
/// The most leases that the embedded store grants at once.
pub const LEASES_MAX: usize = 65_536;
/// The most requests that wait for the embedded store's writer.
pub const QUEUE_MAX: usize = 4096;
/// The shortest and the longest time to live of a lease.
pub const LEASE_TTL: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// The name of a lease: keys put under it go when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A key with what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// What was last put.
    pub value: Vec<u8>,
    /// The revision that put it.
    pub modified: Revision,
    /// The lease that it was put under.
    pub lease: Option<LeaseId>,
}

/// All entries under a prefix at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The store's revision at that instant: a watch after it misses nothing.
    pub revision: Revision,
    /// Sorted by key.
    pub entries: Vec<Entry>,
}

/// What a transaction demands of the store it finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key is not there.
    Absent(String),
    /// The key is there and was last put by this revision.
    Unchanged {
        /// The key.
        key: String,
        /// Its [`Entry::modified`].
        modified: Revision,
    },
}

impl Expect {
    /// The key that it looks at.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Absent(key) | Self::Unchanged { key, .. } => key,
        }
    }

    /// Whether a key last put at `modified`, `None` for one that is not there, is as expected.
    #[must_use]
    pub fn holds(&self, modified: Option<Revision>) -> bool {
        match self {
            Self::Absent(_) => modified.is_none(),
            Self::Unchanged { modified: expected, .. } => modified == Some(*expected),
        }
    }
}

/// One change that a transaction makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Makes or replaces an entry.
    Put {
        /// The key.
        key: String,
        /// What it shall hold.
        value: Vec<u8>,
        /// The lease that it goes with; without one it stays until it is deleted.
        lease: Option<LeaseId>,
    },
    /// Deletes an entry; where there is none, nothing happens.
    Delete {
        /// The key.
        key: String,
    },
}

impl Op {
    /// The key that it changes.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Changes that happen together, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub expect: Vec<Expect>,
    /// Each key once.
    pub ops: Vec<Op>,
}

impl Txn {
    /// Whether it keeps within what an engine takes.
    ///
    /// # Errors
    /// The limit that it breaks.
    pub fn check(&self, most: Most) -> Result<(), StoreError> {
        for (what, count) in [("expectations", self.expect.len()), ("operations", self.ops.len())] {
            if count > most.operations {
                return Err(StoreError::TooMany { what, count, max: most.operations });
            }
        }
        let mut seen = BTreeSet::new();
        let mut octets = 0;
        for key in self.expect.iter().map(Expect::key).chain(self.ops.iter().map(Op::key)) {
            check_key(key)?;
            octets += key.len();
        }
        for op in &self.ops {
            if !seen.insert(op.key()) {
                return Err(StoreError::Twice { key: op.key().to_owned() });
            }
            if let Op::Put { key, value, .. } = op {
                if value.len() > VALUE_MAX {
                    return Err(StoreError::ValueTooLong { key: key.clone(), octets: value.len() });
                }
                octets += value.len();
            }
        }
        if octets > most.octets {
            return Err(StoreError::TooMany { what: "octets of one transaction", count: octets, max: most.octets });
        }
        Ok(())
    }
}

fn check_key(key: &str) -> Result<(), StoreError> {
    if key.is_empty() || key.len() > KEY_MAX {
        return Err(StoreError::KeyLength { octets: key.len() });
    }
    Ok(())
}

/// Whether a prefix may be read or watched: the empty one means every key.
pub(super) fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    if prefix.len() > KEY_MAX {
        return Err(StoreError::KeyLength { octets: prefix.len() });
    }
    Ok(())
}

/// Whether a lease may live that long.
pub(super) fn check_ttl(ttl: Duration) -> Result<(), StoreError> {
    if LEASE_TTL.contains(&ttl) { Ok(()) } else { Err(StoreError::Ttl { ttl }) }
}

/// What became of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All its changes are made and outlive any crash. The revision is theirs; when there was nothing to change, it is the
    /// store's.
    Committed(Revision),
    /// Nothing was changed: this key, the first of the expectations, is not as expected.
    Conflict {
        /// The key.
        key: String,
    },
}

/// All changes of one revision under a watch's prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Their revision.
    pub revision: Revision,
    /// Never empty; in the transaction's order, or by key for those that went with a lease.
    pub changes: Vec<Change>,
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was put.
    Put(Entry),
    /// It was deleted, or went with its lease.
    Delete {
        /// The key.
        key: String,
    },
}

impl Change {
    /// The key that changed.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete { key } => key,
        }
    }
}

/// A place in which a store is kept, and how it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// The file, or the endpoint.
    pub at: String,
    /// Whether it answers, in words.
    pub state: String,
}

/// What a store has counted since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Transactions that committed.
    pub commits: u64,
    /// Transactions whose expectations did not hold.
    pub conflicts: u64,
    /// Commits whose fate is unknown.
    pub unknown: u64,
    /// Durable writes: several transactions may share one. Embedded only.
    pub syncs: u64,
    /// Leases that ran out. Embedded only: etcd ends its own.
    pub expired: u64,
    /// Requests refused because [`QUEUE_MAX`] waited. Embedded only.
    pub overloads: u64,
    /// Calls that went on to another endpoint. etcd only.
    pub failovers: u64,
    /// Watches that lost their stream and went on where they were. etcd only.
    pub resumes: u64,
    /// Watches told that their revisions are compacted.
    pub compacted: u64,
}
