//! What the store's keys and values mean. Pure.
//!
//! | Key below `/dvr/v1/` | Value |
//! |---|---|
//! | `node/NAME`, `network/NAME`, `router/NAME`, `port/NAME` | the resource in JSON, nothing left out |
//! | `underlay` | what carries the tunnels, in JSON |
//! | `serial` | put by every write of desired state, expected by the next: writers follow each other |
//! | `host-mac/MAC` | the node that has it; made only where it is not, so no two nodes ever share one |
//! | `live/NODE` | that an agent of the node lives, and what it says ([`Report`]); goes with its lease |
//! | `epoch` | tells this history of revisions from that of another store |
//! | `compacted` | the revision up to which history may go, once nobody has moved it for a while |

use serde::{Deserialize, Serialize};

use crate::model::{Kind, Object, Resource};
use crate::rpc::cut_errors;
use crate::types::Mac;

/// Before every key.
pub(super) const PREFIX: &str = "/dvr/v1/";
/// What every writer puts.
pub(super) const SERIAL: &str = "/dvr/v1/serial";
/// What carries the tunnels.
pub(super) const UNDERLAY: &str = "/dvr/v1/underlay";
/// Which history it is.
pub(super) const EPOCH: &str = "/dvr/v1/epoch";
/// How much of history may go.
pub(super) const COMPACTED: &str = "/dvr/v1/compacted";

/// What a node's agent says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    /// The revision that the node is made to, by its agent's last look without errors.
    #[serde(default)]
    pub(super) applied: u64,
    /// What stands in the way of a later one.
    #[serde(default)]
    pub(super) errors: Vec<String>,
}

impl Report {
    /// What an agent says, as far as it is kept.
    pub(super) fn new(applied: u64, errors: Vec<String>) -> Self {
        Self { applied, errors: cut_errors(errors) }
    }
}

/// What a key is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Object(Object),
    Underlay,
    Serial,
    HostMac,
    Live(String),
    Epoch,
    Compacted,
    /// Not of this release.
    Foreign,
}

impl Key {
    /// What a key of the store is about.
    pub(super) fn of(key: &str) -> Self {
        let Some(rest) = key.strip_prefix(PREFIX) else { return Self::Foreign };
        match (rest, rest.split_once('/')) {
            ("underlay", _) => Self::Underlay,
            ("serial", _) => Self::Serial,
            ("epoch", _) => Self::Epoch,
            ("compacted", _) => Self::Compacted,
            (_, Some(("host-mac", _))) => Self::HostMac,
            (_, Some(("live", node))) if !node.is_empty() => Self::Live(node.to_owned()),
            (_, Some((word, name))) if !name.is_empty() => {
                let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word);
                kind.map_or(Self::Foreign, |kind| Self::Object(Object::new(kind, name)))
            }
            (_, Some(_) | None) => Self::Foreign,
        }
    }
}

/// Where an object is kept.
pub(super) fn object(object: &Object) -> String {
    format!("{PREFIX}{}/{}", object.kind.word(), object.name)
}

/// Where it is noted whose a host MAC is.
pub(super) fn host_mac(mac: Mac) -> String {
    format!("{PREFIX}host-mac/{mac}")
}

/// Where it is noted that a node lives.
pub(super) fn live(node: &str) -> String {
    format!("{PREFIX}live/{node}")
}

/// A resource as it is kept.
pub(super) fn value(resource: &Resource) -> Vec<u8> {
    serde_json::to_vec(resource).unwrap_or_else(|error| unreachable!("a resource has only text keys: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_kept_within_bounds() {
        let Report { applied, errors } = Report::new(7, vec!["é".repeat(300); 20]);
        assert_eq!((applied, errors.len(), errors[0].len()), (7, 8, 300));
        assert_eq!(serde_json::from_slice::<Report>(b"{}").expect("of a release before"), Report::default());
    }

    #[test]
    fn keys_say_what_they_are_about() {
        for kind in Kind::ALL {
            let named = Object::new(kind, "a/b");
            assert_eq!(Key::of(&object(&named)), Key::Object(named));
        }
        let mac: Mac = "fa:16:3f:00:00:01".parse().expect("an address");
        for (key, meaning) in [
            (SERIAL, Key::Serial),
            (UNDERLAY, Key::Underlay),
            (EPOCH, Key::Epoch),
            (COMPACTED, Key::Compacted),
            (&host_mac(mac), Key::HostMac),
            (&live("n1"), Key::Live("n1".into())),
            ("/dvr/v1/port/", Key::Foreign),
            ("/dvr/v1/vlan/x", Key::Foreign),
            ("/dvr/v2/serial", Key::Foreign),
            ("serial", Key::Foreign),
        ] {
            assert_eq!(Key::of(key), meaning, "{key}");
        }
    }
}
