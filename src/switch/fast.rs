//! The fast path of a switch: which of its decisions the kernel carries out, and until when.
//!
//! A flow in the kernel rests on what its decision rested on. Whoever changes any of that calls
//! [`Fast::revalidate`] before it says that the change is made: what no longer stands is gone from the kernel by then.
//! Workers offer decisions under the same lock and by the same test, so none that was overtaken is put in afterwards.
//! Lock order: this before the switch.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::line::{Line, Media};
use super::lock;
use crate::api::switch::{FastPathCounters, FastPathState};
use crate::datapath::port::{PortError, within};
use crate::datapath::{Changes, DpPort, Grounds, Offer, Switch};
use crate::fastpath::kernel::{self, FastPath, FlowKey, LIMIT_FLOWS};
use crate::fastpath::{Count, Family, Octets, Rewrite, Way};
use crate::link::kernel::{Exit, exit};
use crate::netlink::Connection;
use crate::types::{IfName, Timestamp};

/// Seconds after its last frame that a flow stays in the kernel.
const IDLE_SECS: u64 = 10;
/// Flows credited in one go, while nobody else can have the switch.
const CREDIT_STEP: usize = 1024;
/// Flows that are gone and not yet credited, at most; what comes after is credited at once.
const GONE_MAX: usize = 65_536;

/// A port that may have the fast path.
#[derive(Debug)]
struct FastLine {
    line: Arc<Line>,
    name: IfName,
    netns: PathBuf,
    /// Tells its namespace from others.
    space: (u64, u64),
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting,
    On(Exit),
    Refused(String),
}

/// A decision in the kernel.
#[derive(Debug)]
struct Flow {
    family: Family,
    /// The first octets of one of its frames.
    frame: Octets,
    from: DpPort,
    to: DpPort,
    ifindex: u32,
    rewrite: Rewrite,
    way: Way,
    grounds: Grounds,
    /// What was counted when last looked at.
    counted: Count,
    /// What was counted under an earlier key and is not yet credited.
    owed: Count,
    used: Timestamp,
}

/// What was done in the name of a decision that is no longer in the kernel.
#[derive(Debug)]
struct Gone {
    grounds: Grounds,
    ports: (DpPort, DpPort),
    count: Count,
    used: Timestamp,
}

#[derive(Debug, Default)]
struct Inner {
    /// Made for the first port that may have it; or why it cannot be.
    path: Option<Result<FastPath, String>>,
    lines: BTreeMap<DpPort, FastLine>,
    flows: BTreeMap<FlowKey, Flow>,
    gone: Vec<Gone>,
    packets: u64,
    refused: u64,
}

/// The fast path.
#[derive(Debug)]
pub(super) struct Fast {
    changes: Changes,
    /// The change up to which all flows are known to stand.
    standing: AtomicU64,
    inner: Mutex<Inner>,
}

impl Fast {
    pub(super) fn new(switch: &Mutex<Switch>) -> Self {
        Self { changes: Changes::of(switch), standing: AtomicU64::new(0), inner: Mutex::default() }
    }

    /// Takes on a line that may have the fast path. Its sockets get nothing until [`Self::engage`], unless it cannot be had.
    pub(super) fn add(&self, line: &Arc<Line>, name: &IfName, netns: &Path) {
        let mut inner = lock(&self.inner);
        let loaded = inner.path.get_or_insert_with(|| FastPath::load().map_err(|error| error.to_string()));
        let deafened = loaded.as_ref().map_err(Clone::clone).and_then(|path| {
            let meta = std::fs::metadata(netns).map_err(|error| error.to_string())?;
            sockets(line).try_for_each(|socket| path.deafen(name, socket)).map_err(|error| error.to_string())?;
            Ok((meta.dev(), meta.ino()))
        });
        let (space, state) = match deafened {
            Ok(space) => (space, State::Waiting),
            Err(why) => ((0, 0), State::Refused(why)),
        };
        let netns = netns.to_owned();
        inner.lines.insert(line.dp, FastLine { line: Arc::clone(line), name: name.clone(), netns, space, state });
    }

