//! `dvr dump-flows`, `add-flow`, `mod-flows`, `del-flows`: flows in the text of `ovs-ofctl`.

use std::io::IsTerminal;

use serde::Serialize;

use super::args::{ChangeFlowsArgs, DumpFlowsArgs, FlowArgs, Output};
use super::error::{CliError, DONE};
use super::output;
use super::target::{self, Site};
use crate::api::switch::{Flow, FlowChange, Request};
use crate::lab::{Daemon, LabName};

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
/// When a switch cannot be asked, or does not know the bridge or the match.
pub(super) fn dump(args: &DumpFlowsArgs) -> Result<u8, CliError> {
    let (sites, bridge) = target::bridge(args.name.as_ref(), &args.bridge)?;
    let form = if args.json { Output::Json } else { args.output.output };
    let people = form == Output::Table && std::io::stdout().is_terminal();
    let names = args.names || (people && !args.no_names);
    let mut dumps = Vec::new();
    for site in &sites {
        let request = Request::DumpFlows { bridge: bridge.clone(), filter: args.filter.clone(), names };
        let mut flows: Vec<Flow> = target::ask(site, Daemon::Switch, &request)?;
        // Stable: what has the same priority stays in the switch's order.
        if args.sort {
            flows.sort_by_key(|flow| flow.priority);
        } else if args.rsort {
            flows.sort_by_key(|flow| core::cmp::Reverse(flow.priority));
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
                let line = if args.no_stats { bare(flow) } else { flow.line.trim().to_owned() };
                out.push_str(&format!(" {line}\n"));
            }
        }
        out
    })
}

/// A flow without what changes by itself, as `ovs-ofctl --no-stats` prints it: cookie and table only if not 0.
fn bare(flow: &Flow) -> String {
    let mut out = String::new();
    if flow.cookie != 0 {
        out.push_str(&format!("cookie={:#x}, ", flow.cookie));
    }
    if flow.table != 0 {
        out.push_str(&format!("table={}, ", flow.table));
    }
    if flow.idle_timeout != 0 {
        out.push_str(&format!("idle_timeout={}, ", flow.idle_timeout));
    }
    if flow.hard_timeout != 0 {
        out.push_str(&format!("hard_timeout={}, ", flow.hard_timeout));
    }
    let comma = if flow.matching.is_empty() { "" } else { "," };
    out.push_str(&format!("priority={}{comma}{} actions={}", flow.priority, flow.matching, flow.actions));
    out
}

/// `dvr add-flow`.
///
/// # Errors
/// When the flow is refused; then nothing was changed.
pub(super) fn add(args: &FlowArgs) -> Result<u8, CliError> {
    change(args.name.as_ref(), &args.bridge, FlowChange::Add(args.flow.clone()))
}

/// `dvr mod-flows`.
///
/// # Errors
/// When the flow is refused; then nothing was changed.
pub(super) fn modify(args: &ChangeFlowsArgs) -> Result<u8, CliError> {
    let flow = args.flow.clone();
    change(
        args.name.as_ref(),
        &args.bridge,
        if args.strict { FlowChange::ModifyStrict(flow) } else { FlowChange::Modify(flow) },
    )
}

/// `dvr del-flows`.
///
/// # Errors
/// When the match is refused; then nothing was changed.
pub(super) fn delete(args: &ChangeFlowsArgs) -> Result<u8, CliError> {
    let flow = args.flow.clone();
    change(
        args.name.as_ref(),
        &args.bridge,
        if args.strict { FlowChange::DeleteStrict(flow) } else { FlowChange::Delete(flow) },
    )
}

fn change(lab: Option<&LabName>, bridge: &str, change: FlowChange) -> Result<u8, CliError> {
    let (sites, name) = target::bridge(lab, bridge)?;
    let [site] = sites.as_slice() else {
        let known: Vec<String> = sites.iter().map(|Site { node, .. }| format!("{node}/{name}")).collect();
        return Err(CliError::Usage(format!("`{bridge}` is on several nodes; say which one: {}", known.join(", "))));
    };
    let request = Request::Flows { bridge: name, changes: vec![change] };
    let _done: serde_json::Value = target::ask(site, Daemon::Switch, &request)?;
    Ok(DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_flows_say_only_what_lasts() {
        let mut flow = Flow {
            cookie: 0,
            duration_secs: 1.5,
            table: 0,
            n_packets: 7,
            n_bytes: 700,
            idle_timeout: 0,
            hard_timeout: 0,
            idle_age: 1,
            hard_age: 1,
            priority: 0,
            matching: String::new(),
            actions: "NORMAL".to_owned(),
            line: "unused here".to_owned(),
        };
        assert_eq!(bare(&flow), "priority=0 actions=NORMAL");
        (flow.cookie, flow.table, flow.hard_timeout, flow.priority) = (0x1f, 20, 300, 2);
        flow.matching = "dl_vlan=1".to_owned();
        assert_eq!(bare(&flow), "cookie=0x1f, table=20, hard_timeout=300, priority=2,dl_vlan=1 actions=NORMAL");
    }
}
