//! What is wanted, whole: one scope's namespaces with everything in them.

use std::collections::{BTreeMap, BTreeSet};

use crate::link::{LinkKind, LinkSpec};
use crate::netns::{NetnsName, Sysctl};
use crate::route::RouteSpec;
use crate::types::IfName;

/// The desired kernel state of everything we own in one scope: one process's own namespace, and one directory of named
/// ones.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelSpec {
    /// The namespaces, each at most once.
    pub namespaces: Vec<NamespaceSpec>,
}

/// A namespace and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceSpec {
    /// Which one. [`NetnsName::Own`] is never made or removed.
    pub name: NetnsName,
    /// Kernel switches, set before any link is made.
    pub sysctls: Vec<Sysctl>,
    /// The links, each name at most once.
    pub links: Vec<LinkSpec>,
    /// The routes.
    pub routes: Vec<RouteSpec>,
}

impl NamespaceSpec {
    /// A namespace with nothing asked of it but to exist.
    #[must_use]
    pub const fn new(name: NetnsName) -> Self {
        Self { name, sysctls: Vec::new(), links: Vec::new(), routes: Vec::new() }
    }
}

/// Why a spec contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSpec {
    /// A namespace is given twice.
    #[error("namespace {0} is described twice: join the two descriptions")]
    TwiceNetns(NetnsName),
    /// A link is given twice.
    #[error("link {1} in namespace {0} is described twice: keep one of them")]
    TwiceLink(NetnsName, IfName),
    /// The two ends of a veth pair do not name each other.
    #[error("veth {1} in namespace {0} names {3} in {2} as its other end, which does not name it back")]
    Unpaired(NetnsName, IfName, NetnsName, IfName),
    /// A switch outside `/proc/sys/net`.
    #[error("`{1}` is no switch of namespace {0}: only keys under `net/` are a namespace's own")]
    ForeignSysctl(NetnsName, String),
    /// A route with neither gateway nor interface.
    #[error("the route to {1} in namespace {0} goes nowhere: give it a gateway or an interface")]
    Nowhere(NetnsName, ipnet::IpNet),
}

/// A spec that does not contradict itself, in which every namespace and both ends of every veth pair are spelled out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    namespaces: BTreeMap<NetnsName, NamespaceSpec>,
}

impl KernelSpec {
    /// The spec, checked and completed: the other end of a veth that has no spec of its own gets one that is up with
    /// the same MTU, in its namespace, which is added too if it is missing.
    ///
    /// # Errors
    /// Names the first contradiction.
    pub fn check(&self) -> Result<Checked, BadSpec> {
        let mut namespaces = BTreeMap::new();
        for netns in &self.namespaces {
            check_namespace(netns)?;
            if namespaces.insert(netns.name.clone(), netns.clone()).is_some() {
                return Err(BadSpec::TwiceNetns(netns.name.clone()));
            }
        }
        for netns in &self.namespaces {
            for link in &netns.links {
                complete_pair(&mut namespaces, &netns.name, link)?;
            }
        }
        Ok(Checked { namespaces })
    }
}

fn check_namespace(netns: &NamespaceSpec) -> Result<(), BadSpec> {
    let NamespaceSpec { name, sysctls, links, routes } = netns;
    let mut seen = BTreeSet::new();
    if let Some(link) = links.iter().find(|link| !seen.insert(&link.name)) {
        return Err(BadSpec::TwiceLink(name.clone(), link.name.clone()));
    }
    let mut switches = sysctls.iter().chain(links.iter().flat_map(|link| &link.sysctls));
    if let Some(sysctl) = switches.find(|sysctl| !sysctl.is_network()) {
        return Err(BadSpec::ForeignSysctl(name.clone(), sysctl.key.clone()));
    }
    match routes.iter().find(|route| route.gateway.is_none() && route.ifname.is_none()) {
        Some(route) => Err(BadSpec::Nowhere(name.clone(), route.destination)),
        None => Ok(()),
    }
}

