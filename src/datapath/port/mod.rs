//! Ports: where frames enter and leave. Descriptors, headers of the kernel's, and nothing of bridges or flows.
//!
//! [`tap`] makes an interface and is its wire; [`packet`] stands on an interface that exists; [`vxlan`] puts frames into
//! UDP, and [`gre`] into IP. Each opens its descriptors here, one a worker, non-blocking, and reads or writes one frame or one batch; who
//! polls them, and what becomes of a frame, is for the layer above.

mod batch_sys;
mod count;
pub mod frame;
pub mod gre;
mod joining;
mod netns;
mod overrun;
pub mod packet;
mod packet_sys;
mod send_sys;
mod steer_sys;
pub mod tap;
mod tap_sys;
mod tell;
mod too_big;
mod vnet;
pub mod vxlan;
pub mod way;

pub use batch_sys::{Batch, Received};
pub use count::{Counters, DropCounters, Tally, of_send};
pub use frame::TAIL_LIMIT;
pub use joining::Arrival;
pub use netns::within;
pub use overrun::Overruns;
pub use tell::{Answer, Narrow, Teller};

use std::io;
use std::path::PathBuf;

use super::{DropReason, HEADROOM};

/// The most a frame takes: a 16-bit IP length, an Ethernet header and four tags.
pub const FRAME_LIMIT: usize = 65_535 + 14 + 16;

/// What a buffer for one frame takes: room in front, the kernel's header, the frame.
pub const BUFFER_LEN: usize = (HEADROOM + vnet::HEADER_LEN + FRAME_LIMIT).next_multiple_of(64);

/// Why a port cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The namespace cannot be entered.
    #[error("cannot enter network namespace {}: {source}", path.display())]
    Netns {
        /// Its file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// TAPs cannot be made here at all.
    #[error("{0}")]
    NoTap(String),
    /// A step of making it failed.
    #[error("port {port}: cannot {what}: {source}{}", hint(source))]
    Kernel {
        /// The interface or endpoint.
        port: String,
        /// What was attempted.
        what: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
}

/// What to do about an error that has one usual cause.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EBUSY) => "; the name is taken: remove that interface or choose another name",
        Some(libc::EPERM | libc::EACCES) => "; CAP_NET_ADMIN and CAP_NET_RAW over the namespace are needed",
        Some(libc::ENODEV) => "; there is no such interface in that namespace",
        Some(libc::EADDRNOTAVAIL) => "; the address is not on this node: assign it first",
        Some(libc::EADDRINUSE) => "; another program or a kernel vxlan device has that address and port",
        _ => "",
    }
}

/// Where a receive ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// Frames were read; more may wait.
    Frames(usize),
    /// Frames were read, and no more waited.
    Last(usize),
    /// None waits.
    Empty,
    /// A frame was read and thrown away.
    Refused(DropReason),
    /// The interface is down: nothing comes until it is up.
    Down,
    /// The descriptor is dead: its interface or namespace went.
    Gone,
}
