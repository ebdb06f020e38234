//! The steps on a device: all there is to a GRE device is that it is there.

use core::fmt;

use crate::types::IfName;

use super::DeviceSpec;

/// One step on a GRE device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GreOp {
    /// Make a device whose packets leave and arrive in the process's own namespace, wherever the device is.
    Create {
        /// Its name.
        name: IfName,
        /// What it is.
        device: DeviceSpec,
    },
}

impl fmt::Display for GreOp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Create { name, device } = self;
        let DeviceSpec { key, local, remote } = device;
        write!(out, "add {} {name} key {key} local {local} remote {remote}", device.kernel_word())
    }
}
