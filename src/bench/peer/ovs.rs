//! Open vSwitch: on each node its userspace datapath with one bridge, and another that is the wire, under flows that do
//! what the other peers do. It runs without TAPs and so without root, as in `tests/interop.rs`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::datapath::port::within;
use crate::types::Mac;

use super::super::addresses::{ELSEWHERE, Network, Node, Station, VXLAN_PORT, remote_port};
use super::super::scene::{self, WIRE};
use super::super::traffic::End;
use super::super::{Error, device, now};

/// Where Debian has its database's schema.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
/// How long a daemon may take to listen.
const LIMIT: Duration = Duration::from_secs(20);
/// OpenFlow numbers of a node's ports.
const TUNNEL: u32 = 1;
const ELSEWHERE_TUNNEL: u32 = 2;

/// The scene, built so.
pub(super) struct Ovs {
    pids: Vec<i32>,
}

const fn machine_number(station: Station) -> u32 {
    match station.network {
        Network::Blue => 3,
        Network::Orange => 4,
    }
}

const fn router_number(network: Network) -> u32 {
    match network {
        Network::Blue => 5,
        Network::Orange => 6,
    }
}

/// Where a node's daemons have their files.
fn dir(node: Node) -> PathBuf {
    PathBuf::from("/run/ovs").join(node.name())
}

fn at(node: Node, file: &str) -> String {
    dir(node).join(file).display().to_string()
}

fn command(node: Node, name: &str, words: &[&str]) -> Command {
    #[expect(clippy::disallowed_methods, reason = "another switch's programs are what is compared with")]
    let mut command = Command::new(name);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")).stdin(Stdio::null());
    command.envs(["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"].map(|name| (name, dir(node))));
    command.args(words);
    command
}

fn run(node: Node, name: &str, words: &[&str]) -> Result<String, Error> {
    let line = || format!("{name} {}", words.join(" "));
    let output = command(node, name, words).output();
    let output = output.map_err(|source| Error::os(format!("run `{}`", line()), source))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Program { command: line(), told })
}

impl Ovs {
    pub(super) fn build() -> Result<Self, Error> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
        if !places.any(|dir| dir.join("ovs-vswitchd").is_file()) || !Path::new(SCHEMA).exists() {
            return Err(Error::Missing("Open vSwitch is not installed (Debian: openvswitch-switch)".to_owned()));
        }
        scene::build_underlay()?;
        let mut pids = Vec::new();
        for node in Node::ALL {
            scene::build_node(node, |_| None, Vec::new())?;
            // A veth pair hands checksums on unfinished, which a wire would not, and OVS refuses.
            for station in scene::stations_of(node) {
                device::finish_checksums(&scene::netns_path(station.name()), &scene::ifname(WIRE))?;
            }
            for network in Network::ALL {
                let router = scene::netns_path(scene::router_netns(node));
                device::finish_checksums(&router, &scene::gateway_port(network))?;
            }
            let started = within(Some(&scene::netns_path(node.name())), || Ok(start(node)));
            pids.push(started.map_err(|error| Error::Scene(error.to_string()))??);
            ports(node)?;
            flows(node)?;
        }
        Ok(Self { pids })
    }
}

