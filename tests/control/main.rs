//! The control plane as processes: controllers, agents, etcd, and who may do what; nothing here is faked.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "what is measured is told, and asserted only loosely")]

mod acceptance;
mod certificates;
mod clock;
mod conflicts;
mod disk;
mod door;
#[path = "../support/etcd.rs"]
#[expect(dead_code, reason = "every test binary uses its own part of this")]
mod etcd;
#[path = "../support/loopback.rs"]
mod loopback;
mod outage;
#[path = "../support/ping.rs"]
mod ping;
#[path = "../support/user.rs"]
#[expect(dead_code, reason = "every test binary uses its own part of this")]
mod user;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dvr::model::{Kind, Resource};
use dvr::rpc::proto::{
    ApplyReply, ApplyRequest, Edit, Item, ListRequest, Name, StatusReply, StatusRequest, ViewRequest, edit,
};
use dvr::rpc::{Address, Client, Refused, connect};
use tonic::transport::ClientTlsConfig;
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

/// What an agent asks for that holds nothing.
fn view(node: &str) -> ViewRequest {
    ViewRequest { node: node.to_owned(), ..ViewRequest::default() }
}
