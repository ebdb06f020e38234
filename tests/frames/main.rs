//! Mutated frames through a whole node: no panic, and every frame is sent or its refusal counted by name.
//!
//! ```text
//!  octets ─▶ frame::read ─────┐                            ┌─▶ frame::write
//!                             ├─▶ Worker::process ─▶ Egress┤
//!  octets ─▶ vxlan::read ─────┘   br-int, br-tun of node1  └─▶ Segments, complete
//! ```
//! Machines' frames come with a virtio header that may lie, tunnels' as datagrams over loopback. `DVR_FRAMES` says how
//! many: 200,000 unless told otherwise.

#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod corpus;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Mutex;

use dvr::api::switch::{BridgeMode, FlowChange, VlanMode};
use dvr::datapath::offload::{HEADER_LIMIT, Segments, complete};
use dvr::datapath::port::{BUFFER_LEN, Batch, Ready, frame, vxlan};
use dvr::datapath::{
    Checksum, DpPort, DropReason, Egress, Ingress, NewPort, NewPortKind, Packet, Switch, TunnelMeta, Worker,
};
use dvr::model::Topology;
use dvr::model::view::NodeView;
use dvr::placement;
use dvr::program::{Program, local_vlans, tunnel_peers, vxlan_port};
use dvr::types::{IfName, Timestamp};
use dvr::wire::vxlan as vxlan_header;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use corpus::{Corpus, Random, next_of_flow};

/// Frames without `DVR_FRAMES`.
const FRAMES: u64 = 200_000;
/// The datapath port all tunnels share.
const TUNNELS: DpPort = DpPort(1000);
/// A datapath port that belongs to no bridge.
const STRANGER: DpPort = DpPort(77);
/// Frames in a virtual second: after each, statistics are pushed and what is old is forgotten.
const FRAMES_A_SECOND: u64 = 1000;
/// Drop reasons that say what else happened to a frame that went on.
const REMARKS: [DropReason; 2] = [DropReason::LearnLimit, DropReason::FdbFull];

/// Takes what is sent as the ports do: tunnels cut and finish, machines get octets with a header.
struct Wires {
    /// Copies of the frame at hand.
    copies: u64,
    /// All copies.
    sent: u64,
    lost: BTreeMap<&'static str, u64>,
    header: [u8; HEADER_LIMIT],
    pair: (UnixDatagram, UnixDatagram),
    drain: Vec<u8>,
}

impl Wires {
    fn lose(&mut self, reason: DropReason) {
        assert!(DropReason::ALL.contains(&reason));
        *self.lost.entry(reason.name()).or_default() += 1;
    }

    fn tunnel(&mut self, packet: &mut Packet<'_>) {
        match Segments::of(packet) {
            Ok(Some(segments)) => {
                let header = &mut self.header[..segments.header_len()];
                let mut carried = 0;
                for index in 0..segments.count() {
                    segments.cut(packet, index, header, |piece| carried += piece.len());
                }
                assert_eq!(carried + segments.header_len(), packet.len(), "every octet of payload in one segment");
            }
            Ok(None) if complete(packet).is_err() => self.lose(DropReason::BadOffload),
            Ok(None) => assert!(!matches!(packet.offload.checksum, Checksum::Partial { .. })),
            Err(_) => self.lose(DropReason::Uncuttable),
        }
    }
}

impl Egress for Wires {
    fn transmit(&mut self, _: DpPort, tunnel: Option<&TunnelMeta>, packet: &mut Packet<'_>) {
        self.copies += 1;
        self.sent += 1;
        assert!(packet.head().len() >= 14, "headers are never cut off");
        if tunnel.is_some() {
            self.tunnel(packet);
        } else if self.sent.is_multiple_of(8) {
            match frame::write(&self.pair.0, packet) {
                Ok(()) => {
                    let read = self.pair.1.recv(&mut self.drain).expect("it was written");
                    assert_eq!(read, packet.len() + 10);
                }
                Err(reason) => self.lose(reason),
            }
        }
    }
}

