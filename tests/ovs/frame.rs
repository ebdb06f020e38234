//! Frames of every kind the engine reads fields of, from small pools of values so that matches hit.

use super::rng::Rng;

pub(crate) const MACS: &[&str] = &[
    "00:00:00:00:00:01",
    "fa:16:3e:00:00:02",
    "fa:16:3e:00:00:03",
    "fa:16:3f:00:00:09",
    "ff:ff:ff:ff:ff:ff",
    "01:00:5e:00:00:01",
    "01:80:c2:00:00:0e",
    "01:00:0c:cc:cc:cc",
];
pub(crate) const IPV4: &[&str] = &["10.1.0.1", "10.1.0.2", "10.1.7.20", "10.2.0.20", "192.0.2.9", "224.0.0.5"];
pub(crate) const IPV6: &[&str] =
    &["fe80::1", "fe80::f816:3eff:fe00:2", "2001:db8::20", "2001:db8:0:1::9", "ff02::1:ff00:20"];
pub(crate) const PORTS: &[u16] = &[0, 22, 53, 80, 443, 4789, 0x8001];
pub(crate) const VIDS: &[u16] = &[10, 20, 30];

fn mac(rng: &mut Rng, unicast: bool) -> [u8; 6] {
    let pool = if unicast || rng.chance(60) { &MACS[..4] } else { MACS };
    let mut octets = [0; 6];
    for (octet, text) in octets.iter_mut().zip(rng.pick(pool).split(':')) {
        *octet = u8::from_str_radix(text, 16).expect("hexadecimal");
    }
    octets
}

fn ipv4(rng: &mut Rng) -> [u8; 4] {
    rng.pick(IPV4).parse::<std::net::Ipv4Addr>().expect("an address").octets()
}

fn ipv6(rng: &mut Rng) -> [u8; 16] {
    rng.pick(IPV6).parse::<std::net::Ipv6Addr>().expect("an address").octets()
}

fn checksum(octets: &[u8]) -> u16 {
    let sum: u32 =
        octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((folded & 0xffff) + (folded >> 16)).expect("folded twice")
}

/// What most packets of a case are, so that its flows meet them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Focus {
    Nothing,
    Arp,
    /// Of an IP protocol, 0 for any; ICMPv6 takes ICMP's place.
    Ipv4(u8),
    Ipv6(u8),
}

/// A frame as hexadecimal digits.
pub(crate) fn frame(rng: &mut Rng, focus: Focus) -> String {
    let focus = if rng.chance(80) { focus } else { Focus::Nothing };
    let mut frame = Vec::new();
    frame.extend(mac(rng, false));
    frame.extend(mac(rng, true));
    let tag = |rng: &mut Rng, frame: &mut Vec<u8>, vid: u16| {
        let tpid: u16 = if rng.chance(8) { 0x88a8 } else { 0x8100 };
        let pcp: u16 = rng.number(&[0, 0, 0, 3, 7]);
        frame.extend(tpid.to_be_bytes());
        frame.extend((pcp << 13 | vid).to_be_bytes());
    };
    match rng.below(100) {
        0..52 => {}
        52..88 => {
            let vid = rng.number(VIDS);
            tag(rng, &mut frame, vid);
        }
        88..96 => tag(rng, &mut frame, 0),
        _ => {
            let (outer, inner) = (rng.number(VIDS), rng.number(VIDS));
            tag(rng, &mut frame, outer);
            tag(rng, &mut frame, inner);
        }
    }
    match (rng.below(100), focus) {
        (_, Focus::Arp) | (0..20, Focus::Nothing) => arp(rng, &mut frame),
        (_, Focus::Ipv4(protocol)) => packet4(rng, &mut frame, protocol),
        (_, Focus::Ipv6(protocol)) => packet6(rng, &mut frame, protocol),
        (20..65, Focus::Nothing) => packet4(rng, &mut frame, 0),
        (65..95, Focus::Nothing) => packet6(rng, &mut frame, 0),
        (95..98, Focus::Nothing) => frame.extend([0x88, 0xb5, 1, 2, 3, 4]),
        _ => frame.extend([0, 8, 0xaa, 0xaa, 3, 0, 0, 0, 8, 0]),
    }
    if rng.chance(20) && frame.len() < 60 {
        frame.resize(60, 0);
    }
    // An ARP whose operation was not read cannot be put back as it was between two ports of a flood: then it would
    // matter which of them is first.
    let arp = [12, 16].iter().any(|at| frame.get(*at..at + 2) == Some(&[8, 6]));
    if rng.chance(4) && !arp {
        frame.truncate(14 + rng.below(frame.len() - 13));
    }
    frame.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn arp(rng: &mut Rng, frame: &mut Vec<u8>) {
    let rarp = rng.chance(8);
    frame.extend(if rarp { [0x80, 0x35] } else { [8, 6] });
    frame.extend([0, 1, 8, 0, 6, 4]);
    frame.extend(rng.number(&[1u16, 1, 2, 2, 3]).to_be_bytes());
    let (sender, target) = (ipv4(rng), if rng.chance(20) { None } else { Some(ipv4(rng)) });
    frame.extend(mac(rng, true));
    frame.extend(sender);
    frame.extend(if rng.chance(50) { [0; 6] } else { mac(rng, true) });
    frame.extend(target.unwrap_or(sender));
}

fn transport(rng: &mut Rng, six: bool, focus: u8) -> (u8, Vec<u8>) {
    let mut octets = Vec::new();
    let kind = match focus {
        6 => 0,
        17 => 35,
        1 | 58 => 65,
        _ => rng.below(100),
    };
    let protocol = match kind {
        0..35 => {
            octets.extend(rng.number(PORTS).to_be_bytes());
            octets.extend(rng.number(PORTS).to_be_bytes());
            octets.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, rng.number(&[2, 0x12, 0x10, 0x11, 4]), 0x20, 0, 0, 0, 0, 0]);
            6
        }
        35..65 => {
            octets.extend(rng.number(PORTS).to_be_bytes());
            octets.extend(rng.number(PORTS).to_be_bytes());
            octets.extend([0, 12, 0, 0, 1, 2, 3, 4]);
            17
        }
        65..90 if six => {
            icmp6(rng, &mut octets);
            58
        }
        65..90 => {
            octets.extend([rng.number(&[0, 8, 8, 3]), rng.number(&[0, 0, 1]), 0, 0, 0, 7, 0, 1]);
            1
        }
        90..94 => {
            octets.extend([0, 80, 0, 22, 0, 0, 0, 1, 0, 0, 0, 0]);
            132
        }
        _ => {
            octets.extend([1, 2, 3, 4]);
            rng.number(&[47, 103, 50])
        }
    };
    (protocol, octets)
}

