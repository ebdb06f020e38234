use super::*;

#[test]
fn the_example_is_right() {
    let topology = Topology::example();
    assert_eq!(topology.vms().len(), 4);
}
