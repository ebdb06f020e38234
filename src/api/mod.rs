//! The messages between processes: versioned, plain data, never the internal types.
//!
//! On a unix socket each message is one line of JSON. A client sends a request and reads its reply, as often as it
//! likes; the first request is [`switch::Request::Hello`] or [`agent::Request::Hello`], and a daemon of another
//! [`VERSION`] refuses it.

pub mod agent;
pub mod switch;

use serde::{Deserialize, Serialize};

/// The protocol's version: daemon and client must agree.
pub const VERSION: u32 = 2;

/// The longest line either side accepts, in octets.
pub const LINE_LIMIT: usize = 64 << 20;

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What was attempted, on which object, why it failed and what to do.
    pub message: String,
    /// A name a program can act on: `version`, `unknown-bridge`, `bad-flow`, `exists`, `limit`, `kernel`…
    pub code: String,
}

/// What a daemon answers: the value asked for, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer<T> {
    /// Done.
    Ok(T),
    /// Refused; nothing was changed.
    Error(Refusal),
}
