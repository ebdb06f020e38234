//! A case on our switch, by its public surface alone.

use dvr::api::switch::{BridgeMode, FlowChange, VlanMode};
use dvr::datapath::{DpPort, NewPort, NewPortKind, Switch, TraceInput, TunnelMeta};
use dvr::types::{IfName, Timestamp, VlanId};

use super::case::{Answers, Case, Port, PortKind, Step, Vlans};
use super::daemon::verdict;

fn name(text: &str) -> IfName {
    IfName::new(text).expect("a legal name")
}

fn vlan(mode: &Vlans) -> VlanMode {
    let id = |tag: u16| VlanId::new(tag.into()).expect("a legal VLAN");
    let all = |tags: &[u16]| tags.iter().map(|tag| id(*tag)).collect();
    match mode {
        Vlans::Trunk => VlanMode::Trunk,
        Vlans::Trunks(tags) => VlanMode::Trunks(all(tags)),
        Vlans::Access(tag) => VlanMode::Access(id(*tag)),
        Vlans::Native(tag, tags) => VlanMode::Native { tag: id(*tag), trunks: all(tags) },
    }
}

fn add_port(switch: &mut Switch, port: &Port) {
    let address = |text: &str| text.parse().expect("an address");
    let kind = match &port.kind {
        PortKind::Netdev { dp } => NewPortKind::Netdev { dp: DpPort(*dp) },
        PortKind::Patch { peer } => NewPortKind::Patch { peer: name(peer) },
        PortKind::Vxlan { dp, local, remote } => {
            NewPortKind::Vxlan { dp: DpPort(*dp), local: address(local), remote: address(remote) }
        }
    };
    let new = NewPort { name: name(&port.name), kind, vlan: vlan(&port.vlans), number: Some(port.number) };
    if let Err(error) = switch.add_port(&name(&port.bridge), new) {
        panic!("{error}");
    }
}

fn change(how: &str, flow: &str) -> FlowChange {
    let flow = flow.to_owned();
    match how {
        "add" => FlowChange::Add(flow),
        "modify" => FlowChange::Modify(flow),
        "modify_strict" => FlowChange::ModifyStrict(flow),
        "delete" => FlowChange::Delete(flow),
        "delete_strict" => FlowChange::DeleteStrict(flow),
        other => panic!("no change is called {other}"),
    }
}

fn octets(text: &str) -> Vec<u8> {
    let octet = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (0..text.len()).step_by(2).map(octet).collect()
}

/// A frame whose flow says its port and its tunnel.
fn frame(flow: &str, hex: &str) -> TraceInput {
    let part = |name: &str| flow.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let port = part("in_port").expect("every packet has a port");
    let in_port = if port == "LOCAL" { 65534 } else { port.parse().expect("a port number") };
    let number = |name: &str| part(name).map_or(0, |text| text.parse::<u8>().expect("an octet"));
    let address = |name: &str| part(name).expect("a tunnel has addresses").parse().expect("an address");
    let tunnel = part("tun_id").map(|id| TunnelMeta {
        id: id.parse().expect("a tunnel key"),
        src: address("tun_src"),
        dst: address("tun_dst"),
        tos: number("tun_tos"),
        ttl: number("tun_ttl"),
    });
    TraceInput::Frame { in_port, tunnel, octets: octets(hex) }
}

/// A dump's line without what `--no-stats` leaves out, as `ovs-ofctl` prints it then.
fn without_stats(line: &str) -> String {
    let (head, actions) = line.split_once("actions=").expect("every flow has actions");
    // A flag has no comma behind it.
    let kept = head.trim_start().split_inclusive(' ').filter(|part| {
        let past = ["duration=", "n_packets=", "n_bytes=", "idle_age=", "hard_age="];
        let silent = *part == "cookie=0x0, " || *part == "table=0, ";
        !past.iter().any(|name| part.starts_with(name)) && !silent
    });
    format!("{}actions={actions}", kept.collect::<String>())
}

fn dump(switch: &Switch, bridge: &str, filter: &str, now: Timestamp) -> Result<String, String> {
    let flows = switch.dump_flows(&name(bridge), filter, false, now).map_err(|error| error.to_string())?;
    let lines: Vec<String> = flows.iter().map(|flow| without_stats(&flow.line)).collect();
    Ok(lines.join("\n"))
}

/// Runs a case from an empty switch. An error is a flow that was refused, with its step.
pub(crate) fn run(case: &Case) -> Result<Answers, (usize, String)> {
    let mut switch = Switch::new();
    for bridge in case.bridges() {
        if let Err(error) = switch.add_bridge(&name(bridge), BridgeMode::Flow) {
            panic!("{error}");
        }
    }
    for port in &case.ports {
        add_port(&mut switch, port);
    }
    let mut now = Timestamp::from_secs(1_000);
    let mut answers = vec![String::new(); case.steps.len()];
    for (at, step) in case.steps.iter().enumerate() {
        answers[at] = match step {
            Step::Change { how, bridge, flow } => {
                let changed = switch.change_flows(&name(bridge), &[change(how, flow)], now);
                changed.map_err(|error| (at, error.to_string()))?;
                String::new()
            }
            Step::Try { how, bridge, flow } => {
                verdict(switch.change_flows(&name(bridge), &[change(how, flow)], now).is_ok())
            }
            Step::Bundle { bridge, changes } => {
                let changes: Vec<FlowChange> = changes.iter().map(|(how, flow)| change(how, flow)).collect();
                verdict(switch.change_flows(&name(bridge), &changes, now).is_ok())
            }
            Step::Packet { bridge, flow, octets: hex } => {
                let input = match hex {
                    Some(hex) => frame(flow, hex),
                    None => TraceInput::Flow(flow.clone()),
                };
                switch.trace(&name(bridge), &input, true, now).map_err(|error| (at, error.to_string()))?
            }
            Step::Wait(millis) => {
                now = now + core::time::Duration::from_millis((*millis).into());
                switch.expire(now);
                String::new()
            }
            Step::Dump { bridge, filter } => dump(&switch, bridge, filter, now).map_err(|why| (at, why))?,
            Step::Matches(bridge) => dump(&switch, bridge, "", now).map_err(|why| (at, why))?,
            Step::Fdb(bridge) => {
                let known = switch.fdb(&name(bridge), now).map_err(|error| (at, error.to_string()))?;
                let port = |number: u32| if number == 65534 { "LOCAL".to_owned() } else { number.to_string() };
                let row =
                    |entry: &dvr::api::switch::FdbEntry| format!("{} {} {}\n", port(entry.port), entry.vlan, entry.mac);
                known.iter().map(row).collect()
            }
        };
    }
    Ok(answers)
}
