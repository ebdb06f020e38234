//! Pings between namespaces: one thread, a raw socket per station and IP family, every probe told from every other.
//!
//! A raw socket receives a copy of each ICMP message its namespace accepts, requests included: so what a probe reached is
//! known from the receiver, not only from a reply.

use core::hash::{BuildHasher, Hasher};
use core::net::IpAddr;
use std::hash::RandomState;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recvmsg,
    sendto, setsockopt, socket, sockopt,
};

use super::echo::{self, Nonce};
use super::{Error, now};

/// Hops a request starts with: Linux's default (`IPDEFTTL`, `linux/ip.h`).
pub(super) const FIRST_TTL: u8 = 64;
/// Requests sent between two looks at what came back: below any queue on the way.
const BURST: usize = 64;
/// Octets a socket may hold unread. The kernel caps it at `net.core.rmem_max`.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Sockets inside one namespace.
#[derive(Debug)]
pub(super) struct Ears {
    v4: OwnedFd,
    v6: OwnedFd,
}

/// One question: does a request from here to there arrive, and where?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Probe {
    /// The asking station's place in the list.
    pub from: usize,
    /// The address asked.
    pub target: IpAddr,
    /// Whether a reply is wanted; else the probe is sent twice and silence awaited.
    pub wanted: bool,
}

/// What became of a probe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// Requests sent.
    pub sent: u32,
    /// Stations that received a request, or a reply meant for another, each with the hops it had left, once each.
    pub arrived: Vec<(usize, u8)>,
    /// The first reply: how long it took and the hops it had left.
    pub reply: Option<(Duration, u8)>,
    /// Why a request could not be sent.
    pub refused: Option<String>,
}

/// How long to try.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the first request to the second; doubles with each further one.
    pub first_interval: Duration,
    /// From the first request to giving up.
    pub limit: Duration,
    /// How long silence lasts before it counts.
    pub silence: Duration,
}

/// Opens sockets in each of these namespaces.
///
/// # Errors
/// [`Error::Os`] names the step that failed; needs `CAP_SYS_ADMIN` and `CAP_NET_RAW` over the namespaces.
pub(super) fn listen(namespaces: &[(String, OwnedFd)]) -> Result<Vec<Ears>, Error> {
    // A thread of its own, so that this one stays in its namespace.
    let opened = std::thread::scope(|scope| {
        scope
            .spawn(|| namespaces.iter().map(|(name, netns)| open(name, netns)).collect::<Result<Vec<Ears>, Error>>())
            .join()
    });
    opened.unwrap_or_else(|_| unreachable!("opening sockets does not panic"))
}

fn open(name: &str, netns: &OwnedFd) -> Result<Ears, Error> {
    setns(netns, CloneFlags::CLONE_NEWNET)
        .map_err(|errno| Error::os(format!("enter the namespace of {name}"), errno))?;
    let make = |family, protocol| -> nix::Result<OwnedFd> {
        let fd = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, protocol)?;
        setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        Ok(fd)
    };
    let sockets = || -> nix::Result<Ears> {
        let v4 = make(AddressFamily::Inet, SockProtocol::Icmp)?;
        setsockopt(&v4, sockopt::Ipv4Ttl, &i32::from(FIRST_TTL))?;
        let v6 = make(AddressFamily::Inet6, SockProtocol::IcmpV6)?;
        setsockopt(&v6, sockopt::Ipv6Ttl, &i32::from(FIRST_TTL))?;
        setsockopt(&v6, sockopt::Ipv6RecvHopLimit, &true)?;
        Ok(Ears { v4, v6 })
    };
    sockets().map_err(|errno| Error::os(format!("open a raw ICMP socket in {name}"), errno))
}

/// Asks every probe, until each wanted one was answered or time is up, and silence has lasted long enough.
///
/// # Errors
/// [`Error::Os`] when a socket breaks.
pub(super) fn run(ears: &[Ears], probes: &[Probe], patience: Patience) -> Result<Vec<Outcome>, Error> {
    let begin = now();
    let mut round = Round {
        ears,
        probes,
        // Random: two pingers in one lab must not answer for each other.
        run: RandomState::new().build_hasher().finish(),
        outcomes: vec![Outcome::default(); probes.len()],
        sent_at: vec![Vec::new(); probes.len()],
    };
    let mut quiet_until = begin;
    let (mut wave, mut interval) = (begin, patience.first_interval);
    for attempt in 0_u32.. {
        let due = |(index, probe): (usize, &Probe)| {
            let open = if probe.wanted { round.outcomes[index].reply.is_none() } else { attempt < 2 };
            open.then_some((index, *probe))
        };
        let asked: Vec<(usize, Probe)> = probes.iter().enumerate().filter_map(due).collect();
        let wanting = |round: &Round<'_>| {
            probes.iter().zip(&round.outcomes).any(|(probe, outcome)| probe.wanted && outcome.reply.is_none())
        };
        for burst in asked.chunks(BURST) {
            for (index, probe) in burst {
                round.ask(*index, *probe, attempt);
            }
            round.hear(Duration::ZERO)?;
        }
        if asked.iter().any(|(_, probe)| !probe.wanted) {
            quiet_until = now() + patience.silence;
        }
        wave += interval;
        interval *= 2;
        loop {
            let time = now();
            let late = time >= begin + patience.limit;
            let asked_twice = attempt > 0 || probes.iter().all(|probe| probe.wanted);
            if time >= quiet_until && (late || (asked_twice && !wanting(&round))) {
                return Ok(round.outcomes);
            }
            if time >= wave && !late {
                break;
            }
            let next = if late { quiet_until } else { wave };
            round.hear(
                next.saturating_duration_since(time).clamp(Duration::from_millis(1), Duration::from_millis(100)),
            )?;
        }
    }
    unreachable!("the loop ends with the patience")
}

