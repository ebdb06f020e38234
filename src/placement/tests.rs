use super::*;

#[test]
fn the_example_puts_both_networks_and_the_router_on_both_nodes() {
    let topology = Topology::example();
    for node in ["node1", "node2"] {
        let view = view(&topology, node).expect("the node exists");
        assert_eq!(view.routers.len(), 1);
        assert_eq!(view.networks.len(), 2);
    }
    assert_eq!(view(&topology, "node3"), None);
}
