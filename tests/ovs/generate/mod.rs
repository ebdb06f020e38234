//! Random tables and packets. Values come from small pools, so that matches hit; actions respect the prerequisites
//! of Open vSwitch, so that it takes the flows; and flows are spelled as the case's OpenFlow version prints them.

mod action;
mod change;
mod matching;
mod text;
mod write;

pub(crate) use text::texts;

use super::case::{Case, Port, Step};
use super::frame::{self, Focus, MACS};
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
    let mut maker = Maker::with(rng, openflow, focus);
    let mut steps = Vec::new();
    for bridge in ["br-int", "br-tun"] {
        maker.bridge = bridge;
        maker.flows(&mut steps);
    }
    for _ in 0..packets {
        steps.push(maker.packet());
        if maker.rng.chance(4) {
            steps.push(maker.change());
        }
        if maker.rng.chance(2) {
            steps.push(Step::Wait(maker.rng.number(&[1_300, 1_300, 5_300, 5_300, 5_300, 12_300, 12_300, 301_300])));
        }
    }
    for bridge in ["br-int", "br-tun"] {
        maker.bridge = bridge;
        steps.push(Step::Dump { bridge: bridge.to_owned(), filter: String::new() });
        let filter = maker.filter();
        steps.push(Step::Dump { bridge: bridge.to_owned(), filter });
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
    fn new(seed: u64, focus: Focus) -> Self {
        let mut rng = Rng::new(seed);
        let openflow = if rng.chance(60) { 10 } else { 15 };
        Self::with(rng, openflow, focus)
    }

    fn with(rng: Rng, openflow: u8, focus: Focus) -> Self {
        let mut maker = Self {
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
        maker
    }

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
            head += &format!(",cookie={:#x}", self.rng.number(change::COOKIES));
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
}

fn prefixed(matching: &str) -> String {
    if matching.is_empty() { String::new() } else { format!(",{matching}") }
}
