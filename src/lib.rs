//! dvr: a distributed virtual router for plain Linux.

pub mod api;
pub mod capture;
pub mod datapath;
pub mod model;
pub mod placement;
pub mod types;
pub mod wire;
