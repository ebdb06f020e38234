//! VXLAN endpoints on loopback: what one sends, the other hands on, through the kernel's own cutting and joining.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/endpoints.rs"]
mod endpoints;
mod support;

use core::net::Ipv4Addr;
use std::net::UdpSocket;
use std::os::fd::AsFd;

use dvr::datapath::port::vxlan::{Endpoint, Sender, open, read};
use dvr::datapath::port::{Batch, Ready};
use dvr::datapath::{Checksum, DropReason, Offload, TunnelMeta};
use endpoints::{Ledger, frame, hand, wait, whole};

/// An endpoint at 127.x.y.`host`, its own for each test process and test.
fn endpoint(test: u8, host: u8) -> Endpoint {
    let [.., high, low] = std::process::id().to_be_bytes();
    let local = Ipv4Addr::new(127, test, high ^ 0x55, host).into();
    open(None, local, 20_000 + u16::from(low), 1).expect("loopback takes any 127 address").remove(0)
}

/// Input: an endpoint for some workers, and the same once more, for one or for some. Output: the kernel says that it is taken,
/// as long as it is; and all workers of the first get their part.
#[test]
fn an_endpoint_is_one_switchs_alone() {
    for (host, workers) in [(1, 1), (2, 2), (3, 3)] {
        let one = endpoint(7, host);
        let (local, port) = (one.local, one.udp_port);
        drop(one);
        let first = open(None, local, port, workers).expect("nobody has it");
        for again in [1, 2] {
            let refused = open(None, local, port, again).expect_err("it is taken").to_string();
            assert!(refused.contains("cannot bind") && refused.contains("has that address and port"), "{refused}");
        }
        let mut silent: Vec<_> = first.iter().collect();
        for sent in 0..10_000 {
            let stranger = UdpSocket::bind((local, 0)).expect("a port");
            stranger.send_to(&[0], (local, port)).expect("loopback takes it");
            wait(first.iter().map(|endpoint| endpoint.receive.as_fd()), &sent);
            silent.retain(|endpoint| {
                let nothing = |arrival: Result<_, DropReason>| assert!(arrival.is_err(), "an octet is no frame");
                read(endpoint, &mut Batch::default(), |arrival| nothing(arrival.map(|_| ()))) == Ready::Empty
            });
            if silent.is_empty() {
                break;
            }
        }
        assert!(silent.is_empty(), "{} of {workers} workers got nothing of 10,000 flows", silent.len());
        drop(first);
        open(None, local, port, 2).expect("it is free again");
    }
}

fn meta(from: &Endpoint, to: &Endpoint, id: u64) -> TunnelMeta {
    endpoints::meta(from.local, to.local, id)
}

fn send(sender: &mut Sender, from: &Endpoint, meta: &TunnelMeta, frame: &(Vec<u8>, Offload), ledger: &Ledger) {
    hand(frame, |packet| sender.send(from, meta, packet, ledger));
}

/// Reads until so many octets of frames have come.
fn receive(at: &Endpoint, octets: usize) -> Vec<(TunnelMeta, Vec<u8>, Offload)> {
    let mut batch = Batch::default();
    let mut frames = Vec::new();
    while frames.iter().map(|(_, frame, _): &(_, Vec<u8>, _)| frame.len()).sum::<usize>() < octets {
        wait([at.receive.as_fd()], &frames.len());
        read(at, &mut batch, |arrival| {
            let (meta, packet) = arrival.expect("only frames were sent");
            let (frame, offload) = whole(packet);
            frames.push((*meta, frame, offload));
        });
    }
    frames
}

#[test]
fn a_super_frame_arrives_as_one_and_octet_for_octet() {
    let (from, to) = (endpoint(1, 1), endpoint(1, 2));
    let (mut sender, ledger) = (Sender::new(&from), Ledger::default());
    let sent = frame(80, 60_000, Some(1398));
    send(&mut sender, &from, &meta(&from, &to, 5000), &sent, &ledger);
    let came = receive(&to, 60_000);
    assert_eq!(ledger.0.into_inner(), (60_054, vec![]));
    assert_eq!(came.len(), 1, "43 segments fit one send");
    let (told, octets, offload) = &came[0];
    assert_eq!((told.id, told.src, told.dst), (5000, from.local, to.local));
    assert_eq!((octets, offload), (&sent.0, &sent.1));
}

