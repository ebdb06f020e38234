//! Becoming root in namespaces of one's own, between fork and exec.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::unistd::write;

/// Makes `command` start in a fresh network and mount namespace, with an empty `/run`; and in a fresh user namespace, as
/// its root, if `user` is set.
pub(crate) fn isolate(command: &mut Command, user: bool) {
    // All text is made here: after the fork nothing may be allocated.
    let uid_map = format!("0 {} 1\n", nix::unistd::geteuid());
    let gid_map = format!("0 {} 1\n", nix::unistd::getegid());
    let enter = move || -> io::Result<()> {
        let flags = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        unshare(if user { flags | CloneFlags::CLONE_NEWUSER } else { flags })?;
        if user {
            // A group map needs this first (user_namespaces(7)).
            put(c"/proc/self/setgroups", b"deny")?;
            put(c"/proc/self/uid_map", uid_map.as_bytes())?;
            put(c"/proc/self/gid_map", gid_map.as_bytes())?;
        }
        let none = None::<&CStr>;
        mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        mount(Some(c"tmpfs"), c"/run", Some(c"tmpfs"), MsFlags::empty(), none)?;
        Ok(())
    };
    // SAFETY: the closure runs in the child between fork and exec, where only async-signal-safe calls are allowed because
    // another thread may have held a lock at the fork. It makes system calls (unshare, open, write, mount) with text made
    // beforehand and with C string literals, which nix passes on without copying; it allocates and locks nothing.
    unsafe {
        command.pre_exec(enter);
    }
}

fn put(path: &CStr, text: &[u8]) -> io::Result<()> {
    let file = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    write(&file, text)?;
    Ok(())
}

/// Lets the kernel fragment what a socket sends, over IPv6 if `six`.
pub(crate) fn let_fragment(socket: impl AsFd, six: bool) {
    let (level, option, value) = if six {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)
    };
    let length = libc::socklen_t::try_from(size_of_val(&value)).expect("small");
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open for the call's length, and the option's value is the `int` that is pointed to.
    let set = unsafe { libc::setsockopt(fd, level, option, (&raw const value).cast(), length) };
    assert_eq!(set, 0, "{}", io::Error::last_os_error());
}
