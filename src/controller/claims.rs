//! Claims: ports that announced an address of their allowed pairs have it from then on, if they are entitled to it.

use core::fmt::Display;
use core::str::FromStr;
use std::sync::Arc;

use tonic::Status;
use uuid::Uuid;

use super::hub::Hub;
use super::write::{self, Wish, WriteError};
use crate::model::resource::{AddressClaim, ClaimedAddress};
use crate::model::{Edit, Object};
use crate::rpc::proto::ClaimRequest;
use crate::store::Revision;

/// What a node says that it heard.
///
/// # Errors
/// When it makes no sense, or there is no such port.
pub(super) fn read(hub: &Hub, request: ClaimRequest) -> Result<AddressClaim, Status> {
    let ClaimRequest { node, port, ip, mac } = request;
    let id: Uuid = parsed("a port's id", &port)?;
    let address = ClaimedAddress { ip: parsed("an address", &ip)?, mac: parsed("a MAC", &mac)? };
    let found = hub.world().fabric().port_of_id(id).map(|Object { name, .. }| name.clone());
    let port = found.ok_or_else(|| Status::not_found(format!("desired state has no port of id {id}")))?;
    Ok(AddressClaim { port, node, address })
}

fn parsed<T: FromStr<Err: Display>>(what: &str, text: &str) -> Result<T, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("`{text}` is not {what}: {error}")))
}

/// Lets a port have what it announced. Gives the revision at which it has it.
///
/// # Errors
/// As any write; a refusal of a port that is not entitled is counted.
pub(super) async fn claim(hub: &Arc<Hub>, claim: AddressClaim) -> Result<Revision, WriteError> {
    let AddressClaim { port, node, address } = claim.clone();
    let applied = write::apply(hub, Arc::new(Wish { edits: vec![Edit::Claim(claim)], underlay: None }), false).await;
    match &applied {
        Ok(applied) if !applied.made.is_empty() => {
            tracing::info!(port, node, ip = %address.ip, mac = %address.mac, "an address moved to whom announced it");
        }
        Err(WriteError::Refused(refusal)) => {
            hub.counted(|counters| counters.unentitled += 1);
            tracing::debug!(port, node, %refusal, "a claim was refused");
        }
        Ok(_) | Err(_) => {}
    }
    applied.map(|applied| applied.revision)
}
