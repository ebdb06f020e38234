//! The ioctls of `/dev/net/tun` (`linux/if_tun.h`) and the one that sets an interface's address.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::types::{IfName, Mac};

/// `struct ifreq` for this interface, all else zero.
fn request(name: &IfName) -> libc::ifreq {
    // SAFETY: `ifreq` is a C struct of integers, byte arrays and a union of such, and one pointer nobody reads here:
    // all zeroes is a value of it.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    // A name has at most 15 octets, so the last of the 16 stays the terminator.
    for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *to = from.cast_signed();
    }
    request
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `TUNSETIFF`: makes the interface in the calling thread's namespace, or adds a queue to it, and ties `tun` to it.
pub(super) fn attach(tun: BorrowedFd<'_>, name: &IfName, flags: libc::c_short) -> io::Result<()> {
    let mut request = request(name);
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: `tun` is open for the call's length, and TUNSETIFF reads and writes one `struct ifreq`, which `request` is.
    done(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// `TUNSETVNETHDRSZ`: how long the header in front of each frame is.
pub(super) fn set_header_len(tun: BorrowedFd<'_>, octets: libc::c_int) -> io::Result<()> {
    // SAFETY: `tun` is open for the call's length, and TUNSETVNETHDRSZ reads one `int`.
    done(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const octets) })
}

/// `TUNSETOFFLOAD`: what the interface may leave undone on the frames it hands us.
pub(super) fn set_offload(tun: BorrowedFd<'_>, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: `tun` is open for the call's length, and TUNSETOFFLOAD takes its flags by value, no pointer.
    done(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOFFLOAD, libc::c_ulong::from(flags)) })
}

/// `SIOCSIFHWADDR`: sets the address of an interface in the namespace `socket` was opened in.
pub(super) fn set_mac(socket: BorrowedFd<'_>, name: &IfName, mac: Mac) -> io::Result<()> {
    let mut request = request(name);
    let mut data = [0; 14];
    for (to, from) in data.iter_mut().zip(mac.octets()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_hwaddr = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: data };
    // SAFETY: `socket` is open for the call's length, and SIOCSIFHWADDR reads one `struct ifreq`, which `request` is.
    done(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFHWADDR, &raw const request) })
}
