//! dvr: a distributed virtual router for plain Linux.

pub mod api;
#[cfg(feature = "kernel")]
pub mod clock;
#[cfg(feature = "kernel")]
pub mod control;
pub mod datapath;
pub mod model;
#[cfg(feature = "kernel")]
pub mod switch;
pub mod types;
pub mod wire;
