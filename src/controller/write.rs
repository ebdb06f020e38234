//! Writing desired state: check and allocate against what is followed, commit if nobody wrote meanwhile, else again.
//!
//! Every write expects `serial` as it was followed and puts it anew, so that writers of all controllers follow each
//! other and what was checked still holds when it is committed. Only a revision that the asking side names makes a
//! conflict that it is told of.
//!
//! A write that has begun goes on to its end, whether or not somebody still waits for its answer. What is large is
//! planned on another thread, against a state that stays as it was: agents are told of changes meanwhile.

mod error;
mod parts;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use self::error::Done;
pub(super) use self::error::{Why, WriteError};
use self::parts::{Parts, Step};
use super::hub::Hub;
use super::world::Desired;
use super::{beats, keys};
use crate::model::{Change, Edit, Fabric, Kind, Object, Resource, Underlay};
use crate::store::{Entry, Most, Outcome, Revision, StoreError};

/// How often a write is tried while others overtake it.
const TRIES: usize = 32;
/// From so many edits on, what is made of them is made on another thread.
const ASIDE: usize = 256;
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

    fn failed(&self, why: Why) -> WriteError {
        WriteError { why, done: Done::of(&self.made, &self.doubt) }
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
    steps: Vec<Step>,
    underlay: Option<Underlay>,
    serial: Option<Revision>,
    /// Revisions that the asking side named.
    named: BTreeMap<Object, Option<Revision>>,
    revision: Revision,
}

/// The state that a plan is made against.
struct Basis {
    desired: Arc<Desired>,
    serial: Option<Revision>,
    revision: Revision,
}

/// Does what takes long for so many edits on another thread.
pub(super) async fn aside<T: Send + 'static>(edits: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if edits < ASIDE {
        return work();
    }
    match tokio::task::spawn_blocking(work).await.map_err(tokio::task::JoinError::try_into_panic) {
        Ok(done) => done,
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        // The runtime ends, and this with it.
        Err(Err(_)) => core::future::pending().await,
    }
}

/// Makes a wish true, or only tells what that would take. It is made whole once it has begun, also if nobody waits for
/// the answer any more; whoever leaves before its turn has asked for nothing.
///
/// # Errors
/// [`WriteError`] says whether something of it was done.
pub(super) async fn apply(hub: &Arc<Hub>, wish: Arc<Wish>, dry_run: bool) -> Result<Applied, WriteError> {
    let edits = wish.edits.len();
    if edits > EDITS_MAX {
        return Err(WriteError::at_once(Why::TooMany { edits }));
    }
    let (mut answer, answered) = oneshot::channel();
    let hub = Arc::clone(hub);
    tokio::spawn(async move {
        let places = u32::try_from(edits.max(1)).unwrap_or(u32::MAX);
        let Ok(_place) = hub.waiting.try_acquire_many(places) else {
            hub.counted(|counters| counters.limited += 1);
            let _left = answer.send(Err(WriteError::at_once(Why::Crowded)));
            return;
        };
        // Writers of this controller wait for each other instead of overtaking each other.
        let turn = tokio::select! {
            biased;
            () = answer.closed() => return,
            turn = hub.writers.lock() => turn,
        };
        let written = write(&hub, &wish, dry_run, Progress::default()).await;
        drop(turn);
        if let (Ok(applied), false) = (&written, dry_run) {
            let gone = applied.made.iter().filter(|made| made.object.kind == Kind::Node && made.after.is_none());
            for made in gone {
                beats::forget(&hub, &made.object.name).await;
            }
        }
        let _left = answer.send(written);
    });
    answered.await.unwrap_or(Err(WriteError::at_once(Why::Ended)))
}

