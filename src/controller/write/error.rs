//! Why a write failed, and what of it was made nevertheless.

use core::fmt;

use super::{ECHO_LIMIT, EDITS_MAX, Made, TRIES};
use crate::model::{Object, Refusal, Underlay};
use crate::store::{Revision, StoreError};

/// Objects that are named where there may be any number.
const NAMED_MAX: usize = 5;

/// Why nothing was written, or not all.
#[derive(Debug)]
pub(in crate::controller) struct WriteError {
    /// What was in the way.
    pub(in crate::controller) why: Why,
    /// What was made before.
    pub(super) done: Done,
}

impl WriteError {
    /// That something was in the way before anything was made.
    pub(in crate::controller) fn at_once(why: Why) -> Self {
        Self { why, done: Done::default() }
    }
}

impl fmt::Display for WriteError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { why, done } = self;
        if matches!(why, Why::Refused(_)) && *done == Done::default() {
            out.write_str("nothing was changed: ")?;
        }
        write!(out, "{why}{done}")
    }
}

/// What was in the way of a write.
#[derive(Debug, thiserror::Error)]
pub(in crate::controller) enum Why {
    #[error("{}", refused(.0))]
    Refused(Refusal),
    #[error("{object} {}, not at revision {asked} as you last saw it: read it again and make your change to that", changed(.found))]
    Stale { object: Object, asked: Revision, found: Option<Revision> },
    #[error("the underlay is {} with an MTU of {}: it can be set only before there is a node, network, router or port", .0.cidr, .0.mtu)]
    Underlay(Underlay),
    #[error("other writers were first {TRIES} times in a row, at {key} at last: apply it again")]
    Overtaken { key: String },
    #[error(transparent)]
    Store(StoreError),
    #[error("what was committed has not come back from the store for {} s: see to the store, and read again", ECHO_LIMIT.as_secs())]
    Silent,
    #[error("{edits} edits in one request: {EDITS_MAX} are the most; apply them in parts")]
    TooMany { edits: usize },
    #[error("too many changes wait for their turn already: apply it again when some are made")]
    Crowded,
    #[error(
        "{count} changes need each other ({objects}) and would have to be made at one instant, of which this store takes {most}: make them in parts that can each be on their own, such as first a new node or subnet, then the moves to it, then the old one's end"
    )]
    Tied { objects: Named, count: usize, most: usize },
    #[error("the controller ended while it wrote: read again to see what was made")]
    Ended,
}

fn refused(refusal: &Refusal) -> String {
    let count = refusal.problems.len() + refusal.untold;
    format!("{count} {} wrong with what was asked for", if count == 1 { "thing is" } else { "things are" })
}

fn changed(found: &Option<Revision>) -> String {
    match found {
        Some(revision) => format!("was last changed at revision {revision}"),
        None => "is not there".to_owned(),
    }
}

/// Some of many objects.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::controller) struct Named {
    first: Vec<Object>,
    count: usize,
}

impl Named {
    pub(super) fn of<'a>(objects: impl Iterator<Item = &'a Object>) -> Self {
        let mut named = Self::default();
        for object in objects {
            named.count += 1;
            if named.first.len() < NAMED_MAX {
                named.first.push(object.clone());
            }
        }
        named
    }
}

impl fmt::Display for Named {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, count } = self;
        for (at, object) in first.iter().enumerate() {
            write!(out, "{}{object}", if at == 0 { "" } else { ", " })?;
        }
        match count - first.len() {
            0 => Ok(()),
            more => write!(out, " and {more} more"),
        }
    }
}

/// What a write has made before it failed; says nothing of none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Done {
    made: Named,
    /// What may have been made, or may yet be.
    doubt: Named,
}

impl Done {
    pub(super) fn of(made: &[Made], doubt: &[Made]) -> Self {
        let named = |made: &[Made]| Named::of(made.iter().map(|made| &made.object));
        Self { made: named(made), doubt: named(doubt) }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.made.count
    }
}

impl fmt::Display for Done {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { made, doubt } = self;
        match made.count {
            0 => {}
            1 => write!(out, "; 1 change was made before, and stays: {made}")?,
            count => write!(out, "; {count} changes were made before, and stay: {made}")?,
        }
        match doubt.count {
            0 => Ok(()),
            count => write!(out, "; whether {count} more are made is not known yet: {doubt}"),
        }
    }
}
