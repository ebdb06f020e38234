//! `NORMAL`: what a learning VLAN bridge does (IEEE 802.1Q-2018 §8), as OVS's `xlate_normal()`.
//!
//! One thing differs: a frame from a tunnel is flooded to no tunnel (split horizon). Tunnels here make a full mesh.

use super::bridge::{Bridge, Port};
use super::drop::DropReason;
use super::key::{self, Key, Place, TCI_PRESENT};
use super::revision::Tag;
use super::xlate::{Effect, Xlate};
use crate::api::switch::VlanMode;
use crate::types::{Mac, VlanId};
use crate::wire::ethernet;

/// The bits of a tag control field that are a priority.
const PRIORITY: u16 = 0xe000;

/// The VLAN of a frame that came in by a port with tag `vid` (0 for none); `None` if the port does not carry it.
fn classify(mode: &VlanMode, vid: u16) -> Option<u16> {
    let listed = |trunks: &[VlanId]| trunks.iter().any(|vlan| vlan.tci_bits() == vid);
    match mode {
        VlanMode::Trunk => Some(vid),
        VlanMode::Trunks(trunks) => listed(trunks).then_some(vid),
        VlanMode::Access(tag) => (vid == 0).then_some(tag.tci_bits()),
        VlanMode::Native { tag, .. } | VlanMode::NativeTagged { tag, .. } if vid == 0 => Some(tag.tci_bits()),
        VlanMode::Native { tag, trunks } | VlanMode::NativeTagged { tag, trunks } => {
            (trunks.is_empty() || listed(trunks) || vid == tag.tci_bits()).then_some(vid)
        }
    }
}

/// Whether a port carries a VLAN. An access port carries nothing that has another tag below (`xbundle_includes_vlan()`).
fn carries(mode: &VlanMode, vlan: u16, tagged_below: bool) -> bool {
    let listed = |trunks: &[VlanId]| trunks.iter().any(|other| other.tci_bits() == vlan);
    match mode {
        VlanMode::Trunk => true,
        VlanMode::Trunks(trunks) => listed(trunks),
        VlanMode::Access(tag) => tag.tci_bits() == vlan && !tagged_below,
        VlanMode::Native { tag, trunks } | VlanMode::NativeTagged { tag, trunks } => {
            tag.tci_bits() == vlan || trunks.is_empty() || listed(trunks)
        }
    }
}

/// A tag, or none: its type, and its control field without the bit that it is there.
#[derive(Clone, Copy, Default)]
struct Label {
    tpid: u16,
    tci: u16,
}

/// The tags of a frame, outermost first.
type Labels = [Label; 2];

/// Where the tags of [`Labels`] lie in a key.
const PLACES: [(Place, Place); 2] = [(key::VLAN_TPID, key::VLAN_TCI), (key::INNER_TPID, key::INNER_TCI)];

/// The tags a frame has on its way through the bridge (`xvlan_extract()`, `xvlan_input_translate()`): what came by an
/// access port keeps the priority of a tag with VLAN 0, and nothing that was below it.
fn labels(key: &Key, mode: &VlanMode, vlan: u16) -> Labels {
    let mut labels = Labels::default();
    for (label, (tpid, tci)) in labels.iter_mut().zip(PLACES) {
        let bits = key.get16(tci);
        if bits & TCI_PRESENT == 0 {
            break;
        }
        *label = Label { tpid: key.get16(tpid), tci: bits & !TCI_PRESENT };
    }
    let [outer, inner] = labels;
    let outer = Label { tci: outer.tci & PRIORITY | vlan, ..outer };
    match mode {
        VlanMode::Access(_) => [outer, Label::default()],
        VlanMode::Trunk | VlanMode::Trunks(_) | VlanMode::Native { .. } | VlanMode::NativeTagged { .. } => {
            [outer, inner]
        }
    }
}

