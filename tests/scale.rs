//! Many simulated agents over the real protocol: how long until a change has reached everybody concerned, whom it costs
//! work, and what a controller takes. An ordinary run is small and judges by counts; the figures are for whoever wants
//! them, at the size that operators of other control planes tell of:
//!
//! ```text
//! cargo test --release --test scale -- --ignored --nocapture
//! ```
//!
//! Agents come by the unix socket to a controller with a file, and by mutual TLS to one with an etcd of three members.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/etcd.rs"]
#[expect(dead_code, reason = "every test binary uses its own part of this")]
mod etcd;
#[path = "support/loopback.rs"]
mod loopback;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dvr::model::view::{NodeView, ViewChange};
use dvr::rpc::proto::view_reply::What;
use dvr::rpc::proto::{ApplyRequest, Edit, StatusReply, StatusRequest, ViewRequest, edit};
use dvr::rpc::{Address, Client, connect};
use dvr::tls::{self, Identity};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Nodes on which a network has ports.
const SPREAD: usize = 20;
/// Edits in one request while everything is made.
const PART: usize = 20_000;
/// What comes last, and reaches everybody: whoever has it has all that came before.
const FENCE: &str = "fence";

/// How much there is of everything.
struct Size {
    nodes: usize,
    networks: usize,
    routers: usize,
    ports: usize,
    /// Ports added one by one.
    added: usize,
    /// Nodes whose agents come one by one.
    late: usize,
}

impl Size {
    /// The network and the node of a port.
    fn place(&self, port: usize) -> (usize, usize) {
        let network = port % self.networks;
        (network, (network * 7 + (port / self.networks) % SPREAD * 13) % self.nodes)
    }

    /// The networks that a network's router joins, itself included: each router joins two.
    fn region(&self, network: usize) -> Vec<usize> {
        let (first, second) = (network / 2 * 2, network / 2 * 2 + 1);
        if network / 2 < self.routers && second < self.networks { vec![first, second] } else { vec![network] }
    }

    /// By network, the nodes that hold it.
    fn holders(&self) -> Vec<BTreeSet<usize>> {
        let mut hosts = vec![BTreeSet::new(); self.networks];
        for (network, node) in (0..self.ports).map(|port| self.place(port)) {
            hosts[network].insert(node);
        }
        let of = |network| self.region(network).iter().flat_map(|joined| hosts[*joined].iter().copied()).collect();
        (0..self.networks).map(of).collect()
    }

