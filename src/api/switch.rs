//! What an agent or the command line asks of a switch.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::types::{IfName, Mac, VlanId};

mod answer;
mod fast_path;
pub use answer::{Advertisement, Answer, Lease, PREFIXES_MAX};
pub use fast_path::{FastPathCounters, FastPathState, Offloaded, OffloadedFlow};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Opens a conversation.
    Hello {
        /// The client's [`super::VERSION`].
        version: u32,
    },
    /// Makes a bridge, or sets an existing one's mode.
    AddBridge {
        /// Its name.
        bridge: IfName,
        /// What it does with a frame.
        mode: BridgeMode,
    },
    /// Removes a bridge with its ports.
    DelBridge {
        /// Its name.
        bridge: IfName,
    },
    /// Makes a port; one of the same name and configuration is kept as it is.
    AddPort {
        /// The bridge it joins.
        bridge: IfName,
        /// The port.
        port: PortConfig,
    },
    /// Removes a port. A TAP goes with it.
    DelPort {
        /// Its bridge.
        bridge: IfName,
        /// Its name.
        port: IfName,
    },
    /// Sets the VLANs of a port, which keeps its number and its flows.
    SetPort {
        /// Its bridge.
        bridge: IfName,
        /// Its name.
        port: IfName,
        /// Its VLANs, for `NORMAL`.
        vlan: VlanMode,
    },
    /// Bridges and ports with their counters.
    Show,
    /// Changes a bridge's flows, all or none, at one instant.
    Flows {
        /// The bridge.
        bridge: IfName,
        /// What to do, in order.
        changes: Vec<FlowChange>,
    },
    /// Makes a bridge's flows these and no others, at one instant; one that is there already keeps its counters.
    /// Answered with the number of changes that took.
    ReplaceFlows {
        /// The bridge.
        bridge: IfName,
        /// Flows as [`FlowChange::Add`] takes them.
        flows: Vec<String>,
    },
    /// Makes the flows under a cookie these and no others, at one instant; one that is there already keeps its counters, and
    /// so does one that only acts differently. Flows under other cookies are left alone, save one with the very table,
    /// priority and match of one of these, which becomes that. Answered with [`Synced`].
    SyncFlows {
        /// The bridge.
        bridge: IfName,
        /// The cookie.
        cookie: u64,
        /// Flows as [`FlowChange::Add`] takes them, one a line, without `check_overlap` and `reset_counts`; whatever cookie
        /// they name is not looked at. The later of two with one table, priority and match counts.
        flows: String,
    },
    /// Flows with their counters.
    DumpFlows {
        /// The bridge.
        bridge: IfName,
        /// A match as `ovs-ofctl dump-flows` takes it; empty for all.
        #[serde(default)]
        filter: String,
        /// Whether ports are shown by name.
        #[serde(default)]
        names: bool,
    },
    /// What would become of a packet, step by step, as `ofproto/trace` tells it; answered with the text.
    Trace {
        /// The bridge it comes in by.
        bridge: IfName,
        /// The packet, described in the syntax of flows.
        flow: String,
        /// The packet's octets, if it is given as a frame: then `flow` says its `in_port` only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        frame: Option<Vec<u8>>,
        /// Whether it teaches the switch what a real packet would.
        #[serde(default)]
        generate: bool,
    },
    /// What becomes of a frame, step by step, and what leaves by which port; nothing is sent, learned or counted.
    /// Answered with [`Followed`].
    Follow {
        /// The bridge it comes in by.
        bridge: IfName,
        /// The port.
        port: IfName,
        /// What its tunnel says, if the port is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tunnel: Option<Tunnel>,
        /// The frame.
        frame: Vec<u8>,
    },
    /// Hangs the fast path on every port that may have it and does not yet: to be asked once the flows are there, for until
    /// then an earlier switch's fast path goes on. Answered with nothing; [`Port::fast_path`] says what became of it.
    FastPath,
    /// What passes to tunnels' endpoints where that is less than the kernel says: all there are, in place of those before.
    /// Senders of larger frames are told. Answered with nothing.
    Passing {
        /// By endpoint, the octets of the largest packet, outer IP header included; [`PASSING_MAX`] at most.
        octets: BTreeMap<IpAddr, u32>,
    },
    /// The flows in the kernel, one by one. Answered with [`Offloaded`].
    Offloaded {
        /// How many to tell at most: those that carried most.
        most: usize,
    },
    /// What flows' `controller(userdata=…)` actions said and no listener said to have heard, and how the switch stands:
    /// waits for something to be said, or to change. Answered with [`Notices`].
    Notices {
        /// How long to wait if nothing was; five seconds at most.
        wait_millis: u64,
        /// The greatest [`Notice::number`] that was heard: it, and what has a smaller one, is told no more. 0 for nothing.
        #[serde(default)]
        heard: u64,
        /// How the switch stood when it was asked last: that it stands otherwise is worth an answer. Without it only what is
        /// said is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        standing: Option<Standing>,
    },
    /// What a bridge in normal mode learned, and what it was told.
    Fdb {
        /// The bridge.
        bridge: IfName,
    },
    /// Says behind which port of a bridge in normal mode an address is: it neither ages nor moves.
    PinFdb {
        /// The bridge.
        bridge: IfName,
        /// The port.
        port: IfName,
        /// The VLAN, 0 for none.
        vlan: u16,
        /// The address.
        mac: Mac,
    },
    /// Takes back a [`Self::PinFdb`].
    UnpinFdb {
        /// The bridge.
        bridge: IfName,
        /// The VLAN, 0 for none.
        vlan: u16,
        /// The address.
        mac: Mac,
    },
    /// Has a bridge forget what it learned; answered with the number of addresses.
    FlushFdb {
        /// The bridge.
        bridge: IfName,
    },
}

