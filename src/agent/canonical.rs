//! Flows in the engine's own words, so that two texts of one flow compare equal. Pure.

use crate::api::switch::Port;

/// A flow that makes no sense to the engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("flow `{flow}` makes no sense to the engine: {why}")]
pub(super) struct BadFlow {
    flow: String,
    why: String,
}

/// A bridge's ports by name.
pub(super) struct Numbers;

impl Numbers {
    pub(super) fn new(_ports: &[Port]) -> Self {
        Self
    }
}

/// A flow's match and actions, each in one text only.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Canonical {
    pub(super) matching: String,
    pub(super) actions: String,
}

impl Canonical {
    pub(super) fn of(_table: u8, matching: &str, actions: &str, _ports: &Numbers) -> Result<Self, BadFlow> {
        let mut words: Vec<&str> = matching.split(',').collect();
        words.sort_unstable();
        Ok(Self { matching: words.join(","), actions: actions.to_ascii_lowercase() })
    }
}
