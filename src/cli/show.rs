//! `dvr show`: a node from its agent's and its switch's mouth, in the shape of `ovs-vsctl show`.

use serde::Serialize;

use super::args::{ReadArgs, ShowArgs};
use super::error::{CliError, DONE, FAILED};
use super::{output, paths, target};
use crate::api::agent::{self, PeerPath, Show as AgentShow};
use crate::api::switch::{
    self, Bridge, BridgeMode, FastPathState, Offloaded, OffloadedFlow, Port, PortKind, Router, Show as SwitchShow,
    VlanMode,
};
use crate::datapath::DropReason;
use crate::lab::Daemon;

/// A node, as far as its daemons answer.
#[derive(Debug, Default, Serialize)]
struct Shown {
    node: String,
    agent: Option<AgentShow>,
    /// The ways to the other nodes.
    paths: Vec<PeerPath>,
    switch: Option<SwitchShow>,
    /// The flows in the kernel, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    offloaded: Option<Offloaded>,
    errors: Vec<String>,
}

/// `dvr show`. A daemon that does not answer is told among the rest, and makes the exit code 1.
///
/// # Errors
/// When there is no such node.
pub(super) fn show(args: &ShowArgs) -> Result<u8, CliError> {
    let ShowArgs { read: ReadArgs { node, name, output: form }, offloaded } = args;
    let mut nodes = Vec::new();
    for site in target::sites(name.as_ref(), node.as_deref())? {
        let mut shown = Shown { node: site.node.clone(), ..Shown::default() };
        // A switch that serves a user without an agent lacks nothing.
        let alone = site.has_no(Daemon::Agent);
        match target::ask(&site, Daemon::Agent, &agent::Request::Show) {
            Err(_) if alone => {}
            Ok(show) => shown.agent = Some(show),
            Err(error) => shown.errors.push(why(error)),
        }
        if shown.agent.as_ref().is_some_and(|agent| !agent.peers.is_empty()) {
            match paths::ask(&site) {
                Ok(found) => shown.paths = found,
                Err(error) => shown.errors.push(why(error)),
            }
        }
        match target::ask(&site, Daemon::Switch, &switch::Request::Show) {
            Ok(show) => shown.switch = Some(show),
            Err(error) => shown.errors.push(why(error)),
        }
        if let Some(most) = offloaded.filter(|_| shown.switch.is_some()) {
            match target::ask(&site, Daemon::Switch, &switch::Request::Offloaded { most }) {
                Ok(flows) => shown.offloaded = Some(flows),
                Err(error) => shown.errors.push(why(error)),
            }
        }
        nodes.push(shown);
    }
    output::render(form.output, &nodes, |nodes| nodes.iter().map(text).collect())?;
    Ok(if nodes.iter().all(|node| node.errors.is_empty()) { DONE } else { FAILED })
}

/// What is wrong, without the node's name, which stands above it.
fn why(error: CliError) -> String {
    if let CliError::Daemon { source, .. } = error { source.to_string() } else { error.to_string() }
}

fn text(shown: &Shown) -> String {
    let mut out = format!("{}\n", shown.node);
    for error in &shown.errors {
        out.push_str(&format!("    error: {error}\n"));
    }
    if let Some(agent) = &shown.agent {
        out.push_str(&agent_text(agent, &shown.paths));
    }
    if let Some(switch) = &shown.switch {
        for bridge in &switch.bridges {
            out.push_str(&bridge_text(bridge));
        }
        let cache = &switch.cache;
        out.push_str(&format!(
            "    Flow cache: {} entries of {} masks; {} exact hits, {} masked hits, {} misses, {} evictions\n",
            cache.entries, cache.masks, cache.exact_hits, cache.masked_hits, cache.misses, cache.evictions
        ));
        if let Some(fast) = &switch.fast_path {
            out.push_str(&format!(
                "    Fast path: {} flows in the kernel, {} frames carried there; {} flows refused\n",
                fast.flows, fast.packets, fast.refused
            ));
        }
        if let Some(offloaded) = &shown.offloaded {
            out.push_str(&offloaded_text(offloaded));
        }
        for Router { netns, through, packets, bytes } in &switch.routers {
            let all = through.as_ref().map_or_else(String::new, |why| format!("; all go through by now: {why}"));
            out.push_str(&format!("    Past {}: {packets} frames, {bytes} octets{all}\n", netns.display()));
        }
        for (reason, count) in switch.drops.iter().filter(|(_, count)| **count > 0) {
            let known = DropReason::ALL.into_iter().find(|known| known.name() == reason);
            let meaning = known.map_or("of a reason that only its own release knows", DropReason::meaning);
            out.push_str(&format!("    Dropped: {count} {reason}: {meaning}\n"));
        }
    }
    out
}

