//! TCP streams, as fast as they go.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use super::super::processors::{Busy, Watch};
use super::super::{Error, now};
use super::End;

/// Fixed, since systems differ: the default may be anything.
const CONGESTION_CONTROL: &str = "cubic";
/// Octets written at once.
const WRITE_LEN: usize = 128 << 10;
/// Octets read at once.
const READ_LEN: usize = 256 << 10;
/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// What streams came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in super::super) struct Streams {
    /// Octets of payload received a second.
    pub(in super::super) octets_per_sec: f64,
    /// Seconds of processor time per octet.
    pub(in super::super) busy_per_octet: Busy,
}

/// Runs `count` streams: they warm up for a quarter of `length`, and are measured for all of it.
///
/// # Errors
/// [`Error::Os`] if no connection can be made.
pub(in super::super) fn streams(
    from: &End,
    to: &End,
    count: usize,
    length: Duration,
    watch: &Watch,
) -> Result<Streams, Error> {
    let pairs = connect(from, to, count)?;
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    Ok(thread::scope(|scope| {
        for (sender, receiver) in &pairs {
            scope.spawn(|| send(sender, &stop));
            scope.spawn(|| receive(receiver, &received));
        }
        thread::sleep(length / 4);
        let (begun, before, busy) = (now(), received.load(Ordering::Relaxed), watch.read());
        thread::sleep(length);
        let (took, after) = (begun.elapsed(), received.load(Ordering::Relaxed));
        let busy = watch.read() - busy;
        stop.store(true, Ordering::Relaxed);
        for (sender, receiver) in &pairs {
            // One that failed is shut already.
            let _shut = (sender.shutdown(Shutdown::Both), receiver.shutdown(Shutdown::Both));
        }
        let octets = float(after - before);
        Streams { octets_per_sec: octets / took.as_secs_f64(), busy_per_octet: busy / octets }
    }))
}

/// Exact up to 2^53.
#[expect(clippy::cast_precision_loss, reason = "fewer octets than 2^53 pass in any run")]
fn float(count: u64) -> f64 {
    count as f64
}

fn connect(from: &End, to: &End, count: usize) -> Result<Vec<(TcpStream, TcpStream)>, Error> {
    let failed = |what: &str| {
        let attempt = format!("{what} between {} and {}", from.name, to.name);
        move |source| Error::os(attempt, source)
    };
    let listener = to.inside(|| TcpListener::bind((to.ip, 0)).map_err(failed("listen")))?;
    let address = listener.local_addr().map_err(failed("listen"))?;
    let one = |_| {
        let sender = from.inside(|| open(address).map_err(failed("connect")))?;
        let (receiver, _) = listener.accept().map_err(failed("accept"))?;
        Ok((sender, receiver))
    };
    (0..count).map(one).collect()
}

fn open(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
    setsockopt(&stream, sockopt::TcpCongestion, &CONGESTION_CONTROL.into())?;
    Ok(stream)
}

fn send(mut stream: &TcpStream, stop: &AtomicBool) {
    let octets = vec![0x5a; WRITE_LEN];
    // It fails when the stream is shut.
    while !stop.load(Ordering::Relaxed) && stream.write_all(&octets).is_ok() {}
}

fn receive(mut stream: &TcpStream, received: &AtomicU64) {
    let mut octets = vec![0; READ_LEN];
    while let Ok(count @ 1..) = stream.read(&mut octets) {
        received.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
    }
}
