//! What must be equal, and what may differ: only the order in which a flood reaches its ports, which in Open vSwitch
//! is that of a hash table. There, what each port gets is compared instead of the text.

use std::collections::BTreeMap;

use super::case::{Case, Step};

/// The first step whose answers differ, and how.
pub(crate) fn difference(case: &Case, ours: &[String], theirs: &[String]) -> Option<(usize, String)> {
    let all = case.steps.iter().zip(ours).zip(theirs).enumerate();
    all.filter(|(_, ((step, _), _))| step.is_question())
        .find_map(|(at, ((step, ours), theirs))| Some((at, answer_difference(step, ours, theirs)?)))
}

fn answer_difference(step: &Step, ours: &str, theirs: &str) -> Option<String> {
    match step {
        Step::Packet { .. } => trace_difference(ours, theirs),
        Step::Dump(_) => {
            let dumped = |text: &str| text.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>();
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
        Step::Change { .. } | Step::Wait(_) => None,
    }
}

/// Port, VLAN, address of each row; the ages depend on when OVS looked.
fn learned(text: &str) -> Vec<String> {
    let row = |line: &str| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ");
    let mut rows: Vec<String> = text.lines().filter(|line| !line.contains("MAC")).map(row).collect();
    rows.sort();
    rows
}

/// The line of a trace that starts with `label`.
pub(crate) fn line<'a>(trace: &'a str, label: &str) -> &'a str {
    trace.lines().find_map(|line| line.strip_prefix(label)).unwrap_or("(none)").trim()
}

fn trace_difference(ours: &str, theirs: &str) -> Option<String> {
    let mut report = String::new();
    let flow = line(theirs, "Flow:");
    for label in ["Flow:", "Final flow:"] {
        let (ours, theirs) = (line(ours, label), line(theirs, label));
        if ours != theirs {
            report += &format!("OVS: {label} {theirs}\ndvr: {label} {ours}\n");
        }
    }
    let label = "Datapath actions:";
    let (our_actions, their_actions) = (line(ours, label), line(theirs, label));
    let flooded = ["FLOOD", "ALL", "flooding"].iter().any(|word| theirs.contains(word));
    let same =
        our_actions == their_actions || flooded && deliveries(our_actions, flow) == deliveries(their_actions, flow);
    if !same {
        report += &format!("OVS: {label} {their_actions}\ndvr: {label} {our_actions}\n");
    }
    (!report.is_empty()).then(|| format!("{report}--- OVS:\n{theirs}\n--- dvr:\n{ours}\n"))
}

/// What each port gets: the port, and the packet's state there as it differs from `flow`. Sorted.
fn deliveries(actions: &str, flow: &str) -> Vec<String> {
    let original = original(flow);
    let mut found = Vec::new();
    deliver(actions, &mut original.clone(), &original, &mut found);
    found.sort();
    found
}

type State = BTreeMap<String, String>;

fn original(flow: &str) -> State {
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
            state.insert((*key).to_owned(), value.to_owned());
        }
    }
    let number = |name: &str| value(name).and_then(|text| text.parse::<u16>().ok());
    if let Some(ttl) = number("nw_ttl=") {
        state.insert("ipv6.hlimit".to_owned(), ttl.to_string());
    }
    if let (Some(tos), Some(ecn)) = (number("nw_tos="), number("nw_ecn=")) {
        let class = format!("{:#x}", tos | ecn);
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
    if let Some(vid) = number("dl_vlan=") {
        state.insert("vlan".to_owned(), format!("vid={vid},pcp={}", number("dl_vlan_pcp=").unwrap_or(0)));
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
                state.insert(format!("{kind}.{name}"), value.to_owned());
            }
        } else if let Some(inner) = body(action, "push_vlan") {
            state.insert("vlan".to_owned(), inner.to_owned());
        } else if action == "pop_vlan" {
            state.remove("vlan");
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
        let one = deliveries("pop_vlan,1,push_vlan(vid=10,pcp=0),2", flow);
        assert_eq!(one, deliveries("2,pop_vlan,1", flow));
        assert_ne!(one, deliveries("1,2", flow), "port 1 would get the tag");
        assert_ne!(one, deliveries("pop_vlan,1", flow), "port 2 gets nothing");
        let set = "set(eth(src=00:00:00:00:00:02)),1,set(eth(src=00:00:00:00:00:01)),2";
        assert_eq!(deliveries(set, flow), deliveries("2,set(eth(src=00:00:00:00:00:02)),1", flow));
    }
}
