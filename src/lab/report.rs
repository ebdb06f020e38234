//! What a lab's processes tell the `dvr lab up` that waits for them, over a socket pair each inherits as its standard
//! input. The kernel adds the sender's process id, translated to the reader's pid namespace: that is how the outside
//! comes to know whom to enter and whom to kill.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{self, ControlMessageOwned, MsgFlags, SockFlag, SockType, sockopt};
use serde::{Deserialize, Serialize};

use super::Error;

/// The longest message, in octets.
const MESSAGE_MAX: usize = 16 << 10;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Report {
    /// Sent by init when it begins.
    Init,
    /// Sent by a node's keeper once the node's daemons were started.
    Node {
        /// The node.
        name: String,
    },
    /// Sent by a node's keeper when a daemon of the node ended.
    Ended {
        /// The node.
        node: String,
        /// The daemon and how it ended.
        what: String,
    },
    /// Sent by whoever failed; the lab ends.
    Failed {
        /// What was attempted and why it failed.
        why: String,
    },
    /// Sent to init: the lab outlives the command that started it.
    Keep,
}

/// The end that listens: it learns who sent what.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

impl Listener {
    /// A listener and the end for the lab's processes.
    ///
    /// # Errors
    /// [`Error::Os`] when the kernel gives no sockets.
    pub(super) fn pair() -> Result<(Self, OwnedFd), Error> {
        let (ours, theirs) =
            socket::socketpair(socket::AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .map_err(|errno| Error::os("make a socket pair", errno))?;
        socket::setsockopt(&ours, sockopt::PassCred, &true)
            .map_err(|errno| Error::os("ask for senders' process ids", errno))?;
        Ok((Self(ours), theirs))
    }

    /// The next message and its sender's process id; `None` if none came in time.
    ///
    /// # Errors
    /// `UnexpectedEof` when every process of the lab has gone.
    pub(super) fn next(&self, timeout: Duration) -> io::Result<Option<(i32, Report)>> {
        if !readable(self.0.as_fd(), timeout)? {
            return Ok(None);
        }
        let mut octets = vec![0; MESSAGE_MAX];
        let mut control = nix::cmsg_space!(socket::UnixCredentials);
        let mut parts = [IoSliceMut::new(&mut octets)];
        let message = socket::recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut control), MsgFlags::empty())?;
        let sender = message
            .cmsgs()?
            .find_map(|part| if let ControlMessageOwned::ScmCredentials(who) = part { Some(who.pid()) } else { None });
        let length = message.bytes;
        match sender {
            _ if length == 0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the lab's processes ended")),
            Some(pid) => Ok(Some((pid, serde_json::from_slice(&octets[..length])?))),
            None => Err(io::Error::other("a message came without its sender's process id")),
        }
    }

    /// Tells init that the lab stays.
    ///
    /// # Errors
    /// When init has gone.
    pub(super) fn keep(&self) -> io::Result<()> {
        send(self.0.as_fd(), &Report::Keep)
    }
}

/// Sends one message.
///
/// # Errors
/// When nobody listens any more.
pub(super) fn send(channel: BorrowedFd<'_>, report: &Report) -> io::Result<()> {
    let mut octets = serde_json::to_vec(report)?;
    octets.truncate(MESSAGE_MAX);
    socket::send(channel.as_raw_fd(), &octets, MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

/// Whether the lab stays: the word that came; `false` if the other side has gone without one.
pub(super) fn stays(channel: BorrowedFd<'_>) -> bool {
    let mut octets = [0; 256];
    // A peer that closes with messages unread leaves ECONNRESET ahead of what it sent (`unix_release_sock`,
    // net/unix/af_unix.c); the error is told once, so the second look sees the word.
    for _ in 0..2 {
        match socket::recv(channel.as_raw_fd(), &mut octets, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => {
                return serde_json::from_slice::<Report>(&octets[..length]).is_ok_and(|word| word == Report::Keep);
            }
            Err(Errno::EAGAIN) => return true,
            Err(Errno::ECONNRESET) => {}
            Err(_) => return false,
        }
    }
    false
}

/// Waits until the descriptor can be read or the other end has gone; `false` if neither in time.
///
/// # Errors
/// When the kernel cannot wait for it.
pub(super) fn readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    loop {
        match nix::poll::poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_outlives_a_listener_that_read_nothing() {
        let (listener, theirs) = Listener::pair().expect("sockets");
        send(theirs.as_fd(), &Report::Ended { node: "node1".to_owned(), what: "unread".to_owned() }).expect("sent");
        listener.keep().expect("sent");
        drop(listener);
        assert!(stays(theirs.as_fd()));
    }

    #[test]
    fn a_listener_that_goes_without_a_word_ends_the_lab() {
        let (listener, theirs) = Listener::pair().expect("sockets");
        assert!(stays(theirs.as_fd()), "nothing was said yet");
        send(theirs.as_fd(), &Report::Init).expect("sent");
        drop(listener);
        assert!(!stays(theirs.as_fd()));
    }

    #[test]
    fn a_report_comes_with_its_sender() {
        let (listener, theirs) = Listener::pair().expect("sockets");
        send(theirs.as_fd(), &Report::Node { name: "node1".to_owned() }).expect("sent");
        let (pid, report) = listener.next(Duration::from_secs(5)).expect("received").expect("in time");
        assert_eq!(u32::try_from(pid), Ok(std::process::id()));
        assert_eq!(report, Report::Node { name: "node1".to_owned() });
        assert_eq!(listener.next(Duration::ZERO).expect("received"), None);
    }
}
