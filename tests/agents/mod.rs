//! An agent against a real kernel, in namespaces of its own, and a switch that only remembers what it is told.

#![allow(dead_code, reason = "every test binary uses its own part of this")]
#![expect(clippy::disallowed_methods, reason = "these wait for a daemon, and say how long it took")]

pub(crate) mod controller;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use controller::OneView;
use dvr::agent::{AgentConfig, Attachment, Controllers, DesiredFrom, run};
use dvr::api::agent::{Converged, Request as Ask, Show as AgentShow};
use dvr::api::switch::{
    Bridge, CacheCounters, Flow, FlowChange, Hello, Notices, Port, PortConfig, PortCounters, PortKind, Request, Show,
    Standing, VlanMode,
};
use dvr::api::{Refusal, VERSION};
use dvr::control::{Client, Reply, Server, Service, Stopper};
use dvr::datapath::{BridgeView, DpPort, NewPort, NewPortKind, PortView, Switch, SwitchError};
use dvr::model::view::NodeView;
use dvr::types::{IfName, Timestamp};

pub(crate) const LONG: Duration = Duration::from_secs(20);

/// What the switch was told: the engine itself, with ports that carry nothing, and how each was asked for.
pub(crate) struct Memory {
    pub(crate) engine: Switch,
    pub(crate) ports: BTreeMap<IfName, PortConfig>,
    pub(crate) changes: usize,
    /// How often it was asked to show itself, as every whole pass does.
    pub(crate) shows: usize,
    pub(crate) taps: bool,
    /// How often one of its ports failed.
    faults: u64,
    pub(crate) refuse_port: Option<String>,
}

#[derive(Clone)]
pub(crate) struct FakeSwitch {
    memory: Arc<Mutex<Memory>>,
    /// Tells that it may have changed.
    stirred: Arc<Condvar>,
}

pub(crate) fn empty() -> Memory {
    let (engine, ports) = (Switch::new(), BTreeMap::new());
    Memory { engine, ports, changes: 0, shows: 0, taps: false, faults: 0, refuse_port: None }
}

impl FakeSwitch {
    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no test thread panicked")
    }

    pub(crate) fn flows(&self, bridge: &str) -> Vec<Flow> {
        self.memory().engine.dump_flows(&ifname(bridge), "", true, Timestamp::ZERO).expect("it is there")
    }

    pub(crate) fn change(&self, bridge: &str, changes: &[FlowChange]) {
        self.memory().engine.change_flows(&ifname(bridge), changes, Timestamp::ZERO).expect("good flows");
        self.stirred.notify_all();
    }

    /// One of its ports comes to be at fault, though nobody is shown which.
    pub(crate) fn fail(&self) {
        self.memory().faults += 1;
        self.stirred.notify_all();
    }

    /// Waits until it stands otherwise. No flow is ever met, so nothing is said.
    fn notices(&self, known: Option<&Standing>, wait: Duration) -> Notices {
        let stands_so = |memory: &mut Memory| known.is_none_or(|known| *known == memory.standing());
        let waited = self.stirred.wait_timeout_while(self.memory(), wait, stands_so);
        let (memory, _) = waited.expect("no test thread panicked");
        Notices { said: Vec::new(), standing: memory.standing() }
    }
}

pub(crate) fn ifname(text: &str) -> IfName {
    text.parse().expect("a name")
}

impl Memory {
    fn standing(&self) -> Standing {
        Standing { revisions: self.engine.bridge_revisions(), faults: self.faults }
    }

