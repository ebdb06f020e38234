//! Names of namespaces and interfaces, as Neutron forms them: prefix and id. The prefixes that
//! tell an agent what is its own are [`crate::netns`]'s.
//!
//! Linux takes interface names of at most 15 octets, so a port's id is cut to its first [`ID_LEN`] characters; the
//! checked topology holds no two ports whose ids begin alike.

use uuid::Uuid;

use crate::netns::{ROUTER_NETNS, ROUTER_PORT, VM_INTERFACE, VM_NETNS};
use crate::types::IfName;

/// How many characters of a port's id its interface's name bears (Neutron's device names are 14 characters long).
pub const ID_LEN: usize = 11;
/// Before a virtual machine port's id: its port on br-int.
pub const VM_PORT: &str = "tap";

/// The namespace of the router with this id.
#[must_use]
pub fn router_netns(router: Uuid) -> String {
    format!("{ROUTER_NETNS}{router}")
}

/// The interface of the router port with this id.
#[must_use]
pub fn router_port(port: Uuid) -> IfName {
    device(ROUTER_PORT, port)
}

/// The port on br-int of the virtual machine port with this id.
#[must_use]
pub fn vm_port(port: Uuid) -> IfName {
    device(VM_PORT, port)
}

/// The namespace that stands for the virtual machine of this name.
#[must_use]
pub fn vm_netns(vm: &str) -> String {
    format!("{VM_NETNS}{vm}")
}

/// The interface's name in a virtual machine's namespace.
#[must_use]
pub fn vm_interface() -> IfName {
    checked(VM_INTERFACE.to_owned())
}

/// The part of a port's id that its interface's name bears.
#[must_use]
pub fn short_id(port: Uuid) -> String {
    let mut text = port.to_string();
    text.truncate(ID_LEN);
    text
}

fn device(prefix: &str, port: Uuid) -> IfName {
    checked(format!("{prefix}{}", short_id(port)))
}

fn checked(name: String) -> IfName {
    match IfName::new(name) {
        Ok(name) => name,
        Err(_) => unreachable!("prefixes of at most 4 octets and 11 hexadecimal digits or dashes make a legal name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_interface_name_fits_in_15_octets() {
        for id in [Uuid::nil(), Uuid::max(), Uuid::new_v5(&Uuid::NAMESPACE_OID, b"port")] {
            for name in [router_port(id), vm_port(id)] {
                assert!(name.as_str().len() <= IfName::MAX_LEN, "{name} is too long");
                assert!(name.as_str().ends_with(&short_id(id)));
            }
        }
        assert!(vm_interface().as_str().len() <= IfName::MAX_LEN);
    }

    #[test]
    fn names_are_neutrons() {
        let id: Uuid = "01234567-89ab-cdef-0123-456789abcdef".parse().expect("a legal id");
        assert_eq!(router_netns(id), "qrouter-01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!(router_port(id).as_str(), "qr-01234567-89");
        assert_eq!(vm_port(id).as_str(), "tap01234567-89");
        assert_eq!(vm_netns("blue1"), "vm-blue1");
    }
}
