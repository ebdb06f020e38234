//! Writers and servers killed at random moments. What was acknowledged must be there, nothing may be there by half, and
//! no revision may be given twice.
//!
//! A child writes with several tasks at once. Task `t` counts: its transaction expects what it last wrote and puts its
//! number to three keys, `t/T/a`, `t/T/b` and `t/T/N`. When it is acknowledged, the child says so on its standard output,
//! which a SIGKILL does not take back: the parent believes every whole line.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use dvr::store::{Change, Outcome, Revision, Snapshot, Store, StoreError, Txn, Watch};

use super::peer::Etcd;
use super::{Dice, HANGS, absent, delete, in_time, put, unchanged};

const CHILD: &str = "DVR_STORE_CHILD";
/// How many tasks of a child write at once.
const TASKS: usize = 4;
/// How many of a task's numbers stay.
const KEPT: u64 = 20;
/// The longest a child lives on when it has acknowledged what it was to, in microseconds; or from its start.
const LIVES_MICROS: u64 = 60_000;

/// What is written to.
pub(crate) enum Target {
    Embedded(PathBuf),
    Etcd(Vec<String>),
}

impl Target {
    fn open(&self) -> Result<Store, StoreError> {
        match self {
            Self::Embedded(path) => Store::open_embedded(path),
            Self::Etcd(endpoints) => Store::open_etcd(endpoints, None),
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// How many are killed: what is usual, unless somebody wants another number.
pub(crate) fn kills(usual: u64) -> u64 {
    setting("DVR_STORE_KILLS").unwrap_or(usual)
}

fn seed() -> u64 {
    setting("DVR_STORE_SEED").unwrap_or_else(|| u64::from(std::process::id()))
}

pub(crate) fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// A task's key and the number that it shows.
fn number_of(snapshot: &Snapshot, key: &str) -> Option<(u64, Revision)> {
    let entry = snapshot.entries.iter().find(|entry| entry.key == key)?;
    Some((std::str::from_utf8(&entry.value).ok()?.parse().ok()?, entry.modified))
}

/// A task's next transaction.
fn counting(task: usize, last: Option<(u64, Revision)>) -> (u64, Txn) {
    let key = |name: &str| format!("t/{task}/{name}");
    let number = last.map_or(0, |(number, _)| number + 1);
    let expect = match last {
        Some((_, modified)) => vec![unchanged(&key("a"), modified), unchanged(&key("b"), modified)],
        None => vec![absent(&key("a")), absent(&key("b"))],
    };
    let text = number.to_string();
    let mut ops = vec![put(&key("a"), &text), put(&key(&format!("{number:08}")), &text), put(&key("b"), &text)];
    if let Some(old) = number.checked_sub(KEPT) {
        ops.push(delete(&key(&format!("{old:08}"))));
    }
    (number, Txn { expect, ops })
}

/// Counts until it is killed, or until `acknowledged` says that it is enough.
async fn count(store: &Store, task: usize, mut acknowledged: impl FnMut(u64, Revision) -> bool) {
    let key = format!("t/{task}/a");
    loop {
        // At the start, and after whatever did not go as expected, the store says where we are.
        let Ok(snapshot) = store.read(&format!("t/{task}/")).await else { continue };
        let mut last = number_of(&snapshot, &key);
        loop {
            let (number, txn) = counting(task, last);
            match store.commit(txn).await {
                Ok(Outcome::Committed(revision)) => {
                    last = Some((number, revision));
                    if !acknowledged(number, revision) {
                        return;
                    }
                }
                // Of a commit whose fate was unknown, which has come about since.
                Ok(Outcome::Conflict { .. }) | Err(StoreError::Unknown { .. } | StoreError::Unavailable { .. }) => {
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// The child's whole life.
pub(crate) async fn child() {
    let target = std::env::var(CHILD).expect("what to write to");
    let target = match target.starts_with("http") {
        true => Target::Etcd(target.split(',').map(str::to_owned).collect()),
        false => Target::Embedded(target.into()),
    };
    let store = target.open().unwrap_or_else(|error| panic!("{error}"));
    let tasks = (0..TASKS).map(|task| {
        let store = store.clone();
        async move {
            count(&store, task, |number, revision| {
                let line = format!("ack {task} {number} {revision}\n");
                // One write of less than a pipe's buffer: whole, or not at all. When the parent is gone, so are we.
                std::io::stdout().write_all(line.as_bytes()).and_then(|()| std::io::stdout().flush()).is_ok()
            })
            .await;
        }
    });
    futures::future::join_all(tasks).await;
}

/// What was acknowledged, and what was seen: the store must never fall behind either.
#[derive(Default)]
struct Witness {
    acknowledged: BTreeMap<usize, (u64, Revision)>,
    count: u64,
    seen: Revision,
}

impl Witness {
    fn acknowledge(&mut self, task: usize, number: u64, revision: Revision) {
        self.count += 1;
        let last = self.acknowledged.insert(task, (number, revision));
        assert!(
            last.is_none_or(|last| last.0 < number && last.1 < revision),
            "{task}: {last:?}, then {number} {revision}"
        );
    }

    fn check(&mut self, snapshot: &Snapshot, when: &str) {
        assert!(snapshot.revision >= self.seen, "{when}: revision {} after {}", snapshot.revision, self.seen);
        self.seen = snapshot.revision;
        for task in 0..TASKS {
            let at = |name: &str| number_of(snapshot, &format!("t/{task}/{name}"));
            let last = at("a");
            assert_eq!(last, at("b"), "{when}: half of a transaction of task {task}");
            let acknowledged = self.acknowledged.get(&task);
            assert!(
                last.map(|last| last.0) >= acknowledged.map(|last| last.0),
                "{when}: {last:?}, {acknowledged:?} was acknowledged"
            );
            let Some((number, revision)) = last else { continue };
            assert!(
                acknowledged.is_none_or(|known| (known.0 == number) == (known.1 == revision)),
                "{when}: {last:?} and {acknowledged:?}"
            );
            let prefix = format!("t/{task}/0");
            let kept: Vec<&str> =
                snapshot.entries.iter().map(|entry| &*entry.key).filter(|key| key.starts_with(&prefix)).collect();
            let expected: Vec<String> =
                ((number + 1).saturating_sub(KEPT)..=number).map(|number| format!("t/{task}/{number:08}")).collect();
            assert_eq!(kept, expected, "{when}: task {task}");
        }
    }
}

/// Everything after `from` up to `to`, by revision: each once, in order, none missing.
async fn follow(watch: &mut Watch, to: Revision, state: &mut BTreeMap<String, Revision>, when: &str) {
    while watch.seen() < to {
        let before = watch.seen();
        let batch = super::next(watch).await;
        assert_eq!(batch.revision, before + 1, "{when}: a revision is missing, or came twice");
        for change in batch.changes {
            match change {
                Change::Put(entry) => state.insert(entry.key, entry.modified),
                Change::Delete { key } => state.remove(&key),
            };
        }
    }
}

fn state_of(snapshot: &Snapshot) -> BTreeMap<String, Revision> {
    snapshot.entries.iter().map(|entry| (entry.key.clone(), entry.modified)).collect()
}

/// Starts this test again as a child, and kills it some time after it has acknowledged so much; what it had acknowledged.
fn live_and_die(test: &str, target: &Target, least: u64, micros: u64) -> Vec<(usize, u64, Revision)> {
    let program = std::env::current_exe().expect("the test binary's path");
    #[expect(clippy::disallowed_methods, reason = "the program started is this test itself")]
    let mut command = Command::new(program);
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).stdin(Stdio::null()).stdout(Stdio::piped());
    match target {
        Target::Embedded(path) => command.env(CHILD, path),
        Target::Etcd(endpoints) => command.env(CHILD, endpoints.join(",")),
    };
    let mut child = command.spawn().expect("a child");
    let output = child.stdout.take().expect("its output");
    let (tell, told) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut lines = BufReader::new(output);
        let mut acknowledged = Vec::new();
        let mut line = String::new();
        while lines.read_line(&mut line).expect("text") > 0 && line.ends_with('\n') {
            let mut words = line.split_whitespace();
            if words.next() == Some("ack") {
                let mut number = || words.next().and_then(|word| word.parse::<u64>().ok()).expect("a number");
                acknowledged.push((usize::try_from(number()).expect("a task"), number(), number()));
                // Nobody counts beyond what was waited for.
                let _enough = tell.send(());
            }
            line.clear();
        }
        acknowledged
    });
    for _ in 0..least {
        told.recv_timeout(HANGS).expect("the child writes");
    }
    std::thread::sleep(Duration::from_micros(micros));
    assert!(child.try_wait().expect("its state").is_none(), "the child ended before it was killed");
    child.kill().expect("it is killed");
    child.wait().expect("it is gone");
    reader.join().expect("its words")
}

/// Looks at what a kill has left of a store that was followed to `from`. Gives the revision it is at.
async fn look(
    target: &Target,
    from: Revision,
    (witness, state): (&mut Witness, &mut BTreeMap<String, Revision>),
    when: &str,
) -> Revision {
    let store = target.open().unwrap_or_else(|error| panic!("{when}: {error}"));
    let mut snapshot = store.read("").await.expect("a snapshot");
    if matches!(target, Target::Etcd(_)) {
        // What the child had sent may come about after it; what was acknowledged has.
        tokio::time::sleep(Duration::from_millis(1)).await;
        snapshot = store.read("").await.expect("a snapshot");
    }
    witness.check(&snapshot, when);
    // A watch resumes across the kill as if there had been none.
    let mut watch = store.watch("", from).expect("a watch");
    follow(&mut watch, snapshot.revision, state, when).await;
    assert_eq!(*state, state_of(&snapshot), "{when}: the changes do not make the entries");
    snapshot.revision
}

/// Kills one writer after another, and looks at what each left.
pub(crate) async fn writers(test: &str, target: &Target, kills: u64) {
    let seed = seed();
    let mut dice = Dice::new(seed);
    let mut witness = Witness::default();
    let mut state = BTreeMap::new();
    let mut from = 1;
    for round in 0..kills {
        let when = format!("kill {round}, DVR_STORE_SEED={seed}");
        // One of three dies at some moment from its start on, mostly before it has opened the store.
        let least = if round % 3 == 2 { 0 } else { 2 + dice.below(8) };
        let acknowledged = live_and_die(test, target, least, 1 + dice.below(LIVES_MICROS));
        for (task, number, revision) in acknowledged {
            witness.acknowledge(task, number, revision);
        }
        from = in_time(look(target, from, (&mut witness, &mut state), &when)).await;
    }
    let revisions = witness.seen;
    println!("{kills} kills, {} acknowledged, revision {revisions}", witness.count);
    assert!(witness.count > kills, "DVR_STORE_SEED={seed}: only {} were acknowledged", witness.count);
}

/// Which members die together: mostly one, sometimes so many that those left cannot write, sometimes all.
fn victims(dice: &mut Dice, members: u64) -> Vec<usize> {
    let count = match dice.below(8) {
        0 => members,
        1 => members / 2 + 1,
        _ => 1,
    };
    let first = dice.below(members);
    (first..first + count).map(|number| usize::try_from(number % members).expect("few")).collect()
}

/// Kills members under writers and a watch that go on.
pub(crate) async fn members(etcd: &mut Etcd, kills: u64) {
    let seed = seed();
    let mut dice = Dice::new(seed);
    let count_of_members = etcd.endpoints().len() as u64;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (store, tell, stopped) = (etcd.open(), tell.clone(), stopped.clone());
            tokio::spawn(async move {
                count(&store, task, |number, revision| {
                    tell.send((task, number, revision)).expect("someone listens");
                    !*stopped.borrow()
                })
                .await;
            })
        })
        .collect();
    let store = etcd.open();
    let mut watch = store.watch("", 1).expect("a watch");
    let mut state = BTreeMap::new();
    let mut witness = Witness::default();
    let mut killed = 0;
    while killed < kills {
        let when = format!("after {killed} kills, DVR_STORE_SEED={seed}");
        // So many more are acknowledged, then they die at some moment after.
        for _ in 0..10 {
            let (task, number, revision) = in_time(told.recv()).await.expect("they write");
            witness.acknowledge(task, number, revision);
        }
        tokio::time::sleep(Duration::from_micros(dice.below(50_000))).await;
        let victims = victims(&mut dice, count_of_members);
        killed += victims.len() as u64;
        victims.iter().for_each(|number| etcd.kill(*number));
        // Some come back at once, some when everybody has noticed.
        tokio::time::sleep(Duration::from_micros(dice.below(2) * dice.below(500_000))).await;
        victims.iter().for_each(|number| etcd.restart(*number));
        while let Ok((task, number, revision)) = told.try_recv() {
            witness.acknowledge(task, number, revision);
        }
        // Begun after all those were acknowledged: they are in it.
        let back = async {
            loop {
                match store.read("").await {
                    Ok(snapshot) => break snapshot,
                    Err(StoreError::Unavailable { .. }) => {}
                    Err(error) => panic!("{when}: {error}"),
                }
            }
        };
        let snapshot = in_time(back).await;
        witness.check(&snapshot, &when);
        follow(&mut watch, snapshot.revision, &mut state, &when).await;
    }
    stop.send(true).expect("they listen");
    drop(tell);
    while let Some((task, number, revision)) = told.recv().await {
        witness.acknowledge(task, number, revision);
    }
    for task in tasks {
        task.await.expect("a writer");
    }
    let when = format!("after {killed} kills, DVR_STORE_SEED={seed}");
    let snapshot = store.read("").await.expect("a snapshot");
    witness.check(&snapshot, &when);
    follow(&mut watch, snapshot.revision, &mut state, &when).await;
    assert_eq!(state, state_of(&snapshot), "{when}: the changes do not make the entries");
    let count = witness.count;
    println!("{killed} kills of {count_of_members} members, {count} acknowledged, {:?}", store.counters());
}
