//! The protocol's calls: who may make them, what their words mean, what failing is called.

use std::sync::Arc;

use prost::Message;
use tonic::{Code, Request, Response, Status};

use super::access::Access;
use super::hub::Hub;
use super::keys::Report;
use super::streams::{self, Stream};
use super::write::{self, Made, Why, Wish, WriteError, aside};
use super::{arrival, beats, claims, keys, status};
use crate::model::{Edit, Kind, Object, Refusal, Resource};
use crate::rpc::proto::controller_server::Controller;
use crate::rpc::proto::{
    ApplyReply, ApplyRequest, BeatReply, BeatRequest, Change, ClaimReply, ClaimRequest, ListReply, ListRequest, Name,
    Problem, StatusReply, StatusRequest, ViewReply, ViewRequest, WatchReply, WatchRequest, edit,
};
use crate::rpc::{MESSAGE_MAX, proto, refuse};
use crate::store::StoreError;

/// Octets that an answer takes beside a field's own, at most: its tag and its length.
const FRAMING_LEN: usize = 8;
/// Octets of the changes that an answer tells: what was made must not be lost for being long.
const CHANGES_LEN: usize = MESSAGE_MAX / 2;

/// The calls, served.
#[derive(Clone)]
pub(super) struct Service {
    pub(super) hub: Arc<Hub>,
}

impl Service {
    fn wish(request: ApplyRequest) -> Result<(Wish, bool), Status> {
        let ApplyRequest { edits, dry_run, underlay } = request;
        let edits = edits.into_iter().map(edit_of).collect::<Result<Vec<_>, _>>()?;
        let underlay = if underlay.is_empty() { None } else { Some(parsed("the underlay", &underlay)?) };
        Ok((Wish { edits, underlay }, dry_run))
    }
}

fn parsed<T: serde::de::DeserializeOwned>(what: &str, octets: &[u8]) -> Result<T, Status> {
    serde_json::from_slice(octets)
        .map_err(|error| Status::invalid_argument(format!("{what} makes no sense to this release: {error}")))
}

fn kind(word: &str) -> Result<Kind, Status> {
    word.parse::<Kind>().map_err(|bad| Status::invalid_argument(bad.to_string()))
}

fn edit_of(edit: proto::Edit) -> Result<Edit, Status> {
    let proto::Edit { what, revision } = edit;
    match what {
        Some(edit::What::Put(octets)) => Ok(Edit::Put { resource: parsed("a resource", &octets)?, revision }),
        Some(edit::What::Delete(Name { kind: word, name })) => {
            Ok(Edit::Delete { object: Object::new(kind(&word)?, name), revision })
        }
        None => Err(Status::invalid_argument("an edit asks for nothing: use the same release of both")),
    }
}

fn name(object: &Object) -> Name {
    Name { kind: object.kind.word().to_owned(), name: object.name.clone() }
}

fn change(made: &Made) -> Change {
    let octets = |resource: &Option<Resource>| resource.as_ref().map(keys::value).unwrap_or_default();
    Change { name: Some(name(&made.object)), before: octets(&made.before), after: octets(&made.after) }
}

/// As many changes as fit so many octets, encoded, and how many do not.
fn within(most: usize, changes: impl Iterator<Item = Change>) -> (Vec<Change>, u64) {
    let (mut told, mut untold, mut octets) = (Vec::new(), 0, 0);
    for change in changes {
        octets += change.encoded_len() + FRAMING_LEN;
        if octets <= most {
            told.push(change);
        } else {
            untold += 1;
        }
    }
    (told, untold)
}

fn problems(refusal: &Refusal) -> Vec<Problem> {
    let problem = |problem: &crate::model::Problem| Problem {
        name: Some(name(&problem.object)),
        what: problem.what.clone(),
        remedy: problem.remedy.clone(),
    };
    refusal.problems.iter().map(problem).collect()
}

