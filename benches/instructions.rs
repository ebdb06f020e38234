//! How many instructions the engine takes per packet, against a budget: times are noisy, this is the same on any machine.
//!
//! `cargo bench --no-default-features --bench instructions`, as CI does. It runs itself under callgrind (Debian:
//! `valgrind`), each scenario with few packets and with many: what more packets take more is what packets take. Over its
//! budget a scenario fails the run; well under it, too, so that what was won is kept.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

#[path = "engine/past.rs"]
mod past;
#[path = "engine/rig.rs"]
#[expect(dead_code, reason = "the other bench measures more")]
mod rig;
#[path = "engine/stream.rs"]
mod stream;

use std::process::{Command, ExitCode};

use past::Past;
use rig::{Bench, LEARN, masked, rewrite, walked};
use stream::{Stream, join};

/// Packets of the run that is subtracted: all that is done once is in it.
const FEW: u32 = 2_000;
/// Packets of the other run.
const MANY: u32 = 6_000;
/// A scenario may take this many per cent less than its budget; less than that, and the budget is out of date.
const SLACK: u64 = 25;

/// What packets meet.
struct Scenario {
    name: &'static str,
    /// Instructions a packet, at most.
    budget: u64,
    run: fn(packets: u32),
}

/// A budget of what sums the payload of 45 segments: a processor without AVX2 takes more for it.
fn summed(budget: u64) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        return budget;
    }
    budget + 18_000
}

fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario { name: "exact hit", budget: 730, run: exact },
        Scenario { name: "masked hit, 1 mask", budget: 940, run: |packets| masked_hits(packets, 1) },
        Scenario { name: "masked hit, 8 masks", budget: 1_320, run: |packets| masked_hits(packets, 8) },
        Scenario { name: "masked hit, 32 masks", budget: 2_590, run: |packets| masked_hits(packets, 32) },
        Scenario { name: "past a router", budget: 1_780, run: routed },
        Scenario { name: "by a tunnel", budget: 820, run: tunnelled },
        Scenario { name: "walk, 1 table", budget: 12_000, run: |packets| misses(packets, 1) },
        Scenario { name: "walk, 10 tables", budget: 24_100, run: |packets| misses(packets, 10) },
        Scenario { name: "learn a new address", budget: 19_000, run: learned },
        Scenario { name: "cut 45 segments", budget: summed(29_000), run: cut },
        Scenario { name: "join 45 segments", budget: summed(32_000), run: joined },
    ]
}

fn exact(packets: u32) {
    let mut bench = Bench::new([rewrite()]);
    (0..packets).for_each(|_| bench.run());
}

fn routed(packets: u32) {
    let mut past = Past::new();
    (0..packets).for_each(|_| past.routed());
}

fn tunnelled(packets: u32) {
    let mut past = Past::new();
    (0..packets).for_each(|_| past.tunnelled());
}

fn masked_hits(packets: u32, masks: u32) {
    let mut bench = Bench::new(masked(masks));
    (0..packets).for_each(|number| bench.run_masked(number, masks));
}

fn misses(packets: u32, tables: u32) {
    let mut bench = Bench::new(walked(tables));
    (0..packets).for_each(|_| bench.run_missed());
}

fn learned(packets: u32) {
    let mut bench = Bench::new([LEARN.to_owned()]);
    (0..packets).for_each(|station| bench.run_of(station));
}

fn cut(packets: u32) {
    let mut stream = Stream::new();
    (0..packets).for_each(|_| stream.cut());
}

fn joined(packets: u32) {
    let segments = Stream::new().segments();
    (0..packets).for_each(|_| join(&segments));
}

/// Instructions of a whole run of this program.
fn instructions(scenario: usize, packets: u32) -> u64 {
    let program = std::env::current_exe().expect("a running program has a path");
    #[expect(clippy::disallowed_methods, reason = "what counts instructions")]
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program);
    let output = command.args(["run", &scenario.to_string(), &packets.to_string()]).output();
    let output = output.expect("install valgrind: it counts the instructions");
    let told = String::from_utf8_lossy(&output.stderr);
    let count = told.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    match count {
        Some(count) if output.status.success() => count,
        _ => panic!("callgrind counted nothing ({}):\n{told}", output.status),
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [_, scenario, packets] = &words[..] {
        let number = |text: &String| text.parse::<u32>().expect("our own command line");
        let scenario = usize::try_from(number(scenario)).expect("our own command line");
        (scenarios()[scenario].run)(number(packets));
        return ExitCode::SUCCESS;
    }
    println!("{:24} {:>8} {:>8}", "instructions a packet", "taken", "budget");
    let mut kept = true;
    for (index, Scenario { name, budget, .. }) in scenarios().iter().enumerate() {
        let taken = (instructions(index, MANY) - instructions(index, FEW)) / u64::from(MANY - FEW);
        let verdict = match taken {
            taken if taken > *budget => "  over its budget",
            taken if taken * 100 < budget * (100 - SLACK) => "  far under its budget: lower that",
            _ => "",
        };
        kept &= verdict.is_empty();
        println!("{name:24} {taken:8} {budget:8}{verdict}");
    }
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
