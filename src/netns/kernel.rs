//! The kernel's side of namespaces: a directory of mounted ones, and code run inside them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use super::{Entries, Entry, Name, Sysctl};

/// Why something could not be done to a namespace.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or mount under the namespace directory.
    #[error("cannot {verb} {}: {source}", .path.display())]
    Path {
        /// What was attempted.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The namespace could not be made.
    #[error("cannot make network namespace {name}: {source}: needs CAP_SYS_ADMIN, or a user namespace of one's own")]
    Unshare {
        /// Its name.
        name: Name,
        /// Why it failed.
        source: io::Error,
    },
    /// A thread could not be moved into it.
    #[error("cannot enter network namespace {name}: {source}")]
    Enter {
        /// Its name.
        name: Name,
        /// Why it failed.
        source: io::Error,
    },
    /// The system grants no thread, or the code on it panicked.
    #[error("the thread for network namespace {name} failed: {why}")]
    Thread {
        /// Its name.
        name: Name,
        /// Why.
        why: String,
    },
    /// A switch outside `/proc/sys/net`.
    #[error("`{0}` is not a network switch: only keys under `net/` belong to a namespace")]
    NotNetwork(String),
    /// A switch that could not be set.
    #[error("cannot set {sysctl}: {source}")]
    Sysctl {
        /// The switch.
        sysctl: Sysctl,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// The system's error number, if it is known.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Path { source, .. }
            | Self::Unshare { source, .. }
            | Self::Enter { source, .. }
            | Self::Sysctl { source, .. } => source.raw_os_error().map(Errno::from_raw),
            Self::Thread { .. } | Self::NotNetwork(_) => None,
        }
    }

    /// Whether the namespace or switch is not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.errno() == Some(Errno::ENOENT)
    }

    /// Whether the namespace is there already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }
}

/// What tells one namespace from another that bears its name later: device and inode number of its file.
pub type Identity = (u64, u64);

