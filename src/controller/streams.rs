//! Streams: to each agent its view, to each watcher what changed. A task each, which holds no queue of its own but a few
//! messages under way: what is to be told waits in rings that all share, and who falls behind them starts anew.

use core::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc::{self, Sender};
use tokio::sync::watch::Receiver;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::arrival::arrive;
use super::hub::{Counters, Hub, lock};
use super::world::{Cursor, Health, News, Next};
use crate::model::{Kind, Object, Resource};
use crate::rpc::PART_LEN;
use crate::rpc::proto::view_reply::What;
use crate::rpc::proto::{
    Item, ListReply, ListRequest, Name, NodeHealth, Part, ViewReply, ViewRequest, WatchReply, WatchRequest,
};
use crate::store::Revision;

/// Agents that one controller serves at most.
const VIEWS_MAX: u64 = 16_384;
/// Watches open at most.
const WATCHES_MAX: u64 = 1_024;
/// Messages under way to one reader.
const UNDER_WAY: usize = 8;
/// Resources in one part of a list, unless they are large.
const LIST_PART: usize = 500;
/// How long after one stream of a node the next begins: two agents of one name, which take it from each other for ever, do
/// so no more often than this.
const REPLACED_AFTER: Duration = Duration::from_secs(1);
/// How long a whole view may take to be sent before the next may be made: a reader may be slow, or not read at all.
const WHOLE_LIMIT: Duration = Duration::from_secs(5);
/// How long a stream is silent before its node is told how far it has come with nothing for it. A controller that starts
/// anew goes on with nodes that know all that was written.
const MARK_AFTER: Duration = Duration::from_secs(10);
/// How long a list may take to be read, before its place is another's.
const LIST_LIMIT: Duration = Duration::from_secs(30);
/// How long a controller that is behind the one an agent came from may take to follow.
const CATCH_UP: Duration = Duration::from_secs(2);

/// No changes, in JSON.
const NO_CHANGES: &[u8] = b"[]";

/// What a streaming call answers with.
pub(super) type Stream<T> = ReceiverStream<Result<T, Status>>;

/// A stream's place among those that are open, given back when dropped.
struct Seat {
    hub: Arc<Hub>,
    of: fn(&mut Counters) -> &mut u64,
}

impl Seat {
    fn take(hub: &Arc<Hub>, of: fn(&mut Counters) -> &mut u64, most: u64, what: &str) -> Result<Self, Status> {
        hub.counted(|counters| {
            if *of(counters) >= most {
                counters.limited += 1;
                return Err(Status::resource_exhausted(format!("this controller serves {most} {what} already")));
            }
            *of(counters) += 1;
            Ok(())
        })?;
        Ok(Self { hub: Arc::clone(hub), of })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.hub.counted(|counters| *(self.of)(counters) -= 1);
    }
}

/// A node's stream, for whoever opens the next.
#[derive(Debug)]
pub(super) struct Open {
    /// Tells it from those before and after it.
    turn: u64,
    /// When it began, or is to begin.
    begins: Instant,
    sender: Sender<Result<ViewReply, Status>>,
    task: AbortHandle,
}

/// A stream's place as its node's, given back when dropped.
struct Turn {
    hub: Arc<Hub>,
    node: String,
    turn: u64,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut open = lock(&self.hub.open);
        if open.get(&self.node).is_some_and(|stream| stream.turn == self.turn) {
            open.remove(&self.node);
        }
        drop(open);
        self.hub.world().leave(&self.node);
    }
}

/// When a stream begins that takes the place of one that began, or was to begin, at `former`. One that had not begun
/// leaves its time to the next: however often a node asks anew, it is served as soon as if it had asked once.
fn begins(former: Instant, now: Instant) -> Instant {
    if former > now { former } else { now.max(former + REPLACED_AFTER) }
}

