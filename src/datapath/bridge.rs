//! A bridge: its ports, tables and learned addresses.

use core::net::IpAddr;
use std::collections::BTreeMap;

use super::fdb::Fdb;
use super::io::DpPort;
use super::routers::RouterId;
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
    /// A VXLAN tunnel, whose datapath port it may share with others of the same local endpoint.
    Vxlan {
        /// The datapath port.
        dp: DpPort,
        /// The outer address here.
        local: IpAddr,
        /// The outer address there.
        remote: IpAddr,
    },
    /// A GRE tunnel, likewise; the engine tells the two apart in words only.
    Gre {
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
            Self::Netdev { dp } | Self::Vxlan { dp, .. } | Self::Gre { dp, .. } => Some(*dp),
            Self::Patch { .. } => None,
        }
    }

    pub(crate) const fn is_tunnel(&self) -> bool {
        matches!(self, Self::Vxlan { .. } | Self::Gre { .. })
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
    /// Another one after every change of its ports or, by users, of its flows; never that of an earlier bridge.
    pub revision: u64,
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
    /// What a patch port carried, or a router's went past its namespace; other frames are counted where they come and go.
    pub counters: PortCounters,
}

/// A port.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) name: IfName,
    pub(crate) kind: NewPortKind,
    pub(crate) vlan: VlanMode,
    pub(crate) counters: PortCounters,
    /// Which router's interface it is, and what that is called there.
    pub(crate) router: Option<(RouterId, IfName)>,
}

/// A bridge.
#[derive(Debug)]
pub(crate) struct Bridge {
    pub(crate) name: IfName,
    pub(crate) mode: BridgeMode,
    pub(crate) ports: BTreeMap<u32, Port>,
    /// Grows with every change of `ports`.
    pub(crate) ports_revision: u64,
    /// Grows with every change of flows that somebody asked for: not with what flows learn, nor with what runs out.
    pub(crate) flows_revision: u64,
    pub(crate) tables: Tables,
    pub(crate) fdb: Fdb,
}

impl Bridge {
    /// A bridge without ports; `first` is where its revisions begin.
    pub(crate) fn new(name: IfName, mode: BridgeMode, tables: Tables, first: u64) -> Self {
        let (ports, fdb) = (BTreeMap::new(), Fdb::default());
        Self { name, mode, ports, ports_revision: first, flows_revision: 0, tables, fdb }
    }

    /// What stands for its ports and flows as they are.
    pub(crate) const fn revision(&self) -> u64 {
        self.ports_revision + self.flows_revision
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
            revision: self.revision(),
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
        self.bridge.ports.iter().find(|(_, port)| port.name.as_str() == name).map(|(number, _)| *number)
    }

    fn name(&self, number: u32) -> Option<&str> {
        if !self.names {
            return None;
        }
        self.bridge.ports.get(&number).map(|port| port.name.as_str())
    }
}

/// The ports of a bridge as they were at some time, apart from it: for texts of many flows.
#[derive(Debug)]
pub(crate) struct PortNumbers {
    /// The bridge's [`Bridge::ports_revision`] then.
    pub(crate) revision: u64,
    numbers: BTreeMap<String, u32>,
    names: BTreeMap<u32, IfName>,
    shown: bool,
}

impl PortNumbers {
    pub(crate) fn of(bridge: &Bridge) -> Self {
        let numbers = bridge.ports.iter().map(|(number, port)| (port.name.to_string(), *number)).collect();
        let names = bridge.ports.iter().map(|(number, port)| (*number, port.name.clone())).collect();
        Self { revision: bridge.ports_revision, numbers, names, shown: false }
    }

    /// The same, with or without ports shown by name.
    pub(crate) fn shown(self, shown: bool) -> Self {
        Self { shown, ..self }
    }
}

impl PortNames for PortNumbers {
    fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    fn name(&self, number: u32) -> Option<&str> {
        if self.shown { self.names.get(&number).map(IfName::as_str) } else { None }
    }
}
