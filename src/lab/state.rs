//! A lab's directory: which labs there are, whether they live, and where their sockets are.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::Error;
use crate::controller::ControllerConfig;
use crate::rpc::{Address, Addresses};

/// The longest path of a unix socket: `sun_path` of `sockaddr_un` is 108 octets with its terminator (`linux/un.h`).
pub(super) const SOCKET_PATH_MAX: usize = 107;
/// How often a lab's directory is tried to be made while others remove what is in the way.
const CREATE_TRIES: usize = 8;
/// The controller's directory in a lab's: no node's, whose names begin with a letter or digit.
pub(super) const CONTROLLER: &str = ".controller";
/// What names the controllers of a lab that has none of its own, in that directory.
pub(super) const OTHERS: &str = "others";
/// Labs of one user at most.
const LABS_MAX: usize = 1_000;

/// A lab's name: 1 to 24 letters, digits, `-` and `_`, so that it can be a directory and a part of a host name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabName(String);

/// Why a text cannot name a lab.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot name a lab: use 1 to 24 letters, digits, '-' and '_', the first a letter or digit")]
pub struct BadLabName(String);

impl LabName {
    /// The name, if a lab can have it.
    ///
    /// # Errors
    /// [`BadLabName`] says what is allowed.
    pub fn new(text: impl Into<String>) -> Result<Self, BadLabName> {
        let text = text.into();
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if first && text.len() <= 24 && text.bytes().all(legal) { Ok(Self(text)) } else { Err(BadLabName(text)) }
    }
}

crate::types::text_name!(LabName, BadLabName);

/// A process, told apart from a later one with the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id, as the user who started the lab sees it.
    pub pid: i32,
    /// When it started, in clock ticks since boot (field 22 of `/proc/PID/stat`, `proc(5)`).
    pub start_ticks: u64,
}

impl Process {
    /// The process of that id as it is now; `None` if there is none, or only its remains.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name may hold spaces and brackets; what follows its last bracket holds neither.
        let (_, fields) = stat.rsplit_once(") ")?;
        let mut fields = fields.split(' ');
        let state = fields.next()?;
        let start_ticks = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, start_ticks })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn lives(&self) -> bool {
        Self::of(self.pid) == Some(*self)
    }
}

/// What a lab's directory says of it: `lab.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: LabName,
    /// The release that started it.
    pub release: String,
    /// The machine's boot it belongs to.
    pub boot_id: String,
    /// Process 1 of the lab.
    pub init: Process,
    /// The keeper of each node.
    pub nodes: BTreeMap<String, Process>,
    /// What the topology was read from.
    pub source: String,
}

/// Where the labs of this user are.
#[derive(Debug, Clone)]
pub struct Labs {
    root: PathBuf,
}

/// One lab's directory.
#[derive(Debug, Clone)]
pub struct Lab {
    /// Its name.
    pub name: LabName,
    /// Its directory.
    pub dir: PathBuf,
}