/// A node's stream; the one it had before ends. Its node registers at `address` when it begins.
///
/// # Errors
/// When there are too many.
pub(super) fn view(hub: &Arc<Hub>, request: ViewRequest, address: Option<IpAddr>) -> Result<Stream<ViewReply>, Status> {
    let seat = Seat::take(hub, |counters| &mut counters.views, VIEWS_MAX, "agents")?;
    let (sender, receiver) = mpsc::channel(UNDER_WAY);
    let now = Instant::now();
    let mut open = lock(&hub.open);
    let former = open.remove(&request.node);
    let (turn, begins) = match &former {
        Some(former) => (former.turn + 1, begins(former.begins, now)),
        None => (0, now),
    };
    if let Some(Open { sender, task, .. }) = former {
        hub.counted(|counters| counters.replaced += 1);
        tracing::info!(node = request.node, "a newer stream takes the place of the one there was");
        let why = format!("node `{}` has opened another stream: does another agent run under its name?", request.node);
        // Whoever does not read need not be told.
        let _full = sender.try_send(Err(Status::aborted(why)));
        task.abort();
    }
    let node = request.node.clone();
    let place = Turn { hub: Arc::clone(hub), node: node.clone(), turn };
    let told = sender.clone();
    let task = tokio::spawn(async move {
        // Whatever ends it is the other side's going.
        let _gone = live(&place.hub, &request, address, begins, &told).await;
        drop(seat);
    });
    open.insert(node, Open { turn, begins, sender, task: task.abort_handle() });
    Ok(ReceiverStream::new(receiver))
}

/// A stream's whole life.
async fn live(
    hub: &Arc<Hub>,
    request: &ViewRequest,
    address: Option<IpAddr>,
    begins: Instant,
    sender: &Sender<Result<ViewReply, Status>>,
) -> Result<(), Gone> {
    tokio::select! {
        () = sender.closed() => return Err(Gone),
        () = sleep_until(begins) => {}
    }
    // Not before: two agents of one name, each with an address of its own, would have everybody told of each in turn.
    if let Err(refused) = arrive(hub, &request.node, address).await {
        return sender.send(Err(refused)).await.map_err(|_| Gone);
    }
    let pulse = hub.world().attend(&request.node);
    show(hub, request, pulse, sender).await
}

/// The other side is no more.
struct Gone;

/// What is said to one reader.
struct Voice<'s> {
    epoch: String,
    sender: &'s Sender<Result<ViewReply, Status>>,
}

impl Voice<'_> {
    async fn say(&self, revision: Revision, what: What) -> Result<(), Gone> {
        let reply = ViewReply { epoch: self.epoch.clone(), revision, what: Some(what) };
        self.sender.send(Ok(reply)).await.map_err(|_| Gone)
    }

    /// Says all that a node is to hold, when there is room for it. Gives its revision, if there is such a node still.
    async fn whole(&self, hub: &Hub, node: &str) -> Result<Option<Revision>, Gone> {
        let permit = hub.wholes.acquire().await.map_err(|_| Gone)?;
        let Some((view, revision)) = hub.world().whole(node) else { return Ok(None) };
        hub.counted(|counters| counters.wholes += 1);
        // Most of the work; the one thread hears everybody meanwhile.
        let text = tokio::task::spawn_blocking(move || {
            serde_json::to_vec(&view).unwrap_or_else(|error| unreachable!("a view has text keys: {error}"))
        });
        // Only the runtime's end, and with it the reader's, can come between.
        let text = text.await.map_err(|_| Gone)?;
        let mut sending = Box::pin(async {
            let mut parts = text.chunks(PART_LEN).peekable();
            while let Some(part) = parts.next() {
                let last = parts.peek().is_none();
                self.say(revision, What::Whole(Part { octets: part.to_vec(), last })).await?;
            }
            // All of it is under way when there is room for as much again.
            self.sender.reserve_many(UNDER_WAY).await.map(drop).map_err(|_| Gone)
        });
        match timeout(WHOLE_LIMIT, &mut sending).await {
            Ok(sent) => sent?,
            Err(_) => {
                drop(permit);
                sending.await?;
            }
        }
        Ok(Some(revision))
    }
}

