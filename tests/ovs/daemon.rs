//! A real Open vSwitch with a dummy datapath, of this process alone: no root, no kernel module, nothing left behind.
//!
//! `--enable-dummy` and not `=override`: the latter would turn the VXLAN ports into dummies too. Traces go straight to
//! the daemon's control socket, many at a time; flows and dumps through `ovs-ofctl`, which owns their text.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::case::{Answers, Case, Port, PortKind, Step, Vlans};

/// The programs' Debian package.
pub(crate) const PACKAGE: &str = "openvswitch-switch";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// Runs both daemons until its standard input closes, which it does however the test ends, and removes their files.
const HOLDER: &str = r#"
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
cd "$OVS_RUNDIR" || exit 1
finish() { kill $switch $database 2>/dev/null; wait; cd /; rm -rf "$OVS_RUNDIR"; }
trap finish EXIT
trap 'exit 1' INT TERM HUP
ovsdb-tool create conf.db "$1" || exit 1
ovsdb-server conf.db --remote=punix:$OVS_RUNDIR/db.sock --unixctl=$OVS_RUNDIR/db.ctl -vsyslog:off -vfile:off -vconsole:off &
database=$!
ovs-vswitchd unix:$OVS_RUNDIR/db.sock --enable-dummy --disable-system --unixctl=$OVS_RUNDIR/switch.ctl -vsyslog:off -vfile:off -vconsole:off &
switch=$!
read -r _
exit 0
"#;

pub(crate) struct Daemon {
    holder: Child,
    dir: PathBuf,
    control: Control,
}

/// What OVS would not take: a mistake of whoever wrote the flows.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) String);

/// A program, found also where ordinary users do not look.
fn program(name: &str) -> Command {
    #[expect(clippy::disallowed_methods, reason = "Open vSwitch is the oracle")]
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
    command
}

