//! `dvr bench`, shortly: its report is complete, nothing is left, and what its figures are is nobody's business here.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

#[path = "support/fast.rs"]
#[expect(dead_code, reason = "nobody but the bench brings labs up here")]
mod fast;
#[path = "support/user.rs"]
#[expect(dead_code, reason = "labs need more of it")]
mod user;

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use user::User;

/// Processes of this machine that are part of a bench whose runs last so many milliseconds.
fn processes(millis: &str) -> Vec<String> {
    let mark = format!("\"millis\":{millis},");
    let lines = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    });
    lines.filter(|line| line.contains(&mark)).collect()
}

/// Input: one round of two peers, a few milliseconds each. Output: a figure of each for everything that was asked for.
#[test]
fn a_short_bench_is_complete_and_leaves_nothing() {
    for user in User::everybody("bench") {
        let words = "bench --peers veth,dvr --baseline veth --measures tcp1,pps1,rtt,cold --ways routed --rounds 1";
        let words: Vec<&str> = words.split(' ').chain(["--seconds", "0.041", "-o", "json"]).collect();
        let output = user.run_bare(&words);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        // Who may not open the device node has veth pairs for ports, and is told.
        let left_out = report["left_out"].as_array().expect("a list");
        assert!(left_out.iter().all(|why| why.as_str().is_some_and(|why| why.contains("veth pairs"))), "{left_out:?}");
        let rows = report["rows"].as_array().expect("a list");
        for metric in ["tcp1", "cpu", "pps1", "rtt-median", "rtt-tail", "cold"] {
            let row = rows.iter().find(|row| row["metric"] == metric).unwrap_or_else(|| panic!("{metric}: {report:#}"));
            for peer in ["veth", "dvr"] {
                let figure = &row["figures"][peer];
                // So short a run may take no tick of the processors' time.
                let some = |value: f64| value > 0.0 || metric == "cpu" && value == 0.0;
                assert!(figure["spread"]["median"].as_f64().is_some_and(some), "{metric}: {row:#}");
            }
        }
        assert_eq!(processes("41"), Vec::<String>::new());
    }
}

/// Input: peers that take BPF. Output: a figure of each, or that it takes what this user has not.
#[test]
fn peers_that_take_bpf_are_measured_or_said_to_be_left_out() {
    let words = "bench --peers kernel-bpf,fast --baseline fast --measures tcp1 --rounds 1 --seconds 0.047 -o json";
    let user = User::new("bench-bpf", false);
    let output = user.run_bare(&words.split(' ').collect::<Vec<_>>());
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let left_out = report["left_out"].as_array().expect("a list");
    let may = fast::has_bpf("peers of the bench that take BPF");
    for peer in ["kernel-bpf", "fast"] {
        let rows = report["rows"].as_array().expect("a list");
        let row = rows.iter().find(|row| row["metric"] == "tcp1" && row["way"] == "routed");
        let figure = row.and_then(|row| row["figures"][peer]["spread"]["median"].as_f64());
        let excuse = left_out.iter().filter_map(Value::as_str).find(|why| why.starts_with(&format!("{peer}:")));
        assert_eq!(figure.is_some(), may, "{peer}: {report:#}");
        assert_eq!(excuse.is_some_and(|why| why.contains("CAP_BPF")), !may, "{peer}: {left_out:?}");
    }
}

/// Input: the end, told to the command alone, while a peer is being measured. Output: every process of it ends. By SIGTERM:
/// whoever runs tests in the background of a shell has them ignore SIGINT.
#[test]
fn an_interrupted_bench_leaves_nothing() {
    let user = User::new("bench-cut", nix::unistd::geteuid().is_root());
    let words = ["bench", "--peers", "dvr", "--measures", "tcp1", "--rounds", "1", "--seconds", "600.043"];
    let mut child = user.command(&words).stdout(Stdio::null()).spawn().expect("the program starts");
    // Outside, inside, and at work.
    while processes("600043").len() < 3 {
        assert_eq!(child.try_wait().expect("our child"), None, "it ended before it had begun");
        std::thread::yield_now();
    }
    kill(Pid::from_raw(i32::try_from(child.id()).expect("process ids fit")), Signal::SIGTERM).expect("our child");
    assert!(!child.wait().expect("our child").success());
    // They end by themselves, perhaps a moment after the command.
    while !processes("600043").is_empty() {
        std::thread::yield_now();
    }
}
