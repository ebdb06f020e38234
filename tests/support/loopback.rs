//! Places on loopback that no other process of these tests has: an address by the process, ports counted up. So servers
//! need not be given a port that was free a moment ago.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};

/// The first port.
const FIRST: u16 = 20_000;

/// A place to listen at.
pub(crate) fn place() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(FIRST);
    // Of at most 22 bits (`PID_MAX_LIMIT`), so it stays within 127.0.0.0/8 and away from 127.0.x.y.
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let port = NEXT.fetch_add(1, Ordering::Relaxed);
    SocketAddr::from((Ipv4Addr::new(127, high + 1, middle, low), port))
}
