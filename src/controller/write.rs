//! Writing desired state: check and allocate against what is followed, commit if nobody wrote meanwhile, else again.
//!
//! Every write expects `serial` as it was followed and puts it anew, so that writers of all controllers follow each
//! other and what was checked still holds when it is committed. Only a revision that the asking side names makes a
//! conflict that it is told of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::hub::Hub;
use super::keys;
use crate::model::{Change, Edit, Fabric, Kind, Object, Refusal, Resource, Underlay};
use crate::store::{Expect, Op, Outcome, Revision, StoreError, Txn};
use crate::types::Mac;

/// How often a write is tried while others overtake it.
const TRIES: usize = 32;
/// Operations and octets of one transaction that are the objects': the rest of what a store takes is for the others.
const PART: (usize, usize) = (80, 512 << 10);
/// How long what was committed may take to come back as a change.
const ECHO_LIMIT: Duration = Duration::from_secs(5);
/// Edits of one request at most.
pub(super) const EDITS_MAX: usize = 200_000;

/// One change that was made, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Made {
    pub(super) object: Object,
    pub(super) before: Option<Resource>,
    pub(super) after: Option<Resource>,
}

/// What a request came to.
#[derive(Debug, Default)]
pub(super) struct Applied {
    /// The revision at which all of it is there.
    pub(super) revision: Revision,
    pub(super) made: Vec<Made>,
}

/// What is asked for.
#[derive(Debug, Default)]
pub(super) struct Wish {
    pub(super) edits: Vec<Edit>,
    pub(super) underlay: Option<Underlay>,
}

/// Why nothing was written, or not all.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    #[error("{}", refused(.0))]
    Refused(Refusal),
    #[error("{object} {}, not at revision {asked} as you last saw it: read it again and make your change to that", changed(.found))]
    Stale { object: Object, asked: Revision, found: Option<Revision> },
    #[error("the underlay is {} with an MTU of {}: it can be set only before there is a node, network, router or port", .0.cidr, .0.mtu)]
    Underlay(Underlay),
    #[error("other writers were first {TRIES} times in a row{}: apply it again", partly(.done))]
    Overtaken { done: usize },
    #[error("{source}{}", partly(.done))]
    Store { source: StoreError, done: usize },
    #[error("what was committed has not come back from the store for {} s{}: see to the store, and read again", ECHO_LIMIT.as_secs(), partly(.done))]
    Silent { done: usize },
    #[error("{edits} edits in one request: {EDITS_MAX} are the most; apply them in parts")]
    TooMany { edits: usize },
}

fn refused(refusal: &Refusal) -> String {
    let count = refusal.problems.len() + refusal.untold;
    format!(
        "nothing was changed: {count} {} wrong with what was asked for",
        if count == 1 { "thing is" } else { "things are" }
    )
}

fn changed(found: &Option<Revision>) -> String {
    match found {
        Some(revision) => format!("was last changed at revision {revision}"),
        None => "is not there".to_owned(),
    }
}

fn partly(done: &usize) -> String {
    if *done == 0 { String::new() } else { format!("; {done} changes were made before, each whole") }
}

/// What is to be committed, made against one state.
struct Plan {
    made: Vec<Made>,
    changes: Vec<Change>,
    underlay: Option<Underlay>,
    serial: Option<Revision>,
    /// Revisions that the asking side named.
    named: BTreeMap<Object, Option<Revision>>,
    revision: Revision,
}

