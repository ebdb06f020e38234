//! Desired state against a real kernel: made, repeated, repaired, taken down, with other people's objects in between.

#![cfg(feature = "kernel")]
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

#[path = "netns_kernel/shared.rs"]
mod shared;
mod support;

use std::path::PathBuf;

use dvr::link::{LinkKind, LinkSpec};
use dvr::neigh::{NeighbourChange, NeighbourSpec};
use dvr::netns::{LinkPattern, Name, NetnsName, NetnsRule, Ownership, Pattern, Sysctl};
use dvr::plan::kernel::Kernel;
use dvr::plan::monitor::{Monitor, Pulse};
use dvr::plan::{Blocked, KernelSpec, NamespaceSpec, Plan, diff, verify};
use dvr::route::RouteSpec;
use dvr::types::{IfName, Mac, Mtu, Vni};
use dvr::vxlan::{DeviceSpec, FdbEntry};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use support::{block_on, in_namespace, ip, ip_json};

fn ifname(text: &str) -> IfName {
    IfName::new(text).expect("a legal name")
}

fn netns(text: &str) -> NetnsName {
    Name::new(text).expect("a legal name").into()
}

fn mac(last: u32) -> Mac {
    let [a, b, c, d] = last.to_be_bytes();
    Mac::new([0xfa, 0x16, a, b, c, d])
}

fn neighbour(ip: &str, last: u32) -> NeighbourSpec {
    NeighbourSpec { ip: ip.parse().expect("an address"), mac: mac(last) }
}

fn route(destination: &str, gateway: &str) -> RouteSpec {
    RouteSpec {
        destination: destination.parse().expect("a prefix"),
        gateway: Some(gateway.parse().expect("an address")),
        ifname: None,
    }
}

/// An interface of a router or machine: a veth whose other end is in `dvr-ports`.
fn veth(name: &str, peer: &str, last: u32, addresses: &[&str]) -> LinkSpec {
    let kind = LinkKind::Veth { peer: ifname(peer), peer_netns: netns("dvr-ports") };
    LinkSpec {
        mac: Some(mac(last)),
        mtu: Mtu::new(1450).ok(),
        addresses: addresses.iter().map(|text| text.parse().expect("an address")).collect(),
        ..LinkSpec::new(ifname(name), kind)
    }
}

/// A router with two interfaces, and a machine behind one of them.
fn example() -> KernelSpec {
    let mut blue = veth("qr-blue", "qr-blue", 1, &["10.1.0.1/24", "fd00:1::1/64"]);
    blue.neighbours = vec![neighbour("10.1.0.10", 10), neighbour("fd00:1::10", 10)];
    blue.sysctls = vec![Sysctl::new("net/ipv4/conf/qr-blue/send_redirects", "0")];
    let router = NamespaceSpec {
        sysctls: vec![Sysctl::new("net/ipv4/ip_forward", "1"), Sysctl::new("net/ipv6/conf/all/forwarding", "1")],
        links: vec![blue, veth("qr-orange", "qr-orange", 2, &["10.2.0.1/24", "10.2.0.2/24"])],
        routes: vec![route("10.9.0.0/16", "10.2.0.9"), route("fd00:9::/64", "fd00:1::9")],
        ..NamespaceSpec::new(netns("qrouter-1"))
    };
    let machine = NamespaceSpec {
        links: vec![veth("eth0", "tap-blue1", 10, &["10.1.0.10/24", "fd00:1::10/64"])],
        routes: vec![route("0.0.0.0/0", "10.1.0.1"), route("::/0", "fd00:1::1")],
        ..NamespaceSpec::new(netns("vm-blue1"))
    };
    let ports = NamespaceSpec {
        sysctls: ["default", "all"].map(|scope| Sysctl::new(format!("net/ipv6/conf/{scope}/disable_ipv6"), "1")).into(),
        ..NamespaceSpec::new(netns("dvr-ports"))
    };
    KernelSpec { namespaces: vec![router, machine, ports] }
}

fn kernel() -> Kernel {
    Kernel::open(PathBuf::from("/run/netns")).expect("a kernel")
}

/// Observes and plans.
fn plan(kernel: &mut Kernel, spec: &KernelSpec, ownership: &Ownership) -> Plan {
    let checked = spec.check().expect("no contradiction");
    let observed = block_on(kernel.observe(&checked)).expect("observed");
    diff(&checked, &observed, ownership)
}

