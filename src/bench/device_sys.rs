//! A device's features: `SIOCETHTOOL`, `linux/ethtool.h`.

use core::ptr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::types::IfName;

const SIOCETHTOOL: u32 = 0x8946;
const GET_STRINGS: u32 = 0x1b;
const SET_FEATURES: u32 = 0x3b;
const GET_SET_INFO: u32 = 0x37;
/// `ETH_SS_FEATURES`.
const FEATURES: u32 = 4;
/// `ETH_GSTRING_LEN`.
const NAME_LEN: usize = 32;
/// Features that a device may have: several times as many as there are.
const MOST: usize = 512;

/// The names of all features this kernel knows, in their order.
///
/// # Errors
/// The kernel's.
pub(super) fn feature_names(socket: BorrowedFd<'_>, device: &IfName) -> io::Result<Vec<String>> {
    // `struct ethtool_sset_info` and one number: command, reserved, a mask of 64 bits, and the count of the set.
    let [a, b, c, d, e, f, g, h] = (1_u64 << FEATURES).to_ne_bytes();
    let mut info = [GET_SET_INFO, 0, u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]), 0];
    request(socket, device, &mut info)?;
    let count = usize::try_from(info[4]).unwrap_or(0).min(MOST);
    // `struct ethtool_gstrings`: command, set, count, then the names.
    let mut strings = vec![0_u32; 3 + count * NAME_LEN / 4];
    strings[..3].copy_from_slice(&[GET_STRINGS, FEATURES, u32::try_from(count).unwrap_or(0)]);
    request(socket, device, &mut strings)?;
    let octets: Vec<u8> = strings[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let name = |octets: &[u8]| {
        let end = octets.iter().position(|octet| *octet == 0).unwrap_or(NAME_LEN);
        String::from_utf8_lossy(&octets[..end]).into_owned()
    };
    Ok(octets.chunks_exact(NAME_LEN).map(name).collect())
}

/// Turns the features at these places among `count` on or off; those that the device never has stay off.
///
/// # Errors
/// The kernel's; `EPERM` without `CAP_NET_ADMIN` over the device's namespace.
pub(super) fn turn(
    socket: BorrowedFd<'_>,
    device: &IfName,
    (places, count): (&[usize], usize),
    on: bool,
) -> io::Result<()> {
    let blocks = count.div_ceil(32);
    // `struct ethtool_sfeatures`: command, blocks, then of each block which bits to set, and to what.
    let mut words = vec![0_u32; 2 + blocks * 2];
    words[..2].copy_from_slice(&[SET_FEATURES, u32::try_from(blocks).unwrap_or(0)]);
    for place in places.iter().filter(|place| **place < count) {
        let block = 2 + place / 32 * 2;
        words[block] |= 1 << (place % 32);
        words[block + 1] |= u32::from(on) << (place % 32);
    }
    request(socket, device, &mut words)
}

fn request(socket: BorrowedFd<'_>, device: &IfName, words: &mut [u32]) -> io::Result<()> {
    // SAFETY: `ifreq` is a C struct of integers, arrays and pointers: all zeroes is a value of it.
    let mut asked: libc::ifreq = unsafe { core::mem::zeroed() };
    for (slot, octet) in asked.ifr_name.iter_mut().zip(device.as_str().bytes()) {
        *slot = libc::c_char::from_ne_bytes([octet]);
    }
    asked.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: the request holds a name with a zero after it, since names are shorter than the field, and points to `words`,
    // which is as long as its first words tell the kernel: it reads and writes no further. Nothing else refers to either.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL.into(), ptr::from_mut(&mut asked)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
