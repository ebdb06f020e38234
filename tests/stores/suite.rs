//! What both engines must do.

use std::collections::BTreeMap;
use std::time::Duration;

use dvr::store::{
    Batch, Change, ETCD_MOST, KEY_MAX, LEASE_TTL, Op, Outcome, Store, StoreError, Txn, VALUE_MAX, WATCHES_MAX,
};
use tokio::time::Instant;

use super::{Dice, absent, commit, delete, next, put, read, revision, unchanged, words, write};

pub(crate) async fn a_transaction_is_made_as_expected_or_names_the_first_key_that_differs(store: Store) {
    let Outcome::Committed(first) = commit(&store, vec![absent("a")], vec![put("a", "1"), put("b", "1")]).await else {
        panic!("nothing is there yet")
    };
    let conflict = |key: &str| Outcome::Conflict { key: key.to_owned() };
    let change = || vec![put("a", "2"), delete("b"), put("c", "2")];
    let cases = [
        (vec![absent("a")], "a"),
        (vec![absent("c"), absent("b"), absent("a")], "b"),
        (vec![unchanged("a", first + 1)], "a"),
        (vec![unchanged("a", first - 1)], "a"),
        (vec![unchanged("c", first)], "c"),
        (vec![unchanged("a", first), unchanged("b", first), absent("b")], "b"),
    ];
    for (expect, key) in cases {
        assert_eq!(commit(&store, expect.clone(), change()).await, conflict(key), "{expect:?}");
    }
    assert_eq!(read(&store, "").await, [("a".into(), "1".into()), ("b".into(), "1".into())]);
    let expect = vec![unchanged("a", first), unchanged("b", first), absent("c")];
    let Outcome::Committed(second) = commit(&store, expect.clone(), change()).await else { panic!("all holds") };
    assert_eq!(commit(&store, expect, change()).await, conflict("a"));
    assert_eq!(read(&store, "").await, [("a".into(), "2".into()), ("c".into(), "2".into())]);
    assert_eq!(
        commit(&store, vec![unchanged("a", second), absent("b")], vec![delete("a")]).await,
        Outcome::Committed(second + 1)
    );
    let counters = store.counters();
    assert_eq!((counters.commits, counters.conflicts, counters.unknown), (3, 7, 0));
}

pub(crate) async fn a_revision_is_what_changed_something(store: Store) {
    assert_eq!(revision(&store).await, 1);
    let first = write(&store, vec![put("a", "1"), put("b", "1")]).await;
    assert_eq!(first, 2);
    assert_eq!(write(&store, vec![delete("nothing")]).await, first);
    assert_eq!(write(&store, vec![]).await, first);
    assert_eq!(commit(&store, vec![absent("a")], vec![]).await, Outcome::Conflict { key: "a".into() });
    assert_eq!(write(&store, vec![put("a", "1"), delete("nothing")]).await, first + 1);
    let snapshot = store.read("").await.expect("a snapshot");
    assert_eq!(snapshot.revision, first + 1);
    assert_eq!(snapshot.entries.iter().map(|entry| entry.modified).collect::<Vec<_>>(), [first + 1, first]);
}

pub(crate) async fn a_snapshot_is_its_prefix_whole_and_sorted(store: Store) {
    let mut expected = Vec::new();
    for group in 0..13 {
        let keys = (0..ETCD_MOST.operations).map(|at| format!("/dvr/v1/port/{at:03}-{group}"));
        let ops: Vec<Op> = keys.map(|key| put(&key, &key)).collect();
        expected.extend(ops.iter().map(|op| (op.key().to_owned(), op.key().to_owned())));
        write(&store, ops).await;
    }
    let last = write(
        &store,
        vec![put("/dvr/v1/port", "x"), put("/dvr/v1/port0", "x"), put("/dvr/v1/poru/", "x"), put("zü", "y")],
    )
    .await;
    expected.sort();
    assert_eq!(read(&store, "/dvr/v1/port/").await, expected);
    assert_eq!(read(&store, "").await.len(), expected.len() + 4);
    assert_eq!(read(&store, "zü").await, [("zü".into(), "y".into())]);
    let nothing = store.read("nothing").await.expect("a snapshot");
    assert_eq!((nothing.revision, nothing.entries.len()), (last, 0));
}