/// node1 of the built-in example, with two workers.
struct Node {
    view: NodeView,
    switch: Mutex<Switch>,
    workers: [Worker; 2],
    ports: Vec<DpPort>,
    wires: Wires,
    now: u64,
    /// Frames handed to the engine, and those of them that were sent anywhere.
    processed: u64,
    forwarded: u64,
    /// Frames that ports refused.
    refused: BTreeMap<&'static str, u64>,
}

fn name(text: &str) -> IfName {
    IfName::new(text).expect("a legal name")
}

impl Node {
    fn new() -> Self {
        let view = placement::view(&Topology::example(), "node1").expect("it is there");
        let vlans = local_vlans(&BTreeMap::new(), view.networks.iter().map(|network| network.id)).expect("few");
        let program = Program::of(&view, &vlans).expect("a good view");
        let mut switch = Switch::new();
        let (br_int, br_tun) = (name("br-int"), name("br-tun"));
        for bridge in [&br_int, &br_tun] {
            switch.add_bridge(bridge, BridgeMode::Flow).expect("a new name");
        }
        let mut add = |bridge: &IfName, port: &IfName, kind| {
            let port = NewPort { name: port.clone(), kind, vlan: VlanMode::Trunk, number: None };
            switch.add_port(bridge, port).expect("a new port");
        };
        add(&br_int, &name("patch-tun"), NewPortKind::Patch { peer: name("patch-int") });
        add(&br_tun, &name("patch-int"), NewPortKind::Patch { peer: name("patch-tun") });
        let machines = view.networks.iter().flat_map(|network| &network.local_ports).map(|vm| &vm.port);
        let routers = view.routers.iter().flat_map(|router| &router.interfaces).map(|port| &port.ifname);
        let mut ports = Vec::new();
        for (dp, port) in (1..).map(DpPort).zip(machines.chain(routers)) {
            add(&br_int, port, NewPortKind::Netdev { dp });
            ports.push(dp);
        }
        let needed = tunnel_peers(&view);
        for peer in view.peers.iter().filter(|peer| needed.contains(peer.name.as_str())) {
            let kind = NewPortKind::Vxlan { dp: TUNNELS, local: view.node.tunnel_ip, remote: peer.tunnel_ip };
            add(&br_tun, &vxlan_port(peer.tunnel_ip), kind);
        }
        for (bridge, flows) in [(&br_int, &program.br_int), (&br_tun, &program.br_tun)] {
            let changes: Vec<FlowChange> = flows.iter().map(|flow| FlowChange::Add(flow.to_string())).collect();
            switch.change_flows(bridge, &changes, Timestamp::ZERO).expect("legal flows");
        }
        let wires = Wires {
            copies: 0,
            sent: 0,
            lost: BTreeMap::new(),
            header: [0; HEADER_LIMIT],
            pair: UnixDatagram::pair().expect("a pair of sockets"),
            drain: vec![0; BUFFER_LEN],
        };
        let (processed, forwarded, refused) = (0, 0, BTreeMap::new());
        let workers = [Worker::new(), Worker::new()];
        Self { view, switch: Mutex::new(switch), workers, ports, wires, now: 0, processed, forwarded, refused }
    }

