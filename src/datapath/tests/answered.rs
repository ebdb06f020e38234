//! What the switch answers by itself: each of DHCP's questions and router solicitations, and whatever looks like one.

use core::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::api::switch::{Advertisement, Answer, Lease};
use crate::datapath::DropReason;
use crate::types::Mac;
use crate::wire::dhcp;

const OURS: [u8; 4] = [10, 1, 0, 2];
const SERVER: [u8; 4] = [10, 1, 0, 1];
/// The MAC of `udp4`'s sender.
const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ROUTER: Mac = Mac::new([0xfa, 0x16, 0x3e, 0, 0, 9]);

fn userdata(answer: &Answer) -> String {
    let octets: Vec<String> = answer.octets().iter().map(|octet| format!("{octet:02x}")).collect();
    octets.join(".")
}

/// A switch that answers on port 1.
fn bench() -> Bench {
    let lease = Answer::Lease(Lease {
        server: Ipv4Addr::from_octets(SERVER),
        server_mac: ROUTER,
        address: Ipv4Addr::from_octets(OURS),
        prefix_len: 24,
        routes: true,
        mtu: 1450,
        seconds: 3600,
    });
    let prefixes = vec!["fd00:1::/64".parse().expect("legal")];
    let said = Answer::Advertisement(Advertisement { router: ROUTER, mtu: 1450, prefixes });
    let mut bench = Bench::new(2);
    bench.add(&[
        &format!("table=0,udp,tp_dst=67,actions=controller(userdata={})", userdata(&lease)),
        &format!("table=0,icmp6,actions=controller(userdata={}),output:2", userdata(&said)),
    ]);
    bench
}

/// A question with these options, `flags` and `ciaddr`.
fn question(options: &[u8], flags: u16, client_ip: [u8; 4]) -> Vec<u8> {
    let mut body = hex("01 01 06 00 12345678 0003");
    body.extend(flags.to_be_bytes());
    body.extend(client_ip);
    body.resize(28, 0);
    body.extend(CLIENT);
    body.resize(236, 0);
    body.extend(hex("63825363"));
    body.extend(options);
    body.push(255);
    let source = if client_ip == [0; 4] { ([0; 4], [255; 4]) } else { (client_ip, SERVER) };
    udp4(source.0, source.1, (68, 67), &body)
}

/// How often it was counted that there was no answer.
fn unanswered(bench: &mut Bench) -> u64 {
    let now = bench.now;
    bench.worker.push_stats(&bench.switch, now);
    bench.switch().drops().get(DropReason::Unanswered.name()).copied().unwrap_or(0)
}

/// Whether the sums of an IPv4 header and its UDP datagram are right.
fn is_right_v4(frame: &[u8]) -> bool {
    let (ip, udp) = (&frame[14..34], &frame[34..]);
    let pseudo = checksum::pseudo(&ip[12..16], &ip[16..20], 17, udp.len());
    checksum::of(ip) == 0 && !checksum::fold(checksum::add(pseudo, udp)) == 0
}

