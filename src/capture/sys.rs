//! What packet sockets (packet(7)) tell that no safe wrapper does: the tag a NIC took off, and what was lost.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Has every frame come with a [`tag`], where a tag was taken off it.
///
/// # Errors
/// What the kernel says.
pub(super) fn ask_for_tags(socket: BorrowedFd<'_>) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_else(|_| unreachable!("an int is small"));
    // SAFETY: `socket` is open for the call's length, and the option's value is the `int` that is pointed to.
    let set = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_AUXDATA, (&raw const on).cast(), length)
    };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Frames the kernel could not keep for the socket since this was last asked.
///
/// # Errors
/// What the kernel says.
pub(super) fn lost(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut counts = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = libc::socklen_t::try_from(size_of_val(&counts)).unwrap_or_else(|_| unreachable!("two integers"));
    // SAFETY: `socket` is open for the call's length; at most `length` octets are written, all within `counts`.
    let got = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut counts).cast(),
            &raw mut length,
        )
    };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(counts.tp_drops) }
}