/// Makes a wish true, or only tells what that would take.
///
/// # Errors
/// [`WriteError`] says whether something of it was done.
pub(super) async fn apply(hub: &Hub, wish: &Wish, dry_run: bool) -> Result<Applied, WriteError> {
    if wish.edits.len() > EDITS_MAX {
        return Err(WriteError::TooMany { edits: wish.edits.len() });
    }
    // Writers of this controller wait for each other instead of overtaking each other.
    let _turn = hub.writers.lock().await;
    let mut all: Vec<Made> = Vec::new();
    let mut done: BTreeSet<Object> = BTreeSet::new();
    let mut reached = 0;
    for _ in 0..TRIES {
        let mut pulse = hub.world().pulse();
        let plan = plan(hub, wish, &done)?;
        if dry_run || (plan.changes.is_empty() && plan.underlay.is_none()) {
            all.extend(plan.made);
            return Ok(Applied { revision: reached.max(plan.revision), made: all });
        }
        let from = plan.revision;
        let (committed, whole) = commit(hub, plan, &mut done, &mut all).await?;
        reached = reached.max(committed);
        if whole {
            follow(&mut pulse, reached).await.map_err(|_| WriteError::Silent { done: done.len() })?;
            return Ok(Applied { revision: reached, made: all });
        }
        hub.counted(|counters| counters.overtaken += 1);
        // Who overtook us comes by the same way as everything.
        follow(&mut pulse, reached.max(from + 1)).await.map_err(|_| WriteError::Silent { done: done.len() })?;
    }
    Err(WriteError::Overtaken { done: done.len() })
}

/// Waits until the store was followed to a revision.
async fn follow(pulse: &mut tokio::sync::watch::Receiver<Revision>, revision: Revision) -> Result<(), ()> {
    let waited = timeout(ECHO_LIMIT, pulse.wait_for(|at| *at >= revision)).await;
    waited.map_err(drop)?.map(drop).map_err(drop)
}

fn plan(hub: &Hub, wish: &Wish, done: &BTreeSet<Object>) -> Result<Plan, WriteError> {
    let world = hub.world();
    let mut named = BTreeMap::new();
    for edit in &wish.edits {
        let (Edit::Put { revision, .. } | Edit::Delete { revision, .. }) = edit;
        let object = edit.object();
        if let Some(asked) = *revision
            && !done.contains(&object)
        {
            let found = world.changed(&object);
            if found.unwrap_or(0) != asked {
                return Err(WriteError::Stale { object, asked, found });
            }
            named.insert(object, found);
        }
    }
    let underlay = wish.underlay.as_ref().filter(|underlay| *underlay != world.fabric.underlay()).cloned();
    let changes = match &underlay {
        None => world.fabric.plan(&wish.edits),
        Some(_) if Kind::ALL.iter().any(|kind| world.fabric.count(*kind) > 0) => {
            return Err(WriteError::Underlay(world.fabric.underlay().clone()));
        }
        Some(underlay) => Fabric::new(underlay.clone()).plan(&wish.edits),
    };
    let changes = changes.map_err(WriteError::Refused)?;
    let made = |change: &Change| {
        let object = change.object();
        let before = world.fabric.get(&object);
        let after = match change {
            Change::Put(resource) => Some(resource.clone()),
            Change::Delete(_) => None,
        };
        Made { object, before, after }
    };
    let made = changes.iter().map(made).collect();
    Ok(Plan { made, changes, underlay, serial: world.serial, named, revision: world.revision })
}

