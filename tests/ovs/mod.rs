//! What the differential test is made of: a real Open vSwitch, cases as text, a generator, and the comparison.

pub(crate) mod case;
pub(crate) mod compare;
pub(crate) mod daemon;
pub(crate) mod frame;
pub(crate) mod generate;
pub(crate) mod ours;
pub(crate) mod rng;
pub(crate) mod shrink;
