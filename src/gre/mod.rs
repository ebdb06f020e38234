//! GRE tunnels between nodes (RFC 2784, RFC 2890): what they cost in octets and what their ports are called.
//!
//! As with VXLAN, one tunnel a remote node carries every network shared with it: the key is on each packet, not a
//! property of the tunnel. The payload is an Ethernet frame ("transparent Ethernet bridging", as Linux's `gretap` and
//! Open vSwitch have it), not NVGRE's (RFC 7637).

mod spec;

pub use spec::{overhead_octets, port_name};