/// One round: observes, plans, applies, and checks that what is there then is what was wanted, and that the next plan is
/// empty. Tells the plan.
fn settle(kernel: &mut Kernel, spec: &KernelSpec) -> Plan {
    let ownership = Ownership::agent();
    let first = plan(kernel, spec, &ownership);
    block_on(kernel.apply(&first)).unwrap_or_else(|failure| panic!("{failure}\nof\n{first}"));
    let checked = spec.check().expect("no contradiction");
    let observed = block_on(kernel.observe(&checked)).expect("observed");
    if let Err(drifts) = verify(&checked, &observed) {
        panic!("{drifts:#?}\nafter\n{first}");
    }
    let second = diff(&checked, &observed, &ownership);
    assert!(second.is_empty(), "the second plan is not empty:\n{second}after\n{first}");
    first
}

#[test]
fn makes_what_is_wanted_once() {
    in_namespace("makes_what_is_wanted_once", || {
        let mut kernel = kernel();
        let made = settle(&mut kernel, &example());
        println!("{made}");
        assert!(made.awaited.is_empty() && made.blocked.is_empty());
        let links = ip_json("-n qrouter-1 -d addr show dev qr-blue");
        let link = &links[0];
        assert_eq!(link["address"], mac(1).to_string());
        assert_eq!(link["mtu"], 1450);
        assert_eq!(link["linkinfo"]["info_kind"], "veth");
        let has = |local: &str| {
            let addresses = link["addr_info"].as_array().expect("addresses");
            addresses.iter().any(|address| address["local"] == local && address["tentative"].is_null())
        };
        assert!(has("10.1.0.1") && has("fd00:1::1"), "{links:#}");
        let neighbours = ip_json("-n qrouter-1 neigh show nud permanent");
        assert_eq!(neighbours.as_array().expect("entries").len(), 2, "{neighbours:#}");
        assert!(ip("-n qrouter-1 route").contains("10.9.0.0/16 via 10.2.0.9 dev qr-orange proto 100"));
        assert!(ip("-n vm-blue1 -6 route").contains("default via fd00:1::1 dev eth0 proto 100"));
        let ports = ip_json("-n dvr-ports addr");
        for port in ports.as_array().expect("links").iter().filter(|port| port["ifname"] != "lo") {
            assert!(port["flags"].as_array().expect("flags").iter().any(|flag| flag == "UP"), "{port:#}");
            assert_eq!(port["addr_info"].as_array().map(Vec::len), Some(0), "an outer end has an address: {port:#}");
        }
        let again = Kernel::open(PathBuf::from("/run/netns"))
            .map(|mut fresh| plan(&mut fresh, &example(), &Ownership::agent()));
        assert!(again.expect("a kernel").is_empty(), "a restarted agent finds nothing to do");
    });
}

#[test]
fn everything_goes_when_nothing_is_wanted() {
    in_namespace("everything_goes_when_nothing_is_wanted", || {
        let mut kernel = kernel();
        settle(&mut kernel, &example());
        let gone = settle(&mut kernel, &KernelSpec::default());
        println!("{gone}");
        assert_eq!(ip("netns list"), "");
        settle(&mut kernel, &example());
    });
}

#[test]
fn what_others_made_survives() {
    in_namespace("what_others_made_survives", || {
        let mut kernel = kernel();
        settle(&mut kernel, &example());
        for command in [
            "netns add cni-1",
            "-n cni-1 link add qr-fake type bridge",
            "-n qrouter-1 link add flannel0 type bridge",
            "-n qrouter-1 addr add 192.0.2.1/24 dev flannel0",
            "-n qrouter-1 link set flannel0 up",
            "-n qrouter-1 neigh add 192.0.2.7 lladdr 02:00:00:00:00:07 nud permanent dev flannel0",
            "-n qrouter-1 neigh add 10.1.0.77 lladdr 02:00:00:00:00:77 nud stale dev qr-blue",
            "-n qrouter-1 route add 198.51.100.0/24 via 192.0.2.9",
            "-n qrouter-1 route add 198.51.101.0/24 via 10.1.0.9 proto static",
            "link add qr-host type bridge",
            "link add underlay type bridge",
        ] {
            ip(command);
        }
        let idle = settle(&mut kernel, &example());
        assert!(idle.is_empty(), "nothing of ours drifted:\n{idle}");
        let mut spec = example();
        spec.namespaces[0].links.truncate(1);
        spec.namespaces[0].routes.clear();
        spec.namespaces[0].links[0].neighbours.clear();
        settle(&mut kernel, &spec);
        settle(&mut kernel, &KernelSpec { namespaces: vec![spec.namespaces[0].clone()] });
        assert!(ip("-n qrouter-1 neigh").contains("10.1.0.77"));
        assert!(ip("-n qrouter-1 neigh").contains("192.0.2.7"));
        assert!(ip("-n qrouter-1 addr show dev flannel0").contains("192.0.2.1/24"));
        let routes = ip("-n qrouter-1 route");
        assert!(routes.contains("198.51.100.0/24") && routes.contains("198.51.101.0/24"), "{routes}");
        settle(&mut kernel, &KernelSpec::default());
        assert_eq!(ip("netns list").trim(), "cni-1");
        assert!(ip("-n cni-1 link").contains("qr-fake"));
        assert!(ip("link").contains("qr-host") && ip("link").contains("underlay"));
    });
}

