//! What the engine takes per packet: hits in the cache's two layers, a walk of the tables, learning; and adding flows.
//!
//! `cargo bench --bench engine`. Everything runs in memory, extraction and rewriting included; the egress only counts.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::hint::black_box;
use std::sync::Mutex;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use dvr::api::switch::{BridgeMode, FlowChange, VlanMode};
use dvr::datapath::{
    DpPort, Egress, HEADROOM, Ingress, NewPort, NewPortKind, Offload, Packet, Switch, TunnelMeta, Worker,
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
struct Bench {
    switch: Mutex<Switch>,
    worker: Worker,
    egress: Counter,
    room: Vec<u8>,
    now: Timestamp,
}

fn bridge() -> IfName {
    IfName::new("br").expect("a legal name")
}

impl Bench {
    fn new(flows: impl IntoIterator<Item = String>) -> Self {
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
            worker: Worker::new(),
            egress: Counter(0),
            room,
            now: Timestamp::from_secs(1),
        }
    }

    fn run(&mut self) {
        let end = self.room.len();
        let mut packet = Packet::new(&mut self.room, HEADROOM, end, &[], Offload::default());
        let ingress = Ingress { port: DpPort(1), tunnel: None };
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

    /// The frame's source MAC.
    fn set_source(&mut self, number: u32) {
        self.room[HEADROOM + 8..HEADROOM + 12].copy_from_slice(&number.to_be_bytes());
    }
}

fn rewrite() -> String {
    "priority=1,in_port=1 actions=mod_dl_src:02:00:00:00:00:99,output:2".to_owned()
}

/// Flows of which number `index` is for source addresses that start with `index` zero bits and a one. They are tried in
/// that order, so the packets of each make a megaflow of a mask of its own: one bit longer than the last.
fn masked(masks: u32) -> impl Iterator<Item = String> {
    let flow = |index: u32| {
        let source = std::net::Ipv4Addr::from_bits(1 << (31 - index));
        format!("priority={},in_port=1,ip,nw_src={source}/{} actions=output:2", 1000 - index, index + 1)
    };
    (0..masks).map(flow)
}

fn packets(c: &mut Criterion) {
    let mut bench = Bench::new([rewrite()]);
    c.bench_function("exact hit", |b| b.iter(|| bench.run()));

    for masks in [1_u32, 8, 32] {
        let mut bench = Bench::new(masked(masks));
        let mut number = 0_u32;
        c.bench_function(&format!("masked hit, {masks} masks"), |b| {
            b.iter(|| {
                // The source port is looked at by no flow and takes more values than the exact layer has slots.
                number = number.wrapping_add(1);
                let [_, _, high, low] = number.to_be_bytes();
                bench.set_source_port([high, low]);
                bench.set_source_ip(1 << (31 - number % masks));
                bench.run();
            });
        });
        let counters = bench.worker.counters();
        assert_eq!(counters.masks, u64::from(masks), "each flow made a mask");
        assert!(counters.masked_hits > 100 * counters.exact_hits, "the exact layer stayed out of it: {counters:?}");
    }

    let tables = (0..10).map(|table| format!("table={table},priority=1,in_port=1 actions=resubmit(,{})", table + 1));
    let mut bench = Bench::new(tables.chain(["table=10,udp actions=output:2".to_owned()]));
    c.bench_function("walk of 11 tables", |b| {
        b.iter(|| {
            // A cache that knows nothing: every packet is a miss.
            bench.worker = Worker::new();
            bench.run();
        });
    });

    let learn = "in_port=1 actions=learn(table=1,hard_timeout=300,priority=1,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[]),output:2";
    c.bench_function("learn a new address", |b| {
        let mut bench = Bench::new([learn.to_owned()]);
        let mut number = 0_u32;
        b.iter(|| {
            // Addresses come round again before the table is full.
            number = (number + 1) % 500_000;
            bench.set_source(number);
            bench.run();
        });
    });
}

fn tables(c: &mut Criterion) {
    let flow = |number: u32| {
        let [_, b, c, d] = number.to_be_bytes();
        let vlan = number % 4000 + 1;
        FlowChange::Add(format!(
            "table=20,priority=2,dl_vlan={vlan},dl_dst=fa:16:3e:{b:02x}:{c:02x}:{d:02x} actions=strip_vlan,set_tunnel:{number:#x},output:2"
        ))
    };
    let changes: Vec<FlowChange> = (1..=100_000).map(flow).collect();
    let mut group = c.benchmark_group("tables");
    group.sample_size(10);
    group.bench_function("add 100,000 flows, from text", |b| {
        b.iter_batched(
            || Bench::new([]),
            |bench| {
                let mut switch = bench.switch.lock().expect("nobody panicked");
                switch.change_flows(&bridge(), &changes, Timestamp::ZERO).expect("legal flows");
                drop(switch);
                bench
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, packets, tables);
criterion_main!(benches);
