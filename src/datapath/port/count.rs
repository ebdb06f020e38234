//! What became of frames at the ports, counted by the one worker that handled them and read by anyone.

use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::api::switch::PortCounters;
use crate::datapath::DropReason;

/// What a send's errno means.
#[must_use]
pub const fn of_send(errno: i32) -> DropReason {
    match errno {
        libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM => DropReason::Full,
        libc::EMSGSIZE => DropReason::TooBig,
        libc::EIO | libc::ENETDOWN => DropReason::Down,
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EPERM | libc::EACCES | libc::EADDRNOTAVAIL => {
            DropReason::Unreachable
        }
        libc::EBADFD | libc::ENXIO | libc::ENODEV => DropReason::Gone,
        _ => DropReason::Refused,
    }
}

/// Where a worker counts what it sends.
pub trait Tally {
    /// So many frames of so many octets went to this endpoint, or did not.
    fn settle(&self, to: IpAddr, result: Result<(), DropReason>, frames: u64, octets: usize);

    /// A frame of this key was too big for the way to this endpoint, and is counted as such: its octets, or its first ones
    /// with all headers among them.
    fn too_big(&self, _to: IpAddr, _key: u64, _frame: &[u8]) {}
}

/// Frames lost, by reason. Only one thread adds.
#[derive(Debug)]
pub struct DropCounters([AtomicU64; DropReason::ALL.len()]);

impl Default for DropCounters {
    fn default() -> Self {
        Self(core::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl DropCounters {
    /// Counts `count` more.
    pub fn add(&self, reason: DropReason, count: u64) {
        bump(&self.0[reason as usize], count);
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self, reason: DropReason) -> u64 {
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

    /// So many frames of so many octets in all came.
    pub fn received_all(&self, frames: u64, octets: u64) {
        bump(&self.rx_packets, frames);
        bump(&self.rx_bytes, octets);
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
    fn every_reason_has_a_slot() {
        let counters = DropCounters::default();
        for (slot, reason) in DropReason::ALL.into_iter().enumerate() {
            counters.add(reason, slot as u64 + 1);
        }
        for (slot, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(counters.get(reason), slot as u64 + 1, "{reason:?}");
        }
    }
}
