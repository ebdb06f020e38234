//! The fast path of a switch: which of its decisions the kernel carries out, and until when.
//!
//! A flow in the kernel rests on what its decision rested on. Whatever changes any of that wakes a thread that removes what
//! no longer stands; and whoever is asked for a change calls [`Fast::revalidate`] before saying that it is made.
//! Workers offer decisions under the same lock and by the same test, so none that was overtaken is put in afterwards.
//! Nobody holds this lock and the switch's at once.

mod joining;
mod list;

use core::ops::Bound;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use self::joining::Joining;
use super::line::{Line, Media};
use super::{Sentinel, lock};
use crate::api::switch::{FastPathCounters, FastPathState};
use crate::datapath::port::{PortError, packet, within};
use crate::datapath::{Changes, DpPort, Grounds, Offer, Switch};
use crate::fastpath::kernel::{self, FastPath, FlowKey, LIMIT_FLOWS};
use crate::fastpath::{Count, Kind, Octets, Rewrite, Way};
use crate::link::kernel::{Exit, exit};
use crate::netlink::Connection;
use crate::types::{IfName, Timestamp};

/// Seconds after its last frame that a flow stays in the kernel.
const IDLE_SECS: u64 = 10;
/// Flows looked at, or credited, in one go, while nobody else can have the table or the switch.
const STEP: usize = 1024;
/// Flows that a worker looks at between two frames.
const FEW: usize = 64;
/// Flows that are gone and not yet credited, at most: until they are, no other is taken.
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
    /// Of a tunnel's device: whether it joins segments.
    joining: Option<Joining>,
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
    kind: Kind,
    /// The first octets of one of its frames.
    frame: Octets,
    from: DpPort,
    to: DpPort,
    ifindex: u32,
    rewrite: Rewrite,
    way: Way,
    grounds: Arc<Grounds>,
    /// What was counted when last looked at.
    counted: Count,
    /// What was counted under an earlier key and is not yet credited.
    owed: Count,
    /// What was credited for it.
    carried: Count,
    used: Timestamp,
}

/// What was done in the name of a decision.
#[derive(Debug)]
struct Credit {
    grounds: Arc<Grounds>,
    count: Count,
    used: Timestamp,
}

#[derive(Debug, Default)]
struct Inner {
    /// Made for the first port that may have it; or why it cannot be.
    path: Option<Result<FastPath, String>>,
    lines: BTreeMap<DpPort, FastLine>,
    flows: BTreeMap<FlowKey, Flow>,
    /// How many of them are of each kind.
    held: [usize; Kind::ALL.len()],
    /// For flows that are no longer there.
    gone: Vec<Credit>,
    packets: u64,
    refused: u64,
}

/// The fast path.
#[derive(Debug)]
pub(super) struct Fast {
    changes: Changes,
    /// The change up to which all flows are known to stand.
    standing: AtomicU64,
    stops: AtomicBool,
    /// Set when its thread dies.
    died: Arc<AtomicBool>,
    inner: Mutex<Inner>,
}

impl Fast {
    pub(super) fn new(switch: &Mutex<Switch>, died: Arc<AtomicBool>) -> Self {
        Self {
            changes: Changes::of(switch),
            standing: AtomicU64::new(0),
            stops: AtomicBool::new(false),
            died,
            inner: Mutex::default(),
        }
    }

    /// Makes maps and programs, and starts the thread that keeps the kernel's flows true.
    fn load(self: &Arc<Self>) -> Result<FastPath, String> {
        let path = FastPath::load().map_err(|error| error.to_string())?;
        let (fast, sentinel) = (Arc::clone(self), Sentinel(Arc::clone(&self.died)));
        let follow = move || {
            let _sentinel = sentinel;
            let mut known = 0;
            while !fast.stops.load(Ordering::Relaxed) {
                known = fast.changes.wait(known, &fast.stops);
                fast.revalidate();
            }
        };
        let started = thread::Builder::new().name("fast-path".to_owned()).spawn(follow);
        started.map_err(|error| format!("cannot start the thread that keeps it true: {error}"))?;
        Ok(path)
    }

    /// Ends that thread. What hangs on ports stays.
    pub(super) fn stop(&self) {
        self.stops.store(true, Ordering::Relaxed);
        self.changes.wake();
    }

    /// Takes on a line that may have the fast path. Its sockets get nothing until [`Self::engage`], unless it cannot be had.
    pub(super) fn add(self: &Arc<Self>, line: &Arc<Line>, name: &IfName, netns: &Path) {
        let mut inner = lock(&self.inner);
        let loaded = inner.path.get_or_insert_with(|| self.load());
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
        let (dp, line) = (line.dp, Arc::clone(line));
        inner.lines.insert(dp, FastLine { line, name: name.clone(), netns, space, state, joining: None });
    }

