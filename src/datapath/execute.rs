//! Does datapath actions to a packet in place, and keeps every checksum right as it goes (RFC 1624).

use super::commit::{DpAction, Header};
use super::drop::DropReason;
use super::extract::Layout;
use super::io::Egress;
use super::packet::{Checksum, Offload, Packet};
use crate::wire::{checksum, ethernet, icmp, ipv4, nd, tcp, udp};

/// Which checksums a field is covered by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Covered {
    No,
    /// The IPv4 header's.
    Header,
    /// The IPv4 header's and, as part of the pseudo header, the transport's.
    HeaderAndPseudo,
    /// The transport's, as part of the pseudo header.
    Pseudo,
    /// The transport's.
    Transport,
}

/// Where a field lies.
struct Spot {
    at: usize,
    length: usize,
    covered: Covered,
}

/// Does `actions` to `packet`, in order. Returns why it stopped early or left one out, if it did.
pub(crate) fn execute(
    actions: &[DpAction],
    packet: &mut Packet<'_>,
    layout: Layout,
    egress: &mut impl Egress,
) -> Option<DropReason> {
    let mut layout = layout;
    let mut unanswered = None;
    for action in actions {
        match action {
            DpAction::Output { port, tunnel } => egress.transmit(*port, tunnel.as_ref(), packet),
            DpAction::Say(said) => egress.say(said),
            DpAction::Answer { port, answer } => match super::answer::answer(answer, packet) {
                Some(mut frame) => {
                    let end = frame.len();
                    egress.transmit(*port, None, &mut Packet::new(&mut frame, 0, end, &[], Offload::default()));
                }
                None => unanswered = Some(DropReason::Unanswered),
            },
            DpAction::Set { field, value, mask } => set(packet, layout, *field, *value, *mask),
            DpAction::PushVlan { tpid, tci } => {
                if !push_vlan(packet, *tpid, *tci) {
                    return Some(DropReason::NoRoom);
                }
                layout = shifted(layout, i32::try_from(ethernet::TAG_LEN).unwrap_or(0));
            }
            DpAction::PopVlan => {
                if packet.head().len() >= TAG_AT + ethernet::TAG_LEN && packet.close(TAG_AT, ethernet::TAG_LEN) {
                    layout = shifted(layout, -i32::try_from(ethernet::TAG_LEN).unwrap_or(0));
                }
            }
        }
    }
    unanswered
}

/// Where a tag is: behind the two addresses.
const TAG_AT: usize = 12;

fn shifted(layout: Layout, by: i32) -> Layout {
    let shift = |at: u16| {
        let moved = i32::from(at) + by;
        if at == 0 { 0 } else { u16::try_from(moved).unwrap_or(0) }
    };
    Layout { network: shift(layout.network), transport: shift(layout.transport), protocol: layout.protocol }
}

fn push_vlan(packet: &mut Packet<'_>, tpid: u16, tci: u16) -> bool {
    if packet.head().len() < TAG_AT || !packet.open(TAG_AT, ethernet::TAG_LEN) {
        return false;
    }
    let [a, b] = tpid.to_be_bytes();
    let [c, d] = tci.to_be_bytes();
    packet.head_mut()[TAG_AT..TAG_AT + ethernet::TAG_LEN].copy_from_slice(&[a, b, c, d]);
    true
}

/// Finds a field. `None` if the packet has none such.
fn locate(head: &[u8], layout: Layout, field: Header) -> Option<Spot> {
    let (network, transport) = (usize::from(layout.network), usize::from(layout.transport));
    let spot = |at: usize, length: usize, covered: Covered| Some(Spot { at, length, covered });
    let in_network = |at: usize, length: usize, covered: Covered| {
        if network == 0 { None } else { spot(network + at, length, covered) }
    };
    let in_transport = |at: usize, length: usize, covered: Covered| {
        if transport == 0 { None } else { spot(transport + at, length, covered) }
    };
    match field {
        Header::EthDst => spot(0, 6, Covered::No),
        Header::EthSrc => spot(6, 6, Covered::No),
        Header::Ipv4Tos => in_network(1, 1, Covered::Header),
        Header::Ipv4Ttl => in_network(8, 1, Covered::Header),
        Header::Ipv4Src => in_network(12, 4, Covered::HeaderAndPseudo),
        Header::Ipv4Dst => in_network(16, 4, Covered::HeaderAndPseudo),
        // The class and the label lie across octets: four octets, shifted by the caller.
        Header::Ipv6Class | Header::Ipv6Label => in_network(0, 4, Covered::No),
        Header::Ipv6Hops => in_network(7, 1, Covered::No),
        Header::Ipv6Src => in_network(8, 16, Covered::Pseudo),
        Header::Ipv6Dst => in_network(24, 16, Covered::Pseudo),
        Header::ArpOp => in_network(6, 2, Covered::No),
        Header::ArpSha => in_network(8, 6, Covered::No),
        Header::ArpSpa => in_network(14, 4, Covered::No),
        Header::ArpTha => in_network(18, 6, Covered::No),
        Header::ArpTpa => in_network(24, 4, Covered::No),
        Header::TcpSrc | Header::UdpSrc => in_transport(0, 2, Covered::Transport),
        Header::TcpDst | Header::UdpDst => in_transport(2, 2, Covered::Transport),
        // SCTP's CRC-32C covers its ports, and cannot be updated: see `set`.
        Header::SctpSrc => in_transport(0, 2, Covered::No),
        Header::SctpDst => in_transport(2, 2, Covered::No),
        Header::IcmpType | Header::Icmp6Type => in_transport(0, 1, Covered::Transport),
        Header::IcmpCode | Header::Icmp6Code => in_transport(1, 1, Covered::Transport),
        Header::NdReserved => in_transport(4, 4, Covered::Transport),
        Header::NdTarget => in_transport(8, 16, Covered::Transport),
        // The first option's type, whatever it is (`packet_set_nd_ext()`).
        Header::NdOption => in_transport(ND_OPTIONS, 1, Covered::Transport),
        Header::NdSll => nd_option(head, transport, nd::OPTION_SOURCE_LL),
        Header::NdTll => nd_option(head, transport, nd::OPTION_TARGET_LL),
    }
}

