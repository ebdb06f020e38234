//! Past a router or through it: the same frames come out, and the same is counted. The router is a slow one of this test's
//! own, that looks at octets (RFC 1812 §5.2, RFC 8200 §3).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::BTreeMap;
use std::path::Path;

use ipnet::IpNet;
use proptest::prelude::*;

use super::properties::cases;
use super::random::Dice;
use super::*;
use crate::api::switch::RouterInterface;
use crate::datapath::router::{Closed, RouterLink, RouterModel, RouterRoute};
use crate::types::Mac;

const NETNS: &str = "/run/netns/qrouter-test";
/// Ports of the switch, which are interfaces of the router of these indices; the last is on the other bridge.
const INTERFACES: [u32; 3] = [2, 3, 4];
/// Frames that one may become before a case is given up: floods that meet routers go in circles.
const BUDGET: usize = 400;

/// What the router holds, as plainly as can be.
#[derive(Clone, Debug)]
struct Tables {
    links: BTreeMap<u32, RouterLink>,
    routes: Vec<RouterRoute>,
    neighbours: BTreeMap<(u32, IpAddr), Mac>,
}

fn mac(last: u64) -> Mac {
    Mac::new([2, 0, 0, 0, 0, u8::try_from(last).expect("small")])
}

fn number(dice: &mut Dice, sides: u64) -> u32 {
    u32::try_from(dice.roll(sides)).expect("small")
}

fn octet(dice: &mut Dice, sides: u64) -> u8 {
    u8::try_from(dice.roll(sides)).expect("small")
}

/// An address of one of three networks, or of none.
fn address(dice: &mut Dice, six: bool) -> IpAddr {
    let (net, host) = (octet(dice, 5), octet(dice, 4));
    match (six, net) {
        (false, 0) => [[127, 0, 0, 1], [224, 0, 0, 5], [255; 4], [8, 8, 8, 8]][usize::from(host)].into(),
        (false, _) => [10, net, 0, host].into(),
        (true, 0) => ["::1", "ff02::1", "fe80::1", "2001:db8::1"][usize::from(host)].parse().expect("legal"),
        (true, _) => Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, host.into()).into(),
    }
}

fn tables(dice: &mut Dice) -> Tables {
    let link = |index: u32, dice: &mut Dice| RouterLink {
        name: name(&format!("p{index}")),
        mac: mac(index.into()),
        mtu: [1500, 1500, 60, 48][usize::from(octet(dice, 4))],
        mtu6: [1500, 1500, 90][usize::from(octet(dice, 3))],
        works: dice.roll(12) != 0,
        forwards4: dice.roll(12) != 0,
        forwards6: dice.roll(12) != 0,
    };
    let links = INTERFACES.into_iter().map(|index| (index, link(index, dice))).collect();
    let mut routes = Vec::new();
    for index in INTERFACES {
        let net = index - 1;
        for text in [format!("10.{net}.0.0/24"), format!("fd00:{net}::/64")] {
            let prefix = text.parse().expect("legal");
            if dice.roll(8) != 0 {
                routes.push(RouterRoute { local: false, prefix, way: Some((index, None)) });
            }
        }
        for text in [format!("10.{net}.0.3/32"), format!("fd00:{net}::3/128")] {
            routes.push(RouterRoute { local: true, prefix: text.parse().expect("legal"), way: Some((index, None)) });
        }
    }
    for _ in 0..dice.roll(4) {
        let six = dice.roll(2) == 0;
        let (to, gateway) = (address(dice, six), address(dice, six));
        let most = if six { 128 } else { 32 };
        let length = [0, 8, most - 2, most][usize::from(octet(dice, 4))];
        let prefix = IpNet::new(to, length).expect("legal").trunc();
        let way = match dice.roll(4) {
            0 => None,
            1 => Some((2 + number(dice, 3), None)),
            _ => Some((2 + number(dice, 3), Some(gateway))),
        };
        // One that is there already would be another metric's.
        if !routes.iter().any(|route: &RouterRoute| route.prefix == prefix) {
            routes.push(RouterRoute { local: false, prefix, way });
        }
    }
    let mut neighbours = BTreeMap::new();
    for _ in 0..40 {
        let six = dice.roll(2) == 0;
        let (link, ip) = (2 + number(dice, 3), address(dice, six));
        neighbours.insert((link, ip), mac(1 + dice.roll(5)));
    }
    for (index, host) in INTERFACES.into_iter().flat_map(|index| (0..3).map(move |host| (index, host))) {
        let net = u8::try_from(index - 1).expect("small");
        let six = Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, host.into());
        for ip in [[10, net, 0, host].into(), six.into()] {
            if dice.roll(4) != 0 {
                neighbours.insert((index, ip), mac(1 + dice.roll(5)));
            }
        }
    }
    Tables { links, routes, neighbours }
}

