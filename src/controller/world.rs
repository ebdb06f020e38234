//! What a controller knows: desired state as far as it has followed the store, and what each reader is still to be told.
//! No input, no output: batches in, streams' next words out.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::keys::{self, Key, Report};
use super::ring::{Bound, Ring};
use crate::model::view::{NodeView, ViewChange};
use crate::model::{Fabric, Kind, Object, Resource, Touched, Underlay};
use crate::placement::Live;
use crate::store::{Batch, Change, Entry, LeaseId, Revision, Snapshot};

/// How much of what one node was told is kept for it to resume from.
const NODE_HISTORY: Bound = Bound { items: 256, octets: 256 << 10 };
/// How much of what changed is kept for watchers.
const WATCH_HISTORY: Bound = Bound { items: 4_096, octets: 16 << 20 };

/// Something that changed, as watchers are told.
#[derive(Debug, Clone)]
pub(super) struct News {
    pub(super) object: Object,
    /// As it is, in JSON; `None` if it is no more.
    pub(super) resource: Option<Arc<[u8]>>,
    /// Of a node, how it is.
    pub(super) health: Option<Health>,
}

impl News {
    /// Octets it holds.
    fn octets(&self) -> usize {
        let Self { object, resource, health } = self;
        let errors = health.as_ref().map_or(&[][..], |health| &health.report.errors);
        let heap = object.name.len() + resource.as_ref().map_or(0, |octets| octets.len());
        size_of::<Self>() + heap + errors.iter().map(|error| size_of::<String>() + error.len()).sum::<usize>()
    }
}

/// How a node is, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Whether an agent of it lives.
    pub(super) lives: bool,
    /// The last revision at which it was told something.
    pub(super) told: Revision,
    /// What its agent last said.
    pub(super) report: Report,
}

/// What the store says of a node that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alive {
    /// The lease it goes with.
    pub(super) lease: Option<LeaseId>,
    /// When it was put.
    pub(super) modified: Revision,
    /// What its agent says.
    pub(super) report: Report,
}

impl Alive {
    fn of(entry: &Entry) -> Self {
        // What another release says may make no sense; that the node lives does.
        let report = serde_json::from_slice(&entry.value).unwrap_or_default();
        Self { lease: entry.lease, modified: entry.modified, report }
    }
}

/// Desired state as far as it was followed. Shared with whoever plans; it is copied if it changes meanwhile.
#[derive(Debug, Clone, Default)]
pub(super) struct Desired {
    pub(super) fabric: Fabric,
    revisions: BTreeMap<Object, Revision>,
}

impl Desired {
    /// When an object last changed.
    pub(super) fn changed(&self, object: &Object) -> Option<Revision> {
        self.revisions.get(object).copied()
    }
}

/// What one node is told.
struct Slot {
    /// Changes as they are sent.
    told: Ring<Arc<[u8]>>,
    /// When it was last told something.
    last: Revision,
    pulse: watch::Sender<Revision>,
}

impl Slot {
    fn new(floor: Revision) -> Self {
        Self { told: Ring::new(floor, NODE_HISTORY), last: floor, pulse: watch::Sender::new(floor) }
    }
}

/// How far a node's stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cursor {
    /// It holds nothing, or nothing that can be gone on from.
    Fresh,
    /// It holds the view of this revision.
    At(Revision),
    /// It was told that there is no such node.
    Absent,
}

/// What a node's stream is told next.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing yet.
    Nothing,
    /// The whole, which is made when there is room for it.
    Anew,
    /// What came since.
    Changes(Vec<(Revision, Arc<[u8]>)>),
    /// There is no such node.
    Absent,
}

/// The state.
pub(super) struct World {
    pub(super) epoch: String,
    pub(super) revision: Revision,
    pub(super) desired: Arc<Desired>,
    live: Live,
    /// When `serial` was last put.
    pub(super) serial: Option<Revision>,
    /// When anything last changed that nodes are told of; what lives changes more often.
    written: Revision,
    alive: BTreeMap<String, Alive>,
    nodes: BTreeMap<String, Slot>,
    news: Ring<Arc<[News]>>,
    /// The revision reached, for everybody who waits for one.
    pulse: watch::Sender<Revision>,
    /// Entries that made no sense.
    pub(super) foreign: u64,
}