/// Makes sure that the other end of `link`, if it is a veth, has a spec that points back.
fn complete_pair(
    namespaces: &mut BTreeMap<NetnsName, NamespaceSpec>,
    netns: &NetnsName,
    link: &LinkSpec,
) -> Result<(), BadSpec> {
    let LinkKind::Veth { peer, peer_netns } = &link.kind else { return Ok(()) };
    let back = LinkKind::Veth { peer: link.name.clone(), peer_netns: netns.clone() };
    let other = namespaces.entry(peer_netns.clone()).or_insert_with(|| NamespaceSpec::new(peer_netns.clone()));
    match other.links.iter().find(|other| other.name == *peer) {
        Some(other) if other.kind == back && (netns, &link.name) != (peer_netns, peer) => Ok(()),
        Some(_) => Err(BadSpec::Unpaired(netns.clone(), link.name.clone(), peer_netns.clone(), peer.clone())),
        None => {
            let mut end = LinkSpec::new(peer.clone(), back);
            end.mtu = link.mtu;
            other.links.push(end);
            Ok(())
        }
    }
}

impl Checked {
    /// The namespaces, by name.
    pub fn namespaces(&self) -> impl Iterator<Item = &NamespaceSpec> {
        self.namespaces.values()
    }

    /// The namespace of this name.
    #[must_use]
    pub fn namespace(&self, name: &NetnsName) -> Option<&NamespaceSpec> {
        self.namespaces.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Name;

    fn name(text: &str) -> IfName {
        IfName::new(text).expect("a legal name")
    }

    fn netns(text: &str) -> NetnsName {
        Name::new(text).expect("a legal name").into()
    }

    fn veth(end: &str, peer: &str, peer_netns: &str) -> LinkSpec {
        LinkSpec::new(name(end), LinkKind::Veth { peer: name(peer), peer_netns: netns(peer_netns) })
    }

    fn namespace(text: &str, links: Vec<LinkSpec>) -> NamespaceSpec {
        NamespaceSpec { links, ..NamespaceSpec::new(netns(text)) }
    }

    #[test]
    fn the_other_end_is_spelled_out() {
        let spec = KernelSpec { namespaces: vec![namespace("vm-a", vec![veth("eth0", "tap-a", "dvr-ports")])] };
        let checked = spec.check().expect("no contradiction");
        let other = checked.namespace(&netns("dvr-ports")).expect("added");
        assert_eq!(other.links, [veth("tap-a", "eth0", "vm-a")]);
    }

    #[test]
    fn contradictions_are_named() {
        let check = |namespaces: Vec<NamespaceSpec>| KernelSpec { namespaces }.check().expect_err("a contradiction");
        let unpaired = check(vec![
            namespace("vm-a", vec![veth("eth0", "tap-a", "ports")]),
            namespace("ports", vec![LinkSpec::new(name("tap-a"), LinkKind::External)]),
        ]);
        assert!(matches!(unpaired, BadSpec::Unpaired(..)));
        let itself = check(vec![namespace("vm-a", vec![veth("eth0", "eth0", "vm-a")])]);
        assert!(matches!(itself, BadSpec::Unpaired(..)), "a link cannot be its own other end");
        let shared = check(vec![
            namespace("vm-a", vec![veth("eth0", "tap", "ports")]),
            namespace("vm-b", vec![veth("eth0", "tap", "ports")]),
        ]);
        assert!(matches!(shared, BadSpec::Unpaired(..)));
        let twice = check(vec![namespace("vm-a", vec![]), namespace("vm-a", vec![])]);
        assert_eq!(twice, BadSpec::TwiceNetns(netns("vm-a")));
        let loopback = || LinkSpec::new(name("lo"), LinkKind::Loopback);
        let link = check(vec![namespace("vm-a", vec![loopback(), loopback()])]);
        assert_eq!(link, BadSpec::TwiceLink(netns("vm-a"), name("lo")));
    }
}
