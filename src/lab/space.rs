//! Entering, making and furnishing namespaces for processes that have one thread.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use super::{CONTROLLER_DIR, Error, NETNS_DIR, RUN_DIR, STATE_MOUNT};
use crate::controller::ControllerConfig;
use crate::rpc::Address;

/// Makes a user namespace in which this user is root, and enters it.
///
/// # Errors
/// [`Error::UserNamespace`] with the remedy, where the machine forbids it.
pub(super) fn become_root() -> Result<(), Error> {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| refused(errno.into()))?;
    // A process without CAP_SETGID outside may map its group only after giving up setgroups(2): user_namespaces(7).
    fs::write("/proc/self/setgroups", "deny").map_err(refused)?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1")).map_err(refused)?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1")).map_err(refused)
}

/// Enters namespaces of its own of every kind that a lab has: a user namespace unless it is root already, then mount,
/// network, UTS and IPC ones; of the new pid namespace its next child is process 1.
///
/// # Errors
/// [`Error::UserNamespace`] with the remedy, where the machine forbids it; [`Error::Os`] otherwise.
pub(super) fn separate() -> Result<(), Error> {
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    let failed = |errno: Errno| Error::os("make the lab's namespaces", errno);
    if !nix::unistd::geteuid().is_root() {
        become_root()?;
        // AppArmor may grant the user namespace and withhold what it is for.
        return unshare(flags)
            .map_err(|errno| if errno == Errno::EPERM { refused(errno.into()) } else { failed(errno) });
    }
    match unshare(flags) {
        // Root of a container may lack CAP_SYS_ADMIN and still be allowed a user namespace.
        Err(Errno::EPERM) => {
            become_root()?;
            unshare(flags).map_err(failed)
        }
        separated => separated.map_err(failed),
    }
}

/// That this machine refuses user namespaces, and what to do.
pub(super) fn refused(source: io::Error) -> Error {
    Error::UserNamespace { remedy: remedy(), source }
}

/// What to do about refused user namespaces on this machine.
#[must_use]
pub(super) fn remedy() -> String {
    let sysctl = |key: &str| fs::read_to_string(format!("/proc/sys/{key}")).ok().map(|text| text.trim().to_owned());
    if sysctl("kernel/apparmor_restrict_unprivileged_userns").as_deref() == Some("1") {
        return "AppArmor forbids it here: `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or run as root".into();
    }
    if sysctl("kernel/unprivileged_userns_clone").as_deref() == Some("0") {
        return "the kernel is told to forbid it: `sudo sysctl kernel.unprivileged_userns_clone=1`, or run as root"
            .into();
    }
    if sysctl("user/max_user_namespaces").as_deref() == Some("0") {
        return "none are allowed here: `sudo sysctl user.max_user_namespaces=15000`, or run as root".into();
    }
    "a container or security policy forbids it: allow the unshare system call, or run as root; see `dvr doctor`".into()
}

/// What the `/run` of a lab or of one of its nodes may hold.
pub(super) const RUN_SIZE: &str = "64m";

/// Cuts this mount namespace off from the one it was copied from.
///
/// # Errors
/// [`Error::Os`] when the kernel refuses.
pub(super) fn make_mounts_private() -> Result<(), Error> {
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .map_err(|errno| Error::os("make the mounts of the lab private", errno))
}

/// Mounts a `/proc` of this pid namespace. A container may refuse it; the old one serves all but `ps`.
pub(super) fn mount_proc() {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(errno) = mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>) {
        tracing::info!(%errno, "this machine refuses a /proc of the lab's own: `ps` there shows other processes too");
    }
}

/// Mounts a `/sys` that shows this network namespace's interfaces. Only `/sys/class/net` misses it where it is refused.
pub(super) fn mount_sys() {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(errno) = mount(Some("sysfs"), "/sys", Some("sysfs"), flags, None::<&str>) {
        tracing::debug!(%errno, "this machine refuses a /sys of the namespace's own");
    }
}

/// Gives this mount namespace a `/run` of its own, with an empty `/run/netns` and with each directory outside, even one
/// under the old `/run`, at its place inside. `size` is how much it may hold, in tmpfs(5)'s words.
///
/// # Errors
/// [`Error::Os`] names the step that failed.
pub(super) fn furnish_run(dirs: &[(&Path, &str)], size: &str) -> Result<(), Error> {
    let open = |(outside, inside): &(&Path, &str)| {
        let kept = File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC)
            .open(outside)
            .map_err(|source| Error::os(format!("open {}", outside.display()), source))?;
        Ok((outside.display().to_string(), (*inside).to_owned(), kept))
    };
    let opened = dirs.iter().map(open).collect::<Result<Vec<_>, Error>>()?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = format!("mode=0755,size={size}");
    mount(Some("tmpfs"), "/run", Some("tmpfs"), flags, Some(options.as_str()))
        .map_err(|errno| Error::os("mount a tmpfs on /run", errno))?;
    let make = |dir: &str| fs::create_dir_all(dir).map_err(|source| Error::os(format!("make {dir}"), source));
    make(NETNS_DIR)?;
    for (outside, inside, kept) in opened {
        make(&inside)?;
        let source = format!("/proc/self/fd/{}", kept.as_raw_fd());
        mount(Some(source.as_str()), inside.as_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .map_err(|errno| Error::os(format!("mount {outside} on {inside}"), errno))?;
    }
    Ok(())
}

