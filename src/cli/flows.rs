//! `dvr dump-flows`, `add-flow`, `add-flows`, `mod-flows`, `del-flows`, `replace-flows`, `diff-flows`: flows in the text
//! of `ovs-ofctl`.

use std::io::IsTerminal;
use std::path::Path;

use serde::Serialize;

use super::args::Output;
use super::error::{CliError, DIFFERENT, DONE};
use super::flow_args::{ChangeFlowsArgs, DiffFlowsArgs, DumpFlowsArgs, FileFlowsArgs, FlowArgs};
use super::flow_file::{FlowFile, Implied};
use super::output;
use super::target::{self, Site};
use crate::api::switch::{Bridge, Flow, FlowChange, Request, Show};
use crate::datapath::{self, FlowBook, SortKey};
use crate::lab::{Daemon, LabName};
use crate::types::IfName;

/// A bridge's flows on one node.
#[derive(Debug, Serialize)]
struct Dump {
    node: String,
    bridge: String,
    flows: Vec<Flow>,
}

/// `dvr dump-flows`.
///
/// # Errors
/// When a switch cannot be asked, or does not know the bridge, the match or a field to sort by.
pub(super) fn dump(args: &DumpFlowsArgs) -> Result<u8, CliError> {
    let keys = sort_keys(args)?;
    let (sites, bridge) = target::bridge(args.name.as_ref(), &args.bridge)?;
    let form = if args.json { Output::Json } else { args.output.output };
    let names = by_name(args.names, args.no_names, form);
    let mut dumps = Vec::new();
    for site in &sites {
        let request = Request::DumpFlows { bridge: bridge.clone(), filter: args.filter.clone(), names };
        let mut flows: Vec<Flow> = target::ask(site, Daemon::Switch, &request)?;
        if !keys.is_empty() {
            let sorted = book_of(site, &bridge)?.sort(&mut flows, &keys);
            sorted.map_err(|error| CliError::Usage(format!("cannot sort the flows of {bridge}: {error}")))?;
        }
        dumps.push(Dump { node: site.node.clone(), bridge: bridge.to_string(), flows });
    }
    output::render(form, &dumps, |dumps| {
        let mut out = String::new();
        for dump in dumps {
            if dumps.len() > 1 {
                out.push_str(&format!("{}/{}:\n", dump.node, dump.bridge));
            }
            for flow in &dump.flows {
                let line = if args.no_stats { datapath::without_stats(flow) } else { flow.line.trim().to_owned() };
                out.push_str(&format!(" {line}\n"));
            }
        }
        out
    })
}

/// Whether ports are shown by name: as asked, else to people only.
fn by_name(names: bool, no_names: bool, form: Output) -> bool {
    let people = form == Output::Table && std::io::stdout().is_terminal();
    names || (people && !no_names)
}

fn sort_keys(args: &DumpFlowsArgs) -> Result<Vec<SortKey>, CliError> {
    let ascending = args.sort.iter().map(|field| (field, false));
    let key = |(field, descending): (&String, bool)| {
        let unknown =
            || CliError::Usage(format!("cannot sort by `{field}`: give `priority` or a field that matches name"));
        SortKey::new(field, descending).ok_or_else(unknown)
    };
    ascending.chain(args.rsort.iter().map(|field| (field, true))).map(key).collect()
}

/// `dvr add-flow`.
///
/// # Errors
/// When the flow is refused; then nothing was changed.
pub(super) fn add(args: &FlowArgs) -> Result<u8, CliError> {
    if args.flow == "-" {
        return change_by_file(args.name.as_ref(), &args.bridge, Path::new("-"), (Implied::Add, false));
    }
    change(args.name.as_ref(), &args.bridge, FlowChange::Add(args.flow.clone()))
}

/// `dvr add-flows`: all changes of a file at one instant, or none.
///
/// # Errors
/// When a line is refused; then nothing was changed.
pub(super) fn add_file(args: &FileFlowsArgs) -> Result<u8, CliError> {
    change_by_file(args.name.as_ref(), &args.bridge, &args.file, (Implied::Add, true))
}

/// `dvr mod-flows`.
///
/// # Errors
/// When the flow is refused; then nothing was changed.
pub(super) fn modify(args: &ChangeFlowsArgs) -> Result<u8, CliError> {
    if args.flow == "-" {
        let default = (Implied::Modify { strict: args.strict }, false);
        return change_by_file(args.name.as_ref(), &args.bridge, Path::new("-"), default);
    }
    let flow = args.flow.clone();
    let made = if args.strict { FlowChange::ModifyStrict(flow) } else { FlowChange::Modify(flow) };
    change(args.name.as_ref(), &args.bridge, made)
}

/// `dvr del-flows`.
///
/// # Errors
/// When the match is refused; then nothing was changed.
pub(super) fn delete(args: &ChangeFlowsArgs) -> Result<u8, CliError> {
    if args.flow == "-" {
        let default = (Implied::Delete { strict: args.strict }, false);
        return change_by_file(args.name.as_ref(), &args.bridge, Path::new("-"), default);
    }
    let flow = args.flow.clone();
    let made = if args.strict { FlowChange::DeleteStrict(flow) } else { FlowChange::Delete(flow) };
    change(args.name.as_ref(), &args.bridge, made)
}

