//! A lab's process 1: makes the underlay, starts the keepers, buries the dead.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::outline::Outline;
use super::report::{self, Report};
use super::{Error, LabName, NETNS_DIR, STATE_MOUNT, space, state, sys, underlay};

/// What a lab's init does, in two lives of the program. The first, `first`, makes the namespaces and starts the second
/// inside them as process 1; it returns at once. The second returns when the lab is to end. Both have one thread and
/// find the channel to `dvr lab up` as their standard input.
///
/// # Errors
/// Whatever failed; the waiting `dvr lab up` has been told already.
pub fn init(name: &LabName, dir: &Path, first: bool) -> Result<(), Error> {
    let channel = take_stdin()?;
    let outcome = if first { separate(name, dir, &channel) } else { live(name, dir, channel.as_fd()) };
    if let Err(error) = &outcome {
        let told = report::send(channel.as_fd(), &Report::Failed { why: error.to_string() });
        tracing::error!(%error, told = told.is_ok(), "the lab ends");
    }
    outcome
}

/// The channel, with `/dev/null` left in its place.
///
/// # Errors
/// [`Error::Os`] without descriptors or `/dev/null`.
pub(super) fn take_stdin() -> Result<OwnedFd, Error> {
    let channel =
        std::io::stdin().as_fd().try_clone_to_owned().map_err(|source| Error::os("take over the channel", source))?;
    let null = fs::File::open("/dev/null").map_err(|source| Error::os("open /dev/null", source))?;
    nix::unistd::dup2_stdin(&null).map_err(|errno| Error::os("replace the standard input", errno))?;
    Ok(channel)
}

fn separate(name: &LabName, dir: &Path, channel: &OwnedFd) -> Result<(), Error> {
    // `dvr lab up` holds signals back, and a mask is inherited: no process of the lab is to be deaf for it.
    SigSet::empty().thread_set_mask().map_err(|errno| Error::os("let signals through", errno))?;
    space::separate()?;
    let stdin = channel.try_clone().map_err(|source| Error::os("duplicate the channel", source))?;
    let mut command = space::own_program();
    command
        .arg("lab-init")
        .arg("--name")
        .arg(name.as_str())
        .arg("--dir")
        .arg(dir)
        .arg("--inside")
        .stdin(Stdio::from(stdin));
    // Not waited for: it lives on as process 1 of the lab, and the machine's init inherits it.
    command.spawn().map(drop).map_err(|source| Error::os("start the lab's init", source))
}

fn live(name: &LabName, dir: &Path, channel: std::os::fd::BorrowedFd<'_>) -> Result<(), Error> {
    nix::unistd::setsid().map_err(|errno| Error::os("start a session for the lab", errno))?;
    report::send(channel, &Report::Init).map_err(|source| Error::os("report to `dvr lab up`", source))?;
    space::make_mounts_private()?;
    space::mount_proc();
    space::mount_sys();
    space::furnish_run(&[(dir, STATE_MOUNT)], space::RUN_SIZE)?;
    let own = state::others(&Path::new(STATE_MOUNT).join(state::CONTROLLER)).is_none();
    std::env::set_current_dir("/").map_err(|source| Error::os("go to /", source))?;
    sys::set_hostname(&format!("dvr-{name}")).map_err(|source| Error::os("name the lab's host", source))?;
    let path = format!("{STATE_MOUNT}/topology.yaml");
    let text = fs::read_to_string(&path).map_err(|source| Error::os(format!("read {path}"), source))?;
    let controller = if own { Some(start_controller(space::controller(true)?)?) } else { None };
    let outline = Outline::read(&path, &text)?;
    underlay::build(&outline)?;
    for node in outline.views.keys() {
        let stdin = channel.try_clone_to_owned().map_err(|source| Error::os("duplicate the channel", source))?;
        let mut command = space::own_program();
        command.args(["lab-keep", "--node", node]).stdin(Stdio::from(stdin));
        command.spawn().map_err(|source| Error::os(format!("start node `{node}`"), source))?;
    }
    tracing::info!(lab = %name, nodes = outline.views.len(), netns = NETNS_DIR, "started");
    bury(channel, controller)
}

fn start_controller(mut command: std::process::Command) -> Result<i32, Error> {
    let child = command.spawn().map_err(|source| Error::os("start the lab's controller", source))?;
    let Ok(pid) = i32::try_from(child.id()) else { unreachable!("process ids are positive ints") };
    Ok(pid)
}

/// Reaps every process of the lab that ends, until told to end or until `dvr lab up` goes without having said `keep`.
fn bury(channel: std::os::fd::BorrowedFd<'_>, controller: Option<i32>) -> Result<(), Error> {
    let signals = watch(&[Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT])?;
    let mut kept = false;
    loop {
        reap(|pid, how| {
            tracing::debug!(pid, how, "a process of the lab ended");
            if Some(pid) == controller {
                tracing::warn!(how, "the controller ended; start it with `dvr lab restart controller`");
                let report = Report::Ended { node: state::CONTROLLER.to_owned(), what: format!("it ended ({how})") };
                // Nobody listens any more once the lab is up.
                let _unheard = report::send(channel, &report);
            }
        });
        let mut waits = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if !kept {
            waits.push(PollFd::new(channel, PollFlags::POLLIN));
        }
        match poll(&mut waits, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::os("wait for the lab's processes", errno)),
        }
        let spoken = waits.get(1).is_some_and(|wait| wait.any().unwrap_or(false));
        if spoken {
            kept = report::stays(channel);
            if !kept {
                return Ok(());
            }
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            if signal.ssi_signo != Signal::SIGCHLD as u32 {
                return Ok(());
            }
        }
    }
}

/// Blocks these signals and gives the descriptor they are read from. Children started before keep them unblocked.
///
/// # Errors
/// [`Error::Os`] without descriptors.
pub(super) fn watch(signals: &[Signal]) -> Result<SignalFd, Error> {
    let set: SigSet = signals.iter().copied().collect();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None).map_err(|errno| Error::os("block signals", errno))?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(|errno| Error::os("watch for signals", errno))
}

/// Reaps every child that has ended and tells each one's pid and end.
pub(super) fn reap(mut ended: impl FnMut(i32, &str)) {
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => ended(pid.as_raw(), &format!("exit code {code}")),
            Ok(WaitStatus::Signaled(pid, signal, _)) => ended(pid.as_raw(), signal.as_str()),
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
