//! The way to a controller: a channel over a unix socket or mutual TLS, and what failing on it means.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::time::Duration;

use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Status};

use super::proto::controller_client::ControllerClient;
use super::{Address, MESSAGE_MAX, Refused};

/// How long a connection may take to open.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How often a silent connection is asked whether it lives, and how long the answer may take: a controller that hangs,
/// or a cable that broke, is noticed within the sum.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3));

/// A controller that answers.
pub type Client = ControllerClient<Channel>;

/// Why a controller could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// Nobody listens there.
    #[error("no controller answers at {address}: {why}; is `dvr controller` running there?")]
    Absent {
        /// Where.
        address: Address,
        /// The transport's words.
        why: String,
    },
    /// One side does not trust the other's certificate.
    #[error(
        "the controller at {address} and this side do not trust each other: {why}; are both certificates of one authority, and has neither ended? `dvr certs` makes them"
    )]
    Untrusted {
        /// Where.
        address: Address,
        /// The transport's words.
        why: String,
    },
    /// The way is broken.
    #[error("cannot speak with the controller at {address}: {why}{}", over_tls(address))]
    Transport {
        /// Where.
        address: Address,
        /// The transport's words.
        why: String,
    },
    /// An address over TCP, and no certificates.
    #[error(
        "the controller at {address} is reached over TLS: say with --certs where the certificates are; `dvr certs` makes them"
    )]
    NoCertificates {
        /// Where.
        address: Address,
    },
    /// The controller refused.
    #[error("{0}")]
    Refused(Refused),
}

/// What else may be behind a connection that ends: under TLS 1.3 a client is connected before its certificate is looked at
/// (RFC 8446 4.4.2), and need not learn more than that it was not taken.
fn over_tls(address: &Address) -> &'static str {
    match address {
        Address::Tls(_) => {
            "; if that goes on, the controller may not accept this side's certificate: is it of the controller's authority, and has it not ended?"
        }
        Address::Unix(_) => "",
    }
}

impl RpcError {
    /// What a call's failure means.
    #[must_use]
    pub fn of(address: &Address, status: &Status) -> Self {
        let transport = status.source().is_some() || matches!(status.code(), Code::Unknown);
        if transport {
            let (address, why) = (address.clone(), whole(status.message(), status.source()));
            return match kernels_word(status.source()) {
                Some(ErrorKind::InvalidData) => Self::Untrusted { address, why },
                Some(_) | None => Self::Transport { address, why },
            };
        }
        Self::Refused(Refused::from(status))
    }

    /// Whether nobody was there.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent { .. })
    }
}

/// Opens the way to a controller.
///
/// # Errors
/// [`RpcError::Absent`], [`RpcError::Transport`] or [`RpcError::NoCertificates`].
pub async fn connect(address: &Address, tls: Option<&ClientTlsConfig>) -> Result<Client, RpcError> {
    let transport = |error: tonic::transport::Error| RpcError::Transport {
        address: address.clone(),
        why: whole(&error.to_string(), error.source()),
    };
    let endpoint = match (address, tls) {
        (Address::Unix(path), _) => Endpoint::from_shared(format!("unix:{}", path.display())).map_err(transport)?,
        (Address::Tls(place), Some(tls)) => {
            let endpoint = Endpoint::from_shared(format!("https://{place}")).map_err(transport)?;
            endpoint.tls_config(tls.clone()).map_err(transport)?
        }
        (Address::Tls(_), None) => return Err(RpcError::NoCertificates { address: address.clone() }),
    };
    let (interval, limit) = KEEPALIVE;
    let endpoint = endpoint
        .connect_timeout(CONNECT_LIMIT)
        .http2_keep_alive_interval(interval)
        .keep_alive_timeout(limit)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    let channel = endpoint.connect().await.map_err(|error| {
        let (address, why) = (address.clone(), whole(&error.to_string(), error.source()));
        match kernels_word(error.source()) {
            Some(kind) if is_unheard(kind) => RpcError::Absent { address, why },
            Some(ErrorKind::InvalidData) => RpcError::Untrusted { address, why },
            Some(_) | None => RpcError::Transport { address, why },
        }
    })?;
    Ok(ControllerClient::new(channel).max_decoding_message_size(MESSAGE_MAX).max_encoding_message_size(MESSAGE_MAX))
}

/// What kind of failure is at the bottom of an error: the kernel's, or for [`ErrorKind::InvalidData`] that of TLS, which
/// says so where it stands in for the kernel.
fn kernels_word(mut error: Option<&(dyn std::error::Error + 'static)>) -> Option<ErrorKind> {
    while let Some(below) = error {
        if let Some(error) = below.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        error = below.source();
    }
    None
}

/// Whether a failure comes of nobody listening.
fn is_unheard(kind: ErrorKind) -> bool {
    use ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, NotFound, TimedOut};
    matches!(kind, ConnectionRefused | NotFound | HostUnreachable | NetworkUnreachable | TimedOut)
}

/// An error's text with those of all below it, none told twice.
fn whole(first: &str, mut below: Option<&(dyn std::error::Error + 'static)>) -> String {
    let mut text = first.to_owned();
    while let Some(error) = below {
        let more = error.to_string();
        if !more.is_empty() && !text.contains(&more) {
            text = if text.is_empty() { more } else { format!("{text}: {more}") };
        }
        below = error.source();
    }
    text
}
