//! The kernel fast path: decisions of the switch, carried out in the kernel for frames like those it decided.
//!
//! A flow here is a frame's first octets where a mask has ones, the interface it came by, and what becomes of it: other
//! MACs, another time to live, an interface to leave by ([`layout`]). Two programs share a table of them ([`program`]):
//! one is the filter of the packet sockets that the switch reads its ports by, the other the ingress filter of those
//! ports. They are written here with an assembler of our own ([`asm`]), so that nothing but this crate's compiler is
//! needed to build or to read them. `kernel` loads them, keeps the table, and hangs them on ports.
//!
//! This module knows interfaces, octets and maps; which frames are alike, what changes the decision about them and when
//! it must go is the switch's to know.

pub mod asm;
#[cfg(feature = "kernel")]
pub mod kernel;
pub mod layout;
pub mod program;
#[cfg(feature = "kernel")]
mod sys;

pub use layout::{Count, Kind, Octets, Rewrite, Way};
