//! One frame with its vnet header, in or out of a descriptor: the same for TAPs and packet sockets.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::uio::writev;

use super::{DropReason, Ready, of_send, vnet};
use crate::datapath::offload::{HEADER_LIMIT, Segments};
use crate::datapath::{HEADROOM, Offload, Packet};

/// Pieces a frame's tail may have.
pub const TAIL_LIMIT: usize = 126;

/// Reads one frame into `buffer`, of [`super::BUFFER_LEN`] octets, and hands it to `deliver`.
pub fn read(fd: BorrowedFd<'_>, buffer: &mut [u8], deliver: impl FnOnce(&mut Packet<'_>)) -> Ready {
    let read = match nix::unistd::read(fd, &mut buffer[HEADROOM..]) {
        Ok(read) => read,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ready::Empty,
        Err(Errno::EIO | Errno::ENETDOWN) => return Ready::Down,
        Err(_) => return Ready::Gone,
    };
    match parse(buffer, HEADROOM, read) {
        Ok((start, offload)) => {
            deliver(&mut Packet::new(buffer, start, HEADROOM + read, &[], offload));
            Ready::Frames(1)
        }
        Err(reason) => Ready::Refused(reason),
    }
}

/// Where the frame starts in `buffer`, whose octets from `at` are a vnet header and a frame, `length` in all; and what
/// the header says.
pub(super) fn parse(buffer: &[u8], at: usize, length: usize) -> Result<(usize, Offload), DropReason> {
    let octets = buffer.get(at..at + length).ok_or(DropReason::Truncated)?;
    let (header, frame) = octets.split_first_chunk().ok_or(DropReason::Truncated)?;
    if frame.len() < crate::wire::ethernet::HEADER_LEN {
        return Err(DropReason::Truncated);
    }
    Ok((at + vnet::HEADER_LEN, vnet::decode(*header, frame)?))
}

/// The octets of the longest frame that the packet is or will be cut into; `None` for a super-frame that cannot be cut.
#[must_use]
pub fn longest(packet: &Packet<'_>) -> Option<usize> {
    match Segments::of(packet) {
        Ok(Some(segments)) => Some((segments.header_len() + segments.size()).min(packet.len())),
        Ok(None) => Some(packet.len()),
        Err(_) => None,
    }
}

/// Writes the packet as one frame.
///
/// # Errors
/// Why it could not be taken.
pub fn write(fd: impl AsFd, packet: &Packet<'_>) -> Result<(), DropReason> {
    let header = vnet::encode(&packet.offload);
    let tail = packet.tail();
    let written = if tail.is_empty() {
        writev(fd, &[IoSlice::new(&header), IoSlice::new(packet.head())])
    } else {
        let mut slices = [IoSlice::new(&[]); TAIL_LIMIT + 2];
        slices[0] = IoSlice::new(&header);
        slices[1] = IoSlice::new(packet.head());
        let room = slices.get_mut(2..2 + tail.len()).ok_or(DropReason::Uncuttable)?;
        for (slot, piece) in room.iter_mut().zip(tail) {
            *slot = IoSlice::new(piece);
        }
        writev(fd, &slices[..2 + tail.len()])
    };
    written.map(|_| ()).map_err(|errno| of_send(errno as i32))
}

/// Cuts a super-frame and writes its segments one by one, for who does not take it whole.
///
/// # Errors
/// Why it could not be taken, or not all of it.
pub fn write_cut(fd: impl AsFd, packet: &Packet<'_>) -> Result<(), DropReason> {
    let Some(segments) = Segments::of(packet).map_err(|_| DropReason::Uncuttable)? else {
        return write(fd, packet);
    };
    let says = vnet::encode(&Offload::default());
    let mut octets = [0; HEADER_LIMIT];
    for index in 0..segments.count() {
        let mut pieces = [IoSlice::new(&[]); TAIL_LIMIT];
        let mut count = 0;
        let header = &mut octets[..segments.header_len()];
        segments.cut(packet, index, header, |piece| {
            if let Some(slot) = pieces.get_mut(count) {
                *slot = IoSlice::new(piece);
            }
            count += 1;
        });
        let pieces = pieces.get(..count).ok_or(DropReason::Uncuttable)?;
        let mut slices = [IoSlice::new(&[]); TAIL_LIMIT + 2];
        slices[0] = IoSlice::new(&says);
        slices[1] = IoSlice::new(header);
        slices[2..2 + count].copy_from_slice(pieces);
        writev(&fd, &slices[..2 + count]).map_err(|errno| of_send(errno as i32))?;
    }
    Ok(())
}

/// A socket to ask the kernel about interfaces of this thread's namespace with.
pub(super) fn control_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?)
}
