//! That nodes live, and what their agents say: a key each under a lease, kept by the beats of its agent.
//!
//! An agent is with one controller at a time, and may go to another and come back within a lease's time. The key is the
//! newest registration's: an agent's first beat of a stream takes it over, later ones of that stream only keep it. So a
//! beat that comes late, to a controller that the agent has left, neither moves the key nor ends it.

use std::time::Duration;

use super::hub::{Hub, lock};
use super::keys::{self, Report};
use super::world::Alive;
use crate::store::{Expect, LeaseId, Op, Outcome, StoreError, Txn};

/// How long a node is taken to live without a beat.
pub(super) const TTL: Duration = Duration::from_secs(10);

/// A node that this controller hears.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Heard {
    /// The lease of its key.
    lease: Option<LeaseId>,
    /// Whether a stream was opened since the last beat.
    fresh: bool,
}

/// A node's agent has opened a stream here: its next beat takes the key over.
pub(super) fn register(hub: &Hub, node: &str) {
    let mut heard = lock(&hub.heard);
    let world = hub.world();
    let there = world.fabric().nodes();
    if heard.len() > there.len() {
        // Nodes that another controller was asked to remove.
        heard.retain(|node, _| there.contains_key(node));
    }
    heard.entry(node.to_owned()).or_default().fresh = true;
}

/// A node's agent was heard.
///
/// # Errors
/// As the store says.
pub(super) async fn beat(hub: &Hub, node: &str, report: &Report) -> Result<(), StoreError> {
    let known = lock(&hub.heard).get(node).copied().unwrap_or_default();
    let lease = match known.lease {
        Some(lease) => match hub.store.keep(lease).await {
            Ok(()) => lease,
            Err(StoreError::LeaseGone { .. }) => hub.store.grant(TTL).await?,
            Err(error) => return Err(error),
        },
        None => hub.store.grant(TTL).await?,
    };
    let fresh = {
        let mut heard = lock(&hub.heard);
        let heard = heard.entry(node.to_owned()).or_default();
        heard.lease = Some(lease);
        core::mem::take(&mut heard.fresh)
    };
    let key = keys::live(node);
    let expect = match hub.world().alive(node) {
        _ if fresh => Vec::new(),
        Some(Alive { lease: Some(its), report: said, .. }) if *its == lease && said == report => return Ok(()),
        Some(Alive { lease: Some(its), modified, .. }) if *its == lease => {
            vec![Expect::Unchanged { key: key.clone(), modified: *modified }]
        }
        // Under a lease that has ended, of which word is still to come.
        Some(Alive { lease: its, .. }) if its.is_some() && *its == known.lease => vec![Expect::Absent(key.clone())],
        // It has registered elsewhere since.
        Some(_) => return Ok(()),
        None => vec![Expect::Absent(key.clone())],
    };
    let value = serde_json::to_vec(report).unwrap_or_else(|error| unreachable!("a report is plain: {error}"));
    let op = Op::Put { key, value, lease: Some(lease) };
    match hub.store.commit(Txn { expect, ops: vec![op] }).await {
        // A conflict is a newer registration; what is not known to have been done, the next beat does.
        Ok(Outcome::Committed(_) | Outcome::Conflict { .. }) => Ok(()),
        Err(error) => {
            if let Some(heard) = lock(&hub.heard).get_mut(node) {
                heard.fresh |= fresh;
            }
            if matches!(error, StoreError::Unknown { .. }) { Ok(()) } else { Err(error) }
        }
    }
}

/// A node is no more: so is its lease.
pub(super) async fn forget(hub: &Hub, node: &str) {
    let heard = lock(&hub.heard).remove(node);
    if let Some(lease) = heard.and_then(|heard| heard.lease) {
        // It ends by itself if this fails.
        let _later = hub.store.revoke(lease).await;
    }
}

#[cfg(test)]
mod tests;
