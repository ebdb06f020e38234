//! What is applied, listed and stored: one object of the desired state each, as JSON or YAML.
//!
//! ```yaml
//! kind: port
//! name: blue1
//! network: blue
//! node: node1
//! ```
//! A resource is a wish: names in it may lead nowhere and addresses may be taken. What can be allocated may be left out;
//! [`Fabric::plan`](super::Fabric::plan) checks, allocates, and hands back what may be stored, with nothing left out.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::view::{BridgeMappings, NetworkKind, SubnetView};
use crate::types::{IfName, Mac, Mtu, PhysicalNetwork, VlanId, Vni};

/// The kinds of objects, in the order in which they depend on each other: of what is new the nodes come first, of what
/// goes the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A host.
    Node,
    /// A layer-2 segment with its subnets.
    Network,
    /// A router.
    Router,
    /// A virtual machine's port.
    Port,
}

impl Kind {
    /// All kinds, in order.
    pub const ALL: [Self; 4] = [Self::Node, Self::Network, Self::Router, Self::Port];

    /// The kind's word, as in `kind: port`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Network => "network",
            Self::Router => "router",
            Self::Port => "port",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.word())
    }
}

/// A word that names no kind of object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no kind of object: use node, network, router or port")]
pub struct BadKind(String);

impl FromStr for Kind {
    type Err = BadKind;

    /// The kind of a word, singular or plural; `vm` is a port.
    fn from_str(word: &str) -> Result<Self, BadKind> {
        let singular = word.strip_suffix('s').unwrap_or(word);
        let found = Self::ALL.into_iter().find(|kind| kind.word() == singular);
        found.or((singular == "vm").then_some(Self::Port)).ok_or_else(|| BadKind(word.to_owned()))
    }
}

/// The name of an object among all: its kind and its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name, unique among its kind.
    pub name: String,
}

impl Object {
    /// The object of a kind and name.
    #[must_use]
    pub fn new(kind: Kind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A port is called what it is a machine's: messages speak of what the topology file calls `vms`.
        let word = match self.kind {
            Kind::Node | Kind::Network | Kind::Router => self.kind.word(),
            Kind::Port => "virtual machine",
        };
        write!(out, "{word} `{}`", self.name)
    }
}

/// One object of the desired state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Resource {
    /// A host.
    Node(NodeSpec),
    /// A network.
    Network(NetworkSpec),
    /// A router.
    Router(RouterSpec),
    /// A virtual machine's port.
    Port(PortSpec),
}

impl Resource {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Node(_) => Kind::Node,
            Self::Network(_) => Kind::Network,
            Self::Router(_) => Kind::Router,
            Self::Port(_) => Kind::Port,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Node(spec) => &spec.name,
            Self::Network(spec) => &spec.name,
            Self::Router(spec) => &spec.name,
            Self::Port(spec) => &spec.name,
        }
    }

    /// Its kind and name.
    #[must_use]
    pub fn object(&self) -> Object {
        Object::new(self.kind(), self.name())
    }
}

/// A host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// Its tunnel endpoint; allocated from the underlay's prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The MAC that stands for every router on its wire; allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_mac: Option<Mac>,
    /// The interfaces by which it is on physical networks; none if left out of a new node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge_mappings: Option<BridgeMappings>,
}

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// Its id; allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// How its frames cross the underlay.
    #[serde(default, rename = "type")]
    pub kind: NetworkKind,
    /// Its tunnel key, if tunnels carry it; allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vni: Option<Vni>,
    /// The physical network of a VLAN or flat network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_network: Option<PhysicalNetwork>,
    /// The tag of a VLAN network; allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanId>,
    /// The MTU of everything on it; the most the underlay carries if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Mtu>,
    /// Its subnets; at least one, no two overlap.
    pub subnets: Vec<SubnetView>,
}

/// A router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterSpec {
    /// Its name.
    pub name: String,
    /// Its id; allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Whether it lives on every node that needs it, or on one.
    #[serde(default = "yes")]
    pub distributed: bool,
    /// The one node it lives on if it is not distributed; chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The networks it joins.
    #[serde(default)]
    pub interfaces: Vec<InterfaceSpec>,
}

