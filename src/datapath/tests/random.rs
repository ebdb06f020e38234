//! Random flows and frames from a universe so small that they meet.

use super::*;
use crate::wire::ethernet;

/// Numbers drawn from a few words; the same words give the same numbers.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    pub(super) fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[usize::try_from(self.roll(choices.len() as u64)).expect("small")]
    }
}

const PROTOCOLS: [&str; 9] = ["", "ip", "arp", "tcp", "udp", "icmp", "ipv6", "udp6", "icmp6"];
const ANY: [&str; 14] = [
    "in_port=1",
    "in_port=2",
    "dl_src=02:00:00:00:00:01",
    "dl_dst=02:00:00:00:00:02",
    "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00",
    "dl_vlan=1",
    "vlan_tci=0",
    "vlan_tci=0x1000/0x1000",
    "dl_vlan_pcp=2",
    "reg0=1",
    "reg1=0x2/0x3",
    "metadata=5",
    "tun_id=7",
    "tun_src=10.0.0.2",
];
const IPV4: [&str; 9] = [
    "nw_src=10.1.0.1",
    "nw_dst=10.1.0.0/24",
    "nw_src=10.1.0.0/31",
    "nw_tos=32",
    "nw_ecn=1",
    "nw_ttl=1",
    "ip_frag=no",
    "ip_frag=later",
    "ip_frag=not_later",
];
const IPV6: [&str; 4] = ["ipv6_src=fe80::1", "ipv6_dst=fe80::/64", "ipv6_label=3", "nw_ttl=255"];
const ARP: [&str; 4] = ["arp_op=1", "arp_spa=10.1.0.1", "arp_tpa=10.1.0.2", "arp_sha=02:00:00:00:00:01"];

fn matching(dice: &mut Dice) -> (String, &'static str) {
    let protocol = dice.pick(&PROTOCOLS);
    let mut parts = vec![protocol];
    // Wide matches make the wide cache entries that could be too wide.
    if dice.roll(2) == 0 {
        return (protocol.to_owned(), protocol);
    }
    for _ in 0..dice.roll(3) {
        parts.push(dice.pick(&ANY));
    }
    for _ in 0..dice.roll(3) {
        parts.push(match protocol {
            "ip" => dice.pick(&IPV4),
            "tcp" => dice.pick(&[
                "tp_src=1",
                "tp_dst=2",
                "tp_dst=0x2/0xfffe",
                "tcp_flags=+syn-ack",
                "nw_src=10.1.0.1",
                "nw_ttl=1",
            ]),
            "udp" => dice.pick(&["tp_src=1", "tp_dst=2", "ip_frag=first", "nw_dst=10.1.0.2"]),
            "icmp" => dice.pick(&["icmp_type=8", "icmp_code=0"]),
            "ipv6" => dice.pick(&IPV6),
            "udp6" => dice.pick(&["tp_dst=2", "ipv6_src=fe80::1"]),
            "icmp6" => dice.pick(&[
                "icmp_type=135",
                "icmp_type=136",
                "icmp_type=135,nd_target=fe80::2",
                "icmp_type=135,nd_options_type=1",
            ]),
            "arp" => dice.pick(&ARP),
            _ => dice.pick(&ANY),
        });
    }
    parts.retain(|part| !part.is_empty());
    (parts.join(","), protocol)
}

const ACTIONS: [&str; 34] = [
    "output:1",
    "output:2",
    "output:3",
    "output:10",
    "output:11",
    "in_port",
    "NORMAL",
    "FLOOD",
    "ALL",
    "resubmit(,1)",
    "resubmit(,2)",
    "resubmit(2,1)",
    "resubmit(,3)",
    "mod_vlan_vid:1",
    "mod_vlan_pcp:3",
    "strip_vlan",
    "push_vlan:0x8100",
    "mod_dl_src:02:00:00:00:00:03",
    "set_field:02:00:00:00:00:00/ff:ff:ff:ff:ff:00->eth_dst",
    "load:1->NXM_NX_REG0[]",
    "load:2->NXM_NX_REG1[0..1]",
    "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]",
    "move:NXM_OF_IN_PORT[]->NXM_NX_REG2[0..15]",
    "output:NXM_NX_REG2[]",
    "set_tunnel:9",
    "write_metadata:5",
    "load:0->NXM_OF_VLAN_TCI[]",
    "clone(mod_dl_dst:02:00:00:00:00:04,output:2)",
    "learn(table=2,hard_timeout=5,priority=2,NXM_OF_VLAN_TCI[0..11],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:0->NXM_OF_VLAN_TCI[],load:NXM_NX_TUN_ID[]->NXM_NX_TUN_ID[],output:NXM_OF_IN_PORT[])",
    "learn(table=3,idle_timeout=3,cookie=9,limit=2,NXM_OF_ETH_SRC[],load:1->NXM_NX_REG0[])",
    "learn(table=1,hard_timeout=4,delete_learned,cookie=8,NXM_OF_ETH_SRC[],output:NXM_OF_IN_PORT[])",
    "exit",
    "note:01",
    "move:NXM_NX_REG1[0..7]->NXM_NX_REG0[0..7]",
];

