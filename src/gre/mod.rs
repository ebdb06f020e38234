//! GRE tunnels between nodes (RFC 2784, RFC 2890): what they cost in octets, what their ports are called; and the kernel's
//! devices for them.
//!
//! There are two ways to make them, with the same octets on the wire. The switch's, as with VXLAN: one tunnel a remote node
//! carries every network shared with it, the key being on each packet. The kernel's: one `gretap` (or `ip6gretap`) device
//! for each remote node of each network, since such a device has one remote and one key. The payload is an Ethernet frame
//! ("transparent Ethernet bridging", as Linux's `gretap` and Open vSwitch have it), not NVGRE's (RFC 7637).

mod diff;
#[cfg(feature = "kernel")]
pub(crate) mod kernel;
mod spec;
mod state;

pub use diff::GreOp;
pub use spec::{DeviceSpec, device_name, overhead_octets, port_name};
pub use state::DeviceState;
