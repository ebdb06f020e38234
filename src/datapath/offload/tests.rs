//! Cutting and joining against a slow twin that builds every segment from its description, octet by octet.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Extended, Segments, Started, Train, Uncuttable, complete, flow_hash};
use crate::datapath::packet::{Checksum, Offload, Packet, SegmentKind, Segmentation};

/// Room in front of every packet here.
const ROOM: usize = 16;

/// RFC 1071 §1, word by word.
fn by_the_book(octets: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in octets.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded at every step")
}

/// A stream's stretch, from which super-frame and segments are built alike.
#[derive(Debug, Clone)]
struct Stretch {
    tags: usize,
    v6: bool,
    tcp: bool,
    /// Octets of IPv4 options or IPv6 hop-by-hop options, in units of 8.
    network_options: usize,
    /// Octets of TCP options, in units of 4.
    options: Vec<u8>,
    addresses: [u8; 32],
    ports: [u8; 4],
    tos: u8,
    ttl: u8,
    identification: u16,
    dont_fragment: bool,
    /// Whether identification stays, where it may.
    same_id: bool,
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    window: u16,
    payload: Vec<u8>,
    size: usize,
}

impl Stretch {
    fn headers_len(&self) -> usize {
        14 + 4 * self.tags + self.network_len() + if self.tcp { 20 + self.options.len() } else { 8 }
    }

    fn network_len(&self) -> usize {
        (if self.v6 { 40 } else { 20 }) + 8 * self.network_options
    }

    fn has_fixed_id(&self) -> bool {
        self.same_id && self.dont_fragment && !self.v6
    }

