//! Decisions offered to whoever can carry them out for a worker: the kernel.
//!
//! A cache entry can be offered if all it does is to rewrite MACs and the time to live and to send the frame out once, and
//! if all it looked at is among the octets that such a party can look at. What it rests on goes with it, so that it is
//! known when it no longer stands; what was done in its name comes back as counts.

mod text;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::commit::{DpAction, Header};
use super::guard::Guard;
use super::io::DpPort;
use super::key::{self, Key, Mask, Place};
use super::revision::{Revisions, Tag};
use super::switch::Switch;
use super::table::FlowRef;
use super::xlate::{BridgeId, Effect};
use crate::fastpath::layout::at;
use crate::fastpath::{Count, Kind, Octets, Rewrite};
use crate::types::{Mac, Timestamp};
use crate::wire::{ethernet, nd};

pub use text::describe;

/// Frames that a worker sees of an entry before it offers it: what comes once is not worth it.
pub(crate) const FRAMES_FIRST: u8 = 1;

/// What an entry does, if it can be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deed {
    to: DpPort,
    destination: Option<Mac>,
    source: Option<Mac>,
    ttl: Option<u8>,
}

impl Deed {
    /// What these actions do, if that can be offered of packets told apart by `mask`.
    pub(crate) fn of(actions: &[DpAction], effects: &[Effect], mask: &Mask) -> Option<Self> {
        let (DpAction::Output { port, tunnel: None }, writes) = actions.split_last()? else { return None };
        let mut deed = Self { to: *port, destination: None, source: None, ttl: None };
        for action in writes {
            let DpAction::Set { field, value, mask } = action else { return None };
            let mac = || (*mask == key::ETH_DST.ones()).then(|| mac_of(*value));
            #[expect(clippy::wildcard_enum_match_arm, reason = "of thirty fields four can be rewritten")]
            match field {
                Header::EthDst => deed.destination = Some(mac()?),
                Header::EthSrc => deed.source = Some(mac()?),
                Header::Ipv4Ttl | Header::Ipv6Hops if *mask == key::IP_TTL.ones() => {
                    deed.ttl = u8::try_from(*value).ok();
                }
                _ => return None,
            }
        }
        let each_counts = |effect: &Effect| match effect {
            Effect::FinTimeout { .. } => true,
            Effect::Learn { .. } | Effect::Station { .. } | Effect::Patch { .. } | Effect::Routed { .. } => false,
        };
        let unseen = mask.get(key::TCP_FLAGS) != 0;
        (!unseen && !effects.iter().any(each_counts)).then_some(deed)
    }
}

fn mac_of(bits: u128) -> Mac {
    let [.., a, b, c, d, e, f] = bits.to_be_bytes();
    Mac::new([a, b, c, d, e, f])
}

/// Where a field of the key lies in a frame: octet, and bits from there.
type Spot = (Place, usize, usize);

const ETHERNET: [Spot; 3] = [(key::ETH_DST, 0, 48), (key::ETH_SRC, 6, 48), (key::ETH_TYPE, at::ETHER_TYPE, 16)];
const V4: [Spot; 5] = [
    (key::IP_TOS, at::NETWORK + 1, 8),
    (key::IP_TTL, at::IPV4_TTL, 8),
    (key::IP_PROTO, at::IPV4_PROTOCOL, 8),
    (key::IPV4_SRC, at::IPV4_SOURCE, 32),
    (key::IPV4_DST, at::IPV4_DESTINATION, 32),
];
const V6: [Spot; 5] = [
    (key::IP_TTL, at::IPV6_HOPS, 8),
    (key::IP_PROTO, at::IPV6_NEXT, 8),
    (key::IPV6_SRC, at::IPV6_SOURCE, 128),
    (key::IPV6_DST, at::IPV6_DESTINATION, 128),
    (key::IPV6_LABEL, at::NETWORK, 32),
];

/// The fields of its network header.
const fn network(kind: Kind) -> &'static [Spot; 5] {
    if kind.is_v6() { &V6 } else { &V4 }
}