    /// Hangs the fast path on every line that waits for it.
    pub(super) fn engage(&self) {
        let mut inner = lock(&self.inner);
        let Inner { path: Some(Ok(path)), lines, .. } = &mut *inner else { return };
        for line in lines.values_mut().filter(|line| matches!(line.state, State::Waiting)) {
            line.state = match engage(path, line) {
                Ok(exit) => {
                    line.line.set_fast(true);
                    line.joining = joining::cease(line, &exit);
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
        joining::resume(&line);
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
        // Whoever has the table is soon done, and the next frame like this one asks again.
        let Ok(mut inner) = self.inner.try_lock() else { return };
        if !inner.offer(offer, now) {
            inner.refused += 1;
        }
    }

    /// Removes from the kernel what no longer stands. Cheap if nothing changed.
    pub(super) fn revalidate(&self) {
        if self.stand() {
            return;
        }
        let mut inner = lock(&self.inner);
        // Whoever had the table may have done it, and for a later change.
        let current = self.changes.current();
        if !self.stand() {
            inner.drop_flows(|flow| flow.grounds.stand());
            self.standing.store(current, Ordering::Release);
        }
    }

    /// As [`Self::revalidate`], if that is little work and nobody has the table: the thread that follows changes does the rest,
    /// while frames are not kept waiting.
    pub(super) fn revalidate_few(&self) {
        let few = || self.inner.try_lock().is_ok_and(|inner| inner.flows.len() <= FEW);
        if !self.stand() && few() {
            self.revalidate();
        }
    }

    /// Whether all flows are known to stand.
    fn stand(&self) -> bool {
        self.standing.load(Ordering::Acquire) == self.changes.current()
    }

    /// Reads what the kernel counted, credits it, and removes what has been of no use for long.
    pub(super) fn refresh(&self, switch: &Mutex<Switch>, now: Timestamp) {
        let mut after = None;
        loop {
            let (credits, last) = lock(&self.inner).read_step(after, now);
            settle(switch, &credits);
            if last.is_none() {
                break;
            }
            after = last;
        }
        let gone = {
            let mut inner = lock(&self.inner);
            inner.follow_mtus();
            core::mem::take(&mut inner.gone)
        };
        settle(switch, &gone);
        self.judge(now);
    }
}

/// Credits what was done.
fn settle(switch: &Mutex<Switch>, credits: &[Credit]) {
    for step in credits.chunks(STEP) {
        let mut switch = lock(switch);
        for Credit { grounds, count, used } in step {
            grounds.credit(&mut switch, *count, *used);
        }
    }
}

impl Inner {
    /// Whether the offer was taken, or needs not be.
    fn offer(&mut self, offer: &Offer<'_>, now: Timestamp) -> bool {
        let Self { path: Some(Ok(path)), lines, flows, .. } = self else { return true };
        let (Some(from), Some(to)) = (lines.get(&offer.from), lines.get(&offer.to)) else { return true };
        let (State::On(entry), State::On(exit)) = (&from.state, &to.state) else { return true };
        // Redirection is within a namespace; and a frame that goes out where it came in must go out, not in again.
        if from.space != to.space
            || offer.from == offer.to
            || flows.contains_key(&path.key(offer.kind, &offer.frame, entry.index))
        {
            return true;
        }
        let grounds = Arc::new(offer.grounds());
        if !grounds.stand() {
            return true;
        }
        let mtu = offer.past_router.map_or(exit.mtu, |most| most.min(exit.mtu));
        let way = Way { ifindex: exit.index, mtu, pair: exit.pair, strict: offer.past_router.is_some() };
        let ifindex = entry.index;
        let flow = Flow {
            kind: offer.kind,
            frame: offer.frame,
            from: offer.from,
            to: offer.to,
            ifindex,
            rewrite: offer.rewrite,
            way,
            grounds,
            counted: Count::default(),
            owed: Count::default(),
            carried: Count::default(),
            used: now,
        };
        if !self.admit(offer.kind, &offer.mask) {
            return false;
        }
        let Self { path: Some(Ok(path)), flows, held, gone, .. } = self else { return true };
        let key = path.key(offer.kind, &offer.frame, ifindex);
        if flows.contains_key(&key) {
            return true;
        }
        if flows.len() >= LIMIT_FLOWS as usize || gone.len() >= GONE_MAX {
            return false;
        }
        if let Err(error) = path.insert(offer.kind, &key, &flow.rewrite, &flow.way) {
            tracing::debug!(%error, "a flow is not offloaded");
            return false;
        }
        flows.insert(key, flow);
        held[offer.kind as usize] += 1;
        true
    }

    /// Has these octets count for a kind, if they do not: with those of the flows of that kind, and with no others, so that
    /// what looked more closely is forgotten once nothing of the kind is there.
    fn admit(&mut self, kind: Kind, more: &Octets) -> bool {
        let Self { path: Some(Ok(path)), held, .. } = self else { return false };
        let mut mask = *more;
        if held[kind as usize] > 0 {
            mask.union(path.mask(kind));
        }
        mask == *path.mask(kind) || self.lay(kind, mask)
    }

    /// Has this mask count for a kind: every flow of it is put in anew under that mask, which counts only then.
    fn lay(&mut self, kind: Kind, mask: Octets) -> bool {
        let Self { path: Some(Ok(path)), flows, .. } = self else { return false };
        let next = match path.prepare(kind, mask) {
            Ok(next) => next,
            Err(error) => {
                tracing::warn!(%error, "the fast path takes no new kind of flow");
                return false;
            }
        };
        let old: Vec<FlowKey> = flows.iter().filter(|(_, flow)| flow.kind == kind).map(|(key, _)| *key).collect();
        let mut moved = Vec::with_capacity(old.len());
        for key in &old {
            let Some(flow) = flows.get(key) else { continue };
            let new = next.key(&flow.frame, flow.ifindex);
            if path.insert(kind, &new, &flow.rewrite, &flow.way).is_ok() {
                moved.push((*key, new));
            }
        }
        if let Err(error) = path.adopt(&next) {
            tracing::warn!(%error, "the fast path takes no new kind of flow");
            for (_, new) in moved {
                let _nothing_counted = path.remove(&new);
            }
            return false;
        }
        for (key, new) in moved {
            if let Some(mut flow) = flows.remove(&key) {
                flow.owed = path.remove(&key).since(flow.counted).and(flow.owed);
                flow.counted = Count::default();
                flows.insert(new, flow);
            }
        }
        // What found no room under it.
        for key in old {
            self.take(&key);
        }
        true
    }

    /// Removes every flow that is not to be kept.
    fn drop_flows(&mut self, keep: impl Fn(&Flow) -> bool) {
        let dropped: Vec<FlowKey> = self.flows.iter().filter_map(|(key, flow)| (!keep(flow)).then_some(*key)).collect();
        for key in dropped {
            self.take(&key);
        }
    }

    /// Removes a flow; what it did is credited later.
    fn take(&mut self, key: &FlowKey) {
        let Self { path: Some(Ok(path)), flows, held, gone, .. } = self else { return };
        let Some(flow) = flows.remove(key) else { return };
        held[flow.kind as usize] -= 1;
        let count = path.remove(key).since(flow.counted).and(flow.owed);
        if count.packets > 0 {
            gone.push(Credit { grounds: flow.grounds, count, used: flow.used });
            self.count((flow.from, flow.to), count);
        }
    }

    /// Reads what was counted for the next few flows, and removes those of no use for long. Tells what is to be credited,
    /// and the last flow looked at if there are more.
    fn read_step(&mut self, after: Option<FlowKey>, now: Timestamp) -> (Vec<Credit>, Option<FlowKey>) {
        let Self { path: Some(Ok(path)), flows, .. } = self else { return (Vec::new(), None) };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut credits, mut ports, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        let (mut looked, mut last) = (0, None);
        for (key, flow) in flows.range_mut((from, Bound::Unbounded)).take(STEP) {
            (looked, last) = (looked + 1, Some(*key));
            let counted = path.count(key);
            let count = counted.since(flow.counted).and(flow.owed);
            (flow.counted, flow.owed) = (counted, Count::default());
            if count.packets > 0 {
                (flow.used, flow.carried) = (now, flow.carried.and(count));
                credits.push(Credit { grounds: Arc::clone(&flow.grounds), count, used: now });
                ports.push((flow.kind, (flow.from, flow.to), count));
            } else if now.since(flow.used).as_secs() >= IDLE_SECS {
                idle.push(*key);
            }
        }
        for (kind, ports, count) in ports {
            self.count(ports, count);
            self.weigh(ports.0, kind, count);
        }
        idle.iter().for_each(|key| self.take(key));
        (credits, last.filter(|_| looked == STEP))
    }

    /// Removes flows that leave by an interface whose MTU has changed.
    fn follow_mtus(&mut self) {
        let mut changed = Vec::new();
        for (dp, line) in &mut self.lines {
            if let State::On(exit) = &mut line.state
                && let Some(mtu) = sockets(&line.line).next().and_then(|socket| packet::mtu(socket).ok())
                && mtu != exit.mtu
            {
                exit.mtu = mtu;
                changed.push(*dp);
            }
        }
        if !changed.is_empty() {
            self.drop_flows(|flow| !changed.contains(&flow.to));
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
        Media::Packet { sockets, .. } => sockets,
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
            let had = kernel::detach(&mut connection, name, exit.index).map_err(|error| error.to_string())?;
            if had && exit.joins {
                let any = UnixDatagram::unbound().map_err(|error| error.to_string())?;
                packet::join(any.as_fd(), name, true).map_err(|error| error.to_string())?;
            }
            Ok(())
        };
        Ok(clear())
    });
    if let Ok(Err(why)) = cleared {
        tracing::debug!(port = %name, why, "cannot look for an earlier fast path");
    }
}

fn unhang(name: &IfName, index: u32) -> Result<bool, kernel::Error> {
    match Connection::open() {
        Ok(mut connection) => kernel::detach(&mut connection, name, index),
        Err(source) => Err(kernel::Error::Filter { what: "remove", port: name.clone(), source }),
    }
}