impl World {
    /// Nothing, before the store was read.
    pub(super) fn new() -> Self {
        Self {
            epoch: String::new(),
            revision: 0,
            desired: Arc::default(),
            live: Live::default(),
            serial: None,
            written: 0,
            alive: BTreeMap::new(),
            nodes: BTreeMap::new(),
            news: Ring::new(0, WATCH_HISTORY),
            pulse: watch::Sender::new(0),
            foreign: 0,
        }
    }

    /// Takes in all of the store. Who was being told starts anew, unless nothing was written since it was told all.
    pub(super) fn load(&mut self, snapshot: &Snapshot) {
        let mut fabric = Fabric::default();
        let mut resources = Vec::new();
        let mut revisions = BTreeMap::new();
        self.alive.clear();
        self.serial = None;
        for entry in &snapshot.entries {
            match Key::of(&entry.key) {
                Key::Object(object) => match self.resource(&object, entry) {
                    Some(resource) => {
                        revisions.insert(object, entry.modified);
                        resources.push(resource);
                    }
                    None => self.foreign += 1,
                },
                Key::Underlay => match serde_json::from_slice(&entry.value) {
                    Ok(underlay) => fabric = Fabric::new(underlay),
                    Err(error) => self.make_no_sense(&entry.key, &error),
                },
                Key::Serial => self.serial = Some(entry.modified),
                Key::Live(node) => drop(self.alive.insert(node, Alive::of(entry))),
                Key::Epoch => self.epoch = String::from_utf8_lossy(&entry.value).into_owned(),
                Key::HostMac | Key::Compacted => {}
                Key::Foreign => self.foreign += 1,
            }
        }
        for resource in resources {
            fabric.put(resource);
        }
        // Every write puts `serial`, one that only deletes as well.
        self.written = self.serial.unwrap_or(snapshot.revision);
        self.reset(Desired { fabric, revisions }, snapshot.revision);
    }

    /// Starts everybody anew from this state who has not been told all that was written.
    fn reset(&mut self, desired: Desired, revision: Revision) {
        let written = self.written;
        self.live = Live::of(&desired.fabric);
        self.revision = revision;
        self.news.clear(revision);
        let there = desired.fabric.nodes();
        self.nodes.retain(|name, slot| there.contains_key(name) || slot.pulse.receiver_count() > 0);
        for name in there.keys() {
            self.nodes.entry(name.clone()).or_insert_with(|| Slot::new(written));
        }
        for slot in self.nodes.values_mut() {
            slot.told.clear(written);
            slot.last = written;
            slot.pulse.send_replace(revision);
        }
        self.desired = Arc::new(desired);
        self.pulse.send_replace(revision);
    }

    /// Takes in what happened at one revision, and tells everybody concerned.
    pub(super) fn take(&mut self, batch: &Batch) {
        let mut told: BTreeMap<String, Vec<ViewChange>> = BTreeMap::new();
        let mut news = Vec::new();
        let mut underlay = None;
        self.revision = batch.revision;
        for change in &batch.changes {
            let key = Key::of(change.key());
            if matches!(key, Key::Object(_) | Key::Underlay | Key::Serial) {
                self.written = batch.revision;
            }
            match (key, change) {
                (Key::Object(object), Change::Put(entry)) => {
                    let Some(resource) = self.resource(&object, entry) else {
                        self.foreign += 1;
                        continue;
                    };
                    let desired = Arc::make_mut(&mut self.desired);
                    desired.revisions.insert(object, entry.modified);
                    let touched = desired.fabric.put(resource);
                    self.touched(touched, &mut told, &mut news);
                }
                (Key::Object(object), Change::Delete { .. }) => {
                    let desired = Arc::make_mut(&mut self.desired);
                    desired.revisions.remove(&object);
                    let touched = desired.fabric.remove(&object);
                    self.touched(touched, &mut told, &mut news);
                }
                (Key::Underlay, Change::Put(entry)) => match serde_json::from_slice::<Underlay>(&entry.value) {
                    Ok(new) => underlay = Some(new),
                    Err(error) => self.make_no_sense(&entry.key, &error),
                },
                (Key::Serial, Change::Put(entry)) => self.serial = Some(entry.modified),
                (Key::Serial, Change::Delete { .. }) => self.serial = None,
                (Key::Live(node), change) => news.extend(self.lived(node, change)),
                (Key::Epoch, Change::Put(entry)) => self.epoch = String::from_utf8_lossy(&entry.value).into_owned(),
                (Key::Foreign, Change::Put(_)) => self.foreign += 1,
                (Key::Underlay | Key::HostMac | Key::Epoch | Key::Compacted | Key::Foreign, _) => {}
            }
        }
        if let Some(underlay) = underlay.filter(|underlay| underlay != self.fabric().underlay()) {
            let mut fabric = Fabric::new(underlay);
            for resource in self.fabric().resources() {
                fabric.put(resource);
            }
            let revisions = self.desired.revisions.clone();
            return self.reset(Desired { fabric, revisions }, batch.revision);
        }
        self.tell(batch.revision, told, news);
    }