/// Where its transport header begins.
const fn transport(kind: Kind) -> usize {
    if kind.is_v6() { at::IPV6_TRANSPORT } else { at::IPV4_TRANSPORT }
}

/// Which octets of a frame of this kind the mask looks at. What else it looks at is the same in all frames that are taken
/// for this kind: no tag, no fragment, no tunnel, nothing of ARP or neighbour discovery.
fn octets_of(mask: &Mask, kind: Kind) -> Octets {
    let mut octets = Octets::ZERO;
    for (place, at, bits) in ETHERNET.iter().chain(network(kind)) {
        octets.raise(*at, *bits, mask.get(*place));
    }
    if kind.is_v6() {
        // The class lies between version and label.
        octets.raise(at::NETWORK, 16, mask.get(key::IP_TOS) << 4);
    }
    let transport = transport(kind);
    let (source, destination) = (mask.get(key::TP_SRC), mask.get(key::TP_DST));
    if matches!(kind, Kind::Icmp4 | Kind::Icmp6) {
        octets.raise(transport, 8, source & 0xff);
        octets.raise(transport + 1, 8, destination & 0xff);
    } else {
        octets.raise(transport, 16, source);
        octets.raise(transport + 2, 16, destination);
    }
    octets
}

/// The kind of a frame that the fast path may take: what its programs take for plain, as the key tells it.
fn plain(key: &Key, head: &[u8]) -> Option<Kind> {
    let octet = |at: usize| head.get(at).copied();
    let untagged = !key.is_tagged() && key.get(key::VLAN_TPID) == 0;
    let unicast = octet(0)? & 1 == 0;
    // What a router's namespace is to see goes there, though its octets are those of others that go past.
    let through = key.get(key::DETOUR) != 0;
    if !untagged || !unicast || through || key.get(key::IP_FRAG) != 0 || key.has_tunnel() {
        return None;
    }
    // A header that was not believed left no protocol in the key.
    let protocol = u8::try_from(key.get(key::IP_PROTO)).ok()?;
    let (v6, plain) = match key.get16(key::ETH_TYPE) {
        ethernet::TYPE_IPV4 => (false, octet(at::NETWORK)? == 0x45 && octet(at::IPV4_PROTOCOL)? == protocol),
        ethernet::TYPE_IPV6 => (true, octet(at::NETWORK)? >> 4 == 6 && octet(at::IPV6_NEXT)? == protocol),
        _ => return None,
    };
    let kind = Kind::of(v6, protocol)?;
    let discovers = || (nd::ROUTER_SOLICITATION..=nd::REDIRECT).contains(&octet(at::IPV6_TRANSPORT).unwrap_or(0));
    (plain && read(key, head, kind) && !(kind == Kind::Icmp6 && discovers())).then_some(kind)
}

/// Whether the key has what stands where ports, or type and code, are in the frame; a transport header cut short has none.
fn read(key: &Key, head: &[u8], kind: Kind) -> bool {
    let at = transport(kind);
    let Some([a, b, c, d]) = head.get(at..at + 4).and_then(|octets| <[u8; 4]>::try_from(octets).ok()) else {
        return false;
    };
    let expected = if matches!(kind, Kind::Icmp4 | Kind::Icmp6) {
        (u16::from(a), u16::from(b))
    } else {
        (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]))
    };
    (key.get16(key::TP_SRC), key.get16(key::TP_DST)) == expected
}

/// A frame that a cache entry decides, as it is before that.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    kind: Kind,
    octets: Octets,
}

impl Sample {
    /// The frame, if it is one of those that can be taken.
    pub(crate) fn of(key: &Key, head: &[u8]) -> Option<Self> {
        let kind = plain(key, head)?;
        Some(Self { kind, octets: Octets::of(head) })
    }
}

/// What a decision rests on, and what is to be credited for what is done in its name.
#[derive(Debug)]
pub struct Grounds {
    revisions: Arc<Revisions>,
    /// Up to which it is known to stand.
    revision: AtomicU64,
    tags: Box<[Tag]>,
    flows: Box<[(BridgeId, FlowRef)]>,
    effects: Box<[Effect]>,
}

