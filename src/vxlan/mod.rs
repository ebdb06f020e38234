//! VXLAN tunnels between nodes (RFC 7348): what they cost in octets, what their ports are called, which ones there should
//! be.
//!
//! One tunnel a remote node carries every network shared with it: the VNI is a key on each frame, not a property of the
//! tunnel. This directory is arithmetic and comparison only; the switch carries the steps out on its own ports.

mod diff;
mod spec;
mod state;

pub use diff::{TunnelOp, diff};
pub use spec::{BadTunnels, TunnelSpec, overhead_octets, port_name, tunnels};
pub use state::TunnelState;
