//! What is there: the unicast routes of the main table.

use core::net::IpAddr;

use ipnet::IpNet;

use crate::types::IfName;

/// A route as the kernel tells it. One with several next hops appears with neither gateway nor link: never ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteState {
    /// Where to.
    pub destination: IpNet,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The link.
    pub ifname: Option<IfName>,
    /// Who made it (`rtm_protocol`).
    pub protocol: u8,
    /// Its metric, zero for none; IPv6 gives 1024 to those that ask for none.
    pub metric: u32,
}
