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
pub mod fabric;
pub mod names;
mod problem;
pub mod resource;
mod topology;
pub mod view;

#[cfg(test)]
pub(crate) mod tests;

pub use fabric::{Fabric, Touched};
pub use problem::{DocumentError, MAX_MISTAKES, Mistake, Problem, Refusal};
pub use resource::{Change, Edit, Kind, Object, Resource};
pub use topology::{EXAMPLE, Topology, Underlay, Vm};
pub use view::Network;
