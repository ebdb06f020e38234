//! What is wanted: which namespaces exist, and the kernel switches set in them.

use core::fmt;

use serde::{Deserialize, Serialize};

/// A network namespace's name: the name of one file in the directory where namespaces are mounted (`/run/netns`).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A text that cannot name a namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot name a network namespace: use 1 to 255 letters, digits, '-', '_' and '.', and neither `.` nor `..`"
)]
pub struct BadName(String);

impl Name {
    /// The greatest length in octets: `NAME_MAX` of every Linux file system.
    pub const MAX_LEN: usize = 255;

    /// The name, if it is one plain file name.
    ///
    /// # Errors
    /// When it is empty, too long, `.`, `..`, or has a slash, a space or an unprintable octet in it.
    pub fn new(text: impl Into<String>) -> Result<Self, BadName> {
        let text = text.into();
        let legal = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        if text.is_empty() || text.len() > Self::MAX_LEN || text == "." || text == ".." || !text.bytes().all(legal) {
            return Err(BadName(text));
        }
        Ok(Self(text))
    }
}

crate::types::text_name!(Name, BadName);

impl fmt::Debug for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, out)
    }
}

/// Which namespace an object is in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NetnsName {
    /// The namespace the process runs in: never made, never removed.
    Own,
    /// A named one.
    Named(Name),
}

impl fmt::Display for NetnsName {
    /// The name as messages show it; [`NetnsName::Own`] prints as `(own)`, which no [`Name`] in use looks like.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => out.pad("(own)"),
            Self::Named(name) => fmt::Display::fmt(name, out),
        }
    }
}

impl From<Name> for NetnsName {
    fn from(name: Name) -> Self {
        Self::Named(name)
    }
}

/// A kernel switch: a file under `/proc/sys/net`, which each namespace has its own copy of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sysctl {
    /// Its path under `/proc/sys`, such as `net/ipv4/ip_forward`. Anything outside `net/` is refused when applied: it
    /// would not be the namespace's own.
    pub key: String,
    /// Its value, as read back: without a final newline.
    pub value: String,
}

impl Sysctl {
    /// The switch `key` at `value`.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into() }
    }

    /// Whether the key stays inside `/proc/sys/net`, the only part that belongs to a network namespace.
    #[must_use]
    pub fn is_network(&self) -> bool {
        self.key.starts_with("net/") && self.key.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
    }
}

impl fmt::Display for Sysctl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} = {}", self.key, self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_single_file_names() {
        assert!(Name::new("qrouter-6ba7b810-9dad-11d1-80b4-00c04fd430c8").is_ok());
        for text in ["", ".", "..", "../etc", "a/b", "a b", "a\n", &"x".repeat(256)] {
            assert!(Name::new(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn only_network_switches_belong_to_a_namespace() {
        assert!(Sysctl::new("net/ipv4/ip_forward", "1").is_network());
        for key in ["kernel/panic", "net/../kernel/panic", "/net/ipv4/ip_forward", "net//x", "net"] {
            assert!(!Sysctl::new(key, "1").is_network(), "{key} was taken");
        }
    }
}
