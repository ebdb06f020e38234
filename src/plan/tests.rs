//! Plans as text, and drift as text: no kernel needed.

use super::*;
use crate::link::{AddressState, LinkKind, LinkSpec, LinkState};
use crate::neigh::{NeighbourSpec, NeighbourState};
use crate::netns::{Entry, Name, NetnsName, Ownership, Sysctl};
use crate::route::{PROTOCOL, RouteSpec, RouteState};
use crate::types::{IfName, Mac, Mtu};

fn ifname(text: &str) -> IfName {
    IfName::new(text).expect("a legal name")
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a legal name")
}

const MAC: Mac = Mac::new([0xfa, 0x16, 0x3e, 0, 0, 1]);

/// A router with one interface that the switch makes, and a machine on a veth pair.
fn wanted() -> KernelSpec {
    let mut port = LinkSpec::new(ifname("qr-1"), LinkKind::External);
    port.mac = Some(MAC);
    port.mtu = Mtu::new(1450).ok();
    port.addresses = vec!["10.1.0.1/24".parse().expect("an address")];
    port.neighbours = vec![NeighbourSpec { ip: [10, 1, 0, 9].into(), mac: MAC }];
    port.sysctls = vec![Sysctl::new("net/ipv4/conf/qr-1/send_redirects", "0")];
    let router = NamespaceSpec {
        sysctls: vec![Sysctl::new("net/ipv4/ip_forward", "1")],
        links: vec![port],
        routes: vec![RouteSpec {
            destination: "10.9.0.0/16".parse().expect("a prefix"),
            gateway: Some([10, 1, 0, 9].into()),
            ifname: None,
        }],
        ..NamespaceSpec::new(name("qrouter-1").into())
    };
    let kind = LinkKind::Veth { peer: ifname("tap-a"), peer_netns: name("dvr-ports").into() };
    let machine =
        NamespaceSpec { links: vec![LinkSpec::new(ifname("eth0"), kind)], ..NamespaceSpec::new(name("vm-a").into()) };
    KernelSpec { namespaces: vec![router, machine] }
}

