//! Local VLANs: the number a network has on this node's br-int, and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::types::VlanId;

/// More networks than a bridge can tell apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{networks} networks need a local VLAN on this node, which has {most}: place fewer networks here", most = VlanId::MAX)]
pub struct OutOfVlans {
    /// How many networks there are.
    pub networks: usize,
}

/// A VLAN for each of `networks`: the one it had in `previous`, else the lowest free. Networks that are gone give
/// theirs back. Two networks that share one in `previous` (a file edited by hand) are parted: the lesser id keeps it.
///
/// # Errors
/// [`OutOfVlans`] with more than 4,094 different networks.
pub fn local_vlans(
    previous: &BTreeMap<Uuid, VlanId>,
    networks: impl IntoIterator<Item = Uuid>,
) -> Result<BTreeMap<Uuid, VlanId>, OutOfVlans> {
    let networks: BTreeSet<Uuid> = networks.into_iter().collect();
    let mut vlans = BTreeMap::new();
    let mut taken = BTreeSet::new();
    for network in &networks {
        if let Some(vlan) = previous.get(network)
            && taken.insert(*vlan)
        {
            vlans.insert(*network, *vlan);
        }
    }
    let mut free = (VlanId::MIN.get()..=VlanId::MAX.get())
        .filter_map(|number| VlanId::new(number).ok())
        .filter(|vlan| !taken.contains(vlan));
    for network in &networks {
        if !vlans.contains_key(network) {
            let vlan = free.next().ok_or(OutOfVlans { networks: networks.len() })?;
            vlans.insert(*network, vlan);
        }
    }
    Ok(vlans)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(number: u16) -> Uuid {
        Uuid::from_u128(u128::from(number))
    }

    fn vlan(number: u32) -> VlanId {
        VlanId::new(number).expect("in range")
    }

    #[test]
    fn a_network_keeps_its_vlan_and_a_new_one_takes_the_lowest_free() {
        let previous = BTreeMap::from([(id(1), vlan(1)), (id(2), vlan(2)), (id(3), vlan(7))]);
        let vlans = local_vlans(&previous, [id(3), id(1), id(9), id(8)]).expect("plenty");
        assert_eq!(vlans, BTreeMap::from([(id(1), vlan(1)), (id(3), vlan(7)), (id(8), vlan(2)), (id(9), vlan(3))]));
    }

    #[test]
    fn the_last_vlan_is_given_and_no_more() {
        let all = local_vlans(&BTreeMap::new(), (1..=4094).map(id)).expect("exactly enough");
        assert_eq!(all.len(), 4094);
        assert_eq!(local_vlans(&all, (1..=4095).map(id)), Err(OutOfVlans { networks: 4095 }));
    }

    proptest! {
        #[test]
        fn no_two_networks_share_one(
            before in proptest::collection::btree_map(0_u16..40, 1_u32..=40, 0..30),
            now in proptest::collection::btree_set(0_u16..40, 0..30),
        ) {
            let previous = before.iter().map(|(network, number)| (id(*network), vlan(*number))).collect();
            let vlans = local_vlans(&previous, now.iter().copied().map(id)).expect("plenty");
            prop_assert_eq!(vlans.len(), now.len());
            prop_assert_eq!(vlans.values().collect::<BTreeSet<_>>().len(), now.len());
            prop_assert_eq!(local_vlans(&vlans, now.iter().copied().map(id)), Ok(vlans));
        }
    }
}
