//! What a lab is made of now: what its controller says; or what was last known, while that is down.

use std::fs;

use super::{Error, Lab, Outline, Record};
use crate::model::{Fabric, Resource, Topology};
use crate::rpc::proto::ListRequest;
use crate::rpc::{Addresses, connect};

/// Where a lab keeps what its controller last said.
const FILE: &str = "desired.json";

/// The outline of a running lab as it is now.
///
/// # Errors
/// When neither its controller nor its files say.
pub fn present(lab: &Lab, record: &Record) -> Result<Outline, Error> {
    let path = lab.topology_path();
    let text = fs::read_to_string(&path).map_err(|source| Error::os(format!("read {}", path.display()), source))?;
    let first = Topology::parse(&text, &record.source).map_err(|error| Error::Topology(error.to_string()))?;
    let file = lab.dir.join(FILE);
    let resources = match listed(&lab.controllers()) {
        Some(resources) => {
            // It is for later only: without it, later knows what there was at first.
            let _kept = serde_json::to_vec(&resources).map(|text| fs::write(&file, text));
            Some(resources)
        }
        None => fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Vec<Resource>>(&text).ok()),
    };
    let Some(resources) = resources else { return Ok(Outline::of(&first)) };
    let mut fabric = Fabric::new(first.underlay().clone());
    for resource in resources {
        fabric.put(resource);
    }
    Ok(Outline::of(&fabric.topology()))
}

/// Everything desired; `None` if the controller does not say.
fn listed(controllers: &Addresses) -> Option<Vec<Resource>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async {
        let mut client = None;
        for address in controllers.all() {
            client = connect(address, None).await.ok();
            if client.is_some() {
                break;
            }
        }
        let mut client = client?;
        let mut stream = client.list(ListRequest::default()).await.ok()?.into_inner();
        let mut resources = Vec::new();
        while let Some(reply) = stream.message().await.ok()? {
            for item in reply.items {
                resources.push(serde_json::from_slice(&item.resource).ok()?);
            }
        }
        Some(resources)
    })
}
