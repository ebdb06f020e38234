//! Lists of actions in text, read word by word.

use std::sync::Arc;

use super::super::action::{Actions, LIMIT_ACTIONS, LIMIT_NESTING};
use super::PortNames;
use super::action::Parser;
use super::lexer::{Piece, TextError, words};

/// Actions that were read, each with its word.
#[derive(Debug, Default)]
pub(super) struct Before<'a> {
    words: Vec<&'a str>,
    actions: Actions,
}

impl Before<'_> {
    pub(super) const fn actions(&self) -> &Actions {
        &self.actions
    }
}

/// The actions of a text; `drop` and nothing are the same. A word that was in its place in the text before, with the same
/// ports, need not be looked into.
pub(super) fn parse_actions<'a>(
    text: Piece<'a>,
    ports: &impl PortNames,
    before: &mut Before<'a>,
) -> Result<Actions, TextError> {
    nested(text, ports, 0, before)
}

/// The actions of a text that is nested in so many others.
pub(super) fn nested<'a, P: PortNames>(
    text: Piece<'a>,
    ports: &P,
    depth: usize,
    before: &mut Before<'a>,
) -> Result<Actions, TextError> {
    if depth > LIMIT_NESTING {
        return Err(text.error(format!("actions are nested deeper than {LIMIT_NESTING}")));
    }
    let mut actions = Vec::with_capacity(before.actions.len());
    let mut dropped: Option<Piece<'_>> = None;
    // What fails leaves nothing to go by.
    let mut known = core::mem::take(&mut before.words);
    let mut words = words(text);
    loop {
        let at = actions.len();
        if let (Some(word), Some(action)) = (known.get(at), before.actions.get(at))
            && at < LIMIT_ACTIONS
            && dropped.is_none()
            && words.pass(word)
        {
            actions.push(action.clone());
            continue;
        }
        let Some(word) = words.next() else { break };
        let word = word?;
        if let Some(first) = dropped {
            return Err(first.error("`drop` must be the only action"));
        }
        if word.key.text() == "drop" && word.value.is_none() {
            if !actions.is_empty() {
                return Err(word.key.error("`drop` must be the only action"));
            }
            dropped = Some(word.key);
            continue;
        }
        if at >= LIMIT_ACTIONS {
            return Err(word.key.error(format!("a flow has at most {LIMIT_ACTIONS} actions")));
        }
        actions.push(Parser { ports, depth }.action(word)?);
        match known.get_mut(at) {
            Some(place) => *place = word.whole.text(),
            None => known.push(word.whole.text()),
        }
    }
    known.truncate(actions.len());
    before.words = known;
    before.actions = actions.into();
    Ok(Arc::clone(&before.actions))
}
