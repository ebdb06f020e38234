//! Sending many packets in one call: `sendmsg(2)` with `UDP_SEGMENT` (`linux/udp.h`), and `sendmmsg(2)`.

use core::net::{IpAddr, SocketAddr};
use core::ptr;
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd};

use super::batch_sys::socklen;

/// Room for three control messages of one `int` at most, aligned as `struct cmsghdr` is.
const CONTROL_WORDS: usize = 12;

/// Packets of one `sendmmsg`.
pub(super) const PACKET_LIMIT: usize = 64;

/// Where a packet goes and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Course {
    /// Its port is UDP's; 0 for what has none.
    pub(super) to: SocketAddr,
    /// The IP type of service; 0 is the socket's own.
    pub(super) tos: u8,
    /// The IP time to live; 0 is the socket's own.
    pub(super) ttl: u8,
}

/// What a `msghdr` points to, save for the octets that are sent.
struct Envelope {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
    control: [u64; CONTROL_WORDS],
}

impl Envelope {
    fn new() -> Self {
        // SAFETY: these are C structs of integers and byte arrays: all zeroes is a value of both.
        let (v4, v6) = unsafe { core::mem::zeroed() };
        Self { v4, v6, control: [0; CONTROL_WORDS] }
    }

    /// Addresses what `slices` hold. The header points into the envelope and the slices: it is good while both stay.
    fn address(&mut self, course: &Course, segment: Option<u16>, slices: &[IoSlice<'_>]) -> libc::msghdr {
        // SAFETY: a C struct of integers and raw pointers: all zeroes is a value of it.
        let mut header: libc::msghdr = unsafe { core::mem::zeroed() };
        match course.to.ip() {
            IpAddr::V4(ip) => {
                self.v4.sin_family = u16::try_from(libc::AF_INET).unwrap_or(0);
                self.v4.sin_port = course.to.port().to_be();
                self.v4.sin_addr.s_addr = ip.to_bits().to_be();
                header.msg_name = ptr::from_mut(&mut self.v4).cast();
                header.msg_namelen = socklen::<libc::sockaddr_in>();
            }
            IpAddr::V6(ip) => {
                self.v6.sin6_family = u16::try_from(libc::AF_INET6).unwrap_or(0);
                self.v6.sin6_port = course.to.port().to_be();
                self.v6.sin6_addr.s6_addr = ip.octets();
                header.msg_name = ptr::from_mut(&mut self.v6).cast();
                header.msg_namelen = socklen::<libc::sockaddr_in6>();
            }
        }
        header.msg_iov = slices.as_ptr().cast_mut().cast();
        header.msg_iovlen = slices.len();
        let mut used = 0;
        if let Some(size) = segment {
            put(&mut self.control, &mut used, (libc::SOL_UDP, libc::UDP_SEGMENT), &size.to_ne_bytes());
        }
        let (level, tos, ttl) = match course.to {
            SocketAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_TOS, libc::IP_TTL),
            SocketAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, libc::IPV6_HOPLIMIT),
        };
        for (kind, value) in [(tos, course.tos), (ttl, course.ttl)] {
            if value != 0 {
                put(&mut self.control, &mut used, (level, kind), &libc::c_int::from(value).to_ne_bytes());
            }
        }
        if used > 0 {
            header.msg_control = self.control.as_mut_ptr().cast();
            header.msg_controllen = used;
        }
        header
    }
}

/// Sends what `slices` hold as one datagram, or as datagrams of `segment` octets each and a shorter last one.
pub(super) fn send(
    socket: BorrowedFd<'_>,
    course: &Course,
    segment: Option<u16>,
    slices: &[IoSlice<'_>],
) -> io::Result<()> {
    let mut envelope = Envelope::new();
    let header = envelope.address(course, segment, slices);
    // SAFETY: `socket` is open for the call's length. The header points to a name, to `slices` (an `IoSlice` is an
    // `iovec` by its documentation; the kernel only reads through it) and to `msg_controllen` octets of control messages,
    // and the envelope and the slices outlive the call.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends each item of `packets` as a packet of its own, in as few calls as it takes, and tells `settle` of each by its
/// place among them.
pub(super) fn send_many(
    socket: BorrowedFd<'_>,
    packets: &[(Course, &[IoSlice<'_>])],
    mut settle: impl FnMut(usize, io::Result<()>),
) {
    for (at, group) in packets.chunks(PACKET_LIMIT).enumerate() {
        // SAFETY: C structs of integers and raw pointers: all zeroes is a value of them.
        let mut headers: [libc::mmsghdr; PACKET_LIMIT] = unsafe { core::mem::zeroed() };
        let mut envelopes = [const { None }; PACKET_LIMIT];
        for ((header, envelope), (course, slices)) in headers.iter_mut().zip(&mut envelopes).zip(group) {
            header.msg_hdr = envelope.insert(Envelope::new()).address(course, None, slices);
        }
        let mut done = 0;
        while done < group.len() {
            let rest = &mut headers[done..group.len()];
            let count = libc::c_uint::try_from(rest.len()).unwrap_or(1);
            let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
            // SAFETY: `socket` is open for the call's length. Each of the `count` headers points to a name, slices and
            // control messages as in [`send`], which lie in `envelopes` and behind `packets`; both outlive the call.
            let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), count, flags) };
            let first = at * PACKET_LIMIT + done;
            match usize::try_from(sent) {
                Ok(sent) if sent > 0 => {
                    (first..first + sent).for_each(|index| settle(index, Ok(())));
                    done += sent;
                }
                // An error is the first packet's own; the next call begins behind it.
                _ => {
                    settle(first, Err(io::Error::last_os_error()));
                    done += 1;
                }
            }
        }
    }
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
