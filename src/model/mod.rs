//! Desired state: from an untrusted document to a topology in which nothing can be wrong.
//!
//! ```text
//! text ─document─▶ texts with places ─check─▶ Topology ─placement─▶ view::NodeView, one a node
//!                                      │ allocate: ids, VNIs, MACs, addresses from names alone
//!                                      └ problem: every mistake with line, column, value, remedy
//! ```
//! It knows neither files nor nodes as they are; where things live is settled by [`crate::placement`].

mod address;
mod allocate;
mod check;
mod document;
pub mod names;
mod problem;
mod topology;
pub mod view;

#[cfg(test)]
pub(crate) mod tests;

pub use problem::{DocumentError, MAX_MISTAKES, Mistake};
pub use topology::{EXAMPLE, Network, Topology, Underlay, Vm};
