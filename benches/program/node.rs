//! This agent and its switch, told by a controller of ours.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dvr::api::VERSION;
use dvr::api::agent::{Converged, Hello, Request, Show};
use dvr::api::switch::{Request as Ask, Show as SwitchShow};
use dvr::control::Client;
use dvr::model::Topology;
use dvr::model::view::{RemotePort, ViewChange};
use dvr::netns::Name;
use dvr::plan::monitor::{Monitor, Pulse};
use dvr::plan::{KernelSpec, NamespaceSpec};
use dvr::program::{Program, local_vlans};
use dvr::types::Mac;

use super::Figures;
use super::controller::OneView;

/// Where everything is: `/run` is empty and ours.
const RUN_DIR: &str = "/run/dvr";
/// Deltas of one measured in each run.
const DELTAS: usize = 20;
const LIMIT: Duration = Duration::from_secs(60);

/// What is to be programmed.
#[derive(Clone, Copy)]
pub(crate) struct Set {
    pub(crate) ports: u32,
    pub(crate) ipv6: bool,
}

impl Set {
    fn topology(self) -> Topology {
        let ipv6 = if self.ipv6 { ", {cidr: \"fd00::/64\"}" } else { "" };
        let text = format!(
            "version: 1\nnodes: {{node1: {{}}, node2: {{}}, node3: {{}}, node4: {{}}}}\n\
             networks: {{blue: {{subnets: [{{cidr: 10.0.0.0/14}}{ipv6}]}}}}\nrouters: {{r1: {{interfaces: [blue]}}}}\n\
             vms: {{a: {{node: node1, network: blue, ip: 10.3.0.1}}, b: {{node: node2, network: blue, ip: 10.3.0.2}},\n\
             c: {{node: node3, network: blue, ip: 10.3.0.3}}, d: {{node: node4, network: blue, ip: 10.3.0.4}}}}\n"
        );
        Topology::parse(&text, "bench").unwrap_or_else(|error| panic!("{error}"))
    }

    fn port(self, number: u32) -> RemotePort {
        let [_, a, b, c] = number.to_be_bytes();
        let mut ips = vec![IpAddr::V4(Ipv4Addr::new(10, a + 1, b, c))];
        ips.extend(
            self.ipv6.then(|| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 1, a.into(), u16::from_be_bytes([b, c])))),
        );
        let mac = Mac::new([0xfa, 0x16, 0x3e, a, b, c]);
        let node = format!("node{}", 2 + number % 3);
        RemotePort { name: format!("vm{number:06}"), mac, ips, node, router: false, claimed: Vec::new() }
    }

    fn put(self, number: u32) -> ViewChange {
        ViewChange::RemotePort { network: "blue".to_owned(), port: self.port(number) }
    }

    fn gone(self, number: u32) -> ViewChange {
        let RemotePort { name, node, .. } = self.port(number);
        ViewChange::RemotePortGone { network: "blue".to_owned(), name, node }
    }
}

/// The same as others are to program it.
pub(crate) struct Told {
    pub(crate) br_int: Vec<String>,
    pub(crate) br_tun: Vec<String>,
    pub(crate) neighbours: Vec<(IpAddr, Mac)>,
    /// Each MAC and the node behind which it is.
    pub(crate) stations: Vec<(Mac, IpAddr)>,
}

impl Told {
    pub(crate) fn flows(&self) -> usize {
        self.br_int.len() + self.br_tun.len()
    }
}

pub(crate) struct Node {
    set: Set,
    controller: OneView,
    children: Vec<Child>,
    monitor: Monitor,
    runtime: tokio::runtime::Runtime,
}

fn daemon(words: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dvr"));
    command.args(words).args(["--run-dir", RUN_DIR, "--log", "error"]);
    command.stdin(Stdio::null()).spawn().expect("dvr starts")
}

