//! Random frames, through the kernel and through the engine: the same octets leave, or the switch gets the frame; never
//! both and never neither.
//!
//! ```text
//!  sent ─▶ a0 ══ a1 ─┬─ filter ─▶ the switch's socket ─▶ Worker ─▶ offers ─▶ the table
//!                    └─ ingress ─▶ b1 ══ b0 ─▶ received, beside what the Worker makes of the same octets
//! ```

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;
use std::sync::Mutex;

use dvr::api::switch::{BridgeMode, FlowChange, VlanMode};
use dvr::datapath::port::{Batch, Ready, frame, packet};
use dvr::datapath::{
    DpPort, Egress, Ingress, NewPort, NewPortKind, Offer, Offload, Packet, Switch, TunnelMeta, Worker, change_flows,
};
use dvr::fastpath::kernel::{FastPath, FlowKey};
use dvr::fastpath::{Kind, Octets, Rewrite, Way};
use dvr::netlink::Connection;
use dvr::types::{IfName, Timestamp};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};

/// Sets of flows, and frames through each.
const SETS: u64 = 12;
const FRAMES: u64 = 400;
/// Flows of a set at most.
const FLOWS_MAX: u64 = 5;
/// How long a frame may take, in milliseconds: no more than a bound.
const PATIENCE: u16 = 10_000;
/// Frames sent before one passes at most, each 10 ms after the one before.
const WARM_UPS_MAX: usize = 1_000;
const NOW: Timestamp = Timestamp::ZERO;

const FLOWS: [&str; 14] = [
    "priority=1,in_port=1,actions=output:2",
    "priority=2,in_port=1,ip,actions=mod_dl_src:02:00:00:00:00:0a,mod_dl_dst:02:00:00:00:00:0b,dec_ttl,output:2",
    "priority=3,in_port=1,ipv6,actions=mod_dl_src:02:00:00:00:00:0a,mod_dl_dst:02:00:00:00:00:0b,dec_ttl,output:2",
    "priority=4,in_port=1,ip,nw_dst=10.0.0.0/30,actions=mod_dl_dst:02:00:00:00:00:0c,output:2",
    "priority=5,in_port=1,tcp,tp_dst=80,actions=mod_dl_src:02:00:00:00:00:0d,output:2",
    "priority=6,in_port=1,udp,tp_src=53,actions=drop",
    "priority=7,in_port=1,ip,nw_tos=32,actions=mod_dl_dst:02:00:00:00:00:0e,output:2",
    "priority=8,in_port=1,icmp,icmp_type=8,actions=mod_dl_src:02:00:00:00:00:0f,dec_ttl,output:2",
    "priority=9,in_port=1,icmp6,icmp_type=128,actions=dec_ttl,output:2",
    "priority=10,in_port=1,tcp,tcp_flags=+syn,actions=mod_dl_src:02:00:00:00:00:10,output:2",
    "priority=11,in_port=1,ipv6,ipv6_label=0x12345,actions=mod_dl_src:02:00:00:00:00:11,output:2",
    "priority=12,in_port=1,tcp6,tp_src=80,actions=mod_dl_dst:02:00:00:00:00:12,output:2",
    "priority=13,in_port=1,ip,ip_frag=no,actions=mod_dl_src:02:00:00:00:00:13,output:2",
    "priority=14,in_port=1,ip,actions=mod_nw_dst:10.0.0.9,output:2",
];

struct Random(u64);

impl Random {
    /// Less than `below` (Marsaglia's xorshift64).
    fn below(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }

    fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[usize::try_from(self.below(all.len() as u64)).expect("an index")]
    }

    fn octet(&mut self) -> u8 {
        u8::try_from(self.below(256)).expect("an octet")
    }
}

fn sum(octets: &[u8]) -> u16 {
    let mut sum: u32 =
        octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from)).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// Whether a router takes the frame as it is.
fn is_strict(frame: &[u8]) -> bool {
    let told = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    match frame[12..14] {
        [0x08, 0] => sum(&frame[14..34]) == 0 && told(16) == frame.len() - 14,
        _ => told(18) == frame.len() - 54,
    }
}

