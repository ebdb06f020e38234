//! The control plane as processes: controllers, agents, etcd, and who may do what; nothing here is faked.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "what is measured is told, and asserted only loosely")]

#[path = "support/loopback.rs"]
mod loopback;
#[path = "support/ping.rs"]
mod ping;
#[path = "support/user.rs"]
#[expect(dead_code, reason = "every test binary uses its own part of this")]
mod user;

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dvr::model::{Kind, Resource};
use dvr::rpc::proto::view_reply::What;
use dvr::rpc::proto::{
    ApplyReply, ApplyRequest, BeatRequest, Edit, Item, ListRequest, Name, StatusReply, StatusRequest, ViewRequest, edit,
};
use dvr::rpc::{Address, Client, Refused, connect};
use dvr::tls::{self, Identity};
use loopback::place;
use ping::Ping;
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig};
use user::User;

/// How long anything may take before the test gives up: the machine may be busy.
const LIMIT: Duration = Duration::from_secs(120);

/// A directory of its own, gone when the test is over.
struct Dir(PathBuf);

impl Dir {
    fn new(test: &str, user: &User) -> Self {
        let dir = std::env::temp_dir().join(format!("dvr-control-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
        if user.plain {
            let owner = nix::unistd::Uid::from_raw(user::NOBODY);
            nix::unistd::chown(&dir, Some(owner), None).expect("root gives away what it made");
        }
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that is killed when the test is over.
struct Process(Child);

impl Process {
    fn start(mut command: Command, log: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(log).expect("a log");
        let errors = log.try_clone().expect("a second handle");
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        Self(child.expect("the program starts"))
    }

    fn ended(&mut self) -> bool {
        self.0.try_wait().expect("our child").is_some()
    }

    fn kill(mut self) {
        self.0.kill().expect("our child");
        self.0.wait().expect("our child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "deadlines and measurements are the test's own")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "ping tells the time of day")]
fn time_of_day() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// Tries until something is there.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = now() + LIMIT;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(now() < deadline, "{what}: not within {LIMIT:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Starts a controller, which may have to wait for its store.
fn begun(user: &User, socket: &Path, arguments: &[&str]) -> Process {
    let mut command = user.command(&["controller", "--socket"]);
    command.arg(socket).args(arguments);
    Process::start(command, &socket.with_extension("log"))
}

/// Starts a controller and waits until it serves.
fn controller(user: &User, socket: &Path, arguments: &[&str]) -> Process {
    let mut process = begun(user, socket, arguments);
    let address = Address::Unix(socket.to_path_buf());
    until("a controller serves", || {
        let log = || std::fs::read_to_string(socket.with_extension("log")).unwrap_or_default();
        assert!(!process.ended(), "the controller ended:\n{}", log());
        runtime().block_on(status(&address)).ok()
    });
    process
}

/// How a controller is.
async fn status(address: &Address) -> Result<StatusReply, String> {
    let mut client = connect(address, None).await.map_err(|error| error.to_string())?;
    client.status(StatusRequest {}).await.map(tonic::Response::into_inner).map_err(|status| status.message().to_owned())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop")
}

async fn client(address: &Address, tls: Option<&ClientTlsConfig>) -> Client {
    connect(address, tls).await.unwrap_or_else(|error| panic!("{error}"))
}

fn resource(text: &str) -> Resource {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn put(resource: &Resource, revision: Option<u64>) -> Edit {
    Edit { what: Some(edit::What::Put(serde_json::to_vec(resource).expect("JSON"))), revision }
}

fn delete(kind: Kind, name: &str) -> Edit {
    let name = Name { kind: kind.word().to_owned(), name: name.to_owned() };
    Edit { what: Some(edit::What::Delete(name)), revision: None }
}

async fn apply(client: &mut Client, edits: Vec<Edit>) -> Result<ApplyReply, Refused> {
    let request = ApplyRequest { edits, dry_run: false, underlay: Vec::new() };
    client.apply(request).await.map(tonic::Response::into_inner).map_err(|status| Refused::from(&status))
}

async fn items(client: &mut Client, kind: Kind) -> Vec<Item> {
    let request = ListRequest { kind: kind.word().to_owned(), name: String::new() };
    let mut stream = client.list(request).await.expect("a list").into_inner();
    let mut items = Vec::new();
    while let Some(reply) = stream.message().await.expect("a part") {
        items.extend(reply.items);
    }
    items
}

async fn names(client: &mut Client, kind: Kind) -> Vec<String> {
    items(client, kind).await.into_iter().filter_map(|item| item.name).map(|name| name.name).collect()
}

/// Input: a controller over TCP; a node's, a client's, no certificate. Output: each sees what its certificate says.
#[test]
fn a_certificate_opens_its_own_view_and_no_other() {
    let user = User::new("mtls", false);
    let dir = Dir::new("mtls", &user);
    let certs = dir.0.join("certs");
    tls::init(&certs).expect("an authority");
    for identity in [Identity::Node("node1".into()), Identity::Client("admin".into())] {
        tls::issue(&certs, &identity).expect("a certificate");
    }
    let place = place().to_string();
    let (store, text) = (dir.0.join("store"), certs.display().to_string());
    let arguments = ["--store", &store.display().to_string(), "--listen", &place, "--certs", &text];
    let _controller = controller(&user, &dir.0.join("c.sock"), &arguments);
    let address: Address = place.parse().expect("an address");
    let config = |identity| tls::client_config(&certs, &identity).expect("its files");
    runtime().block_on(async {
        let view = |node: &str, ip: &str| ViewRequest {
            node: node.to_owned(),
            tunnel_ip: ip.to_owned(),
            ..ViewRequest::default()
        };
        let mut node1 = client(&address, Some(&config(Identity::Node("node1".into())))).await;
        let refused = node1.view(view("node2", "192.0.2.2")).await.expect_err("another node's view");
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
        assert!(refused.message().contains("node1") && refused.message().contains("node2"), "{refused}");
        for code in [
            node1.list(ListRequest::default()).await.expect_err("the whole").code(),
            node1.apply(ApplyRequest::default()).await.expect_err("a change").code(),
            node1
                .beat(BeatRequest { node: "node2".into(), ..BeatRequest::default() })
                .await
                .expect_err("another's beat")
                .code(),
        ] {
            assert_eq!(code, Code::PermissionDenied);
        }
        let mut own = node1.view(view("node1", "192.0.2.1")).await.expect("its own view").into_inner();
        let first = own.message().await.expect("it is told").expect("it has not ended");
        assert!(matches!(first.what, Some(What::Whole(_))), "{first:?}");
        node1.beat(BeatRequest { node: "node1".into(), ..BeatRequest::default() }).await.expect("its own beat");

        let mut admin = client(&address, Some(&config(Identity::Client("admin".into())))).await;
        assert_eq!(names(&mut admin, Kind::Node).await, ["node1"], "it registered, and node2 did not");

        let authority = std::fs::read(certs.join("ca.crt")).expect("it is there");
        let bare = ClientTlsConfig::new().domain_name(tls::CONTROLLER).ca_certificate(Certificate::from_pem(authority));
        let refused = client(&address, Some(&bare)).await.list(ListRequest::default()).await.expect_err("nobody");
        assert_eq!(refused.code(), Code::Unauthenticated);
        assert!(refused.message().contains("dvr certs client"), "{refused}");
    });
}

/// Input: two writers that saw the same revision; a controller killed and started anew. Output: the second is told of the
/// first, and what was acknowledged is there, also for an agent that goes on from where it was.
#[test]
fn writers_conflict_by_revision_and_agents_go_on_where_they_were() {
    let user = User::new("embedded", false);
    let dir = Dir::new("embedded", &user);
    let (socket, store) = (dir.0.join("c.sock"), dir.0.join("store").display().to_string());
    let process = controller(&user, &socket, &["--store", &store]);
    let address = Address::Unix(socket.clone());
    let runtime = runtime();
    let node = resource(r#"{"kind":"node","name":"n1"}"#);
    let network = resource(r#"{"kind":"network","name":"a","subnets":[{"cidr":"10.1.0.0/24","gateway":"10.1.0.1"}]}"#);
    let port = |name: &str, node: &str| {
        resource(&format!(r#"{{"kind":"port","name":"{name}","network":"a","node":"{node}"}}"#))
    };
    let view = |epoch: &str, revision| ViewRequest {
        node: "n1".into(),
        tunnel_ip: String::new(),
        epoch: epoch.to_owned(),
        revision,
    };
    let (epoch, held) = runtime.block_on(async {
        let mut client = client(&address, None).await;
        let mut stream = client.view(view("", 0)).await.expect("a stream").into_inner();
        let absent = stream.message().await.expect("told").expect("open");
        assert!(matches!(absent.what, Some(What::Absent(_))), "{absent:?}");
        let edits = vec![put(&port("p1", "n1"), None), put(&network, None), put(&node, None)];
        let made = apply(&mut client, edits).await.expect("in any order");
        assert_eq!(made.changes.len(), 3);
        let whole = stream.message().await.expect("told").expect("open");
        assert!(matches!(whole.what, Some(What::Whole(_))), "{whole:?}");
        let other = port("p1", "n1");
        let Resource::Port(mut moved) = other else { unreachable!("it is a port") };
        moved.node = None;
        let moved = Resource::Port(moved);
        let first = apply(&mut client, vec![put(&moved, Some(made.revision))]).await.expect("as it was seen");
        let second = apply(&mut client, vec![put(&port("p1", "n1"), Some(made.revision))]).await.expect_err("too late");
        assert_eq!(second.code, Code::Aborted);
        assert!(second.message.contains(&format!("revision {}", first.revision)), "{}", second.message);
        let there = apply(&mut client, vec![put(&node, Some(0))]).await.expect_err("it is there");
        assert_eq!(there.code, Code::Aborted);
        let again = apply(&mut client, vec![put(&moved, None)]).await.expect("no change is no conflict");
        assert_eq!(again.changes, []);
        let told = stream.message().await.expect("told").expect("open");
        assert!(matches!(told.what, Some(What::Changes(_))), "{told:?}");
        (told.epoch, told.revision)
    });
    process.kill();
    let _again = controller(&user, &socket, &["--store", &store]);
    runtime.block_on(async {
        let mut client = client(&address, None).await;
        assert_eq!(names(&mut client, Kind::Port).await, ["p1"]);
        let mut stream = client.view(view(&epoch, held)).await.expect("a stream").into_inner();
        let resumed = stream.message().await.expect("told").expect("open");
        assert!(matches!(resumed.what, Some(What::Resumed(true))), "{resumed:?}");
        apply(&mut client, vec![put(&port("p2", "n1"), None)]).await.expect("a change");
        let told = stream.message().await.expect("told").expect("open");
        assert!(matches!(told.what, Some(What::Changes(_))), "{told:?}");
        // Another history with such a revision is not mistaken for this one.
        let mut stream = client.view(view("another", held)).await.expect("a stream").into_inner();
        let whole = stream.message().await.expect("told").expect("open");
        assert!(matches!(whole.what, Some(What::Whole(_))), "{whole:?}");
    });
}

/// An etcd of three members, on this machine's loopback.
struct Etcd {
    members: Vec<Option<Process>>,
    commands: Vec<Box<dyn Fn() -> Process>>,
    endpoints: String,
}

impl Etcd {
    /// Its members are not started yet; `None`, with a line, where etcd is not installed and need not be.
    fn planned(dir: &Path, plain: bool) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|dir| dir.join("etcd").is_file()) {
            let required = std::env::var_os("DVR_REQUIRE_PEERS").is_some_and(|value| value == "1");
            assert!(!required, "etcd is not installed: install Debian's `etcd-server`");
            println!("etcd is not installed (Debian: `etcd-server`): this did not run");
            return None;
        }
        let places: Vec<(String, String)> = (0..3).map(|_| (place().to_string(), place().to_string())).collect();
        let at = |place: &str| format!("http://{place}");
        let cluster: Vec<String> =
            places.iter().enumerate().map(|(number, (_, peer))| format!("e{number}={}", at(peer))).collect();
        let cluster = cluster.join(",");
        let command = |(number, (clients, peers)): (usize, &(String, String))| -> Box<dyn Fn() -> Process> {
            let (name, dir, cluster) = (format!("e{number}"), dir.to_path_buf(), cluster.clone());
            let (clients, peers) = (at(clients), at(peers));
            Box::new(move || {
                #[expect(clippy::disallowed_methods, reason = "a real etcd")]
                let mut command = Command::new("etcd");
                command.args(["--name", &name, "--initial-cluster", &cluster, "--initial-cluster-state", "new"]);
                command.arg("--data-dir").arg(dir.join(&name)).args(["--logger", "zap", "--log-level", "error"]);
                command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
                command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
                command.args(["--heartbeat-interval", "300", "--election-timeout", "3000"]);
                if plain {
                    command.uid(user::NOBODY).gid(user::NOBODY);
                }
                Process::start(command, &dir.join(format!("{name}.log")))
            })
        };
        let commands: Vec<_> = places.iter().enumerate().map(command).collect();
        let endpoints: Vec<String> = places.iter().map(|(clients, _)| at(clients)).collect();
        Some(Self { members: vec![None, None, None], commands, endpoints: endpoints.join(",") })
    }

    fn start(&mut self) {
        (0..3).for_each(|number| self.restart(number));
    }

    fn kill(&mut self, number: usize) {
        self.members[number].take().expect("it runs").kill();
    }

    fn restart(&mut self, number: usize) {
        self.members[number] = Some(self.commands[number]());
    }
}

const FOUR: &str = "version: 1
nodes: {node1: {}, node2: {}, node3: {}, node4: {}}
networks: {blue: {subnets: [{cidr: 10.1.0.0/24}]}, orange: {subnets: [{cidr: 10.2.0.0/24}]}}
routers: {r1: {interfaces: [blue, orange]}}
vms:
  b1: {node: node1, network: blue, ip: 10.1.0.11}
  o2: {node: node2, network: orange, ip: 10.2.0.12}
  o3: {node: node3, network: orange, ip: 10.2.0.13}
  b4: {node: node4, network: blue, ip: 10.1.0.14}
";

/// Both controllers, whichever answers; what is written is written again until one of them has answered.
struct Writers {
    addresses: Vec<Address>,
    runtime: tokio::runtime::Runtime,
}

impl Writers {
    /// Writes, and gives the time of day of the answer.
    fn apply(&self, edit: &Edit) -> f64 {
        until("a write is answered", || {
            self.addresses.iter().find_map(|address| {
                self.runtime.block_on(async {
                    let mut client = connect(address, None).await.ok()?;
                    match apply(&mut client, vec![edit.clone()]).await {
                        Ok(_) => Some(time_of_day()),
                        Err(refused) => {
                            assert!(refused.code != Code::InvalidArgument, "{refused}");
                            None
                        }
                    }
                })
            })
        })
    }

    fn ports(&self) -> Vec<String> {
        let address = self.addresses.last().expect("there are two");
        self.runtime.block_on(async { names(&mut client(address, None).await, Kind::Port).await })
    }

    /// Waits until every node is as it was told to be, as its agent says. Gives the time of day.
    fn settled(&self) -> f64 {
        let address = self.addresses.last().expect("there are two");
        until("every node is as desired", || {
            let nodes = self.runtime.block_on(async { items(&mut client(address, None).await, Kind::Node).await });
            let settled = |item: &Item| {
                let health = item.health.as_ref();
                item.live == Some(true)
                    && health.is_some_and(|health| health.applied >= health.told && health.errors.is_empty())
            };
            nodes.iter().all(settled).then(time_of_day)
        })
    }
}

fn orange(name: &str, node: &str, ip: &str) -> Edit {
    let text = format!(r#"{{"kind":"port","name":"{name}","network":"orange","node":"{node}","ips":["{ip}"]}}"#);
    put(&resource(&text), None)
}

fn told(what: &str, mut millis: Vec<f64>) {
    millis.sort_by(f64::total_cmp);
    let middle = millis.get(millis.len() / 2).copied().unwrap_or_default();
    let most = millis.last().copied().unwrap_or_default();
    eprintln!("{what}: median {middle:.0} ms, most {most:.0} ms, of {}", millis.len());
}

/// Ports come, move and go under pings, while another ping goes on.
fn churn(user: &User, writers: &Writers, established: &Ping) {
    let nodes = ["node2", "node3", "node4"];
    let mut millis: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for turn in 0..6 {
        let (ip, name) = (format!("10.2.0.{}", 100 + turn), format!("p{turn}"));
        let ping = Ping::start(user, "b1", &ip, "0.01");
        let answered = writers.apply(&orange(&name, nodes[turn % 3], &ip));
        let came = ping.first_after(answered) - answered;
        millis.entry("a port that comes answers, after the API's answer").or_default().push(came * 1e3);
        let answered = writers.apply(&orange(&name, nodes[(turn + 1) % 3], &ip));
        // Replies of the old place may come until nothing of it is left: what comes then is the new one's.
        ping.first_after(writers.settled());
        let replies = ping.replies();
        let silence = replies.windows(2).filter(|pair| pair[1] > answered).map(|pair| pair[1] - pair[0]);
        millis.entry("a port that moves is silent").or_default().push(silence.fold(0.0, f64::max) * 1e3);
        let answered = writers.apply(&delete(Kind::Port, &name));
        let settled = writers.settled();
        // Others go on meanwhile; of this one nothing more comes.
        established.first_after(settled + 1.0);
        let last = ping.replies().last().copied().unwrap_or(answered);
        assert!(last < settled + 0.5, "{name} answers {:.1} s after it was gone", last - settled);
        let silent = (last - answered).max(0.0);
        millis.entry("a port that goes is silent, after the API's answer").or_default().push(silent * 1e3);
        ping.end();
    }
    for (what, millis) in millis {
        told(what, millis);
    }
}

/// One process after another is killed and started again, and something is written each time. Gives the ports that were.
fn faults(
    user: &User,
    writers: &Writers,
    etcd: &mut Etcd,
    restart: impl Fn() -> Process,
    first: Process,
) -> Vec<String> {
    let mut expected = Vec::new();
    let mut write = |name: &str, node: &str, ip: &str, answers: bool| {
        let answered = writers.apply(&orange(name, node, ip));
        expected.push(name.to_owned());
        if answers {
            let ping = Ping::start(user, "b1", ip, "0.05");
            eprintln!("{name}: answers {:.0} ms after the API", (ping.first_after(answered) - answered) * 1e3);
            ping.end();
        }
    };
    first.kill();
    write("without-a-controller", "node2", "10.2.0.201", true);
    let _first = restart();
    user.good(&["lab", "kill", "node3", "agent"]);
    write("without-an-agent", "node3", "10.2.0.202", false);
    user.good(&["lab", "restart", "node3", "agent"]);
    write("after-an-agent", "node3", "10.2.0.203", true);
    for member in 0..3 {
        etcd.kill(member);
        write(&format!("without-e{member}"), "node4", &format!("10.2.0.{}", 210 + member), true);
        etcd.restart(member);
        write(&format!("after-e{member}"), "node2", &format!("10.2.0.{}", 220 + member), true);
    }
    expected
}

/// Input: etcd ×3, controllers ×2, four nodes; ports that come, move and go under pings; then a controller, an agent and a
/// member of etcd killed, one at a time. Output: connectivity follows; no established ping is lost, and no write.
#[test]
fn two_controllers_on_etcd_lose_neither_pings_nor_writes() {
    let user = User::new("etcd", nix::unistd::geteuid().is_root());
    let dir = Dir::new("etcd", &user);
    let Some(mut etcd) = Etcd::planned(&dir.0, user.plain) else { return };
    etcd.start();
    let file = dir.0.join("four.yaml");
    std::fs::write(&file, FOUR).expect("a file");
    let sockets = [dir.0.join("a.sock"), dir.0.join("b.sock")];
    let endpoints = etcd.endpoints.clone();
    let start = |at: usize| {
        let apply = file.display().to_string();
        let apply = if at == 0 { vec!["--apply", &apply] } else { Vec::new() };
        controller(&user, &sockets[at], &[vec!["--etcd", &endpoints], apply].concat())
    };
    let first = start(0);
    let _second = start(1);
    let addresses = sockets.each_ref().map(|socket| Address::Unix(socket.clone()));
    let both = format!("{},{}", addresses[0], addresses[1]);
    user.good(&["lab", "up", &file.display().to_string(), "--controller", &both]);
    let writers = Writers { addresses: addresses.to_vec(), runtime: runtime() };
    let established = [Ping::start(&user, "b1", "10.2.0.12", "0.05"), Ping::start(&user, "b4", "10.2.0.13", "0.05")];
    for ping in &established {
        ping.first_after(0.0);
    }
    churn(&user, &writers, &established[0]);
    let mut expected = faults(&user, &writers, &mut etcd, || start(0), first);
    expected.extend(["b1", "b4", "o2", "o3"].map(str::to_owned));
    expected.sort();
    assert_eq!(writers.ports(), expected, "a write was lost");
    let over = time_of_day();
    for ping in established {
        ping.first_after(over);
        let (came, lost) = ping.end();
        eprintln!("an established ping: {came} replies");
        assert!(lost.is_empty(), "{lost:?} had no reply, {came} had");
    }
    let report = user.json(&["lab", "test", "-o", "json"]);
    assert_eq!(report["failures"], serde_json::Value::Array(Vec::new()), "{report}");
}

/// Input: a controller whose etcd is not there yet. Output: it says so to whoever asks, and serves as soon as it is.
#[test]
fn a_controller_waits_for_its_etcd_and_says_so() {
    let user = User::new("waits", false);
    let dir = Dir::new("waits", &user);
    let Some(mut etcd) = Etcd::planned(&dir.0, user.plain) else { return };
    let socket = dir.0.join("c.sock");
    let mut process = begun(&user, &socket, &["--etcd", &etcd.endpoints]);
    let address = Address::Unix(socket);
    let runtime = runtime();
    let why = until("it answers", || {
        runtime.block_on(status(&address)).err().filter(|why| why.contains("has not been able to read its store"))
    });
    assert!(why.contains("cannot commit in etcd"), "{why}");
    etcd.start();
    until("it serves", || runtime.block_on(status(&address)).ok());
    assert!(!process.ended());
}

/// Input: connections over TCP that show nothing, and a node that opens stream after stream. Output: the former are counted
/// and ended by the controller, the latter has one stream.
#[test]
fn strangers_are_shown_out_and_a_node_has_one_stream() {
    let user = User::new("door", false);
    let dir = Dir::new("door", &user);
    let certs = dir.0.join("certs");
    tls::init(&certs).expect("an authority");
    tls::issue(&certs, &Identity::Node("n1".into())).expect("a certificate");
    let (place, socket) = (place(), dir.0.join("c.sock"));
    let (store, text) = (dir.0.join("store").display().to_string(), certs.display().to_string());
    let arguments = ["--store", &store, "--listen", &place.to_string(), "--certs", &text];
    let _controller = controller(&user, &socket, &arguments);
    let (own, listening) = (Address::Unix(socket), Address::Tls(place.to_string()));
    let runtime = runtime();
    let before = runtime.block_on(status(&own)).expect("it serves");
    let mut silent = std::net::TcpStream::connect(place).expect("it listens");
    let strangers = until("it is seen", || runtime.block_on(status(&own)).ok().filter(|now| now.strangers > 0));
    assert_eq!(strangers.shown_out, before.shown_out);
    let config = tls::client_config(&certs, &Identity::Node("n1".into())).expect("its files");
    runtime.block_on(async {
        let view = || ViewRequest { node: "n1".into(), tunnel_ip: "192.0.2.1".into(), ..ViewRequest::default() };
        let mut node = client(&listening, Some(&config)).await;
        let mut first = node.view(view()).await.expect("a stream").into_inner();
        assert!(first.message().await.expect("told").is_some());
        let mut second = node.view(view()).await.expect("a stream").into_inner();
        let ended = loop {
            match first.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a word"),
                Err(status) => break status,
            }
        };
        assert_eq!(ended.code(), Code::Aborted, "{ended}");
        assert!(second.message().await.expect("told").is_some());
        let now = status(&own).await.expect("it serves");
        assert_eq!((now.views, now.replaced), (1, 1));
        // What a node may send is short.
        let long = BeatRequest { node: "n1".into(), applied: 1, errors: vec!["x".repeat(1 << 20)] };
        assert_eq!(node.beat(long).await.expect_err("too long").code(), Code::OutOfRange);
    });
    // The controller closes what has said nothing, by an end or by a reset.
    silent.set_read_timeout(Some(LIMIT)).expect("a limit");
    match silent.read(&mut [0]) {
        Ok(count) => assert_eq!(count, 0, "it answers silence"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}"),
    }
    until("it is counted", || runtime.block_on(status(&own)).ok().filter(|now| now.shown_out > before.shown_out));
}
