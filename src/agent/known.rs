//! What of the switch is known to be as the view asks, without looking; and what the switch says that tells otherwise. Pure.

use std::collections::BTreeMap;

use crate::api::switch::Standing;
use crate::types::IfName;

/// What is known of one switch.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The switch it is known of.
    instance: String,
    /// Each bridge's revision since its flows were made so.
    revisions: BTreeMap<IfName, u64>,
    /// Faults of its ports that were told, once it told of any: those before are from before the agent looked.
    faults: Option<u64>,
}

impl Known {
    /// Forgets what was known of another switch.
    pub(super) fn is_of(&mut self, instance: &str) {
        if self.instance != instance {
            *self = Self { instance: instance.to_owned(), ..Self::default() };
        }
    }

    /// Whether a bridge's flows are known to be as the view asks, at whatever revision.
    pub(super) fn has(&self, bridge: &IfName) -> bool {
        self.revisions.contains_key(bridge)
    }

    /// Whether they are if the bridge is at this revision.
    pub(super) fn holds(&self, bridge: &IfName, revision: Option<u64>) -> bool {
        revision.is_some() && self.revisions.get(bridge).copied() == revision
    }

    /// A bridge's flows were made as the view asks.
    pub(super) fn made(&mut self, bridge: IfName, revision: u64) {
        self.revisions.insert(bridge, revision);
    }

    /// They were changed once more, as the view asks.
    pub(super) fn amended(&mut self, bridge: &IfName) {
        if let Some(revision) = self.revisions.get_mut(bridge) {
            *revision += 1;
        }
    }

    /// Nothing is known of a bridge's flows.
    pub(super) fn forget(&mut self, bridge: &IfName) {
        self.revisions.remove(bridge);
    }

    /// Nothing is known of any.
    pub(super) fn forget_all(&mut self) {
        self.revisions.clear();
    }

    /// Whether somebody else changed what is known, or a port failed since this was asked last. Who tells may be late: a
    /// revision before the one that is known is no news.
    pub(super) fn is_disturbed(&mut self, standing: &Standing) -> bool {
        let Standing { revisions, faults } = standing;
        let failed = self.faults.replace(*faults).is_some_and(|told| told != *faults);
        let is_other = |(bridge, known): (&IfName, &u64)| revisions.get(bridge).is_none_or(|revision| revision > known);
        failed || self.revisions.iter().any(is_other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> IfName {
        text.parse().expect("a name")
    }

    fn standing(revisions: &[(&str, u64)], faults: u64) -> Standing {
        Standing { revisions: revisions.iter().map(|(bridge, revision)| (name(bridge), *revision)).collect(), faults }
    }

    /// Input: what a switch tells after one's own changes, late and in time, and after others'. Output: only the others' are
    /// worth a look, of bridges that are known; and a fault once.
    #[test]
    fn only_what_others_did_disturbs() {
        let mut known = Known::default();
        known.is_of("one");
        assert!(!known.is_disturbed(&standing(&[("br-int", 4)], 7)), "nothing is known, and the faults are old");
        known.made(name("br-int"), 4);
        known.amended(&name("br-int"));
        assert!(known.holds(&name("br-int"), Some(5)) && !known.holds(&name("br-int"), None));
        for (told, expected) in [
            (standing(&[("br-int", 4)], 7), false),
            (standing(&[("br-int", 5), ("mine", 9)], 7), false),
            (standing(&[("br-int", 6)], 7), true),
            (standing(&[("mine", 9)], 7), true),
            (standing(&[("br-int", 5)], 8), true),
            (standing(&[("br-int", 5)], 8), false),
        ] {
            assert_eq!(known.is_disturbed(&told), expected, "{told:?}");
        }
        known.is_of("one");
        assert!(known.has(&name("br-int")));
        known.is_of("another");
        assert!(!known.has(&name("br-int")));
    }
}
