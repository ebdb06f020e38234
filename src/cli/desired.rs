//! `dvr apply`, `diff`, `get`, `describe`, `delete`: what is desired, at a controller.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::args::Output;
use super::controller_args::{ApplyArgs, DeleteArgs, DescribeArgs, DiffArgs, GetArgs};
use super::controllers::Desk;
use super::error::{CliError, DONE};
use super::output;
use super::wishes::Wishes;
use crate::lab;
use crate::model::resource::{NetworkSpec, NodeSpec, PortSpec, RouterSpec};
use crate::model::{Kind, Object, Resource};
use crate::rpc::proto::{ApplyReply, ApplyRequest, Change, Edit, Item, Name, NodeHealth, WatchRequest, edit};

/// How long each node of a lab may take to become what was applied.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// A resource as it is printed.
#[derive(Debug, Serialize)]
struct Listed {
    #[serde(flatten)]
    resource: Resource,
    /// When it last changed.
    revision: u64,
    /// Of a node, whether an agent lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<bool>,
    /// Of a node, how far it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<Health>,
}

/// How far a node is.
#[derive(Debug, Serialize)]
struct Health {
    /// The last revision at which it was told something.
    told: u64,
    /// The revision that it is made to.
    applied: u64,
    /// What stands in the way, as its agent says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

impl Health {
    /// In a few words.
    fn state(&self, lives: bool) -> String {
        match self.errors.as_slice() {
            _ if !lives => "no agent lives".to_owned(),
            [] if self.applied >= self.told => "as desired".to_owned(),
            [] => format!("at {}, told {}", self.applied, self.told),
            [only] => only.clone(),
            [first, rest @ ..] => format!("{first} (and {} more)", rest.len()),
        }
    }
}

/// `dvr apply`.
///
/// # Errors
/// What is wrong with the file, or with its wishes beside what is desired already.
pub(super) fn apply(args: &ApplyArgs) -> Result<u8, CliError> {
    let wishes = Wishes::read(&args.file)?;
    let mut desk = Desk::find(&args.at)?;
    let reply = send(&mut desk, wishes, args.prune, args.dry_run)?;
    told(&reply, args.dry_run)
}

/// `dvr diff`.
///
/// # Errors
/// As [`apply`].
pub(super) fn diff(args: &DiffArgs) -> Result<u8, CliError> {
    let wishes = Wishes::read(&args.file)?;
    let mut desk = Desk::find(&args.at)?;
    let reply = send(&mut desk, wishes, args.prune, true)?;
    told(&reply, true)
}

fn send(desk: &mut Desk, mut wishes: Wishes, prune: bool, dry_run: bool) -> Result<ApplyReply, CliError> {
    if let Some((lab, record)) = &desk.lab {
        let nodes = wishes.objects.keys().filter(|object| object.kind == Kind::Node);
        let strangers: Vec<&str> =
            nodes.map(|object| object.name.as_str()).filter(|name| !record.nodes.contains_key(*name)).collect();
        if !strangers.is_empty() {
            return Err(CliError::Refused(format!(
                "lab `{}` cannot get new nodes while it runs ({}): take it down and bring it up with the new file; \
                 networks, routers and VMs can change at any time",
                lab.name,
                strangers.join(", ")
            )));
        }
    }
    let mut edits = core::mem::take(&mut wishes.edits);
    if prune {
        edits.extend(pruned(desk, &wishes)?);
    }
    let request = ApplyRequest { edits, dry_run, underlay: core::mem::take(&mut wishes.underlay) };
    let reply = desk.ask(async |client| client.apply(request).await.map(tonic::Response::into_inner));
    let reply = reply.map_err(|error| wishes.explain(error))?;
    if !dry_run {
        remember(desk);
    }
    Ok(reply)
}

/// What a file that is a whole topology does not name, to be deleted.
fn pruned(desk: &mut Desk, wishes: &Wishes) -> Result<Vec<Edit>, CliError> {
    if !wishes.whole {
        return Err(CliError::Usage("--prune goes with a topology, which names all there is to be".to_owned()));
    }
    let (_, items) = desk.list("", "")?;
    let name = |item: Item| {
        item.name.filter(|name| {
            !name.kind.parse().is_ok_and(|kind| wishes.objects.contains_key(&Object::new(kind, name.name.clone())))
        })
    };
    Ok(items
        .into_iter()
        .filter_map(name)
        .map(|name| Edit { what: Some(edit::What::Delete(name)), revision: None })
        .collect())
}

/// A lab keeps what is desired in it, for when its controller is down; and its nodes become it before the next command.
fn remember(desk: &Desk) {
    if let Some((lab, record)) = &desk.lab {
        // Whoever needs it next reads it again.
        let _fresh = lab::present(lab, record);
        lab::settled(lab, record, SETTLE_LIMIT);
    }
}

fn told(reply: &ApplyReply, dry_run: bool) -> Result<u8, CliError> {
    let mut text: String = reply.changes.iter().map(line).collect();
    if reply.untold > 0 {
        text.push_str(&format!("… and {} more\n", reply.untold));
    }
    let count = reply.changes.len() + usize::try_from(reply.untold).unwrap_or(usize::MAX);
    text.push_str(&match (count, dry_run) {
        (0, _) => format!("nothing to change at revision {}\n", reply.revision),
        (count, true) => format!("{count} {} would be made\n", plural(count)),
        (count, false) => format!("{count} {} made at revision {}\n", plural(count), reply.revision),
    });
    output::print(&text)
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "change" } else { "changes" }
}

