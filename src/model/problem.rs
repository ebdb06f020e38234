//! Every mistake a document can hold, in words: what is wrong with which value, and what to do about it.

use core::fmt;

use serde::{Deserialize, Serialize};
use serde_saphyr::Location;

use super::document::{BadShape, show};
use super::resource::Object;

/// Mistakes kept of one document; the rest are counted.
pub const MAX_MISTAKES: usize = 50;

/// The kind of every mistake in shape.
pub(super) const SHAPE: &str = "Shape";

/// A document that was refused, with everything found wrong in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct DocumentError {
    origin: String,
    mistakes: Vec<Mistake>,
    untold: usize,
}

impl DocumentError {
    /// Where the document came from, as the caller named it.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The mistakes, by place; at least one, at most [`MAX_MISTAKES`].
    #[must_use]
    pub fn mistakes(&self) -> &[Mistake] {
        &self.mistakes
    }

    /// How many more mistakes there are than [`Self::mistakes`] holds.
    #[must_use]
    pub fn untold(&self) -> usize {
        self.untold
    }

    pub(super) fn shape(origin: &str, text: &str, bad: BadShape) -> Self {
        let BadShape { line, column, what, remedy } = bad;
        let excerpt = excerpt(text, line);
        let mistake = Mistake { kind: SHAPE, line, column, what, remedy: remedy.to_owned(), excerpt };
        Self { origin: show(origin), mistakes: vec![mistake], untold: 0 }
    }
}

impl fmt::Display for DocumentError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                out.write_str("\n\n")?;
            }
            let Mistake { kind: _, line, column, what, remedy, excerpt } = mistake;
            let margin = line.to_string().len();
            writeln!(out, "{}:{line}:{column}: {what}", self.origin)?;
            if let Some(text) = excerpt {
                let at = usize::try_from(*column).unwrap_or(1).saturating_sub(1);
                writeln!(out, "{:margin$} |", "")?;
                writeln!(out, "{line} | {text}")?;
                writeln!(out, "{:margin$} | {:at$}^", "", "")?;
            }
            write!(out, "{:margin$} = remedy: {remedy}", "")?;
        }
        if self.untold > 0 {
            write!(out, "\n\n{}: {} more mistakes are not shown", self.origin, self.untold)?;
        }
        Ok(())
    }
}

/// One mistake and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    kind: &'static str,
    line: u64,
    column: u64,
    what: String,
    remedy: String,
    /// The line's text, if it is worth showing.
    excerpt: Option<String>,
}

impl Mistake {
    /// The kind of mistake, in one word that does not change with its values.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        self.kind
    }

    /// The line, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// The column in characters, from 1.
    #[must_use]
    pub fn column(&self) -> u64 {
        self.column
    }

    /// What is wrong, with the value.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &str {
        &self.remedy
    }
}

fn excerpt(text: &str, line: u64) -> Option<String> {
    const MOST: usize = 160;
    let index = usize::try_from(line).ok()?.checked_sub(1)?;
    let line = text.lines().nth(index)?;
    if line.trim().is_empty() || line.chars().count() > MOST {
        return None;
    }
    // One character for one, so that the caret stays under its column.
    Some(line.chars().map(|symbol| if symbol.is_control() { ' ' } else { symbol }).collect())
}

/// Gathers mistakes while a document is checked.
#[derive(Debug, Default)]
pub(super) struct Mistakes {
    found: Vec<(Location, Fault)>,
    untold: usize,
}

impl Mistakes {
    /// Notes a mistake at a place.
    pub(super) fn add(&mut self, place: Location, problem: Fault) {
        if self.found.len() < MAX_MISTAKES {
            self.found.push((place, problem));
        } else {
            self.untold += 1;
        }
    }

    /// Counts mistakes that nobody kept.
    pub(super) fn add_untold(&mut self, untold: usize) {
        self.untold += untold;
    }

    /// The error, if anything was noted.
    pub(super) fn into_error(self, origin: &str, text: &str) -> Option<DocumentError> {
        let mut mistakes: Vec<Mistake> = self
            .found
            .into_iter()
            .map(|(place, problem)| {
                let (line, column) = (place.line().max(1), place.column().max(1));
                let excerpt = excerpt(text, line);
                Mistake { kind: problem.kind(), line, column, what: problem.what(), remedy: problem.remedy(), excerpt }
            })
            .collect();
        mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        let untold = self.untold;
        (!mistakes.is_empty()).then(|| DocumentError { origin: show(origin), mistakes, untold })
    }
}

