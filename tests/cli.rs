//! The command line from outside: help, refusals, exit codes. Nothing here starts a lab.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;
use std::process::{Command, Output};

/// Runs the program in a directory of its own, where no lab is known.
fn dvr(arguments: &[&str]) -> (Output, String, String) {
    let nowhere = scratch();
    #[expect(clippy::disallowed_methods, reason = "the program under test")]
    let output = Command::new(env!("CARGO_BIN_EXE_dvr"))
        .args(arguments)
        .current_dir(&nowhere)
        .env("XDG_RUNTIME_DIR", &nowhere)
        .output()
        .expect("the program starts");
    let out = String::from_utf8(output.stdout.clone()).expect("text");
    let err = String::from_utf8(output.stderr.clone()).expect("text");
    (output, out, err)
}

fn scratch() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cli");
    std::fs::create_dir_all(&dir).expect("a scratch directory");
    dir
}

#[test]
fn help_names_every_command_and_every_exit_code() {
    let (output, out, _) = dvr(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for word in [
        "lab",
        "agent",
        "switch",
        "purge",
        "show",
        "dump-flows",
        "add-flow",
        "fdb",
        "arp",
        "neigh",
        "doctor",
        "completions",
        "man",
    ] {
        assert!(
            out.lines().any(|line| line.trim_start().starts_with(&format!("{word} ")) || line.trim() == word),
            "{word} is not in the help"
        );
    }
    for code in ["0    done", "1    ", "2    ", "3    "] {
        assert!(out.contains(code), "exit code {code} is not documented");
    }
    assert!(!out.contains("lab-init") && !out.contains("lab-keep"), "what only a lab starts is shown to users");
}

#[test]
fn bad_usage_is_exit_code_2() {
    for arguments in [
        &["frobnicate"][..],
        &["lab"],
        &["lab", "up", "--name", "../x"],
        &["lab", "down", "--all", "--name", "x"],
        &["show", "-o", "xml"],
    ] {
        let (output, _, err) = dvr(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {err}");
        assert!(!err.is_empty(), "{arguments:?} was refused without a word");
    }
}

#[test]
fn a_lab_that_is_not_there_is_exit_code_3() {
    for arguments in [
        &["lab", "exec", "--name", "no-such-lab", "blue1", "--", "true"][..],
        &["lab", "test", "--name", "no-such-lab"],
        &["lab", "kill", "node1", "switch", "--name", "no-such-lab"],
        &["show", "--name", "no-such-lab"],
        &["dump-flows", "node1/br-int", "--name", "no-such-lab"],
        &["neigh", "--name", "no-such-lab", "-o", "json"],
    ] {
        let (output, _, err) = dvr(arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {err}");
        assert!(err.starts_with("dvr: lab `no-such-lab` is not running"), "{arguments:?}: {err}");
    }
}

#[test]
fn down_is_done_when_nothing_is_up() {
    let (output, out, err) = dvr(&["lab", "down", "--name", "no-such-lab"]);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert_eq!(out, "lab `no-such-lab` is not there\n");
}

#[test]
fn a_bad_topology_names_its_place_and_touches_nothing() {
    let dir = scratch();
    let file = dir.join("bad.yaml");
    let text = "version: 1\nnodes: {node1: {}}\nnetworks: {blue: {type: vxlan, subnets: [{cidr: 10.1.0.0/24}]}}\nvms:\n  blue1: {node: node7, network: blue}\n";
    std::fs::write(&file, text).expect("a file");
    let path = file.display().to_string();
    let (output, out, err) = dvr(&["lab", "up", &path, "--name", "bad-topology"]);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert_eq!(out, "");
    let place = format!("{path}:5:17");
    assert!(err.contains(&place), "the mistake's place {place} is not told: {err}");
    assert!(err.contains("node7"), "the mistake's value is not told: {err}");
    assert!(!dir.join("dvr").exists(), "a refused topology left a directory");
    let (_, listed, _) = dvr(&["lab", "ls", "-o", "json"]);
    assert!(!listed.contains("bad-topology"), "a refused topology left a lab: {listed}");
}

#[test]
fn a_file_that_is_not_there_is_bad_input() {
    let (output, _, err) = dvr(&["lab", "up", "no-such-file.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(err, "dvr: cannot read no-such-file.yaml: No such file or directory (os error 2); check the path\n");
}

#[test]
fn doctor_says_the_same_to_people_and_programs() {
    let (_, text, err) = dvr(&["doctor"]);
    let (_, json, _) = dvr(&["doctor", "-o", "json"]);
    let findings: Vec<serde_json::Value> =
        serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}{err}"));
    assert!(findings.len() > 8, "doctor looked at {} things only", findings.len());
    for finding in &findings {
        let what = finding["what"].as_str().expect("a name");
        assert!(text.contains(what), "{what} is told to programs only");
        let fine = finding["verdict"] == "ok";
        assert_eq!(
            finding["remedy"].as_str().expect("a text").is_empty(),
            fine,
            "{what}: a remedy where one is needed"
        );
    }
}

#[test]
fn completions_and_manual_are_generated() {
    let (output, bash, _) = dvr(&["completions", "bash"]);
    assert!(output.status.success() && bash.contains("dump-flows"));
    let (output, man, _) = dvr(&["man"]);
    assert!(output.status.success() && man.starts_with(".ie") && man.contains("Exit codes"), "{man}");
    assert!(man.contains("no\\-stats") && man.contains("lab"), "the commands' own options are missing");
}
