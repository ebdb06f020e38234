//! Taking a lab down: one process to kill, one directory to remove.

use std::time::Duration;

use super::state::Process;
use super::{Error, Lab, faults, now, sys};

/// How long the machine's init may take to reap the lab's.
const BURIAL: Duration = Duration::from_millis(1_500);

/// What was there to take down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Downed {
    /// A running lab.
    Running,
    /// What a dead lab left.
    Remains,
    /// Nothing.
    Nothing,
}

/// Takes a lab down and removes what it left. Down already is as good.
///
/// # Errors
/// [`Error::Busy`] while another process starts or stops it; [`Error::Os`] if something of it stays.
pub fn down(lab: &Lab) -> Result<Downed, Error> {
    if !lab.dir.exists() {
        return Ok(Downed::Nothing);
    }
    let _claim = lab.claim()?;
    wreck(lab)
}

/// Waits a while until the machine's init has reaped the lab's: then not even a defunct process is left. One that takes
/// its time is no failure.
fn await_burial(init: Process) {
    let deadline = now() + BURIAL;
    while std::path::Path::new(&format!("/proc/{}", init.pid)).exists() && now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// As [`down`], by whoever holds the claim.
///
/// # Errors
/// [`Error::Os`] if something of it stays.
pub(super) fn wreck(lab: &Lab) -> Result<Downed, Error> {
    let mut downed = Downed::Remains;
    if let Some(record) = lab.record() {
        // The handle first and the look at the start time after: between them the id cannot have changed hands.
        if let Ok(pidfd) = sys::pidfd_open(record.init.pid)
            && record.init.lives()
        {
            faults::end_known(&pidfd, record.init.pid, &format!("lab `{}`", lab.name))?;
            await_burial(record.init);
            downed = Downed::Running;
        }
    }
    lab.remove()?;
    Ok(downed)
}
