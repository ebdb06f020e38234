//! Captures: what passes the interfaces of one namespace, as a pcapng file any analyser reads.
//!
//! The writer is pure; [`socket`] holds the packet socket. The capture sees frames as the kernel hands them over: one
//! that the sender left to be cut later (TSO) is one frame here, longer than any wire would carry.

pub mod pcapng;
#[cfg(feature = "kernel")]
pub mod socket;
