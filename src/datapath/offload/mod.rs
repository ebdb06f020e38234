//! What network cards do for hosts, done here: cutting super-frames, finishing checksums, joining segments again.
//!
//! All of it is arithmetic on octets. A super-frame is cut only where it leaves for a wire ([`Segments`]) and joined
//! where it arrives from one ([`Train`]), so that between two virtual machines 64 KB cross each switch as one frame.

mod checksum;
mod coalesce;
mod layout;
mod segment;

pub use checksum::{Unfinished, complete};
pub use coalesce::{Extended, Started, Train};
pub use layout::{flow_hash, is_finishable};
pub use segment::{HEADER_LIMIT, SEGMENT_LIMIT, Segments, Uncuttable};

#[cfg(test)]
mod tests;
