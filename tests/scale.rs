//! Many simulated agents over the real protocol: how long until a change has reached everybody concerned, and what a
//! controller takes. Run by whoever wants the figures:
//!
//! ```text
//! cargo test --release --test scale -- --ignored --nocapture
//! ```
//!
//! `DVR_SCALE=0.1` makes a tenth of everything.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stderr, reason = "figures are told, and asserted only loosely")]

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dvr::model::view::{NodeView, ViewChange};
use dvr::rpc::proto::view_reply::What;
use dvr::rpc::proto::{ApplyRequest, Edit, ViewRequest, edit};
use dvr::rpc::{Address, Client, connect};
use tokio::sync::watch;

const NODES: usize = 1_000;
const NETWORKS: usize = 500;
const ROUTERS: usize = 100;
const PORTS: usize = 100_000;
/// Ports added one by one, and measured.
const ADDED: usize = 200;
/// Edits in one request while everything is made.
const PART: usize = 2_000;

/// A controller of its own in a directory of its own.
struct Controller {
    child: Child,
    dir: PathBuf,
}

impl Controller {
    fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("dvr-scale-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("the temporary directory is writable");
        #[expect(clippy::disallowed_methods, reason = "the program under test")]
        let mut command = Command::new(env!("CARGO_BIN_EXE_dvr"));
        command.arg("controller").arg("--socket").arg(dir.join("c.sock")).arg("--store").arg(dir.join("store"));
        command.args(["--log", "warn"]);
        let child = command.stdin(Stdio::null()).stderr(Stdio::inherit()).spawn().expect("the program starts");
        let controller = Self { child, dir };
        while !controller.dir.join("c.sock").exists() {
            std::thread::sleep(Duration::from_millis(10));
        }
        controller
    }

    fn address(&self) -> Address {
        Address::Unix(self.dir.join("c.sock"))
    }