    fn process(&mut self, ingress: &Ingress, packet: &mut Packet<'_>) {
        let now = Timestamp::from_secs(self.processed / FRAMES_A_SECOND);
        let worker = usize::from(self.processed.is_multiple_of(3));
        self.wires.copies = 0;
        self.workers[worker].process(&self.switch, ingress, packet, now, &mut self.wires);
        self.processed += 1;
        self.forwarded += u64::from(self.wires.copies > 0);
        if self.processed.is_multiple_of(FRAMES_A_SECOND) {
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.now = self.processed / FRAMES_A_SECOND;
        let now = Timestamp::from_secs(self.now);
        for worker in &mut self.workers {
            worker.push_stats(&self.switch, now);
        }
        self.switch.lock().expect("no thread panicked").expire(now);
    }

    fn refuse(&mut self, reason: DropReason) {
        *self.refused.entry(reason.name()).or_default() += 1;
    }

    /// Everything that was counted, against what was done.
    fn audit(&mut self) {
        self.settle();
        let switch = self.switch.lock().expect("no thread panicked");
        let drops = switch.drops();
        let known = |reason: &String| DropReason::ALL.iter().any(|known| known.name() == reason);
        assert!(drops.keys().all(known), "{drops:?}");
        let remarks = |reason: &String| REMARKS.iter().any(|remark| remark.name() == reason);
        let dropped: u64 = drops.iter().filter(|(reason, _)| !remarks(reason)).map(|(_, count)| count).sum();
        let told = format!("{} sent on, {} lost, {drops:?}", self.forwarded, dropped);
        assert_eq!(self.forwarded + dropped, self.processed, "each frame is sent or counted: {told}");
        let looked: u64 =
            self.workers.iter().map(Worker::counters).map(|it| it.exact_hits + it.masked_hits + it.misses).sum();
        assert_eq!(looked, self.processed, "each frame is a hit or a miss");
        // What crosses a patch leaves one bridge and enters the other; each entry is one match in table 0.
        let views = switch.bridges();
        let patch = |bridge: &str| {
            let view = views.iter().find(|view| view.name.as_str() == bridge).expect("it is there");
            let port = view.ports.iter().find(|port| matches!(port.kind, NewPortKind::Patch { .. }));
            port.expect("it has one").counters
        };
        let (inner, outer) = (patch("br-int"), patch("br-tun"));
        assert_eq!((inner.rx_packets, inner.tx_packets), (outer.tx_packets, outer.rx_packets));
        assert_eq!((inner.rx_bytes, inner.tx_bytes), (outer.tx_bytes, outer.rx_bytes));
        let entered = |bridge: &str| -> u64 {
            let flows =
                switch.dump_flows(&name(bridge), "table=0", false, Timestamp::from_secs(self.now)).expect("known");
            flows.iter().map(|flow| flow.n_packets).sum()
        };
        let strangers = drops.get(DropReason::UnknownPort.name()).copied().unwrap_or(0);
        let entries = entered("br-int") + entered("br-tun");
        let expected = self.processed - strangers + inner.rx_packets + outer.rx_packets;
        assert_eq!(entries, expected, "each frame matched in table 0 of each bridge it entered");
        println!(
            "{} frames to the engine, {} of them sent as {} copies; dropped {drops:?}",
            self.processed, self.forwarded, self.wires.sent
        );
        println!("ports refused {:?}, and could not send {:?}", self.refused, self.wires.lost);
        println!("caches {:?}", self.workers.each_ref().map(Worker::counters));
    }
}

/// Where octets enter.
struct Doors {
    /// A machine's side and the switch's.
    pair: (UnixDatagram, UnixDatagram),
    buffer: Vec<u8>,
    endpoint: vxlan::Endpoint,
    batch: Batch,
    peer: UdpSocket,
    to: SocketAddr,
}

impl Doors {
    fn new() -> Self {
        // An address of this process's own, so that two of these do not meet.
        let [.., a, b] = std::process::id().to_be_bytes();
        let local = IpAddr::from([127, 83, a, b.max(1)]);
        let mut endpoints = vxlan::open(None, local, vxlan_header::PORT, 1).expect("loopback takes it");
        Self {
            pair: UnixDatagram::pair().expect("a pair of sockets"),
            buffer: vec![0; BUFFER_LEN],
            endpoint: endpoints.remove(0),
            batch: Batch::default(),
            peer: UdpSocket::bind((local, 0)).expect("loopback takes it"),
            to: SocketAddr::new(local, vxlan_header::PORT),
        }
    }

    /// A machine or router sends.
    fn machine(&mut self, node: &mut Node, port: DpPort, header: [u8; 10], frame: &[u8]) {
        self.pair.0.send(&[&header, frame].concat()).expect("there is room for one");
        let ready = frame::read(self.pair.1.as_fd(), &mut self.buffer, |packet| {
            node.process(&Ingress { port, tunnel: None }, packet);
        });
        match ready {
            Ready::Frames(1) => {}
            Ready::Refused(reason) => node.refuse(reason),
            Ready::Frames(_) | Ready::Last(_) | Ready::Empty | Ready::Down | Ready::Gone => {
                panic!("a frame waited: {ready:?}")
            }
        }
    }

