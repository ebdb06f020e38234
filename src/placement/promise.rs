//! What a topology promises its virtual machines: who must reach whom at which address, and who must not.
//!
//! A machine knows its own subnets and one default gateway a family; a router knows the subnets it is connected to and
//! nothing beyond, so a chain of routers carries nothing. A packet must find its way there *and* back; with a way there
//! and none back, a request arrives and an answer does not.

use core::fmt;
use core::net::IpAddr;
use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Serialize;

use crate::model::view::RouterView;
use crate::model::{Topology, Vm};

/// One pair of machines, one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Promise {
    /// The machine that asks.
    pub from: String,
    /// The machine that is meant.
    pub to: String,
    /// The address of `to` that is asked for.
    pub target: IpAddr,
    /// What must happen.
    pub expect: Expectation,
    /// Why.
    pub why: Why,
    /// Who answers at `target` as `from` sees it, if anybody: a machine's name, or a router's as `router r1`. Where
    /// tenants' prefixes overlap, `target` may mean somebody else to `from` (itself included): a bare answer is then no
    /// breach of isolation, but one by `to` is. Never `to`, unless it is to be reached.
    pub answered_by: Option<String>,
}

/// What must happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expectation {
    /// `to` answers.
    Reach,
    /// `to` hears of it; its answer finds no way back.
    OneWay,
    /// `to` never hears of it.
    Isolated,
}

/// Why a machine must or must not reach another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Both are in one subnet of one network.
    SameNetwork,
    /// The gateway of `from` is this router, and it is connected to the subnet of the target; and likewise back.
    Routed {
        /// The router on the way there.
        via: String,
    },
    /// The way there is there; the gateway of `to` is not connected to the subnet of `from`.
    NoWayBack,
    /// No router is the gateway of the one and connected to the other.
    NoCommonRouter,
    /// `from` has no address of the target's family.
    NoAddress,
}

impl fmt::Display for Why {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameNetwork => out.write_str("same network"),
            Self::Routed { via } => write!(out, "routed via {via}"),
            Self::NoWayBack => out.write_str("no way back"),
            Self::NoCommonRouter => out.write_str("no common router"),
            Self::NoAddress => out.write_str("no address of that family"),
        }
    }
}

/// Every promise of a topology: for each ordered pair of different machines, each address of the second.
#[must_use]
pub fn promises(topology: &Topology) -> Vec<Promise> {
    let paths = Paths::of(topology);
    let mut promises = Vec::new();
    for from in topology.vms().values() {
        for to in topology.vms().values().filter(|to| to.port.name != from.port.name) {
            promises.extend(to.port.addresses.iter().map(|target| paths.promise(from, to, target.addr())));
        }
    }
    promises
}

/// Who bears an address.
#[derive(Clone, Copy, PartialEq)]
enum Bearer<'t> {
    Vm(&'t str),
    Router(&'t str),
}

/// Where a packet to an address ends up.
#[derive(Clone, Copy)]
struct Arrival<'t> {
    bearer: Bearer<'t>,
    via: Option<&'t str>,
}

struct Paths<'t> {
    topology: &'t Topology,
    /// By network and address.
    bearers: BTreeMap<(&'t str, IpAddr), Bearer<'t>>,
}

impl<'t> Paths<'t> {
    fn of(topology: &'t Topology) -> Self {
        let mut bearers = BTreeMap::new();
        for (name, vm) in topology.vms() {
            bearers.extend(vm.port.addresses.iter().map(|net| ((vm.network.as_str(), net.addr()), Bearer::Vm(name))));
        }
        for (name, router) in topology.routers() {
            for port in &router.interfaces {
                let own = port.addresses.iter().map(|net| ((port.network.as_str(), net.addr()), Bearer::Router(name)));
                bearers.extend(own);
            }
        }
        Self { topology, bearers }
    }

    fn promise(&self, from: &'t Vm, to: &'t Vm, target: IpAddr) -> Promise {
        let arrival = source(from, target).and_then(|_| self.arrival(from, target));
        let (expect, why) = match (source(from, target), arrival) {
            (None, _) => (Expectation::Isolated, Why::NoAddress),
            (Some(source), Some(arrival)) if arrival.bearer == Bearer::Vm(&to.port.name) => {
                let back = self.arrival(to, source.addr());
                match (back.map(|back| back.bearer == Bearer::Vm(&from.port.name)), arrival.via) {
                    (Some(true), Some(via)) => (Expectation::Reach, Why::Routed { via: via.to_owned() }),
                    (Some(true), None) => (Expectation::Reach, Why::SameNetwork),
                    (Some(false) | None, _) => (Expectation::OneWay, Why::NoWayBack),
                }
            }
            (Some(_), Some(_) | None) => (Expectation::Isolated, Why::NoCommonRouter),
        };
        let answered_by = arrival.map(|arrival| match arrival.bearer {
            Bearer::Vm(name) => name.to_owned(),
            Bearer::Router(name) => format!("router {name}"),
        });
        let answered_by = answered_by.filter(|name| expect == Expectation::Reach || *name != to.port.name);
        Promise { from: from.port.name.clone(), to: to.port.name.clone(), target, expect, why, answered_by }
    }

    /// Where a packet from a machine to an address ends up: on its own links, else past its gateway.
    fn arrival(&self, from: &'t Vm, target: IpAddr) -> Option<Arrival<'t>> {
        if from.port.addresses.iter().any(|net| net.contains(&target)) {
            let bearer = *self.bearers.get(&(from.network.as_str(), target))?;
            return Some(Arrival { bearer, via: None });
        }
        let gateway = from.port.gateways.iter().find(|gateway| gateway.is_ipv4() == target.is_ipv4())?;
        let Bearer::Router(via) = *self.bearers.get(&(from.network.as_str(), *gateway))? else { return None };
        let router = self.topology.routers().get(via)?;
        let bearer = *self.bearers.get(&(connected(router, target)?, target))?;
        Some(Arrival { bearer, via: Some(via) })
    }
}

/// The network of the router's subnet that holds an address: at most one, as a router's subnets never overlap.
fn connected(router: &RouterView, target: IpAddr) -> Option<&str> {
    let port = router.interfaces.iter().find(|port| port.addresses.iter().any(|net| net.contains(&target)))?;
    Some(&port.network)
}

/// The address a machine speaks from to a target: its first of the family.
fn source(from: &Vm, target: IpAddr) -> Option<IpNet> {
    from.port.addresses.iter().copied().find(|net| net.addr().is_ipv4() == target.is_ipv4())
}
