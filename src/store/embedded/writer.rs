//! The one thread that writes. Whatever waits when it is free becomes one durable write: each transaction is decided on
//! what those before it left, has its own outcome and its own revision, and all are answered when the disk has them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use redb::Database;
use tokio::sync::{oneshot, watch};

use super::Clock;
use super::history::History;
use super::leases::Leases;
use super::tables::{Meta, Tables};
use crate::store::StoreError;
use crate::store::types::{Batch, LEASES_MAX, LeaseId, Op, Outcome, Revision, Txn};
use crate::types::Timestamp;

/// The most requests of one durable write.
const GROUP_MAX: usize = 256;
/// A durable write takes no more requests once it has so many octets of values.
const GROUP_OCTETS: usize = 8 * 1024 * 1024;
/// The shortest wait between two looks at the leases: one that cannot be ended is not tried without pause.
const PAUSE_MIN: Duration = Duration::from_millis(5);

/// What is asked of the writer.
pub(super) enum Work {
    Commit(Txn),
    Grant(Duration),
    Keep(LeaseId),
    Revoke(LeaseId),
    Compact(Revision),
}

/// What it answers.
#[derive(Clone)]
pub(super) enum Answer {
    Outcome(Outcome),
    Lease(LeaseId),
    Done,
}

pub(super) struct Request {
    pub(super) work: Work,
    pub(super) reply: oneshot::Sender<Result<Answer, StoreError>>,
}

impl Request {
    fn octets(&self) -> usize {
        let Work::Commit(txn) = &self.work else { return 0 };
        let octets = |op: &Op| match op {
            Op::Put { value, .. } => value.len(),
            Op::Delete { .. } => 0,
        };
        txn.ops.iter().map(octets).sum()
    }

    /// Whoever asked may have gone: then nobody wants to know.
    fn answer(self, answer: Result<Answer, StoreError>) {
        let _nobody = self.reply.send(answer);
    }
}

/// What the writer shares with those who read and watch.
pub(super) struct Shared {
    pub(super) history: RwLock<History>,
    pub(super) tally: Tally,
    /// Why nothing can be written any more, if so: after a failure the engine takes nothing until the file is opened anew.
    pub(super) failed: OnceLock<String>,
}

#[derive(Default)]
pub(super) struct Tally {
    pub(super) commits: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) syncs: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) overloads: AtomicU64,
    pub(super) compacted: AtomicU64,
}

pub(super) struct Writer {
    pub(super) database: Arc<Database>,
    pub(super) path: PathBuf,
    pub(super) requests: Receiver<Request>,
    pub(super) shared: Arc<Shared>,
    /// Tells watches that there is more; they end with it.
    pub(super) revision: watch::Sender<Revision>,
    pub(super) last_lease: u64,
    pub(super) leases: Leases,
    /// Out of the history in memory, not yet on disk.
    pub(super) forget: Vec<Arc<Batch>>,
    pub(super) clock: Clock,
}

/// A group's effects, made real only when the disk has them.
struct Draft {
    revision: Revision,
    last_lease: u64,
    batches: Vec<Arc<Batch>>,
    granted: Vec<(LeaseId, Duration)>,
    ended: BTreeSet<LeaseId>,
    expired: u64,
}

impl Writer {
    /// Until no handle is left.
    pub(super) fn run(mut self) {
        while let Some(group) = self.collect() {
            let now = (self.clock)();
            self.leases.look(now);
            // A holder that spoke in time must not lose its lease because the writer was busy: first those. Their time
            // starts at this look, not at the one before.
            let group = self.keep(group);
            let over = self.leases.over();
            if !group.is_empty() || !over.is_empty() {
                self.write(group, &over, now);
            }
        }
    }

    /// The next group, empty when only the leases want a look.
    fn collect(&mut self) -> Option<Vec<Request>> {
        let first = match self.leases.wait() {
            None => Some(self.requests.recv().ok()?),
            Some(wait) => match self.requests.recv_timeout(wait.max(PAUSE_MIN)) {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return None,
            },
        };
        let mut group: Vec<Request> = first.into_iter().collect();
        let mut octets: usize = group.iter().map(Request::octets).sum();
        while !group.is_empty() && group.len() < GROUP_MAX && octets < GROUP_OCTETS {
            let Ok(request) = self.requests.try_recv() else { break };
            octets += request.octets();
            group.push(request);
        }
        Some(group)
    }