pub(crate) async fn a_watch_tells_every_revision_once_in_order_wherever_it_resumes(store: Store) {
    const COUNT: u64 = 120;
    let start = revision(&store).await;
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..COUNT {
                write(
                    &store,
                    vec![
                        put(&format!("k/{}", number % 7), &number.to_string()),
                        delete(&format!("k/{}", (number + 3) % 7)),
                    ],
                )
                .await;
            }
        })
    };
    let mut whole = store.watch("", start).expect("a watch");
    let mut batches: Vec<Batch> = Vec::new();
    for _ in 0..COUNT {
        batches.push(next(&mut whole).await);
    }
    writer.await.expect("the writer");
    let told: Vec<u64> = batches.iter().map(|batch| batch.revision).collect();
    assert_eq!(told, (start + 1..=start + COUNT).collect::<Vec<_>>());
    assert_eq!(whole.seen(), start + COUNT);
    for (number, batch) in batches.iter().enumerate() {
        assert_eq!(words(batch)[0], format!("k/{}={number}", number % 7));
    }
    // From every tenth revision, in pieces: the same.
    let mut seen = start;
    while seen < start + COUNT {
        let mut watch = store.watch("", seen).expect("a watch");
        for _ in 0..10 {
            let batch = next(&mut watch).await;
            let at = usize::try_from(seen - start).expect("an index");
            assert_eq!(batch, batches[at]);
            seen = watch.seen();
            assert_eq!(seen, batch.revision);
        }
    }
}

pub(crate) async fn a_watch_sees_its_prefix_alone(store: Store) {
    let start = write(&store, vec![put("a/old", "0")]).await;
    let mut watch = store.watch("a/", start).expect("a watch");
    write(&store, vec![put("a", "no"), put("a0", "no"), put("b/", "no")]).await;
    let mixed = write(&store, vec![put("b/x", "no"), put("a/2", "2"), delete("a/old"), put("a/1", "1")]).await;
    write(&store, vec![delete("a")]).await;
    let last = write(&store, vec![put("a/", "end")]).await;
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, words(&batch)), (mixed, vec!["a/2=2".into(), "-a/old".into(), "a/1=1".into()]));
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, words(&batch)), (last, vec!["a/=end".into()]));
}

pub(crate) async fn a_watch_that_is_asked_and_dropped_loses_nothing(store: Store) {
    let start = revision(&store).await;
    let mut watch = store.watch("", start).expect("a watch");
    for number in 0..40 {
        // Asked, and at once not waited for: wherever the question had come to, nothing may be lost.
        for _ in 0..number % 4 {
            tokio::select! {
                biased;
                batch = watch.next() => panic!("nothing was written, and it tells {batch:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        let revision = write(&store, vec![put("k", &number.to_string())]).await;
        let batch = next(&mut watch).await;
        assert_eq!((batch.revision, words(&batch)), (revision, vec![format!("k={number}")]));
    }
}

pub(crate) async fn a_revoked_lease_takes_its_keys_in_one_revision(store: Store) {
    let lease = store.grant(Duration::from_secs(600)).await.expect("a lease");
    let other = store.grant(Duration::from_secs(600)).await.expect("a lease");
    let under = |key: &str, lease| Op::Put { key: key.to_owned(), value: b"x".to_vec(), lease };
    write(&store, vec![under("d", Some(lease)), under("a", Some(lease)), under("b", Some(lease))]).await;
    // Put again without it, under another, and deleted: no longer the lease's.
    write(&store, vec![under("e", Some(lease)), under("f", Some(lease)), under("g", Some(lease))]).await;
    let last = write(&store, vec![under("e", None), under("f", Some(other)), delete("g")]).await;
    let leases: Vec<_> =
        store.read("").await.expect("a snapshot").entries.into_iter().map(|entry| (entry.key, entry.lease)).collect();
    let expected = [("a", Some(lease)), ("b", Some(lease)), ("d", Some(lease)), ("e", None), ("f", Some(other))];
    assert_eq!(leases, expected.map(|(key, lease)| (key.to_owned(), lease)));
    write(&store, vec![put("g", "mine")]).await;
    let mut watch = store.watch("", last + 1).expect("a watch");
    store.revoke(lease).await.expect("the lease lives");
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, words(&batch)), (last + 2, vec!["-a".into(), "-b".into(), "-d".into()]));
    let left: Vec<String> = read(&store, "").await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, ["e", "f", "g"]);
}