/// The tags with which a port sends frames of a VLAN that it carries (`xvlan_output_translate()`).
fn leaving(mode: &VlanMode, vlan: u16, [outer, inner]: Labels) -> Labels {
    match mode {
        VlanMode::Access(_) => Labels::default(),
        VlanMode::Native { tag, .. } if tag.tci_bits() == vlan => [inner, Label::default()],
        VlanMode::Trunk | VlanMode::Trunks(_) | VlanMode::Native { .. } | VlanMode::NativeTagged { .. } => {
            [outer, inner]
        }
    }
}

fn mac(bits: u128) -> Mac {
    let [.., a, b, c, d, e, f] = bits.to_be_bytes();
    Mac::new([a, b, c, d, e, f])
}

/// Addresses that a bridge never forwards: those of IEEE 802.1Q-2018 table 8-1, and as OVS does, those of Extreme's
/// EDP and EAPS and Cisco's ISL, CFM, CDP, VTP, PVST+ and Uplink Fast (`eth_addr_is_reserved()`).
const fn is_reserved(mac: Mac) -> bool {
    matches!(
        mac.octets(),
        [0x01, 0x80, 0xc2, 0, 0, 0..=0x0f]
            | [0x00, 0xe0, 0x2b, 0, 0, 0 | 4 | 6]
            | [0x01, 0x00, 0x0c, 0, 0, 0]
            | [0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xc0..=0xc7 | 0xcc | 0xcd]
            | [0x01, 0x00, 0x0c, 0xcd, 0xcd, 0xcd]
    )
}