    /// Answers what keeps leases, which the disk need not know; what remains.
    fn keep(&mut self, group: Vec<Request>) -> Vec<Request> {
        let mut rest = Vec::with_capacity(group.len());
        for request in group {
            if let Work::Keep(lease) = request.work {
                let kept =
                    if self.leases.keep(lease) { Ok(Answer::Done) } else { Err(StoreError::LeaseGone { lease }) };
                request.answer(kept);
            } else {
                rest.push(request);
            }
        }
        rest
    }

    fn write(&mut self, group: Vec<Request>, over: &[LeaseId], now: Timestamp) {
        let mut draft = Draft {
            revision: *self.revision.borrow(),
            last_lease: self.last_lease,
            batches: Vec::new(),
            granted: Vec::new(),
            ended: BTreeSet::new(),
            expired: 0,
        };
        match self.stage(&mut draft, &group, over) {
            Ok(answers) => {
                self.publish(draft, now);
                for (request, answer) in group.into_iter().zip(answers) {
                    self.tally(&answer);
                    request.answer(answer);
                }
            }
            Err(failure) => {
                tracing::error!(%failure, requests = group.len(), "a write to the store failed");
                // The first says why; those that follow, that there was one.
                self.shared.failed.get_or_init(|| failure.to_string());
                for request in group {
                    if matches!(failure, StoreError::Unknown { .. }) {
                        self.shared.tally.unknown.fetch_add(1, Relaxed);
                    }
                    request.answer(Err(failure.clone()));
                }
            }
        }
    }

    /// Writes a group; only when it returns answers does the disk have it.
    fn stage(
        &mut self,
        draft: &mut Draft,
        group: &[Request],
        over: &[LeaseId],
    ) -> Result<Vec<Result<Answer, StoreError>>, StoreError> {
        let engine = |path: &PathBuf, source: redb::Error| StoreError::Engine {
            action: "write to",
            path: path.clone(),
            source: Arc::new(source),
        };
        let transaction = self.database.begin_write().map_err(|error| engine(&self.path, error.into()))?;
        let answers = Tables::open(&transaction)
            .and_then(|mut tables| self.fill(&mut tables, draft, group, over))
            .map_err(|error| engine(&self.path, error))?;
        if draft.is_empty() && self.forget.is_empty() {
            transaction.abort().map_err(|error| engine(&self.path, error.into()))?;
            return Ok(answers);
        }
        transaction
            .commit()
            .map_err(|error| StoreError::Unknown { at: self.path.display().to_string(), reason: error.to_string() })?;
        self.forget.clear();
        self.shared.tally.syncs.fetch_add(1, Relaxed);
        Ok(answers)
    }

    fn fill(
        &mut self,
        tables: &mut Tables<'_>,
        draft: &mut Draft,
        group: &[Request],
        over: &[LeaseId],
    ) -> Result<Vec<Result<Answer, StoreError>>, redb::Error> {
        for lease in over {
            draft.end(tables, *lease)?;
            draft.expired += 1;
        }
        let mut answers = Vec::with_capacity(group.len());
        for request in group {
            answers.push(match &request.work {
                Work::Commit(txn) => draft.commit(tables, txn)?.map(Answer::Outcome),
                Work::Grant(ttl) => draft.grant(tables, *ttl, self.leases.len())?.map(Answer::Lease),
                Work::Revoke(lease) => {
                    if draft.end(tables, *lease)? {
                        Ok(Answer::Done)
                    } else {
                        Err(StoreError::LeaseGone { lease: *lease })
                    }
                }
                Work::Compact(revision) => self.compact(*revision, draft.revision).map(|()| Answer::Done),
                Work::Keep(_) => unreachable!("leases are kept before a group is written"),
            });
        }
        for batch in &draft.batches {
            tables.remember(batch)?;
        }
        for batch in &self.forget {
            tables.forget(batch)?;
        }
        tables.set_meta(Meta::Revision, draft.revision)?;
        tables.set_meta(Meta::Lease, draft.last_lease)?;
        let compacted = self.shared.history.read().unwrap_or_else(PoisonError::into_inner).compacted();
        tables.set_meta(Meta::Compacted, compacted)?;
        Ok(answers)
    }

