//! Writing against a store of its own: what stands in the way is named, what moves is moved whole.

use super::*;
use crate::controller::hub;
use crate::store::{ETCD_MOST, Op, Store, Txn};

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
        let hub = Hub::new(store);
        hub.open().await.expect("an empty store");
        let follower = Arc::clone(&hub);
        tokio::spawn(async move { hub::follow(&follower).await });
        Self { hub, dir }
    }

    async fn apply(&self, edits: Vec<Edit>) -> Result<Applied, WriteError> {
        apply(&self.hub, Arc::new(Wish { edits, underlay: None }), false).await
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
    let Err(WriteError { why: Why::Overtaken { key }, done }) = refused else { unreachable!("{refused:?}") };
    assert_eq!((key, done.count()), (mac_key(1), 0));
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
    let basis = {
        let world = place.hub.world();
        Basis { desired: Arc::clone(&world.desired), serial: world.serial, revision: world.revision }
    };
    let stale = plan(&basis, &wish, &progress.left, ETCD_MOST).err();
    assert!(matches!(stale, Some(Why::Stale { .. })), "{stale:?}");
    // A deletion that is made is no mistake when the rest is planned anew; one that nobody made is.
    let missing = Object::new(Kind::Node, "never");
    let wish = Wish { edits: vec![Edit::delete(Kind::Node, "never")], underlay: None };
    let again = plan(&basis, &wish, &BTreeMap::from([(missing, None)]), ETCD_MOST).map(|plan| plan.steps.len());
    assert!(matches!(again, Ok(0)), "{again:?}");
    assert!(matches!(plan(&basis, &wish, &BTreeMap::new(), ETCD_MOST).err(), Some(Why::Refused(_))));
}

