//! Handing a socket to the runtime's reactor.

use std::io;

use netlink_sys::Socket;
use tokio::io::unix::AsyncFd;

/// Watches the socket on the current runtime.
pub(super) fn watch(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns its descriptor, which is open from its construction to its drop; it has no method that closes
    // or replaces it, and `as_raw_fd` returns that same field. It is moved into the `AsyncFd`, which alone drops it.
    let watched = unsafe { AsyncFd::register(socket) };
    watched.map_err(Into::into)
}
