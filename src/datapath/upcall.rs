//! How often frames that the cache does not know may have the tables walked: a bounded share for each ingress, so that a
//! scan of new flows leaves the worker's time, and its cache, to flows that are established.
//!
//! Each ingress has a bucket of its own, kept as the time at which it is full again (the virtual scheduling of ITU-T
//! I.371's GCRA): each walk moves that time on, and one that would move it too far ahead of `now` does not take place. An
//! ingress is a port; in a tunnel the endpoint a frame comes from, so that one node's scan does not stand before another
//! node's new flows.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use super::io::{DpPort, Ingress};
use crate::types::Timestamp;

/// How much less a walk counts for a tunnel's endpoint than for a port: behind it is a whole node, and one machine there
/// that is at its own node's limit must leave room for the others.
const ENDPOINT_SHARE: u32 = 4;
/// Part of a bucket that flows never seen leave to those that were: frames whose entries a change made stale, often many
/// at once, are of established flows.
const RESERVE_PART: u32 = 4;
/// Most buckets kept before an endpoint without one shares that of all others: who makes up endpoints without number
/// would, else, have a bucket for each.
const LIMIT_BUCKETS: usize = 8192;

/// Who may cause how many walks at one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpcallLimit {
    /// For so long a port pays for a walk. Zero sets no limit.
    pub each: Duration,
    /// So many walks are not paid for yet at most; a quarter of them only for frames of flows already seen. More than
    /// that many new flows at one instant are refused.
    pub burst: u32,
}

impl UpcallLimit {
    /// No limit: whoever calls paces.
    pub const NONE: Self = Self { each: Duration::ZERO, burst: 0 };
}

impl Default for UpcallLimit {
    /// 4,000 walks a second for a port, and 8,192 at once; for a tunnel's endpoint four times that.
    ///
    /// A walk takes 10 to 20 µs: a port that scans costs a twelfth of a processor, an endpoint a third, and the rest is
    /// for frames that are known. In the ten seconds that an entry outlives its last frame, a scan of one port fills two
    /// thirds of the cache's 65,536 places and evicts nobody. And 6,144 flows that one machine starts at one instant, or
    /// 24,576 that a node does after its neighbour's start, are all looked up.
    fn default() -> Self {
        Self { each: Duration::from_micros(250), burst: 8192 }
    }
}

/// What is left of every ingress's share.
#[derive(Debug)]
pub(crate) struct Upcalls {
    limit: UpcallLimit,
    /// When buckets are full again that are not.
    full_at: BTreeMap<Source, Timestamp>,
}

/// Whose bucket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    Port(DpPort),
    Endpoint(DpPort, IpAddr),
    /// All of the tunnel for which there is no room.
    Others(DpPort),
}

impl Upcalls {
    pub(crate) const fn new(limit: UpcallLimit) -> Self {
        Self { limit, full_at: BTreeMap::new() }
    }

    /// Whether a frame from there may have the tables walked; it is counted as if it did. `seen` says that there was a
    /// decision about it, which only is out of date.
    pub(crate) fn admit(&mut self, ingress: &Ingress, seen: bool, now: Timestamp) -> bool {
        let UpcallLimit { each, burst } = self.limit;
        if each.is_zero() {
            return true;
        }
        let (mut source, cost) = match ingress.tunnel {
            Some(tunnel) => (Source::Endpoint(ingress.port, tunnel.src), each / ENDPOINT_SHARE),
            None => (Source::Port(ingress.port), each),
        };
        let is_new = || !self.full_at.contains_key(&source);
        if self.full_at.len() >= LIMIT_BUCKETS && ingress.tunnel.is_some() && is_new() {
            source = Source::Others(ingress.port);
        }
        let span = each.saturating_mul(burst);
        let most = if seen { span } else { span - span / RESERVE_PART };
        let full_at = self.full_at.get(&source).copied().map_or(now, |full_at| full_at.max(now)) + cost;
        let admits = full_at.since(now) <= most;
        if admits {
            self.full_at.insert(source, full_at);
        }
        admits
    }