/// Keeps others from starting or stopping the same lab.
#[derive(Debug)]
pub(super) struct Claim(#[expect(dead_code, reason = "held for its lock")] Flock<File>);

impl Labs {
    /// Those of the user this process runs as: under `/run/dvr/labs` for root, else under the user's runtime directory,
    /// else under `/tmp/dvr-UID`.
    ///
    /// # Errors
    /// [`Error::NotOurs`] if that directory could be changed by others.
    pub fn of_this_user() -> Result<Self, Error> {
        let uid = nix::unistd::geteuid().as_raw();
        if uid == 0 {
            return Ok(Self { root: PathBuf::from("/run/dvr/labs") });
        }
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        if let Some(dir) = runtime.filter(|dir| owned_by(dir, uid)) {
            return Ok(Self { root: dir.join("dvr/labs") });
        }
        let base = PathBuf::from(format!("/tmp/dvr-{uid}"));
        match fs::symlink_metadata(&base) {
            Ok(meta) if !meta.is_dir() || meta.uid() != uid || meta.mode() & 0o077 != 0 => {
                Err(Error::NotOurs { path: base, owner: meta.uid(), mode: meta.mode() & 0o7777 })
            }
            Ok(_) | Err(_) => Ok(Self { root: base.join("labs") }),
        }
    }

    /// The lab of that name, there or not.
    #[must_use]
    pub fn lab(&self, name: &LabName) -> Lab {
        Lab { name: name.clone(), dir: self.root.join(name.as_str()) }
    }

    /// Every lab that has a directory, dead or alive, by name.
    ///
    /// # Errors
    /// [`Error::Os`] if the directory is there and cannot be read.
    pub fn all(&self) -> Result<Vec<Lab>, Error> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(Error::os(format!("read the labs' directory {}", self.root.display()), source)),
        };
        let named = entries.filter_map(|entry| LabName::new(entry.ok()?.file_name().into_string().ok()?).ok());
        let mut names: Vec<LabName> = named.take(LABS_MAX).collect();
        names.sort();
        Ok(names.iter().map(|name| self.lab(name)).collect())
    }

    /// Every lab that runs, by name.
    ///
    /// # Errors
    /// As [`Labs::all`].
    pub fn running(&self) -> Result<Vec<(Lab, Record)>, Error> {
        Ok(self.all()?.into_iter().filter_map(|lab| lab.record().map(|record| (lab, record))).collect())
    }

    /// The lab of that name, or the only one that runs.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::NoLab`] or [`Error::SeveralLabs`].
    pub fn choose(&self, name: Option<&LabName>) -> Result<(Lab, Record), Error> {
        if let Some(name) = name {
            let lab = self.lab(name);
            if let Some(record) = lab.record() {
                return Ok((lab, record));
            }
            let others = self.running()?.into_iter().map(|(lab, _)| lab.name.to_string()).collect();
            return Err(Error::NotRunning { name: name.to_string(), others });
        }
        let mut running = self.running()?;
        match running.len() {
            0 => Err(Error::NoLab),
            1 => Ok(running.remove(0)),
            _ => Err(Error::SeveralLabs(running.into_iter().map(|(lab, _)| lab.name.to_string()).collect())),
        }
    }

    /// The lab that goes down when none is named: the only one that runs, or else the only dead one that left something.
    /// What dead labs left does not stand between a user and the one that runs.
    ///
    /// # Errors
    /// [`Error::SeveralLabs`] or [`Error::SeveralDead`] if more than one is meant; as [`Labs::all`].
    pub fn only(&self) -> Result<Option<Lab>, Error> {
        let names = |labs: &[Lab]| labs.iter().map(|lab| lab.name.to_string()).collect();
        let (mut running, mut dead): (Vec<Lab>, Vec<Lab>) =
            self.all()?.into_iter().partition(|lab| lab.record().is_some());
        match (running.len(), dead.len()) {
            (0, 0 | 1) => Ok(dead.pop()),
            (0, _) => Err(Error::SeveralDead(names(&dead))),
            (1, _) => Ok(running.pop()),
            _ => Err(Error::SeveralLabs(names(&running))),
        }
    }
}

impl Lab {
    /// Makes the directory and claims it. What a dead lab of that name left is removed first.
    ///
    /// # Errors
    /// [`Error::Exists`] or [`Error::Busy`] if the name is taken.
    pub(super) fn create(&self) -> Result<Claim, Error> {
        for _ in 0..CREATE_TRIES {
            // Made anew each time: a `lab down` beside us removes empty parents.
            let parent = self.dir.parent().unwrap_or(Path::new("/"));
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(parent)
                .map_err(|source| Error::os(format!("make the labs' directory {}", parent.display()), source))?;
            match DirBuilder::new().mode(0o700).create(&self.dir) {
                Ok(()) => return self.claim(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(Error::os(format!("make {}", self.dir.display()), source)),
            }
            let _claim = self.claim()?;
            if self.record().is_some() {
                return Err(Error::Exists { name: self.name.to_string() });
            }
            self.remove()?;
        }
        Err(Error::Busy { name: self.name.to_string() })
    }

    /// Keeps others away from the lab until the claim is dropped.
    ///
    /// # Errors
    /// [`Error::Busy`] if somebody else has it.
    pub(super) fn claim(&self) -> Result<Claim, Error> {
        let dir = File::options()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(&self.dir)
            .map_err(|source| Error::os(format!("open {}", self.dir.display()), source))?;
        Flock::lock(dir, FlockArg::LockExclusiveNonblock)
            .map(Claim)
            .map_err(|_| Error::Busy { name: self.name.to_string() })
    }

    /// What is written of the lab, if it runs.
    #[must_use]
    pub fn record(&self) -> Option<Record> {
        let record: Record = serde_json::from_slice(&fs::read(self.dir.join("lab.json")).ok()?).ok()?;
        (record.boot_id == boot_id() && record.init.lives()).then_some(record)
    }

    /// Writes the lab's record, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Os`] if the file cannot be written.
    pub(super) fn write(&self, record: &Record) -> Result<(), Error> {
        let (draft, file) = (self.dir.join("lab.json.new"), self.dir.join("lab.json"));
        let text = serde_json::to_vec_pretty(record).map_err(|error| Error::os("encode the lab's record", error))?;
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, &file))
            .map_err(|source| Error::os(format!("write {}", file.display()), source))
    }

    /// Removes the directory, and those above it that are left empty; one that is not there is as good.
    ///
    /// # Errors
    /// [`Error::Os`] if something in it cannot be removed.
    pub(super) fn remove(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.dir) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::os(format!("remove {}", self.dir.display()), source)),
        }
        // `labs` and what holds it, which we made; not empty is the rule with other labs or a host's own daemons.
        let _kept_if_used = self.dir.ancestors().skip(1).take(2).try_for_each(fs::remove_dir);
        Ok(())
    }

    /// Where a node's sockets and logs are, seen from outside.
    #[must_use]
    pub fn node_dir(&self, node: &str) -> PathBuf {
        self.dir.join(node)
    }

    /// Where the lab's controller has its socket, its file and its log, seen from outside.
    #[must_use]
    pub fn controller_dir(&self) -> PathBuf {
        self.dir.join(CONTROLLER)
    }

    /// The controller's socket, seen from outside.
    #[must_use]
    pub fn controller_socket(&self) -> PathBuf {
        self.controller_dir().join(ControllerConfig::SOCKET)
    }

    /// The controllers of the lab: its own, unless it was brought up with others.
    #[must_use]
    pub fn controllers(&self) -> Addresses {
        others(&self.controller_dir()).unwrap_or_else(|| Address::Unix(self.controller_socket()).into())
    }

    /// The document the lab was made from.
    #[must_use]
    pub fn topology_path(&self) -> PathBuf {
        self.dir.join("topology.yaml")
    }

    /// The last lines of a log, each after a line break and indented; empty if there are none.
    #[must_use]
    pub(super) fn log_tail(&self, file: &str, lines: usize) -> String {
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        let last = &all[all.len().saturating_sub(lines)..];
        last.iter().map(|line| format!("\n    {file}: {line}")).collect()
    }
}

