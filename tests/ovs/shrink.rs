//! Makes a failing case small: drops steps, then actions and demands of flows, while the difference stays.

use super::case::{Case, Step};
use super::compare::split;

/// Most candidates tried: each costs a run of both switches.
const LIMIT: usize = 400;

/// The smallest case found that is still `failing`.
pub(crate) fn shrink(case: &Case, mut failing: impl FnMut(&Case) -> bool) -> Case {
    let mut best = case.clone();
    let mut tried = 0;
    loop {
        let before = best.clone();
        drop_steps(&mut best, &mut failing, &mut tried);
        drop_parts(&mut best, &mut failing, &mut tried);
        if best == before || tried >= LIMIT {
            return best;
        }
    }
}

fn drop_steps(best: &mut Case, failing: &mut impl FnMut(&Case) -> bool, tried: &mut usize) {
    let mut size = best.steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < best.steps.len() && *tried < LIMIT {
            let mut candidate = best.clone();
            candidate.steps.drain(at..(at + size).min(best.steps.len()));
            *tried += 1;
            if !candidate.steps.is_empty() && failing(&candidate) {
                *best = candidate;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
}

/// Flows with one part of their match or one action fewer.
fn drop_parts(best: &mut Case, failing: &mut impl FnMut(&Case) -> bool, tried: &mut usize) {
    for at in 0..best.steps.len() {
        let mut part = 0;
        while *tried < LIMIT {
            let step = best.steps[at].clone();
            let tries = matches!(step, Step::Try { .. });
            let (Step::Change { how, bridge, flow } | Step::Try { how, bridge, flow }) = &step else { break };
            let (head, actions) = flow.split_once(" actions=").unwrap_or((flow, ""));
            let (heads, tails) = (split(head), split(actions));
            if part >= heads.len() + tails.len() {
                break;
            }
            // Without their priorities flows would overlap, and which of them matched would mean nothing.
            if heads.get(part).is_some_and(|head| head.starts_with("priority=")) {
                part += 1;
                continue;
            }
            let without = |parts: &[&str], part: usize| {
                let kept = parts.iter().enumerate().filter(|(index, _)| *index != part).map(|(_, part)| *part);
                kept.collect::<Vec<_>>().join(",")
            };
            let head = without(&heads, part);
            let tail = if part < heads.len() { actions.to_owned() } else { without(&tails, part - heads.len()) };
            part += 1;
            if tail.is_empty() || head.is_empty() {
                continue;
            }
            let flow = format!("{head} actions={tail}");
            let mut candidate = best.clone();
            let (how, bridge) = (how.clone(), bridge.clone());
            candidate.steps[at] =
                if tries { Step::Try { how, bridge, flow } } else { Step::Change { how, bridge, flow } };
            *tried += 1;
            if failing(&candidate) {
                *best = candidate;
                part -= 1;
            }
        }
    }
}
