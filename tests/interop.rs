//! Open vSwitch as a node of a lab, by its userspace datapath: the other end of our VXLAN and our GRE is not ours.
//!
//! Where `openvswitch-switch` is not installed, or this user may make no TAP for it, a line says so, and nothing is tested.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/transfer.rs"]
mod transfer;
#[path = "support/user.rs"]
#[expect(dead_code, reason = "this test needs part of it")]
mod user;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use transfer::transfer;
use user::User;

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// One network, a machine on either node. The second node's is to be OVS's.
const TOPOLOGY: &str = "version: 1
underlay: {cidr: 172.31.6.0/24}
nodes: {node1: {}, node2: {}}
networks: {blue: {type: KIND, vni: 5001, mtu: 1400, subnets: [{cidr: 10.1.0.0/24}]}}
vms:
  blue1: {node: node1, network: blue, ip: 10.1.0.11}
  blue2: {node: node2, network: blue, ip: 10.1.0.12, mac: 'fa:16:3e:00:00:12'}
";

/// Makes a node's namespace OVS's: its wire is a port of br-phy, the tunnel to node1 one of br-tun, and br-tun's own port
/// is the machine. Runs until its standard input closes.
const HOLDER: &str = r#"
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
export OVS_RUNDIR=$(mktemp -d) && export OVS_LOGDIR=$OVS_RUNDIR OVS_DBDIR=$OVS_RUNDIR && cd "$OVS_RUNDIR" || exit 1
finish() { kill $switch $database 2>/dev/null; wait; cd /; rm -rf "$OVS_RUNDIR"; }
trap finish EXIT
trap 'exit 1' INT TERM HUP
exec 2>&1
ovsdb-tool create conf.db "$1" || exit 1
ovsdb-server conf.db --remote=punix:$OVS_RUNDIR/db.sock --unixctl=$OVS_RUNDIR/db.ctl -vsyslog:off -vconsole:off &
database=$!
until [ -S db.sock ]; do kill -0 $database || exit 1; sleep 0.02; done
ovs-vswitchd unix:$OVS_RUNDIR/db.sock --disable-system --unixctl=$OVS_RUNDIR/switch.ctl -vsyslog:off -vconsole:off --log-file=$OVS_RUNDIR/switch.log &
switch=$!
export OVS_DB="--db=unix:$OVS_RUNDIR/db.sock --timeout=20"
ovs-vsctl $OVS_DB --no-wait init || exit 1
ovs-vsctl $OVS_DB add-br br-phy -- set bridge br-phy datapath_type=netdev fail-mode=standalone -- add-port br-phy eth0 || exit 1
ovs-vsctl $OVS_DB add-br br-tun -- set bridge br-tun datapath_type=netdev fail-mode=secure other-config:hwaddr=fa:16:3e:00:00:12 \
    -- add-port br-tun tun0 -- set interface tun0 type=$2 options:local_ip=172.31.6.2 options:remote_ip=172.31.6.1 options:key=flow ofport_request=7 || exit 1
ip address flush dev eth0
ip address add 172.31.6.2/24 dev br-phy && ip link set br-phy up || exit 1
ip address add 10.1.0.12/24 dev br-tun && ip link set br-tun mtu 1400 up || exit 1
ovs-ofctl add-flow unix:$OVS_RUNDIR/br-tun.mgmt "in_port=7,tun_id=5001,actions=LOCAL" || exit 1
ovs-ofctl add-flow unix:$OVS_RUNDIR/br-tun.mgmt "in_port=LOCAL,actions=set_tunnel:5001,output:7" || exit 1
echo ready
read -r _
ovs-ofctl dump-flows unix:$OVS_RUNDIR/br-tun.mgmt
tail -n 20 switch.log
exit 0
"#;

/// OVS in a node's place, until dropped.
struct Ovs(Child);

impl Ovs {
    fn start(user: &User, kind: &str) -> Self {
        let words = ["lab", "exec", "node2", "--name", &user.lab, "--", "sh", "-c", HOLDER, "holder", SCHEMA, kind];
        let mut child =
            user.command(&words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut lines = BufReader::new(child.stdout.as_mut().expect("piped"));
        let (mut told, mut line) = (String::new(), String::new());
        while line != "ready\n" {
            told += &line;
            line.clear();
            assert!(lines.read_line(&mut line).expect("text") > 0, "OVS did not start:\n{told}");
        }
        Self(child)
    }
}

impl Drop for Ovs {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let mut told = String::new();
        let _read = std::io::Read::read_to_string(&mut self.0.stdout.take().expect("piped"), &mut told);
        let _ended = self.0.wait();
        println!("OVS at its end:\n{told}");
    }
}

fn joins_a_lab(kind: &str) {
    let installed = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join("ovs-vswitchd").is_file());
    if !installed || !Path::new(SCHEMA).exists() {
        println!("Open vSwitch is not installed (Debian: openvswitch-switch): {kind} was not tried with it");
        return;
    }
    if let Err(error) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun") {
        println!(
            "Open vSwitch makes its bridges' own ports of TAPs, /dev/net/tun: {error}: {kind} was not tried with it"
        );
        return;
    }
    let user = User::new(&format!("ovs-{kind}"), false);
    let file = std::env::temp_dir().join(format!("{}.yaml", user.lab));
    std::fs::write(&file, TOPOLOGY.replace("KIND", kind)).expect("a file");
    user.up(Some(&file));
    std::fs::remove_file(&file).expect("our file");
    user.good(&["lab", "kill", "node2", "all"]);
    // A veth pair hands checksums on unfinished, which a wire would not, and OVS refuses.
    let finish = "PATH=$PATH:/usr/sbin:/sbin ethtool -K eth0 tx off";
    user.good(&["lab", "exec", "node1", "--", "sh", "-c", finish]);
    let ovs = Ovs::start(&user, kind);
    let ping = |place: &str, address: &str| {
        let words = ["lab", "exec", place, "--", "ping", "-c", "3", "-W", "5", "-i", "0.2", address];
        let output = user.run(&words);
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{place} to {address} by {kind}: {told}{}", user.good(&["show", "node1"]));
        assert!(!told.contains("DUP!"), "{told}");
    };
    // OVS asks who has the address through the tunnel; our responder knows OVS's.
    ping("node2", "10.1.0.11");
    ping("blue1", "10.1.0.12");
    transfer(&user, ("blue1", "node2"), "10.1.0.12");
    transfer(&user, ("node2", "blue1"), "10.1.0.11");
    drop(ovs);
}

#[test]
fn open_vswitch_joins_by_vxlan() {
    joins_a_lab("vxlan");
}

#[test]
fn open_vswitch_joins_by_gre() {
    joins_a_lab("gre");
}
