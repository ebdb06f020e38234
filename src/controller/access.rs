//! Who asks, and what they may ask: settled before an octet of the request itself is read.

use core::convert::Infallible;
use core::task::{Context, Poll};
use std::sync::Arc;

use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service as Answering, http};
use tonic::server::NamedService;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo, UdsConnectInfo};
use tonic::{Request, Status};

use super::door::{Guest, Place};
use super::hub::Hub;
use super::service::Service;
use crate::rpc::MESSAGE_MAX;
use crate::rpc::proto::controller_server::ControllerServer;
use crate::tls::{self, Identity};

/// Octets of a message that a node's agent sends: nothing it may ask is long.
const NODE_MESSAGE_MAX: usize = 64 << 10;
/// What a node's agent may call.
const NODE_CALLS: [&str; 3] = ["/dvr.v1.Controller/View", "/dvr.v1.Controller/Beat", "/dvr.v1.Controller/Claim"];

/// What somebody may see and do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// Everything.
    All,
    /// One node's view, its beats, and what its ports announce.
    Node(String),
}

impl Access {
    /// Who asks: by the credentials of the unix socket's other end, or by certificate; and the connection's place.
    ///
    /// # Errors
    /// Who is neither is told what to bring.
    fn of(extensions: &http::Extensions) -> Result<(Self, &Place), Status> {
        if let Some(Guest { info, place }) = extensions.get::<Guest<UdsConnectInfo>>() {
            let own = nix::unistd::geteuid().as_raw();
            return match info.peer_cred.map(|peer| peer.uid()) {
                Some(uid) if uid == 0 || uid == own => Ok((Self::All, place)),
                Some(uid) => Err(Status::permission_denied(format!(
                    "user {uid} may not use this controller's socket: root and the controller's own user ({own}) may"
                ))),
                None => Err(Status::unauthenticated("the kernel does not say who is at the other end of the socket")),
            };
        }
        let shown = extensions.get::<TlsConnectInfo<Guest<TcpConnectInfo>>>();
        let certificates = shown.and_then(TlsConnectInfo::peer_certs);
        let first = certificates.as_ref().and_then(|all| all.first());
        let (Some(shown), Some(first)) = (shown, first) else {
            return Err(Status::unauthenticated(
                "this controller asks for a certificate and none was shown: `dvr certs client NAME` makes one for a \
                 person, `dvr certs node NODE` one for an agent; say with --certs where it is",
            ));
        };
        let access = match tls::identity_of(first) {
            Some(Identity::Client(_)) => Self::All,
            Some(Identity::Node(node)) => Self::Node(node),
            Some(Identity::Controller) | None => {
                return Err(Status::permission_denied(
                    "the certificate is neither a client's nor a node's: `dvr certs client` and `dvr certs node` make \
                     those",
                ));
            }
        };
        Ok((access, &shown.get_ref().place))
    }

    /// Whether this may be called.
    ///
    /// # Errors
    /// A node's agent may not change anything, nor see what is not its node's.
    fn may(&self, call: &str) -> Result<(), Status> {
        match self {
            Self::Node(node) if !NODE_CALLS.contains(&call) => Err(Status::permission_denied(format!(
                "the certificate is node `{node}`'s, which lets its agent see that node's view only: use a client's"
            ))),
            Self::All | Self::Node(_) => Ok(()),
        }
    }

    /// Whoever may speak for a node.
    ///
    /// # Errors
    /// Another node's agent may not.
    pub(super) fn node<T>(request: &Request<T>, node: &str) -> Result<(), Status> {
        match request.extensions().get::<Self>() {
            Some(Self::All) => Ok(()),
            Some(Self::Node(own)) if own == node => Ok(()),
            Some(Self::Node(own)) => Err(Status::permission_denied(format!(
                "the certificate is node `{own}`'s, and does not let its bearer speak for node `{node}`"
            ))),
            None => Err(Status::unauthenticated("nobody has looked who asks")),
        }
    }
}

/// Stands before the calls: lets through who may make them, once there is something to answer with.
#[derive(Clone)]
pub(super) struct Porter {
    hub: Arc<Hub>,
    all: ControllerServer<Service>,
    node: ControllerServer<Service>,
}

impl Porter {
    pub(super) fn new(hub: &Arc<Hub>) -> Self {
        let answer = |most| {
            ControllerServer::new(Service { hub: Arc::clone(hub) })
                .max_decoding_message_size(most)
                .max_encoding_message_size(MESSAGE_MAX)
        };
        Self { hub: Arc::clone(hub), all: answer(MESSAGE_MAX), node: answer(NODE_MESSAGE_MAX) }
    }

    fn admit(&self, request: &http::Request<Body>) -> Result<Access, Status> {
        let (access, place) = Access::of(request.extensions())?;
        access.may(request.uri().path())?;
        place.know();
        match self.hub.absence() {
            Some(why) => Err(Status::unavailable(format!(
                "this controller has not been able to read its store, and goes on trying: {why}"
            ))),
            None => Ok(access),
        }
    }
}

impl NamedService for Porter {
    const NAME: &'static str = ControllerServer::<Service>::NAME;
}

impl Answering<http::Request<Body>> for Porter {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        match self.admit(&request) {
            Err(status) => Box::pin(core::future::ready(Ok(status.into_http()))),
            Ok(access) => {
                let answering = match &access {
                    Access::All => &mut self.all,
                    Access::Node(_) => &mut self.node,
                };
                request.extensions_mut().insert(access);
                answering.call(request)
            }
        }
    }
}
