//! Packets past a router's namespace, and packets that come by a tunnel.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Mutex;

use dvr::api::switch::{BridgeMode, FlowChange, RouterInterface, VlanMode};
use dvr::datapath::router::{RouterLink, RouterModel, RouterRoute};
use dvr::datapath::{
    DpPort, Egress, HEADROOM, Ingress, NewPort, NewPortKind, Offload, Packet, Switch, TunnelMeta, Worker,
};
use dvr::types::{IfName, Mac, Timestamp};
use dvr::wire::{checksum, ipv4};

/// The last to which a frame was sent, and its first octets.
struct Sent {
    port: u32,
    head: [u8; 34],
}

impl Egress for Sent {
    fn transmit(&mut self, port: DpPort, _: Option<&TunnelMeta>, packet: &mut Packet<'_>) {
        self.port = black_box(port.0);
        self.head.copy_from_slice(&packet.head()[..34]);
    }
}

/// A bridge with a machine at port 1, the two interfaces of a router at 2 and 3, another machine at 4, and a tunnel at 5.
pub(crate) struct Past {
    switch: Mutex<Switch>,
    worker: Worker,
    sent: Sent,
    frame: Vec<u8>,
}

fn name(text: &str) -> IfName {
    IfName::new(text).expect("a legal name")
}

const fn mac(last: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, last])
}

/// The router: a network on each interface, and the station it is asked for.
fn model() -> RouterModel {
    let link = |index: u8| RouterLink {
        name: name(&format!("p{index}")),
        mac: mac(index),
        mtu: 1500,
        mtu6: 1500,
        works: true,
        forwards4: true,
        forwards6: true,
    };
    let links = [(2, link(2)), (3, link(3))].into_iter().collect();
    let route = |prefix: &str, index: u32, local: bool| RouterRoute {
        local,
        prefix: prefix.parse().expect("legal"),
        way: Some((index, None)),
    };
    let routes = [
        route("10.1.0.1/32", 2, true),
        route("10.2.0.1/32", 3, true),
        route("10.1.0.0/24", 2, false),
        route("10.2.0.0/24", 3, false),
    ];
    let neighbours = BTreeMap::from([((3, [10, 2, 0, 9].into()), mac(9))]);
    RouterModel::new(links, &routes, neighbours).expect("a router that forwards")
}

impl Past {
    pub(crate) fn new() -> Self {
        let mut switch = Switch::new();
        let bridge = name("br");
        switch.add_bridge(&bridge, BridgeMode::Flow).expect("a new bridge");
        let netdev = |number: u32| NewPortKind::Netdev { dp: DpPort(number) };
        let tunnel =
            NewPortKind::Vxlan { dp: DpPort(5), local: [172, 16, 0, 1].into(), remote: [172, 16, 0, 2].into() };
        for (number, kind) in (1..=4).map(|number| (number, netdev(number))).chain([(5, tunnel)]) {
            let port = NewPort { name: name(&format!("p{number}")), kind, vlan: VlanMode::Trunk, number: Some(number) };
            switch.add_port(&bridge, port).expect("a new port");
        }
        let netns = PathBuf::from("/run/netns/qrouter-bench");
        for ifname in ["p2", "p3"].map(name) {
            let interface = RouterInterface { netns: netns.clone(), ifname: ifname.clone() };
            switch.set_router(&bridge, &ifname, &interface).expect("a port");
        }
        switch.observe_router(&netns, Ok(model()));
        let flows = [
            "in_port=1,dl_dst=02:00:00:00:00:02 actions=output:2",
            "in_port=3,dl_dst=02:00:00:00:00:09 actions=output:4",
            "in_port=5,tun_id=7 actions=output:4",
        ];
        let changes: Vec<FlowChange> = flows.map(|flow| FlowChange::Add(flow.to_owned())).to_vec();
        switch.change_flows(&bridge, &changes, Timestamp::ZERO).expect("legal flows");
        let mut ip = vec![0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, ipv4::PROTOCOL_UDP, 0, 0, 10, 1, 0, 2, 10, 2, 0, 9];
        let sum = checksum::of(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let frame =
            [&mac(2).octets()[..], &mac(8).octets(), &[8, 0], &ip, &[0, 1, 0, 2, 0, 26, 0, 0], &[0; 18]].concat();
        Self { switch: Mutex::new(switch), worker: Worker::new(), sent: Sent { port: 0, head: [0; 34] }, frame }
    }

    fn run(&mut self, ingress: &Ingress) {
        let mut room = [0; HEADROOM + 60];
        room[HEADROOM..].copy_from_slice(&self.frame);
        let mut packet = Packet::new(&mut room, HEADROOM, HEADROOM + 60, &[], Offload::default());
        self.worker.process(&self.switch, ingress, &mut packet, Timestamp::from_secs(1), &mut self.sent);
    }

    /// The frame from the machine to its router, and on.
    pub(crate) fn routed(&mut self) {
        self.run(&Ingress { port: DpPort(1), tunnel: None });
        // It has been past the router, not into its namespace.
        assert!(self.sent.port == 4 && self.sent.head[22] == 63, "port {}", self.sent.port);
    }

    /// The frame from another node.
    pub(crate) fn tunnelled(&mut self) {
        let meta = TunnelMeta { id: 7, src: [172, 16, 0, 2].into(), dst: [172, 16, 0, 1].into(), tos: 0, ttl: 64 };
        self.run(&Ingress { port: DpPort(5), tunnel: Some(meta) });
        assert!(self.sent.port == 4, "port {}", self.sent.port);
    }
}
