//! Claims: ports that announced an address of their allowed pairs have it from then on, if they are entitled to it.
//!
//! ```text
//!  claim ─▶ entitled? ─▶ docket, the newest of each address ─▶ written together, a few times a second
//! ```
//! Each move of an address is a change that every node of its network is told, and whoever may announce it may do so
//! without end. So an address moves at once, and some times in a row; one that goes on moving moves once a second, to
//! whoever was the last to announce it.

use core::convert::Infallible;
use core::fmt::Display;
use core::net::IpAddr;
use core::str::FromStr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};
use tonic::Status;
use uuid::Uuid;

use super::hub::{Hub, lock};
use super::service::refusal;
use super::write::{self, Why, Wish, WriteError};
use crate::model::resource::{AddressClaim, ClaimedAddress};
use crate::model::{Edit, Object};
use crate::rpc::proto::ClaimRequest;
use crate::store::Revision;

/// How often an address may move for long, and how often in a row before that counts.
const MOVE: (Duration, u32) = (Duration::from_secs(1), 4);
/// Between two writes.
const WRITE_EVERY: Duration = Duration::from_millis(20);
/// Claims that are written together: each changes two ports, and all are one transaction.
const TOGETHER_MAX: usize = 32;
/// Addresses of which a claim waits.
const WAITING_MAX: usize = 4_096;

/// Answers a claim: the revision at which the port has the address; 0 if that is still to come.
type Answer = oneshot::Sender<Result<Revision, Status>>;
/// An address of a network.
type Address = (String, IpAddr);

/// Claims on their way into desired state.
#[derive(Default)]
pub(super) struct Claims {
    docket: Mutex<Docket>,
    came: Notify,
}

/// What waits, and what may be written when. Pure.
#[derive(Default)]
struct Docket {
    /// The newest claim of each address.
    waiting: BTreeMap<Address, Waiting>,
    /// Addresses whose claim is being written.
    writing: BTreeSet<Address>,
    /// When an address that moved will have been still for as long as its moves take (the theoretical arrival time of
    /// ITU-T I.371's cell rate algorithm).
    settled: BTreeMap<Address, Instant>,
    /// Before this nothing is written.
    pause: Option<Instant>,
}

struct Waiting {
    claim: AddressClaim,
    answer: Option<Answer>,
}

/// What becomes of a claim.
#[derive(Debug, PartialEq, Eq)]
enum Docketed {
    /// It is written next.
    Now,
    /// It is written when its address may move again.
    Later,
    /// Too many wait.
    Full,
}

impl Docket {
    /// How long an address has to stay where it is.
    fn stays(&self, address: &Address, now: Instant) -> Duration {
        let (every, row) = MOVE;
        let settled = self.settled.get(address);
        settled.map_or(Duration::ZERO, |settled| settled.saturating_duration_since(now + every * (row - 1)))
    }

    /// Adds a claim, in place of an older one of its address. Gives whether there was one.
    fn add(&mut self, address: Address, waiting: Waiting, now: Instant) -> (Docketed, bool) {
        let is_new = !self.waiting.contains_key(&address);
        if is_new && self.waiting.len() >= WAITING_MAX {
            return (Docketed::Full, false);
        }
        let when = if self.stays(&address, now).is_zero() { Docketed::Now } else { Docketed::Later };
        let is_answered = when == Docketed::Later;
        let answer = waiting.answer.filter(|_| !is_answered);
        let outdated = self.waiting.insert(address, Waiting { answer, ..waiting }).is_some();
        (when, outdated)
    }

    /// Takes out what is to be written now; else how long nothing is, `None` as long as nothing comes.
    fn due(&mut self, now: Instant) -> Result<Vec<(Address, Waiting)>, Option<Duration>> {
        self.settled.retain(|_, settled| *settled > now);
        let first = self.waiting.keys().map(|address| self.stays(address, now)).min().ok_or(None)?;
        let pause = self.pause.map_or(Duration::ZERO, |pause| pause.saturating_duration_since(now));
        if !first.max(pause).is_zero() {
            return Err(Some(first.max(pause)));
        }
        let may = |address: &&Address| self.stays(address, now).is_zero();
        let addresses: Vec<Address> = self.waiting.keys().filter(may).take(TOGETHER_MAX).cloned().collect();
        self.pause = Some(now + WRITE_EVERY);
        let mut due = Vec::with_capacity(addresses.len());
        for address in addresses {
            let settled = self.settled.get(&address).map_or(now, |settled| now.max(*settled));
            self.settled.insert(address.clone(), settled + MOVE.0);
            self.writing.insert(address.clone());
            due.extend(self.waiting.remove_entry(&address));
        }
        Ok(due)
    }
}

