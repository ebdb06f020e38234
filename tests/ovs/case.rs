//! A case: ports, and steps that change flows, send packets, let time pass and ask for what is there. As text, each
//! answer that Open vSwitch gave stands below its step.

use std::fmt;

/// What stands between the changes of a bundle.
const BETWEEN: &str = " ;; ";

/// What a port is, with the datapath's number for it where it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PortKind {
    Netdev { dp: u32 },
    Patch { peer: String },
    Vxlan { dp: u32, local: String, remote: String },
}

/// The VLANs of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Vlans {
    Trunk,
    Trunks(Vec<u16>),
    Access(u16),
    /// `native-untagged`.
    Native(u16, Vec<u16>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) bridge: String,
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) kind: PortKind,
    pub(crate) vlans: Vlans,
}

/// One thing done or asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// `how` is a word of `ovs-ofctl add-flows`: add, modify, modify_strict, delete, delete_strict.
    Change { how: String, bridge: String, flow: String },
    /// A change that may be refused; the answer says whether it was.
    Try { how: String, bridge: String, flow: String },
    /// Changes that are made all, or, with one that is refused, none; the answer says which.
    Bundle { bridge: String, changes: Vec<(String, String)> },
    /// A packet through the tables, with all its effects. Without octets, one is made from the flow.
    Packet { bridge: String, flow: String, octets: Option<String> },
    /// Milliseconds pass.
    Wait(u32),
    /// The flows that a filter wants, without counters, sorted.
    Dump { bridge: String, filter: String },
    /// The flows without counters and actions.
    Matches(String),
    /// The learned addresses.
    Fdb(String),
}