/// `dvr replace-flows`.
///
/// # Errors
/// When a line is refused; then nothing was changed.
pub(super) fn replace(args: &FileFlowsArgs) -> Result<u8, CliError> {
    let file = FlowFile::read(&args.file, Implied::Add, false)?;
    let (site, bridge) = target::one_bridge(args.name.as_ref(), &args.bridge)?;
    file.enter(&mut book_of(&site, &bridge)?)?;
    let flows = file.changes().into_iter().filter_map(|change| match change {
        FlowChange::Add(flow) => Some(flow),
        FlowChange::Modify(_) | FlowChange::ModifyStrict(_) | FlowChange::Delete(_) | FlowChange::DeleteStrict(_) => {
            None
        }
    });
    let request = Request::ReplaceFlows { bridge, flows: flows.collect() };
    let _changes: usize = target::ask(&site, Daemon::Switch, &request)?;
    Ok(DONE)
}

/// `dvr diff-flows`: [`DIFFERENT`] if anything differs.
///
/// # Errors
/// When a file or a switch cannot be read.
pub(super) fn diff(args: &DiffFlowsArgs) -> Result<u8, CliError> {
    let sides = [Source::of(&args.first, args)?, Source::of(&args.second, args)?];
    // A file's flows may name the ports of the bridge it is compared with.
    let mut ports = Vec::new();
    for side in &sides {
        if let Source::Bridge(site, bridge) = side {
            ports.extend(ports_of(site, bridge)?);
            break;
        }
    }
    let names = by_name(args.names, args.no_names, Output::Table);
    let [old, new] = sides;
    let (old, new) = (old.flows(&ports, names)?, new.flows(&ports, names)?);
    let mut out = String::new();
    for difference in datapath::differences(&old, &new) {
        for (sign, flow) in [('-', difference.old), ('+', difference.new)] {
            if let Some(flow) = flow {
                out.push_str(&format!("{sign}{}\n", datapath::plain(flow)));
            }
        }
    }
    output::print(&out)?;
    Ok(if out.is_empty() { DONE } else { DIFFERENT })
}

/// One side of a comparison.
enum Source {
    File(FlowFile),
    Bridge(Site, IfName),
}

impl Source {
    /// A file if there is one, or the text can be nothing else; a bridge otherwise.
    fn of(text: &str, args: &DiffFlowsArgs) -> Result<Self, CliError> {
        let is_path = text == "-" || text.starts_with(['/', '.']) || Path::new(text).is_file();
        if is_path {
            return Ok(Self::File(FlowFile::read(Path::new(text), Implied::Add, false)?));
        }
        let (site, bridge) = target::one_bridge(args.name.as_ref(), text)?;
        Ok(Self::Bridge(site, bridge))
    }

    fn flows(&self, ports: &[(u32, IfName)], names: bool) -> Result<Vec<Flow>, CliError> {
        match self {
            Self::File(file) => {
                let mut book = book(ports.iter().cloned())?;
                file.enter(&mut book)?;
                book.flows(names).map_err(|error| CliError::Usage(error.to_string()))
            }
            Self::Bridge(site, bridge) => {
                let request = Request::DumpFlows { bridge: bridge.clone(), filter: String::new(), names };
                target::ask(site, Daemon::Switch, &request)
            }
        }
    }
}

fn ports_of(site: &Site, bridge: &IfName) -> Result<Vec<(u32, IfName)>, CliError> {
    let show: Show = target::ask(site, Daemon::Switch, &Request::Show)?;
    let found = show.bridges.into_iter().find(|there| there.name == *bridge);
    let absent =
        || CliError::Absent(format!("node `{}` has no bridge `{bridge}`: `dvr show` lists those it has", site.node));
    let Bridge { ports, .. } = found.ok_or_else(absent)?;
    Ok(ports.into_iter().map(|port| (port.number, port.config.name)).collect())
}

fn book(ports: impl IntoIterator<Item = (u32, IfName)>) -> Result<FlowBook, CliError> {
    FlowBook::new(ports).map_err(|error| CliError::Usage(format!("the bridge's ports make no sense: {error}")))
}

fn book_of(site: &Site, bridge: &IfName) -> Result<FlowBook, CliError> {
    book(ports_of(site, bridge)?)
}

fn change_by_file(
    lab: Option<&LabName>,
    bridge: &str,
    path: &Path,
    (default, words): (Implied, bool),
) -> Result<u8, CliError> {
    let file = FlowFile::read(path, default, words)?;
    let (site, bridge) = target::one_bridge(lab, bridge)?;
    file.enter(&mut book_of(&site, &bridge)?)?;
    send(&site, bridge, file.changes())
}

fn change(lab: Option<&LabName>, bridge: &str, change: FlowChange) -> Result<u8, CliError> {
    let (site, bridge) = target::one_bridge(lab, bridge)?;
    send(&site, bridge, vec![change])
}

fn send(site: &Site, bridge: IfName, changes: Vec<FlowChange>) -> Result<u8, CliError> {
    let _done: serde_json::Value = target::ask(site, Daemon::Switch, &Request::Flows { bridge, changes })?;
    Ok(DONE)
}
