//! dvr: a distributed virtual router for plain Linux.

pub mod api;
pub mod datapath;
pub mod model;
pub mod program;
pub mod types;
pub mod wire;
