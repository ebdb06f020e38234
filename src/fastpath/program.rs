//! The two programs, generated.
//!
//! For each frame that comes by a port the kernel runs first the filter of the packet socket that reads the port, then
//! the port's ingress filter (`__netif_receive_skb_core()`: taps before traffic control). So the first looks the frame
//! up, and the second does what it found:
//!
//! ```text
//!   frame ─▶ socket filter: key, lookup ─┬─ found ──▶ socket gets nothing ─▶ ingress: rewrite, redirect
//!                                        └─ missed ─▶ socket gets a copy  ─▶ ingress: drop, the switch has it
//!   frame, nobody reads the port ──────────────────────────────────────────▶ ingress: key, lookup ─▶ rewrite, redirect
//! ```
//! What the first found travels in the frame's control block: a socket filter may write `cb`, and packet sockets do not
//! clear it after the filter (`bpf_prog_run_clear_cb()`). It is a mark and a number; the action itself is copied to the
//! processor's own place in HIT, so that whatever becomes of the entry meanwhile, the frame goes one way and not two. No
//! other frame can come between, as both run in one softirq. Without the mark nobody reads the port, for the switch is
//! gone: then the second looks up by itself, and goes on forwarding what it knows.

use super::asm::{Alu, Asm, AsmError, Label, Program, Reg, When, Width};
use super::layout::{FRAME_LEN, KEY_IFINDEX, KEY_LEN, KEY_MASK, Kind, MASK_SLOTS, at, flag, value};
use crate::wire::{ethernet, ipv4, nd};
use Reg::{R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10};
use Width::{U8, U16, U32, U64};

/// The maps, as `layout` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Map {
    /// Which mask counts.
    Chosen,
    /// The masks.
    Masks,
    /// The flows.
    Flows,
    /// What a processor found last.
    Hit,
}

/// Fields of `struct __sk_buff` (`linux/bpf.h`).
mod skb {
    pub(super) const LEN: i16 = 0;
    pub(super) const VLAN_PRESENT: i16 = 20;
    pub(super) const IFINDEX: i16 = 40;
    pub(super) const CB: [i16; 3] = [48, 52, 56];
    pub(super) const GSO_SIZE: i16 = 176;
}

/// The kernel's functions (`__BPF_FUNC_MAPPER`, `linux/bpf.h`).
mod function {
    pub(super) const MAP_LOOKUP_ELEM: i32 = 1;
    pub(super) const SKB_STORE_BYTES: i32 = 9;
    pub(super) const L3_CSUM_REPLACE: i32 = 10;
    pub(super) const REDIRECT: i32 = 23;
    pub(super) const SKB_LOAD_BYTES: i32 = 26;
    pub(super) const REDIRECT_PEER: i32 = 155;
    /// Has `SKB_STORE_BYTES` keep a checksum of the whole packet right (`BPF_F_RECOMPUTE_CSUM`).
    pub(super) const RECOMPUTE_CSUM: i32 = 1;
}

/// `TC_ACT_SHOT` (`linux/pkt_cls.h`).
const DROP: i32 = 2;
/// What a socket filter returns for the whole frame.
const WHOLE: i32 = -1;
/// What marks a control block as written by the socket filter, and what it says.
const MARK: i32 = 0x6476_7266;
const FOUND: i32 = 0x5a17_0001;
const MISSED: i32 = 0x5a17_0002;

/// Where the stack has the frame's octets, the key made of them, how much follows the packet, numbers for calls, and the
/// number of the frame's kind.
const FRAME: i16 = -64;
const KEY: i16 = -128;
const PADDING: i16 = -136;
const NUMBER: i16 = -144;
const SCRATCH: i16 = -152;
const KIND: i16 = -160;

/// Octets that are read at once: an IPv4 frame's key and what is read of an IPv6 frame's before it is known to be one.
const FIRST_READ: i32 = 42;
/// Octets behind an IP packet that are padding; as the switch's own extraction has it.
const PADDING_MAX: i32 = 255;
/// Neighbour discovery (RFC 4861 4) is never forwarded here: the switch looks into it.
const ND_FIRST: i32 = nd::ROUTER_SOLICITATION as i32;
const ND_LAST: i32 = nd::REDIRECT as i32;

#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "offsets below 64")]
const fn frame_at(offset: usize) -> i16 {
    FRAME + offset as i16
}

#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "offsets below 64")]
const fn key_at(offset: usize) -> i16 {
    KEY + offset as i16
}

#[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "offsets below 64")]
const fn off(offset: usize) -> i16 {
    offset as i16
}

