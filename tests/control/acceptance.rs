//! Everything together: etcd, controllers, and the nodes of a lab.

use std::collections::BTreeMap;

use dvr::model::Kind;
use dvr::rpc::proto::{Edit, Item};
use dvr::rpc::{Address, connect};
use tonic::Code;

use crate::etcd::{How, Members};
use crate::ping::Ping;
use crate::user::{self, User};
use crate::{
    Dir, Process, apply, client, controller, delete, items, names, put, resource, runtime, time_of_day, until,
};

/// Within this, connectivity follows the API's answer.
const PROMISED_MILLIS: f64 = 200.0;

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

/// Whether more wants to run than there are processors (proc(5), `loadavg`): then how long something takes says little of
/// it.
fn is_busy() -> bool {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = text.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(f64::MAX);
    let processors = std::thread::available_parallelism().map_or(1, core::num::NonZero::get);
    load > 2.0 * processors as f64
}

/// Tells how long something took each time. Unless the machine is busy, it is once at least as fast as is promised: never,
/// if anything waited for a timer.
fn told(spans: Spans) {
    let mut slow = Vec::new();
    for (what, mut millis) in spans {
        millis.sort_by(f64::total_cmp);
        let (least, most) = (millis[0], millis[millis.len() - 1]);
        let middle = millis[millis.len() / 2];
        eprintln!("{what}: least {least:.0}, median {middle:.0}, most {most:.0} ms, of {}", millis.len());
        slow.extend((least >= PROMISED_MILLIS).then_some((what, millis)));
    }
    if is_busy() {
        eprintln!("the machine is busy: how long it took is told, and not judged");
    } else {
        assert!(slow.is_empty(), "never within {PROMISED_MILLIS} ms: {slow:?}");
    }
}

/// What was measured, by what it is.
type Spans = BTreeMap<&'static str, Vec<f64>>;

/// A port that comes and goes, and what becomes of it in between.
struct Guest<'c> {
    user: &'c User,
    writers: &'c Writers,
    name: String,
    node: &'static str,
    /// The last octet of its address.
    last: usize,
}

