//! A user of labs: runs the program under test on one lab, and takes it down when the test is over.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The uid and gid that stand for a plain user: `nobody` of every distribution.
pub(crate) const NOBODY: u32 = 65_534;

/// A user of labs, with one lab that goes down when the test is over.
pub(crate) struct User {
    pub(crate) program: PathBuf,
    pub(crate) plain: bool,
    pub(crate) lab: String,
    /// Whether its lab is brought up with the kernel fast path.
    pub(crate) fast: bool,
    /// How many workers its lab's switches have; zero for as many as they like.
    pub(crate) workers: u32,
}

impl User {
    pub(crate) fn new(lab: &str, plain: bool) -> Self {
        let lab = format!("{lab}-{}", std::process::id());
        let program = if plain { copied(&lab) } else { PathBuf::from(env!("CARGO_BIN_EXE_dvr")) };
        Self { program, plain, lab, fast: false, workers: 0 }
    }

    /// Everybody the labs must work for: whoever runs the tests, and a plain user if that is root.
    pub(crate) fn everybody(lab: &str) -> Vec<Self> {
        let mut users = vec![Self::new(lab, false)];
        if nix::unistd::geteuid().is_root() {
            users.push(Self::new(&format!("{lab}-u"), true));
        }
        users
    }

    /// Runs the program on this lab.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let (before, after) =
            arguments.split_at(arguments.iter().position(|word| *word == "--").unwrap_or(arguments.len()));
        let all: Vec<&str> =
            before.iter().copied().chain(["--name", self.lab.as_str()]).chain(after.iter().copied()).collect();
        self.run_bare(&all)
    }

    /// Runs the program with these arguments and no other.
    pub(crate) fn run_bare(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program starts")
    }

    /// The program as this user, not yet started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        #[expect(clippy::disallowed_methods, reason = "the program under test")]
        let mut command = Command::new(&self.program);
        command.args(arguments);
        if self.plain {
            command.uid(NOBODY).gid(NOBODY).env_remove("XDG_RUNTIME_DIR").current_dir("/");
        }
        command
    }

    /// What a command that must succeed prints.
    pub(crate) fn good(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?} ended with {}:\n{out}{err}", output.status);
        out.into_owned()
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.good(arguments);
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?} printed no JSON ({error}): {text}"))
    }

    pub(crate) fn exec_json(&self, place: &str, command: &[&str]) -> Value {
        let words: Vec<&str> = ["lab", "exec", place, "--"].into_iter().chain(command.iter().copied()).collect();
        self.json(&words)
    }

    pub(crate) fn up(&self, file: Option<&Path>) -> String {
        let file = file.map(|file| file.display().to_string());
        let fast: &[&str] = if self.fast { &["--fast-path", "on"] } else { &[] };
        let workers = self.workers.to_string();
        let several: &[&str] = if self.workers > 0 { &["--workers", &workers] } else { &[] };
        let options = fast.iter().chain(several).copied();
        let words: Vec<&str> = ["lab", "up"].into_iter().chain(file.as_deref()).chain(options).collect();
        self.good(&words)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _down = self.run(&["lab", "down"]);
        if self.plain {
            let _gone = std::fs::remove_file(&self.program);
        }
    }
}

/// The program where a plain user may run it. Another process copies it: what is open here for writing while another test
/// starts a program is open in that too until it runs, and nobody may run the copy so long (execve(2), `ETXTBSY`).
fn copied(lab: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("dvr-{lab}"));
    #[expect(clippy::disallowed_methods, reason = "a process that shares no descriptors with this one")]
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_dvr")).arg(&path).status();
    assert!(copied.expect("cp is everywhere").success(), "no copy of the program");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("permissions");
    path
}
