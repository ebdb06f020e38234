//! TAPs: interfaces that the switch makes, in any namespace, and whose wire it is.
//!
//! Frames cross with a vnet header and every offload the kernel knows: 64 KB of TCP is one read or one write. The
//! interface lives as long as its descriptors.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sched::{CloneFlags, unshare};

use super::{PortError, frame, netns, tap_sys, vnet};
use crate::types::{IfName, Mac};

/// The device node.
const NODE: &str = "/dev/net/tun";

/// A TAP, opened.
#[derive(Debug)]
pub struct Tap {
    /// Its descriptors, one a worker.
    pub queues: Vec<OwnedFd>,
    /// Whether the kernel takes UDP super-frames too (`USO`, Linux 6.2).
    pub datagrams: bool,
}

fn open_node() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(NODE)
}

/// Set once a TAP was made on trial.
static MADE: AtomicBool = AtomicBool::new(false);

/// Why TAPs cannot be made by this process, with the remedy; `None` if nothing speaks against it.
#[must_use]
pub fn probe() -> Option<String> {
    let Err(error) = open_node() else {
        if MADE.load(Ordering::Relaxed) {
            return None;
        }
        return trial().err().map(|error| format!("TAPs cannot be made, though {NODE} opens: {error}; use veth pairs"));
    };
    let remedy = match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => {
            "this user may not open it: `chmod 666 /dev/net/tun` as root, as distributions ship it, or use veth pairs"
        }
        Some(libc::ENOENT | libc::ENXIO | libc::ENODEV) => {
            "this kernel or container lacks it: `modprobe tun`, or pass the device into the container, or use veth pairs"
        }
        _ => "use veth pairs",
    };
    Some(format!("TAPs cannot be made: open {NODE}: {error}; {remedy}"))
}

/// Makes a TAP in a namespace that ends with the trial: what opens may be no TUN device, or one that this process may not
/// use. Where no namespace is to be had, nothing is said against it.
fn trial() -> Result<(), PortError> {
    const NAME: &str = "trial";
    let name = IfName::new(NAME).unwrap_or_else(|_| unreachable!("a legal name"));
    let make = || {
        if unshare(CloneFlags::CLONE_NEWNET).is_ok() {
            open(None, &name, None, 1)?;
            MADE.store(true, Ordering::Relaxed);
        }
        Ok(())
    };
    let failed = |source| PortError::Kernel { port: NAME.to_owned(), what: "start a thread", source };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("tap-trial".to_owned()).spawn_scoped(scope, make).map_err(failed)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Makes a TAP of `queues` queues in the namespace, link down, with this address if one is given.
///
/// # Errors
/// [`PortError`] says which step failed; no interface is left then.
pub fn open(netns: Option<&Path>, name: &IfName, mac: Option<Mac>, queues: usize) -> Result<Tap, PortError> {
    // The interface is made where the node was opened, not where it is asked for: `tun_chr_open` in `drivers/net/tun.c`
    // takes the opener's network namespace. The mounts stay the caller's.
    netns::within(netns, || {
        let mut nodes = Vec::with_capacity(queues);
        for _ in 0..queues.max(1) {
            let node = open_node().map_err(|source| {
                PortError::NoTap(probe().unwrap_or_else(|| format!("TAPs cannot be made: open {NODE}: {source}")))
            })?;
            nodes.push(OwnedFd::from(node));
        }
        let failed = |what| move |source: io::Error| PortError::Kernel { port: name.to_string(), what, source };
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
        let mut datagrams = false;
        for (index, node) in nodes.iter().enumerate() {
            // The first must make it: joining another program's TAP would split its frames between us.
            let exclusive = if index == 0 { libc::IFF_TUN_EXCL } else { 0 };
            let flags = i16::from_ne_bytes(low_half(flags | exclusive));
            tap_sys::attach(node.as_fd(), name, flags).map_err(failed("make the TAP"))?;
            let length = libc::c_int::try_from(vnet::HEADER_LEN).unwrap_or(0);
            tap_sys::set_header_len(node.as_fd(), length).map_err(failed("set the vnet header's length"))?;
        }
        // Offloads belong to the interface, not to a queue.
        if let Some(node) = nodes.first() {
            let base = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
            datagrams = match tap_sys::set_offload(node.as_fd(), base | libc::TUN_F_USO4 | libc::TUN_F_USO6) {
                Ok(()) => true,
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                    tap_sys::set_offload(node.as_fd(), base).map_err(failed("set offloads"))?;
                    false
                }
                Err(error) => return Err(failed("set offloads")(error)),
            };
        }
        if let Some(mac) = mac {
            let socket = frame::control_socket().map_err(failed("open a socket"))?;
            tap_sys::set_mac(socket.as_fd(), name, mac).map_err(failed("set the address"))?;
        }
        Ok(Tap { queues: nodes, datagrams })
    })
}

/// The low 16 bits, where all the flags of `TUNSETIFF` are.
fn low_half(flags: libc::c_int) -> [u8; 2] {
    let [a, b, c, d] = flags.to_be_bytes();
    let _ = (a, b);
    u16::from_be_bytes([c, d]).to_ne_bytes()
}