    /// Takes in that an agent of a node lives, or what it says, or that none does; what watchers are to know of it.
    fn lived(&mut self, node: String, change: &Change) -> Option<News> {
        let (before, after) = match change {
            Change::Put(entry) => {
                let alive = Alive::of(entry);
                (self.alive.insert(node.clone(), alive.clone()), Some(alive))
            }
            Change::Delete { .. } => (self.alive.remove(&node), None),
        };
        let errors = |alive: Option<Alive>| alive.map(|alive| alive.report.errors);
        let object = Object::new(Kind::Node, node);
        let resource = self.fabric().get(&object).filter(|_| errors(before) != errors(after))?;
        let resource = Some(keys::value(&resource).into());
        Some(News { health: self.health(&object), object, resource })
    }

    fn touched(&mut self, touched: Touched, told: &mut BTreeMap<String, Vec<ViewChange>>, news: &mut Vec<News>) {
        for (node, mut changes) in self.live.change(&self.desired.fabric, &touched) {
            told.entry(node).or_default().append(&mut changes);
        }
        let Touched { object, before: _, after } = touched;
        if object.kind == Kind::Node {
            let floor = self.revision;
            if after.is_some() {
                self.nodes.entry(object.name.clone()).or_insert_with(|| Slot::new(floor));
            } else if let Some(slot) = self.nodes.get_mut(&object.name) {
                slot.told.clear(floor);
                slot.pulse.send_replace(floor);
            }
        }
        let resource = after.as_ref().map(|resource| keys::value(resource).into());
        news.push(News { health: self.health(&object), object, resource });
    }

    fn tell(&mut self, revision: Revision, told: BTreeMap<String, Vec<ViewChange>>, news: Vec<News>) {
        for (node, changes) in told {
            let Some(slot) = self.nodes.get_mut(&node) else { continue };
            let octets: Arc<[u8]> = match serde_json::to_vec(&changes) {
                Ok(octets) => octets.into(),
                Err(error) => unreachable!("changes of views have only text keys: {error}"),
            };
            slot.told.push(revision, octets.len(), octets);
            slot.last = revision;
            slot.pulse.send_replace(revision);
        }
        // A node that is gone, and that nobody asks for, is forgotten.
        for gone in news.iter().filter(|news| news.object.kind == Kind::Node && news.resource.is_none()) {
            if self.nodes.get(&gone.object.name).is_some_and(|slot| slot.pulse.receiver_count() == 0) {
                self.nodes.remove(&gone.object.name);
            }
        }
        if !news.is_empty() {
            let octets = news.iter().map(News::octets).sum();
            self.news.push(revision, octets, news.into());
        }
        self.pulse.send_replace(revision);
    }

    /// The resource in an entry, if it is what the key says.
    fn resource(&self, object: &Object, entry: &Entry) -> Option<Resource> {
        match serde_json::from_slice::<Resource>(&entry.value) {
            Ok(resource) if resource.object() == *object => Some(resource),
            Ok(resource) => {
                tracing::warn!(key = %entry.key, found = %resource.object(), "the store holds another object than its key says: left out");
                None
            }
            Err(error) => {
                tracing::warn!(key = %entry.key, %error, "the store holds what makes no sense to this release: left out");
                None
            }
        }
    }