/// A directory of named namespaces.
#[derive(Debug, Clone)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory at `path`, which need not exist yet.
    #[must_use]
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where a name's file is.
    #[must_use]
    pub fn path_of(&self, name: &Name) -> PathBuf {
        self.path.join(name.as_str())
    }

    /// Every entry. A directory that does not exist has none; a file whose name is no [`Name`] is nobody's namespace.
    ///
    /// # Errors
    /// When the directory or an entry cannot be read.
    pub fn entries(&self) -> Result<Entries, Error> {
        let failed = |path: &Path, source| Error::Path { verb: "read", path: path.to_owned(), source };
        let directory = match fs::read_dir(&self.path) {
            Ok(directory) => directory,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Entries::new()),
            Err(error) => return Err(failed(&self.path, error)),
        };
        let mut entries = Entries::new();
        for file in directory {
            let file = file.map_err(|error| failed(&self.path, error))?;
            let Some(name) = file.file_name().to_str().and_then(|text| Name::new(text).ok()) else { continue };
            match statfs(&file.path()) {
                Ok(system) if system.filesystem_type() == NSFS_MAGIC => entries.insert(name, Entry::Mounted),
                Ok(_) => entries.insert(name, Entry::Stale),
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(failed(&file.path(), errno.into())),
            };
        }
        Ok(entries)
    }

    /// Which namespace the name stands for at this moment.
    ///
    /// # Errors
    /// When there is none.
    pub fn identity(&self, name: &Name) -> Result<Identity, Error> {
        let path = self.path_of(name);
        match fs::metadata(&path) {
            Ok(found) => Ok((found.dev(), found.ino())),
            Err(source) => Err(Error::Path { verb: "read", path, source }),
        }
    }

    /// Makes a namespace and runs `inside` in it before anybody else can see it under its name.
    ///
    /// # Errors
    /// When the name is taken, or the namespace cannot be made or mounted; the name is free again then.
    pub fn create<T: Send>(&self, name: &Name, inside: impl FnOnce() -> T + Send) -> Result<T, Error> {
        self.prepare()?;
        let path = self.path_of(name);
        // Nobody reads or writes the file itself: the namespace is mounted over it.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o444).open(&path);
        drop(file.map_err(|source| Error::Path { verb: "create", path: path.clone(), source })?);
        let made = on_thread(name, || {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::Unshare { name: name.clone(), source: errno.into() })?;
            let value = inside();
            let none = None::<&Path>;
            mount(Some("/proc/thread-self/ns/net"), &path, none, MsFlags::MS_BIND, none).map_err(|errno| {
                Error::Path { verb: "mount a namespace on", path: path.clone(), source: errno.into() }
            })?;
            Ok(value)
        });
        if made.is_err() {
            // The first error is the one to tell; what is left is seen as stale and removed later.
            let _left = fs::remove_file(&path);
        }
        made
    }

    /// Makes the directory, and makes it a shared mount point as iproute2 does, so that what is mounted and unmounted in
    /// it is so in every mount namespace.
    fn prepare(&self) -> Result<(), Error> {
        let failed = |verb| move |path: &Path, source| Error::Path { verb, path: path.to_owned(), source };
        fs::create_dir_all(&self.path).map_err(|error| failed("create")(&self.path, error))?;
        let none = None::<&Path>;
        let share = || mount(none, &self.path, none, MsFlags::MS_SHARED | MsFlags::MS_REC, none);
        match share() {
            Err(Errno::EINVAL) => {}
            Ok(()) => return Ok(()),
            Err(errno) => return Err(failed("share mounts of")(&self.path, errno.into())),
        }
        let itself = mount(Some(&self.path), &self.path, none, MsFlags::MS_BIND | MsFlags::MS_REC, none);
        itself.and_then(|()| share()).map_err(|errno| failed("make a mount point of")(&self.path, errno.into()))
    }

    /// Removes the name, and whatever is mounted on it. One that is gone already is no error.
    ///
    /// # Errors
    /// When it cannot be unmounted or removed.
    pub fn remove(&self, name: &Name) -> Result<(), Error> {
        let path = self.path_of(name);
        match umount2(&path, MntFlags::MNT_DETACH) {
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(Error::Path { verb: "unmount", path, source: errno.into() }),
        }
        match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(Error::Path { verb: "remove", path, source }),
        }
    }

    /// The namespace itself, held by a descriptor.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(&self, name: &Name) -> Result<File, Error> {
        let path = self.path_of(name);
        File::open(&path).map_err(|source| Error::Path { verb: "open", path, source })
    }

    /// Runs `inside` on a short-lived thread that has entered the namespace.
    ///
    /// # Errors
    /// When there is no such namespace, or it cannot be entered.
    pub fn enter<T: Send>(&self, name: &Name, inside: impl FnOnce() -> T + Send) -> Result<T, Error> {
        let file = self.open(name)?;
        on_thread(name, || {
            setns(&file, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::Enter { name: name.clone(), source: errno.into() })?;
            Ok(inside())
        })
    }
}

/// Runs `inside` on a thread of its own, whose namespace nobody else will meet.
fn on_thread<T: Send>(name: &Name, inside: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    let failed = |why: String| Error::Thread { name: name.clone(), why };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, inside);
        let thread = thread.map_err(|error| failed(error.to_string()))?;
        thread.join().unwrap_or_else(|_| Err(failed("it panicked".to_owned())))
    })
}

/// Sets a switch in the calling thread's namespace: `/proc/sys/net` shows each thread its own.
///
/// # Errors
/// When there is no such switch, or the value does not suit it.
pub fn set_sysctl(sysctl: &Sysctl) -> Result<(), Error> {
    if !sysctl.is_network() {
        return Err(Error::NotNetwork(sysctl.key.clone()));
    }
    let failed = |source| Error::Sysctl { sysctl: sysctl.clone(), source };
    let path = Path::new("/proc/sys").join(&sysctl.key);
    // Not created: a switch that does not exist is to be told as such.
    let mut file = OpenOptions::new().write(true).open(path).map_err(failed)?;
    file.write_all(sysctl.value.as_bytes()).map_err(failed)
}

/// A switch's value in the calling thread's namespace, words joined by single spaces; `None` if there is no such switch.
///
/// # Errors
/// When it is there and cannot be read.
pub fn sysctl(key: &str) -> Result<Option<String>, Error> {
    let path = Path::new("/proc/sys").join(key);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.split_whitespace().collect::<Vec<_>>().join(" "))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Path { verb: "read", path, source }),
    }
}

/// The calling thread's namespace, held by a descriptor.
///
/// # Errors
/// When `/proc` does not show it.
pub fn own() -> Result<File, Error> {
    let path = PathBuf::from("/proc/thread-self/ns/net");
    File::open(&path).map_err(|source| Error::Path { verb: "open", path, source })
}
