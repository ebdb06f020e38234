//! What desired state costs at scale: 1,000 nodes, 500 networks, 100 routers, 100,000 ports, every network on twenty
//! nodes or so. Loading all of it, one port more, and a node's whole view.
//!
//! `cargo bench --bench fabric`.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use dvr::model::resource::{InterfaceSpec, NetworkSpec, NodeSpec, PortSpec, RouterSpec};
use dvr::model::view::SubnetView;
use dvr::model::{Change, Edit, Fabric, Object, Resource, Underlay};
use dvr::placement::Live;

const NODES: usize = 1_000;
const NETWORKS: usize = 500;
const ROUTERS: usize = 100;
const PORTS: usize = 100_000;
/// Nodes that host a network's ports.
const SPREAD: usize = 20;

fn port(number: usize) -> Resource {
    let network = number % NETWORKS;
    let node = (network * 7 + number / NETWORKS % SPREAD * 31) % NODES;
    Resource::Port(PortSpec {
        name: format!("vm{number}"),
        id: None,
        network: format!("net{network}"),
        node: Some(format!("node{node}")),
        migrating_to: None,
        mac: None,
        ips: Vec::new(),
        device: None,
        allowed_address_pairs: Vec::new(),
        port_security: true,
        claimed: Vec::new(),
    })
}

fn resources() -> Vec<Resource> {
    let node = |n| Resource::Node(NodeSpec { name: format!("node{n}"), ..NodeSpec::default() });
    let network = |n: usize| {
        let cidr = format!("10.{}.{}.0/22", n / 64, n % 64 * 4).parse().expect("a legal prefix");
        let subnets = vec![SubnetView { cidr, gateway: None, advertise: None }];
        Resource::Network(NetworkSpec { name: format!("net{n}"), subnets, ..NetworkSpec::default() })
    };
    let router = |n: usize| {
        let joined = |network| InterfaceSpec { network: format!("net{network}"), ..InterfaceSpec::default() };
        let interfaces = (n * 5..n * 5 + 5).map(joined).collect();
        Resource::Router(RouterSpec { name: format!("r{n}"), id: None, distributed: true, node: None, interfaces })
    };
    let (nodes, networks) = ((0..NODES).map(node), (0..NETWORKS).map(network));
    nodes.chain(networks).chain((0..ROUTERS).map(router)).chain((0..PORTS).map(port)).collect()
}

fn empty() -> Fabric {
    let cidr = "172.16.0.0/16".parse().expect("a legal prefix");
    Fabric::new(Underlay { cidr, ..Underlay::default() })
}

fn loaded(resources: &[Resource]) -> (Fabric, Live) {
    let mut fabric = empty();
    for resource in resources {
        fabric.put(resource.clone());
    }
    let live = Live::of(&fabric);
    (fabric, live)
}

fn scale(criterion: &mut Criterion) {
    let edits: Vec<Edit> = resources().into_iter().map(Edit::put).collect();
    let planned = |edits: &[Edit]| empty().plan(edits).expect("a sound fabric");
    let stored: Vec<Resource> = planned(&edits)
        .into_iter()
        .filter_map(|change| match change {
            Change::Put(resource) => Some(resource),
            Change::Delete(_) => None,
        })
        .collect();
    let mut group = criterion.benchmark_group("fabric");
    group.sample_size(10);
    group.bench_function("plan all at once", |bench| bench.iter(|| black_box(planned(&edits))));
    group.bench_function("load all and place it", |bench| bench.iter(|| black_box(loaded(&stored))));
    group.finish();

    let (mut fabric, mut live) = loaded(&stored);
    criterion.bench_function("fabric/plan one port", |bench| {
        let edit = [Edit::put(port(PORTS))];
        bench.iter(|| black_box(fabric.plan(&edit)));
    });
    let planned = fabric.plan(&[Edit::put(port(PORTS))]).expect("there is room");
    criterion.bench_function("fabric/put and remove one port", |bench| {
        let object = Object::new(dvr::model::Kind::Port, format!("vm{PORTS}"));
        bench.iter(|| {
            planned.iter().for_each(|change| drop(black_box(fabric.change(change.clone()))));
            black_box(fabric.remove(&object))
        });
    });
    criterion.bench_function("live/tell of one port and of its end", |bench| {
        let object = Object::new(dvr::model::Kind::Port, format!("vm{PORTS}"));
        bench.iter(|| {
            for change in &planned {
                let touched = fabric.change(change.clone());
                black_box(live.change(&fabric, &touched));
            }
            let touched = fabric.remove(&object);
            black_box(live.change(&fabric, &touched))
        });
    });
    criterion.bench_function("live/view of one node", |bench| bench.iter(|| black_box(live.view(&fabric, "node7"))));
}

criterion_group!(benches, scale);
criterion_main!(benches);
