//! A plan: the ordered steps from what is there to what is wanted.

use core::fmt;

use crate::bridge::BridgeOp;
use crate::gre::GreOp;
use crate::link::LinkOp;
use crate::neigh::NeighOp;
use crate::netns::{NetnsName, NetnsOp, Sysctl};
use crate::route::RouteOp;
use crate::types::IfName;
use crate::vxlan::VxlanOp;

/// One step. Whoever executes it has nothing left to decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A step on the namespace directory.
    Netns(NetnsOp),
    /// Set a kernel switch.
    Sysctl(NetnsName, Sysctl),
    /// A step on a bridge.
    Bridge(NetnsName, BridgeOp),
    /// A step on a VXLAN device.
    Vxlan(NetnsName, VxlanOp),
    /// A step on a GRE device.
    Gre(NetnsName, GreOp),
    /// A step on a link or its addresses.
    Link(NetnsName, LinkOp),
    /// A change of neighbour entries.
    Neigh(NetnsName, NeighOp),
    /// A change of routes.
    Route(NetnsName, RouteOp),
}

impl fmt::Display for Op {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Netns(op) => write!(out, "{op}"),
            Self::Sysctl(netns, sysctl) => write!(out, "{netns}: set {sysctl}"),
            Self::Bridge(netns, op) => write!(out, "{netns}: {op}"),
            Self::Vxlan(netns, op) => write!(out, "{netns}: {op}"),
            Self::Gre(netns, op) => write!(out, "{netns}: {op}"),
            Self::Link(netns, op) => write!(out, "{netns}: {op}"),
            Self::Neigh(netns, op) => write!(out, "{netns}: {op}"),
            Self::Route(netns, op) => write!(out, "{netns}: {op}"),
        }
    }
}

/// Something wanted that no step may bring about, because it would harm what is not ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Blocked {
    /// In the process's own namespace, the name belongs to a link of another kind.
    #[error("{netns}: link {link} is there as {observed}, not as {wanted}: rename or delete it")]
    Taken {
        /// The namespace.
        netns: NetnsName,
        /// The link.
        link: IfName,
        /// Its kind.
        observed: String,
        /// The kind asked for.
        wanted: String,
    },
    /// There is no such link and nobody can make one: loopback under another name.
    #[error("{netns}: no loopback link is called {link}: it is always `lo`")]
    NoLoopback {
        /// The namespace.
        netns: NetnsName,
        /// The link.
        link: IfName,
    },
}

/// The ordered steps from what is there to what is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The steps, in the order to execute them.
    pub ops: Vec<Op>,
    /// Links that somebody else has yet to make; nothing that depends on them is among the steps.
    pub awaited: Vec<(NetnsName, IfName)>,
    /// What cannot be had without harming others.
    pub blocked: Vec<Blocked>,
}

impl Plan {
    /// Whether nothing is to be done. Links may still be awaited, or wishes blocked.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Whether all there is to it is neighbour entries. The kernel's word on each of those is all that a look could tell:
    /// nothing hangs on them, and nothing follows from them.
    #[must_use]
    pub fn is_neighbours(&self) -> bool {
        let Self { ops, awaited, blocked } = self;
        awaited.is_empty() && blocked.is_empty() && ops.iter().all(|op| matches!(op, Op::Neigh(..)))
    }
}

impl fmt::Display for Plan {
    /// One step a line, then what is awaited and what is blocked.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ops, awaited, blocked } = self;
        for op in ops {
            writeln!(out, "{op}")?;
        }
        for (netns, link) in awaited {
            writeln!(out, "{netns}: await link {link}")?;
        }
        for blocked in blocked {
            writeln!(out, "blocked: {blocked}")?;
        }
        Ok(())
    }
}
