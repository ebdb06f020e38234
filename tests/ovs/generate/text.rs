//! Texts of flows, some of them well formed: most are flows as the generator makes them, with something changed.
//!
//! Left out is what OVS takes and we mean to refuse, because what it makes of it is not what was written:
//! - values it cuts off: an ARP operation above 255, a VLAN above 4095, a `learn` priority or time above 65535, ports
//!   matched as ICMP's type and code beyond 255 or with a mask, which it drops, and the like;
//! - `tcp_flags` beside neighbour discovery, of which it makes the type of an option: both are stored in one place there;
//! - a number that is only `0x`; a negative one, which wraps around at 64 bits, but for the `-1` of a field that has them;
//! - a number of `tcp_flags` with something behind it or from 2^32 on, which it reads past and wraps around;
//! - a `vlan_tci` without the bit that says there is a tag, `drop` twice;
//! - a name with nothing after its `=`, brackets that do not close, values given to words that take none;
//! - `table=255` of a flow to be added, which adds to table 0; in OpenFlow 1.0 a `goto_table` backwards, which is a
//!   `resubmit` there;
//! - `write_metadata` before other actions, which it refuses: we do it where it stands;
//! - what is up to OpenFlow versions, for we have none: headers written or tags taken off without a match that ensures
//!   them, which only 1.0 takes, beside `push_vlan`, `reset_counts`, or `write_metadata` with `goto_table`, which only
//!   later ones take and which change what 1.0 shows; `importance` and `send_flow_rem`, of which 1.0 does not tell;
//! - a `cookie` without a mask to delete by, which OVS refuses: we take it for that cookie;
//! - fields and actions that this switch does not have.

use super::{Maker, Shape, TABLES};
use crate::ovs::case::{Case, Step};
use crate::ovs::compare::split;
use crate::ovs::frame::Focus;

