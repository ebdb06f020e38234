//! Which namespaces to make and to remove.

use core::fmt;
use std::collections::BTreeSet;

use super::{Entries, Entry, Name};

/// One step on the namespace directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetnsOp {
    /// Make a namespace, mount it under this name, and set its loopback interface up.
    Create(Name),
    /// Remove the name, and with it the namespace unless somebody else holds it. Veth pairs that end in it go first, so
    /// that the other ends' names are free at once: the kernel tears a namespace down in its own time.
    Remove(Name),
}

impl fmt::Display for NetnsOp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Create(name) => write!(out, "add namespace {name}"),
            Self::Remove(name) => write!(out, "remove namespace {name}"),
        }
    }
}

/// The steps from `observed` to `desired`, removals first. A name that is not desired is removed only if `managed` says it
/// is ours.
pub fn diff(desired: &BTreeSet<&Name>, observed: &Entries, managed: impl Fn(&Name) -> bool) -> Vec<NetnsOp> {
    let doomed = observed
        .iter()
        .filter(|(name, entry)| match desired.contains(name) {
            true => **entry == Entry::Stale,
            false => managed(name),
        })
        .map(|(name, _)| NetnsOp::Remove(name.clone()));
    let missing = desired
        .iter()
        .filter(|name| observed.get(**name) != Some(&Entry::Mounted))
        .map(|name| NetnsOp::Create((*name).clone()));
    doomed.chain(missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_ours_and_stale_ones_and_spares_the_rest() {
        let name = |text: &str| Name::new(text).expect("a legal name");
        let (a, b, c) = (name("vm-a"), name("vm-b"), name("vm-c"));
        let observed = Entries::from([
            (a.clone(), Entry::Mounted),
            (b.clone(), Entry::Stale),
            (name("vm-old"), Entry::Mounted),
            (name("cni-1"), Entry::Mounted),
        ]);
        let ops = diff(&BTreeSet::from([&a, &b, &c]), &observed, |name| name.as_str().starts_with("vm-"));
        let printed: Vec<String> = ops.iter().map(ToString::to_string).collect();
        assert_eq!(
            printed,
            ["remove namespace vm-b", "remove namespace vm-old", "add namespace vm-b", "add namespace vm-c"]
        );
    }
}
