//! Where a worker sends frames: the engine's [`Egress`].

use core::cell::RefCell;
use core::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use super::line::{Line, Media, Remotes};
use super::{Passing, Shared};
use crate::datapath::DropReason;
use crate::datapath::port::{Answer, Narrow, Tally, Teller, frame, gre, packet, vxlan};
use crate::datapath::{DpPort, Egress, Offer, Packet, SegmentKind, TunnelMeta};
use crate::types::Timestamp;
use crate::wire::ethernet;

/// Datapath ports at most.
pub(super) const LINE_LIMIT: u32 = 4096;

/// A line as one worker uses it.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) line: Arc<Line>,
    /// Tunnels only.
    sender: Option<Sender>,
    pub(super) remotes: Remotes,
    /// Packet sockets only.
    link: packet::Link,
    /// Wake-ups for an error that a read did not show.
    pub(super) strikes: u32,
}

/// A tunnel's sending side at one worker.
#[derive(Debug)]
enum Sender {
    Vxlan(vxlan::Sender),
    Gre(gre::Sender),
}

/// All lines of one worker.
#[derive(Debug)]
pub(super) struct Outputs {
    worker: usize,
    shared: Arc<Shared>,
    /// By datapath port number.
    table: Vec<Option<Output>>,
    /// Numbers of the tunnels among them.
    tunnels: Vec<usize>,
    /// What is to be said of frames that were too big for a tunnel or a link.
    teller: RefCell<Teller>,
    now: Timestamp,
    passing: Arc<Passing>,
}

impl Outputs {
    pub(super) fn new(worker: usize, shared: Arc<Shared>) -> Self {
        Self {
            worker,
            shared,
            table: Vec::new(),
            tunnels: Vec::new(),
            teller: RefCell::default(),
            now: Timestamp::ZERO,
            passing: Arc::default(),
        }
    }

    /// The time from now on.
    pub(super) fn set_now(&mut self, now: Timestamp) {
        self.now = now;
        self.teller.get_mut().set_now(now);
    }

    /// What passes to tunnels' endpoints from now on.
    pub(super) fn pass(&mut self, passing: Arc<Passing>) {
        self.passing = passing;
    }

    /// What is to be said to senders whose frames were too big, as if their tunnels or links had brought it.
    pub(super) fn answers(&mut self) -> Vec<Answer> {
        self.teller.get_mut().take()
    }

    pub(super) fn attach(&mut self, line: Arc<Line>) {
        let index = line.dp.0 as usize;
        if self.table.len() <= index {
            self.table.resize_with(index + 1, || None);
        }
        let sender = match &line.media {
            Media::Vxlan(endpoints) => Some(Sender::Vxlan(vxlan::Sender::new(&endpoints[self.worker]))),
            Media::Gre(_) => Some(Sender::Gre(gre::Sender::new())),
            Media::Tap { .. } | Media::Packet { .. } => None,
        };
        if sender.is_some() {
            self.tunnels.push(index);
        }
        self.table[index] =
            Some(Output { line, sender, remotes: Remotes::new(), link: packet::Link::default(), strikes: 0 });
    }

    /// Forgets a line, whose waiting frames go first.
    pub(super) fn detach(&mut self, dp: DpPort) -> Option<Arc<Line>> {
        let index = dp.0 as usize;
        self.flush_one(index);
        self.tunnels.retain(|tunnel| *tunnel != index);
        self.table.get_mut(index)?.take().map(|output| output.line)
    }

    pub(super) fn get(&mut self, dp: DpPort) -> Option<&mut Output> {
        self.table.get_mut(dp.0 as usize)?.as_mut()
    }

    /// Sends what waits at every tunnel.
    pub(super) fn flush(&mut self) {
        for at in 0..self.tunnels.len() {
            self.flush_one(self.tunnels[at]);
        }
    }

    fn flush_one(&mut self, index: usize) {
        let Self { worker, shared, table, teller, passing, .. } = self;
        let Some(Some(Output { line, sender: Some(sender), remotes, .. })) = table.get_mut(index) else {
            return;
        };
        let ledger = Ledger { worker: *worker, shared, line, remotes, teller, passing };
        match (&line.media, sender) {
            (Media::Vxlan(endpoints), Sender::Vxlan(sender)) => sender.flush(&endpoints[*worker], &ledger),
            (Media::Gre(endpoints), Sender::Gre(sender)) => sender.flush(&endpoints[*worker], &ledger),
            (Media::Vxlan(_) | Media::Gre(_) | Media::Tap { .. } | Media::Packet { .. }, _) => {
                unreachable!("a line's sender is made for its media")
            }
        }
    }

    /// Counts a frame that came by this line from nowhere in particular, or from a remote endpoint.
    pub(super) fn count_received(&mut self, dp: DpPort, tunnel: Option<&TunnelMeta>, octets: usize) {
        let worker = self.worker;
        if let Some(output) = self.get(dp) {
            output.line.counters.at(worker).received(octets);
            if let Some(tallies) = tunnel.and_then(|meta| output.remotes.get(&meta.src)) {
                tallies.at(worker).received(octets);
            }
        }
    }

    /// Counts a frame that came by this line and was refused.
    pub(super) fn count_refused(&mut self, dp: DpPort, reason: DropReason) {
        let worker = self.worker;
        self.shared.drops[worker].add(reason, 1);
        if let Some(output) = self.get(dp) {
            output.line.counters.at(worker).refused();
        }
    }
}

/// Where a tunnel's sends are counted.
struct Ledger<'a> {
    worker: usize,
    shared: &'a Shared,
    line: &'a Line,
    remotes: &'a Remotes,
    teller: &'a RefCell<Teller>,
    passing: &'a Passing,
}

