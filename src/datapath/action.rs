//! Actions as a flow holds them: the words of `ovs-actions(7)`, each kept as it was written so that it prints back.

use std::sync::Arc;

use super::field::{Field, Needs, Subfield};
use super::key::{self, Bits, Key, Mask};
use super::matching::Match;
use crate::types::Mac;
use crate::wire::ethernet;

/// Reserved port numbers of OpenFlow 1.0 (`ofp_port`).
pub(crate) mod port {
    pub(crate) const MAX: u32 = 0xfeff;
    pub(crate) const IN_PORT: u32 = 0xfff8;
    pub(crate) const TABLE: u32 = 0xfff9;
    pub(crate) const NORMAL: u32 = 0xfffa;
    pub(crate) const FLOOD: u32 = 0xfffb;
    pub(crate) const ALL: u32 = 0xfffc;
    pub(crate) const CONTROLLER: u32 = 0xfffd;
    pub(crate) const LOCAL: u32 = 0xfffe;
    pub(crate) const NONE: u32 = 0xffff;
    /// No port was set (`OFPP_UNSET` of OpenFlow 1.5).
    pub(crate) const UNSET: u32 = 0xfff7;

    /// The reserved numbers by name; the ports themselves have other numbers.
    pub(crate) const NAMES: [(u32, &str); 9] = [
        (IN_PORT, "IN_PORT"),
        (TABLE, "TABLE"),
        (NORMAL, "NORMAL"),
        (FLOOD, "FLOOD"),
        (ALL, "ALL"),
        (CONTROLLER, "CONTROLLER"),
        (LOCAL, "LOCAL"),
        (NONE, "ANY"),
        (UNSET, "UNSET"),
    ];
}

/// A flow's actions, in order.
pub(crate) type Actions = Arc<[Action]>;

/// One action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// To a port; the reserved ones are IN_PORT, NORMAL, FLOOD, ALL and LOCAL.
    Output(u32),
    /// To the port whose number a field holds.
    OutputField(Subfield),
    /// Looks up a table (this one if `None`), as if the frame had come by `port`, and comes back.
    Resubmit {
        port: Option<u32>,
        table: Option<u8>,
        plain: bool,
    },
    /// Goes on in a later table.
    GotoTable(u8),
    WriteMetadata {
        value: u64,
        mask: u64,
    },
    ModEthSrc(Mac),
    ModEthDst(Mac),
    ModVlanVid(u16),
    ModVlanPcp(u8),
    /// Written `strip_vlan`, or `pop_vlan`.
    PopVlan {
        strip: bool,
    },
    PushVlan(u16),
    ModIpSrc(u32),
    ModIpDst(u32),
    ModIpTos(u8),
    ModIpEcn(u8),
    ModIpTtl(u8),
    ModTpSrc(u16),
    ModTpDst(u16),
    /// Writes all of a field.
    SetField {
        field: Field,
        value: Wide,
    },
    /// Writes some bits of a field.
    SetBits(Box<SetBits>),
    Load {
        to: Subfield,
        value: Wide,
    },
    Move {
        from: Subfield,
        to: Subfield,
    },
    SetTunnel {
        id: u64,
        wide: bool,
    },
    DecTtl,
    Learn(Arc<Learn>),
    Note(Box<[u8]>),
    /// Says these octets to whoever follows the switch; the packet goes on.
    Controller(Arc<[u8]>),
    /// Runs the actions on a copy of everything.
    Clone(Actions),
    /// Shortens the flow's timeouts once TCP ends.
    FinTimeout {
        idle: u16,
        hard: u16,
    },
    /// Skips what is left in this bridge.
    Exit,
}

/// What may take 128 bits, as an action keeps it: a million flows have ten actions each, and nothing else in one of them
/// would align it to 16 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(Rust, packed(8))]
pub(crate) struct Wide(pub(crate) u128);

/// Which bits of a field to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetBits {
    pub(crate) field: Field,
    pub(crate) value: u128,
    pub(crate) mask: u128,
}

const _: () = assert!(size_of::<Action>() <= 24, "an action of three words");

