//! The agent against a real kernel, in namespaces of its own, and a switch that only remembers what it is told.

#![expect(clippy::disallowed_methods, reason = "these wait for a daemon, and say how long it took")]
#![expect(clippy::expect_used, reason = "a test that cannot be set up has failed")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dvr::agent::{AgentConfig, AgentError, Attachment, purge, run};
use dvr::api::agent::{Converged, Forwarding, Neighbour, Request as Ask, Responder, Show as AgentShow};
use dvr::api::switch::{
    Bridge, CacheCounters, Flow, FlowChange, Hello, Port, PortConfig, PortCounters, PortKind, Request, Show, VlanMode,
};
use dvr::api::{Refusal, VERSION};
use dvr::control::{Client, Reply, Server, Service, Stopper};
use dvr::datapath::{BridgeView, DpPort, NewPort, NewPortKind, PortView, Switch, SwitchError};
use dvr::model::Topology;
use dvr::program::{COOKIE, LEARNED_COOKIE};
use dvr::types::{IfName, Timestamp};
use support::{in_namespace, ip, ip_json};

const LONG: Duration = Duration::from_secs(20);

/// What the switch was told: the engine itself, with ports that carry nothing, and how each was asked for.
struct Memory {
    engine: Switch,
    ports: BTreeMap<IfName, PortConfig>,
    changes: usize,
    taps: bool,
    refuse_port: Option<String>,
}

#[derive(Clone)]
struct FakeSwitch {
    memory: Arc<Mutex<Memory>>,
}

fn empty() -> Memory {
    Memory { engine: Switch::new(), ports: BTreeMap::new(), changes: 0, taps: false, refuse_port: None }
}

impl FakeSwitch {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().expect("no test thread panicked")
    }

    fn flows(&self, bridge: &str) -> Vec<Flow> {
        self.memory().engine.dump_flows(&ifname(bridge), "", true, Timestamp::ZERO).expect("it is there")
    }

    fn change(&self, bridge: &str, changes: &[FlowChange]) {
        self.memory().engine.change_flows(&ifname(bridge), changes, Timestamp::ZERO).expect("good flows");
    }
}

fn ifname(text: &str) -> IfName {
    text.parse().expect("a name")
}

impl Memory {
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
        };
        let bridge = |bridge: BridgeView| Bridge {
            name: bridge.name,
            mode: bridge.mode,
            flows: bridge.flows,
            ports: bridge.ports.into_iter().map(port).collect(),
        };
        Show {
            bridges: self.engine.bridges().into_iter().map(bridge).collect(),
            drops: BTreeMap::new(),
            cache: CacheCounters::default(),
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
            Request::Show => Reply::of(&self.show()),
            Request::Flows { bridge, changes } => {
                engine.change_flows(&bridge, &changes, Timestamp::ZERO)?;
                Reply::of(&())
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
            | Request::FlushFdb { .. } => panic!("an agent has no use for it"),
        })
    }
}

impl Service for FakeSwitch {
    type Request = Request;

    fn greeting(&self, request: &Request) -> Option<u32> {
        if let Request::Hello { version } = request { Some(*version) } else { None }
    }

    fn answer(&self, request: Request) -> Result<Reply, Refusal> {
        if let Request::Notices { .. } = request {
            return Err(Refusal { message: "no flow is ever met".to_owned(), code: "none".to_owned() });
        }
        let mut memory = self.memory();
        let is_reading =
            matches!(request, Request::Hello { .. } | Request::Show | Request::DumpFlows { .. } | Request::Fdb { .. });
        memory.changes += usize::from(!is_reading);
        if let Request::AddPort { port, .. } = &request
            && memory.refuse_port.as_deref() == Some(port.name.as_str())
        {
            return Err(Refusal { message: format!("cannot add port {}", port.name), code: "kernel".to_owned() });
        }
        memory.answer(request).map_err(|error| Refusal { message: error.to_string(), code: "engine".to_owned() })
    }
}

