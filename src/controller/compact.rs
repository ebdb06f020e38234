//! Forgetting etcd's history: it keeps every revision until it is told otherwise, and its disk is bounded.
//!
//! One controller at a time does it, without any being chosen: a key holds the revision that somebody saw a while ago.
//! Who finds the key as it was one interval before moves it to the revision of now, by compare and swap, and compacts up
//! to what it held. So at least an interval's history stays. A watch that is further behind is told, and reads anew.

use core::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;

use super::keys;
use crate::store::{Entry, Expect, Op, Outcome, Revision, Store, StoreError, Txn};

/// How often history is looked at; what is younger stays.
const INTERVAL: Duration = Duration::from_secs(300);

/// Keeps etcd's history bounded, for ever. A file bounds its own.
pub(super) async fn keep(store: &Store) -> Infallible {
    if matches!(store, Store::Embedded(_)) {
        return core::future::pending().await;
    }
    let mut seen = None;
    loop {
        sleep(INTERVAL).await;
        match round(store, &mut seen).await {
            Ok(Some(revision)) => tracing::debug!(revision, "etcd's history up to this revision may go"),
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "etcd's history is not compacted: trying again later"),
        }
    }
}

/// One look; `seen` is when the key was last put, as of the look before. Gives the revision compacted to, if it was.
///
/// # Errors
/// As the store says.
async fn round(store: &Store, seen: &mut Option<Revision>) -> Result<Option<Revision>, StoreError> {
    let snapshot = store.read(keys::COMPACTED).await?;
    let found = snapshot.entries.into_iter().find(|entry| entry.key == keys::COMPACTED);
    let expect = match &found {
        // Somebody has been at it since.
        Some(entry) if *seen != Some(entry.modified) => {
            *seen = Some(entry.modified);
            return Ok(None);
        }
        Some(Entry { modified, .. }) => Expect::Unchanged { key: keys::COMPACTED.to_owned(), modified: *modified },
        None => Expect::Absent(keys::COMPACTED.to_owned()),
    };
    let value = snapshot.revision.to_string().into_bytes();
    let ops = vec![Op::Put { key: keys::COMPACTED.to_owned(), value, lease: None }];
    let Outcome::Committed(revision) = store.commit(Txn { expect: vec![expect], ops }).await? else { return Ok(None) };
    *seen = Some(revision);
    let held = found.and_then(|entry| String::from_utf8(entry.value).ok()?.parse::<Revision>().ok());
    let Some(held) = held else { return Ok(None) };
    store.compact(held).await?;
    Ok(Some(held))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn write(store: &Store) -> Revision {
        let op = Op::Put { key: "/dvr/v1/serial".to_owned(), value: b"{}".to_vec(), lease: None };
        match store.commit(Txn { expect: Vec::new(), ops: vec![op] }).await {
            Ok(Outcome::Committed(revision)) => revision,
            other => unreachable!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn one_of_two_compacts_to_what_was_an_interval_ago() {
        let dir = std::env::temp_dir().join(format!("dvr-compact-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
        let store = Store::open_embedded(&dir.join("store")).expect("a new store");
        let (mut a, mut b) = (None, None);
        let first = write(&store).await;
        let mut looks = Vec::new();
        for _ in 0..3 {
            looks.push(round(&store, &mut a).await.expect("it is there"));
            looks.push(round(&store, &mut b).await.expect("it is there"));
            write(&store).await;
        }
        // The first notes, the second sees that; and so on: whoever comes first in an interval does the work.
        assert_eq!(looks[..2], [None, None]);
        assert_eq!((looks[2], looks[3]), (Some(first), None));
        assert!(looks[4].is_some_and(|revision| revision > first) && looks[5].is_none(), "{looks:?}");
        // When the first is gone, the second finds the key as it was, and goes on.
        let taken = round(&store, &mut b).await.expect("it is there");
        assert!(taken > looks[4], "{taken:?}");
        let lost = store.watch(keys::PREFIX, first).expect("a watch").next().await;
        assert!(matches!(lost, Err(StoreError::Compacted { .. })), "{lost:?}");
        let _gone = std::fs::remove_dir_all(&dir);
    }
}