impl Tables {
    fn model(&self) -> Result<RouterModel, Closed> {
        RouterModel::new(self.links.clone(), &self.routes, self.neighbours.clone())
    }

    fn longest(&self, local: bool, address: IpAddr) -> Option<&RouterRoute> {
        let covers = |route: &&RouterRoute| route.local == local && route.prefix.contains(&address);
        self.routes.iter().filter(covers).max_by_key(|route| route.prefix.prefix_len())
    }

    /// What becomes of a frame that comes in by interface `from`: another one out of another; `None` if the router keeps,
    /// drops, cuts or answers it.
    fn forward(&self, from: u32, frame: &[u8]) -> Option<(u32, Vec<u8>)> {
        let inward = &self.links[&from];
        if frame[..6] != inward.mac.octets() || !inward.works {
            return None;
        }
        let ip = &frame[14..];
        let four = frame[12..14] == [8, 0];
        let (src, dst, length): (IpAddr, IpAddr, usize) = if four {
            let header = ip.get(..20)?;
            let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
            if header[0] != 0x45 || checksum::of(header) != 0 || !inward.forwards4 {
                return None;
            }
            let part = |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
            (part(12).into(), part(16).into(), length)
        } else if frame[12..14] == [0x86, 0xdd] && inward.forwards6 && ip.first()? >> 4 == 6 && ip.get(6)? != &0 {
            let part = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(ip.get(at..at + 16)?).ok()?));
            let length = 40 + usize::from(u16::from_be_bytes([ip[4], ip[5]]));
            (part(8)?.into(), part(24)?.into(), length)
        } else {
            return None;
        };
        let hops = if four { 8 } else { 7 };
        let never = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.is_loopback() || ip.is_multicast() || ip.is_broadcast() || ip.is_unspecified(),
            IpAddr::V6(ip) => {
                ip.is_loopback() || ip.is_multicast() || ip.is_unicast_link_local() || ip.is_unspecified()
            }
        };
        if length > ip.len() || ip[hops] <= 1 || never(src) || never(dst) {
            return None;
        }
        if self.longest(true, dst).is_some() || self.longest(true, src).is_some() {
            return None;
        }
        let (out, gateway) = self.longest(false, dst)?.way?;
        let link = &self.links[&out];
        let to = self.neighbours.get(&(out, gateway.unwrap_or(dst)))?;
        if out == from || !link.works || length > (if four { link.mtu } else { link.mtu6 }) as usize {
            return None;
        }
        let mut sent = [&to.octets()[..], &link.mac.octets(), &frame[12..14], &ip[..length]].concat();
        sent[14 + hops] -= 1;
        if four {
            sent[24..26].fill(0);
            let sum = checksum::of(&sent[14..34]);
            sent[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        Some((out, sent))
    }
}

