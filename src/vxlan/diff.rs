//! Which tunnels to make and to remove.

use core::fmt;

use crate::types::IfName;

use super::{TunnelSpec, TunnelState};

/// One step on the tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TunnelOp {
    /// Make a tunnel.
    Add(TunnelSpec),
    /// Remove the tunnel port of this name.
    Remove(IfName),
}

impl fmt::Display for TunnelOp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(TunnelSpec { port, local, remote }) => {
                write!(out, "add tunnel {port} local {local} remote {remote}")
            }
            Self::Remove(port) => write!(out, "remove tunnel {port}"),
        }
    }
}

/// The steps from `observed`, which holds tunnels of ours only, to `desired`, removals first: a tunnel whose endpoints
/// changed keeps its name.
#[must_use]
pub fn diff(desired: &[TunnelSpec], observed: &[TunnelState]) -> Vec<TunnelOp> {
    let same = |spec: &TunnelSpec, state: &TunnelState| {
        let TunnelState { port, local, remote } = state;
        spec.port == *port && spec.local == *local && spec.remote == *remote
    };
    let surplus = observed.iter().filter(|state| !desired.iter().any(|spec| same(spec, state)));
    let missing = desired.iter().filter(|spec| !observed.iter().any(|state| same(spec, state)));
    let removals = surplus.map(|state| TunnelOp::Remove(state.port.clone()));
    removals.chain(missing.map(|spec| TunnelOp::Add(spec.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vxlan::{port_name, tunnels};

    #[test]
    fn remakes_what_changed() {
        let ip = |last: u8| core::net::IpAddr::from([10, 0, 0, last]);
        let wanted = tunnels(port_name, ip(1), [ip(2), ip(3)]).expect("joinable");
        let state = |spec: &TunnelSpec, local| TunnelState { port: spec.port.clone(), local, remote: spec.remote };
        let gone = tunnels(port_name, ip(1), [ip(4)]).expect("joinable");
        let observed = [state(&wanted[0], ip(1)), state(&wanted[1], ip(9)), state(&gone[0], ip(1))];
        let printed: Vec<String> = diff(&wanted, &observed).iter().map(ToString::to_string).collect();
        assert_eq!(
            printed,
            [
                "remove tunnel vxlan-0a000003",
                "remove tunnel vxlan-0a000004",
                "add tunnel vxlan-0a000003 local 10.0.0.1 remote 10.0.0.3",
            ]
        );
    }
}
