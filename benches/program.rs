//! What it takes to program one node with ten thousand machines elsewhere, beside the tools that people do it with.
//!
//! `cargo bench --bench program`. As any user, in user, network and mount namespaces of its own; nothing is left. In turns: this
//! agent with its switch, all at once and one more; the same neighbours by `ip -batch`, the same forwarding entries
//! by `bridge -batch`; the same flows by `ovs-ofctl add-flows` into Open vSwitch. A peer that is not installed is named.
//!
//! `DVR_PORTS=1000` and `DVR_RUNS=9` make it smaller, or surer.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]
#![expect(clippy::disallowed_methods, reason = "what is measured is time, and other programs")]

#[path = "../tests/agents/controller.rs"]
#[expect(dead_code, reason = "tests need more of it")]
mod controller;
#[path = "program/node.rs"]
mod node;
#[path = "program/peers.rs"]
mod peers;
#[path = "../tests/support/sys.rs"]
#[expect(dead_code, reason = "tests use another part of this too")]
mod sys;

use std::process::Command;
use std::time::Duration;

use node::{Node, Set};
use peers::{Bridge, Ip, Ovs};

/// Set in the process that has namespaces of its own.
const INSIDE: &str = "DVR_BENCH_INSIDE";

fn number(variable: &str, otherwise: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn main() {
    if std::env::var_os(INSIDE).is_some() {
        return measure(number("DVR_PORTS", 10_000), number("DVR_RUNS", 7));
    }
    let mut command = Command::new(std::env::current_exe().expect("this program's path"));
    command.env(INSIDE, "1");
    sys::isolate(&mut command, true);
    let status = command.status().expect("user namespaces are allowed here: `dvr doctor` says how to allow them");
    assert!(status.success(), "the measurement failed");
}

/// Durations of one thing, run by run.
#[derive(Default)]
struct Figures {
    rows: Vec<(String, Vec<Duration>)>,
}

impl Figures {
    fn add(&mut self, what: &str, took: impl IntoIterator<Item = Duration>) {
        match self.rows.iter_mut().find(|(name, _)| name == what) {
            Some((_, all)) => all.extend(took),
            None => self.rows.push((what.to_owned(), took.into_iter().collect())),
        }
    }

    /// Median, least and greatest of each.
    fn tell(&mut self) {
        for (what, all) in &mut self.rows {
            all.sort_unstable();
            let millis = |took: Duration| took.as_secs_f64() * 1e3;
            let (Some(least), Some(most)) = (all.first(), all.last()) else { continue };
            let (median, least, most) = (millis(all[all.len() / 2]), millis(*least), millis(*most));
            println!("  {what:<62} {median:>9.2} ms   ({least:.2} to {most:.2}, {} runs)", all.len());
        }
    }
}

/// Has a peer do its part, unless it is missing.
fn run_one<P>(peer: &mut Result<P, String>, run: impl FnOnce(&mut P) -> Result<(), String>) -> Result<(), String> {
    peer.as_mut().map_err(|missing| missing.clone()).and_then(run)
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

fn measure(ports: u32, runs: u32) {
    for set in [Set { ports, ipv6: false }, Set { ports, ipv6: true }] {
        let mut figures = Figures::default();
        let before = load();
        let mut node = Node::start(set);
        let program = node.program();
        println!(
            "{ports} machines elsewhere, {}: {} flows, {} neighbour entries",
            if set.ipv6 { "IPv4 and IPv6" } else { "IPv4" },
            program.flows(),
            program.neighbours.len()
        );
        let mut ip = Ip::start();
        let mut bridge = Bridge::start();
        let mut ovs = Ovs::start(&program);
        for _ in 0..runs {
            node.run(&mut figures);
            for peer in [
                run_one(&mut ip, |ip| ip.run(&program, &mut figures)),
                run_one(&mut bridge, |bridge| bridge.run(&program, &mut figures)),
                run_one(&mut ovs, |ovs| ovs.run(&program, &mut figures)),
            ] {
                if let Err(missing) = peer {
                    figures.add(&format!("not measured: {missing}"), []);
                }
            }
        }
        figures.tell();
        for (what, _) in figures.rows.iter().filter(|(_, all)| all.is_empty()) {
            println!("  {what}");
        }
        println!("  load average before {before}, after {}\n", load());
        node.stop();
    }
}
