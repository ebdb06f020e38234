//! Two endpoints on loopback: what one sends, the other hands on, through the kernel's own cutting and joining.

use core::cell::RefCell;
use core::net::{IpAddr, Ipv4Addr};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::*;
use crate::datapath::DropReason;
use crate::datapath::port::{Batch, Tally};
use crate::datapath::{Checksum, HEADROOM, Offload, Packet, SegmentKind, Segmentation, TunnelMeta};

/// What was counted: octets of frames that went, and why others did not.
#[derive(Default)]
struct Ledger(RefCell<(usize, Vec<DropReason>)>);

impl Tally for Ledger {
    fn settle(&self, _: IpAddr, result: Result<(), DropReason>, frames: u64, octets: usize) {
        let mut ledger = self.0.borrow_mut();
        match result {
            Ok(()) => ledger.0 += octets,
            Err(reason) => (0..frames).for_each(|_| ledger.1.push(reason)),
        }
    }
}

/// An endpoint at 127.x.y.`host`, its own for each test process and test.
fn endpoint(test: u8, host: u8) -> Endpoint {
    let [.., high, low] = std::process::id().to_be_bytes();
    let local = Ipv4Addr::new(127, test, high ^ 0x55, host).into();
    open(None, local, 20_000 + u16::from(low), 1).expect("loopback takes any 127 address").remove(0)
}

fn meta(from: &Endpoint, to: &Endpoint, id: u64) -> TunnelMeta {
    TunnelMeta { id, src: from.local, dst: to.local, tos: 0, ttl: 0 }
}

