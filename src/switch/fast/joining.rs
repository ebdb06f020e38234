//! Whether a tunnel's device joins the segments that arrive by it.
//!
//! What a vxlan or GRE device takes out of a tunnel goes through a queue of its own, in which segments of TCP are joined
//! (GRO) before anybody else gets them. That queue costs each frame another turn of the kernel's receive loop, and is of
//! use only where segments arrive one by one: not where the sender's super-frames come whole, nor where a card joined them
//! already, nor for small frames. So a device does not join until the flows by it show segments that could be joined; and
//! no longer than the device's own count, taken before, exceeds what comes out of it.

use std::path::PathBuf;

use super::{Fast, FastLine, Inner, State, sockets};
use crate::datapath::DpPort;
use crate::datapath::port::{packet, within};
use crate::fastpath::{Count, Kind};
use crate::link::kernel::{Exit, received};
use crate::netlink::Connection;
use crate::switch::lock;
use crate::types::{IfName, Timestamp};

/// Frames to judge by.
const LEAST: u64 = 256;
/// The largest part of them that may be joined in vain, and the least that must be joinable: one in so many.
const PART: u64 = 4;
/// Seconds until joining is tried again after it was in vain: at first, and at the most.
const PAUSE_SECS: (u64, u64) = (1, 64);
/// Octets of an Ethernet header, which a link's MTU does not count.
const ETHERNET: u64 = 14;

/// What is known of a device, and what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Joining {
    on: bool,
    /// Frames that flows by this device carried since it was last judged.
    seen: u64,
    /// Those of them that could be joined.
    joinable: u64,
    /// What the device had received when it was last judged.
    received: u64,
    /// When it last joined in vain.
    vain: Option<Timestamp>,
    pause_secs: u64,
}

impl Joining {
    /// Of a device that was told not to join.
    pub(super) const OFF: Self =
        Self { on: false, seen: 0, joinable: 0, received: 0, vain: None, pause_secs: PAUSE_SECS.0 };

    /// Takes down what a flow by this device carried in a while; `mtu` is the device's.
    pub(super) fn carried(&mut self, kind: Kind, count: Count, mtu: u32) {
        let segments = match kind {
            Kind::Tcp4 | Kind::Tcp6 => count.packets,
            Kind::Udp4 | Kind::Icmp4 | Kind::Udp6 | Kind::Icmp6 => 0,
        };
        // Most of a stream's frames are as large as the link takes; a super-frame is larger, what acknowledges it small.
        let (mtu, octets) = (u64::from(mtu), count.bytes);
        let full = octets > segments * (mtu / 2) && octets <= segments * (mtu + ETHERNET);
        self.seen += count.packets;
        self.joinable += if full { segments } else { 0 };
    }

    /// Whether [`Self::judge`] is to be told what the device counts: there is enough to judge by, and a device that does not
    /// join might.
    pub(super) const fn is_due(&mut self) -> bool {
        let enough = self.seen >= LEAST;
        let due = enough && (self.on || self.joinable >= self.seen / PART);
        if enough && !due {
            (self.seen, self.joinable) = (0, 0);
        }
        due
    }

    /// Judges, when that is due, by what the flows carried and by how many frames the device has received in all: what it is
    /// to be told, if anything.
    pub(super) fn judge(&mut self, received: u64, now: Timestamp) -> Option<bool> {
        let arrived = received.saturating_sub(self.received);
        let Self { on, seen, .. } = *self;
        (self.seen, self.joinable, self.received) = (0, 0, received);
        if !on {
            self.on = self.vain.is_none_or(|vain| now.since(vain).as_secs() >= self.pause_secs);
            return self.on.then_some(true);
        }
        if arrived > seen + seen / PART {
            (self.vain, self.pause_secs) = (None, PAUSE_SECS.0);
            return None;
        }
        // The first time it is tried again after the least pause.
        self.pause_secs = self.vain.map_or(PAUSE_SECS.0, |_| (self.pause_secs * 2).min(PAUSE_SECS.1));
        (self.on, self.vain) = (false, Some(now));
        Some(false)
    }
}

/// Has a device that joins cease to; `None` of any other, and of one that cannot be told.
pub(super) fn cease(line: &FastLine, exit: &Exit) -> Option<Joining> {
    (exit.joins && tell(line, false)).then_some(Joining::OFF)
}

/// Has a device join again, as devices do of themselves.
pub(super) fn resume(line: &FastLine) {
    if line.joining.is_some() {
        tell(line, true);
    }
}

/// Whether the device was told.
fn tell(line: &FastLine, on: bool) -> bool {
    let told = sockets(&line.line).next().map(|socket| packet::join(socket, &line.name, on));
    if let Some(Err(error)) = &told {
        tracing::debug!(port = %line.name, on, %error, "a tunnel's device joins segments as before");
    }
    matches!(told, Some(Ok(())))
}

