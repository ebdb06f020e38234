//! GRE endpoints on a loopback of their own: what one sends, the other hands on; and what is no frame is named.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/endpoints.rs"]
mod endpoints;
mod support;

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};

use dvr::datapath::DropReason;
use dvr::datapath::port::Batch;
use dvr::datapath::port::gre::{Endpoint, Sender, open, read};
use dvr::datapath::{Checksum, Offload, TunnelMeta};
use dvr::wire::checksum;
use endpoints::{Ledger, frame, hand, wait, whole};
use nix::sys::socket::{MsgFlags, SockaddrStorage, sendto};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Endpoints here and there, for either family.
fn pairs() -> [(Endpoint, Endpoint); 2] {
    support::ip("link set lo up");
    support::ip("address add fd00::1/128 dev lo nodad");
    support::ip("address add fd00::2/128 dev lo nodad");
    // The kernel makes an address's route a little later.
    while !["fd00::1", "fd00::2"].iter().all(|ip| support::ip("-6 route show table local").contains(ip)) {
        std::thread::yield_now();
    }
    let one = |text| open(None, ip(text), 1).expect("a raw socket").remove(0);
    [(one("127.0.0.1"), one("127.0.0.2")), (one("fd00::1"), one("fd00::2"))]
}

fn meta(from: &Endpoint, to: &Endpoint, id: u64) -> TunnelMeta {
    endpoints::meta(from.local, to.local, id)
}

fn send(sender: &mut Sender, from: &Endpoint, meta: &TunnelMeta, frame: &(Vec<u8>, Offload), ledger: &Ledger) {
    hand(frame, |packet| sender.send(from, meta, packet, ledger));
}

/// What came by an endpoint: the tunnel's word, the frame and what is left to do on it, or why not.
type Came = Result<(TunnelMeta, Vec<u8>, Offload), DropReason>;

/// Reads until `enough` of what came.
fn receive(at: &Endpoint, enough: impl Fn(&[Came]) -> bool) -> Vec<Came> {
    let (mut batch, mut came) = (Batch::default(), Vec::new());
    while !enough(&came) {
        wait([at.socket.as_fd()], &came.len());
        read(at, &mut batch, |arrival| {
            came.push(arrival.map(|(meta, packet)| {
                let (frame, offload) = whole(packet);
                (*meta, frame, offload)
            }));
        });
    }
    came
}

#[test]
fn frames_arrive_as_they_were_sent() {
    support::in_namespace("frames_arrive_as_they_were_sent", || {
        for (from, to) in pairs() {
            let (mut sender, ledger) = (Sender::new(), Ledger::default());
            let (large, sizes) = (frame(80, 60_000, Some(1_398)), [100, 100, 60, 400, 20]);
            for size in sizes {
                send(&mut sender, &from, &meta(&from, &to, 7), &frame(80, size, None), &ledger);
            }
            // A super-frame does not overtake what waits.
            send(&mut sender, &from, &meta(&from, &to, 0xffff_ffff), &large, &ledger);
            let octets = sizes.iter().map(|size| size + 54).sum::<usize>() + large.0.len();
            let came = receive(&to, |came| {
                came.iter()
                    .flatten()
                    .map(|(_, frame, offload)| {
                        let cuts =
                            offload.segmentation.map_or(1, |cut| (frame.len() - 54).div_ceil(usize::from(cut.size)));
                        frame.len() + 54 * (cuts - 1)
                    })
                    .sum::<usize>()
                    >= octets + 54 * 42
            });
            assert_eq!(ledger.0.into_inner(), (octets, vec![]));
            let came: Vec<_> = came.into_iter().map(|came| came.expect("only frames were sent")).collect();
            let lengths: Vec<usize> = came.iter().map(|(_, frame, _)| frame.len() - 54).collect();
            assert_eq!(lengths[..5], sizes, "finished and in order");
            assert_eq!(lengths[5..].iter().sum::<usize>(), 60_000);
            assert!(lengths.len() < 10, "not joined: {lengths:?}");
            let payload: Vec<u8> = came[5..].iter().flat_map(|(_, frame, _)| frame[54..].to_vec()).collect();
            assert_eq!(payload, large.0[54..]);
            let (told, ..) = &came[5];
            assert_eq!((told.id, told.src, told.dst), (0xffff_ffff, from.local, to.local));
            assert_eq!((told.tos, told.ttl), (2, 64), "what the outer header says");
        }
    });
}

#[test]
fn what_cannot_go_is_named() {
    support::in_namespace("what_cannot_go_is_named", || {
        let [(from, to), (from6, _)] = pairs();
        let (mut sender, ledger) = (Sender::new(), Ledger::default());
        let small = frame(80, 10, None);
        send(&mut sender, &from, &meta(&from, &to, 0), &small, &ledger);
        send(&mut sender, &from, &meta(&from, &to, 1 << 32), &small, &ledger);
        send(&mut sender, &from, &meta(&from, &from6, 1), &small, &ledger);
        let astray = Offload { checksum: Checksum::Partial { start: 90, offset: 16 }, ..Offload::default() };
        send(&mut sender, &from, &meta(&from, &to, 1), &(small.0.clone(), astray), &ledger);
        let mut odd = frame(80, 1000, Some(100));
        odd.0[12] = 9;
        send(&mut sender, &from, &meta(&from, &to, 1), &odd, &ledger);
        support::ip("link set lo mtu 1400");
        for payload in [1_400, 100] {
            send(&mut sender, &from, &meta(&from, &to, 1), &frame(80, payload, None), &ledger);
        }
        sender.flush(&from, &ledger);
        use DropReason::{BadOffload, NoTunnel, TooBig, Uncuttable};
        assert_eq!(
            ledger.0.into_inner(),
            (154, vec![NoTunnel, NoTunnel, NoTunnel, BadOffload, Uncuttable, TooBig]),
            "the one behind the large one goes"
        );
    });
}

