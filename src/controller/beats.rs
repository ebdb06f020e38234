//! That nodes live: a lease each, kept by the beats of its agent, whichever controller hears them.

use std::sync::PoisonError;
use std::time::Duration;

use super::hub::Hub;
use super::keys;
use crate::store::{LeaseId, Op, Outcome, StoreError, Txn};

/// How long a node is taken to live without a beat.
pub(super) const TTL: Duration = Duration::from_secs(10);

/// A node's agent was heard.
///
/// # Errors
/// As the store says.
pub(super) async fn beat(hub: &Hub, node: &str) -> Result<(), StoreError> {
    let known = hub.leases.lock().unwrap_or_else(PoisonError::into_inner).get(node).copied();
    if let Some(lease) = known {
        match hub.store.keep(lease).await {
            // Another controller may have put it under a lease of its own meanwhile, which has ended since.
            Ok(()) if hub.world().lives(node) => return Ok(()),
            Ok(()) => return put(hub, node, lease).await,
            Err(StoreError::LeaseGone { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let lease = hub.store.grant(TTL).await?;
    hub.leases.lock().unwrap_or_else(PoisonError::into_inner).insert(node.to_owned(), lease);
    put(hub, node, lease).await
}

async fn put(hub: &Hub, node: &str, lease: LeaseId) -> Result<(), StoreError> {
    let op = Op::Put { key: keys::live(node), value: b"{}".to_vec(), lease: Some(lease) };
    match hub.store.commit(Txn { expect: Vec::new(), ops: vec![op] }).await {
        // Nothing was expected, and doing it twice does no harm.
        Ok(Outcome::Committed(_) | Outcome::Conflict { .. }) | Err(StoreError::Unknown { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A node is no more: so is its lease.
pub(super) async fn forget(hub: &Hub, node: &str) {
    let lease = hub.leases.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    if let Some(lease) = lease {
        // It ends by itself if this fails.
        let _later = hub.store.revoke(lease).await;
    }
}