/// An agent of node1 and its switch, in one process.
struct Bench {
    config: AgentConfig,
    topology: PathBuf,
    switch: FakeSwitch,
    switch_server: Option<(Stopper, JoinHandle<()>)>,
    agent: Option<JoinHandle<()>>,
}

impl Bench {
    fn new() -> Self {
        let run_dir = PathBuf::from("/run/dvr");
        std::fs::create_dir_all(&run_dir).expect("an empty /run");
        let topology = run_dir.join("topology.yaml");
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/example.yaml");
        std::fs::copy(example, &topology).expect("the example is readable");
        let config =
            AgentConfig { attachment: Attachment::Auto, ..AgentConfig::new("node1", topology.clone(), run_dir) };
        let switch = FakeSwitch { memory: Arc::new(Mutex::new(empty())) };
        Self { config, topology, switch, switch_server: None, agent: None }
    }

    fn start_switch(&mut self) {
        let server = Server::bind(&self.config.switch_socket).expect("nobody else is here");
        let stopper = server.stopper();
        let service = Arc::new(self.switch.clone());
        let thread = thread::spawn(move || server.serve(&service).expect("accepting works"));
        self.switch_server = Some((stopper, thread));
    }

    fn start_agent(&mut self) {
        let config = self.config.clone();
        self.agent = Some(thread::spawn(move || run(config).expect("the agent runs")));
    }

    fn client(&self) -> Client {
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

    fn settled(&self) -> Converged {
        let state: Converged = self.client().call(&Ask::Wait { timeout_millis: 20_000 }).expect("it answers");
        assert!(state.converged, "{state:?}");
        state
    }

    fn stop_agent(&mut self) {
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM).expect("a signal to oneself");
        self.agent.take().expect("it was started").join().expect("it ends in order");
    }

    fn started() -> Self {
        let mut bench = Self::new();
        bench.start_switch();
        bench.start_agent();
        bench
    }

    fn router(&self) -> (String, AgentShow) {
        let show: AgentShow = self.client().call(&Ask::Show).expect("it holds something");
        (show.routers[0].netns.clone(), show)
    }
}

fn names(json: &serde_json::Value, key: &str) -> Vec<String> {
    json.as_array().expect("a list").iter().map(|row| row[key].as_str().unwrap_or("?").to_owned()).collect()
}

/// Input: the built-in example, node1. Output: its router and machines in the kernel, as iproute2 sees them.
#[test]
fn a_node_is_made_from_nothing_and_looked_at_without_change() {
    in_namespace("a_node_is_made_from_nothing_and_looked_at_without_change", || {
        let started = Instant::now();
        let mut bench = Bench::started();
        bench.settled();
        println!("converged in {:?}", started.elapsed());
        let (router, show) = bench.router();
        let topology = Topology::example();
        assert_eq!(show.host_mac, topology.nodes()["node1"].host_mac);
        assert_eq!(show.attachment, "veth");
        for port in &show.routers[0].interfaces {
            let link = &ip_json(&format!("-n {router} addr show dev {}", port.ifname))[0];
            assert_eq!(link["address"], port.mac.to_string());
            assert_eq!(link["addr_info"].as_array().map(Vec::len), Some(1), "no link-local address: {link}");
            assert_eq!(link["addr_info"][0]["local"], port.addresses[0].addr().to_string());
        }
        let neighbours = ip_json(&format!("-n {router} neigh"));
        assert_eq!(neighbours.as_array().map(Vec::len), Some(4), "{neighbours}");
        assert!(
            neighbours.as_array().expect("a list").iter().all(|row| row["state"] == serde_json::json!(["PERMANENT"])),
            "{neighbours}"
        );
        let vm = &ip_json("-n vm-blue1 route show default")[0];
        assert_eq!((vm["gateway"].as_str(), vm["dev"].as_str()), (Some("10.1.0.1"), Some("eth0")));
        // Somebody asks again: nothing changes.
        let changes = bench.switch.memory().changes;
        assert_eq!(bench.settled().operations, 0);
        assert_eq!(bench.switch.memory().changes, changes, "the switch was told something");
        bench.stop_agent();
        assert_eq!(names(&ip_json("-n vm-blue1 link show dev eth0"), "ifname"), ["eth0"], "it outlives the agent");
    });
}

