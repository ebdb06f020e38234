//! Tests that need to be root of a network: each runs in a process and in namespaces of its own.
//!
//! Whoever runs `cargo test`, a plain user or root, the body given to [`in_namespace`] runs as root of a fresh user, network
//! and mount namespace, with an empty `/run`: it may make what it likes, and all of it is gone when the process is. The
//! way there: a thread of a running test binary cannot make a user namespace (`EINVAL`), so the test starts its own binary
//! again for itself alone, and the child unshares between fork and exec, when it has one thread.
//!
//! To look around in a test that fails:
//!
//! ```text
//! DVR_TEST_HOLD=1 cargo test --test netns_kernel -- --exact NAME --nocapture
//! ```
//!
//! prints the `nsenter` line that joins it, and waits for Enter when the body is over. `DVR_TEST_REAL_ROOT=1`, as root, goes
//! without the user namespace: the same tests under real root's rules.

#![allow(dead_code, reason = "every test binary uses its own part of this")]

pub(crate) mod sys;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Stdio};

/// Set in the child, to the test's name.
const INSIDE: &str = "DVR_TEST_INSIDE";

/// Runs `body` as root of namespaces of its own. `name` is the test's full name, as `--exact` takes it.
///
/// # Panics
/// When `body` does; and when the namespaces are refused, with what to do about it. A test that cannot run has not passed.
pub(crate) fn in_namespace(name: &str, body: impl FnOnce()) {
    let hold = std::env::var_os("DVR_TEST_HOLD").is_some();
    if std::env::var(INSIDE).as_deref() == Ok(name) {
        return inside(hold, body);
    }
    let program = std::env::current_exe().expect("the test binary's path");
    #[expect(clippy::disallowed_methods, reason = "the program started is this test itself")]
    let mut command = Command::new(program);
    command.args([name, "--exact", "--nocapture", "--test-threads=1"]).env(INSIDE, name);
    let user = !(nix::unistd::geteuid().is_root() && std::env::var_os("DVR_TEST_REAL_ROOT").is_some());
    sys::isolate(&mut command, user);
    if hold {
        assert!(command.status().unwrap_or_else(|error| refused(&error)).success(), "{name} failed inside");
        return;
    }
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| refused(&error));
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name} failed in its namespaces: its output is above");
    // A name that matches nothing would run no test, and that counts as success.
    assert!(text.contains("1 passed"), "`{name}` is not the full name of this test");
}

fn refused(error: &std::io::Error) -> ! {
    panic!(
        "cannot start a test in user, network and mount namespaces of its own: {error}. Allow it with \
         `sysctl user.max_user_namespaces=15000`, on Debian also `kernel.unprivileged_userns_clone=1`, on Ubuntu also \
         `kernel.apparmor_restrict_unprivileged_userns=0`; or run the tests as root with DVR_TEST_REAL_ROOT=1"
    )
}

fn inside(hold: bool, body: impl FnOnce()) {
    println!("nsenter --target {} --user --net --mount --preserve-credentials", std::process::id());
    let outcome = catch_unwind(AssertUnwindSafe(body));
    if hold {
        println!("held: press Enter to end");
        let mut line = String::new();
        let _ended = std::io::stdin().read_line(&mut line);
    }
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

/// Runs a future to its end, on a runtime of this thread alone.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(future)
}

/// Runs iproute2's `ip`, the independent witness of what the kernel holds.
///
/// # Panics
/// When it is not installed or fails.
pub(crate) fn ip(arguments: &str) -> String {
    #[expect(clippy::disallowed_methods, reason = "an oracle that shares no code with what it judges")]
    let output =
        Command::new("ip").args(arguments.split_whitespace()).output().expect("install iproute2: it is the oracle");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "ip {arguments}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// The same, as JSON.
pub(crate) fn ip_json(arguments: &str) -> serde_json::Value {
    let text = ip(&format!("-j {arguments}"));
    if text.trim().is_empty() {
        serde_json::Value::Array(Vec::new())
    } else {
        serde_json::from_str(&text).expect("JSON")
    }
}