/// Starts both daemons in the caller's network namespace, the node's; the switch's process id.
fn start(node: Node) -> Result<i32, Error> {
    std::fs::create_dir_all(dir(node)).map_err(|source| Error::os(format!("make {}", dir(node).display()), source))?;
    run(node, "ovsdb-tool", &["create", &at(node, "conf.db"), SCHEMA])?;
    let socket = at(node, "db.sock");
    let (database, control) = (format!("--remote=punix:{socket}"), format!("--unixctl={}", at(node, "db.ctl")));
    let quiet = ["-vsyslog:off", "-vfile:off", "-vconsole:off"];
    let file = at(node, "conf.db");
    let words = [&[file.as_str(), &database, &control][..], &quiet].concat();
    spawn(command(node, "ovsdb-server", &words))?;
    let begun = now();
    while !Path::new(&socket).exists() {
        if begun.elapsed() > LIMIT {
            return Err(Error::Scene("ovsdb-server does not listen".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // Its dummy datapath is the userspace one; only its bridges' own ports are no TAPs.
    let (database, control) = (format!("unix:{socket}"), format!("--unixctl={}", at(node, "switch.ctl")));
    let words = [&[database.as_str(), "--disable-system", "--enable-dummy", &control][..], &quiet].concat();
    let pid = spawn(command(node, "ovs-vswitchd", &words))?;
    vsctl(node, "--no-wait init")?;
    Ok(pid)
}

fn spawn(mut command: Command) -> Result<i32, Error> {
    let name = command.get_program().to_string_lossy().into_owned();
    // It ends with its stage.
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let child = child.map_err(|source| Error::os(format!("start {name}"), source))?;
    let Ok(pid) = i32::try_from(child.id()) else { unreachable!("process ids are positive ints") };
    Ok(pid)
}

fn vsctl(node: Node, words: &str) -> Result<String, Error> {
    let database = format!("--db=unix:{}", at(node, "db.sock"));
    let words: Vec<&str> = [database.as_str(), "--timeout=20"].into_iter().chain(words.split(' ')).collect();
    run(node, "ovs-vsctl", &words)
}

fn appctl(node: Node, words: &[&str]) -> Result<String, Error> {
    run(node, "ovs-appctl", &[&["-t", &at(node, "switch.ctl")], words].concat())
}

/// Bridges, ports and the tunnel's endpoint.
fn ports(node: Node) -> Result<(), Error> {
    let wire = wire_mac(node)?;
    let bridge = |name: &str, more: &str| {
        format!(
            "-- add-br {name} -- set bridge {name} datapath_type=dummy fail-mode=secure protocols=OpenFlow10,OpenFlow14{more}"
        )
    };
    let port = |bridge: &str, name: &str, number: u32, more: &str| {
        format!("-- add-port {bridge} {name} -- set interface {name} ofport_request={number}{more}")
    };
    let tunnel = |remote: std::net::Ipv4Addr| {
        format!(
            " type=vxlan options:remote_ip={remote} options:key=flow options:df_default=true options:dst_port={VXLAN_PORT} options:csum=true"
        )
    };
    let mut words = vec![
        // Under the wire's address, which the other node knows.
        bridge("br-phy", &format!(" other-config:hwaddr={wire}")),
        port("br-phy", WIRE, 1, ""),
        bridge("br0", ""),
        port("br0", "tun0", TUNNEL, &tunnel(node.other().endpoint())),
        port("br0", "tun1", ELSEWHERE_TUNNEL, &tunnel(ELSEWHERE)),
    ];
    words.extend(
        scene::stations_of(node)
            .map(|station| port("br0", scene::machine_port(station).as_str(), machine_number(station), "")),
    );
    words.extend(
        Network::ALL.map(|network| port("br0", scene::router_port(network).as_str(), router_number(network), "")),
    );
    vsctl(node, &words.join(" "))?;
    appctl(node, &["netdev-dummy/ip4addr", "br-phy", &format!("{}/24", node.endpoint())])?;
    appctl(node, &["ovs/route/add", &scene::net(node.endpoint(), 24).trunc().to_string(), "br-phy"])?;
    // The tunnels' next hops are known beforehand: a dummy bridge answers no question.
    let other = wire_mac(node.other())?;
    for (ip, mac) in [(node.other().endpoint(), other), (ELSEWHERE, Mac::new([0xfa, 0x16, 0x3f, 0, 0, 3]))] {
        appctl(node, &["tnl/neigh/set", "br-phy", &ip.to_string(), &mac.to_string()])?;
    }
    Ok(())
}

/// The address of a node's wire.
fn wire_mac(node: Node) -> Result<Mac, Error> {
    let read = || -> std::io::Result<Option<Mac>> {
        let addresses = nix::ifaddrs::getifaddrs()?;
        let own = addresses.filter(|one| one.interface_name == WIRE);
        Ok(own.filter_map(|one| Some(Mac::new(one.address?.as_link_addr()?.addr()?))).next())
    };
    let found = within(Some(&scene::netns_path(node.name())), || Ok(read()));
    let found = found.map_err(|error| Error::Scene(error.to_string()))?;
    found
        .map_err(|source| Error::os(format!("look at {WIRE} of {}", node.name()), source))?
        .ok_or_else(|| Error::Scene(format!("{WIRE} of {} has no address", node.name())))
}

fn flows(node: Node) -> Result<(), Error> {
    let other = node.other();
    let mut lines = Vec::new();
    for station in Station::ALL {
        let (mac, network) = (station.mac(), station.network);
        let (vni, router, from_router) = (network.vni(), network.router_mac(), router_number(network));
        let machine = Station { network, node };
        if station.node == node {
            let to = machine_number(station);
            // From the other node, by its router and by its machines; from here.
            lines.push(format!("priority=9,in_port={TUNNEL},tun_id={vni},dl_src={},dl_dst={mac},actions=mod_dl_src:{router},output:{to}", other.host_mac()));
            lines.push(format!("priority=8,in_port={TUNNEL},tun_id={vni},dl_dst={mac},actions=output:{to}"));
            lines.push(format!("priority=8,in_port={from_router},dl_dst={mac},actions=output:{to}"));
            lines.push(format!("priority=8,in_port={to},dl_dst={router},actions=output:{from_router}"));
        } else {
            let from = machine_number(machine);
            let away = format!("set_field:{vni}->tun_id,output:{TUNNEL}");
            lines.push(format!("priority=8,in_port={from},dl_dst={mac},actions={away}"));
            lines.push(format!(
                "priority=8,in_port={from_router},dl_dst={mac},actions=mod_dl_src:{},{away}",
                node.host_mac()
            ));
        }
    }
    add_flows(node, "br0", &lines)?;
    add_flows(node, "br-phy", &["priority=1,actions=NORMAL".to_owned()])
}

fn add_flows(node: Node, bridge: &str, lines: &[String]) -> Result<(), Error> {
    let file = at(node, "flows");
    std::fs::write(&file, lines.join("\n")).map_err(|source| Error::os(format!("write {file}"), source))?;
    let target = format!("unix:{}", at(node, &format!("{bridge}.mgmt")));
    run(node, "ovs-ofctl", &["-O", "OpenFlow14", "--bundle", "add-flows", &target, &file]).map(drop)
}

impl super::Peer for Ovs {
    fn end(&self, station: Station) -> End {
        scene::end(station)
    }

    fn switches(&self) -> Vec<i32> {
        self.pids.clone()
    }

    fn wires(&self) -> Vec<(PathBuf, &'static str)> {
        Node::ALL.into_iter().map(|node| (scene::netns_path(node.name()), WIRE)).collect()
    }

    fn forget(&mut self) -> Result<(), Error> {
        for node in Node::ALL {
            appctl(node, &["revalidator/purge"])?;
        }
        Ok(())
    }

    fn program(&mut self, ports: u32) -> Result<Option<Duration>, Error> {
        let begun = now();
        for node in Node::ALL {
            let blue = Station { network: Network::Blue, node };
            let (from, router, vni) = (machine_number(blue), router_number(Network::Blue), Network::Blue.vni());
            let away = format!("set_field:{vni}->tun_id,output:{ELSEWHERE_TUNNEL}");
            let of = |number: u32| {
                let (mac, _) = remote_port(number);
                [
                    format!("priority=8,in_port={from},dl_dst={mac},actions={away}"),
                    format!("priority=8,in_port={router},dl_dst={mac},actions=mod_dl_src:{},{away}", node.host_mac()),
                ]
            };
            let lines: Vec<String> = (0..ports).flat_map(of).collect();
            add_flows(node, "br0", &lines)?;
        }
        Ok(Some(begun.elapsed()))
    }
}