    /// The frame of segment `index` carrying `payload`, whose transport checksum is complete or only begun.
    fn frame(&self, index: usize, flags: u8, payload: &[u8], partial: bool) -> Vec<u8> {
        let mut out = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in 0..self.tags {
            out.extend([0x81, 0, 0, u8::try_from(tag).expect("few") + 1]);
        }
        let transport = if self.tcp { 6 } else { 17 };
        let transport_len = if self.tcp { 20 + self.options.len() } else { 8 };
        let length = u16::try_from(transport_len + payload.len()).expect("a legal length");
        let extra = u16::try_from(8 * self.network_options).expect("few");
        let start = out.len() + 2;
        let pseudo = if self.v6 {
            out.extend([0x86, 0xdd, 0x60 | self.tos >> 4, self.tos << 4, 0, 7]);
            out.extend((length + extra).to_be_bytes());
            out.extend([if extra == 0 { transport } else { 0 }, self.ttl]);
            out.extend(self.addresses);
            if extra != 0 {
                out.extend([transport, u8::try_from(self.network_options).expect("few") - 1, 1]);
                out.extend([u8::try_from(extra - 4).expect("few")]);
                out.extend(vec![0; usize::from(extra - 4)]);
            }
            [&self.addresses[..], &u32::from(length).to_be_bytes(), &[0, 0, 0, transport]].concat()
        } else {
            let words = u8::try_from(5 + 2 * self.network_options).expect("few");
            out.extend([8, 0, 0x40 | words, self.tos]);
            out.extend((length + 20 + extra).to_be_bytes());
            let count = if self.has_fixed_id() { 0 } else { u16::try_from(index).expect("few") };
            out.extend(self.identification.wrapping_add(count).to_be_bytes());
            out.extend([if self.dont_fragment { 0x40 } else { 0 }, 0, self.ttl, transport, 0, 0]);
            out.extend(&self.addresses[..8]);
            out.extend(vec![1; usize::from(extra)]);
            let sum = by_the_book(&out[start..]);
            out[start + 10..start + 12].copy_from_slice(&sum.to_be_bytes());
            [&self.addresses[..8], &[0, transport], &length.to_be_bytes()].concat()
        };
        let transport_at = out.len();
        out.extend(self.ports);
        if self.tcp {
            let offset = u32::try_from(index * self.size).expect("few");
            out.extend(self.sequence.wrapping_add(offset).to_be_bytes());
            out.extend(self.acknowledgement.to_be_bytes());
            out.extend([u8::try_from(transport_len / 4).expect("few") << 4, flags]);
            out.extend(self.window.to_be_bytes());
            out.extend([0; 4]);
            out.extend(&self.options);
        } else {
            out.extend(length.to_be_bytes());
            out.extend([0; 2]);
        }
        out.extend(payload);
        let field = transport_at + if self.tcp { 16 } else { 6 };
        let sum = if partial {
            !by_the_book(&pseudo)
        } else {
            let sum = by_the_book(&[&pseudo, &out[transport_at..]].concat());
            if sum == 0 && !self.tcp { 0xffff } else { sum }
        };
        out[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        out
    }

    fn segments(&self) -> Vec<Vec<u8>> {
        let chunks: Vec<&[u8]> =
            if self.payload.is_empty() { vec![&[]] } else { self.payload.chunks(self.size).collect() };
        let last = chunks.len() - 1;
        let segment = |(index, chunk): (usize, &&[u8])| {
            let mut flags = self.flags;
            if index != 0 {
                flags &= !0x80;
            }
            if index != last {
                flags &= !0x09;
            }
            self.frame(index, flags, chunk, false)
        };
        chunks.iter().enumerate().map(segment).collect()
    }

    fn super_frame(&self) -> Vec<u8> {
        self.frame(0, self.flags, &self.payload, true)
    }

    fn offload(&self) -> Offload {
        let transport = if self.tcp { 20 + self.options.len() } else { 8 };
        let start = u16::try_from(self.headers_len() - transport).expect("few");
        let kind = match (self.tcp, self.v6) {
            (true, false) => SegmentKind::TcpV4,
            (true, true) => SegmentKind::TcpV6,
            (false, _) => SegmentKind::Udp,
        };
        let size = u16::try_from(self.size).expect("16 bits");
        Offload {
            checksum: Checksum::Partial { start, offset: if self.tcp { 16 } else { 6 } },
            segmentation: Some(Segmentation {
                kind,
                size,
                ecn: self.tcp && self.flags & 0x80 != 0,
                fixed_id: self.has_fixed_id(),
            }),
            header_len: u16::try_from(self.headers_len()).expect("few"),
        }
    }
}

prop_compose! {
    fn stretch(plain: bool)(
        (tags, v6, tcp) in (0_usize..3, any::<bool>(), any::<bool>()),
        network_options in if plain { 0..1_usize } else { 0..4_usize },
        options in vec(any::<u8>(), 0..=10_usize),
        (addresses, ports) in (any::<[u8; 32]>(), any::<[u8; 4]>()),
        (tos, ttl, identification, dont_fragment, same_id) in any::<(u8, u8, u16, bool, bool)>(),
        (sequence, acknowledgement, window) in any::<(u32, u32, u16)>(),
        flags in prop_oneof![Just(0x10_u8), (0_u8..16).prop_map(|bits| 0x10 | (bits & 1) | (bits & 2) << 2 | (bits & 12) << 4)],
        payload in vec(any::<u8>(), 0..900),
        // At most 60 segments: a train of datagrams ends at 64.
        size in 15_usize..300,
    ) -> Stretch {
        let options = options.iter().flat_map(|word| [*word; 4]).collect();
        Stretch { tags, v6, tcp, network_options, options, addresses, ports, tos, ttl, identification, dont_fragment, same_id,
            sequence, acknowledgement, flags, window, payload, size }
    }
}

/// Cuts a frame whose octets after `head` lie in pieces of the given lengths; a frame for itself is completed.
fn cut(frame: &[u8], head: usize, pieces: &[usize], offload: Offload) -> Vec<Vec<u8>> {
    let (front, mut rest) = frame.split_at(head.min(frame.len()));
    let mut tail: Vec<&[u8]> = Vec::new();
    for length in pieces.iter().copied().chain([usize::MAX]) {
        let (piece, behind) = rest.split_at(length.min(rest.len()));
        tail.push(piece);
        rest = behind;
    }
    let mut room = [&[0; ROOM], front].concat();
    let end = room.len();
    let mut packet = Packet::new(&mut room, ROOM, end, &tail, offload);
    let Some(segments) = Segments::of(&packet).expect("it can be cut") else {
        complete(&mut packet).expect("its word is good");
        return vec![[packet.head(), &packet.tail().concat()].concat()];
    };
    let mut out = Vec::new();
    for index in 0..segments.count() {
        let mut header = vec![0xaa; segments.header_len()];
        let mut payload = Vec::new();
        segments.cut(&packet, index, &mut header, |piece| payload.extend_from_slice(piece));
        assert_eq!(payload.len(), segments.range(index).len());
        header.extend(payload);
        out.push(header);
    }
    out
}

/// Joins frames as a tunnel does, to super-frames with what they ask for.
fn join(frames: &[Vec<u8>]) -> Vec<(Vec<u8>, Offload)> {
    let mut out = Vec::new();
    let mut current: Option<(Train, Vec<u8>, Vec<u8>)> = None;
    let emit = |current: Option<(Train, Vec<u8>, Vec<u8>)>, out: &mut Vec<_>| {
        if let Some((train, mut first, rest)) = current {
            let offload = train.finish(&mut first);
            out.push(([first, rest].concat(), offload));
        }
    };
    for frame in frames {
        if let Some((train, first, rest)) = &mut current {
            match train.extend(first, frame) {
                Extended::Refused => emit(current.take(), &mut out),
                taken @ (Extended::Taken | Extended::Last) => {
                    rest.extend_from_slice(&frame[train.header_len()..]);
                    if taken == Extended::Last {
                        emit(current.take(), &mut out);
                    }
                    continue;
                }
            }
        }
        match Train::start(frame) {
            Started::Train(train) => current = Some((train, frame.clone(), Vec::new())),
            Started::Alone(checksum) => {
                out.push((frame.clone(), Offload { checksum, segmentation: None, header_len: 0 }));
            }
        }
    }
    emit(current, &mut out);
    out
}

proptest! {
    #[test]
    fn a_cut_is_what_the_slow_twin_builds(it in stretch(false), beyond in 0_usize..200, pieces in vec(0_usize..90, 0..9)) {
        let cut = cut(&it.super_frame(), it.headers_len() + beyond, &pieces, it.offload());
        prop_assert_eq!(cut, it.segments());
    }

    #[test]
    fn what_was_cut_joins_to_the_very_super_frame(it in stretch(true)) {
        let segments = it.segments();
        prop_assume!(segments.len() > 1);
        // One sum in 65,536 has a second form; such a train ends early, which the next property covers.
        let joined = join(&segments);
        if joined.len() == 1 {
            prop_assert_eq!(&joined[0], &(it.super_frame(), it.offload()));
        } else {
            let field = it.headers_len() - if it.tcp { it.options.len() + 4 } else { 2 };
            let other_zero = |frame: &Vec<u8>| {
                let network = 14 + 4 * it.tags + 10;
                frame[network..network + 2] == [0xff; 2] || frame[field..field + 2] == [0xff; 2]
            };
            prop_assert!(segments.iter().any(other_zero), "a train ended early");
        }
    }

    #[test]
    fn whatever_is_joined_is_cut_to_every_octet_that_came(
        stretches in vec(stretch(true), 1..4),
        swaps in vec(any::<(prop::sample::Index, prop::sample::Index)>(), 0..4),
        flips in vec(any::<(prop::sample::Index, prop::sample::Index, u8)>(), 0..3),
        fixed in vec(any::<(prop::sample::Index, prop::sample::Index, u8)>(), 0..3),
    ) {
        let mut frames: Vec<Vec<u8>> = stretches.iter().flat_map(Stretch::segments).collect();
        for (a, b) in swaps {
            let (a, b) = (a.index(frames.len()), b.index(frames.len()));
            frames.swap(a, b);
        }
        for (frame, octet, mask) in flips {
            let frame = frame.get(&frames[..]).len().min(frames.len() - 1);
            let at = octet.index(frames[frame].len());
            frames[frame][at] ^= mask;
        }
        // The same with sums made right again, so that only the rules for headers stand between.
        for (frame, octet, mask) in fixed {
            let frame = frame.index(frames.len());
            let at = 14 + octet.index(frames[frame].len() - 14);
            frames[frame][at] ^= mask;
            mend(&mut frames[frame]);
        }
        let joined = join(&frames);
        let mut back = Vec::new();
        for (frame, offload) in &joined {
            if offload.segmentation.is_some() {
                back.extend(cut(frame, usize::from(offload.header_len), &[], *offload));
            } else {
                back.push(frame.clone());
            }
        }
        prop_assert_eq!(back, frames);
    }

    #[test]
    fn a_wrong_sum_is_neither_joined_nor_vouched_for(it in stretch(true), which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), mask in 1_u8..) {
        let mut segments = it.segments();
        prop_assume!(segments.len() > 1 && it.payload.len() % it.size != 0);
        let which = which.index(segments.len());
        let headers = it.headers_len();
        let at = headers + at.index(segments[which].len() - headers);
        segments[which][at] ^= mask;
        let wrong = segments[which].clone();
        let found = join(&segments).into_iter().find(|(frame, _)| *frame == wrong);
        prop_assert_eq!(found.map(|(_, offload)| offload.checksum), Some(Checksum::Complete));
    }

