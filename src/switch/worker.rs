//! A worker: waits for frames, hands them to the engine, sends what comes of it.

use core::net::IpAddr;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

use super::line::{Line, Media, Tallies};
use super::outputs::Outputs;
use super::{Passing, Sentinel, Shared};
use crate::api::switch::CacheCounters;
use crate::clock;
use crate::datapath::DropReason;
use crate::datapath::port::{Arrival, BUFFER_LEN, Batch, Ready, frame, gre, packet, vxlan};
use crate::datapath::{Checksum, DpPort, Ingress, Packet, Worker};
use crate::types::Timestamp;

/// Frames read from one port before others have their turn.
const FRAME_BUDGET: usize = 64;

/// Descriptors told ready by one wait.
const EVENT_LIMIT: usize = 64;

/// Wake-ups for an error no read shows, after which a port is given up.
const STRIKE_LIMIT: u32 = 16;

/// How long a worker that could not hand its statistics over waits for frames before it tries again, in milliseconds.
const RETRY_MILLIS: u8 = 1;

/// How long anyone waits for a worker to do as told. It looks after every round of at most a few milliseconds; but it may
/// have to wait for a processor, and for whoever holds the switch for a large change.
const OBEY_LIMIT: Duration = Duration::from_secs(10);

/// What stands for the worker's own wake-up among datapath port numbers, which are 32 bits.
const WAKE: u64 = u64::MAX;

/// What a worker is told.
#[derive(Debug)]
enum Command {
    /// Carry this line's frames.
    Attach(Arc<Line>),
    /// Let go of a line.
    Detach(DpPort),
    /// Count frames from and to a remote endpoint there, or no longer.
    Remote(DpPort, IpAddr, Option<Tallies>),
    /// From now on this is what passes to tunnels' endpoints.
    Pass(Arc<Passing>),
    /// Hand statistics to the switch, and say what the cache counts.
    Refresh(SyncSender<CacheCounters>),
    /// Say when everything before is done.
    Fence(SyncSender<()>),
    /// End.
    Stop,
}

/// The way to a worker.
#[derive(Debug)]
pub(super) struct WorkerLink {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
}

impl WorkerLink {
    fn tell(&self, command: Command) {
        // A worker that is gone is noticed by its sentinel; it needs no commands.
        let _ = self.commands.send(command);
        let _ = self.wake.write(1);
    }

    pub(super) fn stop(&self) {
        self.tell(Command::Stop);
    }
}

/// Has every worker carry a line.
pub(super) fn attach(links: &[WorkerLink], line: &Arc<Line>) {
    for link in links {
        link.tell(Command::Attach(Arc::clone(line)));
    }
}

/// Has every worker count a remote endpoint there, or no longer.
pub(super) fn count_remote(links: &[WorkerLink], dp: DpPort, remote: IpAddr, tallies: Option<&Tallies>) {
    for link in links {
        link.tell(Command::Remote(dp, remote, tallies.cloned()));
    }
}

/// Tells every worker what passes to tunnels' endpoints.
pub(super) fn pass(links: &[WorkerLink], passing: &Arc<Passing>) {
    for link in links {
        link.tell(Command::Pass(Arc::clone(passing)));
    }
}

/// Has every worker let go of a line, and waits until they did, within bounds.
pub(super) fn detach(links: &[WorkerLink], dp: DpPort) {
    let done: Vec<Receiver<()>> = links
        .iter()
        .map(|link| {
            let (say, done) = mpsc::sync_channel(1);
            link.tell(Command::Detach(dp));
            link.tell(Command::Fence(say));
            done
        })
        .collect();
    for done in done {
        if done.recv_timeout(OBEY_LIMIT).is_err() {
            tracing::warn!(port = ?dp, "a worker has not let go of a port in time");
        }
    }
}

/// A worker has not handed over its statistics in time: what the switch counts is not up to date.
#[derive(Debug, thiserror::Error)]
#[error("a worker has not handed over its counters within {} s: the node is overloaded; ask again", OBEY_LIMIT.as_secs())]
pub(super) struct Stale;

/// Has every worker hand its statistics to the switch, waits for it within bounds, and adds up what the caches count.
pub(super) fn refresh(links: &[WorkerLink]) -> Result<CacheCounters, Stale> {
    let answers: Vec<Receiver<CacheCounters>> = links
        .iter()
        .map(|link| {
            let (say, answer) = mpsc::sync_channel(1);
            link.tell(Command::Refresh(say));
            answer
        })
        .collect();
    let mut sum = CacheCounters::default();
    for answer in answers {
        let CacheCounters { exact_hits, masked_hits, misses, entries, masks, evictions } =
            answer.recv_timeout(OBEY_LIMIT).map_err(|_| Stale)?;
        sum.exact_hits += exact_hits;
        sum.masked_hits += masked_hits;
        sum.misses += misses;
        sum.entries += entries;
        sum.masks += masks;
        sum.evictions += evictions;
    }
    Ok(sum)
}

