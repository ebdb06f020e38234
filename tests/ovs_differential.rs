//! Our switch against a real Open vSwitch.

mod ovs;

use ovs::daemon::Daemon;
use ovs::{daemon, generate};

#[test]
fn temp() {
    assert!(daemon::installed());
    let mut d = Daemon::start(&generate::ports());
    #[expect(clippy::disallowed_methods, reason = "temp")]
    let start = std::time::Instant::now();
    let n: u64 = std::env::var("N").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    let mut bad = 0;
    for seed in 0..n {
        let case = generate::case(seed, 30);
        match d.run(&case) {
            Ok(a) => {
                if seed < 300 {
                    println!("{}", case.write(&format!("seed {seed}"), &a));
                }
                for (s, a) in case.steps.iter().zip(&a) {
                    if s.is_question() && (a.is_empty() || a.starts_with("error")) {
                        println!("{s}: {a}");
                    }
                }
            }
            Err(e) => {
                bad += 1;
                println!("seed {seed}: {}", e.0.lines().next().unwrap_or(""));
                let n: usize =
                    e.0.split("-:").nth(1).and_then(|t| t.split(':').next()).and_then(|t| t.parse().ok()).unwrap_or(0);
                println!(
                    "{}",
                    e.0.lines()
                        .filter(|l| l.starts_with("add") || l.starts_with("del") || l.starts_with("mod"))
                        .nth(n.max(1) - 1)
                        .unwrap_or("")
                );
            }
        }
    }
    println!("{n} sets {bad} bad {:?}", start.elapsed());
}