/// Values at the edges of fields, and what is no number.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "3",
    "7",
    "010",
    "08",
    "0x10",
    "255",
    "256",
    "4095",
    "65535",
    "65536",
    "0xffffffff",
    "4294967296",
    "-1",
    "1x",
    "abc",
    "1.5",
    "0x1ffffffffffffffff",
    "10.1.0.1",
    "::1",
    "1:2:3:4:5:6",
    "1:2:3:4:5",
    "LOCAL",
];
const MASKS: &[&str] = &[
    "/0",
    "/1",
    "/3",
    "/0xff",
    "/-1",
    "/32",
    "/33",
    "/64",
    "/129",
    "/255.255.0.0",
    "/ffff::",
    "/ff:ff:ff:00:00:00",
    "/08",
    "/x",
    "/1/2",
];
/// Fields by every kind of name.
const FIELDS: &[&str] = &[
    "in_port",
    "dl_src",
    "eth_src",
    "dl_dst",
    "eth_dst",
    "dl_type",
    "eth_type",
    "nw_src",
    "ip_src",
    "nw_dst",
    "ipv6_src",
    "ipv6_dst",
    "ipv6_label",
    "nw_proto",
    "ip_proto",
    "nw_tos",
    "nw_ttl",
    "ip_frag",
    "nw_frag",
    "arp_spa",
    "arp_tpa",
    "arp_sha",
    "arp_tha",
    "tp_src",
    "tp_dst",
    "tcp_src",
    "tcp_dst",
    "tcp_flags",
    "udp_src",
    "sctp_dst",
    "icmp_type",
    "icmp_code",
    "icmpv6_type",
    "icmpv6_code",
    "nd_target",
    "nd_sll",
    "nd_tll",
    "tun_id",
    "tunnel_id",
    "tun_src",
    "tun_dst",
    "metadata",
    "reg0",
    "reg15",
    "reg16",
    "xreg0",
    "xreg7",
    "xreg8",
    "xxreg3",
    "xxreg4",
    "priority",
    "idle_timeout",
    "hard_timeout",
    "cookie",
    "table",
    "out_port",
    "importance",
    "nosuch",
    "NW_SRC",
];
/// Fields of which OVS cuts off what does not fit.
const CUT: &[&str] = &["arp_op", "dl_vlan", "dl_vlan_pcp", "vlan_tci", "nw_ecn"];
/// Words of a match that stand alone.
const WORDS: &[&str] = &[
    "ip",
    "ipv6",
    "ip6",
    "arp",
    "rarp",
    "icmp",
    "icmp6",
    "tcp",
    "tcp6",
    "udp",
    "udp6",
    "sctp",
    "sctp6",
    "eth",
    "send_flow_rem",
    "check_overlap",
    "reset_counts",
    "TCP",
    "nosuch",
    "dl_type=0x800",
    "dl_type=0x86dd",
    "nw_proto=6",
    "nw_proto=58",
    "ip_frag=later",
    "tcp_flags=+syn-ack",
    "tcp_flags=syn|ack",
    "tcp_flags=+syn+syn",
    "tcp_flags=+nosuch",
    "tcp_flags=0xfff",
    "tcp_flags=0x1000",
    "tcp_flags=0x12/0xff",
    "in_port=p11",
    "in_port=\"p11\"",
    "in_port=nosuch",
    "in_port=ANY",
    "in_port=NONE",
    "in_port=*",
    "reg0=*",
    "nw_src=ANY",
    "icmp_type=135,icmp_code=0,nd_target=::1",
];
/// Actions, some of which need something of the match, some of which are none.
const ACTIONS: &[&str] = &[
    "drop",
    "normal",
    "output:p11",
    "p12",
    "output:\"p11\"",
    "output:ANY",
    "output:NONE",
    "output:0x3",
    "output:70000",
    "output:in_port",
    "flood",
    "ALL",
    "local",
    "output:NXM_OF_IP_PROTO[]",
    "output:reg0[0..3]",
    "mod_nw_src:10.1.0.1",
    "mod_nw_src:10.1",
    "mod_nw_tos:4",
    "mod_nw_tos:5",
    "mod_nw_ecn:1",
    "mod_nw_ecn:4",
    "mod_nw_ttl:3",
    "dec_ttl",
    "mod_tp_src:5",
    "mod_tp_dst:65536",
    "strip_vlan",
    "mod_vlan_vid:4095",
    "mod_vlan_vid:4096",
    "mod_vlan_pcp:8",
    "push_vlan:0x8100",
    "push_vlan:0x88a8",
    "push_vlan:0x9100",
    "set_vlan_vid:3",
    "mod_dl_src:1:2:3:4:5:6",
    "mod_dl_dst:1:2:3:4:5",
    "set_field:5->vlan_vid",
    "set_field:3->vlan_pcp",
    "set_field:4102->vlan_vid",
    "set_field:1.1.1.1->nw_src",
    "set_field:1.1.1.1/8->ip_dst",
    "set_field:::1->ipv6_src",
    "set_field:1->eth_type",
    "set_field:6->nw_proto",
    "set_field:5->reg0[0..3]",
    "set_field:0x5/0x3->reg0",
    "set_field:5->reg16",
    "set_field:5->nosuch",
    "set_field:5",
    "set_field:80->tcp_dst",
    "set_field:80->udp_dst",
    "set_field:1->arp_op",
    "set_field:::1->nd_target",
    "set_field:1->icmp_type",
    "set_field:0x1->xreg1",
    "set_field:0x1->xxreg1",
    "set_field:1->ip_frag",
    "set_field:1->tcp_flags",
    "set_field:1->in_port",
    "load:1->NXM_OF_IP_SRC[]",
    "load:1->OXM_OF_VLAN_PCP[]",
    "load:5->NXM_NX_REG0[3]",
    "load:1->NXM_NX_REG0[3]",
    "load:1->NXM_NX_REG0[3..1]",
    "load:1->NXM_NX_REG0[0..32]",
    "load:1->NXM_NX_REG0",
    "load:1->reg1[]",
    "load:1->NXM_OF_ETH_TYPE[]",
    "load:0x12345->NXM_OF_VLAN_TCI[]",
    "load:1->NOSUCH[]",
    "load:1->NXM_NX_REG16[]",
    "load:1->NXM_NX_XXREG0[64..127]",
    "load:1->OXM_OF_PKT_REG0[32]",
    "move:NXM_NX_REG0[0..3]->NXM_NX_REG1[0..4]",
    "move:NXM_OF_TCP_SRC[]->NXM_OF_TCP_DST[]",
    "move:NXM_OF_IP_SRC[]->NXM_NX_REG0[]",
    "move:NXM_NX_REG0[]->NXM_OF_ETH_TYPE[0..15]",
    "resubmit(,3)",
    "resubmit(,255)",
    "resubmit(1,)",
    "resubmit(1)",
    "resubmit:2",
    "resubmit()",
    "resubmit(,)",
    "resubmit(IN_PORT,3)",
    "resubmit(p11,3)",
    "resubmit(1,256)",
    "resubmit:nosuch",
    "learn()",
    "learn(table=255)",
    "learn(table=3,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[])",
    "learn(NXM_OF_TCP_SRC[])",
    "learn(NXM_OF_ETH_DST[]=NXM_OF_IN_PORT[])",
    "learn(load:5->NXM_NX_REG0[0..1])",
    "learn(eth_type=0x800,nw_proto=6,NXM_OF_ETH_SRC[])",
    "learn(nosuch=5)",
    "learn(load:NXM_OF_ETH_SRC[]->NXM_NX_REG0[])",
    "learn(result_dst=NXM_NX_REG0[3])",
    "learn(limit=5,cookie=0x5)",
    "learn(result_dst=NXM_NX_REG0[3..4])",
    "learn(result_dst=NXM_OF_ETH_TYPE[0])",
    "learn(NXM_OF_IP_DST[]=NXM_OF_IP_SRC[])",
    "learn(eth_type=0x806,NXM_OF_ARP_TPA[]=NXM_OF_ARP_SPA[])",
    "fin_timeout(idle_timeout=5)",
    "fin_timeout(nosuch=5)",
    "set_tunnel:5",
    "set_tunnel:0x1ffffffff",
    "set_tunnel64:5",
    "note:0102",
    "note:01.2",
    "note:zz",
    "note:01.02.03.04.05.06.07",
    "exit",
    "clone()",
    "clone(output:1)",
    "clone(nosuch)",
    "nosuch",
    "nosuch:3",
    "1",
    "LOCAL,3",
    "output",
    "write_metadata:0x5,goto_table:200",
    "goto_table:254",
    "goto_table:255",
    "goto_table:200,output:1",
    "load:1->NXM_OF_IN_PORT[]",
    "pop_vlan",
    "dec_ttl,dec_ttl",
    "set_queue:nosuch",
];