    fn make_no_sense(&mut self, key: &str, error: &serde_json::Error) {
        self.foreign += 1;
        tracing::warn!(key, %error, "the store holds what makes no sense to this release: left out");
    }

    /// Desired state as far as it was followed.
    pub(super) fn fabric(&self) -> &Fabric {
        &self.desired.fabric
    }

    /// When an object last changed.
    pub(super) fn changed(&self, object: &Object) -> Option<Revision> {
        self.desired.changed(object)
    }

    /// Of a node, how it is.
    pub(super) fn health(&self, object: &Object) -> Option<Health> {
        let told = || self.nodes.get(&object.name).map_or(0, |slot| slot.last);
        (object.kind == Kind::Node).then(|| match self.alive.get(&object.name) {
            Some(alive) => Health { lives: true, told: told(), report: alive.report.clone() },
            None => Health { lives: false, told: told(), report: Report::default() },
        })
    }

    /// What the store says of a node that lives.
    pub(super) fn alive(&self, node: &str) -> Option<&Alive> {
        self.alive.get(node)
    }

    /// Nodes whose agents live.
    pub(super) fn count_alive(&self) -> usize {
        self.fabric().nodes().keys().filter(|node| self.alive.contains_key(*node)).count()
    }

    /// What changes have cost since the store was last read whole: changes told, and nodes looked at.
    pub(super) fn work(&self) -> u64 {
        self.live.work()
    }

    /// The revision reached, as it grows.
    pub(super) fn pulse(&self) -> watch::Receiver<Revision> {
        self.pulse.subscribe()
    }

    /// A node's stream: what wakes it. The node need not be there yet.
    pub(super) fn attend(&mut self, node: &str) -> watch::Receiver<Revision> {
        let floor = self.revision;
        self.nodes.entry(node.to_owned()).or_insert_with(|| Slot::new(floor)).pulse.subscribe()
    }

    /// A node's stream has ended.
    pub(super) fn leave(&mut self, node: &str) {
        let unknown = !self.fabric().nodes().contains_key(node);
        if unknown && self.nodes.get(node).is_some_and(|slot| slot.pulse.receiver_count() == 0) {
            self.nodes.remove(node);
        }
    }

    /// Whether a stream can go on from a revision.
    pub(super) fn keeps(&self, node: &str, revision: Revision) -> bool {
        let kept = self.nodes.get(node).is_some_and(|slot| slot.told.after(revision).is_some());
        kept && revision <= self.revision && self.fabric().nodes().contains_key(node)
    }

    /// What a node's stream is told next.
    pub(super) fn next(&self, node: &str, cursor: Cursor) -> Next {
        if self.fabric().peer(node).is_none() {
            return if cursor == Cursor::Absent { Next::Nothing } else { Next::Absent };
        }
        if let Cursor::At(revision) = cursor
            && let Some(after) = self.nodes.get(node).and_then(|slot| slot.told.after(revision))
        {
            let changes: Vec<_> = after.map(|(at, octets)| (at, Arc::clone(octets))).collect();
            return if changes.is_empty() { Next::Nothing } else { Next::Changes(changes) };
        }
        Next::Anew
    }

    /// The revision up to which nothing was for this node, if more was written than its stream has come to: whoever knows it
    /// can go on from there wherever it asks next.
    pub(super) fn passed(&self, node: &str, cursor: Cursor) -> Option<Revision> {
        let Cursor::At(revision) = cursor else { return None };
        let is_all = matches!(self.next(node, cursor), Next::Nothing);
        (is_all && revision < self.written).then_some(self.revision)
    }

    /// All that a node is to hold, and of which revision that is; `None` if there is no such node.
    pub(super) fn whole(&self, node: &str) -> Option<(NodeView, Revision)> {
        Some((self.live.view(self.fabric(), node)?, self.revision))
    }

    /// What changed after a revision; `None` if some of that is forgotten.
    pub(super) fn news(&self, after: Revision) -> Option<Vec<(Revision, Arc<[News]>)>> {
        Some(self.news.after(after)?.map(|(at, news)| (at, Arc::clone(news))).collect())
    }
}

#[cfg(test)]
mod tests;
