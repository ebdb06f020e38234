//! A bridge: its ports, tables and learned addresses.

use core::net::IpAddr;
use std::collections::BTreeMap;

use super::fdb::Fdb;
use super::io::DpPort;
use super::table::Tables;
use super::text::PortNames;
use crate::api::switch::{BridgeMode, PortCounters, VlanMode};
use crate::types::IfName;

/// A port to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewPort {
    /// Its name, unique in the switch.
    pub name: IfName,
    /// What is behind it.
    pub kind: NewPortKind,
    /// Its VLANs, for `NORMAL`.
    pub vlan: VlanMode,
    /// The number it is to have in its bridge; the lowest free one without it.
    pub number: Option<u32>,
}

/// What is behind a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewPortKind {
    /// A datapath port of its own.
    Netdev {
        /// That port.
        dp: DpPort,
    },
    /// The port of another bridge.
    Patch {
        /// That port's name.
        peer: IfName,
    },
    /// A tunnel, whose datapath port it may share with others of the same local endpoint.
    Vxlan {
        /// The datapath port.
        dp: DpPort,
        /// The outer address here.
        local: IpAddr,
        /// The outer address there.
        remote: IpAddr,
    },
}

impl NewPortKind {
    /// The datapath port behind it.
    #[must_use]
    pub const fn dp(&self) -> Option<DpPort> {
        match self {
            Self::Netdev { dp } | Self::Vxlan { dp, .. } => Some(*dp),
            Self::Patch { .. } => None,
        }
    }

    pub(crate) const fn is_tunnel(&self) -> bool {
        matches!(self, Self::Vxlan { .. })
    }
}

/// A bridge as it is.
#[derive(Clone, Debug)]
pub struct BridgeView {
    /// Its name.
    pub name: IfName,
    /// What it does with a frame.
    pub mode: BridgeMode,
    /// Flows in its tables.
    pub flows: usize,
    /// Its ports by number.
    pub ports: Vec<PortView>,
}

/// A port of a bridge as it is.
#[derive(Clone, Debug)]
pub struct PortView {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: IfName,
    /// What is behind it.
    pub kind: NewPortKind,
    /// Its VLANs.
    pub vlan: VlanMode,
    /// What a patch port carried; zeroes for other ports, which are counted where they are.
    pub counters: PortCounters,
}

/// A port.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) name: IfName,
    pub(crate) kind: NewPortKind,
    pub(crate) vlan: VlanMode,
    pub(crate) counters: PortCounters,
}

/// A bridge.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) name: IfName,
    pub(crate) mode: BridgeMode,
    pub(crate) ports: BTreeMap<u32, Port>,
    pub(crate) tables: Tables,
    pub(crate) fdb: Fdb,
}

impl Bridge {
    pub(crate) fn new(name: IfName, mode: BridgeMode) -> Self {
        Self { name, mode, ports: BTreeMap::new(), tables: Tables::default(), fdb: Fdb::default() }
    }

    /// The number of the port called `name`.
    pub(crate) fn number_of(&self, name: &str) -> Option<u32> {
        self.ports.iter().find(|(_, port)| port.name.as_str() == name).map(|(number, _)| *number)
    }

    pub(crate) fn view(&self) -> BridgeView {
        let view = |(number, port): (&u32, &Port)| PortView {
            number: *number,
            name: port.name.clone(),
            kind: port.kind.clone(),
            vlan: port.vlan.clone(),
            counters: port.counters,
        };
        BridgeView {
            name: self.name.clone(),
            mode: self.mode,
            flows: self.tables.len(),
            ports: self.ports.iter().map(view).collect(),
        }
    }
}

/// The ports of a bridge as texts name them.
pub(crate) struct BridgePorts<'a> {
    pub(crate) bridge: &'a Bridge,
    /// Whether ports are shown by name.
    pub(crate) names: bool,
}

impl PortNames for BridgePorts<'_> {
    fn number(&self, name: &str) -> Option<u32> {
        self.bridge.number_of(name)
    }

    fn name(&self, number: u32) -> Option<&str> {
        if !self.names {
            return None;
        }
        self.bridge.ports.get(&number).map(|port| port.name.as_str())
    }
}