impl Step {
    pub(crate) const fn is_question(&self) -> bool {
        match self {
            Self::Try { .. } | Self::Bundle { .. } | Self::Packet { .. } => true,
            Self::Dump { .. } | Self::Matches(_) | Self::Fdb(_) => true,
            Self::Change { .. } | Self::Wait(_) => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// The OpenFlow version that flows are loaded and dumped with: what they look like depends on it.
    pub(crate) openflow: u8,
    pub(crate) ports: Vec<Port>,
    pub(crate) steps: Vec<Step>,
}

/// What came back for each step; empty for those that ask nothing.
pub(crate) type Answers = Vec<String>;

impl Case {
    /// The bridges, in order of mention.
    pub(crate) fn bridges(&self) -> Vec<&str> {
        let mut bridges: Vec<&str> = Vec::new();
        for port in &self.ports {
            if !bridges.contains(&port.bridge.as_str()) {
                bridges.push(&port.bridge);
            }
        }
        bridges
    }

    /// As text, with answers.
    pub(crate) fn write(&self, title: &str, answers: &[String]) -> String {
        let mut text = String::new();
        for line in title.lines() {
            text += &format!("# {line}\n");
        }
        text += &format!("openflow {}\n", self.openflow);
        for port in &self.ports {
            text += &format!("port {port}\n");
        }
        for (step, answer) in self.steps.iter().zip(answers) {
            text += &format!("{step}\n");
            for line in answer.lines() {
                text += format!("> {line}").trim_end();
                text.push('\n');
            }
        }
        text
    }

    /// A case and its answers from text.
    pub(crate) fn read(text: &str) -> Result<(Self, Answers), String> {
        let mut case = Self { openflow: 10, ports: Vec::new(), steps: Vec::new() };
        let mut answers = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let bad = |why: &str| format!("line {}: {why}: `{line}`", at + 1);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(answer) = line.strip_prefix('>') {
                let last: &mut String = answers.last_mut().ok_or_else(|| bad("an answer to nothing"))?;
                *last += answer.strip_prefix(' ').unwrap_or(answer);
                last.push('\n');
                continue;
            }
            let (word, rest) = line.split_once(' ').ok_or_else(|| bad("one word only"))?;
            match word {
                "openflow" => case.openflow = rest.parse().map_err(|_| bad("not a number"))?,
                "port" => case.ports.push(read_port(rest).ok_or_else(|| bad("not a port"))?),
                _ => {
                    case.steps.push(read_step(word, rest).ok_or_else(|| bad("not a step"))?);
                    answers.push(String::new());
                }
            }
        }
        Ok((case, answers))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {} {} ", self.bridge, self.number, self.name)?;
        match &self.kind {
            PortKind::Netdev { dp } => write!(out, "netdev {dp}")?,
            PortKind::Patch { peer } => write!(out, "patch {peer}")?,
            PortKind::Vxlan { dp, local, remote } => write!(out, "vxlan {dp} {local} {remote}")?,
        }
        let list = |out: &mut fmt::Formatter<'_>, tags: &[u16]| tags.iter().try_for_each(|tag| write!(out, " {tag}"));
        match &self.vlans {
            Vlans::Trunk => write!(out, " trunk"),
            Vlans::Trunks(tags) => write!(out, " trunks").and_then(|()| list(out, tags)),
            Vlans::Access(tag) => write!(out, " access {tag}"),
            Vlans::Native(tag, tags) => write!(out, " native {tag}").and_then(|()| list(out, tags)),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Change { how, bridge, flow } => write!(out, "{how} {bridge} {flow}"),
            Self::Try { how, bridge, flow } => write!(out, "try {how} {bridge} {flow}"),
            Self::Bundle { bridge, changes } => {
                let changes: Vec<String> = changes.iter().map(|(how, flow)| format!("{how} {flow}")).collect();
                write!(out, "bundle {bridge} {}", changes.join(BETWEEN))
            }
            Self::Packet { bridge, flow, octets: Some(octets) } => write!(out, "packet {bridge} {flow} {octets}"),
            Self::Packet { bridge, flow, octets: None } => write!(out, "packet {bridge} {flow}"),
            Self::Wait(millis) => write!(out, "wait {millis}"),
            Self::Dump { bridge, filter } => write!(out, "{}", format!("dump {bridge} {filter}").trim_end()),
            Self::Matches(bridge) => write!(out, "matches {bridge}"),
            Self::Fdb(bridge) => write!(out, "fdb {bridge}"),
        }
    }
}

fn read_port(text: &str) -> Option<Port> {
    let mut words = text.split(' ');
    let bridge = words.next()?.to_owned();
    let number = words.next()?.parse().ok()?;
    let name = words.next()?.to_owned();
    let kind = match words.next()? {
        "netdev" => PortKind::Netdev { dp: words.next()?.parse().ok()? },
        "patch" => PortKind::Patch { peer: words.next()?.to_owned() },
        "vxlan" => PortKind::Vxlan {
            dp: words.next()?.parse().ok()?,
            local: words.next()?.to_owned(),
            remote: words.next()?.to_owned(),
        },
        _ => return None,
    };
    let mode = words.next()?;
    let tags: Vec<u16> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
    let vlans = match (mode, tags.as_slice()) {
        ("trunk", []) => Vlans::Trunk,
        ("trunks", tags) => Vlans::Trunks(tags.to_vec()),
        ("access", [tag]) => Vlans::Access(*tag),
        ("native", [tag, rest @ ..]) => Vlans::Native(*tag, rest.to_vec()),
        _ => return None,
    };
    Some(Port { bridge, number, name, kind, vlans })
}

/// The word of a change, its bridge, and its flow.
fn read_change(how: &str, rest: &str) -> (String, String, String) {
    let (bridge, flow) = rest.split_once(' ').unwrap_or((rest, ""));
    (how.to_owned(), bridge.to_owned(), flow.to_owned())
}

fn read_step(word: &str, rest: &str) -> Option<Step> {
    match word {
        "add" | "modify" | "modify_strict" | "delete" | "delete_strict" => {
            let (how, bridge, flow) = read_change(word, rest);
            Some(Step::Change { how, bridge, flow })
        }
        "try" => {
            let (how, rest) = rest.split_once(' ')?;
            let (how, bridge, flow) = read_change(how, rest);
            Some(Step::Try { how, bridge, flow })
        }
        "bundle" => {
            let (bridge, changes) = rest.split_once(' ')?;
            let change = |text: &str| {
                let (how, flow) = text.split_once(' ').unwrap_or((text, ""));
                (how.to_owned(), flow.to_owned())
            };
            Some(Step::Bundle { bridge: bridge.to_owned(), changes: changes.split(BETWEEN).map(change).collect() })
        }
        "packet" => {
            let mut words = rest.split(' ');
            let (bridge, flow) = (words.next()?.to_owned(), words.next()?.to_owned());
            Some(Step::Packet { bridge, flow, octets: words.next().map(str::to_owned) })
        }
        "wait" => Some(Step::Wait(rest.parse().ok()?)),
        "dump" => {
            let (bridge, filter) = rest.split_once(' ').unwrap_or((rest, ""));
            Some(Step::Dump { bridge: bridge.to_owned(), filter: filter.to_owned() })
        }
        "matches" => Some(Step::Matches(rest.to_owned())),
        "fdb" => Some(Step::Fdb(rest.to_owned())),
        _ => None,
    }
}
