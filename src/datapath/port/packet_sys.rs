//! Options of packet sockets (packet(7)) and of sockets at large that no safe wrapper has.

use core::net::IpAddr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::batch_sys::socklen;
use crate::types::IfName;

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `setsockopt(2)` for an option that is an `int`.
pub(super) fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: `socket` is open for the call's length, and the option's value is the `int` that is pointed to.
    done(unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), socklen::<libc::c_int>())
    })
}

/// `getsockopt(2)` for an option that is an `int`.
pub(super) fn option(socket: BorrowedFd<'_>, level: libc::c_int, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = socklen::<libc::c_int>();
    // SAFETY: `socket` is open for the call's length; value and length are written within the `int` pointed to.
    done(unsafe { libc::getsockopt(socket.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut length) })?;
    Ok(value)
}

/// Asks for a socket's memory and losses (`asm-generic/socket.h`, Linux 4.12; the `libc` crate lacks it).
const SO_MEMINFO: libc::c_int = 55;

/// Places of what it tells (`SK_MEMINFO_VARS`, `linux/sock_diag.h`).
const MEMORY_WORDS: usize = 9;

/// Packets for this socket that the kernel has dropped (`sk_drops`), by modulo 2³².
pub(super) fn dropped(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut words = [0_u32; MEMORY_WORDS];
    let mut length = socklen::<[u32; MEMORY_WORDS]>();
    // SAFETY: `socket` is open for the call's length; at most `length` octets are written, which `words` has.
    done(unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, SO_MEMINFO, words.as_mut_ptr().cast(), &raw mut length)
    })?;
    usize::try_from(libc::SK_MEMINFO_DROPS).map(|at| words[at]).map_err(io::Error::other)
}

/// A packet socket that receives nothing until it is bound.
pub(super) fn socket() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
    done(fd)?;
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A raw socket of the address's family that receives every packet of an IP protocol.
pub(super) fn raw_socket(local: IpAddr, protocol: libc::c_int) -> io::Result<OwnedFd> {
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::socket(family, kind, protocol) };
    done(fd)?;
    // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The index of an interface of the calling thread's namespace.
pub(super) fn index_of(name: &IfName) -> io::Result<libc::c_int> {
    let mut text = [0_u8; libc::IFNAMSIZ];
    text[..name.as_str().len()].copy_from_slice(name.as_str().as_bytes());
    // SAFETY: a name has at most 15 octets, so `text` ends in a zero, and it lives for the call's length.
    let index = unsafe { libc::if_nametoindex(text.as_ptr().cast()) };
    if index == 0 { Err(io::Error::last_os_error()) } else { Ok(index.cast_signed()) }
}

/// Binds to an interface, for every protocol.
pub(super) fn bind(socket: BorrowedFd<'_>, index: libc::c_int) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is a C struct of integers: all zeroes is a value of it.
    let mut address: libc::sockaddr_ll = unsafe { core::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    address.sll_protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or(0).to_be();
    address.sll_ifindex = index;
    // SAFETY: `socket` is open for the call's length, and the address is a whole `sockaddr_ll` of the length told.
    done(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), socklen::<libc::sockaddr_ll>()) })
}

/// Has the interface take frames to every address for as long as the socket is open (`PACKET_MR_PROMISC`).
pub(super) fn take_all(socket: BorrowedFd<'_>, index: libc::c_int) -> io::Result<()> {
    // SAFETY: `packet_mreq` is a C struct of integers: all zeroes is a value of it.
    let mut membership: libc::packet_mreq = unsafe { core::mem::zeroed() };
    membership.mr_ifindex = index;
    membership.mr_type = u16::try_from(libc::PACKET_MR_PROMISC).unwrap_or(0);
    // SAFETY: `socket` is open for the call's length, and the option's value is a whole `packet_mreq` of the length told.
    done(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_ADD_MEMBERSHIP,
            (&raw const membership).cast(),
            socklen::<libc::packet_mreq>(),
        )
    })
}

/// The index of the interface the socket is bound to; negative once that is gone (`packet_notifier`, `af_packet.c`).
pub(super) fn bound_to(socket: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: `sockaddr_ll` is a C struct of integers: all zeroes is a value of it.
    let mut address: libc::sockaddr_ll = unsafe { core::mem::zeroed() };
    let mut length = socklen::<libc::sockaddr_ll>();
    // SAFETY: `socket` is open for the call's length, and at most `length` octets of the address are written.
    done(unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut address).cast(), &raw mut length) })?;
    Ok(address.sll_ifindex)
}

/// The MTU of the interface the socket is bound to, in octets (netdevice(7), `SIOCGIFMTU`).
pub(super) fn mtu(socket: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: `ifreq` is a C struct of integers, byte arrays and a union of such, and one pointer nobody reads here:
    // all zeroes is a value of it.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    request.ifr_ifru.ifru_ifindex = bound_to(socket)?;
    // The first gives the name, by which the second asks.
    for question in [libc::SIOCGIFNAME, libc::SIOCGIFMTU] {
        // SAFETY: `socket` is open for the call's length, and both questions read and write one `struct ifreq`, which
        // `request` is.
        done(unsafe { libc::ioctl(socket.as_raw_fd(), question, &raw mut request) })?;
    }
    // SAFETY: SIOCGIFMTU has written this member of the union, an `int`, which every bit pattern is a value of.
    Ok(unsafe { request.ifr_ifru.ifru_mtu }.cast_unsigned())
}

/// `SIOCETHTOOL` (`linux/sockios.h`).
const SIOCETHTOOL: libc::c_ulong = 0x8946;
/// Turns joining of received segments on or off (`linux/ethtool.h`).
const ETHTOOL_SGRO: u32 = 0x2c;

/// Has an interface of the socket's namespace join received segments, or not (`ethtool -K NAME gro on|off`).
pub(super) fn join(socket: BorrowedFd<'_>, name: &IfName, on: bool) -> io::Result<()> {
    // `struct ethtool_value`.
    let mut command = [ETHTOOL_SGRO, u32::from(on)];
    // SAFETY: `ifreq` is a C struct of integers, byte arrays and a union of such, and pointers: all zeroes is a value of it.
    let mut request: libc::ifreq = unsafe { core::mem::zeroed() };
    for (slot, octet) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
        *slot = libc::c_char::from_ne_bytes([octet]);
    }
    request.ifr_ifru.ifru_data = command.as_mut_ptr().cast();
    // SAFETY: `socket` is open for the call's length. The request's name ends in a zero, for names are shorter than the
    // field; it points to a whole `struct ethtool_value`, which is what the kernel reads for this command.
    done(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) })
}
