//! A node's streams, one after another.

use tokio::time::timeout;

use super::*;
use crate::store::Store;

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

/// Input: a stream that is to begin in an hour, whose asking side goes. Output: its place is given back now.
#[tokio::test]
async fn who_goes_before_its_stream_begins_takes_no_place() {
    let dir = std::env::temp_dir().join(format!("dvr-streams-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
    let hub = Hub::new(Store::open_embedded(&dir.join("store")).expect("a new store"));
    hub.open().await.expect("an empty store");
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
