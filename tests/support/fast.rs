//! Users whose labs have the kernel fast path, which takes BPF and so this machine's own root.

use dvr::fastpath::kernel::FastPath;

use crate::user::User;

/// Whether BPF may be had here; says so loudly if not.
pub(crate) fn has_bpf(what: &str) -> bool {
    match FastPath::load() {
        Ok(_) => true,
        Err(error) => {
            println!("LEFT OUT: {what}: {error}");
            false
        }
    }
}

/// Everybody the labs must work for; whoever runs the tests once more with switches of two workers; and root with the fast
/// path where that can be had.
pub(crate) fn every_way(lab: &str) -> Vec<User> {
    let mut users = User::everybody(lab);
    let mut several = User::new(&format!("{lab}-w"), false);
    several.workers = 2;
    users.push(several);
    if has_bpf(&format!("{lab} with the fast path")) {
        users.push(with_fast_path(&format!("{lab}-f")));
    }
    users
}

/// Somebody whose lab has the fast path.
pub(crate) fn with_fast_path(lab: &str) -> User {
    let mut user = User::new(lab, false);
    user.fast = true;
    user
}