    /// The memory it holds, in MiB (`VmRSS`, `VmHWM`: proc(5)).
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
        let _gone = std::fs::remove_dir_all(&self.dir);
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured is time")]
fn now() -> Instant {
    Instant::now()
}

fn scaled(whole: usize) -> usize {
    let factor = std::env::var("DVR_SCALE").ok().and_then(|text| {
        text.parse::<usize>().ok().map(|n| (n, 1)).or_else(|| {
            text.strip_prefix("0.")
                .and_then(|digits| Some((digits.parse().ok()?, 10_usize.pow(u32::try_from(digits.len()).ok()?))))
        })
    });
    let (numerator, denominator) = factor.unwrap_or((1, 1));
    (whole * numerator / denominator).max(1)
}

fn put(text: String) -> Edit {
    Edit { what: Some(edit::What::Put(text.into_bytes())), revision: None }
}

async fn apply(client: &mut Client, edits: Vec<Edit>) -> u64 {
    let request = ApplyRequest { edits, dry_run: false, underlay: Vec::new() };
    let reply = client.apply(request).await.unwrap_or_else(|status| panic!("{}", status.message()));
    reply.into_inner().revision
}

/// A port on one of its network's nodes: twenty nodes have each network.
fn port(number: usize, nodes: usize, networks: usize) -> (String, usize) {
    let network = number % networks;
    let node = (network * 7 + (number / networks) % 20 * 13) % nodes;
    let text = format!(r#"{{"kind":"port","name":"p{number}","network":"net{network}","node":"node{node}"}}"#);
    (text, network)
}

/// An agent that holds its view and tells when a port named `x…` has come.
async fn agent(address: Address, node: String, heard: Arc<Mutex<Vec<(String, Instant)>>>, held: watch::Sender<usize>) {
    let mut client = connect(&address, None).await.unwrap_or_else(|error| panic!("{error}"));
    let request = ViewRequest { node, ..ViewRequest::default() };
    let mut stream = client.view(request).await.expect("a stream").into_inner();
    let mut octets = Vec::new();
    while let Ok(Some(reply)) = stream.message().await {
        match reply.what {
            Some(What::Whole(part)) => {
                octets.extend(part.octets);
                if part.last {
                    let _view: NodeView = serde_json::from_slice(&octets).expect("a view");
                    octets.clear();
                    held.send_modify(|held| *held += 1);
                }
            }
            Some(What::Changes(octets)) => {
                let at = now();
                let changes: Vec<ViewChange> = serde_json::from_slice(&octets).expect("changes");
                for change in changes {
                    let name = if let ViewChange::LocalPort { port, .. } = change {
                        port.name
                    } else if let ViewChange::RemotePort { port, .. } = change {
                        port.name
                    } else {
                        continue;
                    };
                    if name.starts_with('x') {
                        heard.lock().expect("no panic").push((name, at));
                    }
                }
            }
            Some(What::Absent(_) | What::Resumed(_)) | None => {}
        }
    }
}

fn percentile(sorted: &[Duration], per_cent: usize) -> Duration {
    sorted.get((sorted.len() * per_cent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

#[test]
#[ignore = "takes minutes; it is for its figures"]
fn a_change_reaches_all_concerned() {
    let (nodes, networks, routers, ports) = (scaled(NODES), scaled(NETWORKS), scaled(ROUTERS), scaled(PORTS));
    let controller = Controller::start();
    let address = controller.address();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an event loop");
    runtime.block_on(async {
        let mut client = connect(&address, None).await.unwrap_or_else(|error| panic!("{error}"));
        let mut edits: Vec<Edit> = (0..nodes)
            .map(|at| put(format!(r#"{{"kind":"node","name":"node{at}","address":"10.99.{}.{}"}}"#, at / 250, at % 250 + 1)))
            .collect();
        edits.extend((0..networks).map(|at| {
            let cidr = format!("10.{}.{}.0/21", at / 32, at % 32 * 8);
            let gateway = format!("10.{}.{}.1", at / 32, at % 32 * 8);
            put(format!(r#"{{"kind":"network","name":"net{at}","subnets":[{{"cidr":"{cidr}","gateway":"{gateway}"}}]}}"#))
        }));
        // Each router joins two networks; the other networks have none.
        edits.extend((0..routers).filter(|at| 2 * at + 1 < networks).map(|at| {
            let (one, other) = (2 * at, 2 * at + 1);
            put(format!(r#"{{"kind":"router","name":"r{at}","interfaces":[{{"network":"net{one}"}},{{"network":"net{other}"}}]}}"#))
        }));
        edits.extend((0..ports).map(|number| put(port(number, nodes, networks).0)));
        let count = edits.len();
        let begun = now();
        let mut edits = edits.into_iter().peekable();
        while edits.peek().is_some() {
            let part: Vec<Edit> = edits.by_ref().take(PART).collect();
            apply(&mut client, part).await;
        }
        eprintln!("{count} objects applied in {:.1} s", begun.elapsed().as_secs_f64());

        let heard = Arc::new(Mutex::new(Vec::new()));
        let (held, mut holding) = watch::channel(0);
        let begun = now();
        for node in 0..nodes {
            tokio::spawn(agent(address.clone(), format!("node{node}"), Arc::clone(&heard), held.clone()));
        }
        holding.wait_for(|held| *held >= nodes).await.expect("agents hold their views");
        eprintln!("{nodes} agents hold their views after {:.2} s", begun.elapsed().as_secs_f64());

        let begun = now();
        let last = holding.borrow_and_update().to_owned();
        tokio::spawn(agent(address.clone(), "node0".into(), Arc::clone(&heard), held.clone()));
        holding.wait_for(|held| *held > last).await.expect("one more");
        let resync = begun.elapsed();
        heard.lock().expect("no panic").clear();

        let (mut answers, mut reached, mut told) = (Vec::new(), Vec::new(), 0);
        for added in 0..ADDED {
            let (text, _) = port(added * 37, nodes, networks);
            let text = text.replacen(&format!("\"p{}\"", added * 37), &format!("\"x{added}\""), 1);
            let begun = now();
            apply(&mut client, vec![put(text)]).await;
            answers.push(begun.elapsed());
            // Everybody concerned has heard when nobody more does.
            let mut before = usize::MAX;
            loop {
                tokio::time::sleep(Duration::from_millis(30)).await;
                let count = heard.lock().expect("no panic").len();
                if count == before && count > 0 {
                    break;
                }
                before = count;
            }
            for (name, at) in heard.lock().expect("no panic").drain(..) {
                assert_eq!(name, format!("x{added}"));
                reached.push(at - begun);
                told += 1;
            }
        }
        answers.sort();
        reached.sort();
        let (rss, most) = controller.memory();
        eprintln!("one port: answered in {:?} (p50), {:?} (p99)", percentile(&answers, 50), percentile(&answers, 99));
        eprintln!("one port: at each of {} nodes in {:?} (p50), {:?} (p99)", told / ADDED, percentile(&reached, 50), percentile(&reached, 99));
        eprintln!("one node's full resync: {resync:?}; the controller holds {rss} MiB, {most} MiB at most");
        assert!(told / ADDED < nodes.max(50), "only nodes that have the network are told");
        assert!(resync < Duration::from_secs(30), "a resync took {resync:?}");
    });
}
