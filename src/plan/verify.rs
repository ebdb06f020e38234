//! Whether what is there is what was wanted, field by field.

use core::fmt;
use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::link::{AddressState, LinkKind, LinkSpec, LinkState, TunnelState};
use crate::neigh::{self, NeighbourSpec, NeighbourState};
use crate::netns::{Entry, NetnsName, Sysctl};

use super::diff::{are_paired, is_shared};
use super::{Checked, KernelState, NamespaceSpec, NamespaceState};

/// A field that is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{netns}: {object}: {field} is {observed}, wanted {desired}")]
pub struct Drift {
    /// The namespace.
    pub netns: NetnsName,
    /// The object in it, such as `link qr-0123456789a`.
    pub object: String,
    /// The field.
    pub field: &'static str,
    /// What it is.
    pub observed: String,
    /// What it should be.
    pub desired: String,
}

/// How many drifted fields are told: the first says what is wrong, a thousand would say no more.
pub const DRIFTS_MAX: usize = 64;

/// Compares each wanted field with what is there. A link that somebody else has yet to make is awaited, not drift.
///
/// # Errors
/// The fields that differ, at most [`DRIFTS_MAX`] of them.
pub fn verify(spec: &Checked, observed: &KernelState) -> Result<(), Vec<Drift>> {
    let mut drifts = Vec::new();
    for netns in spec.namespaces() {
        let found = Found { netns: &netns.name, whole: observed, drifts: &mut drifts };
        found.namespace(netns);
    }
    drifts.truncate(DRIFTS_MAX);
    if drifts.is_empty() { Ok(()) } else { Err(drifts) }
}

struct Found<'a> {
    netns: &'a NetnsName,
    whole: &'a KernelState,
    drifts: &'a mut Vec<Drift>,
}

impl Found<'_> {
    fn namespace(mut self, spec: &NamespaceSpec) {
        let NamespaceSpec { name, sysctls, links, routes } = spec;
        let mounted = match name {
            NetnsName::Own => true,
            NetnsName::Named(name) => self.whole.entries.get(name) == Some(&Entry::Mounted),
        };
        let Some(state) = self.whole.namespaces.get(name).filter(|_| mounted) else {
            return self.differs("namespace", "existence", &"absent", &"present");
        };
        self.switches(sysctls, state);
        for link in links {
            match state.links.get(&link.name) {
                Some(found) => self.link(link, found, state),
                None if link.kind == LinkKind::External => {}
                None => self.differs(&format!("link {}", link.name), "existence", &"absent", &"present"),
            }
        }
        let awaited = |name: &crate::types::IfName| {
            links.iter().any(|link| link.name == *name && link.kind == LinkKind::External)
        };
        for route in routes.iter().filter(|route| !state.routes.iter().any(|found| found.satisfies(route))) {
            let gateway_on = |link: &&LinkSpec| {
                route.gateway.is_some_and(|gateway| link.addresses.iter().any(|net| net.contains(&gateway)))
            };
            let through = route.ifname.as_ref().or_else(|| links.iter().find(gateway_on).map(|link| &link.name));
            let waits = through.is_some_and(|name| awaited(name) && !state.links.contains_key(name));
            if !waits {
                self.differs(&format!("route {route}"), "existence", &"absent", &"present");
            }
        }
    }

    fn switches(&mut self, sysctls: &[Sysctl], state: &NamespaceState) {
        for sysctl in sysctls {
            let found = state.sysctls.get(&sysctl.key).map_or("absent", String::as_str);
            if found != sysctl.value {
                self.differs(&format!("switch {}", sysctl.key), "value", &found, &sysctl.value);
            }
        }
    }

    fn link(&mut self, spec: &LinkSpec, found: &LinkState, netns: &NamespaceState) {
        let LinkSpec { name, kind, mac, mtu, up, sysctls, addresses, neighbours, controller, fdb } = spec;
        let object = format!("link {name}");
        if let Some(word) = kind.kernel_word().filter(|word| found.kind.as_deref() != Some(word)) {
            self.differs(&object, "kind", &found.kind.as_deref().unwrap_or("none"), &word);
        }
        if let LinkKind::Veth { peer, peer_netns } = kind {
            let other = self.whole.namespaces.get(peer_netns).and_then(|state| state.links.get(peer));
            if !other.is_some_and(|other| are_paired(found, other)) {
                self.differs(&object, "other end", &"elsewhere", &format!("{peer} in {peer_netns}"));
            }
        }
        if !TunnelState::suits(found.tunnel.as_ref(), kind) {
            self.differs(&object, "tunnel", &"another", kind);
        }
        let there = found.fdb.iter().filter(|state| state.permanent).map(|state| state.entry).collect();
        self.sets(&object, "fdb entry", fdb, &there);
        if let Some(mac) = mac.filter(|mac| found.mac != Some(*mac)) {
            self.differs(&object, "MAC", &found.mac.map_or("none".to_owned(), |mac| mac.to_string()), &mac);
        }
        if let Some(mtu) = mtu.filter(|mtu| found.mtu != mtu.get()) {
            self.differs(&object, "MTU", &found.mtu, &mtu);
        }
        if *up != found.up {
            let word = |up| if up { "up" } else { "down" };
            self.differs(&object, "state", &word(found.up), &word(*up));
        }
        let bridge = controller.as_ref().and_then(|bridge| netns.links.get(bridge)).map(|bridge| bridge.index);
        if found.controller != bridge || controller.is_some() != found.controller.is_some() {
            let observed = netns.links.iter().find(|(_, link)| Some(link.index) == found.controller);
            let observed = observed.map_or("none", |(name, _)| name.as_str());
            let wanted = controller.as_ref().map_or("none", |bridge| bridge.as_str());
            self.differs(&object, "bridge", &observed, &wanted);
        }
        self.switches(sysctls, netns);
        let shared = is_shared(self.netns, spec);
        let wanted: BTreeSet<IpNet> = addresses.iter().copied().collect();
        let spared = |state: &&AddressState| (state.kernel_made || shared) && !wanted.contains(&state.address);
        let there = found.addresses.iter().filter(|state| !spared(state));
        self.sets(&object, "address", &wanted, &there.map(|state| state.address).collect());
        if !shared && neigh::diff(name, neighbours, &found.neighbours).is_empty() {
            return;
        }
        // As in the plan, the later of two wanted entries for one address counts.
        let wanted: std::collections::BTreeMap<_, NeighbourSpec> =
            neighbours.iter().map(|entry| (entry.ip, *entry)).collect();
        let there = found.neighbours.iter().filter_map(NeighbourState::project);
        let there = there.filter(|entry| !shared || wanted.contains_key(&entry.ip)).collect();
        self.sets(&object, "neighbour", &wanted.into_values().collect(), &there);
    }

    fn sets<T: Ord + fmt::Display>(
        &mut self,
        object: &str,
        field: &'static str,
        wanted: &BTreeSet<T>,
        there: &BTreeSet<T>,
    ) {
        for item in wanted.difference(there) {
            self.differs(object, field, &"absent", item);
        }
        for item in there.difference(wanted) {
            self.differs(object, field, item, &"absent");
        }
    }

    fn differs(&mut self, object: &str, field: &'static str, observed: &dyn fmt::Display, desired: &dyn fmt::Display) {
        if self.drifts.len() < DRIFTS_MAX {
            self.drifts.push(Drift {
                netns: self.netns.clone(),
                object: object.to_owned(),
                field,
                observed: observed.to_string(),
                desired: desired.to_string(),
            });
        }
    }
}