impl Fast {
    /// Judges every device by which enough was carried, and tells it what comes of it.
    pub(super) fn judge(&self, now: Timestamp) {
        let due = lock(&self.inner).due();
        // What devices count is asked for while others may have the table.
        for lines in due.chunk_by(|one, next| one.0 == next.0) {
            let counted = within(Some(&lines[0].0), || {
                let Ok(mut connection) = Connection::open() else { return Ok(Vec::new()) };
                let count =
                    |(_, dp, name): &(PathBuf, DpPort, IfName)| Some((*dp, received(&mut connection, name).ok()?));
                Ok(lines.iter().filter_map(count).collect())
            });
            // A device, or all of them, may be gone.
            lock(&self.inner).tell(&counted.unwrap_or_default(), now);
        }
    }
}

impl Inner {
    /// The lines that are to be judged, those of a namespace together.
    fn due(&mut self) -> Vec<(PathBuf, DpPort, IfName)> {
        let judged = |(dp, line): (&DpPort, &mut FastLine)| {
            let is_due = line.joining.as_mut().is_some_and(Joining::is_due);
            is_due.then(|| (line.netns.clone(), *dp, line.name.clone()))
        };
        let mut due: Vec<_> = self.lines.iter_mut().filter_map(judged).collect();
        due.sort();
        due
    }

    fn tell(&mut self, counted: &[(DpPort, u64)], now: Timestamp) {
        for (dp, received) in counted {
            let Some(line) = self.lines.get_mut(dp) else { continue };
            let told = line.joining.as_mut().and_then(|joining| joining.judge(*received, now));
            if told.is_some_and(|on| !tell(line, on)) {
                line.joining = None;
            }
        }
    }

    /// Takes down for the device that a flow came by what the flow carried.
    pub(super) fn weigh(&mut self, from: DpPort, kind: Kind, count: Count) {
        if let Some(FastLine { state: State::On(exit), joining: Some(joining), .. }) = self.lines.get_mut(&from) {
            joining.carried(kind, count, exit.mtu);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u32 = 1450;
    const SEGMENTS: (Kind, Count) = (Kind::Tcp4, Count { packets: 1_000, bytes: 1_460_000 });
    const ACKS: (Kind, Count) = (Kind::Tcp4, Count { packets: 500, bytes: 33_000 });
    const WHOLE: (Kind, Count) = (Kind::Tcp6, Count { packets: 1_000, bytes: 60_000_000 });
    const DATAGRAMS: (Kind, Count) = (Kind::Udp4, Count { packets: 9_000, bytes: 9_000 * 1_400 });

    /// A device with what came by it and how many frames it then says it has received in all, judged each second.
    fn told(
        device: &mut Joining,
        seconds: impl IntoIterator<Item = (&'static [(Kind, Count)], u64)>,
    ) -> Vec<Option<bool>> {
        let judged = seconds.into_iter().enumerate().map(|(second, (flows, received))| {
            flows.iter().for_each(|(kind, count)| device.carried(*kind, *count, MTU));
            let now = Timestamp::from_nanos(second as u64 * 1_000_000_000);
            device.is_due().then(|| device.judge(received, now)).flatten()
        });
        judged.collect()
    }

    #[test]
    fn only_segments_of_tcp_make_a_device_join() {
        for (flows, joins) in [
            (&[SEGMENTS][..], Some(true)),
            (&[SEGMENTS, ACKS], Some(true)),
            (&[WHOLE, ACKS], None),
            (&[ACKS], None),
            (&[DATAGRAMS], None),
            (&[DATAGRAMS, SEGMENTS], None),
            (&[(Kind::Tcp4, Count { packets: 200, bytes: 290_000 })], None),
        ] {
            let mut device = Joining::OFF;
            assert_eq!(told(&mut device, [(flows, 1_000)]), [joins], "{flows:?}");
        }
    }

    #[test]
    fn it_goes_on_while_more_arrives_than_comes_out() {
        let joined: &[(Kind, Count)] = &[(Kind::Tcp4, Count { packets: 300, bytes: 18_000_000 })];
        let mut device = Joining::OFF;
        let all = told(&mut device, [(&[SEGMENTS][..], 1_000), (joined, 13_000), (joined, 25_000), (&[WHOLE], 26_000)]);
        assert_eq!(all, [Some(true), None, None, Some(false)]);
    }

    #[test]
    fn what_is_in_vain_is_tried_ever_more_seldom() {
        let mut device = Joining::OFF;
        // One flow each of many a segment: as large as the link takes, and nothing to join them with.
        let all = told(&mut device, (1..400).map(|second| (&[SEGMENTS][..], second * 1_000)));
        let tries: Vec<usize> = (0..all.len()).filter(|second| all[*second] == Some(true)).collect();
        assert!(tries.windows(3).all(|three| three[2] - three[1] >= three[1] - three[0]), "{tries:?}");
        assert!(tries.windows(2).all(|two| two[1] - two[0] <= 66), "{tries:?}");
        assert_eq!(tries.len(), 12, "{tries:?}");
    }
}
