//! Certificates of the control plane: made by one command, and what each of them lets its bearer do.
//!
//! One authority signs all. A controller's certificate bears the name [`CONTROLLER`], whatever its address; a node's
//! `NODE.node.dvr`, a person's or program's `NAME.client.dvr`. Keys are files of mode 0600; the authority's own key is
//! needed only to make certificates, and best kept elsewhere.

mod make;
mod read;

use std::path::{Path, PathBuf};

pub use make::{Made, init, issue};
pub use read::{certificate, client_config, identity_of, key, server_config};

/// The name every controller's certificate bears.
pub const CONTROLLER: &str = "controller.dvr";
/// Where a host keeps its certificates.
pub const DIR: &str = "/etc/dvr/certs";
/// The authority's certificate in that directory.
const AUTHORITY: &str = "ca";
/// What follows the name of a node's, and of a client's certificate.
const NODE_SUFFIX: &str = ".node.dvr";
const CLIENT_SUFFIX: &str = ".client.dvr";

/// Whose certificate it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A controller's.
    Controller,
    /// A node's agent: sees that node's view and nothing else.
    Node(String),
    /// Somebody who may see and change everything.
    Client(String),
}

impl Identity {
    /// The name in the certificate.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Controller => CONTROLLER.to_owned(),
            Self::Node(node) => format!("{node}{NODE_SUFFIX}"),
            Self::Client(name) => format!("{name}{CLIENT_SUFFIX}"),
        }
    }

    /// The identity that a name in a certificate stands for.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        if name == CONTROLLER {
            return Some(Self::Controller);
        }
        let whose = |suffix| name.strip_suffix(suffix).filter(|whose| !whose.is_empty()).map(str::to_owned);
        whose(NODE_SUFFIX).map(Self::Node).or_else(|| whose(CLIENT_SUFFIX).map(Self::Client))
    }

    /// The files of its certificate and its key in a directory.
    #[must_use]
    pub fn files(&self, dir: &Path) -> (PathBuf, PathBuf) {
        let stem = match self {
            Self::Controller => "controller".to_owned(),
            Self::Node(node) => format!("node-{node}"),
            Self::Client(name) => format!("client-{name}"),
        };
        (dir.join(format!("{stem}.crt")), dir.join(format!("{stem}.key")))
    }
}

fn authority_files(dir: &Path) -> (PathBuf, PathBuf) {
    (dir.join(format!("{AUTHORITY}.crt")), dir.join(format!("{AUTHORITY}.key")))
}

/// Why certificates could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there.
    #[error("there is no {}: {remedy}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// How to get it.
        remedy: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was attempted.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// A key that others may read.
    #[error("{} can be read by others (mode {mode:o}): whoever has it is whom it names; `chmod 600` it, and make a new one if it has leaked", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A certificate whose time is over, or has not come.
    #[error("{} holds from {from} to {until}, and not today: {remedy}, or see to this host's clock", path.display())]
    Ended {
        /// The file.
        path: PathBuf,
        /// Its first day.
        from: String,
        /// Its last day.
        until: String,
        /// How to get another.
        remedy: String,
    },
    /// A certificate of another authority than the one beside it.
    #[error("{} was not signed by the authority of {}: {remedy}", path.display(), authority.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The authority's.
        authority: PathBuf,
        /// How to get another.
        remedy: String,
    },
    /// A file that would be lost.
    #[error("{} exists: every certificate it signed would be worth nothing without it; choose another --dir, or remove it first", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file holds something else.
    #[error("{} is no {what}: {why}", path.display())]
    Bad {
        /// The file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A name that cannot be in a certificate.
    #[error("`{0}` cannot be the name in a certificate: use 1 to 63 letters, digits, '-', '_' and '.'")]
    Name(String),
    /// Making it failed.
    #[error("cannot make the certificate of {name}: {why}")]
    Make {
        /// Whose.
        name: String,
        /// Why.
        why: String,
    },
}

#[cfg(test)]
mod tests;
