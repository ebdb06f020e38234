//! What lies in the file: five tables, and the steps of a transaction on them.
//!
//! | Table | Key | Holds |
//! |---|---|---|
//! | `meta` | name | format, revision, compacted, last lease |
//! | `entries` | key | revision, lease (0: none), value |
//! | `history` | revision, place in it | key; lease and value when it was put |
//! | `leases` | lease | time to live, in milliseconds |
//! | `leased` | lease, key | nothing |

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::store::types::{Batch, Change, Entry, LeaseId, Op, Revision};

/// A key; its lease and value when it was put, nothing when it was deleted.
type Changed<'a> = (&'a str, Option<(u64, &'a [u8])>);

pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
pub(super) const ENTRIES: TableDefinition<'_, &str, (u64, u64, &[u8])> = TableDefinition::new("entries");
const HISTORY: TableDefinition<'_, (u64, u32), Changed<'static>> = TableDefinition::new("history");
const LEASES: TableDefinition<'_, u64, u64> = TableDefinition::new("leases");
const LEASED: TableDefinition<'_, (u64, &str), ()> = TableDefinition::new("leased");

/// The file's format; a reader of another leaves it alone.
pub(super) const FORMAT: u64 = 1;

/// A name in [`META`].
#[derive(Clone, Copy)]
pub(super) enum Meta {
    Format,
    Revision,
    Compacted,
    Lease,
}

impl Meta {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Revision => "revision",
            Self::Compacted => "compacted",
            Self::Lease => "lease",
        }
    }
}

/// All tables, open in one write transaction.
pub(super) struct Tables<'t> {
    meta: Table<'t, &'static str, u64>,
    entries: Table<'t, &'static str, (u64, u64, &'static [u8])>,
    history: Table<'t, (u64, u32), Changed<'static>>,
    leases: Table<'t, u64, u64>,
    leased: Table<'t, (u64, &'static str), ()>,
}

/// A lease as entries hold it.
fn number(lease: Option<LeaseId>) -> u64 {
    lease.map_or(0, |lease| lease.0)
}

/// The lease that an entry holds.
pub(super) fn lease(number: u64) -> Option<LeaseId> {
    (number != 0).then_some(LeaseId(number))
}

impl<'t> Tables<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            meta: transaction.open_table(META)?,
            entries: transaction.open_table(ENTRIES)?,
            history: transaction.open_table(HISTORY)?,
            leases: transaction.open_table(LEASES)?,
            leased: transaction.open_table(LEASED)?,
        })
    }

    pub(super) fn meta(&self, meta: Meta) -> Result<Option<u64>, redb::Error> {
        Ok(self.meta.get(meta.name())?.map(|value| value.value()))
    }

    pub(super) fn set_meta(&mut self, meta: Meta, value: u64) -> Result<(), redb::Error> {
        self.meta.insert(meta.name(), value)?;
        Ok(())
    }

    /// The revision that last put a key.
    pub(super) fn modified(&self, key: &str) -> Result<Option<Revision>, redb::Error> {
        Ok(self.entries.get(key)?.map(|entry| entry.value().0))
    }

    /// Makes one change; `None` when there was nothing to delete.
    pub(super) fn apply(&mut self, op: &Op, revision: Revision) -> Result<Option<Change>, redb::Error> {
        match op {
            Op::Put { key, value, lease } => {
                let before = self.entries.insert(&**key, (revision, number(*lease), &**value))?;
                let before = before.map_or(0, |entry| entry.value().1);
                self.move_lease(key, before, number(*lease))?;
                let entry = Entry { key: key.clone(), value: value.clone(), modified: revision, lease: *lease };
                Ok(Some(Change::Put(entry)))
            }
            Op::Delete { key } => {
                let Some(before) = self.entries.remove(&**key)?.map(|entry| entry.value().1) else { return Ok(None) };
                self.move_lease(key, before, 0)?;
                Ok(Some(Change::Delete { key: key.clone() }))
            }
        }
    }

    fn move_lease(&mut self, key: &str, from: u64, to: u64) -> Result<(), redb::Error> {
        if from != to && from != 0 {
            self.leased.remove((from, key))?;
        }
        if from != to && to != 0 {
            self.leased.insert((to, key), ())?;
        }
        Ok(())
    }

    /// Writes a revision's changes to the history.
    pub(super) fn remember(&mut self, batch: &Batch) -> Result<(), redb::Error> {
        for (at, change) in (0_u32..).zip(&batch.changes) {
            let row = match change {
                Change::Put(entry) => (&*entry.key, Some((number(entry.lease), &*entry.value))),
                Change::Delete { key } => (&**key, None),
            };
            self.history.insert((batch.revision, at), row)?;
        }
        Ok(())
    }

    /// Takes a revision out of the history.
    pub(super) fn forget(&mut self, batch: &Batch) -> Result<(), redb::Error> {
        for (at, _) in (0_u32..).zip(&batch.changes) {
            self.history.remove((batch.revision, at))?;
        }
        Ok(())
    }

    /// The whole history, in order.
    pub(super) fn history(&self) -> Result<Vec<Batch>, redb::Error> {
        let mut batches: Vec<Batch> = Vec::new();
        for row in self.history.iter()? {
            let (at, row) = row?;
            let (revision, _) = at.value();
            let (key, put) = row.value();
            let key = key.to_owned();
            let change = match put {
                Some((number, value)) => {
                    Change::Put(Entry { key, value: value.to_vec(), modified: revision, lease: lease(number) })
                }
                None => Change::Delete { key },
            };
            match batches.last_mut() {
                Some(last) if last.revision == revision => last.changes.push(change),
                _ => batches.push(Batch { revision, changes: vec![change] }),
            }
        }
        Ok(batches)
    }

    pub(super) fn grant(&mut self, lease: LeaseId, ttl_millis: u64) -> Result<(), redb::Error> {
        self.leases.insert(lease.0, ttl_millis)?;
        Ok(())
    }

    pub(super) fn is_granted(&self, lease: LeaseId) -> Result<bool, redb::Error> {
        Ok(self.leases.get(lease.0)?.is_some())
    }

    /// All leases with their times to live, in milliseconds.
    pub(super) fn leases(&self) -> Result<Vec<(LeaseId, u64)>, redb::Error> {
        let mut leases = Vec::new();
        for row in self.leases.iter()? {
            let (lease, ttl) = row?;
            leases.push((LeaseId(lease.value()), ttl.value()));
        }
        Ok(leases)
    }

    /// Ends a lease; its keys, in order, or `None` if it had ended.
    pub(super) fn end(&mut self, lease: LeaseId) -> Result<Option<Vec<String>>, redb::Error> {
        if self.leases.remove(lease.0)?.is_none() {
            return Ok(None);
        }
        let mut keys = Vec::new();
        for row in self.leased.range((lease.0, "")..)? {
            let (row, _) = row?;
            let (of, key) = row.value();
            if of != lease.0 {
                break;
            }
            keys.push(key.to_owned());
        }
        Ok(Some(keys))
    }
}
