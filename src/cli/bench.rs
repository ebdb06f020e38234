//! `dvr bench`: how fast it is, beside others.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::args::{Output, OutputArgs};
use super::error::{CliError, DONE, FAILED};
use super::output;
use crate::bench::measure::{Measure, PeerKind, Way};
use crate::bench::report::{Report, Settings};
use crate::bench::{self, Task, chart};
use crate::lab::{self, Stage};

/// What `bench` takes.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Whom to measure: `veth`, `kernel`, `ovs`, `dvr`; `dvr-tunnels`, which is dvr with the kernel's tunnels; and, which
    /// take root, `kernel-bpf` and `fast`, which is dvr with the kernel fast path
    #[arg(long, value_name = "PEER[,…]", value_delimiter = ',', default_value = "veth,kernel,ovs,dvr")]
    peers: Vec<PeerKind>,
    /// What to measure: `tcp1`, `tcp4`, `pps1`, `pps1000`, `lossless` (the highest rate at which one datagram in 1,000 is lost at
    /// most), `rtt`, `first` (a round trip after a flush of flow caches; the kernel has none, so its is one after a pause),
    /// `cold`, `ports`, `memory`
    #[arg(
        long,
        value_name = "MEASURE[,…]",
        value_delimiter = ',',
        default_value = "tcp1,tcp4,pps1,pps1000,lossless,rtt,first,cold"
    )]
    measures: Vec<Measure>,
    /// Between whom: `routed` and `bridged` across nodes, `local` through the router of one node
    #[arg(long, value_name = "WAY[,…]", value_delimiter = ',', default_value = "routed,bridged")]
    ways: Vec<Way>,
    /// How often; the order of peers differs each time
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: u32,
    /// Begin no round that would not be over after so many minutes; at least one is made
    #[arg(long, value_name = "MINUTES", value_parser = clap::value_parser!(u64).range(1..=1_440))]
    within: Option<u64>,
    /// How long each run of traffic lasts
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// Measure TCP, small datagrams and round trips also while the underlay's devices segment nothing, as a wire has it
    #[arg(long)]
    wire: bool,
    /// Whom to compare the others with
    #[arg(long, value_name = "PEER", default_value = "kernel")]
    baseline: PeerKind,
    /// Write a chart of each row to this directory, as SVG
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
    /// How to print it
    #[command(flatten)]
    output: OutputArgs,
}

/// A part of the life of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Life {
    /// Makes the namespaces.
    Outside,
    /// Process 1 of them.
    Inside,
    /// Measures.
    Act,
}

fn seconds(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "give a number of seconds, such as 0.5".to_owned())?;
    if (0.01..=3_600.0).contains(&value) { Ok(value) } else { Err("give between 0.01 and 3600 seconds".to_owned()) }
}

/// `dvr bench`.
///
/// # Errors
/// When it cannot begin, or the report cannot be written.
pub(super) fn bench(args: BenchArgs) -> Result<u8, CliError> {
    let BenchArgs { peers, measures, ways, rounds, within, seconds, wire, baseline, svg, output: form } = args;
    if let Some(dir) = &svg {
        std::fs::create_dir_all(dir).map_err(|source| CliError::Create { path: dir.clone(), source })?;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 10 and 3,600,000")]
    let millis = (seconds * 1e3) as u64;
    let (peers, measures, ways) = (once(peers), once(measures), once(ways));
    let seconds_most = within.map(|minutes| minutes * 60);
    let settings = Settings { peers, measures, ways, rounds, seconds_most, millis, wire, baseline };
    let report = bench::run(settings, &["bench-stage", "outside"], output::complain)
        .map_err(|error| CliError::Ended(error.to_string()))?;
    for (name, text) in svg.iter().flat_map(|_| chart::charts(&report)) {
        let path = svg.clone().unwrap_or_default().join(name);
        std::fs::write(&path, text).map_err(|source| CliError::Create { path, source })?;
    }
    output::render(form.output, &report, Report::table)?;
    Ok(if report.rows.is_empty() { FAILED } else { DONE })
}

/// Each once, in the order given.
fn once<T: PartialEq + Copy>(words: Vec<T>) -> Vec<T> {
    let mut seen = Vec::new();
    for word in words {
        if !seen.contains(&word) {
            seen.push(word);
        }
    }
    seen
}

/// `dvr bench-stage`.
///
/// # Errors
/// When there is no stage, or the task is none.
pub(super) fn stage(life: Life, task: &str) -> Result<u8, CliError> {
    let next = |life: &str| ["bench-stage", life, task].map(OsString::from);
    match life {
        Life::Outside => Ok(Stage::Outside.live(&next("inside"))?),
        Life::Inside => Ok(Stage::Inside.live(&next("act"))?),
        Life::Act => {
            lab::die_with_parent()?;
            let task: Task =
                serde_json::from_str(task).map_err(|error| CliError::Usage(format!("no task: {error}")))?;
            output::render(Output::Json, &bench::act(&task), |_| String::new())
        }
    }
}