fn actions(dice: &mut Dice, protocol: &str) -> String {
    let mut parts = Vec::new();
    for _ in 0..dice.roll(6) {
        let special: &[&str] = match protocol {
            "ip" => &[
                "dec_ttl",
                "mod_nw_src:10.1.0.9",
                "mod_nw_tos:32",
                "mod_nw_ecn:1",
                "set_field:10.1.0.0/255.255.255.0->ip_dst",
            ],
            "tcp" => &[
                "mod_tp_src:1",
                "mod_tp_dst:5",
                "mod_nw_dst:10.1.0.1",
                "dec_ttl",
                "fin_timeout(idle_timeout=2)",
                "load:3->NXM_OF_TCP_SRC[0..3]",
            ],
            "udp" => &["mod_tp_src:1", "mod_tp_dst:5", "mod_nw_ttl:1", "move:NXM_OF_UDP_SRC[]->NXM_OF_UDP_DST[]"],
            "arp" => &[
                "load:2->NXM_OF_ARP_OP[]",
                "move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[]",
                "move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[]",
            ],
            "ipv6" => &["dec_ttl", "set_field:fe80::9->ipv6_dst", "set_field:5->ipv6_label", "mod_nw_tos:4"],
            "icmp6" => &["set_field:136->icmpv6_type", "set_field:fe80::9->ipv6_src"],
            _ => &[],
        };
        let all = special.len() as u64 * 3 + ACTIONS.len() as u64;
        let rolled = usize::try_from(dice.roll(all)).expect("small");
        parts.push(if rolled < ACTIONS.len() {
            ACTIONS[rolled]
        } else {
            special[(rolled - ACTIONS.len()) % special.len()]
        });
    }
    if parts.is_empty() { "drop".to_owned() } else { parts.join(",") }
}

/// A flow for `add-flow`.
pub(super) fn flow(dice: &mut Dice) -> String {
    let (matching, protocol) = matching(dice);
    let timeout = dice.pick(&["", "", "idle_timeout=3,", "hard_timeout=4,", "cookie=0x9,"]);
    let table = [0, 0, 0, 1, 1, 2, 3][usize::try_from(dice.roll(7)).expect("small")];
    let priority = dice.roll(3);
    format!("table={table},priority={priority},{timeout}{matching} actions={}", actions(dice, protocol))
}

/// What `del-flows` takes.
pub(super) fn filter(dice: &mut Dice) -> String {
    if dice.roll(3) == 0 { format!("table={}", dice.roll(4)) } else { matching(dice).0 }
}

/// Where a frame comes in: a port, or a tunnel.
pub(super) fn ingress(dice: &mut Dice) -> Ingress {
    match dice.roll(6) {
        0 => {
            let src = [10, 0, 0, 2 + u8::try_from(dice.roll(2)).expect("small")];
            let id = 7 + dice.roll(2);
            Ingress {
                port: DpPort(9),
                tunnel: Some(TunnelMeta { id, src: src.into(), dst: [10, 0, 0, 1].into(), tos: 0, ttl: 64 }),
            }
        }
        rolled => Ingress { port: DpPort(u32::try_from(rolled).expect("small")), tunnel: None },
    }
}

fn octet(dice: &mut Dice, sides: u64) -> u8 {
    u8::try_from(dice.roll(sides)).expect("small")
}

/// A frame, right in all its lengths.
pub(super) fn frame(dice: &mut Dice) -> Vec<u8> {
    let mut frame = match dice.roll(6) {
        0 => hex("ffffffffffff"),
        1 => hex("0180c2000001"),
        _ => vec![2, 0, 0, 0, 0, 1 + octet(dice, 4)],
    };
    frame.extend_from_slice(&[2, 0, 0, 0, 0, 1 + octet(dice, 3)]);
    for _ in 0..dice.roll(3) {
        frame.extend_from_slice(&[0x81, 0, octet(dice, 3) << 5, octet(dice, 3)]);
    }
    let payload = match dice.roll(8) {
        0 | 1 => arp(dice),
        2 | 3 => ipv6(dice),
        4 => (0x88b5_u16).to_be_bytes().into_iter().chain([1, 2, 3]).collect(),
        _ => ipv4(dice),
    };
    frame.extend(payload);
    frame
}

