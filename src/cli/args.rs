//! The command table: every word, option and line of help.

use core::net::IpAddr;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::bench::{BenchArgs, Life};
use super::bridge_args::{AddBridgeArgs, AddPortArgs, DelBridgeArgs, DelPortArgs, FdbArgs, SetPortArgs};
use super::controller_args::{
    ApplyArgs, CertsCommand, ControllerArgs, DeleteArgs, DescribeArgs, DiffArgs, GetArgs, StatusArgs,
};
use super::flow_args::{ChangeFlowsArgs, DiffFlowsArgs, DumpFlowsArgs, FileFlowsArgs, FlowArgs};
use crate::agent::{FastPath, Tunnels};
use crate::lab::{LabName, TunnelsOf};
use crate::rpc::Addresses;
use crate::tls;

/// What `--help` says of exit codes and places.
const AFTER_HELP: &str = "\
Exit codes:
  0    done, and all is as it should be
  1    the operation or a check failed
  2    bad usage or bad input; nothing was touched (`dvr diff-flows`: they differ)
  3    not running, or not found
  130  `dvr lab up` was interrupted and has removed what it had begun (129, 143: SIGHUP, SIGTERM)
  `dvr lab exec` gives the command's own; 127 if there is no such command

Where daemons are found:
  --name L        the nodes of lab L, and its controller
  otherwise       this host's own, in /run/dvr (inside a lab's node: that node's)
  otherwise       the nodes of the only lab that runs

First steps:
  dvr lab up                              two nodes, two networks, one distributed router
  dvr lab exec blue1 -- ping 10.2.0.20    through the router, to the other node
  dvr lab test                            everything that should work, and all that must not
  dvr lab down";

