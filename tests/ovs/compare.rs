//! What must be equal, and what may differ.
//!
//! The datapath's actions are equal as text, or by what they give each port, in order. They may differ in text because
//! a write covers the bits that were looked at before it, and how many those are is up to how tables are searched. The
//! order of a flood may differ: in Open vSwitch it is that of a hash table. Packets for a controller, and fields of
//! tunnels that we do not have, are left out.

use std::collections::BTreeMap;

use super::case::{Case, Step};
use super::daemon::UNREADABLE;

/// The first step whose answers differ, and how.
pub(crate) fn difference(case: &Case, ours: &[String], theirs: &[String]) -> Option<(usize, String)> {
    let all = case.steps.iter().zip(ours).zip(theirs).enumerate();
    // Where OVS gives up, for want of room in a netlink attribute, we go on: the rest of the case is two stories.
    let all = all.take_while(|(_, (_, theirs))| !theirs.contains("yielded over 64 kB of actions"));
    all.filter(|(_, ((step, _), _))| step.is_question())
        .find_map(|(at, ((step, ours), theirs))| Some((at, answer_difference(step, ours, theirs)?)))
}

fn answer_difference(step: &Step, ours: &str, theirs: &str) -> Option<String> {
    match step {
        Step::Packet { .. } => trace_difference(step, ours, theirs),
        Step::Matches(_) if theirs.trim() == UNREADABLE => None,
        Step::Dump { .. } | Step::Matches(_) => {
            let heads = matches!(step, Step::Matches(_));
            let dumped = |text: &str| {
                let mut lines: Vec<String> = text.lines().map(|line| shown(line, heads)).collect();
                lines.sort();
                lines
            };
            let (ours, theirs) = (dumped(ours), dumped(theirs));
            let only = |these: &[String], those: &[String], whose: &str| {
                let lines = these.iter().filter(|line| !those.contains(line));
                lines.map(|line| format!("{whose}: {line}\n")).collect::<String>()
            };
            (ours != theirs)
                .then(|| format!("{}{}", only(&theirs, &ours, "OVS only"), only(&ours, &theirs, "dvr only")))
        }
        Step::Fdb(_) => {
            let (ours, theirs) = (learned(ours), learned(theirs));
            (ours != theirs).then(|| format!("OVS: {theirs:?}\ndvr: {ours:?}\n"))
        }
        Step::Try { .. } | Step::Bundle { .. } => {
            let (ours, theirs) = (ours.trim(), theirs.trim());
            (ours != theirs).then(|| format!("OVS: {theirs}\ndvr: {ours}\n"))
        }
        Step::Change { .. } | Step::Wait(_) => None,
    }
}

/// A dump's line without how its flow was added, which later versions of OpenFlow tell, and if only its head is asked
/// for, without its actions, which each version writes in its own way.
fn shown(line: &str, head: bool) -> String {
    let line = line.replace("check_overlap ", "").replace("reset_counts ", "");
    let line = if head { line.split("actions=").next().unwrap_or_default() } else { &line };
    line.trim().to_owned()
}

/// Port, VLAN, address of each row; the ages depend on when OVS looked.
fn learned(text: &str) -> Vec<String> {
    let row = |line: &str| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let mut rows: Vec<String> = text.lines().filter(|line| !line.contains("MAC")).map(row).collect();
    rows.sort();
    rows
}

/// What only tunnels of kinds that we do not have would set.
const FOREIGN: &[&str] =
    &["tun_gbp_id=", "tun_gbp_flags=", "tun_erspan_ver=", "gtpu_flags=", "gtpu_msgtype=", "tun_flags="];

fn without_foreign(flow: &str) -> String {
    let ours = |part: &&str| !FOREIGN.iter().any(|name| part.starts_with(name));
    // OVS prints this one in hexadecimal without saying so, and would read it as decimal: we say so.
    let honest = |part: &str| match part.strip_prefix("tun_tos=") {
        Some(tos) if tos != "0" => format!("tun_tos=0x{tos}"),
        _ => part.to_owned(),
    };
    flow.split(',').filter(ours).map(honest).collect::<Vec<_>>().join(",")
}

/// Without what goes to an OpenFlow controller, which we do not have.
fn without_controller(actions: &str) -> String {
    let ours: Vec<&str> = split(actions).into_iter().filter(|action| !action.contains("controller(")).collect();
    if ours.is_empty() { "drop".to_owned() } else { ours.join(",") }
}

/// The line of a trace that starts with `label`.
pub(crate) fn line<'a>(trace: &'a str, label: &str) -> &'a str {
    trace.lines().find_map(|line| line.strip_prefix(label)).unwrap_or("(none)").trim()
}

