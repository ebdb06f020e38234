//! Past a router: what its namespace would do is known, so the packet goes on where it would come back, without having been
//! there.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Effect, Xlate};
use crate::datapath::extract::mac_bits;
use crate::datapath::field::Needs;
use crate::datapath::guard::Guard;
use crate::datapath::key::{self, Place as Field};
use crate::datapath::revision::Tag;
use crate::datapath::router::Hop;
use crate::datapath::routers::{Router, RouterId};
use crate::datapath::switch::Place;
use crate::wire::{ethernet, ipv4};

/// Most routers a packet goes past one after another; the next one it goes through. So one that goes round in circles gets
/// its answer when its hops are used up.
pub(crate) const LIMIT_ROUTERS: usize = 4;

/// Where a packet comes back from a router.
struct Past {
    router: RouterId,
    to: Place,
    hop: Hop,
}

impl Xlate<'_> {
    /// Goes on with a packet for port `number` where the router whose interface that is would send it, if all that the
    /// router does with it is known. Returns whether it did.
    pub(super) fn go_past(&mut self, number: u32) -> bool {
        let Some(Past { router, to, hop }) = self.past(number) else { return false };
        let name = self.switch.routers.get(router).map(Router::name).unwrap_or_default();
        self.mask.raise_all(key::DETOUR);
        if self.key.get(key::DETOUR) != 0 {
            self.note(|| format!("into namespace {name}; most frames like it go past, out of {}", hop.out));
            return false;
        }
        self.note(|| format!("past namespace {name}, out of {} to {}, up to {} octets", hop.out, hop.dst, hop.mtu));
        self.guard = Some(Guard { mtu: hop.mtu }.and(self.guard));
        self.effect(Effect::Routed { router, from: (self.bridge, number), to });
        self.routers += 1;
        self.arrive(to, |walk| {
            // As deep as a frame that came in; how many lookups there may be is counted on.
            walk.depth = 0;
            walk.write_all(key::ETH_SRC, mac_bits(hop.src));
            walk.write_all(key::ETH_DST, mac_bits(hop.dst));
            let ttl = walk.key.get(key::IP_TTL);
            walk.write_all(key::IP_TTL, ttl.saturating_sub(1));
            // As it would be read anew: there is no tag, and what actions left where one was is not in a frame.
            for place in [key::VLAN_TCI, key::VLAN_TPID, key::INNER_TCI, key::INNER_TPID] {
                walk.key.set(place, 0);
            }
        });
        self.routers -= 1;
        true
    }

    /// Where a packet for port `number` would come back, if that is known. Everything that has a say is noted.
    fn past(&mut self, number: u32) -> Option<Past> {
        let (router, interface) = self.switch.bridge(self.bridge)?.ports.get(&number)?.router.clone()?;
        if !Needs::Ip.met_by(&self.key) || self.routers >= LIMIT_ROUTERS {
            return None;
        }
        self.parts.add(Tag::router(router));
        let (from, mac) = {
            let (index, link) = self.switch.routers.get(router)?.model()?.link(&interface)?;
            (index, mac_bits(link.mac))
        };
        for place in [key::ETH_DST, key::VLAN_TCI, key::IP_PROTO, key::IP_TTL] {
            self.mask.raise_all(place);
        }
        let protocol = self.key.get(key::IP_PROTO);
        // A packet whose headers could not be read has no protocol. The kernel may answer for who is asked for.
        let asks = protocol == u128::from(ipv4::PROTOCOL_ICMPV6) && self.has(Needs::Nd);
        if self.key.get(key::ETH_DST) != mac || self.key.is_tagged() || protocol == 0 || asks {
            return None;
        }
        if self.key.get(key::IP_TTL) <= 1 {
            return None;
        }
        let (src, dst) = self.addresses();
        let held = self.switch.routers.get(router)?;
        let found = held.model()?.forward(from, src, dst);
        let to = found.hop.as_ref().and_then(|hop| held.port(&hop.out));
        let (src, dst) = match dst {
            IpAddr::V4(_) => (key::IPV4_SRC, key::IPV4_DST),
            IpAddr::V6(_) => (key::IPV6_SRC, key::IPV6_DST),
        };
        self.mask.raise(src, leading(src, found.src_bits));
        self.mask.raise(dst, leading(dst, found.dst_bits));
        if let Some((link, ip)) = found.neighbour {
            self.parts.add(Tag::neighbour(router, link, ip));
        }
        Some(Past { router, to: to?, hop: found.hop? })
    }

    /// The addresses of an IP packet.
    fn addresses(&self) -> (IpAddr, IpAddr) {
        if self.key.get16(key::ETH_TYPE) == ethernet::TYPE_IPV4 {
            let address = |place| Ipv4Addr::from(self.key.get32(place)).into();
            (address(key::IPV4_SRC), address(key::IPV4_DST))
        } else {
            let address = |place| Ipv6Addr::from(self.key.get(place)).into();
            (address(key::IPV6_SRC), address(key::IPV6_DST))
        }
    }
}

/// The first `count` bits of a field.
const fn leading(field: Field, count: u8) -> u128 {
    if count == 0 { 0 } else { field.ones() & !key::ones(field.bits - count) }
}
