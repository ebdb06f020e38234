//! How a controller is, for whoever asks.

use super::hub::{Counters, Hub};
use crate::model::Kind;
use crate::rpc::proto::{StatusReply, StoreMember, StoreStatus};
use crate::store::{self, MemberState, Store};

/// Everything it can say of itself.
pub(super) fn of(hub: &Hub) -> StatusReply {
    let Counters {
        connections,
        strangers,
        turned_away,
        shown_out,
        unknown,
        views,
        watches,
        wholes,
        resumes,
        resets,
        replaced,
        limited,
        overtaken,
        unentitled,
        claims_delayed,
        claims_outdated,
    } = hub.counters();
    let store = Some(of_store(&hub.store));
    let world = hub.world();
    StatusReply {
        epoch: world.epoch.clone(),
        revision: world.revision,
        views,
        watches,
        wholes,
        resumes,
        resets,
        limited,
        overtaken,
        foreign: world.foreign,
        connections,
        strangers,
        turned_away,
        shown_out,
        replaced,
        work: world.work(),
        unentitled,
        claims_delayed,
        claims_outdated,
        unknown,
        nodes: world.fabric().count(Kind::Node) as u64,
        live: world.count_alive() as u64,
        store,
    }
}

fn of_store(store: &Store) -> StoreStatus {
    let store::Counters { commits, conflicts, unknown, syncs, expired, overloads, failovers, resumes, compacted } =
        store.counters();
    let engine = match store {
        Store::Embedded(_) => "file",
        Store::Etcd(_) => "etcd",
    };
    let member = |MemberState { at, state }| StoreMember { at, state };
    StoreStatus {
        engine: engine.to_owned(),
        members: store.members().into_iter().map(member).collect(),
        commits,
        conflicts,
        unknown,
        syncs,
        expired,
        overloads,
        failovers,
        resumes,
        compacted,
    }
}