/// A `learn` action: how to make a flow from a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Learn {
    pub(crate) table: u8,
    pub(crate) idle_timeout: u16,
    pub(crate) hard_timeout: u16,
    pub(crate) fin_idle_timeout: u16,
    pub(crate) fin_hard_timeout: u16,
    pub(crate) priority: u16,
    pub(crate) send_flow_rem: bool,
    pub(crate) delete_learned: bool,
    pub(crate) cookie: u64,
    /// Most flows of this table and cookie; 0 for no limit.
    pub(crate) limit: u32,
    /// A bit that says afterwards whether the limit let it learn.
    pub(crate) result: Option<Subfield>,
    pub(crate) specs: Box<[LearnSpec]>,
}

impl Default for Learn {
    fn default() -> Self {
        Self {
            table: 1,
            idle_timeout: 0,
            hard_timeout: 0,
            fin_idle_timeout: 0,
            fin_hard_timeout: 0,
            priority: super::matching::DEFAULT_PRIORITY,
            send_flow_rem: false,
            delete_learned: false,
            cookie: 0,
            limit: 0,
            result: None,
            specs: Box::default(),
        }
    }
}

/// What a learned value is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LearnSource {
    /// A constant, written either as the whole field's value (`eth_type=0x800`) or as a number.
    Value(u128),
    Field(Subfield),
}

/// One part of a flow to be learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LearnSpec {
    /// The flow matches these bits.
    Match { field: Subfield, source: LearnSource },
    /// The flow loads these bits.
    Load { to: Subfield, source: LearnSource },
    /// The flow sends to the port the packet's bits name.
    Output(Subfield),
}

