//! Packet sockets: a port on an interface that exists, such as one end of a veth pair or a provider's card.
//!
//! The vnet header makes super-frames and unfinished checksums pass both ways, as between the kernel's own devices.

use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use super::batch_sys::Batch;
use super::{DropReason, PortError, Ready, frame, netns, packet_sys};
use crate::datapath::{Packet, SegmentKind};
use crate::types::{IfName, Timestamp};
use crate::wire::ethernet;

/// Octets of frames that may wait in a socket: some 32 super-frames, as the kernel accounts for them.
const BUFFER_OCTETS: libc::c_int = 8 << 20;

/// Opens `queues` sockets on an interface of the namespace; the kernel spreads flows over them.
///
/// # Errors
/// [`PortError`] says which step failed.
pub fn open(netns: Option<&Path>, name: &IfName, queues: usize) -> Result<Vec<OwnedFd>, PortError> {
    netns::within(netns, || {
        let failed = |what| move |source: io::Error| PortError::Kernel { port: name.to_string(), what, source };
        let index = packet_sys::index_of(name).map_err(failed("find the interface"))?;
        let mut sockets: Vec<OwnedFd> = Vec::with_capacity(queues);
        for _ in 0..queues.max(1) {
            let socket = packet_sys::socket().map_err(failed("open a packet socket"))?;
            let set = |option, value| packet_sys::set_option(socket.as_fd(), libc::SOL_PACKET, option, value);
            set(libc::PACKET_VNET_HDR, 1).map_err(failed("ask for vnet headers"))?;
            set(libc::PACKET_AUXDATA, 1).map_err(failed("ask for VLAN tags"))?;
            set(libc::PACKET_IGNORE_OUTGOING, 1).map_err(failed("ignore what it sends itself"))?;
            grow(socket.as_fd(), BUFFER_OCTETS).map_err(failed("enlarge the buffers"))?;
            packet_sys::bind(socket.as_fd(), index).map_err(failed("bind"))?;
            // A card hands on what is for its own address unless told otherwise; the kernel undoes it with the socket.
            packet_sys::take_all(socket.as_fd(), index).map_err(failed("ask for frames to every address"))?;
            if queues > 1 {
                let group = match sockets.first() {
                    None => libc::PACKET_FANOUT_FLAG_UNIQUEID << 16,
                    Some(first) => packet_sys::option(first.as_fd(), libc::SOL_PACKET, libc::PACKET_FANOUT)
                        .map_err(failed("read the fanout group"))?
                        .cast_unsigned(),
                };
                let group = (group | libc::PACKET_FANOUT_HASH << 16).cast_signed();
                set(libc::PACKET_FANOUT, group).map_err(failed("join the fanout group"))?;
            }
            sockets.push(socket);
        }
        Ok(sockets)
    })
}

/// Whether the interface the socket is bound to is gone.
#[must_use]
pub fn is_gone(socket: BorrowedFd<'_>) -> bool {
    packet_sys::bound_to(socket).is_ok_and(|index| index <= 0)
}

/// The MTU of the interface the socket is bound to, in octets.
///
/// # Errors
/// The kernel's, when the interface is gone.
pub fn mtu(socket: BorrowedFd<'_>) -> io::Result<u32> {
    packet_sys::mtu(socket)
}

/// Has an interface join the segments that it receives into super-frames, or hand them on one by one. Any socket of its
/// namespace will do.
///
/// # Errors
/// The kernel's: without `CAP_NET_ADMIN` over the namespace, or when the interface is gone.
pub fn join(socket: BorrowedFd<'_>, name: &IfName, on: bool) -> io::Result<()> {
    packet_sys::join(socket, name, on)
}

/// What one worker knows of a socket's interface, as it was a while ago at most.
#[derive(Debug, Default)]
pub struct Link {
    /// Its MTU in octets; `None` if it could not be read.
    mtu: Option<u32>,
    read: Option<Timestamp>,
    /// When a UDP super-frame was refused.
    refused: Option<Timestamp>,
    missed: u64,
}

impl Link {
    /// How old what is known may be.
    const AGE: Duration = Duration::from_secs(1);

    /// Its MTU in octets, as it was read last: now, if a frame was just refused for it.
    #[must_use]
    pub const fn mtu(&self) -> Option<u32> {
        self.mtu
    }

    /// Frames that were lost while they were read, and a [`write()`] was told, since this was last asked.
    pub const fn take_missed(&mut self) -> u64 {
        core::mem::replace(&mut self.missed, 0)
    }

    /// Its MTU as it is now.
    fn look(&mut self, socket: BorrowedFd<'_>, now: Timestamp) -> Option<u32> {
        (self.mtu, self.read) = (mtu(socket).ok(), Some(now));
        self.mtu
    }

    /// Whether UDP super-frames are to be cut for now. Whether the kernel takes them depends on the frame too, so it is asked
    /// again and again.
    fn refuses_datagrams(&self, now: Timestamp) -> bool {
        self.refused.is_some_and(|refused| now.since(refused) < Self::AGE)
    }

