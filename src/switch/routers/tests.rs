//! The model against the kernel it is a model of, and the watch over a namespace that changes.

#[path = "../../../tests/support/mod.rs"]
mod support;

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use netlink_sys::SocketAddr;
use netlink_sys::protocols::NETLINK_NETFILTER;
use support::ip;

use super::*;
use crate::api::switch::{BridgeMode, RouterInterface, VlanMode};
use crate::datapath::router::{Hop, RouterModel};
use crate::datapath::{DpPort, LIMIT_FLOWS, NewPort, NewPortKind};
use crate::types::{IfName, Mac};

const INTERFACES: [(&str, &str); 3] = [("in0", "10.1.0"), ("out0", "10.2.0"), ("out1", "10.3.0")];

/// A namespace of this thread's own as a router with three interfaces. One made together with its user namespace would not
/// have its own root own the files that tell of iptables, as a lab's do.
fn router() {
    nix::sched::unshare(CloneFlags::CLONE_NEWNET).expect("our user namespace");
    for switch in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        fs::write(Path::new("/proc/sys").join(switch), "1").expect("our namespace");
    }
    for (index, (name, net)) in INTERFACES.iter().enumerate() {
        ip(&format!("link add {name} address 02:00:00:00:00:0{index} type veth peer name {name}p"));
        ip(&format!("link set {name}p up"));
        ip(&format!("link set {name} up mtu 14{index}0"));
        ip(&format!("addr add {net}.1/24 dev {name}"));
        ip(&format!("addr add fd00:{index}::1/64 dev {name} nodad"));
    }
}

fn neighbours() {
    for (index, (name, net)) in INTERFACES.iter().enumerate() {
        for host in [2, 3, 254] {
            for to in [format!("{net}.{host}"), format!("fd00:{index}::{host:x}")] {
                ip(&format!("neigh add {to} lladdr 02:00:00:00:0{index}:{host:02x} nud permanent dev {name}"));
            }
        }
    }
}

fn look() -> Result<RouterModel, Closed> {
    let mut connection = Connection::open().expect("a socket");
    observe::observe(&mut connection, observe::has_xtables()).expect("dumps")
}

/// What the kernel says of a packet that comes in by `in0`: the device it leaves by and the next hop, if it is forwarded.
fn asked(src: IpAddr, dst: IpAddr) -> Option<(String, String)> {
    #[expect(clippy::disallowed_methods, reason = "an oracle that shares no code with what it judges")]
    let output = std::process::Command::new("ip")
        .args(["-j", "route", "get", &dst.to_string(), "from", &src.to_string(), "iif", "in0"])
        .output()
        .expect("iproute2");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let route = told.get(0).filter(|_| output.status.success())?;
    let text = |key: &str| route.get(key).and_then(|value| value.as_str()).map(str::to_owned);
    let unicast = text("type").is_none_or(|kind| kind == "unicast");
    text("dev").filter(|_| unicast).map(|dev| (dev, text("gateway").unwrap_or_else(|| dst.to_string())))
}

