//! Connections before anybody is known: who is let in, and how long without showing who they are.
//!
//! A connection takes a place as long as it lasts. There are so many places, and few for strangers: a TLS handshake that
//! stalls, a client without a certificate, a connection that asks nothing. A stranger is shown out after a while;
//! whoever makes a call that may be made is no stranger any more. Sockets of this host and those of others have places of
//! their own, and no one address has all of them: whoever crowds one way in crowds nobody else out.

use core::net::{IpAddr, Ipv6Addr};
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

use super::hub::{Hub, lock};

/// Connections to the unix socket.
const LOCAL: Bound = Bound { connections: 1_024, strangers: 256 };
/// Connections over TCP.
const REMOTE: Bound = Bound { connections: 20_000, strangers: 1_024 };
/// Connections over TCP from one address: agents behind one that translates for them have room.
const ADDRESS: Bound = Bound { connections: 2_048, strangers: 128 };
/// How long somebody may stay without showing who they are.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait when the kernel gives no connection, as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections open at most, and how many of them may not have shown who they are.
#[derive(Debug, Clone, Copy)]
struct Bound {
    connections: u64,
    strangers: u64,
}

/// Connections that are open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Taken {
    connections: u64,
    strangers: u64,
}

impl Taken {
    fn fits(self, most: Bound) -> bool {
        self.connections < most.connections && self.strangers < most.strangers
    }

    fn enter(&mut self) {
        self.connections += 1;
        self.strangers += 1;
    }

    fn leave(&mut self, known: bool) {
        self.connections -= 1;
        self.strangers -= u64::from(!known);
    }
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// A process of this host, through the unix socket.
    Local,
    /// An address; of IPv6 the network, of which one host may have all addresses (RFC 4291 2.5.4).
    Remote(IpAddr),
}

impl Origin {
    fn remote(address: IpAddr) -> Self {
        Self::Remote(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

/// Every place that is taken.
#[derive(Debug, Default)]
pub(super) struct Places {
    local: Taken,
    remote: Taken,
    /// By address, as long as one of it is open.
    addresses: BTreeMap<IpAddr, Taken>,
}

impl Places {
    fn enter(&mut self, origin: Origin) -> bool {
        let (all, one) = match origin {
            Origin::Local => (self.local.fits(LOCAL), true),
            Origin::Remote(address) => {
                (self.remote.fits(REMOTE), self.addresses.get(&address).is_none_or(|taken| taken.fits(ADDRESS)))
            }
        };
        if all && one {
            self.change(origin, Taken::enter);
        }
        all && one
    }

    fn change(&mut self, origin: Origin, change: impl Fn(&mut Taken)) {
        match origin {
            Origin::Local => change(&mut self.local),
            Origin::Remote(address) => {
                change(&mut self.remote);
                let taken = self.addresses.entry(address).or_default();
                change(taken);
                if *taken == Taken::default() {
                    self.addresses.remove(&address);
                }
            }
        }
    }
}

/// A connection's place, given back when it ends.
pub(super) struct Place {
    hub: Arc<Hub>,
    origin: Origin,
    known: AtomicBool,
}

impl Place {
    /// `None` if there is none, which is counted.
    fn take(hub: &Arc<Hub>, origin: Origin) -> Option<Arc<Self>> {
        let taken = lock(&hub.places).enter(origin);
        let away = hub.counted(|counters| {
            if taken {
                counters.connections += 1;
                counters.strangers += 1;
            } else {
                counters.turned_away += 1;
            }
            counters.turned_away
        });
        // Once in a while: whoever is turned away comes again.
        if !taken && away.is_power_of_two() {
            tracing::warn!(
                away,
                ?origin,
                "too many connections, or too many that do not show who they are: turned away"
            );
        }
        taken.then(|| Arc::new(Self { hub: Arc::clone(hub), origin, known: AtomicBool::new(false) }))
    }

    /// Notes that it is known who is there.
    pub(super) fn know(&self) {
        if !self.known.swap(true, Relaxed) {
            lock(&self.hub.places).change(self.origin, |taken| taken.strangers -= 1);
            self.hub.counted(|counters| counters.strangers -= 1);
        }
    }

    fn is_known(&self) -> bool {
        self.known.load(Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let known = self.is_known();
        lock(&self.hub.places).change(self.origin, |taken| taken.leave(known));
        self.hub.counted(|counters| {
            counters.connections -= 1;
            counters.strangers -= u64::from(!known);
            counters.unknown += u64::from(!known);
        });
    }
}

/// Who is at the other end of a connection, for those who answer its calls.
#[derive(Clone)]
pub(super) struct Guest<I> {
    /// What the transport says.
    pub(super) info: I,
    /// The connection's place.
    pub(super) place: Arc<Place>,
}

/// A connection that was let in.
pub(super) struct Admitted<C> {
    connection: C,
    place: Arc<Place>,
    /// `None` as soon as it is known who it is.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<C: Connected> Connected for Admitted<C> {
    type ConnectInfo = Guest<C::ConnectInfo>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Guest { info: self.connection.connect_info(), place: Arc::clone(&self.place) }
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Admitted<C> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { connection, place, patience } = &mut *self;
        let read = Pin::new(connection).poll_read(context, into);
        if let Some(over) = patience {
            if place.is_known() {
                *patience = None;
            } else if read.is_pending() && over.as_mut().poll(context).is_ready() {
                // Only who has said nothing: what waits to be read may say who it is, and be read late.
                place.hub.counted(|counters| counters.shown_out += 1);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Admitted<C> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(context)
    }
}

/// Where connections come from.
pub(super) trait Listens: Send + Sync + 'static {
    /// A connection.
    type Connection: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static;

    /// The next one, and where it comes from.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Connection, Origin)>> + Send;
}

impl Listens for TcpListener {
    type Connection = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, Origin)> {
        let (connection, from) = self.accept().await?;
        // Whoever is gone already shows when it is read.
        let _gone = connection.set_nodelay(true);
        Ok((connection, Origin::remote(from.ip())))
    }
}

impl Listens for UnixListener {
    type Connection = UnixStream;

    async fn next(&self) -> io::Result<(UnixStream, Origin)> {
        self.accept().await.map(|(connection, _)| (connection, Origin::Local))
    }
}

/// The connections that are let in, for ever; strangers for so long.
pub(super) fn guests<L: Listens>(
    listener: L,
    hub: Arc<Hub>,
    patience: Duration,
) -> impl Stream<Item = io::Result<Admitted<L::Connection>>> + Send {
    futures::stream::unfold((listener, hub), move |(listener, hub)| async move {
        loop {
            match listener.next().await {
                Ok((connection, origin)) => {
                    let Some(place) = Place::take(&hub, origin) else { continue };
                    let admitted = Admitted { connection, place, patience: Some(Box::pin(sleep(patience))) };
                    return Some((Ok(admitted), (listener, hub)));
                }
                Err(error) => {
                    tracing::warn!(%error, "the kernel gives no connection");
                    sleep(PAUSE).await;
                }
            }
        }
    })
}

#[cfg(test)]
mod tests;
