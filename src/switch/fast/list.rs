//! The flows in the kernel one by one, for whoever asks.

use core::cmp::Reverse;
use std::collections::BTreeMap;

use super::{Fast, Flow, FlowKey, Inner};
use crate::api::switch::{Offloaded, OffloadedFlow};
use crate::datapath::{DpPort, describe};
use crate::fastpath::{Count, Kind, Octets, Rewrite};
use crate::switch::lock;
use crate::types::{IfName, Timestamp};

/// A flow as it was when the table was looked at.
struct Seen {
    kind: Kind,
    frame: Octets,
    mask: Octets,
    rewrite: Rewrite,
    ends: [DpPort; 2],
    carried: Count,
    used: Timestamp,
}

impl Fast {
    /// The flows that carried most, `most` of them at the most. They are copied while nobody else can have the table, and
    /// described afterwards.
    pub(in crate::switch) fn list(&self, most: usize, now: Timestamp) -> Offloaded {
        let (total, seen, names) = {
            let inner = lock(&self.inner);
            let Inner { path: Some(Ok(path)), flows, lines, .. } = &*inner else { return Offloaded::default() };
            let mut order: Vec<(&FlowKey, &Flow)> = flows.iter().collect();
            order.sort_unstable_by_key(|(key, flow)| (Reverse(flow.carried.packets), **key));
            let copy = |(_, flow): (&FlowKey, &Flow)| Seen {
                kind: flow.kind,
                frame: flow.frame,
                mask: *path.mask(flow.kind),
                rewrite: flow.rewrite,
                ends: [flow.from, flow.to],
                carried: flow.carried,
                used: flow.used,
            };
            let seen: Vec<Seen> = order.into_iter().take(most).map(copy).collect();
            let names: BTreeMap<DpPort, IfName> = lines.iter().map(|(dp, line)| (*dp, line.name.clone())).collect();
            (flows.len() as u64, seen, names)
        };
        Offloaded { total, flows: seen.iter().map(|seen| seen.describe(&names, now)).collect() }
    }
}

impl Seen {
    fn describe(&self, names: &BTreeMap<DpPort, IfName>, now: Timestamp) -> OffloadedFlow {
        let Self { kind, frame, mask, rewrite, ends, carried, used } = self;
        let (matching, mut actions) = describe(*kind, frame, mask, rewrite);
        // Flows go before their lines do.
        let [from, to] = ends.map(|dp| names.get(&dp).map_or_else(String::new, ToString::to_string));
        if !actions.is_empty() {
            actions.push(',');
        }
        OffloadedFlow {
            matching: format!("in_port={from},{matching}"),
            actions: actions + &to,
            packets: carried.packets,
            bytes: carried.bytes,
            idle_secs: now.since(*used).as_secs_f64(),
        }
    }
}