/// Input: routes of every kind, and addresses near their bounds. Output: wherever the model has a hop, the kernel's is the
/// same; and it has one for most of what is forwarded.
#[test]
fn where_the_model_has_a_hop_the_kernel_has_the_same() {
    support::in_namespace("switch::routers::tests::where_the_model_has_a_hop_the_kernel_has_the_same", || {
        router();
        neighbours();
        for route in [
            "10.9.0.0/16 via 10.2.0.254",
            "10.9.4.0/22 via 10.3.0.254",
            "10.9.5.0/24 via 10.2.0.2",
            "blackhole 10.9.5.128/25",
            "10.9.6.0/24 via 10.2.0.3 metric 5",
            "10.9.6.0/24 via 10.3.0.3 metric 9",
            "10.9.7.0/24 nexthop via 10.2.0.2 nexthop via 10.3.0.2",
            "unreachable 10.9.8.0/24",
            "10.9.9.0/24 via 10.2.0.2 tos 0x10",
            "10.9.10.0/24 via 10.2.0.2 mtu 1000",
            "10.9.11.0/24 via 10.1.0.2",
            "10.9.12.0/24 via 10.2.0.77",
            "local 10.9.13.0/24 dev lo",
            "fd09::/16 via fd00:1::fe",
            "fd09:1::/32 via fd00:2::2",
            "blackhole fd09:1:1::/48",
            "fd09:2::/32 nexthop via fd00:1::2 nexthop via fd00:2::2",
        ] {
            ip(&format!("route add {route}"));
        }
        let model = look().expect("nothing but routes");
        let nets = (0..16).map(|net| [10, 9, net]).chain([[10, 1, 0], [10, 2, 0], [10, 3, 0], [192, 0, 2]]);
        let four = nets.flat_map(|[a, b, c]| [1, 2, 77, 129, 254].map(|d| Ipv4Addr::new(a, b, c, d).into()));
        let six = ["fd00:0::", "fd00:1::", "fd00:2::", "fd09::", "fd09:1::", "fd09:1:1::", "fd09:2::", "2001:db8::"];
        let six = six.into_iter().flat_map(|net| {
            let net = u128::from(net.parse::<Ipv6Addr>().expect("legal"));
            [0, 1, 2, 0xfe, 0x77].map(|host| Ipv6Addr::from(net | host).into())
        });
        let few = ["10.2.0.2", "10.9.0.1", "10.9.4.2", "fd00:1::2", "fd09:1::1"];
        let (mut hops, mut forwarded) = (0, 0);
        for dst in four.chain(six).collect::<Vec<IpAddr>>() {
            let sources =
                if dst.is_ipv4() { ["10.1.0.2", "10.1.0.1", "10.3.0.2"] } else { ["fd00::2", "fd00::1", "fd00:2::2"] };
            // Sources that are not plain, for a few.
            let sources = if few.contains(&dst.to_string().as_str()) { &sources[..] } else { &sources[..1] };
            for src in sources.iter().map(|text| text.parse().expect("legal")) {
                let from = model.link(&"in0".parse().expect("legal")).expect("there").0;
                let told = asked(src, dst);
                forwarded += usize::from(told.as_ref().is_some_and(|(dev, _)| dev != "in0" && dev != "lo"));
                let Some(Hop { out, src: own, dst: to, mtu }) = model.forward(from, src, dst).hop else { continue };
                hops += 1;
                let (dev, next) = told.unwrap_or_else(|| panic!("{src} > {dst}: the kernel forwards nothing"));
                assert_eq!(out.as_str(), dev, "{src} > {dst}");
                let index = INTERFACES.iter().position(|(name, _)| *name == dev).expect("one of them");
                let index = u8::try_from(index).expect("three");
                assert_eq!((own, mtu), (Mac::new([2, 0, 0, 0, 0, index]), 1400 + u32::from(index) * 10));
                let host = match next.parse().expect("an address") {
                    IpAddr::V4(ip) => ip.octets()[3],
                    IpAddr::V6(ip) => ip.octets()[15],
                };
                assert_eq!(to, Mac::new([2, 0, 0, 0, index, host]), "{src} > {dst} via {next}");
            }
        }
        assert!(hops > 40 && hops * 5 > forwarded, "{hops} hops, while the kernel forwards {forwarded}");
    });
}

/// Adds a table of nftables, by hand: a batch of one message.
fn add_table() {
    let message = |kind: u16, flags: u16, resource: u16, body: &[u8]| {
        let length = u32::try_from(20 + body.len()).expect("short");
        let header = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &flags.to_ne_bytes(), &[0; 8]].concat();
        [&header[..], &[2, 0], &resource.to_be_bytes(), body].concat()
    };
    // NFNL_MSG_BATCH_BEGIN and _END, NFT_MSG_NEWTABLE with NFTA_TABLE_NAME, NLM_F_CREATE (`linux/netfilter/nf_tables.h`).
    let name = [&6_u16.to_ne_bytes()[..], &1_u16.to_ne_bytes(), b"t\0", &[0; 2]].concat();
    let batch = [message(16, 1, 10, &[]), message(10 << 8, 0x401, 0, &name), message(17, 1, 10, &[])].concat();
    let mut socket = Socket::new(NETLINK_NETFILTER).expect("nfnetlink");
    socket.bind_auto().expect("an address");
    assert_eq!(socket.send_to(&batch, &SocketAddr::new(0, 0), 0).expect("sent"), batch.len());
    assert!(socket.as_raw_fd() >= 0);
}