const fn network_order(value: u16) -> i32 {
    u16::from_ne_bytes(value.to_be_bytes()) as i32
}

/// The filter of a port's packet sockets: decides, and lets through what the switch is to see.
///
/// # Errors
/// [`AsmError`] would be a mistake here.
pub fn socket_filter() -> Result<Program<Map>, AsmError> {
    let mut asm = Asm::default();
    let miss = asm.label();
    asm.copy(R6, R1);
    lookup(&mut asm, miss);
    at_index_zero(&mut asm, Map::Hit, miss);
    asm.load(U64, R1, R0, 0);
    asm.alu(Alu::Add, R1, 1);
    asm.store(U64, R0, 0, R1);
    for word in (0..value::ACTION_LEN).step_by(8) {
        asm.load(U64, R2, R9, off(word));
        asm.store(U64, R0, off(word + 8), R2);
    }
    mark(&mut asm, FOUND);
    asm.store(U32, R6, skb::CB[2], R1);
    count(&mut asm);
    asm.set(R0, 0);
    asm.exit();
    asm.place(miss);
    mark(&mut asm, MISSED);
    asm.set(R0, WHOLE);
    asm.exit();
    asm.finish()
}

/// A filter for packet sockets that get nothing yet.
///
/// # Errors
/// [`AsmError`] would be a mistake here.
pub fn deaf_filter() -> Result<Program<Map>, AsmError> {
    let mut asm = Asm::default();
    asm.set(R0, 0);
    asm.exit();
    asm.finish()
}

/// A port's ingress filter: does what was decided, and decides if nobody did.
///
/// # Errors
/// [`AsmError`] would be a mistake here.
pub fn ingress() -> Result<Program<Map>, AsmError> {
    let mut asm = Asm::default();
    let (drop, unmarked, act) = (asm.label(), asm.label(), asm.label());
    asm.copy(R6, R1);
    asm.load(U32, R0, R6, skb::CB[0]);
    asm.load(U32, R7, R6, skb::CB[1]);
    asm.jump_if(R0, When::NotEqual, MARK, unmarked);
    // The frame may come by another port: nothing is to be believed of it there.
    asm.set(R1, 0);
    asm.store(U32, R6, skb::CB[0], R1);
    asm.jump_if(R7, When::Equal, MISSED, drop);
    asm.jump_if(R7, When::NotEqual, FOUND, unmarked);
    asm.load(U32, R7, R6, skb::CB[2]);
    at_index_zero(&mut asm, Map::Hit, drop);
    asm.load(U64, R1, R0, 0);
    asm.low_half(R1);
    asm.jump_if_reg(R1, When::NotEqual, R7, drop);
    asm.copy(R9, R0);
    asm.alu(Alu::Add, R9, 8);
    asm.jump(act);
    asm.place(unmarked);
    lookup(&mut asm, drop);
    count(&mut asm);
    asm.place(act);
    rewrite(&mut asm, drop);
    redirect(&mut asm);
    asm.place(drop);
    asm.set(R0, DROP);
    asm.exit();
    asm.finish()
}

fn mark(asm: &mut Asm<Map>, says: i32) {
    for (place, word) in [(skb::CB[0], MARK), (skb::CB[1], says)] {
        asm.set(R2, word);
        asm.store(U32, R6, place, R2);
    }
}

/// The only value of a map, in `R0`.
fn at_index_zero(asm: &mut Asm<Map>, map: Map, without: Label) {
    asm.store_constant(U32, R10, NUMBER, 0);
    find(asm, map, NUMBER);
    asm.jump_if(R0, When::Equal, 0, without);
}

fn find(asm: &mut Asm<Map>, map: Map, key: i16) {
    asm.load_map(R1, map);
    asm.copy(R2, R10);
    asm.alu(Alu::Add, R2, i32::from(key));
    asm.call(function::MAP_LOOKUP_ELEM);
}

/// Reads so many octets of the frame, from offset `from` on, to the stack.
fn read(asm: &mut Asm<Map>, from: i32, to: i16, octets: i32, without: Label) {
    asm.copy(R1, R6);
    asm.set(R2, from);
    asm.copy(R3, R10);
    asm.alu(Alu::Add, R3, i32::from(to));
    asm.set(R4, octets);
    asm.call(function::SKB_LOAD_BYTES);
    asm.jump_if(R0, When::NotEqual, 0, without);
}

