//! Reading many datagrams or frames at once, with what the kernel says beside each: `recvmmsg(2)`, `cmsg(3)`.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ptr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{BUFFER_LEN, Ready, packet_sys};
use crate::datapath::DropReason;
use crate::datapath::HEADROOM;

/// Messages read at once.
const SLOTS: usize = 32;

/// Room for the ancillary data of one message: five small items, aligned as `struct cmsghdr` is.
const CONTROL_WORDS: usize = 24;

/// One message that was read.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    /// Where it starts in the batch's memory; at least [`HEADROOM`] octets in front of it are free.
    pub start: usize,
    /// Its octets.
    pub len: usize,
    /// Whether it was longer than its slot.
    pub truncated: bool,
    /// Who sent it, over UDP.
    pub source: Option<SocketAddr>,
    /// Octets of each datagram but the last, if several were joined (`UDP_GRO`); 0 if not.
    pub segment: usize,
    /// Whether it came in fragments, which the kernel put together.
    pub fragmented: bool,
    /// The IP type of service or traffic class.
    pub tos: u8,
    /// The IP time to live or hop limit; 0 if not told.
    pub ttl: u8,
    /// The VLAN tag that the kernel took out of the frame: type and control.
    pub tag: Option<(u16, u16)>,
}

impl Received {
    /// Whether what was sent is here as it was sent.
    pub(super) const fn is_whole(&self) -> Result<(), DropReason> {
        if self.truncated {
            Err(DropReason::Truncated)
        } else if self.fragmented {
            Err(DropReason::Fragmented)
        } else {
            Ok(())
        }
    }
}

/// Asks to be told the size of a packet's largest fragment, told of no others (`linux/in.h`; the `libc` crate lacks it).
const IP_RECVFRAGSIZE: libc::c_int = 25;
/// The same for IPv6 (`linux/in6.h`).
const IPV6_RECVFRAGSIZE: libc::c_int = 77;

/// Asks the kernel to say of each packet whether it came in fragments.
pub(super) fn tell_fragments(socket: BorrowedFd<'_>, local: IpAddr) -> io::Result<()> {
    let (level, option) = match local {
        IpAddr::V4(_) => (libc::IPPROTO_IP, IP_RECVFRAGSIZE),
        IpAddr::V6(_) => (libc::IPPROTO_IPV6, IPV6_RECVFRAGSIZE),
    };
    packet_sys::set_option(socket, level, option, 1)
}

/// Octets a batch should not go beyond: they are read twice more, by then from a cache of a core's own.
const WARM_OCTETS: usize = 256 << 10;

/// Memory for `SLOTS` messages, reused for each batch.
#[derive(Debug)]
pub struct Batch {
    memory: Vec<u8>,
    received: Vec<Received>,
    /// Messages to read at once, by the size of the last ones.
    next: usize,
    /// Whether the last reading took fewer than it could have.
    drained: bool,
}

impl Default for Batch {
    fn default() -> Self {
        Self { memory: vec![0; SLOTS * BUFFER_LEN], received: Vec::with_capacity(SLOTS), next: SLOTS, drained: false }
    }
}

impl Batch {
    /// The memory and what was read into it last, in rising order.
    pub fn parts(&mut self) -> (&mut [u8], &[Received]) {
        (&mut self.memory, &self.received)
    }

    /// What the last reading, which took so many messages, says of the next.
    pub(super) const fn ready(&self, count: usize) -> Ready {
        if self.drained { Ready::Last(count) } else { Ready::Frames(count) }
    }

    /// Reads what waits, without waiting: at most `SLOTS` messages, fewer while they are large.
    ///
    /// # Errors
    /// The kernel's; `WouldBlock` when nothing waits.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.received.clear();
        // SAFETY: these three are C structs of integers, byte arrays and raw pointers: all zeroes is a value of each.
        let (mut names, mut vectors, mut headers): (
            [libc::sockaddr_storage; SLOTS],
            [libc::iovec; SLOTS],
            [libc::mmsghdr; SLOTS],
        ) = unsafe { core::mem::zeroed() };
        let mut controls = [[0_u64; CONTROL_WORDS]; SLOTS];
        let slots = self.memory.chunks_exact_mut(BUFFER_LEN);
        for ((((slot, name), vector), control), header) in
            slots.take(self.next).zip(&mut names).zip(&mut vectors).zip(&mut controls).zip(&mut headers)
        {
            let room = &mut slot[HEADROOM..];
            *vector = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() };
            let header = &mut header.msg_hdr;
            header.msg_name = ptr::from_mut(name).cast();
            header.msg_namelen = socklen::<libc::sockaddr_storage>();
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
            header.msg_controllen = size_of_val(control);
        }
        let count = libc::c_uint::try_from(self.next).unwrap_or(1);
        // SAFETY: `socket` is open for the call's length. Each of the first `count` headers, at most `SLOTS`, points to one name, one vector and
        // one control block of the lengths it states, all of which live in this frame, and each vector to a slot of
        // `memory` that nothing else refers to during the call.
        let read = unsafe {
            libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_DONTWAIT, ptr::null_mut())
        };
        let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
        for (index, (header, name)) in headers.iter().zip(&names).take(read).enumerate() {
            let mut received = Received {
                start: index * BUFFER_LEN + HEADROOM,
                len: usize::try_from(header.msg_len).unwrap_or(0).min(BUFFER_LEN - HEADROOM),
                truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
                source: address(name, header.msg_hdr.msg_namelen),
                segment: 0,
                fragmented: false,
                tos: 0,
                ttl: 0,
                tag: None,
            };
            // SAFETY: the kernel filled `msg_control` of this header, which still points to its live, aligned block, and
            // set `msg_controllen` to what it wrote there.
            unsafe { ancillary(&header.msg_hdr, &mut received) };
            self.received.push(received);
        }
        self.drained = read < self.next;
        let octets: usize = self.received.iter().map(|message| message.len).sum();
        self.next = (WARM_OCTETS * read / octets.max(1)).clamp(2, SLOTS);
        Ok(read)
    }
}