/// The flows in the kernel, as OVS shows those of its datapath.
fn offloaded_text(offloaded: &Offloaded) -> String {
    let Offloaded { total, flows } = offloaded;
    let mut out = String::new();
    for OffloadedFlow { matching, actions, packets, bytes, idle_secs } in flows {
        out.push_str(&format!(
            "        {matching}, packets:{packets}, bytes:{bytes}, used:{idle_secs:.1}s, actions:{actions}\n"
        ));
    }
    let told = flows.len() as u64;
    if told < *total {
        out.push_str(&format!("        and {} more: --offloaded={total} tells all\n", total - told));
    }
    out
}

fn agent_text(show: &AgentShow, paths: &[PeerPath]) -> String {
    let mut out = format!(
        "    tunnel endpoint {}, host MAC {}, ports by {}, tunnels by {}\n",
        show.tunnel_ip, show.host_mac, show.attachment, show.tunnel_backend
    );
    if !show.tunnels_why.is_empty() {
        out.push_str(&format!("        {}\n", show.tunnels_why));
    }
    let state = &show.state;
    let verdict = if state.converged { "converged" } else { "NOT converged" };
    out.push_str(&format!("    {verdict}: {} operations in {} µs\n", state.operations, state.took_micros));
    for error in &state.errors {
        out.push_str(&format!("    error: {error}\n"));
    }
    for network in &show.networks {
        let flood = if network.flood.is_empty() { "nowhere".to_owned() } else { network.flood.join(", ") };
        let (segment, flood) = match (&network.physical_network, network.vlan) {
            (Some(physical), Some(vlan)) => (format!("{} {vlan} of {physical}", network.kind), "there".to_owned()),
            (Some(physical), None) => (format!("{} on {physical}", network.kind), "there".to_owned()),
            (None, _) => {
                let key = network.vni.map_or("-".to_owned(), |vni| vni.to_string());
                (format!("{} key {key}", network.kind), format!("to {flood}"))
            }
        };
        let narrowed = network.narrowed.map(|mtu| format!(" (by tunnels {mtu}: no more passes)")).unwrap_or_default();
        out.push_str(&format!(
            "    Network {}\n        {segment}, VLAN {} here, MTU {}{narrowed}, floods {flood}\n",
            network.name, network.local_vlan, network.mtu
        ));
    }
    for physical in &show.physical_networks {
        let line = format!("bridge {}, interface {}", physical.bridge, physical.interface);
        out.push_str(&format!("    Physical network {}\n        {line}\n", physical.name));
    }
    for router in &show.routers {
        out.push_str(&format!("    Router {}\n        namespace {}\n", router.name, router.netns));
        for port in &router.interfaces {
            let addresses: Vec<String> = port.addresses.iter().map(ToString::to_string).collect();
            out.push_str(&format!(
                "        {}  {}  {}  {}\n",
                port.ifname,
                port.network,
                port.mac,
                addresses.join(" ")
            ));
        }
    }
    for vm in &show.vms {
        let ips: Vec<String> = vm.ips.iter().map(ToString::to_string).collect();
        out.push_str(&format!(
            "    VM {}\n        {}  {}  {}  port {}\n",
            vm.name,
            vm.network,
            vm.mac,
            ips.join(" "),
            vm.port
        ));
    }
    for peer in &show.peers {
        let port = if peer.ports.is_empty() {
            "no tunnel: no network of tunnels in common".to_owned()
        } else {
            let ports: Vec<String> = peer.ports.iter().map(|port| format!("port {port}")).collect();
            ports.join(", ")
        };
        out.push_str(&format!(
            "    Peer {}\n        {}  host MAC {}  {port}\n",
            peer.node, peer.tunnel_ip, peer.host_mac
        ));
        for path in paths.iter().filter(|path| path.node == peer.node) {
            out.push_str(&format!("        {}\n", paths::text(path)));
        }
    }
    out
}

