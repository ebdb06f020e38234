//! Changes that were planned as if all happened at once, for whoever can only make some at once: in steps, so that the
//! state after each is as sound as the whole.
//!
//! A change waits for those that make what it refers to, for those that let go of what it takes, and for those that stop
//! referring to what it removes. Where that goes round in a circle (two ports that swap their addresses), and where a
//! network's subnets and its routers' addresses move together, the circle is one step.
//! Nodes get and lose their places on physical networks in the order that `reach` settles.

mod reach;

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use self::reach::by_reach;
use super::{Claim, Fabric, claims_of};
use crate::model::check::gateway;
use crate::model::resource::{Change, Kind, NetworkSpec, Object, PortSpec, Resource, RouterSpec};

/// An object before and after a change.
struct Turn {
    object: Object,
    before: Option<Resource>,
    after: Option<Resource>,
}

/// By change: the changes that must come before it.
type Needs = Vec<Vec<usize>>;

impl Fabric {
    /// The numbers of these changes, which [`Self::plan`] made of this very state, in steps. Steps keep the order of the
    /// changes as far as they can; nearly all are of one change.
    #[must_use]
    pub fn steps(&self, changes: &[Change]) -> Vec<Vec<usize>> {
        let turn = |change: &Change| {
            let object = change.object();
            let before = self.get(&object);
            let after = match change {
                Change::Put(resource) => Some(resource.clone()),
                Change::Delete(_) => None,
            };
            Turn { object, before, after }
        };
        let turns: Vec<Turn> = changes.iter().map(turn).collect();
        let mut needs = vec![Vec::new(); turns.len()];
        by_claims(&turns, &mut needs);
        let at: BTreeMap<&Object, usize> = turns.iter().enumerate().map(|(at, turn)| (&turn.object, at)).collect();
        for (number, turn) in turns.iter().enumerate() {
            by_names(&turns, &at, (number, turn), &mut needs);
            by_references(&turns, &at, (number, turn), &mut needs);
        }
        by_reach(self, &turns, &mut needs);
        circles(&needs)
    }
}

/// Whoever takes a value waits for whoever lets go of it.
fn by_claims(turns: &[Turn], needs: &mut Needs) {
    let mut released: BTreeMap<Claim, Vec<usize>> = BTreeMap::new();
    for (number, turn) in turns.iter().enumerate().filter(|(_, turn)| turn.before.is_some()) {
        let after = claims(turn.after.as_ref());
        for claim in claims(turn.before.as_ref()).into_iter().filter(|claim| !after.contains(claim)) {
            released.entry(claim).or_default().push(number);
        }
    }
    if released.is_empty() {
        return;
    }
    for (number, turn) in turns.iter().enumerate() {
        let before = claims(turn.before.as_ref());
        for claim in claims(turn.after.as_ref()).iter().filter(|claim| !before.contains(claim)) {
            needs[number].extend(released.get(claim).into_iter().flatten().filter(|other| **other != number));
        }
    }
}

fn claims(resource: Option<&Resource>) -> BTreeSet<Claim> {
    let all = resource.map(claims_of).unwrap_or_default();
    // An id is one's own whatever it is the id of.
    let plain = |claim| if let Claim::PortId(id) = claim { Claim::Id(id) } else { claim };
    all.into_iter().map(plain).collect()
}

/// A node may be called what a machine was called, once that is gone, and the other way round.
fn by_names(turns: &[Turn], at: &BTreeMap<&Object, usize>, (number, turn): (usize, &Turn), needs: &mut Needs) {
    let other = match turn.object.kind {
        Kind::Node => Kind::Port,
        Kind::Port => Kind::Node,
        Kind::Network | Kind::Router => return,
    };
    let namesake = at.get(&Object::new(other, turn.object.name.as_str())).copied();
    if turn.after.is_some()
        && let Some(namesake) = namesake.filter(|namesake| turns[*namesake].after.is_none())
    {
        needs[number].push(namesake);
    }
}

