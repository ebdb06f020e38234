//! Two controllers over one store, and an agent that goes from one to the other and back.

use std::sync::Arc;

use super::*;
use crate::controller::hub;
use crate::model::{Edit, Resource};
use crate::store::Store;

async fn controller(store: &Store) -> Arc<Hub> {
    let hub = Hub::new(store.clone());
    hub.open().await.expect("the store is there");
    let follower = Arc::clone(&hub);
    tokio::spawn(async move { hub::follow(&follower).await });
    hub
}

/// The lease that a node's key is under, once this controller has followed the store to it.
async fn lease_of(hub: &Hub, node: &str) -> Option<LeaseId> {
    let snapshot = hub.store.read(&keys::live(node)).await.expect("the store is there");
    let mut pulse = hub.world().pulse();
    let last = snapshot.entries.first().map_or(0, |entry| entry.modified);
    pulse.wait_for(|at| *at >= last).await.expect("it is followed");
    snapshot.entries.first().and_then(|entry| entry.lease)
}

fn own(hub: &Hub, node: &str) -> Option<LeaseId> {
    lock(&hub.heard).get(node).and_then(|heard| heard.lease)
}

/// The node's key as both have followed it.
async fn seen(one: &Hub, other: &Hub) -> Option<LeaseId> {
    let lease = lease_of(one, "n1").await;
    assert_eq!(lease_of(other, "n1").await, lease);
    lease
}

#[tokio::test]
async fn an_agents_newest_registration_has_its_key() {
    let dir = std::env::temp_dir().join(format!("dvr-beats-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
    let store = Store::open_embedded(&dir.join("store")).expect("a new store");
    let (a, b) = (controller(&store).await, controller(&store).await);
    let node: Resource = serde_json::from_str("{\"kind\":\"node\",\"name\":\"n1\"}").expect("a node");
    let wish = super::super::write::Wish { edits: vec![Edit::put(node)], underlay: None };
    super::super::write::apply(&a, Arc::new(wish), false).await.expect("a node");
    let (calm, trouble) = (Report::default(), Report::new(7, vec!["no switch".to_owned()]));

    register(&a, "n1");
    beat(&a, "n1", &calm).await.expect("heard");
    assert_eq!(seen(&a, &b).await, own(&a, "n1"));
    // To the other controller; a beat that comes late to the first one moves nothing, whatever it says.
    register(&b, "n1");
    beat(&b, "n1", &calm).await.expect("heard");
    assert_eq!(seen(&a, &b).await, own(&b, "n1"));
    beat(&a, "n1", &trouble).await.expect("heard");
    assert_eq!(seen(&a, &b).await, own(&b, "n1"));
    // Nor does its lease's end.
    store.revoke(own(&a, "n1").expect("a lease")).await.expect("it was granted");
    beat(&a, "n1", &trouble).await.expect("heard");
    assert_eq!(seen(&a, &b).await, own(&b, "n1"));
    // Back to the first, which takes it over, and then what it says changes.
    register(&a, "n1");
    beat(&a, "n1", &calm).await.expect("heard");
    beat(&b, "n1", &calm).await.expect("heard");
    assert_eq!(seen(&a, &b).await, own(&a, "n1"));
    beat(&a, "n1", &trouble).await.expect("heard");
    assert_eq!(seen(&a, &b).await, own(&a, "n1"));
    assert_eq!(b.world().alive("n1").map(|alive| alive.report.clone()), Some(trouble.clone()));
    store.revoke(own(&b, "n1").expect("a lease")).await.expect("it was granted");
    assert_eq!(seen(&a, &b).await, own(&a, "n1"), "the end of the old lease takes nothing with it");
    // A lease that ran out is replaced by the next beat.
    store.revoke(own(&a, "n1").expect("a lease")).await.expect("it was granted");
    beat(&a, "n1", &trouble).await.expect("heard");
    beat(&a, "n1", &trouble).await.expect("heard");
    assert_eq!(seen(&a, &b).await, own(&a, "n1"));
    let _gone = std::fs::remove_dir_all(&dir);
}
