//! What only the embedded engine can do or show.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use dvr::store::{Bounds, Clock, Embedded, Op, Options, Outcome, QUEUE_MAX, Store, StoreError, Txn};
use dvr::types::Timestamp;
use futures::future::join_all;

use super::{Dir, delete, next, open, put, read, revision, words, write};

fn open_with(dir: &Dir, options: Options) -> Store {
    Embedded::open(&dir.file(), options).map(Store::Embedded).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn another_format_is_left_alone(dir: &Dir) {
    const META: redb::TableDefinition<'_, &str, u64> = redb::TableDefinition::new("meta");
    drop(open(dir));
    let database = redb::Database::create(dir.file()).expect("the file");
    let transaction = database.begin_write().expect("a transaction");
    transaction.open_table(META).expect("the table").insert("format", 2).expect("a row");
    transaction.commit().expect("a commit");
    drop(database);
    let Err(error) = Store::open_embedded(&dir.file()) else { panic!("it was opened") };
    assert!(matches!(error, StoreError::Format { found: 2, known: 1, .. }), "{error}");
}

pub(crate) async fn what_is_closed_is_found_again(dir: &Dir) {
    let store = open(dir);
    let lease = store.grant(Duration::from_secs(600)).await.expect("a lease");
    let first = write(&store, vec![put("a", "1"), put("b", "1")]).await;
    write(&store, vec![Op::Put { key: "live".into(), value: Vec::new(), lease: Some(lease) }, delete("b")]).await;
    let before = store.read("").await.expect("a snapshot");
    drop(store);

    let store = open(dir);
    assert_eq!(store.read("").await.expect("a snapshot"), before);
    let mut watch = store.watch("", first).expect("a watch");
    assert_eq!(words(&next(&mut watch).await), ["live=", "-b"]);
    store.keep(lease).await.expect("it lives");
    let other = store.grant(Duration::from_secs(600)).await.expect("a lease");
    assert!(other > lease, "a lease's name is not given twice");
    store.revoke(lease).await.expect("it lives");
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, words(&batch)), (before.revision + 1, vec!["-live".into()]));
    drop(store);
    let ended = watch.next().await.expect_err("the store is closed");
    assert!(matches!(ended, StoreError::Stopped { .. }), "{ended}");
}

pub(crate) async fn history_goes_by_its_bounds_also_on_disk(dir: &Dir) {
    let bounds = Bounds { revisions: 5, ..Bounds::default() };
    let store = open_with(dir, Options { history: bounds, ..Options::default() });
    for number in 0..20 {
        write(&store, vec![put("k", &number.to_string())]).await;
    }
    let last = revision(&store).await;
    let compacted = async |store: &Store, after| store.watch("", after).expect("a watch").next().await;
    let told = compacted(&store, last - 6).await;
    assert!(matches!(told, Err(StoreError::Compacted { oldest, .. }) if oldest == last - 5), "{told:?}");
    assert_eq!(compacted(&store, last - 5).await.expect("it is kept").revision, last - 4);
    drop(store);
    // The disk keeps what the next write would have taken with it: one revision more, and none besides.
    let store = open(dir);
    assert!(matches!(compacted(&store, last - 7).await, Err(StoreError::Compacted { .. })));
    assert_eq!(compacted(&store, last - 5).await.expect("it is kept").revision, last - 4);
    store.compact(last).await.expect("a past revision");
    drop(store);
    assert!(matches!(compacted(&open(dir), last - 1).await, Err(StoreError::Compacted { .. })));
}