/// What a node says that it heard.
///
/// # Errors
/// When it makes no sense, or there is no such port.
pub(super) fn read(hub: &Hub, request: ClaimRequest) -> Result<AddressClaim, Status> {
    let ClaimRequest { node, port, ip, mac } = request;
    let id: Uuid = parsed("a port's id", &port)?;
    let address = ClaimedAddress { ip: parsed("an address", &ip)?, mac: parsed("a MAC", &mac)? };
    let found = hub.world().fabric().port_of_id(id).map(|Object { name, .. }| name.clone());
    let port = found.ok_or_else(|| Status::not_found(format!("desired state has no port of id {id}")))?;
    Ok(AddressClaim { port, node, address })
}

fn parsed<T: FromStr<Err: Display>>(what: &str, text: &str) -> Result<T, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("`{text}` is not {what}: {error}")))
}

/// Lets a port have what it announced. Gives the revision at which it has it; 0 if it is still to have it, unless another
/// announces it first.
///
/// # Errors
/// As any write; a refusal of a port that is not entitled is counted.
pub(super) async fn claim(hub: &Hub, claim: AddressClaim) -> Result<Revision, Status> {
    let (planned, network, revision) = {
        let world = hub.world();
        let planned = world.fabric().plan(&[Edit::Claim(claim.clone())]);
        let network = world.fabric().ports().get(&claim.port).map(|port| port.network.clone());
        (planned, network.unwrap_or_default(), world.revision)
    };
    let changes = planned.map_err(|refused| {
        hub.counted(|counters| counters.unentitled += 1);
        tracing::debug!(port = claim.port, node = claim.node, %refused, "a claim was refused");
        refusal(&WriteError::at_once(Why::Refused(refused)))
    })?;
    let address = (network, claim.address.ip);
    let (answer, answered) = oneshot::channel();
    let (docketed, outdated) = {
        let mut docket = lock(&hub.claims.docket);
        if changes.is_empty() && !docket.writing.contains(&address) {
            // Who has it announces it again: whoever else did was before.
            let outdated = docket.waiting.remove(&address).is_some();
            hub.counted(|counters| counters.claims_outdated += u64::from(outdated));
            return Ok(revision);
        }
        docket.add(address, Waiting { claim, answer: Some(answer) }, Instant::now())
    };
    hub.counted(|counters| {
        counters.claims_outdated += u64::from(outdated);
        counters.claims_delayed += u64::from(docketed == Docketed::Later);
        counters.limited += u64::from(docketed == Docketed::Full);
    });
    hub.claims.came.notify_one();
    match docketed {
        // Without an answer it was outdated while it waited.
        Docketed::Now => answered.await.unwrap_or(Ok(0)),
        Docketed::Later => Ok(0),
        Docketed::Full => Err(Status::resource_exhausted(format!(
            "claims of {WAITING_MAX} addresses wait already: announce it again"
        ))),
    }
}

/// Writes claims, for ever.
pub(super) async fn keep(hub: &Arc<Hub>) -> Infallible {
    loop {
        let due = lock(&hub.claims.docket).due(Instant::now());
        match due {
            Ok(due) => make(hub, due).await,
            Err(None) => hub.claims.came.notified().await,
            Err(Some(wait)) => {
                tokio::select! {
                    () = sleep(wait) => {}
                    () = hub.claims.came.notified() => {}
                }
            }
        }
    }
}

/// Writes these claims, together if that can be.
async fn make(hub: &Arc<Hub>, due: Vec<(Address, Waiting)>) {
    let claims: Vec<AddressClaim> = due.iter().map(|(_, waiting)| waiting.claim.clone()).collect();
    let mut together = put(hub, claims).await;
    let alone = due.len() > 1 && matches!(&together, Err(error) if matches!(error.why, Why::Refused(_)));
    for (address, Waiting { claim, answer }) in due {
        if alone {
            // What one of them is not entitled to any more is no reason to refuse the others.
            together = put(hub, vec![claim.clone()]).await;
        }
        lock(&hub.claims.docket).writing.remove(&address);
        if let Err(error) = &together {
            tracing::debug!(port = claim.port, node = claim.node, %error, "a claim was not written");
            let refused = matches!(error.why, Why::Refused(_));
            hub.counted(|counters| counters.unentitled += u64::from(refused));
        }
        if let Some(answer) = answer {
            // Who asked may be gone.
            let _gone = answer.send(together.as_ref().copied().map_err(refusal));
        }
    }
}

async fn put(hub: &Arc<Hub>, claims: Vec<AddressClaim>) -> Result<Revision, WriteError> {
    let moved = claims.clone();
    let wish = Wish { edits: claims.into_iter().map(Edit::Claim).collect(), underlay: None };
    let applied = write::apply(hub, Arc::new(wish), false).await?;
    if !applied.made.is_empty() {
        for AddressClaim { port, node, address } in moved {
            tracing::info!(port, node, ip = %address.ip, mac = %address.mac, "an address moved to whom announced it");
        }
    }
    Ok(applied.revision)
}

#[cfg(test)]
mod tests;
