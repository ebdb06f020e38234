//! Random tables and packets. Values come from small pools, so that matches hit; actions respect the prerequisites
//! of Open vSwitch, so that it takes the flows; and flows are spelled as the case's OpenFlow version prints them.

use super::case::{Case, Port, Step};
use super::frame::{self, Focus, IPV4, IPV6, MACS, PORTS, VIDS};
use super::rng::Rng;

/// The ports that every generated case has: every VLAN mode, both bridges' own ports, a patch, two tunnels.
pub(crate) const PORTS_TEXT: &str = "\
port br-int 65534 br-int netdev 1 trunk
port br-int 1 p11 netdev 11 trunk
port br-int 2 p12 netdev 12 access 10
port br-int 3 p13 netdev 13 access 20
port br-int 4 p14 netdev 14 trunks 10 20
port br-int 5 p15 netdev 15 native 10 20
port br-int 6 p16 netdev 16 trunk
port br-int 10 patch-tun patch patch-int trunk
port br-tun 65534 br-tun netdev 2 trunk
port br-tun 1 patch-int patch patch-tun trunk
port br-tun 2 vx2 vxlan 4789 192.0.2.1 192.0.2.2 trunk
port br-tun 3 vx3 vxlan 4789 192.0.2.1 192.0.2.3 trunk
port br-tun 4 p24 netdev 24 trunk
";

pub(crate) fn ports() -> Vec<Port> {
    Case::read(PORTS_TEXT).expect("written above").0.ports
}

/// Tables in use: few, so that resubmits meet.
const TABLES: usize = 6;

/// What a flow's match ensures of its packets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Any,
    Arp,
    Ip,
    Ip6,
    Tcp,
    Tcp6,
    Udp,
    Udp6,
    Icmp,
    Icmp6,
    Solicit,
    Advert,
}

impl Shape {
    const fn words(self) -> &'static str {
        match self {
            Self::Any => "",
            Self::Arp => "arp",
            Self::Ip => "ip",
            Self::Ip6 => "ipv6",
            Self::Tcp => "tcp",
            Self::Tcp6 => "tcp6",
            Self::Udp => "udp",
            Self::Udp6 => "udp6",
            Self::Icmp => "icmp",
            Self::Icmp6 => "icmp6",
            Self::Solicit => "icmp6,icmp_type=135,icmp_code=0",
            Self::Advert => "icmp6,icmp_type=136,icmp_code=0",
        }
    }

    const fn is_v4(self) -> bool {
        matches!(self, Self::Ip | Self::Tcp | Self::Udp | Self::Icmp)
    }

    const fn is_v6(self) -> bool {
        matches!(self, Self::Ip6 | Self::Tcp6 | Self::Udp6 | Self::Icmp6 | Self::Solicit | Self::Advert)
    }

    const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Tcp6 | Self::Udp | Self::Udp6)
    }

    const fn port_words(self) -> (&'static str, &'static str) {
        if matches!(self, Self::Tcp | Self::Tcp6) { ("TCP", "tcp") } else { ("UDP", "udp") }
    }
}

/// Whether packets are known to carry a tag where the action stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Unknown,
    None,
    Some,
}

/// The case that `seed` stands for, with this many packets.
pub(crate) fn case(seed: u64, packets: usize) -> Case {
    let mut rng = Rng::new(seed);
    let openflow = if rng.chance(60) { 10 } else { 15 };
    let focus = rng.number(&[
        Focus::Nothing,
        Focus::Arp,
        Focus::Ipv4(0),
        Focus::Ipv4(6),
        Focus::Ipv4(17),
        Focus::Ipv4(1),
        Focus::Ipv6(0),
        Focus::Ipv6(6),
        Focus::Ipv6(58),
    ]);
    let mut maker = Maker {
        rng,
        openflow,
        bridge: "br-int",
        shape: Shape::Any,
        tag: Tag::Unknown,
        table: 0,
        focus,
        priorities: (2..2_000).rev().collect(),
        heads: Vec::new(),
    };
    maker.shuffle();
    let mut steps = Vec::new();
    for bridge in ["br-int", "br-tun"] {
        maker.bridge = bridge;
        maker.flows(&mut steps);
    }
    for _ in 0..packets {
        steps.push(maker.packet());
        if maker.rng.chance(3) {
            steps.push(maker.change());
        }
        if maker.rng.chance(2) {
            steps.push(Step::Wait(maker.rng.number(&[1_300, 5_300, 12_300])));
        }
    }
    for bridge in ["br-int", "br-tun"] {
        steps.push(Step::Dump(bridge.to_owned()));
        steps.push(Step::Fdb(bridge.to_owned()));
    }
    Case { openflow, ports: ports(), steps }
}

