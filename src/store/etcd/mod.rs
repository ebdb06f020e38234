//! The engine on an etcd cluster, by a client of its own: the few calls that the store needs, with a failover that knows
//! which of them may be made twice.

mod members;
mod proto;
mod watch;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::Semaphore;
use tonic::{Code, Status};

pub use self::members::Tls;
use self::members::{Again, Answered, Members};
use self::proto::kv_client::KvClient;
use self::proto::lease_client::LeaseClient;
use self::proto::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, compare, request_op, response_op,
};
pub use self::watch::EtcdWatch;
use super::StoreError;
use super::types::{
    Counters, ETCD_MOST, Expect, LeaseId, MemberState, Op, Outcome, Revision, Snapshot, Txn, VALUE_MAX, WATCHES_MAX,
    check_prefix, check_ttl,
};

/// How many entries one answer brings.
const PAGE: usize = 512;
/// The longest answer that is taken: a page of the longest values, and their keys.
const ANSWER_MAX: usize = PAGE * (VALUE_MAX + 1024);
/// How often a read begins again because its revision was compacted meanwhile.
const READS_MAX: usize = 4;

/// A store in an etcd cluster.
#[derive(Clone)]
pub struct Etcd {
    members: Arc<Members>,
    watches: Arc<Semaphore>,
}

