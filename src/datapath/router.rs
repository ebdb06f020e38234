//! What a router's namespace does with a packet, as far as it is known from outside: its interfaces, routes and
//! neighbours, and the one next hop that follows from them. It never guesses: whatever it does not know for certain it has
//! no hop for, and the packet takes the way through the namespace.
//!
//! It is stricter than the kernel in two things, for which no switch of the kernel's need be known: a packet's source must
//! be routed back to where it came in, as with `rp_filter` 1, and its neighbour must be PERMANENT. What hangs on interfaces
//! beside these tables it does not see: traffic control's filters, BPF programs, IPsec policies.

mod lookup;

#[cfg(test)]
mod tests;

use core::net::IpAddr;
use std::collections::BTreeMap;

use ipnet::IpNet;

use crate::types::{IfName, Mac};
use lookup::{Found, Prefixes};

/// Most routes of a router that packets go past.
pub const LIMIT_ROUTES: usize = 4096;
/// Most neighbours of one.
pub const LIMIT_NEIGHBOURS: usize = 1 << 20;

/// Prefixes that are never forwarded to or from, whatever the routes say (RFC 1812 §5.3.7, RFC 4291 §2.5 and §2.7);
/// shared address space that is left to the kernel to judge is among them.
const NEVER: [&str; 8] =
    ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/16", "fe80::/10", "fec0::/10", "ff00::/8"];

/// Why no packet goes past a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// Nobody has looked.
    #[error("not looked at yet")]
    Unseen,
    /// Somebody is about to look again.
    #[error("its tables just changed")]
    Changing,
    /// There is nothing to look at.
    #[error("the namespace is gone, or cannot be looked into")]
    Gone,
    /// Routes are not all that decides.
    #[error("it has routing rules of its own")]
    Rules,
    /// Something may refuse, change or count packets.
    #[error("it has nftables or iptables tables")]
    Filter,
    /// Something may delay or drop them.
    #[error("one of its interfaces has a queueing discipline of its own")]
    Queueing,
    /// [`LIMIT_ROUTES`] or [`LIMIT_NEIGHBOURS`].
    #[error("it has more routes or neighbours than are followed")]
    Full,
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterLink {
    /// Its name.
    pub name: IfName,
    /// Its address.
    pub mac: Mac,
    /// Octets of the greatest IPv4 packet it sends.
    pub mtu: u32,
    /// Octets of the greatest IPv6 packet it sends.
    pub mtu6: u32,
    /// It is up, and has a carrier.
    pub works: bool,
    /// Whether IPv4 that comes in by it is forwarded.
    pub forwards4: bool,
    /// Whether IPv6 is.
    pub forwards6: bool,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterRoute {
    /// It is in the table `local`, which is asked first.
    pub local: bool,
    /// What it is for.
    pub prefix: IpNet,
    /// Which interface it leads out of, and to which gateway if any; `None` for whatever else a route may be.
    pub way: Option<(u32, Option<IpAddr>)>,
}

/// What is the neighbour of an interface by that index, or no longer.
pub type NeighbourUpdate = ((u32, IpAddr), Option<Mac>);

/// A router's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterModel {
    links: BTreeMap<u32, RouterLink>,
    prefixes: Prefixes,
    neighbours: BTreeMap<(u32, IpAddr), Mac>,
}

/// Where a packet goes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The interface it leaves by.
    pub out: IfName,
    /// The source it leaves with.
    pub src: Mac,
    /// The destination it leaves for.
    pub dst: Mac,
    /// Octets of the greatest packet that leaves whole.
    pub mtu: u32,
}

/// What was looked at for a packet, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// How many of the source's leading bits had a say.
    pub src_bits: u8,
    /// How many of the destination's.
    pub dst_bits: u8,
    /// The neighbour that had one, whether it is there or not.
    pub neighbour: Option<(u32, IpAddr)>,
    /// `None`: the namespace is to decide.
    pub hop: Option<Hop>,
}

