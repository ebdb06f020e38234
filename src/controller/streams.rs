//! Streams: to each agent its view, to each watcher what changed. A task each, which holds no queue of its own but a few
//! messages under way: what is to be told waits in rings that all share, and who falls behind them starts anew.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, Sender};
use tokio::sync::watch::Receiver;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::hub::{Counters, Hub};
use super::world::{Cursor, News, Next};
use crate::model::Object;
use crate::rpc::PART_LEN;
use crate::rpc::proto::view_reply::What;
use crate::rpc::proto::{Item, ListReply, ListRequest, Name, Part, ViewReply, ViewRequest, WatchReply, WatchRequest};
use crate::store::Revision;

/// Agents that one controller serves at most.
const VIEWS_MAX: u64 = 16_384;
/// Watches open at most.
const WATCHES_MAX: u64 = 1_024;
/// Messages under way to one reader.
const UNDER_WAY: usize = 8;
/// Resources in one part of a list.
const LIST_PART: usize = 500;
/// How long a controller that is behind the one an agent came from may take to follow.
const CATCH_UP: Duration = Duration::from_secs(2);

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

/// A node's stream.
///
/// # Errors
/// When there are too many.
pub(super) fn view(hub: &Arc<Hub>, request: ViewRequest) -> Result<Stream<ViewReply>, Status> {
    let seat = Seat::take(hub, |counters| &mut counters.views, VIEWS_MAX, "agents")?;
    let (sender, receiver) = mpsc::channel(UNDER_WAY);
    let hub = Arc::clone(hub);
    tokio::spawn(async move {
        let pulse = hub.world().attend(&request.node);
        // Whatever ends it is the other side's going.
        let _gone = show(&hub, &request, pulse, &sender).await;
        hub.world().leave(&request.node);
        drop(seat);
    });
    Ok(ReceiverStream::new(receiver))
}

/// The other side is no more.
struct Gone;

async fn show(
    hub: &Hub,
    request: &ViewRequest,
    mut pulse: Receiver<Revision>,
    sender: &Sender<Result<ViewReply, Status>>,
) -> Result<(), Gone> {
    let node = request.node.as_str();
    let epoch = hub.world().epoch.clone();
    let say = async |revision, what| {
        let reply = ViewReply { epoch: epoch.clone(), revision, what: Some(what) };
        sender.send(Ok(reply)).await.map_err(|_| Gone)
    };
    let mut cursor = resume(hub, request).await;
    if let Cursor::At(revision) = cursor {
        hub.counted(|counters| counters.resumes += 1);
        say(revision, What::Resumed(true)).await?;
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
                }
            }
            Next::Changes(changes) => {
                for (revision, octets) in changes {
                    say(revision, What::Changes(octets.to_vec())).await?;
                    cursor = Cursor::At(revision);
                }
            }
            Next::Whole(view, revision) => {
                hub.counted(|counters| {
                    counters.wholes += 1;
                    counters.resets += u64::from(matches!(cursor, Cursor::At(_)));
                });
                let text =
                    serde_json::to_vec(&view).unwrap_or_else(|error| unreachable!("a view has text keys: {error}"));
                let mut parts = text.chunks(PART_LEN).peekable();
                while let Some(part) = parts.next() {
                    let last = parts.peek().is_none();
                    say(revision, What::Whole(Part { octets: part.to_vec(), last })).await?;
                }
                cursor = Cursor::At(revision);
            }
            Next::Absent => {
                let why = format!(
                    "desired state has no node `{node}`: apply one of that name, or give its agent --tunnel-ip so that it registers"
                );
                let revision = hub.world().revision;
                say(revision, What::Absent(why)).await?;
                cursor = Cursor::Absent;
            }
        }
    }
}

/// Where a stream goes on, if what it holds is of this history and not too old.
async fn resume(hub: &Hub, request: &ViewRequest) -> Cursor {
    let (mut pulse, known) = {
        let world = hub.world();
        (world.pulse(), !request.epoch.is_empty() && world.epoch == request.epoch)
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

fn item(object: &Object, revision: Revision, resource: Option<&crate::model::Resource>, live: Option<bool>) -> Item {
    let name = Some(Name { kind: object.kind.word().to_owned(), name: object.name.clone() });
    Item { name, revision, resource: resource.map(super::keys::value).unwrap_or_default(), live }
}

/// What is desired now.
pub(super) fn list(hub: &Arc<Hub>, request: ListRequest) -> Stream<ListReply> {
    let filter = Filter { kind: request.kind, name: request.name };
    let (sender, receiver) = mpsc::channel(UNDER_WAY);
    let (revision, found) = {
        let world = hub.world();
        let resources = crate::model::Kind::ALL
            .into_iter()
            .filter(|kind| filter.kind.is_empty() || filter.kind == kind.word())
            .flat_map(|kind| match filter.name.as_str() {
                "" => world.fabric.list(kind),
                name => world.fabric.get(&Object::new(kind, name)).into_iter().collect(),
            });
        let found: Vec<_> = resources
            .map(|resource| {
                let object = resource.object();
                (world.changed(&object).unwrap_or(world.revision), world.liveness(&object), object, resource)
            })
            .collect();
        (world.revision, found)
    };
    tokio::spawn(async move {
        if found.is_empty() {
            let _gone = sender.send(Ok(ListReply { revision, items: Vec::new() })).await;
        }
        for part in found.chunks(LIST_PART) {
            let items =
                part.iter().map(|(at, live, object, resource)| item(object, *at, Some(resource), *live)).collect();
            if sender.send(Ok(ListReply { revision, items })).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
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
            let items: Vec<Item> = taken
                .map(|News { object, resource, live }| item(object, *revision, resource.as_ref(), *live))
                .collect();
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