fn icmp6(rng: &mut Rng, octets: &mut Vec<u8>) {
    let kind = rng.number(&[128u8, 129, 135, 135, 136, 136]);
    octets.extend([kind, u8::from(rng.chance(5)), 0, 0]);
    if kind < 130 {
        octets.extend([0, 7, 0, 1]);
        return;
    }
    octets.extend(if kind == 136 && rng.chance(50) { [0x60, 0, 0, 0] } else { [0; 4] });
    octets.extend(ipv6(rng));
    for _ in 0..rng.number(&[0, 1, 1, 1, 2]) {
        let option = rng.number(&[1u8, 1, 2, 2, 14]);
        octets.extend([option, if rng.chance(5) { 0 } else { 1 }]);
        octets.extend(mac(rng, true));
    }
}

fn packet4(rng: &mut Rng, frame: &mut Vec<u8>, focus: u8) {
    frame.extend([8, 0]);
    let start = frame.len();
    let (protocol, body) = transport(rng, false, focus);
    let options = rng.chance(4);
    let fragment: u16 = match rng.below(100) {
        0..82 => 0x4000,
        82..88 => 0x2000,
        88..94 => 0x2010,
        _ => 0x0010,
    };
    let length = u16::try_from(20 + 4 * usize::from(options) + body.len()).expect("short");
    frame.extend([if options { 0x46 } else { 0x45 }, rng.number(&[0, 0, 0x10, 0xb8, 1, 0x13])]);
    frame.extend(length.to_be_bytes());
    frame.extend([0, 1]);
    frame.extend(fragment.to_be_bytes());
    frame.extend([rng.number(&[64, 64, 64, 2, 1, 0]), protocol, 0, 0]);
    frame.extend(ipv4(rng));
    frame.extend(ipv4(rng));
    if options {
        frame.extend([1, 1, 1, 0]);
    }
    let sum = checksum(&frame[start..]);
    frame[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(body);
}

fn packet6(rng: &mut Rng, frame: &mut Vec<u8>, focus: u8) {
    frame.extend([0x86, 0xdd]);
    let (protocol, body) = transport(rng, true, focus);
    let extension: (u8, Vec<u8>) = match rng.below(100) {
        0..86 => (protocol, Vec::new()),
        86..89 => (0, vec![protocol, 0, 1, 4, 0, 0, 0, 0]),
        89..93 => (44, vec![protocol, 0, 0, 1, 0, 0, 0, 9]),
        93..97 => (44, vec![protocol, 0, 0, 0x11, 0, 0, 0, 9]),
        _ => (44, vec![protocol, 0, 0, 0x10, 0, 0, 0, 9]),
    };
    let class: u32 = rng.number(&[0, 0, 0x10, 0xb8, 1]);
    let label: u32 = rng.number(&[0, 0, 5, 0xf_0005]);
    frame.extend((6 << 28 | class << 20 | label).to_be_bytes());
    frame.extend(u16::try_from(extension.1.len() + body.len()).expect("short").to_be_bytes());
    frame.extend([extension.0, rng.number(&[64, 64, 255, 255, 2, 1, 0])]);
    frame.extend(ipv6(rng));
    frame.extend(ipv6(rng));
    frame.extend(extension.1);
    frame.extend(body);
}