#[test]
fn each_of_dhcps_questions_gets_its_answer() {
    let asks = |ip: [u8; 4]| [&[53, 1, 3, 50, 4][..], &ip].concat();
    let chooses = |server: [u8; 4], ip: [u8; 4]| [&[53, 1, 3, 54, 4][..], &server, &[50, 4], &ip].concat();
    let all = [255; 4];
    // What is asked, with which flags, from which address; the answer's message, destination and address.
    let cases = [
        ("discover", vec![53, 1, 1], 0, [0; 4], Some((2, OURS, OURS))),
        ("discover, deaf to unicast", vec![53, 1, 1], 0x8000, [0; 4], Some((2, all, OURS))),
        ("selecting us", chooses(SERVER, OURS), 0, [0; 4], Some((5, OURS, OURS))),
        ("selecting us with another address", chooses(SERVER, [10, 1, 0, 9]), 0, [0; 4], Some((6, all, [0; 4]))),
        ("selecting another server", chooses([10, 1, 0, 77], OURS), 0, [0; 4], None),
        ("after a reboot", asks(OURS), 0, [0; 4], Some((5, OURS, OURS))),
        ("after a reboot elsewhere", asks([192, 168, 0, 4]), 0, [0; 4], Some((6, all, [0; 4]))),
        ("renewing", vec![53, 1, 3], 0, OURS, Some((5, OURS, OURS))),
        ("renewing what is not its own", vec![53, 1, 3], 0, [10, 1, 0, 9], Some((6, all, [0; 4]))),
        ("informing", vec![53, 1, 8], 0, OURS, Some((5, OURS, [0; 4]))),
        ("releasing", vec![53, 1, 7, 54, 4, 10, 1, 0, 1], 0, OURS, None),
        ("declining", vec![53, 1, 4], 0, [0; 4], None),
        ("BOOTP", vec![], 0, [0; 4], None),
    ];
    let mut silent = 0;
    for (what, options, flags, client_ip, expected) in cases {
        let mut bench = bench();
        let sent = bench.send(1, &question(&options, flags, client_ip));
        let Some((message, to, given)) = expected else {
            assert_eq!((sent, unanswered(&mut bench)), (vec![], 1), "{what}");
            silent += 1;
            continue;
        };
        let [Sent { port: 1, tunnel: None, octets }] = &sent[..] else { panic!("{what}: {sent:?}") };
        assert!(is_right_v4(octets), "{what}: a sum is wrong");
        assert_eq!(octets[30..34], to, "{what}: to whom");
        assert_eq!(octets[..6], if to == all { [0xff; 6] } else { CLIENT }, "{what}: to which station");
        assert_eq!(octets[6..12], ROUTER.octets(), "{what}: from which station");
        let (body, options) = (&octets[42..], &octets[282..]);
        assert_eq!((body[0], &body[4..8], &body[28..34]), (2, &hex("12345678")[..], &CLIENT[..]), "{what}");
        assert_eq!(body[16..20], given, "{what}: the address");
        assert_eq!(dhcp::option(options, 53), Some(&[message][..]), "{what}: the message");
        assert_eq!(dhcp::option(options, 54), Some(&SERVER[..]), "{what}: the server");
        let told = (message != 6).then_some([5, 170]);
        assert_eq!(dhcp::option(options, 26), told.as_ref().map(<[u8; 2]>::as_slice), "{what}: the MTU, 1,450");
        assert_eq!(dhcp::option(options, 51).is_some(), given != [0; 4], "{what}: for how long");
        assert_eq!(unanswered(&mut bench), 0, "{what}");
    }
    assert_eq!(silent, 4);
}

#[test]
fn a_trace_tells_the_answer() {
    let mut bench = bench();
    let now = bench.now;
    let mut traced = |octets: Vec<u8>| {
        let input = TraceInput::Frame { in_port: 1, tunnel: None, octets };
        bench.switch().trace(&name("br"), &input, false, now).expect("a bridge")
    };
    let told = traced(question(&[53, 1, 1], 0, [0; 4]));
    assert!(told.contains("answered by the switch: DHCP: 10.1.0.2/24 for 3600 s, MTU 1450, from 10.1.0.1"), "{told}");
    let told = traced(solicitation("::", 255));
    assert!(told.contains("router advertisement: MTU 1450, fd00:1::/64, from fe80::"), "{told}");
}

#[test]
fn a_lease_tells_mask_gateway_and_who_asked() {
    let sent = bench().send(1, &question(&[53, 1, 1, 61, 7, 1, 2, 0, 0, 0, 0, 1, 55, 2, 1, 3], 0, [0; 4]));
    let options = &sent[0].octets[282..];
    assert_eq!(dhcp::address(options, 1), Some(Ipv4Addr::new(255, 255, 255, 0)));
    assert_eq!(dhcp::address(options, 3), Some(Ipv4Addr::from_octets(SERVER)));
    assert_eq!(dhcp::option(options, 61), Some(&[1, 2, 0, 0, 0, 0, 1][..]), "RFC 6842");
    assert!(sent[0].octets.len() >= 42 + 300, "what some clients insist on");
}

