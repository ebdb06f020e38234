//! Links: veth pairs, the attributes every link has, and its addresses.
//!
//! Bridges are made and joined by [`crate::bridge`], tunnels made by [`crate::vxlan`] and [`crate::gre`]; TAPs by the
//! switch, and only configured here.

mod diff;
#[cfg(feature = "kernel")]
pub(crate) mod kernel;
mod spec;
mod state;

pub use diff::{LinkOp, addresses, admin_state, attributes};
pub use spec::{LinkKind, LinkSpec};
pub use state::{AddressState, LinkState, Links, TunnelState};
