//! Many datagrams in one system call: `sendmmsg(2)`, `recvmmsg(2)`.

use core::ptr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Octets of a datagram that are read; the rest is cut off.
const SLOT: usize = 64;

/// Datagrams to be sent again and again, in turns.
#[derive(Debug)]
pub(super) struct Volley {
    datagrams: Vec<Vec<u8>>,
    most: usize,
    next: usize,
}

impl Volley {
    /// These datagrams, at least one, of which at most so many are sent at once.
    pub(super) fn new(datagrams: Vec<Vec<u8>>, most: usize) -> Self {
        Self { datagrams, most, next: 0 }
    }

    /// Sends the next `count` by a connected socket; how many it took. It waits for room.
    pub(super) fn fire(&mut self, socket: BorrowedFd<'_>, count: usize) -> usize {
        let count = count.min(self.most);
        let known = self.datagrams.len();
        let mut vectors: Vec<libc::iovec> = (0..count)
            .map(|at| &self.datagrams[(self.next + at) % known])
            .map(|datagram| libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() })
            .collect();
        let mut headers: Vec<libc::mmsghdr> = vectors.iter_mut().map(header).collect();
        let length = libc::c_uint::try_from(headers.len()).unwrap_or(0);
        // SAFETY: each of the `length` headers points to one vector of `vectors`, which lives until the end of this
        // function, and each vector to a datagram that `self` owns and nobody changes meanwhile; the kernel only reads
        // those. It writes the headers' `msg_len`, which nothing else refers to.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), length, 0) };
        let sent = usize::try_from(sent).unwrap_or(0);
        self.next = (self.next + sent) % known;
        sent
    }
}

/// Where datagrams go that nobody wants but counted.
#[derive(Debug)]
pub(super) struct Sink {
    memory: Vec<[u8; SLOT]>,
}

impl Sink {
    /// For so many at once.
    pub(super) fn new(most: usize) -> Self {
        Self { memory: vec![[0; SLOT]; most] }
    }

    /// Waits for the first, takes those that wait, and says how many; none if the socket's patience ended.
    pub(super) fn swallow(&mut self, socket: BorrowedFd<'_>) -> usize {
        let vector = |slot: &mut [u8; SLOT]| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT };
        let mut vectors: Vec<libc::iovec> = self.memory.iter_mut().map(vector).collect();
        let mut headers: Vec<libc::mmsghdr> = vectors.iter_mut().map(header).collect();
        let length = libc::c_uint::try_from(headers.len()).unwrap_or(0);
        // SAFETY: each of the `length` headers points to one vector of `vectors`, and each of those to a slot of its own in
        // `memory`, `SLOT` octets long; all live until the end of this function and nothing else refers to them.
        let read = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), length, libc::MSG_WAITFORONE, ptr::null_mut())
        };
        usize::try_from(read).unwrap_or(0)
    }
}

/// A message of this one piece, to or from whom the socket is connected to.
fn header(vector: &mut libc::iovec) -> libc::mmsghdr {
    // SAFETY: `mmsghdr` is a C struct of integers and raw pointers: all zeroes is a value of it.
    let mut header: libc::mmsghdr = unsafe { core::mem::zeroed() };
    header.msg_hdr.msg_iov = vector;
    header.msg_hdr.msg_iovlen = 1;
    header
}
