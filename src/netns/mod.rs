//! Network namespaces: named, made, entered, removed; and the kernel switches inside them.
//!
//! A name is a file in one directory (`/run/netns`, or a private one) with the namespace mounted on it, as iproute2 does
//! it, so that `ip netns` shows ours. A thread that has entered another namespace must not be given back to anything that
//! runs other people's code, so every entry happens on a short-lived thread that hands out what it opened there: a file
//! descriptor belongs to the namespace it was opened in for life, whoever uses it.
//!
//! What is ours to remove is decided by name: [`Ownership`].

mod diff;
#[cfg(feature = "kernel")]
pub mod kernel;
mod managed;
mod spec;
mod state;

pub use diff::{NetnsOp, diff};
pub use managed::{
    LinkPattern, NetnsRule, Ownership, PORTS_NETNS, Pattern, ROUTER_NETNS, ROUTER_PORT, TUNNELS_NETNS, VM_INTERFACE,
    VM_NETNS,
};
pub use spec::{BadName, Name, NetnsName, Sysctl};
pub use state::{Entries, Entry};
