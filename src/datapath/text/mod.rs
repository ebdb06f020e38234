//! The text of flows as `ovs-ofctl` reads and prints it: matches, actions, whole flows.

mod action;
mod actions;
mod flow;
mod lexer;
mod matching;
mod value;

pub use lexer::TextError;

pub(crate) use action::print_actions;
pub(crate) use flow::{FlowText, Read, Use};
pub(crate) use matching::print_match;
pub(crate) use value::{print_bits, print_plain, print_subfield};

/// The ports of a bridge by name.
pub(crate) trait PortNames {
    /// The number of the port called `name`.
    fn number(&self, name: &str) -> Option<u32>;
    /// The name of port `number`, if ports are to be shown by name.
    fn name(&self, number: u32) -> Option<&str>;
}

/// A bridge whose ports have numbers only.
#[cfg(test)]
pub(crate) struct NumbersOnly;

#[cfg(test)]
impl PortNames for NumbersOnly {
    fn number(&self, _: &str) -> Option<u32> {
        None
    }

    fn name(&self, _: u32) -> Option<&str> {
        None
    }
}
