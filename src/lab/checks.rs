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
    limit: Duration::from_secs(10),
    silence: Duration::from_millis(300),
};

/// One thing that was tested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tested {
    /// `reach`; `isolation`, nothing arrives; `one-way`, there is a way there and none back; or `gateway`.
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
    /// Ordered pairs of which the first must get no answer from the second, by any address.
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
    /// The one station that may receive the request; `None`: none may.
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
                None if outline.one_way.contains_key(&(from, *target)) => Question {
                    kind: "one-way",
                    to: names.join(", "),
                    receiver: outline.one_way.get(&(from, *target)).copied(),
                    ttl: None,
                    answer_allowed: false,
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
            (Some(receiver), None) if receiver == *station => {}
            (Some(_) | None, _) => wrong.push(format!("{vm} received what was not meant for it")),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Topology;

    const TENANTS: &str = "version: 1
nodes: {node1: {}, node2: {}}
networks:
  red:   {type: vxlan, subnets: [{cidr: 10.0.0.0/24}]}
  green: {type: vxlan, subnets: [{cidr: 10.0.0.0/24}]}
vms:
  r1: {node: node1, network: red, ip: 10.0.0.11}
  r2: {node: node2, network: red, ip: 10.0.0.12}
  g1: {node: node1, network: green, ip: 10.0.0.11}
  g3: {node: node2, network: green, ip: 10.0.0.13}
";

    fn asked(outline: &Outline) -> Vec<String> {
        let word = |(probe, question): &(Probe, Question)| {
            format!("{} {} {} {}", question.kind, outline.stations[probe.from].vm, question.to, probe.target)
        };
        questions(outline).iter().map(word).collect()
    }

    #[test]
    fn the_example_is_asked_whole() {
        let outline = Outline::of(&Topology::example());
        let asked = asked(&outline);
        assert_eq!(asked.iter().filter(|line| line.starts_with("reach")).count(), 12);
        assert_eq!(asked.iter().filter(|line| line.starts_with("gateway")).count(), 4);
        assert_eq!(asked.len(), 16);
        assert_eq!(isolated_pairs(&outline), 0);
    }

    #[test]
    fn the_same_address_is_asked_of_the_own_tenant() {
        let outline = Outline::read("test", TENANTS).expect("a topology");
        let asked = asked(&outline);
        for line in [
            "reach r1 r2 10.0.0.12",
            "isolation r1 g3 10.0.0.13",
            "reach g1 g3 10.0.0.13",
            "isolation g1 r2 10.0.0.12",
            "reach r2 r1 10.0.0.11",
            "reach g3 g1 10.0.0.11",
        ] {
            assert!(asked.iter().any(|asked| asked == line), "`{line}` is not asked: {asked:#?}");
        }
        assert_eq!(isolated_pairs(&outline), 8, "two by two, both ways");
    }

    /// What is wrong when this becomes of the question whether `from` reaches `target`.
    fn wrong(from: &str, target: &str, outcome: &Outcome) -> Vec<String> {
        let outline = Outline::read("test", TENANTS).expect("a topology");
        let target: IpAddr = target.parse().expect("an address");
        let all = questions(&outline);
        let (probe, question) = all
            .iter()
            .find(|(probe, _)| outline.stations[probe.from].vm == from && probe.target == target)
            .expect("the question is asked");
        judge(&outline, probe, question, outcome).wrong
    }

    #[test]
    fn every_breach_is_told() {
        let reply = Some((Duration::from_millis(1), 64));
        let [g1, g3, r1, r2] = [0, 1, 2, 3];
        let outcome =
            |arrived: &[(usize, u8)], reply| Outcome { sent: 1, arrived: arrived.to_vec(), reply, refused: None };
        assert_eq!(wrong("r1", "10.0.0.12", &outcome(&[(r2, 64)], reply)), Vec::<String>::new());
        assert_eq!(wrong("r1", "10.0.0.13", &outcome(&[], None)), Vec::<String>::new());
        for (from, target, outcome) in [
            ("r1", "10.0.0.12", outcome(&[], None)),
            ("r1", "10.0.0.12", outcome(&[(r2, 63)], reply)),
            ("r1", "10.0.0.12", outcome(&[(r2, 64)], Some((Duration::ZERO, 63)))),
            ("r1", "10.0.0.12", outcome(&[(r2, 64), (g3, 64)], reply)),
            ("r1", "10.0.0.13", outcome(&[(g3, 63)], None)),
            ("r1", "10.0.0.13", outcome(&[], reply)),
            ("g3", "10.0.0.11", outcome(&[(g1, 64), (r1, 64)], reply)),
        ] {
            assert_eq!(wrong(from, target, &outcome).len(), 1, "{from} → {target}: {outcome:?}");
        }
    }
}
