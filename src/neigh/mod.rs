//! Neighbour entries: which MAC an IP address resolves to on a link.
//!
//! Only PERMANENT entries are ever wanted, written or removed; everything the kernel learned by itself is its own.

mod diff;
#[cfg(feature = "kernel")]
pub(crate) mod kernel;
mod spec;
mod state;

pub use diff::{NeighOp, diff};
pub use spec::NeighbourSpec;
pub use state::{NeighbourChange, NeighbourState};