/// A frame for the router or not, to be routed or not.
fn frame(dice: &mut Dice) -> Vec<u8> {
    let six = dice.roll(3) == 0;
    let (mut src, mut dst, mut to) = (address(dice, six), address(dice, six), 1 + dice.roll(5));
    if dice.roll(4) != 0 {
        // From one of its networks to another, by its interface there.
        let (net, other, host) = (1 + octet(dice, 3), 1 + octet(dice, 3), octet(dice, 3));
        let within = |net: u8| -> IpAddr {
            let long = Ipv6Addr::new(0xfd00, net.into(), 0, 0, 0, 0, 0, host.into());
            if six { long.into() } else { [10, net, 0, host].into() }
        };
        (src, dst, to) = (within(net), within(other), u64::from(net) + 1);
    }
    let mut frame = [mac(to).octets(), mac(1 + dice.roll(3)).octets()].concat();
    if dice.roll(12) == 0 {
        frame.extend([0x81, 0, 0, 1]);
    }
    let ttl = [1, 2, 3, 5][usize::from(octet(dice, 4))];
    let protocol = [6, 17, 1, 58, 47][usize::from(octet(dice, 5))];
    let mut body = vec![octet(dice, 140), 0, 0, octet(dice, 3), 0, 30];
    body.resize(24 + usize::from(octet(dice, 40)), 0x50);
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let options = if dice.roll(8) == 0 { 4 } else { 0 };
            let length = u16::try_from(20 + options + body.len()).expect("short").to_be_bytes();
            let fragment = [[0, 0], [0x40, 0], [0x20, 0], [0, 5]][usize::from(octet(dice, 4))];
            let first = if options == 0 { 0x45 } else { 0x46 };
            let mut ip = vec![first, 0, length[0], length[1], 0, 9, fragment[0], fragment[1], ttl, protocol, 0, 0];
            ip.extend([src.octets(), dst.octets()].concat());
            ip.extend(vec![1; options]);
            let wrong = u16::from(dice.roll(12) == 0);
            let sum = checksum::of(&ip).wrapping_add(wrong);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend([&[8, 0], &ip[..], &body].concat());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            // Now and then options or a routing header.
            let next = [protocol, protocol, 0, 43, 44, 60][usize::from(octet(dice, 6))];
            if next != protocol {
                body[..2].copy_from_slice(&[protocol, 0]);
            }
            let length = u16::try_from(body.len()).expect("short").to_be_bytes();
            let ip = [&[0x60, 0, 0, 0, length[0], length[1], next, ttl][..], &src.octets(), &dst.octets()].concat();
            frame.extend([&[0x86, 0xdd], &ip[..], &body].concat());
        }
        _ => unreachable!("of one family"),
    }
    // Padding, as networks for short frames add it.
    frame.extend(vec![0; usize::from(dice.roll(10) == 0) * 3]);
    frame
}

fn flow(dice: &mut Dice) -> (&'static str, String) {
    let bridge = ["br", "br", "other"][usize::from(octet(dice, 3))];
    let matching = dice.pick(&[
        "",
        "",
        "in_port=1,",
        "in_port=3,",
        "ip,",
        "ipv6,",
        "dl_dst=02:00:00:00:00:02,",
        "ip,nw_dst=10.2.0.0/24,",
        "ip,nw_ttl=2,",
        "reg1=7,",
        "tcp,tp_dst=30,",
        "vlan_tci=0,",
        "ipv6,ipv6_src=fd00:1::/64,",
    ]);
    let table = dice.roll(2);
    let mut actions = Vec::new();
    for _ in 0..1 + dice.roll(3) {
        actions.push(match dice.roll(4) {
            0 if table == 0 => "resubmit(,1)",
            0 | 1 => dice.pick(&[
                "mod_dl_dst:02:00:00:00:00:03",
                "mod_dl_src:02:00:00:00:00:01",
                "strip_vlan",
                "load:7->NXM_NX_REG1[]",
                "set_tunnel:4",
                "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]",
                "dec_ttl",
                "mod_vlan_vid:3",
                "mod_nw_tos:32",
                "load:0->NXM_OF_VLAN_TCI[]",
            ]),
            _ => dice.pick(&[
                "output:1",
                "output:2",
                "output:3",
                "output:2",
                "output:3",
                "output:4",
                "output:10",
                "FLOOD",
            ]),
        });
    }
    (bridge, format!("table={table},priority={},{matching}actions={}", dice.roll(3), actions.join(",")))
}

/// What leads frames to the router's interfaces, and elsewhere what is for none of them.
const STANDING: [(&str, &str); 6] = [
    ("br", "priority=1,dl_dst=02:00:00:00:00:02,actions=output:2"),
    ("br", "priority=1,dl_dst=02:00:00:00:00:03,actions=output:3"),
    ("br", "priority=1,dl_dst=02:00:00:00:00:04,actions=output:10"),
    ("br", "priority=0,actions=mod_vlan_vid:7,output:1"),
    ("other", "priority=1,dl_dst=02:00:00:00:00:04,actions=output:4"),
    ("other", "priority=0,actions=output:10,output:5"),
];

