//! Random actions.

use super::{Maker, Shape, TABLES};

impl Maker {
    pub(super) fn actions(&mut self, depth: usize) -> String {
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

    pub(super) fn output(&mut self) -> String {
        let port = match self.bridge {
            "br-int" => self.rng.number(&[1, 2, 3, 4, 5, 6, 10, 10, 99]),
            _ => self.rng.number(&[1, 1, 2, 3, 4]),
        };
        format!("output:{port}")
    }

    pub(super) fn action(&mut self, depth: usize) -> String {
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
            96 if self.shape == Shape::Tcp => "fin_timeout(idle_timeout=60000)".to_owned(),
            97 => "note:01.02.00.00.00.00".to_owned(),
            98 => "exit".to_owned(),
            _ => self
                .rng
                .pick(&["output:NXM_NX_REG1[0..15]", "output:NXM_OF_IN_PORT[]", "output:NXM_NX_REG0[2..4]"])
                .to_owned(),
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

    pub(super) fn learn(&mut self) -> String {
        let mut words = vec![format!("table={}", self.rng.number(&[3, 4, 5, 6]))];
        if self.rng.chance(60) {
            words.push(format!("hard_timeout={}", self.rng.number(&[4, 300])));
        } else if self.rng.chance(30) {
            words.push("idle_timeout=10".to_owned());
        }
        if self.shape == Shape::Tcp && self.rng.chance(30) {
            words.push("fin_idle_timeout=60000".to_owned());
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
        if self.rng.chance(10) {
            words.push(self.rng.pick(&["result_dst=NXM_NX_REG0[0]", "result_dst=NXM_NX_REG2[31]"]).to_owned());
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
}