pub(crate) async fn a_lease_that_has_ended_is_refused(store: Store) {
    let lease = store.grant(Duration::from_secs(600)).await.expect("a lease");
    store.keep(lease).await.expect("it lives");
    store.revoke(lease).await.expect("it lives");
    let before = revision(&store).await;
    let gone =
        |result: Result<(), StoreError>| matches!(result, Err(StoreError::LeaseGone { lease: of }) if of == lease);
    assert!(gone(store.keep(lease).await));
    assert!(gone(store.revoke(lease).await));
    let ops = vec![put("a", "1"), Op::Put { key: "b".into(), value: Vec::new(), lease: Some(lease) }];
    assert!(gone(store.commit(Txn { expect: Vec::new(), ops }).await.map(|_| ())));
    assert_eq!((revision(&store).await, read(&store, "").await), (before, Vec::new()));
}

pub(crate) async fn a_lease_lives_while_it_is_kept(store: Store) {
    const TTL: Duration = Duration::from_secs(2);
    let under = |lease| Op::Put { key: "live/n1".into(), value: b"x".to_vec(), lease: Some(lease) };
    'again: loop {
        let lease = store.grant(TTL).await.expect("a lease");
        let start = write(&store, vec![under(lease)]).await;
        let began = Instant::now();
        let mut kept = Instant::now();
        while began.elapsed() < TTL * 3 / 2 {
            let result = store.keep(lease).await;
            if kept.elapsed() > TTL / 2 {
                // Whoever could not run for so long cannot tell what should have happened.
                continue 'again;
            }
            result.expect("it was kept in time");
            kept = Instant::now();
            tokio::time::sleep(TTL / 20).await;
        }
        let mut watch = store.watch("live/", start).expect("a watch");
        let batch = next(&mut watch).await;
        assert_eq!(words(&batch), ["-live/n1"]);
        assert!(kept.elapsed() >= TTL, "it ended {:?} after it was kept", kept.elapsed());
        assert!(matches!(store.keep(lease).await, Err(StoreError::LeaseGone { .. })));
        return;
    }
}

pub(crate) async fn what_is_compacted_is_told_and_the_rest_is_kept(store: Store) {
    let start = revision(&store).await;
    for number in 0..10 {
        write(&store, vec![put("k", &number.to_string()), delete("gone")]).await;
    }
    write(&store, vec![put("gone", "x")]).await;
    let removed = write(&store, vec![delete("gone")]).await;
    let last = write(&store, vec![put("k", "last")]).await;
    let mut behind = store.watch("", start + 3).expect("a watch");
    assert_eq!(next(&mut behind).await.revision, start + 4);
    store.compact(removed).await.expect("a past revision");
    store.compact(start + 2).await.expect("compacted already");
    let future = store.compact(last + 1).await;
    assert!(
        matches!(future, Err(StoreError::Future { asked, revision }) if asked == last + 1 && revision == last),
        "{future:?}"
    );
    for after in [0, 1, start + 3, removed - 1] {
        let told = store.watch("", after).expect("a watch").next().await;
        let Err(StoreError::Compacted { after: lost, oldest }) = &told else { panic!("after {after}: {told:?}") };
        assert_eq!((*lost, *oldest), (after, removed));
    }
    let mut watch = store.watch("", removed).expect("a watch");
    let batch = next(&mut watch).await;
    assert_eq!((batch.revision, words(&batch)), (last, vec!["k=last".into()]));
    assert_eq!(read(&store, "").await, [("k".into(), "last".into())]);
    assert_eq!(store.counters().compacted, 4);
}

