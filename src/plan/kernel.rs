//! The kernel behind a plan: observe the whole, apply a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use crate::gre::GreOp;
use crate::link::kernel as links;
use crate::link::{LinkKind, LinkOp, LinkSpec};
use crate::neigh::kernel as neighbours;
use crate::netlink::{self, Connection};
use crate::netns::kernel::{self as netns, Directory, Identity};
use crate::netns::{Entry, Name, NetnsName, NetnsOp, PORTS_NETNS, TUNNELS_NETNS};
use crate::types::IfName;
use crate::vxlan::VxlanOp;
use crate::{bridge, gre, route, vxlan};

use super::{Checked, KernelState, NamespaceSpec, NamespaceState, Op, Plan};

/// The kernel as one process may change it: its own namespace, and those in one directory.
///
/// It keeps one netlink socket a namespace. A socket keeps its namespace alive, so [`Kernel::observe`] lets go of those
/// whose name is gone.
///
/// All work is done by the caller's thread, and by short-lived threads that it waits for: the kernel answers at once.
pub struct Kernel {
    directory: Directory,
    own: Connection,
    named: BTreeMap<Name, (Identity, Connection)>,
}

/// Why the kernel could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A namespace as such.
    #[error(transparent)]
    Netns(#[from] netns::Error),
    /// An exchange with the kernel for one step.
    #[error(transparent)]
    Step(#[from] netlink::Error),
    /// An exchange with the kernel for more than a step says.
    #[error("cannot {what}: {source}")]
    Netlink {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: netlink::Error,
    },
}

impl Error {
    fn of(what: impl Into<String>) -> impl FnOnce(netlink::Error) -> Self {
        let what = what.into();
        |source| Self::Netlink { what, source }
    }

    /// The kernel's error number, if it is known.
    #[must_use]
    pub fn errno(&self) -> Option<nix::errno::Errno> {
        match self {
            Self::Netns(error) => error.errno(),
            Self::Step(source) | Self::Netlink { source, .. } => source.errno(),
        }
    }

    /// Whether the object is there already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        match self {
            Self::Netns(error) => error.is_exists(),
            Self::Step(source) | Self::Netlink { source, .. } => source.is_exists(),
        }
    }

    /// Whether the object, or what it needs, is not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Netns(error) => error.is_absent(),
            Self::Step(source) | Self::Netlink { source, .. } => source.is_absent(),
        }
    }

    /// Whether somebody else holds the object for now: try again.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        match self {
            Self::Netns(error) => error.errno() == Some(nix::errno::Errno::EBUSY),
            Self::Step(source) | Self::Netlink { source, .. } => source.is_busy(),
        }
    }

    /// Whether this kernel cannot do it.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        match self {
            Self::Netns(_) => false,
            Self::Step(source) | Self::Netlink { source, .. } => source.is_unsupported(),
        }
    }
}

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot apply `{op}`: {error}{}", remedy(op, error))]
pub struct OpFailure {
    /// The step.
    pub op: Box<Op>,
    /// Why it failed.
    #[source]
    pub error: Error,
}

/// What to do about a tunnel that cannot be had.
fn remedy(op: &Op, error: &Error) -> &'static str {
    match op {
        Op::Vxlan(_, VxlanOp::Create { .. }) | Op::Gre(..) if error.is_unsupported() => {
            "; load the kernel's module for it (vxlan, ip_gre, ip6_gre), or leave tunnels to the switch: --tunnels userspace"
        }
        Op::Vxlan(_, VxlanOp::Create { .. }) | Op::Gre(..) if error.is_exists() => {
            "; a tunnel that is not ours has this name, or this key and these endpoints: `ip -details link` shows it, remove it"
        }
        Op::Link(_, LinkOp::Up(_)) if error.errno() == Some(nix::errno::Errno::EADDRINUSE) => {
            "; another program, or a vxlan device with other settings, has its UDP port: end that, or choose another port"
        }
        Op::Netns(_)
        | Op::Sysctl(..)
        | Op::Bridge(..)
        | Op::Vxlan(..)
        | Op::Gre(..)
        | Op::Link(..)
        | Op::Neigh(..)
        | Op::Route(..) => "",
    }
}

/// What an applied plan came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Steps carried out.
    pub done: usize,
}

