//! A node in memory: the engine with the programs of its view, and ports that keep what is sent.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use dvr::api::switch::{BridgeMode, FlowChange, VlanMode};
use dvr::datapath::{
    DpPort, Egress, HEADROOM, Ingress, NewPort, NewPortKind, Offload, Packet, Switch, TunnelMeta, Worker,
};
use dvr::model::view::{NodeView, PortView, RouterPort, TunnelKind};
use dvr::program::{
    BR_INT, BR_TUN, LEARNED_COOKIE, PATCH_INT, PATCH_TUN, Program, gre_port, local_vlans, physical_networks,
    tunnel_peers_by, vxlan_port,
};
use dvr::types::{IfName, Timestamp, VlanId};
use ipnet::IpNet;

/// The datapath port that all VXLAN tunnels of a node share.
pub(crate) const TUNNELS: DpPort = DpPort(1000);
/// The same of GRE tunnels.
const GRE_TUNNELS: DpPort = DpPort(1001);
/// The datapath port of a node's interface on a physical network.
pub(crate) const WIRE: DpPort = DpPort(1002);
/// Frames one frame may become before it counts as a loop.
pub(crate) const FRAMES_MAX: usize = 100;

/// What a node sent: by which port, in which tunnel.
pub(crate) type Frames = Vec<(DpPort, Option<TunnelMeta>, Vec<u8>)>;

/// Keeps what is sent, and what flows had to say.
#[derive(Default)]
pub(crate) struct Sent(pub(crate) Frames, pub(crate) Vec<Vec<u8>>);

impl Egress for Sent {
    fn transmit(&mut self, port: DpPort, tunnel: Option<&TunnelMeta>, packet: &mut Packet<'_>) {
        self.0.push((port, tunnel.copied(), packet.head().to_vec()));
    }

    fn say(&mut self, said: &Arc<[u8]>) {
        self.1.push(said.to_vec());
    }
}

pub(crate) fn name(text: &str) -> IfName {
    IfName::new(text).expect("a legal name")
}

pub(crate) struct SimNode {
    pub(crate) view: NodeView,
    pub(crate) switch: Mutex<Switch>,
    worker: Worker,
    /// Ports of machines and routers.
    pub(crate) ports: BTreeMap<DpPort, String>,
    pub(crate) vlans: BTreeMap<uuid::Uuid, VlanId>,
}

