//! `dvr trace`: what would become of a packet, asked of a switch, or of flows in a file; or of all nodes on its way.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;

use super::args::TraceArgs;
use super::error::CliError;
use super::flow_file::{FlowFile, Implied};
use super::target::Site;
use super::{output, target, walk};
use crate::api::switch::{BridgeMode, Request, Show, VlanMode};
use crate::capture::{file, line};
use crate::datapath::{DpPort, FlowBook, NewPort, NewPortKind, Switch, TraceInput};
use crate::lab::Daemon;
use crate::types::{IfName, Timestamp};
use crate::wire::vxlan;

/// The bridge of flows from a file.
const BRIDGE: &str = "br0";
/// Ports that a file's flows may name at most.
const LIMIT_PORTS: usize = 4096;

/// Traces.
///
/// # Errors
/// When a daemon cannot be asked, or the flow, the frame or the file is not right.
pub(super) fn trace(args: &TraceArgs) -> Result<u8, CliError> {
    if let Some(file) = &args.flows {
        return offline(file, args);
    }
    if let [from, to] = args.words.as_slice()
        && args.frame.is_none()
        && args.pcap.is_none()
        && !from.contains('/')
        && !to.contains(['=', ','])
    {
        let nodes = walk::nodes(args.name.as_ref())?;
        // What looks like a flow of one word, such as `arp`, is one unless there is a machine of the first name.
        if nodes.have_vm(from) || to.parse::<IpAddr>().is_ok() {
            return walk::walk(&nodes, from, to);
        }
    }
    let usage = || {
        CliError::Usage("give `[NODE/]BRIDGE FLOW [FRAME]`, `VM VM|IP`, or flows alone after --flows FILE".to_owned())
    };
    let (bridge, flow, packet) = match args.words.as_slice() {
        [bridge, flow] => (bridge, flow, None),
        [bridge, flow, packet] if args.frame.is_none() && args.pcap.is_none() => (bridge, flow, Some(packet)),
        _ => return Err(usage()),
    };
    let packets = packets(args, packet.map(String::as_str))?;
    let (site, name) = target::one_bridge(args.name.as_ref(), bridge)?;
    let Some(packets) = packets else {
        let request = Request::Trace { bridge: name, flow: flow.clone(), frame: None, generate: args.generate };
        let text: String = target::ask(&site, Daemon::Switch, &request)?;
        return output::print(&text);
    };
    let flow = numbered(&site, &name, flow)?;
    packets.print(|frame| {
        let frame = Some(frame.to_vec());
        let request = Request::Trace { bridge: name.clone(), flow: flow.clone(), frame, generate: args.generate };
        target::ask(&site, Daemon::Switch, &request)
    })
}

/// `in_port=NAME` as `in_port=NUMBER`, which a frame's trace wants; anything else as it is.
fn numbered(site: &Site, bridge: &IfName, flow: &str) -> Result<String, CliError> {
    let Some(name) = flow.trim().strip_prefix("in_port=").filter(|name| name.parse::<u32>().is_err()) else {
        return Ok(flow.to_owned());
    };
    let name = name.trim_matches('"');
    let show: Show = target::ask(site, Daemon::Switch, &Request::Show)?;
    let ports = show.bridges.into_iter().filter(|there| there.name == *bridge).flat_map(|there| there.ports);
    let port = ports.into_iter().find(|port| port.config.name.as_str() == name);
    let absent = || CliError::Absent(format!("bridge `{bridge}` of node `{}` has no port `{name}`", site.node));
    Ok(format!("in_port={}", port.ok_or_else(absent)?.number))
}

/// Frames to be traced in order.
struct Packets {
    frames: Vec<Vec<u8>>,
    /// The file they are from; a single frame needs no heading.
    file: Option<String>,
}

/// The frames that are given, if any: in hexadecimal, or in a capture file.
fn packets(args: &TraceArgs, word: Option<&str>) -> Result<Option<Packets>, CliError> {
    let hex = |text: &str| Ok(Some(Packets { frames: vec![octets(text)?], file: None }));
    match (&args.frame, &args.pcap, word) {
        (Some(text), _, _) => hex(text),
        (None, Some(path), _) => from_file(path).map(Some),
        (None, None, Some(word)) if Path::new(word).is_file() => from_file(Path::new(word)).map(Some),
        (None, None, Some(word)) => hex(word),
        (None, None, None) => Ok(None),
    }
}