/// Whether OVS is here.
pub(crate) fn installed() -> bool {
    let answers = |name| program(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    Path::new(SCHEMA).exists() && ["ovs-vswitchd", "ovsdb-server", "ovs-ofctl", "ovs-vsctl"].into_iter().all(answers)
}

impl Daemon {
    /// Starts OVS with these ports.
    pub(crate) fn start(ports: &[Port]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("dvr-ovs-{}-{count}", std::process::id()));
        std::fs::create_dir(&dir).unwrap_or_else(|error| panic!("cannot make {}: {error}", dir.display()));
        let holder = program("sh")
            .args(["-c", HOLDER, "holder", SCHEMA])
            .envs(["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"].map(|name| (name, &dir)))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        let mut started = Started { holder: Some(holder), dir };
        configure(&started.dir, ports);
        let mut control = Control::connect(&started.dir.join("switch.ctl"));
        control.ask(&["dpif/set-dp-features", "br-int", "tnl_push_pop", "false"]);
        control.ask(&["time/stop"]);
        let shown = control.ask(&["dpif/show"]);
        for port in ports {
            let dp = match &port.kind {
                PortKind::Netdev { dp } | PortKind::Vxlan { dp, .. } => dp.to_string(),
                PortKind::Patch { .. } => "none".to_owned(),
            };
            let wanted = format!("{} {}/{dp}:", port.name, port.number);
            assert!(shown.contains(&wanted), "OVS numbers ports differently: no `{wanted}` in\n{shown}");
        }
        let holder = started.holder.take().expect("taken once");
        Self { holder, dir: std::mem::take(&mut started.dir), control }
    }

    /// Runs a case from an empty switch.
    pub(crate) fn run(&mut self, case: &Case) -> Result<Answers, Refused> {
        let mut answers: Answers = vec![String::new(); case.steps.len()];
        for bridge in case.bridges() {
            self.control.ask(&["fdb/flush", bridge]);
        }
        // One file per bridge and run of changes; the first empties the tables.
        let mut changes: Vec<(String, String)> =
            case.bridges().into_iter().map(|bridge| (bridge.to_owned(), "delete\n".to_owned())).collect();
        let mut traces: Vec<(usize, Vec<String>)> = Vec::new();
        for (at, step) in case.steps.iter().enumerate() {
            match step {
                Step::Change { how, bridge, flow } => {
                    self.trace(&mut traces, &mut answers);
                    let line = format!("{how} {flow}\n");
                    match changes.iter_mut().find(|(name, _)| name == bridge) {
                        Some((_, text)) => *text += &line,
                        None => changes.push((bridge.clone(), line)),
                    }
                    continue;
                }
                Step::Packet { bridge, flow, octets } => {
                    self.change(case.openflow, &mut changes)?;
                    let packet = octets.as_deref().unwrap_or("-generate");
                    traces.push((at, question(bridge, flow, packet)));
                    continue;
                }
                Step::Try { .. } | Step::Bundle { .. } | Step::Wait(_) => {}
                Step::Dump { .. } | Step::Matches(_) | Step::Fdb(_) => {}
            }
            self.change(case.openflow, &mut changes)?;
            self.trace(&mut traces, &mut answers);
            match step {
                Step::Wait(millis) => {
                    self.control.ask(&["time/warp", &millis.to_string()]);
                    // Timeouts are looked at between two rounds of the daemon's main loop.
                    self.rounds();
                }
                Step::Try { how, bridge, flow } => answers[at] = self.attempt(case.openflow, how, bridge, flow),
                Step::Bundle { bridge, changes } => {
                    let text: String = changes.iter().map(|(how, flow)| format!("{how} {flow}\n")).collect();
                    let mut command = self.ofctl(&case.openflow.to_string(), &["--bundle", "add-flows"], bridge);
                    answers[at] = verdict(feed(&mut command, &text).is_ok());
                }
                Step::Dump { bridge, filter } => answers[at] = self.dump(case.openflow, bridge, filter)?,
                Step::Matches(bridge) => answers[at] = self.dump(case.openflow, bridge, "").unwrap_or_else(unreadable),
                Step::Fdb(bridge) => answers[at] = self.control.ask(&["fdb/show", bridge]),
                Step::Change { .. } | Step::Packet { .. } => unreachable!("done above"),
            }
        }
        self.change(case.openflow, &mut changes)?;
        self.trace(&mut traces, &mut answers);
        Ok(answers)
    }

    /// Has the daemon's main loop go round a few times: it takes at most ten questions a round.
    fn rounds(&mut self) {
        let version = ["version".to_owned()];
        self.control.ask_all(&[version.as_slice(); 35]);
    }

    fn trace(&mut self, traces: &mut Vec<(usize, Vec<String>)>, answers: &mut Answers) {
        if !traces.is_empty() {
            // Until it has seen that the last `ovs-ofctl` is gone, that is a controller to it that wants the packets
            // which no flow matches (`connmgr_wants_packet_in_on_miss()`), and a trace tells of another flow then.
            self.rounds();
        }
        for chunk in traces.chunks(16) {
            let requests: Vec<&[String]> = chunk.iter().map(|(_, words)| words.as_slice()).collect();
            for ((at, _), answer) in chunk.iter().zip(self.control.ask_all(&requests)) {
                answers[*at] = answer;
            }
        }
        traces.clear();
    }

    /// `openflow` is a version, or several with commas.
    fn ofctl(&self, openflow: &str, words: &[&str], bridge: &str) -> Command {
        let mut command = program("ovs-ofctl");
        let versions: Vec<String> = openflow.split(',').map(|version| format!("OpenFlow{version}")).collect();
        command.args(["-O", &versions.join(",")]).args(words);
        command.arg(format!("unix:{}/{bridge}.mgmt", self.dir.display()));
        command
    }

    /// Makes a change with the case's version, or if that cannot carry it with any other.
    fn attempt(&self, openflow: u8, how: &str, bridge: &str, flow: &str) -> String {
        let line = format!("{how} {flow}\n");
        let versions = [&openflow.to_string(), "10", "15"];
        let taken = |versions: &str| feed(&mut self.ofctl(versions, &["add-flows"], bridge), &line).is_ok();
        verdict(versions.into_iter().any(taken))
    }

    fn change(&mut self, openflow: u8, changes: &mut Vec<(String, String)>) -> Result<(), Refused> {
        let running: Vec<(Child, String)> = changes
            .drain(..)
            .map(|(bridge, text)| {
                let child = start(&mut self.ofctl(&openflow.to_string(), &["add-flows"], &bridge), &text);
                (child, text)
            })
            .collect();
        let mut refused = Ok(());
        for (child, text) in running {
            refused = refused.and(ended(child, &text));
        }
        refused
    }

    fn dump(&self, openflow: u8, bridge: &str, filter: &str) -> Result<String, Refused> {
        let mut command = self.ofctl(&openflow.to_string(), &["dump-flows", "--no-stats"], bridge);
        let output = command.arg(filter).output().expect("ovs-ofctl runs");
        if !output.status.success() {
            return Err(Refused(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        Ok(lines.join("\n"))
    }
}

/// OVS holds a flow that its own `ovs-ofctl` cannot read.
fn unreadable(_: Refused) -> String {
    UNREADABLE.to_owned()
}

/// The dump of flows of which one cannot be read.
pub(crate) const UNREADABLE: &str = "unreadable";

/// How the answer to a change that may be refused reads.
pub(crate) fn verdict(accepted: bool) -> String {
    if accepted { "accepted" } else { "refused" }.to_owned()
}

/// Starts a program that reads flows from its standard input.
fn start(command: &mut Command, text: &str) -> Child {
    let piped = command.arg("-").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("ovs-ofctl runs");
    let mut input = child.stdin.take().expect("piped");
    // A program that gave up has said why on its standard error.
    let _ = input.write_all(text.as_bytes());
    child
}

fn ended(child: Child, text: &str) -> Result<(), Refused> {
    let output = child.wait_with_output().expect("ovs-ofctl ends");
    if output.status.success() {
        return Ok(());
    }
    Err(Refused(format!("{}\n{text}", String::from_utf8_lossy(&output.stderr))))
}

fn feed(command: &mut Command, text: &str) -> Result<(), Refused> {
    ended(start(command, text), text)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        finish(&mut self.holder);
    }
}

/// What must end if starting goes wrong half-way.
struct Started {
    holder: Option<Child>,
    dir: PathBuf,
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            finish(holder);
        }
    }
}

