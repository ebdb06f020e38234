//! Real etcd, on loopback: one member or several, killed and started again on what they had.

use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::loopback::place;

/// `None`, with a line, where etcd is not installed and need not be.
pub(crate) fn installed() -> Option<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join("etcd").is_file()) {
        return Some(());
    }
    let required = std::env::var_os("DVR_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "etcd is not installed: install Debian's `etcd-server`");
    println!("etcd is not installed (Debian: `etcd-server`): this did not run");
    None
}

/// How members run.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct How {
    /// Whether clients come by TLS: with `ca.pem`, `server.pem` and `server.key` of the directory, and asked for theirs.
    pub(crate) tls: bool,
    /// As which user and group; without one as whoever runs the tests.
    pub(crate) user: Option<u32>,
}

/// Where a member listens, and its process while it runs.
struct Member {
    clients: SocketAddr,
    peers: SocketAddr,
    child: Option<Child>,
}

/// Members of one cluster, in a directory that somebody else removes; dropping it kills them.
pub(crate) struct Members {
    dir: PathBuf,
    how: How,
    members: Vec<Member>,
}

impl Members {
    /// So many members, none of which runs yet; `None`, with a line, where etcd is not installed and need not be.
    pub(crate) fn planned(dir: &Path, count: usize, how: How) -> Option<Self> {
        installed()?;
        let member = |_| Member { clients: place(), peers: place(), child: None };
        Some(Self { dir: dir.to_path_buf(), how, members: (0..count).map(member).collect() })
    }

    /// Starts all of them; does not wait for them.
    pub(crate) fn start(&mut self) {
        (0..self.members.len()).for_each(|number| self.restart(number));
    }

    /// A SIGKILL.
    pub(crate) fn kill(&mut self, number: usize) {
        let mut child = self.members[number].child.take().expect("it runs");
        child.kill().expect("our child");
        child.wait().expect("our child");
    }

    /// On the same data and ports; does not wait for it.
    pub(crate) fn restart(&mut self, number: usize) {
        let child = self.command(number).spawn().unwrap_or_else(|error| panic!("cannot start etcd: {error}"));
        self.members[number].child = Some(child);
    }

    /// A member's process.
    pub(crate) fn pid(&self, number: usize) -> u32 {
        self.members[number].child.as_ref().expect("it runs").id()
    }

    /// Where clients find them.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        let scheme = if self.how.tls { "https" } else { "http" };
        self.members.iter().map(|member| format!("{scheme}://{}", member.clients)).collect()
    }

    /// What members have said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    fn command(&self, number: usize) -> Command {
        let Self { dir, how, members } = self;
        let peers = members[number].peers;
        let cluster: Vec<String> =
            members.iter().enumerate().map(|(number, member)| format!("e{number}=http://{}", member.peers)).collect();
        let (name, endpoint, peers) = (format!("e{number}"), &self.endpoints()[number], format!("http://{peers}"));
        // Alone there is nobody to wait for; several on one busy machine must not take each other for dead.
        let [heartbeat, election] = if members.len() == 1 { ["50", "500"] } else { ["200", "2000"] };
        let log = OpenOptions::new().create(true).append(true).open(dir.join("log")).expect("a log");
        #[expect(clippy::disallowed_methods, reason = "a real etcd")]
        let mut command = Command::new("etcd");
        command
            .args(["--name", &name, "--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"])
            .arg("--data-dir")
            .arg(dir.join(&name))
            .args(["--logger", "zap", "--log-level", "error"])
            .args(["--listen-client-urls", endpoint, "--advertise-client-urls", endpoint])
            .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
            .args(["--heartbeat-interval", heartbeat, "--election-timeout", election])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log);
        if how.tls {
            let file = |name: &str| dir.join(name);
            command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(file("ca.pem"));
            command.arg("--cert-file").arg(file("server.pem")).arg("--key-file").arg(file("server.key"));
        }
        if let Some(user) = how.user {
            command.uid(user).gid(user);
        }
        command
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        for child in self.members.iter_mut().filter_map(|member| member.child.as_mut()) {
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}