pub(crate) async fn limits_are_named(store: Store) {
    let refused = async |expect: Vec<_>, ops: Vec<Op>| store.commit(Txn { expect, ops }).await.expect_err("a limit");
    let many = |count| (0..count).map(|at| put(&format!("k{at}"), "")).collect::<Vec<_>>();
    let long = "k".repeat(KEY_MAX + 1);
    let value = |octets| vec![Op::Put { key: "k".into(), value: vec![0; octets], lease: None }];
    let most = store.most();
    let too_many = refused(vec![], many(most.operations + 1)).await;
    assert!(matches!(too_many, StoreError::TooMany { what: "operations", max, .. } if max == most.operations));
    let expect = (0..=most.operations).map(|at| absent(&at.to_string())).collect();
    assert!(matches!(refused(expect, vec![]).await, StoreError::TooMany { what: "expectations", .. }));
    assert!(
        matches!(refused(vec![], vec![put(&long, "")]).await, StoreError::KeyLength { octets } if octets == KEY_MAX + 1)
    );
    assert!(matches!(refused(vec![absent("")], vec![]).await, StoreError::KeyLength { octets: 0 }));
    assert!(matches!(refused(vec![], value(VALUE_MAX + 1)).await, StoreError::ValueTooLong { .. }));
    assert!(matches!(refused(vec![], vec![put("k", ""), delete("k")]).await, StoreError::Twice { .. }));
    let large =
        (0..=most.octets / VALUE_MAX).map(|at| Op::Put { key: at.to_string(), value: vec![0; VALUE_MAX], lease: None });
    let too_large = refused(vec![], large.collect()).await;
    assert!(matches!(too_large, StoreError::TooMany { max, .. } if max == most.octets));
    assert!(matches!(store.read(&long).await, Err(StoreError::KeyLength { .. })));
    assert!(matches!(store.watch(&long, 1), Err(StoreError::KeyLength { .. })));
    for ttl in [Duration::ZERO, *LEASE_TTL.start() / 2, *LEASE_TTL.end() * 2] {
        assert!(matches!(store.grant(ttl).await, Err(StoreError::Ttl { .. })));
    }
    let mut watches: Vec<_> = (0..WATCHES_MAX).map(|_| store.watch("", 1).expect("a watch")).collect();
    assert!(matches!(store.watch("", 1), Err(StoreError::TooMany { what: "watches", .. })));
    watches.pop();
    store.watch("", 1).expect("one has gone");
    assert_eq!((revision(&store).await, read(&store, "").await), (1, Vec::new()));
}

pub(crate) async fn the_largest_transaction_passes(store: Store) {
    let most = store.most();
    let value: Vec<u8> = (0..VALUE_MAX).map(|at| at.to_le_bytes()[0]).collect();
    let mut ops = vec![Op::Put { key: "k".repeat(KEY_MAX), value: value.clone(), lease: None }];
    let mut room = most.octets - KEY_MAX - VALUE_MAX;
    while room > 0 {
        let key = format!("k{:07}", ops.len());
        let octets = VALUE_MAX.min(room - key.len());
        room -= key.len() + octets;
        ops.push(Op::Put { key, value: value[..octets].to_vec(), lease: None });
    }
    let first = write(&store, ops.clone()).await;
    let batch = next(&mut store.watch("", first - 1).expect("a watch")).await;
    let entries = store.read("").await.expect("a snapshot").entries;
    for (op, change) in ops.iter().zip(&batch.changes) {
        let Op::Put { key, value, .. } = op else { unreachable!("all are put") };
        let Change::Put(entry) = change else { panic!("{key} was put") };
        assert!(entry.key == *key && entry.value == *value && entries.contains(entry), "{key} came back otherwise");
    }
    // As many expectations as may be, and as many operations.
    let expect = (0..most.operations).map(|at| absent(&at.to_string())).collect::<Vec<_>>();
    let ops = (0..most.operations).map(|at| put(&at.to_string(), "")).collect::<Vec<_>>();
    assert_eq!(commit(&store, expect.clone(), ops.clone()).await, Outcome::Committed(first + 1));
    assert_eq!(commit(&store, expect, ops).await, Outcome::Conflict { key: "0".into() });
}

