//! The protocol's calls: who may make them, what their words mean, what failing is called.

use core::net::IpAddr;
use std::sync::Arc;

use tonic::{Code, Request, Response, Status};

use super::access::Access;
use super::hub::Hub;
use super::keys::Report;
use super::streams::{self, Stream};
use super::write::{self, Made, Wish, WriteError, aside};
use super::{beats, claims, keys};
use crate::model::resource::NodeSpec;
use crate::model::{Edit, Kind, Object, Refusal, Resource};
use crate::rpc::proto::controller_server::Controller;
use crate::rpc::proto::{
    ApplyReply, ApplyRequest, BeatReply, BeatRequest, Change, ClaimReply, ClaimRequest, ListReply, ListRequest, Name,
    Problem, StatusReply, StatusRequest, ViewReply, ViewRequest, WatchReply, WatchRequest, edit,
};
use crate::rpc::{proto, refuse};
use crate::store::StoreError;

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

    /// Lets a node be where its agent says it is.
    async fn register(&self, node: &str, tunnel_ip: &str) -> Result<(), Status> {
        if tunnel_ip.is_empty() {
            return Ok(());
        }
        let address: IpAddr = tunnel_ip
            .parse()
            .map_err(|_| Status::invalid_argument(format!("`{tunnel_ip}` is no IP address for tunnels to end at")))?;
        let known = self.hub.world().fabric().nodes().get(node).map(|spec| spec.address);
        if known == Some(Some(address)) {
            return Ok(());
        }
        let spec = NodeSpec { name: node.to_owned(), address: Some(address), ..NodeSpec::default() };
        let applied = write::put(&self.hub, Resource::Node(spec)).await.map_err(|error| status(&error))?;
        tracing::info!(node, %address, revision = applied.revision, new = known.is_none(), "a node registered");
        Ok(())
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

fn problems(refusal: &Refusal) -> Vec<Problem> {
    let problem = |problem: &crate::model::Problem| Problem {
        name: Some(name(&problem.object)),
        what: problem.what.clone(),
        remedy: problem.remedy.clone(),
    };
    refusal.problems.iter().map(problem).collect()
}

fn status(error: &WriteError) -> Status {
    let code = match error {
        WriteError::Refused(refusal) => {
            return refuse(Code::InvalidArgument, error.to_string(), problems(refusal));
        }
        WriteError::Stale { .. } => Code::Aborted,
        WriteError::Underlay(_) => Code::FailedPrecondition,
        WriteError::Overtaken { .. } | WriteError::Silent { .. } => Code::Unavailable,
        WriteError::TooMany { .. } | WriteError::Crowded => Code::ResourceExhausted,
        WriteError::Tied { .. } => Code::InvalidArgument,
        WriteError::Ended => Code::Internal,
        WriteError::Store { source, .. } => return store_status(source, error.to_string()),
    };
    Status::new(code, error.to_string())
}

fn store_status(error: &StoreError, told: String) -> Status {
    let unfit = matches!(
        error,
        StoreError::KeyLength { .. }
            | StoreError::ValueTooLong { .. }
            | StoreError::TooMany { .. }
            | StoreError::Twice { .. }
    );
    Status::new(if unfit { Code::InvalidArgument } else { Code::Unavailable }, told)
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
        let applied = write::apply(&self.hub, Arc::new(wish), dry_run).await.map_err(|error| status(&error))?;
        if !dry_run && !applied.made.is_empty() {
            tracing::info!(changes = applied.made.len(), revision = applied.revision, "applied");
        }
        let reply = move || {
            let changes = applied.made.iter().map(change).collect();
            ApplyReply { revision: applied.revision, changes }
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
        self.register(&request.node, &request.tunnel_ip).await?;
        beats::register(&self.hub, &request.node);
        streams::view(&self.hub, request).map(Response::new)
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
        let revision = claims::claim(&self.hub, claim).await.map_err(|error| status(&error))?;
        Ok(Response::new(ClaimReply { revision }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let counters = self.hub.counters();
        let super::hub::Counters { connections, strangers, turned_away, shown_out, unentitled, .. } = counters;
        let super::hub::Counters { views, watches, wholes, resumes, resets, replaced, limited, overtaken, .. } =
            counters;
        let world = self.hub.world();
        let (epoch, revision, foreign, work) = (world.epoch.clone(), world.revision, world.foreign, world.work());
        drop(world);
        Ok(Response::new(StatusReply {
            epoch,
            revision,
            views,
            watches,
            wholes,
            resumes,
            resets,
            limited,
            overtaken,
            foreign,
            connections,
            strangers,
            turned_away,
            shown_out,
            replaced,
            work,
            unentitled,
        }))
    }
}