/// One change as a line: what comes, what goes, which fields become what.
fn line(change: &Change) -> String {
    let name = change.name.as_ref().map(ToString::to_string).unwrap_or_default();
    let value = |octets: &[u8]| serde_json::from_slice::<Value>(octets).unwrap_or_default();
    match (change.before.is_empty(), change.after.is_empty()) {
        (true, _) => format!("+ {name}\n"),
        (false, true) => format!("- {name}\n"),
        (false, false) => {
            let (before, after) = (value(&change.before), value(&change.after));
            format!("~ {name}: {}\n", fields(&before, &after).join(", "))
        }
    }
}

fn fields(before: &Value, after: &Value) -> Vec<String> {
    let empty = serde_json::Map::new();
    let (before, after) = (before.as_object().unwrap_or(&empty), after.as_object().unwrap_or(&empty));
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    let text = |value: Option<&Value>| match value {
        None => "none".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    };
    keys.into_iter()
        .filter(|key| before.get(*key) != after.get(*key))
        .map(|key| format!("{key} {} → {}", text(before.get(key)), text(after.get(key))))
        .collect()
}

fn listed(item: Item) -> Result<Listed, CliError> {
    let resource = serde_json::from_slice(&item.resource).map_err(|error| {
        CliError::Ended(format!(
            "the controller's answer makes no sense to this release: {error}; use the same release of both"
        ))
    })?;
    let health = item.health.map(|NodeHealth { told, applied, errors }| Health { told, applied, errors });
    Ok(Listed { resource, revision: item.revision, live: item.live, health })
}

/// `dvr get`.
///
/// # Errors
/// When there is no such object, or no controller.
pub(super) fn get(args: &GetArgs) -> Result<u8, CliError> {
    let mut desk = Desk::find(&args.at)?;
    let kind = args.kind.0.map(Kind::word).unwrap_or_default();
    let name = args.object.as_deref().unwrap_or_default();
    let (revision, items) = desk.list(kind, name)?;
    let all = items.into_iter().map(listed).collect::<Result<Vec<_>, _>>()?;
    if all.is_empty() && !name.is_empty() && !args.watch {
        return Err(CliError::Absent(format!("there is no {kind} `{name}`; `dvr get {kind}` lists those there are")));
    }
    // A stream of JSON has one object a line, so that a reader can take each as it comes.
    match (args.watch, args.output.output) {
        (true, Output::Json) => all.iter().try_for_each(print_line)?,
        (_, form) => drop(output::render(form, &all, |all| tables(all))?),
    }
    if !args.watch {
        return Ok(DONE);
    }
    let request = WatchRequest { kind: kind.to_owned(), name: name.to_owned(), after: revision };
    let address = desk.address();
    desk.attend(async |client| {
        let failed = |status| Desk::failure(&address, &status);
        let mut stream = client.watch(request).await.map_err(failed)?.into_inner();
        while let Some(reply) = stream.message().await.map_err(failed)? {
            for item in reply.items {
                print_change(item, args.output.output)?;
            }
        }
        Err(CliError::Ended(format!("the controller at {address} ended the watch: start it again")))
    })
}

fn print_line<T: Serialize>(value: &T) -> Result<(), CliError> {
    let text = serde_json::to_string(value);
    let text = text.map_err(|error| CliError::Encode { form: "JSON", why: error.to_string() })?;
    output::print(&format!("{text}\n")).map(drop)
}

fn print_change(item: Item, form: Output) -> Result<(), CliError> {
    let Some(Name { kind, name }) = item.name.clone() else { return Ok(()) };
    let revision = item.revision;
    let gone = item.resource.is_empty();
    match form {
        Output::Table if gone => output::print(&format!("{revision:>8}  gone     {kind} `{name}`\n")).map(drop),
        Output::Table => {
            let one = listed(item)?;
            let [_, row] = row(&one);
            output::print(&format!("{revision:>8}  is now   {kind} {}\n", row.join("  "))).map(drop)
        }
        Output::Json | Output::Yaml if gone => {
            print_line(&serde_json::json!({"kind": kind, "name": name, "revision": revision, "gone": true}))
        }
        Output::Json => print_line(&listed(item)?),
        Output::Yaml => output::render(form, &[listed(item)?], |_| String::new()).map(drop),
    }
}

