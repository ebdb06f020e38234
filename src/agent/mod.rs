//! `dvr agent`: makes one node match what it is to hold, and keeps it so.
//!
//! ```text
//!     controller ═ whole, changes ═╗
//!  topology file ─placement─▶ NodeView ─┬─▶ kernel_spec ─▶ plan ⇄ kernel   namespaces, links, neighbours, routes
//!  (SIGHUP: again)                      └─▶ switch_spec ─▶ flows ⇄ switch  bridges, ports, programs
//!
//!  SIGHUP, drift told by a kernel, a switch gone ─▶ events ─▶ one pass: observe, plan, apply, until nothing is left
//! ```
//!
//! A change that says who bears which address elsewhere, or who floods where, needs no pass: `delta` computes what comes of
//! it from those who bear the same addresses, one bundle of flows for each bridge and the routers' neighbour entries are
//! changed, and nothing is looked at. Everything else is a pass, and so is an audit now and then.
//!
//! One thread does all that changes anything, a pass at a time; each conversation on the control socket has a thread of
//! its own and reads what the last pass published, the switch, or, through an event, the kernel. Order within a pass:
//! namespaces (and veth pairs) first, for the switch puts its TAPs there; bridges and ports; flows of br-int, then of
//! br-tun and the physical networks' bridges, each bridge's at one instant; ports that no flow names any more; then
//! addresses, neighbours and routes of the interfaces the switch made.
//!
//! An agent that ends leaves everything as it is: frames need no agent. [`purge`] is what removes it.

mod announced;
mod backend;
mod canonical;
mod delta;
mod desired;
mod events;
mod flows;
mod kernel_spec;
mod known;
mod less;
mod link;
mod lookup;
mod node;
mod notices;
mod provider_spec;
mod room;
mod run;
mod saved;
mod serve;
mod shared;
mod switch;
mod switch_spec;
mod tables;
mod told;
mod vlans;
mod ways;

use std::path::PathBuf;

use crate::model::view::Backend;
use crate::netns::{PORTS_NETNS, TUNNELS_NETNS};

pub(crate) use backend::try_tunnel;
pub use desired::DesiredError;
pub use link::Controllers;
pub use run::{purge, run};
pub use vlans::VlanFileError;

/// How machines and routers are attached to the switch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Attachment {
    /// TAPs if the switch can make them, veth pairs otherwise.
    #[default]
    Auto,
    /// TAPs, or an error.
    Tap,
    /// Veth pairs and packet sockets.
    Veth,
}

/// What is to make a node's tunnels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Tunnels {
    /// What can be had here: the switch, which knows which node a frame is from, unless it may not have its sockets and the
    /// kernel may have its devices. Devices that are there already are kept.
    #[default]
    Auto,
    /// The kernel's devices, or an error.
    Kernel,
    /// The switch's sockets.
    Userspace,
}

/// Whether the kernel carries out what the switch decided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FastPath {
    /// The switch carries every frame.
    #[default]
    Off,
    /// The kernel carries what is like frames that the switch decided, where it can be had: ports are veth pairs then, and
    /// tunnels the kernel's unless told otherwise.
    On,
}

/// A word that is neither on nor off.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` says nothing about the fast path: write on or off")]
pub struct BadFastPathWord(String);

impl core::str::FromStr for FastPath {
    type Err = BadFastPathWord;

    fn from_str(text: &str) -> Result<Self, BadFastPathWord> {
        let all = [Self::Off, Self::On];
        all.into_iter().find(|word| word.name() == text).ok_or_else(|| BadFastPathWord(text.to_owned()))
    }
}

impl core::fmt::Display for FastPath {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.pad(self.name())
    }
}

impl FastPath {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
        }
    }
}

/// A word that names nothing that makes tunnels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` makes no tunnels: write auto, kernel or userspace")]
pub struct BadTunnelsWord(String);

