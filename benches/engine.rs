//! What the engine takes per packet: hits in the cache's two layers, a walk of the tables, learning; and adding flows.
//!
//! `cargo bench --bench engine`. Everything runs in memory, extraction and rewriting included; the egress only counts.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

#[path = "engine/alloc_sys.rs"]
mod alloc_sys;

use std::hint::black_box;
use std::sync::Mutex;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use dvr::api::switch::{BridgeMode, FlowChange, VlanMode};
use dvr::datapath::{
    DpPort, Egress, HEADROOM, Ingress, NewPort, NewPortKind, Offload, Packet, Switch, TunnelMeta, Worker,
};
use dvr::types::{IfName, Mac, Timestamp};
use dvr::wire::{ethernet, ipv4};

#[global_allocator]
static ALLOCATOR: alloc_sys::Counting = alloc_sys::Counting;

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
        self.run_from(1);
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
        if counters.misses == 0 {
            // Not asked for by the command line's filter.
            continue;
        }
        assert_eq!(counters.masks, u64::from(masks), "each flow made a mask");
        assert!(counters.masked_hits > 100 * counters.exact_hits, "the exact layer stayed out of it: {counters:?}");
    }

    for tables in [1_u32, 10] {
        let flow = |table: u32| match table + 1 == tables {
            true => format!("table={table},udp actions=output:2"),
            false => format!("table={table},priority=1,in_port=1 actions=resubmit(,{})", table + 1),
        };
        let mut bench = Bench::new((0..tables).map(flow));
        c.bench_function(&format!("walk, {tables} tables"), |b| {
            b.iter(|| {
                // Nobody knows this port, but a change of ports leaves no decision standing: every packet is a miss.
                let switch = bench.switch.get_mut().expect("nobody panicked");
                let name = IfName::new("again").expect("a legal name");
                let kind = NewPortKind::Patch { peer: bridge() };
                switch
                    .add_port(&bridge(), NewPort { name: name.clone(), kind, vlan: VlanMode::Trunk, number: None })
                    .expect("a new port");
                switch.del_port(&bridge(), &name).expect("it is there");
                bench.run();
            });
        });
    }

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

/// Neutron's way: what comes by port 2 is learned from into table 20, what comes by port 1 is looked up there.
const LEARNING: [&str; 4] = [
    "table=0,in_port=1 actions=resubmit(,20)",
    "table=0,in_port=2 actions=resubmit(,10)",
    "table=10 actions=learn(table=20,hard_timeout=300,priority=1,NXM_OF_VLAN_TCI[0..11],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:0->NXM_OF_VLAN_TCI[],output:NXM_OF_IN_PORT[]),output:1",
    "table=20,priority=0 actions=output:2",
];
/// Stations known from the start, each with its cache entry.
const STATIONS: u32 = 10_000;

/// Traffic to many stations while others are learned: once for so many packets.
fn revalidation(c: &mut Criterion) {
    let mut group = c.benchmark_group("10,000 entries in use");
    for (name, flows) in [("learn()", &LEARNING[..]), ("NORMAL", &["actions=NORMAL"])] {
        for every in [u32::MAX, 1_000, 100] {
            let mut bench = Bench::new(flows.iter().map(|flow| (*flow).to_owned()));
            for station in 0..STATIONS {
                bench.teach(station);
            }
            for _ in 0..2 {
                (0..STATIONS).for_each(|station| bench.ask(station));
            }
            let (mut sent, mut learned) = (0_u32, STATIONS);
            let rate = if every == u32::MAX { "nothing learned".to_owned() } else { format!("one learned in {every}") };
            group.bench_function(format!("{name}, {rate}"), |b| {
                b.iter(|| {
                    sent = sent.wrapping_add(1);
                    if sent.is_multiple_of(every) {
                        // What is learned comes round again long before a table is full.
                        learned = STATIONS + (learned + 1 - STATIONS) % 100_000;
                        bench.teach(learned);
                    }
                    bench.ask(sent.wrapping_mul(7_919) % STATIONS);
                });
            });
        }
    }
    group.finish();
}

impl Bench {
    /// A frame from a station behind port 2.
    fn teach(&mut self, station: u32) {
        self.set_source(station);
        self.set_destination(u32::MAX);
        self.run_from(2);
    }

    /// A frame to a station behind port 2.
    fn ask(&mut self, station: u32) {
        self.set_source(u32::MAX);
        self.set_destination(station);
        self.run_from(1);
    }
}

/// Flows of the bench of many.
const FLOWS: u32 = 100_000;

/// A flow as Neutron has one a station.
fn unicast(number: u32) -> String {
    let [_, b, c, d] = number.to_be_bytes();
    let vlan = number % 4000 + 1;
    format!(
        "table=20,priority=2,dl_vlan={vlan},dl_dst=fa:16:3e:{b:02x}:{c:02x}:{d:02x} actions=strip_vlan,set_tunnel:{number:#x},output:2"
    )
}

fn tables(c: &mut Criterion) {
    let changes: Vec<FlowChange> = (1..=FLOWS).map(|number| FlowChange::Add(unicast(number))).collect();
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

/// Octets of the heap that a flow and a cache entry take.
fn memory(_: &mut Criterion) {
    let before = alloc_sys::held();
    let bench = Bench::new((1..=FLOWS).map(unicast));
    let flow = (alloc_sys::held() - before) / FLOWS as usize;
    drop(bench);
    let mut bench = Bench::new(LEARNING.iter().map(|flow| (*flow).to_owned()));
    (0..STATIONS).for_each(|station| bench.teach(station));
    let (held, entries) = (alloc_sys::held(), bench.worker.counters().entries);
    (0..STATIONS).for_each(|station| bench.ask(station));
    let entries = usize::try_from(bench.worker.counters().entries - entries).expect("few");
    let entry = (alloc_sys::held() - held) / entries;
    println!("memory: {flow} octets a flow (of {FLOWS}, texts not kept), {entry} a cache entry (of {entries})");
}

criterion_group!(benches, packets, revalidation, memory, tables);
criterion_main!(benches);
