//! A watch on etcd: one stream at a time; when it breaks, another from where it was, at whichever member answers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};
use tokio_stream::StreamExt;
use tonic::metadata::MetadataValue;
use tonic::{Request, Streaming};

use super::ANSWER_MAX;
use super::members::{Again, Answered, DEADLINE, Members, PAUSE};
use super::proto::watch_client::WatchClient;
use super::proto::{self, Event, WatchCreateRequest, WatchRequest, WatchResponse, event, watch_request};
use crate::store::StoreError;
use crate::store::types::{Batch, Change, Revision};

/// A watch on an etcd cluster.
pub struct EtcdWatch {
    members: Arc<Members>,
    prefix: String,
    /// All up to here is delivered, or not under the prefix.
    seen: Revision,
    stream: Option<Answered<Streaming<WatchResponse>>>,
    /// Received and not yet delivered. One response fills it, and no other is read before it is empty.
    ready: VecDeque<Batch>,
    /// Since when no stream has said anything.
    broken: Option<Instant>,
    _seat: OwnedSemaphorePermit,
}

impl EtcdWatch {
    pub(super) fn new(members: Arc<Members>, prefix: &str, after: Revision, seat: OwnedSemaphorePermit) -> Self {
        Self {
            members,
            prefix: prefix.to_owned(),
            seen: after,
            stream: None,
            ready: VecDeque::new(),
            broken: None,
            _seat: seat,
        }
    }

    pub(in crate::store) fn seen(&self) -> Revision {
        self.seen
    }

    pub(in crate::store) async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            if let Some(batch) = self.ready.pop_front() {
                self.seen = batch.revision;
                return Ok(batch);
            }
            if self.stream.is_none() {
                self.open().await?;
            }
            let Some(Answered { endpoint, answer: stream }) = &mut self.stream else {
                unreachable!("a stream was opened")
            };
            let broken = match stream.message().await {
                Ok(Some(response)) => {
                    let endpoint = endpoint.clone();
                    self.broken = None;
                    if let Err(error) = self.take(response, &endpoint) {
                        self.stream = None;
                        return Err(error);
                    }
                    continue;
                }
                Ok(None) => format!("{endpoint}: the stream ended"),
                Err(status) => format!("{endpoint}: {}", status.message()),
            };
            self.stream = None;
            self.members.resumes.fetch_add(1, Relaxed);
            if self.broken.get_or_insert_with(Instant::now).elapsed() > DEADLINE {
                self.broken = None;
                return Err(StoreError::Unavailable { action: "watch", tried: 1, last: broken });
            }
            sleep(PAUSE).await;
        }
    }

    async fn open(&mut self) -> Result<(), StoreError> {
        // From the last revision seen, which is skipped then: etcd 3.4 serves a watch that starts at the compacted
        // revision itself, but may have dropped deletions in it.
        let (key, range_end) = proto::range(&self.prefix);
        let start_revision = proto::number(self.seen.max(1));
        let create = WatchCreateRequest { key, range_end, start_revision, progress_notify: true };
        let ask = |channel| {
            let create =
                WatchRequest { request_union: Some(watch_request::RequestUnion::CreateRequest(create.clone())) };
            let mut request = Request::new(tokio_stream::once(create).chain(tokio_stream::pending()));
            // A member that is cut off from the others ends the watch, and another is asked.
            request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
            let mut client = WatchClient::new(channel).max_decoding_message_size(ANSWER_MAX);
            async move { client.watch(request).await }
        };
        self.stream = Some(self.members.call("watch", Again::Harmless, ask, |_| None).await?);
        Ok(())
    }

    fn take(&mut self, response: WatchResponse, endpoint: &str) -> Result<(), StoreError> {
        if response.compact_revision > 0 {
            self.members.compacted.fetch_add(1, Relaxed);
            let oldest = proto::revision(response.compact_revision);
            return Err(StoreError::Compacted { after: self.seen, oldest });
        }
        if response.canceled {
            let reason = response.cancel_reason;
            return Err(StoreError::Refused { action: "watch", endpoint: endpoint.to_owned(), reason });
        }
        if response.events.is_empty() && !response.created {
            // Progress: nothing is on its way up to this revision.
            self.seen = self.seen.max(proto::of(response.header.as_ref()));
        }
        self.ready = batches(response.events, self.seen)
            .map_err(|reason| StoreError::Foreign { endpoint: endpoint.to_owned(), reason })?;
        Ok(())
    }
}

/// Events in their order, as one batch per revision, without those up to `seen`.
fn batches(events: Vec<Event>, seen: Revision) -> Result<VecDeque<Batch>, String> {
    let mut batches: VecDeque<Batch> = VecDeque::new();
    for event in events {
        let kind = event.r#type();
        let Some(kv) = event.kv else { return Err("an event of no key".to_owned()) };
        let entry = proto::entry(kv).map_err(|key| format!("a key that is no text: {}", key.escape_ascii()))?;
        let revision = entry.modified;
        if revision <= seen {
            continue;
        }
        let change = match kind {
            event::EventType::Put => Change::Put(entry),
            event::EventType::Delete => Change::Delete { key: entry.key },
        };
        match batches.back_mut() {
            Some(last) if last.revision == revision => last.changes.push(change),
            Some(last) if last.revision > revision => {
                return Err(format!("revision {revision} came after {}", last.revision));
            }
            _ => batches.push_back(Batch { revision, changes: vec![change] }),
        }
    }
    Ok(batches)
}

#[cfg(test)]
mod tests {
    use super::proto::KeyValue;
    use super::*;

    fn event(key: &str, revision: i64, delete: bool) -> Event {
        let kv = KeyValue { key: key.into(), mod_revision: revision, ..KeyValue::default() };
        Event { r#type: i32::from(delete), kv: Some(kv) }
    }

    #[test]
    fn events_become_one_batch_per_revision_and_none_comes_twice() {
        let events = vec![event("a", 4, false), event("a", 5, true), event("b", 5, false), event("c", 7, true)];
        let batches = batches(events, 4).unwrap();
        let seen: Vec<(Revision, Vec<&str>)> =
            batches.iter().map(|batch| (batch.revision, batch.changes.iter().map(Change::key).collect())).collect();
        assert_eq!(seen, [(5, vec!["a", "b"]), (7, vec!["c"])]);
    }

    #[test]
    fn what_goes_back_is_told() {
        let events = vec![event("a", 6, false), event("a", 5, false)];
        assert_eq!(batches(events, 1), Err("revision 5 came after 6".to_owned()));
    }
}
