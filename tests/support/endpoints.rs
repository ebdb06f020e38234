//! What tests of tunnels' endpoints send, and how they count it.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use core::cell::RefCell;
use core::net::IpAddr;

use dvr::datapath::port::Tally;
use dvr::datapath::{Checksum, DropReason, Offload, SegmentKind, Segmentation};
use dvr::wire::checksum;

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
