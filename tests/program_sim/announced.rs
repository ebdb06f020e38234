//! Virtual addresses: who says that it has one, what the agent hears of it, and where packets for it go.

use dvr::model::resource::ClaimedAddress;

use super::*;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const VIP6: &str = "fd00:1::100";
/// The MAC of a virtual router (RFC 9568 §7.3).
const VMAC: Mac = Mac::new([0, 0, 0x5e, 0, 1, 9]);

/// The topology of all these tests, with pairs of the address for blue1 and blue2, one after another: `pairs` of each.
fn with_pairs(pairs: &str, secured: bool) -> Topology {
    let mut text = TOPOLOGY.to_owned();
    for vm in ["blue1", "blue2"] {
        let pairs = format!("port_security: {secured}, allowed_address_pairs: [{pairs}]");
        text = text.replace(&format!("{vm}: {{"), &format!("{vm}: {{{pairs}, "));
    }
    Topology::parse(&text, "test").unwrap_or_else(|error| panic!("{error}"))
}

/// The nodes once a machine has the address: as placement tells them.
fn taken_by(topology: &Topology, vm: &str, address: ClaimedAddress) -> Sim {
    let of_node = |node| {
        let mut view = placement::view(topology, node).expect("it is there");
        for network in &mut view.networks {
            let local = network.local_ports.iter_mut().filter(|port| port.name == vm);
            local.for_each(|port| port.claimed.push(address));
            let remote = network.remote_ports.iter_mut().filter(|port| port.name == vm);
            remote.for_each(|port| port.claimed.push(address));
        }
        SimNode::new(view)
    };
    Sim { nodes: ["node1", "node2", "node3"].map(of_node).into() }
}

fn gratuitous(mac: Mac, op: u16) -> Vec<u8> {
    arp(Mac::BROADCAST, op, (mac, VIP), (if op == 1 { Mac::ZERO } else { mac }, VIP))
}

/// Input: announcements of every kind by who may, with port security and without. Output: the agent hears each, and so does
/// everybody else on the network.
#[test]
fn an_announcement_is_heard_by_the_agent_and_goes_on() {
    for secured in [true, false] {
        let topology = with_pairs(&format!("{{ip: {VIP}}}, {{ip: '{VIP6}'}}"), secured);
        let mut sim = Sim::place(&topology);
        let (mac, id) = (sim.mac("blue1"), sim.vm("blue1").1.id);
        let vip6: Ipv6Addr = VIP6.parse().expect("legal");
        let all = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let all_mac = Mac::new([0x33, 0x33, 0, 0, 0, 1]);
        for (what, frame, ip) in [
            ("gratuitous request", gratuitous(mac, 1), IpAddr::V4(VIP)),
            ("gratuitous reply", gratuitous(mac, 2), IpAddr::V4(VIP)),
            ("ordinary question", question((mac, VIP), Ipv4Addr::new(10, 1, 0, 200)), IpAddr::V4(VIP)),
            ("advertisement", nd(all_mac, mac, (vip6, all), 136, vip6, (2, mac)), IpAddr::V6(vip6)),
        ] {
            let outcome = sim.send_vm("blue1", frame);
            let expected = Announced { port: id, address: ClaimedAddress { ip, mac } };
            assert_eq!(outcome.announced, [expected], "{what}, secured: {secured}");
            assert!(
                outcome.places().iter().any(|(node, _)| *node == "node2"),
                "{what} ends with the agent: {outcome:?}"
            );
        }
        let own = (mac, sim.v4("blue1"));
        for (what, frame) in [
            ("its own address", question(own, Ipv4Addr::new(10, 1, 0, 200))),
            ("a probe", question((mac, Ipv4Addr::UNSPECIFIED), VIP)),
            ("another's MAC", gratuitous(sim.mac("blue2"), 1)),
            ("a packet", ipv4(sim.mac("blue2"), mac, (VIP, sim.v4("blue2")))),
        ] {
            assert_eq!(sim.send_vm("blue1", frame).announced, [], "{what}, secured: {secured}");
        }
        assert_eq!(sim.send_vm("orange1", gratuitous(mac, 1)).announced, [], "who may not, secured: {secured}");
    }
}

/// Input: blue1 has the address; blue2 announces it. Output: nobody answers blue2 with blue1's MAC, and it is heard; blue1
/// saying it again is not.
#[test]
fn who_may_take_it_is_not_answered_and_who_has_it_is_not_heard_again() {
    let topology = with_pairs(&format!("{{ip: {VIP}}}"), true);
    let mac = Sim::place(&topology).mac("blue1");
    let mut sim = taken_by(&topology, "blue1", ClaimedAddress { ip: IpAddr::V4(VIP), mac });
    assert_eq!(sim.send_vm("blue1", gratuitous(mac, 1)).announced, []);
    let (node, port) = sim.vm("blue2");
    let outcome = sim.send_vm("blue2", gratuitous(sim.mac("blue2"), 1));
    assert_eq!(outcome.announced.len(), 1);
    assert!(!outcome.places().contains(&(node.as_str(), port.port.as_str())), "it was answered: {outcome:?}");
    // A router that asks is, at home.
    let router = sim.router("blue");
    let asker = (router.mac, v4(&router.addresses));
    for node in ["node1", "node2"] {
        let outcome = sim.send(node, router.ifname.as_str(), question(asker, VIP));
        assert_eq!(outcome.only().frame, arp(asker.0, 2, (mac, VIP), asker), "on {node}");
    }
}

/// Input: an address with a MAC of its own moves from blue1 to blue2. Output: routed and bridged packets follow it.
#[test]
fn packets_follow_an_address_with_a_mac_of_its_own() {
    let topology = with_pairs(&format!("{{ip: {VIP}, mac: '{VMAC}'}}"), true);
    let address = ClaimedAddress { ip: IpAddr::V4(VIP), mac: VMAC };
    for (vm, other) in [("blue1", "blue2"), ("blue2", "blue1")] {
        let mut sim = taken_by(&topology, vm, address);
        let (at, port) = sim.vm(vm);
        let router = sim.router("blue");
        for node in ["node1", "node2"] {
            let frame = ipv4(VMAC, router.mac, (sim.v4("orange1"), VIP));
            let outcome = sim.send(node, router.ifname.as_str(), frame.clone());
            let expected = Delivered { node: at.clone(), port: port.port.to_string(), frame };
            assert_eq!(outcome.only(), &expected, "{vm} has it, from {node}");
        }
        let frame = ipv4(VMAC, sim.mac(other), (sim.v4(other), VIP));
        assert_eq!(sim.send_vm(other, frame).only().node, at);
    }
}
