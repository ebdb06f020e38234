//! Small datagrams: as many as go, or at a given rate.

use std::net::UdpSocket;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::super::volley_sys::{Sink, Volley};
use super::super::{Error, now};
use super::End;

/// Octets of payload: with Ethernet's header (14), IPv4's (20), UDP's (8) and a frame check sequence (4) a frame of 64,
/// the smallest there is.
const PAYLOAD_LEN: usize = 18;
/// Datagrams handed to the kernel at once.
const VOLLEY: usize = 32;
/// The first port that datagrams come from.
const FIRST_PORT: u16 = 20_000;
/// Octets a receiver may leave unread. The kernel caps it at `net.core.rmem_max`, unless root forces it.
const RECEIVE_BUFFER: usize = 8 << 20;
/// How long a receiver waits before it looks whether it is to stop.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long what is under way may take.
const STRAGGLE: Duration = Duration::from_millis(40);
/// Trials of a rate.
const TRIALS: u32 = 6;
/// Of a thousand datagrams so many may be lost by a rate that counts as lossless: what a scheduler's hiccup costs.
const LOST_PER_MILLE: u64 = 1;

/// What a run of datagrams came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) struct Flood {
    /// Datagrams sent a second.
    pub(in super::super) sent_per_sec: f64,
    /// Datagrams received a second.
    pub(in super::super) received_per_sec: f64,
    /// Whether next to none was lost.
    pub(in super::super) lossless: bool,
}

/// Sends datagrams of so many flows: as fast as they go, or `rate` a second.
///
/// # Errors
/// [`Error::Os`] if sockets cannot be opened.
pub(in super::super) fn flood(
    from: &End,
    to: &End,
    flows: u16,
    length: Duration,
    rate: Option<f64>,
) -> Result<Flood, Error> {
    let receiver = to.inside(|| receiver(to))?;
    let address = receiver.local_addr().map_err(|source| Error::os("look at a socket", source))?;
    let sender = from.inside(|| sender(from, to))?;
    let mut volley = Volley::new(datagrams(from, to, address.port(), flows), VOLLEY);
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    Ok(thread::scope(|scope| {
        scope.spawn(|| receive(&receiver, &stop, &received));
        // Every flow is known before it counts.
        let warm = if rate.is_none() { length / 4 } else { Duration::ZERO };
        let deadline = now() + warm;
        while now() < deadline && volley.fire(sender.as_fd(), VOLLEY) > 0 {}
        let (begun, before) = (now(), received.load(Ordering::Relaxed));
        let sent = fire(&mut volley, &sender, (begun, length), rate);
        let took = begun.elapsed().as_secs_f64();
        // A flood's backlog was sent before it counted, so what arrives by the end is the rate; of a given rate all counts.
        if rate.is_some() {
            thread::sleep(STRAGGLE);
        }
        let arrived = received.load(Ordering::Relaxed) - before;
        stop.store(true, Ordering::Relaxed);
        let lossless = arrived + sent * LOST_PER_MILLE / 1_000 >= sent;
        Flood { sent_per_sec: float(sent) / took, received_per_sec: float(arrived) / took, lossless }
    }))
}

/// The highest rate of one flow at which next to nothing is lost, by halving: what was received at it, a second. `most` is
/// a rate that is too high.
///
/// # Errors
/// As [`flood`].
pub(in super::super) fn lossless(from: &End, to: &End, length: Duration, most: f64) -> Result<f64, Error> {
    let (mut low, mut high, mut best) = (0.0, most, 0.0);
    for _ in 0..TRIALS {
        let rate = f64::midpoint(low, high);
        let trial = flood(from, to, 1, length, Some(rate))?;
        if trial.lossless {
            (low, best) = (rate, trial.received_per_sec);
        } else {
            high = rate;
        }
    }
    Ok(best)
}

/// Sends for so long; how many were taken.
fn fire(volley: &mut Volley, socket: &OwnedFd, (begun, length): (Instant, Duration), rate: Option<f64>) -> u64 {
    let mut sent = 0_u64;
    loop {
        let elapsed = begun.elapsed();
        if elapsed >= length {
            return sent;
        }
        let due = rate.map_or(VOLLEY, |rate| whole(rate * elapsed.as_secs_f64() - float(sent)).min(VOLLEY));
        if due == 0 {
            // Shorter than the time that queues on the way hold.
            thread::sleep(Duration::from_micros(20));
            continue;
        }
        sent += u64::try_from(volley.fire(socket.as_fd(), due)).unwrap_or(0);
    }
}

#[expect(clippy::cast_precision_loss, reason = "fewer datagrams than 2^53 are sent in any run")]
fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
fn whole(value: f64) -> usize {
    value.clamp(0.0, 1e9) as usize
}

/// One datagram a flow, from its UDP header on. They differ in where they come from; their checksums are complete.
fn datagrams(from: &End, to: &End, port: u16, flows: u16) -> Vec<Vec<u8>> {
    let one = |flow: u16| {
        let mut octets = vec![0; 8 + PAYLOAD_LEN];
        let length = u16::try_from(octets.len()).unwrap_or(u16::MAX);
        for (at, field) in [FIRST_PORT + flow, port, length].into_iter().enumerate() {
            octets[at * 2..at * 2 + 2].copy_from_slice(&field.to_be_bytes());
        }
        let pseudo = [&from.ip.octets()[..], &to.ip.octets(), &[0, 17], &length.to_be_bytes()].concat();
        let sum =
            !crate::wire::checksum::fold(crate::wire::checksum::add(crate::wire::checksum::add(0, &pseudo), &octets));
        octets[6..8].copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
        octets
    };
    (0..flows).map(one).collect()
}

/// A raw socket: one that sends from any port, so that many flows cost the sender what one does.
fn sender(from: &End, to: &End) -> Result<OwnedFd, Error> {
    let open = || -> nix::Result<OwnedFd> {
        let fd = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Udp)?;
        // Its own copy of every datagram that comes here would only fill its buffer.
        setsockopt(&fd, sockopt::RcvBuf, &0)?;
        connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrIn::from(std::net::SocketAddrV4::new(to.ip, 0)))?;
        Ok(fd)
    };
    open().map_err(|errno| Error::os(format!("open a raw socket in {}", from.name), errno))
}

fn receiver(to: &End) -> Result<UdpSocket, Error> {
    let open = || -> std::io::Result<UdpSocket> {
        let socket = UdpSocket::bind((to.ip, 0))?;
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        let micros = i64::try_from(PATIENCE.as_micros()).unwrap_or(i64::MAX);
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(0, micros))?;
        Ok(socket)
    };
    open().map_err(|source| Error::os(format!("open a socket in {}", to.name), source))
}

fn receive(socket: &UdpSocket, stop: &AtomicBool, received: &AtomicU64) {
    let mut sink = Sink::new(VOLLEY * 2);
    while !stop.load(Ordering::Relaxed) {
        received.fetch_add(u64::try_from(sink.swallow(socket.as_fd())).unwrap_or(0), Ordering::Relaxed);
    }
}