/// A frame of TCP over IPv4 with this much payload, unfinished if it is to be cut.
fn frame(payload: usize, size: Option<u16>) -> (Vec<u8>, Offload) {
    let total = u16::try_from(40 + payload).expect("it fits").to_be_bytes();
    let mut frame =
        vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, total[0], total[1], 0, 9, 0x40, 0, 64, 6, 0, 0];
    frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = crate::wire::checksum::of(&frame[14..]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend([0, 80, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    let pseudo = crate::wire::checksum::pseudo(&[10, 0, 0, 1], &[10, 0, 0, 2], 6, 20 + payload);
    frame[50..52].copy_from_slice(&crate::wire::checksum::fold(pseudo).to_be_bytes());
    frame.extend((0..payload).map(|at| u8::try_from(at % 251).expect("small")));
    let segmentation = size.map(|size| Segmentation { kind: SegmentKind::TcpV4, size, ecn: false, fixed_id: false });
    let header_len = if size.is_some() { 54 } else { 0 };
    (frame, Offload { checksum: Checksum::Partial { start: 34, offset: 16 }, segmentation, header_len })
}

fn send(
    sender: &mut Sender,
    from: &Endpoint,
    meta: &TunnelMeta,
    (frame, offload): &(Vec<u8>, Offload),
    ledger: &Ledger,
) {
    let mut room = [&[0; HEADROOM], &frame[..]].concat();
    let end = room.len();
    sender.send(from, meta, &mut Packet::new(&mut room, HEADROOM, end, &[], *offload), ledger);
}

/// Reads until so many octets of frames have come.
fn receive(at: &Endpoint, octets: usize) -> Vec<(TunnelMeta, Vec<u8>, Offload)> {
    let mut batch = Batch::default();
    let mut frames = Vec::new();
    while frames.iter().map(|(_, frame, _): &(_, Vec<u8>, _)| frame.len()).sum::<usize>() < octets {
        let mut waiting = [PollFd::new(at.receive.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut waiting, PollTimeout::from(20_000_u16)).expect("a good descriptor");
        assert!(ready > 0, "only {} frames came", frames.len());
        read(at, &mut batch, |arrival| {
            let (meta, packet) = arrival.expect("only frames were sent");
            frames.push((*meta, [packet.head(), &packet.tail().concat()].concat(), packet.offload));
        });
    }
    frames
}

#[test]
fn a_super_frame_arrives_as_one_and_octet_for_octet() {
    let (from, to) = (endpoint(1, 1), endpoint(1, 2));
    let (mut sender, ledger) = (Sender::new(&from), Ledger::default());
    let sent = frame(60_000, Some(1398));
    send(&mut sender, &from, &meta(&from, &to, 5000), &sent, &ledger);
    let came = receive(&to, 60_000);
    assert_eq!(ledger.0.into_inner(), (60_054, vec![]));
    assert_eq!(came.len(), 1, "43 segments fit one send");
    let (told, octets, offload) = &came[0];
    assert_eq!((told.id, told.src, told.dst), (5000, from.local, to.local));
    assert_eq!((octets, offload), (&sent.0, &sent.1));
}

#[test]
fn small_frames_leave_together_in_order_and_finished() {
    let (from, to) = (endpoint(2, 1), endpoint(2, 2));
    let (mut sender, ledger) = (Sender::new(&from), Ledger::default());
    let mut sizes = vec![100; 150];
    sizes.extend([60, 400, 20, 20]);
    for size in &sizes {
        send(&mut sender, &from, &meta(&from, &to, 7), &frame(*size, None), &ledger);
    }
    sender.flush(&from, &ledger);
    let octets = sizes.iter().map(|size| size + 54).sum();
    let came = receive(&to, octets);
    assert_eq!(ledger.0.into_inner(), (octets, vec![]));
    assert_eq!(came.iter().map(|(_, frame, _)| frame.len() - 54).collect::<Vec<_>>(), sizes);
    // Their sums were finished here and found right there; none follows the one before, so none is joined.
    assert!(
        came.iter().all(|(_, _, offload)| offload.checksum == Checksum::Verified && offload.segmentation.is_none())
    );
}

#[test]
fn what_cannot_go_is_named() {
    let (from, to) = (endpoint(3, 1), endpoint(3, 2));
    let (mut sender, ledger) = (Sender::new(&from), Ledger::default());
    let small = frame(10, None);
    send(&mut sender, &from, &meta(&from, &to, 0), &small, &ledger);
    send(&mut sender, &from, &meta(&from, &to, 1 << 24), &small, &ledger);
    let elsewhere = TunnelMeta { dst: core::net::Ipv6Addr::LOCALHOST.into(), ..meta(&from, &to, 1) };
    send(&mut sender, &from, &elsewhere, &small, &ledger);
    let (octets, _) = frame(10, None);
    let astray = Offload { checksum: Checksum::Partial { start: 60, offset: 16 }, ..Offload::default() };
    send(&mut sender, &from, &meta(&from, &to, 1), &(octets, astray), &ledger);
    let mut odd = frame(1000, Some(100));
    odd.0[12] = 9;
    send(&mut sender, &from, &meta(&from, &to, 1), &odd, &ledger);
    sender.flush(&from, &ledger);
    use DropReason::{BadOffload, NoTunnel, Uncuttable};
    assert_eq!(ledger.0.into_inner(), (0, vec![NoTunnel, NoTunnel, NoTunnel, BadOffload, Uncuttable]));
}

#[test]
fn datagrams_without_a_frame_are_named() {
    let (from, to) = (endpoint(4, 1), endpoint(4, 2));
    let course = super::super::send_sys::Course { to: SocketAddr::new(to.local, to.udp_port), tos: 0, ttl: 0 };
    let good = [&[8, 0, 0, 0, 0, 0, 9, 0][..], &[0xaa; 14]].concat();
    let mut unflagged = good.clone();
    unflagged[0] = 0;
    let mut zero = good.clone();
    zero[6] = 0;
    let mut reserved = good.clone();
    reserved[7] = 1;
    let mut other = good.clone();
    other[0] |= 4;
    for octets in [&good[..0], &good[..7], &good[..21], &unflagged, &zero, &reserved, &other, &good] {
        super::super::send_sys::send(from.send[0].as_fd(), &course, None, &[io::IoSlice::new(octets)])
            .expect("loopback takes it");
    }
    let (mut batch, mut seen) = (Batch::default(), Vec::new());
    while seen.len() < 8 {
        let mut waiting = [PollFd::new(to.receive.as_fd(), PollFlags::POLLIN)];
        assert!(poll(&mut waiting, PollTimeout::from(20_000_u16)).expect("a good descriptor") > 0, "{seen:?}");
        read(&to, &mut batch, |arrival| seen.push(arrival.map(|(meta, packet)| (meta.id, packet.len()))));
    }
    let bad = Err(DropReason::BadTunnel);
    assert_eq!(seen, [bad, bad, Err(DropReason::Truncated), bad, bad, bad, bad, Ok((9, 14))]);
}
