//! A super-frame of TCP as tunnels see it: cut into segments, and those joined again.

use std::hint::black_box;

use dvr::datapath::offload::{Extended, Segments, Started, Train};
use dvr::datapath::{Checksum, HEADROOM, Offload, Packet, SegmentKind, Segmentation};
use dvr::wire::{ipv4, tcp};

/// Octets of payload in a segment: what an MTU of 1,500 leaves beside timestamps.
const SIZE: u16 = 1_448;
/// Segments of the super-frame: as many as an IPv4 packet holds.
const SEGMENTS: usize = 45;
/// Octets of headers: Ethernet, IPv4, TCP with timestamps.
const HEADERS: usize = 14 + 20 + 32;

/// A super-frame.
pub(crate) struct Stream {
    room: Vec<u8>,
    offload: Offload,
}

impl Stream {
    /// With some payload.
    pub(crate) fn new() -> Self {
        let payload = SEGMENTS * usize::from(SIZE);
        let mut room = vec![0; HEADROOM];
        room.extend([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        let [high, low] = u16::try_from(20 + 32 + payload).expect("a legal length").to_be_bytes();
        room.extend([0x45, 0, high, low, 0, 1, 0x40, 0, 64, ipv4::PROTOCOL_TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        room.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, tcp::ACK, 1, 0, 0, 0, 0, 0]);
        room.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        room.extend((0..payload).map(|at| at.to_le_bytes()[0]));
        let segmentation = Segmentation { kind: SegmentKind::TcpV4, size: SIZE, ecn: false, fixed_id: false };
        let checksum = Checksum::Partial { start: 34, offset: tcp::CHECKSUM_OFFSET };
        let header_len = u16::try_from(HEADERS).expect("few");
        Self { room, offload: Offload { checksum, segmentation: Some(segmentation), header_len } }
    }

    /// Cuts it into segments.
    pub(crate) fn cut(&mut self) {
        let end = self.room.len();
        let packet = Packet::new(&mut self.room, HEADROOM, end, &[], self.offload);
        let segments = Segments::of(&packet).expect("can be cut").expect("is to be cut");
        for index in 0..segments.count() {
            let mut header = [0; HEADERS];
            segments.cut(&packet, index, &mut header, |piece| {
                black_box(piece);
            });
            black_box(&header);
        }
    }

    /// Its segments, one after another.
    pub(crate) fn segments(&mut self) -> Vec<Vec<u8>> {
        let end = self.room.len();
        let packet = Packet::new(&mut self.room, HEADROOM, end, &[], self.offload);
        let segments = Segments::of(&packet).expect("can be cut").expect("is to be cut");
        let one = |index| {
            let mut frame = vec![0; HEADERS];
            let mut payload = Vec::new();
            segments.cut(&packet, index, &mut frame, |piece| payload.extend_from_slice(piece));
            frame.extend(payload);
            frame
        };
        (0..segments.count()).map(one).collect()
    }
}

/// Joins segments, which belong together.
pub(crate) fn join(segments: &[Vec<u8>]) {
    let [first, others @ ..] = segments else { return };
    let Started::Train(mut train) = Train::start(first) else { panic!("others may follow it") };
    for (index, other) in others.iter().enumerate() {
        let extended = train.extend(first, other);
        let last = index + 1 == others.len();
        assert!(extended == Extended::Taken || last && extended == Extended::Last, "{index}: {extended:?}");
    }
    black_box(train.finish(&mut first[..HEADERS].to_vec()));
}