/// Input: an entry, a link and a namespace taken away, a foreign flow and a learned one added. Output: ours are back, the
/// others' stay.
#[test]
fn drift_is_repaired_and_foreign_flows_stay() {
    in_namespace("drift_is_repaired_and_foreign_flows_stay", || {
        let mut bench = Bench::started();
        bench.settled();
        let (router, show) = bench.router();
        let port = &show.routers[0].interfaces[0].ifname;
        let neighbours = || ip_json(&format!("-n {router} neigh")).as_array().map_or(0, Vec::len);
        ip(&format!("-n {router} neigh flush dev {port} nud permanent"));
        assert!(neighbours() < 4);
        bench.settled();
        assert_eq!(neighbours(), 4);
        let foreign = [
            "cookie=0x7,table=5,priority=1 actions=drop".to_owned(),
            format!(
                "cookie={LEARNED_COOKIE:#x},table=61,priority=1,vlan_tci=0x0001/0x0fff,dl_dst=02:00:00:00:00:09 \
                 actions=output:1"
            ),
        ];
        let before = bench.switch.flows("br-int");
        let strict = |flow: &Flow| format!("table={},priority={},{}", flow.table, flow.priority, flow.matching);
        let ours: Vec<&Flow> = before.iter().filter(|flow| !flow.matching.is_empty()).take(5).collect();
        let mut changes: Vec<FlowChange> =
            ours[..3].iter().map(|flow| FlowChange::DeleteStrict(strict(flow))).collect();
        changes.push(FlowChange::ModifyStrict(format!("{} actions=output:99", strict(ours[4]))));
        changes.push(FlowChange::Add(format!("cookie={COOKIE:#x},table=0,priority=9,in_port=99 actions=drop")));
        changes.extend(foreign.iter().cloned().map(FlowChange::Add));
        bench.switch.change("br-int", &changes);
        bench.settled();
        let after = bench.switch.flows("br-int");
        let text = |flow: &Flow| (flow.cookie, strict(flow), flow.actions.clone());
        let sorted = |flows: &[Flow]| {
            let mut ours: Vec<_> = flows.iter().filter(|flow| flow.cookie == COOKIE).map(text).collect();
            ours.sort();
            ours
        };
        assert_eq!(sorted(&after), sorted(&before));
        assert_eq!(after.len(), before.len() + foreign.len(), "a foreign flow was touched");
        ip("netns del vm-blue1");
        bench.settled();
        assert_eq!(names(&ip_json("-n vm-blue1 link show dev eth0"), "ifname"), ["eth0"]);
        bench.stop_agent();
    });
}

/// Input: drift that nobody asks about. Output: it is repaired within a second all the same.
#[test]
fn the_kernel_itself_tells_of_drift() {
    in_namespace("the_kernel_itself_tells_of_drift", || {
        let mut bench = Bench::started();
        bench.settled();
        let (router, show) = bench.router();
        let port = &show.routers[0].interfaces[0].ifname;
        let until = |what: &str, is: &dyn Fn() -> bool| {
            let started = Instant::now();
            while !is() {
                assert!(started.elapsed() < LONG, "{what} was not repaired");
                thread::yield_now();
            }
            println!("{what}: repaired in {:?}", started.elapsed());
        };
        let neighbours = || ip_json(&format!("-n {router} neigh")).as_array().map_or(0, Vec::len);
        ip(&format!("-n {router} neigh flush dev {port} nud permanent"));
        until("neighbours", &|| neighbours() == 4);
        ip(&format!("-n {router} addr flush dev {port}"));
        until("address", &|| ip(&format!("-n {router} -o -4 addr show dev {port}")).contains("10."));
        ip("-n vm-blue1 link set eth0 down");
        until("link", &|| ip("-n vm-blue1 -o link show dev eth0").contains(",UP"));
        ip("-n vm-blue1 link del eth0");
        until("veth", &|| ip("-n vm-blue1 -o addr").contains("10.1.0."));
        ip(&format!("netns del {router}"));
        until("namespace", &|| {
            // Its name is listed before it is mounted, and cannot be entered between.
            let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("proc is mounted");
            mounts.contains(&router) && neighbours() == 4
        });
        bench.stop_agent();
    });
}

