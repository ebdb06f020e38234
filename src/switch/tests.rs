//! A whole switch but for its process: socket, workers, engine and tunnel, on loopback, as any user.

use core::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::PathBuf;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::de::DeserializeOwned;

use super::*;
use crate::api::VERSION;
use crate::api::switch::{BridgeMode, FlowChange, Hello, PortConfig, PortKind, Request, Show, VlanMode};
use crate::control::{Client, ControlError};
use crate::datapath::DropReason;
use crate::datapath::port::vxlan::{self, Endpoint, Sender};
use crate::datapath::port::{Batch, Tally};
use crate::datapath::{HEADROOM, Offload, Packet, TunnelMeta};
use crate::types::IfName;

struct Fixture {
    directory: PathBuf,
    client: Client,
    stopper: control::Stopper,
    links: Arc<[WorkerLink]>,
    threads: Vec<JoinHandle<()>>,
}

impl Fixture {
    fn new(test: &str, workers: usize) -> Self {
        let directory = std::env::temp_dir().join(format!("dvr-switch-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("the temporary directory is writable");
        let watch = Watch::new().expect("a descriptor");
        let shared = Arc::new(Shared::new(LIMIT_FLOWS, workers, true, watch));
        let spawned = (0..workers).map(|index| worker::spawn(index, &shared).expect("a worker starts"));
        let (links, mut threads): (Vec<_>, Vec<_>) = spawned.unzip();
        let links: Arc<[WorkerLink]> = links.into();
        let service = Arc::new(SwitchService::new(shared, Arc::clone(&links)));
        let socket = directory.join("switch.sock");
        let server = Server::bind(&socket).expect("nobody else is here");
        let stopper = server.stopper();
        threads.push(thread::spawn(move || server.serve(&service).expect("accepting works")));
        let mut client = Client::connect(&socket, Duration::from_secs(60)).expect("it listens");
        let hello: Hello = client.call(&Request::Hello { version: VERSION }).expect("it answers");
        assert_eq!(hello.workers, workers);
        Self { directory, client, stopper, links, threads }
    }

    fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> T {
        self.client.call(request).expect("it does as asked")
    }

    fn code(&mut self, request: &Request) -> String {
        match self.client.call::<_, serde::de::IgnoredAny>(request) {
            Err(ControlError::Refused { refusal, .. }) => refusal.code,
            other => panic!("{request:?} was answered {other:?}"),
        }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stopper.stop();
        self.links.iter().for_each(WorkerLink::stop);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "a thread of the switch panicked");
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn name(text: &str) -> IfName {
    text.parse().expect("a legal name")
}

/// 127.x.y.`host`, of this process and test alone, and its port.
fn place(test: u8, host: u8) -> (IpAddr, u16) {
    let [.., high, low] = std::process::id().to_be_bytes();
    (Ipv4Addr::new(127, test, high ^ 0xaa, host).into(), 21_000 + u16::from(low))
}

fn tunnel(test: u8, port: &str, remote: u8) -> Request {
    let ((local, udp_port), (remote, _)) = (place(test, 1), place(test, remote));
    let port = PortConfig {
        name: name(port),
        kind: PortKind::Vxlan { remote, local, udp_port },
        vlan: VlanMode::Trunk,
        router: None,
    };
    Request::AddPort { bridge: name("br"), port }
}

fn bridge(mode: BridgeMode) -> Request {
    Request::AddBridge { bridge: name("br"), mode }
}

struct Nothing;

impl Tally for Nothing {
    fn settle(&self, _: IpAddr, result: Result<(), DropReason>, _: u64, _: usize) {
        result.expect("loopback takes it");
    }
}

/// Another node's endpoint.
struct Peer(Endpoint);

impl Peer {
    fn new(test: u8, host: u8) -> Self {
        let (local, udp_port) = place(test, host);
        Self(vxlan::open(None, local, udp_port, 1).expect("loopback takes any 127 address").remove(0))
    }

    fn send(&self, to: IpAddr, id: u64, frame: &[u8]) {
        let mut sender = Sender::new(&self.0);
        let mut room = [&[0; HEADROOM], frame].concat();
        let end = room.len();
        let meta = TunnelMeta { id, src: self.0.local, dst: to, tos: 0, ttl: 0 };
        sender.send(&self.0, &meta, &mut Packet::new(&mut room, HEADROOM, end, &[], Offload::default()), &Nothing);
        sender.flush(&self.0, &Nothing);
    }

    fn receive(&self) -> (u64, IpAddr, Vec<u8>) {
        let mut waiting = [PollFd::new(self.0.receive.as_fd(), PollFlags::POLLIN)];
        assert!(poll(&mut waiting, PollTimeout::from(20_000_u16)).expect("a good descriptor") > 0, "nothing came");
        let mut got = None;
        vxlan::read(&self.0, &mut Batch::default(), |arrival| {
            let (meta, packet) = arrival.expect("a frame");
            got = Some((meta.id, meta.src, packet.head().to_vec()));
        });
        got.expect("poll said so")
    }
}

const FRAME: &[u8] = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x88\xb5 some experiment's payload, long enough for all";

#[test]
fn a_frame_goes_by_the_flows_and_is_counted_at_its_tunnels() {
    for workers in [1, 2] {
        let test = 10 + u8::try_from(workers).expect("few");
        let mut switch = Fixture::new(&format!("flows{workers}"), workers);
        switch.ask::<()>(&bridge(BridgeMode::Flow));
        switch.ask::<()>(&bridge(BridgeMode::Flow));
        assert_eq!(switch.code(&bridge(BridgeMode::Normal)), "exists");
        let (one, two) = (switch.ask::<u32>(&tunnel(test, "one", 2)), switch.ask::<u32>(&tunnel(test, "two", 3)));
        assert_eq!(switch.ask::<u32>(&tunnel(test, "one", 2)), one, "the same again is kept");
        assert_eq!(switch.code(&tunnel(test, "one", 4)), "exists");
        let flow = format!("in_port={one},tun_id=5,actions=set_tunnel:9,output:{two}");
        let changes = vec![FlowChange::Add(flow)];
        assert_eq!(switch.ask::<usize>(&Request::Flows { bridge: name("br"), changes }), 1);

        let (left, right, stranger) = (Peer::new(test, 2), Peer::new(test, 3), Peer::new(test, 4));
        let here = place(test, 1).0;
        // Of three frames one is of another network, and one of a node no port stands for.
        stranger.send(here, 5, FRAME);
        left.send(here, 6, FRAME);
        left.send(here, 5, FRAME);
        assert_eq!(right.receive(), (9, here, FRAME.to_vec()));

        // What the other endpoint has may still be on its way to the counters.
        let begun = crate::clock::monotonic();
        let mut show: Show = switch.ask(&Request::Show);
        while show.bridges[0].ports[1].counters.tx_packets == 0 {
            assert!(crate::clock::monotonic().since(begun) < Duration::from_secs(60), "{show:?}");
            show = switch.ask(&Request::Show);
        }
        let ports = &show.bridges[0].ports;
        let octets = u64::try_from(FRAME.len()).expect("few");
        assert_eq!((ports[1].counters.tx_packets, ports[1].counters.tx_bytes), (1, octets));
        assert!(ports[0].counters.rx_packets >= 1 && ports[1].counters.rx_packets == 0, "{show:?}");
        assert!(ports.iter().all(|port| port.fault.is_none()));
    }
}

#[test]
fn a_tunnel_goes_and_frees_its_endpoint_with_the_last_of_them() {
    let mut switch = Fixture::new("gone", 1);
    let (local, udp_port) = place(20, 1);
    let open = || vxlan::open(None, local, udp_port, 1);
    assert_eq!(switch.code(&tunnel(20, "one", 2)), "unknown-bridge");
    drop(open().expect("what is refused leaves nothing open"));
    switch.ask::<()>(&bridge(BridgeMode::Normal));
    let number = switch.ask::<u32>(&tunnel(20, "one", 2));
    switch.ask::<u32>(&tunnel(20, "two", 3));
    let del = |port| Request::DelPort { bridge: name("br"), port: name(port) };
    switch.ask::<()>(&del("two"));
    assert_eq!(switch.code(&del("two")), "unknown-port");
    assert!(open().is_err(), "tunnel one is there");
    switch.ask::<()>(&Request::DelBridge { bridge: name("br") });
    drop(open().expect("the last tunnel is gone"));
    assert!(switch.ask::<Show>(&Request::Show).bridges.is_empty());
    switch.ask::<()>(&bridge(BridgeMode::Normal));
    assert_eq!(switch.ask::<u32>(&tunnel(20, "one", 2)), number, "all begins anew");
}

/// Input: a packet that may not be fragmented, while less passes to its tunnel's endpoint, and then while more does. Output:
/// its sender is told what passes; then it goes.
#[test]
fn what_does_not_pass_is_answered() {
    let mut switch = Fixture::new("passing", 1);
    switch.ask::<()>(&bridge(BridgeMode::Flow));
    let (one, two) = (switch.ask::<u32>(&tunnel(30, "one", 2)), switch.ask::<u32>(&tunnel(30, "two", 3)));
    let add = |from, key, to| FlowChange::Add(format!("in_port={from},actions=set_tunnel:{key},output:{to}"));
    let changes = vec![add(one, 9, two), add(two, 5, one)];
    assert_eq!(switch.ask::<usize>(&Request::Flows { bridge: name("br"), changes }), 2);
    let (left, right, here) = (Peer::new(30, 2), Peer::new(30, 3), place(30, 1).0);
    let header = b"\x02\0\0\0\0\x01\x02\0\0\0\0\x02\x08\0\x45\0\0\x79\0\0\x40\0\x40\x11\0\0\x0a\0\0\x01\x0a\0\0\x02";
    let frame = [&header[..], &[7; 101]].concat();
    let mut pass = |octets: &[u32]| {
        let octets: BTreeMap<IpAddr, u32> = octets.iter().map(|octets| (right.0.local, *octets)).collect();
        switch.ask::<()>(&Request::Passing { octets: octets.clone() });
        // What is shown comes from the workers, after all that they were told before.
        let show: Show = switch.ask(&Request::Show);
        assert_eq!(show.passing, octets);
        show.drops.get("port-too-big").copied()
    };
    assert_eq!(pass(&[170]), None);
    left.send(here, 5, &frame);
    let (key, from, told) = left.receive();
    // "Fragmentation needed", to 170 less what the tunnel takes.
    assert_eq!((key, from, &told[34..36], &told[40..42]), (5, here, &[3, 4][..], &[0, 120][..]));
    assert_eq!(told[..12], [&header[6..12], &header[..6]].concat());
    assert_eq!(pass(&[171]), Some(1));
    left.send(here, 5, &frame);
    assert_eq!(right.receive(), (9, here, frame.clone()));
    pass(&[]);
    let octets = (0..=4_096).map(|at| (Ipv4Addr::from_bits(at).into(), 1_000)).collect();
    assert_eq!(switch.code(&Request::Passing { octets }), "limit");
}