pub(crate) async fn no_increment_of_concurrent_writers_is_lost(store: Store) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 20;
    let start = write(&store, vec![put("counter", "0")]).await;
    let increment = async |store: &Store| {
        loop {
            let entry = store.read("counter").await.expect("a snapshot").entries.remove(0);
            let value: u64 = String::from_utf8(entry.value).expect("text").parse().expect("a number");
            let ops = vec![put("counter", &(value + 1).to_string())];
            if let Outcome::Committed(_) = commit(store, vec![unchanged("counter", entry.modified)], ops).await {
                return;
            }
        }
    };
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    increment(&store).await;
                }
            })
        })
        .collect();
    let mut watch = store.watch("counter", start).expect("a watch");
    for value in 1..=WRITERS * EACH {
        let batch = next(&mut watch).await;
        assert_eq!((batch.revision, words(&batch)), (start + value, vec![format!("counter={value}")]));
    }
    for writer in writers {
        writer.await.expect("a writer");
    }
    assert_eq!(read(&store, "").await, [("counter".into(), (WRITERS * EACH).to_string())]);
}

/// A random transaction on a few keys: often expecting rightly, sometimes not.
fn random(dice: &mut Dice, known: &BTreeMap<String, u64>, number: u64) -> Txn {
    let mut txn = Txn::default();
    for at in 0..6 {
        let key = format!("k{at}");
        match (dice.below(5), known.get(&key)) {
            (0, Some(modified)) => txn.expect.push(unchanged(&key, *modified)),
            (0, None) => txn.expect.push(absent(&key)),
            (1, _) if dice.below(8) == 0 => txn.expect.push(absent(&key)),
            (1, _) if dice.below(8) == 0 => txn.expect.push(unchanged(&key, 1 + dice.below(number + 1))),
            _ => {}
        }
        match dice.below(6) {
            0 | 1 => txn.ops.push(put(&key, &number.to_string())),
            2 => txn.ops.push(delete(&key)),
            _ => {}
        }
    }
    txn
}

pub(crate) async fn agree(one: &Store, two: &Store, count: u64) {
    let mut dice = Dice::new(20_261_123);
    let mut watches = (one.watch("", 1).expect("a watch"), two.watch("", 1).expect("a watch"));
    let (mut last, mut conflicts) = (1, 0);
    for number in 0..count {
        let snapshot = one.read("").await.expect("a snapshot");
        assert_eq!(snapshot, two.read("").await.expect("a snapshot"), "before transaction {number}");
        let known = snapshot.entries.into_iter().map(|entry| (entry.key, entry.modified)).collect();
        let txn = random(&mut dice, &known, number);
        let outcome = one.commit(txn.clone()).await.expect("an outcome");
        assert_eq!(outcome, two.commit(txn.clone()).await.expect("an outcome"), "{txn:?}");
        match outcome {
            Outcome::Committed(revision) if revision > last => {
                last = revision;
                assert_eq!(next(&mut watches.0).await, next(&mut watches.1).await, "{txn:?}");
            }
            Outcome::Committed(_) => {}
            Outcome::Conflict { .. } => conflicts += 1,
        }
    }
    assert!(conflicts > count / 20 && last > count / 3, "{conflicts} conflicts and {last} revisions compare little");
}