/// A distributed virtual router for plain Linux.
#[derive(Debug, Parser)]
#[command(name = "dvr", version, about, after_help = AFTER_HELP, disable_help_subcommand = true, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `dvr` does.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Whole nodes on this machine, without root: up, exec, test, ls, down; kill, restart, cut, heal
    Lab {
        /// What to do with a lab.
        #[command(subcommand)]
        command: LabCommand,
    },
    /// Run a controller: owns what is desired, and tells every node its part
    Controller(ControllerArgs),
    /// How controllers are: revision, store and its members, agents, and what has met a limit
    Status(StatusArgs),
    /// Make desired state what FILE says; what FILE does not name stays, unless --prune
    Apply(ApplyArgs),
    /// What `apply` would change
    Diff(DiffArgs),
    /// What is desired: nodes, networks, routers, ports
    Get(GetArgs),
    /// One object in full
    Describe(DescribeArgs),
    /// Remove an object from desired state
    Delete(DeleteArgs),
    /// Make the certificates of controllers, agents and people
    Certs {
        /// Which certificate.
        #[command(subcommand)]
        command: CertsCommand,
    },
    /// Run this node's agent: makes kernel and switch what its controller, or a topology file, says
    ///
    /// Everything it makes bears its names, and everything of these names is its own: namespaces called `qrouter-*`,
    /// `snat-*`, `fip-*`, `vm-*`, `dvr-ports` and `dvr-tunnels`. Those that the topology does not ask for are removed. What it
    /// made stays when it ends; `dvr purge` removes it.
    Agent(AgentArgs),
    /// Run this node's switch: moves the packets
    Switch(SwitchArgs),
    /// Remove everything this host's agents have made; stop the agent first
    ///
    /// Goes by names, as the agent does: every namespace called `qrouter-*`, `snat-*`, `fip-*`, `vm-*`, `dvr-ports` or
    /// `dvr-tunnels` in the directory of named namespaces, and of a switch that runs br-int, br-tun and the bridges patched
    /// to br-int.
    Purge(PurgeArgs),
    /// Bridges, ports, tunnels, namespaces and routers, like `ovs-vsctl show`
    Show(ShowArgs),
    /// The flows of a bridge, in the text of `ovs-ofctl dump-flows`
    DumpFlows(DumpFlowsArgs),
    /// Add a flow to a bridge, in the text of `ovs-ofctl add-flow`
    AddFlow(FlowArgs),
    /// Make the changes of a file, all at one instant or none: one flow a line, after `add` (which may be left out),
    /// `modify`, `modify_strict`, `delete` or `delete_strict`, as in a bundle of `ovs-ofctl`
    AddFlows(FileFlowsArgs),
    /// Make a bridge's flows those of a file and no others; what is there already keeps its counters
    ReplaceFlows(FileFlowsArgs),
    /// Compare the flows of bridges and files, as `ovs-ofctl diff-flows` does; exit code 2 if they differ
    DiffFlows(DiffFlowsArgs),
    /// Change the actions of a bridge's flows
    ModFlows(ChangeFlowsArgs),
    /// Remove flows of a bridge
    DelFlows(ChangeFlowsArgs),
    /// What would become of a packet, table by table, like `ofproto/trace`; between VMs, the whole way across nodes
    Trace(TraceArgs),
    /// Make a bridge of your own on a node's switch; no agent touches it
    AddBr(AddBridgeArgs),
    /// Remove a bridge with its ports
    DelBr(DelBridgeArgs),
    /// Add a port to a bridge
    AddPort(AddPortArgs),
    /// Remove a port of a bridge; a TAP goes with it
    DelPort(DelPortArgs),
    /// Set the VLANs of a port
    SetPort(SetPortArgs),
    /// Where frames to each address go, populated and learned; with a command, the stations of a bridge in normal mode
    Fdb(FdbArgs),
    /// What the ARP and ND responders answer
    Arp(ReadArgs),
    /// The permanent neighbours of the routers
    Neigh(ReadArgs),
    /// What passes a place's interfaces: a line a frame, or a pcapng file
    Capture(CaptureArgs),
    /// How fast it is on this machine, beside the kernel's own bridges and others, in namespaces
    Bench(BenchArgs),
    /// What this kernel and user can do, what is missing, and how to get it
    Doctor(ReadArgs),
    /// Print completions for a shell
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Print the manual, or write its pages (roff)
    Man {
        /// Write a page for each command into this directory, as `man` looks for them, instead of printing all as one
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
    /// A lab's process 1; started by `dvr lab up`
    #[command(hide = true)]
    LabInit {
        /// The lab.
        #[arg(long)]
        name: LabName,
        /// Its directory.
        #[arg(long)]
        dir: PathBuf,
        /// Whether the lab's namespaces exist already.
        #[arg(long)]
        inside: bool,
    },
    /// A lab's node; started by the lab's process 1
    #[command(hide = true)]
    LabKeep {
        /// The node.
        #[arg(long)]
        node: String,
    },
    /// Starts a daemon of a lab's node; run inside it by `dvr lab restart`
    #[command(hide = true)]
    LabStart {
        /// The node; without it the lab's controller is started.
        #[arg(long)]
        node: Option<String>,
        /// Its daemon.
        #[arg(value_enum, default_value_t = Which::All)]
        daemon: Which,
    },
    /// Tries what `dvr doctor` asks about, in namespaces of its own
    #[command(hide = true)]
    DoctorProbe,
    /// One peer's part of a round of `dvr bench`, in namespaces of its own
    #[command(hide = true)]
    BenchStage {
        /// Where it is.
        #[arg(value_enum)]
        life: Life,
        /// The task, in JSON.
        task: String,
    },
}