/// Finds what becomes of the frame `R6` and leaves it in `R9`; jumps to `miss` for whatever the switch is to see: what is
/// not known, not plain, or too big for where it would go.
fn lookup(asm: &mut Asm<Map>, miss: Label) {
    let (v6, known) = (asm.label(), asm.label());
    asm.load(U32, R0, R6, skb::VLAN_PRESENT);
    asm.jump_if(R0, When::NotEqual, 0, miss);
    // What a read does not fill is zero.
    for word in (40..KEY_LEN).step_by(8) {
        asm.store_constant(U64, R10, frame_at(word), 0);
    }
    read(asm, 0, FRAME, FIRST_READ, miss);
    asm.load(U8, R0, R10, FRAME);
    asm.jump_if(R0, When::AnyBit, 1, miss);
    asm.load(U16, R0, R10, frame_at(at::ETHER_TYPE));
    asm.jump_if(R0, When::Equal, network_order(ethernet::TYPE_IPV6), v6);
    asm.jump_if(R0, When::NotEqual, network_order(ethernet::TYPE_IPV4), miss);
    plain_ipv4(asm, miss);
    asm.jump(known);
    asm.place(v6);
    plain_ipv6(asm, miss);
    asm.place(known);
    length(asm, miss);
    masked(asm, miss);
    find(asm, Map::Flows, KEY);
    asm.jump_if(R0, When::Equal, 0, miss);
    asm.copy(R9, R0);
    asm.load(U32, R1, R9, off(value::MTU));
    asm.jump_if_reg(R8, When::Greater, R1, miss);
    strict(asm, miss);
}

/// Goes on if the frame is as a router takes it, where the value at `R9` asks for that.
fn strict(asm: &mut Asm<Map>, miss: Label) {
    let (asked, done) = (asm.label(), asm.label());
    asm.load(U16, R1, R9, off(value::FLAGS));
    asm.jump_if(R1, When::AnyBit, flag::STRICT.into(), asked);
    asm.jump(done);
    asm.place(asked);
    asm.load(U64, R1, R10, PADDING);
    asm.jump_if(R1, When::NotEqual, 0, miss);
    asm.jump_if(R7, When::NotEqual, 0, done);
    // The sum of all words is the same in either order of octets (RFC 1071 2).
    asm.set(R1, 0);
    for word in (at::NETWORK..at::IPV4_TRANSPORT).step_by(2) {
        asm.load(U16, R2, R10, frame_at(word));
        asm.alu_reg(Alu::Add, R1, R2);
    }
    for _ in 0..2 {
        asm.copy(R2, R1);
        asm.alu(Alu::Rsh, R2, 16);
        asm.alu(Alu::And, R1, 0xffff);
        asm.alu_reg(Alu::Add, R1, R2);
    }
    asm.jump_if(R1, When::NotEqual, 0xffff, miss);
    asm.place(done);
}

/// Goes on for an IPv4 packet without options that is no fragment and as long as it says: whether it is one of IPv6 in
/// `R7`, where its transport header starts in `R8`, its protocol in `R9`.
fn plain_ipv4(asm: &mut Asm<Map>, miss: Label) {
    asm.load(U8, R0, R10, frame_at(at::NETWORK));
    asm.jump_if(R0, When::NotEqual, 0x45, miss);
    asm.load(U16, R0, R10, frame_at(at::IPV4_FRAGMENT));
    asm.jump_if(R0, When::AnyBit, network_order(0x3fff), miss);
    asm.load(U16, R2, R10, frame_at(at::IPV4_TOTAL));
    asm.swap16(R2);
    asm.load(U8, R9, R10, frame_at(at::IPV4_PROTOCOL));
    whole(asm, (14, &[(Kind::Tcp4, 40), (Kind::Udp4, 28), (Kind::Icmp4, 28)]), miss);
    asm.set(R7, 0);
    asm.set(R8, i32::from(off(at::IPV4_TRANSPORT)));
}

/// The same for IPv6, without extension headers.
fn plain_ipv6(asm: &mut Asm<Map>, miss: Label) {
    asm.load(U8, R0, R10, frame_at(at::NETWORK));
    asm.alu(Alu::Rsh, R0, 4);
    asm.jump_if(R0, When::NotEqual, 6, miss);
    let rest = i32::from(off(FRAME_LEN)) - FIRST_READ;
    read(asm, FIRST_READ, frame_at(at::IPV6_DESTINATION + 4), rest, miss);
    asm.load(U16, R2, R10, frame_at(at::IPV6_PAYLOAD));
    asm.swap16(R2);
    asm.load(U8, R9, R10, frame_at(at::IPV6_NEXT));
    whole(asm, (54, &[(Kind::Tcp6, 20), (Kind::Udp6, 8), (Kind::Icmp6, 8)]), miss);
    let plain = asm.label();
    asm.jump_if(R9, When::NotEqual, i32::from(ipv4::PROTOCOL_ICMPV6), plain);
    asm.load(U8, R0, R10, frame_at(at::IPV6_TRANSPORT));
    asm.jump_if(R0, When::Less, ND_FIRST, plain);
    asm.jump_if(R0, When::Greater, ND_LAST, plain);
    asm.jump(miss);
    asm.place(plain);
    asm.set(R7, 1);
    asm.set(R8, i32::from(off(at::IPV6_TRANSPORT)));
}