/// What a bridge does with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BridgeMode {
    /// What its flows say; without any, nothing is forwarded.
    Flow,
    /// A learning switch: starts with the one flow `priority=0 actions=NORMAL`.
    Normal,
}

/// A change of a flow table, in the text of `ovs-ofctl`. Ports may be named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowChange {
    /// Adds a flow, or replaces the one with the same table, priority and match.
    Add(String),
    /// Sets the actions of every flow the match covers.
    Modify(String),
    /// Sets the actions of the flow with exactly this table, priority and match.
    ModifyStrict(String),
    /// Removes every flow the match covers.
    Delete(String),
    /// Removes the flow with exactly this table, priority and match.
    DeleteStrict(String),
}

/// A port to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortConfig {
    /// Its name, unique in the switch.
    pub name: IfName,
    /// What it is.
    #[serde(flatten)]
    pub kind: PortKind,
    /// Its VLANs, for `NORMAL`.
    #[serde(default)]
    pub vlan: VlanMode,
    /// Which router's interface it is: frames for it may go past that router's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<RouterInterface>,
}

/// A router's interface, seen from the router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterInterface {
    /// The router's namespace, by its file.
    pub netns: PathBuf,
    /// The interface there: the TAP itself, or the inner end of a veth pair.
    pub ifname: IfName,
}

/// A router whose interfaces are ports, in answer to [`Request::Show`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// Its namespace, by its file.
    pub netns: PathBuf,
    /// Why all frames go through the namespace; `None` while they may go past it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
    /// Frames that went past it. A super-frame counts once.
    pub packets: u64,
    /// Their octets.
    pub bytes: u64,
}

/// Which VLANs a port carries in `normal` mode.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VlanMode {
    /// All of them, tagged; untagged frames are in VLAN 0.
    #[default]
    Trunk,
    /// These, tagged.
    Trunks(Vec<VlanId>),
    /// One, untagged.
    Access(VlanId),
    /// One untagged and the listed (all if none) tagged.
    Native {
        /// The VLAN of untagged frames.
        tag: VlanId,
        /// The tagged ones.
        trunks: Vec<VlanId>,
    },
    /// The same, but for what is sent: that is tagged in every VLAN.
    NativeTagged {
        /// The VLAN of untagged frames.
        tag: VlanId,
        /// The others.
        trunks: Vec<VlanId>,
    },
}