/// Starts a worker.
pub(super) fn spawn(index: usize, shared: &Arc<Shared>) -> io::Result<(WorkerLink, JoinHandle<()>)> {
    let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&*wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
    let (commands, told) = mpsc::channel();
    let link = WorkerLink { commands, wake: Arc::clone(&wake) };
    let shared = Arc::clone(shared);
    let work = move || {
        let _sentinel = Sentinel(Arc::clone(&shared.died));
        let mut looped = Loop {
            index,
            epoll,
            wake,
            told,
            engine: Worker::seeded(drawn()),
            outputs: Outputs::new(index, Arc::clone(&shared)),
            batch: Batch::default(),
            buffer: vec![0; BUFFER_LEN],
            owed: Vec::new(),
            shared,
        };
        looped.run();
    };
    let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(work)?;
    Ok((link, thread))
}

/// A number that nobody can foretell.
fn drawn() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Whether a frame from a tunnel has a checksum that its sender only began; a joined one has, and that is ours.
const fn is_unfinished(packet: &Packet<'_>) -> bool {
    matches!(packet.offload.checksum, Checksum::Partial { .. }) && packet.offload.segmentation.is_none()
}

/// A worker's whole life.
struct Loop {
    index: usize,
    epoll: Epoll,
    wake: Arc<EventFd>,
    told: Receiver<Command>,
    engine: Worker,
    outputs: Outputs,
    batch: Batch,
    buffer: Vec<u8>,
    /// Who waits for statistics that are not yet with the switch.
    owed: Vec<SyncSender<CacheCounters>>,
    shared: Arc<Shared>,
}

impl Loop {
    fn run(&mut self) {
        let mut events = [EpollEvent::empty(); EVENT_LIMIT];
        loop {
            let patience = if self.owed.is_empty() { EpollTimeout::NONE } else { RETRY_MILLIS.into() };
            let ready = match self.epoll.wait(&mut events, patience) {
                Ok(ready) => ready,
                Err(Errno::EINTR) => continue,
                Err(errno) => unreachable!("an epoll descriptor and its array are always good: {errno}"),
            };
            let now = clock::monotonic();
            self.outputs.set_now(now);
            let ports = || events[..ready].iter().map(|event| (u32::try_from(event.data()), event.events()));
            // What it was told came before the frames that wait now: those of a new remote endpoint are to be counted.
            if ports().any(|(number, _)| number.is_err()) && !self.obey() {
                return;
            }
            for (number, flags) in ports() {
                if let Ok(number) = number {
                    self.drain(DpPort(number), flags, now);
                }
            }
            self.outputs.flush();
            self.answer(now);
            // What these frames taught may be another answer than the kernel's.
            self.shared.fast.revalidate_few();
            self.settle(now);
        }
    }

    /// Says to senders which of their frames were too big for a tunnel or link, as if its other end said so.
    fn answer(&mut self, now: Timestamp) {
        let answers = self.outputs.answers();
        let some = !answers.is_empty();
        for mut answer in answers {
            let ingress = Ingress { port: answer.port, tunnel: answer.tunnel };
            self.engine.process(&self.shared.switch, &ingress, &mut answer.packet(), now, &mut self.outputs);
        }
        if some {
            // What comes of an answer is never too big, so it has none.
            self.outputs.flush();
        }
    }