#[test]
fn packets_without_a_frame_are_named() {
    support::in_namespace("packets_without_a_frame_are_named", || {
        let good = [&[0x20, 0, 0x65, 0x58, 0, 0, 0, 9][..], &[0xaa; 14]].concat();
        let with = |at: usize, octet: u8| {
            let mut octets = good.clone();
            octets[at] = octet;
            octets
        };
        let summed = |damage: u8| {
            let mut octets = [&[0xb0, 0, 0x65, 0x58, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1][..], &[0xaa; 14]].concat();
            let sum = checksum::of(&octets);
            octets[4..6].copy_from_slice(&sum.to_be_bytes());
            octets[29] ^= damage;
            octets
        };
        use DropReason::{BadTunnel, Keyless, Truncated, TunnelChecksum};
        let cases = [
            (good[..3].to_vec(), Err(Truncated)),
            (good[..7].to_vec(), Err(Truncated)),
            (good[..21].to_vec(), Err(Truncated)),
            (with(1, 1), Err(BadTunnel)),
            (with(0, 0x60), Err(BadTunnel)),
            (with(2, 0x08), Err(BadTunnel)),
            (with(0, 0), Err(Keyless)),
            (summed(1), Err(TunnelChecksum)),
            (summed(0), Ok((5, 14))),
            (good.clone(), Ok((9, 14))),
        ];
        for (from, to) in pairs() {
            let there = SockaddrStorage::from(core::net::SocketAddr::new(to.local, 0));
            for (octets, _) in &cases {
                sendto(from.socket.as_raw_fd(), octets, &there, MsgFlags::empty()).expect("loopback takes it");
            }
            let came = receive(&to, |came| came.len() >= cases.len());
            let came = came.into_iter().map(|came| came.map(|(meta, frame, _)| (meta.id, frame.len())));
            assert_eq!(came.collect::<Vec<_>>(), cases.iter().map(|(_, outcome)| *outcome).collect::<Vec<_>>());
        }
    });
}

#[test]
fn fragments_are_told_and_refused() {
    support::in_namespace("fragments_are_told_and_refused", || {
        for (from, to) in pairs() {
            support::ip("link set lo mtu 1400");
            support::sys::let_fragment(&from.socket, from.local.is_ipv6());
            let (mut sender, ledger) = (Sender::new(), Ledger::default());
            for payload in [1_400, 100] {
                send(&mut sender, &from, &meta(&from, &to, 1), &frame(80, payload, None), &ledger);
            }
            sender.flush(&from, &ledger);
            assert_eq!(ledger.0.into_inner().1, []);
            let came = receive(&to, |came| came.len() == 2);
            assert_eq!(came[0], Err(DropReason::Fragmented), "to {}", to.local);
            assert_eq!(came[1].as_ref().map(|(_, frame, _)| frame.len()), Ok(154));
        }
    });
}

/// The kernel hands a raw packet to every socket: a filter in each makes it one worker's, the same for all of a flow.
#[test]
fn each_frame_is_one_workers() {
    support::in_namespace("each_frame_is_one_workers", || {
        for (from, to) in pairs() {
            let there = to.local;
            drop(to);
            let workers = open(None, there, 3).expect("raw sockets");
            let (mut sender, ledger) = (Sender::new(), Ledger::default());
            for port in (0..64).chain(0..64) {
                send(&mut sender, &from, &meta(&from, &workers[0], 1), &frame(port, 100, None), &ledger);
            }
            sender.flush(&from, &ledger);
            assert_eq!(ledger.0.into_inner(), (128 * 154, vec![]));
            let mut seen: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
            let mut batch = Batch::default();
            while seen.values().map(Vec::len).sum::<usize>() < 128 {
                wait(workers.iter().map(|endpoint| endpoint.socket.as_fd()), &seen);
                for (worker, endpoint) in workers.iter().enumerate() {
                    read(endpoint, &mut batch, |arrival| {
                        let (_, packet) = arrival.expect("only frames were sent");
                        seen.entry(packet.head()[35]).or_default().push(worker);
                    });
                }
            }
            // One that came twice would be there by now.
            for (worker, endpoint) in workers.iter().enumerate() {
                read(endpoint, &mut batch, |_| panic!("worker {worker} got one too many"));
            }
            assert_eq!(seen.len(), 64);
            assert!(seen.values().all(|by| by.len() == 2 && by[0] == by[1]), "{seen:?}");
            let busy: std::collections::BTreeSet<usize> = seen.values().flatten().copied().collect();
            assert_eq!(busy.len(), 3, "{seen:?}");
        }
    });
}
