//! What the process's own namespace holds, among things of others.

use super::*;

/// The lab's underlay: a bridge in the process's own namespace, a veth from it into each node's.
fn underlay(nodes: usize) -> (KernelSpec, Ownership) {
    let mut own = NamespaceSpec::new(NetnsName::Own);
    let mut bridge = LinkSpec::new(ifname("underlay"), LinkKind::Bridge);
    bridge.mtu = Mtu::new(1600).ok();
    bridge.addresses = vec!["172.30.0.254/24".parse().expect("an address")];
    own.links.push(bridge);
    let mut spec = KernelSpec::default();
    for node in 1..=nodes {
        let (port, place) = (ifname(&format!("ul-node{node}")), netns(&format!("node{node}")));
        let mut outer =
            LinkSpec::new(port.clone(), LinkKind::Veth { peer: ifname("underlay0"), peer_netns: place.clone() });
        outer.controller = Some(ifname("underlay"));
        outer.mtu = Mtu::new(1600).ok();
        own.links.push(outer);
        let mut inner = LinkSpec::new(ifname("underlay0"), LinkKind::Veth { peer: port, peer_netns: NetnsName::Own });
        inner.mtu = Mtu::new(1600).ok();
        inner.addresses = vec![format!("172.30.0.{node}/24").parse().expect("an address")];
        let loopback = LinkSpec::new(ifname("lo"), LinkKind::Loopback);
        spec.namespaces.push(NamespaceSpec { links: vec![loopback, inner], ..NamespaceSpec::new(place) });
    }
    spec.namespaces.push(own);
    let kind = |word: &str| Some(word.to_owned());
    let ownership = Ownership {
        namespaces: vec![NetnsRule { netns: Pattern::prefix("node"), links: vec![] }],
        own_links: vec![
            LinkPattern { name: Pattern::exact("underlay"), kind: kind("bridge") },
            LinkPattern { name: Pattern::prefix("ul-"), kind: kind("veth") },
        ],
    };
    (spec, ownership)
}

#[test]
fn an_underlay_in_the_own_namespace() {
    in_namespace("shared::an_underlay_in_the_own_namespace", || {
        let mut kernel = kernel();
        let (spec, ownership) = underlay(3);
        let made = plan(&mut kernel, &spec, &ownership);
        println!("{made}");
        block_on(kernel.apply(&made)).expect("applied");
        assert_eq!(plan(&mut kernel, &spec, &ownership).to_string(), "");
        let checked = spec.check().expect("no contradiction");
        let observed = block_on(kernel.observe(&checked)).expect("observed");
        verify(&checked, &observed).expect("as wanted");
        assert_eq!(ip_json("link show master underlay").as_array().map(Vec::len), Some(3));
        ip("link set ul-node2 nomaster");
        assert_eq!(plan(&mut kernel, &spec, &ownership).to_string(), "(own): attach ul-node2 to bridge underlay\n");
        let empty = KernelSpec { namespaces: vec![NamespaceSpec::new(NetnsName::Own)] };
        let teardown = plan(&mut kernel, &empty, &ownership);
        block_on(kernel.apply(&teardown)).expect("applied");
        assert_eq!(ip_json("link").as_array().map(Vec::len), Some(1), "only lo is left");
        assert_eq!(ip("netns list"), "");
    });
}

#[test]
fn a_foreign_link_in_the_own_namespace_blocks_and_stays() {
    in_namespace("shared::a_foreign_link_in_the_own_namespace_blocks_and_stays", || {
        ip("link add underlay type veth peer name somebody");
        let mut kernel = kernel();
        let (spec, ownership) = underlay(0);
        let made = plan(&mut kernel, &spec, &ownership);
        assert!(made.is_empty(), "{made}");
        assert!(matches!(&made.blocked[..], [Blocked::Taken { observed, .. }] if observed == "veth"), "{made}");
        assert!(ip("link").contains("underlay@somebody"));
    });
}

#[test]
fn a_shared_link_keeps_what_others_put_on_it() {
    in_namespace("shared::a_shared_link_keeps_what_others_put_on_it", || {
        for command in [
            "link add uplink type veth peer name wire",
            "addr add 192.0.2.7/24 dev uplink",
            "link set uplink up",
            "link set wire up",
            "neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 nud permanent dev uplink",
            "route add 198.51.100.0/24 via 192.0.2.9 proto 100",
            "addr add 203.0.113.1/32 dev lo",
        ] {
            ip(command);
        }
        let mut uplink = LinkSpec::new(ifname("uplink"), LinkKind::External);
        uplink.addresses = vec!["192.0.2.8/24".parse().expect("an address")];
        uplink.neighbours = vec![neighbour("192.0.2.10", 10)];
        let links = vec![LinkSpec::new(ifname("lo"), LinkKind::Loopback), uplink];
        let own = NamespaceSpec { links, ..NamespaceSpec::new(NetnsName::Own) };
        let mut kernel = kernel();
        println!("{}", settle(&mut kernel, &KernelSpec { namespaces: vec![own] }));
        let addresses = ip("addr");
        for address in ["192.0.2.7/24", "192.0.2.8/24", "203.0.113.1/32"] {
            assert!(addresses.contains(address), "{address} is gone:\n{addresses}");
        }
        assert_eq!(ip_json("neigh show nud permanent dev uplink").as_array().map(Vec::len), Some(2));
        assert!(ip("route").contains("198.51.100.0/24"));
    });
}
