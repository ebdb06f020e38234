//! Peers: ways to build the scene. Each lives as long as its stage, and is never taken down by hand.

mod dvr;
mod kernel;
mod ovs;
mod veth;

use std::path::PathBuf;
use std::time::Duration;

use crate::agent::{FastPath, Tunnels};

use super::Error;
use super::addresses::Station;
use super::measure::{PeerKind, Way};
use super::traffic::End;

/// A scene that is built.
pub(super) trait Peer {
    /// Who sends and who receives.
    fn ends(&self, way: Way) -> (End, End) {
        let (from, to) = way.ends();
        (self.end(from), self.end(to))
    }

    /// A machine.
    fn end(&self, station: Station) -> End;

    /// The processes that switch, by their ids; none where the kernel does.
    fn switches(&self) -> Vec<i32>;

    /// The devices by which nodes send to each other: namespace and name.
    fn wires(&self) -> Vec<(PathBuf, &'static str)>;

    /// What of it is other than it would be elsewhere, for the report.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn remarks(&self) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }

    /// Has every switch forget what it decided about flows, if it keeps any of that.
    ///
    /// # Errors
    /// When it cannot be told to.
    fn forget(&mut self) -> Result<(), Error>;

    /// Has both nodes know so many more ports, on a node elsewhere; how long that took. `None` if it makes no sense here.
    ///
    /// # Errors
    /// When it cannot be done.
    fn program(&mut self, ports: u32) -> Result<Option<Duration>, Error>;
}

/// Builds the scene this way, in this process's namespaces, which are a stage's. Needs one thread.
///
/// # Errors
/// [`Error::Missing`] if this machine lacks what it takes; otherwise what failed.
pub(super) fn build(kind: PeerKind) -> Result<Box<dyn Peer>, Error> {
    Ok(match kind {
        PeerKind::Veth => Box::new(veth::Veth::build()?),
        PeerKind::Kernel => Box::new(kernel::Kernel::build(kernel::By::NfTables)?),
        PeerKind::KernelBpf => Box::new(kernel::Kernel::build(kernel::By::Bpf)?),
        PeerKind::Ovs => Box::new(ovs::Ovs::build()?),
        PeerKind::Dvr => Box::new(dvr::Dvr::build(Tunnels::Userspace, FastPath::Off)?),
        PeerKind::DvrTunnels => Box::new(dvr::Dvr::build(Tunnels::Kernel, FastPath::Off)?),
        PeerKind::Fast => Box::new(dvr::Dvr::build(Tunnels::Auto, FastPath::On)?),
    })
}
