//! Any sequence of changes, taken one by one, against whole passes over the view they make.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::model::view::{AllowedPair, Attachment, BridgeMappings, Network, RouterPort, Segment, SubnetView};
use crate::types::{Mtu, PhysicalNetwork, VlanId, Vni};

/// In VXLAN, in GRE, and on a physical network.
const NETWORKS: [&str; 3] = ["blue", "green", "red"];
const NODES: [&str; 3] = ["node2", "node3", "node4"];
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// Few, so that ports collide: with each other, with the routers, and with link-local addresses.
const IPS: [&str; 7] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "fd00::1", "fd00::2", "fe80::ff:fe00:1"];

fn mac(last: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, last])
}

fn ip(at: usize) -> IpAddr {
    IPS[at].parse().expect("an address")
}

fn peer(at: usize) -> Peer {
    let last = u8::try_from(at).expect("few") + 2;
    Peer {
        name: NODES[at].to_owned(),
        tunnel_ip: [192, 0, 2, last].into(),
        host_mac: Mac::new([0xfa, 0x16, 0x3f, 0, 0, last]),
    }
}

fn physical() -> PhysicalNetwork {
    "physnet1".parse().expect("a name")
}

fn network(at: usize) -> Network {
    let vni = Vni::new(7).expect("a VNI");
    let vlan = VlanId::new(70).expect("a VLAN");
    let segments = [Segment::Vxlan { vni }, Segment::Gre { vni }, Segment::Vlan { physical_network: physical(), vlan }];
    let subnet = |cidr: &str, gateway: &str| SubnetView {
        cidr: cidr.parse().expect("a prefix"),
        gateway: Some(gateway.parse().expect("an address")),
        advertise: None,
    };
    let mut subnets = vec![subnet("10.0.0.0/24", "10.0.0.1")];
    // Only the first has IPv6.
    subnets.extend((at == 0).then(|| subnet("fd00::/64", "fd00::1")));
    Network {
        name: NETWORKS[at].to_owned(),
        id: Uuid::from_u128(u128::try_from(at).expect("few") + 1),
        segment: segments[at].clone(),
        mtu: Mtu::new(1450).expect("an MTU"),
        subnets,
    }
}

fn name(text: &str) -> IfName {
    text.parse().expect("a name")
}

/// What a port may take, of addresses that others have or may take too; it has taken the first.
fn pairs(ips: &[usize], last: u8) -> (Vec<AllowedPair>, Vec<ClaimedAddress>) {
    let allowed = ips.iter().map(|at| AllowedPair { ip: ip(*at).into(), mac: mac(last) }).collect();
    let claimed = ips.iter().take(1).map(|at| ClaimedAddress { ip: ip(*at), mac: mac(last) }).collect();
    (allowed, claimed)
}

fn local(network: &str, at: usize, last: u8, ips: &[usize], standby: bool, (mays, has): (&[usize], bool)) -> PortView {
    let (allowed, claimed) = pairs(mays, last % 4 + 1);
    PortView {
        name: NAMES[at].to_owned(),
        id: Uuid::from_u128(9),
        port: name(&format!("tap{at}-{network}")),
        mac: mac(last),
        addresses: ips.iter().map(|at| ipnet::IpNet::from(ip(*at))).collect(),
        gateways: Vec::new(),
        attach: Attachment::Device { device: name("dev") },
        standby,
        port_security: false,
        allowed,
        claimed: if has { claimed } else { Vec::new() },
    }
}

/// What a port took: the first with its own MAC, the others with one that others may have too.
fn claims(ips: &[usize], last: u8) -> Vec<ClaimedAddress> {
    let claim = |(nth, at): (usize, &usize)| ClaimedAddress {
        ip: ip(*at),
        mac: mac(if nth == 0 { last } else { last % 4 + 1 }),
    };
    ips.iter().enumerate().map(claim).collect()
}

/// A port that is the same each time but for what it took.
fn claiming(network: &str, at: usize, taken: &[usize]) -> PortView {
    let last = u8::try_from(at).expect("few") % 4 + 1;
    let all: Vec<usize> = (0..IPS.len()).collect();
    let mut port = local(network, at, last, &[], false, (&all, false));
    port.allowed.extend(all.iter().map(|at| AllowedPair { ip: ip(*at).into(), mac: mac(last) }));
    port.claimed = claims(taken, last);
    port
}

