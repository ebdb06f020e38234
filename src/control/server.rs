//! The answering side: one thread a client, for at most [`CLIENT_LIMIT`] clients.

use std::collections::BTreeMap;
use std::fs::{File, Permissions, TryLockError};
use std::io::{self, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::line::{self, Line};
use crate::api::{self, Answer, LINE_LIMIT, Refusal};
use crate::clock;
use crate::types::Timestamp;

/// Conversations at the same time. One more takes the place of a client that has asked nothing for a while, or is refused
/// with the code `limit`.
pub const CLIENT_LIMIT: usize = 64;

/// How long a client may ask nothing before its place is given to another that comes when all are taken.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// How long a client may leave an answer unread before it is given up.
const WRITE_LIMIT: Duration = Duration::from_secs(30);

/// Octets of requests that a conversation keeps room for.
const KEPT_OCTETS: usize = 64 << 10;

/// Why a socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// Another daemon holds it.
    #[error("another daemon serves {}: stop it first, or choose another run directory", socket.display())]
    Taken {
        /// The socket.
        socket: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// What was attempted.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// Waiting for clients failed for good.
    #[error("cannot accept clients on {}: {source}", socket.display())]
    Accept {
        /// The socket.
        socket: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
}

/// An answer, ready to be sent.
#[derive(Debug)]
pub struct Reply(Vec<u8>);

impl Reply {
    /// The answer that carries `value`; a refusal with the code `limit` if it is too long for a line.
    pub fn of(value: &impl Serialize) -> Self {
        /// [`Answer::Ok`] by reference.
        #[derive(Serialize)]
        struct Done<'a, T> {
            ok: &'a T,
        }
        match serde_json::to_vec(&Done { ok: value }) {
            Ok(text) if text.len() <= LINE_LIMIT => Self(text),
            Ok(text) => Self::refused(Refusal {
                message: format!(
                    "the answer takes {} octets and a line holds {LINE_LIMIT}: ask for less, with a filter",
                    text.len()
                ),
                code: "limit".to_owned(),
            }),
            Err(error) => Self::refused(Refusal {
                message: format!("the answer cannot be written as JSON: {error}"),
                code: "internal".to_owned(),
            }),
        }
    }

    /// The answer that says no.
    #[must_use]
    pub fn refused(refusal: Refusal) -> Self {
        // Two strings always are JSON.
        Self(serde_json::to_vec(&Answer::<()>::Error(refusal)).unwrap_or_default())
    }
}

/// What a daemon answers.
pub trait Service: Send + Sync + 'static {
    /// What it is asked.
    type Request: DeserializeOwned;

    /// The client's protocol version, if the request is the one that opens a conversation. The server itself refuses
    /// another version, and anything asked before.
    fn greeting(&self, request: &Self::Request) -> Option<u32>;

    /// Answers one request, on the client's own thread.
    ///
    /// # Errors
    /// A refusal, when nothing was changed.
    fn answer(&self, request: Self::Request) -> Result<Reply, Refusal>;
}

/// A socket being served. Dropping it removes the socket.
#[derive(Debug)]
pub struct Server {
    socket: PathBuf,
    listener: Arc<UnixListener>,
    stopped: Arc<AtomicBool>,
    /// How long a client is idle before its place may go to another.
    idle_limit: Duration,
    /// Held, with its lock, as long as the socket is ours.
    _lock: File,
}

/// Ends a [`Server::serve`] from another thread.
#[derive(Debug, Clone)]
pub struct Stopper {
    listener: Arc<UnixListener>,
    stopped: Arc<AtomicBool>,
}

impl Stopper {
    /// No client is accepted any more; conversations under way go on.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        // It fails only if done before: the descriptor lives as long as this does.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
    }
}