/// What `dvr lab` does.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Start the nodes, VMs and routers of FILE on this machine
    Up {
        /// The topology; without it the built-in example: two nodes, blue and orange, one router
        file: Option<PathBuf>,
        /// The lab's name; without it FILE's, or `demo` for the example
        #[arg(long)]
        name: Option<LabName>,
        /// Use these controllers, on unix sockets, instead of one of the lab's own; they must desire FILE's nodes
        #[arg(long = "controller", value_name = "ADDR[,ADDR]")]
        controllers: Option<Addresses>,
        /// What makes the tunnels: `auto`, `kernel`, `userspace`; with `NODE=` before it, on that node
        #[arg(long, value_name = "[NODE=]WHAT[,…]", value_delimiter = ',')]
        tunnels: Vec<TunnelsOf>,
        /// Whether the kernel carries out what the switches decided, by BPF: takes root
        #[arg(long, value_name = "on|off", default_value_t = FastPath::Off)]
        fast_path: FastPath,
        /// Worker threads of each switch; without it as many as a switch has by itself
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=64))]
        workers: Option<u8>,
        /// Leave a lab that fails as it is, to look at it
        #[arg(long)]
        keep: bool,
    },
    /// Run a command inside a VM, a node or a router
    Exec {
        /// A VM's name, a node's name, or NODE/ROUTER
        place: String,
        /// The lab; without it the only one that runs
        #[arg(long)]
        name: Option<LabName>,
        /// The command and its arguments; without it your shell
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Check who reaches whom, and who must not, against what the topology promises
    Test {
        /// The lab; without it the only one that runs
        #[arg(long)]
        name: Option<LabName>,
        /// List everything that was tested
        #[arg(short, long)]
        verbose: bool,
        /// How to print it
        #[command(flatten)]
        output: OutputArgs,
    },
    /// The labs that run
    Ls {
        /// How to print it
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Take a lab down; leaves no process, namespace, link or file
    Down {
        /// The lab; without it the only one that runs, or the only dead one that left something
        #[arg(long, conflicts_with = "all")]
        name: Option<LabName>,
        /// Every lab of this user, and what dead ones left
        #[arg(long)]
        all: bool,
    },
    /// Kill a node's daemons, or the lab's `controller`, as a crash would
    Kill(FaultArgs),
    /// Start a node's daemons, or the lab's `controller`, anew
    Restart {
        /// Which
        #[command(flatten)]
        which: FaultArgs,
        /// What makes the node's tunnels from now on: `auto`, `kernel` or `userspace`; takes its agent to be started anew
        #[arg(long, value_name = "WHAT")]
        tunnels: Option<Tunnels>,
        /// Whether the node has the fast path from now on; takes its agent to be started anew
        #[arg(long, value_name = "on|off")]
        fast_path: Option<FastPath>,
    },
    /// Cut the wire between two nodes
    Cut(WireArgs),
    /// Heal the wire between two nodes
    Heal(WireArgs),
}

/// Which daemons of which node.
#[derive(Debug, Args)]
pub struct FaultArgs {
    /// The node, or `controller`
    pub node: String,
    /// Which of its daemons
    #[arg(value_enum, default_value_t = Which::All)]
    pub which: Which,
    /// The lab; without it the only one that runs
    #[arg(long)]
    pub name: Option<LabName>,
}

/// Which two nodes.
#[derive(Debug, Args)]
pub struct WireArgs {
    /// One node
    pub one: String,
    /// The other node
    pub other: String,
    /// The lab; without it the only one that runs
    #[arg(long)]
    pub name: Option<LabName>,
}

/// Daemons of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// The agent
    Agent,
    /// The switch
    Switch,
    /// Both
    All,
}

/// The agent's arguments.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// The node this is; without it the host's name
    #[arg(long)]
    pub node: Option<String>,
    /// A topology to read what it holds from, instead of a controller
    #[arg(long, value_name = "FILE", required_unless_present = "controller", conflicts_with = "controller")]
    pub topology: Option<PathBuf>,
    /// Controllers of one cluster, any of which will do: `unix:PATH` or `HOST:PORT`
    #[arg(long, value_name = "ADDR[,ADDR]")]
    pub controller: Option<Addresses>,
    /// Where the authority's and this node's certificate are, for controllers over TCP
    #[arg(long, value_name = "DIR", default_value = tls::DIR)]
    pub certs: PathBuf,
    /// Where this node's tunnels end: registers the node there; without it desired state must name the node
    #[arg(long, value_name = "IP", requires = "controller")]
    pub tunnel_ip: Option<IpAddr>,
    /// Where its socket goes, and where the switch's is
    #[arg(long, value_name = "DIR", default_value = "/run/dvr")]
    pub run_dir: PathBuf,
    /// Where named network namespaces are
    #[arg(long, value_name = "DIR", default_value = "/run/netns")]
    pub netns_dir: PathBuf,
    /// How VMs and routers are attached to the switch
    #[arg(long, value_enum, default_value_t = Attach::Auto)]
    pub attach: Attach,
    /// What makes tunnels: the `kernel`, by its own devices; or the switch, in `userspace`. `auto` tries the switch's, and
    /// takes the kernel's where those cannot be had, or under the fast path
    #[arg(long, value_name = "WHAT", default_value_t = Tunnels::Auto)]
    pub tunnels: Tunnels,
    /// Whether the kernel carries out, by BPF, what is like frames that the switch decided: then ports are veth pairs and
    /// `auto` tunnels the kernel's. Takes root, not of a user namespace; where BPF is refused all works without
    #[arg(long, value_name = "on|off", default_value_t = FastPath::Off)]
    pub fast_path: FastPath,
    /// How much to log, such as `debug` or `info,dvr::agent=trace`; without it RUST_LOG, or `info`
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// What `purge` takes.
#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// Where the sockets of agent and switch are
    #[arg(long, value_name = "DIR", default_value = "/run/dvr")]
    pub run_dir: PathBuf,
    /// Where named network namespaces are
    #[arg(long, value_name = "DIR", default_value = "/run/netns")]
    pub netns_dir: PathBuf,
}