/// A frame of few flows, often with something unusual about it.
fn random_frame(random: &mut Random) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, random.one_of(&[1, 2]), 2, 0, 0, 0, 0, random.one_of(&[3, 4])];
    if random.below(40) == 0 {
        frame[0] = 3;
    }
    let (v6, protocol) = random.one_of(&[(false, 6), (false, 17), (false, 1), (true, 6), (true, 17), (true, 58)]);
    let payload = usize::try_from(random.below(200)).expect("small");
    let mut transport = match protocol {
        6 => {
            let mut tcp = vec![0, random.one_of(&[80, 81]), 0, random.one_of(&[80, 81]), 0, 0, 0, 1, 0, 0, 0, 1, 0x50];
            tcp.extend([random.one_of(&[0x10, 0x02]), 0, 10, 0, 0, 0, 0]);
            tcp
        }
        17 => vec![0, random.one_of(&[53, 54]), 0, 80, 0, 8, 0, 0],
        _ => vec![random.one_of(&[0, 8, 128, 129, 133, 135, 136, 137, 138]), 0, 0, 0, 0, 1, 0, 1],
    };
    transport.extend((0..payload).map(|_| 0xaa));
    let ttl = random.one_of(&[1, 2, 64]);
    if v6 {
        frame.extend([0x86, 0xdd]);
        let label = random.one_of(&[[0x60, 0, 0, 0], [0x62, 0x01, 0x23, 0x45], [0x60, 0x01, 0x23, 0x45]]);
        frame.extend(label);
        let extended = random.below(20) == 0;
        let length = transport.len() + if extended { 8 } else { 0 };
        frame.extend(u16::try_from(length).expect("short").to_be_bytes());
        frame.extend([if extended { 60 } else { protocol }, ttl]);
        for last in [random.one_of(&[1, 2]), random.one_of(&[1, 5])] {
            frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        if extended {
            frame.extend([protocol, 0, 1, 4, 0, 0, 0, 0]);
        }
    } else {
        frame.extend([0x08, 0]);
        let options = if random.below(20) == 0 { 4 } else { 0 };
        let mut header = vec![0x45 + options / 4, random.one_of(&[0, 32, 33])];
        header.extend(u16::try_from(20 + usize::from(options) + transport.len()).expect("short").to_be_bytes());
        let fragment: [u8; 2] = random.one_of(&[[0, 0], [0x40, 0], [0x40, 0], [0, 0], [0x20, 0], [0, 1]]);
        header.extend([0, random.octet(), fragment[0], fragment[1], ttl, protocol, 0, 0]);
        header.extend([10, 0, 0, random.one_of(&[1, 2]), 10, 0, 0, random.one_of(&[1, 5])]);
        header.extend((0..options).map(|_| 1));
        let checksum = sum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        frame.extend(header);
    }
    frame.extend(transport);
    spoil(random, &mut frame);
    frame
}

/// Does something unusual to a frame, now and then.
fn spoil(random: &mut Random, frame: &mut Vec<u8>) {
    match random.below(12) {
        0 => frame.truncate(usize::try_from(14 + random.below(60)).expect("short")),
        1 => frame.extend((0..random.below(300)).map(|_| 0)),
        2 => {
            let at = usize::try_from(12 + random.below(48)).expect("short");
            let octet = random.octet();
            if let Some(place) = frame.get_mut(at) {
                *place = octet;
            }
        }
        3 => drop(frame.splice(12..12, [0x81, 0, 0, 5])),
        _ => {}
    }
}

/// What the engine does with frames, and what it offers.
#[derive(Default)]
struct Catch {
    sent: Vec<(DpPort, Vec<u8>)>,
    offers: Vec<(Kind, Octets, Octets, Rewrite)>,
}

impl Egress for Catch {
    fn transmit(&mut self, port: DpPort, tunnel: Option<&TunnelMeta>, packet: &mut Packet<'_>) {
        assert!(tunnel.is_none() && packet.tail().is_empty());
        self.sent.push((port, packet.head().to_vec()));
    }

    fn takes_offers(&self, _: DpPort) -> bool {
        true
    }

    fn offer(&mut self, offer: &Offer<'_>, _: Timestamp) {
        assert_eq!((offer.from, offer.to), (DpPort(0), DpPort(1)));
        self.offers.push((offer.kind, offer.frame, offer.mask, offer.rewrite));
    }
}

struct Engine {
    switch: Mutex<Switch>,
    worker: Worker,
}