/// What a port is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum PortKind {
    /// A TAP the switch makes in a namespace, under the port's name or another.
    Tap {
        /// The namespace's file; the switch's own without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        netns: Option<PathBuf>,
        /// The interface's name there; the port's name without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<IfName>,
        /// The interface's address there; the kernel's choice without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mac: Option<Mac>,
    },
    /// An existing interface, by packet socket.
    Packet {
        /// The namespace's file; the switch's own without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        netns: Option<PathBuf>,
        /// The interface; the port's name without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        device: Option<IfName>,
        /// Whether the kernel's fast path may be hung on it: nothing but the switch is to get what comes by it. Its frames
        /// wait for [`Request::FastPath`] then.
        #[serde(default, skip_serializing_if = "core::ops::Not::not")]
        fast: bool,
    },
    /// A VXLAN tunnel to one endpoint. The key of each frame is set and seen by flows as `tun_id`.
    Vxlan {
        /// The other endpoint.
        remote: IpAddr,
        /// This endpoint.
        local: IpAddr,
        /// The UDP port of both; 4789 unless told.
        #[serde(default = "vxlan_port")]
        udp_port: u16,
    },
    /// A GRE tunnel to one endpoint, for Ethernet frames. The key of each frame is set and seen by flows as `tun_id`.
    Gre {
        /// The other endpoint.
        remote: IpAddr,
        /// This endpoint.
        local: IpAddr,
    },
    /// One end of a patch between two bridges.
    Patch {
        /// The other end's port name.
        peer: IfName,
    },
}

const fn vxlan_port() -> u16 {
    crate::wire::vxlan::PORT
}

/// What a switch says of itself, in answer to [`Request::Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The switch's [`super::VERSION`].
    pub version: u32,
    /// The program's version.
    pub release: String,
    /// Its process id, as it sees it.
    pub pid: u32,
    /// Changes with every start: a client that sees another one must send everything again.
    pub instance: String,
    /// Worker threads.
    pub workers: usize,
    /// Why TAPs cannot be made here; `None` if they can.
    pub tap_refused: Option<String>,
}

/// What became of the flows under a cookie, in answer to [`Request::SyncFlows`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Synced {
    /// How many flows were added, modified or removed.
    pub changes: usize,
    /// The bridge's [`Bridge::revision`] then.
    pub revision: u64,
}

/// A bridge, in answer to [`Request::Show`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bridge {
    /// Its name.
    pub name: IfName,
    /// What it does.
    pub mode: BridgeMode,
    /// Flows in its tables.
    pub flows: usize,
    /// Its ports by number.
    pub ports: Vec<Port>,
    /// Greater after every request that changed its ports or flows, by one for all the flows of one request; a request that
    /// found nothing to change leaves it. So whoever finds the one it left knows that nobody else changed any. Flows that
    /// were learned or ran out do not count.
    #[serde(default)]
    pub revision: u64,
}

/// A port, in answer to [`Request::Show`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Port {
    /// Its number in its bridge: what flows call it.
    pub number: u32,
    /// How it was made.
    #[serde(flatten)]
    pub config: PortConfig,
    /// What became of its frames.
    pub counters: PortCounters,
    /// Why it carries nothing; `None` while it works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
    /// What became of the fast path that it may have; `None` if it may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast_path: Option<FastPathState>,
}

/// A port's counters. A super-frame counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortCounters {
    /// Frames received.
    pub rx_packets: u64,
    /// Octets received.
    pub rx_bytes: u64,
    /// Frames received and refused before any table: truncated, bad checksum, bad tunnel header. And those that the kernel
    /// dropped before they were read; at a tunnel they are its node's alone, not one tunnel's.
    pub rx_dropped: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Octets sent.
    pub tx_bytes: u64,
    /// Frames the port could not take: queue full, too large, gone.
    pub tx_dropped: u64,
}

/// The whole switch, in answer to [`Request::Show`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Show {
    /// Bridges by name.
    pub bridges: Vec<Bridge>,
    /// Frames dropped, by the reason's name.
    pub drops: BTreeMap<String, u64>,
    /// The flow cache.
    pub cache: CacheCounters,
    /// What the kernel carries out; `None` without a fast path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast_path: Option<FastPathCounters>,
    /// Routers whose interfaces are ports.
    #[serde(default)]
    pub routers: Vec<Router>,
    /// What [`Request::Passing`] said last.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub passing: BTreeMap<IpAddr, u32>,
}

