//! Our switch against a real Open vSwitch: random tables and frames, and every case that once differed.
//!
//! Compared for each frame: the flow read from its octets, the final flow, the datapath's actions; between them, which
//! changes and bundles are refused; and afterwards both bridges' flows, dumps with filters, and learned addresses.
//! Texts of flows, well and ill formed, are to be taken or refused by both, and to match the same. What may differ is
//! named in `ovs/compare.rs`.
//!
//! Environment:
//! - `DVR_REQUIRE_PEERS=1`: fail where Open vSwitch is not installed, as CI does; otherwise only the recorded cases run
//!   there, and a line says so.
//! - `DVR_OVS_CASES=N`: how many frames to compare, a few thousand without it.
//! - `DVR_OVS_FRAMES=N`: how many of them one set of tables gets.
//! - `DVR_OVS_TEXTS=N`: how many texts of flows to compare, a few hundred without it.
//! - `DVR_OVS_SEED=N`: the first table set's seed. A failure prints its own.
//! - `DVR_OVS_KEEP_GOING=N`: go on until so many sets differ.
//! - `DVR_OVS_RECORD=1`: write down anew what Open vSwitch says to the cases in `tests/ovs/cases`.
//!
//! What we mean to do otherwise, and so is not asked or left out of the comparison:
//! - `NORMAL` does not flood from tunnel to tunnel (split horizon): the generator has it on br-int only.
//! - There is no OpenFlow controller: what would go there does not count.
//! - `modify` that finds nothing adds nothing, as from OpenFlow 1.1 on.
//! - Flows are printed as they were written, not as one OpenFlow version would carry them: the generator writes them
//!   as the version that it uses prints them.
//! - `tun_tos` is shown with its `0x`.
//! - OVS gives up when a frame's actions pass the 64 KiB of a netlink attribute. Ours may be 65,536: a flood to all ports of a
//!   large node is longer. What follows such a frame in a case is not compared.
//! - Text that OVS takes for something else than it says is refused: `ovs/generate/text.rs` lists it.
//! - A flow of a bundle with `check_overlap` is refused for one that it overlaps, even one added earlier in that bundle.
//!   OVS looks for such in what its readers see (`classifier_rule_overlaps()` over a `pvector`), where a kind of mask new
//!   to the table, or a priority above all others of its mask, comes only with the bundle's end: it takes the flow then,
//!   and refuses it if the table held the mask before. `overlap-in-a-bundle.txt` has the case in which it refuses; the
//!   generator leaves out the rest.
//! - A trace uses no flow, so flows that shorten their own idle time at the end of TCP get times that do not run out:
//!   when OVS looks for what is idle between two traces is up to its main loop. A recorded case has that time run out.

#![expect(clippy::expect_used, reason = "what a test needs and does not get ends it")]

mod ovs;

use std::io::Write;
use std::path::PathBuf;

use ovs::case::{Case, Step};
use ovs::compare::difference;
use ovs::daemon::{self, Daemon};
use ovs::shrink::shrink;
use ovs::{generate, ours};

/// Frames per set of tables unless told otherwise.
const FRAMES: usize = 40;
/// Frames compared unless told otherwise.
const CASES: usize = 4_000;
/// Texts of flows per set.
const TEXTS: usize = 20;
/// Texts compared unless told otherwise.
const ALL_TEXTS: usize = 600;

fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// The cases by name, with their text.
fn recorded() -> Vec<(PathBuf, String)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/ovs/cases");
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("cannot list {}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a directory entry").path()).collect();
    paths.sort();
    let text = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, text)
    };
    paths.into_iter().map(text).collect()
}

/// How the two differ on a case; `None` also if OVS does not take its flows.
fn compared(daemon: &mut Daemon, case: &Case) -> Option<(usize, String)> {
    let theirs = daemon.run(case).ok()?;
    match ours::run(case) {
        Ok(ours) => difference(case, &ours, &theirs),
        Err((at, why)) => Some((at, format!("OVS takes what dvr refuses: {why}\n"))),
    }
}

/// A smaller case that differs in the same step's kind.
fn smallest(daemon: &mut Daemon, case: &Case, at: usize) -> Case {
    let kind = std::mem::discriminant(&case.steps[at]);
    let mut case = case.clone();
    case.steps.truncate(at + 1);
    shrink(&case, |candidate| {
        compared(daemon, candidate).is_some_and(|(at, _)| std::mem::discriminant(&candidate.steps[at]) == kind)
    })
}

