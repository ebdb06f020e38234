//! A ping between machines of a lab, request by request.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::user::User;

/// A reply to a ping: when it came, by the time of day, and to which request.
type Answer = (f64, u64);

/// A ping that goes on until it is ended, and the replies it has had.
pub(crate) struct Ping {
    child: Child,
    heard: Arc<Mutex<Vec<Answer>>>,
}

impl Ping {
    pub(crate) fn start(user: &User, from: &str, to: &str, interval: &str) -> Self {
        let words = ["lab", "exec", from, "--name", &user.lab, "--", "ping", "-D", "-n", "-i", interval, to];
        let mut command = user.command(&words);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
        let out = child.stdout.take().expect("it is piped");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = Arc::clone(&heard);
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok).filter(|line| line.contains("bytes from")) {
                let time = line.strip_prefix('[').and_then(|rest| rest.split(']').next()?.parse().ok());
                let number = line.split("icmp_seq=").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
                hearing.lock().expect("no panic").extend(time.zip(number));
            }
        });
        Self { child, heard }
    }

    /// When replies came.
    pub(crate) fn replies(&self) -> Vec<f64> {
        self.heard.lock().expect("no panic").iter().map(|(time, _)| *time).collect()
    }

    pub(crate) fn first_after(&self, time: f64) -> f64 {
        crate::until("a reply", || self.replies().into_iter().find(|at| *at >= time))
    }

    /// Ends it. Gives how many replies came, and which requests before the last that was replied to had none: later ones
    /// may be under way.
    pub(crate) fn end(mut self) -> (usize, Vec<u64>) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("process ids fit"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).expect("our child");
        self.child.wait().expect("our child");
        let heard = self.heard.lock().expect("no panic");
        let numbers: BTreeSet<u64> = heard.iter().map(|(_, number)| *number).collect();
        let last = numbers.last().copied().unwrap_or_default();
        (numbers.len(), (1..last).filter(|number| !numbers.contains(number)).collect())
    }
}
