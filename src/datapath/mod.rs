//! The switch: bridges of ports, tables of flows, a cache in front, and nothing of the network they are used for.

mod io;
pub mod offload;
mod packet;
#[cfg(feature = "kernel")]
pub mod port;

pub use io::{DpPort, Egress, Ingress, TunnelMeta};
pub use packet::{Checksum, HEADROOM, Offload, Packet, SegmentKind, Segmentation};