/// The kernel state that fulfils [`wanted`].
fn fulfilled() -> KernelState {
    let router = NamespaceState {
        sysctls: [("net/ipv4/ip_forward", "1"), ("net/ipv4/conf/qr-1/send_redirects", "0")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        links: [(
            ifname("qr-1"),
            LinkState {
                index: 2,
                kind: Some("tun".to_owned()),
                mac: Some(MAC),
                mtu: 1450,
                up: true,
                addresses: vec![AddressState {
                    address: "10.1.0.1/24".parse().expect("an address"),
                    secondary: false,
                    kernel_made: false,
                }],
                neighbours: vec![NeighbourState { ip: [10, 1, 0, 9].into(), mac: Some(MAC), permanent: true }],
                ..LinkState::default()
            },
        )]
        .into(),
        routes: vec![RouteState {
            destination: "10.9.0.0/16".parse().expect("a prefix"),
            gateway: Some([10, 1, 0, 9].into()),
            ifname: Some(ifname("qr-1")),
            protocol: PROTOCOL,
            metric: 0,
        }],
    };
    let end = |index, peer| LinkState {
        index,
        kind: Some("veth".to_owned()),
        up: true,
        peer: Some(peer),
        ..LinkState::default()
    };
    let holding =
        |text: &str, link| NamespaceState { links: [(ifname(text), link)].into(), ..NamespaceState::default() };
    KernelState {
        entries: ["qrouter-1", "vm-a", "dvr-ports"].map(|text| (name(text), Entry::Mounted)).into(),
        namespaces: [
            (name("qrouter-1").into(), router),
            (name("vm-a").into(), holding("eth0", end(2, 7))),
            (name("dvr-ports").into(), holding("tap-a", end(7, 2))),
        ]
        .into(),
    }
}

fn plan(spec: &KernelSpec, observed: &KernelState) -> String {
    diff(&spec.check().expect("no contradiction"), observed, &Ownership::agent()).to_string()
}

fn drift(observed: &KernelState) -> String {
    let drifts = verify(&wanted().check().expect("no contradiction"), observed).expect_err("drift");
    drifts.iter().map(|drift| format!("{drift}\n")).collect()
}

#[test]
fn from_nothing() {
    assert_eq!(
        plan(&wanted(), &KernelState::default()),
        "add namespace dvr-ports\n\
         add namespace qrouter-1\n\
         add namespace vm-a\n\
         qrouter-1: set net/ipv4/ip_forward = 1\n\
         dvr-ports: add veth tap-a with peer eth0 in vm-a\n\
         dvr-ports: set tap-a up\n\
         vm-a: set eth0 up\n\
         qrouter-1: await link qr-1\n"
    );
}

#[test]
fn the_awaited_link_arrives() {
    let mut observed = fulfilled();
    let router = observed.namespaces.get_mut(&NetnsName::from(name("qrouter-1"))).expect("there");
    router.links.insert(ifname("qr-1"), LinkState { index: 2, mtu: 1500, ..LinkState::default() });
    router.sysctls.remove("net/ipv4/conf/qr-1/send_redirects");
    router.routes.clear();
    assert_eq!(
        plan(&wanted(), &observed),
        "qrouter-1: set qr-1 address fa:16:3e:00:00:01 mtu 1450\n\
         qrouter-1: set net/ipv4/conf/qr-1/send_redirects = 0\n\
         qrouter-1: set qr-1 up\n\
         qrouter-1: add address 10.1.0.1/24 to qr-1\n\
         qrouter-1: set neighbours of qr-1: 10.1.0.9 lladdr fa:16:3e:00:00:01\n\
         qrouter-1: add route 10.9.0.0/16 via 10.1.0.9\n"
    );
}

#[test]
fn nothing_when_fulfilled_and_everything_back_when_not_wanted() {
    assert_eq!(plan(&wanted(), &fulfilled()), "");
    verify(&wanted().check().expect("no contradiction"), &fulfilled()).expect("as wanted");
    let mut observed = fulfilled();
    observed.entries.insert(name("cni-1"), Entry::Mounted);
    observed.entries.insert(name("cni-stale"), Entry::Stale);
    assert_eq!(
        plan(&KernelSpec::default(), &observed),
        "remove namespace dvr-ports\nremove namespace qrouter-1\nremove namespace vm-a\n"
    );
}

#[test]
fn a_link_of_ours_goes_and_a_foreign_one_stays() {
    let mut observed = fulfilled();
    let router = observed.namespaces.get_mut(&NetnsName::from(name("qrouter-1"))).expect("there");
    router.links.insert(ifname("qr-old"), LinkState { index: 8, ..LinkState::default() });
    router.links.insert(ifname("flannel0"), LinkState { index: 9, ..LinkState::default() });
    assert_eq!(plan(&wanted(), &observed), "qrouter-1: delete link qr-old\n");
}

#[test]
fn half_a_pair_is_remade_whole_and_once() {
    let mut observed = fulfilled();
    let ports = observed.namespaces.get_mut(&NetnsName::from(name("dvr-ports"))).expect("there");
    ports.links.insert(ifname("tap-a"), LinkState { index: 7, kind: Some("veth".to_owned()), ..LinkState::default() });
    assert_eq!(
        plan(&wanted(), &observed),
        "dvr-ports: delete link tap-a\n\
         vm-a: delete link eth0\n\
         dvr-ports: add veth tap-a with peer eth0 in vm-a\n\
         dvr-ports: set tap-a up\n\
         vm-a: set eth0 up\n"
    );
}

/// Input: a node of which neighbour entries differ; then something else too, then a link is awaited. Output: only the first
/// is nothing but neighbour entries.
#[test]
fn neighbours_alone_are_told_from_more() {
    let mut observed = fulfilled();
    let diff = |observed: &KernelState| {
        let plan = diff(&wanted().check().expect("no contradiction"), observed, &Ownership::agent());
        (!plan.is_empty(), plan.is_neighbours())
    };
    let mut netns = observed.namespaces[&NetnsName::from(name("qrouter-1"))].clone();
    let link = netns.links.get_mut(&ifname("qr-1")).expect("there");
    link.neighbours = vec![NeighbourState { ip: [10, 1, 0, 8].into(), mac: Some(MAC), permanent: true }];
    observed.namespaces.insert(name("qrouter-1").into(), netns.clone());
    assert_eq!(diff(&observed), (true, true));
    let link = netns.links.get_mut(&ifname("qr-1")).expect("there");
    link.mtu = 1400;
    observed.namespaces.insert(name("qrouter-1").into(), netns.clone());
    assert_eq!(diff(&observed), (true, false));
    netns.links.remove(&ifname("qr-1"));
    netns.sysctls.clear();
    observed.namespaces.insert(name("qrouter-1").into(), netns);
    assert_eq!(diff(&observed), (true, false));
}

#[test]
fn drift_names_the_field() {
    let mut observed = fulfilled();
    let router = observed.namespaces.get_mut(&NetnsName::from(name("qrouter-1"))).expect("there");
    router.routes.clear();
    let link = router.links.get_mut(&ifname("qr-1")).expect("there");
    link.mtu = 1500;
    link.up = false;
    link.neighbours.clear();
    observed.entries.remove(&name("vm-a"));
    assert_eq!(
        drift(&observed),
        "qrouter-1: link qr-1: MTU is 1500, wanted 1450\n\
         qrouter-1: link qr-1: state is down, wanted up\n\
         qrouter-1: link qr-1: neighbour is absent, wanted 10.1.0.9 lladdr fa:16:3e:00:00:01\n\
         qrouter-1: route 10.9.0.0/16 via 10.1.0.9: existence is absent, wanted present\n\
         vm-a: namespace: existence is absent, wanted present\n"
    );
}

fn tunnels() -> KernelSpec {
    let key = |key| crate::types::Vni::new(key).expect("a key");
    let local = [10, 0, 0, 1].into();
    let vxlan = crate::vxlan::DeviceSpec { vni: key(7), local, udp_port: 4789 };
    let mut blue = LinkSpec::new(ifname("vx-7"), LinkKind::Vxlan(vxlan));
    blue.mtu = Mtu::new(1450).ok();
    blue.fdb = [crate::vxlan::FdbEntry { mac: MAC, remote: [10, 0, 0, 2].into() }].into();
    let gre = crate::gre::DeviceSpec { key: key(8), local, remote: [10, 0, 0, 2].into() };
    let orange = LinkSpec::new(ifname("k0000080a000002"), LinkKind::Gre(gre));
    let netns = NamespaceSpec { links: vec![blue, orange], ..NamespaceSpec::new(name("dvr-tunnels").into()) };
    KernelSpec { namespaces: vec![netns] }
}

#[test]
fn tunnels_are_made_and_populated() {
    let checked = tunnels().check().expect("no contradiction");
    assert_eq!(
        diff(&checked, &KernelState::default(), &Ownership::agent()).to_string(),
        "add namespace dvr-tunnels\n\
         dvr-tunnels: add vxlan vx-7 id 7 local 10.0.0.1 dstport 4789\n\
         dvr-tunnels: add gretap k0000080a000002 key 8 local 10.0.0.1 remote 10.0.0.2\n\
         dvr-tunnels: set vx-7 mtu 1450\n\
         dvr-tunnels: set vx-7 up\n\
         dvr-tunnels: set k0000080a000002 up\n\
         dvr-tunnels: set fdb of vx-7: fa:16:3e:00:00:01 to 10.0.0.2\n"
    );
}

/// A tunnel to elsewhere is made anew, one that is no longer wanted goes, and others' stay: the one that every namespace is
/// born with too.
#[test]
fn tunnels_that_are_others_are_told_apart() {
    let link = |kind: &str, tunnel| LinkState { kind: Some(kind.to_owned()), tunnel, up: true, ..LinkState::default() };
    let gre = |key: u32| crate::gre::DeviceState {
        key_in: Some(key),
        key_out: Some(key),
        local: Some([10, 0, 0, 1].into()),
        remote: Some([10, 0, 0, 2].into()),
    };
    let gre = |key| link("gretap", Some(crate::link::TunnelState::Gre(gre(key))));
    let vxlan = crate::vxlan::DeviceState {
        vni: 7,
        local: Some([10, 0, 0, 1].into()),
        udp_port: 4789,
        learns: false,
        checksums: true,
        dont_fragment: true,
    };
    let vxlan = |learns| {
        let state = crate::vxlan::DeviceState { learns, ..vxlan.clone() };
        link("vxlan", Some(crate::link::TunnelState::Vxlan(state)))
    };
    let links = [
        ("vx-7", vxlan(true)),
        ("vx-9", vxlan(false)),
        ("k0000080a000002", gre(8)),
        ("k0000080a000003", gre(8)),
        ("gretap0", link("gretap", Some(crate::link::TunnelState::Gre(crate::gre::DeviceState::default())))),
        ("vx-8", link("veth", None)),
    ];
    let links = links.into_iter().map(|(text, state)| (ifname(text), state)).collect();
    let observed = KernelState {
        entries: [(name("dvr-tunnels"), Entry::Mounted)].into(),
        namespaces: [(name("dvr-tunnels").into(), NamespaceState { links, ..NamespaceState::default() })].into(),
    };
    let checked = tunnels().check().expect("no contradiction");
    let plan = diff(&checked, &observed, &Ownership::agent()).to_string();
    let head: Vec<&str> = plan.lines().take(4).collect();
    assert_eq!(
        head,
        [
            "dvr-tunnels: delete link k0000080a000003",
            "dvr-tunnels: delete link vx-7",
            "dvr-tunnels: delete link vx-9",
            "dvr-tunnels: add vxlan vx-7 id 7 local 10.0.0.1 dstport 4789",
        ]
    );
    assert!(!plan.contains("gretap0") && !plan.contains("vx-8") && !plan.contains("k0000080a000002"), "{plan}");
}
