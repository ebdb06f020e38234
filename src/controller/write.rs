//! Writing desired state: check and allocate against what is followed, commit if nobody wrote meanwhile, else again.
//!
//! Every write expects `serial` as it was followed and puts it anew, so that writers of all controllers follow each
//! other and what was checked still holds when it is committed. Only a revision that the asking side names makes a
//! conflict that it is told of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::hub::Hub;
use super::keys;
use crate::model::{Change, Edit, Fabric, Kind, Object, Refusal, Resource, Underlay};
use crate::store::{Entry, Expect, Op, Outcome, Revision, StoreError, Txn};
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
    #[error("{object} {}, not at revision {asked} as you last saw it: read it again and make your change to that{}", changed(.found), partly(.done))]
    Stale { object: Object, asked: Revision, found: Option<Revision>, done: usize },
    #[error("the underlay is {} with an MTU of {}: it can be set only before there is a node, network, router or port", .0.cidr, .0.mtu)]
    Underlay(Underlay),
    #[error("other writers were first {TRIES} times in a row, at {key} at last{}: apply it again", partly(.done))]
    Overtaken { key: String, done: usize },
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

/// Says how many changes were made before a write failed; nothing of none.
fn partly(done: &usize) -> String {
    match *done {
        0 => String::new(),
        1 => "; 1 change was made before, and stays".to_owned(),
        done => format!("; {done} changes were made before, and stay"),
    }
}

/// How far a write has come: what is committed of it.
#[derive(Debug, Default)]
struct Progress {
    /// The revision of the last part.
    reached: Revision,
    made: Vec<Made>,
    /// The revision that each object was left at; `None` if it is gone.
    left: BTreeMap<Object, Option<Revision>>,
    /// A part whose fate is open: it may be there, or still come.
    doubt: Vec<Made>,
}

impl Progress {
    fn committed(&mut self, revision: Revision, part: Vec<Made>) {
        self.reached = self.reached.max(revision);
        self.left.extend(part.iter().map(|made| (made.object.clone(), made.after.as_ref().map(|_| revision))));
        self.made.extend(part);
    }

    fn store(&self, source: StoreError) -> WriteError {
        WriteError::Store { source, done: self.made.len() }
    }
}

/// What became of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Attempt {
    /// All of it is there.
    Whole,
    /// Not all, because of what another writer did to this key, or a part's fate is open.
    Again { key: String },
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
    let mut progress = Progress::default();
    let mut last = String::new();
    for _ in 0..TRIES {
        let mut pulse = hub.world().pulse();
        let plan = plan(hub, wish, &progress.left)?;
        if dry_run || (plan.changes.is_empty() && plan.underlay.is_none()) {
            progress.made.extend(plan.made);
            return Ok(Applied { revision: progress.reached.max(plan.revision), made: progress.made });
        }
        let attempt = commit(hub, plan, &mut progress).await?;
        let until = match &attempt {
            Attempt::Whole => progress.reached,
            Attempt::Again { .. } => {
                hub.counted(|counters| counters.overtaken += 1);
                settle(hub, &mut progress).await?
            }
        };
        // Who overtook us comes by the same way as everything.
        follow(&mut pulse, until).await.map_err(|()| WriteError::Silent { done: progress.made.len() })?;
        match attempt {
            Attempt::Whole => return Ok(Applied { revision: progress.reached, made: progress.made }),
            Attempt::Again { key } => last = key,
        }
    }
    Err(WriteError::Overtaken { key: last, done: progress.made.len() })
}

/// Waits until the store was followed to a revision.
async fn follow(pulse: &mut tokio::sync::watch::Receiver<Revision>, revision: Revision) -> Result<(), ()> {
    let waited = timeout(ECHO_LIMIT, pulse.wait_for(|at| *at >= revision)).await;
    waited.map_err(drop)?.map(drop).map_err(drop)
}

