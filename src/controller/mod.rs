//! `dvr controller`: owns desired state, and tells every node what it is to hold.
//!
//! ```text
//!  door, access: who is let in, and what they may ask
//!  apply, delete ─▶ write: plan against the world, commit where nobody wrote since ─▶ store (file | etcd)
//!                                                                                      │ watch, in order
//!  agents  ◀─ view: whole, then changes ◀─ a ring for each node ◀┐                     ▼
//!  get -w  ◀─ watch ◀───────────────────── a ring of all news ◀──┴── world ◀── follow: Fabric, Live
//! ```
//!
//! It keeps nothing that the store does not: any of several controllers on one store may end at any instant. Whatever
//! changes comes back through the store's watch, also what this very controller wrote, so there is one way in which
//! things become true, and an answer to `apply` means that this controller has gone it.
//!
//! One thread does all of it but what takes long: large plans, and the disk. The world is locked for a look or for a
//! batch, never over a wait.

mod access;
mod arrival;
mod beats;
mod claims;
mod compact;
mod door;
mod hub;
mod keys;
mod listen;
mod ring;
mod service;
mod status;
mod streams;
mod world;
mod write;

use std::net::SocketAddr;
use std::path::PathBuf;

pub use listen::run;

use crate::store::StoreError;
use crate::tls::TlsError;

/// What a controller must be told.
#[derive(Debug, Clone)]
pub struct ControllerConfig {
    /// Where desired state is kept.
    pub store: StoreAt,
    /// The unix socket for this host, used by root and by the controller's own user.
    pub socket: PathBuf,
    /// Where others reach it, under mutual TLS.
    pub listen: Vec<SocketAddr>,
    /// Where its certificates are, if it listens.
    pub certs: PathBuf,
    /// A topology that is applied before anybody is served.
    pub apply: Option<PathBuf>,
}

/// Where desired state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreAt {
    /// In a file, by this controller alone.
    File(PathBuf),
    /// In etcd, by any number of controllers.
    Etcd {
        /// Its members: `http://HOST:PORT`, or `https://HOST:PORT` with files.
        endpoints: Vec<String>,
        /// What secures the way to them.
        tls: Option<EtcdFiles>,
    },
}

/// Where the certificates for etcd are, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdFiles {
    /// Who vouches for the members.
    pub ca: PathBuf,
    /// The controllers' certificate and its key, where members ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl ControllerConfig {
    /// Its socket in a run directory.
    pub const SOCKET: &str = "controller.sock";
    /// Its file in a state directory.
    pub const FILE: &str = "controller.redb";
    /// Where a host keeps state.
    pub const STATE_DIR: &str = "/var/lib/dvr";
}

/// Why a controller ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// A directory it needs cannot be made.
    #[error("cannot make the directory {}: {source}; choose another place", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// Its own machinery.
    #[error("the controller cannot {what}: {source}")]
    System {
        /// What was attempted.
        what: String,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// Its socket.
    #[error(transparent)]
    Socket(#[from] crate::control::ServerError),
    /// Its store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Serving failed.
    #[error("the controller's {place} failed: {why}")]
    Serve {
        /// Where it was served.
        place: String,
        /// The transport's words.
        why: String,
    },
    /// The topology it was to begin with.
    #[error("{0}")]
    Topology(String),
}
