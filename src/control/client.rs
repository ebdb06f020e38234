//! The asking side.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::line::{self, Line};
use crate::api::{Answer, LINE_LIMIT, Refusal};

/// Why a daemon could not be asked, or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No daemon listens there.
    #[error("nothing listens on {}: {source}; the daemon is not running: {}", socket.display(), start(socket))]
    NotRunning {
        /// Where it was looked for.
        socket: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// The socket cannot be used by this user, or not at all.
    #[error("cannot connect to {}: {source}; {}", socket.display(), if source.kind() == io::ErrorKind::PermissionDenied {
        "run as the user that started the daemon, or as root"
    } else {
        "check the path"
    })]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The kernel's word.
        source: io::Error,
    },
    /// The conversation broke off. What was asked may have been done or not.
    #[error("the conversation on {} broke off: {source}; connect again", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// No answer in time. What was asked may still be done.
    #[error("no answer on {} within {limit:?}; the daemon is busy or stuck: see its log", socket.display())]
    TimedOut {
        /// The socket.
        socket: PathBuf,
        /// How long it was waited for.
        limit: Duration,
    },
    /// The request could not be written as a line, or the answer is not of the kind expected.
    #[error("{what} on {} does not fit the protocol: {source}; are both programs the same release?", socket.display())]
    Protocol {
        /// The socket.
        socket: PathBuf,
        /// Which message.
        what: &'static str,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// The request is longer than any daemon takes; nothing was sent.
    #[error("the request for {} takes {octets} octets, and at most {LINE_LIMIT} are taken: ask for less at once", socket.display())]
    TooLong {
        /// The socket.
        socket: PathBuf,
        /// How long the request is.
        octets: usize,
    },
    /// The daemon refused, and changed nothing.
    #[error("{refusal}")]
    Refused {
        /// The socket.
        socket: PathBuf,
        /// Why.
        refusal: Refusal,
    },
}

impl ControlError {
    /// Whether no daemon is there to ask: worth trying again once it has started.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::NotRunning { .. })
    }

    /// The daemon's refusal, if it is one.
    #[must_use]
    pub const fn refusal(&self) -> Option<&Refusal> {
        if let Self::Refused { refusal, .. } = self { Some(refusal) } else { None }
    }
}

/// How the daemon of this socket is started.
fn start(socket: &Path) -> String {
    let directory = socket.parent().unwrap_or(Path::new("."));
    match socket.file_stem().and_then(|stem| stem.to_str()) {
        Some(name @ ("switch" | "agent" | "controller")) => {
            format!("start it with `dvr {name} --run-dir {}`", directory.display())
        }
        _ => "start it, or name another socket".to_owned(),
    }
}

/// A conversation with a daemon.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    stream: BufReader<UnixStream>,
    limit: Duration,
    buffer: Vec<u8>,
    /// Requests sent and not answered.
    unanswered: usize,
    /// Why the daemon did not take the last one: it closed, and may have said why.
    untaken: Option<io::Error>,
    /// Set once request and answer may no longer pair up.
    broken: bool,
}