/// A conversation with a daemon, once it is there.
fn client(socket: &str, hello: impl Fn(&mut Client) -> bool) -> Client {
    let begun = Instant::now();
    loop {
        if let Ok(mut client) = Client::connect(&Path::new(RUN_DIR).join(socket), LIMIT)
            && hello(&mut client)
        {
            return client;
        }
        assert!(begun.elapsed() < LIMIT, "nothing listens on {socket}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn agent() -> Client {
    client("agent.sock", |client| client.call::<_, Hello>(&Request::Hello { version: VERSION }).is_ok())
}

impl Node {
    pub(crate) fn start(set: Set) -> Self {
        std::fs::create_dir_all(RUN_DIR).expect("an empty /run");
        let base = dvr::placement::view(&set.topology(), "node1").expect("a node of it");
        let socket = PathBuf::from(RUN_DIR).join("controller.sock");
        let controller = OneView::serve(socket.clone(), base.clone());
        let address = format!("unix:{}", socket.display());
        // Tunnels end at an address that is there.
        for line in ["link set lo up".to_owned(), format!("addr replace {}/16 dev lo", base.node.tunnel_ip)] {
            let set = Command::new("ip").args(line.split(' ')).status();
            assert!(set.is_ok_and(|status| status.success()), "ip {line}: install iproute2");
        }
        let switch = daemon(&["switch"]);
        let agent_process = daemon(&["agent", "--node", "node1", "--attach", "veth", "--controller", &address]);
        let state: Converged = agent().call(&Request::Wait { timeout_millis: 30_000 }).expect("it answers");
        assert!(state.converged, "{state:?}");
        let router = base.routers[0].netns.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut monitor = runtime.block_on(async { Monitor::new("/run/netns".into()) });
        let netns = NamespaceSpec::new(Name::new(&router).expect("a legal name").into());
        let spec = KernelSpec { namespaces: vec![netns] }.check().expect("no contradiction");
        runtime.block_on(async { monitor.watch(&spec) }).expect("watching");
        Self { set, controller, children: vec![switch, agent_process], monitor, runtime }
    }

    /// What a node with all of it holds.
    pub(crate) fn program(&self) -> Told {
        let mut view = self.controller.view();
        for number in 0..self.set.ports {
            assert!(view.apply(self.set.put(number)), "its network is there");
        }
        let vlans = local_vlans(&BTreeMap::new(), view.networks.iter().map(|network| network.id)).expect("one network");
        let Program { br_int, br_tun, providers: _ } = Program::of(&view, &vlans).expect("a sound view");
        let lines = |flows: &[dvr::program::ProgramFlow]| flows.iter().map(ToString::to_string).collect();
        let remote = || view.networks[0].remote_ports.iter();
        let peer = |node: &String| view.peers.iter().find(|peer| peer.name == *node).expect("a peer").tunnel_ip;
        let addresses = |port: &RemotePort| {
            let link_local = self.set.ipv6.then(|| IpAddr::V6(port.mac.link_local()));
            port.ips.iter().copied().chain(link_local).map(|ip| (ip, port.mac)).collect::<Vec<_>>()
        };
        Told {
            br_int: lines(&br_int),
            br_tun: lines(&br_tun),
            neighbours: remote().flat_map(addresses).collect(),
            stations: remote().map(|port| (port.mac, peer(&port.node))).collect(),
        }
    }

    /// Has the agent told these changes. Gives how long it took until the switch had so many flows and a pass had left
    /// nothing to do, which [`Self::settle`] has looked at; and how long the pass took that made them, unless another had ended before it was asked for.
    fn tell(&self, agent: &mut Client, changes: &[ViewChange], flows: usize) -> (Duration, Option<Duration>) {
        let pass = |agent: &mut Client| agent.call::<_, Show>(&Request::Show).expect("it answers").state;
        let told = |state: &Converged| (state.operations, state.took_micros);
        let before = told(&pass(agent));
        let mut made = None;
        let begun = Instant::now();
        self.controller.tell(changes);
        loop {
            let state = pass(agent);
            if state.operations >= changes.len() && told(&state) != before {
                made = Some(Duration::from_micros(state.took_micros));
            }
            if state.converged && told(&state) != before && self.flows() == flows {
                return (begun.elapsed(), made);
            }
            assert!(begun.elapsed() < LIMIT, "{state:?}, {} flows of {flows}", self.flows());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn flows(&self) -> usize {
        let hello =
            |client: &mut Client| client.call::<_, dvr::api::switch::Hello>(&Ask::Hello { version: VERSION }).is_ok();
        let show: SwitchShow = client("switch.sock", hello).call(&Ask::Show).expect("it answers");
        show.bridges.iter().map(|bridge| bridge.flows).sum()
    }

    pub(crate) fn run(&mut self, figures: &mut Figures) {
        let Set { ports, .. } = self.set;
        let mut agent = agent();
        let before = self.flows();
        let all: Vec<ViewChange> = (0..ports).map(|number| self.set.put(number)).collect();
        let each = if self.set.ipv6 { 5 } else { 3 };
        let (whole, pass) = self.tell(&mut agent, &all, before + each * ports as usize);
        figures.add("dvr: all, from the controller's word to made", [whole]);
        figures.add("dvr: all, the agent's pass (observe, program)", pass);
        self.settle(&mut agent);
        let mut deltas = Vec::new();
        for turn in 0..DELTAS {
            let comes = turn % 2 == 0;
            let change = if comes { self.set.put(ports) } else { self.set.gone(ports) };
            let begun = Instant::now();
            self.controller.tell(&[change]);
            self.hear(comes);
            deltas.push(begun.elapsed());
        }
        figures.add("dvr: one more or one less, from word to kernel", deltas);
        let gone: Vec<ViewChange> = (0..ports).map(|number| self.set.gone(number)).collect();
        let (_, pass) = self.tell(&mut agent, &gone, before);
        figures.add("dvr: all gone, the agent's pass", pass);
        self.settle(&mut agent);
    }

    /// Waits until the agent has nothing left to do and to look at, and forgets what was heard.
    fn settle(&mut self, agent: &mut Client) {
        let state: Converged = agent.call(&Request::Wait { timeout_millis: 30_000 }).expect("it answers");
        assert!(state.converged && state.operations == 0, "{state:?}");
        let Self { monitor, runtime, .. } = self;
        let quiet = Duration::from_millis(50);
        runtime.block_on(async { while tokio::time::timeout(quiet, monitor.next()).await.is_ok() {} });
    }

    /// Waits until an entry is written, or removed.
    fn hear(&mut self, comes: bool) {
        let Self { monitor, runtime, .. } = self;
        runtime.block_on(async {
            loop {
                let pulse = monitor.next().await.expect("a pulse");
                let Pulse::Neighbours(_, entries) = pulse else { panic!("{pulse:?}") };
                if entries.iter().any(|entry| entry.permanent.is_some() == comes) {
                    return;
                }
            }
        });
    }

    /// Ends both daemons, and removes what they made.
    pub(crate) fn stop(mut self) {
        self.end();
        let purged = Command::new(env!("CARGO_BIN_EXE_dvr"))
            .args(["purge", "--run-dir", RUN_DIR])
            .stdout(Stdio::null())
            .status();
        assert!(purged.expect("dvr starts").success(), "the namespaces are left");
        std::fs::remove_dir_all(RUN_DIR).expect("ours");
    }

    fn end(&mut self) {
        for mut child in self.children.drain(..) {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end();
    }
}
