//! The second pass: what was left out is allocated, in the order of names, around everything explicit.
//!
//! Routers get their addresses before virtual machines, so that a machine's arrival never moves a router.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use serde_saphyr::Location;
use uuid::Uuid;

use super::{Checker, Declared, Interface, Node, Router, Vm};
use crate::model::allocate;
use crate::model::names;
use crate::model::problem::Problem;
use crate::model::topology::{self, Topology, Underlay};
use crate::model::view::{Attachment, Peer, PortView, RouterPort, RouterView, SubnetView};
use crate::types::{Mac, Vni};

type Networks = BTreeMap<String, topology::Network>;

/// The topology; `None` or mistakes in the checker if something could not be allocated.
pub(super) fn complete(checker: &mut Checker, declared: Declared<'_>) -> Option<Topology> {
    let Declared { underlay, nodes, networks, routers, vms } = declared;
    let nodes = complete_nodes(checker, &underlay, nodes)?;
    let networks = complete_networks(checker, networks)?;
    let routers = complete_routers(checker, &networks, routers)?;
    let vms = complete_vms(checker, &networks, vms)?;
    Some(Topology { underlay, nodes, networks, routers, vms })
}

fn complete_nodes(
    checker: &mut Checker,
    underlay: &Underlay,
    nodes: BTreeMap<&str, Node>,
) -> Option<BTreeMap<String, Peer>> {
    let mut complete = BTreeMap::new();
    for (name, Node { place, address, host_mac }) in nodes {
        let owner = format!("node `{name}`");
        let tunnel_ip = match address.or_else(|| checker.underlay.lowest(underlay.cidr, None, || owner.clone())) {
            Some(address) => address,
            None => {
                no_room(checker, place, &owner, format!("underlay `{}`", underlay.cidr));
                return None;
            }
        };
        let derived =
            host_mac.or_else(|| allocate::host_mac(name, |mac| checker.macs.contains_key(&mac), checker.macs.len()));
        let host_mac = checker.exhausted(place, "host MAC", derived)?;
        checker.macs.insert(host_mac, owner);
        complete.insert(name.to_owned(), Peer { name: name.to_owned(), tunnel_ip, host_mac });
    }
    Some(complete)
}

fn complete_networks(checker: &mut Checker, networks: BTreeMap<&str, super::Network>) -> Option<Networks> {
    let mut taken: BTreeSet<Vni> = checker.vnis.keys().copied().collect();
    let mut complete = BTreeMap::new();
    for (name, super::Network { place, id, kind, vni, mtu, subnets }) in networks {
        let owner = format!("network `{name}`");
        let id = match id {
            Some(id) => id,
            None => checker.derive_id(place, "network", name, &owner, false)?,
        };
        let vni = checker.exhausted(place, "VNI", vni.or_else(|| allocate::vni(name, &taken)))?;
        taken.insert(vni);
        complete.insert(name.to_owned(), topology::Network { name: name.to_owned(), id, kind, vni, mtu, subnets });
    }
    Some(complete)
}

fn complete_routers(
    checker: &mut Checker,
    networks: &Networks,
    routers: BTreeMap<&str, Router<'_>>,
) -> Option<BTreeMap<String, RouterView>> {
    let mut complete = BTreeMap::new();
    for (name, Router { place, id, interfaces }) in routers {
        let owner = format!("router `{name}`");
        let id = match id {
            Some(id) => id,
            None => checker.derive_id(place, "router", name, &owner, false)?,
        };
        let interfaces: Option<Vec<RouterPort>> =
            interfaces.into_iter().map(|interface| router_port(checker, networks, name, &owner, interface)).collect();
        let interfaces = interfaces?;
        complete.insert(
            name.to_owned(),
            RouterView { name: name.to_owned(), id, netns: names::router_netns(id), interfaces },
        );
    }
    Some(complete)
}

fn network_of<'n>(networks: &'n Networks, name: &str) -> &'n topology::Network {
    networks.get(name).unwrap_or_else(|| unreachable!("references were settled by the first pass"))
}

fn router_port(
    checker: &mut Checker,
    networks: &Networks,
    router: &str,
    owner: &str,
    interface: Interface<'_>,
) -> Option<RouterPort> {
    let Interface { place, network: name, mac, ips } = interface;
    let id = checker.derive_id(place, "router-port", &format!("{router}/{name}"), owner, true)?;
    let mac = port_mac(checker, place, id, mac, owner)?;
    let mut addresses = Vec::new();
    for subnet in &network_of(networks, name).subnets {
        let explicit = ips.iter().copied().find(|address| subnet.cidr.contains(address));
        let address = match explicit {
            Some(address) => address,
            None => router_address(checker, place, name, subnet, owner)?,
        };
        addresses.push(within(subnet.cidr, address));
    }
    Some(RouterPort { id, ifname: names::router_port(id), network: name.to_owned(), mac, addresses })
}

