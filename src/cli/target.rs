//! Which daemons a command means: a lab's nodes, or this host's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::CliError;
use crate::api;
use crate::control::{Client, ControlError};
use crate::lab::{Daemon, LabName, Labs, RUN_DIR};

/// How long a daemon may take to answer.
const LIMIT: Duration = Duration::from_secs(60);

/// A node whose daemons can be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Site {
    /// Its name; of this host, what its agent says, or `local`.
    pub node: String,
    /// Where its sockets are.
    pub dir: PathBuf,
    /// The lab it is a node of.
    lab: Option<LabName>,
}

impl Site {
    /// Whether a daemon was never started on this host, or has ended in order. A lab's nodes are to have both.
    pub(super) fn has_no(&self, daemon: Daemon) -> bool {
        self.lab.is_none() && !daemon.socket(&self.dir).exists()
    }
}

/// The nodes a command means: of the lab that is named; else this host, if it has daemons; else of the only lab that
/// runs. Of a lab, all nodes or the one named.
///
/// # Errors
/// When there is no such lab or node.
pub(super) fn sites(lab: Option<&LabName>, node: Option<&str>) -> Result<Vec<Site>, CliError> {
    if lab.is_none()
        && let Some(host) = host()
        && node.is_none_or(|node| node == host.node)
    {
        return Ok(vec![host]);
    }
    let (lab, record) = Labs::of_this_user()?.choose(lab)?;
    let all = record.nodes.keys().map(|name| Site {
        node: name.clone(),
        dir: lab.node_dir(name),
        lab: Some(lab.name.clone()),
    });
    let sites: Vec<Site> = all.filter(|site| node.is_none_or(|node| node == site.node)).collect();
    match node {
        Some(node) if sites.is_empty() => {
            let known: Vec<&str> = record.nodes.keys().map(String::as_str).collect();
            Err(CliError::Absent(format!("lab `{}` has no node `{node}`; its nodes: {}", lab.name, known.join(", "))))
        }
        _ => Ok(sites),
    }
}

/// This host, if a daemon has its socket here.
pub(super) fn host() -> Option<Site> {
    let dir = PathBuf::from(RUN_DIR);
    if ![Daemon::Agent, Daemon::Switch].iter().any(|daemon| daemon.socket(&dir).exists()) {
        return None;
    }
    let site = Site { node: "local".to_owned(), dir, lab: None };
    let hello = open(&site, Daemon::Agent).ok().map(|(_, hello): (Client, api::agent::Hello)| hello.node);
    Some(Site { node: hello.unwrap_or_else(|| site.node.clone()), ..site })
}

/// A bridge as it is written, `[NODE/]BRIDGE`, and the nodes meant.
///
/// # Errors
/// As [`sites`].
pub(super) fn bridge(lab: Option<&LabName>, text: &str) -> Result<(Vec<Site>, crate::types::IfName), CliError> {
    let (node, bridge) = match text.split_once('/') {
        Some((node, bridge)) => (Some(node), bridge),
        None => (None, text),
    };
    let bridge =
        crate::types::IfName::new(bridge).map_err(|bad| CliError::Usage(format!("`{text}` names no bridge: {bad}")))?;
    Ok((sites(lab, node)?, bridge))
}

/// A bridge as it is written, which must be one node's.
///
/// # Errors
/// As [`bridge`]; and [`CliError::Usage`] names the nodes if it is on several.
pub(super) fn one_bridge(lab: Option<&LabName>, text: &str) -> Result<(Site, crate::types::IfName), CliError> {
    let (mut sites, name) = bridge(lab, text)?;
    match (sites.len(), sites.pop()) {
        (1, Some(site)) => Ok((site, name)),
        (_, last) => {
            let known: Vec<String> = sites.iter().chain(&last).map(|site| format!("{}/{name}", site.node)).collect();
            Err(CliError::Usage(format!("`{text}` is on several nodes; say which one: {}", known.join(", "))))
        }
    }
}

/// Asks a node's daemon one thing.
///
/// # Errors
/// [`CliError::Daemon`] names the node; of a daemon of a lab that does not run, [`CliError::Absent`] says how the lab starts
/// it.
pub(super) fn ask<Req: Serialize, Rep: DeserializeOwned>(
    site: &Site,
    daemon: Daemon,
    request: &Req,
) -> Result<Rep, CliError> {
    let failed = |source: ControlError| match &site.lab {
        Some(lab) if source.is_absent() => CliError::Absent(format!(
            "the {} of node `{}` is not running: start it with `dvr lab restart {1} {0} --name {lab}`",
            daemon.name(),
            site.node
        )),
        Some(_) | None => CliError::Daemon { node: site.node.clone(), source },
    };
    let (mut client, _hello) = open::<serde_json::Value>(site, daemon).map_err(failed)?;
    client.call(request).map_err(failed)
}

fn open<Hello: DeserializeOwned>(site: &Site, daemon: Daemon) -> Result<(Client, Hello), ControlError> {
    let socket: &Path = &daemon.socket(&site.dir);
    let mut client = Client::connect(socket, LIMIT)?;
    let hello = match daemon {
        Daemon::Agent => client.call(&api::agent::Request::Hello { version: api::VERSION })?,
        Daemon::Switch => client.call(&api::switch::Request::Hello { version: api::VERSION })?,
    };
    Ok((client, hello))
}
