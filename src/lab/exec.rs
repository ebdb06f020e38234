//! Running a user's command somewhere in a lab.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Daemon, Error, Place, Record, init, report, space, sys};

/// Runs `command` at `place` with this process's own standard streams, and passes signals on to it. Gives its exit code,
/// or 128 and the number of the signal that ended it, as a shell would. Should this process end before the command, of
/// whatever, the command is killed. This process must have one thread, and stays where the command ran.
///
/// # Errors
/// [`Error::NoCommand`] if there is no such program; [`Error::Os`] if the place cannot be entered.
pub fn exec(record: &Record, place: &Place, command: &[OsString]) -> Result<u8, Error> {
    place.enter(record)?;
    let Some((program, arguments)) = command.split_first() else {
        unreachable!("the command line asks for at least one word");
    };
    #[expect(clippy::disallowed_methods, reason = "running the user's command is what `lab exec` is for")]
    let mut child = std::process::Command::new(program);
    child.args(arguments).env("PATH", search_path()).env("DVR_LAB", record.name.as_str()).env("DVR_PLACE", &place.name);
    // A signal from now on waits until there is somebody to pass it on to.
    let signals = init::watch(&PASSED.into_iter().chain([Signal::SIGCHLD, Signal::SIGWINCH]).collect::<Vec<_>>())?;
    sys::tie_to_us(&mut child);
    let child = child.spawn().map_err(|source| refused(program, place, source))?;
    let Ok(pid) = i32::try_from(child.id()) else { unreachable!("process ids are positive ints") };
    wait(Pid::from_raw(pid), &signals)
}

/// The signals that are passed on.
const PASSED: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];

/// Waits for the child; passes on signals that were sent to this process alone. Those of the terminal reach both.
fn wait(child: Pid, signals: &SignalFd) -> Result<u8, Error> {
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(_, code)) => return Ok(u8::try_from(code).unwrap_or(u8::MAX)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Error::os("wait for the command", errno)),
        }
        report::readable(signals.as_fd(), Duration::from_secs(3_600))
            .map_err(|source| Error::os("wait for signals", source))?;
        while let Ok(Some(info)) = signals.read_signal() {
            // What another process sent, by kill(2), sigqueue(3) or tgkill(2), has no positive code (`siginfo.h`). The
            // terminal's signals come from the kernel and reach the child by themselves.
            let known = i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok());
            if let Some(signal) = known.filter(|signal| PASSED.contains(signal) && info.ssi_code <= 0) {
                // The child may have ended meanwhile: the next turn of the loop sees that.
                let _gone = kill(child, signal);
            }
        }
    }
}

/// The user's search path, the directories that hold `ip` and `tcpdump`, which an ordinary user's often lacks, and that of
/// this program, so that `dvr show` works inside.
fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    if let Ok(own) = std::env::current_exe()
        && let Some(dir) = own.parent()
    {
        path.push(":");
        path.push(dir);
    }
    path
}

fn on_path(command: &str) -> bool {
    std::env::split_paths(&search_path()).any(|dir| dir.join(command).is_file())
}

fn refused(program: &OsString, place: &Place, source: io::Error) -> Error {
    let command = program.to_string_lossy().into_owned();
    // A directory on the path that this user may not read turns "not found" into "permission denied" (execvp(3)).
    let unseen = !command.contains('/') && !on_path(&command);
    if source.kind() != io::ErrorKind::NotFound && !(source.kind() == io::ErrorKind::PermissionDenied && unseen) {
        return Error::os(format!("run `{command}` in {place}"), source);
    }
    let hint = match command.as_str() {
        "ping" | "arping" | "tracepath" => {
            "install it with `apt install iputils-ping`, or use `dvr lab test`".to_owned()
        }
        "ip" | "ss" | "bridge" | "tc" | "nstat" => "install it with `apt install iproute2`".to_owned(),
        "nc" => "install it with `apt install netcat-openbsd`".to_owned(),
        "nft" => "install it with `apt install nftables`".to_owned(),
        "tcpdump" | "iperf3" | "traceroute" | "curl" | "socat" => format!("install it with `apt install {command}`"),
        _ => "check its name; it runs from this machine's file system".to_owned(),
    };
    Error::NoCommand { command, place: place.to_string(), hint }
}

/// Starts a node's daemon, from a process that is at the node in all but its pid namespace, such as one that has just
/// entered it. A child in between starts it and ends, so that the lab's init adopts it and not the machine's.
///
/// # Errors
/// [`Error::Os`] when it cannot be started.
pub(super) fn start_daemon(kind: Daemon, node: &str) -> Result<(), Error> {
    let what = format!("start the {} of node `{node}`", kind.name());
    let mut between = space::own_program();
    between.args(["lab-start", "--node", node, kind.name()]);
    match between.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Error::os(what, io::Error::other(format!("the process in between ended with {status}")))),
        Err(source) => Err(Error::os(what, source)),
    }
}

/// The child in between: starts the daemon and returns at once.
///
/// # Errors
/// [`Error::Os`] when it cannot be started.
pub fn start(kind: Daemon, node: &str) -> Result<(), Error> {
    let started = space::daemon(kind, node)?.spawn();
    started.map(drop).map_err(|source| Error::os(format!("start the {} of node `{node}`", kind.name()), source))
}

/// Starts the lab's controller anew, from a process that is where the lab's init is in all but its pid namespace; as
/// [`start_daemon`].
///
/// # Errors
/// [`Error::Os`] when it cannot be started.
pub(super) fn start_controller_between() -> Result<(), Error> {
    let what = "start the lab's controller";
    let mut between = space::own_program();
    match between.arg("lab-start").status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Error::os(what, io::Error::other(format!("the process in between ended with {status}")))),
        Err(source) => Err(Error::os(what, source)),
    }
}

/// The child in between: starts the controller and returns at once.
///
/// # Errors
/// [`Error::Os`] when it cannot be started.
pub fn start_controller() -> Result<(), Error> {
    let started = space::controller(false)?.spawn();
    started.map(drop).map_err(|source| Error::os("start the lab's controller", source))
}
