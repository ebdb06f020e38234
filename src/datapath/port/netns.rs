//! Doing one thing in another network namespace.

use std::fs::File;
use std::path::Path;
use std::thread;

use nix::sched::{CloneFlags, setns};

use super::PortError;

/// Runs `action` on a thread of its own that has entered the namespace whose file is `netns`; in the caller's own
/// namespace, and thread, without one. Descriptors opened there are good anywhere; the caller's thread never moves.
///
/// # Errors
/// [`PortError::Netns`] when the namespace cannot be entered, or what `action` returns.
pub fn within<T: Send>(
    netns: Option<&Path>,
    action: impl FnOnce() -> Result<T, PortError> + Send,
) -> Result<T, PortError> {
    let Some(path) = netns else {
        return action();
    };
    let failed = |source| PortError::Netns { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(failed)?;
    thread::scope(|scope| {
        let work = move || {
            setns(&file, CloneFlags::CLONE_NEWNET).map_err(|errno| failed(errno.into()))?;
            action()
        };
        let thread = thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work).map_err(failed)?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