/// Goes on if the length `R2`, counted from octet `from`, is in the frame, with no more than padding behind it, and the
/// protocol `R9` that of one of these kinds, each with the least length; its number is on the stack then.
fn whole(asm: &mut Asm<Map>, (from, kinds): (i32, &[(Kind, i32)]), miss: Label) {
    asm.load(U32, R3, R6, skb::LEN);
    asm.alu(Alu::Sub, R3, from);
    // Unsigned: a frame shorter than that is missed as well, by one of both.
    asm.jump_if_reg(R2, When::Greater, R3, miss);
    asm.alu_reg(Alu::Sub, R3, R2);
    asm.jump_if(R3, When::Greater, PADDING_MAX, miss);
    asm.store(U64, R10, PADDING, R3);
    let good = asm.label();
    for (kind, least) in kinds {
        let next = asm.label();
        asm.jump_if(R9, When::NotEqual, i32::from(kind.protocol()), next);
        asm.jump_if(R2, When::Less, *least, miss);
        asm.store_constant(U32, R10, KIND, *kind as i32);
        asm.jump(good);
        asm.place(next);
    }
    asm.jump(miss);
    asm.place(good);
}

/// The octets of the largest network packet that the frame is or will be cut into, in `R8`, where its transport header's
/// offset was.
fn length(asm: &mut Asm<Map>, miss: Label) {
    let (segmented, datagram, add, done) = (asm.label(), asm.label(), asm.label(), asm.label());
    asm.load(U32, R0, R6, skb::GSO_SIZE);
    asm.jump_if(R0, When::NotEqual, 0, segmented);
    asm.load(U32, R8, R6, skb::LEN);
    asm.alu(Alu::Sub, R8, 14);
    asm.jump(done);
    asm.place(segmented);
    asm.alu(Alu::Sub, R8, 14);
    asm.alu_reg(Alu::Add, R8, R0);
    asm.jump_if(R9, When::Equal, i32::from(ipv4::PROTOCOL_UDP), datagram);
    asm.jump_if(R9, When::NotEqual, i32::from(ipv4::PROTOCOL_TCP), miss);
    // The header's length, in words, is the upper half of its octet 12 (RFC 9293 3.1).
    let (v6, have) = (asm.label(), asm.label());
    asm.jump_if(R7, When::NotEqual, 0, v6);
    read(asm, i32::from(off(at::IPV4_TRANSPORT)) + 12, SCRATCH, 1, miss);
    asm.jump(have);
    asm.place(v6);
    read(asm, i32::from(off(at::IPV6_TRANSPORT)) + 12, SCRATCH, 1, miss);
    asm.place(have);
    asm.load(U8, R1, R10, SCRATCH);
    asm.alu(Alu::Rsh, R1, 4);
    asm.alu(Alu::Lsh, R1, 2);
    asm.jump(add);
    asm.place(datagram);
    asm.set(R1, 8);
    asm.place(add);
    asm.alu_reg(Alu::Add, R8, R1);
    asm.place(done);
}

/// Makes the octets on the stack a key, under the mask that counts for their kind.
fn masked(asm: &mut Asm<Map>, miss: Label) {
    find(asm, Map::Chosen, KIND);
    asm.jump_if(R0, When::Equal, 0, miss);
    asm.load(U32, R9, R0, 0);
    asm.store(U32, R10, NUMBER, R9);
    find(asm, Map::Masks, NUMBER);
    asm.jump_if(R0, When::Equal, 0, miss);
    for word in (0..KEY_LEN).step_by(8) {
        asm.load(U64, R1, R10, frame_at(word));
        asm.load(U64, R2, R0, off(word));
        asm.alu_reg(Alu::And, R1, R2);
        asm.store(U64, R10, key_at(word), R1);
    }
    asm.store(U16, R10, key_at(KEY_MASK), R9);
    asm.load(U32, R1, R6, skb::IFINDEX);
    asm.store(U32, R10, key_at(KEY_IFINDEX), R1);
}