/// A plan applied in part. After a failed step, later steps of the same namespace are skipped, save removals; other
/// namespaces go on, so one router's trouble is not another's. Nor is one tunnel's: of those only the same one's are.
#[derive(Debug)]
pub struct ApplyFailure {
    /// The steps that failed, at least one.
    pub failures: Vec<OpFailure>,
    /// Steps carried out.
    pub done: usize,
    /// Steps skipped because an earlier one of their namespace failed.
    pub skipped: usize,
}

impl fmt::Display for ApplyFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { failures, done, skipped } = self;
        for failure in failures {
            write!(out, "{failure}; ")?;
        }
        write!(out, "{done} steps were carried out, {skipped} skipped: observe and plan again")
    }
}

impl std::error::Error for ApplyFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failures.first().map(|failure| failure as _)
    }
}

impl Kernel {
    /// The kernel as seen from the calling thread's namespace ([`NetnsName::Own`]), with named namespaces in `netns_dir`
    /// (`/run/netns`).
    ///
    /// # Errors
    /// When there is no netlink socket to be had.
    pub fn open(netns_dir: PathBuf) -> Result<Self, Error> {
        let own = Connection::open().map_err(Error::of("open the own namespace"))?;
        Ok(Self { directory: Directory::new(netns_dir), own, named: BTreeMap::new() })
    }

    /// The directory of named namespaces.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// What is there: every name in the directory, and the contents of those namespaces that `spec` names.
    ///
    /// # Errors
    /// When anything cannot be read whole: what is returned is never part of the truth.
    #[expect(clippy::unused_async, reason = "callers must not count on it staying synchronous")]
    pub async fn observe(&mut self, spec: &Checked) -> Result<KernelState, Error> {
        let entries = self.directory.entries()?;
        self.named.retain(|name, _| entries.get(name) == Some(&Entry::Mounted));
        let mut namespaces = BTreeMap::new();
        for netns in spec.namespaces() {
            let there = match &netns.name {
                NetnsName::Own => true,
                NetnsName::Named(name) => entries.get(name) == Some(&Entry::Mounted),
            };
            if there {
                namespaces.insert(netns.name.clone(), self.observe_one(netns)?);
            }
        }
        Ok(KernelState { entries, namespaces })
    }

    fn observe_one(&mut self, spec: &NamespaceSpec) -> Result<NamespaceState, Error> {
        let failed = |what: &str| Error::of(format!("{what} of namespace {}", spec.name));
        let keys: BTreeSet<&str> = spec
            .sysctls
            .iter()
            .chain(spec.links.iter().flat_map(|link: &LinkSpec| &link.sysctls))
            .map(|sysctl| sysctl.key.as_str())
            .collect();
        let sysctls = if keys.is_empty() { BTreeMap::new() } else { self.read_sysctls(&spec.name, &keys)? };
        let connection = self.connection(&spec.name)?;
        let mut found = links::observe(connection).map_err(failed("read the links"))?;
        let names: BTreeMap<u32, IfName> = found.iter().map(|(name, link)| (link.index, name.clone())).collect();
        let mut neighbours = neighbours::observe(connection).map_err(failed("read the neighbours"))?;
        for link in found.values_mut() {
            link.neighbours = neighbours.remove(&link.index).unwrap_or_default();
        }
        if spec.links.iter().any(|link| matches!(link.kind, LinkKind::Vxlan(_))) {
            for (index, entry) in vxlan::kernel::observe(connection).map_err(failed("read the forwarding entries"))? {
                if let Some(link) = names.get(&index).and_then(|name| found.get_mut(name)) {
                    link.fdb.push(entry);
                }
            }
        }
        let routes = route::kernel::observe(connection, &found).map_err(failed("read the routes"))?;
        Ok(NamespaceState { sysctls, links: found, routes })
    }

    fn read_sysctls(&self, netns: &NetnsName, keys: &BTreeSet<&str>) -> Result<BTreeMap<String, String>, Error> {
        let read = || -> Result<BTreeMap<String, String>, netns::Error> {
            let mut values = BTreeMap::new();
            for key in keys {
                if let Some(value) = netns::sysctl(key)? {
                    values.insert((*key).to_owned(), value);
                }
            }
            Ok(values)
        };
        match netns {
            NetnsName::Own => Ok(read()?),
            NetnsName::Named(name) => Ok(self.directory.enter(name, read)??),
        }
    }

