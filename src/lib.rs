//! dvr: a distributed virtual router for plain Linux.

#[cfg(feature = "kernel")]
pub mod agent;
pub mod api;
pub mod bridge;
#[cfg(feature = "kernel")]
pub mod control;
pub mod datapath;
pub mod link;
pub mod model;
pub mod neigh;
#[cfg(feature = "kernel")]
pub mod netlink;
pub mod netns;
pub mod placement;
pub mod plan;
pub mod program;
pub mod route;
pub mod types;
pub mod vxlan;
pub mod wire;