    #[test]
    fn completing_is_what_the_slow_twin_builds(it in stretch(false), beyond in 0_usize..200, pieces in vec(0_usize..90, 0..9)) {
        let offload = Offload { segmentation: None, ..it.offload() };
        let whole = it.frame(0, it.flags, &it.payload, false);
        let completed = cut(&it.super_frame(), it.headers_len() + beyond, &pieces, offload);
        let at = usize::from(if let Checksum::Partial { start, offset } = offload.checksum { start + offset } else { 0 });
        let mut expected = whole;
        if expected[at..at + 2] == [0, 0] {
            expected[at..at + 2].copy_from_slice(&[0xff, 0xff]);
        }
        prop_assert_eq!(&completed, &[expected]);
    }

    #[test]
    fn no_octets_and_no_claims_make_it_panic(octets in vec(any::<u8>(), 0..120), it in stretch(false), keep in 0_usize..120,
        start in any::<u16>(), offset in any::<u16>(), size in any::<u16>(), kind in 0..3) {
        let mut frame = it.super_frame();
        frame.truncate(keep);
        for octets in [octets, frame] {
            let _ = flow_hash(&octets);
            let _ = join(&[octets.clone(), octets.clone()]);
            let kind = [SegmentKind::TcpV4, SegmentKind::TcpV6, SegmentKind::Udp][usize::try_from(kind).expect("few")];
            let segmentation = Some(Segmentation { kind, size, ecn: false, fixed_id: false });
            let offload = Offload { checksum: Checksum::Partial { start, offset }, segmentation, header_len: 0 };
            let mut room = octets.clone();
            let end = room.len();
            let mut packet = Packet::new(&mut room, 0, end, &[], offload);
            if let Ok(Some(segments)) = Segments::of(&packet) {
                let mut header = vec![0; segments.header_len()];
                for index in 0..segments.count() {
                    segments.cut(&packet, index, &mut header, |_| ());
                }
            }
            let _ = complete(&mut packet);
        }
    }

