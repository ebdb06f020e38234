//! Captures: what passes the interfaces of one namespace, as a pcapng file any analyser reads, or as a line a frame.
//!
//! [`mod@file`] reads captures back. Writers and readers are pure; [`socket`] holds the packet socket. The capture sees frames as the kernel hands them over: one
//! that the sender left to be cut later (TSO) is one frame here, longer than any wire would carry.

pub mod file;
pub mod line;
pub mod pcapng;
#[cfg(feature = "kernel")]
pub mod socket;
#[cfg(feature = "kernel")]
mod sys;
#[cfg(feature = "kernel")]
mod tag;

use core::time::Duration;
use std::io;

/// Which way a frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Into the host.
    Inbound,
    /// Out of it.
    Outbound,
}

/// Where captured frames go.
pub trait Sink {
    /// Declares an interface and returns the number that [`Self::frame`] wants.
    ///
    /// # Errors
    /// What the output says.
    fn interface(&mut self, name: &str) -> io::Result<u32>;

    /// Takes one frame, seen at `time` since 1970.
    ///
    /// # Errors
    /// What the output says; `InvalidInput` for an interface that was not declared.
    fn frame(&mut self, interface: u32, time: Duration, direction: Direction, octets: &[u8]) -> io::Result<()>;

    /// Hands what was taken on to whoever reads.
    ///
    /// # Errors
    /// What the output says.
    fn flush(&mut self) -> io::Result<()>;
}
