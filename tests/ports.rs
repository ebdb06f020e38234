//! What ports lose: counted to the frame, and one frame at a time.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/endpoints.rs"]
#[expect(dead_code, reason = "this test needs part of it")]
mod endpoints;
mod support;

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use dvr::datapath::port::{Batch, Overruns, Ready, gre, packet, tap, vxlan};
use dvr::datapath::{Checksum, DropReason, Offload, SegmentKind, Segmentation};
use dvr::types::{IfName, Timestamp};
use dvr::wire::checksum;
use endpoints::{hand, wait, whole};
use nix::sys::socket::{MsgFlags, SockaddrStorage, sendto, setsockopt, sockopt};

/// Octets of headers in front of a datagram's payload.
const HEADERS: usize = 42;

/// A link without IPv6, which says nothing by itself: less than 1280 octets are too few for it (RFC 8200 5).
const QUIET_MTU: usize = 1279;

fn name(text: &str) -> IfName {
    IfName::new(text).expect("a legal name")
}

/// Two ends of a quiet pair, `near` and `far`, that take frames: until the kernel has noticed that the other end is up, which
/// it does by itself a little later, it loses what is sent there and says nothing (`noop_enqueue()`).
fn pair() {
    support::ip(&format!("link add near mtu {QUIET_MTU} up type veth peer name far mtu {QUIET_MTU}"));
    support::ip("link set far up");
    while !["near", "far"].iter().all(|end| support::ip(&format!("link show {end}")).contains("state UP")) {
        std::thread::yield_now();
    }
}

