//! Round trips of one small datagram.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::super::{Error, now};
use super::End;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long the echoing end waits before it looks whether it is to stop.
const GLANCE: Duration = Duration::from_millis(20);
/// Octets of a datagram, as those of `ping`.
const LEN: usize = 56;

/// Two ends, of which one sends back what the other says.
#[derive(Debug)]
pub(in super::super) struct Echo {
    asks: UdpSocket,
    answers: UdpSocket,
    ends: [&'static str; 2],
}

impl Echo {
    /// Opens both sockets.
    ///
    /// # Errors
    /// [`Error::Os`] if one cannot be opened.
    pub(in super::super) fn open(from: &End, to: &End) -> Result<Self, Error> {
        let failed = |end: &End| {
            let attempt = format!("open a socket in {}", end.name);
            move |source| Error::os(attempt, source)
        };
        let bind = |end: &End, patience: Duration| {
            end.inside(|| {
                let socket = UdpSocket::bind((end.ip, 0)).map_err(failed(end))?;
                socket.set_read_timeout(Some(patience)).map_err(failed(end))?;
                Ok(socket)
            })
        };
        let (asks, answers) = (bind(from, PATIENCE)?, bind(to, GLANCE)?);
        let there = answers.local_addr().map_err(failed(to))?;
        asks.connect(there).map_err(failed(from))?;
        Ok(Self { asks, answers, ends: [from.name, to.name] })
    }

    /// Asks again and again for as long as `goes_on` says so of the number asked; how long each answer took, sorted. What
    /// is lost has no time.
    pub(in super::super) fn ask(&self, mut goes_on: impl FnMut(u32) -> bool) -> Vec<Duration> {
        let stop = AtomicBool::new(false);
        let mut times = thread::scope(|scope| {
            scope.spawn(|| answer(&self.answers, &stop));
            let mut times = Vec::new();
            let mut number = 0;
            while goes_on(number) {
                number += 1;
                times.extend(self.once(number));
            }
            stop.store(true, Ordering::Relaxed);
            times
        });
        times.sort_unstable();
        times
    }

    /// Asks until an answer comes.
    ///
    /// # Errors
    /// [`Error::Silent`] if none comes in time.
    pub(in super::super) fn until_answered(&self, begun: Instant, limit: Duration) -> Result<(), Error> {
        while begun.elapsed() < limit {
            if !self.ask(|number| number < 1).is_empty() {
                return Ok(());
            }
        }
        let [from, to] = self.ends;
        Err(Error::Silent { from, to, seconds: limit.as_secs() })
    }

    /// One question, and how long its answer took.
    fn once(&self, number: u32) -> Option<Duration> {
        let mut question = [0; LEN];
        question[..4].copy_from_slice(&number.to_be_bytes());
        let begun = now();
        self.asks.send(&question).ok()?;
        let mut octets = [0; LEN];
        while begun.elapsed() < PATIENCE {
            // Answers to earlier questions come late, and are passed over.
            let length = self.asks.recv(&mut octets).ok()?;
            if length == LEN && octets[..4] == question[..4] {
                return Some(begun.elapsed());
            }
        }
        None
    }
}

fn answer(socket: &UdpSocket, stop: &AtomicBool) {
    let mut octets = [0; LEN];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((length, from)) = socket.recv_from(&mut octets) {
            // A lost answer shows at the asking end.
            let _sent = socket.send_to(&octets[..length], from);
        }
    }
}