fn router(at: usize, networks: &[usize]) -> RouterView {
    let interface = |network: &usize| RouterPort {
        id: Uuid::from_u128(5),
        ifname: name(&format!("qr-{at}{network}")),
        network: NETWORKS[*network].to_owned(),
        // One network's router bears a MAC, and an address, that a machine may have too.
        mac: mac(u8::try_from(3 + at).expect("few")),
        addresses: vec![format!("10.0.0.{}/24", 1 + at).parse().expect("an address")],
    };
    RouterView {
        name: format!("r{at}"),
        id: Uuid::from_u128(4),
        netns: format!("qrouter-{at}"),
        node: None,
        interfaces: networks.iter().map(interface).collect(),
    }
}

fn remote(at: usize, last: u8, ips: &[usize], node: usize) -> RemotePort {
    let ips = ips.iter().map(|at| ip(*at)).collect();
    let (router, claimed) = (false, Vec::new());
    RemotePort { name: NAMES[at].to_owned(), mac: mac(last), ips, node: NODES[node].to_owned(), router, claimed }
}

fn change() -> impl Strategy<Value = ViewChange> {
    // What concerns the last takes a whole pass, so it is rare.
    let net = || prop_oneof![9 => 0..2_usize, 1 => Just(2)].prop_map(|at| NETWORKS[at].to_owned());
    let (node, port, last) = (|| 0..NODES.len(), || 0..NAMES.len(), || 1_u8..5);
    let ips = || prop::sample::subsequence((0..IPS.len()).collect::<Vec<_>>(), 0..3);
    prop_oneof![
        12 => (net(), port(), last(), ips(), node())
            .prop_map(|(network, at, last, ips, node)| ViewChange::RemotePort { network, port: remote(at, last, &ips, node) }),
        6 => (net(), port(), last(), (ips(), ips()), node()).prop_map(|(network, at, last, (ips, taken), node)| {
            let claimed = claims(&taken, last);
            ViewChange::RemotePort { network, port: RemotePort { claimed, ..remote(at, last, &ips, node) } }
        }),
        6 => (net(), port(), ips()).prop_map(|(network, at, taken)| ViewChange::LocalPort { port: claiming(&network, at, &taken), network }),
        1 => (net(), port(), last(), node()).prop_map(|(network, at, last, node)| {
            ViewChange::RemotePort { network, port: RemotePort { router: true, ..remote(at, last, &[], node) } }
        }),
        6 => (net(), port(), node()).prop_map(|(network, at, node)| {
            ViewChange::RemotePortGone { network, name: NAMES[at].to_owned(), node: NODES[node].to_owned() }
        }),
        3 => (net(), node()).prop_map(|(network, at)| ViewChange::Flood { network, node: NODES[at].to_owned() }),
        2 => (net(), node()).prop_map(|(network, at)| ViewChange::FloodGone { network, node: NODES[at].to_owned() }),
        2 => (net(), port(), last(), ips(), any::<bool>(), (ips(), any::<bool>())).prop_map(
            |(network, at, last, ips, standby, (mays, has))| {
                ViewChange::LocalPort { port: local(&network, at, last, &ips, standby, (&mays, has)), network }
            }
        ),
        1 => (net(), port()).prop_map(|(network, at)| ViewChange::LocalPortGone { network, name: NAMES[at].to_owned() }),
        1 => (0..2_usize, prop::sample::subsequence(vec![0, 1, 2], 0..=3)).prop_map(|(at, on)| ViewChange::Router(router(at, &on))),
        1 => (0..2_usize).prop_map(|at| ViewChange::Router(RouterView { node: Some("node1".to_owned()), ..router(at, &[0]) })),
        1 => (0..NETWORKS.len()).prop_map(|at| ViewChange::Network(network(at))),
        1 => net().prop_map(|name| ViewChange::NetworkGone { name }),
        1 => any::<bool>().prop_map(|there| ViewChange::BridgeMappings(mappings(there))),
        1 => node().prop_map(|at| ViewChange::Peer(peer(at))),
        1 => node().prop_map(|at| ViewChange::PeerGone { name: NODES[at].to_owned() }),
    ]
}

fn empty() -> NodeView {
    let node = Peer { name: "node1".to_owned(), ..peer(0) };
    let view = NodeView::new(node, Mtu::new(1500).expect("an MTU"), 4789);
    NodeView { bridge_mappings: mappings(true), ..view }
}

fn mappings(there: bool) -> BridgeMappings {
    there.then(|| (physical(), name("eth1"))).into_iter().collect()
}