/// Input: three super-frames of 45 segments, of which a send takes 43. Output: one send each, and a
/// last one for what was left.
#[test]
fn the_rest_of_a_super_frame_goes_with_the_next() {
    let (from, to) = (endpoint(5, 1), endpoint(5, 2));
    let (mut sender, ledger) = (Sender::new(&from), Ledger::default());
    let sent = frame(80, 45 * 1448, Some(1448));
    for settled in 0..3 {
        send(&mut sender, &from, &meta(&from, &to, 5000), &sent, &ledger);
        assert_eq!(ledger.0.borrow().0, settled * sent.0.len(), "a frame has gone when all of it has");
    }
    sender.flush(&from, &ledger);
    assert_eq!(ledger.0.into_inner(), (3 * sent.0.len(), vec![]));
    let (mut batch, mut messages, mut payload) = (Batch::default(), 0, Vec::new());
    while payload.len() < 3 * 45 * 1448 {
        wait([to.receive.as_fd()], &payload.len());
        let ready = read(&to, &mut batch, |arrival| {
            payload.extend_from_slice(&whole(arrival.expect("only frames were sent").1).0[54..]);
        });
        let (Ready::Frames(count) | Ready::Last(count)) = ready else { panic!("something waited: {ready:?}") };
        messages += count;
    }
    assert_eq!(messages, 4, "datagrams come together as they were sent");
    assert!(payload == sent.0[54..].repeat(3), "in order, octet for octet");
}

/// Input: ends of super-frames, whole ones and small frames, of two sizes and to two places. Output: each place's, in order.
#[test]
fn what_waits_goes_before_what_comes_later() {
    let (from, to, other) = (endpoint(6, 1), endpoint(6, 2), endpoint(6, 3));
    let (mut sender, ledger) = (Sender::new(&from), Ledger::default());
    let mut expected = [Vec::new(), Vec::new()];
    for (number, (payload, size)) in [
        (45 * 1448, Some(1448)),
        (1448, None),
        (3 * 1448, Some(1448)),
        (44 * 1448 + 7, Some(1448)),
        (45 * 1448, Some(1448)),
        (100, None),
        (8 * 1000, Some(1000)),
        (1000, None),
        (9 * 1000, Some(1000)),
        (45 * 1448, Some(1448)),
    ]
    .into_iter()
    .enumerate()
    {
        let at = usize::from(number % 4 == 3);
        let sent = frame(80, payload, size);
        send(&mut sender, &from, &meta(&from, [&to, &other][at], 5000), &sent, &ledger);
        expected[at].push(sent.0);
    }
    sender.flush(&from, &ledger);
    for (at, expected) in [&to, &other].into_iter().zip(expected) {
        let octets = expected.iter().map(Vec::len).sum();
        let came: Vec<_> = receive(at, octets).into_iter().map(|(_, octets, _)| octets).collect();
        assert_eq!(came.iter().map(Vec::len).collect::<Vec<_>>(), expected.iter().map(Vec::len).collect::<Vec<_>>());
        assert!(came.iter().zip(&expected).all(|(came, sent)| came[54..] == sent[54..]), "octet for octet");
    }
    assert!(ledger.0.into_inner().1.is_empty());
}

/// Input: what waits together on a link of 1000 octets, of which the kernel refuses the whole for its first. Output: what
/// fits goes all the same, and every frame that does not is counted once, however many segments it has.
#[test]
fn what_fits_goes_though_others_do_not() {
    support::in_namespace("what_fits_goes_though_others_do_not", || {
        support::ip("link set lo mtu 1000 up");
        let (from, to) = (endpoint(7, 1), endpoint(7, 2));
        let (mut sender, ledger) = (Sender::new(&from), Ledger::default());
        let small = [frame(80, 100, None), frame(80, 60, None)];
        for sent in [&frame(80, 1200, None), &small[0], &frame(80, 3 * 1200, Some(1200)), &small[1]] {
            send(&mut sender, &from, &meta(&from, &to, 7), sent, &ledger);
        }
        for segments in [1, 8, 20, 60] {
            send(&mut sender, &from, &meta(&from, &to, 7), &frame(80, segments * 1000, Some(1000)), &ledger);
        }
        sender.flush(&from, &ledger);
        let octets = small.iter().map(|(octets, _)| octets.len()).sum();
        assert_eq!(ledger.0.into_inner(), (octets, vec![DropReason::TooBig; 6]));
        let came: Vec<_> = receive(&to, octets).into_iter().map(|(_, octets, _)| octets.len()).collect();
        assert_eq!(came, [154, 114]);
    });
}