    /// Whether the interface takes frames of so many octets behind their Ethernet header.
    fn takes(&mut self, octets: usize, socket: BorrowedFd<'_>, now: Timestamp) -> bool {
        let fits = |mtu: Option<u32>| mtu.is_none_or(|mtu| octets <= mtu as usize);
        if self.read.is_none_or(|read| now.since(read) >= Self::AGE) {
            self.look(socket, now);
        }
        fits(self.mtu) || fits(self.look(socket, now))
    }
}

/// Writes the packet: as one frame, or, if the kernel does not take it `whole` by this socket, as its segments. Of a frame
/// that is larger than the link takes the kernel says so; of a super-frame's segments it does not, for whoever cuts them is
/// to see to that, and a tunnel drops them in silence. Nor does it where it believes headers longer than they are, which is
/// also where it takes no super-frames.
///
/// A kernel before Linux 6.2 has no word for UDP super-frames (`virtio_net_hdr_to_skb()`), later ones take so many segments
/// and no more. Which one this is, it says of the frame: one that it refuses is cut.
///
/// # Errors
/// Why it could not be taken.
pub fn write(
    socket: BorrowedFd<'_>,
    packet: &Packet<'_>,
    whole: bool,
    link: &mut Link,
    now: Timestamp,
) -> Result<(), DropReason> {
    // What cannot be cut is for the kernel to refuse.
    if (!whole || packet.offload.segmentation.is_some())
        && let Some(longest) = frame::longest(packet)
    {
        let tagged = matches!(packet.head().get(12..14), Some([0x81, 0] | [0x88, 0xa8]));
        let header = ethernet::HEADER_LEN + if tagged { ethernet::TAG_LEN } else { 0 };
        if !link.takes(longest.saturating_sub(header), socket, now) {
            return Err(DropReason::TooBig);
        }
    }
    let datagrams = packet.offload.segmentation.is_some_and(|cut| cut.kind == SegmentKind::Udp);
    let cut = !whole || (datagrams && link.refuses_datagrams(now));
    let put = |cut| if cut { frame::write_cut(socket, packet) } else { frame::write(socket, packet) };
    let mut sent = put(cut);
    if sent == Err(DropReason::Refused) && !cut {
        // A read that a bad frame ended after good ones leaves its error to the socket's next call (`do_recvmmsg()`).
        sent = put(false);
        match sent {
            Ok(()) => link.missed += 1,
            Err(DropReason::Refused) if datagrams => {
                link.refused = Some(now);
                sent = put(true);
            }
            Err(_) => {}
        }
    }
    if sent == Err(DropReason::TooBig) {
        link.look(socket, now);
    }
    sent
}

/// Enlarges a socket's buffers: beyond the system's limit where we may, up to it elsewhere.
pub(super) fn grow(socket: BorrowedFd<'_>, octets: libc::c_int) -> io::Result<()> {
    for (forced, polite) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        packet_sys::set_option(socket, libc::SOL_SOCKET, forced, octets)
            .or_else(|_| packet_sys::set_option(socket, libc::SOL_SOCKET, polite, octets))?;
    }
    Ok(())
}

/// Reads what waits, at most one batch, and hands each frame to `take`, or why it was refused.
pub fn read(
    socket: BorrowedFd<'_>,
    batch: &mut Batch,
    mut take: impl FnMut(Result<&mut Packet<'_>, DropReason>),
) -> Ready {
    let count = match batch.receive(socket) {
        Ok(count) => count,
        Err(error) => {
            return match error.raw_os_error() {
                Some(libc::EAGAIN | libc::EINTR) => Ready::Empty,
                // Down is reported once; whether the interface is gone, the socket itself knows.
                _ if is_gone(socket) => Ready::Gone,
                // Of one frame, which is gone: the vnet header has no word for what is to be done on it.
                Some(libc::EINVAL) => Ready::Refused(DropReason::BadOffload),
                _ => Ready::Down,
            };
        }
    };
    let (memory, received) = batch.parts();
    for message in received {
        if message.truncated {
            take(Err(DropReason::Truncated));
            continue;
        }
        let (start, offload) = match frame::parse(memory, message.start, message.len) {
            Ok(parsed) => parsed,
            Err(reason) => {
                take(Err(reason));
                continue;
            }
        };
        let mut packet = Packet::new(memory, start, message.start + message.len, &[], offload);
        if let Some((kind, control)) = message.tag {
            if !packet.open(12, ethernet::TAG_LEN) {
                take(Err(DropReason::Truncated));
                continue;
            }
            packet.head_mut()[12..14].copy_from_slice(&kind.to_be_bytes());
            packet.head_mut()[14..16].copy_from_slice(&control.to_be_bytes());
        }
        take(Ok(&mut packet));
    }
    batch.ready(count)
}