/// A packet's trace. One from a tunnel goes in at the datapath, as it would come: the flow syntax cannot say that its
/// tunnel had a key.
fn question(bridge: &str, flow: &str, packet: &str) -> Vec<String> {
    let part = |name: &str| flow.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let tunnel = [part("tun_id"), part("tun_src"), part("tun_dst"), part("tun_tos"), part("tun_ttl")];
    let words = match tunnel {
        [Some(id), Some(src), Some(dst), Some(tos), Some(ttl)] => {
            let tunnel = format!("tun_id={id},src={src},dst={dst},tos={tos},ttl={ttl},flags(key)");
            let key = format!("tunnel({tunnel}),in_port(4789),eth(),eth_type(0x1234)");
            ["ofproto/trace", "ovs-dummy", &key, packet].map(str::to_owned)
        }
        _ => ["ofproto/trace", bridge, flow, packet].map(str::to_owned),
    };
    words.to_vec()
}

fn finish(holder: &mut Child) {
    drop(holder.stdin.take());
    let _ = holder.wait();
}

fn configure(dir: &Path, ports: &[Port]) {
    let database = format!("--db=unix:{}/db.sock", dir.display());
    let run = |command: &mut Command| {
        let output = command.output().expect("ovs-vsctl runs");
        assert!(output.status.success(), "OVS could not be configured: {}", String::from_utf8_lossy(&output.stderr));
    };
    let mut bridges: Vec<&str> = ports.iter().map(|port| port.bridge.as_str()).collect();
    bridges.dedup();
    // One by one, so that their own ports are numbered in this order.
    for bridge in bridges {
        let mut command = program("ovs-vsctl");
        command.args([&database, "--timeout=20", "--retry", "add-br", bridge]);
        command.args(["--", "set", "bridge", bridge, "datapath_type=dummy", "fail-mode=secure"]);
        run(&mut command);
    }
    let mut command = program("ovs-vsctl");
    command.args([&database, "--timeout=20"]);
    for port in ports.iter().filter(|port| port.name != port.bridge) {
        command.args(["--", "add-port", &port.bridge, &port.name]);
        let list = |tags: &[u16]| format!("trunks={}", tags.iter().map(u16::to_string).collect::<Vec<_>>().join(","));
        match &port.vlans {
            Vlans::Trunk => {}
            Vlans::Trunks(tags) => {
                command.arg(list(tags));
            }
            Vlans::Access(tag) => {
                command.arg(format!("tag={tag}"));
            }
            Vlans::Native(tag, tags) => {
                command.args([format!("tag={tag}"), list(tags), "vlan_mode=native-untagged".to_owned()]);
            }
        }
        command.args(["--", "set", "interface", &port.name, &format!("ofport_request={}", port.number)]);
        match &port.kind {
            PortKind::Netdev { .. } => {
                command.arg("type=dummy");
            }
            PortKind::Patch { peer } => {
                command.args(["type=patch".to_owned(), format!("options:peer={peer}")]);
            }
            PortKind::Vxlan { local, remote, .. } => {
                command.args(["type=vxlan".to_owned(), "options:key=flow".to_owned()]);
                command.args([format!("options:local_ip={local}"), format!("options:remote_ip={remote}")]);
            }
        }
    }
    run(&mut command);
}