/// Where options of neighbour discovery start (RFC 4861 §4.3).
const ND_OPTIONS: usize = 24;

fn nd_option(head: &[u8], transport: usize, wanted: u8) -> Option<Spot> {
    if transport == 0 {
        return None;
    }
    let mut at = transport + ND_OPTIONS;
    while let [kind, units] = *head.get(at..at + 2)? {
        let length = usize::from(units) * 8;
        if kind == wanted && length == 8 {
            return Some(Spot { at: at + 2, length: 6, covered: Covered::Transport });
        }
        if length == 0 {
            return None;
        }
        at += length;
    }
    None
}

fn set(packet: &mut Packet<'_>, layout: Layout, field: Header, value: u128, mask: u128) {
    let shift = if field == Header::Ipv6Class { 20 } else { 0 };
    let (value, mask) = (value << shift, mask << shift);
    let Some(spot) = locate(packet.head(), layout, field) else { return };
    let Some(octets) = packet.head_mut().get_mut(spot.at..spot.at + spot.length) else { return };
    let mut old = [0; 16];
    old[..spot.length].copy_from_slice(octets);
    let skip = 16 - spot.length;
    let (value, mask) = (value.to_be_bytes(), mask.to_be_bytes());
    let mut new = [0; 16];
    for (index, octet) in octets.iter_mut().enumerate() {
        let keep = !mask[skip + index];
        *octet = *octet & keep | value[skip + index] & mask[skip + index];
        new[index] = *octet;
    }
    let change = Change { old: &old[..spot.length], new: &new[..spot.length], odd: spot.at % 2 != 0 };
    if change.old != change.new {
        refresh(packet, layout, &spot, &change);
    }
}

/// Octets that became others.
struct Change<'a> {
    old: &'a [u8],
    new: &'a [u8],
    /// Whether they start at an odd offset of the frame.
    odd: bool,
}

impl Change<'_> {
    /// What to add to the ones' complement sum of what covers them, which starts at an offset of parity `base_odd`.
    fn difference(&self, base_odd: bool) -> u64 {
        let swap = self.odd != base_odd;
        let sum = |octets: &[u8]| {
            let folded = checksum::fold(checksum::add(0, octets));
            u64::from(if swap { folded.swap_bytes() } else { folded })
        };
        sum(self.new) + u64::from(!checksum::fold(sum(self.old)))
    }
}

fn refresh(packet: &mut Packet<'_>, layout: Layout, spot: &Spot, change: &Change<'_>) {
    let (network, transport) = (usize::from(layout.network), usize::from(layout.transport));
    if matches!(spot.covered, Covered::Header | Covered::HeaderAndPseudo) {
        add_to(packet.head_mut(), network + 10, change.difference(network % 2 != 0));
    }
    if transport == 0 || matches!(spot.covered, Covered::No | Covered::Header) {
        return;
    }
    let pseudo = matches!(spot.covered, Covered::HeaderAndPseudo | Covered::Pseudo);
    let protocol = layout.protocol;
    let offset = match protocol {
        ipv4::PROTOCOL_TCP => usize::from(tcp::CHECKSUM_OFFSET),
        ipv4::PROTOCOL_UDP => usize::from(udp::CHECKSUM_OFFSET),
        ipv4::PROTOCOL_ICMPV6 => ICMP_CHECKSUM,
        ipv4::PROTOCOL_ICMP if !pseudo => ICMP_CHECKSUM,
        _ => return,
    };
    let base_odd = transport % 2 != 0;
    if let Checksum::Partial { start, .. } = packet.offload.checksum
        && usize::from(start) == transport
    {
        // The field holds the pseudo header's sum; the rest is summed when the packet leaves.
        if pseudo {
            add_to_sum(packet.head_mut(), transport + offset, change.difference(base_odd));
        }
        return;
    }
    let head = packet.head_mut();
    let at = transport + offset;
    if protocol == ipv4::PROTOCOL_UDP {
        // RFC 768: zero says that there is no checksum, so a sum of zero is sent as its other form.
        if head.get(at..at + 2) == Some(&[0, 0]) {
            return;
        }
        add_to(head, at, change.difference(base_odd));
        if head.get(at..at + 2) == Some(&[0, 0]) {
            head[at..at + 2].copy_from_slice(&[0xff, 0xff]);
        }
    } else {
        add_to(head, at, change.difference(base_odd));
    }
}

/// Where ICMP and ICMPv6 have their checksum.
const ICMP_CHECKSUM: usize = core::mem::offset_of!(icmp::Header, checksum);

/// Adds to the checksum at `at`.
fn add_to(head: &mut [u8], at: usize, difference: u64) {
    let Some(field) = head.get_mut(at..at + 2) else { return };
    let old = u16::from_be_bytes([field[0], field[1]]);
    let new = !checksum::fold(u64::from(!old) + difference);
    field.copy_from_slice(&new.to_be_bytes());
}

/// Adds to the sum, not complemented, at `at`.
fn add_to_sum(head: &mut [u8], at: usize, difference: u64) {
    let Some(field) = head.get_mut(at..at + 2) else { return };
    let old = u16::from_be_bytes([field[0], field[1]]);
    field.copy_from_slice(&checksum::fold(u64::from(old) + difference).to_be_bytes());
}