/// A network and so many ports on it.
fn crowd(ports: usize) -> Vec<Edit> {
    let network = r#"{"kind":"network","name":"blue","subnets":[{"cidr":"10.1.0.0/16"}]}"#;
    let port = |number| format!(r#"{{"kind":"port","name":"p{number:05}","network":"blue"}}"#);
    let texts = core::iter::once(network.to_owned()).chain((0..ports).map(port));
    texts.map(|text| Edit::put(serde_json::from_str(&text).expect("a resource"))).collect()
}

#[tokio::test]
async fn what_has_begun_is_finished_though_nobody_waits_for_it() {
    let place = Place::new("left").await;
    let mut pulse = place.hub.world().pulse();
    let asked = {
        let hub = Arc::clone(&place.hub);
        tokio::spawn(async move { apply(&hub, Arc::new(Wish { edits: crowd(1_000), underlay: None }), false).await })
    };
    let count = |hub: &Hub| hub.world().fabric().count(Kind::Port);
    pulse.wait_for(|_| count(&place.hub) > 0).await.expect("it begins");
    assert!(count(&place.hub) < 1_000, "it is made in parts");
    asked.abort();
    assert!(asked.await.expect_err("it was aborted").is_cancelled());
    pulse.wait_for(|_| count(&place.hub) == 1_000).await.expect("all of it comes");
}

#[tokio::test]
async fn what_nobody_waits_for_before_its_turn_is_never_begun() {
    let place = Place::new("never").await;
    let before_it = place.hub.writers.lock().await;
    let asked = {
        let hub = Arc::clone(&place.hub);
        tokio::spawn(async move { apply(&hub, Arc::new(Wish { edits: crowd(1), underlay: None }), false).await })
    };
    while place.hub.waiting.available_permits() == 2 * EDITS_MAX {
        tokio::task::yield_now().await;
    }
    asked.abort();
    assert!(asked.await.expect_err("it was aborted").is_cancelled());
    drop(before_it);
    let applied = place.apply(vec![Edit::put(node("a", 1))]).await.expect("a node");
    assert_eq!((applied.made.len(), place.hub.world().fabric().count(Kind::Port)), (1, 0));
}

#[tokio::test]
async fn too_many_that_wait_are_refused_and_counted() {
    let place = Place::new("crowded").await;
    let all = u32::try_from(place.hub.waiting.available_permits()).expect("not so many");
    let _all = place.hub.waiting.try_acquire_many(all).expect("nobody waits");
    let refused = place.apply(vec![Edit::put(node("a", 1))]).await;
    assert!(matches!(refused, Err(WriteError { why: Why::Crowded, .. })), "{refused:?}");
    assert_eq!(place.hub.counters().limited, 1);
}

#[tokio::test]
async fn a_plan_sees_what_was_and_keeps_nothing_from_changing() {
    let place = Place::new("basis").await;
    place.apply(crowd(3)).await.expect("a network and ports");
    let desired = Arc::clone(&place.hub.world().desired);
    // Larger than what is planned beside everything else.
    place.apply(crowd(ASIDE + 10)).await.expect("more ports");
    let counts = (desired.fabric.count(Kind::Port), place.hub.world().fabric().count(Kind::Port));
    assert_eq!(counts, (3, ASIDE + 10));
}

#[tokio::test]
async fn a_host_mac_passes_on_however_many_changes_are_between() {
    let place = Place::new("heir").await;
    place.apply(vec![Edit::put(node("z", 1))]).await.expect("a node");
    let mut edits = crowd(300);
    edits.extend([Edit::put(node("heir", 1)), Edit::delete(Kind::Node, "z")]);
    place.apply(edits).await.expect("z goes before its heir comes");
    assert_eq!(place.value(&mac_key(1)).await, Some("heir".to_owned()));
    assert_eq!(place.hub.counters().overtaken, 0);
}

#[tokio::test]
async fn a_gateway_moves_in_one_transaction_with_its_router() {
    let place = Place::new("gateway").await;
    let resource = |text: &str| Edit::put(serde_json::from_str(text).expect("a resource"));
    let network = |gateway: &str| {
        resource(&format!(
            r#"{{"kind":"network","name":"blue","subnets":[{{"cidr":"10.1.0.0/16","gateway":"{gateway}"}}]}}"#
        ))
    };
    let router = r#"{"kind":"router","name":"r1","interfaces":[{"network":"blue"}]}"#;
    place.apply(vec![network("10.1.0.1"), resource(router)]).await.expect("a router");
    // Routers that come between the two in the order of kinds and names.
    let mut edits: Vec<Edit> =
        (0..200).map(|n| resource(&format!(r#"{{"kind":"router","name":"a{n}","interfaces":[]}}"#))).collect();
    edits.push(network("10.1.9.9"));
    place.apply(edits).await.expect("the gateway moves");
    let world = place.hub.world();
    let changed = |kind, name| world.changed(&Object::new(kind, name));
    assert!(changed(Kind::Network, "blue").is_some());
    assert_eq!(changed(Kind::Network, "blue"), changed(Kind::Router, "r1"));
}

/// Ports that pass their addresses on in a circle.
fn circle(ports: usize) -> Vec<Edit> {
    let address = |number: usize| format!("10.1.{}.{}", 1 + number / 200, 1 + number % 200);
    let port = |number: usize| {
        let ip = address((number + 1) % ports);
        format!(r#"{{"kind":"port","name":"p{number:05}","network":"blue","ips":["{ip}"]}}"#)
    };
    (0..ports).map(|number| Edit::put(serde_json::from_str(&port(number)).expect("a resource"))).collect()
}

#[tokio::test]
async fn what_needs_each_other_is_made_at_one_instant() {
    let place = Place::new("circle").await;
    let mut edits = crowd(300);
    edits.extend(circle(300));
    let unnamed = |edit: &Edit| matches!(edit, Edit::Put { resource: Resource::Port(port), .. } if port.ips.is_empty());
    edits.retain(|edit| !unnamed(edit));
    place.apply(edits).await.expect("ports");
    let mut turned = circle(300);
    for (edit, next) in turned.iter_mut().zip(circle(300).into_iter().cycle().skip(1)) {
        if let (Edit::Put { resource: Resource::Port(port), .. }, Edit::Put { resource: Resource::Port(next), .. }) =
            (edit, next)
        {
            port.ips = next.ips;
        }
    }
    let applied = place.apply(turned.clone()).await.expect("the circle turns");
    assert_eq!(applied.made.len(), 300);
    let world = place.hub.world();
    let mut revisions: Vec<_> = turned.iter().map(|edit| world.changed(&edit.object())).collect();
    revisions.dedup();
    assert_eq!(revisions, [Some(applied.revision)]);
}

#[tokio::test]
async fn what_would_have_to_be_made_at_one_instant_and_cannot_is_refused() {
    let place = Place::new("tied").await;
    let mut edits = crowd(200);
    edits.push(Edit::put(node("a", 1)));
    for edit in &mut edits {
        if let Edit::Put { resource: Resource::Port(port), .. } = edit {
            port.node = Some("a".to_owned());
        }
    }
    place.apply(edits.clone()).await.expect("ports on a node");
    for edit in &mut edits {
        if let Edit::Put { resource: Resource::Port(port), .. } = edit {
            port.node = Some("b".to_owned());
        }
    }
    edits.pop();
    edits.extend([Edit::put(node("b", 1)), Edit::delete(Kind::Node, "a")]);
    let basis = {
        let world = place.hub.world();
        Basis { desired: Arc::clone(&world.desired), serial: world.serial, revision: world.revision }
    };
    let wish = Wish { edits: edits.clone(), underlay: None };
    let refused = plan(&basis, &wish, &BTreeMap::new(), ETCD_MOST).err().expect("etcd cannot");
    assert!(matches!(refused, Why::Tied { count: 202, most: 98, .. }), "{refused:?}");
    let told = refused.to_string();
    assert!(told.contains("202 changes need each other") && told.contains("and 197 more"), "{told}");
    assert!(told.contains("`p00000`") && told.contains("in parts"), "{told}");
    place.apply(edits).await.expect("a file can");
}

/// Input: a network of more ports than etcd changes at one instant, renumbered: at once, and as the refusal says. Output: at
/// once it is refused; a new subnet, then the ports, then the old subnet's end are each taken.
#[tokio::test]
async fn a_network_too_large_for_one_instant_is_renumbered_as_the_refusal_says() {
    let place = Place::new("renumbered").await;
    place.apply(crowd(150)).await.expect("ports");
    let network = |cidrs: &[&str]| {
        let subnets: Vec<String> = cidrs.iter().map(|cidr| format!(r#"{{"cidr":"{cidr}"}}"#)).collect();
        let text = format!(r#"{{"kind":"network","name":"blue","subnets":[{}]}}"#, subnets.join(","));
        Edit::put(serde_json::from_str(&text).expect("a network"))
    };
    let port = |number: usize| {
        let text =
            format!(r#"{{"kind":"port","name":"p{number:05}","network":"blue","ips":["10.2.0.{}"]}}"#, 2 + number);
        Edit::put(serde_json::from_str(&text).expect("a port"))
    };
    let ports: Vec<Edit> = (0..150).map(port).collect();
    let planned = |edits: Vec<Edit>| {
        let world = place.hub.world();
        let basis = Basis { desired: Arc::clone(&world.desired), serial: world.serial, revision: world.revision };
        plan(&basis, &Wish { edits, underlay: None }, &BTreeMap::new(), ETCD_MOST).map(|plan| plan.steps.len())
    };
    let (old, new) = ("10.1.0.0/16", "10.2.0.0/16");
    let refused = planned([vec![network(&[new])], ports.clone()].concat()).expect_err("etcd cannot").to_string();
    assert!(
        refused.contains("151 changes need each other") && refused.contains("first a new node or subnet"),
        "{refused}"
    );
    for edits in [vec![network(&[old, new])], ports, vec![network(&[new])]] {
        planned(edits.clone()).unwrap_or_else(|why| panic!("{why}"));
        place.apply(edits).await.expect("a step of its own");
    }
}

#[test]
fn a_failure_says_what_was_made_before_it() {
    let made = |name: &str| {
        let resource = node(name, 9);
        Made { object: resource.object(), before: None, after: Some(resource) }
    };
    let refusal = || Fabric::default().plan(&[Edit::delete(Kind::Node, "x")]).expect_err("there is none");
    let told = |made: Vec<Made>, doubt: Vec<Made>| {
        Progress { made, doubt, ..Progress::default() }.failed(Why::Refused(refusal())).to_string()
    };
    assert_eq!(told(vec![], vec![]), "nothing was changed: 1 thing is wrong with what was asked for");
    assert_eq!(
        told(vec![made("a")], vec![]),
        "1 thing is wrong with what was asked for; 1 change was made before, and stays: node `a`"
    );
    let all = ["a", "b", "c", "d", "e", "f", "g"].map(made).to_vec();
    assert_eq!(
        told(all, vec![made("h")]),
        "1 thing is wrong with what was asked for; 7 changes were made before, and stay: node `a`, node `b`, node `c`, \
         node `d`, node `e` and 2 more; whether 1 more are made is not known yet: node `h`"
    );
}

/// Input: a write in parts, of which another writer makes the rest impossible. Output: it is refused, and says what stays.
#[tokio::test]
async fn a_refusal_after_some_parts_says_which() {
    let place = Place::new("partly").await;
    let edits = crowd(200);
    let wish = Wish { edits, underlay: None };
    let basis = {
        let world = place.hub.world();
        Basis { desired: Arc::clone(&world.desired), serial: world.serial, revision: world.revision }
    };
    let whole = plan(&basis, &wish, &BTreeMap::new(), ETCD_MOST).expect("it is right");
    let first = Plan { steps: whole.steps.into_iter().take(50).collect(), ..whole };
    let mut progress = Progress::default();
    commit(&place.hub, first, &mut progress).await.expect("the first part");
    let mut pulse = place.hub.world().pulse();
    pulse.wait_for(|at| *at >= progress.reached).await.expect("it is followed");
    // Somebody takes a name that the rest needs: a node cannot be called what a machine is to be.
    place.apply(vec![Edit::put(node("p00150", 1))]).await.expect("another writer");
    let refused = write(&place.hub, &Arc::new(wish), false, progress).await.expect_err("the name is taken");
    let told = refused.to_string();
    assert!(told.starts_with("1 thing is wrong") && told.contains("50 changes were made before, and stay"), "{told}");
    assert!(told.contains("network `blue`, "), "{told}");
}
