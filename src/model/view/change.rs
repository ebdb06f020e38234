//! A view's changes: each says one thing, in full, so that a change lost and sent again does no harm.
//!
//! Applying takes them in any order that keeps those about one object in theirs. What belongs to a network that is not
//! there yet is kept until it is. A removal names the owner it knows of, and erases nothing that belongs to a newer one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Backend, BridgeMappings, Network, NetworkView, NodeView, Peer, PortView, RemotePort, RouterView};
use crate::types::Mtu;

/// Entries kept of networks that are not there yet; what exceeds them is dropped, and [`NodeView::apply`] says so.
pub const EARLY_MOST: usize = 200_000;

/// One change of a node's view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ViewChange {
    /// The node itself.
    Node(Peer),
    /// The underlay.
    Underlay {
        /// Its MTU.
        mtu: Mtu,
        /// The UDP port of VXLAN on every node.
        vxlan_port: u16,
    },
    /// The interfaces by which the node is on physical networks.
    BridgeMappings(BridgeMappings),
    /// Another node is there, or has changed.
    Peer(Peer),
    /// Another node is no more.
    PeerGone {
        /// Its name.
        name: String,
    },
    /// The node has this network; its ports and nodes come apart from it.
    Network(Network),
    /// The node has a network no longer, nor anything on it.
    NetworkGone {
        /// Its name.
        name: String,
    },
    /// A machine's port is on this node.
    LocalPort {
        /// The network.
        network: String,
        /// The port.
        port: PortView,
    },
    /// A machine's port is on this node no longer.
    LocalPortGone {
        /// The network.
        network: String,
        /// The port's name.
        name: String,
    },
    /// A machine's port is on another node.
    RemotePort {
        /// The network.
        network: String,
        /// The port.
        port: RemotePort,
    },
    /// A machine's port is no longer on that other node.
    RemotePortGone {
        /// The network.
        network: String,
        /// The port's name.
        name: String,
        /// The node that had it: if another has it by now, nothing is erased.
        node: String,
    },
    /// Another node has the network: floods go there.
    Flood {
        /// The network.
        network: String,
        /// The other node.
        node: String,
    },
    /// Another node has the network no longer.
    FloodGone {
        /// The network.
        network: String,
        /// The other node.
        node: String,
    },
    /// The node holds this router.
    Router(RouterView),
    /// The node holds a router no longer.
    RouterGone {
        /// Its name.
        name: String,
    },
}

/// What arrived before its network, by network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Early(BTreeMap<String, EarlyNetwork>);

/// What is known of a network that is not there yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct EarlyNetwork {
    local_ports: Vec<PortView>,
    remote_ports: Vec<RemotePort>,
    flood: Vec<String>,
}

impl EarlyNetwork {
    fn len(&self) -> usize {
        self.local_ports.len() + self.remote_ports.len() + self.flood.len()
    }
}

impl Early {
    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many entries wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(EarlyNetwork::len).sum()
    }
}

/// The lists of one network, there or not yet.
struct Lists<'v> {
    local_ports: &'v mut Vec<PortView>,
    remote_ports: &'v mut Vec<RemotePort>,
    flood: &'v mut Vec<String>,
}

/// Puts an item where its key belongs in a list sorted by it, over one of the same key.
fn put<T>(list: &mut Vec<T>, item: T, key: impl Fn(&T) -> &str) {
    // Whole views arrive in order: the end is looked at first.
    if list.last().is_none_or(|last| key(last) < key(&item)) {
        list.push(item);
        return;
    }
    match list.binary_search_by(|other| key(other).cmp(key(&item))) {
        Ok(at) => list[at] = item,
        Err(at) => list.insert(at, item),
    }
}

/// Takes the item with a key out of a list sorted by it, if it meets the condition.
fn take<T>(list: &mut Vec<T>, name: &str, key: impl Fn(&T) -> &str, when: impl Fn(&T) -> bool) -> Option<T> {
    let at = list.binary_search_by(|other| key(other).cmp(name)).ok()?;
    when(&list[at]).then(|| list.remove(at))
}

impl NetworkView {
    /// The changes that make this network, itself first.
    #[must_use]
    pub fn changes(&self) -> Vec<ViewChange> {
        let Self { name, id, segment, mtu, subnets, local_ports, remote_ports, flood } = self;
        let (name, segment, subnets) = (name.clone(), segment.clone(), subnets.clone());
        let network = Network { name, id: *id, segment, mtu: *mtu, subnets };
        let name = &self.name;
        let mut changes = vec![ViewChange::Network(network)];
        list_changes(&mut changes, name, local_ports, remote_ports, flood);
        changes
    }
}

impl NodeView {
    /// The view of a node that nothing else is known of.
    #[must_use]
    pub fn new(node: Peer, underlay_mtu: Mtu, vxlan_port: u16) -> Self {
        Self {
            node,
            underlay_mtu,
            vxlan_port,
            bridge_mappings: BridgeMappings::new(),
            peers: Vec::new(),
            networks: Vec::new(),
            routers: Vec::new(),
            backend: Backend::default(),
            early: Early::default(),
        }
    }

