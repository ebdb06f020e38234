//! Killing and restarting the daemons of a lab's nodes.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt};
use serde::{Deserialize, Serialize};

use super::{Error, Lab, Place, RUN_DIR, Record, STATE_MOUNT, exec, now, place, report, state, sys, up};
use crate::controller::ControllerConfig;

/// How long a daemon may take to go, or to come.
const LIMIT: Duration = Duration::from_secs(30);

/// A node's daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Daemon {
    /// It moves the packets.
    Switch,
    /// It makes the node what the topology says.
    Agent,
}

impl Daemon {
    /// Its name: of its subcommand, its socket and its log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Switch => "switch",
            Self::Agent => "agent",
        }
    }

    /// Its socket in a directory.
    #[must_use]
    pub fn socket(self, dir: &Path) -> PathBuf {
        dir.join(format!("{}.sock", self.name()))
    }
}

/// The process that listens on a socket, by this process's pid namespace; `None` if none does.
#[must_use]
pub(super) fn listener(socket: &Path) -> Option<i32> {
    let stream = UnixStream::connect(socket).ok()?;
    // For a connecting socket these are the credentials of whoever called listen(2): unix(7).
    getsockopt(&stream, sockopt::PeerCredentials).ok().map(|who| who.pid()).filter(|pid| *pid > 0)
}

/// The process of a node's daemon, by this process's pid namespace; `None` if it does not run.
#[must_use]
pub fn pid_of(lab: &Lab, node: &str, daemon: Daemon) -> Option<i32> {
    listener(&daemon.socket(&lab.node_dir(node)))
}

/// Kills these daemons of a node at once, as a crash would. Gives those that ran.
///
/// # Errors
/// [`Error::Os`] when one cannot be killed or does not go.
pub fn kill(lab: &Lab, node: &str, daemons: &[Daemon]) -> Result<Vec<Daemon>, Error> {
    let mut killed = Vec::new();
    for daemon in daemons {
        let Some(pid) = listener(&daemon.socket(&lab.node_dir(node))) else { continue };
        end(pid, &format!("the {} of node `{node}`", daemon.name()))?;
        killed.push(*daemon);
    }
    Ok(killed)
}

/// Starts these daemons of a node anew, those that run are killed first, and waits until the node has converged. This
/// process must have one thread, and stays inside the node.
///
/// # Errors
/// [`Error::Os`], or [`Error::NotReady`] when one does not come up.
pub fn restart(lab: &Lab, record: &Record, node: &str, daemons: &[Daemon]) -> Result<(), Error> {
    kill(lab, node, daemons)?;
    Place { name: node.to_owned(), node: node.to_owned(), netns: None }.enter(record)?;
    for daemon in daemons {
        exec::start_daemon(*daemon, node)?;
        let why =
            || format!("its {} does not answer {} s after its start; see its log", daemon.name(), LIMIT.as_secs());
        let deadline = now() + LIMIT;
        while UnixStream::connect(daemon.socket(Path::new(RUN_DIR))).is_err() {
            if now() > deadline {
                return Err(not_ready(record, node, why()));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let agent = Daemon::Agent.socket(Path::new(RUN_DIR));
    match up::converged(&agent, LIMIT) {
        Ok(state) if state.converged => Ok(()),
        Ok(state) => Err(not_ready(record, node, format!("its agent has not converged: {}", state.errors.join("; ")))),
        // A switch may well be restarted alone, without an agent.
        Err(error) if error.is_absent() && !daemons.contains(&Daemon::Agent) => Ok(()),
        Err(error) => Err(not_ready(record, node, error.to_string())),
    }
}

/// Kills the lab's controller at once, as a crash would. Gives whether it ran.
///
/// # Errors
/// [`Error::Os`] when it cannot be killed or does not go.
pub fn kill_controller(lab: &Lab) -> Result<bool, Error> {
    let Some(pid) = listener(&lab.controller_socket()) else { return Ok(false) };
    end(pid, "the lab's controller")?;
    Ok(true)
}

/// Starts the lab's controller anew, one that runs is killed first, and waits until it serves. This process must have one
/// thread, and stays where the lab's init is.
///
/// # Errors
/// [`Error::Os`], or [`Error::NotReady`] when it does not come up.
pub fn restart_controller(lab: &Lab, record: &Record) -> Result<(), Error> {
    kill_controller(lab)?;
    place::enter_all(record.init, "the lab's init")?;
    exec::start_controller_between()?;
    let socket = Path::new(STATE_MOUNT).join(state::CONTROLLER).join(ControllerConfig::SOCKET);
    let deadline = now() + LIMIT;
    while UnixStream::connect(&socket).is_err() {
        if now() > deadline {
            let why = format!("it does not answer {} s after its start; see its log", LIMIT.as_secs());
            return Err(not_ready(record, state::CONTROLLER, why));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn not_ready(record: &Record, node: &str, why: String) -> Error {
    Error::NotReady { name: record.name.to_string(), node: node.to_owned(), why, log: String::new() }
}

/// Kills a process and waits until it is gone; one that is gone already is as good.
///
/// # Errors
/// [`Error::Os`] when it cannot be killed or does not go in time.
pub(super) fn end(pid: i32, what: &str) -> Result<(), Error> {
    let gone = |error: &std::io::Error| error.raw_os_error() == Some(libc::ESRCH);
    let pidfd = match sys::pidfd_open(pid) {
        Ok(pidfd) => pidfd,
        Err(error) if gone(&error) => return Ok(()),
        Err(source) => return Err(Error::os(format!("open {what} (process {pid})"), source)),
    };
    end_known(&pidfd, pid, what)
}

/// As [`end`], for a process of which a handle is held.
///
/// # Errors
/// As [`end`].
pub(super) fn end_known(pidfd: &std::os::fd::OwnedFd, pid: i32, what: &str) -> Result<(), Error> {
    match sys::pidfd_kill(pidfd.as_fd(), Signal::SIGKILL) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
        Err(source) => return Err(Error::os(format!("kill {what} (process {pid})"), source)),
    }
    // Readable once it has ended: pidfd_open(2).
    match report::readable(pidfd.as_fd(), LIMIT) {
        Ok(true) => Ok(()),
        Ok(false) => {
            let source = std::io::Error::new(std::io::ErrorKind::TimedOut, "it was killed and does not go");
            Err(Error::os(format!("end {what} (process {pid})"), source))
        }
        Err(source) => Err(Error::os(format!("wait for {what} (process {pid}) to end"), source)),
    }
}