impl Guest<'_> {
    fn ip(&self) -> String {
        format!("10.2.0.{}", self.last)
    }

    fn edit(&self, rest: &str) -> Edit {
        let Self { name, node, .. } = self;
        let ip = self.ip();
        put(
            &resource(&format!(
                r#"{{"kind":"port","name":"{name}","network":"orange","node":"{node}","ips":["{ip}"]{rest}}}"#
            )),
            None,
        )
    }

    /// Changes it under a ping that goes on. Gives the longest silence since the API's answer, in milliseconds.
    fn silence(&self, ping: &Ping, edit: &Edit) -> f64 {
        let answered = self.writers.apply(edit);
        // Replies of the old place may come until nothing of it is left: what comes then is the new one's.
        ping.first_after(self.writers.settled());
        let replies = ping.replies();
        let silence = replies.windows(2).filter(|pair| pair[1] > answered).map(|pair| pair[1] - pair[0]);
        silence.fold(0.0, f64::max) * 1e3
    }

    /// It comes. Gives the ping that goes on.
    fn come(&self, spans: &mut Spans) -> Ping {
        let ping = Ping::start(self.user, "b1", &self.ip(), "0.01");
        let answered = self.writers.apply(&self.edit(""));
        let came = ping.first_after(answered) - answered;
        spans.entry("a port that comes answers, after the API's answer").or_default().push(came * 1e3);
        ping
    }

    /// It is moved, all at once.
    fn moves(&mut self, ping: &Ping, to: &'static str, spans: &mut Spans) {
        self.node = to;
        let silent = self.silence(ping, &self.edit(""));
        spans.entry("a port that moves is silent").or_default().push(silent);
    }

    /// It migrates live: ready at both places, then active at the other.
    fn migrates(&mut self, ping: &Ping, to: &'static str, spans: &mut Spans) {
        let ready = self.edit(&format!(r#","migrating_to":"{to}""#));
        let silent = self.silence(ping, &ready);
        spans.entry("a port that becomes ready elsewhere is silent").or_default().push(silent);
        self.node = to;
        let silent = self.silence(ping, &self.edit(""));
        spans.entry("a port that is activated there is silent").or_default().push(silent);
    }

    /// It gets another MAC.
    fn gets_another_mac(&self, ping: &Ping, spans: &mut Spans) {
        let mac = format!(r#","mac":"fa:16:3e:77:00:{:02x}""#, self.last % 256);
        let silent = self.silence(ping, &self.edit(&mac));
        spans.entry("a port that gets another MAC is silent").or_default().push(silent);
    }

    /// It gets another address, which answers; the old one does not any more.
    fn gets_another_address(&mut self, old: Ping, last: usize, spans: &mut Spans) -> Ping {
        self.last = last;
        let ping = Ping::start(self.user, "b1", &self.ip(), "0.01");
        let answered = self.writers.apply(&self.edit(""));
        let came = ping.first_after(answered) - answered;
        spans.entry("an address that a port gets answers, after the API's answer").or_default().push(came * 1e3);
        let settled = self.writers.settled();
        ping.first_after(settled + 1.0);
        let late = old.replies().last().copied().unwrap_or_default() - settled;
        assert!(late < 0.5, "{}'s old address answers {late:.1} s after it was gone", self.name);
        old.end();
        ping
    }

    /// It goes.
    fn goes(self, ping: Ping, established: &Ping, spans: &mut Spans) {
        let answered = self.writers.apply(&delete(Kind::Port, &self.name));
        let settled = self.writers.settled();
        // Others go on meanwhile; of this one nothing more comes.
        established.first_after(settled + 1.0);
        let last = ping.replies().last().copied().unwrap_or(answered);
        assert!(last < settled + 0.5, "{} answers {:.1} s after it was gone", self.name, last - settled);
        let silent = (last - answered).max(0.0);
        spans.entry("a port that goes is silent, after the API's answer").or_default().push(silent * 1e3);
        ping.end();
    }
}

/// Ports come, change, move and go under pings, while another ping goes on.
fn churn(user: &User, writers: &Writers, established: &Ping) {
    let nodes = ["node2", "node3", "node4"];
    let mut spans = Spans::new();
    for turn in 0..6 {
        let (name, node) = (format!("p{turn}"), nodes[turn % 3]);
        let mut guest = Guest { user, writers, name, node, last: 100 + turn };
        let mut ping = guest.come(&mut spans);
        if turn % 2 == 0 {
            guest.moves(&ping, nodes[(turn + 1) % 3], &mut spans);
            guest.gets_another_mac(&ping, &mut spans);
        } else {
            guest.migrates(&ping, nodes[(turn + 1) % 3], &mut spans);
            ping = guest.gets_another_address(ping, 150 + turn, &mut spans);
        }
        guest.goes(ping, established, &mut spans);
    }
    told(spans);
}

/// One process after another is killed and started again, and something is written each time. Gives the ports that were.
fn faults(
    user: &User,
    writers: &Writers,
    etcd: &mut Members,
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

/// Input: etcd ×3, controllers ×2, four nodes; ports that come, change their
/// addresses, move, migrate live and go under pings; then a controller, an agent and a
/// member of etcd killed, one at a time. Output: connectivity follows; no established ping is lost, and no write.
#[test]
fn two_controllers_on_etcd_lose_neither_pings_nor_writes() {
    let user = User::new("etcd", nix::unistd::geteuid().is_root());
    let dir = Dir::new("etcd", &user);
    let how = How { tls: false, user: user.plain.then_some(user::NOBODY) };
    let Some(mut etcd) = Members::planned(&dir.0, 3, how) else { return };
    etcd.start();
    let file = dir.0.join("four.yaml");
    std::fs::write(&file, FOUR).expect("a file");
    let sockets = [dir.0.join("a.sock"), dir.0.join("b.sock")];
    let endpoints = etcd.endpoints().join(",");
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
