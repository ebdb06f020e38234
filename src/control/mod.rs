//! One line of JSON asked, one answered, over a unix socket: how the command line, an agent and a switch talk.
//!
//! Owns the sockets and the lines; knows nothing of what is asked. [`Client`] and [`Server`] block: conversations are
//! few and local, and a packet never waits for one.

mod client;
mod descriptors;
mod line;
mod server;

pub use client::{Client, ControlError};
pub use descriptors::raise_descriptor_limit;
pub use server::{CLIENT_LIMIT, Reply, Server, ServerError, Service, Stopper, listen};

#[cfg(test)]
mod tests;
