//! A plan's steps as transactions: many steps in each, and none torn.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::vec::IntoIter;

use super::Made;
use super::error::{Named, Why};
use crate::controller::keys;
use crate::model::{Change, Object, Resource, Underlay};
use crate::store::{Expect, Most, Op, Revision, Txn};
use crate::types::Mac;

/// Operations and octets of one transaction that are the objects', where steps are free to go in several: what every store
/// takes, and others can write in between.
const PART: (usize, usize) = (80, 512 << 10);

/// Changes that are made at one instant.
pub(super) type Step = Vec<(Made, Change)>;

/// Operations that a change takes at most.
fn cost(step: &Step) -> usize {
    let one = |(made, _): &(Made, Change)| {
        let macs = [&made.before, &made.after].map(|resource| resource.as_ref().and_then(host_mac));
        if macs[0] == macs[1] { 1 } else { 3 }
    };
    step.iter().map(one).sum()
}

/// Octets that a step puts.
fn octets(step: &Step) -> usize {
    let one = |(_, change): &(Made, Change)| match change {
        Change::Put(resource) => keys::value(resource).len(),
        Change::Delete(_) => 0,
    };
    step.iter().map(one).sum()
}

/// Whether every step can be made at one instant.
///
/// # Errors
/// [`Why::Tied`] names those that cannot.
pub(super) fn fit(steps: &[Step], most: Most) -> Result<(), Why> {
    // The rest of a transaction is the opening's and `serial`'s.
    let most = Most { operations: most.operations - 2, octets: most.octets / 2 };
    let fits = |step: &Step| step.len() == 1 || (cost(step) <= most.operations && octets(step) <= most.octets);
    match steps.iter().find(|step| !fits(step)) {
        None => Ok(()),
        Some(step) => {
            let objects = Named::of(step.iter().map(|(made, _)| &made.object));
            Err(Why::Tied { objects, count: step.len(), most: most.operations })
        }
    }
}

/// What is still to be committed.
pub(super) struct Parts {
    steps: Peekable<IntoIter<Step>>,
    /// Revisions that the asking side named.
    named: BTreeMap<Object, Option<Revision>>,
    opening: Vec<Op>,
}

impl Parts {
    /// Divided steps, after what is to be put first.
    pub(super) fn new(
        steps: Vec<Step>,
        named: BTreeMap<Object, Option<Revision>>,
        underlay: Option<&Underlay>,
    ) -> Self {
        let put = |underlay| {
            let value = serde_json::to_vec(underlay).unwrap_or_default();
            Op::Put { key: keys::UNDERLAY.to_owned(), value, lease: None }
        };
        Self { steps: steps.into_iter().peekable(), named, opening: underlay.map(put).into_iter().collect() }
    }

    /// The next transaction, if `serial` is still as it was last put, and what it makes; `None` when nothing is left.
    pub(super) fn next(&mut self, serial: Option<Revision>) -> Option<(Txn, Vec<Made>)> {
        let mut txn =
            Txn { expect: vec![as_followed(keys::SERIAL.to_owned(), serial)], ops: core::mem::take(&mut self.opening) };
        let mut part = Vec::new();
        let (mut room, mut octets) = (PART.0, 0);
        // One that is larger than all others together has a transaction of its own.
        let fits = |step: &Step, room, octets, first| first || (octets < PART.1 && cost(step) <= room);
        while let Some(step) = self.steps.next_if(|step| fits(step, room, octets, part.is_empty())) {
            room = room.saturating_sub(cost(&step));
            for (made, change) in step {
                if let Some(found) = self.named.get(&made.object) {
                    txn.expect.push(as_followed(keys::object(&made.object), *found));
                }
                octets += add(&mut txn, &made, &change);
                part.push(made);
            }
        }
        if txn.ops.is_empty() {
            return None;
        }
        txn.ops.push(Op::Put { key: keys::SERIAL.to_owned(), value: b"{}".to_vec(), lease: None });
        Some((txn, part))
    }
}

fn as_followed(key: String, modified: Option<Revision>) -> Expect {
    match modified {
        Some(modified) => Expect::Unchanged { key, modified },
        None => Expect::Absent(key),
    }
}

/// Adds one change's operations. Gives the octets they take.
fn add(txn: &mut Txn, made: &Made, change: &Change) -> usize {
    let key = keys::object(&made.object);
    let (had, has) = (made.before.as_ref().and_then(host_mac), made.after.as_ref().and_then(host_mac));
    if had != has {
        if let Some(mac) = had {
            release(txn, keys::host_mac(mac));
        }
        if let Some(mac) = has {
            take(txn, keys::host_mac(mac), &made.object.name);
        }
    }
    match change {
        Change::Put(resource) => {
            let value = keys::value(resource);
            let octets = key.len() + value.len();
            txn.ops.push(Op::Put { key, value, lease: None });
            octets
        }
        Change::Delete(_) => {
            let octets = key.len();
            txn.ops.push(Op::Delete { key });
            octets
        }
    }
}

/// Gives a host MAC back, unless another node has it by the same transaction: then that took the place of what was there.
fn release(txn: &mut Txn, key: String) {
    if txn.ops.iter().any(|op| op.key() == key) {
        txn.expect.retain(|expect| expect.key() != key);
    } else {
        txn.ops.push(Op::Delete { key });
    }
}

/// Notes whose a host MAC is. Nobody may have it, but who gives it back by the same transaction: `serial` vouches for that.
fn take(txn: &mut Txn, key: String, node: &str) {
    let before = txn.ops.len();
    txn.ops.retain(|op| op.key() != key);
    if txn.ops.len() == before {
        txn.expect.push(Expect::Absent(key.clone()));
    }
    txn.ops.push(Op::Put { key, value: node.as_bytes().to_vec(), lease: None });
}

fn host_mac(resource: &Resource) -> Option<Mac> {
    match resource {
        Resource::Node(spec) => spec.host_mac,
        Resource::Network(_) | Resource::Router(_) | Resource::Port(_) => None,
    }
}
