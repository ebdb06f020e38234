//! etcd itself, on loopback and in a directory of its own.

use std::time::Duration;

use dvr::store::{Store, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::time::Instant;

use super::{Dir, within};
use crate::members::{How, Members, installed};

/// A server that has not answered by then does not.
const STARTS: Duration = Duration::from_secs(60);

/// One member or several.
pub(crate) struct Etcd {
    members: Members,
    // After what runs in it.
    dir: Dir,
}

impl Etcd {
    /// A single member.
    pub(crate) fn start() -> Option<Self> {
        Self::cluster(1)
    }

    /// So many members.
    pub(crate) fn cluster(count: usize) -> Option<Self> {
        let dir = Dir::new();
        let mut members = Members::planned(dir.path(), count, How::default())?;
        members.start();
        let etcd = Self { members, dir };
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
        let mut members = Members::planned(dir.path(), 1, How { tls: true, user: None })?;
        let host = members.endpoints()[0].clone();
        let host = host.trim_start_matches("https://").split(':').next().unwrap_or_default();
        let (server, client) = (issue(host), issue("client"));
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("a file");
        write("ca.pem", &ca.pem());
        write("server.pem", &server.0);
        write("server.key", &server.1);
        write("client.pem", &client.0);
        write("client.key", &client.1);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(dir.path().join("client.key"), mode).expect("ours");
        let tls = Tls { ca: ca.pem().into_bytes(), identity: Some((client.0.into_bytes(), client.1.into_bytes())) };
        members.start();
        let etcd = Self { members, dir };
        etcd.answers(Some(&tls));
        Some((etcd, tls))
    }

    /// Where all members are.
    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.members.endpoints()
    }

    /// Where the first one is.
    pub(crate) fn endpoint(&self) -> String {
        self.endpoints().remove(0)
    }

    /// A file of its directory: of those that [`Self::start_with_tls`] makes, or another.
    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.members.pid(0)
    }

    pub(crate) fn open(&self) -> Store {
        Store::open_etcd(&self.endpoints(), None).unwrap_or_else(|error| panic!("{error}"))
    }

    /// A SIGKILL.
    pub(crate) fn kill(&mut self, number: usize) {
        self.members.kill(number);
    }

    /// On the same data and ports; does not wait for it.
    pub(crate) fn restart(&mut self, number: usize) {
        self.members.restart(number);
    }

    fn answers(&self, tls: Option<&Tls>) {
        let began = Instant::now();
        let asked = || async {
            let store = Store::open_etcd(&self.endpoints(), tls).unwrap_or_else(|error| panic!("{error}"));
            loop {
                let Err(error) = store.read("").await else { return };
                if began.elapsed() > STARTS {
                    panic!("etcd does not answer: {error}\n{}", self.members.log());
                }
            }
        };
        // On a thread of its own, so that it can be called where a runtime is already.
        std::thread::scope(|scope| scope.spawn(|| within(asked())).join()).expect("etcd answers");
    }
}
