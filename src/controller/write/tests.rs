//! Writing against a store of its own: what stands in the way is named, what moves is moved whole.

use super::*;
use crate::controller::hub;
use crate::store::Store;

/// A controller's state over a store in a file, which goes with it.
struct Place {
    hub: Arc<Hub>,
    dir: std::path::PathBuf,
}

impl Place {
    async fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("dvr-write-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
        let store = Store::open_embedded(&dir.join("store")).expect("a new store");
        let hub = Hub::open(store).await.expect("an empty store");
        let follower = Arc::clone(&hub);
        tokio::spawn(async move { hub::follow(&follower).await });
        Self { hub, dir }
    }

    async fn apply(&self, edits: Vec<Edit>) -> Result<Applied, WriteError> {
        apply(&self.hub, &Wish { edits, underlay: None }, false).await
    }

    async fn value(&self, key: &str) -> Option<String> {
        let found = entry(&self.hub, &Progress::default(), key).await.expect("the store is there");
        found.map(|entry| String::from_utf8(entry.value).expect("text"))
    }

    /// Puts keys past this writer.
    async fn slip(&self, keys: &[&str]) {
        let put = |key: &&str| Op::Put { key: (*key).to_owned(), value: b"{}".to_vec(), lease: None };
        let txn = Txn { expect: Vec::new(), ops: keys.iter().map(put).collect() };
        assert!(matches!(self.hub.store.commit(txn).await, Ok(Outcome::Committed(_))));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.dir);
    }
}

fn node(name: &str, mac: u8) -> Resource {
    let text = format!("{{\"kind\":\"node\",\"name\":\"{name}\",\"host_mac\":\"fa:16:3f:00:00:{mac:02x}\"}}");
    serde_json::from_str(&text).expect("a node")
}

fn mac_key(mac: u8) -> String {
    keys::host_mac(format!("fa:16:3f:00:00:{mac:02x}").parse().expect("an address"))
}

#[tokio::test]
async fn a_host_mac_goes_from_node_to_node_in_one_write() {
    for (test, first, second) in [("forth", "a", "b"), ("back", "b", "a")] {
        let place = Place::new(test).await;
        place.apply(vec![Edit::put(node(first, 1)), Edit::put(node(second, 2))]).await.expect("two nodes");
        place.apply(vec![Edit::put(node(first, 3)), Edit::put(node(second, 1))]).await.expect("1 moves");
        let owners = [place.value(&mac_key(1)).await, place.value(&mac_key(2)).await, place.value(&mac_key(3)).await];
        assert_eq!(owners, [Some(second.to_owned()), None, Some(first.to_owned())]);
        place.apply(vec![Edit::put(node(first, 1)), Edit::put(node(second, 3))]).await.expect("they swap");
        let owners = [place.value(&mac_key(1)).await, place.value(&mac_key(3)).await];
        assert_eq!(owners, [Some(first.to_owned()), Some(second.to_owned())]);
    }
}

#[tokio::test]
async fn a_key_in_the_way_is_named_and_not_waited_for() {
    let place = Place::new("way").await;
    place.slip(&[&mac_key(1)]).await;
    let refused = place.apply(vec![Edit::put(node("a", 1))]).await;
    let Err(WriteError::Overtaken { key, done: 0 }) = refused else { unreachable!("{refused:?}") };
    assert_eq!(key, mac_key(1));
}

#[tokio::test]
async fn a_part_in_doubt_is_settled_by_what_the_store_holds() {
    let place = Place::new("doubt").await;
    let applied = place.apply(vec![Edit::put(node("a", 1))]).await.expect("a node");
    let gone = |name: &str| {
        let resource = node(name, 9);
        vec![Made { object: resource.object(), before: None, after: Some(resource) }]
    };
    // Not there: still in doubt, and what is waited for is there already, whatever the store is at.
    let mut progress = Progress { doubt: gone("b"), ..Progress::default() };
    place.slip(&["/elsewhere"]).await;
    let until = settle(&place.hub, &mut progress).await.expect("the store is there");
    assert_eq!((until, progress.doubt.len(), progress.made.len()), (applied.revision, 1, 0));
    // There: made, and left at its revision.
    let mut progress = Progress { doubt: applied.made, ..Progress::default() };
    let until = settle(&place.hub, &mut progress).await.expect("the store is there");
    assert_eq!((until, progress.doubt.len(), progress.made.len()), (applied.revision, 0, 1));
    let object = node("a", 1).object();
    assert_eq!(progress.left.get(&object), Some(&Some(applied.revision)));
    // Somebody changes it: what is left of this write must not undo that.
    place.apply(vec![Edit::put(node("a", 2))]).await.expect("another writer");
    let wish = Wish { edits: vec![Edit::put(node("a", 1))], underlay: None };
    let stale = plan(&place.hub, &wish, &progress.left).err();
    assert!(matches!(stale, Some(WriteError::Stale { done: 1, .. })), "{stale:?}");
}