    /// The socket of a namespace, opened anew if the name stands for another namespace than it did.
    fn connection(&mut self, netns: &NetnsName) -> Result<&mut Connection, Error> {
        let name = match netns {
            NetnsName::Own => return Ok(&mut self.own),
            NetnsName::Named(name) => name,
        };
        let identity = self.directory.identity(name)?;
        if self.named.get(name).is_none_or(|(known, _)| *known != identity) {
            let opened = self.directory.enter(name, Connection::open)?;
            let opened = opened.map_err(Error::of(format!("enter namespace {name}")))?;
            self.named.insert(name.clone(), (identity, opened));
        }
        match self.named.get_mut(name) {
            Some((_, connection)) => Ok(connection),
            None => unreachable!("inserted above"),
        }
    }

    /// Carries out a plan, step by step in its order.
    ///
    /// # Errors
    /// Every step that failed; see [`ApplyFailure`].
    #[expect(clippy::unused_async, reason = "callers must not count on it staying synchronous")]
    pub async fn apply(&mut self, plan: &Plan) -> Result<Applied, ApplyFailure> {
        let mut outcome = ApplyFailure { failures: Vec::new(), done: 0, skipped: 0 };
        let mut troubled: BTreeSet<(NetnsName, Option<&IfName>)> = BTreeSet::new();
        for op in &plan.ops {
            let (netns, tunnel) = (netns_of(op), tunnel_of(op));
            let removal = matches!(op, Op::Netns(NetnsOp::Remove(_)) | Op::Link(_, LinkOp::Delete(_)));
            let spoilt = [None, tunnel].map(|link| troubled.contains(&(netns.clone(), link))).contains(&true);
            if !removal && spoilt {
                outcome.skipped += 1;
                continue;
            }
            match self.execute(op) {
                Ok(()) => outcome.done += 1,
                Err(error) => {
                    troubled.insert((netns, tunnel));
                    outcome.failures.push(OpFailure { op: Box::new(op.clone()), error });
                }
            }
        }
        if outcome.failures.is_empty() { Ok(Applied { done: outcome.done }) } else { Err(outcome) }
    }

    fn execute(&mut self, op: &Op) -> Result<(), Error> {
        match op {
            Op::Netns(NetnsOp::Create(name)) => self.create(name),
            Op::Netns(NetnsOp::Remove(name)) => self.remove(name),
            Op::Sysctl(NetnsName::Own, sysctl) => Ok(netns::set_sysctl(sysctl)?),
            Op::Sysctl(NetnsName::Named(name), sysctl) => {
                Ok(self.directory.enter(name, || netns::set_sysctl(sysctl))??)
            }
            Op::Bridge(netns, op) => bridge::kernel::execute(self.connection(netns)?, op).map_err(Error::Step),
            Op::Vxlan(netns, op) => self.execute_vxlan(netns, op),
            Op::Gre(netns, GreOp::Create { name, device }) => {
                let place = self.place(netns)?;
                let fd = place.as_ref().map(AsRawFd::as_raw_fd);
                gre::kernel::create(&mut self.own, name, device, fd).map_err(Error::Step)
            }
            Op::Link(netns, op) => {
                let other = self.other_end(netns, op)?;
                let fd = other.as_ref().map(AsRawFd::as_raw_fd);
                links::execute(self.connection(netns)?, op, fd).map_err(Error::Step)
            }
            Op::Neigh(netns, op) => neighbours::execute(self.connection(netns)?, op).map_err(|failure| {
                let source = failure.source;
                match failure.ip {
                    Some(ip) => Error::Netlink { what: format!("change the entry for {ip}"), source },
                    None => Error::Step(source),
                }
            }),
            Op::Route(netns, op) => route::kernel::execute(self.connection(netns)?, op).map_err(Error::Step),
        }
    }

    fn execute_vxlan(&mut self, netns: &NetnsName, op: &VxlanOp) -> Result<(), Error> {
        let changed = match op {
            VxlanOp::Create { name, device } => {
                let place = self.place(netns)?;
                let fd = place.as_ref().map(AsRawFd::as_raw_fd);
                return vxlan::kernel::create(&mut self.own, name, device, fd).map_err(Error::Step);
            }
            VxlanOp::SetFdb { device, entries } => vxlan::kernel::set(self.connection(netns)?, device, entries),
            VxlanOp::RemoveFdb { device, entries } => vxlan::kernel::remove(self.connection(netns)?, device, entries),
        };
        changed.map_err(|vxlan::kernel::Failure { entry, source }| match entry {
            Some(entry) => Error::Netlink { what: format!("change the entry {entry}"), source },
            None => Error::Step(source),
        })
    }