fn by_references(turns: &[Turn], at: &BTreeMap<&Object, usize>, (number, turn): (usize, &Turn), needs: &mut Needs) {
    let (before, after) = (references(turn.before.as_ref()), references(turn.after.as_ref()));
    for (other, to) in before.union(&after).filter_map(|object| Some((*at.get(object)?, object))) {
        let target = &turns[other];
        let Some(target_after) = &target.after else {
            // What goes waits for all that referred to it.
            needs[other].push(number);
            continue;
        };
        let joins = after.contains(to);
        if target.before.is_none() {
            needs[number].push(other);
            continue;
        }
        let (Some(Resource::Network(was)), Resource::Network(is)) = (&target.before, target_after) else { continue };
        let (first, last) = match (&turn.before, &turn.after) {
            (Some(Resource::Router(old)), Some(Resource::Router(new))) if joins => {
                let moves = addresses(old, &to.name) != addresses(new, &to.name);
                (true, moves && before.contains(to))
            }
            (_, Some(Resource::Port(new))) if joins => {
                let old = match &turn.before {
                    Some(Resource::Port(old)) if before.contains(to) => Some(old),
                    Some(_) | None => None,
                };
                (!fits(new, was), old.is_some_and(|old| !fits(old, is)))
            }
            (_, Some(_)) if joins => (true, false),
            (Some(Resource::Port(old)), _) => (false, !fits(old, is)),
            (_, _) => (false, true),
        };
        if first {
            needs[number].push(other);
        }
        if last {
            needs[other].push(number);
        }
    }
}

/// What an object refers to.
fn references(resource: Option<&Resource>) -> BTreeSet<Object> {
    match resource {
        None | Some(Resource::Node(_) | Resource::Network(_)) => BTreeSet::new(),
        Some(Resource::Router(spec)) => {
            let networks = spec.interfaces.iter().map(|port| Object::new(Kind::Network, port.network.as_str()));
            networks.chain(spec.node.iter().map(|node| Object::new(Kind::Node, node.as_str()))).collect()
        }
        Some(Resource::Port(spec)) => {
            let nodes = [&spec.node, &spec.migrating_to].into_iter().flatten();
            let nodes = nodes.map(|node| Object::new(Kind::Node, node.as_str()));
            nodes.chain([Object::new(Kind::Network, spec.network.as_str())]).collect()
        }
    }
}

fn addresses<'r>(router: &'r RouterSpec, network: &str) -> &'r [IpAddr] {
    router.interfaces.iter().find(|port| port.network == network).map_or(&[], |port| &port.ips)
}

/// Whether a port's addresses are ones that a network has for ports.
fn fits(port: &PortSpec, network: &NetworkSpec) -> bool {
    port.ips.iter().all(|ip| {
        let subnet = network.subnets.iter().find(|subnet| subnet.cidr.contains(ip));
        subnet.is_some_and(|subnet| gateway(subnet) != *ip)
    })
}

/// The circles of a graph, those of one member included, each after all that it needs, else in the order of numbers
/// (Tarjan's algorithm, without recursion: a chain may be as long as there are changes).
fn circles(needs: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const UNSEEN: usize = usize::MAX;
    let mut seen = vec![UNSEEN; needs.len()];
    let mut least = vec![UNSEEN; needs.len()];
    let mut open = vec![false; needs.len()];
    let (mut stack, mut found, mut count) = (Vec::new(), Vec::new(), 0);
    for root in 0..needs.len() {
        if seen[root] != UNSEEN {
            continue;
        }
        // Each with how many of its needs were followed.
        let mut path = vec![(root, 0)];
        while let Some((at, followed)) = path.pop() {
            if followed == 0 {
                (seen[at], least[at], open[at]) = (count, count, true);
                count += 1;
                stack.push(at);
            }
            if let Some(&need) = needs[at].get(followed) {
                path.push((at, followed + 1));
                if seen[need] == UNSEEN {
                    path.push((need, 0));
                } else if open[need] {
                    least[at] = least[at].min(seen[need]);
                }
                continue;
            }
            if let Some((above, _)) = path.last() {
                least[*above] = least[*above].min(least[at]);
            }
            if least[at] == seen[at] {
                let from = stack.iter().rposition(|member| *member == at).unwrap_or_default();
                let mut circle = stack.split_off(from);
                circle.iter().for_each(|member| open[*member] = false);
                circle.sort_unstable();
                found.push(circle);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
