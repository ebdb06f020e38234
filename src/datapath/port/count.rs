//! What became of frames at the ports, counted by the one worker that handled them and read by anyone.

use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::api::switch::PortCounters;

/// Why a port lost a frame, or what was wrong with one that went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum PortDrop {
    /// The frame has no whole Ethernet header, or was cut short by its buffer.
    Truncated,
    /// The kernel's or guest's word on checksum and segments contradicts the frame.
    BadOffload,
    /// A VXLAN datagram without header, I flag or legal VNI, or with reserved bits; a GRE packet whose header is not that
    /// of an Ethernet frame under RFC 2784 and RFC 2890.
    BadTunnel,
    /// A tunnelled packet that came in fragments: a tunnel's ends make none (RFC 7348 §4.3), and an MTU on the way is
    /// smaller than they think.
    Fragmented,
    /// A GRE packet whose own checksum is wrong.
    TunnelChecksum,
    /// A GRE packet without a key: it belongs to no network.
    Keyless,
    /// A tunnel's frame whose checksum was only begun, as a kernel vxlan device over a veth leaves it: counted, finished
    /// here, and sent on. One longer than the MTU was to be cut too, where nobody says any more; it is refused later.
    TunnelUnfinished,
    /// The super-frame cannot be cut into what its link takes.
    Uncuttable,
    /// The link's queue or the socket's buffer is full.
    Full,
    /// A frame or segment is larger than its link, or the path to the tunnel's end, takes without fragmenting: an MTU on
    /// the way there is larger than here.
    TooBig,
    /// As the above, and nobody was told: it is no IP, may not be answered, or too many were.
    TooBigUntold,
    /// The interface is down.
    Down,
    /// No route to the tunnel's end, or it is forbidden.
    Unreachable,
    /// The tunnel key is no VNI, or the endpoint's address is of another family.
    NoTunnel,
    /// The interface is gone.
    Gone,
    /// The port was removed while the frame was on its way.
    NoPort,
    /// The kernel refused it for another reason.
    Refused,
}

impl PortDrop {
    /// Every reason.
    pub const ALL: [Self; 17] = [
        Self::Truncated,
        Self::BadOffload,
        Self::BadTunnel,
        Self::Fragmented,
        Self::TunnelChecksum,
        Self::Keyless,
        Self::TunnelUnfinished,
        Self::Uncuttable,
        Self::Full,
        Self::TooBig,
        Self::TooBigUntold,
        Self::Down,
        Self::Unreachable,
        Self::NoTunnel,
        Self::Gone,
        Self::NoPort,
        Self::Refused,
    ];

    /// Its name in `show`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "port-truncated",
            Self::BadOffload => "port-bad-offload",
            Self::BadTunnel => "tunnel-bad-header",
            Self::Fragmented => "tunnel-fragmented",
            Self::TunnelChecksum => "tunnel-bad-checksum",
            Self::Keyless => "tunnel-keyless",
            Self::TunnelUnfinished => "tunnel-unfinished-checksum",
            Self::Uncuttable => "port-uncuttable",
            Self::Full => "port-full",
            Self::TooBig => "port-too-big",
            Self::TooBigUntold => "port-too-big-untold",
            Self::Down => "port-down",
            Self::Unreachable => "tunnel-unreachable",
            Self::NoTunnel => "tunnel-no-key",
            Self::Gone => "port-gone",
            Self::NoPort => "port-removed",
            Self::Refused => "port-refused",
        }
    }

    /// What a send's errno means.
    #[must_use]
    pub const fn of_send(errno: i32) -> Self {
        match errno {
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => Self::Full,
            libc::EMSGSIZE => Self::TooBig,
            libc::EIO | libc::ENETDOWN => Self::Down,
            libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EPERM | libc::EACCES | libc::EADDRNOTAVAIL => {
                Self::Unreachable
            }
            libc::EBADFD | libc::ENXIO | libc::ENODEV => Self::Gone,
            _ => Self::Refused,
        }
    }
}

/// Where a worker counts what it sends.
pub trait Tally {
    /// So many frames of so many octets went to this endpoint, or did not.
    fn settle(&self, to: IpAddr, result: Result<(), PortDrop>, frames: u64, octets: usize);

    /// A frame of this key was too big for the way to this endpoint, and is counted as such: its octets, or its first ones
    /// with all headers among them.
    fn too_big(&self, _to: IpAddr, _key: u64, _frame: &[u8]) {}
}

/// Frames lost, by reason. Only one thread adds.
#[derive(Debug, Default)]
pub struct DropCounters([AtomicU64; PortDrop::ALL.len()]);

impl DropCounters {
    /// Counts `count` more.
    pub fn add(&self, reason: PortDrop, count: u64) {
        bump(&self.0[reason as usize], count);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self, reason: PortDrop) -> u64 {
        self.0[reason as usize].load(Ordering::Relaxed)
    }
}

/// A port's counters at one worker. Only that worker adds.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counters {
    rx_packets: AtomicU64,
    rx_bytes: AtomicU64,
    rx_dropped: AtomicU64,
    tx_packets: AtomicU64,
    tx_bytes: AtomicU64,
    tx_dropped: AtomicU64,
}

impl Counters {
    /// A frame of so many octets came.
    pub fn received(&self, octets: usize) {
        bump(&self.rx_packets, 1);
        bump(&self.rx_bytes, octets as u64);
    }

    /// A frame came and was refused.
    pub fn refused(&self) {
        bump(&self.rx_dropped, 1);
    }

    /// So many frames of so many octets in all went.
    pub fn sent(&self, frames: u64, octets: usize) {
        bump(&self.tx_packets, frames);
        bump(&self.tx_bytes, octets as u64);
    }

    /// So many frames could not go.
    pub fn lost(&self, frames: u64) {
        bump(&self.tx_dropped, frames);
    }

    /// Adds what is counted here to `sum`.
    pub fn add_to(&self, sum: &mut PortCounters) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        sum.rx_packets += load(&self.rx_packets);
        sum.rx_bytes += load(&self.rx_bytes);
        sum.rx_dropped += load(&self.rx_dropped);
        sum.tx_packets += load(&self.tx_packets);
        sum.tx_bytes += load(&self.tx_bytes);
        sum.tx_dropped += load(&self.tx_dropped);
    }
}

/// With one writer, a load and a store are an addition without a locked instruction.
fn bump(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_slot_and_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = PortDrop::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), PortDrop::ALL.len());
        let counters = DropCounters::default();
        for (slot, reason) in PortDrop::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, slot, "{reason:?}");
            counters.add(reason, slot as u64);
            assert_eq!(counters.get(reason), slot as u64);
        }
    }
}