/// The size of a type as the socket calls take it.
pub(super) fn socklen<T>() -> libc::socklen_t {
    libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0)
}

/// The address in `name`, if it is an IP one.
fn address(name: &libc::sockaddr_storage, length: libc::socklen_t) -> Option<SocketAddr> {
    let from: *const libc::sockaddr_storage = name;
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET if length >= socklen::<libc::sockaddr_in>() => {
            // SAFETY: `sockaddr_storage` is at least as large and as aligned as `sockaddr_in`, any octets are a value of
            // the latter, and the family says that it is one.
            let name = unsafe { &*from.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from_bits(u32::from_be(name.sin_addr.s_addr));
            Some((ip, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 if length >= socklen::<libc::sockaddr_in6>() => {
            // SAFETY: as above, for `sockaddr_in6`.
            let name = unsafe { &*from.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from_octets(name.sin6_addr.s6_addr);
            Some((ip, u16::from_be(name.sin6_port)).into())
        }
        _ => None,
    }
}

/// Reads what came beside a message.
///
/// # Safety
/// `header.msg_control` points to `header.msg_controllen` octets of control messages as the kernel writes them.
unsafe fn ancillary(header: &libc::msghdr, received: &mut Received) {
    // SAFETY: by this function's own condition; the result is null or points to a whole `cmsghdr` inside the block.
    let mut item = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !item.is_null() {
        // SAFETY: `item` is not null, so it points to a whole, aligned header inside the block.
        let (level, kind, length) = unsafe { ((*item).cmsg_level, (*item).cmsg_type, (*item).cmsg_len) };
        // SAFETY: CMSG_LEN and CMSG_DATA only compute, from a valid header.
        let (data, length) = unsafe { (libc::CMSG_DATA(item), length.saturating_sub(libc::CMSG_LEN(0) as usize)) };
        // SAFETY: `data` points to the item's `length` octets inside the block; each read is of at most that many.
        let int =
            || unsafe { (length >= size_of::<libc::c_int>()).then(|| ptr::read_unaligned(data.cast::<libc::c_int>())) };
        // SAFETY: as above, of one octet.
        let octet = || unsafe { (length >= 1).then(|| ptr::read(data)) };
        let low = |value: libc::c_int| u8::try_from(value & 0xff).unwrap_or(0);
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                received.segment = int().and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => received.tos = octet().unwrap_or(0),
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                received.ttl = int().map_or(0, low);
            }
            (libc::IPPROTO_IP, IP_RECVFRAGSIZE) | (libc::IPPROTO_IPV6, IPV6_RECVFRAGSIZE) => received.fragmented = true,
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => received.tos = int().map_or(0, low),
            (libc::SOL_PACKET, libc::PACKET_AUXDATA) if length >= size_of::<libc::tpacket_auxdata>() => {
                // SAFETY: as above, of one `tpacket_auxdata`, which is all integers.
                let auxiliary = unsafe { ptr::read_unaligned(data.cast::<libc::tpacket_auxdata>()) };
                if auxiliary.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                    let typed = auxiliary.tp_status & libc::TP_STATUS_VLAN_TPID_VALID != 0;
                    let kind = if typed { auxiliary.tp_vlan_tpid } else { crate::wire::ethernet::TYPE_VLAN };
                    received.tag = Some((kind, auxiliary.tp_vlan_tci));
                }
            }
            _ => {}
        }
        // SAFETY: `item` is a valid header of this block, as CMSG_FIRSTHDR or CMSG_NXTHDR gave it.
        item = unsafe { libc::CMSG_NXTHDR(header, item) };
    }
}
