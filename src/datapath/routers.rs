//! The routers whose interfaces are ports of this switch, what is known of each, and what went past its namespace.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::SwitchError;
use super::guard::Guard;
use super::revision::{Revisions, Tag};
use super::router::{Closed, NeighbourUpdate, RouterModel};
use super::switch::{Place, Switch};
use crate::api::switch::{Router as RouterView, RouterInterface};
use crate::types::IfName;

/// Names a router for as long as the switch exists.
pub(crate) type RouterId = u32;

/// A router.
#[derive(Debug)]
pub(crate) struct Router {
    netns: PathBuf,
    /// The ports that are its interfaces, by these.
    ports: BTreeMap<IfName, Place>,
    model: Result<RouterModel, Closed>,
    /// What went past it.
    packets: u64,
    bytes: u64,
}

impl Router {
    /// Its namespace's name.
    pub(crate) fn name(&self) -> String {
        self.netns.file_name().unwrap_or(self.netns.as_os_str()).to_string_lossy().into_owned()
    }

    /// The port that is this interface.
    pub(crate) fn port(&self, interface: &IfName) -> Option<Place> {
        self.ports.get(interface).copied()
    }

    /// What is known of it, if that is enough for packets to go past it.
    pub(crate) fn model(&self) -> Option<&RouterModel> {
        self.model.as_ref().ok()
    }
}

/// All routers of a switch.
#[derive(Debug, Default)]
pub(crate) struct Routers {
    held: BTreeMap<RouterId, Router>,
    next: RouterId,
}

impl Routers {
    pub(crate) fn get(&self, router: RouterId) -> Option<&Router> {
        self.held.get(&router)
    }

    fn at(&mut self, netns: &Path) -> Option<(RouterId, &mut Router)> {
        self.held.iter_mut().find(|(_, router)| router.netns == netns).map(|(id, router)| (*id, router))
    }

    /// The router of this namespace, known from now on.
    pub(super) fn join(&mut self, interface: &RouterInterface, place: Place) -> RouterId {
        let RouterInterface { netns, ifname } = interface;
        let next = self.next;
        let id = self.at(netns).map_or(next, |(id, _)| id);
        self.next = self.next.max(id + 1);
        let new = || Router {
            netns: netns.clone(),
            ports: BTreeMap::new(),
            model: Err(Closed::Unseen),
            packets: 0,
            bytes: 0,
        };
        self.held.entry(id).or_insert_with(new).ports.insert(ifname.clone(), place);
        id
    }

    /// A port is gone; so is a router without any.
    pub(super) fn leave(&mut self, id: RouterId, place: Place) {
        if let Some(router) = self.held.get_mut(&id) {
            router.ports.retain(|_, port| *port != place);
            if router.ports.is_empty() {
                self.held.remove(&id);
            }
        }
    }

    pub(super) fn count(&mut self, id: RouterId, (packets, bytes): (u64, u64)) {
        if let Some(router) = self.held.get_mut(&id) {
            router.packets += packets;
            router.bytes += bytes;
        }
    }

    /// What all of them ask of packets.
    fn least_guard(&self) -> Option<Guard> {
        let mtus = self.held.values().filter_map(Router::model).filter_map(RouterModel::least_mtu);
        mtus.min().map(|mtu| Guard { mtu })
    }
}

impl Switch {
    /// Says of a port that it is a router's interface: packets for it may go past that router's namespace once it has been
    /// looked into.
    ///
    /// # Errors
    /// [`SwitchError::UnknownBridge`], [`SwitchError::UnknownPort`].
    pub fn set_router(
        &mut self,
        bridge: &IfName,
        port: &IfName,
        interface: &RouterInterface,
    ) -> Result<(), SwitchError> {
        let id = self.id(bridge)?;
        let unknown = || SwitchError::UnknownPort { bridge: bridge.clone(), port: port.clone() };
        let number = self.named(bridge)?.number_of(port.as_str()).ok_or_else(unknown)?;
        let router = self.routers.join(interface, (id, number));
        if let Some(held) = self.named_mut(bridge)?.ports.get_mut(&number) {
            held.router = Some((router, interface.ifname.clone()));
        }
        Ok(())
    }

    /// The namespaces of routers, to be looked into.
    #[must_use]
    pub fn router_namespaces(&self) -> Vec<PathBuf> {
        self.routers.held.values().map(|router| router.netns.clone()).collect()
    }

    /// Takes over what a router's namespace holds by now, or why nothing goes past it.
    pub fn observe_router(&mut self, netns: &Path, model: Result<RouterModel, Closed>) {
        let revisions = self.revisions();
        let Some((id, router)) = self.routers.at(netns) else { return };
        let before = core::mem::replace(&mut router.model, model);
        let neighbours = match (&before, &router.model) {
            (Ok(before), Ok(now)) => before.neighbours_changed(now),
            (Err(before), Err(now)) if before == now => Some(Vec::new()),
            (Ok(_) | Err(_), _) => None,
        };
        match neighbours {
            Some(neighbours) if neighbours.is_empty() => {}
            Some(neighbours) => touch_neighbours(&revisions, id, &neighbours),
            None => {
                revisions.touch(Tag::router(id));
                revisions.publish();
            }
        }
    }

    /// Takes over what became of a router's neighbours.
    pub fn observe_neighbours(&mut self, netns: &Path, updates: &[NeighbourUpdate]) {
        let revisions = self.revisions();
        let Some((id, router)) = self.routers.at(netns) else { return };
        let Ok(model) = &mut router.model else { return };
        let mut changed = Vec::new();
        for update in updates {
            match model.update(*update) {
                Ok(true) => changed.push(update.0),
                Ok(false) => {}
                Err(closed) => return self.observe_router(netns, Err(closed)),
            }
        }
        if !changed.is_empty() {
            touch_neighbours(&revisions, id, &changed);
        }
    }

    /// What packets must be for no router to mind them; `None` if nothing goes past any.
    pub(crate) fn least_guard(&self) -> Option<Guard> {
        self.routers.least_guard()
    }

    /// Where a packet from and to these addresses goes that comes to a port which is a router's interface, if that is known.
    #[cfg(all(test, feature = "kernel"))]
    pub(crate) fn hop(&self, interface: &IfName, [src, dst]: [IpAddr; 2]) -> Option<super::router::Hop> {
        let router = self.routers.held.values().find(|router| router.ports.contains_key(interface))?;
        let model = router.model()?;
        model.forward(model.link(interface)?.0, src, dst).hop
    }

    /// Every router.
    #[must_use]
    pub fn routers(&self) -> Vec<RouterView> {
        let view = |router: &Router| RouterView {
            netns: router.netns.clone(),
            through: router.model.as_ref().err().map(ToString::to_string),
            packets: router.packets,
            bytes: router.bytes,
        };
        self.routers.held.values().map(view).collect()
    }
}

fn touch_neighbours(revisions: &Revisions, router: RouterId, neighbours: &[(u32, IpAddr)]) {
    for (link, ip) in neighbours {
        revisions.touch(Tag::neighbour(router, *link, *ip));
    }
    revisions.publish();
}
