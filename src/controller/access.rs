//! Who asks, and what they may see.

use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo, UdsConnectInfo};
use tonic::{Request, Status};

use crate::tls::{self, Identity};

/// What somebody may see and do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// Everything.
    All,
    /// One node's view and its beats.
    Node(String),
}

impl Access {
    /// Who asks: by the credentials of the unix socket's other end, or by certificate.
    ///
    /// # Errors
    /// Who is neither is told what to bring.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        if let Some(info) = request.extensions().get::<UdsConnectInfo>() {
            let own = nix::unistd::geteuid().as_raw();
            return match info.peer_cred.map(|peer| peer.uid()) {
                Some(uid) if uid == 0 || uid == own => Ok(Self::All),
                Some(uid) => Err(Status::permission_denied(format!(
                    "user {uid} may not use this controller's socket: root and the controller's own user ({own}) may"
                ))),
                None => Err(Status::unauthenticated("the kernel does not say who is at the other end of the socket")),
            };
        }
        let certificates =
            request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>().and_then(TlsConnectInfo::peer_certs);
        let Some(first) = certificates.as_ref().and_then(|all| all.first()) else {
            return Err(Status::unauthenticated(
                "this controller asks for a certificate and none was shown: `dvr certs client NAME` makes one for a \
                 person, `dvr certs node NODE` one for an agent; say with --certs where it is",
            ));
        };
        match tls::identity_of(first) {
            Some(Identity::Client(_)) => Ok(Self::All),
            Some(Identity::Node(node)) => Ok(Self::Node(node)),
            Some(Identity::Controller) | None => Err(Status::permission_denied(
                "the certificate is neither a client's nor a node's: `dvr certs client` and `dvr certs node` make those",
            )),
        }
    }

    /// Whoever may see and change everything.
    ///
    /// # Errors
    /// A node's agent may not.
    pub(super) fn all<T>(request: &Request<T>) -> Result<(), Status> {
        match Self::of(request)? {
            Self::All => Ok(()),
            Self::Node(node) => Err(Status::permission_denied(format!(
                "the certificate is node `{node}`'s, which lets its agent see that node's view only: use a client's"
            ))),
        }
    }

    /// Whoever may speak for a node.
    ///
    /// # Errors
    /// Another node's agent may not.
    pub(super) fn node<T>(request: &Request<T>, node: &str) -> Result<(), Status> {
        match Self::of(request)? {
            Self::Node(own) if own != node => Err(Status::permission_denied(format!(
                "the certificate is node `{own}`'s, and does not let its bearer speak for node `{node}`"
            ))),
            Self::All | Self::Node(_) => Ok(()),
        }
    }
}
