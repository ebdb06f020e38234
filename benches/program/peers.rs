//! The tools that people program a node with, given the same set.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Figures;
use super::node::Told;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const LIMIT: Duration = Duration::from_secs(20);

/// A program, found also where ordinary users do not look.
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")).stdin(Stdio::null());
    command
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{}: {}", command.get_program().display(), told.lines().last().unwrap_or_default()))
}

fn timed(mut command: Command) -> Result<Duration, String> {
    let begun = Instant::now();
    run(&mut command)?;
    Ok(begun.elapsed())
}

fn words(name: &str, line: &str) -> Command {
    let mut command = program(name);
    command.args(line.split_whitespace());
    command
}

fn write(path: &Path, lines: impl Iterator<Item = String>) {
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("/run is ours"));
    lines.for_each(|line| writeln!(file, "{line}").expect("there is room"));
    file.flush().expect("there is room");
}

/// `ip -batch`, for neighbours.
pub(crate) struct Ip;

impl Ip {
    pub(crate) fn start() -> Result<Self, String> {
        // What an earlier set left.
        let _absent = run(&mut words("ip", "link del near0"));
        run(&mut words("ip", "link add near0 type veth peer name far0"))?;
        run(&mut words("ip", "addr add 10.3.255.1/8 dev near0"))?;
        run(&mut words("ip", "link set near0 up")).map(|()| Self)
    }

    pub(crate) fn run(&mut self, told: &Told, figures: &mut Figures) -> Result<(), String> {
        let entries = |verb: &'static str| {
            let line = move |(ip, mac): &(IpAddr, dvr::types::Mac)| {
                format!("neigh {verb} {ip} lladdr {mac} dev near0 nud permanent")
            };
            told.neighbours.iter().map(line)
        };
        write(Path::new("/run/put"), entries("replace"));
        write(Path::new("/run/gone"), entries("del"));
        figures.add("ip -batch: the neighbour entries", [timed(words("ip", "-batch /run/put"))?]);
        run(&mut words("ip", "-batch /run/gone"))
    }
}

/// `bridge -batch`, for a kernel tunnel's forwarding entries.
pub(crate) struct Bridge;

impl Bridge {
    pub(crate) fn start() -> Result<Self, String> {
        let _absent = run(&mut words("ip", "link del tunnel0"));
        run(&mut words("ip", "link add tunnel0 type vxlan id 7 dstport 4788 nolearning"))?;
        run(&mut words("ip", "link set tunnel0 up")).map(|()| Self)
    }

    pub(crate) fn run(&mut self, told: &Told, figures: &mut Figures) -> Result<(), String> {
        let entries = |verb: &'static str| {
            let line =
                move |(mac, node): &(dvr::types::Mac, IpAddr)| format!("fdb {verb} {mac} dev tunnel0 dst {node}");
            told.stations.iter().map(line)
        };
        write(Path::new("/run/put"), entries("append"));
        write(Path::new("/run/gone"), entries("del"));
        figures.add(
            "bridge -batch: the forwarding entries of a vxlan device",
            [timed(words("bridge", "-batch /run/put"))?],
        );
        run(&mut words("bridge", "-batch /run/gone"))
    }
}

/// Open vSwitch with its userspace datapath, and `ovs-ofctl`.
pub(crate) struct Ovs {
    children: Vec<Child>,
    dir: PathBuf,
    files: [PathBuf; 2],
}

const BRIDGES: [&str; 2] = ["br-int", "br-tun"];

