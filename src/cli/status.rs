//! `dvr status`: controllers, each from its own mouth.

use serde::Serialize;

use super::controller_args::StatusArgs;
use super::controllers::Desk;
use super::error::{CliError, DONE, FAILED};
use super::output;
use crate::rpc::proto::{StatusReply, StatusRequest, StoreMember, StoreStatus};

/// A controller, as far as it answers.
#[derive(Debug, Serialize)]
struct Told {
    controller: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    state: Option<State>,
}

/// How a controller is.
#[derive(Debug, Serialize)]
struct State {
    /// The history that its revisions belong to.
    epoch: String,
    /// How far it has followed its store.
    revision: u64,
    store: Store,
    /// Nodes that are desired, those of them whose agents live, and agents that follow this controller.
    nodes: u64,
    live: u64,
    agents: u64,
    watches: u64,
    connections: u64,
    strangers: u64,
    counters: Vec<Counter>,
}

/// What it keeps desired state in.
#[derive(Debug, Serialize)]
struct Store {
    engine: String,
    members: Vec<Member>,
}

#[derive(Debug, Serialize)]
struct Member {
    at: String,
    state: String,
}

/// Something that was counted since the controller's start.
#[derive(Debug, Serialize)]
struct Counter {
    name: &'static str,
    count: u64,
    meaning: &'static str,
}

/// `dvr status`. A controller that does not answer is told among the rest, and makes the exit code 1.
///
/// # Errors
/// When no controller is meant.
pub(super) fn status(args: &StatusArgs) -> Result<u8, CliError> {
    let mut all = Vec::new();
    for (address, desk) in Desk::each(&args.at)? {
        let asked = desk.and_then(|mut desk| {
            desk.ask(async |client| client.status(StatusRequest {}).await.map(tonic::Response::into_inner))
        });
        let (state, error) = match asked {
            Ok(reply) => (Some(state(reply)), None),
            Err(error) => (None, Some(error.to_string())),
        };
        all.push(Told { controller: address.to_string(), error, state });
    }
    output::render(args.output.output, &all, |all| all.iter().map(text).collect())?;
    Ok(if all.iter().all(|told| told.error.is_none()) { DONE } else { FAILED })
}

fn state(reply: StatusReply) -> State {
    let store = reply.store.clone().unwrap_or_default();
    let counters = [&counters(&reply)[..], &of_store(&store)].concat();
    let counter = |(name, count, meaning)| Counter { name, count, meaning };
    let StatusReply { epoch, revision, nodes, live, views, watches, connections, strangers, .. } = reply;
    let StoreStatus { engine, members, .. } = store;
    let member = |StoreMember { at, state }| Member { at, state };
    State {
        epoch,
        revision,
        store: Store { engine, members: members.into_iter().map(member).collect() },
        nodes,
        live,
        agents: views,
        watches,
        connections,
        strangers,
        counters: counters.into_iter().map(counter).collect(),
    }
}

/// A counter's name, its count and what it counts.
type Row = (&'static str, u64, &'static str);

fn counters(reply: &StatusReply) -> [Row; 14] {
    [
        ("views-whole", reply.wholes, "agents were told their whole view"),
        ("views-resumed", reply.resumes, "agents went on from where they were"),
        ("views-reset", reply.resets, "agents fell behind, and were told the whole anew"),
        ("views-replaced", reply.replaced, "a node opened another stream: does a second agent run under its name?"),
        ("changes-told", reply.work, "changes told to nodes, and nodes looked at for that"),
        ("claims-refused", reply.unentitled, "addresses announced by ports that are not entitled to them"),
        ("claims-delayed", reply.claims_delayed, "announced addresses that had moved too often, and wait"),
        ("claims-outdated", reply.claims_outdated, "announcements that a newer one of the address came before"),
        ("writes-overtaken", reply.overtaken, "another writer was first, and it was tried again"),
        ("limit-met", reply.limited, "requests refused because too many wait or are open"),
        ("turned-away", reply.turned_away, "connections not taken: too many, or too many of strangers"),
        ("shown-out", reply.shown_out, "connections ended that did not show who they are"),
        (
            "never-known",
            reply.unknown,
            "connections that ended unknown: silent, or with a certificate that is none of ours",
        ),
        ("entries-foreign", reply.foreign, "entries of the store that make no sense to this release"),
    ]
}

fn of_store(store: &StoreStatus) -> [Row; 9] {
    [
        ("store-commits", store.commits, "transactions made"),
        ("store-conflicts", store.conflicts, "transactions that found the store changed"),
        ("store-unknown", store.unknown, "commits whose fate was not known, and was looked up"),
        ("store-syncs", store.syncs, "durable writes of the file"),
        ("store-leases-expired", store.expired, "leases of the file's that ran out"),
        ("store-overloads", store.overloads, "requests refused because too many wait for the file"),
        ("store-failovers", store.failovers, "calls that went on to another member"),
        ("store-watches-resumed", store.resumes, "watches that lost their stream, and went on"),
        ("store-compacted", store.compacted, "watches whose history was gone: read anew"),
    ]
}

fn text(told: &Told) -> String {
    let mut out = format!("{}\n", told.controller);
    if let Some(error) = &told.error {
        out.push_str(&format!("    error: {error}\n"));
    }
    let Some(state) = &told.state else { return out };
    out.push_str(&format!("    at revision {} of history {}\n", state.revision, state.epoch));
    out.push_str(&format!("    Store: {}\n", state.store.engine));
    for Member { at, state } in &state.store.members {
        out.push_str(&format!("        {at}  {state}\n"));
    }
    out.push_str(&format!(
        "    Nodes: {}, {} of them live; {} agents and {} watches follow this controller\n",
        state.nodes, state.live, state.agents, state.watches
    ));
    out.push_str(&format!(
        "    Connections: {}, {} of them have not shown who they are\n",
        state.connections, state.strangers
    ));
    for Counter { name, count, meaning } in state.counters.iter().filter(|counter| counter.count > 0) {
        out.push_str(&format!("    Counted: {count} {name}: {meaning}\n"));
    }
    out
}
