//! Whole nodes on one machine, without root: the very agent and switch of a host, in namespaces.
//!
//! A lab is one process tree. `dvr lab up` starts the lab's *init* as process 1 of new pid, mount, network, UTS and IPC
//! namespaces (inside a new user namespace unless it runs as root), and killing that one process takes all of the lab
//! with it. Init starts the lab's controller and makes the *underlay*, a kernel bridge with one veth to each node, and starts one *keeper* per node,
//! which gives the node its own `/run` and starts the node's switch and agent as a host would.
//!
//! Owns the namespaces of nodes, the underlay and the lab's directory. What is inside a node is its agent's business.

mod checks;
mod down;
mod echo;
mod exec;
mod faults;
mod init;
mod keeper;
mod outline;
mod physical;
mod picture;
mod pinger;
mod place;
mod present;
mod report;
mod space;
mod stage;
mod state;
mod sys;
mod tunnels;
pub(crate) mod underlay;
mod up;
mod wires;

use std::path::PathBuf;
use std::time::Instant;

pub use checks::{CheckReport, Failure, Tested, test};
pub use down::{Downed, down};
pub use exec::{exec, start, start_controller};
pub use faults::{Daemon, kill, kill_controller, pid_of, restart, restart_controller};
pub use init::init;
pub use keeper::keep;
pub use outline::{Outline, Station};
pub use picture::draw;
pub use place::Place;
pub use present::present;
pub use stage::{Stage, die_with_parent};
pub use state::{BadLabName, Lab, LabName, Labs, Record};
pub use sys::user_namespace_refused;
pub use tunnels::{TunnelsOf, choose_fast_path, choose_tunnels};
pub use up::{FirstPing, Raised, Request, settled, up};
pub use wires::{cut, heal};

/// Where a node's daemons keep their sockets and logs, as on a host.
pub const RUN_DIR: &str = "/run/dvr";
/// Where a lab's node sees the directory of the lab's controller.
pub const CONTROLLER_DIR: &str = "/run/dvr-controller";
/// Where a lab's init sees the lab's directory.
const STATE_MOUNT: &str = "/run/lab";
/// Where named network namespaces are.
const NETNS_DIR: &str = "/run/netns";

/// Why a lab could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call or file operation failed.
    #[error("cannot {attempt}: {source}")]
    Os {
        /// What was attempted on which object.
        attempt: String,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// This user may not make a user namespace.
    #[error("cannot make a user namespace, which a lab of an ordinary user needs: {source}; {remedy}")]
    UserNamespace {
        /// The kernel's word.
        source: std::io::Error,
        /// How to allow it.
        remedy: String,
    },
    /// A text that cannot name a lab.
    #[error(transparent)]
    Name(#[from] BadLabName),
    /// The topology document is not right.
    #[error("{0}")]
    Topology(String),
    /// A lab of that name runs.
    #[error("lab `{name}` is up already; take it down with `dvr lab down --name {name}`, or choose another --name")]
    Exists {
        /// Its name.
        name: String,
    },
    /// Another `dvr lab up` or `down` works on it.
    #[error("lab `{name}` is being started or stopped by another process; try again when that is done")]
    Busy {
        /// Its name.
        name: String,
    },
    /// No lab of that name runs.
    #[error("lab `{name}` is not running; {}", running(.others))]
    NotRunning {
        /// Its name.
        name: String,
        /// Those that are.
        others: Vec<String>,
    },
    /// No lab runs at all.
    #[error("no lab is running; start one with `dvr lab up`")]
    NoLab,
    /// More than one lab runs and none was named.
    #[error("several labs are running; say which with --name: {}", .0.join(", "))]
    SeveralLabs(Vec<String>),
    /// No lab runs, and more than one dead one left something.
    #[error(
        "no lab is running, and several dead ones left something: {}; say which to remove with --name, or --all",
        .0.join(", ")
    )]
    SeveralDead(Vec<String>),
    /// The lab has nothing of that name.
    #[error("lab `{lab}` has no place `{place}`; {known}")]
    NoPlace {
        /// The lab.
        lab: String,
        /// What was asked for.
        place: String,
        /// What there is.
        known: String,
    },
    /// A directory that should be this user's alone is not.
    #[error("{} is not a directory of this user alone (owner {owner}, mode {mode:o}); remove it or set XDG_RUNTIME_DIR", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// A unix socket's path is too long for the kernel.
    #[error("the socket path {} is {len} octets long and the kernel takes at most {max}: choose shorter names for lab and nodes, or a shorter XDG_RUNTIME_DIR", path.display(), max = state::SOCKET_PATH_MAX)]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its length.
        len: usize,
    },
    /// The lab's processes could not be started.
    #[error("lab `{name}` could not be started: {why}{log}")]
    Start {
        /// Its name.
        name: String,
        /// What went wrong.
        why: String,
        /// The last lines of the log, each after a line break.
        log: String,
    },
    /// A signal ended the start of a lab.
    #[error("lab `{name}` was not started: {signal} came first; what there was of it is gone again")]
    Interrupted {
        /// Its name.
        name: String,
        /// The signal.
        signal: nix::sys::signal::Signal,
    },
    /// A node did not reach its desired state in time.
    #[error("node `{node}` of lab `{name}` is not ready: {why}{log}")]
    NotReady {
        /// The lab.
        name: String,
        /// The node.
        node: String,
        /// What it said.
        why: String,
        /// The last lines of its logs, each after a line break.
        log: String,
    },
    /// The command to be run is not there.
    #[error("cannot run `{command}` in {place}: no such program; {hint}")]
    NoCommand {
        /// The command.
        command: String,
        /// Where.
        place: String,
        /// Where to get it.
        hint: String,
    },
    /// A daemon could not be asked.
    #[error(transparent)]
    Control(#[from] crate::control::ControlError),
    /// The way between two nodes could not be changed.
    #[error("cannot change the way from node `{node}` to {target}: {why}")]
    Wire {
        /// The node it was changed on.
        node: String,
        /// The other's tunnel endpoint.
        target: core::net::IpAddr,
        /// The kernel's word.
        why: String,
    },
    /// The lab's network could not be made.
    #[error("cannot make the lab's underlay: {0}")]
    Underlay(String),
}

impl Error {
    /// A failed system call or file operation.
    fn os(attempt: impl Into<String>, source: impl Into<std::io::Error>) -> Self {
        Self::Os { attempt: attempt.into(), source: source.into() }
    }
}

/// What to do about refused user namespaces on this machine.
#[must_use]
pub fn namespace_remedy() -> String {
    space::remedy()
}

/// Enters user and network namespaces of its own, for trials. This process must have one thread.
///
/// # Errors
/// [`Error::UserNamespace`] or [`Error::Os`].
pub fn enter_trial_namespaces() -> Result<(), Error> {
    if !nix::unistd::geteuid().is_root() {
        space::become_root()?;
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .map_err(|errno| Error::os("make a network namespace", errno))
}

fn running(others: &[String]) -> String {
    if others.is_empty() {
        "no lab is: start one with `dvr lab up`".to_owned()
    } else {
        format!("running: {}", others.join(", "))
    }
}

#[expect(clippy::disallowed_methods, reason = "the lab is shell code: deadlines and round-trip times are its own")]
fn now() -> Instant {
    Instant::now()
}
