//! One node's keeper: holds the node's namespaces, starts its daemons, says so when one dies.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;

use super::report::{self, Report};
use super::{CONTROLLER_DIR, Daemon, Error, NETNS_DIR, RUN_DIR, STATE_MOUNT, init, space, state, sys};

/// Becomes node `node`: enters its network namespace, gives it a `/run` of its own with the node's directory at
/// [`RUN_DIR`], starts switch and agent, and stays. Never returns but with an error, which the waiting `dvr lab up` has
/// been told.
///
/// # Errors
/// Whatever failed.
pub fn keep(node: &str) -> Result<(), Error> {
    let channel = init::take_stdin()?;
    let begun = begin(node);
    let report = match &begun {
        Ok(_) => Report::Node { name: node.to_owned() },
        Err(error) => Report::Failed { why: format!("node `{node}`: {error}") },
    };
    report::send(channel.as_fd(), &report).map_err(|source| Error::os("report to `dvr lab up`", source))?;
    watch(node, &begun?, channel.as_fd())
}

fn begin(node: &str) -> Result<BTreeMap<i32, Daemon>, Error> {
    let netns: PathBuf = [NETNS_DIR, node].iter().collect();
    space::enter(&space::open(&netns)?, CloneFlags::CLONE_NEWNET, &format!("namespace {}", netns.display()))?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .map_err(|errno| Error::os(format!("make the namespaces of node `{node}`"), errno))?;
    sys::set_hostname(node).map_err(|source| Error::os(format!("name the host of node `{node}`"), source))?;
    space::make_mounts_private()?;
    space::mount_sys();
    let state = Path::new(STATE_MOUNT);
    let dirs = [(&*state.join(node), RUN_DIR), (&*state.join(state::CONTROLLER), CONTROLLER_DIR)];
    space::furnish_run(&dirs, space::RUN_SIZE)?;
    let mut daemons = BTreeMap::new();
    for kind in [Daemon::Switch, Daemon::Agent] {
        let child = space::daemon(kind, node)?
            .spawn()
            .map_err(|source| Error::os(format!("start the {} of node `{node}`", kind.name()), source))?;
        let Ok(pid) = i32::try_from(child.id()) else { unreachable!("process ids are positive ints") };
        daemons.insert(pid, kind);
    }
    Ok(daemons)
}

/// Reaps the node's daemons for as long as the lab lasts. They are not started again: a lab is for watching what happens.
fn watch(node: &str, daemons: &BTreeMap<i32, Daemon>, channel: BorrowedFd<'_>) -> Result<(), Error> {
    let signals = init::watch(&[Signal::SIGCHLD])?;
    loop {
        init::reap(|pid, how| {
            if let Some(kind) = daemons.get(&pid) {
                tracing::warn!(node, daemon = kind.name(), how, "ended; start it with `dvr lab restart`");
                let what = format!("its {} ended ({how})", kind.name());
                // Nobody listens any more once the lab is up.
                let _unheard = report::send(channel, &Report::Ended { node: node.to_owned(), what });
            }
        });
        match poll(&mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::os(format!("wait for the daemons of node `{node}`"), errno)),
        }
        while let Ok(Some(_)) = signals.read_signal() {}
    }
}