/// The case that `seed` stands for, with this many texts.
pub(crate) fn texts(seed: u64, count: usize) -> Case {
    let mut maker = Maker::new(seed ^ 0x7465_7874, Focus::Nothing);
    let mut steps = Vec::new();
    for _ in 0..count {
        maker.bridge = "br-int";
        let flow = maker.text();
        let how = maker.rng.pick(&["add", "add", "add", "add", "delete", "delete_strict"]);
        let flow = if how == "add" { flow } else { deletion(&flow) };
        steps.push(Step::Try { how: how.to_owned(), bridge: "br-int".to_owned(), flow });
    }
    steps.push(Step::Matches("br-int".to_owned()));
    Case { openflow: maker.openflow, ports: super::ports(), steps }
}

/// Whether the two differ on a flow by intent, and only in what is named above.
fn left_out(head: &[String], actions: &[String], openflow: u8) -> bool {
    let words: Vec<(&str, &str)> =
        head.iter().flat_map(|word| word.split(',')).map(|word| word.split_once('=').unwrap_or((word, ""))).collect();
    let any = |which: &dyn Fn(&str, &str) -> bool| words.iter().any(|(name, value)| which(name, value));
    let icmp = any(&|name, value| {
        name.starts_with("icmp") || matches!(name, "nw_proto" | "ip_proto") && !matches!(value, "6" | "17")
    });
    let flags_or_no_octet = any(&|name, value| {
        let port = ["tp_", "tcp_", "udp_", "sctp_"].iter().any(|start| name.starts_with(start));
        name == "tcp_flags" || port && value.parse::<u8>().is_err()
    });
    let untold = any(&|name, _| matches!(name, "importance" | "send_flow_rem"));
    let other = any(&|name, value| match name {
        "table" => value == "255",
        "tcp_flags" => {
            value.split('/').nth(2).is_some() || ["08", ".", "4294967296"].iter().any(|odd| value.contains(odd))
        }
        _ => name.starts_with("xxreg") && value.contains('-'),
    });
    let has = |names: &[&str]| actions.iter().any(|action| names.iter().any(|name| action.contains(name)));
    let old = has(&[
        "strip_vlan",
        "pop_vlan",
        "set_vlan_",
        "set_field:5->vlan_vid",
        "mod_nw_",
        "mod_tp_",
        "dec_ttl",
        "fin_timeout",
    ]);
    let new = has(&["push_vlan"])
        || has(&["write_metadata"]) && has(&["goto_table"])
        || any(&|name, _| name == "reset_counts");
    let mut after_metadata = actions.iter().skip_while(|action| !action.starts_with("write_metadata")).skip(1);
    icmp && flags_or_no_octet
        || untold && (openflow == 10 || old)
        || new && openflow == 10
        || other
        || old && new
        || after_metadata.any(|action| !action.starts_with("goto_table"))
}