struct Maker {
    rng: Rng,
    openflow: u8,
    bridge: &'static str,
    shape: Shape,
    tag: Tag,
    table: usize,
    focus: Focus,
    /// The priorities not yet used: flows of one priority must not overlap, for which one wins is not defined.
    priorities: Vec<u16>,
    /// The flows added so far, without their actions.
    heads: Vec<(&'static str, String)>,
}

impl Maker {
    fn flows(&mut self, steps: &mut Vec<Step>) {
        for table in 0..TABLES {
            let count = if table == 0 { 5 } else { 3 };
            for _ in 0..self.rng.below(count) + 1 {
                let flow = self.flow(table);
                steps.push(self.add(flow));
            }
            if table > 0 && self.rng.chance(60) {
                (self.table, self.shape, self.tag) = (table, self.shape(), Tag::Unknown);
                let (words, actions) = (self.shape.words(), self.actions(0));
                steps.push(self.add(format!("table={table},priority=0{} actions={actions}", prefixed(words))));
            }
        }
        // Without these too many packets would end nowhere.
        if self.rng.chance(80) {
            let actions = match (self.bridge, self.rng.below(4)) {
                ("br-int", 0..3) => "NORMAL".to_owned(),
                _ => format!("resubmit(,{})", 1 + self.rng.below(TABLES)),
            };
            steps.push(self.add(format!("priority=0 actions={actions}")));
        }
    }

    fn add(&self, flow: String) -> Step {
        Step::Change { how: "add".to_owned(), bridge: self.bridge.to_owned(), flow }
    }

    /// A change of the tables between packets.
    fn change(&mut self) -> Step {
        self.bridge = self.bridge_name();
        let table = self.rng.below(TABLES);
        // In OpenFlow 1.0 a modification that finds nothing adds; ours is that of later versions.
        let all: &[&str] = &["add", "delete", "delete_strict", "modify", "modify_strict"];
        let how = self.rng.pick(if self.openflow == 10 { &all[..3] } else { all });
        let flow = match how {
            "delete" => {
                let matching = self.matching();
                format!("table={table}{}", prefixed(&matching))
            }
            "delete_strict" => self.head(),
            "modify_strict" => {
                (self.shape, self.tag) = (Shape::Any, Tag::Unknown);
                let (head, actions) = (self.head(), self.actions(0));
                format!("{head} actions={}", actions.replace("delete_learned,", ""))
            }
            "modify" => {
                self.table = table;
                let matching = self.matching();
                let actions = self.actions(0).replace("delete_learned,", "");
                format!("table={table}{} actions={actions}", prefixed(&matching))
            }
            _ => self.flow(table),
        };
        Step::Change { how: how.to_owned(), bridge: self.bridge.to_owned(), flow }
    }

    /// What a flow of this bridge is called in strict changes.
    fn head(&mut self) -> String {
        let own = self.heads.iter().filter(|(bridge, _)| *bridge == self.bridge);
        let own: Vec<String> = own.map(|(_, head)| head.clone()).collect();
        let head = own[self.rng.below(own.len())].clone();
        let table = head.split(',').next().and_then(|part| part.strip_prefix("table="));
        self.table = table.and_then(|table| table.parse().ok()).expect("a head starts with its table");
        head
    }

    fn bridge_name(&mut self) -> &'static str {
        if self.rng.chance(65) { "br-int" } else { "br-tun" }
    }

    fn packet(&mut self) -> Step {
        self.bridge = self.bridge_name();
        let mut flow = match self.bridge {
            "br-int" => format!("in_port={}", self.rng.pick(&["1", "1", "1", "6", "6", "2", "3", "4", "5", "LOCAL"])),
            _ => format!("in_port={}", self.rng.number(&[2, 2, 3, 3, 4])),
        };
        if matches!(flow.as_str(), "in_port=2" | "in_port=3") && self.bridge == "br-tun" {
            let remote = if flow == "in_port=2" { "192.0.2.2" } else { "192.0.2.3" };
            let key = self.rng.number(&[5, 7, 0x10a]);
            let tos = self.rng.number(&[0, 0, 0, 1, 2, 3, 0x10]);
            flow += &format!(",tun_id={key},tun_src={remote},tun_dst=192.0.2.1,tun_tos={tos},tun_ttl=64");
        }
        let octets = Some(frame::frame(&mut self.rng, self.focus));
        Step::Packet { bridge: self.bridge.to_owned(), flow, octets }
    }

