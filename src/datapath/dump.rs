//! A flow as `ovs-ofctl dump-flows` prints it.

use core::fmt::Write;

use super::matching::DEFAULT_PRIORITY;
use super::table::Flow;
use super::text::{PortNames, print_actions, print_match};
use crate::api;
use crate::types::Timestamp;

/// The greatest age that fits the 16 bits it is told in (`nx_flow_stats`).
const AGE_MAX: u64 = 65_534;

/// A flow with its counters and its line.
pub(crate) fn flow(flow: &Flow, ports: &impl PortNames, now: Timestamp) -> api::switch::Flow {
    let mut matching = String::new();
    print_match(&mut matching, &flow.matching.whole(), ports);
    matching.pop();
    let mut actions = String::new();
    print_actions(&mut actions, &flow.actions, ports);
    let duration = now.since(flow.created);
    let age = |since: Timestamp| now.since(since).as_secs().min(AGE_MAX);
    let mut shown = api::switch::Flow {
        cookie: flow.cookie,
        duration_secs: duration.as_secs_f64(),
        table: flow.table,
        n_packets: flow.n_packets,
        n_bytes: flow.n_bytes,
        idle_timeout: flow.idle_timeout,
        hard_timeout: flow.hard_timeout,
        idle_age: age(flow.used),
        hard_age: age(flow.modified),
        send_flow_rem: flow.send_flow_rem,
        importance: flow.importance,
        priority: flow.priority,
        matching,
        actions,
        line: String::new(),
    };
    shown.line = line(&shown, duration.as_millis());
    shown
}

fn line(shown: &api::switch::Flow, millis: u128) -> String {
    let mut out = String::new();
    let _ = write!(
        out,
        " cookie={:#x}, duration={}.{:03}s, table={}, n_packets={}, n_bytes={}, ",
        shown.cookie,
        millis / 1000,
        millis % 1000,
        shown.table,
        shown.n_packets,
        shown.n_bytes
    );
    if shown.idle_timeout != 0 {
        let _ = write!(out, "idle_timeout={}, ", shown.idle_timeout);
    }
    if shown.hard_timeout != 0 {
        let _ = write!(out, "hard_timeout={}, ", shown.hard_timeout);
    }
    if shown.send_flow_rem {
        out.push_str("send_flow_rem ");
    }
    if shown.importance != 0 {
        let _ = write!(out, "importance={}, ", shown.importance);
    }
    let _ = write!(out, "idle_age={}, ", shown.idle_age);
    // `ovs-ofctl` tells them apart in whole seconds (`ofputil_flow_stats_format()`).
    if shown.hard_age != u64::try_from(millis / 1000).unwrap_or(u64::MAX) {
        let _ = write!(out, "hard_age={}, ", shown.hard_age);
    }
    if shown.priority != DEFAULT_PRIORITY {
        let _ = write!(out, "priority={}", shown.priority);
        if !shown.matching.is_empty() {
            out.push(',');
        }
    }
    if !(shown.matching.is_empty() && shown.priority == DEFAULT_PRIORITY) {
        let _ = write!(out, "{} ", shown.matching);
    }
    let _ = write!(out, "actions={}", shown.actions);
    out
}