    /// Hangs the fast path on every line that waits for it.
    pub(super) fn engage(&self) {
        let mut inner = lock(&self.inner);
        let Inner { path: Some(Ok(path)), lines, .. } = &mut *inner else { return };
        for line in lines.values_mut().filter(|line| matches!(line.state, State::Waiting)) {
            line.state = match engage(path, line) {
                Ok(exit) => {
                    line.line.set_fast(true);
                    State::On(exit)
                }
                Err(why) => {
                    tracing::warn!(port = %line.name, why, "no fast path");
                    for socket in sockets(&line.line) {
                        // Without a filter it works as a port that may have none.
                        let _as_good = kernel::unfilter(&line.name, socket);
                    }
                    State::Refused(why)
                }
            };
        }
    }

    /// Takes the fast path from a line that goes, if it has any.
    pub(super) fn remove(&self, dp: DpPort) {
        let mut inner = lock(&self.inner);
        let Some(line) = inner.lines.remove(&dp) else { return };
        line.line.set_fast(false);
        inner.drop_flows(|flow| flow.from != dp && flow.to != dp);
        if let State::On(exit) = line.state {
            let removed = within(Some(&line.netns), || Ok(unhang(&line.name, exit.index)));
            // The interface may be gone, and its filter with it.
            if let Ok(Err(error)) = removed {
                tracing::debug!(%error, "an ingress filter stays");
            }
        }
    }

    /// What became of a line's fast path.
    pub(super) fn state(&self, dp: DpPort) -> Option<FastPathState> {
        Some(match &lock(&self.inner).lines.get(&dp)?.state {
            State::Waiting => FastPathState::Waiting,
            State::On(_) => FastPathState::On,
            State::Refused(why) => FastPathState::Refused(why.clone()),
        })
    }

    /// What the kernel carries out; `None` without a port that may have it.
    pub(super) fn counters(&self) -> Option<FastPathCounters> {
        let inner = lock(&self.inner);
        inner.path.as_ref()?;
        let flows = inner.flows.len() as u64;
        Some(FastPathCounters { flows, packets: inner.packets, refused: inner.refused })
    }

    /// Takes a worker's decision over, if it still stands and there is room.
    pub(super) fn offer(&self, offer: &Offer<'_>, now: Timestamp) {
        let mut inner = lock(&self.inner);
        if !inner.offer(offer, now) {
            inner.refused += 1;
        }
    }

    /// Removes from the kernel what no longer stands. Cheap if nothing changed.
    pub(super) fn revalidate(&self) {
        let current = self.changes.current();
        if self.standing.load(Ordering::Acquire) == current {
            return;
        }
        lock(&self.inner).drop_flows(|flow| flow.grounds.stand());
        self.standing.store(current, Ordering::Release);
    }

    /// Reads what the kernel counted, credits it, and removes what has been of no use for long.
    pub(super) fn refresh(&self, switch: &Mutex<Switch>, now: Timestamp) {
        let mut inner = lock(&self.inner);
        let Inner { path: Some(Ok(path)), flows, .. } = &mut *inner else { return };
        let mut done = Vec::new();
        for (key, flow) in &mut *flows {
            let count = path.count(key);
            let since = count.since(flow.counted);
            let total = Count { packets: since.packets + flow.owed.packets, bytes: since.bytes + flow.owed.bytes };
            (flow.counted, flow.owed) = (count, Count::default());
            if total.packets > 0 {
                flow.used = now;
                done.push((*key, total));
            }
        }
        for step in done.chunks(CREDIT_STEP) {
            let mut switch = lock(switch);
            for (key, count) in step {
                if let Some(flow) = inner.flows.get(key) {
                    flow.grounds.credit(&mut switch, *count, now);
                }
            }
        }
        for (key, count) in done {
            let ports = inner.flows.get(&key).map(|flow| (flow.from, flow.to));
            ports.into_iter().for_each(|ports| inner.count(ports, count));
        }
        inner.drop_flows(|flow| now.since(flow.used).as_secs() < IDLE_SECS);
        inner.settle(switch);
    }
}

