//! Batches in, streams' words out: what deltas build equals the whole.

use super::*;
use crate::controller::keys;
use crate::model::{EXAMPLE, Edit, Topology};

/// The example as a store would have it, and the world that read it.
fn example() -> World {
    let topology = Topology::parse(EXAMPLE, "test").expect("the example is right");
    let entries = topology.resources().into_iter().map(|resource| entry(&resource, 2)).collect();
    let mut world = World::new();
    world.load(&Snapshot { revision: 2, entries });
    world
}

fn entry(resource: &Resource, modified: Revision) -> Entry {
    Entry { key: keys::object(&resource.object()), value: keys::value(resource), modified, lease: None }
}

/// Makes edits true at a revision, as the store would tell it.
fn apply(world: &mut World, revision: Revision, edits: &[Edit]) {
    let changes = world.fabric().plan(edits).expect("the edits are right");
    let changes = changes.into_iter().map(|change| match change {
        crate::model::Change::Put(resource) => Change::Put(entry(&resource, revision)),
        crate::model::Change::Delete(object) => Change::Delete { key: keys::object(&object) },
    });
    world.take(&Batch { revision, changes: changes.collect() });
}

fn port(name: &str, node: &str) -> Resource {
    let text = format!("{{\"kind\":\"port\",\"name\":\"{name}\",\"network\":\"blue\",\"node\":\"{node}\"}}");
    serde_json::from_str(&text).expect("a port")
}

/// What a stream holds after it was told all there is.
struct Stream {
    node: &'static str,
    cursor: Cursor,
    view: Option<NodeView>,
    wholes: usize,
}

impl Stream {
    fn new(node: &'static str) -> Self {
        Self { node, cursor: Cursor::Fresh, view: None, wholes: 0 }
    }

    fn drain(&mut self, world: &World) {
        loop {
            match world.next(self.node, self.cursor) {
                Next::Nothing => return,
                Next::Anew => {
                    let (view, revision) = world.whole(self.node).expect("there is such a node");
                    self.wholes += 1;
                    (self.view, self.cursor) = (Some(view), Cursor::At(revision));
                }
                Next::Changes(changes) => {
                    for (revision, octets) in changes {
                        let changes: Vec<ViewChange> = serde_json::from_slice(&octets).expect("changes");
                        let view = self.view.as_mut().expect("changes come after the whole");
                        assert!(changes.into_iter().all(|change| view.apply(change)));
                        self.cursor = Cursor::At(revision);
                    }
                }
                Next::Absent => (self.view, self.cursor) = (None, Cursor::Absent),
            }
        }
    }

    fn holds_all(&self, world: &World) {
        assert_eq!(self.view, world.live.view(world.fabric(), self.node), "{}", self.node);
    }
}

#[test]
fn a_stream_that_keeps_up_is_told_the_whole_once() {
    let mut world = example();
    let mut streams = [Stream::new("node1"), Stream::new("node2")];
    for (revision, edits) in [
        (3, vec![Edit::put(port("blue3", "node1"))]),
        (5, vec![Edit::put(port("blue3", "node2")), Edit::put(port("blue4", "node1"))]),
        (6, vec![Edit::delete(Kind::Port, "blue3")]),
    ] {
        apply(&mut world, revision, &edits);
        for stream in &mut streams {
            stream.drain(&world);
            stream.holds_all(&world);
            assert_eq!(stream.wholes, 1);
        }
    }
    assert!(world.keeps("node1", 5) && !world.keeps("node1", 1) && !world.keeps("node1", 7));
}

#[test]
fn a_stream_that_is_overrun_starts_anew() {
    let mut world = example();
    let mut stream = Stream::new("node1");
    stream.drain(&world);
    for turn in 0..=NODE_HISTORY.items as u64 {
        let node = if turn % 2 == 0 { "node1" } else { "node2" };
        apply(&mut world, 3 + turn, &[Edit::put(port("blue3", node))]);
    }
    assert!(!world.keeps("node1", 2), "the oldest is forgotten");
    stream.drain(&world);
    stream.holds_all(&world);
    assert_eq!(stream.wholes, 2);
}

/// Input: a store that was last written at 5, in which nodes have said since that they live; then a write that is another
/// node's. Output: who holds what was written goes on from there; who is told nothing is told how far that is, once.
#[test]
fn a_node_goes_on_from_what_was_written_and_learns_what_passed_it_by() {
    let topology = Topology::parse(EXAMPLE, "test").expect("the example is right");
    let mut entries: Vec<Entry> = topology.resources().into_iter().map(|resource| entry(&resource, 4)).collect();
    let other = |key: &str, modified| Entry { key: key.to_owned(), value: b"{}".to_vec(), modified, lease: None };
    entries.extend([other(keys::SERIAL, 5), other(&keys::live("node1"), 9)]);
    let mut world = World::new();
    world.load(&Snapshot { revision: 9, entries });
    assert_eq!([4, 5, 9, 10].map(|revision| world.keeps("node1", revision)), [false, true, true, false]);
    let health = world.health(&Object::new(Kind::Node, "node1")).expect("a node");
    assert_eq!(health.told, 5, "who has made that is as desired");

    let at = |revision| Cursor::At(revision);
    assert_eq!([4, 5, 9].map(|revision| world.passed("node1", at(revision))), [None; 3]);
    let teal = r#"{"kind":"network","name":"teal","subnets":[{"cidr":"10.9.0.0/24"}]}"#;
    apply(&mut world, 10, &[Edit::put(serde_json::from_str(teal).expect("a network"))]);
    world.take(&Batch { revision: 11, changes: vec![Change::Delete { key: keys::live("node1") }] });
    assert!(matches!(world.next("node1", at(5)), Next::Nothing), "nothing of it is node1's");
    assert_eq!((world.passed("node1", at(5)), world.passed("node1", at(11))), (Some(11), None));
    assert_eq!([Cursor::Fresh, Cursor::Absent].map(|cursor| world.passed("node1", cursor)), [None; 2]);
    apply(&mut world, 12, &[Edit::put(port("blue3", "node1"))]);
    assert_eq!(world.passed("node1", at(11)), None, "what is to be told is told first");
    world.load(&Snapshot { revision: 12, entries: Vec::new() });
    assert!(!world.keeps("node1", 11), "a store that nobody of ours wrote to says nothing of before");
}

