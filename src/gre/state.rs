//! What is there: a device as the kernel tells it.

use core::net::IpAddr;

use super::DeviceSpec;

/// A GRE device as the kernel tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceState {
    /// The key of what it takes in, if it asks for one.
    pub key_in: Option<u32>,
    /// The key of what it sends, if that has one.
    pub key_out: Option<u32>,
    /// Its endpoint here, if it has one.
    pub local: Option<IpAddr>,
    /// The other endpoint, if it has one.
    pub remote: Option<IpAddr>,
}

impl DeviceState {
    /// Whether it is the device that is wanted, and need not be made anew.
    #[must_use]
    pub fn is(&self, spec: &DeviceSpec) -> bool {
        let Self { key_in, key_out, local, remote } = self;
        let key = Some(spec.key.get());
        *key_in == key && *key_out == key && *local == Some(spec.local) && *remote == Some(spec.remote)
    }
}
