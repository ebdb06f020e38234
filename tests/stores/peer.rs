//! etcd itself, on loopback and in a directory of its own.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dvr::store::{Store, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::time::Instant;

use super::{Dir, within};
use crate::loopback::place;

/// A server that has not answered by then does not.
const STARTS: Duration = Duration::from_secs(60);

/// A single member; dropping it kills it.
pub(crate) struct Etcd {
    dir: Dir,
    /// For clients, and for peers.
    places: [SocketAddr; 2],
    tls: bool,
    child: Child,
}

/// `None`, with a line, where etcd is not installed and need not be.
fn installed() -> Option<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join("etcd").is_file()) {
        return Some(());
    }
    let required = std::env::var_os("DVR_REQUIRE_PEERS").is_some_and(|value| value == "1");
    assert!(!required, "etcd is not installed: install Debian's `etcd-server`");
    println!("etcd is not installed (Debian: `etcd-server`): this did not run");
    None
}

fn spawn(dir: &Dir, [client, peer]: [SocketAddr; 2], tls: bool) -> Child {
    let scheme = if tls { "https" } else { "http" };
    let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.path().join("log")).expect("a log");
    #[expect(clippy::disallowed_methods, reason = "the peer under test")]
    let mut command = Command::new("etcd");
    command
        .args(["--name", "one", "--data-dir"])
        .arg(dir.path().join("data"))
        .args(["--listen-client-urls", &format!("{scheme}://{client}")])
        .args(["--advertise-client-urls", &format!("{scheme}://{client}")])
        .args(["--listen-peer-urls", &format!("http://{peer}")])
        .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
        .args(["--initial-cluster", &format!("one=http://{peer}")])
        .args(["--heartbeat-interval", "50", "--election-timeout", "500"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("the log"))
        .stderr(log);
    if tls {
        let file = |name: &str| dir.path().join(name);
        command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(file("ca.pem"));
        command.arg("--cert-file").arg(file("server.pem")).arg("--key-file").arg(file("server.key"));
    }
    command.spawn().unwrap_or_else(|error| panic!("cannot start etcd: {error}"))
}

impl Etcd {
    pub(crate) fn start() -> Option<Self> {
        installed()?;
        let (dir, places) = (Dir::new(), [place(), place()]);
        let child = spawn(&dir, places, false);
        let etcd = Self { dir, places, tls: false, child };
        etcd.answers(None);
        Some(etcd)
    }

    /// With a certificate, asking for one of the same authority; and what a client needs.
    pub(crate) fn start_with_tls() -> Option<(Self, Tls)> {
        installed()?;
        let dir = Dir::new();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        let issue = |name: &str| {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new([name.to_owned()]).expect("a name");
            (params.signed_by(&key, &ca).expect("a certificate").pem(), key.serialize_pem())
        };
        let places = [place(), place()];
        let (server, client) = (issue(&places[0].ip().to_string()), issue("client"));
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("a file");
        write("ca.pem", &ca.pem());
        write("server.pem", &server.0);
        write("server.key", &server.1);
        write("client.pem", &client.0);
        write("client.key", &client.1);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(dir.path().join("client.key"), mode).expect("ours");
        let tls = Tls { ca: ca.pem().into_bytes(), identity: Some((client.0.into_bytes(), client.1.into_bytes())) };
        let child = spawn(&dir, places, true);
        let etcd = Self { dir, places, tls: true, child };
        etcd.answers(Some(&tls));
        Some((etcd, tls))
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.places[0])
    }

    /// A file of its directory: of those that [`Self::start_with_tls`] makes, or another.
    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn open(&self) -> Store {
        Store::open_etcd(&[self.endpoint()], None).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it is killed");
        self.child.wait().expect("it is gone");
    }

    /// On the same data and ports; does not wait for it.
    pub(crate) fn restart(&mut self) {
        self.child = spawn(&self.dir, self.places, self.tls);
    }

    fn answers(&self, tls: Option<&Tls>) {
        let began = Instant::now();
        let asked = || async {
            let store = Store::open_etcd(&[self.endpoint()], tls).unwrap_or_else(|error| panic!("{error}"));
            loop {
                let Err(error) = store.read("").await else { return };
                if began.elapsed() > STARTS {
                    let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
                    panic!("etcd does not answer: {error}\n{log}");
                }
            }
        };
        // On a thread of its own, so that it can be called where a runtime is already.
        std::thread::scope(|scope| scope.spawn(|| within(asked())).join()).expect("etcd answers");
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}