#[test]
fn a_node_comes_and_goes() {
    let mut world = example();
    let mut stream = Stream::new("node3");
    let _waiting = world.attend("node3");
    stream.drain(&world);
    assert_eq!(stream.cursor, Cursor::Absent);
    let node: Resource = serde_json::from_str("{\"kind\":\"node\",\"name\":\"node3\"}").expect("a node");
    apply(&mut world, 3, &[Edit::put(node)]);
    apply(&mut world, 4, &[Edit::put(port("blue3", "node3"))]);
    stream.drain(&world);
    stream.holds_all(&world);
    assert_eq!(stream.view.as_ref().map(|view| view.networks.len()), Some(2));
    apply(&mut world, 5, &[Edit::delete(Kind::Port, "blue3")]);
    apply(&mut world, 6, &[Edit::delete(Kind::Node, "node3")]);
    stream.drain(&world);
    assert_eq!(stream.cursor, Cursor::Absent);
}

#[test]
fn watchers_are_told_what_changed_and_who_lives() {
    let mut world = example();
    apply(&mut world, 3, &[Edit::put(port("blue3", "node1"))]);
    let live = |revision, value: &str| {
        let value = value.as_bytes().to_vec();
        Batch {
            revision,
            changes: vec![Change::Put(Entry { key: keys::live("node1"), value, modified: revision, lease: None })],
        }
    };
    world.take(&live(4, "{}"));
    world.take(&live(5, r#"{"applied": 3}"#));
    world.take(&live(6, r#"{"applied": 3, "errors": ["no switch"]}"#));
    world.take(&Batch { revision: 7, changes: vec![Change::Delete { key: keys::live("node1") }] });
    let told: Vec<_> = world.news(2).expect("all is kept").into_iter().collect();
    let words: Vec<_> = told
        .iter()
        .flat_map(|(at, news)| {
            let health = |news: &News| news.health.as_ref().map(|health| (health.lives, health.report.errors.len()));
            news.iter().map(move |news| (*at, news.object.name.as_str(), health(news)))
        })
        .collect();
    let expected = [
        (3, "blue3", None),
        (4, "node1", Some((true, 0))),
        (6, "node1", Some((true, 1))),
        (7, "node1", Some((false, 0))),
    ];
    assert_eq!(words, expected, "what it has applied is no news");
    assert!(world.news(1).is_none(), "before it was read");
}

#[test]
fn what_makes_no_sense_is_left_out_and_counted() {
    let mut world = example();
    let put = |key: &str, value: &[u8]| {
        Change::Put(Entry { key: key.to_owned(), value: value.to_vec(), modified: 3, lease: None })
    };
    let other = keys::value(&port("blue3", "node1"));
    let changes = vec![
        put("/dvr/v1/port/x", b"{"),
        put("/dvr/v1/port/y", &other),
        put("/dvr/v1/wish/z", b"{}"),
        put(keys::UNDERLAY, b"[]"),
    ];
    world.take(&Batch { revision: 3, changes });
    assert_eq!((world.foreign, world.revision), (4, 3));
    assert_eq!(world.fabric().count(Kind::Port), 4);
}

#[test]
fn what_news_hold_is_counted() {
    let mut world = example();
    let network = |text: &str| {
        let text = format!(r#"{{"kind":"network","name":"n","subnets":[{{"cidr":"{text}"}}]}}"#);
        serde_json::from_str(&text).expect("a network")
    };
    let small = News { object: Object::new(Kind::Port, "p"), resource: None, health: None };
    assert_eq!(small.octets(), size_of::<News>() + 1);
    apply(&mut world, 3, &[Edit::put(network("10.7.0.0/24"))]);
    let told = world.news(2).expect("it is kept");
    let value = told[0].1[0].resource.as_ref().expect("it is there").len();
    assert_eq!(told[0].1[0].octets(), size_of::<News>() + 1 + value);
    let report = Report::new(1, vec!["no switch".to_owned()]);
    let health = Some(Health { lives: true, told: 1, report });
    let ill = News { health, ..small.clone() };
    assert_eq!(ill.octets(), small.octets() + size_of::<String>() + "no switch".len());
    // A large apply is large: the ring keeps what its octets allow, whatever the count.
    let ports: Vec<Edit> = (0..200).map(|number| Edit::put(port(&format!("p{number}"), "node1"))).collect();
    apply(&mut world, 4, &ports);
    let held: usize = world.news(3).expect("it is kept")[0].1.iter().map(News::octets).sum();
    assert!(held > 200 * (size_of::<News>() + 100), "{held}");
}