impl SimNode {
    pub(crate) fn new(view: NodeView) -> Self {
        let vlans = local_vlans(&BTreeMap::new(), view.networks.iter().map(|network| network.id)).expect("few");
        let program = Program::of(&view, &vlans).expect("a good view");
        let mut switch = Switch::new();
        let (br_int, br_tun) = (name(BR_INT), name(BR_TUN));
        let physical = physical_networks(&view);
        let others: Vec<IfName> = physical.keys().map(|physical| physical.bridge()).collect();
        for bridge in [&br_int, &br_tun].into_iter().chain(&others) {
            switch.add_bridge(bridge, BridgeMode::Flow).expect("a new name");
        }
        let mut add = |bridge: &IfName, port: &IfName, kind| {
            let port = NewPort { name: port.clone(), kind, vlan: VlanMode::Trunk, number: None };
            switch.add_port(bridge, port).expect("a new port");
        };
        add(&br_int, &name(PATCH_TUN), NewPortKind::Patch { peer: name(PATCH_INT) });
        add(&br_tun, &name(PATCH_INT), NewPortKind::Patch { peer: name(PATCH_TUN) });
        for (physical, interface) in &physical {
            let bridge = physical.bridge();
            add(&br_int, &physical.int_port(), NewPortKind::Patch { peer: physical.phy_port() });
            add(&bridge, &physical.phy_port(), NewPortKind::Patch { peer: physical.int_port() });
            add(&bridge, interface, NewPortKind::Netdev { dp: WIRE });
        }
        let machines = view.networks.iter().flat_map(|network| &network.local_ports).map(|vm| &vm.port);
        let routers = view.routers.iter().flat_map(|router| &router.interfaces).map(|port| &port.ifname);
        let mut ports = BTreeMap::new();
        for (dp, port) in (1..).map(DpPort).zip(machines.chain(routers)) {
            add(&br_int, port, NewPortKind::Netdev { dp });
            ports.insert(dp, port.to_string());
        }
        for kind in TunnelKind::ALL {
            let needed = tunnel_peers_by(kind, &view);
            for peer in view.peers.iter().filter(|peer| needed.contains(peer.name.as_str())) {
                let (local, remote) = (view.node.tunnel_ip, peer.tunnel_ip);
                let (port, dp) = match kind {
                    TunnelKind::Vxlan => (vxlan_port(remote), TUNNELS),
                    TunnelKind::Gre => (gre_port(remote), GRE_TUNNELS),
                };
                add(&br_tun, &port, NewPortKind::Vxlan { dp, local, remote });
            }
        }
        let flows = program.providers.iter().map(|(physical, flows)| (physical.bridge(), flows));
        for (bridge, flows) in [(br_int, &program.br_int), (br_tun, &program.br_tun)].into_iter().chain(flows) {
            let changes: Vec<FlowChange> = flows.iter().map(|flow| FlowChange::Add(flow.to_string())).collect();
            switch.change_flows(&bridge, &changes, Timestamp::ZERO).unwrap_or_else(|error| panic!("{bridge}: {error}"));
        }
        Self { view, switch: Mutex::new(switch), worker: Worker::new(), ports, vlans }
    }

    pub(crate) fn process(&mut self, ingress: &Ingress, frame: &[u8]) -> Sent {
        let mut room = vec![0; HEADROOM];
        room.extend_from_slice(frame);
        let end = room.len();
        let mut packet = Packet::new(&mut room, HEADROOM, end, &[], Offload::default());
        let mut sent = Sent::default();
        self.worker.process(&self.switch, ingress, &mut packet, Timestamp::from_secs(1), &mut sent);
        sent
    }

    /// The datapath port of a machine's or router's port.
    pub(crate) fn dp(&self, port: &str) -> DpPort {
        *self.ports.iter().find(|(_, name)| *name == port).unwrap_or_else(|| panic!("no port {port}")).0
    }

    /// A machine's port, if it is here.
    pub(crate) fn vm(&self, name: &str) -> Option<&PortView> {
        self.view.networks.iter().flat_map(|network| &network.local_ports).find(|vm| vm.name == name)
    }

    /// The first router's interface on a network.
    pub(crate) fn router(&self, network: &str) -> RouterPort {
        let ports = &self.view.routers[0].interfaces;
        ports.iter().find(|port| port.network == network).expect("the router is on it").clone()
    }

    /// The flows that were learned, on all bridges.
    pub(crate) fn learned(&self) -> Vec<String> {
        let switch = self.switch.lock().expect("no thread panicked");
        let bridges = switch.bridges();
        let dump = |bridge: &IfName| switch.dump_flows(bridge, "", true, Timestamp::ZERO).expect("it is there");
        let flows = bridges.iter().flat_map(|bridge| dump(&bridge.name));
        flows.filter(|flow| flow.cookie == LEARNED_COOKIE).map(|flow| flow.line).collect()
    }
}

/// The first IPv4 address of these.
pub(crate) fn v4(addresses: &[IpNet]) -> Ipv4Addr {
    let found = addresses.iter().find_map(|net| if let IpAddr::V4(ip) = net.addr() { Some(ip) } else { None });
    found.expect("an IPv4 address")
}

/// The first IPv6 address of these.
pub(crate) fn v6(addresses: &[IpNet]) -> Ipv6Addr {
    let found = addresses.iter().find_map(|net| if let IpAddr::V6(ip) = net.addr() { Some(ip) } else { None });
    found.expect("an IPv6 address")
}
