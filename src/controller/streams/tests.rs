//! A node's streams, one after another.

use futures::FutureExt;
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::*;
use crate::store::{Snapshot, Store};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn streams_of_one_name_take_turns_and_a_late_one_is_not_made_to_wait() {
    let now = Instant::now();
    let cases = [
        // The one before has had its time.
        (now, now + 5 * SECOND, now + 5 * SECOND),
        (now, now + REPLACED_AFTER, now + REPLACED_AFTER),
        // It has just begun.
        (now, now, now + REPLACED_AFTER),
        (now, now + REPLACED_AFTER / 4, now + REPLACED_AFTER),
        // It had not begun.
        (now + REPLACED_AFTER, now, now + REPLACED_AFTER),
    ];
    for (former, now, expected) in cases {
        assert_eq!(begins(former, now), expected);
    }
    // Two that take it from each other without a pause, after one that lived for a day: once a second, no more, no less.
    let (mut at, mut last, mut begun) = (now + 86_400 * SECOND, now, 0);
    let end = at + 60 * SECOND;
    while at < end {
        let next = begins(last, at);
        begun += u32::from(next != last);
        (last, at) = (next, at + Duration::from_millis(3));
    }
    assert!((60..=62).contains(&begun), "{begun}");
    assert!(last <= end + REPLACED_AFTER, "it is put off for ever");
}

/// A controller's state over an empty store, and the directory that it is in.
async fn place(test: &str) -> (Arc<Hub>, std::path::PathBuf) {
    let dir = std::env::temp_dir().join(format!("dvr-streams-{test}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
    let hub = Hub::new(Store::open_embedded(&dir.join("store")).expect("a new store"));
    hub.open().await.expect("an empty store");
    (hub, dir)
}

/// Input: a stream that is to begin in an hour, whose asking side goes. Output: its place is given back now.
#[tokio::test]
async fn who_goes_before_its_stream_begins_takes_no_place() {
    let (hub, dir) = place("turns").await;
    let request = || ViewRequest { node: "n1".to_owned(), ..ViewRequest::default() };
    let first = view(&hub, request(), None).expect("a stream");
    lock(&hub.open).get_mut("n1").expect("it is open").begins += 3600 * SECOND;
    let second = view(&hub, request(), None).expect("a stream");
    drop(first);
    let views = |most| {
        let hub = Arc::clone(&hub);
        async move {
            while hub.counters().views > most {
                tokio::task::yield_now().await;
            }
        }
    };
    timeout(60 * SECOND, views(1)).await.expect("the first one ends");
    drop(second);
    timeout(60 * SECOND, views(0)).await.expect("the second one never begins");
    let _gone = std::fs::remove_dir_all(&dir);
}

/// Input: more lists than may be made at once, and one that is read too late. Output: a list waits for its place, and one
/// that is not read gives its place back, which is counted, and ends with an error.
#[tokio::test]
async fn lists_wait_for_a_place_and_an_unread_one_gives_it_back() {
    let (hub, dir) = place("lists").await;
    let topology = crate::model::Topology::example();
    let entry = |resource: &Resource| crate::store::Entry {
        key: super::super::keys::object(&resource.object()),
        value: super::super::keys::value(resource),
        modified: 2,
        lease: None,
    };
    hub.world().load(&Snapshot { revision: 2, entries: topology.resources().iter().map(entry).collect() });
    let filter = Filter { kind: String::new(), name: String::new() };
    // Its channel is full already.
    let (sender, mut unread) = mpsc::channel::<Result<ListReply, Status>>(1);
    sender.try_send(Ok(ListReply::default())).expect("there is room for one");
    let all = hub.lists.available_permits();
    let read = async {
        while hub.counters().limited == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(hub.lists.available_permits(), all, "the place is free while the reader is not there");
        unread.recv().await.expect("what was in the way").expect("an answer");
        let ended = unread.recv().await.expect("no silent end").expect_err("a part is not the whole");
        assert_eq!(ended.code(), tonic::Code::DeadlineExceeded);
    };
    let (told, ()) = tokio::join!(told_of(&hub, &filter, &sender, Duration::ZERO), read);
    assert!(told.is_ok(), "it was told why");
    let taken = hub.lists.acquire_many(u32::try_from(all).expect("few")).await.expect("never closed");
    let asked = || ListRequest { kind: "node".to_owned(), name: String::new() };
    let mut waiting = list(&hub, asked());
    for _ in 0..10 {
        tokio::task::yield_now().await;
        assert!(waiting.next().now_or_never().is_none(), "it has no place yet");
    }
    drop(taken);
    let told = waiting.next().await.expect("an answer").expect("all is well");
    assert_eq!((told.revision, told.items.len()), (2, topology.nodes().len()));
    let _gone = std::fs::remove_dir_all(&dir);
}