#[test]
fn drift_is_repaired() {
    in_namespace("drift_is_repaired", || {
        let mut kernel = kernel();
        settle(&mut kernel, &example());
        for (harm, least) in [
            ("-n qrouter-1 neigh del 10.1.0.10 dev qr-blue", 1),
            ("-n qrouter-1 neigh replace fd00:1::10 lladdr 02:00:00:00:00:99 nud permanent dev qr-blue", 1),
            ("-n qrouter-1 neigh add 10.1.0.200 lladdr 02:00:00:00:00:99 nud permanent dev qr-blue", 1),
            ("-n qrouter-1 addr add 10.1.0.99/24 dev qr-blue", 1),
            ("-n qrouter-1 addr del 10.2.0.1/24 dev qr-orange", 2),
            ("-n qrouter-1 link set qr-blue mtu 1400 address 02:00:00:00:00:98", 1),
            ("-n qrouter-1 link set qr-blue down", 4),
            ("-n vm-blue1 route del default", 1),
            ("-n vm-blue1 route replace default via 10.1.0.7 proto 100", 2),
            ("-n dvr-ports link set tap-blue1 down", 1),
            ("-n dvr-ports link del qr-blue", 5),
            ("-n qrouter-1 link set qr-orange name renamed", 5),
            ("netns del vm-blue1", 5),
            ("netns del dvr-ports", 10),
        ] {
            ip(harm);
            let repair = settle(&mut kernel, &example());
            println!("after `ip {harm}`:\n{repair}");
            assert!(repair.ops.len() >= least, "ip {harm} took only {} steps", repair.ops.len());
        }
        std::fs::write("/run/netns/vm-stale", "").expect("a stale entry");
        let repair = settle(&mut kernel, &example());
        assert_eq!(repair.to_string(), "remove namespace vm-stale\n");
    });
}

#[test]
fn ten_thousand_neighbours() {
    in_namespace("ten_thousand_neighbours", || {
        let mut kernel = kernel();
        let mut spec = example();
        spec.namespaces[0].links[0].neighbours = (0..10_000_u32)
            .map(|number| {
                let [_, _, high, low] = number.to_be_bytes();
                let ip = match number % 2 {
                    0 => [10, 7, high, low].into(),
                    _ => [0xfd00, 7, 0, 0, 0, 0, u16::from(high), u16::from(low)].into(),
                };
                NeighbourSpec { ip, mac: mac(number + 1) }
            })
            .collect();
        let made = plan(&mut kernel, &spec, &Ownership::agent());
        #[expect(clippy::disallowed_methods, reason = "for the reader; nothing depends on it")]
        let start = std::time::Instant::now();
        block_on(kernel.apply(&made)).expect("applied");
        println!("{} steps in {:?}", made.ops.len(), start.elapsed());
        let idle = settle(&mut kernel, &spec);
        assert!(idle.is_empty(), "{idle}");
        for family in ["-4", "-6"] {
            let entries = ip_json(&format!("-n qrouter-1 {family} neigh show nud permanent dev qr-blue"));
            let entries = entries.as_array().expect("entries").clone();
            assert_eq!(entries.len(), 5_000);
            for entry in entries {
                let ip: std::net::IpAddr = entry["dst"].as_str().expect("an address").parse().expect("an address");
                let wanted = spec.namespaces[0].links[0].neighbours.iter().find(|wanted| wanted.ip == ip);
                assert_eq!(entry["lladdr"], wanted.expect("wanted").mac.to_string());
            }
        }
        settle(&mut kernel, &example());
        assert_eq!(ip_json("-n qrouter-1 neigh show nud permanent").as_array().map(Vec::len), Some(2));
    });
}

