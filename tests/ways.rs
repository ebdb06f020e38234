//! The way to another node's endpoint across a router, and a link; and what is too large for them.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/endpoints.rs"]
#[expect(dead_code, reason = "this test needs part of it")]
mod endpoints;
mod support;

use core::net::IpAddr;
use std::os::fd::AsFd;

use dvr::api::agent::Room;
use dvr::datapath::DropReason;
use dvr::datapath::port::packet;
use dvr::datapath::port::way::{End, ways};
use dvr::types::{IfName, Timestamp};

/// Here, a router, and there behind a link of 1400 octets: the router is named, by either family.
#[test]
fn a_router_that_passes_less_on_is_named() {
    support::in_namespace("a_router_that_passes_less_on_is_named", || {
        for words in [
            "netns add router",
            "netns add far",
            "link add near type veth peer name left netns router",
            "-n router link add right type veth peer name end netns far",
            "link set lo up",
            "link set near up",
            "-n router link set left up",
            "-n router link set right mtu 1400 up",
            "-n far link set end mtu 1400 up",
            "address add 10.0.1.1/24 dev near",
            "-n router address add 10.0.1.2/24 dev left",
            "-n router address add 10.0.2.2/24 dev right",
            "-n far address add 10.0.2.1/24 dev end",
            "address add fd00:1::1/64 dev near nodad",
            "-n router address add fd00:1::2/64 dev left nodad",
            "-n router address add fd00:2::2/64 dev right nodad",
            "-n far address add fd00:2::1/64 dev end nodad",
            // A router asks for neighbours from an address of the link, and may not from one that is yet to be found unique.
            "-n router address add fe80::1/64 dev left nodad",
            "-n router address add fe80::2/64 dev right nodad",
            "route add 10.0.2.0/24 via 10.0.1.2",
            "route add fd00:2::/64 via fd00:1::2",
            "-n far route add default via 10.0.2.2",
            "-n far route add default via fd00:2::2",
        ] {
            support::ip(words);
        }
        let forward = std::thread::spawn(|| {
            let router = std::fs::File::open("/run/netns/router").expect("its namespace");
            nix::sched::setns(router, nix::sched::CloneFlags::CLONE_NEWNET).expect("we own it");
            for key in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{key}"), "1").expect("a switch of its own");
            }
        });
        forward.join().expect("it forwards");
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (local, hop, far, silent) in
            [("10.0.1.1", "10.0.1.2", "10.0.2.1", "10.0.2.9"), ("fd00:1::1", "fd00:1::2", "fd00:2::1", "fd00:2::9")]
        {
            let ends = [
                End { to: ip(hop), needed: 1500 },
                End { to: ip(far), needed: 1500 },
                End { to: ip(far), needed: 1400 },
                End { to: ip(far), needed: 0 },
                End { to: ip(hop), needed: 1501 },
                End { to: ip(silent), needed: 1500 },
            ];
            let found = ways(ip(local), &ends).expect("sockets");
            let rooms: Vec<Room> = found.iter().map(|way| way.room).collect();
            let small = Room::Hop { hop: ip(hop), mtu: 1400 };
            let own = Room::Interface { mtu: 1500 };
            assert_eq!(rooms[..5], [Room::Enough, small, Room::Enough, Room::Enough, own], "{found:?}");
            assert!(found[..5].iter().all(|way| way.answered.is_some()), "{found:?}");
            assert_eq!(found[5].answered, None, "nobody is there");
        }
    });
}

/// Input: frames and super-frames to a link whose MTU changes meanwhile. Output: what is too large is refused, by the segments
/// that it would be cut into; a link that takes more again does so at once, and one that takes less within a second.
#[test]
fn what_is_too_large_for_a_link_is_refused() {
    support::in_namespace("what_is_too_large_for_a_link_is_refused", || {
        support::ip("link add near mtu 1400 up type veth peer name far");
        support::ip("link set far up");
        let near = IfName::new("near").expect("a name");
        let socket = packet::open(None, &near, 1).expect("a packet socket").remove(0);
        let mut link = packet::Link::default();
        let mut send = |millis: u64, payload: usize, size: Option<u16>| {
            let mut sent = Ok(());
            endpoints::hand(&endpoints::frame(80, payload, size), |packet| {
                sent = packet::write(socket.as_fd(), packet, true, &mut link, Timestamp::from_millis(millis));
            });
            sent
        };
        let refused = Err(DropReason::TooBig);
        assert_eq!([send(0, 1_360, None), send(0, 1_361, None)], [Ok(()), refused]);
        assert_eq!([send(0, 9_000, Some(1_360)), send(0, 9_000, Some(1_361))], [Ok(()), refused]);
        // It is of one segment, which is no longer than it is itself.
        assert_eq!(send(0, 1_000, Some(1_361)), Ok(()));
        support::ip("link set near mtu 1500");
        assert_eq!(send(1, 9_000, Some(1_361)), Ok(()));
        support::ip("link set near mtu 1300");
        assert_eq!([send(999, 9_000, Some(1_361)), send(1_001, 9_000, Some(1_361))], [Ok(()), refused]);
    });
}
