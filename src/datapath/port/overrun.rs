//! Frames that the kernel dropped because nobody had read those before them.

use std::os::fd::BorrowedFd;

use super::packet_sys;

/// What the kernel dropped at the descriptors of one port, in packets as it holds them: a super-frame, or datagrams that it
/// joined, are one. It counts at a socket, beside what found no room, what had a wrong outer checksum.
#[derive(Debug, Default)]
pub struct Overruns {
    /// What each socket said last.
    sockets: Vec<u32>,
    /// What the interface said last.
    link: u64,
    sum: u64,
}

impl Overruns {
    /// All so far, as it was last looked for.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// Asks a port's sockets, always the same ones in the same order. A socket's count wraps at 2³²: whoever looks less often
    /// misses as many. One that cannot say has nothing to add.
    pub fn ask<'s>(&mut self, sockets: impl IntoIterator<Item = BorrowedFd<'s>>) {
        for (at, socket) in sockets.into_iter().enumerate() {
            if self.sockets.len() == at {
                self.sockets.push(0);
            }
            if let Ok(dropped) = packet_sys::dropped(socket) {
                let before = core::mem::replace(&mut self.sockets[at], dropped);
                self.sum += u64::from(dropped.wrapping_sub(before));
            }
        }
    }

    /// Hears how many frames a TAP's interface dropped since it was made.
    pub fn hear(&mut self, dropped: u64) {
        self.sum += dropped.saturating_sub(self.link);
        self.link = self.link.max(dropped);
    }
}