impl RouterModel {
    /// The tables.
    ///
    /// # Errors
    /// [`Closed::Full`].
    pub fn new(
        links: BTreeMap<u32, RouterLink>,
        routes: &[RouterRoute],
        neighbours: BTreeMap<(u32, IpAddr), Mac>,
    ) -> Result<Self, Closed> {
        if routes.len() > LIMIT_ROUTES || neighbours.len() > LIMIT_NEIGHBOURS {
            return Err(Closed::Full);
        }
        let mut prefixes = Prefixes::default();
        for text in NEVER {
            let Ok(prefix) = text.parse() else { unreachable!("prefixes of this file are legal") };
            prefixes.insert_local(prefix);
        }
        for route in routes {
            if route.local {
                prefixes.insert_local(route.prefix);
            } else {
                prefixes.insert(route.prefix, route.way);
            }
        }
        Ok(Self { links, prefixes, neighbours })
    }

    /// The interface of this name, and its index.
    #[must_use]
    pub fn link(&self, name: &IfName) -> Option<(u32, &RouterLink)> {
        self.links.iter().find(|(_, link)| link.name == *name).map(|(index, link)| (*index, link))
    }

    /// The least MTU of its interfaces.
    pub(crate) fn least_mtu(&self) -> Option<u32> {
        self.links.values().map(|link| link.mtu.min(link.mtu6)).min()
    }

    /// Where a packet with these addresses goes that came in by the interface of index `from`.
    #[must_use]
    pub fn forward(&self, from: u32, src: IpAddr, dst: IpAddr) -> Forwarding {
        let (there, dst_bits) = self.prefixes.find(dst);
        let mut found = Forwarding { src_bits: 0, dst_bits, neighbour: None, hop: None };
        let (Found::Way { link, gateway }, Some(inward)) = (there, self.links.get(&from)) else { return found };
        let forwards = if dst.is_ipv4() { inward.forwards4 } else { inward.forwards6 };
        let Some(outward) = self.links.get(&link).filter(|outward| outward.works && inward.works && forwards) else {
            return found;
        };
        let (back, src_bits) = self.prefixes.find(src);
        found.src_bits = src_bits;
        if link == from || !matches!(back, Found::Way { link, .. } if link == from) {
            return found;
        }
        let neighbour = (link, gateway.unwrap_or(dst));
        if gateway.is_none() {
            found.dst_bits = if dst.is_ipv4() { 32 } else { 128 };
        }
        found.neighbour = Some(neighbour);
        found.hop = self.neighbours.get(&neighbour).map(|mac| Hop {
            out: outward.name.clone(),
            src: outward.mac,
            dst: *mac,
            mtu: if dst.is_ipv4() { outward.mtu } else { outward.mtu6 },
        });
        found
    }

    /// Takes a change of neighbours over. Returns whether it was one.
    pub(crate) fn update(&mut self, (neighbour, mac): NeighbourUpdate) -> Result<bool, Closed> {
        let before = match mac {
            Some(mac) => self.neighbours.insert(neighbour, mac),
            None => self.neighbours.remove(&neighbour),
        };
        if self.neighbours.len() > LIMIT_NEIGHBOURS { Err(Closed::Full) } else { Ok(before != mac) }
    }

    /// The neighbours that differ between the two, if nothing else does.
    pub(crate) fn neighbours_changed(&self, other: &Self) -> Option<Vec<(u32, IpAddr)>> {
        if self.links != other.links || self.prefixes != other.prefixes {
            return None;
        }
        let missing = |one: &Self, two: &Self| {
            let lacks = |(key, mac): &(&(u32, IpAddr), &Mac)| two.neighbours.get(key) != Some(mac);
            one.neighbours.iter().filter(lacks).map(|(key, _)| *key).collect::<Vec<_>>()
        };
        Some([missing(self, other), missing(other, self)].concat())
    }
}