/// Counts the frame for what was found.
fn count(asm: &mut Asm<Map>) {
    asm.set(R1, 1);
    asm.add_atomic(R9, off(value::PACKETS), R1);
    asm.load(U32, R1, R6, skb::LEN);
    asm.add_atomic(R9, off(value::BYTES), R1);
}

/// Writes `octets` octets of the value at `from` to the frame at `to`.
fn write(asm: &mut Asm<Map>, to: usize, (from, octets): (usize, i32), flags: i32, failed: Label) {
    asm.copy(R1, R6);
    asm.set(R2, i32::from(off(to)));
    asm.copy(R3, R9);
    asm.alu(Alu::Add, R3, i32::from(off(from)));
    asm.set(R4, octets);
    asm.set(R5, flags);
    asm.call(function::SKB_STORE_BYTES);
    asm.jump_if(R0, When::NotEqual, 0, failed);
}

/// Rewrites the frame as the value at `R9` says; its flags are in `R7` then.
fn rewrite(asm: &mut Asm<Map>, failed: Label) {
    const BOTH: i32 = (flag::DESTINATION | flag::SOURCE) as i32;
    let (not_both, not_source, no_mac) = (asm.label(), asm.label(), asm.label());
    asm.load(U16, R7, R9, off(value::FLAGS));
    asm.copy(R8, R7);
    asm.alu(Alu::And, R8, BOTH);
    asm.jump_if(R8, When::NotEqual, BOTH, not_both);
    write(asm, 0, (value::DESTINATION, 12), 0, failed);
    asm.jump(no_mac);
    asm.place(not_both);
    asm.jump_if(R8, When::NotEqual, flag::SOURCE.into(), not_source);
    write(asm, 6, (value::SOURCE, 6), 0, failed);
    asm.jump(no_mac);
    asm.place(not_source);
    asm.jump_if(R8, When::Equal, 0, no_mac);
    write(asm, 0, (value::DESTINATION, 6), 0, failed);
    asm.place(no_mac);

    let (no_ttl, no_hops, ttl, hops) = (asm.label(), asm.label(), asm.label(), asm.label());
    asm.jump_if(R7, When::AnyBit, flag::IPV4_TTL.into(), ttl);
    asm.jump(no_ttl);
    asm.place(ttl);
    asm.copy(R1, R6);
    asm.set(R2, i32::from(off(at::IPV4_CHECKSUM)));
    asm.load(U16, R3, R9, off(value::OLD_WORD));
    asm.load(U16, R4, R9, off(value::NEW_WORD));
    asm.set(R5, 2);
    asm.call(function::L3_CSUM_REPLACE);
    asm.jump_if(R0, When::NotEqual, 0, failed);
    // A checksum of the whole packet stays right: the header's own makes up for the change.
    write(asm, at::IPV4_TTL, (value::TTL, 1), 0, failed);
    asm.place(no_ttl);
    asm.jump_if(R7, When::AnyBit, flag::IPV6_HOPS.into(), hops);
    asm.jump(no_hops);
    asm.place(hops);
    write(asm, at::IPV6_HOPS, (value::TTL, 1), function::RECOMPUTE_CSUM, failed);
    asm.place(no_hops);
}

/// Sends the frame where the value at `R9`, with the flags `R7`, says, and ends.
fn redirect(asm: &mut Asm<Map>) {
    let pair = asm.label();
    asm.load(U32, R1, R9, off(value::IFINDEX));
    asm.set(R2, 0);
    asm.jump_if(R7, When::AnyBit, flag::PAIR.into(), pair);
    asm.call(function::REDIRECT);
    asm.exit();
    asm.place(pair);
    asm.call(function::REDIRECT_PEER);
    asm.exit();
}

const _: () = assert!(Kind::ALL.len() * MASK_SLOTS as usize <= 1 << 16 && FRAME_LEN == KEY_MASK);

#[cfg(test)]
mod tests {
    use super::*;

    /// Output: programs that end, because they only jump forward; and that are as short as the README says.
    #[test]
    fn programs_hold_together_and_end() {
        for (name, program) in [("filter", socket_filter()), ("deaf", deaf_filter()), ("ingress", ingress())] {
            let insns = program.unwrap_or_else(|error| panic!("{name}: {error}")).link(|_| 0);
            // Classes JMP and JMP32 (RFC 9669 3.1).
            let jumps = insns.iter().filter(|insn| matches!(insn.code & 7, 5 | 6));
            assert!(jumps.clone().all(|insn| insn.offset >= 0), "{name} jumps back");
            assert!(insns.len() < 320, "{name} has {} instructions", insns.len());
        }
    }
}
