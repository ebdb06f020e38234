//! The members of an etcd cluster, as one counterpart: who is asked first, who next, and what a failure means.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, ConnectError, Response, Status};

use crate::store::StoreError;
use crate::store::types::MemberState;

/// The most members that are known.
const MEMBERS_MAX: usize = 16;
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(2);
/// How long one member may take to answer.
const ATTEMPT: Duration = Duration::from_secs(3);
/// How long all of them may.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// Between two rounds through all members.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// How long a connection with calls on it may be silent before it is asked for a sign of life, and how long the answer may
/// take. A server of etcd hangs up on whoever asks more often than each five seconds (`--grpc-keepalive-min-time`), or
/// without a call: a watch that is quiet would be lost again and again.
const SILENCE: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(3));

/// What secures the way to etcd, each part as PEM.
#[derive(Clone)]
pub struct Tls {
    /// Who vouches for the members' certificates.
    pub ca: Vec<u8>,
    /// Our certificate and its key, where members ask for one.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

struct Member {
    name: String,
    channel: Channel,
    /// What became of the last call; `None` before the first.
    last: Mutex<Option<Result<(), String>>>,
}

impl Member {
    fn note(&self, last: Result<(), String>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
    }

    fn state(&self) -> MemberState {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = match last {
            None => "not asked yet".to_owned(),
            Some(Ok(())) => "answers".to_owned(),
            Some(Err(why)) => format!("did not answer when last asked: {why}"),
        };
        MemberState { at: self.name.clone(), state }
    }
}

/// The members, and what was counted about them.
pub(super) struct Members {
    members: Vec<Member>,
    /// Who answered last.
    preferred: AtomicUsize,
    pub(super) commits: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) unknown: AtomicU64,
    pub(super) failovers: AtomicU64,
    pub(super) resumes: AtomicU64,
    pub(super) compacted: AtomicU64,
}

/// Whether a call that a member may have begun can be made again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// Doing it twice is doing it once.
    Harmless,
    /// It may not be done twice: only what never left here is tried elsewhere.
    Never,
}

/// A member's answer, with its name for what there is to say about it.
pub(super) struct Answered<T> {
    pub(super) endpoint: String,
    pub(super) answer: T,
}

/// What a failed call means.
enum Failure {
    /// It never left here.
    Unsent(String),
    /// It may have been done.
    Unsure(String),
    /// The member did not do it, and no other would.
    Refused(Status),
}

impl Failure {
    fn of(status: Status) -> Self {
        let mut source = std::error::Error::source(&status);
        while let Some(error) = source {
            if error.is::<ConnectError>() {
                return Self::Unsent(status.message().to_owned());
            }
            source = error.source();
        }
        match status.code() {
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Unauthenticated => Self::Refused(status),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Self::Unsure(status.message().to_owned()),
        }
    }
}

impl Members {
    pub(super) fn new(endpoints: &[String], tls: Option<&Tls>) -> Result<Self, StoreError> {
        if endpoints.is_empty() {
            return Err(StoreError::Endpoint { endpoint: String::new(), reason: "none is given".to_owned() });
        }
        if endpoints.len() > MEMBERS_MAX {
            return Err(StoreError::TooMany { what: "endpoints", count: endpoints.len(), max: MEMBERS_MAX });
        }
        let members = endpoints.iter().map(|endpoint| member(endpoint, tls)).collect::<Result<_, _>>()?;
        Ok(Self {
            members,
            preferred: AtomicUsize::new(0),
            commits: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            failovers: AtomicU64::new(0),
            resumes: AtomicU64::new(0),
            compacted: AtomicU64::new(0),
        })
    }

    /// How each of them is, as far as calls have shown.
    pub(super) fn states(&self) -> Vec<MemberState> {
        self.members.iter().map(Member::state).collect()
    }

    /// Asks the member that answered last, and the others in turn, until one answers, one refuses, or time is over.
    /// `refused` says what a refusal means, where it means something to the caller.
    pub(super) async fn call<T, F>(
        &self,
        action: &'static str,
        again: Again,
        ask: impl Fn(Channel) -> F,
        refused: impl Fn(&Status) -> Option<StoreError>,
    ) -> Result<Answered<T>, StoreError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Instant::now() + DEADLINE;
        let mut tried = 0;
        let mut last = String::new();
        loop {
            let at = self.preferred.load(Relaxed) % self.members.len();
            let Member { name, channel, .. } = &self.members[at];
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(StoreError::Unavailable { action, tried, last });
            }
            tried += 1;
            let failure = match timeout(left.min(ATTEMPT), ask(channel.clone())).await {
                Ok(Ok(response)) => {
                    self.members[at].note(Ok(()));
                    return Ok(Answered { endpoint: name.clone(), answer: response.into_inner() });
                }
                Ok(Err(status)) => Failure::of(status),
                Err(_) => Failure::Unsure("no answer in time".to_owned()),
            };
            self.members[at].note(match &failure {
                Failure::Unsent(why) | Failure::Unsure(why) => Err(why.clone()),
                // It has looked at the call.
                Failure::Refused(_) => Ok(()),
            });
            // Others may have gone on already: then they know better.
            let _ = self.preferred.compare_exchange(at, (at + 1) % self.members.len(), Relaxed, Relaxed);
            match failure {
                Failure::Refused(status) => {
                    let refusal =
                        || StoreError::Refused { action, endpoint: name.clone(), reason: status.message().to_owned() };
                    return Err(refused(&status).unwrap_or_else(refusal));
                }
                Failure::Unsure(reason) if again == Again::Never => {
                    self.unknown.fetch_add(1, Relaxed);
                    return Err(StoreError::Unknown { at: name.clone(), reason });
                }
                Failure::Unsure(reason) | Failure::Unsent(reason) => last = format!("{name}: {reason}"),
            }
            self.failovers.fetch_add(1, Relaxed);
            if tried % self.members.len() == 0 {
                sleep(PAUSE).await;
            }
        }
    }
}

fn member(name: &str, tls: Option<&Tls>) -> Result<Member, StoreError> {
    let bad =
        |error: &dyn std::fmt::Display| StoreError::Endpoint { endpoint: name.to_owned(), reason: error.to_string() };
    if tls.is_some() != name.starts_with("https://") {
        return Err(bad(&"https:// goes with a CA certificate, http:// without"));
    }
    let mut endpoint = Endpoint::from_shared(name.to_owned())
        .map_err(|error| bad(&error))?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(SILENCE.0)
        .keep_alive_timeout(SILENCE.1)
        .keep_alive_while_idle(false);
    if let Some(Tls { ca, identity }) = tls {
        let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        if let Some((certificate, key)) = identity {
            config = config.identity(Identity::from_pem(certificate, key));
        }
        endpoint = endpoint.tls_config(config).map_err(|error| bad(&error))?;
    }
    Ok(Member { name: name.to_owned(), channel: endpoint.connect_lazy(), last: Mutex::new(None) })
}
