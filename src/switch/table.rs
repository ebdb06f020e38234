//! Every port with its configuration, its numbers and its descriptors: what the control side knows.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::line::{Line, Media, Tallies};
use super::outputs::LINE_LIMIT;
use super::service::{SwitchRefusal, refused};
use super::worker::{self, WorkerLink};
use super::{Shared, fast, lock};
use crate::api::switch::{PortConfig, PortCounters, PortKind, VlanMode};
use crate::datapath::port::{gre, packet, tap, vxlan, within};
use crate::datapath::{DpPort, NewPort, NewPortKind};
use crate::link;
use crate::netlink::Connection;
use crate::types::{IfName, Timestamp};

/// How long what TAPs' interfaces dropped is taken for what it was: each costs entering a namespace to ask.
const ASK_PERIOD: Duration = Duration::from_secs(1);

/// A port of a bridge.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) number: u32,
    pub(super) config: PortConfig,
    /// Where it is connected; a patch is not.
    line: Option<Arc<Line>>,
    /// A tunnel's own counters, among those of all tunnels of its line.
    remote: Option<Tallies>,
}

impl Port {
    /// Adds what its line counted; a patch has none. Whose the frames were that a tunnel's socket had no room for, nobody knows.
    pub(super) fn add_counters(&self, sum: &mut PortCounters) {
        match (&self.remote, &self.line) {
            (Some(tallies), _) => tallies.add_to(sum),
            (None, Some(line)) => {
                line.counters.add_to(sum);
                sum.rx_dropped += line.overruns();
            }
            (None, None) => {}
        }
    }

    pub(super) fn line(&self) -> Option<&Arc<Line>> {
        self.line.as_ref()
    }

    pub(super) fn fault(&self) -> Option<String> {
        self.line.as_ref()?.fault()
    }
}

/// All ports by bridge and name, and the lines they share.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) bridges: BTreeMap<IfName, BTreeMap<IfName, Port>>,
    /// Lines by number: the one place that owns the descriptors.
    lines: BTreeMap<DpPort, Arc<Line>>,
    /// What the kernel dropped at lines that are gone.
    overruns: u64,
    /// When TAPs' interfaces were last asked what they dropped.
    asked: Option<Timestamp>,
    /// Tunnel endpoints' lines: VXLAN's with their UDP port, GRE's without.
    endpoints: BTreeMap<(IpAddr, Option<u16>), DpPort>,
}

/// The endpoints a tunnel joins, here and there, and the UDP port if it has one.
fn tunnel(kind: &PortKind) -> Option<(IpAddr, IpAddr, Option<u16>)> {
    match kind {
        PortKind::Vxlan { remote, local, udp_port } => Some((*local, *remote, Some(*udp_port))),
        PortKind::Gre { remote, local } => Some((*local, *remote, None)),
        PortKind::Tap { .. } | PortKind::Packet { .. } | PortKind::Patch { .. } => None,
    }
}

impl Table {
    /// Makes a port, or finds it made already; one at fault is made anew, under its number.
    pub(super) fn add(
        &mut self,
        bridge: &IfName,
        config: PortConfig,
        shared: &Shared,
        links: &[WorkerLink],
    ) -> Result<u32, SwitchRefusal> {
        let mut number = None;
        if let Some((at, port)) = self.find(&config.name) {
            if at != bridge || port.config != config {
                let message = format!(
                    "port {} exists on bridge {at} already, with another configuration or place: remove it first",
                    config.name
                );
                return Err(refused("exists", message));
            }
            if port.fault().is_none() {
                return Ok(port.number);
            }
            number = Some(port.number);
            self.remove(bridge, &config.name, shared, links)?;
        }
        let (line, is_new) = self.open(&config, links.len())?;
        let added = lock(&shared.switch).add_port(bridge, new_port(&config, line.as_ref(), number));
        let number = match added {
            Ok(number) => number,
            Err(error) => {
                self.close_unused(line, shared, links);
                return Err(error.into());
            }
        };
        let mut remote = None;
        if let Some(line) = &line {
            if is_new {
                prepare(&config, line, shared);
                worker::attach(links, line);
            }
            if let Some((_, ip, _)) = tunnel(&config.kind) {
                let tallies = Tallies::new(links.len());
                worker::count_remote(links, line.dp, ip, Some(&tallies));
                remote = Some(tallies);
            }
        }
        if let Some(interface) = config.router.as_ref().filter(|_| shared.past_routers) {
            lock(&shared.switch).set_router(bridge, &config.name, interface)?;
            shared.watch.look();
        }
        let name = config.name.clone();
        self.bridges.entry(bridge.clone()).or_default().insert(name, Port { number, config, line, remote });
        Ok(number)
    }

