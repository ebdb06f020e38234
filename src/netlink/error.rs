//! Why an exchange with the kernel failed.

use core::fmt;
use std::io;

use nix::errno::Errno;

/// The kernel's refusal of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The error number.
    pub errno: Errno,
    /// The kernel's explanation, when it gives one (`NLMSGERR_ATTR_MSG`, `linux/netlink.h`).
    pub text: Option<String>,
    /// Where in the request the offending attribute starts (`NLMSGERR_ATTR_OFFS`).
    pub offset: Option<u32>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.errno)?;
        if let Some(text) = &self.text {
            write!(out, " ({text})")?;
        }
        if self.errno == Errno::EPERM {
            out.write_str(": needs CAP_NET_ADMIN in the user namespace that owns the network namespace; try as root")?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Why an exchange with the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket, or no such option on it.
    #[error("cannot open a route netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The request did not leave.
    #[error("cannot send a netlink request: {0}")]
    Send(#[source] io::Error),
    /// The answer did not arrive.
    #[error("cannot read a netlink answer: {0}")]
    Receive(#[source] io::Error),
    /// The kernel said no.
    #[error("the kernel refused: {0}")]
    Refused(#[source] Refusal),
    /// Each of several dumps was disturbed by a change.
    #[error("the kernel's tables changed during each of {tries} dumps: try again when they are quieter")]
    Torn {
        /// How many dumps were tried.
        tries: u32,
    },
    /// The kernel dropped answers for want of room.
    #[error("the kernel dropped netlink answers because the socket's buffer was full: observe again")]
    Overrun,
    /// The answer is not what the protocol says.
    #[error("cannot read a netlink message from the kernel: {0}")]
    Malformed(String),
    /// No such link, told apart from a refusal because it is found out by looking the name up.
    #[error("there is no link called {0}")]
    NoLink(crate::types::IfName),
}

impl Error {
    /// The kernel's error number, if it is known.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Open(error) | Self::Send(error) | Self::Receive(error) => error.raw_os_error().map(Errno::from_raw),
            Self::Refused(refusal) => Some(refusal.errno),
            Self::NoLink(_) => Some(Errno::ENODEV),
            Self::Torn { .. } | Self::Overrun | Self::Malformed(_) => None,
        }
    }

    /// Whether the object is there already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    /// Whether the object is not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self.errno(), Some(Errno::ENOENT | Errno::ENODEV | Errno::ESRCH | Errno::EADDRNOTAVAIL))
    }

    /// Whether somebody else holds the object for now.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self.errno(), Some(Errno::EBUSY | Errno::EAGAIN))
    }

    /// Whether this kernel was built without what was asked for, a device type or something about it: see
    /// [`Error::lacks_device_type`].
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self.errno(), Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT | Errno::EPROTONOSUPPORT))
    }

    /// Whether this kernel has no such type of device. EOPNOTSUPP alone proves nothing, as an attribute may be what it does
    /// not know; the text tells (`rtnl_newlink()`, `net/core/rtnetlink.c`).
    #[must_use]
    pub fn lacks_device_type(&self) -> bool {
        match self {
            Self::Refused(refusal) => {
                refusal.errno == Errno::EOPNOTSUPP && refusal.text.as_deref() == Some("Unknown device type")
            }
            Self::Open(_)
            | Self::Send(_)
            | Self::Receive(_)
            | Self::Torn { .. }
            | Self::Overrun
            | Self::Malformed(_)
            | Self::NoLink(_) => false,
        }
    }

    /// Whether the process lacks the right (`CAP_NET_ADMIN` in the namespace's user namespace).
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self.errno(), Some(Errno::EPERM | Errno::EACCES))
    }
}