    /// Forgets buckets that are full: they are as new ones. To be called about once a second.
    pub(crate) fn forget(&mut self, now: Timestamp) {
        self.full_at.retain(|_, full_at| *full_at > now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::datapath::io::TunnelMeta;

    const LIMIT: UpcallLimit = UpcallLimit { each: Duration::from_millis(1), burst: 100 };
    const START: Timestamp = Timestamp::from_secs(1_000);

    fn port(number: u32) -> Ingress {
        Ingress { port: DpPort(number), tunnel: None }
    }

    fn endpoint(number: u32) -> Ingress {
        let src = IpAddr::from(number.to_be_bytes());
        let tunnel = TunnelMeta { id: 1, src, dst: IpAddr::from([10, 0, 0, 1]), tos: 0, ttl: 64 };
        Ingress { port: DpPort(9), tunnel: Some(tunnel) }
    }

    /// How many of so many are admitted.
    fn admitted(upcalls: &mut Upcalls, ingress: &Ingress, seen: bool, (tries, now): (u32, Timestamp)) -> usize {
        (0..tries).filter(|_| upcalls.admit(ingress, seen, now)).count()
    }

    #[test]
    fn a_bucket_holds_a_burst_and_fills_with_time() {
        let mut upcalls = Upcalls::new(LIMIT);
        assert_eq!(admitted(&mut upcalls, &port(1), false, (1_000, START)), 75);
        assert_eq!(admitted(&mut upcalls, &port(1), true, (1_000, START)), 25, "what is left to flows already seen");
        for (millis, new) in [(1, 0), (25, 0), (26, 1), (36, 10), (1_036, 75)] {
            let now = START + Duration::from_millis(millis);
            assert_eq!(admitted(&mut upcalls, &port(1), false, (1_000, now)), new, "{millis} ms");
        }
    }

    #[test]
    fn each_port_and_endpoint_has_its_own() {
        let mut upcalls = Upcalls::new(LIMIT);
        for (ingress, new, seen) in
            [(port(1), 75, 25), (port(2), 75, 25), (endpoint(1), 300, 100), (endpoint(2), 300, 100)]
        {
            assert_eq!(admitted(&mut upcalls, &ingress, false, (1_000, START)), new, "{ingress:?}");
            assert_eq!(admitted(&mut upcalls, &ingress, true, (1_000, START)), seen, "{ingress:?}");
        }
    }

    #[test]
    fn endpoints_without_number_share_the_last_bucket() {
        let mut upcalls = Upcalls::new(LIMIT);
        let many = u32::try_from(LIMIT_BUCKETS).expect("a small number");
        assert!((0..many).all(|number| upcalls.admit(&endpoint(number), false, START)));
        let more = (many..2 * many).filter(|number| upcalls.admit(&endpoint(*number), false, START));
        assert_eq!(more.count(), 300);
        assert_eq!(upcalls.full_at.len(), LIMIT_BUCKETS + 1);
        assert!(upcalls.admit(&endpoint(1), false, START), "who was there has its own");
        assert!(upcalls.admit(&port(1), false, START), "and so have ports");
        // A moment later all but these are full.
        upcalls.forget(START + Duration::from_micros(250));
        assert_eq!(
            upcalls.full_at.keys().copied().collect::<Vec<_>>(),
            [
                Source::Port(DpPort(1)),
                Source::Endpoint(DpPort(9), IpAddr::from(1_u32.to_be_bytes())),
                Source::Others(DpPort(9))
            ]
        );
        upcalls.forget(START + Duration::from_secs(1));
        assert!(upcalls.full_at.is_empty());
    }

    #[test]
    fn without_a_limit_nothing_is_refused_or_kept() {
        let mut upcalls = Upcalls::new(UpcallLimit::NONE);
        assert_eq!(admitted(&mut upcalls, &port(1), false, (100_000, START)), 100_000);
        assert!(upcalls.full_at.is_empty());
    }

    proptest! {
        /// Over any time no more than a burst and what the time pays for, and one that asks no more often than that is
        /// never refused.
        #[test]
        fn walks_are_bounded_by_burst_and_time(gaps in prop::collection::vec(0_u64..3_000, 1..600), seen: bool) {
            let mut upcalls = Upcalls::new(LIMIT);
            let mut now = START;
            let mut walks = 0;
            for gap in gaps {
                now = now + Duration::from_micros(gap);
                walks += u128::from(upcalls.admit(&port(1), seen, now));
                upcalls.forget(now);
                prop_assert!(walks <= 100 + now.since(START).as_millis());
                prop_assert!(upcalls.admit(&port(2), seen, now) || gap < 1_000);
            }
        }
    }
}
