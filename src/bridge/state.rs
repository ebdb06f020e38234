//! What is there: the device a link is a port of.

/// A link's membership as the kernel tells it, by index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortState {
    /// The device the link is a port of.
    pub controller: Option<u32>,
    /// The wanted bridge's index, if the bridge exists.
    pub bridge: Option<u32>,
}
