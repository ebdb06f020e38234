//! What holds of everything that machines and routers send.

use super::*;

/// The network of each port of the topology, and which ports are routers'.
pub(super) fn networks(sim: &Sim) -> BTreeMap<String, (String, bool)> {
    let mut all = BTreeMap::new();
    for node in &sim.nodes {
        for network in &node.view.networks {
            for vm in &network.local_ports {
                all.insert(vm.port.to_string(), (network.name.clone(), false));
            }
        }
        for port in node.view.routers.iter().flat_map(|router| &router.interfaces) {
            all.insert(port.ifname.to_string(), (port.network.clone(), true));
        }
    }
    all
}

fn stations(sim: &Sim) -> Vec<Mac> {
    let mut macs: Vec<Mac> = ["blue1", "blue2", "orange1", "orange2", "teal1", "teal2"].map(|vm| sim.mac(vm)).into();
    macs.extend(["blue", "orange"].map(|network| sim.router(network).mac));
    macs.extend(["node1", "node2", "node3"].map(|node| sim.host_mac(node)));
    macs.extend([Mac::new([2, 0, 0, 0, 0, 9]), Mac::new([2, 0, 0, 0, 0, 8]), Mac::BROADCAST]);
    macs.push(Mac::new([0x33, 0x33, 0xff, 0, 0, 1]));
    macs
}

pub(super) fn payload(sim: &Sim, kind: usize, (to, from): (Mac, Mac), pick: usize) -> Vec<u8> {
    let v4s =
        [sim.v4("blue1"), sim.v4("blue2"), sim.v4("orange1"), Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 9, 9, 9)];
    let v6s = [sim.v6("blue1"), sim.v6("blue2"), Ipv6Addr::UNSPECIFIED, from.link_local(), to.link_local()];
    let (a, b) = (pick % 5, pick / 5 % 5);
    match kind {
        0 => ipv4(to, from, (v4s[a], v4s[b])),
        1 => arp(to, 1, (from, v4s[a]), (Mac::ZERO, v4s[b])),
        2 => arp(to, 2, (from, v4s[a]), (to, v4s[b])),
        3 => nd(to, from, (v6s[a], v6s[b]), 135, v6s[b], (1, from)),
        4 => nd(to, from, (v6s[a], v6s[b]), 136, v6s[a], (2, from)),
        _ => ethernet(to, from, 0x88b5, &[0; 46]),
    }
}

proptest! {
    /// Whatever machines and routers send, in whatever order.
    #[test]
    fn invariants_hold(frames in proptest::collection::vec(
        (0_usize..10, 0_usize..15, 0_usize..15, 0_usize..6, 0_usize..25), 1..40,
    )) {
        let mut sim = Sim::new();
        let networks = networks(&sim);
        let macs = stations(&sim);
        let hosts = ["node1", "node2", "node3"].map(|node| sim.host_mac(node));
        let ports: Vec<(String, String)> = sim.nodes.iter()
            .flat_map(|node| node.ports.values().map(|port| (node.view.node.name.clone(), port.clone())))
            .collect();
        for (port, to, from, kind, pick) in frames {
            let (node, port) = ports[port % ports.len()].clone();
            let (network, is_router) = networks[&port].clone();
            // A router speaks under its own MAC; a machine may pretend anything.
            let from = if is_router { sim.router(&network).mac } else { macs[from] };
            let frame = payload(&sim, kind, (macs[to], from), pick);
            let outcome = sim.send(&node, &port, frame.clone());
            let vni = sim.vni(&network);
            // A router's MAC is its own on its own network only.
            let rmacs: Vec<Mac> =
                ["blue", "orange"].into_iter().filter(|on| *on == network).map(|on| sim.router(on).mac).collect();
            let mut copies = BTreeSet::new();
            for Delivered { node: at, port: to, frame: out } in &outcome.delivered {
                prop_assert_eq!(&networks[to].0, &network, "it changed networks: {:02x?}", frame);
                prop_assert!(copies.insert((at, to)), "two copies to {} of {:02x?}", to, frame);
                prop_assert!(!hosts.contains(&src(out)), "a host MAC reached {}", to);
                let is_back = (at, to) == (&node, &port);
                prop_assert!(!is_back || *out != frame, "{} hears itself", to);
                prop_assert!(!networks[to].1 || *at == node, "a router elsewhere heard {:02x?}", frame);
                prop_assert!(out[12..14] != [0x81, 0], "a local VLAN got out");
            }
            let mut targets = BTreeSet::new();
            for Wired { to, vni: key, frame: out } in &outcome.wired {
                prop_assert_eq!(*key, vni);
                prop_assert!(targets.insert(to), "twice to {}", to);
                prop_assert!(sim.node(to).view.networks.iter().any(|view| view.name == network), "{} lacks {}", to, network);
                prop_assert!(!rmacs.contains(&src(out)) && !rmacs.contains(&dst(out)), "a router's MAC on the wire");
                prop_assert!(out[12..14] != [0x81, 0], "a local VLAN on the wire");
                // Where each kind of payload says who speaks.
                let speaker = [None, Some(22), Some(22), Some(80), Some(80), None][kind];
                if let Some(at) = speaker.filter(|_| is_router) {
                    prop_assert!(!rmacs.contains(&mac_at(out, at)), "a router's MAC in a payload on the wire");
                    prop_assert!(at != 80 || is_sound(out), "a bad checksum: {:02x?}", out);
                }
            }
        }
        for node in &sim.nodes {
            for line in node.learned() {
                prop_assert!(!hosts.iter().any(|mac| line.contains(&mac.to_string())), "learned: {}", line);
                let is_router = |(vlan, mac): &(String, Mac)| {
                    line.contains(vlan.as_str()) && line.contains(&format!("dl_dst={mac}"))
                };
                prop_assert!(!node.router_stations().iter().any(is_router), "learned: {}", line);
            }
        }
    }
}

impl SimNode {
    /// Each router interface's VLAN, as a learned flow matches it, and MAC; of routers on other nodes too.
    pub(super) fn router_stations(&self) -> Vec<(String, Mac)> {
        let ports = self.view.routers.iter().flat_map(|router| &router.interfaces);
        let station = |network: &NetworkView, mac: Mac| {
            let vlan = self.vlans[&network.id].get();
            (format!("vlan_tci={vlan:#06x}/0x0fff"), mac)
        };
        let here = ports.map(|port| {
            let network = self.view.networks.iter().find(|network| network.name == port.network);
            station(network.expect("its own"), port.mac)
        });
        let beyond = self.view.networks.iter().flat_map(|network| {
            let routers = network.remote_ports.iter().filter(|port| port.router);
            routers.map(move |port| station(network, port.mac))
        });
        here.chain(beyond).collect()
    }
}