    fn port(&self, name: &str, number: usize) -> Edit {
        let (network, node) = self.place(number);
        put(format!(r#"{{"kind":"port","name":"{name}","network":"net{network}","node":"node{node}"}}"#))
    }

    /// Everything there is at first.
    fn edits(&self) -> Vec<Edit> {
        let node = |at: usize| {
            put(format!(r#"{{"kind":"node","name":"node{at}","address":"10.99.{}.{}"}}"#, at / 250, at % 250 + 1))
        };
        let network = |at: usize| {
            let subnet = |host| format!("10.{}.{}.{host}", at / 32, at % 32 * 8);
            let (cidr, gateway) = (subnet(0), subnet(1));
            put(format!(
                r#"{{"kind":"network","name":"net{at}","subnets":[{{"cidr":"{cidr}/21","gateway":"{gateway}"}}]}}"#
            ))
        };
        let router = |at: usize| {
            let (one, other) = (2 * at, 2 * at + 1);
            put(format!(
                r#"{{"kind":"router","name":"r{at}","interfaces":[{{"network":"net{one}"}},{{"network":"net{other}"}}]}}"#
            ))
        };
        let routers = self.routers.min(self.networks / 2);
        let all = (0..self.nodes).map(node).chain((0..self.networks).map(network)).chain((0..routers).map(router));
        all.chain((0..self.ports).map(|number| self.port(&format!("p{number}"), number))).collect()
    }
}

/// By what way agents come, and what keeps desired state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The unix socket; a file.
    Local,
    /// Mutual TLS, each agent with its own node's certificate; etcd, of three members.
    Remote,
}

/// The way to the controller.
#[derive(Debug, Clone)]
struct Line {
    address: Address,
    certs: Option<PathBuf>,
}

impl Line {
    /// Connects as somebody, again until there is a place: many come at once, and all from one address.
    async fn connect(&self, identity: Identity) -> Client {
        let tls = self.certs.as_deref().map(|dir| tls::client_config(dir, &identity).expect("its files"));
        let begun = now();
        loop {
            match connect(&self.address, tls.as_ref()).await {
                Ok(client) => return client,
                Err(error) => assert!(begun.elapsed() < Duration::from_secs(300), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A controller of its own in a directory of its own.
struct Controller {
    child: Child,
    // Goes before its directory does.
    etcd: Option<etcd::Members>,
    line: Line,
    dir: PathBuf,
}

/// An authority, and everybody's certificates.
fn certificates(dir: &Path, nodes: usize) {
    tls::init(dir).expect("an authority");
    let all = (0..nodes).map(|node| Identity::Node(format!("node{node}")));
    for identity in all.chain([Identity::Client("admin".to_owned())]) {
        tls::issue(dir, &identity).expect("a certificate");
    }
}

impl Controller {
    /// `None`, with a line, where what the way takes is not installed.
    fn start(way: Way, nodes: usize) -> Option<Self> {
        let dir = std::env::temp_dir().join(format!("dvr-scale-{way:?}-{nodes}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
        let (place, certs) = (loopback::place().to_string(), dir.join("certs"));
        let mut members = None;
        let line = match way {
            Way::Local => Line { address: Address::Unix(dir.join("c.sock")), certs: None },
            Way::Remote => {
                let mut etcd = etcd::Members::planned(&dir, 3, etcd::How::default())?;
                etcd.start();
                members = Some(etcd);
                certificates(&certs, nodes);
                Line { address: place.parse().expect("an address"), certs: Some(certs.clone()) }
            }
        };
        #[expect(clippy::disallowed_methods, reason = "the program under test")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_dvr"));
        command.args(["controller", "--log", "error", "--socket"]).arg(dir.join("c.sock"));
        match &members {
            None => command.arg("--store").arg(dir.join("store")),
            Some(etcd) => {
                command.args(["--etcd", &etcd.endpoints().join(","), "--listen", &place, "--certs"]).arg(&certs)
            }
        };
        let child = command.stdin(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("the program starts");
        let mut controller = Self { child, etcd: members, line, dir };
        while !controller.serves() {
            assert!(controller.child.try_wait().expect("our child").is_none(), "the controller ended");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(controller)
    }

    /// Whether it serves: with an etcd, it may have to wait for it.
    fn serves(&self) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
        runtime.block_on(async {
            let Ok(mut client) = connect(&Address::Unix(self.dir.join("c.sock")), None).await else { return false };
            client.status(StatusRequest {}).await.is_ok()
        })
    }

    /// The memory it holds and held at most, in MiB (`VmRSS`, `VmHWM`: proc(5)).
    fn memory(&self) -> (usize, usize) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let of = |word: &str| {
            let line = status.lines().find(|line| line.starts_with(word)).unwrap_or_default();
            let digits: String = line.chars().filter(char::is_ascii_digit).collect();
            digits.parse::<usize>().unwrap_or_default() / 1024
        };
        (of("VmRSS"), of("VmHWM"))
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
        self.etcd = None;
        let _gone = std::fs::remove_dir_all(&self.dir);
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured is time")]
fn now() -> Instant {
    Instant::now()
}

fn put(text: String) -> Edit {
    Edit { what: Some(edit::What::Put(text.into_bytes())), revision: None }
}

async fn apply(client: &mut Client, edits: Vec<Edit>) {
    let request = ApplyRequest { edits, dry_run: false, underlay: Vec::new() };
    client.apply(request).await.unwrap_or_else(|status| panic!("{}", status.message()));
}

async fn status(client: &mut Client) -> StatusReply {
    client.status(StatusRequest {}).await.expect("it answers").into_inner()
}

/// What an agent was told.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// Its whole view.
    Whole,
    /// A port, by name, here or elsewhere.
    Port(String),
    /// Another node.
    Peer(String),
    Other,
    /// Nothing more, and why.
    Lost(String),
}

impl Word {
    fn of(change: ViewChange) -> Self {
        if let ViewChange::LocalPort { port, .. } = change {
            Self::Port(port.name)
        } else if let ViewChange::RemotePort { port, .. } = change {
            Self::Port(port.name)
        } else if let ViewChange::Peer(peer) = change {
            Self::Peer(peer.name)
        } else {
            Self::Other
        }
    }
}

/// What which agent has heard, and when.
#[derive(Debug)]
struct Heard {
    node: usize,
    word: Word,
    at: Instant,
}

/// Views that are read at once, beside the one thread on which all agents answer that they live.
static READERS: Semaphore = Semaphore::const_new(2);

/// An agent that holds its view, and tells of all it hears. Until it has its view it comes again, as agents do: all of them
/// share one thread here, and may take too long to answer for the controller to think that they live.
async fn agent(line: Line, node: usize, tell: UnboundedSender<Heard>) {
    let mut is_whole = false;
    let lost = loop {
        let mut client = line.connect(Identity::Node(format!("node{node}"))).await;
        let lost = follow(&mut client, node, &mut is_whole, &tell).await;
        if is_whole {
            break lost;
        }
    };
    // Whoever listened may be done.
    drop(tell.send(Heard { node, word: Word::Lost(lost), at: now() }));
}

/// Follows a stream to its end. Gives why it ended.
async fn follow(client: &mut Client, node: usize, is_whole: &mut bool, tell: &UnboundedSender<Heard>) -> String {
    let request = ViewRequest { node: format!("node{node}"), ..ViewRequest::default() };
    let mut stream = match client.view(request).await {
        Ok(stream) => stream.into_inner(),
        Err(status) => return status.message().to_owned(),
    };
    let mut octets = Vec::new();
    let tell = |word| drop(tell.send(Heard { node, word, at: now() }));
    loop {
        let reply = match stream.message().await {
            Ok(Some(reply)) => reply,
            Ok(None) => return "the stream ended".to_owned(),
            Err(status) => return status.message().to_owned(),
        };
        match reply.what {
            Some(What::Whole(part)) => {
                octets.extend(part.octets);
                if part.last {
                    let _turn = READERS.acquire().await.expect("it is never closed");
                    let whole = core::mem::take(&mut octets);
                    let read = tokio::task::spawn_blocking(move || serde_json::from_slice::<NodeView>(&whole));
                    let _view = read.await.expect("no panic").expect("a view");
                    *is_whole = true;
                    tell(Word::Whole);
                }
            }
            Some(What::Changes(octets)) => {
                let changes: Vec<ViewChange> = serde_json::from_slice(&octets).expect("changes");
                changes.into_iter().for_each(|change| tell(Word::of(change)));
            }
            Some(What::Absent(_) | What::Resumed(_)) | None => {}
        }
    }
}

/// Durations, told by their percentiles.
struct Spans(Vec<Duration>);

impl Spans {
    fn of(mut spans: Vec<Duration>) -> Self {
        spans.sort();
        Self(spans)
    }

    fn percentile(&self, per_cent: usize) -> Duration {
        let at = (self.0.len() * per_cent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or_default()
    }

    fn told(&self) -> String {
        let millis = |per_cent| self.percentile(per_cent).as_secs_f64() * 1e3;
        format!("{:.1} ms (p50), {:.1} ms (p99), {:.1} ms (all)", millis(50), millis(99), millis(100))
    }
}

/// What was measured.
struct Figures {
    /// A late agent, from its start until it holds its whole view.
    resyncs: Spans,
    /// A port, from the question until the answer.
    answers: Spans,
    /// A port, from the question until one of the nodes concerned has it; and until the last of them has.
    reached: Spans,
    complete: Spans,
    /// MiB held by the controller, and at most.
    memory: (usize, usize),
}

/// Everybody at one event loop.
struct Fleet {
    size: Size,
    controller: Controller,
    client: Client,
    tell: UnboundedSender<Heard>,
    heard: UnboundedReceiver<Heard>,
}

impl Fleet {
    async fn start(size: Size, controller: Controller) -> Self {
        let client = controller.line.connect(Identity::Client("admin".to_owned())).await;
        let (tell, heard) = unbounded_channel();
        Self { size, controller, client, tell, heard }
    }

    async fn next(&mut self) -> Heard {
        self.heard.recv().await.expect("we hold the other end")
    }

    fn begin(&self, node: usize) {
        tokio::spawn(agent(self.controller.line.clone(), node, self.tell.clone()));
    }

    /// Makes everything, and starts the agents: most at once, the late ones after each other.
    async fn fill(&mut self) -> Spans {
        let begun = now();
        let edits = self.size.edits();
        let count = edits.len();
        for part in edits.chunks(PART) {
            apply(&mut self.client, part.to_vec()).await;
        }
        println!("{count} objects applied in {:.1} s", begun.elapsed().as_secs_f64());
        let early = self.size.nodes - self.size.late;
        let begun = now();
        (0..early).for_each(|node| self.begin(node));
        for _ in 0..early {
            assert_eq!(self.next().await.word, Word::Whole);
        }
        println!("{early} agents that come at once hold their views after {:.2} s", begun.elapsed().as_secs_f64());
        let mut spans = Vec::new();
        for node in early..self.size.nodes {
            let begun = now();
            self.begin(node);
            let heard = self.next().await;
            assert_eq!((heard.node, heard.word), (node, Word::Whole));
            spans.push(heard.at - begun);
        }
        Spans::of(spans)
    }

    /// Adds ports one by one: each reaches those who hold its network, once, and costs what they are.
    async fn add(&mut self) -> [Spans; 3] {
        let holders = self.size.holders();
        let (mut answers, mut reached, mut complete) = (Vec::new(), Vec::new(), Vec::new());
        for added in 0..self.size.added {
            let (name, number) = (format!("x{added}"), added * 37 % self.size.ports);
            let concerned = &holders[self.size.place(number).0];
            let before = status(&mut self.client).await.work;
            let begun = now();
            apply(&mut self.client, vec![self.size.port(&name, number)]).await;
            answers.push(begun.elapsed());
            let mut met = BTreeSet::new();
            while met.len() < concerned.len() {
                let Heard { node, word, at } = self.next().await;
                assert_eq!(word, Word::Port(name.clone()), "node{node}");
                assert!(concerned.contains(&node) && met.insert(node), "node{node} is told of {name}, or told twice");
                reached.push(at - begun);
            }
            complete.extend(reached.last());
            let work = status(&mut self.client).await.work - before;
            let most = 4 * concerned.len() as u64;
            assert!(work <= most, "{name} cost {work} looks and words, where {most} would do for its nodes");
        }
        [Spans::of(answers), Spans::of(reached), Spans::of(complete)]
    }

    /// Whoever is told of a new node has been told all that came before; and that was nothing more.
    async fn nothing_more(&mut self) {
        apply(&mut self.client, vec![put(format!(r#"{{"kind":"node","name":"{FENCE}"}}"#))]).await;
        for _ in 0..self.size.nodes {
            let Heard { node, word, .. } = self.next().await;
            assert_eq!(word, Word::Peer(FENCE.to_owned()), "node{node}");
        }
    }
}

fn measured(size: Size, way: Way) -> Option<Figures> {
    let controller = Controller::start(way, size.nodes)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    runtime.block_on(async {
        let mut fleet = Fleet::start(size, controller).await;
        let resyncs = fleet.fill().await;
        let [answers, reached, complete] = fleet.add().await;
        fleet.nothing_more().await;
        Some(Figures { resyncs, answers, reached, complete, memory: fleet.controller.memory() })
    })
}

const SMALL: Size = Size { nodes: 60, networks: 20, routers: 4, ports: 1_000, added: 20, late: 3 };

#[test]
fn a_port_is_told_to_its_nodes_and_costs_what_they_are() {
    measured(SMALL, Way::Local);
}

#[test]
fn a_port_is_told_to_its_nodes_over_tls_and_from_etcd() {
    measured(SMALL, Way::Remote);
}

#[test]
#[ignore = "takes minutes; it is for its figures"]
fn a_thousand_nodes_and_a_hundred_thousand_ports() {
    large(Way::Local);
    println!(
        "published: OVN, one more port on 10,000 and 1,000 nodes until all have its flows: 20.6 s, then 7.3 s (2019);"
    );
    println!(
        "  its all-host sync at 12,000 ports on 1,200 nodes: 13.7 s, then 3.3 s; 3,000 nodes: 1 s, then 0.4 s (2020)"
    );
    println!(
        "  Neutron DVR, 1,000 computes, 20,000 machines: 5 to 10 min until agents know each other, 20 GB in one server"
    );
}

#[test]
#[ignore = "takes minutes; it is for its figures"]
fn a_thousand_nodes_and_a_hundred_thousand_ports_over_tls_and_from_etcd() {
    large(Way::Remote);
}

fn large(way: Way) {
    let size = Size { nodes: 1_000, networks: 500, routers: 100, ports: 100_000, added: 500, late: 50 };
    let Some(Figures { resyncs, answers, reached, complete, memory: (held, most) }) = measured(size, way) else {
        return;
    };
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("1,000 nodes, 500 networks, 100 routers, 100,000 ports; {way:?}; load {}", load.trim());
    println!("one more port, answered: {}", answers.told());
    println!("one more port, at each node concerned: {}", reached.told());
    println!("one more port, at all of them: {}", complete.told());
    println!("one node's whole view: {}", resyncs.told());
    println!("the controller holds {held} MiB, and held {most} MiB at most");
    assert!(reached.percentile(99) < Duration::from_millis(50), "a port took {}", reached.told());
    assert!(resyncs.percentile(100) < Duration::from_secs(1), "a whole view took {}", resyncs.told());
    assert!(most < 1_024, "the controller held {most} MiB");
}