/// The controllers that a lab was brought up with, by what is written in its controller's directory; `None` if it has its
/// own.
#[must_use]
pub(super) fn others(controller_dir: &Path) -> Option<Addresses> {
    fs::read_to_string(controller_dir.join(OTHERS)).ok()?.trim().parse().ok()
}

/// The id of the machine's present boot; empty if the kernel does not tell.
#[must_use]
pub(super) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn owned_by(dir: &Path, uid: u32) -> bool {
    fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid && meta.mode() & 0o700 == 0o700)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside_their_directory() {
        for text in ["lab", "a", "3nodes", "east-west_2"] {
            assert!(LabName::new(text).is_ok(), "{text} was refused");
        }
        for text in ["", ".", "..", "a/b", "-x", "_x", "a b", "ä", "aaaaaaaaaaaaaaaaaaaaaaaaa"] {
            assert!(LabName::new(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn a_process_is_itself_and_no_other() {
        let own = i32::try_from(std::process::id()).expect("process ids fit");
        let process = Process::of(own).expect("this process runs");
        assert!(process.lives());
        assert!(!Process { start_ticks: process.start_ticks + 1, ..process }.lives(), "another start, another process");
        assert_eq!(Process::of(0), None);
    }

    #[test]
    fn what_dead_labs_left_is_in_nobodys_way() {
        let labs = Labs { root: std::env::temp_dir().join(format!("dvr-labs-{}", std::process::id())) };
        fs::create_dir(&labs.root).expect("a directory");
        let init = Process::of(i32::try_from(std::process::id()).expect("process ids fit")).expect("this process runs");
        let make = |name: &str, lives: bool| {
            let lab = labs.lab(&LabName::new(name).expect("a name"));
            fs::create_dir(&lab.dir).expect("a directory");
            let init = if lives { init } else { Process { start_ticks: init.start_ticks + 1, ..init } };
            let (boot_id, nodes) = (boot_id(), BTreeMap::new());
            let record =
                Record { name: lab.name.clone(), release: String::new(), boot_id, init, nodes, source: String::new() };
            lab.write(&record).expect("a record");
        };
        let only = || labs.only().map(|lab| lab.map(|lab| lab.name.to_string()));
        assert_eq!(only().expect("a readable directory"), None);
        make("dead1", false);
        assert_eq!(only().expect("one is dead"), Some("dead1".to_owned()));
        make("dead2", false);
        let told = only().expect_err("two are dead").to_string();
        assert!(told.contains("dead1, dead2") && told.contains("--all"), "{told}");
        make("demo", true);
        assert_eq!(only().expect("one runs"), Some("demo".to_owned()));
        make("other", true);
        let told = only().expect_err("two run").to_string();
        assert!(told.contains("demo, other") && !told.contains("dead"), "{told}");
        fs::remove_dir_all(&labs.root).expect("our directory");
    }
}