/// Input: a namespace to which things are done, watched. Output: the switch's picture follows each of them.
#[test]
fn the_watch_follows_what_is_done_to_a_namespace() {
    support::in_namespace("switch::routers::tests::the_watch_follows_what_is_done_to_a_namespace", || {
        router();
        let name = |text: &str| IfName::new(text).expect("legal");
        let shared = Arc::new(Shared::new(LIMIT_FLOWS, 0, true, Watch::new().expect("a descriptor")));
        let mut switch = lock(&shared.switch);
        switch.add_bridge(&name("br"), BridgeMode::Flow).expect("new");
        // The namespace as others see it: the thread that watches may be anywhere.
        let netns = PathBuf::from(format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid()));
        for (number, (ifname, _)) in (1..).zip(INTERFACES) {
            let port = NewPort {
                name: name(ifname),
                kind: NewPortKind::Netdev { dp: DpPort(number) },
                vlan: VlanMode::Trunk,
                number: Some(number),
            };
            switch.add_port(&name("br"), port).expect("new");
            let inside = RouterInterface { netns: netns.clone(), ifname: name(ifname) };
            switch.set_router(&name("br"), &name(ifname), &inside).expect("a port");
        }
        drop(switch);
        let thread = spawn(&shared).expect("a thread");
        shared.watch.look();
        let through = || lock(&shared.switch).routers()[0].through.clone();
        let becomes = |wanted: Option<&str>, why: &str| {
            let looks = || {
                thread::sleep(Duration::from_millis(5));
                through()
            };
            let found = std::iter::repeat_with(looks).take(2000).any(|found| found.as_deref() == wanted);
            assert!(found, "{why}: {:?}", through());
        };
        let hop =
            |dst: &str| lock(&shared.switch).hop(&name("in0"), ["10.1.0.2", dst].map(|ip| ip.parse().expect("legal")));
        let hops = |dst: &str, wanted: Option<&str>, why: &str| {
            let looks = || {
                thread::sleep(Duration::from_millis(5));
                hop(dst).map(|hop| hop.dst.to_string())
            };
            let found = std::iter::repeat_with(looks).take(2000).any(|found| found.as_deref() == wanted);
            assert!(found, "{why}: {:?}", hop(dst));
        };
        becomes(None, "it is looked into");
        hops("10.2.0.2", None, "there is no neighbour yet");
        ip("neigh add 10.2.0.2 lladdr 02:00:00:00:01:02 nud permanent dev out0");
        hops("10.2.0.2", Some("02:00:00:00:01:02"), "there is one");
        ip("neigh replace 10.2.0.2 lladdr 02:00:00:00:01:03 nud permanent dev out0");
        hops("10.2.0.2", Some("02:00:00:00:01:03"), "it is another");
        ip("neigh replace 10.2.0.2 lladdr 02:00:00:00:01:04 nud reachable dev out0");
        hops("10.2.0.2", None, "it is not for good any more");
        ip("neigh replace 10.2.0.2 lladdr 02:00:00:00:01:05 nud permanent dev out0");
        ip("route add 10.9.0.0/24 via 10.2.0.2");
        hops("10.9.0.1", Some("02:00:00:00:01:05"), "a new route");
        ip("route add blackhole 10.9.0.1/32");
        hops("10.9.0.1", None, "a better one");
        ip("route del blackhole 10.9.0.1/32");
        hops("10.9.0.1", Some("02:00:00:00:01:05"), "it is gone");
        ip("link set out0 mtu 1280");
        hops("10.2.0.2", Some("02:00:00:00:01:05"), "looked into again");
        ip("link set out0 down");
        hops("10.2.0.2", None, "its interface is down");
        ip("link set out0 up");
        ip("neigh replace 10.2.0.2 lladdr 02:00:00:00:01:05 nud permanent dev out0");
        hops("10.2.0.2", Some("02:00:00:00:01:05"), "and up again");
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").expect("our namespace");
        hops("10.2.0.2", None, "it forwards no more");
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("our namespace");
        hops("10.2.0.2", Some("02:00:00:00:01:05"), "it does again");
        ip("rule add pref 100 from 10.1.0.2 blackhole");
        becomes(Some("it has routing rules of its own"), "a rule");
        ip("rule del pref 100");
        becomes(None, "no rule");
        add_table();
        becomes(Some("it has nftables or iptables tables"), "a table");
        shared.watch.stop();
        thread.join().expect("it ends");
    });
}
