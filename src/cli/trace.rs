//! `dvr trace`: what would become of a packet, asked of a switch, or of flows in a file.

use std::collections::BTreeSet;
use std::path::Path;

use super::args::TraceArgs;
use super::error::CliError;
use super::{output, target};
use crate::api::switch::{BridgeMode, FlowChange, Request, VlanMode};
use crate::datapath::{DpPort, NewPort, NewPortKind, Switch, TraceInput};
use crate::lab::Daemon;
use crate::types::{IfName, Timestamp};

/// The bridge of flows from a file.
const BRIDGE: &str = "br0";
/// Ports that a file's flows may name at most.
const LIMIT_PORTS: usize = 4096;

/// Traces.
///
/// # Errors
/// When the switch cannot be asked, or the flow, the frame or the file is not right.
pub(super) fn trace(args: &TraceArgs) -> Result<u8, CliError> {
    if let Some(file) = &args.flows {
        return offline(file, &args.words, args.generate);
    }
    let [bridge, flow] = args.words.as_slice() else {
        return Err(CliError::Usage("give `[NODE/]BRIDGE FLOW`, or flows alone after --flows FILE".to_owned()));
    };
    let (site, name) = target::one_bridge(args.name.as_ref(), bridge)?;
    let frame = args.frame.as_deref().map(octets).transpose()?;
    let request = Request::Trace { bridge: name, flow: flow.clone(), frame, generate: args.generate };
    let text: String = target::ask(&site, Daemon::Switch, &request)?;
    output::print(&text)
}

fn octets(text: &str) -> Result<Vec<u8>, CliError> {
    let digits: Vec<char> = text.chars().filter(|digit| !digit.is_whitespace() && *digit != ':').collect();
    let octet = |pair: &[char]| match pair {
        [high, low] => Some(u8::try_from(high.to_digit(16)? * 16 + low.to_digit(16)?).unwrap_or(0)),
        _ => None,
    };
    let octets: Option<Vec<u8>> = digits.chunks(2).map(octet).collect();
    octets.ok_or_else(|| CliError::Usage(format!("`{text}` is no frame: give an even number of hexadecimal digits")))
}

/// Traces flows in order on a bridge that has the file's flows.
fn offline(file: &Path, flows: &[String], generate: bool) -> Result<u8, CliError> {
    let read = std::fs::read_to_string(file);
    let text = read.map_err(|source| CliError::Read { path: file.to_owned(), source })?;
    let mut switch = Switch::new();
    let bridge = IfName::new(BRIDGE).unwrap_or_else(|_| unreachable!("three letters name a bridge"));
    let failed = |error: &dyn core::fmt::Display| CliError::Usage(format!("{}: {error}", file.display()));
    switch.add_bridge(&bridge, BridgeMode::Flow).map_err(|error| failed(&error))?;
    for (index, line) in text.lines().enumerate() {
        let flow = line.split_once('#').map_or(line, |(flow, _)| flow).trim();
        if flow.is_empty() {
            continue;
        }
        let change = FlowChange::Add(flow.to_owned());
        let added = switch.change_flows(&bridge, &[change], Timestamp::ZERO);
        added.map_err(|error| failed(&format_args!("line {}: {error}", index + 1)))?;
    }
    let dumped = switch.dump_flows(&bridge, "", false, Timestamp::ZERO).map_err(|error| failed(&error))?;
    let texts = dumped.iter().flat_map(|flow| [flow.matching.as_str(), flow.actions.as_str()]);
    let ports: BTreeSet<u32> = texts.chain(flows.iter().map(String::as_str)).flat_map(numbers).collect();
    for number in ports.into_iter().take(LIMIT_PORTS) {
        let name = IfName::new(format!("port{number}")).map_err(|error| failed(&error))?;
        let kind = NewPortKind::Netdev { dp: DpPort(number) };
        let port = NewPort { name, kind, vlan: VlanMode::Trunk, number: Some(number) };
        switch.add_port(&bridge, port).map_err(|error| failed(&error))?;
    }
    let mut out = String::new();
    for flow in flows {
        let input = TraceInput::Flow(flow.clone());
        let told = switch.trace(&bridge, &input, generate, Timestamp::ZERO);
        let told = told.map_err(|error| CliError::Usage(format!("`{flow}`: {error}")))?;
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&told);
    }
    output::print(&out)
}

/// Port numbers a flow's text names: behind `in_port=` and `output:`.
fn numbers(text: &str) -> Vec<u32> {
    let behind = |word: &'static str| text.match_indices(word).map(move |(at, _)| &text[at + word.len()..]);
    let number =
        |rest: &str| rest.split(|digit: char| !digit.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
    // Reserved numbers are no ports to be made.
    behind("in_port=")
        .chain(behind("output:"))
        .filter_map(number)
        .filter(|number| (1..0xff00).contains(number))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_found_where_flows_name_them() {
        assert_eq!(numbers("priority=1,in_port=3"), [3]);
        assert_eq!(numbers("strip_vlan,output:3,output:12,resubmit(,21)"), [3, 12]);
        assert_eq!(numbers("learn(table=20,output:NXM_OF_IN_PORT[]),output:1"), [1]);
    }

    #[test]
    fn frames_are_hexadecimal() {
        assert_eq!(octets("ff:0a 1B").expect("three octets"), [0xff, 0x0a, 0x1b]);
        assert!(octets("abc").is_err() && octets("zz").is_err());
    }
}
