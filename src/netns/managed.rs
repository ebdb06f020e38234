//! Ownership by name: which namespaces and links are ours to remove.
//!
//! An agent shares its kernel with others and may be killed at any time, so "did I make this?" cannot be a memory: it is
//! decided by the name, and in the process's own namespace by name and kind together. Where the two mistakes weigh against
//! each other, leaking an object of ours costs less than deleting one of somebody else's, so anything not matched is foreign.

use crate::types::IfName;

use super::{Name, NetnsName};

/// A set of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    /// This name only.
    Exact(String),
    /// Every name that starts so. An empty prefix matches everything.
    Prefix(String),
}

impl Pattern {
    /// Exactly `text`.
    pub fn exact(text: impl Into<String>) -> Self {
        Self::Exact(text.into())
    }

    /// Everything that starts with `text`.
    pub fn prefix(text: impl Into<String>) -> Self {
        Self::Prefix(text.into())
    }

    /// Whether `text` is in the set.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
        }
    }
}

/// A set of links: ours when both the name and the kind match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkPattern {
    /// Their names.
    pub name: Pattern,
    /// Their kind as the kernel calls it (`veth`, `bridge`, `vxlan`); `None`: any kind.
    pub kind: Option<String>,
}

/// Which named namespaces are ours, and which links in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetnsRule {
    /// The namespaces.
    pub netns: Pattern,
    /// The links in them that are ours even when no longer wanted.
    pub links: Vec<LinkPattern>,
}

/// What one process may remove.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ownership {
    /// Named namespaces; the first rule that matches decides.
    pub namespaces: Vec<NetnsRule>,
    /// Links in the process's own namespace. A pattern without a kind is ignored here: a name alone proves nothing in a
    /// namespace that others use.
    pub own_links: Vec<LinkPattern>,
}

/// Before a router's id: the namespace it lives in.
pub const ROUTER_NETNS: &str = "qrouter-";
/// Before a router port's id: its interface in the router's namespace.
pub const ROUTER_PORT: &str = "qr-";
/// Before a virtual machine's name: the namespace that stands for it.
pub const VM_NETNS: &str = "vm-";
/// The interface's name inside a namespace that stands for a virtual machine.
pub const VM_INTERFACE: &str = "eth0";
/// The namespace that holds the outer ends of veth pairs where TAPs cannot be had.
pub const PORTS_NETNS: &str = "dvr-ports";
/// The namespace that holds the kernel's tunnel devices, where nothing hears what machines say but the switch.
pub const TUNNELS_NETNS: &str = "dvr-tunnels";

impl Ownership {
    /// Nothing is ours: a plan only adds.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// What an agent owns on its node: routers' namespaces with their interfaces, machines' namespaces with `eth0`, the
    /// namespace of outer veth ends, whose links go with their inner ends, and the namespace of tunnels with those.
    #[must_use]
    pub fn agent() -> Self {
        let rule = |netns: Pattern, links: &[Pattern]| NetnsRule {
            netns,
            links: links.iter().map(|name| LinkPattern { name: name.clone(), kind: None }).collect(),
        };
        let tunnels = [("vx-", "vxlan"), ("k", "gretap"), ("k", "ip6gretap")];
        let tunnel =
            |(name, kind): (&str, &str)| LinkPattern { name: Pattern::prefix(name), kind: Some(kind.to_owned()) };
        Self {
            namespaces: vec![
                rule(Pattern::prefix(ROUTER_NETNS), &[ROUTER_PORT, "rfp-"].map(Pattern::prefix)),
                rule(Pattern::prefix("snat-"), &["sg-", "qg-"].map(Pattern::prefix)),
                rule(Pattern::prefix("fip-"), &["fg-", "fpr-"].map(Pattern::prefix)),
                rule(Pattern::prefix(VM_NETNS), &[Pattern::exact(VM_INTERFACE)]),
                // With the fast path tunnels are among the ports.
                NetnsRule { netns: Pattern::exact(PORTS_NETNS), links: tunnels.map(tunnel).into() },
                NetnsRule { netns: Pattern::exact(TUNNELS_NETNS), links: tunnels.map(tunnel).into() },
            ],
            own_links: Vec::new(),
        }
    }

    /// Whether a namespace of this name is ours to remove.
    #[must_use]
    pub fn owns_netns(&self, name: &Name) -> bool {
        self.namespaces.iter().any(|rule| rule.netns.matches(name.as_str()))
    }

    /// Whether a link of this name and kind, in this namespace, is ours to remove.
    #[must_use]
    pub fn owns_link(&self, netns: &NetnsName, link: &IfName, kind: Option<&str>) -> bool {
        let matches = |pattern: &LinkPattern| {
            pattern.name.matches(link.as_str()) && (pattern.kind.is_none() || pattern.kind.as_deref() == kind)
        };
        match netns {
            NetnsName::Own => self.own_links.iter().filter(|pattern| pattern.kind.is_some()).any(matches),
            NetnsName::Named(name) => self
                .namespaces
                .iter()
                .find(|rule| rule.netns.matches(name.as_str()))
                .is_some_and(|rule| rule.links.iter().any(matches)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_proves_nothing_in_the_own_namespace() {
        let any = LinkPattern { name: Pattern::exact("underlay"), kind: None };
        let bridge = LinkPattern { name: Pattern::exact("underlay"), kind: Some("bridge".to_owned()) };
        let link = IfName::new("underlay").expect("a legal name");
        let owns = |patterns: &[&LinkPattern], kind| {
            let own_links = patterns.iter().map(|pattern| (*pattern).clone()).collect();
            Ownership { own_links, ..Ownership::none() }.owns_link(&NetnsName::Own, &link, kind)
        };
        assert!(!owns(&[&any], Some("bridge")));
        assert!(owns(&[&bridge], Some("bridge")));
        assert!(!owns(&[&bridge], Some("vxlan")) && !owns(&[&bridge], None));
    }

    #[test]
    fn the_agent_owns_its_prefixes_only() {
        let ownership = Ownership::agent();
        let name = |text: &str| Name::new(text).expect("a legal name");
        assert!(ownership.owns_netns(&name("qrouter-1")) && ownership.owns_netns(&name("dvr-ports")));
        assert!(!ownership.owns_netns(&name("dvr-ports2")) && !ownership.owns_netns(&name("cni-1")));
        let link = |text: &str| IfName::new(text).expect("a legal name");
        let owns = |netns: &str, ifname: &str| ownership.owns_link(&name(netns).into(), &link(ifname), None);
        assert!(owns("qrouter-1", "qr-1") && owns("vm-a", "eth0"));
        let tunnel = |ifname: &str, kind| ownership.owns_link(&name("dvr-tunnels").into(), &link(ifname), Some(kind));
        assert!(tunnel("vx-7", "vxlan") && tunnel("k0000070a000002", "gretap"));
        assert!(!tunnel("vx-7", "veth") && !tunnel("gretap0", "gretap"));
        assert!(!owns("qrouter-1", "eth0") && !owns("vm-a", "eth1") && !owns("dvr-ports", "qr-1"));
    }
}
