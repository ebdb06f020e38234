//! The control plane's protocol: its messages, its addresses, and the way to a controller.
//!
//! Owns how one gets there and what refusals look like; what is said is the business of the controller, of agents and
//! of the command line. `proto/dvr.proto` is the protocol itself.

mod address;
mod client;
mod refusal;
mod report;

pub use address::{Address, Addresses, BadAddress};
pub use client::{Client, RpcError, connect};
pub use refusal::{Refused, refuse};
pub use report::cut_errors;

/// The messages, the client's and the server's halves, as `proto/dvr.proto` has them.
#[expect(
    unused_qualifications,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod proto {
    tonic::include_proto!("dvr.v1");
}

/// Octets of one message at most, either way and on both sides. What an apply asks for, and the changes it answers with,
/// are one message each; views and lists go in parts well below it.
pub const MESSAGE_MAX: usize = 64 << 20;

/// Octets of a whole view's JSON in one message.
pub const PART_LEN: usize = 1 << 20;