/// Input: a switch that starts late, then restarts empty. Output: it is told everything each time.
#[test]
fn a_switch_may_be_late_and_may_forget() {
    in_namespace("a_switch_may_be_late_and_may_forget", || {
        let mut bench = Bench::new();
        bench.start_agent();
        let early: Converged = bench.client().call(&Ask::Wait { timeout_millis: 1 }).expect("it answers");
        assert!(!early.converged);
        bench.start_switch();
        bench.settled();
        let flows = |bench: &Bench| -> Vec<usize> {
            bench.switch.memory().engine.bridges().iter().map(|bridge| bridge.flows).collect()
        };
        let before = flows(&bench);
        assert!(before.len() == 2 && before.iter().all(|count| *count > 10), "{before:?}");
        // Its memory is gone, and nobody tells the agent: what it observes does.
        *bench.switch.memory() = empty();
        bench.settled();
        assert_eq!(flows(&bench), before);
        bench.stop_agent();
    });
}

/// Input: a node attached by veth pairs, then an agent whose switch makes TAPs. Output: no veth of the same name passes for
/// the TAP: all of them go, and the switch is asked for TAPs instead.
#[test]
fn another_attachment_takes_the_old_one_away() {
    in_namespace("another_attachment_takes_the_old_one_away", || {
        let mut bench = Bench::started();
        bench.settled();
        let (router, show) = bench.router();
        let port = show.routers[0].interfaces[0].ifname.clone();
        let veths = |netns: &str| ip(&format!("-n {netns} -o link show type veth")).lines().count();
        assert_eq!((veths(&router), veths("vm-blue1")), (2, 1));
        bench.stop_agent();
        bench.switch.memory().taps = true;
        bench.start_agent();
        // This switch's TAPs are words only: the node never converges, and the agent goes on asking for them.
        let is_tap = |port: &PortConfig| matches!(&port.kind, PortKind::Tap { netns: Some(_), .. });
        let until = Instant::now() + LONG;
        while !bench.switch.memory().ports.get(&port).is_some_and(is_tap) {
            assert!(Instant::now() < until, "no TAP is asked for");
            thread::yield_now();
        }
        bench.stop_agent();
        assert!(!ip("netns list").contains("dvr-ports"), "the outer ends are left");
        assert_eq!((veths(&router), veths("vm-blue1")), (0, 0));
    });
}

/// Input: a port the switch refuses. Output: an error that names it, and the rest of the node at work.
#[test]
fn one_port_in_trouble_is_not_the_nodes_trouble() {
    in_namespace("one_port_in_trouble_is_not_the_nodes_trouble", || {
        let mut bench = Bench::new();
        let topology = Topology::example();
        let view = dvr::placement::view(&topology, "node1").expect("it is there");
        let port = view.networks[0].local_ports[0].port.to_string();
        bench.switch.memory().refuse_port = Some(port.clone());
        bench.start_switch();
        bench.start_agent();
        let state: Converged = bench.client().call(&Ask::Wait { timeout_millis: 2000 }).expect("it answers");
        assert!(!state.converged && state.errors.iter().any(|error| error.contains(&port)), "{state:?}");
        let flows: Vec<String> = bench.switch.flows("br-int").into_iter().map(|flow| flow.line).collect();
        assert!(
            flows.len() > 20 && flows.iter().all(|flow| !flow.contains(&port)),
            "a flow names a port that is not there"
        );
        bench.switch.memory().refuse_port = None;
        bench.settled();
        bench.stop_agent();
    });
}

