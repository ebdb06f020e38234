//! Which bridges to make, and which links to join to them.

use core::fmt;

use crate::types::IfName;

use super::{PortSpec, PortState};

/// One step on a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BridgeOp {
    /// Make a bridge, without spanning tree: the kernel's default, as are all its other settings.
    Create(IfName),
    /// Make a link a port of a bridge.
    Attach {
        /// The link.
        port: IfName,
        /// The bridge.
        bridge: IfName,
    },
    /// Make a link a port of nothing.
    Detach(IfName),
}

impl fmt::Display for BridgeOp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(name) => write!(out, "add bridge {name}"),
            Self::Attach { port, bridge } => write!(out, "attach {port} to bridge {bridge}"),
            Self::Detach(port) => write!(out, "detach {port} from its bridge"),
        }
    }
}

/// The step that makes the membership right.
#[must_use]
pub fn membership(desired: PortSpec<'_>, observed: PortState) -> Option<BridgeOp> {
    let PortSpec { port, bridge } = desired;
    match (bridge, observed.controller) {
        (Some(_), Some(index)) if observed.bridge == Some(index) => None,
        (Some(bridge), _) => Some(BridgeOp::Attach { port: port.clone(), bridge: bridge.clone() }),
        (None, Some(_)) => Some(BridgeOp::Detach(port.clone())),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_moves_and_leaves() {
        let (port, bridge) = (IfName::new("p1").expect("legal"), IfName::new("br0").expect("legal"));
        let step = |wanted, controller, index| {
            membership(PortSpec { port: &port, bridge: wanted }, PortState { controller, bridge: index })
                .map(|op| op.to_string())
        };
        let attach = Some("attach p1 to bridge br0".to_owned());
        assert_eq!(step(Some(&bridge), None, Some(5)), attach);
        assert_eq!(step(Some(&bridge), Some(4), Some(5)), attach);
        assert_eq!(step(Some(&bridge), Some(4), None), attach);
        assert_eq!(step(Some(&bridge), Some(5), Some(5)), None);
        assert_eq!(step(None, Some(5), None), Some("detach p1 from its bridge".to_owned()));
        assert_eq!(step(None, None, None), None);
    }
}
