//! All desired state, checked and indexed: every operation costs what it touches, not the whole.
//!
//! Two ways in. [`Fabric::plan`] takes what somebody asks for, settles whether it may be, fills in what was left out,
//! and changes nothing. [`Fabric::put`] and [`Fabric::remove`] take what the store says, in its order: it may come
//! before what it refers to, so a name that leads nowhere is kept, and counts from when it leads somewhere.

mod claims;
mod resolve;
mod steps;

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::check::{Pass, check};
use super::problem::Refusal;
use super::resource::{Change, Edit, Kind, NetworkSpec, NodeSpec, Object, PortSpec, Resource, RouterSpec};
use super::topology::Underlay;

pub(super) use claims::{Borne, Claim, Claims, Owners, claims_of, next, short_id};
pub use resolve::Binding;
pub(crate) use resolve::{network, port_view, remote_interfaces, remote_port, router_view};

/// All desired state.
#[derive(Debug, Clone, Default)]
pub struct Fabric {
    underlay: Underlay,
    nodes: BTreeMap<String, NodeSpec>,
    networks: BTreeMap<String, NetworkSpec>,
    routers: BTreeMap<String, RouterSpec>,
    ports: BTreeMap<String, PortSpec>,
    claims: Claims,
    /// By network: its ports.
    ports_of: Index,
    /// By node: the ports bound to it or on their way to it.
    ports_on: Index,
    /// By network: the routers that join it.
    routers_of: Index,
    /// By node: the routers that live on it alone.
    routers_on: Index,
}

/// From a name to the names of what refers to it.
type Index = BTreeMap<String, BTreeSet<String>>;

/// What a change touched: an object as it was and as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    /// Which object.
    pub object: Object,
    /// As it was; `None` if it is new.
    pub before: Option<Resource>,
    /// As it is; `None` if it is no more.
    pub after: Option<Resource>,
}

impl Fabric {
    /// An empty fabric over this underlay.
    #[must_use]
    pub fn new(underlay: Underlay) -> Self {
        Self { underlay, ..Self::default() }
    }

    /// What carries the tunnels.
    #[must_use]
    pub fn underlay(&self) -> &Underlay {
        &self.underlay
    }