#[test]
fn a_failed_step_says_what_and_why_and_spares_other_namespaces() {
    in_namespace("a_failed_step_says_what_and_why_and_spares_other_namespaces", || {
        let mut kernel = kernel();
        let mut spec = example();
        spec.namespaces[0].routes.push(route("10.8.0.0/16", "203.0.113.1"));
        let first = plan(&mut kernel, &spec, &Ownership::agent());
        let failure = block_on(kernel.apply(&first)).expect_err("no way to 203.0.113.1");
        let text = failure.to_string();
        println!("{text}");
        assert!(text.contains("cannot apply `qrouter-1: add route 10.8.0.0/16 via 203.0.113.1`"), "{text}");
        assert!(text.contains("ENETUNREACH") && text.contains("Nexthop has invalid gateway"), "{text}");
        assert!(ip("-n vm-blue1 route").contains("default via 10.1.0.1"), "the machine's namespace was left out");
        settle(&mut kernel, &example());
        ip("-n qrouter-1 route add 10.8.0.0/16 via 10.1.0.50 proto static");
        let mut taken = example();
        taken.namespaces[0].routes.push(route("10.8.0.0/16", "10.1.0.51"));
        let second = plan(&mut kernel, &taken, &Ownership::agent());
        let failure = block_on(kernel.apply(&second)).expect_err("the destination is somebody else's");
        assert!(failure.failures[0].error.is_exists(), "{failure}");
        assert!(ip("-n qrouter-1 route").contains("10.8.0.0/16 via 10.1.0.50 dev qr-blue proto static"));
    });
}

#[test]
fn a_link_that_others_make_is_awaited_then_configured() {
    in_namespace("a_link_that_others_make_is_awaited_then_configured", || {
        let mut kernel = kernel();
        let mut spec = example();
        spec.namespaces.truncate(1);
        for link in &mut spec.namespaces[0].links {
            link.kind = LinkKind::External;
        }
        let before = settle(&mut kernel, &spec);
        assert_eq!(before.awaited.len(), 2, "{before}");
        assert!(!before.ops.iter().any(|op| op.to_string().contains("qr-")), "{before}");
        ip("-n qrouter-1 link add qr-blue type bridge");
        let after = settle(&mut kernel, &spec);
        assert_eq!(after.awaited, [(netns("qrouter-1"), ifname("qr-orange"))]);
        assert!(ip("-n qrouter-1 addr show dev qr-blue").contains("10.1.0.1/24"));
    });
}

/// Two interfaces in each of two routers, any of them missing, with any of a few addresses, neighbours and routes.
fn any_spec() -> impl Strategy<Value = KernelSpec> {
    let addresses = ["10.1.0.1/24", "10.1.0.2/24", "10.1.0.2/16", "10.2.0.1/24", "fd00:1::1/64", "fd00:2::1/64"];
    let neighbours = [("10.1.0.9", 1), ("10.1.0.9", 2), ("10.1.0.8", 3), ("fd00:1::9", 4), ("fd00:1::8", 5)];
    let link = (
        proptest::sample::subsequence(addresses.to_vec(), 0..=4),
        proptest::sample::subsequence(neighbours.to_vec(), 0..=3),
        prop_oneof![Just(1500), Just(1450), Just(9000)],
        1..4_u32,
        proptest::bool::weighted(0.9),
        proptest::bool::weighted(0.8),
    );
    let router =
        (proptest::collection::vec(link, 2), proptest::sample::subsequence(vec![1, 2, 3], 0..=3), any::<bool>());
    proptest::collection::vec(router, 2).prop_map(|routers| {
        let mut namespaces = vec![NamespaceSpec::new(netns("dvr-ports"))];
        for (number, (links, routes, wanted)) in routers.into_iter().enumerate().filter(|(_, (_, _, wanted))| *wanted) {
            assert!(wanted);
            let mut router = NamespaceSpec::new(netns(&format!("qrouter-{number}")));
            for (index, (addresses, neighbours, mtu, last, up, there)) in links.into_iter().enumerate() {
                let name = format!("qr-{number}{index}");
                let mut link = veth(&name, &name, last, &addresses);
                // A link that is down has no neighbours: the kernel drops them.
                link.neighbours =
                    if up { neighbours.iter().map(|(ip, last)| neighbour(ip, *last)).collect() } else { vec![] };
                link.mtu = Mtu::new(mtu).ok();
                link.up = up;
                if there {
                    router.links.push(link);
                }
            }
            let through = router.links.iter().find(|link| link.up).map(|link| link.name.clone());
            router.routes.extend(routes.into_iter().filter_map(|third| {
                let destination = format!("10.{third}0.0.0/16").parse().expect("a prefix");
                through.clone().map(|ifname| RouteSpec { destination, gateway: None, ifname: Some(ifname) })
            }));
            namespaces.push(router);
        }
        KernelSpec { namespaces }
    })
}

