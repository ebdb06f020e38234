//! A bridge of two ports, and a frame to run through it.

use std::hint::black_box;
use std::sync::Mutex;

use dvr::api::switch::{BridgeMode, FlowChange, VlanMode};
use dvr::datapath::{
    DpPort, Egress, HEADROOM, Ingress, NewPort, NewPortKind, Offload, Packet, Switch, TunnelMeta, UpcallLimit, Worker,
};
use dvr::types::{IfName, Mac, Timestamp};
use dvr::wire::{ethernet, ipv4};

/// Counts what is sent.
struct Counter(u64);

impl Egress for Counter {
    fn transmit(&mut self, _: DpPort, _: Option<&TunnelMeta>, packet: &mut Packet<'_>) {
        self.0 += u64::from(black_box(packet.head())[0] | 1);
    }
}

/// A bridge of two ports, a worker, and a 60-octet UDP frame to run through them.
pub(crate) struct Bench {
    pub(crate) switch: Mutex<Switch>,
    pub(crate) worker: Worker,
    egress: Counter,
    room: Vec<u8>,
    now: Timestamp,
}

/// The only one.
pub(crate) fn bridge() -> IfName {
    IfName::new("br").expect("a legal name")
}

impl Bench {
    /// With these flows.
    pub(crate) fn new(flows: impl IntoIterator<Item = String>) -> Self {
        let mut switch = Switch::new();
        switch.add_bridge(&bridge(), BridgeMode::Flow).expect("a new bridge");
        for number in 1..=2 {
            let name = IfName::new(format!("p{number}")).expect("a legal name");
            let kind = NewPortKind::Netdev { dp: DpPort(number) };
            let port = NewPort { name, kind, vlan: VlanMode::Trunk, number: Some(number) };
            switch.add_port(&bridge(), port).expect("a new port");
        }
        let changes: Vec<FlowChange> = flows.into_iter().map(FlowChange::Add).collect();
        switch.change_flows(&bridge(), &changes, Timestamp::ZERO).expect("legal flows");
        let mut room = vec![0; HEADROOM];
        let macs = (Mac::new([2, 0, 0, 0, 0, 2]), Mac::new([2, 0, 0, 0, 0, 1]));
        let header = ethernet::Header::new(macs.0, macs.1, ethernet::TYPE_IPV4);
        room.extend(zerocopy::IntoBytes::as_bytes(&header));
        room.extend([0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, ipv4::PROTOCOL_UDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        room.extend([0, 1, 0, 2, 0, 26, 0, 0]);
        room.extend([0; 18]);
        Self {
            switch: Mutex::new(switch),
            // The time stands still.
            worker: Worker::with_upcall_limit(UpcallLimit::NONE),
            egress: Counter(0),
            room,
            now: Timestamp::from_secs(1),
        }
    }

    /// The frame as it is, by the first port.
    pub(crate) fn run(&mut self) {
        self.run_from(1);
    }

    /// The frame from one of the sources of [`masked`], from a source port that the exact layer has forgotten.
    pub(crate) fn run_masked(&mut self, number: u32, masks: u32) {
        // The source port is looked at by no flow and takes more values than the exact layer has slots.
        let [_, _, high, low] = number.to_be_bytes();
        self.set_source_port([high, low]);
        self.set_source_ip(1 << (31 - number % masks));
        self.run();
    }

    /// The frame as it is, with nothing known of it.
    pub(crate) fn run_missed(&mut self) {
        // Nobody knows this port, but a change of ports leaves no decision standing.
        let switch = self.switch.get_mut().expect("nobody panicked");
        let name = IfName::new("again").expect("a legal name");
        let kind = NewPortKind::Patch { peer: bridge() };
        let port = NewPort { name: name.clone(), kind, vlan: VlanMode::Trunk, number: None };
        switch.add_port(&bridge(), port).expect("a new port");
        switch.del_port(&bridge(), &name).expect("it is there");
        self.run();
    }

    /// The frame from a station of this number.
    pub(crate) fn run_of(&mut self, station: u32) {
        self.set_source(station);
        self.run();
    }

    fn run_from(&mut self, port: u32) {
        let end = self.room.len();
        let mut packet = Packet::new(&mut self.room, HEADROOM, end, &[], Offload::default());
        let ingress = Ingress { port: DpPort(port), tunnel: None };
        self.worker.process(&self.switch, &ingress, &mut packet, self.now, &mut self.egress);
    }

    /// The frame's UDP source port.
    fn set_source_port(&mut self, octets: [u8; 2]) {
        self.room[HEADROOM + 34..HEADROOM + 36].copy_from_slice(&octets);
    }

    /// The frame's source address.
    fn set_source_ip(&mut self, bits: u32) {
        self.room[HEADROOM + 26..HEADROOM + 30].copy_from_slice(&bits.to_be_bytes());
    }

    /// The frame's destination MAC.
    fn set_destination(&mut self, number: u32) {
        self.room[HEADROOM + 2..HEADROOM + 6].copy_from_slice(&number.to_be_bytes());
    }

    /// The frame's source MAC.
    fn set_source(&mut self, number: u32) {
        self.room[HEADROOM + 8..HEADROOM + 12].copy_from_slice(&number.to_be_bytes());
    }
}

impl Bench {
    /// A frame from a station behind port 2.
    pub(crate) fn teach(&mut self, station: u32) {
        self.set_source(station);
        self.set_destination(u32::MAX);
        self.run_from(2);
    }

    /// A frame to a station behind port 2.
    pub(crate) fn ask(&mut self, station: u32) {
        self.set_source(u32::MAX);
        self.set_destination(station);
        self.run_from(1);
    }
}

/// Another source MAC, and out by the second port.
pub(crate) fn rewrite() -> String {
    "priority=1,in_port=1 actions=mod_dl_src:02:00:00:00:00:99,output:2".to_owned()
}

/// Flows of which number `index` is for source addresses that start with `index` zero bits and a one. They are tried in
/// that order, so the packets of each make a megaflow of a mask of its own: one bit longer than the last.
pub(crate) fn masked(masks: u32) -> impl Iterator<Item = String> {
    let flow = |index: u32| {
        let source = std::net::Ipv4Addr::from_bits(1 << (31 - index));
        format!("priority={},in_port=1,ip,nw_src={source}/{} actions=output:2", 1000 - index, index + 1)
    };
    (0..masks).map(flow)
}

/// As many tables, each but the last of which hands on to the next.
pub(crate) fn walked(tables: u32) -> impl Iterator<Item = String> {
    let flow = move |table: u32| match table + 1 == tables {
        true => format!("table={table},udp actions=output:2"),
        false => format!("table={table},priority=1,in_port=1 actions=resubmit(,{})", table + 1),
    };
    (0..tables).map(flow)
}

/// Learns where each source is, and asks nobody about it.
pub(crate) const LEARN: &str = "in_port=1 actions=learn(table=1,hard_timeout=300,priority=1,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),output:2";

/// Neutron's way: what comes by port 2 is learned from into table 20, what comes by port 1 is looked up there.
pub(crate) const LEARNING: [&str; 4] = [
    "table=0,in_port=1 actions=resubmit(,20)",
    "table=0,in_port=2 actions=resubmit(,10)",
    "table=10 actions=learn(table=20,hard_timeout=300,priority=1,NXM_OF_VLAN_TCI[0..11],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:0->NXM_OF_VLAN_TCI[],output:NXM_OF_IN_PORT[]),output:1",
    "table=20,priority=0 actions=output:2",
];
/// Stations known from the start, each with its cache entry.
pub(crate) const STATIONS: u32 = 10_000;