/// One table for each kind there is.
fn tables(all: &[Listed]) -> String {
    let mut out = String::new();
    for kind in Kind::ALL {
        let of_kind: Vec<&Listed> = all.iter().filter(|one| one.resource.kind() == kind).collect();
        let Some(first) = of_kind.first() else { continue };
        if !out.is_empty() {
            out.push('\n');
        }
        let [head, _] = row(first);
        let rows: Vec<[String; COLUMNS]> = of_kind.iter().map(|one| row(one)).map(|[_, row]| row).collect();
        let head: Vec<&str> = head.iter().map(String::as_str).collect();
        let head = [head[0], head[1], head[2], head[3], head[4], head[5], head[6]];
        out.push_str(&output::columns(head, &rows, ""));
    }
    if out.is_empty() { "nothing of that is there; `dvr apply -f FILE` makes it\n".to_owned() } else { out }
}

/// Columns of a table of resources, as many as nodes have; the last of others are empty.
const COLUMNS: usize = 7;

/// A resource's columns: their heads and its cells.
fn row(one: &Listed) -> [[String; COLUMNS]; 2] {
    let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let list = |values: Vec<String>| if values.is_empty() { "-".to_owned() } else { values.join(",") };
    let revision = one.revision.to_string();
    let heads = |words: [&str; COLUMNS]| words.map(str::to_owned);
    match &one.resource {
        Resource::Node(NodeSpec { name, address, host_mac, bridge_mappings }) => {
            let lives = one.live == Some(true);
            let state = one.health.as_ref().map(|health| health.state(lives));
            let cells = [
                name.clone(),
                text(address.map(|ip| ip.to_string())),
                text(host_mac.map(|mac| mac.to_string())),
                if lives { "yes" } else { "no" }.to_owned(),
                list(bridge_mappings.iter().flatten().map(|(name, port)| format!("{name}:{port}")).collect()),
                revision,
                text(state),
            ];
            [heads(["NODE", "TUNNEL IP", "HOST MAC", "LIVE", "MAPPINGS", "REVISION", "STATE"]), cells]
        }
        Resource::Network(NetworkSpec { name, kind, vni, physical_network, vlan, mtu, subnets, .. }) => {
            let number = vni.map(|vni| vni.to_string()).or_else(|| vlan.map(|vlan| vlan.to_string()));
            let key = number.map_or_else(String::new, |number| format!(" {number}"));
            let physical = physical_network.as_ref().map_or_else(String::new, |name| format!(" on {name}"));
            let cells = [
                name.clone(),
                format!("{}{key}{physical}", kind.name()),
                text(mtu.map(|mtu| mtu.to_string())),
                list(subnets.iter().map(|subnet| subnet.cidr.to_string()).collect()),
                revision,
                String::new(),
                String::new(),
            ];
            [heads(["NETWORK", "SEGMENT", "MTU", "SUBNETS", "REVISION", "", ""]), cells]
        }
        Resource::Router(RouterSpec { name, node, interfaces, .. }) => {
            let networks = interfaces.iter().map(|port| port.network.clone()).collect();
            let ips = interfaces.iter().flat_map(|port| &port.ips).map(ToString::to_string).collect();
            let node = node.clone().unwrap_or_else(|| "(all)".to_owned());
            let cells = [name.clone(), node, list(networks), list(ips), revision, String::new(), String::new()];
            [heads(["ROUTER", "NODE", "NETWORKS", "ADDRESSES", "REVISION", "", ""]), cells]
        }
        Resource::Port(PortSpec { name, network, node, migrating_to, mac, ips, .. }) => {
            let node = match (node, migrating_to) {
                (Some(node), Some(to)) => format!("{node}→{to}"),
                (node, _) => text(node.clone()),
            };
            let ips = list(ips.iter().map(ToString::to_string).collect());
            let mac = text(mac.map(|mac| mac.to_string()));
            let cells = [name.clone(), network.clone(), node, mac, ips, revision, String::new()];
            [heads(["PORT", "NETWORK", "NODE", "MAC", "ADDRESSES", "REVISION", ""]), cells]
        }
    }
}

/// `dvr describe`.
///
/// # Errors
/// As [`get`].
pub(super) fn describe(args: &DescribeArgs) -> Result<u8, CliError> {
    let mut desk = Desk::find(&args.at)?;
    let (kind, name) = (args.kind.word(), args.object.as_str());
    let (_, items) = desk.list(kind, name)?;
    let Some(item) = items.into_iter().next() else {
        return Err(CliError::Absent(format!("there is no {kind} `{name}`; `dvr get {kind}` lists those there are")));
    };
    output::render(Output::Yaml, &listed(item)?, |_| String::new())
}

/// `dvr delete`.
///
/// # Errors
/// When others still need it, or no controller answers.
pub(super) fn delete(args: &DeleteArgs) -> Result<u8, CliError> {
    let mut desk = Desk::find(&args.at)?;
    let delete = |name: &String| {
        let name = Name { kind: args.kind.word().to_owned(), name: name.clone() };
        Edit { what: Some(edit::What::Delete(name)), revision: args.revision }
    };
    let edits = args.objects.iter().map(delete).collect();
    let request = ApplyRequest { edits, dry_run: false, underlay: Vec::new() };
    let reply = desk.ask(async |client| client.apply(request).await.map(tonic::Response::into_inner))?;
    remember(&desk);
    told(&reply, false)
}
