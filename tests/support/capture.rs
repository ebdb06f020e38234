//! Captures at places of a lab.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use dvr::capture::pcapng;

use crate::user::User;

/// A capture that runs until [`Self::end`].
pub(crate) struct Capture {
    child: Child,
    file: PathBuf,
}

impl Capture {
    /// Captures at a place, by all interfaces or, with `more`, by some; what is sent once this returns is seen.
    pub(crate) fn start(user: &User, place: &str, more: &[&str]) -> Self {
        let file = std::env::temp_dir().join(format!("{}-{}.pcapng", user.lab, place.replace('/', "-")));
        let path = file.to_str().expect("a UTF-8 path");
        let words = [&["capture", place, "-w", path, "--name", &user.lab], more].concat();
        let mut child = user.command(&words).stderr(Stdio::piped()).spawn().expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stderr.as_mut().expect("a pipe")).read_line(&mut line).expect("a line");
        assert!(line.contains("capturing at"), "the capture at {place} did not begin: {line}");
        Self { child, file }
    }

    /// Ends the capture and gives its frames.
    pub(crate) fn end(mut self) -> Vec<Vec<u8>> {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().expect("a process id"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("the capture runs");
        assert!(self.child.wait().expect("a child").success(), "the capture failed");
        let file = std::fs::File::open(&self.file).expect("the capture's file");
        let frames = pcapng::read(file).expect("a whole capture");
        frames.into_iter().map(|frame| frame.octets).collect()
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // Already gone after `end`; a test that failed before it must not leave the process behind.
        let _gone = self.child.kill().and_then(|()| self.child.wait());
        let _gone = std::fs::remove_file(&self.file);
    }
}