    /// History up to the revision goes from memory at once, from the disk with this group or the next.
    fn compact(&mut self, asked: Revision, revision: Revision) -> Result<(), StoreError> {
        if asked > revision {
            return Err(StoreError::Future { asked, revision });
        }
        let gone = self.shared.history.write().unwrap_or_else(PoisonError::into_inner).compact(asked);
        self.forget.extend(gone);
        Ok(())
    }

    fn publish(&mut self, draft: Draft, now: Timestamp) {
        for (lease, ttl) in draft.granted {
            self.leases.insert(lease, ttl);
        }
        for lease in draft.ended {
            self.leases.remove(lease);
        }
        self.last_lease = draft.last_lease;
        self.shared.tally.expired.fetch_add(draft.expired, Relaxed);
        if draft.batches.is_empty() {
            return;
        }
        let mut history = self.shared.history.write().unwrap_or_else(PoisonError::into_inner);
        for batch in draft.batches {
            history.push(batch, now);
        }
        self.forget.extend(history.trim(now));
        drop(history);
        self.revision.send_replace(draft.revision);
    }

    fn tally(&self, answer: &Result<Answer, StoreError>) {
        match answer {
            Ok(Answer::Outcome(Outcome::Committed(_))) => self.shared.tally.commits.fetch_add(1, Relaxed),
            Ok(Answer::Outcome(Outcome::Conflict { .. })) => self.shared.tally.conflicts.fetch_add(1, Relaxed),
            Ok(Answer::Lease(_) | Answer::Done) | Err(_) => return,
        };
    }
}

impl Draft {
    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.granted.is_empty() && self.ended.is_empty()
    }

    fn commit(&mut self, tables: &mut Tables<'_>, txn: &Txn) -> Result<Result<Outcome, StoreError>, redb::Error> {
        for expect in &txn.expect {
            if !expect.holds(tables.modified(expect.key())?) {
                return Ok(Ok(Outcome::Conflict { key: expect.key().to_owned() }));
            }
        }
        for op in &txn.ops {
            if let Op::Put { lease: Some(lease), .. } = op
                && !tables.is_granted(*lease)?
            {
                return Ok(Err(StoreError::LeaseGone { lease: *lease }));
            }
        }
        self.apply(tables, &txn.ops)?;
        Ok(Ok(Outcome::Committed(self.revision)))
    }

    /// Makes changes, as one revision unless there are none.
    fn apply(&mut self, tables: &mut Tables<'_>, ops: &[Op]) -> Result<(), redb::Error> {
        let revision = self.revision + 1;
        let mut changes = Vec::with_capacity(ops.len());
        for op in ops {
            changes.extend(tables.apply(op, revision)?);
        }
        if !changes.is_empty() {
            self.revision = revision;
            self.batches.push(Arc::new(Batch { revision, changes }));
        }
        Ok(())
    }

    fn grant(
        &mut self,
        tables: &mut Tables<'_>,
        ttl: Duration,
        alive: usize,
    ) -> Result<Result<LeaseId, StoreError>, redb::Error> {
        let count = alive + self.granted.len() + 1;
        if count > LEASES_MAX {
            return Ok(Err(StoreError::TooMany { what: "leases", count, max: LEASES_MAX }));
        }
        self.last_lease += 1;
        let lease = LeaseId(self.last_lease);
        tables.grant(lease, u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))?;
        self.granted.push((lease, ttl));
        Ok(Ok(lease))
    }

    /// Ends a lease and deletes its keys; false if it had ended.
    fn end(&mut self, tables: &mut Tables<'_>, lease: LeaseId) -> Result<bool, redb::Error> {
        // Also one of which the disk does not know: it must not come up as over again and again.
        self.ended.insert(lease);
        let Some(keys) = tables.end(lease)? else { return Ok(false) };
        let ops: Vec<Op> = keys.into_iter().map(|key| Op::Delete { key }).collect();
        self.apply(tables, &ops)?;
        Ok(true)
    }
}
