//! What a switch refuses, and why.

use super::switch::LIMIT_BRIDGES;
use super::text::TextError;
use crate::types::{IfName, Mac};

/// What a switch refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwitchError {
    /// No bridge has this name.
    #[error("there is no bridge `{0}`: `dvr show` lists those there are")]
    UnknownBridge(IfName),
    /// A bridge of this name exists.
    #[error("cannot add bridge `{0}`: there is one of that name already")]
    BridgeExists(IfName),
    /// There are as many bridges as there may be.
    #[error("cannot add bridge `{0}`: a switch has at most {LIMIT_BRIDGES}")]
    TooManyBridges(IfName),
    /// No port of this bridge has this name.
    #[error("bridge `{bridge}` has no port `{port}`: `dvr show` lists those it has")]
    UnknownPort {
        /// The bridge.
        bridge: IfName,
        /// The port asked for.
        port: IfName,
    },
    /// A port of this name exists, on this bridge or another.
    #[error("cannot add port `{port}`: bridge `{bridge}` has a port of that name")]
    PortExists {
        /// The bridge that has it.
        bridge: IfName,
        /// The port.
        port: IfName,
    },
    /// No address like this was set by hand.
    #[error("bridge `{bridge}` has no static address {mac} in VLAN {vlan}: `dvr fdb show {bridge}` lists those it has")]
    UnknownStation {
        /// The bridge.
        bridge: IfName,
        /// The VLAN, 0 for none.
        vlan: u16,
        /// The address asked for.
        mac: Mac,
    },
    /// As many addresses as there may be were set by hand.
    #[error("bridge `{bridge}` holds {limit} static addresses, the most it may: remove one with `dvr fdb del`")]
    StationsFull {
        /// The bridge.
        bridge: IfName,
        /// The most.
        limit: usize,
    },
    /// The wanted port number is taken or reserved, or none is free.
    #[error("cannot add port `{port}` as number {number}: use a free number from 1 to 65279, or 65534 for LOCAL")]
    BadNumber {
        /// The port.
        port: IfName,
        /// The number it was to have.
        number: u32,
    },
    /// The datapath port, or the pair of tunnel endpoints, belongs to another port.
    #[error("cannot add port `{port}`: {what} belongs to another port")]
    Taken {
        /// The port.
        port: IfName,
        /// What is taken.
        what: String,
    },
    /// A flow's text is wrong. No change of the list was made.
    #[error("{}{source}", if *count == 1 { String::new() } else { format!("flow {number} of {count}: ") })]
    BadFlow {
        /// Which change of the list, from 1.
        number: usize,
        /// How many there are.
        count: usize,
        /// What is wrong.
        source: TextError,
    },
    /// A flow that was to be added only without overlap has some. No change of the list was made.
    #[error("flow {number} of {count}: another flow of its table and priority matches some of the same packets")]
    Overlap {
        /// Which change of the list, from 1.
        number: usize,
        /// How many there are.
        count: usize,
    },
    /// A filter's text is wrong.
    #[error(transparent)]
    BadFilter(TextError),
    /// More flows than a bridge may have.
    #[error(
        "bridge `{bridge}` has {flows} flows, and {more} more would be over its limit of {limit}; `dvr switch --flow-limit` sets another"
    )]
    TableFull {
        /// The bridge.
        bridge: IfName,
        /// Flows it has.
        flows: usize,
        /// Flows to be added.
        more: usize,
        /// The limit.
        limit: usize,
    },
}

impl SwitchError {
    /// Whether what was asked for does not exist.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::UnknownBridge(_) | Self::UnknownPort { .. } | Self::UnknownStation { .. })
    }

    /// Whether what was to be made exists.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        matches!(self, Self::BridgeExists(_) | Self::PortExists { .. })
    }
}
