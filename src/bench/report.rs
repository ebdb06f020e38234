//! What was measured, as a table: rows of subjects, columns of peers.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::measure::{Measure, PeerKind, Subject, Way};
use super::statistics::Spread;

/// What is to be measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Whom.
    pub peers: Vec<PeerKind>,
    /// What.
    pub measures: Vec<Measure>,
    /// Between whom.
    pub ways: Vec<Way>,
    /// How often; in a report, how often it was.
    pub rounds: u32,
    /// After how many seconds no round is begun any more, nor one that would not be over by then; `None` for no such bound.
    pub seconds_most: Option<u64>,
    /// How long each run of traffic lasts, in milliseconds.
    pub millis: u64,
    /// Whether headline figures are measured again while the underlay segments nothing.
    pub wire: bool,
    /// Whom others are compared with.
    pub baseline: PeerKind,
}

/// One value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// In the metric's unit.
    pub value: f64,
}

/// What one peer gave in one round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// The round, from 0.
    pub round: u32,
    /// The peer.
    pub peer: PeerKind,
    /// The values.
    pub samples: Vec<Sample>,
    /// What was left out or is not as elsewhere, and why.
    pub left_out: Vec<String>,
}

/// The machine it was measured on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Processors.
    pub processors: usize,
    /// The kernel's release.
    pub kernel: String,
    /// Whether it ran as root: an ordinary user's labs may lack TAPs.
    pub root: bool,
    /// The load averages before and after (`/proc/loadavg`).
    pub load: [String; 2],
}

/// What a peer's values for a subject come to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figure {
    /// Over the rounds.
    pub spread: Spread,
    /// The median of its ratios to the baseline in the same round; `None` where there was none.
    pub ratio: Option<f64>,
}

/// A row of the report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// What it is about.
    #[serde(flatten)]
    pub subject: Subject,
    /// The unit of its figures.
    pub unit: &'static str,
    /// By peer.
    pub figures: BTreeMap<PeerKind, Figure>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What was asked for.
    pub settings: Settings,
    /// Where.
    pub machine: Machine,
    /// What it came to.
    pub rows: Vec<Row>,
    /// What was left out or is not as elsewhere, and why; each once.
    pub left_out: Vec<String>,
    /// Every value, as it was measured.
    pub turns: Vec<Turn>,
}

impl Report {
    /// Puts together what was measured.
    #[must_use]
    pub fn new(settings: Settings, machine: Machine, turns: Vec<Turn>) -> Self {
        let mut left_out: Vec<String> = Vec::new();
        for turn in &turns {
            for why in turn.left_out.iter().map(|why| format!("{}: {why}", turn.peer)) {
                if !left_out.contains(&why) {
                    left_out.push(why);
                }
            }
        }
        let rows = rows(&settings, &turns);
        Self { settings, machine, rows, left_out, turns }
    }

    /// The table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let Self { settings, machine, rows, left_out, turns: _ } = self;
        let mut out = format!(
            "{} rounds, {} ms each; {} processors, Linux {}, {}; load {} before, {} after\n",
            settings.rounds,
            settings.millis,
            machine.processors,
            machine.kernel,
            if machine.root { "root" } else { "an ordinary user" },
            machine.load[0],
            machine.load[1],
        );
        out.push_str("median (least–most); ×: median of the rounds' ratios to ");
        out.push_str(settings.baseline.word());
        out.push_str("; MTU 1500, TCP by cubic, datagrams in frames of 64 octets\n");
        for peer in &settings.peers {
            out.push_str(&format!("  {:<13}{}\n", peer.word(), peer.meaning()));
        }
        let mut section = None;
        let mut lines: Vec<Vec<String>> = Vec::new();
        for row in rows {
            let title = heading(&row.subject);
            if section.as_ref() != Some(&title) {
                out.push_str(&aligned(&core::mem::take(&mut lines)));
                out.push_str(&format!("\n{title}\n"));
                let head = [String::new(), String::new()].into_iter();
                lines.push(head.chain(settings.peers.iter().map(ToString::to_string)).collect());
                section = Some(title);
            }
            let name = [row.subject.metric.title().to_owned(), row.unit.to_owned()].into_iter();
            let cells = settings.peers.iter().map(|peer| row.figures.get(peer).map_or_else(|| "–".to_owned(), cell));
            lines.push(name.chain(cells).collect());
        }
        out.push_str(&aligned(&lines));
        if !left_out.is_empty() {
            out.push_str("\nleft out, or not as elsewhere:\n");
            left_out.iter().for_each(|why| out.push_str(&format!("  {why}\n")));
        }
        out
    }
}

