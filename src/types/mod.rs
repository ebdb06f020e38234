//! The values every layer speaks: addresses, identifiers, names and sizes that cannot be wrong once made.
//!
//! Each type has a checked constructor with a named error, and its `Display` parses back. Nothing here knows packets,
//! files or the kernel.

mod ifname;
mod mac;
mod number;
mod physical;
mod text;
mod time;

pub use ifname::{BadIfName, IfName};
pub use mac::{BadMac, Mac};
pub use number::{BadNumber, Mtu, VlanId, Vni};
pub use physical::{BadPhysicalNetwork, PhysicalNetwork};
pub(crate) use text::text_name;
pub use time::Timestamp;
