//! A stage: namespaces of this program's own, in which it may build what it likes, labs included, and of which nothing
//! is left when the process that asked for it ends, however it ends.
//!
//! Three lives of the program make one. The first enters the namespaces and starts the second inside, as process 1. That
//! one starts the third, which does the work, and buries whatever ends meanwhile; when the third ends, so does process 1,
//! and with it everything in the namespaces. Each dies with the one that started it.

use std::ffi::OsString;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::{Error, space, sys};

/// What the stage's `/run` may hold: a lab of a hundred thousand ports with its controller's file.
const RUN_SIZE: &str = "1g";

/// Which life it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Outside, about to make the namespaces.
    Outside,
    /// Process 1 of them.
    Inside,
}

impl Stage {
    /// The command that starts the first life: this program with these arguments, which are to lead to
    /// [`Stage::Outside`].
    #[must_use]
    pub fn command(words: &[OsString]) -> Command {
        let mut command = space::own_program();
        command.args(words);
        command
    }

    /// Lives this life: starts this program with `next` as its arguments in the next one, waits for it, and gives its exit
    /// code. This process must have one thread.
    ///
    /// # Errors
    /// Whatever could not be made.
    pub fn live(self, next: &[OsString]) -> Result<u8, Error> {
        match self {
            Self::Outside => space::separate()?,
            Self::Inside => furnish()?,
        }
        // After the user namespace: what one process may do to another changes there, and the kernel forgets the wish.
        die_with_parent()?;
        let mut child = space::own_program();
        let child =
            child.args(next).spawn().map_err(|source| Error::os("start the next process of the stage", source))?;
        let Ok(pid) = i32::try_from(child.id()) else { unreachable!("process ids are positive ints") };
        bury_until(Pid::from_raw(pid))
    }
}

/// Has the kernel kill this process when the one that started it ends.
///
/// # Errors
/// [`Error::Os`] if the kernel refuses.
pub fn die_with_parent() -> Result<(), Error> {
    prctl::set_pdeathsig(Signal::SIGKILL)
        .map_err(|errno| Error::os("tie this process to the one that started it", errno))
}

fn furnish() -> Result<(), Error> {
    space::make_mounts_private()?;
    space::mount_proc();
    space::mount_sys();
    space::furnish_run(&[], RUN_SIZE)?;
    sys::set_hostname("dvr-stage").map_err(|source| Error::os("name the stage's host", source))
}

/// Reaps every child that ends until this one does; its exit code, or 128 and the number of the signal that ended it.
fn bury_until(last: Pid) -> Result<u8, Error> {
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == last => return Ok(u8::try_from(code).unwrap_or(u8::MAX)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == last => {
                return Ok(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(Error::os("wait for the processes of the stage", errno)),
        }
    }
}
