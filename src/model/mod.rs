//! Desired state: from an untrusted document to a topology in which nothing can be wrong.
//!
//! ```text
//! text ─document─▶ texts with places ─written─▶ resource::Edit ─check─▶ Change ─▶ Fabric ─placement─▶ view::NodeView
//!                                                     ▲            │ allocate: ids, VNIs, MACs, addresses from names
//!                                  whoever applies ───┘            └ problem: every mistake with value and remedy
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
mod wish;
mod written;

/// An id, for messages.
const LIKE_ID: &str = "6b2c1f0e-9a51-5d0b-8a6e-2f4f3a1c7d90";

#[cfg(test)]
pub(crate) mod tests;

pub use fabric::{Fabric, Touched};
pub use problem::{DocumentError, MAX_MISTAKES, Mistake, Problem, Refusal};
pub use resource::{Change, Edit, Kind, Object, Resource};
pub use topology::{EXAMPLE, Topology, Underlay, Vm};
pub use view::Network;
pub use wish::Wish;
