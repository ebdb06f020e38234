//! What is measured, between whom, under which conditions, and in which unit.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

/// A word that is none of those there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{word}` is no {what}; there are: {}", known.join(", "))]
pub struct BadWord {
    word: String,
    what: &'static str,
    known: Vec<&'static str>,
}

/// Enums whose values are words of the command line.
macro_rules! words {
    ($kind:ident, $what:literal, $($(#[$doc:meta])* $name:ident = $word:literal,)+) => {
        impl $kind {
            /// All of them, in the order they are shown.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word for it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.pad(self.word())
            }
        }

        impl FromStr for $kind {
            type Err = BadWord;

            fn from_str(word: &str) -> Result<Self, BadWord> {
                let known = || Self::ALL.iter().map(|one| one.word()).collect();
                let found = Self::ALL.iter().copied().find(|one| one.word() == word);
                found.ok_or_else(|| BadWord { word: word.to_owned(), what: $what, known: known() })
            }
        }
    };
}

/// One way to build the scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PeerKind {
    /// A veth pair between two machines, and nothing else: what sockets and namespaces cost.
    Veth,
    /// The kernel's bridges and vxlan devices; namespaces route, nf_tables puts host MACs for routers'.
    Kernel,
    /// The same, but BPF at traffic control puts host MACs.
    KernelBpf,
    /// Open vSwitch with its userspace datapath.
    Ovs,
    /// A lab of this program: its switch in userspace.
    Dvr,
    /// The same, its tunnels the kernel's devices.
    DvrTunnels,
    /// A lab of this program with the kernel fast path.
    Fast,
}
words!(
    PeerKind,
    "peer",
    Veth = "veth",
    Kernel = "kernel",
    KernelBpf = "kernel-bpf",
    Ovs = "ovs",
    Dvr = "dvr",
    DvrTunnels = "dvr-tunnels",
    Fast = "fast",
);

impl PeerKind {
    /// What it is, in a line.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Veth => "one veth pair between the two machines: what sockets and namespaces cost",
            Self::Kernel => "bridge + vxlan, routed in namespaces, host MACs by nf_tables (netdev egress)",
            Self::KernelBpf => "the same, host MACs by tc-BPF (clsact egress)",
            Self::Ovs => "Open vSwitch, userspace datapath, the same by flows",
            Self::Dvr => "a lab of dvr, its switch and tunnels in userspace",
            Self::DvrTunnels => "a lab of dvr, its tunnels the kernel's devices",
            Self::Fast => "a lab of dvr with the kernel fast path",
        }
    }
}

/// From whom to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// Through the router, to the other node.
    Routed,
    /// On one network, to the other node.
    Bridged,
    /// Through the router, on one node.
    Local,
}
words!(Way, "way", Routed = "routed", Bridged = "bridged", Local = "local",);

/// What one run measures; each gives one metric or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// TCP, one stream, and what it takes of the processors.
    Tcp1,
    /// TCP, four streams.
    Tcp4,
    /// Small datagrams of one flow, as many as go.
    Pps1,
    /// Small datagrams of a thousand flows, as many as go.
    Pps1000,
    /// The highest rate of small datagrams of which none is lost.
    Lossless,
    /// Round trips.
    Rtt,
    /// The first round trip after caches were flushed.
    First,
    /// From nothing to the first reply.
    Cold,
    /// Ten thousand ports more on another node: how long that takes, and how fast it is with them.
    Ports,
    /// Memory of the switch with many ports elsewhere; in the first round alone, for it hardly differs.
    Memory,
}
words!(
    Measure,
    "measure",
    Tcp1 = "tcp1",
    Tcp4 = "tcp4",
    Pps1 = "pps1",
    Pps1000 = "pps1000",
    Lossless = "lossless",
    Rtt = "rtt",
    First = "first",
    Cold = "cold",
    Ports = "ports",
    Memory = "memory",
);

/// What a figure tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// TCP, one stream, Gbit/s of payload.
    Tcp1,
    /// TCP, four streams, Gbit/s of payload in all.
    Tcp4,
    /// Seconds of processor time of the whole machine per 10^9 octets of payload of one TCP stream.
    Cpu,
    /// The same of the switches' own processes.
    SwitchCpu,
    /// Datagrams delivered of one flow, 1,000 a second.
    Pps1,
    /// Datagrams delivered of a thousand flows, 1,000 a second.
    Pps1000,
    /// Datagrams of one flow sent at the highest rate at which all arrived, 1,000 a second.
    Lossless,
    /// Median of round trips, µs.
    RttMedian,
    /// What 99 of 100 round trips take at most, µs.
    RttTail,
    /// The first round trip after a flush, µs.
    First,
    /// From nothing to the first reply, ms.
    Cold,
    /// Until ten thousand more ports were programmed, ms.
    Program,
    /// Resident memory of the larger switch, MB of 10^6 octets.
    Memory,
}
words!(
    Metric,
    "metric",
    Tcp1 = "tcp1",
    Tcp4 = "tcp4",
    Cpu = "cpu",
    SwitchCpu = "switch-cpu",
    Pps1 = "pps1",
    Pps1000 = "pps1000",
    Lossless = "lossless",
    RttMedian = "rtt-p50",
    RttTail = "rtt-p99",
    First = "first",
    Cold = "cold",
    Program = "program",
    Memory = "memory",
);

impl Metric {
    /// What it is called in tables.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Tcp1 => "TCP, 1 stream",
            Self::Tcp4 => "TCP, 4 streams",
            Self::Cpu => "processor time, machine",
            Self::SwitchCpu => "processor time, switches",
            Self::Pps1 => "small datagrams, 1 flow",
            Self::Pps1000 => "small datagrams, 1,000 flows",
            Self::Lossless => "highest lossless rate",
            Self::RttMedian => "round trip, p50",
            Self::RttTail => "round trip, p99",
            Self::First => "first packet after a flush",
            Self::Cold => "cold start to first reply",
            Self::Program => "10,000 ports programmed",
            Self::Memory => "switch memory",
        }
    }

    /// Its unit.
    #[must_use]
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Tcp1 | Self::Tcp4 => "Gbit/s",
            Self::Cpu | Self::SwitchCpu => "s/GB",
            Self::Pps1 | Self::Pps1000 | Self::Lossless => "kpps",
            Self::RttMedian | Self::RttTail | Self::First => "µs",
            Self::Cold | Self::Program => "ms",
            Self::Memory => "MB",
        }
    }
}

/// What a figure is about: what, between whom, under which conditions. The order is that of a report's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subject {
    /// Whether the underlay's devices segment nothing, as a wire would have it.
    pub wire: bool,
    /// Ports on another node, besides the scene's own.
    pub ports: u32,
    /// Between whom; `None` if that makes no difference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<Way>,
    /// What.
    pub metric: Metric,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_written_and_others_are_refused() {
        for measure in Measure::ALL {
            assert_eq!(measure.word().parse(), Ok(*measure));
        }
        for peer in PeerKind::ALL {
            assert_eq!(serde_json::to_string(peer).expect("JSON"), format!("\"{peer}\""));
        }
        let told = "fast".parse::<Way>().expect_err("no way").to_string();
        assert_eq!(told, "`fast` is no way; there are: routed, bridged, local");
    }
}