async fn show(
    hub: &Hub,
    request: &ViewRequest,
    mut pulse: Receiver<Revision>,
    sender: &Sender<Result<ViewReply, Status>>,
) -> Result<(), Gone> {
    let node = request.node.as_str();
    let voice = Voice { epoch: history(&hub.world().epoch), sender };
    let mut cursor = resume(hub, request).await;
    if let Cursor::At(revision) = cursor {
        hub.counted(|counters| counters.resumes += 1);
        voice.say(revision, What::Resumed(true)).await?;
    }
    loop {
        // What comes after this look wakes the wait below.
        pulse.mark_unchanged();
        let next = hub.world().next(node, cursor);
        match next {
            Next::Nothing => {
                tokio::select! {
                    () = sender.closed() => return Err(Gone),
                    changed = pulse.changed() => changed.map_err(|_| Gone)?,
                    () = sleep(MARK_AFTER) => {
                        let passed = hub.world().passed(node, cursor);
                        if let Some(revision) = passed {
                            voice.say(revision, What::Changes(NO_CHANGES.to_vec())).await?;
                            cursor = Cursor::At(revision);
                        }
                    }
                }
            }
            Next::Changes(changes) => {
                for (revision, octets) in changes {
                    voice.say(revision, What::Changes(octets.to_vec())).await?;
                    cursor = Cursor::At(revision);
                }
            }
            Next::Anew => {
                let resets = u64::from(matches!(cursor, Cursor::At(_)));
                if let Some(revision) = voice.whole(hub, node).await? {
                    hub.counted(|counters| counters.resets += resets);
                    cursor = Cursor::At(revision);
                }
            }
            Next::Absent => {
                let why = format!(
                    "desired state has no node `{node}`: apply one of that name, or give its agent --tunnel-ip so that it registers"
                );
                let revision = hub.world().revision;
                voice.say(revision, What::Absent(why)).await?;
                cursor = Cursor::Absent;
            }
        }
    }
}

/// The history of what nodes are told: that of the store, as this release makes views of it. Another release may make others
/// of the same revisions, so nobody goes on from one to the other.
fn history(epoch: &str) -> String {
    format!("{epoch}/{}", env!("CARGO_PKG_VERSION"))
}

/// Where a stream goes on, if what it holds is of this history and not too old.
async fn resume(hub: &Hub, request: &ViewRequest) -> Cursor {
    let (mut pulse, known) = {
        let world = hub.world();
        (world.pulse(), !request.epoch.is_empty() && history(&world.epoch) == request.epoch)
    };
    if !known {
        return Cursor::Fresh;
    }
    // It may come from a controller that has followed the store further than this one.
    let _behind = timeout(CATCH_UP, pulse.wait_for(|at| *at >= request.revision)).await;
    if hub.world().keeps(&request.node, request.revision) { Cursor::At(request.revision) } else { Cursor::Fresh }
}

/// What is asked about: a kind and a name, or all.
struct Filter {
    kind: String,
    name: String,
}

impl Filter {
    fn takes(&self, object: &Object) -> bool {
        let kind = self.kind.is_empty() || self.kind == object.kind.word();
        kind && (self.name.is_empty() || self.name == object.name)
    }
}

fn item(object: &Object, revision: Revision, resource: Vec<u8>, health: Option<&Health>) -> Item {
    let name = Some(Name { kind: object.kind.word().to_owned(), name: object.name.clone() });
    let told = |Health { lives: _, told, report }: &Health| NodeHealth {
        told: *told,
        applied: report.applied,
        errors: report.errors.clone(),
    };
    Item { name, revision, resource, live: health.map(|health| health.lives), health: health.map(told) }
}

/// One resource that is listed.
struct Found {
    at: Revision,
    health: Option<Health>,
    resource: Resource,
}

/// What is desired now.
pub(super) fn list(hub: &Arc<Hub>, request: ListRequest) -> Stream<ListReply> {
    let filter = Filter { kind: request.kind, name: request.name };
    let (sender, receiver) = mpsc::channel(UNDER_WAY);
    let hub = Arc::clone(hub);
    tokio::spawn(async move {
        // Whatever ends it is the other side's going.
        let _gone = told_of(&hub, &filter, &sender, LIST_LIMIT).await;
    });
    ReceiverStream::new(receiver)
}

