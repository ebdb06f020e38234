//! What joins the nodes: the underlay, a bridge in the lab's own namespace and a veth pair from it into each node's; and
//! their physical networks.

use core::net::IpAddr;
use std::collections::BTreeSet;
use std::path::PathBuf;

use ipnet::IpNet;

use super::{Error, NETNS_DIR, Outline, physical};
use crate::link::{LinkKind, LinkSpec};
use crate::netns::{Name, NetnsName, Ownership, Sysctl};
use crate::plan::kernel::Kernel;
use crate::plan::{self, KernelSpec, NamespaceSpec};
use crate::types::IfName;

/// The bridge's name.
const BRIDGE: &str = "underlay";
/// The name of a node's only wire.
pub(super) const WIRE: &str = "eth0";

/// Makes the underlay from the calling process's namespace, in which nothing of it exists.
///
/// # Errors
/// [`Error::Underlay`] with the kernel's words.
pub(super) fn build(outline: &Outline) -> Result<(), Error> {
    make(&spec(outline)?).map_err(Error::Underlay)
}

/// Makes what `spec` says from the calling process's namespace, in which nothing of it exists.
///
/// # Errors
/// The kernel's words.
pub(crate) fn make(spec: &KernelSpec) -> Result<(), String> {
    let checked = spec.check().map_err(|bad| bad.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|source| format!("start a runtime for netlink: {source}"))?;
    runtime.block_on(async {
        let mut kernel = Kernel::open(PathBuf::from(NETNS_DIR)).map_err(|error| error.to_string())?;
        let observed = kernel.observe(&checked).await.map_err(|error| error.to_string())?;
        let plan = plan::diff(&checked, &observed, &Ownership::none());
        kernel.apply(&plan).await.map_err(|failure| failure.to_string())?;
        Ok(())
    })
}

fn spec(outline: &Outline) -> Result<KernelSpec, Error> {
    let bad = |why: String| Error::Underlay(why);
    let (bridge, wire) = (name(BRIDGE), name(WIRE));
    let mtu = Some(outline.underlay.mtu);
    let mut own = NamespaceSpec::new(NetnsName::Own);
    let mut floor = LinkSpec::new(bridge.clone(), LinkKind::Bridge);
    floor.mtu = mtu;
    floor.sysctls = quiet(&bridge);
    own.links.push(floor);
    let mut physical = physical::links(outline)?;
    let mut namespaces = Vec::new();
    let endpoints: Vec<IpAddr> = outline.views.values().map(|view| view.node.tunnel_ip).collect();
    let mut taken = BTreeSet::from([bridge.clone(), name("lo")]);
    taken.extend(physical.own.iter().map(|link| link.name.clone()));
    own.links.append(&mut physical.own);
    for (index, (node, view)) in outline.views.iter().enumerate() {
        let netns = NetnsName::from(Name::new(node).map_err(|error| bad(error.to_string()))?);
        // Called as its node where that is a legal name and free.
        let port = IfName::new(node.as_str())
            .ok()
            .filter(|port| !taken.contains(port))
            .unwrap_or_else(|| name(&format!("veth{index}")));
        taken.insert(port.clone());
        let mut outer = LinkSpec::new(port.clone(), LinkKind::Veth { peer: wire.clone(), peer_netns: netns.clone() });
        outer.mtu = mtu;
        outer.controller = Some(bridge.clone());
        outer.sysctls = quiet(&port);
        own.links.push(outer);
        let mut inner = LinkSpec::new(wire.clone(), LinkKind::Veth { peer: port, peer_netns: NetnsName::Own });
        inner.mtu = mtu;
        inner.addresses = vec![address(view.node.tunnel_ip, outline.underlay.cidr, &endpoints)?];
        if view.node.tunnel_ip.is_ipv4() {
            inner.sysctls = quiet(&wire);
        }
        let mut inside = NamespaceSpec::new(netns);
        inside.links.push(inner);
        inside.links.extend(physical.nodes.remove(node).into_iter().flatten());
        namespaces.push(inside);
    }
    namespaces.insert(0, own);
    Ok(KernelSpec { namespaces })
}

pub(super) fn name(text: &str) -> IfName {
    match IfName::new(text) {
        Ok(name) => name,
        Err(bad) => unreachable!("made from a short word and a number: {bad}"),
    }
}

/// No IPv6 of its own: nothing but what the switches send is to be seen on the wire.
pub(super) fn quiet(link: &IfName) -> Vec<Sysctl> {
    vec![Sysctl::new(format!("net/ipv6/conf/{link}/disable_ipv6"), "1")]
}

/// An endpoint with a prefix that holds all endpoints of its family: the underlay's own where that is so, else the
/// longest that does.
fn address(own: IpAddr, underlay: IpNet, endpoints: &[IpAddr]) -> Result<IpNet, Error> {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let mut family = endpoints.iter().filter(|ip| ip.is_ipv4() == own.is_ipv4());
    let length = if family.clone().all(|ip| underlay.contains(ip)) {
        underlay.prefix_len()
    } else {
        // A prefix of 31 or 127 and more leaves no room for a network address.
        let widest = if own.is_ipv4() { 30 } else { 126 };
        let shared =
            family.try_fold(widest, |shared: u32, ip| Some(shared.min((bits(own) ^ bits(*ip)).leading_zeros())));
        u8::try_from(shared.unwrap_or(widest)).unwrap_or(u8::MAX)
    };
    IpNet::new(own, length).map_err(|error| Error::Underlay(format!("{own}/{length} is no address: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_on_link_for_every_other() {
        let parse =
            |texts: &[&str]| texts.iter().map(|text| text.parse().expect("an address")).collect::<Vec<IpAddr>>();
        let underlay: IpNet = "172.16.0.0/24".parse().expect("a prefix");
        for (texts, length) in [
            (&["172.16.0.1", "172.16.0.9"][..], 24),
            (&["10.0.0.1", "10.0.1.1"], 23),
            (&["10.0.0.1", "192.0.2.1"], 0),
            (&["2001:db8::1", "2001:db8::2"], 126),
        ] {
            let endpoints = parse(texts);
            for own in &endpoints {
                let net = address(*own, underlay, &endpoints).expect("an address");
                assert_eq!(net.prefix_len(), length, "{texts:?}");
                assert!(endpoints.iter().all(|ip| net.contains(ip)), "{texts:?}");
            }
        }
    }

    #[test]
    fn the_example_makes_a_consistent_spec() {
        let outline = Outline::of(&crate::model::Topology::example());
        let spec = spec(&outline).expect("a spec");
        assert!(spec.check().is_ok());
        assert_eq!(spec.namespaces.len(), 3, "the lab's own and two nodes");
    }
}
