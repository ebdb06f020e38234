//! Traffic of our own between two places: streams, small datagrams, round trips.
//!
//! Sockets are opened inside the machines' namespaces and used from threads here; a descriptor keeps its namespace.

mod datagrams;
mod echo;
mod streams;

use core::net::Ipv4Addr;
use std::path::PathBuf;

use super::Error;
use crate::datapath::port::within;

pub(super) use datagrams::{flood, lossless};
pub(super) use echo::Echo;
pub(super) use streams::streams;

/// A machine to send from or to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// Its name.
    pub(super) name: &'static str,
    /// Its namespace's file.
    pub(super) netns: PathBuf,
    /// Its address.
    pub(super) ip: Ipv4Addr,
}

impl End {
    /// Does something on a thread that is inside.
    ///
    /// # Errors
    /// Those of `action`; [`Error::Os`] if the namespace cannot be entered.
    pub(super) fn inside<T: Send>(&self, action: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
        within(Some(&self.netns), || Ok(action())).map_err(|error| Error::Scene(error.to_string()))?
    }
}