    /// Does what it was told. Returns whether to go on.
    fn obey(&mut self) -> bool {
        // Empty is as good: commands are looked for below anyway.
        let _ = self.wake.read();
        while let Ok(command) = self.told.try_recv() {
            match command {
                Command::Attach(line) => {
                    let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(line.dp.0));
                    if let Err(errno) = self.epoll.add(line.input(self.index), event) {
                        self.tell(line.give_up(&format!("it cannot be waited for: {errno}")));
                    }
                    self.outputs.attach(line);
                }
                Command::Detach(dp) => {
                    if let Some(line) = self.outputs.detach(dp) {
                        // It fails if a fault took it out before.
                        let _ = self.epoll.delete(line.input(self.index));
                    }
                }
                Command::Remote(dp, remote, tallies) => {
                    if let Some(output) = self.outputs.get(dp) {
                        match tallies {
                            Some(tallies) => output.remotes.insert(remote, tallies),
                            None => output.remotes.remove(&remote),
                        };
                    }
                }
                Command::Pass(passing) => self.outputs.pass(passing),
                Command::Refresh(say) => {
                    self.engine.push_anew();
                    self.owed.push(say);
                }
                Command::Fence(say) => {
                    let _ = say.try_send(());
                }
                Command::Stop => return false,
            }
        }
        true
    }

    /// Hands statistics over if someone waits for them. Frames do not wait for that: while the switch is busy it is left
    /// for later.
    fn settle(&mut self, now: Timestamp) {
        if !self.owed.is_empty() && self.engine.try_push_stats(&self.shared.switch, now) {
            for say in self.owed.drain(..) {
                // Who asked may have given up.
                let _ = say.try_send(self.engine.counters());
            }
        }
    }

    /// Reads what waits at one port, within the budget.
    fn drain(&mut self, dp: DpPort, flags: EpollFlags, now: Timestamp) {
        let Some(line) = self.outputs.get(dp).map(|output| Arc::clone(&output.line)) else {
            return;
        };
        let mut left = FRAME_BUDGET;
        let mut seen = false;
        while left > 0 {
            match self.read(&line, now) {
                Ready::Frames(count) => {
                    seen = true;
                    left = left.saturating_sub(count.max(1));
                }
                Ready::Refused(reason) => {
                    left -= 1;
                    self.outputs.count_refused(dp, reason);
                }
                Ready::Last(_) => {
                    seen = true;
                    break;
                }
                Ready::Empty => break,
                Ready::Down => {
                    self.tell(line.set_fault("its interface is down"));
                    // A packet socket's read takes the error away: told once each time the interface goes down, it
                    // cannot spin, however often that is.
                    if !matches!(line.media, Media::Packet { .. }) {
                        self.strike(&line, flags);
                    }
                    return;
                }
                Ready::Gone => return self.give_up(&line, "its interface or namespace is gone"),
            }
        }
        if seen {
            line.clear_fault();
            if let Some(output) = self.outputs.get(dp) {
                output.strikes = 0;
            }
        } else {
            self.strike(&line, flags);
        }
    }

    /// An error is told and nothing read: now and then that is a change under way; again and again it would spin.
    fn strike(&mut self, line: &Arc<Line>, flags: EpollFlags) {
        if !flags.intersects(EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP) {
            return;
        }
        let Some(output) = self.outputs.get(line.dp) else {
            return;
        };
        output.strikes += 1;
        if output.strikes >= STRIKE_LIMIT {
            self.give_up(line, "its descriptor reports an error without end");
        }
    }

    fn give_up(&mut self, line: &Arc<Line>, why: &str) {
        // It fails if it was taken out before.
        let _ = self.epoll.delete(line.input(self.index));
        self.tell(line.give_up(why));
    }

    /// Tells whoever listens that a port came to be at fault, if it did.
    fn tell(&self, faulted: bool) {
        if faulted {
            self.shared.notices.fault();
        }
    }

    /// Reads one frame or one batch and has the engine process it.
    fn read(&mut self, line: &Arc<Line>, now: Timestamp) -> Ready {
        let Self { index, engine, outputs, batch, buffer, shared, .. } = self;
        let dp = line.dp;
        let input = line.input(*index);
        let switch = &shared.switch;
        let arrived = |event: Arrival<'_, '_>| match event {
            Ok((meta, packet)) => {
                if is_unfinished(packet) {
                    shared.drops[*index].add(DropReason::TunnelUnfinished, 1);
                }
                outputs.count_received(dp, Some(meta), packet.len());
                engine.process(switch, &Ingress { port: dp, tunnel: Some(*meta) }, packet, now, outputs);
            }
            Err(reason) => outputs.count_refused(dp, reason),
        };
        match &line.media {
            Media::Tap { .. } => frame::read(input, buffer, |packet| {
                outputs.count_received(dp, None, packet.len());
                engine.process(switch, &Ingress { port: dp, tunnel: None }, packet, now, outputs);
            }),
            Media::Packet { .. } => packet::read(input, batch, |event| match event {
                Ok(packet) => {
                    outputs.count_received(dp, None, packet.len());
                    engine.process(switch, &Ingress { port: dp, tunnel: None }, packet, now, outputs);
                }
                Err(reason) => outputs.count_refused(dp, reason),
            }),
            Media::Vxlan(endpoints) => vxlan::read(&endpoints[*index], batch, arrived),
            Media::Gre(endpoints) => gre::read(&endpoints[*index], batch, arrived),
        }
    }
}
