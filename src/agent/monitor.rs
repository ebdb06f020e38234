//! Drift, as the kernel tells it: one listening netlink socket a namespace, and a look at the namespace directory.
//!
//! Only *that* something changed is taken from a message; what is there now is observed. The agent's own changes come
//! back too, and cost one look that finds nothing to do.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use tokio::net::UnixDatagram;
use tokio::task::JoinHandle;

use crate::netns::kernel::{Directory, Identity};
use crate::netns::{Entries, Name};

use super::events::{Event, Events};

/// Multicast groups (`RTMGRP_*`, `linux/rtnetlink.h`): links, addresses and routes of both families.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// Neighbours: for routers only, where every entry is ours. A machine's come and go by themselves.
const NEIGHBOURS: u32 = 0x4;

/// Messages read before the agent gets a turn; the rest waits for the next.
const DRAIN_MAX: usize = 4096;

/// The listening sockets.
pub(super) struct Monitor {
    directory: Directory,
    events: Events,
    listeners: BTreeMap<Name, (Identity, JoinHandle<()>)>,
    entries: Option<(Entries, Vec<Option<Identity>>)>,
}

impl Monitor {
    pub(super) const fn new(directory: Directory, events: Events) -> Self {
        Self { directory, events, listeners: BTreeMap::new(), entries: None }
    }

    /// Listens in exactly these namespaces, as far as they are there. One that cannot be listened in is left to the
    /// periodic look.
    pub(super) fn follow(&mut self, names: impl IntoIterator<Item = Name>) {
        let mut before = core::mem::take(&mut self.listeners);
        for name in names {
            let Ok(identity) = self.directory.identity(&name) else { continue };
            let kept = before.remove(&name).filter(|(known, task)| *known == identity && !task.is_finished());
            match kept.map_or_else(|| self.listen(&name).map(|task| (identity, task)), Ok) {
                Ok(listener) => drop(self.listeners.insert(name, listener)),
                Err(error) => tracing::warn!(%name, %error, "drift in this namespace is found late: cannot listen"),
            }
        }
        before.into_values().for_each(|(_, task)| task.abort());
        self.entries = self.glance();
    }

    /// Whether the namespace directory is as it was when last followed: a namespace that goes tells nobody.
    pub(super) fn is_directory_the_same(&self) -> bool {
        self.glance() == self.entries
    }

    fn glance(&self) -> Option<(Entries, Vec<Option<Identity>>)> {
        let entries = self.directory.entries().ok()?;
        let identities = self.listeners.keys().map(|name| self.directory.identity(name).ok()).collect();
        Some((entries, identities))
    }

    fn listen(&self, name: &Name) -> io::Result<JoinHandle<()>> {
        let groups = if name.as_str().starts_with("qrouter-") { GROUPS | NEIGHBOURS } else { GROUPS };
        let open = move || -> nix::Result<OwnedFd> {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
            Ok(socket)
        };
        let socket = self.directory.enter(name, open).map_err(io::Error::other)??;
        // Not a unix socket, but a datagram socket all the same: waiting for it and recv(2) are all it is used for.
        let listener = UnixDatagram::from_std(std::os::unix::net::UnixDatagram::from(socket))?;
        let events = self.events.clone();
        Ok(tokio::spawn(async move {
            let mut octets = vec![0; 1 << 15];
            while listener.readable().await.is_ok() {
                drain(&listener, &mut octets);
                events.tell(Event::Drift);
            }
        }))
    }
}

/// Reads all there is. An overrun (`ENOBUFS`) means messages were lost, which is a reason to look as good as any.
fn drain(listener: &UnixDatagram, octets: &mut [u8]) {
    for _ in 0..DRAIN_MAX {
        match listener.try_recv(octets) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) => tracing::trace!(%error, "messages were lost"),
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.listeners.values().for_each(|(_, task)| task.abort());
    }
}