/// A frame of UDP over IPv4, in datagrams of this size if one is given.
fn datagrams(payload: &[u8], size: Option<u16>) -> (Vec<u8>, Offload) {
    let udp = u16::try_from(8 + payload.len()).expect("it fits").to_be_bytes();
    let total = u16::try_from(28 + payload.len()).expect("it fits").to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, total[0], total[1], 0, 9, 0x40, 0, 64, 17];
    frame.extend([0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    let sum = checksum::of(&frame[14..]);
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame.extend([0, 80, 1, 0, udp[0], udp[1]]);
    let pseudo = checksum::pseudo(&[10, 0, 0, 1], &[10, 0, 0, 2], 17, 8 + payload.len());
    frame.extend(checksum::fold(pseudo).to_be_bytes());
    frame.extend(payload);
    let segmentation = size.map(|size| Segmentation { kind: SegmentKind::Udp, size, ecn: false, fixed_id: false });
    let header_len = if size.is_some() { 42 } else { 0 };
    (frame, Offload { checksum: Checksum::Partial { start: 34, offset: 6 }, segmentation, header_len })
}

fn write(socket: &OwnedFd, frame: &(Vec<u8>, Offload), link: &mut packet::Link) -> Result<(), DropReason> {
    let mut sent = Ok(());
    hand(frame, |packet| sent = packet::write(socket.as_fd(), packet, true, link, Timestamp::ZERO));
    sent
}

/// The frames that wait at a packet socket.
fn waiting(socket: &OwnedFd) -> Vec<Vec<u8>> {
    let (mut batch, mut frames) = (Batch::default(), Vec::new());
    while !matches!(
        packet::read(socket.as_fd(), &mut batch, |event| frames.push(whole(event.expect("a frame")).0)),
        Ready::Empty
    ) {}
    frames
}

/// Sends twice more than a small buffer takes, while nobody reads, and reads what is there after that.
fn flood(socket: &OwnedFd, mut send: impl FnMut(), mut read: impl FnMut() -> usize) {
    const SENT: usize = 300;
    setsockopt(socket, sockopt::RcvBuf, &4_096).expect("a buffer");
    let mut overruns = Overruns::default();
    overruns.ask([socket.as_fd()]);
    assert_eq!(overruns.sum(), 0, "nothing came yet");
    for round in 1..=2 {
        (0..SENT).for_each(|_| send());
        let came = read();
        let lost = overruns.sum();
        overruns.ask([socket.as_fd()]);
        assert!(came > 0 && came < SENT, "{came} of {SENT} came in round {round}");
        assert_eq!(overruns.sum() - lost, u64::try_from(SENT - came).expect("few"), "round {round}: {came} came");
        overruns.ask([socket.as_fd()]);
        assert_eq!(overruns.sum() - lost, u64::try_from(SENT - came).expect("few"), "asked once more");
    }
}

#[test]
fn what_found_no_room_is_counted_to_the_frame() {
    support::in_namespace("what_found_no_room_is_counted_to_the_frame", || {
        support::ip("link set lo up");
        pair();
        let (here, there): (IpAddr, IpAddr) = (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(127, 0, 0, 2).into());
        let mut batch = Batch::default();

        let endpoint = vxlan::open(None, here, 4789, 1).expect("nobody has it").remove(0);
        let stranger = UdpSocket::bind((there, 0)).expect("a port");
        let send = || {
            stranger.send_to(&[0], (here, 4789)).expect("loopback takes it");
        };
        flood(&endpoint.receive, send, || {
            let mut came = 0;
            while vxlan::read(&endpoint, &mut batch, |_| came += 1) != Ready::Empty {}
            came
        });

        let endpoint = gre::open(None, here, 1).expect("a raw socket").remove(0);
        let other = gre::open(None, there, 1).expect("a raw socket").remove(0);
        let to = SockaddrStorage::from(SocketAddr::new(here, 0));
        let send = || {
            sendto(other.socket.as_raw_fd(), &[0; 8], &to, MsgFlags::empty()).expect("loopback takes it");
        };
        flood(&endpoint.socket, send, || {
            let mut came = 0;
            while gre::read(&endpoint, &mut batch, |_| came += 1) != Ready::Empty {}
            came
        });

        let open = |device| packet::open(None, &name(device), 1).expect("a packet socket").remove(0);
        let (near, far, mut link) = (open("near"), open("far"), packet::Link::default());
        let frame = datagrams(&[7; 100], None);
        flood(&far, || write(&near, &frame, &mut link).expect("the link takes it"), || waiting(&far).len());
    });
}

/// Input: UDP super-frames of so many datagrams, among them more than any kernel takes in one, and fewer than a socket has room for. Output: every octet arrives,
/// whole or cut. `tests/vm/suite ports` runs this on a kernel that takes none.
#[test]
fn datagrams_in_one_frame_arrive_whoever_cuts_them() {
    support::in_namespace("datagrams_in_one_frame_arrive_whoever_cuts_them", || {
        pair();
        let open = |device| packet::open(None, &name(device), 1).expect("a packet socket").remove(0);
        let (near, far, mut link) = (open("near"), open("far"), packet::Link::default());
        for (count, size) in [(2, 1_000), (40, 1_200), (200, 100), (3, 1_000), (300, 100)] {
            let payload: Vec<u8> = (0..count * usize::from(size) - 1).map(|at| at.to_le_bytes()[at % 2]).collect();
            write(&near, &datagrams(&payload, Some(size)), &mut link).expect("the link takes it, whole or cut");
            wait([far.as_fd()], &(count, size));
            let came: Vec<u8> = waiting(&far).into_iter().flat_map(|frame| frame[HEADERS..].to_vec()).collect();
            assert!(came == payload, "{count} datagrams of {size}: {} of {} octets came", came.len(), payload.len());
        }
        assert_eq!(link.take_missed(), 0);
    });
}

/// Input: what a machine sends as one with `UDP_SEGMENT`, and a datagram after it. Output: all of it, on a kernel that has a
/// word for it, or one frame refused and told; and the port goes on.
#[test]
fn what_a_machine_sends_as_one_costs_no_more_than_itself() {
    support::in_namespace("what_a_machine_sends_as_one_costs_no_more_than_itself", || {
        pair();
        support::ip("address add 10.0.0.1/24 dev far");
        support::ip("neighbour add 10.0.0.2 lladdr 02:00:00:00:00:02 dev far");
        let near = packet::open(None, &name("near"), 1).expect("a packet socket").remove(0);
        let machine = UdpSocket::bind("10.0.0.1:0").expect("a port");
        machine.connect("10.0.0.2:9").expect("a route");
        setsockopt(&machine, sockopt::UdpGsoSegment, &1_000).expect("the kernel knows it");
        machine.send(&[1; 20_000]).expect("sent as one");
        machine.send(&[2; 500]).expect("sent");
        let (mut batch, mut came, mut refused) = (Batch::default(), Vec::new(), 0);
        while !came.contains(&500) {
            wait([near.as_fd()], &came);
            match packet::read(near.as_fd(), &mut batch, |event| {
                came.push(whole(event.expect("a frame")).0.len() - HEADERS);
            }) {
                Ready::Refused(DropReason::BadOffload) => refused += 1,
                Ready::Frames(_) | Ready::Last(_) | Ready::Empty => {}
                other @ (Ready::Refused(_) | Ready::Down | Ready::Gone) => panic!("{other:?}"),
            }
        }
        let before: usize = came.iter().sum::<usize>() - 500;
        assert_eq!(before, if refused == 0 { 20_000 } else { 0 }, "{came:?}, {refused} refused");
        assert!(refused <= 1, "{refused} refused");
    });
}

/// Input: frames, and between them one for which the vnet header has no word on any kernel. Output: that one is lost, and said
/// to be, by the next read or to whoever writes first. It takes a TAP to make one.
#[test]
fn a_frame_that_cannot_be_read_costs_one_frame() {
    if let Some(why) = tap::probe() {
        println!("not tried: {why}");
        return;
    }
    support::in_namespace("a_frame_that_cannot_be_read_costs_one_frame", || {
        if let Some(why) = tap::probe() {
            println!("not tried: {why}");
            return;
        }
        let wire = tap::open(None, &name("wire"), None, 1).expect("a TAP").queues.remove(0);
        support::ip(&format!("link set wire mtu {QUIET_MTU} up"));
        let socket = packet::open(None, &name("wire"), 1).expect("a packet socket").remove(0);
        let (good, _) = datagrams(&[7; 100], None);
        let (bad, _) = datagrams(&[8; 3_000], None);
        let put = |gso: u8, frame: &[u8]| {
            let ([a, b], [c, d], [e, f]) = (1_000_u16.to_ne_bytes(), 34_u16.to_ne_bytes(), 6_u16.to_ne_bytes());
            let header = if gso == 0 { [1, 0, 0, 0, 0, 0, c, d, e, f] } else { [1, gso, 42, 0, a, b, c, d, e, f] };
            nix::unistd::write(&wire, &[&header[..], frame].concat()).expect("the TAP takes it");
        };
        // `VIRTIO_NET_HDR_GSO_UDP`: one datagram in fragments, which may come in and not go out.
        let fragments = 3;
        let mut batch = Batch::default();
        let mut read = || {
            let mut came = 0;
            (packet::read(socket.as_fd(), &mut batch, |event| came += whole(event.expect("a frame")).0.len()), came)
        };
        put(0, &good);
        put(fragments, &bad);
        put(0, &good);
        assert_eq!(read(), (Ready::Last(1), good.len()));
        assert_eq!(read(), (Ready::Refused(DropReason::BadOffload), 0));
        assert_eq!(read(), (Ready::Last(1), good.len()));
        put(0, &good);
        put(fragments, &bad);
        assert_eq!(read(), (Ready::Last(1), good.len()));
        let mut link = packet::Link::default();
        assert_eq!(write(&socket, &datagrams(&[9; 100], None), &mut link), Ok(()));
        assert_eq!((link.take_missed(), link.take_missed()), (1, 0));
        assert_eq!(read(), (Ready::Empty, 0));
    });
}
