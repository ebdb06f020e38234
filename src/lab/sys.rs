//! The system calls that have no safe wrapper, and what a user may do with namespaces.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};

/// A handle on process `pid` that never comes to mean another one (`pidfd_open(2)`, Linux 5.3).
///
/// # Errors
/// `ESRCH` if there is no such process.
pub(super) fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and reads or writes no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let Ok(fd) = i32::try_from(fd) else { unreachable!("the kernel returns descriptors and -1, both of which fit") };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above succeeded, so `fd` is a descriptor just made for us, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends `signal` to the process behind `pidfd` (`pidfd_send_signal(2)`).
///
/// # Errors
/// `ESRCH` once it is gone; `EPERM` if it is another user's.
pub(super) fn pidfd_kill(pidfd: BorrowedFd<'_>, signal: Signal) -> io::Result<()> {
    // SAFETY: the third argument is a null siginfo, which the kernel fills in itself; the rest are integers.
    let done = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal as i32,
            core::ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has `command`, once started, begin with no signal blocked, and be killed should the thread that starts it end.
pub(super) fn tie_to_us(command: &mut Command) {
    let us = nix::unistd::getpid();
    let tie = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        let parent = nix::unistd::getppid();
        // One outside of the child's pid namespace is seen as 0; another one has adopted the child, too late for a signal.
        if parent != us && parent.as_raw() != 0 {
            return Err(Errno::ESRCH.into());
        }
        Ok(SigSet::empty().thread_set_mask()?)
    };
    // SAFETY: between fork and exec the closure makes three system calls, all of them async-signal-safe, and allocates nothing:
    // an errno becomes an error without a heap.
    unsafe { command.pre_exec(tie) };
}

/// Sets the host name of the calling process's UTS namespace.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` over that namespace.
pub(super) fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length are those of `name`, which outlives the call; the kernel only reads it.
    let done = unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Tries, in a child process that ends at once, whether this user may make a user namespace; `None` if so.
#[must_use]
pub fn user_namespace_refused() -> Option<io::Error> {
    // SAFETY: the child calls only unshare(2) and _exit(2), both async-signal-safe, so it may be forked from a process
    // with threads.
    match unsafe { nix::unistd::fork() } {
        Err(errno) => Some(errno.into()),
        Ok(nix::unistd::ForkResult::Child) => {
            let code = match unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET) {
                Ok(()) => 0,
                Err(errno) => errno as i32,
            };
            // SAFETY: _exit never returns and touches no memory.
            unsafe { libc::_exit(code) }
        }
        Ok(nix::unistd::ForkResult::Parent { child }) => match nix::sys::wait::waitpid(child, None) {
            Ok(nix::sys::wait::WaitStatus::Exited(_, 0)) => None,
            Ok(nix::sys::wait::WaitStatus::Exited(_, errno)) => Some(io::Error::from_raw_os_error(errno)),
            Ok(other) => Some(io::Error::other(format!("the trial ended with {other:?}"))),
            Err(errno) => Some(errno.into()),
        },
    }
}