impl Grounds {
    /// Whether nothing it rests on has changed.
    #[must_use]
    pub fn stand(&self) -> bool {
        let (current, known) = (self.revisions.current(), self.revision.load(Ordering::Relaxed));
        let stands = known == current || self.revisions.stands(&self.tags, known);
        if stands {
            self.revision.store(current, Ordering::Relaxed);
        }
        stands
    }

    /// Credits what was done, the last of it at `used`.
    pub fn credit(&self, switch: &mut Switch, Count { packets, bytes }: Count, used: Timestamp) {
        switch.credit(&self.flows, (packets, bytes), used);
        for effect in &self.effects {
            switch.affect_cached(effect, (packets, bytes), used);
        }
    }
}

/// A decision to be carried out elsewhere.
#[derive(Debug)]
pub struct Offer<'a> {
    /// The port that its frames come in by.
    pub from: DpPort,
    /// The port that they leave by.
    pub to: DpPort,
    /// What kind of frames they are.
    pub kind: Kind,
    /// The first octets of one of them, as it came in.
    pub frame: Octets,
    /// Which octets tell them from others.
    pub mask: Octets,
    /// How they are rewritten.
    pub rewrite: Rewrite,
    /// If they go past a router: the most octets of a packet that it would send on as it is. Nothing may follow the packet
    /// in its frame then, and the checksum of an IPv4 header must be right.
    pub past_router: Option<u32>,
    pub(crate) revisions: &'a Arc<Revisions>,
    pub(crate) revision: u64,
    pub(crate) tags: &'a [Tag],
    pub(crate) flows: &'a [(BridgeId, FlowRef)],
    pub(crate) effects: &'a [Effect],
}

/// What an offer is made of beside the frame: an entry of the cache.
pub(crate) struct Offered<'a> {
    pub(crate) deed: Deed,
    pub(crate) mask: &'a Mask,
    pub(crate) guard: Option<Guard>,
    pub(crate) revisions: &'a Arc<Revisions>,
    pub(crate) revision: u64,
    pub(crate) tags: &'a [Tag],
    pub(crate) flows: &'a [(BridgeId, FlowRef)],
    pub(crate) effects: &'a [Effect],
}

impl<'a> Offer<'a> {
    pub(crate) fn of(from: DpPort, sample: &Sample, entry: Offered<'a>) -> Self {
        let Offered { deed, mask, guard, revisions, revision, tags, flows, effects } = entry;
        let Deed { to, destination, source, ttl } = deed;
        let Sample { kind, octets: frame } = sample;
        let old = frame.0[if kind.is_v6() { at::IPV6_HOPS } else { at::IPV4_TTL }];
        Self {
            from,
            to,
            kind: *kind,
            frame: *frame,
            mask: octets_of(mask, *kind),
            rewrite: Rewrite { destination, source, ttl: ttl.map(|ttl| (old, ttl)) },
            past_router: guard.map(|guard| guard.mtu),
            revisions,
            revision,
            tags,
            flows,
            effects,
        }
    }

    /// What it rests on.
    #[must_use]
    pub fn grounds(&self) -> Grounds {
        Grounds {
            revisions: Arc::clone(self.revisions),
            revision: self.revision.into(),
            tags: self.tags.into(),
            flows: self.flows.into(),
            effects: self.effects.into(),
        }
    }
}

/// Tells when anything changed that decisions may rest on.
#[derive(Debug, Clone)]
pub struct Changes(Arc<Revisions>);

impl Changes {
    /// Those of a switch.
    #[must_use]
    pub fn of(switch: &Mutex<Switch>) -> Self {
        Self(switch.lock().unwrap_or_else(PoisonError::into_inner).revisions())
    }

