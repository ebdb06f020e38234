//! Drift as it happens: a pulse whenever something changes in a namespace that a spec describes.
//!
//! A pulse says where to look; whoever gets one observes, plans and applies. One's own changes pulse too: the plan that
//! follows is empty, and there it ends. What became of neighbour entries is told, so that whoever wanted just that need not
//! look.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::neigh::NeighbourChange;
use crate::neigh::kernel as neighbours;
use crate::netlink;
use crate::netlink::monitor::{Heard, Listener, socket};
use crate::netns::kernel::{self as netns, Directory, Identity};
use crate::netns::{Entries, Entry, Name, NetnsName};

use super::Checked;
use super::kernel::Error;

/// How often the namespace directory is looked at. A socket keeps its namespace alive, so nothing else tells that a name
/// was removed. Short enough that a removed namespace is back within a second; a look costs one directory and one `stat` a name.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How many pulses wait for the reader. When it is full the listeners wait, and what the kernel then drops is an overrun.
const PULSES_MAX: usize = 256;

/// Why to look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulse {
    /// These neighbour entries changed in this namespace, in this order, and nothing else.
    Neighbours(NetnsName, Vec<NeighbourChange>),
    /// Something changed in this namespace.
    Changed(NetnsName),
    /// Notifications of this namespace were lost, or it can no longer be listened to: anything in it may have changed.
    Lost(NetnsName),
    /// Names came, went, or stand for other namespaces: observe, and call [`Monitor::watch`] again.
    Namespaces,
}

/// Listens in every namespace that a spec describes.
///
/// A watched namespace is kept alive until the next [`Monitor::watch`] after its name is gone.
pub struct Monitor {
    directory: Directory,
    listeners: BTreeMap<NetnsName, (Option<Identity>, AbortHandle)>,
    sender: mpsc::Sender<Pulse>,
    receiver: mpsc::Receiver<Pulse>,
    known: BTreeMap<Name, Option<Identity>>,
    clock: Interval,
}

impl Monitor {
    /// A monitor that listens nowhere yet. Needs a tokio runtime with time and I/O.
    #[must_use]
    pub fn new(netns_dir: PathBuf) -> Self {
        let (sender, receiver) = mpsc::channel(PULSES_MAX);
        let mut clock = interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let directory = Directory::new(netns_dir);
        Self { directory, listeners: BTreeMap::new(), sender, receiver, known: BTreeMap::new(), clock }
    }

    /// Listens in those of the spec's namespaces that exist, and no others. Call it after each apply; changes made before
    /// it returns may be missed, so observe once more after a call that began to listen somewhere. Returns whether it did.
    ///
    /// # Errors
    /// When a namespace cannot be entered, or has no socket to give.
    pub fn watch(&mut self, spec: &Checked) -> Result<bool, Error> {
        let entries = self.directory.entries()?;
        self.known = self.identities(&entries);
        let mut listeners = BTreeMap::new();
        let mut begins = false;
        for netns in spec.namespaces() {
            let identity = match &netns.name {
                NetnsName::Own => None,
                NetnsName::Named(name) => match self.known.get(name) {
                    Some(Some(identity)) => Some(*identity),
                    Some(None) | None => continue,
                },
            };
            match self.listeners.remove(&netns.name) {
                Some(kept) if kept.0 == identity && !kept.1.is_finished() => {
                    listeners.insert(netns.name.clone(), kept);
                }
                stale => {
                    if let Some((_, stale)) = stale {
                        stale.abort();
                    }
                    listeners.insert(netns.name.clone(), (identity, self.listen(&netns.name)?));
                    begins = true;
                }
            }
        }
        for (_, listener) in std::mem::replace(&mut self.listeners, listeners).into_values() {
            listener.abort();
        }
        Ok(begins)
    }

    fn identities(&self, entries: &Entries) -> BTreeMap<Name, Option<Identity>> {
        let identity = |name: &Name, entry: &Entry| match entry {
            Entry::Mounted => self.directory.identity(name).ok(),
            Entry::Stale => None,
        };
        entries.iter().map(|(name, entry)| (name.clone(), identity(name, entry))).collect()
    }

    fn listen(&self, netns: &NetnsName) -> Result<AbortHandle, Error> {
        let failed = |source| Error::Netlink { what: format!("listen in namespace {netns}"), source };
        let socket = match netns {
            NetnsName::Own => socket(),
            NetnsName::Named(name) => self.directory.enter(name, socket)?,
        };
        let listener = Listener::new(socket.map_err(failed)?).map_err(failed)?;
        Ok(tokio::spawn(pass_on(netns.clone(), listener, self.sender.clone())).abort_handle())
    }

    /// Waits until there is a reason to look again. May be cancelled at any time.
    ///
    /// # Errors
    /// When the namespace directory cannot be read.
    pub async fn next(&mut self) -> Result<Pulse, netns::Error> {
        loop {
            tokio::select! {
                Some(pulse) = self.receiver.recv() => return Ok(pulse),
                _ = self.clock.tick() => {
                    let found = self.identities(&self.directory.entries()?);
                    if found != self.known {
                        self.known = found;
                        return Ok(Pulse::Namespaces);
                    }
                }
            }
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        for (_, listener) in self.listeners.values() {
            listener.abort();
        }
    }
}

/// Turns what one listener hears into pulses, until nobody wants them or the socket breaks.
async fn pass_on(netns: NetnsName, mut listener: Listener, pulses: mpsc::Sender<Pulse>) {
    loop {
        let heard: Result<Heard, netlink::Error> = listener.next().await;
        let (pulse, last) = match heard {
            Ok(Heard::Neighbours(entries)) => {
                (Pulse::Neighbours(netns.clone(), entries.iter().filter_map(neighbours::change).collect()), false)
            }
            Ok(Heard::Change) => (Pulse::Changed(netns.clone()), false),
            Ok(Heard::Overrun) => (Pulse::Lost(netns.clone()), false),
            Err(_) => (Pulse::Lost(netns.clone()), true),
        };
        if pulses.send(pulse).await.is_err() || last {
            return;
        }
    }
}