/// Endpoints that one [`Request::Passing`] may name.
pub const PASSING_MAX: usize = 4_096;

/// The flow cache's counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheCounters {
    /// Frames that the exact-match layer decided.
    pub exact_hits: u64,
    /// Frames that a masked entry decided.
    pub masked_hits: u64,
    /// Frames that walked the tables.
    pub misses: u64,
    /// Masked entries now.
    pub entries: u64,
    /// Different masks now.
    pub masks: u64,
    /// Entries forgotten for lack of room.
    #[serde(default)]
    pub evictions: u64,
}

/// What flows said and how the switch stands, in answer to [`Request::Notices`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notices {
    /// Each thing once, in the order in which they were said last.
    pub said: Vec<Notice>,
    /// How the switch stands.
    #[serde(default)]
    pub standing: Standing,
}

/// How a switch stands: whoever rules it finds here whether somebody else changed it, or a port failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Each bridge's [`Bridge::revision`].
    pub revisions: BTreeMap<IfName, u64>,
    /// How often a port came to be at fault since the switch was started.
    pub faults: u64,
}

/// Something that a flow said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// Greater than that of everything said before it, as long as the switch lives.
    pub number: u64,
    /// How long ago it was said last, in milliseconds.
    pub age_millis: u64,
    /// The action's `userdata`.
    pub userdata: Vec<u8>,
}

/// One flow, in answer to [`Request::DumpFlows`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// The controller's mark on it.
    pub cookie: u64,
    /// Seconds since it was added.
    pub duration_secs: f64,
    /// Its table.
    pub table: u8,
    /// Packets it matched.
    pub n_packets: u64,
    /// Octets it matched.
    pub n_bytes: u64,
    /// Seconds without a match until it goes; 0 for never.
    pub idle_timeout: u16,
    /// Seconds until it goes; 0 for never.
    pub hard_timeout: u16,
    /// Seconds since its last match.
    pub idle_age: u64,
    /// Seconds since it was last added or modified.
    pub hard_age: u64,
    /// Whether it asked to be told of when it goes; kept and shown, told to nobody.
    #[serde(default)]
    pub send_flow_rem: bool,
    /// What it is worth to a switch that must make room; kept and shown, for none is evicted here.
    #[serde(default)]
    pub importance: u16,
    /// Its priority.
    pub priority: u16,
    /// Its match, without the priority, as `ovs-ofctl` prints it; empty for all.
    #[serde(rename = "match")]
    pub matching: String,
    /// Its actions, as `ovs-ofctl` prints them.
    pub actions: String,
    /// The whole line as `ovs-ofctl dump-flows` prints it.
    pub line: String,
}

/// What a tunnel says of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The key.
    pub key: u64,
    /// The outer source.
    pub source: IpAddr,
    /// The outer destination.
    pub destination: IpAddr,
}

/// What became of a frame, in answer to [`Request::Follow`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    /// All of it, as `ofproto/trace` tells it.
    pub text: String,
    /// What leaves, in order.
    pub sent: Vec<Sent>,
    /// Why nothing does, if so.
    pub dropped: Option<Dropped>,
}

/// A frame that leaves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// The bridge.
    pub bridge: IfName,
    /// Its port.
    pub port: IfName,
    /// What its tunnel is to say, if the port is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// The frame as it leaves.
    pub frame: Vec<u8>,
}

/// Why and where nothing more became of a frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The reason's name, as [`Show::drops`] has it.
    pub reason: String,
    /// The bridge it came to last.
    pub bridge: Option<String>,
    /// The table it came to last.
    pub table: Option<u8>,
}

/// An address, in answer to [`Request::Fdb`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FdbEntry {
    /// The port's number.
    pub port: u32,
    /// The port's name.
    pub port_name: String,
    /// The VLAN, 0 if untagged.
    pub vlan: u16,
    /// The address.
    pub mac: Mac,
    /// Seconds since it was last seen, or set.
    pub age_secs: u64,
    /// Whether it was set by hand, and neither ages nor moves.
    #[serde(default, rename = "static")]
    pub pinned: bool,
}