impl Engine {
    fn new(flows: &[&str]) -> Self {
        let mut switch = Switch::new();
        let bridge = name("br0");
        switch.add_bridge(&bridge, BridgeMode::Flow).expect("a bridge");
        for (port, dp) in [("a", DpPort(0)), ("b", DpPort(1))] {
            let port =
                NewPort { name: name(port), kind: NewPortKind::Netdev { dp }, vlan: VlanMode::Trunk, number: None };
            switch.add_port(&bridge, port).expect("a port");
        }
        let switch = Mutex::new(switch);
        let changes: Vec<FlowChange> = flows.iter().map(|flow| FlowChange::Add((*flow).to_owned())).collect();
        change_flows(&switch, &bridge, &changes, NOW).expect("flows");
        Self { switch, worker: Worker::new() }
    }

    fn process(&mut self, frame: &[u8]) -> Catch {
        let mut room = vec![0; 64];
        room.extend(frame);
        let end = room.len();
        let mut catch = Catch::default();
        let ingress = Ingress { port: DpPort(0), tunnel: None };
        let mut packet = Packet::new(&mut room, 64, end, &[], Offload::default());
        self.worker.process(&self.switch, &ingress, &mut packet, NOW, &mut catch);
        catch
    }
}

fn name(text: &str) -> IfName {
    IfName::new(text).expect("a legal name")
}

fn ip(words: &str) {
    #[expect(clippy::disallowed_methods, reason = "the test's own cables")]
    let status = Command::new("ip").args(words.split_whitespace()).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {words}");
}

fn sockets(device: &str, count: usize) -> Vec<OwnedFd> {
    packet::open(None, &name(device), count).expect("packet sockets")
}

fn socket(device: &str) -> OwnedFd {
    sockets(device, 1).pop().expect("one")
}

/// The frames that wait at a socket.
fn waiting(socket: &OwnedFd) -> Vec<Vec<u8>> {
    let mut batch = Batch::default();
    let mut frames = Vec::new();
    while let Ready::Frames(_) = packet::read(socket.as_fd(), &mut batch, |event| {
        frames.push(event.expect("nothing about these is refused").head().to_vec());
    }) {}
    frames
}

fn readable(socket: &OwnedFd) -> PollFd<'_> {
    PollFd::new(socket.as_fd(), PollFlags::POLLIN)
}

/// The kernel's table, as the switch would fill it.
struct Table {
    path: FastPath,
    ifindex: u32,
    way: Way,
    held: Vec<(Kind, Octets, Rewrite, FlowKey)>,
}

impl Table {
    fn take(&mut self, (kind, frame, mask, rewrite): (Kind, Octets, Octets, Rewrite)) {
        if !self.path.mask(kind).contains(&mask) {
            let mut wider = *self.path.mask(kind);
            wider.union(&mask);
            let next = self.path.prepare(kind, wider).expect("a wider mask");
            for (held, frame, rewrite, key) in self.held.iter_mut().filter(|held| held.0 == kind) {
                let wider = next.key(frame, self.ifindex);
                self.path.insert(*held, &wider, rewrite, &self.way).expect("room");
                let _count = self.path.remove(key);
                *key = wider;
            }
            self.path.adopt(&next).expect("the mask");
        }
        let key = self.path.key(kind, &frame, self.ifindex);
        self.path.insert(kind, &key, &rewrite, &self.way).expect("room");
        self.held.push((kind, frame, rewrite, key));
    }
}

/// What became of a frame on the wire.
#[derive(Debug, PartialEq, Eq)]
enum Became {
    Forwarded(Vec<u8>),
    Missed(Vec<u8>),
}

struct Cables {
    sender: OwnedFd,
    /// Two workers' sockets, as they share a port.
    switch: Vec<OwnedFd>,
    /// Beside the switch's, as whoever captures has one.
    witness: OwnedFd,
    receiver: OwnedFd,
}