/// The daemon's control socket: JSON-RPC 1.0 (`ovs-appctl(8)`, "unixctl").
struct Control {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Control {
    fn connect(path: &Path) -> Self {
        let stream =
            UnixStream::connect(path).unwrap_or_else(|error| panic!("cannot reach {}: {error}", path.display()));
        // A daemon that hangs is a failure, not a test that never ends.
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a legal timeout");
        Self { stream, received: Vec::new() }
    }

    fn ask(&mut self, words: &[&str]) -> String {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        self.ask_all(&[&words]).pop().expect("one answer to one question")
    }

    /// Asks everything at once: the daemon takes several per round of its main loop.
    fn ask_all(&mut self, requests: &[&[String]]) -> Vec<String> {
        let mut sent = Vec::new();
        for (id, words) in requests.iter().enumerate() {
            let (method, params) = words.split_first().expect("a method");
            serde_json::to_writer(&mut sent, &serde_json::json!({"id": id, "method": method, "params": params}))
                .expect("JSON of strings");
        }
        self.stream.write_all(&sent).expect("OVS reads");
        let mut answers = Vec::with_capacity(requests.len());
        while answers.len() < requests.len() {
            let mut room = [0; 65_536];
            let count = self.stream.read(&mut room).unwrap_or(0);
            assert!(count > 0, "OVS died, or gave no answer for a minute, over one of {requests:?}");
            self.received.extend_from_slice(&room[..count]);
            // Traces may have megabytes: they are read once, when they may be whole.
            if self.received.last() != Some(&b'}') {
                continue;
            }
            let mut replies = serde_json::Deserializer::from_slice(&self.received).into_iter::<serde_json::Value>();
            while let Some(Ok(reply)) = replies.next() {
                let text = |name: &str| reply.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
                answers.push(
                    text("result").or_else(|| text("error").map(|why| format!("error: {why}"))).unwrap_or_default(),
                );
            }
            let done = replies.byte_offset();
            self.received.drain(..done);
        }
        answers
    }
}