/// A router's interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceSpec {
    /// The network it is on.
    pub network: String,
    /// The port's id; allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Its MAC; allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Its addresses, one a subnet; a subnet's gateway if that is free, else allocated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpAddr>,
}

/// A virtual machine's port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortSpec {
    /// The virtual machine's name.
    pub name: String,
    /// The port's id; allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// The network it is on.
    pub network: String,
    /// The node it is bound to, where its traffic goes; without one it is nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The node it is about to move to: ready there, but no traffic goes there until `node` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migrating_to: Option<String>,
    /// Its MAC; allocated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Its addresses; one a family is allocated if the network has a subnet of the family and none is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpAddr>,
    /// An interface on the node that somebody else makes and configures; without one, a namespace stands for the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<IfName>,
    /// Addresses besides its own that it may speak as.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_address_pairs: Vec<AddressPair>,
    /// Whether it may speak only as itself and its allowed pairs.
    #[serde(default = "yes")]
    pub port_security: bool,
    /// Addresses of its allowed pairs that it has, because it announced them and nobody else since. Not to be asked for:
    /// what is written here is passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claimed: Vec<ClaimedAddress>,
}

impl PortSpec {
    /// Whether one of its allowed pairs is exactly this address, spoken for with this MAC. As in Neutron a prefix lets it
    /// speak, and entitles it to nothing.
    #[must_use]
    pub fn is_entitled(&self, address: ClaimedAddress) -> bool {
        let ClaimedAddress { ip, mac } = address;
        let pairs = self.allowed_address_pairs.iter();
        pairs.filter(|pair| pair.ip == IpNet::from(ip)).any(|pair| pair.mac.or(self.mac) == Some(mac))
    }
}

/// Addresses a port may speak as besides its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddressPair {
    /// The addresses: a prefix, of full length for a single one.
    pub ip: IpNet,
    /// The MAC they are spoken for with; the port's own if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

fn yes() -> bool {
    true
}

/// An address that a port of the network took by announcing it (a virtual address that fails over), and the MAC it is
/// reached by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimedAddress {
    /// The address.
    pub ip: IpAddr,
    /// The MAC.
    pub mac: Mac,
}

/// A port's word that it has an address from now on, as its node heard it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressClaim {
    /// The port.
    pub port: String,
    /// The node that heard it.
    pub node: String,
    /// What it claims.
    pub address: ClaimedAddress,
}

/// A change that somebody asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edit {
    /// Let the object be this, whatever it was. What can be allocated and is left out stays as it is, or is allocated.
    Put {
        /// The object.
        resource: Resource,
        /// The revision it must be at, for whoever keeps revisions; any if `None`.
        revision: Option<u64>,
    },
    /// Let the object be no more.
    Delete {
        /// Its kind and name.
        object: Object,
        /// The revision it must be at, for whoever keeps revisions; any if `None`.
        revision: Option<u64>,
    },
    /// Let a port have an address it announced, and whoever had it so far have it no longer.
    Claim(AddressClaim),
}

impl Edit {
    /// Asks for a resource, at whatever revision.
    #[must_use]
    pub fn put(resource: Resource) -> Self {
        Self::Put { resource, revision: None }
    }

    /// Asks for an object's end, at whatever revision.
    #[must_use]
    pub fn delete(kind: Kind, name: impl Into<String>) -> Self {
        Self::Delete { object: Object::new(kind, name), revision: None }
    }

    /// The object it is about.
    #[must_use]
    pub fn object(&self) -> Object {
        match self {
            Self::Put { resource, .. } => resource.object(),
            Self::Delete { object, .. } => object.clone(),
            Self::Claim(claim) => Object::new(Kind::Port, &claim.port),
        }
    }

    /// The revision its object must be at; any if `None`.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        match self {
            Self::Put { revision, .. } | Self::Delete { revision, .. } => *revision,
            Self::Claim(_) => None,
        }
    }
}

/// A change that was checked: what [`Fabric::plan`](super::Fabric::plan) makes of edits, to be stored as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// The object becomes this; nothing is left out.
    Put(Resource),
    /// The object is no more.
    Delete(Object),
}

impl Change {
    /// The object it is about.
    #[must_use]
    pub fn object(&self) -> Object {
        match self {
            Self::Put(resource) => resource.object(),
            Self::Delete(object) => object.clone(),
        }
    }
}
