//! A wall clock that is set: nothing of the control plane goes by it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use dvr::model::Kind;
use dvr::rpc::Address;
use dvr::rpc::proto::BeatRequest;

use crate::etcd::{How, Members};
use crate::user::User;
use crate::{Dir, Process, apply, client, items, now, put, resource, runtime, status, until, view};

/// A wall clock for one process, by a library that is loaded before the C library's.
struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    fn new(dir: &Path) -> Self {
        let (library, offset) = (dir.join("clock.so"), dir.join("offset"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/control/clock.c");
        #[expect(clippy::disallowed_methods, reason = "the linker's driver, without which there would be no test")]
        let mut compile = Command::new("cc");
        let made = compile.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).status();
        assert!(made.expect("cc runs").success(), "{source} does not compile");
        let clock = Self { library, offset };
        clock.set(0);
        clock
    }

    /// Sets it, so many seconds beside the host's.
    fn set(&self, offset: i64) {
        // Renamed, so that whoever reads it meanwhile reads one or the other.
        let draft = self.offset.with_extension("new");
        std::fs::write(&draft, offset.to_string()).expect("ours");
        std::fs::rename(&draft, &self.offset).expect("ours");
    }

    fn give(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("DVR_TEST_CLOCK", &self.offset);
    }
}

const YEAR: i64 = 31_556_952;
/// How long a node is taken to live without a beat.
const LEASE: Duration = Duration::from_secs(10);

/// Input: a controller whose wall clock leaps forth and back by years, under an agent that beats and one that has ended.
/// Output: the one lives all the while, the other's lease ends after its time, and nobody is told anything twice.
fn leaps(user: &User, dir: &Path, store: &[&str]) {
    let clock = Clock::new(dir);
    let socket = dir.join("c.sock");
    let mut command = user.command(&["controller", "--socket"]);
    command.arg(&socket).args(store);
    clock.give(&mut command);
    let log = socket.with_extension("log");
    let _controller = Process::start(command, &log);
    let address = Address::Unix(socket);
    let runtime = runtime();
    until("the controller serves", || runtime.block_on(status(&address)).ok());
    runtime.block_on(async {
        let mut client = client(&address, None).await;
        let node = |name: &str| put(&resource(&format!(r#"{{"kind":"node","name":"{name}"}}"#)), None);
        apply(&mut client, vec![node("n1"), node("n2")]).await.expect("two nodes");
        let beat = |name: &str| BeatRequest { node: name.to_owned(), ..BeatRequest::default() };
        let mut streams = Vec::new();
        for name in ["n1", "n2"] {
            streams.push(client.view(view(name)).await.expect("a stream").into_inner());
        }
        let mut seen = String::new();
        for offset in [10 * YEAR, -20 * YEAR, 3_600, 0, 30 * YEAR] {
            // Again if a round took so long that a lease may have ended by itself.
            for round in 0.. {
                let begun = now();
                for name in ["n1", "n2"] {
                    client.beat(beat(name)).await.expect("it is heard");
                }
                clock.set(offset);
                // Each is logged, with the time of day.
                apply(&mut client, vec![node(&format!("at{}.{round}", offset + 100 * YEAR))]).await.expect("a node");
                let all = items(&mut client, Kind::Node).await;
                if begun.elapsed() < LEASE / 2 {
                    let live = all.iter().filter(|item| item.live == Some(true)).count();
                    assert_eq!(live, 2, "a leap of the clock ended a lease");
                    break;
                }
            }
            seen = std::fs::read_to_string(&log).expect("a log");
        }
        let years: std::collections::BTreeSet<&str> =
            seen.lines().filter(|line| line.contains("applied")).filter_map(|line| line.split('-').next()).collect();
        assert!(years.len() >= 4, "the clock was not set: {years:?}");
        // Time goes on nevertheless: who is silent is taken to be gone, who beats is not.
        clock.set(-20 * YEAR);
        loop {
            client.beat(beat("n1")).await.expect("it is heard");
            let live = |name: &str, all: &[dvr::rpc::proto::Item]| {
                let found = all.iter().find(|item| item.name.as_ref().is_some_and(|own| own.name == name));
                found.and_then(|item| item.live)
            };
            let nodes = items(&mut client, Kind::Node).await;
            assert_eq!(live("n1", &nodes), Some(true));
            if live("n2", &nodes) == Some(false) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let now = status(&address).await.expect("it serves");
        assert_eq!((now.views, now.wholes, now.resets, now.replaced), (2, 2, 0, 0), "{now:?}");
    });
}

#[test]
fn a_clock_that_is_set_ends_no_lease_of_a_file() {
    let user = User::new("clock-file", false);
    let dir = Dir::new("clock-file", &user);
    let store = dir.0.join("store").display().to_string();
    leaps(&user, &dir.0, &["--store", &store]);
}

#[test]
fn a_clock_that_is_set_ends_no_lease_of_etcd() {
    let user = User::new("clock-etcd", false);
    let dir = Dir::new("clock-etcd", &user);
    let Some(mut etcd) = Members::planned(&dir.0, 1, How::default()) else { return };
    etcd.start();
    leaps(&user, &dir.0, &["--etcd", &etcd.endpoints().join(",")]);
}