/// A row for each subject of which there is a value.
fn rows(settings: &Settings, turns: &[Turn]) -> Vec<Row> {
    let mut values: BTreeMap<(Subject, PeerKind), BTreeMap<u32, f64>> = BTreeMap::new();
    for turn in turns {
        for sample in &turn.samples {
            values.entry((sample.subject, turn.peer)).or_default().insert(turn.round, sample.value);
        }
    }
    let subjects: BTreeSet<Subject> = values.keys().map(|(subject, _)| *subject).collect();
    let figure = |subject: Subject, peer: PeerKind| {
        let own = values.get(&(subject, peer))?;
        let base = values.get(&(subject, settings.baseline));
        let ratio = |(round, value): (&u32, &f64)| Some(value / base?.get(round)?);
        let ratio = Spread::of(own.iter().filter_map(ratio)).map(|spread| spread.median);
        Some((peer, Figure { spread: Spread::of(own.values().copied())?, ratio }))
    };
    let row = |subject: Subject| Row {
        subject,
        unit: subject.metric.unit(),
        figures: settings.peers.iter().filter_map(|peer| figure(subject, *peer)).collect(),
    };
    subjects.into_iter().map(row).collect()
}

/// What a section's rows have in common.
pub(super) fn heading(subject: &Subject) -> String {
    let way = match subject.way {
        Some(Way::Routed) => "Routed, across nodes",
        Some(Way::Bridged) => "Bridged, across nodes",
        Some(Way::Local) => "Routed, on one node",
        None => "Nodes as such",
    };
    let ports =
        if subject.ports > 0 { format!(", {} more ports elsewhere", grouped(subject.ports)) } else { String::new() };
    let wire = if subject.wire { ", underlay without segmentation offloads" } else { "" };
    format!("{way}{ports}{wire}")
}

/// 10000 → 10,000.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let grouped = digits.char_indices().flat_map(|(at, digit)| {
        let comma = at > 0 && (digits.len() - at).is_multiple_of(3);
        comma.then_some(',').into_iter().chain([digit])
    });
    grouped.collect()
}

fn cell(figure: &Figure) -> String {
    let Figure { spread: Spread { median, least, most, count }, ratio } = figure;
    let spread = if *count > 1 { format!(" ({}–{})", short(*least), short(*most)) } else { String::new() };
    let ratio = ratio.map(|ratio| format!(" {ratio:.2}×")).unwrap_or_default();
    format!("{}{spread}{ratio}", short(*median))
}

/// Three figures or so.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Lines of cells, as wide as each column's widest.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |cells: &Vec<String>| {
        let cells: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("  {}\n", cells.join("  ").trim_end())
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::Metric;

    fn report() -> Report {
        let subject = |metric| Subject { wire: false, ports: 0, way: Some(Way::Routed), metric };
        let turn = |round, peer, tcp, kpps| Turn {
            round,
            peer,
            samples: vec![
                Sample { subject: subject(Metric::Tcp1), value: tcp },
                Sample { subject: subject(Metric::Pps1), value: kpps },
                Sample {
                    subject: Subject { way: None, ports: 10_000, ..subject(Metric::Program) },
                    value: tcp * 100.0,
                },
            ],
            left_out: if peer == PeerKind::Dvr { vec!["no TAPs".to_owned()] } else { Vec::new() },
        };
        let turns = vec![
            turn(0, PeerKind::Kernel, 10.0, 100.0),
            turn(0, PeerKind::Dvr, 8.0, 200.0),
            turn(1, PeerKind::Dvr, 5.0, 180.0),
            turn(1, PeerKind::Kernel, 5.0, 120.0),
            turn(2, PeerKind::Kernel, 12.0, 90.0),
            turn(2, PeerKind::Dvr, 9.0, 90.0),
        ];
        let settings = Settings {
            peers: vec![PeerKind::Kernel, PeerKind::Dvr],
            measures: Measure::ALL.to_vec(),
            ways: Way::ALL.to_vec(),
            rounds: 3,
            seconds_most: None,
            millis: 1_000,
            wire: false,
            baseline: PeerKind::Kernel,
        };
        let machine =
            Machine { processors: 2, kernel: "6.1".to_owned(), root: true, load: ["0.1".to_owned(), "1.9".to_owned()] };
        Report::new(settings, machine, turns)
    }

    #[test]
    fn the_table_reads_as_expected() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bench/table.txt");
        let golden = std::fs::read_to_string(path).expect("it is there");
        let table = report().table();
        assert_eq!(table, golden, "{table}");
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let report = report();
        let row = report.rows.iter().find(|row| row.subject.metric == Metric::Tcp1).expect("a row");
        let figure = row.figures[&PeerKind::Dvr];
        assert_eq!(figure.ratio, Some(0.8), "the median of 0.8, 1.0 and 0.75, not 8/10 by chance of medians");
        assert_eq!(figure.spread.median, 8.0);
        assert_eq!(row.figures[&PeerKind::Kernel].ratio, Some(1.0));
    }

    #[test]
    fn a_reason_is_told_once() {
        assert_eq!(report().left_out, ["dvr: no TAPs"]);
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [(1234.4, "1234"), (56.78, "56.8"), (1.234, "1.23"), (0.0, "0.00")] {
            assert_eq!(short(value), text);
        }
        assert_eq!((grouped(100_000), grouped(999)), ("100,000".to_owned(), "999".to_owned()));
    }
}
