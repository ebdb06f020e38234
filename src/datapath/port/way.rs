//! The ways to other nodes' tunnel endpoints, tried now: who answers, whether what tunnels need passes whole, and which hop
//! is too small if it does not.
//!
//! What is sent are echo requests that may not be fragmented, whatever the kernel believes of the path (ip(7),
//! `IP_PMTUDISC_PROBE`); an answer is as large, and so tells of both directions. A router that cannot pass one on says so and
//! is named (RFC 1191, RFC 8201); a bridge or a card drops it in silence, and then smaller ones tell what passes.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, bind, recvmsg, sendto};
use zerocopy::IntoBytes;
use zerocopy::network_endian::U16;

use super::tell::path_mtu;
use super::{PortError, packet_sys};
use crate::api::agent::Room;
use crate::clock::monotonic;
use crate::types::Timestamp;
use crate::wire::icmp::{self, Echo, Header};
use crate::wire::{checksum, ipv4, ipv6, prefix};

/// Ends that are tried in one go, at most: as many as leave each request a number of its own.
pub const ENDS_MAX: usize = 4_096;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Requests sent between two looks at what came back: below any queue on the way.
const BURST: usize = 64;
/// Octets of the request that asks for nothing but an answer, as many as ping(8) sends over IPv4.
const SMALL: u32 = 84;
/// Sizes tried where larger ones vanish: usual MTUs, and what is left of them by usual tunnels.
const SIZES: [u32; 12] = [8_950, 4_000, 1_550, 1_500, 1_492, 1_480, 1_450, 1_420, 1_400, 1_280, 1_000, 576];

/// A remote endpoint, and the octets of the largest packet a tunnel would send there, outer IP header included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Its address.
    pub to: IpAddr,
    /// The octets; 0 asks only whether it answers.
    pub needed: u32,
}

/// What a way is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// How long the answer to a small request took; `None` if none came in time.
    pub answered: Option<Duration>,
    /// What passes.
    pub room: Room,
}

/// Tries the ways from `local` to each of `ends`, all at once, in the calling thread's namespace. Those beyond
/// [`ENDS_MAX`] are not tried.
///
/// # Errors
/// [`PortError`] when there can be no socket, or it breaks.
pub fn ways(local: IpAddr, ends: &[End]) -> Result<Vec<Way>, PortError> {
    let failed = |what| move |source: io::Error| PortError::Kernel { port: local.to_string(), what, source };
    let tried = &ends[..ends.len().min(ENDS_MAX)];
    let mut trial = Trial { socket: open(local)?, local, run: run(), requests: Vec::new() };
    let needed = |end: &End| end.needed.max(SMALL);
    let all = tried.iter().enumerate();
    trial.round(all.clone().flat_map(|(at, end)| [(at, end.to, SMALL), (at, end.to, needed(end))]));
    trial.hear().map_err(failed("hear answers"))?;
    // One may be lost on a busy way.
    let again: Vec<_> = all.clone().filter(|(at, end)| trial.is_open(*at, needed(end))).collect();
    trial.round(again.into_iter().flat_map(|(at, end)| [(at, end.to, SMALL), (at, end.to, needed(end))]));
    trial.hear().map_err(failed("hear answers"))?;
    let silent: Vec<_> = all.filter(|(at, end)| trial.is_open(*at, needed(end))).collect();
    let silent = silent.into_iter().filter(|(at, _)| trial.passed(*at, SMALL).is_some());
    let sizes = silent.flat_map(|(at, end)| {
        SIZES.into_iter().filter(move |size| *size < end.needed).map(move |size| (at, end.to, size))
    });
    trial.round(sizes.collect::<Vec<_>>().into_iter());
    trial.hear().map_err(failed("hear answers"))?;
    let untried = Way { answered: None, room: Room::Unknown };
    let mut ways: Vec<Way> = tried.iter().enumerate().map(|(at, end)| trial.way(at, needed(end))).collect();
    ways.resize(ends.len(), untried);
    Ok(ways)
}

/// A number that tells this trial's requests from others'.
fn run() -> u16 {
    let [.., high, low] = RandomState::new().build_hasher().finish().to_be_bytes();
    u16::from_be_bytes([high, low])
}

