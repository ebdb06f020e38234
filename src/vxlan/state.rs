//! What is there: a device and its forwarding entries as the kernel tells them.

use core::net::IpAddr;

use super::{DeviceSpec, FdbEntry};

/// A VXLAN device as the kernel tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceState {
    /// Its VNI (`IFLA_VXLAN_ID`).
    pub vni: u32,
    /// Its endpoint here, if it has one.
    pub local: Option<IpAddr>,
    /// Its UDP port.
    pub udp_port: u16,
    /// Whether it learns where frames came from.
    pub learns: bool,
    /// Whether what it sends has UDP checksums, over either family.
    pub checksums: bool,
    /// Whether what it sends over IPv4 may not be fragmented.
    pub dont_fragment: bool,
}

impl DeviceState {
    /// Whether it is the device that is wanted, and need not be made anew.
    #[must_use]
    pub fn is(&self, spec: &DeviceSpec) -> bool {
        let Self { vni, local, udp_port, learns, checksums, dont_fragment } = self;
        let same = *vni == spec.vni.get() && *local == Some(spec.local) && *udp_port == spec.udp_port;
        same && !learns && *checksums && *dont_fragment
    }
}

/// A forwarding entry of a device as the kernel tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FdbState {
    /// The entry.
    pub entry: FdbEntry,
    /// Whether it is PERMANENT, the only state that is ever ours; the others the kernel learned.
    pub permanent: bool,
}