    /// Removes a port, and its descriptors if no other port needs them.
    pub(super) fn remove(
        &mut self,
        bridge: &IfName,
        name: &IfName,
        shared: &Shared,
        links: &[WorkerLink],
    ) -> Result<(), SwitchRefusal> {
        lock(&shared.switch).del_port(bridge, name)?;
        if let Some(port) = self.bridges.get_mut(bridge).and_then(|ports| ports.remove(name)) {
            if port.config.router.is_some() {
                shared.watch.look();
            }
            self.disconnect(port, shared, links);
        }
        Ok(())
    }

    /// Sets a port's VLANs.
    pub(super) fn set_vlan(
        &mut self,
        bridge: &IfName,
        name: &IfName,
        vlan: VlanMode,
        shared: &Shared,
    ) -> Result<(), SwitchRefusal> {
        lock(&shared.switch).set_vlan(bridge, name, vlan.clone())?;
        if let Some(port) = self.bridges.get_mut(bridge).and_then(|ports| ports.get_mut(name)) {
            port.config.vlan = vlan;
        }
        Ok(())
    }

    /// Removes a bridge's ports, which the engine has forgotten already.
    pub(super) fn forget_bridge(&mut self, bridge: &IfName, shared: &Shared, links: &[WorkerLink]) {
        for (_, port) in self.bridges.remove(bridge).unwrap_or_default() {
            self.disconnect(port, shared, links);
        }
    }

    /// What the kernel dropped at all ports before it was read. A TAP's interface may be in any namespace, and is asked at most
    /// once in [`ASK_PERIOD`].
    pub(super) fn overruns(&mut self, now: Timestamp) -> u64 {
        if self.asked.is_none_or(|asked| now.since(asked) >= ASK_PERIOD) {
            self.asked = Some(now);
            for port in self.bridges.values().flat_map(BTreeMap::values) {
                if let (PortKind::Tap { netns, device, .. }, Some(line)) = (&port.config.kind, &port.line) {
                    let name = device.as_ref().unwrap_or(&port.config.name);
                    if let Ok(Some(dropped)) = within(netns.as_deref(), || Ok(undelivered(name))) {
                        line.tell_overruns(dropped);
                    }
                }
            }
        }
        self.overruns + self.lines.values().map(|line| line.overruns()).sum::<u64>()
    }

    fn find(&self, name: &IfName) -> Option<(&IfName, &Port)> {
        self.bridges.iter().find_map(|(bridge, ports)| Some((bridge, ports.get(name)?)))
    }

    fn disconnect(&mut self, port: Port, shared: &Shared, links: &[WorkerLink]) {
        if let (Some((_, remote, _)), Some(line)) = (tunnel(&port.config.kind), &port.line) {
            worker::count_remote(links, line.dp, remote, None);
        }
        self.close_unused(port.line, shared, links);
    }

    /// Closes a line no port is connected to.
    fn close_unused(&mut self, line: Option<Arc<Line>>, shared: &Shared, links: &[WorkerLink]) {
        let Some(line) = line else {
            return;
        };
        let dp = line.dp;
        let mut ports = self.bridges.values().flat_map(BTreeMap::values);
        if ports.any(|port| port.line.as_ref().is_some_and(|line| line.dp == dp)) {
            return;
        }
        shared.fast.remove(dp);
        worker::detach(links, dp);
        self.overruns += line.overruns();
        self.endpoints.retain(|_, endpoint| *endpoint != dp);
        self.lines.remove(&dp);
    }

