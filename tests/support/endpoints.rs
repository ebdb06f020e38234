//! What tests of tunnels' endpoints send, and how they count it.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use core::cell::RefCell;
use core::net::IpAddr;
use std::os::fd::BorrowedFd;

use dvr::datapath::port::Tally;
use dvr::datapath::{Checksum, DropReason, HEADROOM, Offload, Packet, SegmentKind, Segmentation, TunnelMeta};
use dvr::wire::checksum;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What was counted: octets of frames that went, and why others did not.
#[derive(Default)]
pub(crate) struct Ledger(pub(crate) RefCell<(usize, Vec<DropReason>)>);

impl Tally for Ledger {
    fn settle(&self, _: IpAddr, result: Result<(), DropReason>, frames: u64, octets: usize) {
        let mut ledger = self.0.borrow_mut();
        match result {
            Ok(()) => ledger.0 += octets,
            Err(reason) => (0..frames).for_each(|_| ledger.1.push(reason)),
        }
    }
}

/// A frame of TCP over IPv4 with this much payload from a port, unfinished if it is to be cut.
pub(crate) fn frame(port: u8, payload: usize, size: Option<u16>) -> (Vec<u8>, Offload) {
    let total = u16::try_from(40 + payload).expect("it fits").to_be_bytes();
    let mut frame =
        vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, total[0], total[1], 0, 9, 0x40, 0, 64, 6, 0, 0];
    frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = checksum::of(&frame[14..]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend([0, port, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    let pseudo = checksum::pseudo(&[10, 0, 0, 1], &[10, 0, 0, 2], 6, 20 + payload);
    frame[50..52].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
    frame.extend((0..payload).map(|at| u8::try_from(at % 251).expect("small")));
    let segmentation = size.map(|size| Segmentation { kind: SegmentKind::TcpV4, size, ecn: false, fixed_id: false });
    let header_len = if size.is_some() { 54 } else { 0 };
    (frame, Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, segmentation, header_len })
}

/// What a frame between two endpoints has of its tunnel, under this key.
pub(crate) fn meta(src: IpAddr, dst: IpAddr, id: u64) -> TunnelMeta {
    TunnelMeta { id, src, dst, tos: 2, ttl: 64 }
}

/// Hands a frame over as the switch does, with room for a tunnel's headers before it.
pub(crate) fn hand((frame, offload): &(Vec<u8>, Offload), send: impl FnOnce(&mut Packet<'_>)) {
    let mut room = [&[0; HEADROOM], &frame[..]].concat();
    let end = room.len();
    send(&mut Packet::new(&mut room, HEADROOM, end, &[], *offload));
}

/// A frame that came, in one piece.
pub(crate) fn whole(packet: &Packet<'_>) -> (Vec<u8>, Offload) {
    ([packet.head(), &packet.tail().concat()].concat(), packet.offload)
}

/// Waits until one of these has something to read; fails, with what came before, when nothing comes.
pub(crate) fn wait<'a>(sockets: impl IntoIterator<Item = BorrowedFd<'a>>, came: &impl core::fmt::Debug) {
    let mut waiting: Vec<_> = sockets.into_iter().map(|socket| PollFd::new(socket, PollFlags::POLLIN)).collect();
    assert!(
        poll(&mut waiting, PollTimeout::from(20_000_u16)).expect("good descriptors") > 0,
        "only this came: {came:?}"
    );
}