fn arp(dice: &mut Dice) -> Vec<u8> {
    let mut arp = hex("0806 0001 0800 06 04 00");
    arp.push(1 + octet(dice, 2));
    for _ in 0..2 {
        arp.extend_from_slice(&[2, 0, 0, 0, 0, octet(dice, 3), 10, 1, 0, octet(dice, 3)]);
    }
    arp
}

fn transport(dice: &mut Dice, protocol: u8) -> Vec<u8> {
    let ports = [0, octet(dice, 4), 0, octet(dice, 4)];
    match protocol {
        6 => [
            &ports[..],
            &[0; 8],
            &[0x50, [0x02, 0x10, 0x12, 0x11, 0x04][usize::from(octet(dice, 5))]],
            &[0; 6],
            &[7; 3],
        ]
        .concat(),
        17 => [&ports[..], &[0, 11, 0, 0], &[7; 3]].concat(),
        1 => vec![[8, 0, 3][usize::from(octet(dice, 3))], octet(dice, 2), 0, 0, 0, 0, 0, 0],
        _ => vec![9; 12],
    }
}

fn fill(body: &mut [u8], at: usize, sum: u64) {
    let checksum = !checksum::fold(checksum::add(sum, body));
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    body[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

fn ipv4(dice: &mut Dice) -> Vec<u8> {
    let protocol = [6, 17, 1, 47][usize::from(octet(dice, 4))];
    let mut body = transport(dice, protocol);
    let (src, dst) = ([10, 1, 0, octet(dice, 3)], [10, 1, 0, octet(dice, 3)]);
    let pseudo = checksum::pseudo(&src, &dst, protocol, body.len());
    match protocol {
        6 => fill(&mut body, 16, pseudo),
        17 if dice.roll(4) != 0 => fill(&mut body, 6, pseudo),
        1 => fill(&mut body, 2, 0),
        _ => {}
    }
    let fragment = [[0, 0], [0, 0], [0, 0], [0x20, 0], [0x20, 5], [0, 5]][usize::from(octet(dice, 6))];
    let options = if dice.roll(5) == 0 { 4 } else { 0 };
    let length = u16::try_from(20 + options + body.len()).expect("short").to_be_bytes();
    let ttl = [1, 2, 64][usize::from(octet(dice, 3))];
    let first = if options == 0 { 0x45 } else { 0x46 };
    let mut ip = vec![
        first,
        [0, 32, 33, 1][usize::from(octet(dice, 4))],
        length[0],
        length[1],
        0,
        9,
        fragment[0],
        fragment[1],
        ttl,
        protocol,
        0,
        0,
    ];
    ip.extend(src);
    ip.extend(dst);
    ip.extend(vec![1; options]);
    let sum = checksum::of(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [ethernet::TYPE_IPV4.to_be_bytes().to_vec(), ip, body].concat()
}

fn ipv6(dice: &mut Dice) -> Vec<u8> {
    let protocol = [17, 58, 58, 6][usize::from(octet(dice, 4))];
    let mut address = || {
        let mut address = hex("fe80 0000 0000 0000 0000 0000 0000 0000");
        address[15] = octet(dice, 3);
        address
    };
    let (src, dst, target) = (address(), address(), address());
    let mut body = if protocol == 58 {
        let mut nd = vec![135 + octet(dice, 2), 0, 0, 0, 0, 0, 0, 0];
        nd.extend(target);
        nd.extend_from_slice(&[1 + octet(dice, 2), 1, 2, 0, 0, 0, 0, octet(dice, 3)]);
        nd
    } else {
        transport(dice, protocol)
    };
    let at = [(17, 6), (58, 2), (6, 16)].iter().find(|(known, _)| *known == protocol).expect("one of three").1;
    let pseudo = checksum::pseudo(&src, &dst, protocol, body.len());
    fill(&mut body, at, pseudo);
    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
    let hops = [1, 64, 255][usize::from(octet(dice, 3))];
    let ip = [&[0x60, 0, 0, octet(dice, 4), length[0], length[1], protocol, hops][..], &src, &dst].concat();
    [ethernet::TYPE_IPV6.to_be_bytes().to_vec(), ip, body].concat()
}