/// What is wrong with one edit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The kind of mistake, in one word that does not change with its values.
    pub kind: String,
    /// The object asked for.
    pub object: Object,
    /// What is wrong, with the value.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind: _, object, what, remedy } = self;
        write!(out, "{object}: {what}\n  = remedy: {remedy}")
    }
}

/// Edits that were refused, with everything found wrong in them.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub struct Refusal {
    /// The problems, in the order found; at least one, at most [`MAX_MISTAKES`].
    pub problems: Vec<Problem>,
    /// How many more there are.
    pub untold: usize,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                out.write_str("\n")?;
            }
            write!(out, "{problem}")?;
        }
        if self.untold > 0 {
            write!(out, "\n{} more problems are not shown", self.untold)?;
        }
        Ok(())
    }
}

/// The table of faults: a variant, its values, what is wrong, what to do.
macro_rules! problems {
    ($($name:ident { $($field:ident),* } => $what:literal, $remedy:literal;)*) => {
        /// A mistake in meaning. Each value is shown as text.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub(super) enum Fault {
            $($name { $($field: String),* },)*
        }

        /// Every kind of mistake in meaning.
        #[cfg(test)]
        pub(super) const KINDS: &[&str] = &[$(stringify!($name)),*];

        impl Fault {
            pub(super) fn kind(&self) -> &'static str {
                match self {
                    $(Self::$name { .. } => stringify!($name),)*
                }
            }

            pub(super) fn what(&self) -> String {
                match self {
                    $(Self::$name { $($field),* } => { $(let $field = show($field);)* let _ = ($(&$field,)*); format!($what) })*
                }
            }

            pub(super) fn remedy(&self) -> String {
                match self {
                    $(Self::$name { $($field),* } => { $(let $field = show($field);)* let _ = ($(&$field,)*); format!($remedy) })*
                }
            }
        }
    };
}

