//! What the engine takes per packet: hits in the cache's two layers, a walk of the tables, learning; and adding flows.
//!
//! `cargo bench --bench engine`. Everything runs in memory, extraction and rewriting included; the egress only counts.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

#[path = "engine/alloc_sys.rs"]
mod alloc_sys;
#[path = "engine/rig.rs"]
mod rig;
#[path = "engine/stream.rs"]
mod stream;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use dvr::api::switch::FlowChange;
use dvr::types::Timestamp;
use rig::{Bench, LEARN, LEARNING, STATIONS, bridge, masked, rewrite, walked};
use stream::{Stream, join};

#[global_allocator]
static ALLOCATOR: alloc_sys::Counting = alloc_sys::Counting;

fn packets(c: &mut Criterion) {
    let mut bench = Bench::new([rewrite()]);
    c.bench_function("exact hit", |b| b.iter(|| bench.run()));

    for masks in [1_u32, 8, 32] {
        let mut bench = Bench::new(masked(masks));
        let mut number = 0_u32;
        c.bench_function(&format!("masked hit, {masks} masks"), |b| {
            b.iter(|| {
                number = number.wrapping_add(1);
                bench.run_masked(number, masks);
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
        let mut bench = Bench::new(walked(tables));
        c.bench_function(&format!("walk, {tables} tables"), |b| b.iter(|| bench.run_missed()));
    }

    c.bench_function("learn a new address", |b| {
        let mut bench = Bench::new([LEARN.to_owned()]);
        let mut number = 0_u32;
        b.iter(|| {
            // Addresses come round again before the table is full.
            number = (number + 1) % 500_000;
            bench.run_of(number);
        });
    });
}

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

/// What tunnels do to streams.
fn streams(c: &mut Criterion) {
    let mut stream = Stream::new();
    c.bench_function("cut 45 segments", |b| b.iter(|| stream.cut()));
    let segments = stream.segments();
    c.bench_function("join 45 segments", |b| b.iter(|| join(&segments)));
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

criterion_group!(benches, packets, streams, revalidation, memory, tables);
criterion_main!(benches);
