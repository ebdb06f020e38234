//! How fast it is, beside others: the same two nodes, networks and router built in several ways on this machine, measured
//! in turns.
//!
//! ```text
//! blue1 ─┐ node1                     node2 ┌─ blue2          routed:  blue1 → orange2, across nodes
//!        ├─ switch ══ underlay ══ switch ─┤                  bridged: blue1 → blue2, across nodes
//! orange1┘ router                   router └─ orange2        local:   blue1 → orange1, routed on node1
//! ```
//! Each *peer* is one way to build it. A round measures every peer once; each peer of each round has a stage of its own
//! ([`crate::lab::Stage`]), so that nothing of one is in another's way and nothing is left. What is compared are ratios
//! within a round, since a machine's speed drifts between rounds.
//!
//! [`measure`], [`statistics`], [`report`] and [`chart`] are octets and numbers only; the rest runs processes and sockets.

mod act;
mod addresses;
mod bpf;
pub mod chart;
mod device;
mod device_sys;
pub mod measure;
mod nft;
mod peer;
mod processors;
pub mod report;
mod rounds;
mod scene;
pub mod statistics;
mod traffic;
mod volley_sys;

use std::io;
use std::time::Instant;

pub use act::{Acted, Task, act};
pub use rounds::run;

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call or file operation failed.
    #[error("cannot {attempt}: {source}")]
    Os {
        /// What was attempted on which object.
        attempt: String,
        /// The kernel's word.
        source: io::Error,
    },
    /// What a peer is made of is not on this machine.
    #[error("{0}")]
    Missing(String),
    /// A peer could not be built.
    #[error("cannot build the scene: {0}")]
    Scene(String),
    /// A program of a peer did not do as told.
    #[error("`{command}` failed: {told}")]
    Program {
        /// Its command line.
        command: String,
        /// What it said.
        told: String,
    },
    /// Nothing came through.
    #[error("nothing came from {from} to {to} within {seconds} s: the scene does not forward")]
    Silent {
        /// Who sent.
        from: &'static str,
        /// To whom.
        to: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The lab of the peer `dvr` failed.
    #[error(transparent)]
    Lab(#[from] crate::lab::Error),
    /// A daemon of it could not be asked.
    #[error(transparent)]
    Control(#[from] crate::control::ControlError),
    /// Its controller refused.
    #[error("the lab's controller: {0}")]
    Controller(String),
    /// The process that was to measure said nothing that makes sense.
    #[error("the measuring process ended with {how}")]
    Stage {
        /// How it ended.
        how: String,
    },
}

impl Error {
    fn os(attempt: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Os { attempt: attempt.into(), source: source.into() }
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured is time")]
fn now() -> Instant {
    Instant::now()
}