impl Server {
    /// Listens at `path`, for the daemon's own user only. What a dead daemon left there is replaced; a lock beside it
    /// (`<path>.lock`) tells it from a living one.
    ///
    /// # Errors
    /// [`ServerError::Taken`] when a living daemon serves it, [`ServerError::File`] when the place cannot be written.
    pub fn bind(path: &Path) -> Result<Self, ServerError> {
        let (listener, lock) = listen(path)?;
        Ok(Self {
            socket: path.to_path_buf(),
            listener: Arc::new(listener),
            stopped: Arc::new(AtomicBool::new(false)),
            idle_limit: IDLE_LIMIT,
            _lock: lock,
        })
    }

    /// Lets a client lose its place to another after being idle for this long, and no sooner.
    #[must_use]
    pub const fn with_idle_limit(mut self, limit: Duration) -> Self {
        self.idle_limit = limit;
        self
    }

    /// What ends [`Server::serve`].
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper { listener: Arc::clone(&self.listener), stopped: Arc::clone(&self.stopped) }
    }

    /// Serves clients until stopped.
    ///
    /// # Errors
    /// [`ServerError::Accept`] when the listening socket fails.
    pub fn serve<S: Service>(&self, service: &Arc<S>) -> Result<(), ServerError> {
        let seats = Arc::new(Seats::default());
        for number in 0.. {
            let accepted = self.listener.accept();
            if self.stopped.load(Ordering::SeqCst) {
                return Ok(());
            }
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) if is_passing(&error) => {
                    tracing::warn!(socket = %self.socket.display(), %error, "a client could not be accepted");
                    // Out of descriptors or memory: without a pause this would spin until some are free.
                    thread::sleep(Duration::from_millis(50));
                    continue;
                }
                Err(source) => return Err(ServerError::Accept { socket: self.socket.clone(), source }),
            };
            let stream = Arc::new(stream);
            let seat = seats.take(number, &stream, self.idle_limit);
            let service = Arc::clone(service);
            let converse = move || match seat {
                Some(seat) => converse(&*service, &stream, &seat),
                None => turn_away(&stream),
            };
            if let Err(error) = thread::Builder::new().name("control".to_owned()).spawn(converse) {
                tracing::warn!(%error, "no thread for a client: it is turned away");
            }
        }
        unreachable!("2^64 clients outlast any daemon")
    }
}