#[test]
fn any_state_leads_to_any_other_and_back() {
    in_namespace("any_state_leads_to_any_other_and_back", || {
        let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
        let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
        let kernel = std::cell::RefCell::new(kernel());
        let outcome = runner.run(&(any_spec(), any_spec()), |(a, b)| {
            let mut kernel = kernel.borrow_mut();
            settle(&mut kernel, &a);
            settle(&mut kernel, &b);
            settle(&mut kernel, &a);
            Ok(())
        });
        if let Err(error) = outcome {
            panic!("{error}");
        }
    });
}

#[test]
fn changes_are_heard_where_they_happen() {
    in_namespace("changes_are_heard_where_they_happen", || {
        let mut kernel = kernel();
        settle(&mut kernel, &example());
        block_on(async {
            let mut monitor = Monitor::new(PathBuf::from("/run/netns"));
            let checked = example().check().expect("no contradiction");
            monitor.watch(&checked).expect("watching");
            let router = netns("qrouter-1");
            ip("-n qrouter-1 neigh del 10.1.0.10 dev qr-blue");
            let Pulse::Neighbours(there, changes) = monitor.next().await.expect("a pulse") else { panic!("no entry") };
            assert_eq!(there, router);
            let gone = |change: &NeighbourChange| change.ip.to_string() == "10.1.0.10" && change.permanent.is_none();
            assert!(!changes.is_empty() && changes.iter().all(gone), "{changes:?}");
            for harm in [
                "-n qrouter-1 addr add 192.0.2.1/24 dev qr-blue",
                "-n qrouter-1 route del 10.9.0.0/16",
                "-n qrouter-1 link set qr-orange mtu 1400",
            ] {
                ip(harm);
                assert_eq!(monitor.next().await.expect("a pulse"), Pulse::Changed(router.clone()), "ip {harm}");
                monitor.watch(&checked).expect("watching");
            }
            flood();
            ip("-n qrouter-1 -batch /run/flood");
            loop {
                if monitor.next().await.expect("a pulse") == Pulse::Lost(router.clone()) {
                    break;
                }
            }
            ip("netns del vm-blue1");
            loop {
                if monitor.next().await.expect("a pulse") == Pulse::Namespaces {
                    break;
                }
            }
        });
    });
}

/// A file of many changes to one neighbour, for `ip -batch`.
fn flood() {
    let line = |n: u32| format!("neigh replace 10.1.0.50 lladdr {} nud permanent dev qr-blue\n", mac(n));
    std::fs::write("/run/flood", (0..20_000).map(line).collect::<String>()).expect("written");
}

#[test]
fn a_dump_among_changes_is_whole_or_an_error() {
    in_namespace("a_dump_among_changes_is_whole_or_an_error", || {
        let mut kernel = kernel();
        let mut spec = example();
        let stable = (0..3_000).map(|n: u32| NeighbourSpec { ip: (0x0a01_1000 + n).to_be_bytes().into(), mac: mac(n) });
        spec.namespaces[0].links[0].neighbours = stable.collect();
        settle(&mut kernel, &spec);
        flood();
        #[expect(clippy::disallowed_methods, reason = "somebody else who changes the same tables")]
        let mut other = std::process::Command::new("ip")
            .args(["-n", "qrouter-1", "-batch", "/run/flood"])
            .spawn()
            .expect("iproute2");
        let checked = spec.check().expect("no contradiction");
        let (mut whole, mut torn) = (0, 0);
        while whole == 0 || other.try_wait().expect("a child").is_none() {
            match block_on(kernel.observe(&checked)) {
                Ok(observed) => {
                    let link = &observed.namespaces[&netns("qrouter-1")].links[&ifname("qr-blue")];
                    let there: std::collections::BTreeSet<_> =
                        link.neighbours.iter().filter_map(dvr::neigh::NeighbourState::project).collect();
                    assert!(spec.namespaces[0].links[0].neighbours.iter().all(|wanted| there.contains(wanted)));
                    whole += 1;
                }
                Err(error) => {
                    assert!(error.to_string().contains("changed during each of"), "{error}");
                    torn += 1;
                }
            }
        }
        println!("{whole} whole, {torn} given up");
        other.wait().expect("a child");
    });
}