#[test]
fn who_asks_for_another_or_through_a_relay_gets_nothing() {
    let good = question(&[53, 1, 1], 0, [0; 4]);
    for (what, at) in
        [("another's MAC", 42 + 28), ("a relay", 42 + 24), ("no cookie", 42 + 236), ("no Ethernet", 42 + 1)]
    {
        let (mut bench, mut bad) = (bench(), good.clone());
        bad[at] ^= 0x40;
        assert_eq!((bench.send(1, &bad), unanswered(&mut bench)), (vec![], 1), "{what}");
    }
}

/// A router solicitation from `::` or a link-local address.
fn solicitation(from: &str, hops: u8) -> Vec<u8> {
    let source = from.parse::<core::net::Ipv6Addr>().expect("legal").octets();
    let group = hex("ff020000000000000000000000000002");
    let mut icmp = hex("85 00 0000 00000000");
    let sum = !checksum::fold(checksum::add(checksum::pseudo(&source, &group, 58, 8), &icmp));
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let ip = [&hex("60000000 0008 3a")[..], &[hops], &source, &group].concat();
    [hex("333300000002 020000000001 86dd"), ip, icmp].concat()
}

#[test]
fn a_solicitation_is_answered_and_goes_on() {
    for (from, to, mac) in
        [("::", "ff02::1", hex("333300000001")), ("fe80::ff:fe00:1", "fe80::ff:fe00:1", CLIENT.to_vec())]
    {
        let frame = solicitation(from, 255);
        let sent = bench().send(1, &frame);
        let [answer, onward] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((onward.port, &onward.octets), (2, &frame), "other routers hear it as well");
        let octets = &answer.octets;
        assert_eq!((answer.port, &octets[..6], &octets[6..12]), (1, &mac[..], &ROUTER.octets()[..]));
        assert_eq!(octets[22..38], ROUTER.link_local().octets(), "from the router's own link-local address");
        assert_eq!(octets[38..54], to.parse::<core::net::Ipv6Addr>().expect("legal").octets());
        assert_eq!(octets[21], 255, "the hop limit of what no router passed on");
        let icmp = &octets[54..];
        let pseudo = checksum::pseudo(&octets[22..38], &octets[38..54], 58, icmp.len());
        assert_eq!(!checksum::fold(checksum::add(pseudo, icmp)), 0, "the sum");
        let expected = "86 00 0000  40 00 0000  00000000 00000000  01 01 fa163e000009  05 01 0000 000005aa \
                        03 04 40 80 ffffffff ffffffff 00000000 fd000001000000000000000000000000";
        let mut without_sum = icmp.to_vec();
        without_sum[2..4].fill(0);
        assert_eq!(without_sum, hex(expected));
    }
}

#[test]
fn a_solicitation_from_beyond_the_link_goes_on_unanswered() {
    let mut bench = bench();
    let sent = bench.send(1, &solicitation("fe80::1", 64));
    assert_eq!(sent.iter().map(|sent| sent.port).collect::<Vec<u32>>(), [2]);
    assert_eq!(unanswered(&mut bench), 1);
}

proptest! {
    /// Whatever comes: no panic, and what is answered is answered to who asked, with right sums.
    #[test]
    fn whatever_looks_like_a_question(
        options in proptest::collection::vec(any::<u8>(), 0..80),
        flips in proptest::collection::vec((0_usize..400, any::<u8>()), 0..4),
        cut in 0_usize..400,
        first in 1_u8..9,
        whole: bool,
    ) {
        let options = [&[53, 1, first][..], &options].concat();
        let mut frame = question(&options, 0, [0; 4]);
        for (at, with) in flips {
            if let Some(octet) = frame.get_mut(at) {
                *octet ^= with;
            }
        }
        if !whole {
            frame.truncate(cut);
        }
        for sent in bench().send(1, &frame) {
            if sent.port == 1 && sent.octets[12..14] == [8, 0] {
                prop_assert!(is_right_v4(&sent.octets));
                prop_assert_eq!(&sent.octets[34..38], &[0, 67, 0, 68]);
                prop_assert!(sent.octets[..6] == [0xff; 6] || sent.octets[..6] == frame[6..12]);
            }
        }
    }
}
