//! Stores to test, and what tests do with them.

pub(crate) mod embedded;
pub(crate) mod figures;
pub(crate) mod outage;
pub(crate) mod peer;
pub(crate) mod suite;
pub(crate) mod torture;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use dvr::store::{Batch, Change, Expect, Op, Outcome, Revision, Store, Txn, Watch};

/// A case that has not ended by then hangs.
const HANGS: Duration = Duration::from_secs(900);
/// What was written is told within this, or never.
const TOLD: Duration = Duration::from_secs(60);

/// A directory that goes with its test.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("dvr-store-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap_or_else(|error| panic!("cannot make {}: {error}", path.display()));
        Self(path)
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.0.join("store")
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _left = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn open(dir: &Dir) -> Store {
    Store::open_embedded(&dir.file()).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a case to its end on a runtime of its own.
pub(crate) fn within(case: impl Future<Output = ()>) {
    alone(in_time(case));
}

/// As [`within`], however long it takes: the case has many parts, each of which is to end [`in_time`].
pub(crate) fn alone(case: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(case);
}

/// What a part of a case comes to, unless it hangs.
pub(crate) async fn in_time<T>(part: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANGS, part).await.expect("the case does not end")
}

pub(crate) fn put(key: &str, value: &str) -> Op {
    Op::Put { key: key.to_owned(), value: value.into(), lease: None }
}

pub(crate) fn delete(key: &str) -> Op {
    Op::Delete { key: key.to_owned() }
}

pub(crate) fn absent(key: &str) -> Expect {
    Expect::Absent(key.to_owned())
}

pub(crate) fn unchanged(key: &str, modified: Revision) -> Expect {
    Expect::Unchanged { key: key.to_owned(), modified }
}

pub(crate) async fn commit(store: &Store, expect: Vec<Expect>, ops: Vec<Op>) -> Outcome {
    store.commit(Txn { expect, ops }).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Commits what nothing speaks against.
pub(crate) async fn write(store: &Store, ops: Vec<Op>) -> Revision {
    match commit(store, Vec::new(), ops).await {
        Outcome::Committed(revision) => revision,
        Outcome::Conflict { key } => panic!("{key} differs, and nothing was expected"),
    }
}

/// Key and value of everything under a prefix.
pub(crate) async fn read(store: &Store, prefix: &str) -> Vec<(String, String)> {
    let snapshot = store.read(prefix).await.unwrap_or_else(|error| panic!("{error}"));
    snapshot.entries.into_iter().map(|entry| (entry.key, String::from_utf8(entry.value).expect("text"))).collect()
}

pub(crate) async fn revision(store: &Store) -> Revision {
    store.read("").await.unwrap_or_else(|error| panic!("{error}")).revision
}

pub(crate) async fn next(watch: &mut Watch) -> Batch {
    let batch = tokio::time::timeout(TOLD, watch.next()).await.expect("the watch tells nothing");
    batch.unwrap_or_else(|error| panic!("{error}"))
}

/// `key=value` for what was put, `-key` for what was deleted.
pub(crate) fn words(batch: &Batch) -> Vec<String> {
    let word = |change: &Change| match change {
        Change::Put(entry) => format!("{}={}", entry.key, String::from_utf8_lossy(&entry.value)),
        Change::Delete { key } => format!("-{key}"),
    };
    batch.changes.iter().map(word).collect()
}

/// Numbers that look random and come again from the same seed (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % end
    }
}
