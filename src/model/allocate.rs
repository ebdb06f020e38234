//! Allocation from names: the same names give the same values, and an addition moves nothing that was there unless
//! two hashes meet (then the later name in order gives way).

use uuid::Uuid;

use crate::types::{Mac, VlanId, Vni};

/// The namespace of every derived id (RFC 9562 §5.5); a constant of ours, itself random.
const IDS: Uuid = Uuid::from_u128(0x7d1c_55b4_02d9_4a6e_9e0b_3c7f_8a46_d12c);

/// Neutron's default `dvr_base_mac`: the hosts' own MACs.
pub(super) const HOST_PREFIX: [u8; 3] = [0xfa, 0x16, 0x3f];
/// Neutron's default `base_mac`: the ports' MACs.
const PORT_PREFIX: [u8; 3] = [0xfa, 0x16, 0x3e];

/// The id of the object of this kind and name; `attempt` counts ids that were refused before.
pub(super) fn id(kind: &str, name: &str, attempt: u32) -> Uuid {
    let text = if attempt == 0 { format!("{kind}/{name}") } else { format!("{kind}/{name}/{attempt}") };
    Uuid::new_v5(&IDS, text.as_bytes())
}

/// A number below 2^24 that follows from an id.
fn hash(id: Uuid) -> u32 {
    let [.., a, b, c] = *Uuid::new_v5(&IDS, id.as_bytes()).as_bytes();
    u32::from_be_bytes([0, a, b, c])
}

/// The first number from `start` on, modulo 2^24, that `make` accepts. `taken` values at most can be refused.
fn probe<T>(start: u32, taken: usize, make: impl Fn(u32) -> Option<T>) -> Option<T> {
    const MASK: u32 = (1 << 24) - 1;
    let tries = u32::try_from(taken).unwrap_or(MASK).saturating_add(2).min(MASK);
    (0..=tries).find_map(|step| make(start.wrapping_add(step) & MASK))
}

/// A VNI for the network of this name.
pub(super) fn vni(network: &str, taken: impl Fn(Vni) -> bool, count: usize) -> Option<Vni> {
    probe(hash(id("vni", network, 0)), count, |number| Vni::new(number).ok().filter(|vni| !taken(*vni)))
}

/// A VLAN for the network of this name.
pub(super) fn vlan(network: &str, taken: impl Fn(VlanId) -> bool) -> Option<VlanId> {
    let start = hash(id("vlan", network, 0));
    let count = VlanId::MAX.get();
    (0..count).filter_map(|step| VlanId::new((start + step) % count + 1).ok()).find(|vlan| !taken(*vlan))
}

/// A host MAC for the node of this name.
pub(super) fn host_mac(node: &str, taken: impl Fn(Mac) -> bool, count: usize) -> Option<Mac> {
    mac(HOST_PREFIX, id("node", node, 0), taken, count)
}

/// A MAC for the port of this id.
pub(super) fn port_mac(port: Uuid, taken: impl Fn(Mac) -> bool, count: usize) -> Option<Mac> {
    mac(PORT_PREFIX, port, taken, count)
}

fn mac(prefix: [u8; 3], id: Uuid, taken: impl Fn(Mac) -> bool, count: usize) -> Option<Mac> {
    let [a, b, c] = prefix;
    probe(hash(id), count, |number| {
        let [_, d, e, f] = number.to_be_bytes();
        let mac = Mac::new([a, b, c, d, e, f]);
        (!taken(mac)).then_some(mac)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn probing_steps_around_what_is_taken() {
        let first = vni("blue", |_| false, 0).expect("all are free");
        let second = vni("blue", |vni| vni == first, 1).expect("one is taken");
        assert_eq!(second.get(), first.get() + 1);
        assert_eq!(vni("blue", |_| false, 0), Some(first));
    }

    #[test]
    fn probing_wraps_and_skips_zero() {
        let taken = BTreeSet::from([Vni::MAX]);
        let found =
            probe(Vni::MAX.get(), taken.len(), |number| Vni::new(number).ok().filter(|vni| !taken.contains(vni)));
        assert_eq!(found, Some(Vni::MIN));
    }

    #[test]
    fn macs_bear_their_prefix() {
        let free = |_| false;
        assert_eq!(host_mac("node1", free, 0).expect("free").octets()[..3], HOST_PREFIX);
        assert_eq!(port_mac(id("vm", "a", 0), free, 0).expect("free").octets()[..3], PORT_PREFIX);
    }
}
