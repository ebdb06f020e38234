//! Places in a lab: what `lab exec` and the pinger can be inside of, and how to get there.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};

use super::state::Process;
use super::{Error, NETNS_DIR, Outline, Record, space, sys};

/// Somewhere in a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What it is called, and what its host name becomes.
    pub name: String,
    /// The node it is on.
    pub node: String,
    /// The named network namespace inside the node; `None` for the node's own.
    pub netns: Option<String>,
}

impl Place {
    /// The place a user means: a VM's name, a node's name, `NODE/ROUTER` or `NODE/NAMESPACE`.
    ///
    /// # Errors
    /// [`Error::NoPlace`] lists what there is.
    pub fn find(lab: &str, outline: &Outline, text: &str) -> Result<Self, Error> {
        if let Some(station) = outline.stations.iter().find(|station| station.vm == text) {
            let netns = Some(station.netns.clone());
            return Ok(Self { name: text.to_owned(), node: station.node.clone(), netns });
        }
        if outline.views.contains_key(text) {
            return Ok(Self { name: text.to_owned(), node: text.to_owned(), netns: None });
        }
        let found = text.split_once('/').and_then(|(node, inner)| {
            let view = outline.views.get(node)?;
            let router = view.routers.iter().find(|router| router.name == inner || router.netns == inner);
            let station =
                || outline.stations.iter().find(|vm| vm.node == node && (vm.vm == inner || vm.netns == inner));
            let netns = router.map(|router| &router.netns).or_else(|| station().map(|station| &station.netns))?.clone();
            let name = router.map_or(inner, |router| router.name.as_str()).to_owned();
            Some(Self { name, node: node.to_owned(), netns: Some(netns) })
        });
        found.ok_or_else(|| Error::NoPlace { lab: lab.to_owned(), place: text.to_owned(), known: known(outline) })
    }

    /// Moves this process, which must have one thread, and its children to the place. Pid namespaces take effect for
    /// children only.
    ///
    /// # Errors
    /// [`Error::Os`] names the namespace that could not be entered.
    pub(super) fn enter(&self, record: &Record) -> Result<(), Error> {
        enter_all(keeper(record, &self.node)?, &format!("node `{}`", self.node))?;
        let Some(netns) = &self.netns else { return Ok(()) };
        let path = Path::new(NETNS_DIR).join(netns);
        space::enter(&space::open(&path)?, CloneFlags::CLONE_NEWNET, &format!("namespace {}", path.display()))?;
        unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
            .map_err(|errno| Error::os(format!("make a mount namespace for {}", self.name), errno))?;
        space::make_mounts_private()?;
        space::mount_sys();
        sys::set_hostname(&self.name).map_err(|source| Error::os(format!("set the host name of {}", self.name), source))
    }

    /// Moves this process, which must have one thread, to the place's network namespace and leaves all else as it is.
    ///
    /// # Errors
    /// [`Error::Os`] names the namespace that could not be entered.
    pub fn enter_network(&self, record: &Record) -> Result<(), Error> {
        space::enter_user_of(keeper(record, &self.node)?.pid)?;
        space::enter(&self.open_netns(record)?, CloneFlags::CLONE_NEWNET, &format!("the network namespace of {self}"))
    }

    /// Opens the place's network namespace from outside. This process must be in the lab's user namespace.
    ///
    /// # Errors
    /// [`Error::Os`] if it is not there.
    pub(super) fn open_netns(&self, record: &Record) -> Result<OwnedFd, Error> {
        let pid = keeper(record, &self.node)?.pid;
        match &self.netns {
            Some(netns) => space::open(format!("/proc/{pid}/root{NETNS_DIR}/{netns}")),
            None => space::open(format!("/proc/{pid}/ns/net")),
        }
    }
}

/// Moves this process, which must have one thread, and its children into the namespaces of a process of a lab.
///
/// # Errors
/// [`Error::Os`] names the namespace that could not be entered.
pub(super) fn enter_all(process: Process, whose: &str) -> Result<(), Error> {
    space::enter_user_of(process.pid)?;
    let back = std::env::current_dir();
    // All opened before any is entered: afterwards /proc is another one.
    let kinds = [
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("pid", CloneFlags::CLONE_NEWPID),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("net", CloneFlags::CLONE_NEWNET),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    let open = |(name, flag): (&'static str, CloneFlags)| {
        space::open(format!("/proc/{}/ns/{name}", process.pid)).map(|fd| (name, flag, fd))
    };
    let opened: Vec<(&str, CloneFlags, OwnedFd)> = kinds.into_iter().map(open).collect::<Result<_, Error>>()?;
    for (name, flag, fd) in &opened {
        space::enter(fd, *flag, &format!("the {name} namespace of {whose}"))?;
    }
    // Entering a mount namespace leads to its root; what both have in common is found again.
    let _root_serves_too = back.and_then(std::env::set_current_dir);
    Ok(())
}

impl core::fmt::Display for Place {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.netns.is_some() { write!(out, "{}/{}", self.node, self.name) } else { out.write_str(&self.node) }
    }
}

/// The keeper of a node, if it lives.
fn keeper(record: &Record, node: &str) -> Result<Process, Error> {
    let keeper = record.nodes.get(node).copied().filter(Process::lives);
    keeper.ok_or_else(|| Error::NoPlace {
        lab: record.name.to_string(),
        place: node.to_owned(),
        known: "the processes of that node have ended: `dvr lab down` and `dvr lab up` make it anew".to_owned(),
    })
}

fn known(outline: &Outline) -> String {
    let list = |what: &str, names: Vec<String>| {
        let shown = names.iter().take(12).cloned().collect::<Vec<_>>().join(", ");
        let more = if names.len() > 12 { format!(", and {} more", names.len() - 12) } else { String::new() };
        if names.is_empty() { format!("no {what}") } else { format!("{what}: {shown}{more}") }
    };
    let routers =
        outline.views.iter().flat_map(|(node, view)| view.routers.iter().map(move |r| format!("{node}/{}", r.name)));
    [
        list("VMs", outline.stations.iter().map(|station| station.vm.clone()).collect()),
        list("nodes", outline.views.keys().cloned().collect()),
        list("routers", routers.collect()),
    ]
    .join("; ")
}
