//! The packet socket of a capture: every frame of every interface in the namespace the process is in.

use core::time::Duration;
use std::collections::BTreeMap;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, setsockopt,
    socket, sockopt,
};

use super::tag::{AUXDATA_LEN, put_back, tag};
use super::{Direction, Sink, sys};

/// The longest frame: 64 KB of payload and its headers.
const FRAME_LIMIT: usize = 65_536 + 256;
/// The kernel's buffer for frames not yet read, as far as its limits allow.
const BUFFER_LEN: usize = 4 << 20;
/// `PACKET_OUTGOING` of `linux/if_packet.h`: the frame is on its way out.
const PACKET_OUTGOING: u8 = 4;

/// Why a capture could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// No packet socket.
    #[error(
        "cannot open a packet socket: {0}; it takes CAP_NET_RAW in the namespace (root on a host; any lab place has it)"
    )]
    Open(Errno),
    /// Reading failed.
    #[error("cannot read from the packet socket: {0}")]
    Receive(Errno),
    /// The file cannot be written.
    #[error("cannot write the capture: {0}")]
    Write(#[from] io::Error),
}

/// What a capture takes.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only these interfaces; all but `lo` if empty.
    pub interfaces: Vec<String>,
    /// Stop after so many frames.
    pub count: Option<u64>,
}

/// What a capture came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Frames taken.
    pub frames: u64,
    /// Frames of any interface that the kernel had no room to keep until they were read.
    pub lost: u64,
}

/// Captures into `sink` until `stop` is set or enough was seen, and returns what it came to. `ready` is
/// called once the socket is open: whatever is sent from then on is seen.
///
/// # Errors
/// When the socket cannot be opened or read, or `sink` takes no more.
pub fn run(
    selection: &Selection,
    sink: &mut (impl Sink + ?Sized),
    stop: &AtomicBool,
    ready: impl FnOnce(),
) -> Result<Seen, CaptureError> {
    let fd = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::EthAll,
    )
    .map_err(CaptureError::Open)?;
    // A smaller buffer only loses frames sooner.
    let _ = setsockopt(&fd, sockopt::RcvBuf, &BUFFER_LEN);
    setsockopt(&fd, sockopt::ReceiveTimestampns, &true).map_err(CaptureError::Open)?;
    let refused = |error: io::Error| CaptureError::Open(Errno::from_raw(error.raw_os_error().unwrap_or(0)));
    sys::ask_for_tags(fd.as_fd()).map_err(refused)?;
    let mut capture = Capture { sink, interfaces: BTreeMap::new(), selection };
    capture.sink.flush()?;
    ready();
    let mut buffer = vec![0; FRAME_LIMIT];
    let mut seen = 0;
    while !stop.load(Ordering::Relaxed) && selection.count.is_none_or(|count| seen < count) {
        match capture.next(fd.as_raw_fd(), &mut buffer) {
            Ok(true) => seen += 1,
            Ok(false) => {}
            Err(CaptureError::Receive(Errno::EAGAIN)) => {
                capture.sink.flush()?;
                let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
                // Wakes now and then to look at `stop`.
                match poll(&mut fds, PollTimeout::from(100_u8)) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(error) => return Err(CaptureError::Receive(error)),
                }
            }
            // Reported once for the whole socket when any interface goes down.
            Err(CaptureError::Receive(Errno::EINTR | Errno::ENETDOWN)) => {}
            Err(error) => return Err(error),
        }
    }
    capture.sink.flush()?;
    let lost = sys::lost(fd.as_fd()).map_err(refused)?;
    Ok(Seen { frames: seen, lost: lost.into() })
}

struct Capture<'a, S: ?Sized> {
    sink: &'a mut S,
    /// By ifindex: the interface's number in the file, or `None` if it was not asked for.
    interfaces: BTreeMap<usize, Option<u32>>,
    selection: &'a Selection,
}

impl<S: Sink + ?Sized> Capture<'_, S> {
    /// Receives one frame; whether it was one to keep.
    #[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum names every control message there is")]
    fn next(&mut self, fd: i32, buffer: &mut [u8]) -> Result<bool, CaptureError> {
        let mut control = nix::cmsg_space!(nix::sys::time::TimeSpec, [u8; AUXDATA_LEN]);
        let mut pieces = [IoSliceMut::new(buffer)];
        let message = recvmsg::<LinkAddr>(fd, &mut pieces, Some(&mut control), MsgFlags::empty())
            .map_err(CaptureError::Receive)?;
        let Some(link) = message.address else { return Ok(false) };
        let (mut time, mut stripped) = (None, None);
        for control in message.cmsgs().map_err(CaptureError::Receive)? {
            match control {
                ControlMessageOwned::ScmTimestampns(stamp) => time = Some(Duration::from(stamp)),
                ControlMessageOwned::Unknown(other)
                    if other.cmsg_header.cmsg_level == libc::SOL_PACKET
                        && other.cmsg_header.cmsg_type == libc::PACKET_AUXDATA =>
                {
                    stripped = tag(&other.data_bytes);
                }
                _ => {}
            }
        }
        let length = message.bytes;
        let Some(interface) = self.interface(link.ifindex())? else { return Ok(false) };
        let direction = if link.pkttype() == PACKET_OUTGOING { Direction::Outbound } else { Direction::Inbound };
        let time = time.unwrap_or_default();
        match stripped {
            Some(tag) => self.sink.frame(interface, time, direction, &put_back(&buffer[..length], tag))?,
            None => self.sink.frame(interface, time, direction, &buffer[..length])?,
        }
        Ok(true)
    }

    fn interface(&mut self, index: usize) -> Result<Option<u32>, CaptureError> {
        if let Some(known) = self.interfaces.get(&index) {
            return Ok(*known);
        }
        let name = u32::try_from(index).ok().and_then(|index| nix::net::if_::if_indextoname(index).ok());
        let name = name.map_or_else(|| format!("if{index}"), |name| name.to_string_lossy().into_owned());
        let asked = &self.selection.interfaces;
        let wanted = if asked.is_empty() { name != "lo" } else { asked.contains(&name) };
        let number = if wanted { Some(self.sink.interface(&name)?) } else { None };
        self.interfaces.insert(index, number);
        Ok(number)
    }
}