/// The subnet's gateway if no router has it yet, else the lowest free address.
fn router_address(
    checker: &mut Checker,
    place: Location,
    network: &str,
    subnet: &SubnetView,
    owner: &str,
) -> Option<IpAddr> {
    let borne = checker.addresses.entry(network.to_owned()).or_default();
    if let Some(gateway) = subnet.gateway.filter(|gateway| !borne.has(*gateway))
        && borne.claim(gateway, || owner.to_owned()).is_ok()
    {
        return Some(gateway);
    }
    let found = borne.lowest(subnet.cidr, subnet.gateway, || owner.to_owned());
    if found.is_none() {
        no_room(checker, place, owner, format!("subnet `{}` of network `{network}`", subnet.cidr));
    }
    found
}

fn port_mac(checker: &mut Checker, place: Location, id: Uuid, explicit: Option<Mac>, owner: &str) -> Option<Mac> {
    let derived =
        explicit.or_else(|| allocate::port_mac(id, |mac| checker.macs.contains_key(&mac), checker.macs.len()));
    let mac = checker.exhausted(place, "port MAC", derived)?;
    checker.macs.insert(mac, owner.to_owned());
    Some(mac)
}

fn complete_vms(
    checker: &mut Checker,
    networks: &Networks,
    vms: BTreeMap<&str, Vm<'_>>,
) -> Option<BTreeMap<String, topology::Vm>> {
    let mut complete = BTreeMap::new();
    let mut devices = Vec::new();
    for (name, vm) in vms {
        let Vm { place, id, node, network, mac, ips, device } = vm;
        let owner = format!("virtual machine `{name}`");
        let id = match id {
            Some(id) => id,
            None => checker.derive_id(place, "vm", name, &owner, true)?,
        };
        let mac = port_mac(checker, place, id, mac, &owner)?;
        let (addresses, gateways) = vm_addresses(checker, place, network_of(networks, network), &ips, &owner)?;
        let attach = match device {
            Some(device) => {
                devices.push((place, name, node, device.clone()));
                Attachment::Device { device }
            }
            None => Attachment::Netns { netns: names::vm_netns(name), ifname: names::vm_interface() },
        };
        let port = PortView { name: name.to_owned(), id, port: names::vm_port(id), mac, addresses, gateways, attach };
        complete.insert(name.to_owned(), topology::Vm { node: node.to_owned(), network: network.to_owned(), port });
    }
    let ours: BTreeMap<_, _> =
        complete.iter().map(|(name, vm)| ((vm.node.as_str(), vm.port.port.clone()), name.as_str())).collect();
    for (place, name, node, device) in devices {
        // A hypervisor names a TAP after its own port's id: that one is no clash.
        if ours.get(&(node, device.clone())).is_some_and(|owner| *owner != name) {
            checker.mistake(place, Problem::DeviceOurs { device: device.to_string() });
        }
    }
    Some(complete)
}

/// A machine's addresses: the explicit ones, then one from the first subnet of each family that has none; and where
/// each family's default route points.
fn vm_addresses(
    checker: &mut Checker,
    place: Location,
    network: &topology::Network,
    explicit: &[IpAddr],
    owner: &str,
) -> Option<(Vec<IpNet>, Vec<IpAddr>)> {
    let mut addresses = Vec::new();
    let mut gateways = Vec::new();
    for ipv4 in [true, false] {
        let of_family = |subnet: &&SubnetView| subnet.cidr.addr().is_ipv4() == ipv4;
        let mut borne: Vec<(IpAddr, &SubnetView)> = Vec::new();
        for address in explicit.iter().filter(|address| address.is_ipv4() == ipv4) {
            let subnet = network.subnets.iter().find(|subnet| subnet.cidr.contains(address));
            borne.extend(subnet.map(|subnet| (*address, subnet)));
        }
        if let Some(subnet) = network.subnets.iter().find(of_family).filter(|_| borne.is_empty()) {
            let free = checker.addresses.entry(network.name.clone()).or_default();
            let Some(address) = free.lowest(subnet.cidr, subnet.gateway, || owner.to_owned()) else {
                no_room(checker, place, owner, format!("subnet `{}` of network `{}`", subnet.cidr, network.name));
                return None;
            };
            borne.push((address, subnet));
        }
        gateways.extend(borne.first().and_then(|(_, subnet)| subnet.gateway));
        addresses.extend(borne.into_iter().map(|(address, subnet)| within(subnet.cidr, address)));
    }
    Some((addresses, gateways))
}

fn no_room(checker: &mut Checker, place: Location, what: &str, where_: String) {
    checker.mistake(place, Problem::NoRoom { what: what.to_owned(), place: where_ });
}

/// An address with its subnet's prefix length.
fn within(cidr: IpNet, address: IpAddr) -> IpNet {
    match IpNet::new(address, cidr.prefix_len()) {
        Ok(net) => net,
        Err(_) => unreachable!("an address inside a prefix is of its family"),
    }
}