    /// A number that grows with every change.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.0.current()
    }

    /// Waits until it is another than `known`, or until `stops` is set and [`Self::wake`] called. Returns it.
    pub fn wait(&self, known: u64, stops: &AtomicBool) -> u64 {
        self.0.wait(known, stops)
    }

    /// Has everybody who waits look again.
    pub fn wake(&self) {
        self.0.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Egress, Ingress, NewPort, NewPortKind, Packet, Worker, change_flows};
    use super::*;
    use crate::api::switch::{BridgeMode, FlowChange, VlanMode};
    use crate::datapath::{Offload, TunnelMeta};
    use crate::types::IfName;

    /// What was offered of each frame.
    #[derive(Default)]
    struct Taker(Vec<(Kind, Octets, Rewrite, bool)>);

    impl Egress for Taker {
        fn transmit(&mut self, _: DpPort, _: Option<&TunnelMeta>, _: &mut Packet<'_>) {}

        fn takes_offers(&self, _: DpPort) -> bool {
            true
        }

        fn offer(&mut self, offer: &Offer<'_>, _: Timestamp) {
            self.0.push((offer.kind, offer.mask, offer.rewrite, offer.grounds().stand()));
        }
    }

    fn name(text: &str) -> IfName {
        IfName::new(text).expect("a legal name")
    }

    /// A switch with these flows and ports 1 and 2.
    fn switch(flows: &[&str]) -> Mutex<Switch> {
        let mut switch = Switch::new();
        switch.add_bridge(&name("br0"), BridgeMode::Flow).expect("a bridge");
        for (port, dp) in [("a", DpPort(0)), ("b", DpPort(1))] {
            let port =
                NewPort { name: name(port), kind: NewPortKind::Netdev { dp }, vlan: VlanMode::Trunk, number: None };
            switch.add_port(&name("br0"), port).expect("a port");
        }
        let switch = Mutex::new(switch);
        change(&switch, flows);
        switch
    }

    fn change(switch: &Mutex<Switch>, flows: &[&str]) {
        let changes: Vec<FlowChange> = flows.iter().map(|flow| FlowChange::Add((*flow).to_owned())).collect();
        change_flows(switch, &name("br0"), &changes, Timestamp::ZERO).expect("flows");
    }

    /// Sends a frame so often, and tells what was offered.
    fn offers(switch: &Mutex<Switch>, frame: &[u8], times: usize) -> Vec<(Kind, Octets, Rewrite, bool)> {
        let (mut worker, mut taker) = (Worker::new(), Taker::default());
        for _ in 0..times {
            let mut room = frame.to_vec();
            let end = room.len();
            let mut packet = Packet::new(&mut room, 0, end, &[], Offload::default());
            let ingress = Ingress { port: DpPort(0), tunnel: None };
            worker.process(switch, &ingress, &mut packet, Timestamp::ZERO, &mut taker);
        }
        taker.0
    }

    /// A UDP datagram from 10.0.0.1:53 to 10.0.0.2:80.
    fn datagram() -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0x66, 0xcf];
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2, 0, 53, 0, 80, 0, 8, 0, 0]);
        frame
    }

    /// Inputs: flows that can be carried out elsewhere, and octets that count for a datagram among them. Output: an offer
    /// from the third frame on, with what is rewritten and with ones where the flows look.
    #[test]
    fn what_can_be_done_elsewhere_is_offered_with_the_octets_that_count() {
        let source = Some(Mac::new([2, 0, 0, 0, 0, 9]));
        let plain = Rewrite { destination: None, source: None, ttl: None };
        let cases: [(&str, Rewrite, &[usize]); 4] = [
            ("in_port=1,actions=output:2", plain, &[]),
            ("in_port=1,ip,actions=mod_dl_src:02:00:00:00:00:09,output:2", Rewrite { source, ..plain }, &[]),
            ("in_port=1,ip,actions=dec_ttl,output:2", Rewrite { ttl: Some((64, 63)), ..plain }, &[at::IPV4_TTL]),
            (
                "in_port=1,udp,tp_dst=80,nw_src=10.0.0.1,actions=output:2",
                plain,
                &[at::IPV4_PROTOCOL, at::IPV4_SOURCE, at::IPV4_SOURCE + 3, at::IPV4_TRANSPORT + 3],
            ),
        ];
        for (flow, rewrite, counts) in cases {
            let offered = offers(&switch(&[flow]), &datagram(), 3);
            let [(kind, mask, as_rewritten, stands)] = offered.as_slice() else { panic!("{flow}: {offered:?}") };
            assert_eq!((*kind, *as_rewritten, *stands), (Kind::Udp4, rewrite, true), "{flow}");
            assert!(counts.iter().all(|at| mask.0[*at] == 0xff), "{flow}: {mask:?}");
            assert_eq!(mask.0[at::IPV4_TRANSPORT..at::IPV4_TRANSPORT + 2], [0, 0], "nobody looks at the source port");
        }
    }

    /// Inputs: flows that do more, or look at more, than can be done elsewhere; then frames that are not plain.
    #[test]
    fn what_only_the_switch_can_do_is_never_offered() {
        for flow in [
            "in_port=1,actions=drop",
            "in_port=1,actions=output:2,in_port",
            "in_port=1,ip,actions=mod_nw_dst:10.0.0.9,output:2",
            "in_port=1,actions=mod_vlan_vid:5,output:2",
            "in_port=1,actions=controller(userdata=01),output:2",
        ] {
            let offered = offers(&switch(&[flow]), &datagram(), 4);
            assert!(offered.is_empty(), "{flow}: {offered:?}");
        }
        let spoilt = |at: usize, octet: u8| {
            let mut frame = datagram();
            frame[at] = octet;
            frame
        };
        for (what, frame) in [
            ("a group's", spoilt(0, 3)),
            ("a fragment", spoilt(at::IPV4_FRAGMENT, 0x20)),
            ("another protocol", spoilt(at::IPV4_PROTOCOL, 47)),
            ("longer than it is", spoilt(at::IPV4_TOTAL + 1, 29)),
            ("tagged", [&datagram()[..12], &[0x81, 0, 0, 5], &datagram()[12..]].concat()),
            ("ARP", spoilt(at::ETHER_TYPE + 1, 6)),
        ] {
            let offered = offers(&switch(&["in_port=1,actions=output:2"]), &frame, 4);
            assert!(offered.is_empty(), "{what}: {offered:?}");
        }
    }

    #[test]
    fn whoever_waits_hears_of_a_change_and_of_the_end() {
        let switch = switch(&["in_port=1,actions=output:2"]);
        let (changes, stops) = (&Changes::of(&switch), &AtomicBool::new(false));
        let known = changes.current();
        std::thread::scope(|scope| {
            let waits = scope.spawn(move || changes.wait(known, stops));
            change(&switch, &["in_port=2,actions=output:1"]);
            assert!(waits.join().expect("no panic") > known);
            let known = changes.current();
            let waits = scope.spawn(move || changes.wait(known, stops));
            stops.store(true, Ordering::Relaxed);
            changes.wake();
            assert_eq!(waits.join().expect("no panic"), known);
        });
    }

    #[test]
    fn grounds_fall_with_the_flow_they_rest_on_and_stand_for_others() {
        struct Keeper(Option<Grounds>);
        impl Egress for Keeper {
            fn transmit(&mut self, _: DpPort, _: Option<&TunnelMeta>, _: &mut Packet<'_>) {}
            fn takes_offers(&self, _: DpPort) -> bool {
                true
            }
            fn offer(&mut self, offer: &Offer<'_>, _: Timestamp) {
                self.0 = Some(offer.grounds());
            }
        }
        let switch = switch(&["table=0,in_port=1,udp,nw_dst=10.0.0.2,actions=output:2"]);
        let (mut worker, mut keeper) = (Worker::new(), Keeper(None));
        for _ in 0..3 {
            let mut room = datagram();
            let mut packet = Packet::new(&mut room, 0, 42, &[], Offload::default());
            let ingress = Ingress { port: DpPort(0), tunnel: None };
            worker.process(&switch, &ingress, &mut packet, Timestamp::ZERO, &mut keeper);
        }
        let grounds = keeper.0.expect("an offer");
        change(&switch, &["table=9,in_port=1,actions=drop"]);
        assert!(grounds.stand(), "no packet of it comes to table 9");
        change(&switch, &["table=0,priority=40000,in_port=1,udp,nw_dst=10.0.0.2,actions=drop"]);
        assert!(!grounds.stand());
        grounds.credit(&mut switch.lock().expect("no panic"), Count { packets: 3, bytes: 126 }, Timestamp::ZERO);
    }
}