#[test]
fn every_recorded_case_comes_out_as_open_vswitch_had_it() {
    let cases = recorded();
    assert!(!cases.is_empty(), "tests/ovs/cases is empty");
    let mut failed = String::new();
    for (path, text) in &cases {
        let (case, theirs) = Case::read(text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        assert!(case.steps.iter().any(Step::is_question), "{} asks nothing", path.display());
        let differs = match ours::run(&case) {
            Ok(ours) => difference(&case, &ours, &theirs),
            Err((at, why)) => Some((at, why)),
        };
        if let Some((at, how)) = differs {
            failed += &format!("{}: {}\n{how}\n", path.display(), case.steps[at]);
        }
    }
    assert!(failed.is_empty(), "{failed}");
}

/// Whether to compare with Open vSwitch; it says so if not.
fn peer_is_here() -> bool {
    if daemon::installed() {
        return true;
    }
    let missing = format!("Open vSwitch is the peer of this test: install the package {}", daemon::PACKAGE);
    assert!(std::env::var_os("DVR_REQUIRE_PEERS").is_none(), "{missing}");
    // Past the harness, which would keep it to itself.
    writeln!(std::io::stderr(), "only recorded cases were compared. {missing}").expect("standard error");
    false
}

/// Compares generated cases, each of so many questions, until there were enough.
fn compare(daemon: &mut Daemon, wanted: usize, each: usize, make: impl Fn(u64) -> Case) {
    let first = setting("DVR_OVS_SEED").unwrap_or(1);
    let most = setting("DVR_OVS_KEEP_GOING").unwrap_or(1);
    let (mut asked, mut found) = (0, 0);
    for seed in first.. {
        if asked >= wanted || found >= most {
            break;
        }
        let case = make(seed);
        let theirs = match daemon.run(&case) {
            Ok(theirs) => theirs,
            Err(refused) => panic!("the generator made flows that OVS refuses, with seed {seed}: {}", refused.0),
        };
        asked += each;
        if asked % 4_000 < each {
            println!("{asked} compared");
        }
        let differs = match ours::run(&case) {
            Ok(ours) => difference(&case, &ours, &theirs),
            Err((at, why)) => Some((at, why)),
        };
        let Some((at, how)) = differs else { continue };
        found += 1;
        // Making it smaller may take minutes.
        let head: Vec<&str> = how.lines().take(4).collect();
        println!("==== seed {seed} differs\n{}", head.join("\n"));
        let small = smallest(daemon, &case, at);
        let answers = daemon.run(&small).expect("OVS took it while it was made smaller");
        let (_, how) = compared(daemon, &small).unwrap_or((0, how));
        println!("smaller:\n{how}\n{}", small.write(&format!("Seed {seed}."), &answers));
    }
    println!("{asked} compared, {found} sets differ");
    assert_eq!(found, 0, "see above; DVR_OVS_SEED=… DVR_OVS_CASES=1 runs one set again");
}

fn wanted(name: &str, otherwise: usize) -> usize {
    setting(name).map_or(otherwise, |count| usize::try_from(count).expect("fits"))
}

#[test]
fn random_tables_and_frames_come_out_as_in_open_vswitch() {
    if !peer_is_here() {
        return;
    }
    let mut daemon = Daemon::start(&generate::ports());
    record(&mut daemon);
    let frames = wanted("DVR_OVS_FRAMES", FRAMES);
    compare(&mut daemon, wanted("DVR_OVS_CASES", CASES), frames, |seed| generate::case(seed, frames));
}

#[test]
fn random_texts_are_taken_or_refused_as_by_open_vswitch() {
    if !peer_is_here() {
        return;
    }
    let mut daemon = Daemon::start(&generate::ports());
    compare(&mut daemon, wanted("DVR_OVS_TEXTS", ALL_TEXTS), TEXTS, |seed| generate::texts(seed, TEXTS));
}

/// Writes down what OVS says to the recorded cases, if told to.
fn record(daemon: &mut Daemon) {
    if setting("DVR_OVS_RECORD") != Some(1) {
        return;
    }
    for (path, text) in recorded() {
        let (case, _) = Case::read(&text).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        let comment = text.lines().map_while(|line| line.strip_prefix('#').map(str::trim));
        let title = comment.collect::<Vec<_>>().join("\n");
        let answers = daemon.run(&case).unwrap_or_else(|refused| panic!("{}: {}", path.display(), refused.0));
        std::fs::write(&path, case.write(&title, &answers))
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }
}