impl Ovs {
    pub(crate) fn start(told: &Told) -> Result<Self, String> {
        if !Path::new(SCHEMA).exists() {
            return Err("Open vSwitch is not installed".to_owned());
        }
        let dir = PathBuf::from("/run/ovs");
        std::fs::create_dir_all(&dir).map_err(|error| error.to_string())?;
        let mut this = Self { children: Vec::new(), files: BRIDGES.map(|bridge| dir.join(bridge)), dir };
        for (file, flows) in this.files.iter().zip([&told.br_int, &told.br_tun]) {
            write(file, renumbered(flows).into_iter());
        }
        let at = |name: &str| this.dir.join(name).display().to_string();
        run(this.command("ovsdb-tool").args(["create", &at("conf.db"), SCHEMA]))?;
        let quiet = ["-vsyslog:off", "-vfile:off", "-vconsole:off"];
        let database = format!("unix:{}", at("db.sock"));
        let mut server = this.command("ovsdb-server");
        server
            .args([at("conf.db"), format!("--remote=p{database}"), format!("--unixctl={}", at("db.ctl"))])
            .args(quiet);
        let mut switch = this.command("ovs-vswitchd");
        switch.args([&database, "--enable-dummy=override", "--disable-system"]);
        switch.arg(format!("--unixctl={}", at("switch.ctl"))).args(quiet);
        for mut command in [server, switch] {
            let silent = command.stdout(Stdio::null()).stderr(Stdio::null());
            this.children.push(silent.spawn().map_err(|error| error.to_string())?);
            let begun = Instant::now();
            while !this.dir.join("db.sock").exists() && begun.elapsed() < LIMIT {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        for bridge in BRIDGES {
            let mut command = this.command("ovs-vsctl");
            command.args([format!("--db={database}"), "--timeout=20".to_owned()]).args(["add-br", bridge, "--", "set"]);
            command.args([
                "bridge",
                bridge,
                "datapath_type=dummy",
                "fail-mode=secure",
                "protocols=OpenFlow10,OpenFlow14",
            ]);
            run(&mut command)?;
        }
        Ok(this)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = program(name);
        command.envs(["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"].map(|name| (name, &self.dir)));
        command
    }

    fn ofctl(&self, bridge: &str, words: &[&str], file: Option<&Path>) -> Command {
        let mut command = self.command("ovs-ofctl");
        command
            .args(["-O", "OpenFlow14"])
            .args(words)
            .arg(format!("unix:{}/{bridge}.mgmt", self.dir.display()))
            .args(file);
        command
    }

    pub(crate) fn run(&mut self, told: &Told, figures: &mut Figures) -> Result<(), String> {
        let mut took = Duration::ZERO;
        for (bridge, file) in BRIDGES.into_iter().zip(&self.files) {
            took += timed(self.ofctl(bridge, &["--bundle", "add-flows"], Some(file)))?;
            let output = self.ofctl(bridge, &["dump-aggregate"], None).output();
            let text = String::from_utf8_lossy(&output.map_err(|error| error.to_string())?.stdout).into_owned();
            let wanted = if bridge == "br-int" { told.br_int.len() } else { told.br_tun.len() };
            assert!(text.contains(&format!("flow_count={wanted}")), "{bridge} has not {wanted} flows: {text}");
        }
        figures.add("ovs-ofctl add-flows --bundle: the flows, into Open vSwitch", [took]);
        for bridge in BRIDGES {
            run(&mut self.ofctl(bridge, &["del-flows"], None))?;
        }
        Ok(())
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
        let _gone = std::fs::remove_dir_all(&self.dir);
    }
}

/// The flows with numbers for the names of ports, which this switch does not have.
fn renumbered(flows: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut renumber = |flow: &String| {
        let mut out = flow.clone();
        for key in ["in_port=", "output:"] {
            let mut done = String::new();
            let mut rest = out.as_str();
            while let Some(at) = rest.find(key) {
                let (before, after) = rest.split_at(at + key.len());
                let end = after.find([',', ' ', ')']).unwrap_or(after.len());
                let name = after[..end].to_owned();
                done.push_str(before);
                if name.starts_with("NXM") {
                    done.push_str(&name);
                } else {
                    let number = names.iter().position(|known| *known == name).unwrap_or_else(|| {
                        names.push(name);
                        names.len() - 1
                    });
                    done.push_str(&(number + 1).to_string());
                }
                rest = &after[end..];
            }
            done.push_str(rest);
            out = done;
        }
        out
    };
    flows.iter().map(&mut renumber).collect()
}