/// Input: readers. Output: what they are shown is what the kernel and the switch have.
#[test]
fn readers_see_live_data() {
    in_namespace("readers_see_live_data", || {
        let mut bench = Bench::started();
        bench.settled();
        let mut client = bench.client();
        let neighbours: Vec<Neighbour> = client.call(&Ask::Neighbours).expect("it answers");
        assert_eq!(neighbours.len(), 4);
        assert!(neighbours.iter().all(|row| row.state == "PERMANENT"), "{neighbours:?}");
        let responders: Vec<Responder> = client.call(&Ask::Responders).expect("it answers");
        assert_eq!(responders.len(), 6, "two networks of two machines and a router: {responders:?}");
        assert!(responders.iter().all(|row| row.answers == 0), "{responders:?}");
        let (_, show) = bench.router();
        let peer = show.peers[0].ports.first().cloned().expect("networks are shared");
        let learned = format!(
            "cookie={LEARNED_COOKIE:#x},table=20,priority=1,vlan_tci=0x0001/0x0fff,dl_dst=02:00:00:00:00:09 \
             actions=load:0->NXM_OF_VLAN_TCI[],load:0x1->NXM_NX_TUN_ID[],output:{peer}"
        );
        bench.switch.change("br-tun", &[FlowChange::Add(learned)]);
        let forwardings: Vec<Forwarding> = client.call(&Ask::Forwardings).expect("it answers");
        let count = |origin: &str| forwardings.iter().filter(|row| row.origin == origin).count();
        assert_eq!((count("populated"), count("learned")), (6, 1), "{forwardings:?}");
        let row = forwardings.iter().find(|row| row.origin == "learned").expect("counted");
        assert_eq!((row.node.as_deref(), row.age_secs), (Some("node2"), Some(0)));
        bench.stop_agent();
    });
}

/// Input: a machine that moves to the other node, by SIGHUP; then a purge. Output: it is gone here; then everything is.
#[test]
fn a_new_topology_is_taken_and_a_purge_leaves_nothing() {
    in_namespace("a_new_topology_is_taken_and_a_purge_leaves_nothing", || {
        let mut bench = Bench::started();
        bench.settled();
        ip("netns add foreign");
        let text = std::fs::read_to_string(&bench.topology).expect("written above");
        let moved = text.replace("blue1:   {node: node1", "blue1:   {node: node2");
        assert_ne!(text, moved, "the example has another shape");
        std::fs::write(&bench.topology, moved).expect("ours");
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).expect("a signal to oneself");
        bench.settled();
        let listed = ip("netns list");
        assert!(!listed.contains("vm-blue1") && listed.contains("vm-orange2"), "{listed}");
        std::fs::write(&bench.topology, "version: 99").expect("ours");
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGHUP).expect("a signal to oneself");
        let refused = |state: &Converged| state.errors.iter().any(|error| error.contains("topology.yaml"));
        let begun = Instant::now();
        loop {
            let state: Converged = bench.client().call(&Ask::Wait { timeout_millis: 100 }).expect("it answers");
            if !state.converged && refused(&state) {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{state:?}");
        }
        assert!(ip("netns list").contains("vm-orange2"), "a mistake in the file takes nothing away");
        assert!(matches!(purge(&bench.config), Err(AgentError::Running { .. })), "beside a living agent");
        bench.stop_agent();
        purge(&bench.config).expect("everything goes");
        assert_eq!(ip("netns list").trim(), "foreign");
        assert!(bench.switch.memory().engine.bridges().is_empty());
        let kept = std::fs::read_dir(&bench.config.run_dir).expect("there").filter_map(Result::ok);
        assert!(kept.map(|file| file.file_name()).all(|name| name != "local-vlans.json"));
        assert_eq!(purge(&bench.config).expect("twice is no error"), 0);
    });
}
