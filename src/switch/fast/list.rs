//! The flows in the kernel one by one, for whoever asks.

use core::cmp::Reverse;

use super::{Fast, Flow, FlowKey, Inner};
use crate::api::switch::{Offloaded, OffloadedFlow};
use crate::datapath::describe;
use crate::fastpath::kernel::FastPath;
use crate::switch::lock;
use crate::types::Timestamp;

impl Fast {
    /// The flows that carried most, `most` of them at the most.
    pub(in crate::switch) fn list(&self, most: usize, now: Timestamp) -> Offloaded {
        let inner = lock(&self.inner);
        let Inner { path: Some(Ok(path)), flows, .. } = &*inner else { return Offloaded::default() };
        let mut order: Vec<(&FlowKey, &Flow)> = flows.iter().collect();
        order.sort_unstable_by_key(|(key, flow)| (Reverse(flow.carried.packets), **key));
        let told = order.into_iter().take(most).map(|(_, flow)| inner.tell(path, flow, now)).collect();
        Offloaded { total: flows.len() as u64, flows: told }
    }
}

impl Inner {
    fn tell(&self, path: &FastPath, flow: &Flow, now: Timestamp) -> OffloadedFlow {
        let Flow { kind, frame, rewrite, carried, used, .. } = flow;
        let (matching, mut actions) = describe(*kind, frame, path.mask(*kind), rewrite);
        let [from, to] = [flow.from, flow.to].map(|dp| {
            // Flows go before their lines do.
            self.lines.get(&dp).map_or_else(String::new, |line| line.name.to_string())
        });
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
