//! VXLAN tunnels between nodes (RFC 7348): what they cost in octets, what their ports are called, which ones there should
//! be; and the kernel's devices for them.
//!
//! There are two ways to make them, with the same octets on the wire. The switch's: one tunnel a remote node carries every
//! network shared with it, the VNI being a key on each frame. The kernel's: one device a network, whose forwarding entries
//! say behind which node a station is, and to which nodes a flood goes. A device for all networks (`external`) would take
//! the key from each frame's metadata, which a packet socket cannot give it.

mod diff;
#[cfg(feature = "kernel")]
pub(crate) mod kernel;
mod spec;
mod state;

pub use diff::{VxlanOp, diff};
pub use spec::{BadTunnels, DeviceSpec, FdbEntry, TunnelSpec, device_name, overhead_octets, port_name, tunnels};
pub use state::{DeviceState, FdbState};
