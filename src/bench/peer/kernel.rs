//! The kernel's own: on each node a bridge and a vxlan device a network, and the router's namespace.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::datapath::port::within;
use crate::link::kernel::index_of;
use crate::link::{LinkKind, LinkSpec};
use crate::neigh::{self, NeighOp, NeighbourSpec};
use crate::netlink::{self, Connection};
use crate::types::{IfName, Mac, Vni};
use crate::vxlan::{self, DeviceSpec, FdbEntry};

use super::super::addresses::{ELSEWHERE, MTU, Network, Node, Station, VXLAN_PORT, remote_port};
use super::super::scene::{self, WIRE};
use super::super::traffic::End;
use super::super::{Error, bpf, nft, now};

/// The scene, built so.
pub(super) struct Kernel;

/// What puts a node's host MAC for its router's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    NfTables,
    Bpf,
}

impl By {
    /// Has frames that leave by a device of the caller's namespace bear the second address as their source where it was the
    /// first.
    fn rewrite(self, device: &IfName, from: Mac, to: Mac) -> Result<(), Error> {
        match self {
            Self::NfTables => nft::rewrite_source(device, from, to),
            Self::Bpf => bpf::rewrite_source(device, from, to),
        }
    }
}

fn bridge(network: Network) -> Option<IfName> {
    Some(scene::ifname(format!("br-{}", network.name())))
}

fn device(network: Network) -> IfName {
    scene::ifname(format!("vx-{}", network.name()))
}

/// A node's links of its own.
fn links(node: Node) -> Vec<LinkSpec> {
    let mut links = Vec::new();
    for network in Network::ALL {
        let mut floor = LinkSpec::new(scene::ifname(format!("br-{}", network.name())), LinkKind::Bridge);
        floor.mtu = Some(scene::mtu(MTU));
        floor.sysctls = scene::quiet(&floor.name);
        let vni = Vni::new(network.vni()).unwrap_or_else(|bad| unreachable!("a small number: {bad}"));
        let spec = DeviceSpec { vni, local: node.endpoint().into(), udp_port: VXLAN_PORT };
        let mut tunnel = LinkSpec::new(device(network), LinkKind::Vxlan(spec));
        tunnel.mtu = Some(scene::mtu(MTU));
        tunnel.controller = bridge(network);
        tunnel.sysctls = scene::quiet(&tunnel.name);
        let remote = node.other().endpoint().into();
        let machines = Station::ALL.into_iter().filter(|station| station.network == network && station.node != node);
        tunnel.fdb = machines.map(|station| FdbEntry { mac: station.mac(), remote }).collect::<BTreeSet<_>>();
        tunnel.fdb.insert(FdbEntry::flood(remote));
        links.extend([floor, tunnel]);
    }
    links
}

impl Kernel {
    pub(super) fn build(by: By) -> Result<Self, Error> {
        scene::build_underlay()?;
        for node in Node::ALL {
            scene::build_node(node, bridge, links(node))?;
            talk(node.name(), |connection| pin(connection, node))?;
            rewrite(node, by)?;
        }
        Ok(Self)
    }
}

/// Does something with netlink in a namespace.
fn talk(netns: &str, action: impl FnOnce(&mut Connection) -> Result<(), netlink::Error> + Send) -> Result<(), Error> {
    let entered =
        within(Some(&scene::netns_path(netns)), || Ok(Connection::open().and_then(|mut open| action(&mut open))));
    let done = entered.map_err(|error| Error::Scene(error.to_string()))?;
    done.map_err(|error| Error::Scene(format!("entries in {netns}: {error}")))
}

/// Tells a node's bridges where everybody is. They would not learn it: what a router sends for a network enters on one node
/// and comes back on another, so that every frame to it would be flooded.
fn pin(connection: &mut Connection, node: Node) -> Result<(), netlink::Error> {
    for network in Network::ALL {
        let mut known = vec![(scene::router_port(network), network.router_mac())];
        known.extend(Station::ALL.into_iter().filter(|station| station.network == network).map(|station| {
            let here = station.node == node;
            (if here { scene::machine_port(station) } else { device(network) }, station.mac())
        }));
        for (port, mac) in known {
            let index = index_of(connection, &port)?;
            connection.request(pinned(index, mac), NLM_F_CREATE | NLM_F_REPLACE)?;
        }
    }
    Ok(())
}

/// Where ports elsewhere are: behind which node for the vxlan device, behind that device for the bridge.
fn spread(connection: &mut Connection, ports: u32) -> Result<(), netlink::Error> {
    let device = device(Network::Blue);
    let macs = || (0..ports).map(|number| remote_port(number).0);
    let entries: Vec<FdbEntry> = macs().map(|mac| FdbEntry { mac, remote: ELSEWHERE.into() }).collect();
    vxlan::kernel::set(connection, &device, &entries).map_err(|failure| failure.source)?;
    let index = index_of(connection, &device)?;
    let messages = macs().map(|mac| pinned(index, mac));
    connection.batch(messages, NLM_F_CREATE | NLM_F_REPLACE).map_err(|failure| failure.source)
}

/// Has a router know the addresses of ports elsewhere.
fn introduce(connection: &mut Connection, ports: u32) -> Result<(), netlink::Error> {
    let entries = (0..ports).map(remote_port).map(|(mac, ip)| NeighbourSpec { ip: ip.into(), mac }).collect();
    let op = NeighOp::Replace { link: scene::gateway_port(Network::Blue), entries };
    neigh::kernel::execute(connection, &op).map_err(|failure| failure.source)
}

/// `bridge fdb replace MAC dev PORT master static`.
fn pinned(port: u32, mac: Mac) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port;
    message.header.state = NeighbourState::Noarp;
    message.header.flags = NeighbourFlags::Controller;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec())];
    RouteNetlinkMessage::NewNeighbour(message)
}

/// On the wire a router's MAC is its node's; where its frames arrive it is the router's again.
fn rewrite(node: Node, by: By) -> Result<(), Error> {
    let rules = || -> Result<(), Error> {
        for network in Network::ALL {
            by.rewrite(&device(network), network.router_mac(), node.host_mac())?;
        }
        for station in scene::stations_of(node) {
            let back = (node.other().host_mac(), station.network.router_mac());
            by.rewrite(&scene::machine_port(station), back.0, back.1)?;
        }
        Ok(())
    };
    let entered = within(Some(&scene::netns_path(node.name())), || Ok(rules()));
    entered.map_err(|error| Error::Scene(error.to_string()))?
}

impl super::Peer for Kernel {
    fn end(&self, station: Station) -> End {
        scene::end(station)
    }

    fn switches(&self) -> Vec<i32> {
        Vec::new()
    }

    fn wires(&self) -> Vec<(PathBuf, &'static str)> {
        Node::ALL.into_iter().map(|node| (scene::netns_path(node.name()), WIRE)).collect()
    }

    fn forget(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn program(&mut self, ports: u32) -> Result<Option<Duration>, Error> {
        let begun = now();
        for node in Node::ALL {
            talk(node.name(), |connection| spread(connection, ports))?;
            talk(scene::router_netns(node), |connection| introduce(connection, ports))?;
        }
        Ok(Some(begun.elapsed()))
    }
}