impl Client {
    /// Connects to the daemon at `path`; each later wait for it lasts at most `timeout`.
    ///
    /// # Errors
    /// [`ControlError::NotRunning`] when nothing listens there, [`ControlError::Connect`] when it cannot be reached.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, ControlError> {
        let socket = path.to_path_buf();
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(source) if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Err(ControlError::NotRunning { socket, source });
            }
            Err(source) => return Err(ControlError::Connect { socket, source }),
        };
        let mut client = Self {
            socket,
            stream: BufReader::new(stream),
            limit: timeout,
            buffer: Vec::new(),
            unanswered: 0,
            untaken: None,
            broken: false,
        };
        client.set_timeout(timeout)?;
        Ok(client)
    }

    /// Sets how long each later wait lasts at most; at least a millisecond.
    ///
    /// # Errors
    /// [`ControlError::Connect`] when the kernel refuses the socket option.
    pub fn set_timeout(&mut self, timeout: Duration) -> Result<(), ControlError> {
        let limit = timeout.max(Duration::from_millis(1));
        let stream = self.stream.get_ref();
        stream
            .set_read_timeout(Some(limit))
            .and_then(|()| stream.set_write_timeout(Some(limit)))
            .map_err(|source| ControlError::Connect { socket: self.socket.clone(), source })?;
        self.limit = limit;
        Ok(())
    }

    /// The socket this talks to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Sends one request and waits for its answer. After an error that is not a refusal the conversation is over.
    ///
    /// # Errors
    /// [`ControlError::Refused`] when the daemon says no; the others when no answer came or it made no sense.
    pub fn call<Req: Serialize, Rep: DeserializeOwned>(&mut self, request: &Req) -> Result<Rep, ControlError> {
        if self.unanswered > 0 {
            return Err(self.out_of_step("earlier requests wait for their answers"));
        }
        self.begin(request)?;
        self.end()
    }

    /// Sends one request, to be answered by [`Self::end`] after those that were begun before: meanwhile the next can be made
    /// ready. Only requests with short answers may be begun several at once, for nobody reads them yet. After an error the
    /// conversation is over, unless the request was [too long](ControlError::TooLong).
    ///
    /// # Errors
    /// When it cannot be sent. A daemon that closed before it was asked is told of by [`Self::end`], in its own words.
    pub fn begin<Req: Serialize>(&mut self, request: &Req) -> Result<(), ControlError> {
        if self.broken {
            return Err(self.out_of_step("an earlier request failed"));
        }
        let mut text = serde_json::to_vec(request).map_err(|source| self.protocol("the request", source))?;
        if text.len() > LINE_LIMIT {
            return Err(ControlError::TooLong { socket: self.socket.clone(), octets: text.len() });
        }
        text.push(b'\n');
        match self.stream.get_mut().write_all(&text) {
            Ok(()) => self.untaken = None,
            Err(source) if source.kind() == io::ErrorKind::BrokenPipe => self.untaken = Some(source),
            Err(source) => {
                self.broken = true;
                return Err(self.failed(source));
            }
        }
        self.unanswered += 1;
        Ok(())
    }

    /// Waits for the answer to the request that was begun first and not ended. After an error that is not a refusal the
    /// conversation is over.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn end<Rep: DeserializeOwned>(&mut self) -> Result<Rep, ControlError> {
        if self.broken || self.unanswered == 0 {
            return Err(self.out_of_step("there is no request that could be answered"));
        }
        let mut buffer = core::mem::take(&mut self.buffer);
        let read = line::read(&mut self.stream, &mut buffer);
        let answer = self.answer(read, &buffer);
        self.buffer = buffer;
        self.unanswered -= 1;
        match answer {
            Ok(Answer::Ok(value)) => Ok(value),
            Ok(Answer::Error(refusal)) => Err(ControlError::Refused { socket: self.socket.clone(), refusal }),
            Err(error) => {
                self.broken = true;
                // What it was not told it cannot have answered.
                Err(self.untaken.take().map_or(error, |source| self.failed(source)))
            }
        }
    }

    fn out_of_step(&self, why: &str) -> ControlError {
        let source = io::Error::new(io::ErrorKind::NotConnected, why);
        ControlError::Broken { socket: self.socket.clone(), source }
    }

    fn answer<Rep: DeserializeOwned>(
        &self,
        read: io::Result<Line>,
        octets: &[u8],
    ) -> Result<Answer<Rep>, ControlError> {
        let what = match read.map_err(|source| self.failed(source))? {
            Line::Whole => {
                return serde_json::from_slice(octets).map_err(|source| self.protocol("the answer", source));
            }
            Line::End => "the daemon closed the connection",
            Line::Torn => "the daemon closed the connection in the middle of an answer",
            Line::TooLong => "the answer is longer than a line may be",
        };
        let source = io::Error::new(io::ErrorKind::UnexpectedEof, what);
        Err(ControlError::Broken { socket: self.socket.clone(), source })
    }

    fn protocol(&self, what: &'static str, source: serde_json::Error) -> ControlError {
        ControlError::Protocol { socket: self.socket.clone(), what, source }
    }

    fn failed(&self, source: io::Error) -> ControlError {
        let socket = self.socket.clone();
        if matches!(source.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
            return ControlError::TimedOut { socket, limit: self.limit };
        }
        ControlError::Broken { socket, source }
    }
}
