//! The checked topology: every reference holds, every address is unique, everything allocatable is allocated.

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Serialize;
use uuid::Uuid;

use super::problem::DocumentError;
use super::view::{NetworkKind, Peer, PortView, RouterView, SubnetView};
use crate::types::{Mtu, Vni};

/// The built-in example: two networks, one router, four machines on two nodes.
pub const EXAMPLE: &str = include_str!("example.yaml");

/// A topology in which nothing is wrong: only [`Topology::parse`] makes one.
///
/// Everything is kept by name, and everything allocated follows from names and explicit values alone, so the same
/// document gives the same topology whatever the order of its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Topology {
    pub(super) underlay: Underlay,
    pub(super) nodes: BTreeMap<String, Peer>,
    pub(super) networks: BTreeMap<String, Network>,
    pub(super) routers: BTreeMap<String, RouterView>,
    pub(super) vms: BTreeMap<String, Vm>,
}

/// What carries the tunnels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Underlay {
    /// Where nodes without an address of their own get one.
    pub cidr: IpNet,
    /// Its MTU.
    pub mtu: Mtu,
    /// The UDP port of VXLAN on every node.
    pub vxlan_port: u16,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
    /// What carries it between nodes.
    pub kind: NetworkKind,
    /// Its tunnel key: a VNI, or a GRE key of as many bits.
    pub vni: Vni,
    /// The MTU of everything on it.
    pub mtu: Mtu,
    /// Its subnets, in the order given; no two overlap.
    pub subnets: Vec<SubnetView>,
}

/// A virtual machine and its one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vm {
    /// The node it is on.
    pub node: String,
    /// The network it is on.
    pub network: String,
    /// Its port, named as the machine is.
    pub port: PortView,
}

impl Topology {
    /// Reads and checks a document; `origin` names it in messages, such as its path.
    ///
    /// # Errors
    /// All that is wrong in meaning, or the first thing that is wrong in shape; each with place and remedy.
    pub fn parse(text: &str, origin: &str) -> Result<Self, DocumentError> {
        let document = super::document::read(text).map_err(|bad| DocumentError::shape(origin, text, *bad))?;
        super::check::check(&document).map_err(|mistakes| {
            mistakes.into_error(origin, text).unwrap_or_else(|| unreachable!("a refusal carries at least one mistake"))
        })
    }

    /// The topology of [`EXAMPLE`].
    #[must_use]
    pub fn example() -> Self {
        match Self::parse(EXAMPLE, "built-in example") {
            Ok(topology) => topology,
            Err(error) => unreachable!("the built-in example is tested to be right: {error}"),
        }
    }

    /// What carries the tunnels.
    #[must_use]
    pub fn underlay(&self) -> &Underlay {
        &self.underlay
    }

    /// The nodes, by name.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<String, Peer> {
        &self.nodes
    }

    /// The networks, by name.
    #[must_use]
    pub fn networks(&self) -> &BTreeMap<String, Network> {
        &self.networks
    }

    /// The routers, by name.
    #[must_use]
    pub fn routers(&self) -> &BTreeMap<String, RouterView> {
        &self.routers
    }

    /// The virtual machines, by name.
    #[must_use]
    pub fn vms(&self) -> &BTreeMap<String, Vm> {
        &self.vms
    }
}
