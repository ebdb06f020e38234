//! Connections before anybody is known: who is let in, and how long without showing who they are.
//!
//! A connection takes a place as long as it lasts. There are so many places, and few for strangers: a TLS handshake that
//! stalls, a client without a certificate, a connection that asks nothing. A stranger is shown out after a while;
//! whoever makes a call that may be made is no stranger any more.

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

use super::hub::Hub;

/// Connections open at most.
const PLACES: u64 = 20_000;
/// Those of them that have not shown who they are.
const STRANGERS: u64 = 1_024;
/// How long somebody may stay without showing who they are.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// How long to wait when the kernel gives no connection, as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection's place, given back when it ends.
pub(super) struct Place {
    hub: Arc<Hub>,
    known: AtomicBool,
}

impl Place {
    /// `None` if there is none, which is counted.
    fn take(hub: &Arc<Hub>) -> Option<Arc<Self>> {
        let (taken, away) = hub.counted(|counters| {
            let free = counters.connections < PLACES && counters.strangers < STRANGERS;
            if free {
                counters.connections += 1;
                counters.strangers += 1;
            } else {
                counters.turned_away += 1;
            }
            (free, counters.turned_away)
        });
        // Once in a while: whoever is turned away comes again.
        if !taken && away.is_power_of_two() {
            tracing::warn!(away, "too many connections, or too many that do not show who they are: turned away");
        }
        taken.then(|| Arc::new(Self { hub: Arc::clone(hub), known: AtomicBool::new(false) }))
    }

    /// Notes that it is known who is there.
    pub(super) fn know(&self) {
        if !self.known.swap(true, Relaxed) {
            self.hub.counted(|counters| counters.strangers -= 1);
        }
    }

    fn is_known(&self) -> bool {
        self.known.load(Relaxed)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.hub.counted(|counters| {
            counters.connections -= 1;
            counters.strangers -= u64::from(!self.is_known());
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

    /// The next one.
    fn next(&self) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl Listens for TcpListener {
    type Connection = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        let (connection, _) = self.accept().await?;
        connection.set_nodelay(true)?;
        Ok(connection)
    }
}

impl Listens for UnixListener {
    type Connection = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(connection, _)| connection)
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
                Ok(connection) => {
                    let Some(place) = Place::take(&hub) else { continue };
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