/// Where the frame goes.
enum Way {
    Drop(DropReason, &'static str),
    One(u32),
    Flood(Vec<u32>),
}

/// Forwards the frame of a walk.
pub(crate) fn forward(walk: &mut Xlate<'_>) {
    for place in [key::ETH_SRC, key::ETH_DST] {
        walk.mask.raise_all(place);
    }
    walk.mask.raise(key::VLAN_TCI, 0x1fff);
    let in_port = walk.key.get32(key::IN_PORT);
    let (source, destination) = (mac(walk.key.get(key::ETH_SRC)), mac(walk.key.get(key::ETH_DST)));
    let vid = if walk.key.is_tagged() { walk.key.get16(key::VLAN_TCI) & 0xfff } else { 0 };
    let Some(bridge) = walk.switch.bridge(walk.bridge) else { return };
    let Some(entry) = bridge.ports.get(&in_port) else {
        walk.error(|| format!("received packet on unknown port {in_port}"));
        return dropped(walk, DropReason::UnknownPort, "no input bundle, dropping");
    };
    if super::action::is_vlan_type(walk.key.get16(key::ETH_TYPE)) && !walk.key.is_tagged() {
        let name = entry.name.to_string();
        walk.error(|| format!("dropping packet with partial VLAN tag received on port {name}"));
        return dropped(walk, DropReason::VlanRefused, "partial VLAN tag, dropping");
    }
    let Some(vlan) = classify(&entry.vlan, vid) else {
        let why = refusal(entry, vid);
        walk.error(|| why);
        return dropped(walk, DropReason::VlanRefused, "disallowed VLAN VID for this input port, dropping");
    };
    let labels = labels(&walk.key, &entry.vlan, vlan);
    if is_reserved(destination) {
        return dropped(walk, DropReason::Reserved, "packet has reserved destination MAC, dropping");
    }
    if !source.is_multicast() {
        learn(walk, vlan, source, in_port);
    }
    if walk.key.is_tagged() {
        // What is below the tag decides which ports carry the frame, and how.
        walk.mask.raise_all(key::INNER_TCI);
    }
    let tagged_below = labels[1].tci & 0xfff != 0;
    walk.parts.add(Tag::station(walk.bridge, vlan, destination));
    let Some(bridge) = walk.switch.bridge(walk.bridge) else { return };
    match way(bridge, (vlan, tagged_below), destination, in_port) {
        Way::Drop(reason, text) => dropped(walk, reason, text),
        Way::One(number) => {
            walk.note(|| "forwarding to learned port".to_owned());
            send(walk, (vlan, labels), number);
        }
        Way::Flood(ports) => {
            walk.note(|| "no learned MAC for destination, flooding".to_owned());
            for number in ports {
                send(walk, (vlan, labels), number);
            }
        }
    }
}

/// What a trace says of a frame whose VLAN its port does not carry.
fn refusal(port: &Port, vid: u16) -> String {
    let name = &port.name;
    match &port.vlan {
        VlanMode::Access(tag) => {
            format!("dropping VLAN {vid} tagged packet received on port {name} configured as VLAN {tag} access port")
        }
        VlanMode::Trunk | VlanMode::Trunks(_) | VlanMode::Native { .. } | VlanMode::NativeTagged { .. } => {
            format!("dropping VLAN {vid} packet received on port {name} not configured for trunking VLAN {vid}")
        }
    }
}

fn dropped(walk: &mut Xlate<'_>, reason: DropReason, text: &'static str) {
    walk.reason.get_or_insert(reason);
    if matches!(reason, DropReason::Hairpin | DropReason::Reserved) {
        walk.note(|| text.to_owned());
    } else {
        walk.warn(|| text.to_owned());
    }
}

fn learn(walk: &mut Xlate<'_>, vlan: u16, mac: Mac, port: u32) {
    let Some(bridge) = walk.switch.bridge(walk.bridge) else { return };
    if bridge.fdb.would_change(vlan, mac, port) && walk.learns {
        let name = bridge.ports.get(&port).map(|port| port.name.to_string()).unwrap_or_default();
        walk.note(|| format!("learned that {mac} is on port {name} in VLAN {vlan}"));
    }
    let bridge = walk.bridge;
    walk.parts.add(Tag::station(bridge, vlan, mac));
    walk.effect(Effect::Station { bridge, vlan, mac, port });
}

fn way(bridge: &Bridge, (vlan, tagged_below): (u16, bool), destination: Mac, in_port: u32) -> Way {
    if !destination.is_multicast()
        && let Some(number) = bridge.fdb.lookup(vlan, destination)
        && bridge.ports.contains_key(&number)
    {
        if number == in_port {
            return Way::Drop(DropReason::Hairpin, "learned port is input port, dropping");
        }
        return Way::One(number);
    }
    let from_tunnel = bridge.ports.get(&in_port).is_some_and(|port| port.kind.is_tunnel());
    let wanted = |(number, port): &(&u32, &Port)| {
        **number != in_port && carries(&port.vlan, vlan, tagged_below) && !(from_tunnel && port.kind.is_tunnel())
    };
    Way::Flood(bridge.ports.iter().filter(wanted).map(|(number, _)| *number).collect())
}

/// Sends by a port, tagged as that port wants it; the key's tags are as before then.
fn send(walk: &mut Xlate<'_>, (vlan, labels): (u16, Labels), number: u32) {
    let Some(port) = walk.switch.bridge(walk.bridge).and_then(|bridge| bridge.ports.get(&number)) else { return };
    if !carries(&port.vlan, vlan, false) {
        return dropped(walk, DropReason::VlanRefused, "output port does not carry this VLAN");
    }
    let labels = leaving(&port.vlan, vlan, labels);
    if vlan == 0 && walk.key.is_tagged() {
        // Then its priority decides whether there will be a tag.
        walk.mask.raise_all(key::VLAN_TCI);
    }
    let places = [key::VLAN_TCI, key::VLAN_TPID, key::INNER_TCI, key::INNER_TPID];
    let before = places.map(|place| (place, walk.key.get(place)));
    for (Label { tpid, tci }, (type_place, place)) in labels.into_iter().zip(PLACES) {
        // A tag that would say nothing is none, and without it what is below is none either (`xvlan_put()`).
        let wanted = if tci == 0 { 0 } else { tci | TCI_PRESENT };
        if walk.key.get16(place) != wanted {
            walk.mask.raise_all(key::VLAN_TCI);
        }
        walk.key.set(place, wanted.into());
        if wanted != 0 {
            walk.key.set(type_place, if tpid == 0 { ethernet::TYPE_VLAN } else { tpid }.into());
        }
    }
    walk.send(number);
    before.iter().for_each(|(place, value)| walk.key.set(*place, *value));
}
