//! One network on two hundred nodes.

use super::*;

const NODES: usize = 200;

/// A machine of the network on each node.
fn mesh() -> Vec<SimNode> {
    let all = |line: fn(usize) -> String| (1..=NODES).map(line).collect::<String>();
    let text = format!(
        "version: 1\nnodes:\n{}networks: {{blue: {{subnets: [{{cidr: 10.0.0.0/16}}]}}}}\nvms:\n{}",
        all(|node| format!("  n{node}: {{}}\n")),
        all(|node| format!("  v{node}: {{node: n{node}, network: blue}}\n")),
    );
    let topology = Topology::parse(&text, "test").unwrap_or_else(|error| panic!("{error}"));
    let view = |node| SimNode::new(placement::view(&topology, &format!("n{node}")).expect("it is there"));
    (1..=NODES).map(view).collect()
}

/// The node's only machine: where it is plugged in, and its addresses.
fn machine(node: &SimNode) -> (Ingress, (Mac, Ipv4Addr)) {
    let vm = &node.view.networks[0].local_ports[0];
    let from = Ingress { port: node.dp(vm.port.as_str()), tunnel: None };
    (from, (vm.mac, v4(&vm.addresses)))
}

/// Every so many nodes one sends frames of the other kinds too.
const STRIDE: usize = 25;

/// Input: from each of the nodes a question that nobody can answer and a frame to the next node's machine, and from some of
/// them a broadcast and a group's frame. Output: what is for one leaves once, for its node; the others leave once for each
/// other node, and there each is handed to the machine, once, and goes nowhere else.
#[test]
fn what_floods_crosses_once_to_each_of_two_hundred_nodes() {
    let mut nodes = mesh();
    let ends: Vec<IpAddr> = nodes.iter().map(|node| node.view.node.tunnel_ip).collect();
    let by_end: BTreeMap<IpAddr, usize> = ends.iter().copied().zip(0..).collect();
    assert_eq!(by_end.len(), NODES);
    for at in 0..NODES {
        let (from, (mac, ip)) = machine(&nodes[at]);
        let group = Mac::new([0x01, 0, 0x5e, 0, 0, 9]);
        let floods = [
            ("question", question((mac, ip), Ipv4Addr::new(10, 0, 200, 1))),
            ("broadcast", ipv4(Mac::BROADCAST, mac, (ip, Ipv4Addr::BROADCAST))),
            ("group", ipv4(group, mac, (ip, Ipv4Addr::new(224, 0, 0, 9)))),
        ];
        for (what, frame) in floods.into_iter().take(if at % STRIDE == 0 { 3 } else { 1 }) {
            let Sent(sent, _) = nodes[at].process(&from, &frame);
            let mut heard = vec![0; NODES];
            for (port, tunnel, octets) in sent {
                let tunnel = tunnel.unwrap_or_else(|| panic!("{what}: nobody else is on this node"));
                let there = by_end[&tunnel.dst];
                heard[there] += 1;
                let (plugged, _) = machine(&nodes[there]);
                let arrived = Ingress { port, tunnel: Some(TunnelMeta { src: ends[at], ..tunnel }) };
                let Sent(handed, _) = nodes[there].process(&arrived, &octets);
                let handed: Vec<_> = handed.iter().map(|(port, tunnel, _)| (*port, *tunnel)).collect();
                assert_eq!(handed, [(plugged.port, None)], "{what} from {at} to {there}");
            }
            let once: Vec<usize> = (0..NODES).map(|there| usize::from(there != at)).collect();
            assert_eq!(heard, once, "{what} from {at}");
        }
        let next = (at + 1) % NODES;
        let (_, (to, to_ip)) = machine(&nodes[next]);
        let Sent(sent, _) = nodes[at].process(&from, &ipv4(to, mac, (ip, to_ip)));
        assert!(matches!(sent[..], [(_, Some(tunnel), _)] if tunnel.dst == ends[next]), "{sent:?}");
    }
}
