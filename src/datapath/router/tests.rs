//! Lookups against slow ones, and what a model says against what its bits promise.

use core::net::Ipv4Addr;

use ipnet::Ipv4Net;
use proptest::prelude::*;

use super::*;

/// Prefixes of a space so small that they nest.
fn prefixes() -> impl Strategy<Value = Vec<(u16, u8, u8)>> {
    proptest::collection::vec((any::<u16>(), 0_u8..=16, 0_u8..4), 0..24)
}

fn address(low: u16) -> IpAddr {
    Ipv4Addr::from(0x0a01_0000 | u32::from(low)).into()
}

fn prefix(low: u16, length: u8) -> IpNet {
    Ipv4Net::new(Ipv4Addr::from(0x0a01_0000 | u32::from(low)), 16 + length).expect("at most 32").trunc().into()
}

/// The way to an address, by looking at every route.
fn slowly(routes: &[RouterRoute], address: IpAddr) -> Found {
    let covering =
        |local: bool| routes.iter().filter(move |route| route.local == local && route.prefix.contains(&address));
    if covering(true).next().is_some() {
        return Found::Other;
    }
    let Some(longest) = covering(false).map(|route| route.prefix.prefix_len()).max() else { return Found::Other };
    let best: Vec<_> = covering(false).filter(|route| route.prefix.prefix_len() == longest).collect();
    match best.as_slice() {
        [RouterRoute { way: Some((link, gateway)), .. }] => Found::Way { link: *link, gateway: *gateway },
        _ => Found::Other,
    }
}

proptest! {
    #[test]
    fn the_longest_prefix_is_found_by_the_bits_that_are_told(
        drawn in prefixes(), asked in proptest::collection::vec((any::<u16>(), any::<u16>()), 30),
    ) {
        let route = |(low, length, kind): (u16, u8, u8)| RouterRoute {
            local: kind == 0,
            prefix: prefix(low, length),
            way: (kind != 1).then_some((u32::from(kind) + u32::from(length), None)),
        };
        let routes: Vec<RouterRoute> = drawn.into_iter().map(route).collect();
        let mut tree = Prefixes::default();
        for route in &routes {
            if route.local { tree.insert_local(route.prefix) } else { tree.insert(route.prefix, route.way) }
        }
        for (low, other) in asked {
            let (found, bits) = tree.find(address(low));
            prop_assert_eq!(found, slowly(&routes, address(low)));
            let free = u16::try_from((1_u32 << 16 >> bits.saturating_sub(16)) - 1).expect("16 bits");
            let like = address(low & !free | other & free);
            prop_assert_eq!(tree.find(like), (found, bits), "{} is as {} in {} bits", like, address(low), bits);
        }
    }
}

/// A router between 10.1.0.0/24 on interface 2 and 10.2.0.0/24 on interface 3, with a neighbour on each.
fn model(change: impl FnOnce(&mut BTreeMap<u32, RouterLink>, &mut Vec<RouterRoute>)) -> RouterModel {
    let link = |last: u8| RouterLink {
        name: format!("qr-{last}").parse().expect("legal"),
        mac: Mac::new([2, 0, 0, 0, 0, last]),
        mtu: 1450,
        mtu6: 1400,
        works: true,
        forwards4: true,
        forwards6: true,
    };
    let mut links = BTreeMap::from([(2, link(2)), (3, link(3))]);
    let route = |local, prefix: &str, link| RouterRoute {
        local,
        prefix: prefix.parse().expect("legal"),
        way: Some((link, None)),
    };
    let mut routes = vec![
        route(false, "10.1.0.0/24", 2),
        route(false, "10.2.0.0/24", 3),
        route(true, "10.1.0.1/32", 2),
        route(true, "10.2.0.255/32", 3),
    ];
    change(&mut links, &mut routes);
    let neighbour = |link, ip: &str, last| ((link, ip.parse().expect("legal")), Mac::new([2, 0, 0, 0, 1, last]));
    let neighbours = [neighbour(2, "10.1.0.10", 1), neighbour(3, "10.2.0.20", 2), neighbour(3, "10.2.0.99", 3)];
    RouterModel::new(links, &routes, neighbours.into()).expect("few routes")
}

fn hop(model: &RouterModel, from: u32, src: &str, dst: &str) -> Option<Hop> {
    model.forward(from, src.parse().expect("legal"), dst.parse().expect("legal")).hop
}

fn of(links: &mut BTreeMap<u32, RouterLink>, index: u32, change: fn(&mut RouterLink)) {
    change(links.get_mut(&index).expect("there"));
}

