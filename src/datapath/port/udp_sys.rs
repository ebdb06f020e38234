//! Sending over UDP, many datagrams in one call: `sendmsg(2)` with `UDP_SEGMENT` (`linux/udp.h`).

use core::net::{IpAddr, SocketAddr};
use core::ptr;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::batch_sys::socklen;

/// Room for three control messages of one `int` at most, aligned as `struct cmsghdr` is.
const CONTROL_WORDS: usize = 12;

/// Where a datagram goes and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Course {
    pub(super) to: SocketAddr,
    /// The IP type of service; 0 is the socket's own.
    pub(super) tos: u8,
    /// The IP time to live; 0 is the socket's own.
    pub(super) ttl: u8,
}

/// Sends what `slices` hold as one datagram, or as datagrams of `segment` octets each and a shorter last one.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    course: &Course,
    segment: Option<u16>,
    slices: &[IoSlice<'_>],
) -> io::Result<()> {
    // SAFETY: these are C structs of integers, byte arrays and raw pointers: all zeroes is a value of each.
    let (mut v4, mut v6, mut header): (libc::sockaddr_in, libc::sockaddr_in6, libc::msghdr) =
        unsafe { core::mem::zeroed() };
    match course.to.ip() {
        IpAddr::V4(ip) => {
            v4.sin_family = u16::try_from(libc::AF_INET).unwrap_or(0);
            v4.sin_port = course.to.port().to_be();
            v4.sin_addr.s_addr = ip.to_bits().to_be();
            header.msg_name = ptr::from_mut(&mut v4).cast();
            header.msg_namelen = socklen::<libc::sockaddr_in>();
        }
        IpAddr::V6(ip) => {
            v6.sin6_family = u16::try_from(libc::AF_INET6).unwrap_or(0);
            v6.sin6_port = course.to.port().to_be();
            v6.sin6_addr.s6_addr = ip.octets();
            header.msg_name = ptr::from_mut(&mut v6).cast();
            header.msg_namelen = socklen::<libc::sockaddr_in6>();
        }
    }
    header.msg_iov = slices.as_ptr().cast_mut().cast();
    header.msg_iovlen = slices.len();
    let mut control = [0_u64; CONTROL_WORDS];
    let mut used = 0;
    if let Some(size) = segment {
        put(&mut control, &mut used, (libc::SOL_UDP, libc::UDP_SEGMENT), &size.to_ne_bytes());
    }
    let (level, tos, ttl) = match course.to {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS, libc::IP_TTL),
        SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, libc::IPV6_HOPLIMIT),
    };
    for (kind, value) in [(tos, course.tos), (ttl, course.ttl)] {
        if value != 0 {
            put(&mut control, &mut used, (level, kind), &libc::c_int::from(value).to_ne_bytes());
        }
    }
    if used > 0 {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = used;
    }
    // SAFETY: `socket` is open for the call's length. The header points to a name, to `slices` (an `IoSlice` is an
    // `iovec` by its documentation; the kernel only reads through it) and to `used` octets of `control`, and all of them
    // outlive the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Appends one control message, laid out as cmsg(3) says: header, data, both padded to a word.
fn put(control: &mut [u64; CONTROL_WORDS], used: &mut usize, (level, kind): (libc::c_int, libc::c_int), data: &[u8]) {
    let length = u32::try_from(data.len()).unwrap_or(0);
    // SAFETY: both only compute.
    let (space, length) = unsafe { (libc::CMSG_SPACE(length) as usize, libc::CMSG_LEN(length) as usize) };
    if *used + space > size_of_val(control) {
        unreachable!("three items of at most an int fit");
    }
    // SAFETY: `cmsghdr` is a C struct of integers: all zeroes is a value of it.
    let mut header: libc::cmsghdr = unsafe { core::mem::zeroed() };
    header.cmsg_len = length;
    header.cmsg_level = level;
    header.cmsg_type = kind;
    let item = control.as_mut_ptr().cast::<u8>().wrapping_add(*used);
    // SAFETY: header and data take `space` octets from `item`, which lie inside `control` as just checked, and
    // everything before is a multiple of a word, so the header is aligned.
    unsafe {
        ptr::write(item.cast::<libc::cmsghdr>(), header);
        ptr::copy_nonoverlapping(data.as_ptr(), item.add(libc::CMSG_LEN(0) as usize), data.len());
    }
    *used += space;
}
