//! From what is wanted and what is there to an ordered plan, and back: whether what is there is what was wanted.
//!
//! Pure: the kernel is read and written by [`crate::netlink`]'s callers, each kernel object's own `kernel.rs`, gathered by
//! `kernel::Kernel`. The loop is: observe, [`diff`], apply, observe, [`verify`].

mod diff;
#[cfg(feature = "kernel")]
pub mod kernel;
#[cfg(feature = "kernel")]
pub mod monitor;
mod op;
mod spec;
mod state;
#[cfg(test)]
mod tests;
mod verify;

pub use diff::diff;
pub use op::{Blocked, Op, Plan};
pub use spec::{BadSpec, Checked, KernelSpec, NamespaceSpec};
pub use state::{KernelState, NamespaceState};
pub use verify::{DRIFTS_MAX, Drift, verify};