    /// The nodes, by name.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<String, NodeSpec> {
        &self.nodes
    }

    /// The networks, by name.
    #[must_use]
    pub fn networks(&self) -> &BTreeMap<String, NetworkSpec> {
        &self.networks
    }

    /// The routers, by name.
    #[must_use]
    pub fn routers(&self) -> &BTreeMap<String, RouterSpec> {
        &self.routers
    }

    /// The ports, by name.
    #[must_use]
    pub fn ports(&self) -> &BTreeMap<String, PortSpec> {
        &self.ports
    }

    /// The names of a network's ports.
    pub fn ports_of(&self, network: &str) -> impl Iterator<Item = &str> {
        self.ports_of.get(network).into_iter().flatten().map(String::as_str)
    }

    /// The names of the ports bound to a node or on their way to it.
    pub fn ports_on(&self, node: &str) -> impl Iterator<Item = &str> {
        self.ports_on.get(node).into_iter().flatten().map(String::as_str)
    }

    /// The names of the routers that join a network.
    pub fn routers_of(&self, network: &str) -> impl Iterator<Item = &str> {
        self.routers_of.get(network).into_iter().flatten().map(String::as_str)
    }

    /// The port of an id.
    #[must_use]
    pub fn port_of_id(&self, id: Uuid) -> Option<&Object> {
        self.claims.ids.of(&id).find(|owner| owner.kind == Kind::Port)
    }

    /// The names of the routers that are to live on a node alone.
    pub fn routers_on(&self, node: &str) -> impl Iterator<Item = &str> {
        self.routers_on.get(node).into_iter().flatten().map(String::as_str)
    }

    /// An object.
    #[must_use]
    pub fn get(&self, object: &Object) -> Option<Resource> {
        let name = object.name.as_str();
        match object.kind {
            Kind::Node => self.nodes.get(name).cloned().map(Resource::Node),
            Kind::Network => self.networks.get(name).cloned().map(Resource::Network),
            Kind::Router => self.routers.get(name).cloned().map(Resource::Router),
            Kind::Port => self.ports.get(name).cloned().map(Resource::Port),
        }
    }

    /// Whether there is such an object.
    #[must_use]
    pub fn contains(&self, object: &Object) -> bool {
        let name = object.name.as_str();
        match object.kind {
            Kind::Node => self.nodes.contains_key(name),
            Kind::Network => self.networks.contains_key(name),
            Kind::Router => self.routers.contains_key(name),
            Kind::Port => self.ports.contains_key(name),
        }
    }

    /// Whether an object is exactly this already.
    #[must_use]
    pub fn holds(&self, resource: &Resource) -> bool {
        match resource {
            Resource::Node(spec) => self.nodes.get(&spec.name) == Some(spec),
            Resource::Network(spec) => self.networks.get(&spec.name) == Some(spec),
            Resource::Router(spec) => self.routers.get(&spec.name) == Some(spec),
            Resource::Port(spec) => self.ports.get(&spec.name) == Some(spec),
        }
    }

    /// Who has what that must be unique.
    pub(super) fn claims(&self) -> &Claims {
        &self.claims
    }

    /// How many objects of a kind there are.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Node => self.nodes.len(),
            Kind::Network => self.networks.len(),
            Kind::Router => self.routers.len(),
            Kind::Port => self.ports.len(),
        }
    }

    /// The objects of a kind, by name.
    #[must_use]
    pub fn list(&self, kind: Kind) -> Vec<Resource> {
        match kind {
            Kind::Node => self.nodes.values().cloned().map(Resource::Node).collect(),
            Kind::Network => self.networks.values().cloned().map(Resource::Network).collect(),
            Kind::Router => self.routers.values().cloned().map(Resource::Router).collect(),
            Kind::Port => self.ports.values().cloned().map(Resource::Port).collect(),
        }
    }

    /// Every object, by kind in the order in which they depend on each other, then by name.
    #[must_use]
    pub fn resources(&self) -> Vec<Resource> {
        Kind::ALL.into_iter().flat_map(|kind| self.list(kind)).collect()
    }

    /// Checks what is asked for against all there is, as if all of it happened at once, and fills in what was left out.
    /// What comes out may be stored as it is, in an order in which each change finds what it refers to. It may be more than was asked for: a router follows its network's subnets. What would change
    /// nothing is left out.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn plan(&self, edits: &[Edit]) -> Result<Vec<Change>, Refusal> {
        check(self, edits, Pass::Complete).map_err(|faults| faults.refusal(edits))
    }

    /// Takes in what the store says an object is.
    pub fn put(&mut self, resource: Resource) -> Touched {
        let object = resource.object();
        let before = self.take(&object);
        for claim in claims_of(&resource) {
            self.claims.add(claim, &object);
        }
        self.index(&resource, true);
        let after = Some(resource.clone());
        match resource {
            Resource::Node(spec) => drop(self.nodes.insert(spec.name.clone(), spec)),
            Resource::Network(spec) => drop(self.networks.insert(spec.name.clone(), spec)),
            Resource::Router(spec) => drop(self.routers.insert(spec.name.clone(), spec)),
            Resource::Port(spec) => drop(self.ports.insert(spec.name.clone(), spec)),
        }
        Touched { object, before, after }
    }

    /// Takes in that the store has an object no longer.
    pub fn remove(&mut self, object: &Object) -> Touched {
        Touched { object: object.clone(), before: self.take(object), after: None }
    }

    /// Takes in a change.
    pub fn change(&mut self, change: Change) -> Touched {
        match change {
            Change::Put(resource) => self.put(resource),
            Change::Delete(object) => self.remove(&object),
        }
    }

    /// Takes an object out, with its claims and its place in the indexes.
    fn take(&mut self, object: &Object) -> Option<Resource> {
        let name = object.name.as_str();
        let resource = match object.kind {
            Kind::Node => self.nodes.remove(name).map(Resource::Node),
            Kind::Network => self.networks.remove(name).map(Resource::Network),
            Kind::Router => self.routers.remove(name).map(Resource::Router),
            Kind::Port => self.ports.remove(name).map(Resource::Port),
        }?;
        for claim in claims_of(&resource) {
            self.claims.remove(claim, object);
        }
        self.index(&resource, false);
        Some(resource)
    }

    /// Notes or forgets whom an object refers to.
    fn index(&mut self, resource: &Resource, there: bool) {
        match resource {
            Resource::Node(_) | Resource::Network(_) => {}
            Resource::Router(router) => {
                for port in &router.interfaces {
                    note(&mut self.routers_of, &port.network, &router.name, there);
                }
                if let Some(node) = &router.node {
                    note(&mut self.routers_on, node, &router.name, there);
                }
            }
            Resource::Port(port) => {
                note(&mut self.ports_of, &port.network, &port.name, there);
                for node in [&port.node, &port.migrating_to].into_iter().flatten() {
                    note(&mut self.ports_on, node, &port.name, there);
                }
            }
        }
    }
}

fn note(index: &mut Index, key: &str, name: &str, there: bool) {
    if there {
        if let Some(names) = index.get_mut(key) {
            names.insert(name.to_owned());
        } else {
            index.insert(key.to_owned(), BTreeSet::from([name.to_owned()]));
        }
    } else if let Some(names) = index.get_mut(key) {
        names.remove(name);
        if names.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests;
