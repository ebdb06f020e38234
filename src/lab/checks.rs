//! `lab test`: who reaches whom, and who must not, against what the topology promises.

use core::net::IpAddr;
use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::outline::Outline;
use super::pinger::{self, FIRST_TTL, Outcome, Patience, Probe};
use super::{Error, Place, Record, now, space};

/// How long a promised reply is waited for, and how long silence lasts.
const PATIENCE: Patience = Patience {
    first_interval: Duration::from_millis(100),
    limit: Duration::from_secs(5),
    silence: Duration::from_millis(300),
};

/// One thing that was tested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tested {
    /// `reach`, `isolation` or `gateway`.
    pub kind: &'static str,
    /// The VM that asked.
    pub from: String,
    /// The VM, or the gateway, that was asked; for `isolation` the VMs that must not hear, by name.
    pub to: String,
    /// The address asked.
    pub target: IpAddr,
    /// The round trip in microseconds, if there was to be one.
    pub round_trip_micros: Option<u64>,
    /// What was wrong; empty if all was as promised.
    pub wrong: Vec<String>,
}

/// Something that was not as promised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Who asked whom.
    pub what: String,
    /// What was wrong.
    pub why: String,
}

/// What a test came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// The lab.
    pub lab: String,
    /// VMs that asked and were asked.
    pub vms: usize,
    /// Ordered pairs, one for each address, that had to reach each other.
    pub reach: usize,
    /// Ordered pairs that must not reach each other, by any address.
    pub isolated: usize,
    /// Gateways asked, each by each VM that has it.
    pub gateways: usize,
    /// Requests sent.
    pub requests: u64,
    /// What was not as promised.
    pub failures: Vec<Failure>,
    /// Milliseconds it took.
    pub took_millis: u64,
    /// Everything that was tested, in order.
    pub tested: Vec<Tested>,
}

/// What a probe is for, and what must come of it.
struct Question {
    kind: &'static str,
    to: String,
    /// The one station that must receive the request; `None`: none may.
    receiver: Option<usize>,
    /// Hops the request and the reply must have left; `None`: no reply is wanted.
    ttl: Option<u8>,
    /// Whether an answer is no breach although none is wanted.
    answer_allowed: bool,
}

