//! This program: a lab, brought up as any user would.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;

use crate::agent::{FastPath, Tunnels};
use crate::api::{self, agent, switch};
use crate::control::{Client, ControlError};
use crate::fastpath::kernel;
use crate::lab::{self, Daemon, Lab, LabName, Labs, Outline, Record, TunnelsOf};
use crate::model::Resource;
use crate::model::resource::{NodeSpec, PortSpec};
use crate::rpc::proto::{ApplyRequest, Edit, edit};
use crate::rpc::{self, Address};
use crate::types::IfName;

use super::super::addresses::{ELSEWHERE, MTU, Network, Node, Station, UNDERLAY_MTU, VXLAN_PORT, remote_port};
use super::super::scene::{self, WIRE};
use super::super::traffic::End;
use super::super::{Error, now};

/// How long a daemon may take to answer, and nodes to become what they are told.
const LIMIT: Duration = Duration::from_secs(120);
/// Ports told in one request.
const CHUNK: usize = 10_000;
/// How often it is looked whether a node is ready.
const GLANCE: Duration = Duration::from_millis(2);

/// The lab.
pub(super) struct Dvr {
    lab: Lab,
    record: Record,
    outline: Outline,
    /// Ports elsewhere that it was told of.
    elsewhere: u32,
    fast_path: FastPath,
}

fn topology() -> String {
    let nodes = Node::ALL
        .map(|node| format!("  {}: {{address: {}, host_mac: '{}'}}\n", node.name(), node.endpoint(), node.host_mac()));
    let networks = Network::ALL.map(|network| {
        let cidr = scene::net(network.gateway(), Network::PREFIX_LEN).trunc();
        let (name, vni, gateway) = (network.name(), network.vni(), network.gateway());
        format!("  {name}: {{vni: {vni}, mtu: {MTU}, subnets: [{{cidr: {cidr}, gateway: {gateway}}}]}}\n")
    });
    let ports = Network::ALL.map(|network| format!("{{network: {}, mac: '{}'}}", network.name(), network.router_mac()));
    let vms = Station::ALL.map(|station| {
        let (name, node, network) = (station.name(), station.node.name(), station.network.name());
        format!("  {name}: {{node: {node}, network: {network}, ip: {}, mac: '{}'}}\n", station.ip(), station.mac())
    });
    let underlay = scene::net(Node::One.endpoint(), 24).trunc();
    format!(
        "version: 1\nunderlay: {{cidr: {underlay}, mtu: {UNDERLAY_MTU}, vxlan_port: {VXLAN_PORT}}}\nnodes:\n{}networks:\n{}\
         routers: {{r1: {{distributed: true, interfaces: [{}]}}}}\nvms:\n{}",
        nodes.concat(),
        networks.concat(),
        ports.join(", "),
        vms.concat(),
    )
}

impl Dvr {
    pub(super) fn build(tunnels: Tunnels, fast_path: FastPath) -> Result<Self, Error> {
        if fast_path == FastPath::On {
            kernel::FastPath::load().map_err(|error| Error::Missing(error.to_string()))?;
        }
        let name = LabName::new("bench").map_err(lab::Error::Name)?;
        let request = lab::Request {
            name,
            source: "the bench's topology".to_owned(),
            text: topology(),
            controllers: None,
            tunnels: vec![TunnelsOf { node: None, tunnels }],
            fast_path,
            workers: None,
            keep: false,
        };
        let raised = lab::up(&Labs::of_this_user()?, &request)?;
        let record = raised.lab.record().ok_or_else(|| Error::Scene("the lab is gone".to_owned()))?;
        Ok(Self { lab: raised.lab, record, outline: raised.outline, elsewhere: 0, fast_path })
    }

    /// Asks a node's switch one thing.
    fn ask<T: DeserializeOwned>(&self, node: Node, request: &switch::Request) -> Result<T, ControlError> {
        let mut client = Client::connect(&Daemon::Switch.socket(&self.lab.node_dir(node.name())), LIMIT)?;
        let _hello: serde_json::Value = client.call(&switch::Request::Hello { version: api::VERSION })?;
        client.call(request)
    }

    fn flows(&self, node: Node) -> Result<usize, ControlError> {
        let show: switch::Show = self.ask(node, &switch::Request::Show)?;
        Ok(show.bridges.iter().map(|bridge| bridge.flows).sum())
    }

    fn ask_agent<T: DeserializeOwned>(&self, node: Node, request: &agent::Request) -> Result<T, ControlError> {
        let mut client = Client::connect(&Daemon::Agent.socket(&self.lab.node_dir(node.name())), LIMIT)?;
        let _hello: serde_json::Value = client.call(&agent::Request::Hello { version: api::VERSION })?;
        client.call(request)
    }

    /// Whether a node's agent says that all is as it should be.
    fn converged(&self, node: Node) -> Result<bool, ControlError> {
        let timeout_millis = u64::try_from(LIMIT.as_millis()).unwrap_or(u64::MAX);
        let state: agent::Converged = self.ask_agent(node, &agent::Request::Wait { timeout_millis })?;
        Ok(state.converged)
    }

