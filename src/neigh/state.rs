//! What is there: the neighbour entries of one link.

use core::net::IpAddr;

use crate::types::Mac;

use super::NeighbourSpec;

/// A neighbour entry as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourState {
    /// The neighbour's IP address.
    pub ip: IpAddr,
    /// Its MAC address, once known.
    pub mac: Option<Mac>,
    /// Whether it is PERMANENT, the only state that is ever ours.
    pub permanent: bool,
}

impl NeighbourState {
    /// The entry as something wanted: `None` unless it is PERMANENT and resolved.
    #[must_use]
    pub fn project(&self) -> Option<NeighbourSpec> {
        self.mac.filter(|_| self.permanent).map(|mac| NeighbourSpec { ip: self.ip, mac })
    }
}

/// What became of a neighbour entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourChange {
    /// The link's index.
    pub link: u32,
    /// The neighbour's IP address.
    pub ip: IpAddr,
    /// The MAC address it is PERMANENT with; `None` if it is in another state, or gone.
    pub permanent: Option<Mac>,
}