/// All networks, all peers, both routers.
fn furnished() -> NodeView {
    let mut view = empty();
    let peers = (0..NODES.len()).map(|at| ViewChange::Peer(peer(at)));
    let networks = (0..NETWORKS.len()).map(|at| ViewChange::Network(network(at)));
    let routers = [ViewChange::Router(router(0, &[0, 1, 2])), ViewChange::Router(router(1, &[0]))];
    for change in peers.chain(networks).chain(routers) {
        assert!(view.apply(change), "nothing waits");
    }
    view
}

fn vlans(view: &NodeView) -> Vlans {
    let numbered = (1..).zip(&view.networks);
    numbered.map(|(number, network)| (network.id, VlanId::new(number).expect("few"))).collect()
}

/// What a whole pass makes of a view: the bridges' flows, and each router link's entries.
#[derive(Debug, Clone, Default, PartialEq)]
struct Made {
    flows: [BTreeMap<Place, String>; 2],
    /// Of the physical networks' bridges, which no delta changes.
    providers: BTreeMap<PhysicalNetwork, Vec<ProgramFlow>>,
    entries: BTreeMap<(String, IfName), BTreeMap<IpAddr, Mac>>,
}

fn whole(view: &NodeView) -> Result<Made, ProgramError> {
    let Program { br_int, br_tun, providers } = Program::of(view, &vlans(view))?;
    let mut entries = BTreeMap::new();
    let passing = crate::agent::room::Passing::default();
    let spec = super::super::kernel_spec::kernel_spec(view, super::super::Attach::Tap, &passing).expect("legal names");
    for netns in spec.namespaces.iter().filter(|netns| netns.name.to_string().starts_with("qrouter-")) {
        for link in &netns.links {
            let all = link.neighbours.iter().map(|entry| (entry.ip, entry.mac)).collect();
            entries.insert((netns.name.to_string(), link.name.clone()), all);
        }
    }
    Ok(Made { flows: [keyed(br_int), keyed(br_tun)], providers, entries })
}

