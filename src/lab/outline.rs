//! What a lab is made of: the topology, every node's view of it, the VMs that can be entered, and what they are promised.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use super::Error;
use crate::model::view::{Attachment, NetworkView, NodeView, RouterPort};
use crate::model::{Topology, Underlay};
use crate::placement::{self, Expectation, Why};
use crate::types::Mac;

/// A topology, seen as a lab sees it.
#[derive(Debug, Clone)]
pub struct Outline {
    /// Every node's view, by name.
    pub views: BTreeMap<String, NodeView>,
    /// The VMs that are namespaces of this lab, by name.
    pub stations: Vec<Station>,
    /// Who reaches whom.
    pub promises: Vec<Promise>,
    /// Stations and addresses that are promised nothing, but at which somebody else than a station may answer, such as a
    /// router that bears the address where tenants overlap.
    pub answered_by_others: BTreeSet<(usize, IpAddr)>,
    /// Stations and addresses with a way there and none back: the request arrives, a reply cannot. With the station that
    /// bears the address.
    pub one_way: BTreeMap<(usize, IpAddr), usize>,
    /// What carries the tunnels.
    pub underlay: Underlay,
}

/// A virtual machine that is a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Station {
    /// Its name.
    pub vm: String,
    /// The node it is on.
    pub node: String,
    /// Its namespace inside the node.
    pub netns: String,
    /// Its network.
    pub network: String,
    /// Its address.
    pub mac: Mac,
    /// Its IP addresses.
    pub ips: Vec<IpAddr>,
    /// Those of its gateways that a router bears.
    pub gateways: Vec<IpAddr>,
}

/// That a station reaches an address of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// The asking station's place in [`Outline::stations`].
    pub from: usize,
    /// The asked one's.
    pub to: usize,
    /// The address.
    pub target: IpAddr,
    /// Routers on the way.
    pub hops: u8,
}

impl Outline {
    /// Reads and checks a document whole. `origin` is what messages call it.
    ///
    /// # Errors
    /// [`Error::Topology`] with every mistake's line and column.
    pub fn read(origin: &str, text: &str) -> Result<Self, Error> {
        let topology = Topology::parse(text, origin).map_err(|error| Error::Topology(error.to_string()))?;
        Ok(Self::of(&topology))
    }

    /// The outline of a checked topology.
    #[must_use]
    pub fn of(topology: &Topology) -> Self {
        let views: BTreeMap<String, NodeView> = topology
            .nodes()
            .keys()
            .filter_map(|node| placement::view(topology, node).map(|view| (node.clone(), view)))
            .collect();
        let mut stations: Vec<Station> = views.values().flat_map(stations_of).collect();
        stations.sort_by(|one, other| one.vm.cmp(&other.vm));
        let mut outline = Self {
            views,
            stations,
            promises: Vec::new(),
            answered_by_others: BTreeSet::new(),
            one_way: BTreeMap::new(),
            underlay: topology.underlay().clone(),
        };
        outline.note_promises(topology);
        outline
    }

    fn note_promises(&mut self, topology: &Topology) {
        let index: BTreeMap<&str, usize> =
            self.stations.iter().enumerate().map(|(at, station)| (station.vm.as_str(), at)).collect();
        for promise in placement::promises(topology) {
            let (Some(from), Some(to)) = (index.get(promise.from.as_str()), index.get(promise.to.as_str())) else {
                continue;
            };
            match (promise.expect, promise.why) {
                (Expectation::Reach, why) => {
                    let hops = u8::from(matches!(why, Why::Routed { .. }));
                    self.promises.push(Promise { from: *from, to: *to, target: promise.target, hops });
                }
                (Expectation::OneWay, _) => drop(self.one_way.insert((*from, promise.target), *to)),
                (Expectation::Isolated, _) => {
                    if promise.answered_by.is_some() {
                        self.answered_by_others.insert((*from, promise.target));
                    }
                }
            }
        }
    }
}

fn stations_of(view: &NodeView) -> impl Iterator<Item = Station> {
    view.networks.iter().flat_map(|network| {
        // One on its way here is still where it was.
        network.local_ports.iter().filter(|port| !port.standby).filter_map(|port| {
            let Attachment::Netns { netns, .. } = &port.attach else { return None };
            Some(Station {
                vm: port.name.clone(),
                node: view.node.name.clone(),
                netns: netns.clone(),
                network: network.name.clone(),
                mac: port.mac,
                ips: port.addresses.iter().map(ipnet::IpNet::addr).collect(),
                gateways: port.gateways.iter().copied().filter(|gateway| borne(view, network, *gateway)).collect(),
            })
        })
    })
}

/// Whether a router bears the address on the network, here or elsewhere.
fn borne(view: &NodeView, network: &NetworkView, gateway: IpAddr) -> bool {
    let ports = view.routers.iter().flat_map(|router| &router.interfaces);
    let elsewhere = network.remote_ports.iter().any(|port| port.router && port.ips.contains(&gateway));
    elsewhere || ports.filter(|port| port.network == network.name).any(|port| bears(port, gateway))
}

fn bears(port: &RouterPort, address: IpAddr) -> bool {
    port.addresses.iter().any(|net| net.addr() == address)
}
