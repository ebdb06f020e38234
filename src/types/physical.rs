//! Names of physical networks.

use core::fmt;

use serde::{Deserialize, Serialize};

use super::IfName;

/// A physical network's name: 1 to 11 of a-z, 0-9, '-', '_' and '.', a letter or digit first. The switch's bridge for it
/// bears the name after `br-` and the patch to that after `int-` and `phy-`, so it is short, and neither `int` nor `tun`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PhysicalNetwork(String);

/// Why a text cannot name a physical network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPhysicalNetwork {
    /// Empty, too long, or of other characters.
    #[error("use 1 to {most} of a-z, 0-9, '-', '_' and '.', a letter or digit first", most = PhysicalNetwork::MAX_LEN)]
    Illegal,
    /// Its bridge would be br-int or br-tun.
    #[error("the bridge br-{0} is for something else")]
    Reserved(String),
}

impl PhysicalNetwork {
    /// The greatest length in octets: with the longest prefix it fills an interface name.
    pub const MAX_LEN: usize = IfName::MAX_LEN - Self::PATCH_PREFIX_LEN;
    /// Octets of `int-` and `phy-`, which are longer than `br-`.
    const PATCH_PREFIX_LEN: usize = 4;

    /// The name, if the rules allow it.
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn new(text: impl Into<String>) -> Result<Self, BadPhysicalNetwork> {
        let text = text.into();
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let legal = |byte: &u8| plain(byte) || b"-_.".contains(byte);
        let octets = text.as_bytes();
        if octets.len() > Self::MAX_LEN || !octets.first().is_some_and(plain) || !octets.iter().all(legal) {
            return Err(BadPhysicalNetwork::Illegal);
        }
        if text == "int" || text == "tun" {
            return Err(BadPhysicalNetwork::Reserved(text));
        }
        Ok(Self(text))
    }

    /// The switch's bridge for it.
    #[must_use]
    pub fn bridge(&self) -> IfName {
        self.named("br-")
    }

    /// The patch port on br-int that leads to its bridge.
    #[must_use]
    pub fn int_port(&self) -> IfName {
        self.named("int-")
    }

    /// The patch port on its bridge that leads to br-int.
    #[must_use]
    pub fn phy_port(&self) -> IfName {
        self.named("phy-")
    }

    /// The physical network whose bridge bears this name.
    #[must_use]
    pub fn of_bridge(bridge: &IfName) -> Option<Self> {
        Self::new(bridge.as_str().strip_prefix("br-")?).ok()
    }

    fn named(&self, prefix: &str) -> IfName {
        match IfName::new(format!("{prefix}{}", self.0)) {
            Ok(name) => name,
            Err(bad) => unreachable!("the length is bounded and the characters are legal: {bad}"),
        }
    }
}

super::text_name!(PhysicalNetwork, BadPhysicalNetwork);

impl fmt::Debug for PhysicalNetwork {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_makes_a_bridge_and_two_ports() {
        for text in ["p", "physnet1", "0-_.", "datacentre1"] {
            let name = PhysicalNetwork::new(text).expect(text);
            let made = [name.bridge(), name.int_port(), name.phy_port()].map(|made| made.to_string());
            assert_eq!(made, [format!("br-{text}"), format!("int-{text}"), format!("phy-{text}")]);
            assert_eq!(PhysicalNetwork::of_bridge(&name.bridge()), Some(name));
        }
    }

    #[test]
    fn other_names_are_refused() {
        for text in ["", "datacentre12", "-a", "Physnet1", "a b", "ä", "a/b", "int", "tun"] {
            assert!(PhysicalNetwork::new(text).is_err(), "{text} was taken");
        }
    }
}
