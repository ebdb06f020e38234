//! What is wanted: a bridge, and which links are its ports.

use crate::types::IfName;

/// A link's membership: the bridge it is to be a port of, or of none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortSpec<'a> {
    /// The link.
    pub port: &'a IfName,
    /// The bridge, in the same namespace.
    pub bridge: Option<&'a IfName>,
}