/// The lines between the packet and its end: bridges, tables, actions and remarks.
///
/// OVS shows a miss of a bridge without a controller as the hidden flow that drops it. Of a flow without actions we say that it drops even if
/// the packet was dropped before them.
fn tree(trace: &str) -> Vec<String> {
    let shown = |line: &str| line.replace("reg0=0x2, priority 0", "No match.");
    let lines = trace.lines().skip(1).take_while(|line| !line.starts_with("Final flow"));
    let same = |line: &&str| line.trim() != "drop";
    lines.filter(same).map(shown).collect()
}

fn trace_difference(step: &Step, ours: &str, theirs: &str) -> Option<String> {
    let mut report = String::new();
    let flow = line(theirs, "Flow:");
    for label in ["Flow:", "Final flow:"] {
        let (ours, theirs) = (line(ours, label), without_foreign(line(theirs, label)));
        if ours != theirs {
            report += &format!("OVS: {label} {theirs}\ndvr: {label} {ours}\n");
        }
    }
    let flooded = ["FLOOD", "ALL", "flooding"].iter().any(|word| theirs.contains(word));
    let (our_tree, their_tree) = (tree(ours), tree(theirs));
    if !flooded && our_tree != their_tree {
        let both = our_tree.len().min(their_tree.len());
        let at = our_tree.iter().zip(&their_tree).position(|(one, two)| one != two).unwrap_or(both);
        report += &format!("OVS: tells {:?}\ndvr: tells {:?}\n", their_tree.get(at), our_tree.get(at));
    }
    let label = "Datapath actions:";
    let (our_actions, their_actions) = (line(ours, label), without_controller(line(theirs, label)));
    let octets = if let Step::Packet { octets: Some(octets), .. } = step { octets } else { "" };
    let same = || {
        let mut each = [our_actions, their_actions.as_str()].map(|actions| deliveries(actions, flow, octets));
        if flooded {
            each.iter_mut().for_each(|found| found.sort());
        }
        each[0] == each[1]
    };
    if our_actions != their_actions && !same() {
        report += &format!("OVS: {label} {their_actions}\ndvr: {label} {our_actions}\n");
    }
    (!report.is_empty()).then(|| format!("{report}--- OVS:\n{theirs}\n--- dvr:\n{ours}\n"))
}

/// What each port gets: the port, and the packet's state there as it differs from `flow`.
fn deliveries(actions: &str, flow: &str, octets: &str) -> Vec<String> {
    let original = original(flow, octets);
    let mut found = Vec::new();
    deliver(actions, &mut original.clone(), &original, &mut found);
    found
}

