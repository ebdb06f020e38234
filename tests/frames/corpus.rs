//! Frames to begin with, and how they are mutated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dvr::model::view::NodeView;
use dvr::types::Mac;
use dvr::wire::{arp, checksum};
use zerocopy::IntoBytes;

/// Marsaglia's xorshift64*: the same frames at every run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).expect("31 bits") % bound.max(1)
    }

    pub(crate) fn octet(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    pub(crate) fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

/// Frames to begin with, and what mutations put in them.
pub(crate) struct Corpus {
    pub(crate) frames: Vec<Vec<u8>>,
    macs: Vec<Mac>,
    pub(crate) vnis: Vec<u32>,
    pub(crate) peers: Vec<IpAddr>,
}

fn ethernet(dst: Mac, src: Mac, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&dst.octets()[..], &src.octets(), &ether_type.to_be_bytes(), payload].concat()
}

fn ipv4(ips: (Ipv4Addr, Ipv4Addr), protocol: u8, fragment: u16, options: usize, payload: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options).expect("few");
    let length = u16::try_from(20 + 4 * options + payload.len()).expect("short");
    let mut header = vec![0x40 | words, 0];
    header.extend(length.to_be_bytes());
    header.extend([0, 7]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(ips.0.octets());
    header.extend(ips.1.octets());
    header.extend(vec![1; 4 * options]);
    let sum = checksum::of(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    header.extend(payload);
    header
}

fn ipv6(ips: (Ipv6Addr, Ipv6Addr), next: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short");
    [&[0x60, 0, 0, 1][..], &length.to_be_bytes(), &[next, 64], &ips.0.octets(), &ips.1.octets(), payload].concat()
}

/// A transport header with its checksum, and payload.
fn transport(protocol: u8, pseudo: (&[u8], &[u8]), payload: &[u8]) -> Vec<u8> {
    let (mut octets, at) = match protocol {
        6 => (vec![0x9c, 0x40, 0x14, 0x51, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0], 16),
        17 => (vec![0x9c, 0x40, 0, 53, 0, 0, 0, 0], 6),
        _ => (vec![if protocol == 58 { 128 } else { 8 }, 0, 0, 0, 0, 1, 0, 2], 2),
    };
    octets.extend(payload);
    if protocol == 17 {
        let length = u16::try_from(octets.len()).expect("short").to_be_bytes();
        octets[4..6].copy_from_slice(&length);
    }
    let sum = if protocol == 1 { 0 } else { checksum::pseudo(pseudo.0, pseudo.1, protocol, octets.len()) };
    let sum = !checksum::fold(checksum::add(sum, &octets));
    octets[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    octets
}

fn neighbour(ips: (Ipv6Addr, Ipv6Addr), kind: u8, target: Ipv6Addr, option: u8, mac: Mac) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[option, 1], &mac.octets()].concat();
    let sum = checksum::pseudo(&ips.0.octets(), &ips.1.octets(), 58, message.len());
    let sum = !checksum::fold(checksum::add(sum, &message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = ipv6(ips, 58, &message);
    packet[7] = 255;
    packet
}

impl Corpus {
    /// Every kind of frame between every pair of stations of a network.
    pub(crate) fn of(view: &NodeView) -> Self {
        let mut corpus = Self {
            frames: Vec::new(),
            macs: vec![Mac::BROADCAST, Mac::ZERO],
            vnis: vec![0, 1, 0xff_ffff],
            peers: Vec::new(),
        };
        corpus.macs.extend([
            view.node.host_mac,
            Mac::new([1, 0x80, 0xc2, 0, 0, 0]),
            Mac::new([0x33, 0x33, 0xff, 0, 0, 1]),
        ]);
        corpus.macs.extend(view.peers.iter().map(|peer| peer.host_mac));
        corpus.peers.extend(view.peers.iter().map(|peer| peer.tunnel_ip));
        corpus.peers.extend([view.node.tunnel_ip, IpAddr::from([192, 0, 2, 9]), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
        for network in &view.networks {
            corpus.vnis.extend(network.segment.vni().map(dvr::types::Vni::get));
            let mut stations: Vec<(Mac, Vec<IpAddr>)> = Vec::new();
            let own =
                |port: &dvr::model::view::PortView| (port.mac, port.addresses.iter().map(ipnet::IpNet::addr).collect());
            stations.extend(network.local_ports.iter().map(own));
            stations.extend(network.remote_ports.iter().map(|port| (port.mac, port.ips.clone())));
            let routers = view.routers.iter().flat_map(|router| &router.interfaces);
            let routers = routers.filter(|port| port.network == network.name);
            stations.extend(routers.map(|port| (port.mac, port.addresses.iter().map(ipnet::IpNet::addr).collect())));
            stations.push((Mac::new([0xfa, 0x16, 0x3e, 0xff, 0xff, 1]), vec![IpAddr::from([10, 1, 0, 77])]));
            for from in &stations {
                for to in stations.iter().filter(|to| to.0 != from.0) {
                    corpus.pair(from, to);
                }
                corpus.macs.push(from.0);
            }
        }
        corpus
    }

    fn pair(&mut self, from: &(Mac, Vec<IpAddr>), to: &(Mac, Vec<IpAddr>)) {
        let link = |mac: Mac| IpAddr::V6(mac.link_local());
        let ips = |station: &(Mac, Vec<IpAddr>)| station.1.iter().copied().chain([link(station.0)]).collect::<Vec<_>>();
        let payload: Vec<u8> = (0..32).collect();
        for src in ips(from) {
            for dst in ips(to) {
                match (src, dst) {
                    (IpAddr::V4(src), IpAddr::V4(dst)) => self.four((from.0, src), (to.0, dst), &payload),
                    (IpAddr::V6(src), IpAddr::V6(dst)) => self.six((from.0, src), (to.0, dst), &payload),
                    (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {}
                }
            }
        }
    }

    fn four(&mut self, src: (Mac, Ipv4Addr), dst: (Mac, Ipv4Addr), payload: &[u8]) {
        let question = arp::Packet::new(arp::REQUEST, src, (Mac::ZERO, dst.1));
        self.frames.push(ethernet(Mac::BROADCAST, src.0, 0x0806, question.as_bytes()));
        self.frames.push(ethernet(dst.0, src.0, 0x0806, arp::Packet::new(arp::REPLY, src, dst).as_bytes()));
        let (a, b) = (src.1.octets(), dst.1.octets());
        for protocol in [1, 6, 17] {
            let inner = transport(protocol, (&a, &b), payload);
            let whole = ipv4((src.1, dst.1), protocol, 0x4000, 0, &inner);
            self.frames.push(ethernet(dst.0, src.0, 0x0800, &whole));
            let tagged = [&[0, 5, 8, 0][..], &whole].concat();
            self.frames.push(ethernet(dst.0, src.0, 0x8100, &tagged));
            self.frames.push(ethernet(dst.0, src.0, 0x0800, &ipv4((src.1, dst.1), protocol, 0x4000, 3, &inner)));
            self.frames.push(ethernet(dst.0, src.0, 0x0800, &ipv4((src.1, dst.1), protocol, 0x2000, 0, &inner)));
            self.frames.push(ethernet(dst.0, src.0, 0x0800, &ipv4((src.1, dst.1), protocol, 0x0003, 0, &inner)));
        }
        let group = Mac::new([1, 0, 0x5e, 0, 0, 5]);
        let inner = transport(17, (&a, &[224, 0, 0, 5]), payload);
        self.frames.push(ethernet(group, src.0, 0x0800, &ipv4((src.1, Ipv4Addr::new(224, 0, 0, 5)), 17, 0, 0, &inner)));
    }

    fn six(&mut self, src: (Mac, Ipv6Addr), dst: (Mac, Ipv6Addr), payload: &[u8]) {
        let (a, b) = (src.1.octets(), dst.1.octets());
        for protocol in [6, 17, 58] {
            let inner = transport(protocol, (&a, &b), payload);
            self.frames.push(ethernet(dst.0, src.0, 0x86dd, &ipv6((src.1, dst.1), protocol, &inner)));
            let hops = [&[protocol, 0, 1, 4, 0, 0, 0, 0][..], &inner].concat();
            self.frames.push(ethernet(dst.0, src.0, 0x86dd, &ipv6((src.1, dst.1), 0, &hops)));
            let routed = [&[protocol, 2, 4, 1, 0, 0, 0, 0][..], &a, &inner].concat();
            self.frames.push(ethernet(dst.0, src.0, 0x86dd, &ipv6((src.1, dst.1), 43, &routed)));
            let first = [&[protocol, 0, 0, 1, 0, 0, 0, 9][..], &inner].concat();
            self.frames.push(ethernet(dst.0, src.0, 0x86dd, &ipv6((src.1, dst.1), 44, &first)));
            let later = [&[protocol, 0, 0, 0x48, 0, 0, 0, 9][..], &inner].concat();
            self.frames.push(ethernet(dst.0, src.0, 0x86dd, &ipv6((src.1, dst.1), 44, &later)));
        }
        let [.., x, y, z] = b;
        let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, x, y, z]);
        let asked = neighbour((src.1, group), 135, dst.1, 1, src.0);
        self.frames.push(ethernet(Mac::new([0x33, 0x33, 0xff, x, y, z]), src.0, 0x86dd, &asked));
        self.frames.push(ethernet(dst.0, src.0, 0x86dd, &neighbour((src.1, dst.1), 136, src.1, 2, src.0)));
    }

    /// One of the frames, changed in up to four ways.
    pub(crate) fn mutated(&self, random: &mut Random) -> Vec<u8> {
        let mut frame = random.pick(&self.frames).clone();
        for _ in 0..random.below(5) {
            self.mutate(random, &mut frame);
        }
        frame
    }

    fn mutate(&self, random: &mut Random, frame: &mut Vec<u8>) {
        let at = random.below(frame.len());
        match random.below(12) {
            0 => frame.truncate(at),
            1 => frame.iter_mut().skip(at).take(1).for_each(|octet| *octet ^= 1 << (at % 8)),
            2 => frame.iter_mut().skip(at).take(1).for_each(|octet| *octet = random.octet()),
            3 => {
                const WORDS: [u16; 12] = [0, 1, 0xffff, 0x7fff, 0x8100, 0x88a8, 0x0800, 0x86dd, 0x0806, 20, 40, 0x05dc];
                let word = random.pick(&WORDS).to_be_bytes();
                frame.iter_mut().skip(at).zip(word).for_each(|(octet, new)| *octet = new);
            }
            4 => {
                let other = random.pick(&self.frames);
                frame.truncate(at);
                frame.extend_from_slice(&other[at.min(other.len())..]);
            }
            5 if frame.len() >= 12 => {
                for _ in 0..=random.below(5) {
                    let kind = if random.one_in(3) { 0xa8 } else { 0 };
                    let tag = [0x81 | (kind & 0x88), kind & 0xa8, random.octet() & 0x1f, random.octet()];
                    frame.splice(12..12, tag);
                }
            }
            6 => {
                let more = random.below(300);
                frame.extend((0..more).map(|_| random.octet()));
            }
            7 | 8 if frame.len() >= 12 => {
                let side = 6 * random.below(2);
                frame[side..side + 6].copy_from_slice(&random.pick(&self.macs).octets());
            }
            // The fields that say where the next header is, and what.
            9 if frame.len() > 24 => {
                let place = *random.pick(&[12, 13, 14, 16, 17, 20, 21, 23]);
                frame[place] = random.octet();
            }
            10 if frame.len() > 60 => frame[54 + random.below(6)] = random.octet(),
            _ if random.one_in(40) => frame.resize(60_000 + random.below(6000), 0x55),
            _ => {}
        }
    }

    /// A virtio header: of a frame for itself, of an honest or a lying super-frame, or noise.
    pub(crate) fn header(&self, random: &mut Random, frame: &[u8]) -> [u8; 10] {
        let mut header = [0; 10];
        match random.below(4) {
            0 => {}
            1 => header.iter_mut().for_each(|octet| *octet = random.octet()),
            kind => {
                let start = if frame.get(12..14) == Some(&[0x86, 0xdd]) { 54 } else { 34 }
                    + if kind == 2 { 0 } else { random.below(9) };
                let offset = *random.pick(&[16, 6, 2, 0, 40]);
                let size = *random.pick(&[1, 8, 100, 1398, 0]);
                header[0] = 1;
                header[1] = *random.pick(&[0, 0, 1, 4, 5, 0x81, 3]);
                for (place, value) in [(4, size), (6, start), (8, offset)] {
                    header[place..place + 2].copy_from_slice(&u16::try_from(value).expect("small").to_ne_bytes());
                }
            }
        }
        header
    }
}

/// Makes a plain TCP or UDP frame over IPv4 the one that would follow it, so that tunnels join them.
pub(crate) fn next_of_flow(frame: &mut [u8]) {
    if frame[12..15] != [8, 0, 0x45] || frame.len() < 54 {
        return;
    }
    let payload = u32::try_from(frame.len()).expect("short") - 54;
    let identification = u16::from_be_bytes([frame[18], frame[19]]).wrapping_add(1);
    frame[18..20].copy_from_slice(&identification.to_be_bytes());
    frame[24..26].fill(0);
    let sum = checksum::of(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    if frame[23] == 6 {
        let sequence = u32::from_be_bytes([frame[38], frame[39], frame[40], frame[41]]).wrapping_add(payload);
        frame[38..42].copy_from_slice(&sequence.to_be_bytes());
        frame[50..52].fill(0);
        let sum = checksum::pseudo(&frame[26..30], &frame[30..34], 6, frame.len() - 34);
        let sum = !checksum::fold(checksum::add(sum, &frame[34..]));
        frame[50..52].copy_from_slice(&sum.to_be_bytes());
    }
}