async fn write(hub: &Hub, wish: &Arc<Wish>, dry_run: bool, mut progress: Progress) -> Result<Applied, WriteError> {
    let mut last = String::new();
    for _ in 0..TRIES {
        let mut pulse = hub.world().pulse();
        let basis = {
            let world = hub.world();
            Basis { desired: Arc::clone(&world.desired), serial: world.serial, revision: world.revision }
        };
        let (wish, left) = (Arc::clone(wish), core::mem::take(&mut progress.left));
        let most = hub.store.most();
        let planned = aside(wish.edits.len(), move || (plan(&basis, &wish, &left, most), left));
        let (planned, left) = planned.await;
        progress.left = left;
        let plan = planned.map_err(|why| progress.failed(why))?;
        if dry_run || (plan.steps.is_empty() && plan.underlay.is_none()) {
            progress.made.extend(plan.steps.into_iter().flatten().map(|(made, _)| made));
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
        follow(&mut pulse, until).await.map_err(|()| progress.failed(Why::Silent))?;
        match attempt {
            Attempt::Whole => return Ok(Applied { revision: progress.reached, made: progress.made }),
            Attempt::Again { key } => last = key,
        }
    }
    Err(progress.failed(Why::Overtaken { key: last }))
}

/// Waits until the store was followed to a revision.
async fn follow(pulse: &mut tokio::sync::watch::Receiver<Revision>, revision: Revision) -> Result<(), ()> {
    let waited = timeout(ECHO_LIMIT, pulse.wait_for(|at| *at >= revision)).await;
    waited.map_err(drop)?.map(drop).map_err(drop)
}

fn plan(basis: &Basis, wish: &Wish, done: &BTreeMap<Object, Option<Revision>>, most: Most) -> Result<Plan, Why> {
    let Basis { desired, serial, revision } = basis;
    let mut named = BTreeMap::new();
    for edit in &wish.edits {
        let object = edit.object();
        let found = desired.changed(&object);
        // What is made already must not undo what others did to it since.
        if let Some(left) = done.get(&object) {
            if *left != found {
                return Err(Why::Stale { object, asked: left.unwrap_or(0), found });
            }
        } else if let Some(asked) = edit.revision() {
            if found.unwrap_or(0) != asked {
                return Err(Why::Stale { object, asked, found });
            }
            named.insert(object, found);
        }
    }
    // What this has deleted already is not to be found any more.
    let is_deleted = |edit: &&Edit| matches!(edit, Edit::Delete { .. }) && done.get(&edit.object()) == Some(&None);
    let left: Cow<'_, [Edit]> = match done.is_empty() {
        true => Cow::Borrowed(&wish.edits),
        false => wish.edits.iter().filter(|edit| !is_deleted(edit)).cloned().collect(),
    };
    let fabric = &desired.fabric;
    let underlay = wish.underlay.as_ref().filter(|underlay| *underlay != fabric.underlay()).cloned();
    let (changes, numbers) = match &underlay {
        None => in_steps(fabric, &left)?,
        Some(_) if Kind::ALL.iter().any(|kind| fabric.count(*kind) > 0) => {
            return Err(Why::Underlay(fabric.underlay().clone()));
        }
        Some(underlay) => in_steps(&Fabric::new(underlay.clone()), &left)?,
    };
    let made = |change: Change| {
        let object = change.object();
        let before = fabric.get(&object);
        let after = match &change {
            Change::Put(resource) => Some(resource.clone()),
            Change::Delete(_) => None,
        };
        Some((Made { object, before, after }, change))
    };
    let mut all: Vec<_> = changes.into_iter().map(made).collect();
    let step = |step: Vec<usize>| step.into_iter().filter_map(|number| all[number].take()).collect();
    let steps: Vec<Step> = numbers.into_iter().map(step).collect();
    parts::fit(&steps, most)?;
    Ok(Plan { steps, underlay, serial: *serial, named, revision: *revision })
}

fn in_steps(fabric: &Fabric, edits: &[Edit]) -> Result<(Vec<Change>, Vec<Vec<usize>>), Why> {
    let changes = fabric.plan(edits).map_err(Why::Refused)?;
    let steps = fabric.steps(&changes);
    Ok((changes, steps))
}

/// Commits a plan in parts, until all of it is there or one is not known to be.
async fn commit(hub: &Hub, plan: Plan, progress: &mut Progress) -> Result<Attempt, WriteError> {
    let Plan { steps, underlay, mut serial, named, revision: _ } = plan;
    let mut parts = Parts::new(steps, named, underlay.as_ref());
    while let Some((txn, part)) = parts.next(serial) {
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
            Err(source) => return Err(progress.failed(Why::Store(source))),
        }
    }
    Ok(Attempt::Whole)
}

/// Looks what the store holds, for the next attempt to go on from: notes a part in doubt that is there, and gives the
/// revision to follow to. That is `serial`'s, which every writer puts: unlike the store's own revision, which grows by
/// what others keep in it, it is sure to come by.
async fn settle(hub: &Hub, progress: &mut Progress) -> Result<Revision, WriteError> {
    let mut landed = (!progress.doubt.is_empty()).then_some(0);
    for made in &progress.doubt {
        let entry = entry(hub, progress, &keys::object(&made.object)).await?;
        let same =
            entry.as_ref().map(|entry| entry.value.as_slice()) == made.after.as_ref().map(keys::value).as_deref();
        let modified = entry.map_or(0, |entry| entry.modified);
        landed = landed.filter(|_| same).map(|revision: Revision| revision.max(modified));
    }
    if let Some(revision) = landed {
        let part = core::mem::take(&mut progress.doubt);
        progress.committed(revision, part);
    }
    let serial = entry(hub, progress, keys::SERIAL).await?.map_or(0, |entry| entry.modified);
    Ok(progress.reached.max(serial))
}

async fn entry(hub: &Hub, progress: &Progress, key: &str) -> Result<Option<Entry>, WriteError> {
    let found = hub.store.read(key).await.map_err(|source| progress.failed(Why::Store(source)))?;
    Ok(found.entries.into_iter().find(|entry| entry.key == key))
}

/// For tasks that write by themselves.
pub(super) async fn put(hub: &Arc<Hub>, resource: Resource) -> Result<Applied, WriteError> {
    apply(hub, Arc::new(Wish { edits: vec![Edit::put(resource)], underlay: None }), false).await
}

#[cfg(test)]
mod tests;