/// A field's value in any notation, as a number.
fn number(text: &str) -> Option<u128> {
    if let Ok(value) = text.parse::<dvr::types::Mac>() {
        return Some(value.octets().iter().fold(0, |bits, octet| bits << 8 | u128::from(*octet)));
    }
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Some(match address {
            std::net::IpAddr::V4(address) => u32::from(address).into(),
            std::net::IpAddr::V6(address) => address.into(),
        });
    }
    match text.strip_prefix("0x") {
        Some(digits) => u128::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Writes `value` or `value/mask` over what was there.
fn written(old: Option<&String>, value: &str) -> String {
    let (plain, mask) = value.split_once('/').unwrap_or((value, ""));
    let mask = if mask.is_empty() { Some(u128::MAX) } else { number(mask) };
    let (Some(plain), Some(mask)) = (number(plain), mask) else { return value.to_owned() };
    let old = old.and_then(|old| old.parse().ok()).unwrap_or(0);
    (old & !mask | plain & mask).to_string()
}

type State = BTreeMap<String, String>;

fn original(flow: &str, octets: &str) -> State {
    const NAMES: &[(&str, &str)] = &[
        ("dl_src=", "eth.src"),
        ("dl_dst=", "eth.dst"),
        ("nw_src=", "ipv4.src"),
        ("nw_dst=", "ipv4.dst"),
        ("nw_ttl=", "ipv4.ttl"),
        ("ipv6_src=", "ipv6.src"),
        ("ipv6_dst=", "ipv6.dst"),
        ("arp_op=", "arp.op"),
        ("arp_spa=", "arp.sip"),
        ("arp_tpa=", "arp.tip"),
        ("arp_sha=", "arp.sha"),
        ("arp_tha=", "arp.tha"),
        ("nd_target=", "nd.target"),
        ("nd_sll=", "nd.sll"),
        ("nd_tll=", "nd.tll"),
    ];
    let mut state = State::new();
    let value = |name: &str| flow.split(',').find_map(|part| part.strip_prefix(name));
    for (name, key) in NAMES {
        if let Some(value) = value(name) {
            state.insert((*key).to_owned(), written(None, value));
        }
    }
    let number = |name: &str| value(name).and_then(|text| text.parse::<u16>().ok());
    if let Some(ttl) = number("nw_ttl=") {
        state.insert("ipv6.hlimit".to_owned(), ttl.to_string());
    }
    if let (Some(tos), Some(ecn)) = (number("nw_tos="), number("nw_ecn=")) {
        let class = (tos | ecn).to_string();
        state.insert("ipv4.tos".to_owned(), class.clone());
        state.insert("ipv6.tclass".to_owned(), class);
    }
    for proto in ["tcp", "udp", "sctp"] {
        for (name, side) in [("tp_src=", "src"), ("tp_dst=", "dst")] {
            if let Some(port) = number(name) {
                state.insert(format!("{proto}.{side}"), port.to_string());
            }
        }
    }
    for (name, key) in [("icmp_type=", "type"), ("icmp_code=", "code")] {
        for proto in ["icmp", "icmpv6"] {
            if let Some(value) = number(name) {
                state.insert(format!("{proto}.{key}"), value.to_string());
            }
        }
    }
    if let Some(vid) = number("dl_vlan=") {
        let service = if octets.get(24..28) == Some("88a8") { "tpid=0x88a8," } else { "" };
        let priority = number("dl_vlan_pcp=").unwrap_or(0);
        state.insert("vlan".to_owned(), format!("[{service}vid={vid},pcp={priority}]"));
    }
    state
}

fn deliver(actions: &str, state: &mut State, original: &State, found: &mut Vec<String>) {
    for action in split(actions) {
        if let Some(inner) = body(action, "set") {
            let (kind, fields) = inner.split_once('(').unwrap_or((inner, ")"));
            let fields = fields.strip_suffix(')').unwrap_or(fields);
            if kind == "tunnel" {
                state.insert("tunnel".to_owned(), fields.to_owned());
                continue;
            }
            for field in split(fields) {
                let (name, value) = field.split_once('=').unwrap_or((field, ""));
                let name = format!("{kind}.{name}");
                let value = written(state.get(&name), value);
                state.insert(name, value);
            }
        } else if let Some(inner) = body(action, "push_vlan") {
            // Tags are a stack, the outermost last.
            let tags = state.entry("vlan".to_owned()).or_default();
            *tags = format!("{tags}[{inner}]");
        } else if action == "drop" {
            // Nobody gets anything.
        } else if action == "pop_vlan" {
            let tags = state.remove("vlan").unwrap_or_default();
            if let Some((below, _)) = tags.rsplit_once('[')
                && !below.is_empty()
            {
                state.insert("vlan".to_owned(), below.to_owned());
            }
        } else if let Some(inner) = body(action, "clone") {
            deliver(inner, &mut state.clone(), original, found);
        } else {
            // A tunnel's settings concern its own port only.
            let tunnelled = action == "4789";
            let differs = |(key, value): &(&String, &String)| {
                original.get(*key) != Some(value) && (tunnelled || *key != "tunnel")
            };
            let changed: Vec<String> =
                state.iter().filter(differs).map(|(key, value)| format!("{key}={value}")).collect();
            let untagged = if original.contains_key("vlan") && !state.contains_key("vlan") { " untagged" } else { "" };
            found.push(format!("{action}{untagged} {}", changed.join(" ")));
        }
    }
}

fn body<'a>(action: &'a str, name: &str) -> Option<&'a str> {
    action.strip_prefix(name)?.strip_prefix('(')?.strip_suffix(')')
}

/// Splits at the commas outside parentheses.
pub(crate) fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0_usize, 0, Vec::new());
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::deliveries;

    #[test]
    fn the_order_of_a_flood_does_not_matter_but_what_ports_get_does() {
        let flow = "arp,in_port=1,dl_vlan=10,dl_vlan_pcp=0,dl_src=00:00:00:00:00:01";
        let sorted = |actions| {
            let mut found = deliveries(actions, flow, "");
            found.sort();
            found
        };
        let one = sorted("pop_vlan,1,push_vlan(vid=10,pcp=0),2");
        assert_eq!(one, sorted("2,pop_vlan,1"));
        assert_ne!(one, sorted("1,2"), "port 1 would get the tag");
        assert_ne!(one, sorted("pop_vlan,1"), "port 2 gets nothing");
        let set = "set(eth(src=00:00:00:00:00:02)),1,set(eth(src=00:00:00:00:00:01)),2";
        assert_eq!(sorted(set), sorted("2,set(eth(src=00:00:00:00:00:02)),1"));
    }
}