/// Tests every pair of VMs by every address, and every VM's gateways: what is promised must be answered, after exactly as
/// many hops as there are routers on the way; what is not must not arrive; and nobody may receive what was meant for
/// another. Needs one thread, and leaves this process in the lab's user namespace.
///
/// # Errors
/// When the lab cannot be entered. That promises are broken is no error: the report says it.
pub fn test(record: &Record, outline: &Outline) -> Result<CheckReport, Error> {
    let begin = now();
    space::enter_user_of(record.init.pid)?;
    let open = |station: &super::Station| {
        let netns = Some(station.netns.clone());
        let place = Place { name: station.vm.clone(), node: station.node.clone(), netns };
        Ok((station.vm.clone(), place.open_netns(record)?))
    };
    let namespaces = outline.stations.iter().map(open).collect::<Result<Vec<_>, Error>>()?;
    let ears = pinger::listen(&namespaces)?;
    let (probes, questions): (Vec<Probe>, Vec<Question>) = questions(outline).into_iter().unzip();
    let outcomes = pinger::run(&ears, &probes, PATIENCE)?;
    let mut report = CheckReport {
        lab: record.name.to_string(),
        vms: outline.stations.len(),
        reach: questions.iter().filter(|question| question.kind == "reach").count(),
        isolated: isolated_pairs(outline),
        gateways: questions.iter().filter(|question| question.kind == "gateway").count(),
        requests: outcomes.iter().map(|outcome| u64::from(outcome.sent)).sum(),
        failures: Vec::new(),
        took_millis: 0,
        tested: Vec::new(),
    };
    for ((probe, question), outcome) in probes.iter().zip(&questions).zip(&outcomes) {
        let tested = judge(outline, probe, question, outcome);
        let what = format!("{} → {} ({}, {})", tested.from, tested.to, tested.target, tested.kind);
        report.failures.extend(tested.wrong.iter().map(|why| Failure { what: what.clone(), why: why.clone() }));
        report.tested.push(tested);
    }
    report.took_millis = u64::try_from((now() - begin).as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// Every question, in the order of the VMs' names and of addresses.
fn questions(outline: &Outline) -> Vec<(Probe, Question)> {
    let promised: BTreeMap<(usize, IpAddr), (usize, u8)> =
        outline.promises.iter().map(|promise| ((promise.from, promise.target), (promise.to, promise.hops))).collect();
    let mut owners: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
    for station in &outline.stations {
        for ip in &station.ips {
            owners.entry(*ip).or_default().push(&station.vm);
        }
    }
    let mut questions = Vec::new();
    for (from, asker) in outline.stations.iter().enumerate() {
        for (target, names) in owners.iter().filter(|(target, _)| !asker.ips.contains(target)) {
            let question = match promised.get(&(from, *target)) {
                Some((to, hops)) => Question {
                    kind: "reach",
                    to: outline.stations[*to].vm.clone(),
                    receiver: Some(*to),
                    ttl: Some(FIRST_TTL.saturating_sub(*hops)),
                    answer_allowed: true,
                },
                None => Question {
                    kind: "isolation",
                    to: names.join(", "),
                    receiver: None,
                    ttl: None,
                    answer_allowed: outline.answered_by_others.contains(&(from, *target)),
                },
            };
            questions.push((Probe { from, target: *target, wanted: question.ttl.is_some() }, question));
        }
        for gateway in &asker.gateways {
            let to = format!("gateway of {}", asker.network);
            let question = Question { kind: "gateway", to, receiver: None, ttl: Some(FIRST_TTL), answer_allowed: true };
            questions.push((Probe { from, target: *gateway, wanted: true }, question));
        }
    }
    questions
}

/// Ordered pairs of VMs of which the first is promised none of the second's addresses.
fn isolated_pairs(outline: &Outline) -> usize {
    let promised: std::collections::BTreeSet<(usize, usize)> =
        outline.promises.iter().map(|promise| (promise.from, promise.to)).collect();
    let count = outline.stations.len();
    (0..count)
        .flat_map(|from| (0..count).map(move |to| (from, to)))
        .filter(|(from, to)| from != to && !promised.contains(&(*from, *to)))
        .count()
}

fn judge(outline: &Outline, probe: &Probe, question: &Question, outcome: &Outcome) -> Tested {
    let mut wrong = Vec::new();
    match (question.ttl, outcome.reply) {
        (Some(ttl), Some((_, left))) if left != ttl => {
            wrong.push(format!("the reply had {left} hops left instead of {ttl}"));
        }
        (Some(_), None) => {
            let refused = outcome.refused.as_ref().map(|why| format!(" (sending failed: {why})")).unwrap_or_default();
            wrong.push(format!("no reply to {} requests{refused}", outcome.sent));
        }
        (Some(_), Some(_)) | (None, _) => {}
    }
    if !question.answer_allowed && outcome.reply.is_some() {
        wrong.push("a reply came where nobody should have answered".to_owned());
    }
    for (station, left) in &outcome.arrived {
        let vm = &outline.stations[*station].vm;
        match (question.receiver, question.ttl) {
            (Some(receiver), Some(ttl)) if receiver == *station => {
                if *left != ttl {
                    wrong.push(format!("the request reached {vm} with {left} hops left instead of {ttl}"));
                }
            }
            _ => wrong.push(format!("{vm} received what was not meant for it")),
        }
    }
    Tested {
        kind: question.kind,
        from: outline.stations[probe.from].vm.clone(),
        to: question.to.clone(),
        target: probe.target,
        round_trip_micros: outcome.reply.map(|(time, _)| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        wrong,
    }
}