pub(crate) async fn leases_end_by_the_time_the_store_has_lived(dir: &Dir) {
    let millis = Arc::new(AtomicU64::new(1_000_000));
    let clock: Clock = {
        let millis = Arc::clone(&millis);
        Arc::new(move || Timestamp::from_millis(millis.load(Ordering::Relaxed)))
    };
    let store = open_with(dir, Options { clock, ..Options::default() });
    let lease = store.grant(Duration::from_secs(2)).await.expect("a lease");
    let start = write(&store, vec![Op::Put { key: "live".into(), value: Vec::new(), lease: Some(lease) }]).await;
    // A leap of a day, and one back: half a second has passed.
    for now in [90_000_000, 1_000_000] {
        millis.store(now, Ordering::Relaxed);
        assert_eq!(read(&store, "").await.len(), 1);
        write(&store, vec![delete("nothing")]).await;
        assert_eq!(revision(&store).await, start, "a leap of the clock ended a lease");
    }
    let mut watch = store.watch("", start).expect("a watch");
    // Every request looks at the clock. It is kept after three quarters of its time, and lives as long again.
    let at = |step: u64| millis.store(1_000_000 + step * 500, Ordering::Relaxed);
    at(1);
    write(&store, vec![delete("nothing")]).await;
    at(2);
    store.keep(lease).await.expect("it lives");
    for step in 3..=5 {
        at(step);
        write(&store, vec![delete("nothing")]).await;
    }
    assert_eq!((revision(&store).await, store.counters().expired), (start, 0));
    at(6);
    // Nobody writes: the writer looks by itself.
    assert_eq!(words(&next(&mut watch).await), ["-live"]);
    assert_eq!(store.counters().expired, 1);
}

/// A clock that a test holds: whoever looks at it waits.
#[derive(Default)]
struct Held(Mutex<bool>, Condvar);

impl Held {
    fn clock(self: &Arc<Self>) -> Clock {
        let held = Arc::clone(self);
        Arc::new(move || {
            drop(held.1.wait_while(held.0.lock().expect("no panic"), |held| *held).expect("no panic"));
            Timestamp::from_secs(1)
        })
    }

    fn set(&self, held: bool) {
        *self.0.lock().expect("no panic") = held;
        self.1.notify_all();
    }
}

fn numbered(number: usize) -> Txn {
    Txn { expect: Vec::new(), ops: vec![put(&format!("k{number}"), "x")] }
}

pub(crate) async fn what_waits_together_is_written_together(dir: &Dir) {
    let held = Arc::new(Held::default());
    let store = open_with(dir, Options { clock: held.clock(), ..Options::default() });
    held.set(true);
    let commits = join_all((0..200).map(|number| store.commit(numbered(number))));
    let (outcomes, ()) = tokio::join!(commits, async { held.set(false) });
    let mut revisions: Vec<u64> = outcomes
        .into_iter()
        .map(|outcome| match outcome.expect("an outcome") {
            Outcome::Committed(revision) => revision,
            Outcome::Conflict { key } => panic!("{key} differs"),
        })
        .collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (2..202).collect::<Vec<_>>());
    // The one that the writer held in its hand, and all others, which did not fit with it.
    assert!(store.counters().syncs <= 2, "{:?}", store.counters());
    assert_eq!(read(&store, "").await.len(), 200);
}

pub(crate) async fn a_full_queue_is_named_and_counted(dir: &Dir) {
    let held = Arc::new(Held::default());
    let store = open_with(dir, Options { clock: held.clock(), ..Options::default() });
    held.set(true);
    // The writer may take one group before it looks at the clock.
    let asked = QUEUE_MAX + 1024;
    let commits = join_all((0..asked).map(|number| store.commit(numbered(number))));
    let (outcomes, ()) = tokio::join!(commits, async { held.set(false) });
    let refused = outcomes.iter().filter(|outcome| matches!(outcome, Err(StoreError::Overloaded { .. }))).count();
    let done = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Outcome::Committed(_)))).count();
    assert!(refused > 0 && done >= QUEUE_MAX && refused + done == asked, "{done} done, {refused} refused");
    let counters = store.counters();
    assert_eq!((counters.overloads, counters.commits), (refused as u64, done as u64));
    assert_eq!(read(&store, "").await.len(), done);
}
