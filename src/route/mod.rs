//! Routes: unicast, in the main table of each namespace.
//!
//! A route carries the number of the protocol that made it, and [`PROTOCOL`] says it was us: no other is ever removed.

mod diff;
#[cfg(feature = "kernel")]
pub(crate) mod kernel;
mod spec;
mod state;

pub use diff::{RouteOp, diff};
pub use spec::{PROTOCOL, RouteSpec};
pub use state::RouteState;
