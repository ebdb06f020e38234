//! Random matches.

use super::{Maker, Shape, Tag};
use crate::ovs::frame::{IPV4, IPV6, PORTS, VIDS};

impl Maker {
    /// A match; what it ensures is noted for the actions.
    pub(super) fn matching(&mut self) -> String {
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
}