/// Listens at `path`, for the daemon's own user only. What a dead daemon left there is replaced; the lock beside it
/// (`<path>.lock`), which must be kept as long as it is served, tells it from a living one.
///
/// # Errors
/// As [`Server::bind`].
pub fn listen(path: &Path) -> Result<(UnixListener, File), ServerError> {
    let beside = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let lock_path = beside(".lock");
    let file = |what, path: &Path| {
        let path = path.to_path_buf();
        move |source| ServerError::File { what, path, source }
    };
    let lock = File::create(&lock_path).map_err(file("make the lock", &lock_path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(ServerError::Taken { socket: path.to_path_buf() }),
        Err(TryLockError::Error(source)) => return Err(file("lock", &lock_path)(source)),
    }
    // Made under another name first, so that nobody can connect before the permissions are right.
    let fresh = beside(".new");
    for old in [&fresh, &path.to_path_buf()] {
        match std::fs::remove_file(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(file("replace the old socket", old)(error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    let listener = UnixListener::bind(&fresh).map_err(file("make the socket", &fresh))?;
    std::fs::set_permissions(&fresh, Permissions::from_mode(0o600)).map_err(file("protect the socket", &fresh))?;
    std::fs::rename(&fresh, path).map_err(file("place the socket", path))?;
    Ok((listener, lock))
}

impl Drop for Server {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Whether accepting may work again later (accept(2)).
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::ECONNABORTED | libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}

/// The places that are taken.
#[derive(Debug, Default)]
struct Seats {
    taken: Mutex<BTreeMap<u64, Taken>>,
    /// Clients that lost their place to another.
    evicted: AtomicU64,
}

/// A place that is taken.
#[derive(Debug)]
struct Taken {
    stream: Arc<UnixStream>,
    /// When it was last heard or answered; `None` while its request is being answered.
    idle_since: Option<Timestamp>,
}

/// One of [`CLIENT_LIMIT`] places, given back when dropped.
struct Seat {
    seats: Arc<Seats>,
    number: u64,
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Taken>> {
        // Each change is one insertion, removal or assignment: a panic elsewhere leaves nothing half-done.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a client; if all are taken, that of whoever has asked nothing for longest, and for `limit` at least.
    fn take(self: &Arc<Self>, number: u64, stream: &Arc<UnixStream>, limit: Duration) -> Option<Seat> {
        let now = clock::monotonic();
        let mut taken = self.lock();
        if taken.len() >= CLIENT_LIMIT {
            let idle = taken.iter().filter_map(|(number, seat)| Some((seat.idle_since?, *number)));
            let (since, longest) = idle.min().filter(|(since, _)| now.since(*since) >= limit)?;
            if let Some(seat) = taken.remove(&longest) {
                // Its thread sees the end of the conversation. It fails only if that has come already.
                let _ = shutdown(seat.stream.as_raw_fd(), Shutdown::Both);
            }
            let evicted = self.evicted.fetch_add(1, Ordering::Relaxed) + 1;
            let idle_secs = now.since(since).as_secs();
            tracing::warn!(idle_secs, evicted, "all places are taken: the client idle for longest was closed");
        }
        taken.insert(number, Taken { stream: Arc::clone(stream), idle_since: Some(now) });
        Some(Seat { seats: Arc::clone(self), number })
    }
}

impl Seat {
    /// Notes whether the client is being answered.
    fn busy(&self, is_busy: bool) {
        if let Some(seat) = self.seats.lock().get_mut(&self.number) {
            seat.idle_since = (!is_busy).then(clock::monotonic);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().remove(&self.number);
    }
}

fn turn_away(stream: &UnixStream) {
    let refusal = Refusal {
        message: format!("the daemon has {CLIENT_LIMIT} clients already, all of them at work: try again"),
        code: "limit".to_owned(),
    };
    // One that does not listen loses nothing.
    let _ = send(stream, Reply::refused(refusal));
}

fn send(mut stream: &UnixStream, Reply(mut text): Reply) -> io::Result<()> {
    text.push(b'\n');
    stream.write_all(&text)
}

/// Answers one client until it leaves.
fn converse<S: Service>(service: &S, stream: &UnixStream, seat: &Seat) {
    if let Err(error) = stream.set_write_timeout(Some(WRITE_LIMIT)).and_then(|()| dialogue(service, stream, seat)) {
        tracing::debug!(%error, "a client was given up");
    }
}

fn dialogue<S: Service>(service: &S, stream: &UnixStream, seat: &Seat) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut octets = Vec::new();
    let mut greeted = false;
    loop {
        match line::read(&mut reader, &mut octets)? {
            Line::Whole => {
                seat.busy(true);
                let request = serde_json::from_slice(&octets);
                // One huge request is to keep its memory neither for as long as it is answered nor for the rest of the
                // conversation. It shrinks to no less than what is in it.
                octets.clear();
                octets.shrink_to(KEPT_OCTETS);
                let sent = send(stream, respond(service, request, &mut greeted));
                seat.busy(false);
                sent?;
            }
            Line::End | Line::Torn => return Ok(()),
            Line::TooLong => {
                let message = format!("a request takes at most {LINE_LIMIT} octets: split it");
                return send(stream, Reply::refused(Refusal { message, code: "limit".to_owned() }));
            }
        }
    }
}

fn respond<S: Service>(service: &S, request: Result<S::Request, serde_json::Error>, greeted: &mut bool) -> Reply {
    let refuse = |message: String, code: &str| Reply::refused(Refusal { message, code: code.to_owned() });
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            return refuse(format!("the request makes no sense to this release: {error}"), "bad-request");
        }
    };
    match service.greeting(&request) {
        Some(api::VERSION) => *greeted = true,
        Some(other) => {
            let message = format!(
                "the client speaks version {other} and this daemon version {}: use the same release of both",
                api::VERSION
            );
            return refuse(message, "version");
        }
        None if !*greeted => return refuse("a conversation begins with hello".to_owned(), "version"),
        None => {}
    }
    service.answer(request).unwrap_or_else(Reply::refused)
}
