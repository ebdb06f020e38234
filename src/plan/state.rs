//! What is there, whole.

use std::collections::BTreeMap;

use crate::link::Links;
use crate::netns::{Entries, NetnsName};
use crate::route::RouteState;
use crate::types::IfName;

/// The observed kernel state of one scope. Each part is complete: a dump that failed half-way never becomes one of these.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelState {
    /// Every entry of the namespace directory, foreign ones too.
    pub entries: Entries,
    /// What is in those of the desired namespaces that exist.
    pub namespaces: BTreeMap<NetnsName, NamespaceState>,
}

/// What is in a namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamespaceState {
    /// The values of the switches that the spec names; one that does not exist is missing here.
    pub sysctls: BTreeMap<String, String>,
    /// Every link, foreign ones too.
    pub links: Links,
    /// Every unicast route of the main tables, foreign ones too.
    pub routes: Vec<RouteState>,
}

impl KernelState {
    /// Takes a link out, and with it the other end if it is one of a veth pair, and the routes through both: what deleting
    /// it in the kernel does.
    pub(crate) fn remove_link(&mut self, netns: &NetnsName, name: &IfName) {
        let Some(index) = self.namespaces.get_mut(netns).and_then(|state| state.remove_one(name)) else { return };
        for state in self.namespaces.values_mut() {
            let other = state.links.iter().find(|(_, link)| {
                link.kind.as_deref() == Some("veth") && index.peer == Some(link.index) && link.peer == Some(index.index)
            });
            if let Some(name) = other.map(|(name, _)| name.clone()) {
                state.remove_one(&name);
                return;
            }
        }
    }
}

impl NamespaceState {
    fn remove_one(&mut self, name: &IfName) -> Option<crate::link::LinkState> {
        self.routes.retain(|route| route.ifname.as_ref() != Some(name));
        self.links.remove(name)
    }
}
