//! Which routes to add and to remove.

use core::fmt;

use super::{PROTOCOL, RouteSpec, RouteState};

/// A change to one namespace's main tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteOp {
    /// Add this route, marked with [`PROTOCOL`]. It never replaces one: another owner's route to the same destination
    /// with the same metric makes the request fail, and the error names it.
    Add(RouteSpec),
    /// Remove this route of ours.
    Remove(RouteSpec),
}

impl fmt::Display for RouteOp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(route) => write!(out, "add route {route}"),
            Self::Remove(route) => write!(out, "remove route {route}"),
        }
    }
}

impl RouteState {
    /// Whether this route does what `spec` asks for, whoever made it.
    #[must_use]
    pub fn satisfies(&self, spec: &RouteSpec) -> bool {
        let Self { destination, gateway, ifname, protocol: _, metric: _ } = self;
        (gateway.is_some() || ifname.is_some())
            && destination.trunc() == spec.destination.trunc()
            && *gateway == spec.gateway
            && (spec.ifname.is_none() || *ifname == spec.ifname)
    }

    /// The route as something wanted.
    #[must_use]
    pub fn project(&self) -> RouteSpec {
        RouteSpec { destination: self.destination, gateway: self.gateway, ifname: self.ifname.clone() }
    }
}

/// The changes that make our routes exactly `desired`, removals first: a removal may free the destination for an addition.
/// Routes with another protocol number are never removed, and one that does what is asked saves the addition.
#[must_use]
pub fn diff(desired: &[RouteSpec], observed: &[RouteState]) -> Vec<RouteOp> {
    let surplus = observed
        .iter()
        .filter(|state| state.protocol == PROTOCOL && !desired.iter().any(|spec| state.satisfies(spec)))
        .map(|state| RouteOp::Remove(state.project()));
    let missing = desired
        .iter()
        .enumerate()
        .filter(|(index, spec)| {
            !desired[..*index].contains(spec) && !observed.iter().any(|state| state.satisfies(spec))
        })
        .map(|(_, spec)| RouteOp::Add(spec.clone()));
    surplus.chain(missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::IfName;

    fn route(destination: &str, gateway: &str) -> RouteSpec {
        RouteSpec {
            destination: destination.parse().expect("a prefix"),
            gateway: Some(gateway.parse().expect("an address")),
            ifname: None,
        }
    }

    fn state(destination: &str, gateway: &str, protocol: u8) -> RouteState {
        let RouteSpec { destination, gateway, .. } = route(destination, gateway);
        let ifname = Some(IfName::new("eth0").expect("a legal name"));
        RouteState { destination, gateway, ifname, protocol, metric: 0 }
    }

    #[test]
    fn replaces_ours_and_spares_the_rest() {
        let desired =
            [route("0.0.0.0/0", "10.0.0.1"), route("10.9.0.0/16", "10.0.0.2"), route("10.9.0.0/16", "10.0.0.2")];
        let observed = [
            state("0.0.0.0/0", "10.0.0.254", PROTOCOL),
            state("10.9.0.0/16", "10.0.0.2", 3),
            state("10.8.0.0/16", "10.0.0.2", 3),
        ];
        let printed: Vec<String> = diff(&desired, &observed).iter().map(ToString::to_string).collect();
        assert_eq!(
            printed,
            ["remove route 0.0.0.0/0 via 10.0.0.254 dev eth0", "add route 0.0.0.0/0 via 10.0.0.1"],
            "the route somebody else made serves as well as ours would"
        );
    }
}