/// Kinds of attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Attach {
    /// TAPs if they can be made, else veth pairs
    Auto,
    /// TAPs, or an error
    Tap,
    /// Veth pairs and packet sockets
    Veth,
}

/// Ways of routed frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Routed {
    /// Past the namespace, for as long as its tables say the same
    Bypass,
    /// Through it
    Namespace,
}

/// The switch's arguments.
#[derive(Debug, Args)]
pub struct SwitchArgs {
    /// Where its socket goes
    #[arg(long, value_name = "DIR", default_value = "/run/dvr")]
    pub run_dir: PathBuf,
    /// Worker threads; without it one where there are one or two processors, else one for each, eight at most
    #[arg(long)]
    pub workers: Option<usize>,
    /// Most flows of one bridge; without it 2,000,000. At the limit a change that adds flows is refused, and what is to
    /// be learned is counted as `learn-limit` instead
    #[arg(long, value_name = "FLOWS")]
    pub flow_limit: Option<u32>,
    /// The way of frames that a router's namespace would just forward
    #[arg(long, value_enum, value_name = "WAY", default_value = "bypass")]
    pub routed: Routed,
    /// How much to log, such as `debug` or `info,dvr::switch=trace`; without it RUST_LOG, or `info`
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// What `capture` takes.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    /// A VM's name, a node's name, or NODE/ROUTER
    pub place: String,
    /// Write pcapng to this file (`-` for standard output) instead of printing lines
    #[arg(short, long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Only this interface; may be given again; all but `lo` without it
    #[arg(short, long = "interface", value_name = "NAME")]
    pub interfaces: Vec<String>,
    /// Stop after so many frames
    #[arg(short, long)]
    pub count: Option<u64>,
    /// The lab; without it the only one that runs
    #[arg(long)]
    pub name: Option<LabName>,
}

/// How a reader prints.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArgs {
    /// How to print it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// Forms of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs
    Json,
    /// For both
    Yaml,
}

/// What readers of nodes take.
#[derive(Debug, Args)]
pub struct ReadArgs {
    /// The node; without it all of the lab's, or this host
    pub node: Option<String>,
    /// The lab
    #[arg(long)]
    pub name: Option<LabName>,
    /// How to print it
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What `show` takes.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Of whom, and how to print it
    #[command(flatten)]
    pub read: ReadArgs,
    /// Also the flows that the kernel carries out for the switch, the busiest COUNT of them (100)
    #[arg(long, value_name = "COUNT", num_args = 0..=1, require_equals = true, default_missing_value = "100")]
    pub offloaded: Option<usize>,
}

/// What `trace` takes.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// `[NODE/]BRIDGE FLOW` asks one switch; FLOW describes a packet, such as
    /// `in_port=1,dl_src=fa:16:3e:00:00:01,dl_dst=fa:16:3e:00:00:02`, or names its `in_port` only, and then comes a frame,
    /// in hexadecimal or a capture FILE. `VM VM` and `VM IP` walk the whole way, across nodes and routers, to a verdict;
    /// exit code 1 if the packet does not arrive. With --flows only FLOW…, traced in order against one state
    #[arg(required = true, value_name = "BRIDGE|VM|FLOW")]
    pub words: Vec<String>,
    /// Trace this frame, in hexadecimal, with FLOW only naming its `in_port`
    #[arg(long, value_name = "HEX", conflicts_with = "pcap")]
    pub frame: Option<String>,
    /// Trace every frame of this file, pcap or pcapng, in order
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Let `learn` and NORMAL learn from it, as from a real packet (`-generate` does as well)
    #[arg(long)]
    pub generate: bool,
    /// Without any daemon: on a bridge that has the flows of this file, and ports by number
    #[arg(long, value_name = "FILE")]
    pub flows: Option<PathBuf>,
    /// The lab
    #[arg(long)]
    pub name: Option<LabName>,
}