#[test]
fn a_packet_between_its_networks_has_a_hop() {
    let model = model(|_, _| {});
    let wanted = Hop {
        out: "qr-3".parse().expect("legal"),
        src: Mac::new([2, 0, 0, 0, 0, 3]),
        dst: Mac::new([2, 0, 0, 0, 1, 2]),
        mtu: 1450,
    };
    assert_eq!(hop(&model, 2, "10.1.0.10", "10.2.0.20"), Some(wanted));
    let found = model.forward(2, "10.1.0.10".parse().expect("legal"), "10.2.0.20".parse().expect("legal"));
    assert_eq!((found.dst_bits, found.src_bits <= 32), (32, true));
}

/// Input: what is unlike the packet before in one thing. Output: the namespace decides.
#[test]
fn whatever_is_in_doubt_has_none() {
    let plain = ("10.1.0.10", "10.2.0.20");
    for (src, dst, why) in [
        ("10.1.0.1", plain.1, "the router's own source"),
        ("10.9.0.1", plain.1, "a source that is routed nowhere"),
        ("10.2.0.99", plain.1, "a source that is routed elsewhere"),
        ("127.0.0.1", plain.1, "a loopback source"),
        ("0.0.0.0", plain.1, "no source"),
        ("224.0.0.1", plain.1, "a group's source"),
        (plain.0, "10.2.0.255", "a broadcast"),
        (plain.0, "255.255.255.255", "a broadcast to all"),
        (plain.0, "224.0.0.5", "a group"),
        (plain.0, "10.1.0.1", "the router's own address"),
        (plain.0, "10.1.0.10", "back where it came from"),
        (plain.0, "10.2.0.21", "no neighbour"),
        (plain.0, "8.8.8.8", "no route"),
    ] {
        assert_eq!(hop(&model(|_, _| {}), 2, src, dst), None, "{why}");
    }
    type Change = fn(&mut BTreeMap<u32, RouterLink>, &mut Vec<RouterRoute>);
    let changes: [(Change, &str); 6] = [
        (|links, _| of(links, 2, |link| link.works = false), "it came in by an interface that is down"),
        (|links, _| of(links, 3, |link| link.works = false), "it leaves by one"),
        (|links, _| of(links, 2, |link| link.forwards4 = false), "nothing is forwarded"),
        (|_, routes| routes.push(RouterRoute { way: None, ..routes[1].clone() }), "a second route to the same"),
        (|_, routes| routes[1].way = None, "a blackhole"),
        (
            |_, routes| {
                routes.push(RouterRoute { local: true, prefix: "0.0.0.0/0".parse().expect("legal"), way: None })
            },
            "everything is local",
        ),
    ];
    for (change, why) in changes {
        assert_eq!(hop(&model(change), 2, plain.0, plain.1), None, "{why}");
    }
    let six = model(|links, routes| {
        routes.push(RouterRoute { prefix: "fd00:2::/64".parse().expect("legal"), ..routes[1].clone() });
        of(links, 2, |link| link.forwards6 = false);
    });
    assert_eq!(hop(&six, 2, "fd00:1::1", "fd00:2::2"), None, "IPv6 is not forwarded");
}

#[test]
fn a_gateway_is_a_neighbour_for_all_behind_it() {
    let model = model(|_, routes| {
        let gateway = "10.2.0.20".parse().expect("legal");
        routes.push(RouterRoute {
            local: false,
            prefix: "0.0.0.0/0".parse().expect("legal"),
            way: Some((3, Some(gateway))),
        });
    });
    let found = model.forward(2, "10.1.0.10".parse().expect("legal"), "192.0.2.1".parse().expect("legal"));
    assert_eq!(found.hop.map(|hop| hop.dst), Some(Mac::new([2, 0, 0, 0, 1, 2])));
    assert!(found.dst_bits < 32, "one decision is for many destinations: {}", found.dst_bits);
    assert_eq!(found.neighbour, Some((3, "10.2.0.20".parse().expect("legal"))));
}

#[test]
fn more_than_is_followed_is_refused() {
    let route = |low: usize| RouterRoute {
        local: false,
        prefix: IpNet::new(Ipv4Addr::from(u32::try_from(low).expect("few") << 8).into(), 24).expect("legal"),
        way: None,
    };
    let routes: Vec<_> = (0..=LIMIT_ROUTES).map(route).collect();
    assert_eq!(RouterModel::new(BTreeMap::new(), &routes, BTreeMap::new()), Err(Closed::Full));
    assert!(RouterModel::new(BTreeMap::new(), &routes[1..], BTreeMap::new()).is_ok());
}
