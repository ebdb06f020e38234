//! The switch: bridges of ports, tables of flows, a cache in front, and nothing of the network they are used for.
//!
//! A frame's way: a port hands it to [`Worker::process`]; `extract` makes its key; `cache` knows what is done to its
//! like, or `xlate` walks the tables of the [`Switch`] and tells the cache; `execute` rewrites and sends it. `text`
//! reads and prints flows, `field` names what they match, `commit` turns writes to a key into writes to a packet.

mod action;
mod answer;
mod book;
mod bridge;
mod cache;
mod classifier;
mod commit;
mod drop;
mod dump;
mod error;
mod execute;
mod extract;
mod fdb;
mod field;
mod flows;
mod follow;
mod guard;
mod io;
mod key;
mod learn;
mod matching;
mod normal;
mod odp;
mod offer;
pub mod offload;
mod packet;
#[cfg(feature = "kernel")]
pub mod port;
mod revision;
mod rewrite;
pub mod router;
mod routers;
mod stations;
mod steps;
mod switch;
mod sync;
mod table;
mod text;
mod trace;
mod upcall;
mod worker;
mod xlate;

pub use book::{Difference, FlowBook, SortKey, differences, plain, without_stats};
pub use bridge::{BridgeView, NewPort, NewPortKind, PortView};
pub use drop::DropReason;
pub use error::SwitchError;
pub use io::{DpPort, Egress, Ingress, TunnelMeta};
pub use offer::{Changes, Grounds, Offer, describe};
pub use packet::{Checksum, HEADROOM, Offload, Packet, SegmentKind, Segmentation};
pub use steps::{change_flows, dump_flows, replace_flows, sync_flows};
pub use switch::Switch;
pub use table::LIMIT_FLOWS;
pub use text::TextError;
pub use trace::{NoPort, TraceInput};
pub use upcall::UpcallLimit;
pub use worker::Worker;

#[cfg(test)]
mod tests;