fn plan(hub: &Hub, wish: &Wish, done: &BTreeMap<Object, Option<Revision>>) -> Result<Plan, WriteError> {
    let world = hub.world();
    let mut named = BTreeMap::new();
    for edit in &wish.edits {
        let object = edit.object();
        let found = world.changed(&object);
        // What is made already must not undo what others did to it since.
        if let Some(left) = done.get(&object) {
            if *left != found {
                return Err(WriteError::Stale { object, asked: left.unwrap_or(0), found, done: done.len() });
            }
        } else if let Some(asked) = edit.revision() {
            if found.unwrap_or(0) != asked {
                return Err(WriteError::Stale { object, asked, found, done: done.len() });
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

/// Commits a plan in parts, until all of it is there or one is not known to be.
async fn commit(hub: &Hub, plan: Plan, progress: &mut Progress) -> Result<Attempt, WriteError> {
    let Plan { made, changes, underlay, mut serial, named, revision: _ } = plan;
    let mut rest = ordered(made, changes).into_iter().peekable();
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
            return Ok(Attempt::Whole);
        }
        txn.ops.push(Op::Put { key: keys::SERIAL.to_owned(), value: b"{}".to_vec(), lease: None });
        match hub.store.commit(txn).await {
            Ok(Outcome::Committed(revision)) => {
                // It moved `serial`: a part in doubt cannot come any more.
                progress.doubt.clear();
                progress.committed(revision, part);
                serial = Some(revision);
            }
            Ok(Outcome::Conflict { key }) => {
                tracing::debug!(key, "another writer was first");
                return Ok(Attempt::Again { key });
            }
            Err(StoreError::Unknown { at, reason }) => {
                tracing::info!(at, reason, "a commit's fate is unknown: looking");
                progress.doubt = part;
                return Ok(Attempt::Again { key: keys::SERIAL.to_owned() });
            }
            Err(source) => return Err(progress.store(source)),
        }
        if rest.peek().is_none() {
            return Ok(Attempt::Whole);
        }
    }
}

/// Looks what the store holds, for the next attempt to go on from: notes a part in doubt that is there, and gives the
/// revision to follow to. That is `serial`'s, which every writer puts: unlike the store's own revision, which grows by
/// what others keep in it, it is sure to come by.
async fn settle(hub: &Hub, progress: &mut Progress) -> Result<Revision, WriteError> {
    let doubt = core::mem::take(&mut progress.doubt);
    let mut landed = (!doubt.is_empty()).then_some(0);
    for made in &doubt {
        let entry = entry(hub, progress, &keys::object(&made.object)).await?;
        let same =
            entry.as_ref().map(|entry| entry.value.as_slice()) == made.after.as_ref().map(keys::value).as_deref();
        let modified = entry.map_or(0, |entry| entry.modified);
        landed = landed.filter(|_| same).map(|revision: Revision| revision.max(modified));
    }
    match landed {
        Some(revision) => progress.committed(revision, doubt),
        None => progress.doubt = doubt,
    }
    let serial = entry(hub, progress, keys::SERIAL).await?.map_or(0, |entry| entry.modified);
    Ok(progress.reached.max(serial))
}

async fn entry(hub: &Hub, progress: &Progress, key: &str) -> Result<Option<Entry>, WriteError> {
    let found = hub.store.read(key).await.map_err(|source| progress.store(source))?;
    Ok(found.entries.into_iter().find(|entry| entry.key == key))
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
        if let Some(mac) = had {
            release(txn, keys::host_mac(mac));
        }
        if let Some(mac) = has {
            take(txn, keys::host_mac(mac), &made.object.name);
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

/// Gives a host MAC back, unless another node has it by the same transaction: then that took the place of what was there.
fn release(txn: &mut Txn, key: String) {
    if txn.ops.iter().any(|op| op.key() == key) {
        txn.expect.retain(|expect| expect.key() != key);
    } else {
        txn.ops.push(Op::Delete { key });
    }
}

/// Notes whose a host MAC is. Nobody may have it, but who gives it back by the same transaction: `serial` vouches for that.
fn take(txn: &mut Txn, key: String, node: &str) {
    let before = txn.ops.len();
    txn.ops.retain(|op| op.key() != key);
    if txn.ops.len() == before {
        txn.expect.push(Expect::Absent(key.clone()));
    }
    txn.ops.push(Op::Put { key, value: node.as_bytes().to_vec(), lease: None });
}

/// The changes in their order, but nodes that give a host MAC back before those that only take one: so it is free also
/// where the two are in different parts. A node refers to nothing, and may go first.
fn ordered(made: Vec<Made>, changes: Vec<Change>) -> Vec<(Made, Change)> {
    let mut rest: Vec<_> = made.into_iter().zip(changes).collect();
    rest.sort_by_key(|(made, change)| {
        let had = made.before.as_ref().and_then(host_mac);
        let releases = had.is_some() && had != made.after.as_ref().and_then(host_mac);
        !(releases && matches!(change, Change::Put(_)))
    });
    rest
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

#[cfg(test)]
mod tests;
