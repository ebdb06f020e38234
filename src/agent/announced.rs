//! Announcements: what the switch heard of addresses that this node's ports take, told to the controllers.
//!
//! ```text
//!  switch ─ notices ─▶ thread ─ bounded queue ─▶ the link's session ─ Claim ─▶ controller
//! ```
//! Different addresses at the same time, up to [`TOGETHER_MAX`]; each one's in order, so that the last of two announcements
//! is told last. What a controller refuses is not told again at once, however often it is announced; what came to nothing
//! otherwise is, to whichever controller there is next. What is older than [`STALE_AFTER`] when its turn comes is not told,
//! be it that no controller was there or no agent: another may have taken the address since, and who has it announces it
//! again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use crate::program::Announced;
use crate::rpc::Client;
use crate::rpc::proto::ClaimRequest;

/// Announcements that wait for a controller at most; what comes then is dropped, and counted.
const QUEUE_MAX: usize = 256;
/// Announcements that are told at the same time.
const TOGETHER_MAX: usize = 32;
/// How often the log is told how many came to nothing.
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// How long until what came to nothing is told again.
const RETRY: Duration = Duration::from_millis(50);
/// How long what was refused is not told again.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// Refusals remembered at most.
const REFUSED_MAX: usize = 1_024;

/// How long an announcement waits for a controller: an older one may have been overtaken by another node's.
const STALE_AFTER: Duration = Duration::from_secs(2);

/// An announcement, and when it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) announced: Announced,
    pub(super) at: Instant,
}

/// Where announcements come in, and where they wait for whichever session there is.
pub(super) type Teller = Sender<Said>;
pub(super) type Heard = Arc<Mutex<Queue>>;

/// Announcements as they came. A session may end at any moment: what it was telling then is still here.
#[derive(Debug)]
pub(super) struct Queue {
    receiver: Receiver<Said>,
    /// What is being told: different addresses.
    batch: Vec<Said>,
    /// What came after that, and is of one of its addresses.
    next: Option<Said>,
}

/// A queue of announcements.
pub(super) fn queue() -> (Teller, Heard) {
    let (teller, receiver) = channel(QUEUE_MAX);
    (teller, Arc::new(Mutex::new(Queue { receiver, batch: Vec::new(), next: None })))
}

impl Queue {
    /// Waits until there is something to be told, and takes as much as may be told at the same time. Gives whether there is
    /// anything: not once nothing comes any more.
    async fn fill(&mut self) -> bool {
        if self.batch.is_empty() {
            let first = match self.next.take() {
                Some(first) => Some(first),
                None => self.receiver.recv().await,
            };
            self.batch.extend(first);
        }
        while self.next.is_none() && (1..TOGETHER_MAX).contains(&self.batch.len()) {
            let Ok(said) = self.receiver.try_recv() else { break };
            // Networks may have the same address: then one waits without need.
            let is_there = |other: &Said| other.announced.address.ip == said.announced.address.ip;
            if self.batch.iter().any(is_there) { self.next = Some(said) } else { self.batch.push(said) }
        }
        !self.batch.is_empty()
    }
}

/// Announcements that came to nothing, for the log: told at once, and then in one line each [`TOLD_EVERY`].
#[derive(Debug, Default)]
pub(super) struct Lost {
    pub(super) untold: u64,
    told_at: Option<Instant>,
}

impl Lost {
    /// How many the log is to be told of now.
    pub(super) fn due(&mut self, now: Instant) -> Option<u64> {
        let is_due = self.told_at.is_none_or(|at| now.duration_since(at) >= TOLD_EVERY);
        if self.untold == 0 || !is_due {
            return None;
        }
        self.told_at = Some(now);
        Some(core::mem::take(&mut self.untold))
    }
}