    fn add_port(&mut self, bridge: &IfName, port: PortConfig) -> Result<(), SwitchError> {
        let dp = DpPort(u32::try_from(self.changes).expect("few ports"));
        let kind = match &port.kind {
            PortKind::Patch { peer } => NewPortKind::Patch { peer: peer.clone() },
            PortKind::Vxlan { remote, local, .. } | PortKind::Gre { remote, local } => {
                NewPortKind::Vxlan { dp, local: *local, remote: *remote }
            }
            PortKind::Tap { .. } | PortKind::Packet { .. } => NewPortKind::Netdev { dp },
        };
        let new = NewPort { name: port.name.clone(), kind, vlan: VlanMode::Trunk, number: None };
        self.engine.add_port(bridge, new)?;
        self.ports.insert(port.name.clone(), port);
        Ok(())
    }

    fn show(&self) -> Show {
        let port = |port: PortView| Port {
            number: port.number,
            config: self.ports[&port.name].clone(),
            counters: PortCounters::default(),
            fault: None,
            fast_path: None,
        };
        let bridge = |bridge: BridgeView| Bridge {
            name: bridge.name,
            mode: bridge.mode,
            flows: bridge.flows,
            ports: bridge.ports.into_iter().map(port).collect(),
            revision: bridge.revision,
        };
        Show {
            bridges: self.engine.bridges().into_iter().map(bridge).collect(),
            drops: BTreeMap::new(),
            cache: CacheCounters::default(),
            fast_path: None,
            routers: Vec::new(),
            passing: BTreeMap::new(),
        }
    }

    fn answer(&mut self, request: Request) -> Result<Reply, SwitchError> {
        let engine = &mut self.engine;
        Ok(match request {
            Request::Hello { .. } => Reply::of(&Hello {
                version: VERSION,
                release: String::new(),
                pid: 0,
                instance: "one".to_owned(),
                workers: 1,
                tap_refused: (!self.taps).then(|| "this one only remembers".to_owned()),
            }),
            Request::AddBridge { bridge, mode } => Reply::of(&engine.add_bridge(&bridge, mode)?),
            Request::DelBridge { bridge } => {
                engine.del_bridge(&bridge)?;
                Reply::of(&())
            }
            Request::AddPort { bridge, port } => Reply::of(&self.add_port(&bridge, port)?),
            Request::DelPort { bridge, port } => {
                engine.del_port(&bridge, &port)?;
                Reply::of(&())
            }
            Request::Show => {
                self.shows += 1;
                Reply::of(&self.show())
            }
            Request::Flows { bridge, changes } => {
                Reply::of(&engine.change_flows(&bridge, &changes, Timestamp::ZERO)?)
            }
            Request::SyncFlows { bridge, cookie, flows } => {
                let synced = engine.sync_flows(&bridge, cookie, &flows, Timestamp::ZERO)?;
                self.changes += synced.changes;
                Reply::of(&synced)
            }
            Request::DumpFlows { bridge, filter, names } => {
                Reply::of(&engine.dump_flows(&bridge, &filter, names, Timestamp::ZERO)?)
            }
            Request::Trace { .. }
            | Request::Fdb { .. }
            | Request::SetPort { .. }
            | Request::ReplaceFlows { .. }
            | Request::Follow { .. }
            | Request::PinFdb { .. }
            | Request::UnpinFdb { .. }
            | Request::Notices { .. }
            | Request::FastPath
            | Request::Passing { .. }
            | Request::FlushFdb { .. }
            | Request::Offloaded { .. } => panic!("an agent has no use for it"),
        })
    }
}

impl Service for FakeSwitch {
    type Request = Request;

    fn greeting(&self, request: &Request) -> Option<u32> {
        if let Request::Hello { version } = request { Some(*version) } else { None }
    }

    fn answer(&self, request: Request) -> Result<Reply, Refusal> {
        if let Request::Notices { wait_millis, standing, .. } = request {
            return Ok(Reply::of(&self.notices(standing.as_ref(), Duration::from_millis(wait_millis))));
        }
        let mut memory = self.memory();
        // What a whole list of flows comes to is counted when it is known.
        let changes_nothing = matches!(
            request,
            Request::Hello { .. }
                | Request::Show
                | Request::DumpFlows { .. }
                | Request::Fdb { .. }
                | Request::SyncFlows { .. }
        );
        memory.changes += usize::from(!changes_nothing);
        if let Request::AddPort { port, .. } = &request
            && memory.refuse_port.as_deref() == Some(port.name.as_str())
        {
            return Err(Refusal { message: format!("cannot add port {}", port.name), code: "kernel".to_owned() });
        }
        let answer = memory.answer(request);
        drop(memory);
        self.stirred.notify_all();
        answer.map_err(|error| Refusal { message: error.to_string(), code: "engine".to_owned() })
    }
}