/// Two bridges with a patch, and a router between ports of both.
fn bench(flows: &[(&str, String)]) -> Bench {
    let mut bench = Bench::new(3);
    bench.switch().add_bridge(&name("other"), BridgeMode::Flow).expect("a new bridge");
    for number in [4, 5] {
        bench.netdev("other", number, VlanMode::Trunk);
    }
    for (bridge, own, peer) in [("br", "to", "from"), ("other", "from", "to")] {
        let kind = NewPortKind::Patch { peer: name(peer) };
        let port = NewPort { name: name(own), kind, vlan: VlanMode::Trunk, number: Some(10) };
        bench.switch().add_port(&name(bridge), port).expect("a new port");
    }
    for port in INTERFACES {
        let bridge = if port == 4 { "other" } else { "br" };
        let interface = RouterInterface { netns: NETNS.into(), ifname: name(&format!("p{port}")) };
        bench.switch().set_router(&name(bridge), &interface.ifname, &interface).expect("a port");
    }
    for (bridge, flow) in flows {
        // A port of the other bridge is none of this one's, which is as legal.
        bench.add_to(bridge, &[flow]);
    }
    bench
}

/// Where a frame ends: it leaves, or the router does with it what is not forwarding.
fn run(bench: &mut Bench, tables: &Tables, port: u32, frame: &[u8]) -> Option<Vec<(u32, Vec<u8>)>> {
    let mut waiting = vec![(port, frame.to_vec())];
    let (mut ends, mut total) = (Vec::new(), 0);
    while let Some((port, frame)) = waiting.pop() {
        total += 1;
        if total > BUDGET {
            return None;
        }
        for sent in bench.send(port, &frame) {
            let routed = INTERFACES.contains(&sent.port).then(|| tables.forward(sent.port, &sent.octets)).flatten();
            match routed {
                Some(routed) => waiting.push(routed),
                None => ends.push((sent.port, sent.octets)),
            }
        }
    }
    ends.sort();
    Some(ends)
}

/// How many packets each flow counted; octets are those of the frame that came in, as for patches, whatever tag it lost.
fn counted(bench: &mut Bench) -> Vec<String> {
    let now = bench.now;
    bench.worker.push_stats(&bench.switch, now);
    let dump =
        |bridge| bench.switch.lock().expect("no panic").dump_flows(&name(bridge), "", false, now).expect("a bridge");
    let flows = dump("br").into_iter().chain(dump("other"));
    flows.map(|flow| format!("{} {} {}", flow.n_packets, flow.matching, flow.actions)).collect()
}