#[test]
fn small_frames_leave_together_in_order_and_finished() {
    let (from, to) = (endpoint(2, 1), endpoint(2, 2));
    let (mut sender, ledger) = (Sender::new(&from), Ledger::default());
    let mut sizes = vec![100; 150];
    sizes.extend([60, 400, 20, 20]);
    for size in &sizes {
        send(&mut sender, &from, &meta(&from, &to, 7), &frame(80, *size, None), &ledger);
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
    let small = frame(80, 10, None);
    send(&mut sender, &from, &meta(&from, &to, 0), &small, &ledger);
    send(&mut sender, &from, &meta(&from, &to, 1 << 24), &small, &ledger);
    let elsewhere = TunnelMeta { dst: core::net::Ipv6Addr::LOCALHOST.into(), ..meta(&from, &to, 1) };
    send(&mut sender, &from, &elsewhere, &small, &ledger);
    let (octets, _) = frame(80, 10, None);
    let astray = Offload { checksum: Checksum::Partial { start: 60, offset: 16 }, ..Offload::default() };
    send(&mut sender, &from, &meta(&from, &to, 1), &(octets, astray), &ledger);
    let mut odd = frame(80, 1000, Some(100));
    odd.0[12] = 9;
    send(&mut sender, &from, &meta(&from, &to, 1), &odd, &ledger);
    sender.flush(&from, &ledger);
    use DropReason::{BadOffload, NoTunnel, Uncuttable};
    assert_eq!(ledger.0.into_inner(), (0, vec![NoTunnel, NoTunnel, NoTunnel, BadOffload, Uncuttable]));
}

#[test]
fn datagrams_without_a_frame_are_named() {
    let (from, to) = (endpoint(4, 1), endpoint(4, 2));
    let raw = UdpSocket::bind((from.local, 0)).expect("a free port");
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
        raw.send_to(octets, (to.local, to.udp_port)).expect("loopback takes it");
    }
    let (mut batch, mut seen) = (Batch::default(), Vec::new());
    while seen.len() < 8 {
        wait([to.receive.as_fd()], &seen);
        read(&to, &mut batch, |arrival| seen.push(arrival.map(|(meta, packet)| (meta.id, packet.len()))));
    }
    let bad = Err(DropReason::BadTunnel);
    assert_eq!(seen, [bad, bad, Err(DropReason::Truncated), bad, bad, bad, bad, Ok((9, 14))]);
}

#[test]
fn fragments_are_told_and_refused() {
    support::in_namespace("fragments_are_told_and_refused", || {
        support::ip("link set lo mtu 1400 up");
        support::ip("address add fd00::1/128 dev lo nodad");
        // The kernel makes an address's route a little later.
        while !support::ip("-6 route show table local").contains("fd00::1") {
            std::thread::yield_now();
        }
        for local in ["127.0.0.1", "fd00::1"] {
            let local: core::net::IpAddr = local.parse().expect("an address");
            let open = |port| open(None, local, port, 1).expect("ports of our own").remove(0);
            let (mut from, to) = (open(4790), open(4789));
            from.udp_port = to.udp_port;
            from.send.iter().for_each(|socket| support::sys::let_fragment(socket, local.is_ipv6()));
            let (mut sender, ledger) = (Sender::new(&from), Ledger::default());
            for payload in [1_400, 100] {
                send(&mut sender, &from, &meta(&from, &to, 1), &frame(80, payload, None), &ledger);
            }
            sender.flush(&from, &ledger);
            assert_eq!(ledger.0.into_inner().1, []);
            let (mut batch, mut came) = (Batch::default(), Vec::new());
            while came.len() < 2 {
                wait([to.receive.as_fd()], &came);
                read(&to, &mut batch, |arrival| came.push(arrival.map(|(_, packet)| packet.len())));
            }
            assert_eq!(came, [Err(DropReason::Fragmented), Ok(154)], "to {local}");
        }
    });
}