/// The deletion of a flow.
fn deletion(flow: &str) -> String {
    let head = flow.split_once(" actions=").map_or(flow, |(head, _)| head);
    let words = head.split([',', ' ']).filter(|word| !word.is_empty());
    let words = words.map(|word| if word.starts_with("cookie=") { format!("{word}/-1") } else { word.to_owned() });
    words.collect::<Vec<_>>().join(",")
}

impl Maker {
    fn text(&mut self) -> String {
        loop {
            let (head, actions) = self.any_text();
            if !left_out(&head, &actions, self.openflow) {
                let between = self.rng.pick(&[",", ",", ",", ", ", " ", ",,"]);
                return format!("{} actions={}", head.join(between), actions.join(","));
            }
        }
    }

    fn any_text(&mut self) -> (Vec<String>, Vec<String>) {
        let table = self.rng.below(TABLES);
        let flow = self.flow(table);
        let (head, actions) = flow.split_once(" actions=").expect("every flow has actions");
        let mut head: Vec<String> = head.split(',').map(str::to_owned).collect();
        let mut actions: Vec<String> = split(actions).into_iter().map(str::to_owned).collect();
        for _ in 0..self.rng.below(3) {
            match self.rng.below(10) {
                0..6 => self.change_head(&mut head),
                _ => self.change_actions(&mut actions),
            }
        }
        (head, actions)
    }

    fn change_head(&mut self, head: &mut Vec<String>) {
        let at = self.rng.below(head.len());
        match self.rng.below(8) {
            0 if head.len() > 1 => {
                head.remove(at);
            }
            1 => head.insert(at, head[self.rng.below(head.len())].clone()),
            2 => {
                let other = self.rng.below(head.len());
                head.swap(at, other);
            }
            3 if head[at].contains('=') => head[at] += self.rng.pick(MASKS),
            4 => {
                if let Some((name, _)) = head[at].split_once('=')
                    && !CUT.contains(&name)
                {
                    head[at] = format!("{name}={}", self.rng.pick(NUMBERS));
                }
            }
            5 => head.insert(at, format!("{}={}", self.rng.pick(FIELDS), self.rng.pick(NUMBERS))),
            6 => head.insert(at, self.rng.pick(WORDS).to_owned()),
            _ => {
                if let Some((_, value)) = head[at].split_once('=') {
                    head[at] = format!("{}={value}", self.rng.pick(FIELDS));
                }
            }
        }
    }

    fn change_actions(&mut self, actions: &mut Vec<String>) {
        let at = self.rng.below(actions.len());
        match self.rng.below(6) {
            0 => {
                actions.remove(at);
            }
            1 if actions[at] != "drop" => actions.insert(at, actions[at].clone()),
            2 => {
                // As if for packets of another kind.
                let shape = self.rng.number(&[Shape::Any, Shape::Ip, Shape::Tcp, Shape::Arp, Shape::Solicit]);
                let own = core::mem::replace(&mut self.shape, shape);
                let action = self.action(0);
                self.shape = own;
                actions.insert(at, action);
            }
            _ => actions.insert(at, self.rng.pick(ACTIONS).to_owned()),
        }
        if actions.is_empty() {
            actions.push("drop".to_owned());
        }
    }
}
