//! What a switch tells of the kernel fast path.

use serde::{Deserialize, Serialize};

/// A port's fast path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FastPathState {
    /// The port waits for [`Request::FastPath`](super::Request::FastPath), and takes no frames yet.
    Waiting,
    /// It is there.
    On,
    /// It cannot be had, and why; the port works without.
    Refused(String),
}

/// What the kernel carries out for the switch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FastPathCounters {
    /// Flows in the kernel now.
    pub flows: u64,
    /// Frames it carried; they are among those of ports and flows.
    pub packets: u64,
    /// Flows that were not taken: for lack of room, or because the kernel refused them.
    pub refused: u64,
}

/// The flows in the kernel, in answer to [`Request::Offloaded`](super::Request::Offloaded).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Offloaded {
    /// How many there are.
    pub total: u64,
    /// Those that carried most, by falling numbers of frames; as many as were asked for.
    pub flows: Vec<OffloadedFlow>,
}

/// A flow in the kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OffloadedFlow {
    /// Which frames are its, in the text of flows: by which port they come, and what counts of them.
    pub matching: String,
    /// What becomes of them, as `ofproto/trace` shows datapath actions, the last of them the port they leave by.
    pub actions: String,
    /// Frames it carried.
    pub packets: u64,
    /// Their octets.
    pub bytes: u64,
    /// Since when it has carried none, in seconds; as of the last look, which is taken once a second.
    pub idle_secs: f64,
}