/// Tells controllers of announcements, for as long as the session lasts.
pub(super) async fn tell(client: Client, node: String, heard: Heard) {
    let mut queue = heard.lock().await;
    let mut refused: BTreeMap<Announced, Instant> = BTreeMap::new();
    let mut stale = Lost::default();
    while queue.fill().await {
        let now = Instant::now();
        refused.retain(|_, at| now.duration_since(*at) < REFUSED_FOR);
        let waiting = queue.batch.len();
        queue.batch.retain(|said| now.duration_since(said.at) <= STALE_AFTER);
        stale.untold += (waiting - queue.batch.len()) as u64;
        if let Some(count) = stale.due(now) {
            tracing::warn!(node, count, "announcements had waited too long to be told a controller");
        }
        queue.batch.retain(|said| !refused.contains_key(&said.announced));
        let answers = join_all(queue.batch.iter().map(|said| claim(client.clone(), &node, said.announced))).await;
        let mut again = Vec::new();
        for (said, answer) in queue.batch.drain(..).zip(answers) {
            let Err(status) = answer else { continue };
            let announced = said.announced;
            if !matches!(status.code(), Code::InvalidArgument | Code::NotFound) {
                tracing::debug!(node, ?announced, %status, "an announcement was not heard");
                again.push(said);
            } else if refused.len() < REFUSED_MAX {
                tracing::warn!(node, ?announced, why = status.message(), "the controller refuses an announced address");
                refused.insert(announced, now);
            }
        }
        if !again.is_empty() {
            queue.batch = again;
            sleep(RETRY).await;
        }
    }
}

/// Tells of one. What is not answered for so long that it would be stale is told as if it had failed.
async fn claim(mut client: Client, node: &str, announced: Announced) -> Result<(), Status> {
    let (ip, mac) = (announced.address.ip.to_string(), announced.address.mac.to_string());
    let request = ClaimRequest { node: node.to_owned(), port: announced.port.to_string(), ip, mac };
    match timeout(STALE_AFTER, client.claim(request)).await {
        Ok(answer) => answer.map(drop),
        Err(elapsed) => Err(Status::deadline_exceeded(elapsed.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::resource::ClaimedAddress;
    use crate::types::Mac;

    fn said(port: u128, last: u8) -> Said {
        let address = ClaimedAddress { ip: [10, 0, 0, last].into(), mac: Mac::new([2, 0, 0, 0, 0, last]) };
        Said { announced: Announced { port: uuid::Uuid::from_u128(port), address }, at: Instant::now() }
    }

    /// Input: announcements of many addresses, of one by two ports, and a session that ends while it tells. Output: they are
    /// told together, one address once at a time and in order; what was being told is there for the next session.
    #[tokio::test]
    async fn different_addresses_are_told_together_and_one_in_order() {
        let (teller, heard) = queue();
        let mut queue = heard.lock().await;
        let came: Vec<Said> = [(1, 1), (1, 2), (2, 3), (2, 1), (3, 4)].map(|(port, last)| said(port, last)).into();
        came.iter().for_each(|said| teller.try_send(*said).expect("there is room"));
        assert!(queue.fill().await);
        assert_eq!(queue.batch, came[..3], "the fourth is of the first one's address");
        // One of them came to nothing; its address is not told a second time beside it.
        queue.batch.truncate(1);
        assert!(queue.fill().await);
        assert_eq!(queue.batch, came[..1]);
        queue.batch.clear();
        assert!(queue.fill().await);
        assert_eq!(queue.batch, came[3..]);
        queue.batch.clear();
        let many: Vec<Said> = (0..u8::try_from(TOGETHER_MAX).expect("few") + 1).map(|last| said(1, last)).collect();
        many.iter().for_each(|said| teller.try_send(*said).expect("there is room"));
        assert!(queue.fill().await);
        assert_eq!(queue.batch, many[..TOGETHER_MAX]);
        queue.batch.clear();
        assert!(queue.fill().await);
        assert_eq!(queue.batch, many[TOGETHER_MAX..]);
        queue.batch.clear();
        drop(teller);
        assert!(!queue.fill().await);
    }

    /// Input: losses now and then. Output: the first is told at once, those that follow once a period, all of them counted.
    #[test]
    fn what_is_lost_is_told_once_a_period() {
        let mut lost = Lost::default();
        let begun = Instant::now();
        assert_eq!(lost.due(begun), None);
        let mut told = Vec::new();
        for second in 0..25 {
            lost.untold += 3;
            told.extend(lost.due(begun + Duration::from_secs(second)).map(|count| (second, count)));
        }
        assert_eq!(told, [(0, 3), (10, 30), (20, 30)]);
        assert_eq!(lost.due(begun + 2 * TOLD_EVERY + TOLD_EVERY), Some(12));
        assert_eq!(lost.due(begun + 10 * TOLD_EVERY), None);
    }
}
