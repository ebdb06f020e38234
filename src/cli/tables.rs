//! `dvr fdb`, `arp` and `neigh`: what a node holds of each kind, one row each.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::args::ReadArgs;
use super::error::CliError;
use super::{output, target};
use crate::api::agent::{Forwarding, Neighbour, Request, Responder};
use crate::lab::Daemon;

/// A row and the node it is of.
#[derive(Debug, Serialize)]
struct Row<T> {
    /// The node whose row it is; a forwarding's own `node` is where its frames go.
    on: String,
    /// The row.
    #[serde(flatten)]
    row: T,
}

fn rows<T: DeserializeOwned>(args: &ReadArgs, request: &Request) -> Result<Vec<Row<T>>, CliError> {
    let mut all = Vec::new();
    for site in target::sites(args.name.as_ref(), args.node.as_deref())? {
        let rows: Vec<T> = target::ask(&site, Daemon::Agent, request)?;
        all.extend(rows.into_iter().map(|row| Row { on: site.node.clone(), row }));
    }
    Ok(all)
}

/// `dvr fdb`.
///
/// # Errors
/// When a node cannot be asked.
pub(super) fn forwardings(args: &ReadArgs) -> Result<u8, CliError> {
    let rows: Vec<Row<Forwarding>> = rows(args, &Request::Forwardings)?;
    output::render(args.output.output, &rows, |rows| {
        let cells: Vec<[String; 8]> = rows
            .iter()
            .map(|Row { on, row }| {
                [
                    on.clone(),
                    row.network.clone(),
                    row.mac.to_string(),
                    row.port.clone(),
                    row.node.clone().unwrap_or_else(|| "-".to_owned()),
                    row.origin.clone(),
                    row.packets.to_string(),
                    row.age_secs.map_or_else(|| "-".to_owned(), |age| format!("{age} s")),
                ]
            })
            .collect();
        output::columns(
            ["ON", "NETWORK", "MAC", "PORT", "TO NODE", "ORIGIN", "PACKETS", "AGE"],
            &cells,
            "no addresses are known",
        )
    })
}

/// `dvr arp`.
///
/// # Errors
/// When a node cannot be asked.
pub(super) fn responders(args: &ReadArgs) -> Result<u8, CliError> {
    let rows: Vec<Row<Responder>> = rows(args, &Request::Responders)?;
    output::render(args.output.output, &rows, |rows| {
        let cells: Vec<[String; 5]> = rows
            .iter()
            .map(|Row { on, row }| {
                [on.clone(), row.network.clone(), row.ip.to_string(), row.mac.to_string(), row.answers.to_string()]
            })
            .collect();
        output::columns(["ON", "NETWORK", "ADDRESS", "ANSWERED WITH", "ANSWERS"], &cells, "no address is answered for")
    })
}

/// `dvr neigh`.
///
/// # Errors
/// When a node cannot be asked.
pub(super) fn neighbours(args: &ReadArgs) -> Result<u8, CliError> {
    let rows: Vec<Row<Neighbour>> = rows(args, &Request::Neighbours)?;
    output::render(args.output.output, &rows, |rows| {
        let cells: Vec<[String; 6]> = rows
            .iter()
            .map(|Row { on, row }| {
                let (router, ifname) = (row.router.clone(), row.ifname.to_string());
                [on.clone(), router, ifname, row.ip.to_string(), row.mac.to_string(), row.state.clone()]
            })
            .collect();
        output::columns(["ON", "ROUTER", "INTERFACE", "ADDRESS", "MAC", "STATE"], &cells, "no routers, no neighbours")
    })
}
