//! Nodes that arrive: each is where its agent says that its tunnels end.

use core::net::IpAddr;
use std::sync::Arc;

use tonic::Status;

use super::hub::Hub;
use super::service::refusal;
use super::write;
use crate::model::Resource;
use crate::model::resource::NodeSpec;

/// The address that an agent gives for its node; `None` if desired state is to say it.
///
/// # Errors
/// It is none.
pub(super) fn address(tunnel_ip: &str) -> Result<Option<IpAddr>, Status> {
    if tunnel_ip.is_empty() {
        return Ok(None);
    }
    let address = tunnel_ip.parse();
    address
        .map(Some)
        .map_err(|_| Status::invalid_argument(format!("`{tunnel_ip}` is no IP address for tunnels to end at")))
}

/// Lets a node be where its agent says it is.
///
/// # Errors
/// As any write.
pub(super) async fn arrive(hub: &Arc<Hub>, node: &str, address: Option<IpAddr>) -> Result<(), Status> {
    let Some(address) = address else { return Ok(()) };
    let known = hub.world().fabric().nodes().get(node).map(|spec| spec.address);
    if known == Some(Some(address)) {
        return Ok(());
    }
    let spec = NodeSpec { name: node.to_owned(), address: Some(address), ..NodeSpec::default() };
    let applied = write::put(hub, Resource::Node(spec)).await.map_err(|error| refusal(&error))?;
    tracing::info!(node, %address, revision = applied.revision, new = known.is_none(), "a node registered");
    Ok(())
}
