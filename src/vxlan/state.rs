//! What is there: the tunnel ports that exist.

use core::net::IpAddr;

use crate::types::IfName;

/// A tunnel port as its holder tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelState {
    /// Its name.
    pub port: IfName,
    /// This node's endpoint.
    pub local: IpAddr,
    /// The other node's endpoint.
    pub remote: IpAddr,
}