    /// A tunnel's other end sends datagrams.
    fn tunnel(&mut self, node: &mut Node, (src, dst): (IpAddr, IpAddr), datagrams: &[Vec<u8>]) {
        for datagram in datagrams {
            self.peer.send_to(datagram, self.to).expect("loopback takes it");
        }
        let (mut read, mut told) = (0, 0);
        while read < datagrams.len() {
            let mut waits = [PollFd::new(self.endpoint.receive.as_fd(), PollFlags::POLLIN)];
            assert!(poll(&mut waits, PollTimeout::from(10_000_u16)).expect("one descriptor") > 0, "datagrams got lost");
            let ready = vxlan::read(&self.endpoint, &mut self.batch, |arrival| match arrival {
                Ok((meta, packet)) => {
                    told +=
                        Segments::of(packet).expect("joined as they can be cut").map_or(1, |segments| segments.count());
                    let tunnel = TunnelMeta { src, dst, ..*meta };
                    node.process(&Ingress { port: TUNNELS, tunnel: Some(tunnel) }, packet);
                }
                Err(reason) => {
                    told += 1;
                    node.refuse(reason);
                }
            });
            if let Ready::Frames(count) | Ready::Last(count) = ready {
                read += count;
            }
        }
        assert_eq!(told, datagrams.len(), "each datagram is a frame, part of one, or refused");
    }
}

/// Prints the octets at hand if what is done with them panics.
struct Witness(u64, Vec<Vec<u8>>);

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("at frame {}: {:02x?}", self.0, self.1);
        }
    }
}

/// Input: every frame of the corpus cut at every octet, then mutated ones with lying headers, from machines, routers,
/// known and unknown tunnels and a port of no bridge. Output: each is sent or counted under a name; all counters agree.
#[test]
fn mutated_frames_are_sent_or_their_refusal_is_counted() {
    let frames: u64 = std::env::var("DVR_FRAMES").map_or(FRAMES, |text| text.parse().expect("DVR_FRAMES is a number"));
    let mut node = Node::new();
    let corpus = Corpus::of(&node.view);
    let mut doors = Doors::new();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut fed = 0;
    'whole: for whole in &corpus.frames {
        for length in (0..=whole.len()).rev() {
            if fed >= frames / 4 {
                break 'whole;
            }
            let witness = Witness(fed, vec![whole[..length].to_vec()]);
            let port = *random.pick(&node.ports.clone());
            doors.machine(&mut node, port, [0; 10], &witness.1[0]);
            fed += 1;
        }
    }
    while fed < frames {
        let mut witness = Witness(fed, Vec::new());
        if random.one_in(3) {
            let vni = random.pick(&corpus.vnis).to_be_bytes();
            let flags = if random.one_in(50) { random.octet() } else { 8 };
            // Mostly between the ends of a tunnel there is.
            let own = node.view.node.tunnel_ip;
            let mut end = |known: IpAddr| if random.one_in(20) { *random.pick(&corpus.peers) } else { known };
            let ends = (end(corpus.peers[0]), end(own));
            let mut frame = corpus.mutated(&mut random);
            for _ in 0..=random.below(4) {
                frame.truncate(65_000);
                witness.1.push([&[flags, 0, 0, 0, vni[1], vni[2], vni[3], 0][..], &frame].concat());
                if random.one_in(8) {
                    frame = corpus.mutated(&mut random);
                } else if frame.len() > 42 {
                    next_of_flow(&mut frame);
                }
            }
            if random.one_in(50) {
                let cut = random.below(24);
                witness.1[0].truncate(cut);
            }
            fed += witness.1.len() as u64;
            doors.tunnel(&mut node, ends, &witness.1);
        } else {
            let frame = corpus.mutated(&mut random);
            let header = corpus.header(&mut random, &frame);
            let port = if random.one_in(100) { STRANGER } else { *random.pick(&node.ports.clone()) };
            witness.1.push(frame);
            doors.machine(&mut node, port, header, &witness.1[0]);
            fed += 1;
        }
    }
    node.audit();
}
