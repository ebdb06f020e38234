//! What is there: the entries of the namespace directory.

use std::collections::BTreeMap;

use super::Name;

/// What stands behind a name in the namespace directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A namespace is mounted on it.
    Mounted,
    /// A plain file: what is left when its maker died half-way, or when somebody unmounted it. `ip netns` shows it, and
    /// nothing can enter it.
    Stale,
}

/// The entries of the namespace directory, by name.
pub type Entries = BTreeMap<Name, Entry>;