fn open(local: IpAddr) -> Result<OwnedFd, PortError> {
    let failed = |what| move |source: io::Error| PortError::Kernel { port: local.to_string(), what, source };
    let (protocol, options) = match local {
        IpAddr::V4(_) => (
            libc::IPPROTO_ICMP,
            &[
                (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE),
                (libc::IPPROTO_IP, libc::IP_RECVERR, 1),
            ][..],
        ),
        IpAddr::V6(_) => (
            libc::IPPROTO_ICMPV6,
            &[
                (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_PROBE),
                (libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 1),
                (libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1),
            ][..],
        ),
    };
    let socket = packet_sys::raw_socket(local, protocol).map_err(failed("open a raw ICMP socket"))?;
    for (level, option, value) in options {
        packet_sys::set_option(socket.as_fd(), *level, *option, *value).map_err(failed("forbid fragments"))?;
    }
    super::packet::grow(socket.as_fd(), 1 << 20).map_err(failed("enlarge the buffers"))?;
    let address = SockaddrStorage::from(SocketAddr::new(local, 0));
    bind(socket.as_raw_fd(), &address).map_err(|errno| failed("bind")(errno.into()))?;
    Ok(socket)
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Sent,
    Answered(Duration),
    TooBig(Room),
    Failed,
}

/// A request: to which end, of how many octets, when, and what became of it. Its number is its place.
struct Request {
    end: usize,
    octets: u32,
    sent: Timestamp,
    fate: Fate,
}

struct Trial {
    socket: OwnedFd,
    local: IpAddr,
    run: u16,
    requests: Vec<Request>,
}

impl Trial {
    /// Whether it is not yet known what becomes of so many octets to an end.
    fn is_open(&self, end: usize, octets: u32) -> bool {
        let of = |request: &&Request| request.end == end && request.octets == octets;
        !self.requests.iter().filter(of).any(|request| matches!(request.fate, Fate::Answered(_) | Fate::TooBig(_)))
    }

    /// How soon so many octets were answered.
    fn passed(&self, end: usize, octets: u32) -> Option<Duration> {
        self.requests.iter().find_map(|request| match request.fate {
            Fate::Answered(took) if (request.end, request.octets) == (end, octets) => Some(took),
            Fate::Answered(_) | Fate::Sent | Fate::TooBig(_) | Fate::Failed => None,
        })
    }

    fn way(&self, end: usize, needed: u32) -> Way {
        let of_end = || self.requests.iter().filter(|request| request.end == end);
        let refused = of_end().find_map(|request| match request.fate {
            Fate::TooBig(room) => Some(room),
            Fate::Answered(_) | Fate::Sent | Fate::Failed => None,
        });
        let largest =
            of_end().filter(|request| matches!(request.fate, Fate::Answered(_))).map(|request| request.octets);
        let room = match (largest.max(), refused) {
            (Some(octets), _) if octets >= needed => Room::Enough,
            (_, Some(room)) => room,
            (Some(passes), None) => Room::Silent { passes },
            (None, None) => Room::Unknown,
        };
        Way { answered: self.passed(end, SMALL), room }
    }

    fn round(&mut self, requests: impl Iterator<Item = (usize, IpAddr, u32)>) {
        for (count, (end, to, octets)) in requests.enumerate() {
            let Ok(number) = u16::try_from(self.requests.len()) else { return };
            let message = self.message(to, number, octets);
            let there = SockaddrStorage::from(SocketAddr::new(to, 0));
            let fate = match sendto(self.socket.as_raw_fd(), &message, &there, MsgFlags::empty()) {
                Ok(_) => Fate::Sent,
                Err(nix::errno::Errno::EMSGSIZE) => {
                    path_mtu(self.local, to).map_or(Fate::Failed, |mtu| Fate::TooBig(Room::Interface { mtu }))
                }
                // An answer to an earlier one may be what is told here; the request is sent once more.
                Err(_) => Fate::Failed,
            };
            self.requests.push(Request { end, octets, sent: monotonic(), fate });
            if count % BURST == BURST - 1 {
                self.drain();
            }
        }
    }