    /// The changes that make this view out of one that knows its node alone, each network before what is on it.
    #[must_use]
    pub fn changes(&self) -> Vec<ViewChange> {
        let Self { node, underlay_mtu, vxlan_port, bridge_mappings, peers, networks, routers, backend: _, early } =
            self;
        let underlay = ViewChange::Underlay { mtu: *underlay_mtu, vxlan_port: *vxlan_port };
        let mappings = ViewChange::BridgeMappings(bridge_mappings.clone());
        let mut changes = vec![ViewChange::Node(node.clone()), underlay, mappings];
        changes.extend(peers.iter().cloned().map(ViewChange::Peer));
        changes.extend(networks.iter().flat_map(NetworkView::changes));
        for (name, EarlyNetwork { local_ports, remote_ports, flood }) in &early.0 {
            list_changes(&mut changes, name, local_ports, remote_ports, flood);
        }
        changes.extend(routers.iter().cloned().map(ViewChange::Router));
        changes
    }

    /// Takes a change in; `false` if it had to be dropped, because more than [`EARLY_MOST`] entries wait for their
    /// networks: the view must then be asked for anew.
    #[must_use]
    pub fn apply(&mut self, change: ViewChange) -> bool {
        match change {
            ViewChange::Node(node) => self.node = node,
            ViewChange::Underlay { mtu, vxlan_port } => (self.underlay_mtu, self.vxlan_port) = (mtu, vxlan_port),
            ViewChange::BridgeMappings(mappings) => self.bridge_mappings = mappings,
            ViewChange::Peer(peer) => put(&mut self.peers, peer, |peer| &peer.name),
            ViewChange::PeerGone { name } => drop(take(&mut self.peers, &name, |peer| &peer.name, |_| true)),
            ViewChange::Network(network) => self.put_network(network),
            ViewChange::NetworkGone { name } => {
                self.early.0.remove(&name);
                take(&mut self.networks, &name, |network| &network.name, |_| true);
            }
            ViewChange::LocalPort { network, port } => {
                return self.keep(&network, |lists| put(lists.local_ports, port, |port| &port.name));
            }
            ViewChange::RemotePort { network, port } => {
                return self.keep(&network, |lists| put(lists.remote_ports, port, |port| &port.name));
            }
            ViewChange::Flood { network, node } => {
                return self.keep(&network, |lists| put(lists.flood, node, |node| node));
            }
            ViewChange::LocalPortGone { network, name } => {
                self.lose(&network, |lists| drop(take(lists.local_ports, &name, |port| &port.name, |_| true)));
            }
            ViewChange::RemotePortGone { network, name, node } => self.lose(&network, |lists| {
                take(lists.remote_ports, &name, |port| &port.name, |port| port.node == node);
            }),
            ViewChange::FloodGone { network, node } => {
                self.lose(&network, |lists| drop(take(lists.flood, &node, |node| node, |_| true)));
            }
            ViewChange::Router(router) => put(&mut self.routers, router, |router| &router.name),
            ViewChange::RouterGone { name } => drop(take(&mut self.routers, &name, |router| &router.name, |_| true)),
        }
        true
    }

    fn put_network(&mut self, network: Network) {
        let Network { name, id, segment, mtu, subnets } = network;
        let found = self.networks.binary_search_by(|view| view.name.as_str().cmp(&name));
        let lists = match found {
            Ok(at) => {
                let view = &mut self.networks[at];
                EarlyNetwork {
                    local_ports: core::mem::take(&mut view.local_ports),
                    remote_ports: core::mem::take(&mut view.remote_ports),
                    flood: core::mem::take(&mut view.flood),
                }
            }
            Err(_) => self.early.0.remove(&name).unwrap_or_default(),
        };
        let EarlyNetwork { local_ports, remote_ports, flood } = lists;
        let view = NetworkView { name, id, segment, mtu, subnets, local_ports, remote_ports, flood };
        match found {
            Ok(at) => self.networks[at] = view,
            Err(at) => self.networks.insert(at, view),
        }
    }

    /// The lists of a network that is there.
    fn lists(&mut self, network: &str) -> Option<Lists<'_>> {
        let at = self.networks.binary_search_by(|view| view.name.as_str().cmp(network)).ok()?;
        let NetworkView { local_ports, remote_ports, flood, .. } = &mut self.networks[at];
        Some(Lists { local_ports, remote_ports, flood })
    }

    /// Adds to a network's lists, or to those that wait for it.
    fn keep(&mut self, network: &str, add: impl FnOnce(Lists<'_>)) -> bool {
        if let Some(lists) = self.lists(network) {
            add(lists);
            return true;
        }
        if self.early.len() >= EARLY_MOST {
            return false;
        }
        let EarlyNetwork { local_ports, remote_ports, flood } = self.early.0.entry(network.to_owned()).or_default();
        add(Lists { local_ports, remote_ports, flood });
        true
    }

    /// Takes from a network's lists, or from those that wait for it.
    fn lose(&mut self, network: &str, remove: impl FnOnce(Lists<'_>)) {
        if let Some(lists) = self.lists(network) {
            remove(lists);
        } else if let Some(waiting) = self.early.0.get_mut(network) {
            let EarlyNetwork { local_ports, remote_ports, flood } = waiting;
            remove(Lists { local_ports, remote_ports, flood });
            if waiting.len() == 0 {
                self.early.0.remove(network);
            }
        }
    }
}

fn list_changes(
    changes: &mut Vec<ViewChange>,
    network: &str,
    local_ports: &[PortView],
    remote_ports: &[RemotePort],
    flood: &[String],
) {
    let network = || network.to_owned();
    changes.extend(local_ports.iter().map(|port| ViewChange::LocalPort { network: network(), port: port.clone() }));
    changes.extend(remote_ports.iter().map(|port| ViewChange::RemotePort { network: network(), port: port.clone() }));
    changes.extend(flood.iter().map(|node| ViewChange::Flood { network: network(), node: node.clone() }));
}
