//! The checked topology: every reference holds, every address is unique, everything allocatable is allocated.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::problem::DocumentError;
use super::resource::{AddressPair, InterfaceSpec, NetworkSpec, NodeSpec, PortSpec, Resource, RouterSpec};
use super::view::{Attachment, BridgeMappings, Network, Peer, PortView, RouterPort, RouterView};
use crate::types::Mtu;

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
    /// By node: only those that have any.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) bridge_mappings: BTreeMap<String, BridgeMappings>,
    pub(super) networks: BTreeMap<String, Network>,
    pub(super) routers: BTreeMap<String, RouterView>,
    pub(super) vms: BTreeMap<String, Vm>,
}

/// What carries the tunnels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Underlay {
    /// Where nodes without an address of their own get one.
    pub cidr: IpNet,
    /// Its MTU.
    pub mtu: Mtu,
    /// The UDP port of VXLAN on every node.
    pub vxlan_port: u16,
}

impl Default for Underlay {
    /// 172.31.0.0/24, with Ethernet's usual payload (IEEE 802.3 §3.2.7).
    fn default() -> Self {
        let cidr = IpNet::V4(Ipv4Net::new_assert(core::net::Ipv4Addr::new(172, 31, 0, 0), 24));
        Self { cidr, mtu: Mtu::ETHERNET, vxlan_port: crate::wire::vxlan::PORT }
    }
}

/// A virtual machine and its one port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vm {
    /// The node it is on.
    pub node: String,
    /// The node it is about to move to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub migrating_to: Option<String>,
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
        let fabric = super::written::check(&document).map_err(|mistakes| {
            mistakes.into_error(origin, text).unwrap_or_else(|| unreachable!("a refusal carries at least one mistake"))
        })?;
        Ok(fabric.topology())
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

    /// The interfaces by which a node is on physical networks.
    #[must_use]
    pub fn bridge_mappings(&self, node: &str) -> BridgeMappings {
        self.bridge_mappings.get(node).cloned().unwrap_or_default()
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

    /// Everything of it as resources that may be applied, by kind in the order in which they depend on each other, with
    /// nothing left out.
    #[must_use]
    pub fn resources(&self) -> Vec<Resource> {
        let nodes = self.nodes.values().map(|Peer { name, tunnel_ip, host_mac }| {
            Resource::Node(NodeSpec {
                name: name.clone(),
                address: Some(*tunnel_ip),
                host_mac: Some(*host_mac),
                bridge_mappings: self.bridge_mappings.get(name).cloned(),
            })
        });
        let networks = self.networks.values().map(|Network { name, id, segment, mtu, subnets }| {
            Resource::Network(NetworkSpec {
                name: name.clone(),
                id: Some(*id),
                kind: segment.kind(),
                vni: segment.vni(),
                physical_network: segment.physical_network().cloned(),
                vlan: segment.vlan(),
                mtu: Some(*mtu),
                subnets: subnets.clone(),
            })
        });
        let routers = self.routers.values().map(|RouterView { name, id, netns: _, node, interfaces }| {
            let (distributed, node) = (node.is_none(), node.clone());
            let interfaces = interfaces.iter().map(interface).collect();
            Resource::Router(RouterSpec { name: name.clone(), id: Some(*id), distributed, node, interfaces })
        });
        let ports = self.vms.values().map(|vm| Resource::Port(port(vm)));
        nodes.chain(networks).chain(routers).chain(ports).collect()
    }
}

fn interface(port: &RouterPort) -> InterfaceSpec {
    let RouterPort { id, ifname: _, network, mac, addresses } = port;
    let ips = addresses.iter().map(IpNet::addr).collect();
    InterfaceSpec { network: network.clone(), id: Some(*id), mac: Some(*mac), ips }
}

fn port(vm: &Vm) -> PortSpec {
    let Vm { node, migrating_to, network, port } = vm;
    let PortView { name, id, port: _, mac, addresses, gateways: _, attach, standby: _, .. } = port;
    let PortView { port_security, allowed, claimed, .. } = port;
    let device = match attach {
        Attachment::Netns { .. } => None,
        Attachment::Device { device } => Some(device.clone()),
    };
    PortSpec {
        name: name.clone(),
        id: Some(*id),
        network: network.clone(),
        node: Some(node.clone()),
        migrating_to: migrating_to.clone(),
        mac: Some(*mac),
        ips: addresses.iter().map(IpNet::addr).collect(),
        device,
        allowed_address_pairs: allowed.iter().map(|pair| AddressPair { ip: pair.ip, mac: Some(pair.mac) }).collect(),
        port_security: *port_security,
        claimed: claimed.clone(),
    }
}
