//! Figures as bars, in SVG of our own: a chart is a dozen lines of text, and a crate for it would bring thirty others.

use std::fmt::Write as _;

use super::measure::{Metric, PeerKind};
use super::report::{Report, Row, heading, short};

/// Every measure in pixels.
const WIDTH: f64 = 720.0;
const LABEL: f64 = 130.0;
const BAR: f64 = 22.0;
const GAP: f64 = 8.0;
const HEAD: f64 = 46.0;

/// A chart of each row: its file name and its text.
#[must_use]
pub fn charts(report: &Report) -> Vec<(String, String)> {
    report.rows.iter().map(|row| (file_name(row), draw(report, row))).collect()
}

fn file_name(row: &Row) -> String {
    let way = row.subject.way.map_or("node", |way| way.word());
    let wire = if row.subject.wire { "-wire" } else { "" };
    let ports = if row.subject.ports > 0 { format!("-{}", row.subject.ports) } else { String::new() };
    format!("bench-{}-{way}{ports}{wire}.svg", row.subject.metric)
}

fn colour(peer: PeerKind) -> &'static str {
    match peer {
        PeerKind::Veth => "#b8bec6",
        PeerKind::Kernel => "#6f7d8c",
        PeerKind::KernelBpf => "#95a3b1",
        PeerKind::Ovs => "#d99a4e",
        PeerKind::Dvr => "#2f7fb8",
        PeerKind::DvrTunnels => "#7db4d8",
        PeerKind::Fast => "#2b9c73",
    }
}

/// Whether more is better.
const fn more_is_better(metric: Metric) -> bool {
    match metric {
        Metric::Tcp1 | Metric::Tcp4 | Metric::Pps1 | Metric::Pps1000 | Metric::Lossless => true,
        Metric::Cpu
        | Metric::SwitchCpu
        | Metric::RttMedian
        | Metric::RttTail
        | Metric::First
        | Metric::Cold
        | Metric::Program
        | Metric::Memory => false,
    }
}

fn draw(report: &Report, row: &Row) -> String {
    let shown: Vec<_> =
        report.settings.peers.iter().filter_map(|peer| Some((*peer, row.figures.get(peer)?.spread))).collect();
    let most = shown.iter().map(|(_, spread)| spread.most).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LABEL - 150.0) / most;
    let rows = f64::from(u32::try_from(shown.len()).unwrap_or(u32::MAX));
    let height = HEAD + rows * (BAR + GAP) + GAP;
    let better = if more_is_better(row.subject.metric) { "more is better" } else { "less is better" };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"8\" y=\"18\" font-weight=\"bold\">{}, {} ({better})</text>\n\
         <text x=\"8\" y=\"36\" fill=\"#555\">{}</text>\n",
        row.subject.metric.title(),
        row.unit,
        heading(&row.subject),
    );
    let mut top = HEAD;
    for (peer, spread) in shown {
        let (length, middle) = (spread.median * scale, top + BAR / 2.0);
        let (least, most) = (LABEL + spread.least * scale, LABEL + spread.most * scale);
        let _writing_text_never_fails = write!(
            out,
            "<text x=\"8\" y=\"{:.0}\">{peer}</text>\n\
             <rect x=\"{LABEL}\" y=\"{top:.0}\" width=\"{length:.1}\" height=\"{BAR}\" fill=\"{}\"/>\n\
             <path d=\"M{least:.1} {middle:.0}H{most:.1}\" stroke=\"#222\"/>\n\
             <text x=\"{:.1}\" y=\"{:.0}\">{} ({}–{})</text>\n",
            middle + 5.0,
            colour(peer),
            most + 6.0,
            middle + 5.0,
            short(spread.median),
            short(spread.least),
            short(spread.most),
        );
        top += BAR + GAP;
    }
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measure::{Measure, Subject, Way};
    use crate::bench::report::{Machine, Sample, Settings, Turn};

    #[test]
    fn a_chart_has_a_bar_for_each_peer_that_was_measured() {
        let subject = Subject { wire: true, ports: 0, way: Some(Way::Bridged), metric: Metric::Tcp1 };
        let turn =
            |round, peer, value| Turn { round, peer, samples: vec![Sample { subject, value }], left_out: Vec::new() };
        let settings = Settings {
            peers: PeerKind::ALL.to_vec(),
            measures: vec![Measure::Tcp1],
            ways: vec![Way::Bridged],
            rounds: 2,
            seconds_most: None,
            millis: 10,
            wire: true,
            baseline: PeerKind::Kernel,
        };
        let turns = vec![turn(0, PeerKind::Kernel, 10.0), turn(1, PeerKind::Kernel, 14.0), turn(0, PeerKind::Dvr, 6.0)];
        let all = charts(&Report::new(settings, Machine::default(), turns));
        let [(name, text)] = all.as_slice() else { panic!("{} charts", all.len()) };
        assert_eq!(name, "bench-tcp1-bridged-wire.svg");
        assert_eq!(text.matches("<rect").count(), 3, "the ground and two bars:\n{text}");
        for word in ["TCP, 1 stream", "more is better", "12.0 (10.0–14.0)", "Bridged, across nodes"] {
            assert!(text.contains(word), "{word} is missing:\n{text}");
        }
    }
}