/// Opens a namespace's file.
///
/// # Errors
/// [`Error::Os`] names the file.
pub(super) fn open(path: impl AsRef<Path>) -> Result<OwnedFd, Error> {
    let path = path.as_ref();
    File::open(path)
        .map(OwnedFd::from)
        .map_err(|source| Error::os(format!("open namespace {}", path.display()), source))
}

/// Enters a namespace.
///
/// # Errors
/// [`Error::Os`] names it by `what`.
pub(super) fn enter(fd: &OwnedFd, kind: CloneFlags, what: &str) -> Result<(), Error> {
    setns(fd, kind).map_err(|errno| Error::os(format!("enter {what}"), errno))
}

/// Enters the user namespace of process `pid`, unless this process is in it already.
///
/// # Errors
/// [`Error::Os`] when it is another user's.
pub(super) fn enter_user_of(pid: i32) -> Result<(), Error> {
    let (own, other) = ("/proc/self/ns/user".to_owned(), format!("/proc/{pid}/ns/user"));
    if same(&own, &other)? {
        return Ok(());
    }
    enter(&open(&other)?, CloneFlags::CLONE_NEWUSER, "the lab's user namespace")
}

fn same(one: &str, other: &str) -> Result<bool, Error> {
    let inode = |path: &str| {
        fs::metadata(path)
            .map(|meta| (meta.dev(), meta.ino()))
            .map_err(|source| Error::os(format!("look at {path}"), source))
    };
    Ok(inode(one)? == inode(other)?)
}

/// This very program again, to be started with other arguments.
#[must_use]
pub(super) fn own_program() -> Command {
    #[expect(clippy::disallowed_methods, reason = "a lab is made of processes of this very program")]
    let mut command = Command::new("/proc/self/exe");
    command.arg0("dvr");
    command
}

/// The command for a node's daemon, which logs to a file beside its socket.
///
/// # Errors
/// [`Error::Os`] when the log cannot be opened.
pub(super) fn daemon(kind: super::Daemon, node: &str) -> Result<Command, Error> {
    let mut command = own_program();
    command.arg(kind.name());
    if kind == super::Daemon::Agent {
        let own = || Address::Unix(Path::new(CONTROLLER_DIR).join(ControllerConfig::SOCKET)).into();
        let controllers = super::state::others(Path::new(CONTROLLER_DIR)).unwrap_or_else(own);
        command.args(["--node", node, "--controller", &controllers.to_string()]);
        let (tunnels, fast_path) = super::tunnels::chosen(Path::new(RUN_DIR));
        command.args(["--tunnels", tunnels.name(), "--fast-path", fast_path.name()]);
    }
    let workers = super::tunnels::workers(Path::new(RUN_DIR));
    if kind == super::Daemon::Switch && workers > 0 {
        command.args(["--workers", &workers.to_string()]);
    }
    logged(command, &format!("{RUN_DIR}/{}.log", kind.name()))
}

/// The command for the lab's controller, to be run where the lab's init is. At its first start it applies the lab's
/// topology; later it has what it has.
///
/// # Errors
/// [`Error::Os`] when the log cannot be opened.
pub(super) fn controller(first: bool) -> Result<Command, Error> {
    let dir = format!("{STATE_MOUNT}/{}", super::state::CONTROLLER);
    let mut command = own_program();
    command.arg("controller").arg("--socket").arg(format!("{dir}/{}", ControllerConfig::SOCKET));
    command.arg("--store").arg(format!("{dir}/{}", ControllerConfig::FILE));
    if first {
        command.arg("--apply").arg(format!("{STATE_MOUNT}/topology.yaml"));
    }
    logged(command, &format!("{dir}/controller.log"))
}

/// A daemon's command, its output going to a file.
fn logged(mut command: Command, path: &str) -> Result<Command, Error> {
    let log = File::options()
        .append(true)
        .create(true)
        .open(path)
        .map_err(|source| Error::os(format!("open {path}"), source))?;
    let errors = log.try_clone().map_err(|source| Error::os(format!("duplicate the handle on {path}"), source))?;
    command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
    Ok(command)
}