/// Why actions do not fit a match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadActions {
    #[error("{action} needs a flow that matches {needs}: add it to the match")]
    Prerequisite { action: String, needs: &'static str },
    #[error("goto_table:{0} must name a later table than the flow's own, {1}")]
    GotoBackwards(u8, u8),
    #[error("goto_table must be the last action")]
    GotoNotLast,
    #[error("{0} cannot be written")]
    ReadOnly(&'static str),
    #[error("actions are nested deeper than {LIMIT_NESTING}")]
    TooDeep,
    #[error("a flow's actions are limited to {LIMIT_ACTIONS}")]
    TooMany,
}

/// Most actions of one flow.
pub(crate) const LIMIT_ACTIONS: usize = 65_536;
/// Deepest nesting of `clone`.
pub(crate) const LIMIT_NESTING: usize = 8;

/// Checks that a flow in `table` matching `matching` may have `actions`: each field they touch must exist in every
/// packet that gets there, as actions before it leave the packet.
pub(crate) fn check(actions: &[Action], matching: &Match, table: u8) -> Result<(), BadActions> {
    let mut state = Known { value: matching.value.clone(), mask: matching.mask.clone() };
    state.run(actions, table, 0)
}

/// What is known of the packet at some action.
struct Known {
    value: Key,
    mask: Mask,
}

impl Known {
    fn run(&mut self, actions: &[Action], table: u8, depth: usize) -> Result<(), BadActions> {
        if depth > LIMIT_NESTING {
            return Err(BadActions::TooDeep);
        }
        if actions.len() > LIMIT_ACTIONS {
            return Err(BadActions::TooMany);
        }
        for (index, action) in actions.iter().enumerate() {
            if let Action::GotoTable(to) = action {
                if *to <= table {
                    return Err(BadActions::GotoBackwards(*to, table));
                }
                if index + 1 != actions.len() {
                    return Err(BadActions::GotoNotLast);
                }
            }
            self.step(action, table, depth)?;
        }
        Ok(())
    }

    fn needs(&self, action: &str, needs: Needs) -> Result<(), BadActions> {
        if needs.ensured_by(&self.value, &self.mask) {
            return Ok(());
        }
        Err(BadActions::Prerequisite { action: action.to_owned(), needs: needs.describe() })
    }

    fn write(&mut self, action: &str, to: Subfield, value: Option<u128>) -> Result<(), BadActions> {
        let info = to.field.info();
        if !info.writable {
            return Err(BadActions::ReadOnly(info.name));
        }
        // A match may name an id without a tag, a write may not.
        let needs = if info.field == Field::VlanVid { Needs::Vlan } else { info.needs };
        if !needs.ensured_by(&self.value, &self.mask) {
            return self.needs(&format!("{action} {}", info.name), needs);
        }
        match value {
            Some(value) => {
                to.write(&mut self.value, value);
                to.raise(&mut self.mask);
            }
            None => {
                to.write(&mut self.value, 0);
                to.write(&mut self.mask, 0);
            }
        }
        Ok(())
    }

    fn step(&mut self, action: &Action, table: u8, depth: usize) -> Result<(), BadActions> {
        match action {
            Action::ModIpEcn(_) | Action::ModIpTtl(_) => self.needs("writing ecn or ttl", Needs::Ip),
            Action::SetField { field, value } => self.write("set_field", Subfield::whole(*field), Some(value.0)),
            Action::SetBits(set) => self.write("set_field", Subfield::whole(set.field), None),
            Action::Load { to, value } => self.write("load", *to, Some(value.0)),
            Action::Move { from, to } => {
                self.needs("move", from.field.info().needs)?;
                self.write("move", *to, None)
            }
            Action::OutputField(from) => self.needs("output", from.field.info().needs),
            Action::Learn(learn) => {
                self.learn(learn)?;
                learn.result.map_or(Ok(()), |to| self.write("learn's result_dst", to, None))
            }
            Action::Clone(inner) => {
                let mut copy = Self { value: self.value.clone(), mask: self.mask.clone() };
                copy.run(inner, table, depth + 1)
            }
            Action::PushVlan(_) | Action::ModVlanVid(_) | Action::ModVlanPcp(_) => {
                self.value.raise(key::VLAN_TCI, key::TCI_PRESENT.into());
                self.mask.raise(key::VLAN_TCI, key::TCI_PRESENT.into());
                Ok(())
            }
            Action::PopVlan { .. } => {
                self.value.set(key::VLAN_TCI, 0);
                self.mask.raise_all(key::VLAN_TCI);
                Ok(())
            }
            Action::Output(_)
            | Action::Resubmit { .. }
            | Action::GotoTable(_)
            | Action::WriteMetadata { .. }
            | Action::ModEthSrc(_)
            | Action::ModEthDst(_)
            // OpenFlow 1.0 has these for every flow: they leave packets without such a header alone.
            | Action::ModIpSrc(_)
            | Action::ModIpDst(_)
            | Action::ModIpTos(_)
            | Action::DecTtl
            | Action::ModTpSrc(_)
            | Action::ModTpDst(_)
            | Action::SetTunnel { .. }
            | Action::Note(_)
            | Action::Controller(_)
            | Action::FinTimeout { .. }
            | Action::Exit => Ok(()),
        }
    }

    fn learn(&self, learn: &Learn) -> Result<(), BadActions> {
        let mut learned = Self { value: Bits::ZERO, mask: Bits::ZERO };
        let known = |source: &LearnSource| match source {
            LearnSource::Value(value) => Ok(Some(*value)),
            LearnSource::Field(from) => self.needs("learn", from.field.info().needs).map(|()| None),
        };
        for spec in &learn.specs {
            match spec {
                LearnSpec::Match { field, source } => {
                    let value = known(source)?;
                    learned.needs("learn's match of", field.field.info().needs)?;
                    field.write(&mut learned.value, value.unwrap_or(0));
                    if value.is_some() {
                        field.raise(&mut learned.mask);
                    }
                }
                LearnSpec::Load { to, source } => {
                    let value = known(source)?;
                    learned.write("learn's load of", *to, value)?;
                }
                LearnSpec::Output(from) => self.needs("learn", from.field.info().needs)?,
            }
        }
        Ok(())
    }
}

/// The two types a VLAN tag may announce itself with.
pub(crate) const fn is_vlan_type(ether_type: u16) -> bool {
    ether_type == ethernet::TYPE_VLAN || ether_type == ethernet::TYPE_SERVICE_VLAN
}