pub(super) fn refusal(error: &WriteError) -> Status {
    let code = match &error.why {
        Why::Refused(refusal) => return refuse(Code::InvalidArgument, error.to_string(), problems(refusal)),
        Why::Stale { .. } => Code::Aborted,
        Why::Underlay(_) => Code::FailedPrecondition,
        Why::Overtaken { .. } | Why::Silent => Code::Unavailable,
        Why::TooMany { .. } | Why::Crowded => Code::ResourceExhausted,
        Why::Tied { .. } => Code::InvalidArgument,
        Why::Ended => Code::Internal,
        Why::Store(source) => return store_status(source, error.to_string()),
    };
    refuse(code, error.to_string(), Vec::new())
}

fn store_status(error: &StoreError, told: String) -> Status {
    let unfit = matches!(
        error,
        StoreError::KeyLength { .. }
            | StoreError::ValueTooLong { .. }
            | StoreError::TooMany { .. }
            | StoreError::Twice { .. }
    );
    refuse(if unfit { Code::InvalidArgument } else { Code::Unavailable }, told, Vec::new())
}

#[tonic::async_trait]
impl Controller for Service {
    type ListStream = Stream<ListReply>;
    type WatchStream = Stream<WatchReply>;
    type ViewStream = Stream<ViewReply>;

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyReply>, Status> {
        let request = request.into_inner();
        let edits = request.edits.len();
        let (wish, dry_run) = aside(edits, move || Self::wish(request)).await?;
        let applied = write::apply(&self.hub, Arc::new(wish), dry_run).await.map_err(|error| refusal(&error))?;
        if !dry_run && !applied.made.is_empty() {
            tracing::info!(changes = applied.made.len(), revision = applied.revision, "applied");
        }
        let reply = move || {
            let (changes, untold) = within(CHANGES_LEN, applied.made.iter().map(change));
            ApplyReply { revision: applied.revision, changes, untold }
        };
        Ok(Response::new(aside(edits, reply).await))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        Ok(Response::new(streams::list(&self.hub, request.into_inner())))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        streams::watch(&self.hub, request.into_inner()).map(Response::new)
    }

    async fn view(&self, request: Request<ViewRequest>) -> Result<Response<Self::ViewStream>, Status> {
        Access::node(&request, &request.get_ref().node)?;
        let request = request.into_inner();
        let address = arrival::address(&request.tunnel_ip)?;
        beats::register(&self.hub, &request.node);
        streams::view(&self.hub, request, address).map(Response::new)
    }

    async fn beat(&self, request: Request<BeatRequest>) -> Result<Response<BeatReply>, Status> {
        Access::node(&request, &request.get_ref().node)?;
        let BeatRequest { node, applied, errors } = request.into_inner();
        if !self.hub.world().fabric().nodes().contains_key(&node) {
            return Err(Status::not_found(format!("desired state has no node `{node}`")));
        }
        let report = Report::new(applied, errors);
        beats::beat(&self.hub, &node, &report).await.map_err(|error| store_status(&error, error.to_string()))?;
        let ttl_millis = u64::try_from(beats::TTL.as_millis()).unwrap_or(u64::MAX);
        Ok(Response::new(BeatReply { ttl_millis }))
    }

    async fn claim(&self, request: Request<ClaimRequest>) -> Result<Response<ClaimReply>, Status> {
        Access::node(&request, &request.get_ref().node)?;
        let claim = claims::read(&self.hub, request.into_inner())?;
        let revision = claims::claim(&self.hub, claim).await?;
        Ok(Response::new(ClaimReply { revision }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Ok(Response::new(status::of(&self.hub)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_fits_its_message_and_counts_what_it_leaves_out() {
        let change = |octets: usize| Change { name: None, before: Vec::new(), after: vec![7; octets] };
        let (told, untold) = within(10_000, (0..50).map(|_| change(1_000)));
        assert_eq!((told.len(), untold), (9, 41));
        let reply = ApplyReply { revision: u64::MAX, changes: told, untold };
        assert!(reply.encoded_len() <= 10_000 + 32, "{}", reply.encoded_len());
        let (told, untold) = within(10_000, [change(20_000), change(10)].into_iter());
        assert_eq!((told.len(), untold), (0, 2), "no order is promised but the order there is");
    }
}