impl Cables {
    /// Waits until a frame passes: a pair that was just set up drops what comes before the kernel got round to it.
    fn warm_up(&self) {
        let probe = [&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 9, 0x88, 0xb5][..], &[0; 46]].concat();
        for _ in 0..WARM_UPS_MAX {
            let mut room = probe.clone();
            frame::write(&self.sender, &Packet::new(&mut room, 0, 60, &[], Offload::default())).expect("it is sent");
            let mut waits: Vec<PollFd<'_>> = self.switch.iter().map(readable).collect();
            if poll(&mut waits, PollTimeout::from(10_u8)).expect("a poll") > 0 {
                let _probes = (self.switch.iter().map(waiting).count(), waiting(&self.witness));
                return;
            }
        }
        panic!("no frame passes the pair");
    }

    fn send(&self, octets: &[u8]) -> Became {
        let mut room = octets.to_vec();
        let end = room.len();
        frame::write(&self.sender, &Packet::new(&mut room, 0, end, &[], Offload::default())).expect("it is sent");
        let mut waits: Vec<PollFd<'_>> = self.switch.iter().chain([&self.receiver]).map(readable).collect();
        poll(&mut waits, PollTimeout::from(PATIENCE)).expect("a poll");
        let mut missed: Vec<Vec<u8>> = self.switch.iter().flat_map(waiting).collect();
        let mut forwarded = waiting(&self.receiver);
        assert_eq!(missed.len() + forwarded.len(), 1, "{missed:x?} {forwarded:x?} of {octets:x?}");
        assert_eq!(waiting(&self.witness), [octets], "a capture sees what comes, whatever becomes of it");
        missed.pop().map(Became::Missed).or_else(|| forwarded.pop().map(Became::Forwarded)).expect("one")
    }
}

fn run() {
    // The far end is in a namespace of its own, as a machine's is.
    let quiet = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a namespace of this thread's own");
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("a quiet namespace");
    };
    quiet();
    let near = File::open("/proc/thread-self/ns/net").expect("this thread's namespace");
    quiet();
    ip("link add b0 type veth peer name b1");
    ip(&format!("link set b1 netns /proc/{}/fd/{}", std::process::id(), near.as_raw_fd()));
    ip("link set b0 up");
    let receiver = socket("b0");
    setns(&near, CloneFlags::CLONE_NEWNET).expect("back again");
    ip("link add a0 type veth peer name a1");
    for device in ["a0", "a1", "b1"] {
        ip(&format!("link set {device} up"));
    }
    let cables = Cables { sender: socket("a0"), switch: sockets("a1", 2), witness: socket("a1"), receiver };
    cables.warm_up();
    let mut connection = Connection::open().expect("netlink");
    let index = |device: &str| nix::net::if_::if_nametoindex(device).expect("it is there");
    let (mut forwarded, mut missed) = (0, 0);
    for set in 0..SETS {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (set + 1) << 20);
        let flows: Vec<&str> = (0..1 + random.below(FLOWS_MAX)).map(|_| random.one_of(&FLOWS)).collect();
        let mut engine = Engine::new(&flows);
        let path = FastPath::load().expect("it was loaded before");
        cables.switch.iter().for_each(|socket| path.filter(&name("a1"), socket.as_fd()).expect("a filter"));
        path.attach(&mut connection, &name("a1"), index("a1")).expect("an ingress filter");
        let way = Way { ifindex: index("b1"), mtu: 1500, pair: set % 2 == 0, strict: set % 3 == 0 };
        let mut table = Table { path, ifindex: index("a1"), way, held: Vec::new() };
        for number in 0..FRAMES {
            let octets = random_frame(&mut random);
            let became = cables.send(&octets);
            let Catch { sent, offers } = engine.process(&octets);
            match became {
                Became::Forwarded(out) => {
                    forwarded += 1;
                    assert!(!way.strict || is_strict(&octets), "frame {number} of {flows:?}: {octets:x?}");
                    assert_eq!(sent, [(DpPort(1), out)], "frame {number} of {flows:?}: {octets:x?}");
                }
                Became::Missed(copy) => {
                    missed += 1;
                    assert_eq!(copy, octets, "frame {number} of {flows:?}");
                    offers.into_iter().for_each(|offer| table.take(offer));
                }
            }
        }
    }
    println!("{forwarded} frames by the kernel, {missed} by the switch");
    assert!(forwarded > SETS * FRAMES / 8 && missed > SETS * FRAMES / 8, "{forwarded} and {missed}");
}

#[test]
fn the_kernel_sends_what_the_engine_sends_and_the_switch_gets_the_rest() {
    if crate::fast::has_bpf("random frames through the kernel") {
        std::thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}
