//! A datapath port and the descriptors behind it.

use core::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::lock;
use crate::api::switch::PortCounters;
use crate::datapath::DpPort;
use crate::datapath::port::{Counters, Overruns, gre, packet, vxlan};

/// What is behind a datapath port. All of the switch's packet descriptors are in these, so that they can be handed on.
#[derive(Debug)]
pub(super) enum Media {
    /// Queues of a TAP, one a worker.
    Tap {
        queues: Vec<OwnedFd>,
        /// Whether the kernel takes UDP super-frames.
        datagrams: bool,
    },
    /// Packet sockets on an interface, one a worker.
    Packet {
        sockets: Vec<OwnedFd>,
        /// Whether the kernel takes super-frames by them.
        whole: bool,
    },
    /// The sockets of a local VXLAN endpoint, one set a worker.
    Vxlan(Vec<vxlan::Endpoint>),
    /// The sockets of a local GRE endpoint, one a worker.
    Gre(Vec<gre::Endpoint>),
}

/// A datapath port.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) dp: DpPort,
    pub(super) media: Media,
    /// One a worker, and one for what the kernel did in their name.
    pub(super) counters: Tallies,
    overruns: Mutex<Overruns>,
    faulted: AtomicBool,
    /// Set once a worker reads it no more: what it may still send does not make it whole.
    given_up: AtomicBool,
    /// Whether the kernel takes over decisions about its frames.
    fast: AtomicBool,
    fault: Mutex<Option<String>>,
}

/// Counters of something, one set a worker.
#[derive(Debug, Clone)]
pub(super) struct Tallies(Arc<[Counters]>);

impl Tallies {
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Counters::default()).collect())
    }

    /// Those of whatever is no worker.
    pub(super) fn last(&self) -> Option<&Counters> {
        self.0.last()
    }

    /// This worker's.
    pub(super) fn at(&self, worker: usize) -> &Counters {
        &self.0[worker]
    }

    pub(super) fn add_to(&self, sum: &mut PortCounters) {
        for counters in self.0.iter() {
            counters.add_to(sum);
        }
    }
}

/// Where a tunnel port of one remote endpoint is counted, if there is one.
pub(super) type Remotes = std::collections::BTreeMap<IpAddr, Tallies>;

impl Line {
    pub(super) fn new(dp: DpPort, media: Media, workers: usize) -> Self {
        Self {
            dp,
            media,
            counters: Tallies::new(workers + 1),
            overruns: Mutex::default(),
            faulted: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
            fast: AtomicBool::new(false),
            fault: Mutex::new(None),
        }
    }

    /// Whether the kernel takes over decisions about its frames.
    pub(super) fn is_fast(&self) -> bool {
        self.fast.load(Ordering::Relaxed)
    }

    /// Says whether it does.
    pub(super) fn set_fast(&self, fast: bool) {
        self.fast.store(fast, Ordering::Relaxed);
    }

    /// The descriptor this worker reads.
    pub(super) fn input(&self, worker: usize) -> BorrowedFd<'_> {
        match &self.media {
            Media::Tap { queues, .. } | Media::Packet { sockets: queues, .. } => queues[worker].as_fd(),
            Media::Vxlan(endpoints) => endpoints[worker].receive.as_fd(),
            Media::Gre(endpoints) => endpoints[worker].socket.as_fd(),
        }
    }

    /// What the kernel dropped before a worker read it: at sockets up to now, at a TAP as it was last told.
    pub(super) fn overruns(&self) -> u64 {
        let mut overruns = lock(&self.overruns);
        match &self.media {
            // A queue is no socket to its user; the interface counts for all of them.
            Media::Tap { .. } => {}
            Media::Packet { sockets, .. } => overruns.ask(sockets.iter().map(AsFd::as_fd)),
            Media::Vxlan(endpoints) => overruns.ask(endpoints.iter().map(|endpoint| endpoint.receive.as_fd())),
            Media::Gre(endpoints) => overruns.ask(endpoints.iter().map(|endpoint| endpoint.socket.as_fd())),
        }
        overruns.sum()
    }

    /// Tells how many frames its TAP's interface has dropped.
    pub(super) fn tell_overruns(&self, dropped: u64) {
        lock(&self.overruns).hear(dropped);
    }

    /// Why it carries nothing, if it does not.
    pub(super) fn fault(&self) -> Option<String> {
        if let Media::Packet { sockets, .. } = &self.media
            && sockets.iter().any(|socket| packet::is_gone(socket.as_fd()))
        {
            // No read tells it: going down was the last that was told.
            return Some("its interface is gone".to_owned());
        }
        if self.faulted.load(Ordering::Acquire) { lock(&self.fault).clone() } else { None }
    }

    /// Says why it carries nothing from now on. Returns whether that is news.
    pub(super) fn set_fault(&self, why: &str) -> bool {
        let is_news = !self.faulted.load(Ordering::Acquire);
        if is_news {
            tracing::warn!(port = ?self.dp, why, "a port is at fault");
            *lock(&self.fault) = Some(why.to_owned());
            self.faulted.store(true, Ordering::Release);
        }
        is_news
    }

    /// Says why it is read no more: a fault for good, until the port is made anew. Returns whether that is news.
    pub(super) fn give_up(&self, why: &str) -> bool {
        let is_news = !self.given_up.swap(true, Ordering::AcqRel);
        self.set_fault(why) || is_news
    }

    /// It carries again.
    pub(super) fn clear_fault(&self) {
        if self.faulted.load(Ordering::Acquire) && !self.given_up.load(Ordering::Acquire) {
            tracing::info!(port = ?self.dp, "a port works again");
            *lock(&self.fault) = None;
            self.faulted.store(false, Ordering::Release);
        }
    }
}
