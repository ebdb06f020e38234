//! Kernel bridges: made, and joined to.
//!
//! Only what the lab's underlay needs: every setting stays at the kernel's default, and a setting at its default is never
//! sent, because kernels refuse even the default of what they were built without.

mod diff;
#[cfg(feature = "kernel")]
pub(crate) mod kernel;
mod spec;
mod state;

pub use diff::{BridgeOp, membership};
pub use spec::PortSpec;
pub use state::PortState;
