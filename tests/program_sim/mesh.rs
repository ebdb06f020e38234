//! One network on two hundred nodes.

use super::*;

const NODES: usize = 200;

/// Input: a question that nobody can answer, a broadcast and a group's frame from the first, a middle and the last node.
/// Output: each leaves once for each other node; there it is handed to the machine and goes nowhere else. A frame to a
/// machine leaves once, for its node.
#[test]
fn what_floods_crosses_once_to_each_of_two_hundred_nodes() {
    let all = |line: fn(usize) -> String| (1..=NODES).map(line).collect::<String>();
    let text = format!(
        "version: 1\nnodes:\n{}networks: {{blue: {{subnets: [{{cidr: 10.0.0.0/16}}]}}}}\nvms:\n{}",
        all(|node| format!("  n{node}: {{}}\n")),
        all(|node| format!("  v{node}: {{node: n{node}, network: blue}}\n")),
    );
    let topology = Topology::parse(&text, "test").unwrap_or_else(|error| panic!("{error}"));
    let simulated = [1, NODES / 2, NODES];
    let view = |node: usize| SimNode::new(placement::view(&topology, &format!("n{node}")).expect("it is there"));
    let mut sim = Sim { nodes: simulated.map(view).into() };
    for (at, node) in simulated.into_iter().enumerate() {
        let (_, vm) = sim.vm(&format!("v{node}"));
        let (mac, ip) = (vm.mac, v4(&vm.addresses));
        let from = Ingress { port: sim.nodes[at].dp(vm.port.as_str()), tunnel: None };
        let local = sim.nodes[at].view.node.tunnel_ip;
        let others: BTreeSet<IpAddr> = sim.nodes[at].view.peers.iter().map(|peer| peer.tunnel_ip).collect();
        assert_eq!(others.len(), NODES - 1);
        let group = Mac::new([0x01, 0, 0x5e, 0, 0, 9]);
        for (what, frame) in [
            ("question", question((mac, ip), Ipv4Addr::new(10, 0, 200, 1))),
            ("broadcast", ipv4(Mac::BROADCAST, mac, (ip, Ipv4Addr::BROADCAST))),
            ("group", ipv4(group, mac, (ip, Ipv4Addr::new(224, 0, 0, 9)))),
        ] {
            let Sent(sent, _) = sim.nodes[at].process(&from, &frame);
            let to: Vec<IpAddr> = sent.iter().filter_map(|(_, tunnel, _)| tunnel.map(|tunnel| tunnel.dst)).collect();
            assert_eq!(to.len(), sent.len(), "{what}: nobody else is on this node");
            assert_eq!((to.len(), to.into_iter().collect()), (NODES - 1, others.clone()), "{what}");
            for there in (0..simulated.len()).filter(|there| *there != at) {
                let is_there = |(_, tunnel, _): &&(_, Option<TunnelMeta>, _)| {
                    tunnel.map(|t| t.dst) == Some(sim.nodes[there].view.node.tunnel_ip)
                };
                let (port, tunnel, octets) = sent.iter().find(is_there).expect("one of the others").clone();
                let tunnel = tunnel.map(|tunnel| TunnelMeta { src: local, ..tunnel });
                let Sent(handed, _) = sim.nodes[there].process(&Ingress { port, tunnel }, &octets);
                assert!(matches!(handed[..], [(_, None, _)]), "{what}: {handed:?}");
            }
        }
        let (_, other) = sim.vm(&format!("v{}", simulated[(at + 1) % simulated.len()]));
        let known = ipv4(other.mac, mac, (ip, v4(&other.addresses)));
        let Sent(sent, _) = sim.nodes[at].process(&from, &known);
        let wanted = sim.nodes[(at + 1) % simulated.len()].view.node.tunnel_ip;
        assert!(matches!(sent[..], [(_, Some(tunnel), _)] if tunnel.dst == wanted), "{sent:?}");
    }
}