    /// Asks the lab's controller for these resources, some at a time.
    fn apply(&self, resources: &[Resource]) -> Result<(), Error> {
        let failed = |why: String| Error::Controller(why);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| Error::os("start a runtime for the controller", source))?;
        runtime.block_on(async {
            let address = Address::Unix(self.lab.controller_socket());
            let mut client = rpc::connect(&address, None).await.map_err(|error| failed(error.to_string()))?;
            for some in resources.chunks(CHUNK) {
                let edit = |resource: &Resource| {
                    let octets = serde_json::to_vec(resource).map_err(|error| failed(error.to_string()))?;
                    Ok(Edit { what: Some(edit::What::Put(octets)), revision: None })
                };
                let edits = some.iter().map(edit).collect::<Result<Vec<_>, Error>>()?;
                let request = ApplyRequest { edits, dry_run: false, underlay: Vec::new() };
                client.apply(request).await.map_err(|status| failed(status.message().to_owned()))?;
            }
            Ok(())
        })
    }

    /// Waits until a node has so many flows at least and no more come, and its agent finds nothing left to do.
    fn await_flows(&self, node: Node, wanted: usize, begun: Instant) -> Result<(), Error> {
        let mut last = 0;
        loop {
            let flows = self.flows(node)?;
            if flows >= wanted && flows == last && self.converged(node)? {
                return Ok(());
            }
            if begun.elapsed() > LIMIT {
                let seconds = LIMIT.as_secs();
                return Err(Error::Scene(format!("{} has {flows} flows after {seconds} s", node.name())));
            }
            last = flows;
            std::thread::sleep(GLANCE);
        }
    }
}

fn port(number: u32) -> Resource {
    let (mac, ip) = remote_port(number);
    Resource::Port(PortSpec {
        name: format!("far{number}"),
        id: None,
        network: Network::Blue.name().to_owned(),
        node: Some("node3".to_owned()),
        migrating_to: None,
        mac: Some(mac),
        ips: vec![ip.into()],
        device: None,
        allowed_address_pairs: Vec::new(),
        port_security: true,
        claimed: Vec::new(),
    })
}

impl super::Peer for Dvr {
    fn end(&self, station: Station) -> End {
        let found = self.outline.stations.iter().find(|known| known.vm == station.name());
        let pid = self.record.nodes.get(station.node.name()).map_or(0, |keeper| keeper.pid);
        let netns = found.map_or("", |known| known.netns.as_str());
        End {
            name: station.name(),
            netns: PathBuf::from(format!("/proc/{pid}/root/run/netns/{netns}")),
            ip: station.ip(),
        }
    }

    fn switches(&self) -> Vec<i32> {
        Node::ALL.into_iter().filter_map(|node| lab::pid_of(&self.lab, node.name(), Daemon::Switch)).collect()
    }

    fn wires(&self) -> Vec<(PathBuf, &'static str)> {
        let pids = Node::ALL.into_iter().filter_map(|node| self.record.nodes.get(node.name()));
        pids.map(|keeper| (Path::new("/proc").join(keeper.pid.to_string()).join("ns/net"), WIRE)).collect()
    }

    fn remarks(&self) -> Result<Vec<String>, Error> {
        let show: agent::Show = self.ask_agent(Node::One, &agent::Request::Show)?;
        let remark = "its ports are veth pairs, since TAPs cannot be made here: `dvr doctor` says why";
        // The fast path has veth pairs for ports anyway.
        let as_elsewhere = show.attachment == "tap" || self.fast_path == FastPath::On;
        Ok(if as_elsewhere { Vec::new() } else { vec![remark.to_owned()] })
    }

    /// Every decision rests on which bridges there are: one that comes and goes makes all be made anew.
    fn forget(&mut self) -> Result<(), Error> {
        let bridge = IfName::new("flush").unwrap_or_else(|bad| unreachable!("a short word: {bad}"));
        for node in Node::ALL {
            let mode = switch::BridgeMode::Normal;
            let _made: serde_json::Value =
                self.ask(node, &switch::Request::AddBridge { bridge: bridge.clone(), mode })?;
            let _gone: serde_json::Value = self.ask(node, &switch::Request::DelBridge { bridge: bridge.clone() })?;
        }
        Ok(())
    }

    fn program(&mut self, ports: u32) -> Result<Option<Duration>, Error> {
        let node = NodeSpec { name: "node3".to_owned(), address: Some(ELSEWHERE.into()), ..NodeSpec::default() };
        self.apply(&[Resource::Node(node)])?;
        let before = [self.flows(Node::One)?, self.flows(Node::Two)?];
        let resources: Vec<Resource> = (self.elsewhere..ports).map(port).collect();
        let begun = now();
        self.apply(&resources)?;
        for (node, before) in Node::ALL.into_iter().zip(before) {
            self.await_flows(node, before + resources.len(), begun)?;
        }
        self.elsewhere = ports;
        Ok(Some(begun.elapsed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topology_is_sound_and_has_the_scene_s_addresses() {
        let outline = Outline::read("bench", &topology()).unwrap_or_else(|error| panic!("{error}"));
        for station in Station::ALL {
            let known = outline.stations.iter().find(|known| known.vm == station.name()).expect("a machine");
            assert_eq!((known.mac, known.ips.as_slice()), (station.mac(), &[station.ip().into()][..]));
            assert_eq!((known.node.as_str(), known.network.as_str()), (station.node.name(), station.network.name()));
        }
    }
}