fn from_file(path: &Path) -> Result<Packets, CliError> {
    let open = File::open(path).map_err(|source| CliError::Read { path: path.to_owned(), source })?;
    let frames = file::read(open).map_err(|source| CliError::Usage(format!("{}: {source}", path.display())))?;
    let frames = frames.into_iter().map(|frame| frame.octets).collect();
    Ok(Packets { frames, file: Some(path.display().to_string()) })
}

impl Packets {
    /// Traces each, and prints it before the next is traced.
    fn print(&self, mut trace: impl FnMut(&[u8]) -> Result<String, CliError>) -> Result<u8, CliError> {
        let mut code = super::error::DONE;
        for (index, frame) in self.frames.iter().enumerate() {
            let text = trace(frame)?;
            let head = match &self.file {
                Some(_) => {
                    let gap = if index == 0 { "" } else { "\n" };
                    format!(
                        "{gap}Frame {} of {}: {}\n",
                        index + 1,
                        self.frames.len(),
                        line::summary(frame, vxlan::PORT)
                    )
                }
                None => String::new(),
            };
            code = output::print(&format!("{head}{text}"))?;
        }
        match &self.file {
            Some(file) if self.frames.is_empty() => Err(CliError::Usage(format!("{file} holds no frames"))),
            Some(_) | None => Ok(code),
        }
    }
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

/// Traces flows or frames in order on a bridge that has the file's flows.
fn offline(file: &Path, args: &TraceArgs) -> Result<u8, CliError> {
    let flows = FlowFile::read(file, Implied::Add, false)?;
    let failed = |error: &dyn core::fmt::Display| CliError::Usage(format!("{}: {error}", file.display()));
    let mut book = FlowBook::new([]).map_err(|error| failed(&error))?;
    flows.enter(&mut book)?;
    let dumped = book.flows(false).map_err(|error| failed(&error))?;
    let texts = dumped.iter().flat_map(|flow| [flow.matching.as_str(), flow.actions.as_str()]);
    let ports: BTreeSet<u32> = texts.chain(args.words.iter().map(String::as_str)).flat_map(numbers).collect();
    let bridge = IfName::new(BRIDGE).unwrap_or_else(|_| unreachable!("three letters name a bridge"));
    let mut switch = Switch::new();
    switch.add_bridge(&bridge, BridgeMode::Flow).map_err(|error| failed(&error))?;
    for number in ports.into_iter().take(LIMIT_PORTS) {
        let name = IfName::new(format!("port{number}")).map_err(|error| failed(&error))?;
        let kind = NewPortKind::Netdev { dp: DpPort(number) };
        let port = NewPort { name, kind, vlan: VlanMode::Trunk, number: Some(number) };
        switch.add_port(&bridge, port).map_err(|error| failed(&error))?;
    }
    switch.change_flows(&bridge, &flows.changes(), Timestamp::ZERO).map_err(|error| failed(&error))?;
    let mut trace = |flow: &str, frame: Option<&[u8]>| {
        let wrong = |error: &dyn core::fmt::Display| CliError::Usage(format!("`{flow}`: {error}"));
        let input = TraceInput::of(flow.to_owned(), frame.map(<[u8]>::to_vec)).map_err(|error| wrong(&error))?;
        switch.trace(&bridge, &input, args.generate, Timestamp::ZERO).map_err(|error| wrong(&error))
    };
    if let Some(packets) = packets(args, None)? {
        let [flow] = args.words.as_slice() else {
            return Err(CliError::Usage("say once where the frames come in: `in_port=N`".to_owned()));
        };
        return packets.print(|frame| trace(flow, Some(frame)));
    }
    let told: Vec<String> = args.words.iter().map(|flow| trace(flow, None)).collect::<Result<_, _>>()?;
    output::print(&told.join("\n"))
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