    /// An ICMP message that makes a packet of so many octets. The kernel adds ICMPv6's checksum.
    fn message(&self, to: IpAddr, number: u16, octets: u32) -> Vec<u8> {
        let (kind, outer) = match to {
            IpAddr::V4(_) => (icmp::V4_ECHO_REQUEST, ipv4::HEADER_LEN),
            IpAddr::V6(_) => (icmp::V6_ECHO_REQUEST, ipv6::HEADER_LEN),
        };
        let header = Header { kind, code: 0, checksum: U16::ZERO };
        let echo = Echo { identifier: U16::new(self.run), sequence: U16::new(number) };
        let mut message = [header.as_bytes(), echo.as_bytes()].concat();
        message.resize((octets as usize).saturating_sub(outer).max(message.len()), 0);
        if to.is_ipv4() {
            let sum = checksum::of(&message);
            message[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        message
    }

    /// Takes what comes until all that was sent is answered or patience ends.
    fn hear(&mut self) -> io::Result<()> {
        let end = monotonic() + PATIENCE;
        loop {
            self.drain();
            let left = end.since(monotonic());
            if left.is_zero() || !self.requests.iter().any(|request| request.fate == Fate::Sent) {
                break;
            }
            let mut waits = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::ZERO);
            match poll(&mut waits, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        // Silence is an answer too, and another round does not wait for it again.
        self.requests.iter_mut().filter(|request| request.fate == Fate::Sent).for_each(|it| it.fate = Fate::Failed);
        Ok(())
    }

    /// Takes what has come: answers, and errors of hops.
    fn drain(&mut self) {
        let mut memory = vec![0; 65_536];
        while let Some((came, message, _)) = self.receive(&mut memory, MsgFlags::empty()) {
            let message = if self.local.is_ipv4() { behind_v4(message) } else { Some(message) };
            if let Some(number) = message.and_then(|message| self.number(message, true)) {
                let request = &mut self.requests[number];
                if matches!(request.fate, Fate::Sent | Fate::Failed) {
                    request.fate = Fate::Answered(came.since(request.sent));
                }
            }
        }
        while let Some((_, message, told)) = self.receive(&mut memory, MsgFlags::MSG_ERRQUEUE) {
            // The request itself is what comes back.
            if let (Some(number), Some(room)) = (self.number(message, false), told) {
                self.requests[number].fate = Fate::TooBig(room);
            }
        }
    }

    /// The next message or error, and what a hop said of it.
    fn receive<'a>(&self, memory: &'a mut [u8], from: MsgFlags) -> Option<(Timestamp, &'a [u8], Option<Room>)> {
        let mut control = nix::cmsg_space!([u8; 64]);
        let flags = from | MsgFlags::MSG_DONTWAIT;
        let (length, told) = {
            let mut parts = [IoSliceMut::new(memory)];
            // A pending error is told in place of a message, once; the next look finds both the message and the error's own.
            let fd = self.socket.as_raw_fd();
            let received = recvmsg::<SockaddrStorage>(fd, &mut parts, Some(&mut control), flags).ok()?;
            (received.bytes, received.cmsgs().ok()?.find_map(too_big))
        };
        Some((monotonic(), memory.get(..length)?, told))
    }

    /// The number of one of this trial's requests, from it or from the answer to it.
    fn number(&self, message: &[u8], answer: bool) -> Option<usize> {
        let (header, rest) = prefix::<Header>(message).ok()?;
        let (echo, _) = prefix::<Echo>(rest).ok()?;
        let kind = match (self.local, answer) {
            (IpAddr::V4(_), true) => icmp::V4_ECHO_REPLY,
            (IpAddr::V4(_), false) => icmp::V4_ECHO_REQUEST,
            (IpAddr::V6(_), true) => icmp::V6_ECHO_REPLY,
            (IpAddr::V6(_), false) => icmp::V6_ECHO_REQUEST,
        };
        let number = usize::from(echo.sequence.get());
        (header.kind == kind && echo.identifier.get() == self.run && number < self.requests.len()).then_some(number)
    }
}

/// What follows the IPv4 header, which a raw socket gives too.
fn behind_v4(packet: &[u8]) -> Option<&[u8]> {
    let (header, _) = prefix::<ipv4::Header>(packet).ok()?;
    packet.get(header.header_len()..)
}

/// Who said that a packet was too big, and what is not.
#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum names every control message there is")]
fn too_big(message: ControlMessageOwned) -> Option<Room> {
    match message {
        ControlMessageOwned::Ipv4RecvErr(error, Some(hop))
            if (error.ee_origin, error.ee_type, error.ee_code)
                == (libc::SO_EE_ORIGIN_ICMP, icmp::V4_UNREACHABLE, icmp::V4_FRAGMENTATION_NEEDED) =>
        {
            Some(Room::Hop { hop: IpAddr::from(hop.sin_addr.s_addr.to_ne_bytes()), mtu: error.ee_info })
        }
        ControlMessageOwned::Ipv6RecvErr(error, Some(hop))
            if (error.ee_origin, error.ee_type) == (libc::SO_EE_ORIGIN_ICMP6, icmp::V6_PACKET_TOO_BIG) =>
        {
            Some(Room::Hop { hop: IpAddr::from(hop.sin6_addr.s6_addr), mtu: error.ee_info })
        }
        _ => None,
    }
}