impl Inner {
    /// Whether the offer was taken, or needs not be.
    fn offer(&mut self, offer: &Offer<'_>, now: Timestamp) -> bool {
        let Self { path: Some(Ok(path)), lines, .. } = self else { return true };
        let (Some(from), Some(to)) = (lines.get(&offer.from), lines.get(&offer.to)) else { return true };
        let (State::On(entry), State::On(exit)) = (&from.state, &to.state) else { return true };
        let mut grounds = offer.grounds();
        // Redirection is within a namespace; and a frame that goes out where it came in must go out, not in again.
        if from.space != to.space || offer.from == offer.to || !grounds.stand() {
            return true;
        }
        let mtu = offer.past_router.map_or(exit.mtu, |most| most.min(exit.mtu));
        let way = Way { ifindex: exit.index, mtu, pair: exit.pair, strict: offer.past_router.is_some() };
        let ifindex = entry.index;
        let flow = Flow {
            family: offer.family,
            frame: offer.frame,
            from: offer.from,
            to: offer.to,
            ifindex,
            rewrite: offer.rewrite,
            way,
            grounds,
            counted: Count::default(),
            owed: Count::default(),
            used: now,
        };
        if !path.mask(offer.family).contains(&offer.mask) && !self.widen(offer.family, &offer.mask) {
            return false;
        }
        let Self { path: Some(Ok(path)), flows, gone, .. } = self else { return true };
        let key = path.key(offer.family, &offer.frame, ifindex);
        if flows.contains_key(&key) {
            return true;
        }
        if flows.len() >= LIMIT_FLOWS as usize || gone.len() >= GONE_MAX {
            return false;
        }
        if let Err(error) = path.insert(offer.family, &key, &flow.rewrite, &flow.way) {
            tracing::debug!(%error, "a flow is not offloaded");
            return false;
        }
        flows.insert(key, flow);
        true
    }

    /// Has more octets count for a family: every flow of it is put in anew under the wider mask, which counts only then.
    fn widen(&mut self, family: Family, more: &Octets) -> bool {
        let Self { path: Some(Ok(path)), flows, .. } = self else { return false };
        let next = match path.widen(family, more) {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(%error, "the fast path takes no new kind of flow");
                return false;
            }
        };
        let old: Vec<FlowKey> = flows.iter().filter(|(_, flow)| flow.family == family).map(|(key, _)| *key).collect();
        let mut moved = Vec::with_capacity(old.len());
        for key in &old {
            let Some(flow) = flows.get(key) else { continue };
            let wider = next.key(&flow.frame, flow.ifindex);
            if path.insert(family, &wider, &flow.rewrite, &flow.way).is_ok() {
                moved.push((*key, wider));
            }
        }
        if let Err(error) = path.adopt(&next) {
            tracing::warn!(%error, "the fast path takes no new kind of flow");
            for (_, wider) in moved {
                let _nothing_counted = path.remove(&wider);
            }
            return false;
        }
        for (key, wider) in moved {
            if let Some(mut flow) = flows.remove(&key) {
                let last = path.remove(&key).since(flow.counted);
                flow.owed.packets += last.packets;
                flow.owed.bytes += last.bytes;
                flow.counted = Count::default();
                flows.insert(wider, flow);
            }
        }
        // What found no room under the wider mask.
        for key in old {
            self.take(&key);
        }
        true
    }

    /// Removes every flow that is not to be kept.
    fn drop_flows(&mut self, mut keep: impl FnMut(&mut Flow) -> bool) {
        let dropped: Vec<FlowKey> =
            self.flows.iter_mut().filter_map(|(key, flow)| (!keep(flow)).then_some(*key)).collect();
        for key in dropped {
            self.take(&key);
        }
    }

    /// Removes a flow; what it did is credited later.
    fn take(&mut self, key: &FlowKey) {
        let Self { path: Some(Ok(path)), flows, gone, .. } = self else { return };
        let Some(flow) = flows.remove(key) else { return };
        let since = path.remove(key).since(flow.counted);
        let count = Count { packets: since.packets + flow.owed.packets, bytes: since.bytes + flow.owed.bytes };
        if count.packets > 0 {
            gone.push(Gone { grounds: flow.grounds, ports: (flow.from, flow.to), count, used: flow.used });
        }
    }

    /// Credits what was done in the name of flows that are gone.
    fn settle(&mut self, switch: &Mutex<Switch>) {
        let gone = core::mem::take(&mut self.gone);
        for step in gone.chunks(CREDIT_STEP) {
            let mut switch = lock(switch);
            for Gone { grounds, count, used, .. } in step {
                grounds.credit(&mut switch, *count, *used);
            }
        }
        for Gone { ports, count, .. } in gone {
            self.count(ports, count);
        }
    }

    /// Counts at the ports.
    fn count(&mut self, (from, to): (DpPort, DpPort), count: Count) {
        self.packets += count.packets;
        let counters = |dp: &DpPort| self.lines.get(dp).and_then(|line| line.line.counters.last());
        if let Some(counters) = counters(&from) {
            counters.received_all(count.packets, count.bytes);
        }
        if let Some(counters) = counters(&to) {
            counters.sent(count.packets, usize::try_from(count.bytes).unwrap_or(usize::MAX));
        }
    }
}