problems! {
    Version { version } => "version {version} is not one this program reads", "write `version: 1`";
    NotOf { what, value, why, like } => "`{value}` cannot be {what}: {why}", "write a legal value, such as {like}, or leave the key out if it may be";
    BadName { what, name } => "`{name}` cannot name a {what}",
        "use 1 to 32 of a-z, 0-9, '-', '_' and '.', a letter or digit first";
    NameTwice { what, name } => "the {what} `{name}` bears a node's name, and commands take either in one place",
        "rename one of the two";
    Unknown { what, name, known } => "there is no {what} `{name}`", "declare it or name one of: {known}";
    IdTwice { id, owner } => "id `{id}` is already the id of {owner}", "give each object an id of its own or leave it out";
    IdShort { short, owner } => "the id begins with `{short}` as that of {owner} does, and interface names bear no more",
        "choose an id whose first 11 characters differ or leave it out";
    Kind { kind } => "network type `{kind}` is not built: vxlan, gre, vlan and flat are", "write one of these, or leave it out for vxlan";
    KeyOfType { key, kind } => "`{key}` means nothing to a network of `type: {kind}`", "remove it, or write another type";
    NoPhysicalNetwork { network, kind } => "network `{network}` has `type: {kind}` and names no physical network",
        "add `physical_network: NAME`; the nodes' `bridge_mappings` say by which interface each is on it";
    SegmentTwice { segment, physical_network, network } =>
        "{segment} of physical network `{physical_network}` is already that of network `{network}`",
        "give another `vlan` from 1 to 4094 or leave it out; one network of a physical network may be flat";
    Unmapped { node, physical_network, network } =>
        "node `{node}` has network `{network}`, and no interface on its physical network `{physical_network}`",
        "add `bridge_mappings: {{{physical_network}: INTERFACE}}` to node `{node}`, or keep off it the machines on that network and behind its routers";
    RouterNode { router, node } => "router `{router}` is distributed, and is to live on node `{node}` alone",
        "write `distributed: false`, or leave `node` out";
    NoNode { router } => "router `{router}` is not distributed, and there is no node for it to live on",
        "declare a node first, or in the same go, or make the router distributed";
    VniTwice { vni, network } => "VNI {vni} is already that of network `{network}`", "give another from 1 to 16777215 or leave it out";
    MtuTooLarge { mtu, most, overhead, kind } => "MTU {mtu} does not fit: a {kind} network takes {overhead} octets of the underlay's",
        "write at most {most}, raise `underlay.mtu` or leave it out";
    MtuTooSmall { mtu, network } => "MTU {mtu} is too small for network `{network}`, which has an IPv6 subnet",
        "give it at least 1280 (RFC 8200 §5), raising `underlay.mtu` if need be, or remove the subnet";
    UnderlayMtu { mtu, least } => "underlay MTU {mtu} leaves no room inside a tunnel", "write at least {least}";
    HostBits { cidr, network } => "`{cidr}` has bits set beyond its prefix", "write `{network}`";
    CidrLength { cidr, least, most } => "`{cidr}` has an unusable prefix length", "use a length from /{least} to /{most}";
    CidrSpecial { cidr, special } => "`{cidr}` overlaps {special}, which hosts cannot bear", "choose a prefix of unicast addresses";
    NoSubnet { network } => "network `{network}` has no subnet", "give it at least one: `subnets: [{{cidr: 10.1.0.0/24}}]`";
    SubnetsOverlap { cidr, other, network } => "subnet `{cidr}` overlaps subnet `{other}` of the same network `{network}`",
        "choose prefixes that share no address";
    RouterOverlap { router, network, cidr, other, other_cidr } =>
        "router `{router}` cannot join network `{network}` ({cidr}): it overlaps network `{other}` ({other_cidr})",
        "give the networks of one router prefixes that share no address, or use two routers";
    GatewayOutside { gateway, cidr } => "gateway `{gateway}` is not a host address of subnet `{cidr}`",
        "choose a host address of the subnet or leave it out";
    AddressOutside { address, network, cidrs } => "address `{address}` is in no subnet of network `{network}`",
        "choose one in {cidrs} or leave it out";
    AddressEdge { address, cidr, edge } => "address `{address}` is the {edge} address of subnet `{cidr}`",
        "choose another address of the subnet or leave it out";
    AddressGateway { address, cidr } => "address `{address}` is the gateway of subnet `{cidr}`",
        "choose another address, leave it out, or move the subnet's `gateway`";
    AddressTwice { address, owner } => "address `{address}` is already that of {owner}", "choose another or leave it out";
    AddressSpecial { address, special } => "address `{address}` is in {special}, which hosts cannot bear", "choose a unicast address";
    AddressFamily { address, cidr } => "node address `{address}` is not of the underlay's family ({cidr})",
        "write all of the underlay in IPv4 or all in IPv6; `underlay.cidr` decides";
    TwoInSubnet { address, cidr } => "address `{address}` is a second one in subnet `{cidr}`", "give a router one address a subnet";
    IpAndIps { vm } => "virtual machine `{vm}` has both `ip` and `ips`", "write them all under `ips`";
    TooMany { what, most } => "too many {what}: at most {most} are taken", "remove some or split them";
    NoRoom { what, place } => "{place} has no free address left for {what}", "use a shorter prefix, or remove something";
    MacGroup { mac } => "MAC `{mac}` is a group address", "clear the lowest bit of the first octet, or leave the key out";
    MacZero { mac } => "MAC `{mac}` belongs to no station", "choose another or leave the key out";
    MacHost { mac } => "MAC `{mac}` is in fa:16:3f:00:00:00/24, which is kept for the hosts' own",
        "choose another, such as one that begins with fa:16:3e, or leave the key out";
    MacTwice { mac, owner } => "MAC `{mac}` is already that of {owner}", "choose another or leave the key out";
    NetworkTwice { router, network } => "router `{router}` has two interfaces on network `{network}`", "keep one of them";
    DeviceTwice { device, node, owner } => "device `{device}` of node `{node}` is already that of {owner}",
        "give each virtual machine, and each physical network of a node, a device of its own";
    DeviceOurs { device } => "device `{device}` bears a name this program gives to its own ports", "rename the device";
    EditTwice { object } => "{object} is asked for twice in one go", "keep one of the two";
    Absent { object } => "there is no {object} to delete", "correct its kind or name, or leave it be";
    InUse { object, by } => "{object} cannot go while {by} is on it", "delete or move {by} first, or in the same go";
    Stranded { address, owner, network } => "address `{address}` of {owner} would be in no subnet of network `{network}`",
        "keep its subnet, or change or delete {owner} in the same go";
    GatewayBorne { gateway, owner } => "gateway `{gateway}` is an address of {owner}",
        "choose another gateway, or change or delete {owner} in the same go";
    Migration { vm, why } => "virtual machine `{vm}` cannot move: {why}",
        "name the node it is on as `node` and another as `migrating_to`, or leave the latter out";
    Unentitled { vm, address, why } => "virtual machine `{vm}` cannot take address `{address}`: {why}",
        "give it an allowed address pair of exactly that address and MAC, or leave the address to who has it";
    Exhausted { what } => "no {what} is left to allocate", "remove objects, or explicit values that take the room";
}