impl Made {
    /// Makes the changes, each of which must find what it supposes and change something.
    fn change(&mut self, delta: &Delta) {
        for (held, turns) in self.flows.iter_mut().zip([&delta.br_int, &delta.br_tun]) {
            for (place, Turn { before, after }) in turns.iter().filter(|(_, turn)| turn.before != turn.after) {
                assert_eq!(held.get(place), before.as_ref(), "{place:?}");
                match after {
                    Some(actions) => drop(held.insert(place.clone(), actions.clone())),
                    None => drop(held.remove(place)),
                }
            }
        }
        for op in delta.neighbours().expect("legal names") {
            let Op::Neigh(netns, op) = op else { panic!("{op} is no change of entries") };
            let (NeighOp::Replace { link, .. } | NeighOp::Remove { link, .. }) = &op;
            let held = self.entries.get_mut(&(netns.to_string(), link.clone())).expect("a router's link");
            match op {
                NeighOp::Replace { entries, .. } => {
                    for NeighbourSpec { ip, mac } in entries {
                        assert_ne!(held.insert(ip, mac), Some(mac), "{ip} was so");
                    }
                }
                NeighOp::Remove { ips, .. } => ips.iter().for_each(|ip| assert!(held.remove(ip).is_some(), "{ip}")),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Input: changes in batches of any kind and order. Output: what the deltas make of the node is what a whole pass makes of
    /// its view, after each batch; and there are as many changes of flows as there are differences.
    #[test]
    fn deltas_come_to_what_a_whole_pass_does(batches in prop::collection::vec(prop::collection::vec(change(), 1..5), 1..24)) {
        let mut view = furnished();
        let mut shadow = view.clone();
        let mut bearers = Some(Bearers::of(&view));
        let mut made = whole(&view);
        for batch in batches {
            let mut delta = Delta::default();
            for change in batch {
                prop_assert!(shadow.apply(change.clone()));
                let Some(known) = &mut bearers else {
                    prop_assert!(view.apply(change));
                    continue;
                };
                let vlans = vlans(&view);
                if known.take(&mut view, &vlans, change, &mut delta) != Ok(Extent::Noted) {
                    bearers = None;
                }
            }
            prop_assert_eq!(&view, &shadow);
            let wanted = whole(&view);
            match (&bearers, &mut made) {
                (Some(bearers), Ok(made)) => {
                    let before = made.clone();
                    made.change(&delta);
                    prop_assert_eq!(Ok(&*made), wanted.as_ref());
                    for (at, changes) in delta.flows().iter().enumerate() {
                        let differing = differing(&before.flows[at], &made.flows[at]);
                        prop_assert_eq!(changes.len(), differing);
                    }
                    check_entries(bearers, &view, made)?;
                }
                _ => {
                    made = wanted;
                    // An agent whose pass failed makes whole passes until one does not.
                    bearers = made.is_ok().then(|| Bearers::of(&view));
                }
            }
        }
    }
}

fn differing(one: &BTreeMap<Place, String>, two: &BTreeMap<Place, String>) -> usize {
    let changed = one.iter().filter(|(place, actions)| two.get(place) != Some(actions)).count();
    changed + two.keys().filter(|place| !one.contains_key(place)).count()
}

/// What the bearers say of each address is what the routers' links are to have.
fn check_entries(bearers: &Bearers, view: &NodeView, made: &Made) -> Result<(), TestCaseError> {
    for router in &view.routers {
        for port in &router.interfaces {
            let Some(entries) = made.entries.get(&(router.netns.clone(), port.ifname.clone())) else { continue };
            for at in 0..IPS.len() {
                prop_assert_eq!(bearers.neighbour(view, &port.network, ip(at)), entries.get(&ip(at)).copied());
            }
        }
    }
    Ok(())
}

/// Input: an address that a machine here announces, then one elsewhere, then a third elsewhere, with and without a MAC of its own.
/// Output: each time what comes of it is found without a whole pass.
#[test]
fn what_ports_take_takes_no_whole_pass() {
    let mut view = furnished();
    let blue = || NETWORKS[0].to_owned();
    let here = |taken: &[usize]| ViewChange::LocalPort { network: blue(), port: claiming(&blue(), 0, taken) };
    let there = |at: usize, taken: &[usize]| {
        let claimed = claims(taken, 7);
        ViewChange::RemotePort { network: blue(), port: RemotePort { claimed, ..remote(at, 7, &[], at) } }
    };
    for change in [here(&[]), there(1, &[]), there(2, &[])] {
        assert!(view.apply(change), "nothing waits");
    }
    let vlans = vlans(&view);
    let mut bearers = Bearers::of(&view);
    let mut made = whole(&view).expect("a sound view");
    for changes in [[here(&[2, 3]), there(1, &[])], [here(&[]), there(1, &[2, 3])], [there(1, &[3]), there(2, &[2])]] {
        let mut delta = Delta::default();
        for change in changes {
            assert_eq!(bearers.take(&mut view, &vlans, change, &mut delta), Ok(Extent::Noted));
        }
        made.change(&delta);
        assert_eq!(Ok(&made), whole(&view).as_ref());
        assert!(delta.looked_at < 200, "{} things were looked at", delta.looked_at);
    }
}

/// Input: one port more, on a network of ten remote ports and of ten thousand. Output: as many things are looked at, and
/// the same number of changes are made.
#[test]
fn the_work_of_a_delta_does_not_grow_with_the_remote_ports() {
    let work = |ports: u32| {
        let mut view = furnished();
        let port = |number: u32| {
            let [_, a, b, c] = number.to_be_bytes();
            let (mac, ip) = (Mac::new([6, 0, 0, a, b, c]), IpAddr::from([10, a + 1, b, c]));
            let node = NODES[number as usize % NODES.len()].to_owned();
            let (router, claimed) = (false, Vec::new());
            RemotePort { name: format!("vm{number:08}"), mac, ips: vec![ip], node, router, claimed }
        };
        let put = |number| ViewChange::RemotePort { network: "blue".to_owned(), port: port(number) };
        for number in 0..ports {
            assert!(view.apply(put(number)), "nothing waits");
        }
        let vlans = vlans(&view);
        let mut bearers = Bearers::of(&view);
        let mut take = |change| {
            let mut delta = Delta::default();
            assert_eq!(bearers.take(&mut view, &vlans, change, &mut delta), Ok(Extent::Noted));
            let flows: usize = delta.flows().iter().map(Vec::len).sum();
            (delta.looked_at, flows, delta.neighbours().expect("legal names").len())
        };
        let added = take(put(ports));
        let RemotePort { name, node, .. } = port(ports);
        let removed = take(ViewChange::RemotePortGone { network: "blue".to_owned(), name, node });
        assert_eq!(added, removed, "one is the other's reverse");
        added
    };
    let (few, many) = (work(10), work(10_000));
    assert_eq!(few, many);
    // Its responders for IPv4 and its link-local address, tables 61 and 20; entries on two routers' links.
    assert_eq!((few.1, few.2), (4, 2));
    assert!(few.0 < 100, "{} things were looked at", few.0);
}
