//! What is wanted: neighbour entries that never age and are never asked for.

use core::fmt;
use core::net::IpAddr;

use crate::types::Mac;

/// A PERMANENT neighbour entry (`NUD_PERMANENT`, `linux/neighbour.h`): the address resolves to the MAC with no ARP or ND.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct NeighbourSpec {
    /// The neighbour's IP address.
    pub ip: IpAddr,
    /// Its MAC address.
    pub mac: Mac,
}

impl fmt::Display for NeighbourSpec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} lladdr {}", self.ip, self.mac)
    }
}