/// Lists, as soon as there is room for a copy of all that is listed, and for so long.
async fn told_of(
    hub: &Hub,
    filter: &Filter,
    sender: &Sender<Result<ListReply, Status>>,
    limit: Duration,
) -> Result<(), Gone> {
    let place = tokio::select! {
        () = sender.closed() => return Err(Gone),
        place = hub.lists.acquire() => place.map_err(|_| Gone)?,
    };
    if let Ok(sent) = timeout(limit, send_all(hub, filter, sender)).await {
        return sent;
    }
    // The copy is gone already. Without this word a part would look like the whole, so it waits for as long as it takes.
    drop(place);
    hub.counted(|counters| counters.limited += 1);
    let why = format!("the list was not read within {} s: ask for it again, or for less", limit.as_secs());
    sender.send(Err(Status::deadline_exceeded(why))).await.map_err(|_| Gone)
}

async fn send_all(hub: &Hub, filter: &Filter, sender: &Sender<Result<ListReply, Status>>) -> Result<(), Gone> {
    let (revision, found) = found(hub, filter);
    let (mut items, mut octets) = (Vec::new(), 0);
    for Found { at, health, resource } in found {
        let next = item(&resource.object(), at, super::keys::value(&resource), health.as_ref());
        octets += next.encoded_len();
        items.push(next);
        if items.len() >= LIST_PART || octets >= PART_LEN {
            octets = 0;
            let items = core::mem::take(&mut items);
            sender.send(Ok(ListReply { revision, items })).await.map_err(|_| Gone)?;
        }
    }
    // The last part; the only one, and empty, if there is nothing.
    sender.send(Ok(ListReply { revision, items })).await.map_err(|_| Gone)
}

/// What a filter takes of what is desired, and of which revision that is.
fn found(hub: &Hub, filter: &Filter) -> (Revision, Vec<Found>) {
    let world = hub.world();
    let kinds = Kind::ALL.into_iter().filter(|kind| filter.kind.is_empty() || filter.kind == kind.word());
    let resources = kinds.flat_map(|kind| match filter.name.as_str() {
        "" => world.fabric().list(kind),
        name => world.fabric().get(&Object::new(kind, name)).into_iter().collect(),
    });
    let of = |resource: Resource| {
        let object = resource.object();
        let at = world.changed(&object).unwrap_or(world.revision);
        Found { at, health: world.health(&object), resource }
    };
    (world.revision, resources.map(of).collect())
}

/// What changes.
///
/// # Errors
/// When there are too many.
pub(super) fn watch(hub: &Arc<Hub>, request: WatchRequest) -> Result<Stream<WatchReply>, Status> {
    let seat = Seat::take(hub, |counters| &mut counters.watches, WATCHES_MAX, "watches")?;
    let (sender, receiver) = mpsc::channel(UNDER_WAY);
    let hub = Arc::clone(hub);
    tokio::spawn(async move {
        let after = request.after;
        let filter = Filter { kind: request.kind, name: request.name };
        let _gone = tell(&hub, &filter, after, &sender).await;
        drop(seat);
    });
    Ok(ReceiverStream::new(receiver))
}

async fn tell(
    hub: &Hub,
    filter: &Filter,
    mut after: Revision,
    sender: &Sender<Result<WatchReply, Status>>,
) -> Result<(), Gone> {
    let mut pulse = hub.world().pulse();
    loop {
        pulse.mark_unchanged();
        let news = hub.world().news(after);
        let Some(news) = news else {
            let lost =
                Status::out_of_range(format!("what came after revision {after} is not kept any more: list again"));
            return sender.send(Err(lost)).await.map_err(|_| Gone);
        };
        for (revision, changed) in &news {
            let taken = changed.iter().filter(|news| filter.takes(&news.object));
            let told = |News { object, resource, health }: &News| {
                let resource = resource.as_deref().unwrap_or_default().to_vec();
                item(object, *revision, resource, health.as_ref())
            };
            let items: Vec<Item> = taken.map(told).collect();
            if !items.is_empty() {
                sender.send(Ok(WatchReply { revision: *revision, items })).await.map_err(|_| Gone)?;
            }
            after = *revision;
        }
        if news.is_empty() {
            tokio::select! {
                () = sender.closed() => return Err(Gone),
                changed = pulse.changed() => changed.map_err(|_| Gone)?,
            }
        }
    }
}

#[cfg(test)]
mod tests;