fn bridge_text(bridge: &Bridge) -> String {
    let mode = match bridge.mode {
        BridgeMode::Flow => "flow mode",
        BridgeMode::Normal => "normal mode",
    };
    let mut out = format!("    Bridge {} ({mode}, {} flows)\n", bridge.name, bridge.flows);
    for port in &bridge.ports {
        out.push_str(&port_text(port));
    }
    out
}

fn port_text(port: &Port) -> String {
    let (kind, options) = kind_text(&port.config.kind);
    let list = |vlans: &[crate::types::VlanId]| vlans.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let vlan = match &port.config.vlan {
        VlanMode::Trunk => String::new(),
        VlanMode::Trunks(vlans) => format!(", trunks [{}]", list(vlans)),
        VlanMode::Access(tag) => format!(", tag {tag}"),
        VlanMode::Native { tag, trunks } => format!(", native tag {tag}, trunks [{}]", list(trunks)),
        VlanMode::NativeTagged { tag, trunks } => {
            format!(", native tag {tag} (sent tagged), trunks [{}]", list(trunks))
        }
    };
    let mut out =
        format!("        Port {} (number {}{vlan})\n            type: {kind}\n", port.config.name, port.number);
    if !options.is_empty() {
        out.push_str(&format!("            options: {{{options}}}\n"));
    }
    let count = &port.counters;
    out.push_str(&format!(
        "            rx: {} frames, {} octets, {} dropped; tx: {} frames, {} octets, {} dropped\n",
        count.rx_packets, count.rx_bytes, count.rx_dropped, count.tx_packets, count.tx_bytes, count.tx_dropped
    ));
    if let Some(fault) = &port.fault {
        out.push_str(&format!("            error: {fault}\n"));
    }
    if let Some(state) = &port.fast_path {
        let state = match state {
            FastPathState::Waiting => "waits for flows".to_owned(),
            FastPathState::On => "on".to_owned(),
            FastPathState::Refused(why) => format!("refused: {why}"),
        };
        out.push_str(&format!("            fast path: {state}\n"));
    }
    out
}

/// A port's type and its options, as `key=value` by commas.
fn kind_text(kind: &PortKind) -> (&'static str, String) {
    let mut options = Vec::new();
    let mut option = |key: &str, value: Option<String>| options.extend(value.map(|value| format!("{key}={value}")));
    let kind = match kind {
        PortKind::Tap { netns, device, mac } => {
            option("netns", netns.as_ref().map(|path| path.display().to_string()));
            option("device", device.as_ref().map(ToString::to_string));
            option("mac", mac.map(|mac| mac.to_string()));
            "tap"
        }
        PortKind::Packet { netns, device, fast: _ } => {
            option("netns", netns.as_ref().map(|path| path.display().to_string()));
            option("device", device.as_ref().map(ToString::to_string));
            "packet"
        }
        PortKind::Vxlan { remote, local, udp_port } => {
            option("local_ip", Some(local.to_string()));
            option("remote_ip", Some(remote.to_string()));
            option("udp_port", Some(udp_port.to_string()));
            option("key", Some("flow".to_owned()));
            "vxlan"
        }
        PortKind::Gre { remote, local } => {
            option("local_ip", Some(local.to_string()));
            option("remote_ip", Some(remote.to_string()));
            option("key", Some("flow".to_owned()));
            "gre"
        }
        PortKind::Patch { peer } => {
            option("peer", Some(peer.to_string()));
            "patch"
        }
    };
    (kind, options.join(", "))
}
