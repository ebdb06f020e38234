//! How many descriptors a daemon may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Takes as many descriptors as this process may have: the usual soft limit of 1,024 is met by some hundred ports of a
/// switch, or by as many agents of a controller. If it cannot be raised, the log says so, and what exceeds it is refused
/// where it is asked for.
pub fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(errno) = raised {
        tracing::warn!(%errno, "the limit on open files stays as it was");
    }
}