    fn shuffle(&mut self) {
        for at in (1..self.priorities.len()).rev() {
            let other = self.rng.below(at + 1);
            self.priorities.swap(at, other);
        }
        // The default is one of them, for it is printed in a way of its own.
        let at = self.priorities.len() - 1 - self.rng.below(40);
        self.priorities[at] = 32768;
    }

    fn priority(&mut self) -> u16 {
        self.priorities.pop().expect("enough for a case")
    }

    fn flow(&mut self, table: usize) -> String {
        self.table = table;
        let priority = self.priority();
        let mut head = format!("table={table},priority={priority}");
        if self.rng.chance(10) {
            head += &format!(",cookie={:#x}", self.rng.number(&[1u64, 0xdead_beef, u64::MAX - 1]));
        }
        let matching = prefixed(&self.matching());
        self.heads.push((self.bridge, format!("table={table},priority={priority}{matching}")));
        let actions = self.actions(0);
        // OVS 3.1 fails an assertion when a flow expires that takes with it another that expires at the same moment.
        if !actions.contains("delete_learned") {
            if self.rng.chance(4) {
                head += &format!(",idle_timeout={}", self.rng.number(&[10, 300]));
            }
            if self.rng.chance(4) {
                head += &format!(",hard_timeout={}", self.rng.number(&[4, 300]));
            }
        }
        format!("{head}{matching} actions={actions}")
    }