/// An agent of node1 and its switch, in one process.
pub(crate) struct Bench {
    pub(crate) config: AgentConfig,
    pub(crate) topology: PathBuf,
    pub(crate) switch: FakeSwitch,
    pub(crate) switch_server: Option<(Stopper, JoinHandle<()>)>,
    pub(crate) agent: Option<JoinHandle<()>>,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let run_dir = PathBuf::from("/run/dvr");
        std::fs::create_dir_all(&run_dir).expect("an empty /run");
        let topology = run_dir.join("topology.yaml");
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/example.yaml");
        std::fs::copy(example, &topology).expect("the example is readable");
        let config =
            AgentConfig { attachment: Attachment::Auto, ..AgentConfig::new("node1", topology.clone(), run_dir) };
        let switch = FakeSwitch { memory: Arc::new(Mutex::new(empty())), stirred: Arc::default() };
        Self { config, topology, switch, switch_server: None, agent: None }
    }

    pub(crate) fn start_switch(&mut self) {
        let server = Server::bind(&self.config.switch_socket).expect("nobody else is here");
        let stopper = server.stopper();
        let service = Arc::new(self.switch.clone());
        let thread = thread::spawn(move || server.serve(&service).expect("accepting works"));
        self.switch_server = Some((stopper, thread));
    }

    pub(crate) fn start_agent(&mut self) {
        let config = self.config.clone();
        self.agent = Some(thread::spawn(move || run(config).expect("the agent runs")));
    }

    /// Starts an agent that follows a controller, which is told to tell it this.
    pub(crate) fn start_following(&mut self, view: &NodeView) -> OneView {
        let run_dir = self.config.run_dir.clone();
        let number = (0..).find(|number| !run_dir.join(format!("c{number}.sock")).exists()).expect("a free name");
        let socket = run_dir.join(format!("c{number}.sock"));
        let controller = OneView::serve(socket.clone(), view.clone());
        let addresses = format!("unix:{}", socket.display()).parse().expect("an address");
        let controllers = Controllers { addresses, certs: run_dir, tunnel_ip: None };
        self.config.desired = DesiredFrom::Controllers(controllers);
        self.start_agent();
        while !controller.is_followed() {
            thread::yield_now();
        }
        controller
    }

    pub(crate) fn client(&self) -> Client {
        let until = Instant::now() + LONG;
        loop {
            match Client::connect(&self.config.socket(), LONG) {
                Ok(mut client) => {
                    let _: dvr::api::agent::Hello =
                        client.call(&Ask::Hello { version: VERSION }).expect("the same release");
                    return client;
                }
                Err(error) if error.is_absent() && Instant::now() < until => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn settled(&self) -> Converged {
        let state: Converged = self.client().call(&Ask::Wait { timeout_millis: 20_000 }).expect("it answers");
        assert!(state.converged, "{state:?}");
        state
    }

    pub(crate) fn stop_agent(&mut self) {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).expect("a signal to oneself");
        self.agent.take().expect("it was started").join().expect("it ends in order");
    }

    pub(crate) fn started() -> Self {
        let mut bench = Self::new();
        bench.start_switch();
        bench.start_agent();
        bench
    }

    pub(crate) fn router(&self) -> (String, AgentShow) {
        let show: AgentShow = self.client().call(&Ask::Show).expect("it holds something");
        (show.routers[0].netns.clone(), show)
    }
}
