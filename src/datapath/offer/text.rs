//! What is carried out elsewhere, as text: in the words of flows and of datapath actions.

use super::super::commit::{DpAction, Header};
use super::super::key::{self, Place};
use super::super::matching::Match;
use super::super::odp;
use super::super::text::{PortNames, print_match};
use super::{ETHERNET, network, transport};
use crate::fastpath::layout::at;
use crate::fastpath::{Kind, Octets, Rewrite};
use crate::types::Mac;
use crate::wire::ethernet;

/// Which frames are meant, as a match in the text of flows, and what is written to each, as datapath actions joined by
/// commas, which may be none: those of a kind that agree with `frame` where `mask` has ones.
#[must_use]
pub fn describe(kind: Kind, frame: &Octets, mask: &Octets, rewrite: &Rewrite) -> (String, String) {
    let mut matching = Match::ANY;
    for (place, at, bits) in ETHERNET.iter().chain(network(kind)) {
        matching.demand(*place, frame.number(*at, *bits), mask.number(*at, *bits) & place.ones());
    }
    if kind.is_v6() {
        let class = |octets: &Octets| octets.number(at::NETWORK, 16) >> 4 & 0xff;
        matching.demand(key::IP_TOS, class(frame), class(mask));
    }
    let (at, bits) = (transport(kind), if matches!(kind, Kind::Icmp4 | Kind::Icmp6) { 8 } else { 16 });
    for (place, at) in [(key::TP_SRC, at), (key::TP_DST, at + bits / 8)] {
        let counts = mask.number(at, bits);
        // A type or code that counts whole has no more bits that could be others.
        let whole = counts == (1 << bits) - 1;
        matching.demand(place, frame.number(at, bits), if whole { place.ones() } else { counts });
    }
    // A kind's frames are told apart from others' before any mask is looked at.
    let ether_type = if kind.is_v6() { ethernet::TYPE_IPV6 } else { ethernet::TYPE_IPV4 };
    matching.demand(key::ETH_TYPE, ether_type.into(), key::ETH_TYPE.ones());
    matching.demand(key::IP_PROTO, kind.protocol().into(), key::IP_PROTO.ones());
    let mut text = String::new();
    print_match(&mut text, &matching, &Nameless);
    text.pop();
    (text, writes(kind, rewrite))
}

fn writes(kind: Kind, rewrite: &Rewrite) -> String {
    let bits = |mac: Mac| mac.octets().iter().fold(0, |bits, octet| bits << 8 | u128::from(*octet));
    let set = |field, value, place: Place| DpAction::Set { field, value, mask: place.ones() };
    let hops = if kind.is_v6() { Header::Ipv6Hops } else { Header::Ipv4Ttl };
    let Rewrite { destination, source, ttl } = rewrite;
    let parts = [
        source.map(|mac| set(Header::EthSrc, bits(mac), key::ETH_SRC)),
        destination.map(|mac| set(Header::EthDst, bits(mac), key::ETH_DST)),
        ttl.map(|(_, ttl)| set(hops, ttl.into(), key::IP_TTL)),
    ];
    let actions: Vec<DpAction> = parts.into_iter().flatten().collect();
    let mut text = String::new();
    if !actions.is_empty() {
        odp::print(&mut text, &actions, |_| false);
    }
    text
}

/// No ports are among what is told.
struct Nameless;

impl PortNames for Nameless {
    fn number(&self, _: &str) -> Option<u32> {
        None
    }

    fn name(&self, _: u32) -> Option<&str> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Inputs: a frame, and which of its octets count. Outputs: the words `ovs-ofctl` has for the same.
    #[test]
    fn what_counts_is_told_in_the_words_of_flows() {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2, 0, 53, 0, 80, 0, 8, 0, 0]);
        let mut mask = Octets::ZERO;
        let nothing = Rewrite { destination: None, source: None, ttl: None };
        let told = describe(Kind::Udp4, &Octets::of(&frame), &mask, &nothing);
        assert_eq!(told, ("udp".to_owned(), String::new()));
        mask.raise(0, 48, u128::MAX >> 80);
        mask.raise(at::IPV4_DESTINATION, 32, 0xffff_ff00);
        mask.raise(at::IPV4_TTL, 8, 0xff);
        mask.raise(at::IPV4_TRANSPORT, 16, 0xc000);
        mask.raise(at::IPV4_TRANSPORT + 2, 16, 0xffff);
        let macs = [3, 4].map(|last| Some(Mac::new([2, 0, 0, 0, 0, last])));
        let rewrite = Rewrite { destination: macs[0], source: macs[1], ttl: Some((64, 63)) };
        assert_eq!(
            describe(Kind::Udp4, &Octets::of(&frame), &mask, &rewrite),
            (
                "udp,dl_dst=02:00:00:00:00:01,nw_dst=10.0.0.0/24,nw_ttl=64,tp_src=0x0/0xc000,tp_dst=80".to_owned(),
                "set(eth(src=02:00:00:00:00:04,dst=02:00:00:00:00:03)),set(ipv4(ttl=63))".to_owned()
            )
        );
    }

    #[test]
    fn ipv6_has_its_class_its_label_and_its_types() {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x62, 0x01, 0x23, 0x45, 0, 8, 58, 64];
        frame.extend([&[0xfd; 16][..], &[0xfe; 16], &[128, 0, 0, 0]].concat());
        let (mut mask, plain) = (Octets::ZERO, Rewrite { destination: None, source: None, ttl: Some((64, 63)) });
        mask.raise(at::NETWORK, 32, 0xf_ffff);
        mask.raise(at::NETWORK, 16, 0xfc << 4);
        mask.raise(at::IPV6_TRANSPORT, 8, 0xff);
        let (matching, writes) = describe(Kind::Icmp6, &Octets::of(&frame), &mask, &plain);
        assert_eq!(matching, "icmp6,ipv6_label=0x12345,nw_tos=32,icmp_type=128");
        assert_eq!(writes, "set(ipv6(hlimit=63))");
    }
}