    fn mac(&mut self) -> &'static str {
        self.rng.pick(MACS)
    }

    fn shape(&mut self) -> Shape {
        let any: &[Shape] = &[
            Shape::Any,
            Shape::Any,
            Shape::Any,
            Shape::Arp,
            Shape::Ip,
            Shape::Ip6,
            Shape::Tcp,
            Shape::Tcp6,
            Shape::Udp,
            Shape::Udp6,
            Shape::Icmp,
            Shape::Icmp6,
            Shape::Solicit,
            Shape::Advert,
        ];
        let likely: &[Shape] = match self.focus {
            Focus::Nothing => any,
            Focus::Arp => &[Shape::Arp],
            Focus::Ipv4(6) => &[Shape::Tcp, Shape::Tcp, Shape::Ip],
            Focus::Ipv4(17) => &[Shape::Udp, Shape::Udp, Shape::Ip],
            Focus::Ipv4(1) => &[Shape::Icmp, Shape::Ip],
            Focus::Ipv4(_) => &[Shape::Ip],
            Focus::Ipv6(6) => &[Shape::Tcp6, Shape::Tcp6, Shape::Ip6],
            Focus::Ipv6(58) => &[Shape::Icmp6, Shape::Solicit, Shape::Advert, Shape::Ip6],
            Focus::Ipv6(_) => &[Shape::Ip6],
        };
        if self.rng.chance(75) { self.rng.number(likely) } else { self.rng.number(any) }
    }

    /// A match; what it ensures is noted for the actions.
    fn matching(&mut self) -> String {
        let mut parts = Vec::new();
        self.shape = self.shape();
        if self.shape != Shape::Any {
            parts.push(self.shape.words().to_owned());
        }
        if self.rng.chance(30) {
            let port = if self.bridge == "br-int" { self.rng.below(7) } else { self.rng.below(5) };
            let special = ["10", "LOCAL"];
            parts.push(format!(
                "in_port={}",
                if port == 0 { self.rng.pick(&special).to_owned() } else { port.to_string() }
            ));
        }
        self.match_ethernet(&mut parts);
        self.match_metadata(&mut parts);
        self.match_network(&mut parts);
        parts.join(",")
    }

    fn match_ethernet(&mut self, parts: &mut Vec<String>) {
        for (name, percent) in [("dl_src", 12), ("dl_dst", 25)] {
            if self.rng.chance(percent) {
                let mac = self.mac();
                parts.push(match self.rng.below(5) {
                    0 if name == "dl_dst" => self
                        .rng
                        .pick(&[
                            "dl_dst=01:00:00:00:00:00/01:00:00:00:00:00",
                            "dl_dst=00:00:00:00:00:00/01:00:00:00:00:00",
                        ])
                        .to_owned(),
                    1 => format!("{name}={mac}/ff:ff:00:00:00:00"),
                    2 => format!("{name}={mac}/00:00:00:00:00:07"),
                    _ => format!("{name}={mac}"),
                });
            }
        }
        self.tag = Tag::Unknown;
        if self.rng.chance(30) {
            let vid = self.rng.number(VIDS);
            let (text, tag) = match self.rng.below(9) {
                0..=2 => (format!("dl_vlan={vid}"), Tag::Some),
                3 => ("vlan_tci=0x1000/0x1000".to_owned(), Tag::Some),
                4 if self.openflow == 10 => ("vlan_tci=0x0000".to_owned(), Tag::None),
                4 => ("vlan_tci=0x0000/0x1fff".to_owned(), Tag::None),
                5 => (format!("dl_vlan={vid},dl_vlan_pcp={}", self.rng.number(&[0, 3])), Tag::Some),
                6 => (format!("vlan_tci={:#06x}/0x100f", 0x1000 | vid & 0xf), Tag::Some),
                7 => (format!("dl_vlan_pcp={}", self.rng.number(&[0, 3])), Tag::Some),
                _ => ("vlan_tci=0x0000/0x1000".to_owned(), Tag::None),
            };
            parts.push(text);
            self.tag = tag;
        }
    }

    fn match_metadata(&mut self, parts: &mut Vec<String>) {
        if self.rng.chance(12) {
            let value = self.rng.number(&[0, 1, 5, 0x10a]);
            parts.push(match self.rng.below(3) {
                0 => format!("metadata={value:#x}"),
                _ => format!("metadata={:#x}/0xf", value & 0xf),
            });
        }
        if self.rng.chance(12) {
            let (index, value) = (self.rng.below(3), self.rng.number(&[0, 1, 5, 0x10a]));
            parts.push(match self.rng.below(3) {
                0 | 1 => format!("reg{index}={value:#x}"),
                _ => format!("reg{index}={:#x}/0x1f", value & 0x1f),
            });
        }
        if self.rng.chance(if self.bridge == "br-tun" { 30 } else { 5 }) {
            let key = self.rng.number(&[0, 5, 7, 0x10a]);
            parts.push(match self.rng.below(4) {
                0 => format!("tun_id={:#x}/0x3", key & 3),
                _ => format!("tun_id={key:#x}"),
            });
        }
        if self.bridge == "br-tun" && self.rng.chance(10) {
            parts.push(self.rng.pick(&["tun_src=192.0.2.2", "tun_src=192.0.2.0/24", "tun_dst=192.0.2.1"]).to_owned());
        }
    }

    fn match_network(&mut self, parts: &mut Vec<String>) {
        let shape = self.shape;
        if shape.is_v4() {
            for name in ["nw_src", "nw_dst"] {
                if self.rng.chance(20) {
                    let address = self.rng.pick(IPV4);
                    let mask = self.rng.pick(&["", "", "/24", "/16", "/0.0.255.0", "/31"]);
                    parts.push(format!("{name}={address}{mask}"));
                }
            }
        }
        if shape.is_v6() {
            for name in ["ipv6_src", "ipv6_dst"] {
                if self.rng.chance(30) {
                    let address = self.rng.pick(IPV6);
                    parts.push(format!("{name}={address}{}", self.rng.pick(&["", "", "/64", "/10", "/ffff::ff"])));
                }
            }
            if self.rng.chance(8) {
                parts.push(self.rng.pick(&["ipv6_label=0x5", "ipv6_label=0x00005/0x0000f"]).to_owned());
            }
        }
        if shape.is_v4() || shape.is_v6() {
            if self.rng.chance(8) {
                parts.push(format!("nw_tos={}", self.rng.number(&[0, 16, 184])));
            }
            if self.rng.chance(6) {
                parts.push(format!("nw_ecn={}", self.rng.number(&[0, 1, 3])));
            }
            if self.rng.chance(6) {
                parts.push(format!("nw_ttl={}", self.rng.number(&[1, 64, 255])));
            }
            if self.rng.chance(10) {
                // Later fragments have no transport header to be matched or written.
                let any = matches!(shape, Shape::Ip | Shape::Ip6);
                let all: &[&str] = &["no", "yes", "first", "not_later", "later"];
                parts.push(format!("ip_frag={}", self.rng.pick(if any { all } else { &all[..4] })));
            }
        }
        self.match_transport(parts);
        if shape == Shape::Arp {
            self.match_arp(parts);
        }
    }

    fn match_transport(&mut self, parts: &mut Vec<String>) {
        let shape = self.shape;
        if shape.has_ports() {
            for name in ["tp_src", "tp_dst"] {
                if self.rng.chance(20) {
                    let port = self.rng.number(PORTS);
                    parts.push(match self.rng.below(4) {
                        0 => format!("{name}={:#x}/0xfff0", port & 0xfff0),
                        _ => format!("{name}={port}"),
                    });
                }
            }
        }
        if matches!(shape, Shape::Tcp | Shape::Tcp6) && self.rng.chance(20) {
            parts.push(self.rng.pick(&["tcp_flags=+syn-ack", "tcp_flags=+ack", "tcp_flags=0x012/0x0ff"]).to_owned());
        }
        if shape == Shape::Icmp && self.rng.chance(60) {
            parts
                .push(self.rng.pick(&["icmp_type=8", "icmp_type=8,icmp_code=0", "icmp_type=3,icmp_code=1"]).to_owned());
        }
        if shape == Shape::Icmp6 && self.rng.chance(50) {
            parts.push(self.rng.pick(&["icmp_type=128", "icmp_type=135", "icmp_code=0"]).to_owned());
        }
        if matches!(shape, Shape::Solicit | Shape::Advert) {
            if self.rng.chance(40) {
                parts.push(format!("nd_target={}", self.rng.pick(IPV6)));
            }
            if self.rng.chance(25) {
                let name = if shape == Shape::Solicit { "nd_sll" } else { "nd_tll" };
                parts.push(format!("{name}={}", self.mac()));
            }
        }
    }

    fn match_arp(&mut self, parts: &mut Vec<String>) {
        if self.rng.chance(40) {
            parts.push(format!("arp_op={}", self.rng.number(&[1, 1, 2])));
        }
        for name in ["arp_spa", "arp_tpa"] {
            if self.rng.chance(25) {
                let address = self.rng.pick(IPV4);
                parts.push(format!("{name}={address}{}", self.rng.pick(&["", "", "/24"])));
            }
        }
        for name in ["arp_sha", "arp_tha"] {
            if self.rng.chance(12) {
                parts.push(format!("{name}={}", self.mac()));
            }
        }
    }

    fn actions(&mut self, depth: usize) -> String {
        if depth == 0 && self.rng.chance(5) {
            return "drop".to_owned();
        }
        if depth == 0 && self.shape == Shape::Arp && self.rng.chance(12) {
            return self.arp_responder();
        }
        let mut actions = Vec::new();
        for _ in 0..self.rng.below(if depth == 0 { 5 } else { 3 }) + 1 {
            actions.push(self.action(depth));
        }
        if self.rng.chance(45) {
            actions.push(self.output());
        }
        if self.openflow == 15 && depth == 0 && self.table + 1 < TABLES && self.rng.chance(15) {
            if self.rng.chance(50) {
                actions.push(self.rng.pick(&["write_metadata:0x5", "write_metadata:0x5/0xf"]).to_owned());
            }
            actions.push(format!("goto_table:{}", self.table + 1 + self.rng.below(TABLES - self.table - 1)));
        }
        actions.join(",")
    }

    /// As Neutron's br-tun answers.
    fn arp_responder(&mut self) -> String {
        let mac = self.mac();
        let first = match self.openflow {
            10 => format!("mod_dl_src:{mac}"),
            _ => format!("set_field:{mac}->eth_src"),
        };
        let value = u64::from_str_radix(&mac.replace(':', ""), 16).expect("hexadecimal");
        let (operation, hardware, protocol) = match self.openflow {
            10 => (
                "load:0x2->NXM_OF_ARP_OP[]".to_owned(),
                format!("load:{value:#x}->NXM_NX_ARP_SHA[]"),
                "load:0xa010014->NXM_OF_ARP_SPA[]".to_owned(),
            ),
            _ => (
                "set_field:2->arp_op".to_owned(),
                format!("set_field:{mac}->arp_sha"),
                "set_field:10.1.0.20->arp_spa".to_owned(),
            ),
        };
        format!(
            "move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[],{first},{operation},move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[],\
             move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[],{hardware},{protocol},IN_PORT"
        )
    }

    fn output(&mut self) -> String {
        let port = match self.bridge {
            "br-int" => self.rng.number(&[1, 2, 3, 4, 5, 6, 10, 10, 99]),
            _ => self.rng.number(&[1, 1, 2, 3, 4]),
        };
        format!("output:{port}")
    }

    fn action(&mut self, depth: usize) -> String {
        match self.rng.below(100) {
            0..22 => self.output(),
            22..25 => "IN_PORT".to_owned(),
            // Between tunnels our `NORMAL` does not flood, that of OVS does.
            25..28 if self.bridge == "br-int" => "NORMAL".to_owned(),
            28..30 => self.rng.pick(&["FLOOD", "ALL", "LOCAL"]).to_owned(),
            30..48 => self.resubmit(),
            48..56 => self.learn(),
            56..70 => self.write_ethernet(),
            70..82 => self.write_metadata(),
            82..95 => self.write_network(),
            95..97 if depth < 2 => {
                let (tag, inner) = (self.tag, self.actions(depth + 1));
                self.tag = tag;
                format!("clone({inner})")
            }
            97 => "note:01.02.00.00.00.00".to_owned(),
            98 => "exit".to_owned(),
            _ => "output:NXM_NX_REG1[0..15]".to_owned(),
        }
    }

    fn resubmit(&mut self) -> String {
        // Mostly onward; sometimes back, to meet the limits.
        let table = if self.rng.chance(98) { self.table + 1 + self.rng.below(3) } else { self.rng.below(TABLES) };
        match self.rng.below(12) {
            0 => format!("resubmit({},{table})", self.rng.number(&[1, 2, 4])),
            1 if self.table > 0 || self.rng.chance(20) => {
                format!("resubmit({},{})", self.rng.number(&[1, 4]), self.table + 1)
            }
            _ => format!("resubmit(,{table})"),
        }
    }

    fn learn(&mut self) -> String {
        let mut words = vec![format!("table={}", self.rng.number(&[3, 4, 5, 6]))];
        if self.rng.chance(60) {
            words.push(format!("hard_timeout={}", self.rng.number(&[4, 300])));
        } else if self.rng.chance(30) {
            words.push("idle_timeout=10".to_owned());
        }
        if self.shape == Shape::Tcp && self.rng.chance(30) {
            words.push("fin_idle_timeout=5".to_owned());
        }
        // One of its own, as flows have.
        words.push(format!("priority={}", self.priority()));
        if self.rng.chance(15) {
            words.push("delete_learned".to_owned());
        }
        if self.rng.chance(15) {
            words.push("cookie=0x7".to_owned());
        }
        if self.rng.chance(10) {
            words.push(format!("limit={}", self.rng.number(&[1, 2])));
        }
        self.learn_specs(&mut words);
        format!("learn({})", words.join(","))
    }

    fn learn_specs(&mut self, words: &mut Vec<String>) {
        let mut spec = |text: &str| words.push(text.to_owned());
        match (self.shape, self.rng.below(6)) {
            (Shape::Arp, 0..3) => {
                spec("eth_type=0x806");
                spec("NXM_OF_ARP_TPA[]=NXM_OF_ARP_SPA[]");
            }
            (Shape::Ip | Shape::Icmp, 0..3) => {
                spec("eth_type=0x800");
                spec("NXM_OF_IP_DST[]=NXM_OF_IP_SRC[]");
            }
            (Shape::Tcp, 0..4) => {
                spec("eth_type=0x800");
                spec("nw_proto=6");
                spec("NXM_OF_IP_SRC[]=NXM_OF_IP_DST[]");
                spec("NXM_OF_TCP_SRC[]=NXM_OF_TCP_DST[]");
            }
            (Shape::Ip6 | Shape::Solicit, 0..3) => {
                spec("eth_type=0x86dd");
                spec("NXM_NX_IPV6_DST[]=NXM_NX_IPV6_SRC[]");
            }
            (_, 0 | 1) => spec("NXM_OF_VLAN_TCI[0..11]"),
            (_, 2) => spec("NXM_OF_IN_PORT[]"),
            (_, 3) => spec("NXM_NX_REG0[3..7]=0x5"),
            _ => {}
        }
        match self.rng.below(4) {
            0 => spec("NXM_OF_ETH_SRC[]"),
            1 | 2 => spec("NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[]"),
            _ => {}
        }
        // Learned loads are dumped as `set_field` from OpenFlow 1.5 on.
        match if self.openflow == 10 { self.rng.below(6) } else { 6 } {
            0 => spec("load:0->NXM_OF_VLAN_TCI[]"),
            1 => spec("load:NXM_OF_IN_PORT[]->NXM_NX_REG1[0..15]"),
            2 => spec("load:0x5->NXM_NX_REG0[3..7]"),
            3 => spec("load:NXM_OF_ETH_SRC[0..15]->NXM_NX_REG2[16..31]"),
            _ => {}
        }
        if self.openflow == 10 && self.rng.chance(40) {
            spec("load:NXM_NX_TUN_ID[]->NXM_NX_TUN_ID[]");
        }
        if self.rng.chance(75) {
            spec(self.rng.pick(&["output:NXM_OF_IN_PORT[]", "output:NXM_OF_IN_PORT[]", "output:NXM_NX_REG1[0..15]"]));
        }
    }

    fn write_ethernet(&mut self) -> String {
        let (mac, vid) = (self.mac(), self.rng.number(VIDS));
        let ten = self.openflow == 10;
        match self.rng.below(10) {
            0 | 1 if ten => format!("mod_dl_src:{mac}"),
            2 if ten => format!("mod_dl_dst:{mac}"),
            3 | 4 if ten => {
                self.tag = Tag::Some;
                format!("mod_vlan_vid:{vid}")
            }
            5 if ten => {
                self.tag = Tag::Some;
                format!("mod_vlan_pcp:{}", self.rng.number(&[0, 3, 7]))
            }
            6 | 7 if ten => {
                self.tag = Tag::None;
                "strip_vlan".to_owned()
            }
            8 if ten => {
                self.tag = Tag::Unknown;
                self.rng
                    .pick(&[
                        "load:0->NXM_OF_VLAN_TCI[]",
                        "load:0x100a->NXM_OF_VLAN_TCI[]",
                        "load:0x14->NXM_OF_VLAN_TCI[0..11]",
                    ])
                    .to_owned()
            }
            0 => format!("set_field:{mac}->eth_src"),
            1 => format!("set_field:{mac}->eth_dst"),
            2 => format!("set_field:00:00:00:00:00:05/00:00:00:00:00:0f->{}", self.rng.pick(&["eth_src", "eth_dst"])),
            3 | 4 if self.tag == Tag::Some => format!("set_field:{}->vlan_vid", 0x1000 | vid),
            5 if self.tag == Tag::Some => "set_field:3->vlan_pcp".to_owned(),
            6 | 7 if self.tag == Tag::Some => {
                self.tag = Tag::Unknown;
                "pop_vlan".to_owned()
            }
            3..8 if self.tag == Tag::None || self.rng.chance(10) => {
                self.tag = Tag::Some;
                format!("push_vlan:0x8100,set_field:{}->vlan_vid", 0x1000 | vid)
            }
            _ => self
                .rng
                .pick(&["move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]", "move:NXM_OF_ETH_DST[0..7]->NXM_OF_ETH_SRC[8..15]"])
                .to_owned(),
        }
    }

    fn write_metadata(&mut self) -> String {
        let (index, value) = (self.rng.below(3), self.rng.number(&[1, 4, 5, 0x10a]));
        let ten = self.openflow == 10;
        match self.rng.below(10) {
            0 | 1 if ten => format!("load:{value:#x}->NXM_NX_REG{index}[]"),
            2 if ten => format!("load:{:#x}->NXM_NX_REG{index}[2..6]", value & 0x1f),
            3 if ten => format!("load:{value:#x}->NXM_NX_TUN_ID[]"),
            4 if ten => format!("set_tunnel:{value:#x}"),
            5 if ten => format!("load:{value:#x}->OXM_OF_METADATA[]"),
            6 if ten => "load:0->NXM_OF_IN_PORT[]".to_owned(),
            0 | 1 => format!("set_field:{value:#x}->reg{index}"),
            2 => format!("set_field:{:#x}/0x1f->reg{index}", value & 0x1f),
            3 | 4 => format!("set_field:{value:#x}->tun_id"),
            5 => format!("set_field:{value:#x}->metadata"),
            6 => format!("set_field:{:#x}/0xf->metadata", value & 0xf),
            7 => format!("move:NXM_NX_REG{index}[0..15]->NXM_NX_REG{}[16..31]", (index + 1) % 3),
            8 => format!("move:NXM_OF_IN_PORT[]->NXM_NX_REG{index}[0..15]"),
            _ => format!("move:NXM_OF_VLAN_TCI[0..11]->NXM_NX_REG{index}[0..11]"),
        }
    }

    fn write_network(&mut self) -> String {
        let shape = self.shape;
        let ten = self.openflow == 10;
        if shape == Shape::Arp {
            return self.write_arp();
        }
        if shape.has_ports() && self.rng.chance(40) {
            let (upper, lower) = shape.port_words();
            let (port, side) = (self.rng.number(PORTS), self.rng.pick(&["src", "dst"]));
            return match self.rng.below(4) {
                0 => format!("move:NXM_OF_{upper}_SRC[]->NXM_OF_{upper}_DST[]"),
                _ if ten => format!("mod_tp_{side}:{port}"),
                1 => format!("set_field:0x1/0xff->{lower}_{side}"),
                _ => format!("set_field:{port}->{lower}_{side}"),
            };
        }
        if !shape.is_v4() && !shape.is_v6() {
            return self.output();
        }
        if matches!(shape, Shape::Solicit | Shape::Advert) && self.rng.chance(40) {
            return self.write_neighbour();
        }
        let (address4, address6) = (self.rng.pick(IPV4), self.rng.pick(IPV6));
        let side = self.rng.pick(&["src", "dst"]);
        let upper = side.to_uppercase();
        match self.rng.below(8) {
            0..3 if shape.is_v4() && ten => format!("mod_nw_{side}:{address4}"),
            0 | 1 if shape.is_v4() => format!("set_field:{address4}->ip_{side}"),
            2 if shape.is_v4() => format!("set_field:10.9.0.0/255.255.0.0->ip_{side}"),
            0 if ten => format!("load:0x9->NXM_NX_IPV6_{upper}[0..31]"),
            0..3 if ten => "move:NXM_NX_IPV6_SRC[]->NXM_NX_IPV6_DST[]".to_owned(),
            0 | 1 => format!("set_field:{address6}->ipv6_{side}"),
            2 => format!("set_field:::9/::ff->ipv6_{side}"),
            3 if ten => format!("mod_nw_tos:{}", self.rng.number(&[0, 16, 184])),
            3 => format!("set_field:{}->ip_dscp", self.rng.number(&[0, 4, 46])),
            4 if ten => format!("load:0x{}->NXM_NX_IP_ECN[]", self.rng.number(&[1, 3])),
            4 => "set_field:1->nw_ecn".to_owned(),
            5 if ten => "load:0x9->NXM_NX_IP_TTL[]".to_owned(),
            5 => "mod_nw_ttl:9".to_owned(),
            _ => "dec_ttl".to_owned(),
        }
    }

    fn write_arp(&mut self) -> String {
        let (mac, address) = (self.mac(), self.rng.pick(IPV4));
        let ten = self.openflow == 10;
        match self.rng.below(5) {
            0 if ten => "load:0x2->NXM_OF_ARP_OP[]".to_owned(),
            0 => "set_field:2->arp_op".to_owned(),
            1 => "move:NXM_NX_ARP_SHA[]->NXM_NX_ARP_THA[]".to_owned(),
            2 => "move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[]".to_owned(),
            3 if ten => "load:0x5->NXM_NX_ARP_SHA[]".to_owned(),
            3 => format!("set_field:{mac}->arp_sha"),
            _ if ten => "load:0xa010009->NXM_OF_ARP_SPA[]".to_owned(),
            _ => format!("set_field:{address}->arp_spa"),
        }
    }

    fn write_neighbour(&mut self) -> String {
        let (mac, address) = (self.mac(), self.rng.pick(IPV6));
        let (upper, lower) = if self.shape == Shape::Solicit { ("SLL", "sll") } else { ("TLL", "tll") };
        let ten = self.openflow == 10;
        match self.rng.below(3) {
            0 if ten => "move:NXM_NX_IPV6_SRC[]->NXM_NX_ND_TARGET[]".to_owned(),
            0 => format!("set_field:{address}->nd_target"),
            1 if ten => format!("load:0x5->NXM_NX_ND_{upper}[]"),
            1 => format!("set_field:{mac}->nd_{lower}"),
            _ => format!("move:NXM_OF_ETH_SRC[]->NXM_NX_ND_{upper}[]"),
        }
    }
}

fn prefixed(matching: &str) -> String {
    if matching.is_empty() { String::new() } else { format!(",{matching}") }
}