    #[test]
    fn all_frames_of_a_flow_hash_alike(it in stretch(false)) {
        let hash = flow_hash(&it.super_frame());
        prop_assert!(it.segments().iter().all(|frame| flow_hash(frame) == hash));
    }
}

/// Makes the checksums of a plain frame right, where it still is one.
fn mend(frame: &mut [u8]) {
    let Some(layout) = super::layout::Layout::of(frame) else {
        return;
    };
    let (at, field) = (layout.transport_at, layout.checksum_at());
    if layout.network == super::layout::Network::V4 {
        frame[layout.network_at + 10..layout.network_at + 12].fill(0);
        let sum = by_the_book(&frame[layout.network_at..at]);
        frame[layout.network_at + 10..layout.network_at + 12].copy_from_slice(&sum.to_be_bytes());
    }
    frame[field..field + 2].fill(0);
    let mut sum = super::checksum::Sum::new(layout.pseudo(frame, frame.len() - at));
    sum.add(&frame[at..]);
    frame[field..field + 2].copy_from_slice(&(!sum.fold()).to_be_bytes());
}

fn plain() -> Stretch {
    Stretch {
        tags: 0,
        v6: false,
        tcp: true,
        network_options: 0,
        options: Vec::new(),
        addresses: [10; 32],
        ports: [1, 2, 3, 4],
        tos: 0,
        ttl: 64,
        identification: 0xfffe,
        dont_fragment: true,
        same_id: false,
        sequence: u32::MAX - 5,
        acknowledgement: 1,
        flags: 0x99,
        window: 100,
        payload: (0..250).collect(),
        size: 100,
    }
}