struct Round<'a> {
    ears: &'a [Ears],
    probes: &'a [Probe],
    run: u64,
    outcomes: Vec<Outcome>,
    sent_at: Vec<Vec<Instant>>,
}

impl Round<'_> {
    fn ask(&mut self, index: usize, probe: Probe, attempt: u32) {
        let Ok(number) = u32::try_from(index) else { unreachable!("fewer probes than memory holds") };
        let octets = echo::request(probe.target, Nonce { run: self.run, probe: number, attempt });
        let ears = &self.ears[probe.from];
        self.sent_at[index].push(now());
        let sent = match probe.target {
            IpAddr::V4(ip) => {
                sendto(ears.v4.as_raw_fd(), &octets, &SockaddrIn::from(SocketAddrV4::new(ip, 0)), MsgFlags::empty())
            }
            IpAddr::V6(ip) => sendto(
                ears.v6.as_raw_fd(),
                &octets,
                &SockaddrIn6::from(SocketAddrV6::new(ip, 0, 0, 0)),
                MsgFlags::empty(),
            ),
        };
        let outcome = &mut self.outcomes[index];
        outcome.sent += 1;
        outcome.refused = sent.err().map(|errno| errno.desc().to_owned());
    }

    fn hear(&mut self, timeout: Duration) -> Result<(), Error> {
        let ears = self.ears;
        let fds: Vec<(usize, bool, BorrowedFd<'_>)> = ears
            .iter()
            .enumerate()
            .flat_map(|(station, ears)| [(station, true, ears.v4.as_fd()), (station, false, ears.v6.as_fd())])
            .collect();
        let mut waits: Vec<PollFd<'_>> = fds.iter().map(|(_, _, fd)| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        match poll(&mut waits, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::os("wait for echoes", errno)),
        }
        for ((station, v4, fd), wait) in fds.iter().zip(&waits) {
            if wait.any().unwrap_or(false) {
                self.drain(*station, *v4, *fd).map_err(|source| Error::os("receive echoes", source))?;
            }
        }
        Ok(())
    }

    fn drain(&mut self, station: usize, v4: bool, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut octets = [0; 2_048];
        let mut control = nix::cmsg_space!(i32);
        // Bounded, so that one busy station does not starve the others.
        for _ in 0..1_024 {
            let mut parts = [IoSliceMut::new(&mut octets)];
            let (length, hops) =
                match recvmsg::<()>(fd.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::MSG_DONTWAIT) {
                    Ok(message) => {
                        let hops = message.cmsgs()?.find_map(|part| {
                            if let ControlMessageOwned::Ipv6HopLimit(hops) = part {
                                u8::try_from(hops).ok()
                            } else {
                                None
                            }
                        });
                        (message.bytes, hops)
                    }
                    Err(nix::errno::Errno::EAGAIN) => return Ok(()),
                    // Errors of earlier sends, such as a host that does not answer ARP: the lack of a reply says as much.
                    Err(
                        nix::errno::Errno::EHOSTUNREACH | nix::errno::Errno::ENETUNREACH | nix::errno::Errno::EINTR,
                    ) => continue,
                    Err(errno) => return Err(errno.into()),
                };
            if let Some(heard) = echo::heard(v4, &octets[..length]).filter(|heard| heard.nonce.run == self.run) {
                self.note(station, heard, heard.ttl.or(hops).unwrap_or_default());
            }
        }
        Ok(())
    }

    fn note(&mut self, station: usize, heard: echo::Heard, ttl: u8) {
        let index = usize::try_from(heard.nonce.probe).unwrap_or(usize::MAX);
        let attempt = usize::try_from(heard.nonce.attempt).unwrap_or(usize::MAX);
        let (Some(outcome), Some(probe)) = (self.outcomes.get_mut(index), self.probes.get(index)) else { return };
        // A reply that comes to another than the asker is a leak like a request that does.
        if heard.request || station != probe.from {
            if outcome.arrived.iter().all(|(known, _)| *known != station) {
                outcome.arrived.push((station, ttl));
            }
        } else if outcome.reply.is_none()
            && let Some(sent) = self.sent_at[index].get(attempt)
        {
            outcome.reply = Some((now().saturating_duration_since(*sent), ttl));
        }
    }
}