/// Does a step to a router: now and then something changes.
fn change(dice: &mut Dice, tables: &mut Tables, past: &mut Bench) {
    match dice.roll(12) {
        0 => {
            *tables = self::tables(dice);
            past.switch().observe_router(Path::new(NETNS), tables.model());
        }
        1 | 2 => {
            let six = dice.roll(2) == 0;
            let neighbour = (2 + number(dice, 3), address(dice, six));
            let to = (dice.roll(3) != 0).then(|| mac(1 + dice.roll(5)));
            match to {
                Some(to) => tables.neighbours.insert(neighbour, to),
                None => tables.neighbours.remove(&neighbour),
            };
            past.switch().observe_neighbours(Path::new(NETNS), &[(neighbour, to)]);
        }
        3 => past.switch().observe_router(Path::new(NETNS), Err(Closed::Filter)),
        4 => past.switch().observe_router(Path::new(NETNS), tables.model()),
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// Input: random routers, flows and frames, the router's tables changing. Output: past the router as through it.
    #[test]
    fn past_a_router_is_as_through_it(seed in any::<u64>()) {
        let mut dice = Dice(seed);
        let given = STANDING.map(|(bridge, flow)| (bridge, flow.to_owned()));
        let flows: Vec<_> = given.into_iter().chain((0..dice.roll(6)).map(|_| flow(&mut dice))).collect();
        let mut tables = tables(&mut dice);
        let (mut past, mut through) = (bench(&flows), bench(&flows));
        past.switch().observe_router(Path::new(NETNS), tables.model());
        let frames: Vec<Vec<u8>> = (0..8).map(|_| frame(&mut dice)).collect();
        for _ in 0..60 {
            change(&mut dice, &mut tables, &mut past);
            let frame = &frames[usize::from(octet(&mut dice, 8))];
            let port = [1, 1, 5][usize::from(octet(&mut dice, 3))];
            let wanted = run(&mut through, &tables, port, frame);
            let got = run(&mut past, &tables, port, frame);
            let (Some(wanted), Some(got)) = (wanted, got) else { return Ok(()) };
            prop_assert_eq!(got, wanted, "of {:02x?} by {} under {:#?} and {:?}", frame, port, tables, flows);
        }
        prop_assert_eq!(counted(&mut past), counted(&mut through));
        prop_assert!(through.switch().routers().iter().all(|router| router.packets == 0));
    }
}

/// The router between 10.1.0.0/24 at port 2 and 10.2.0.0/24 at port 3, with neighbour 02:…:05 there.
fn plain() -> Tables {
    let link = |index: u32| {
        let (name, mac) = (name(&format!("p{index}")), mac(index.into()));
        RouterLink { name, mac, mtu: 1500, mtu6: 1500, works: true, forwards4: true, forwards6: true }
    };
    let route = |prefix: &str, link| {
        let prefix = prefix.parse().expect("legal");
        RouterRoute { local: false, prefix, way: Some((link, None)) }
    };
    Tables {
        links: [2, 3].map(|index| (index, link(index))).into(),
        routes: vec![route("10.1.0.0/24", 2), route("10.2.0.0/24", 3)],
        neighbours: [((3, [10, 2, 0, 20].into()), mac(5))].into(),
    }
}

const FLOWS: [&str; 2] = ["priority=1,in_port=1,actions=output:2", "priority=1,in_port=3,actions=output:1"];

/// A bench with that router, and a datagram for its neighbour.
fn plainly() -> (Bench, Vec<u8>) {
    let mut bench = bench(&FLOWS.map(|flow| ("br", flow.to_owned())));
    bench.switch().observe_router(Path::new(NETNS), plain().model());
    (bench, udp4([10, 1, 0, 10], [10, 2, 0, 20], (7, 9), &[3; 100]))
}

/// Input: datagrams that a router forwards. Output: one decision for both halves of their way, counted on both.
#[test]
fn what_goes_past_is_decided_once_and_counted_twice() {
    let (mut bench, frame) = plainly();
    let wanted = plain().forward(2, &frame).expect("it is routed").1;
    for _ in 0..3 {
        assert_eq!(bench.send(1, &frame), [Sent { port: 1, tunnel: None, octets: wanted.clone() }]);
    }
    let counters = bench.worker.counters();
    assert_eq!((counters.misses, counters.exact_hits, counters.entries), (1, 2, 1));
    let counts: Vec<u64> = {
        let now = bench.now;
        bench.worker.push_stats(&bench.switch, now);
        let flows = bench.switch().dump_flows(&name("br"), "", false, now).expect("a bridge");
        flows.into_iter().map(|flow| flow.n_packets).collect()
    };
    assert_eq!(counts, [3, 3], "both flows counted");
    let octets = 3 * frame.len() as u64;
    let view = bench.switch().bridges().remove(0);
    let port = |number| view.ports.iter().find(|port| port.number == number).expect("a port").counters;
    assert_eq!((port(2).tx_packets, port(2).tx_bytes, port(3).rx_packets, port(3).rx_bytes), (3, octets, 3, octets));
    let router = bench.switch().routers().remove(0);
    assert_eq!((router.packets, router.bytes, router.through), (3, octets, None));
}

/// Input: a packet too large for the next hop, also as a super-frame whose segments are. Output: it goes into the
/// namespace, others still past it.
#[test]
fn what_the_kernel_would_answer_goes_to_it() {
    let (mut bench, small) = plainly();
    let mut tables = plain();
    tables.links.get_mut(&3).expect("there").mtu = 128;
    bench.switch().observe_router(Path::new(NETNS), tables.model());
    let large = udp4([10, 1, 0, 10], [10, 2, 0, 20], (7, 9), &[3; 101]);
    for _ in 0..3 {
        assert_eq!(bench.send(1, &small)[0].port, 1, "128 octets fit");
        assert_eq!(bench.send(1, &large), [Sent { port: 2, tunnel: None, octets: large.clone() }], "129 do not");
    }
    let counters = bench.worker.counters();
    assert_eq!((counters.misses, counters.entries), (2, 2), "both are cached");

    let mut super_frame = |size: u16| {
        let mut room = [&[0; HEADROOM][..], &udp4([10, 1, 0, 10], [10, 2, 0, 20], (7, 9), &[3; 1000])].concat();
        let cut = Segmentation { kind: SegmentKind::Udp, size, ecn: false, fixed_id: false };
        let checksum = Checksum::Partial { start: 34, offset: 6 };
        let offload = Offload { checksum, segmentation: Some(cut), header_len: 42 };
        let end = room.len();
        let mut packet = Packet::new(&mut room, HEADROOM, end, &[], offload);
        let mut wire = Wire::default();
        let ingress = Ingress { port: DpPort(1), tunnel: None };
        bench.worker.process(&bench.switch, &ingress, &mut packet, bench.now, &mut wire);
        wire.0[0].port
    };
    assert_eq!((super_frame(100), super_frame(101)), (1, 2), "segments of 128 and 129 octets");
}

/// Input: one thing that is not plain forwarding. Output: the frame goes into the namespace as it is.
#[test]
fn what_is_not_plain_forwarding_goes_into_the_namespace() {
    type Change = fn(&mut Vec<u8>);
    let changes: [(Change, &str); 6] = [
        (|frame| frame[22] = 1, "its last hop"),
        (|frame| frame[0] = 6, "for another station"),
        (|frame| frame.push(0), "more octets than it says"),
        (|frame| frame[24] ^= 1, "a wrong header checksum"),
        (|frame| drop(frame.splice(12..12, [0x81, 0, 0, 5])), "a tag"),
        (|frame| frame[23] = 0, "a protocol of no number"),
    ];
    for (change, why) in changes {
        let (mut bench, mut frame) = plainly();
        change(&mut frame);
        if frame[24] == udp4([10, 1, 0, 10], [10, 2, 0, 20], (7, 9), &[3; 100])[24] && frame[12] == 8 {
            // What changed is covered by the sum.
            frame[24..26].fill(0);
            let sum = checksum::of(&frame[14..34]);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        for _ in 0..2 {
            assert_eq!(bench.send(1, &frame), [Sent { port: 2, tunnel: None, octets: frame.clone() }], "{why}");
        }
    }
}

/// Input: changes of the router, one by one. Output: the next frame already goes the other way.
#[test]
fn a_change_takes_effect_with_the_next_frame() {
    let (mut bench, frame) = plainly();
    let netns = Path::new(NETNS);
    let key = (3, [10, 2, 0, 20].into());
    let way = |bench: &mut Bench| bench.send(1, &frame).first().map(|sent| (sent.port, sent.octets[5]));
    assert_eq!(way(&mut bench), Some((1, 5)));
    bench.switch().observe_neighbours(netns, &[(key, Some(mac(9)))]);
    assert_eq!(way(&mut bench), Some((1, 9)), "its neighbour has another address");
    bench.switch().observe_neighbours(netns, &[(key, None)]);
    assert_eq!(way(&mut bench), Some((2, 2)), "it is gone");
    bench.switch().observe_router(netns, plain().model());
    assert_eq!(way(&mut bench), Some((1, 5)));
    let misses = bench.worker.counters().misses;
    bench.switch().observe_router(netns, plain().model());
    bench.switch().observe_neighbours(netns, &[((2, [10, 1, 0, 77].into()), Some(mac(7)))]);
    assert_eq!((way(&mut bench), bench.worker.counters().misses), (Some((1, 5)), misses), "nothing that concerns it");
    bench.switch().observe_router(netns, Err(Closed::Filter));
    assert_eq!(way(&mut bench), Some((2, 2)), "something filters");
    assert_eq!(bench.switch().routers()[0].through.as_deref(), Some("it has nftables or iptables tables"));
    bench.switch().observe_router(netns, plain().model());
    bench.switch().del_port(&name("br"), &name("p3")).expect("a port");
    assert_eq!(way(&mut bench), Some((2, 2)), "the way out is no port");
    bench.switch().del_port(&name("br"), &name("p2")).expect("a port");
    bench.switch().del_port(&name("other"), &name("p4")).expect("a port");
    assert!(bench.switch().router_namespaces().is_empty());
}

#[test]
fn a_trace_says_that_it_goes_past() {
    let (mut bench, frame) = plainly();
    let now = bench.now;
    let trace = |bench: &mut Bench, octets: Vec<u8>| {
        let input = TraceInput::Frame { in_port: 1, tunnel: None, octets };
        bench.switch().trace(&name("br"), &input, false, now).expect("a bridge")
    };
    let text = trace(&mut bench, frame.clone());
    let said = " -> past namespace qrouter-test, out of p3 to 02:00:00:00:00:05, up to 1500 octets";
    assert!(text.contains(said), "{text}");
    assert!(text.contains("set(eth(src=02:00:00:00:00:03,dst=02:00:00:00:00:05)),set(ipv4(ttl=63)),1"), "{text}");
    let text = trace(&mut bench, [frame, vec![0]].concat());
    assert!(text.contains(" -> into namespace qrouter-test; most frames like it go past, out of p3"), "{text}");
    assert!(text.contains("Datapath actions: 2"), "{text}");
}
