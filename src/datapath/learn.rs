//! The `learn` action: a flow made from a packet's bits.

use super::action::{Action, Actions, Learn, LearnSource, LearnSpec, Wide, port};
use super::key::{Key, Mask};
use super::matching::Match;
use super::table::Flow;

/// A flow as a packet taught it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LearnedFlow {
    pub(crate) table: u8,
    pub(crate) priority: u16,
    pub(crate) matching: Match,
    pub(crate) cookie: u64,
    pub(crate) idle_timeout: u16,
    pub(crate) hard_timeout: u16,
    pub(crate) send_flow_rem: bool,
    pub(crate) actions: Actions,
    pub(crate) limit: u32,
}

impl LearnedFlow {
    /// Whether `flow`, of the same table, match and priority, is in everything else as this one would be.
    pub(crate) fn is(&self, flow: &Flow) -> bool {
        self.actions == flow.actions
            && self.cookie == flow.cookie
            && self.idle_timeout == flow.idle_timeout
            && self.hard_timeout == flow.hard_timeout
            && self.send_flow_rem == flow.send_flow_rem
    }
}

/// Marks the bits of a packet that decide what is learned.
pub(crate) fn looked_at(learn: &Learn, mask: &mut Mask) {
    for spec in &learn.specs {
        match spec {
            LearnSpec::Match { source: LearnSource::Field(from), .. }
            | LearnSpec::Load { source: LearnSource::Field(from), .. }
            | LearnSpec::Output(from) => from.raise(mask),
            LearnSpec::Match { source: LearnSource::Value(_), .. }
            | LearnSpec::Load { source: LearnSource::Value(_), .. } => {}
        }
    }
}

/// The flow that a packet with this key teaches.
pub(crate) fn make(learn: &Learn, key: &Key) -> LearnedFlow {
    let value = |source: &LearnSource| match source {
        LearnSource::Value(value) => *value,
        LearnSource::Field(from) => from.read(key),
    };
    let mut matching = Match::ANY;
    let mut actions = Vec::new();
    if learn.fin_idle_timeout != 0 || learn.fin_hard_timeout != 0 {
        actions.push(Action::FinTimeout { idle: learn.fin_idle_timeout, hard: learn.fin_hard_timeout });
    }
    for spec in &learn.specs {
        match spec {
            LearnSpec::Match { field, source } if field.is_whole() => {
                let info = field.field.info();
                matching.demand_field(info, value(source), info.exact());
            }
            LearnSpec::Match { field, source } => {
                field.write(&mut matching.value, value(source));
                field.raise(&mut matching.mask);
            }
            LearnSpec::Load { to, source } => actions.push(Action::Load { to: *to, value: Wide(value(source)) }),
            LearnSpec::Output(from) => {
                // As OVS: a real port, or one of the reserved ones that mean something without a controller.
                if let Ok(number @ (0..=port::MAX | port::IN_PORT | port::FLOOD | port::ALL | port::LOCAL)) =
                    u32::try_from(from.read(key))
                {
                    actions.push(Action::Output(number));
                }
            }
        }
    }
    LearnedFlow {
        table: learn.table,
        priority: learn.priority,
        matching,
        cookie: learn.cookie,
        idle_timeout: learn.idle_timeout,
        hard_timeout: learn.hard_timeout,
        send_flow_rem: learn.send_flow_rem,
        actions: actions.into(),
        limit: learn.limit,
    }
}