fn op(request: request_op::Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// A transaction in etcd's words. When an expectation does not hold, the keys are read, to say which.
fn request(txn: Txn) -> TxnRequest {
    let compare = |expect: &Expect| Compare {
        result: compare::CompareResult::Equal.into(),
        target: compare::CompareTarget::Mod.into(),
        key: expect.key().into(),
        target_union: Some(compare::TargetUnion::ModRevision(match expect {
            Expect::Absent(_) => 0,
            Expect::Unchanged { modified, .. } => proto::number(*modified),
        })),
    };
    let look = |expect: &Expect| {
        let range = RangeRequest { key: expect.key().into(), keys_only: true, ..RangeRequest::default() };
        op(request_op::Request::RequestRange(range))
    };
    let change = |change: Op| match change {
        Op::Put { key, value, lease } => {
            let lease = lease.map_or(0, |lease| lease.0.cast_signed());
            op(request_op::Request::RequestPut(PutRequest { key: key.into(), value, lease }))
        }
        Op::Delete { key } => op(request_op::Request::RequestDeleteRange(DeleteRangeRequest { key: key.into() })),
    };
    TxnRequest {
        compare: txn.expect.iter().map(compare).collect(),
        failure: txn.expect.iter().map(look).collect(),
        success: txn.ops.into_iter().map(change).collect(),
    }
}

/// The first expectation that does not hold, by what a failed transaction read.
fn conflict(expect: &[Expect], response: &TxnResponse) -> Option<String> {
    let broken = expect.iter().zip(&response.responses).find(|(expect, read)| {
        let Some(response_op::Response::ResponseRange(range)) = &read.response else { return false };
        !expect.holds(range.kvs.first().map(|kv| proto::revision(kv.mod_revision)))
    });
    broken.map(|(expect, _)| expect.key().to_owned())
}

/// A lease that etcd does not know. Nothing else of ours is ever not found.
fn gone(lease: LeaseId) -> impl Fn(&Status) -> Option<StoreError> {
    move |status| (status.code() == Code::NotFound).then_some(StoreError::LeaseGone { lease })
}

impl Etcd {
    /// Within a tokio runtime: connections are made, and made again, when they are needed.
    ///
    /// # Errors
    /// An endpoint is not one, or the certificates are none.
    pub fn open(endpoints: &[String], tls: Option<&Tls>) -> Result<Self, StoreError> {
        Ok(Self { members: Arc::new(Members::new(endpoints, tls)?), watches: Arc::new(Semaphore::new(WATCHES_MAX)) })
    }

    pub(super) async fn read(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        check_prefix(prefix)?;
        let mut began = 0;
        loop {
            began += 1;
            match self.read_at_once(prefix).await {
                Err(StoreError::Compacted { .. }) if began < READS_MAX => {}
                other => return other,
            }
        }
    }

    /// Page by page, all of the first page's revision.
    async fn read_at_once(&self, prefix: &str) -> Result<Snapshot, StoreError> {
        let (mut key, range_end) = proto::range(prefix);
        let mut snapshot = Snapshot { revision: 0, entries: Vec::new() };
        loop {
            let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
            let revision = proto::number(snapshot.revision);
            let request =
                RangeRequest { key: key.clone(), range_end: range_end.clone(), limit, revision, keys_only: false };
            let Answered { endpoint, answer } = self.range(request).await?;
            if snapshot.revision == 0 {
                snapshot.revision = proto::of(answer.header.as_ref());
            }
            for kv in answer.kvs {
                let foreign = |key: Vec<u8>| StoreError::Foreign {
                    endpoint: endpoint.clone(),
                    reason: format!("a key that is no text: {}", key.escape_ascii()),
                };
                snapshot.entries.push(proto::entry(kv).map_err(foreign)?);
            }
            let Some(last) = snapshot.entries.last().filter(|_| answer.more) else { return Ok(snapshot) };
            key = last.key.clone().into_bytes();
            key.push(0);
        }
    }

    async fn range(&self, request: RangeRequest) -> Result<Answered<RangeResponse>, StoreError> {
        let after = proto::revision(request.revision);
        let ask = |channel| {
            let request = request.clone();
            let mut client = KvClient::new(channel).max_decoding_message_size(ANSWER_MAX);
            async move { client.range(request).await }
        };
        // Only a page of a revision that was read before can be compacted.
        let compacted = |status: &Status| {
            (after > 0 && status.code() == Code::OutOfRange).then_some(StoreError::Compacted { after, oldest: after })
        };
        self.members.call("read", Again::Harmless, ask, compacted).await
    }

    pub(super) async fn commit(&self, txn: Txn) -> Result<Outcome, StoreError> {
        txn.check(ETCD_MOST)?;
        let expect = txn.expect.clone();
        let lease = txn.ops.iter().find_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete { .. } => None,
        });
        let request = request(txn);
        let ask = |channel| {
            let request = request.clone();
            async move { KvClient::new(channel).txn(request).await }
        };
        let refused = |status: &Status| lease.and_then(|lease| gone(lease)(status));
        let Answered { endpoint, answer } = self.members.call("commit", Again::Never, ask, refused).await?;
        if answer.succeeded {
            self.members.commits.fetch_add(1, Relaxed);
            return Ok(Outcome::Committed(proto::of(answer.header.as_ref())));
        }
        self.members.conflicts.fetch_add(1, Relaxed);
        match conflict(&expect, &answer) {
            Some(key) => Ok(Outcome::Conflict { key }),
            None => Err(StoreError::Foreign { endpoint, reason: "it failed what it says holds".to_owned() }),
        }
    }

    pub(super) async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        check_ttl(ttl)?;
        let secs = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let request = LeaseGrantRequest { ttl: i64::try_from(secs).unwrap_or(i64::MAX) };
        let ask = |channel| async move { LeaseClient::new(channel).lease_grant(request).await };
        let Answered { endpoint, answer } = self.members.call("grant a lease", Again::Harmless, ask, |_| None).await?;
        if answer.error.is_empty() {
            Ok(LeaseId(answer.id.cast_unsigned()))
        } else {
            Err(StoreError::Refused { action: "grant a lease", endpoint, reason: answer.error })
        }
    }

    pub(super) async fn keep(&self, lease: LeaseId) -> Result<(), StoreError> {
        let request = LeaseKeepAliveRequest { id: lease.0.cast_signed() };
        let ask = |channel| async move {
            let mut client = LeaseClient::new(channel);
            // The call's own stream stays open until its one answer is here.
            let requests = tokio_stream::StreamExt::chain(tokio_stream::once(request), tokio_stream::pending());
            let mut answers = client.lease_keep_alive(requests).await?.into_inner();
            let answer = answers.message().await?;
            answer.map(tonic::Response::new).ok_or_else(|| Status::unavailable("the stream ended without an answer"))
        };
        let kept = self.members.call("keep a lease", Again::Harmless, ask, gone(lease)).await?;
        if kept.answer.ttl > 0 { Ok(()) } else { Err(StoreError::LeaseGone { lease }) }
    }

    pub(super) async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let request = LeaseRevokeRequest { id: lease.0.cast_signed() };
        let ask = |channel| async move { LeaseClient::new(channel).lease_revoke(request).await };
        self.members.call("revoke a lease", Again::Harmless, ask, gone(lease)).await.map(|_| ())
    }

    pub(super) async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let now = self.range(RangeRequest { key: vec![0], keys_only: true, ..RangeRequest::default() }).await?;
        let now = proto::of(now.answer.header.as_ref());
        if revision > now {
            return Err(StoreError::Future { asked: revision, revision: now });
        }
        let request = CompactionRequest { revision: proto::number(revision) };
        let ask = |channel| async move { KvClient::new(channel).compact(request).await };
        // Out of range, and not beyond the store's revision: it is compacted already.
        let done = |status: &Status| {
            (status.code() == Code::OutOfRange).then_some(StoreError::Compacted { after: revision, oldest: revision })
        };
        match self.members.call("compact", Again::Harmless, ask, done).await {
            Ok(_) | Err(StoreError::Compacted { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn watch(&self, prefix: &str, after: Revision) -> Result<EtcdWatch, StoreError> {
        check_prefix(prefix)?;
        let seat = Arc::clone(&self.watches).try_acquire_owned().map_err(|_| StoreError::TooMany {
            what: "watches",
            count: WATCHES_MAX + 1,
            max: WATCHES_MAX,
        })?;
        Ok(EtcdWatch::new(Arc::clone(&self.members), prefix, after, seat))
    }

    pub(super) fn members(&self) -> Vec<MemberState> {
        self.members.states()
    }

    pub(super) fn counters(&self) -> Counters {
        let members = &self.members;
        Counters {
            commits: members.commits.load(Relaxed),
            conflicts: members.conflicts.load(Relaxed),
            unknown: members.unknown.load(Relaxed),
            failovers: members.failovers.load(Relaxed),
            resumes: members.resumes.load(Relaxed),
            compacted: members.compacted.load(Relaxed),
            ..Counters::default()
        }
    }
}