    /// Where a tunnel goes, if that is not the namespace its packets are in.
    fn place(&self, netns: &NetnsName) -> Result<Option<File>, Error> {
        match netns {
            NetnsName::Own => Ok(None),
            NetnsName::Named(name) => Ok(Some(self.directory.open(name)?)),
        }
    }

    /// The namespace for the other end of a veth pair, if it is not the same one.
    fn other_end(&self, netns: &NetnsName, op: &LinkOp) -> Result<Option<File>, Error> {
        match op {
            LinkOp::CreateVeth { peer_netns, .. } if peer_netns == netns => Ok(None),
            LinkOp::CreateVeth { peer_netns: NetnsName::Named(name), .. } => Ok(Some(self.directory.open(name)?)),
            LinkOp::CreateVeth { peer_netns: NetnsName::Own, .. } => Ok(Some(netns::own()?)),
            LinkOp::Delete(_)
            | LinkOp::Set { .. }
            | LinkOp::Up(_)
            | LinkOp::Down(_)
            | LinkOp::AddAddress { .. }
            | LinkOp::RemoveAddress { .. } => Ok(None),
        }
    }

    fn create(&mut self, name: &Name) -> Result<(), Error> {
        let what = format!("set up loopback in namespace {name}");
        let made = self.directory.create(name, || {
            let mut connection = Connection::open()?;
            let Ok(loopback) = IfName::new("lo") else { unreachable!("a legal name") };
            links::execute(&mut connection, &LinkOp::Up(loopback), None)?;
            Ok(connection)
        })?;
        let connection = match made {
            Ok(connection) => connection,
            Err(source) => {
                // A namespace without loopback would pass for a good one. The first error is the one to tell.
                let _removed = self.directory.remove(name);
                return Err(Error::Netlink { what, source });
            }
        };
        self.named.insert(name.clone(), (self.directory.identity(name)?, connection));
        Ok(())
    }

    /// Deletes the veth pairs that end in a namespace and the tunnels in it, then its name.
    fn remove(&mut self, name: &Name) -> Result<(), Error> {
        let mounted = self.directory.entries()?.get(name) == Some(&Entry::Mounted);
        if mounted {
            let connection = self.connection(&NetnsName::Named(name.clone()))?;
            let what = format!("delete the veth pairs and tunnels of namespace {name}");
            links::delete_ties(connection).map_err(Error::of(what))?;
        }
        self.named.remove(name);
        Ok(self.directory.remove(name)?)
    }
}

/// The tunnel, or outer end of a pair, that a step is about, which needs nothing of what else is in its namespace.
fn tunnel_of(op: &Op) -> Option<&IfName> {
    let link = match op {
        Op::Vxlan(_, VxlanOp::Create { name, .. }) | Op::Gre(_, GreOp::Create { name, .. }) => name,
        Op::Vxlan(_, VxlanOp::SetFdb { device, .. } | VxlanOp::RemoveFdb { device, .. }) => device,
        Op::Link(_, LinkOp::Set { name, .. } | LinkOp::Up(name) | LinkOp::Down(name) | LinkOp::Delete(name)) => name,
        Op::Link(_, LinkOp::CreateVeth { .. } | LinkOp::AddAddress { .. } | LinkOp::RemoveAddress { .. })
        | Op::Netns(_)
        | Op::Sysctl(..)
        | Op::Bridge(..)
        | Op::Neigh(..)
        | Op::Route(..) => return None,
    };
    matches!(netns_of(op), NetnsName::Named(netns) if [TUNNELS_NETNS, PORTS_NETNS].contains(&netns.as_str()))
        .then_some(link)
}

fn netns_of(op: &Op) -> NetnsName {
    match op {
        Op::Netns(NetnsOp::Create(name) | NetnsOp::Remove(name)) => NetnsName::Named(name.clone()),
        Op::Sysctl(netns, _)
        | Op::Bridge(netns, _)
        | Op::Vxlan(netns, _)
        | Op::Gre(netns, _)
        | Op::Link(netns, _)
        | Op::Neigh(netns, _)
        | Op::Route(netns, _) => netns.clone(),
    }
}
