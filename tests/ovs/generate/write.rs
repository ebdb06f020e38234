//! Random actions that write packets, metadata and registers.

use super::{Maker, Shape, Tag};
use crate::ovs::frame::{IPV4, IPV6, PORTS, VIDS};

impl Maker {
    pub(super) fn write_ethernet(&mut self) -> String {
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

    pub(super) fn write_metadata(&mut self) -> String {
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

    pub(super) fn write_network(&mut self) -> String {
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
            // OpenFlow 1.0 takes these for packets of every kind.
            return match self.rng.below(8) {
                0 if ten => "mod_nw_src:10.9.9.9".to_owned(),
                1 if ten => "mod_nw_tos:16".to_owned(),
                2 if ten => "mod_tp_dst:99".to_owned(),
                3 if ten => "dec_ttl".to_owned(),
                _ => self.output(),
            };
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