impl Tally for Ledger<'_> {
    fn settle(&self, to: IpAddr, result: Result<(), DropReason>, frames: u64, octets: usize) {
        let both = [Some(&self.line.counters), self.remotes.get(&to)];
        for counters in both.into_iter().flatten().map(|tallies| tallies.at(self.worker)) {
            match result {
                Ok(()) => counters.sent(frames, octets),
                Err(_) => counters.lost(frames),
            }
        }
        if let Err(reason) = result {
            self.shared.drops[self.worker].add(reason, frames);
        }
    }

    fn too_big(&self, to: IpAddr, key: u64, frame: &[u8]) {
        let Some((overhead, local)) = self.tunnel() else {
            return;
        };
        let meta = TunnelMeta { id: key, src: to, dst: local, tos: 0, ttl: 0 };
        let passing = self.passing.get(&to).copied();
        let narrow = Narrow::Tunnel { meta, overhead, passing };
        if let Err(reason) = self.teller.borrow_mut().tell(self.line.dp, &narrow, frame) {
            self.shared.drops[self.worker].add(reason, 1);
        }
    }
}

impl Ledger<'_> {
    /// Whether the packet, or a segment of it, is larger than what is known to pass to its endpoint. It is settled then, and
    /// its sender told.
    fn refuses(&self, meta: &TunnelMeta, packet: &Packet<'_>) -> bool {
        let (Some(most), Some((overhead, _))) = (self.passing.get(&meta.dst), self.tunnel()) else {
            return false;
        };
        // The inner Ethernet header is among what the tunnel takes.
        let Some(longest) = frame::longest(packet) else { return false };
        let inside = longest.saturating_sub(ethernet::HEADER_LEN);
        if overhead as usize + inside <= *most as usize {
            return false;
        }
        self.too_big(meta.dst, meta.id, packet.head());
        self.settle(meta.dst, Err(DropReason::TooBig), 1, packet.len());
        true
    }

    /// What a tunnel of this line takes of the MTU, and its endpoint here.
    fn tunnel(&self) -> Option<(u32, IpAddr)> {
        match &self.line.media {
            Media::Vxlan(endpoints) => {
                endpoints.first().map(|endpoint| (crate::vxlan::overhead_octets(endpoint.local), endpoint.local))
            }
            Media::Gre(endpoints) => {
                endpoints.first().map(|endpoint| (crate::gre::overhead_octets(endpoint.local), endpoint.local))
            }
            Media::Tap { .. } | Media::Packet { .. } => None,
        }
    }
}

impl Egress for Outputs {
    fn say(&mut self, said: &Arc<[u8]>) {
        if !self.shared.notices.put(said, crate::clock::monotonic()) {
            self.shared.drops[self.worker].add(DropReason::Unsaid, 1);
        }
    }

    fn takes_offers(&self, from: DpPort) -> bool {
        matches!(self.table.get(from.0 as usize), Some(Some(output)) if output.line.is_fast())
    }

    fn offer(&mut self, offer: &Offer<'_>, now: Timestamp) {
        self.shared.fast.offer(offer, now);
    }

    fn transmit(&mut self, port: DpPort, tunnel: Option<&TunnelMeta>, packet: &mut Packet<'_>) {
        let Self { worker, shared, table, teller, now, passing, .. } = self;
        let (worker, now) = (*worker, *now);
        let Some(Some(output)) = table.get_mut(port.0 as usize) else {
            shared.drops[worker].add(DropReason::NoPort, 1);
            return;
        };
        let Output { line, sender, remotes, link, .. } = output;
        let octets = packet.len();
        let sent = match (&line.media, sender, tunnel) {
            (Media::Tap { queues, datagrams }, _, _) => {
                let cut = packet.offload.segmentation.is_some_and(|cut| cut.kind == SegmentKind::Udp && !datagrams);
                let queue = &queues[worker];
                if cut { frame::write_cut(queue, packet) } else { frame::write(queue, packet) }
            }
            (Media::Packet { sockets, whole }, _, _) => {
                let socket = sockets[worker].as_fd();
                let sent = packet::write(socket, packet, *whole, link, now);
                for _ in 0..link.take_missed() {
                    line.counters.at(worker).refused();
                    shared.drops[worker].add(DropReason::BadOffload, 1);
                }
                if sent == Err(DropReason::TooBig) {
                    let narrow = link.mtu().map(|mtu| Narrow::Link { mtu });
                    let tell = |narrow| teller.get_mut().tell(line.dp, &narrow, packet.head()).is_err();
                    let untold = u64::from(narrow.is_none_or(tell));
                    shared.drops[worker].add(DropReason::TooBigUntold, untold);
                }
                sent
            }
            (Media::Vxlan(endpoints), Some(Sender::Vxlan(sender)), Some(meta)) => {
                let ledger = Ledger { worker, shared, line, remotes, teller, passing };
                if !ledger.refuses(meta, packet) {
                    sender.send(&endpoints[worker], meta, packet, &ledger);
                }
                return;
            }
            (Media::Gre(endpoints), Some(Sender::Gre(sender)), Some(meta)) => {
                let ledger = Ledger { worker, shared, line, remotes, teller, passing };
                if !ledger.refuses(meta, packet) {
                    sender.send(&endpoints[worker], meta, packet, &ledger);
                }
                return;
            }
            (Media::Vxlan(_) | Media::Gre(_), _, _) => Err(DropReason::NoTunnel),
        };
        match sent {
            Ok(()) => {
                line.counters.at(worker).sent(1, octets);
                line.clear_fault();
            }
            Err(reason) => {
                line.counters.at(worker).lost(1);
                shared.drops[worker].add(reason, 1);
            }
        }
    }
}