impl core::str::FromStr for Tunnels {
    type Err = BadTunnelsWord;

    fn from_str(text: &str) -> Result<Self, BadTunnelsWord> {
        let all = [Self::Auto, Self::Kernel, Self::Userspace];
        all.into_iter().find(|tunnels| tunnels.name() == text).ok_or_else(|| BadTunnelsWord(text.to_owned()))
    }
}

impl core::fmt::Display for Tunnels {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        out.pad(self.name())
    }
}

impl Tunnels {
    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kernel => Backend::Kernel.name(),
            Self::Userspace => Backend::Userspace.name(),
        }
    }
}

/// How ports are attached, decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attach {
    Tap,
    Veth,
    /// Veth pairs, whose outer ends and the kernel's tunnels are in one namespace for the fast path.
    Fast,
}

impl Attach {
    /// The namespace of the kernel's tunnels.
    const fn tunnels_netns(self) -> &'static str {
        match self {
            Self::Tap | Self::Veth => TUNNELS_NETNS,
            Self::Fast => PORTS_NETNS,
        }
    }
}

/// What tells a node what it is to hold.
#[derive(Debug, Clone)]
pub enum DesiredFrom {
    /// A topology file, read at the start and again after each SIGHUP.
    Topology(PathBuf),
    /// Controllers, any of which will do.
    Controllers(Controllers),
}

/// What an agent must be told.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The node's name in the topology.
    pub node: String,
    /// What tells it what to hold.
    pub desired: DesiredFrom,
    /// Where the agent keeps its socket and its state.
    pub run_dir: PathBuf,
    /// Where named namespaces are mounted.
    pub netns_dir: PathBuf,
    /// How ports are attached.
    pub attachment: Attachment,
    /// What makes tunnels.
    pub tunnels: Tunnels,
    /// Whether the kernel carries out what the switch decided.
    pub fast_path: FastPath,
    /// The switch's socket.
    pub switch_socket: PathBuf,
}

impl AgentConfig {
    /// The run directory of a node that is a machine of its own.
    pub const RUN_DIR: &str = "/run/dvr";
    /// Where iproute2 mounts named namespaces.
    pub const NETNS_DIR: &str = "/run/netns";

    /// An agent of `node` that reads a topology file, its switch in the same run directory, everything else as on a machine
    /// of its own.
    #[must_use]
    pub fn new(node: impl Into<String>, topology: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        let run_dir = run_dir.into();
        Self {
            node: node.into(),
            desired: DesiredFrom::Topology(topology.into()),
            netns_dir: PathBuf::from(Self::NETNS_DIR),
            attachment: Attachment::Auto,
            tunnels: Tunnels::Auto,
            fast_path: FastPath::Off,
            switch_socket: run_dir.join("switch.sock"),
            run_dir,
        }
    }

    /// Where the agent itself is asked.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("agent.sock")
    }
}

/// Why an agent ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The run directory cannot be made.
    #[error("cannot make the run directory {}: {source}; choose another with --run-dir", path.display())]
    RunDir {
        /// The directory.
        path: PathBuf,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// Its own machinery.
    #[error("the agent of node `{node}` cannot {what}: {source}")]
    System {
        /// The node.
        node: String,
        /// What was attempted.
        what: &'static str,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// Its socket.
    #[error(transparent)]
    Socket(#[from] crate::control::ServerError),
    /// The kernel, before anything was attempted on it.
    #[error(transparent)]
    Kernel(#[from] crate::plan::kernel::Error),
    /// Its local VLANs.
    #[error(transparent)]
    Vlans(#[from] VlanFileError),
    /// An agent that runs would make again what is purged.
    #[error("an agent runs at {}: stop it first, or it makes everything again", socket.display())]
    Running {
        /// Its socket.
        socket: PathBuf,
    },
    /// Not everything could be removed.
    #[error("purging the node left something behind: {}", .0.join("; "))]
    Purge(Vec<String>),
}
