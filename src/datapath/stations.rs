//! What an operator sees and sets of a bridge in normal mode: its stations, and the VLANs of its ports.

use super::error::SwitchError;
use super::fdb::{LIMIT, Seen};
use super::switch::Switch;
use crate::api::switch::{FdbEntry, VlanMode};
use crate::types::{IfName, Mac, Timestamp};

impl Switch {
    /// The addresses a bridge learned or was told of for `NORMAL`, by VLAN and address.
    ///
    /// # Errors
    /// [`SwitchError::UnknownBridge`].
    pub fn fdb(&self, bridge: &IfName, now: Timestamp) -> Result<Vec<FdbEntry>, SwitchError> {
        let held = self.named(bridge)?;
        let entry = |(vlan, mac, seen): (u16, _, Seen)| FdbEntry {
            port: seen.port,
            port_name: held.ports.get(&seen.port).map(|port| port.name.to_string()).unwrap_or_default(),
            vlan,
            mac,
            age_secs: now.since(seen.at).as_secs(),
            pinned: seen.pinned,
        };
        Ok(held.fdb.iter().map(entry).collect())
    }

    /// Says behind which port an address is: it neither ages nor moves, until [`Self::unpin`] or until the port goes.
    /// `vlan` is 0 for frames without one.
    ///
    /// # Errors
    /// [`SwitchError::UnknownBridge`], [`SwitchError::UnknownPort`], [`SwitchError::StationsFull`].
    pub fn pin(
        &mut self,
        bridge: &IfName,
        port: &IfName,
        (vlan, mac): (u16, Mac),
        now: Timestamp,
    ) -> Result<(), SwitchError> {
        let held = self.named_mut(bridge)?;
        let unknown = || SwitchError::UnknownPort { bridge: bridge.clone(), port: port.clone() };
        let number = held.number_of(port.as_str()).ok_or_else(unknown)?;
        if held.fdb.pin(vlan, mac, number, now) {
            Ok(())
        } else {
            Err(SwitchError::StationsFull { bridge: bridge.clone(), limit: LIMIT })
        }
    }

    /// Forgets an address that [`Self::pin`] set.
    ///
    /// # Errors
    /// [`SwitchError::UnknownBridge`], [`SwitchError::UnknownStation`].
    pub fn unpin(&mut self, bridge: &IfName, vlan: u16, mac: Mac) -> Result<(), SwitchError> {
        if self.named_mut(bridge)?.fdb.unpin(vlan, mac) {
            Ok(())
        } else {
            Err(SwitchError::UnknownStation { bridge: bridge.clone(), vlan, mac })
        }
    }

    /// Forgets what a bridge learned, as it would with time. Returns how many addresses.
    ///
    /// # Errors
    /// [`SwitchError::UnknownBridge`].
    pub fn flush_fdb(&mut self, bridge: &IfName) -> Result<usize, SwitchError> {
        Ok(self.named_mut(bridge)?.fdb.flush())
    }

    /// Sets the VLANs of a port. What was learned behind it is forgotten: it may have been in others.
    ///
    /// # Errors
    /// [`SwitchError::UnknownBridge`], [`SwitchError::UnknownPort`].
    pub fn set_vlan(&mut self, bridge: &IfName, port: &IfName, vlan: VlanMode) -> Result<(), SwitchError> {
        let held = self.named_mut(bridge)?;
        let unknown = || SwitchError::UnknownPort { bridge: bridge.clone(), port: port.clone() };
        let number = held.number_of(port.as_str()).ok_or_else(unknown)?;
        held.fdb.flush_learned(number);
        held.ports.get_mut(&number).ok_or_else(unknown)?.vlan = vlan;
        Ok(())
    }
}