#[test]
fn push_fin_and_congestion_marks_go_where_linux_puts_them() {
    let cut = cut(&plain().super_frame(), 54, &[], plain().offload());
    assert_eq!(cut.iter().map(|frame| frame[47]).collect::<Vec<_>>(), [0x90, 0x10, 0x19]);
    assert_eq!(cut.iter().map(|frame| frame.len()).collect::<Vec<_>>(), [154, 154, 104]);
    let ids: Vec<_> = cut.iter().map(|frame| [frame[18], frame[19]]).collect();
    assert_eq!(ids, [[0xff, 0xfe], [0xff, 0xff], [0, 0]]);
}

#[test]
fn nonsense_is_not_cut() {
    let frame = plain().super_frame();
    let refused = |frame: &[u8], kind, size| {
        let mut room = frame.to_vec();
        let end = room.len();
        let segmentation = Some(Segmentation { kind, size, ecn: false, fixed_id: false });
        let offload = Offload { checksum: Checksum::Complete, segmentation, header_len: 0 };
        Segments::of(&Packet::new(&mut room, 0, end, &[], offload)).map(|_| ()).expect_err("nonsense")
    };
    assert_eq!(refused(&frame, SegmentKind::TcpV4, 0), Uncuttable::Size { payload: 250, size: 0 });
    assert_eq!(refused(&frame, SegmentKind::TcpV6, 100), Uncuttable::NotThat(SegmentKind::TcpV6));
    assert_eq!(refused(&frame, SegmentKind::Udp, 100), Uncuttable::NotThat(SegmentKind::Udp));
    assert_eq!(refused(&frame[..40], SegmentKind::TcpV4, 100), Uncuttable::NotThat(SegmentKind::TcpV4));
    let long = Stretch { payload: vec![0; 2000], ..plain() }.super_frame();
    assert_eq!(refused(&long, SegmentKind::TcpV4, 1), Uncuttable::Size { payload: 2000, size: 1 });
}

#[test]
fn identification_stays_or_counts_but_not_both() {
    let frames = |same_id, dont_fragment| {
        Stretch { payload: vec![7; 450], size: 150, same_id, dont_fragment, identification: 9, ..plain() }.segments()
    };
    let (staying, counting) = (frames(true, true), frames(false, true));
    let lengths = |frames: &[&Vec<u8>]| {
        let frames: Vec<Vec<u8>> = frames.iter().map(|frame| (*frame).clone()).collect();
        join(&frames).iter().map(|(frame, _)| frame.len()).collect::<Vec<_>>()
    };
    let (one, whole) = (staying[0].len(), staying[0].len() + 300);
    assert_eq!(lengths(&[&staying[0], &staying[1], &staying[2]]), [whole]);
    assert_eq!(lengths(&[&staying[0], &staying[1], &counting[2]]), [one + 150, one]);
    assert_eq!(lengths(&[&counting[0], &counting[1], &staying[2]]), [one + 150, one]);
    let mut fragmentable = frames(false, false);
    for frame in &mut fragmentable {
        frame[18..20].copy_from_slice(&[0, 9]);
        frame[24..26].fill(0);
        let sum = by_the_book(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    }
    let same: Vec<&Vec<u8>> = fragmentable.iter().collect();
    assert_eq!(lengths(&same), [one, one, one], "without DF the same identification says the same packet");
}

#[test]
fn a_sum_only_begun_is_told_from_a_wrong_one() {
    let it = plain();
    let begun = it.frame(0, it.flags, &it.payload, true);
    let said = join(std::slice::from_ref(&begun));
    let Checksum::Partial { start, offset } = it.offload().checksum else { panic!("it is one") };
    assert_eq!(
        said[0],
        (begun.clone(), Offload { checksum: Checksum::Partial { start, offset }, ..Offload::default() })
    );
    assert_eq!(cut(&begun, begun.len(), &[], said[0].1), [it.frame(0, it.flags, &it.payload, false)]);
    let mut wrong = begun;
    let at = usize::from(start + offset);
    wrong[at] ^= 1;
    assert_eq!(join(&[wrong])[0].1.checksum, Checksum::Complete);
}