/// Commits a plan in parts. Gives the last revision, and whether all of it is there; not all, if somebody else wrote.
async fn commit(
    hub: &Hub,
    plan: Plan,
    done: &mut BTreeSet<Object>,
    all: &mut Vec<Made>,
) -> Result<(Revision, bool), WriteError> {
    let Plan { made, changes, underlay, mut serial, named, revision } = plan;
    let mut reached = revision;
    let mut rest = made.into_iter().zip(changes).peekable();
    let mut opening: Vec<Op> = Vec::new();
    if let Some(underlay) = &underlay {
        let value = serde_json::to_vec(underlay).unwrap_or_default();
        opening.push(Op::Put { key: keys::UNDERLAY.to_owned(), value, lease: None });
    }
    loop {
        let mut txn =
            Txn { expect: vec![as_followed(keys::SERIAL.to_owned(), serial)], ops: core::mem::take(&mut opening) };
        let mut part = Vec::new();
        let mut octets = 0;
        while txn.ops.len() < PART.0 && txn.expect.len() < PART.0 && octets < PART.1 {
            let Some((made, change)) = rest.next() else { break };
            if let Some(found) = named.get(&made.object) {
                txn.expect.push(as_followed(keys::object(&made.object), *found));
            }
            octets += add(&mut txn, &made, &change);
            part.push(made);
        }
        if txn.ops.is_empty() {
            return Ok((reached, true));
        }
        txn.ops.push(Op::Put { key: keys::SERIAL.to_owned(), value: b"{}".to_vec(), lease: None });
        match hub.store.commit(txn).await {
            Ok(Outcome::Committed(revision)) => {
                (reached, serial) = (revision, Some(revision));
                done.extend(part.iter().map(|made| made.object.clone()));
                all.append(&mut part);
            }
            Ok(Outcome::Conflict { key }) => {
                tracing::debug!(key, "another writer was first");
                return Ok((reached, false));
            }
            Err(StoreError::Unknown { at, reason }) => {
                tracing::info!(at, reason, "a commit's fate is unknown: looking");
                return look(hub, part, (done, all)).await.map(|revision| (revision, false));
            }
            Err(source) => return Err(WriteError::Store { source, done: done.len() }),
        }
        if rest.peek().is_none() {
            return Ok((reached, true));
        }
    }
}

/// What became of a commit: the store is read, which settles it, and the next try goes from there.
async fn look(
    hub: &Hub,
    part: Vec<Made>,
    (done, all): (&mut BTreeSet<Object>, &mut Vec<Made>),
) -> Result<Revision, WriteError> {
    let mut reached = 0;
    let mut there = true;
    for made in &part {
        let key = keys::object(&made.object);
        let found = hub.store.read(&key).await;
        let found = found.map_err(|source| WriteError::Store { source, done: done.len() })?;
        reached = found.revision;
        let entry = found.entries.iter().find(|entry| entry.key == key);
        there &= entry.map(|entry| entry.value.as_slice()) == made.after.as_ref().map(keys::value).as_deref();
    }
    if there {
        done.extend(part.iter().map(|made| made.object.clone()));
        all.extend(part);
    }
    Ok(reached)
}

fn as_followed(key: String, modified: Option<Revision>) -> Expect {
    match modified {
        Some(modified) => Expect::Unchanged { key, modified },
        None => Expect::Absent(key),
    }
}

/// Adds one change's operations. Gives the octets they take.
fn add(txn: &mut Txn, made: &Made, change: &Change) -> usize {
    let key = keys::object(&made.object);
    let (had, has) = (made.before.as_ref().and_then(host_mac), made.after.as_ref().and_then(host_mac));
    if had != has {
        txn.ops.extend(had.map(|mac| Op::Delete { key: keys::host_mac(mac) }));
        if let Some(mac) = has {
            txn.expect.push(Expect::Absent(keys::host_mac(mac)));
            let value = made.object.name.clone().into_bytes();
            txn.ops.push(Op::Put { key: keys::host_mac(mac), value, lease: None });
        }
    }
    match change {
        Change::Put(resource) => {
            let value = keys::value(resource);
            let octets = key.len() + value.len();
            txn.ops.push(Op::Put { key, value, lease: None });
            octets
        }
        Change::Delete(_) => {
            let octets = key.len();
            txn.ops.push(Op::Delete { key });
            octets
        }
    }
}

fn host_mac(resource: &Resource) -> Option<Mac> {
    match resource {
        Resource::Node(spec) => spec.host_mac,
        Resource::Network(_) | Resource::Router(_) | Resource::Port(_) => None,
    }
}

/// For tasks that write by themselves.
pub(super) async fn put(hub: &Arc<Hub>, resource: Resource) -> Result<Applied, WriteError> {
    apply(hub, &Wish { edits: vec![Edit::put(resource)], underlay: None }, false).await
}
