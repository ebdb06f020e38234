//! The switch: bridges of ports, tables of flows, a cache in front, and nothing of the network they are used for.

mod io;
mod packet;

pub use io::{DpPort, Egress, Ingress, TunnelMeta};
pub use packet::{Checksum, HEADROOM, Offload, Packet, SegmentKind, Segmentation};