/// The sockets of a line that may have the fast path.
fn sockets(line: &Line) -> impl Iterator<Item = std::os::fd::BorrowedFd<'_>> {
    let sockets: &[std::os::fd::OwnedFd] = match &line.media {
        Media::Packet(sockets) => sockets,
        Media::Tap { .. } | Media::Vxlan(_) | Media::Gre(_) => &[],
    };
    sockets.iter().map(AsFd::as_fd)
}

/// Hangs the fast path on a line: first what decides for the sockets, then what carries it out. An earlier switch's
/// ingress filter knows the mark for "missed" too, so that between both steps no frame is lost, and none comes twice.
fn engage(path: &FastPath, line: &FastLine) -> Result<Exit, String> {
    let name = &line.name;
    let hung = within(Some(&line.netns), || {
        let hang = || -> Result<Exit, String> {
            let mut connection = Connection::open().map_err(|error| error.to_string())?;
            let exit = exit(&mut connection, name).map_err(|error| error.to_string())?;
            sockets(&line.line).try_for_each(|socket| path.filter(name, socket)).map_err(|error| error.to_string())?;
            path.attach(&mut connection, name, exit.index).map_err(|error| error.to_string())?;
            Ok(exit)
        };
        Ok(hang())
    });
    hung.map_err(|error: PortError| error.to_string())?
}

/// Whether this process is in the machine's first user namespace, the only one in which BPF may be had: its map of users
/// is of all of them (user_namespaces(7)).
fn is_first_space() -> bool {
    static FIRST: OnceLock<bool> = OnceLock::new();
    let looks = || {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        map.split_whitespace().eq(["0", "0", "4294967295"])
    };
    *FIRST.get_or_init(looks)
}

/// Takes an earlier switch's fast path from an interface that is to have none.
pub(super) fn clear(name: &IfName, netns: &Path) {
    if !is_first_space() {
        return;
    }
    let cleared = within(Some(netns), || {
        let clear = || -> Result<(), String> {
            let mut connection = Connection::open().map_err(|error| error.to_string())?;
            let exit = exit(&mut connection, name).map_err(|error| error.to_string())?;
            kernel::detach(&mut connection, name, exit.index).map_err(|error| error.to_string())
        };
        Ok(clear())
    });
    if let Ok(Err(why)) = cleared {
        tracing::debug!(port = %name, why, "cannot look for an earlier fast path");
    }
}

fn unhang(name: &IfName, index: u32) -> Result<(), kernel::Error> {
    match Connection::open() {
        Ok(mut connection) => kernel::detach(&mut connection, name, index),
        Err(source) => Err(kernel::Error::Ingress { what: "remove", port: name.clone(), source }),
    }
}
