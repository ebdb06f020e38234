//! What is wanted: unicast routes in the main table.

use core::fmt;
use core::net::IpAddr;

use ipnet::IpNet;

use crate::types::IfName;

/// The protocol number that marks a route as ours (`rtm_protocol`, `linux/rtnetlink.h`): 100, ASCII `d`, which neither the
/// kernel header nor iproute2's `rt_protos` names. `ip route` prints it as `proto 100`.
pub const PROTOCOL: u8 = 0x64;

/// A unicast route in the main table, with the default metric. At least one of `gateway` and `ifname` must be given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteSpec {
    /// Where to; a prefix length of zero is the default route. Host bits are ignored.
    pub destination: IpNet,
    /// The next hop, if it is not on the link itself.
    pub gateway: Option<IpAddr>,
    /// The link; `None`: the one whose addresses include the gateway.
    pub ifname: Option<IfName>,
}

impl fmt::Display for RouteSpec {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.destination.trunc())?;
        if let Some(gateway) = self.gateway {
            write!(out, " via {gateway}")?;
        }
        if let Some(ifname) = &self.ifname {
            write!(out, " dev {ifname}")?;
        }
        Ok(())
    }
}