    /// The line for a port, opened if there is none to share; and whether it was. A patch has none.
    fn open(&mut self, config: &PortConfig, workers: usize) -> Result<(Option<Arc<Line>>, bool), SwitchRefusal> {
        let tunnel = tunnel(&config.kind);
        if let Some((local, remote, udp_port)) = tunnel {
            if remote.is_ipv4() != local.is_ipv4() {
                let message = format!("tunnel {}: {local} and {remote} are of different families", config.name);
                return Err(refused("bad-tunnel", message));
            }
            if let Some(line) = self.endpoints.get(&(local, udp_port)).and_then(|dp| self.lines.get(dp)) {
                return Ok((Some(Arc::clone(line)), false));
            }
        }
        let media = match &config.kind {
            PortKind::Patch { .. } => return Ok((None, false)),
            PortKind::Tap { netns, device, mac } => {
                let name = device.as_ref().unwrap_or(&config.name);
                let tap = tap::open(netns.as_deref(), name, *mac, workers)?;
                Media::Tap { queues: tap.queues, datagrams: tap.datagrams }
            }
            PortKind::Packet { netns, device, fast: _ } => {
                let (netns, name) = (netns.as_deref(), device.as_ref().unwrap_or(&config.name));
                let open = || Ok((packet::open(None, name, workers)?, takes_whole(name)));
                let (sockets, whole) = within(netns, open)?;
                Media::Packet { sockets, whole }
            }
            PortKind::Vxlan { local, udp_port, .. } => Media::Vxlan(vxlan::open(None, *local, *udp_port, workers)?),
            PortKind::Gre { local, .. } => Media::Gre(gre::open(None, *local, workers)?),
        };
        let free = (0..LINE_LIMIT).map(DpPort).find(|dp| !self.lines.contains_key(dp));
        let Some(dp) = free else {
            let message = format!("port {}: the switch has {LINE_LIMIT} ports already: remove one", config.name);
            return Err(refused("limit", message));
        };
        let line = Arc::new(Line::new(dp, media, workers));
        self.lines.insert(dp, Arc::clone(&line));
        if let Some((local, _, udp_port)) = tunnel {
            self.endpoints.insert((local, udp_port), dp);
        }
        Ok((Some(line), true))
    }
}

/// Frames that the interface of this name of the thread's namespace dropped instead of handing them over; `None` if it is not there.
fn undelivered(name: &IfName) -> Option<u64> {
    Connection::open().and_then(|mut connection| link::kernel::undelivered(&mut connection, name)).ok()
}

/// Whether the kernel takes super-frames by packet sockets on this interface of the thread's namespace. On an ip6gretap it does not: there it expects
/// a frame's IP header further in by what the tunnel puts in front (`ip6gre_tnl_link_config_route()` makes that a part of
/// the device's `hard_header_len`), finds none, and drops in silence what it must look into.
fn takes_whole(name: &IfName) -> bool {
    let kind = Connection::open().and_then(|mut connection| link::kernel::kind(&mut connection, name));
    !matches!(kind, Ok(Some(kind)) if kind == "ip6gretap")
}

/// Prepares a new line's interface for the fast path, or clears it of an earlier switch's. One in the switch's own namespace
/// is not its alone.
fn prepare(config: &PortConfig, line: &Arc<Line>, shared: &Shared) {
    if let PortKind::Packet { netns: Some(netns), device, fast } = &config.kind {
        let name = device.as_ref().unwrap_or(&config.name);
        if *fast { shared.fast.add(line, name, netns) } else { fast::clear(name, netns) }
    }
}

fn new_port(config: &PortConfig, line: Option<&Arc<Line>>, number: Option<u32>) -> NewPort {
    let kind = match (&config.kind, line) {
        (PortKind::Patch { peer }, _) => NewPortKind::Patch { peer: peer.clone() },
        (PortKind::Vxlan { remote, local, .. }, Some(line)) => {
            NewPortKind::Vxlan { dp: line.dp, local: *local, remote: *remote }
        }
        (PortKind::Gre { remote, local }, Some(line)) => {
            NewPortKind::Gre { dp: line.dp, local: *local, remote: *remote }
        }
        (PortKind::Tap { .. } | PortKind::Packet { .. }, Some(line)) => NewPortKind::Netdev { dp: line.dp },
        (PortKind::Vxlan { .. } | PortKind::Gre { .. } | PortKind::Tap { .. } | PortKind::Packet { .. }, None) => {
            unreachable!("only a patch has no line")
        }
    };
    NewPort { name: config.name.clone(), kind, vlan: config.vlan.clone(), number }
}