#[test]
fn a_missing_device_type_is_told_from_a_missing_attribute() {
    in_namespace("a_missing_device_type_is_told_from_a_missing_attribute", || {
        use netlink_packet_route::RouteNetlinkMessage;
        use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};
        let mut connection = dvr::netlink::Connection::open().expect("a socket");
        let mut message = LinkMessage::default();
        let kind = InfoKind::Other("dvr-nonesuch".to_owned());
        message.attributes =
            vec![LinkAttribute::IfName("x0".to_owned()), LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])];
        let create = netlink_packet_core::NLM_F_CREATE | netlink_packet_core::NLM_F_EXCL;
        let error =
            connection.request(RouteNetlinkMessage::NewLink(message.clone()), create).expect_err("no such type");
        assert!(error.lacks_device_type() && error.is_unsupported(), "{error}");
        message.attributes = vec![LinkAttribute::IfName("x0".to_owned())];
        let error = connection.request(RouteNetlinkMessage::DelLink(message), 0).expect_err("no such link");
        assert!(error.is_absent() && !error.lacks_device_type(), "{error}");
    });
}

/// One network's device, which knows one station and floods to two nodes.
fn tunnel(local: &str, mtu: u32, station_at: &str, floods: &[&str]) -> KernelSpec {
    let ip = |text: &str| text.parse().expect("an address");
    let device = DeviceSpec { vni: Vni::new(7).expect("a VNI"), local: ip(local), udp_port: 4790 };
    let station = FdbEntry { mac: mac(1), remote: ip(station_at) };
    let floods = floods.iter().map(|node| FdbEntry::flood(ip(node)));
    let link = LinkSpec {
        mtu: Mtu::new(mtu).ok(),
        fdb: floods.chain([station]).collect(),
        ..LinkSpec::new(ifname("vx-7"), LinkKind::Vxlan(device))
    };
    let namespace = NamespaceSpec { links: vec![link], ..NamespaceSpec::new(netns("dvr-tunnels")) };
    KernelSpec { namespaces: vec![namespace] }
}

#[test]
fn a_tunnel_is_made_once_changed_in_place_and_others_stay() {
    in_namespace("a_tunnel_is_made_once_changed_in_place_and_others_stay", || {
        let mut kernel = kernel();
        ip("link add vx-9 type vxlan id 9 dstport 4789 local 10.0.0.1");
        let index = || ip_json("-n dvr-tunnels link show dev vx-7")[0]["ifindex"].clone();
        settle(&mut kernel, &tunnel("10.0.0.1", 1450, "10.0.0.2", &["10.0.0.2", "10.0.0.3"]));
        let first = index();
        ip("-n dvr-tunnels link add vx-10 type vxlan id 10 dstport 4789 local 10.0.0.1");
        ip("-n dvr-tunnels link add theirs type vxlan id 11 dstport 4789 local 10.0.0.1");
        let plan = settle(&mut kernel, &tunnel("10.0.0.1", 1400, "10.0.0.3", &["10.0.0.3", "10.0.0.4"]));
        assert_eq!(
            plan.to_string(),
            "dvr-tunnels: delete link vx-10\n\
             dvr-tunnels: set vx-7 mtu 1400\n\
             dvr-tunnels: remove fdb of vx-7: flood to 10.0.0.2\n\
             dvr-tunnels: set fdb of vx-7: flood to 10.0.0.4, fa:16:00:00:00:01 to 10.0.0.3\n"
        );
        assert_eq!(index(), first, "made anew");
        settle(&mut kernel, &tunnel("fd00::1", 1400, "fd00::2", &["fd00::2", "fd00::3"]));
        assert_ne!(index(), first, "another endpoint takes another device");
        ip("-n dvr-tunnels link show dev theirs");
        settle(&mut kernel, &KernelSpec::default());
        assert!(!ip("netns list").contains("dvr-tunnels"));
        ip("link show dev vx-9");
    });
}
