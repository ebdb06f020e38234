//! Telling senders of frames that were too big for a tunnel or a link, in time and in measure.

use core::net::{IpAddr, SocketAddr};
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};

use super::packet_sys;
use super::too_big::{Pace, answer};
use crate::datapath::DropReason;
use crate::datapath::{DpPort, Offload, Packet, TunnelMeta};
use crate::types::Timestamp;

/// Answers that may wait for their turn.
const WAITING_LIMIT: usize = 64;

/// Room in front of an answer, for tags that are pushed.
const ROOM: usize = crate::datapath::HEADROOM;

/// The UDP port that path MTUs are asked with; nothing is ever sent to it ("discard", RFC 863).
const DISCARD: u16 = 9;

/// What a frame was too big for.
#[derive(Debug, Clone, Copy)]
pub enum Narrow {
    /// The path of a tunnel.
    Tunnel {
        /// What the tunnel would say of a frame that it brings: from the endpoint that this one was sent to.
        meta: TunnelMeta,
        /// Octets that it takes of the path's MTU.
        overhead: u32,
        /// Octets that pass, where that is known to be less than the path's MTU.
        passing: Option<u32>,
    },
    /// A link.
    Link {
        /// Its MTU.
        mtu: u32,
    },
}

impl Narrow {
    const fn meta(&self) -> Option<TunnelMeta> {
        match self {
            Self::Tunnel { meta, .. } => Some(*meta),
            Self::Link { .. } => None,
        }
    }

    /// The octets of the largest packet inside that fits.
    fn mtu(&self) -> io::Result<u32> {
        match self {
            Self::Tunnel { meta, overhead, passing } => {
                let path = path_mtu(meta.dst, meta.src)?;
                Ok(passing.map_or(path, |octets| octets.min(path)).saturating_sub(*overhead))
            }
            Self::Link { mtu } => Ok(*mtu),
        }
    }
}

/// An answer to a frame that was too big, to be handled as if the tunnel or link had brought it.
#[derive(Debug)]
pub struct Answer {
    /// The datapath port.
    pub port: DpPort,
    /// What the tunnel would have said, if it is one.
    pub tunnel: Option<TunnelMeta>,
    octets: Vec<u8>,
}

impl Answer {
    /// The frame.
    pub fn packet(&mut self) -> Packet<'_> {
        let end = self.octets.len();
        Packet::new(&mut self.octets, ROOM, end, &[], Offload::default())
    }
}

/// One worker's answers.
#[derive(Debug)]
pub struct Teller {
    pace: Pace,
    now: Timestamp,
    waiting: Vec<Answer>,
}

impl Default for Teller {
    fn default() -> Self {
        Self { pace: Pace::new(), now: Timestamp::ZERO, waiting: Vec::new() }
    }
}

impl Teller {
    /// The time from now on.
    pub const fn set_now(&mut self, now: Timestamp) {
        self.now = now;
    }

    /// Prepares the answer to a frame that was too big for this port. Call it where the path of a tunnel is: in its namespace.
    ///
    /// # Errors
    /// [`DropReason::TooBigUntold`] when there is to be none.
    pub fn tell(&mut self, port: DpPort, narrow: &Narrow, frame: &[u8]) -> Result<(), DropReason> {
        let untold = DropReason::TooBigUntold;
        if self.waiting.len() >= WAITING_LIMIT {
            return Err(untold);
        }
        // Whether it may be answered at all costs less to find out than the MTU.
        answer(frame, 0).ok_or(untold)?;
        if !self.pace.may(self.now) {
            return Err(untold);
        }
        let mtu = narrow.mtu().map_err(|_| untold)?;
        let told = answer(frame, mtu).ok_or(untold)?;
        self.waiting.push(Answer { port, tunnel: narrow.meta(), octets: [&[0; ROOM][..], &told].concat() });
        Ok(())
    }

    /// What is to be handled now.
    pub fn take(&mut self) -> Vec<Answer> {
        core::mem::take(&mut self.waiting)
    }
}

/// The MTU of the way from one address to another, as this thread's namespace knows it (ip(7), `IP_MTU`).
pub(super) fn path_mtu(from: IpAddr, to: IpAddr) -> io::Result<u32> {
    let (family, level, option) = match from {
        IpAddr::V4(_) => (AddressFamily::Inet, libc::IPPROTO_IP, libc::IP_MTU),
        IpAddr::V6(_) => (AddressFamily::Inet6, libc::IPPROTO_IPV6, libc::IPV6_MTU),
    };
    let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(to, DISCARD)))?;
    let mtu = packet_sys::option(fd.as_fd(), level, option)?;
    u32::try_from(mtu).map_err(io::Error::other)
}
