//! Announcements: ARP and neighbour advertisements by which a port takes an address of its allowed pairs (a virtual address
//! that fails over) are copied to the agent, which tells the controllers; the frames themselves go on. As soon as the control
//! plane says that the address is the port's, no more copies are made.
//!
//! ```text
//!  0, or 11 with port security ─▶ 12 an announcement? ─▶ 20
//!                                    └─▶ controller(userdata=…): who announced what
//! ```

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use uuid::Uuid;

use crate::model::resource::ClaimedAddress;
use crate::model::view::PortView;
use crate::types::Mac;

use super::flow::{ADVERTISEMENT, ProgramFlow, port, userdata};

/// Table of announcements; frames of ports that may take addresses come here.
const ANNOUNCED: u8 = 12;

/// What a flow's `controller` action says: which port announced which address. Its octets are the port's id, the MAC and
/// the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Announced {
    /// The port's id.
    pub port: Uuid,
    /// The address, and the MAC it was announced with.
    pub address: ClaimedAddress,
}

impl Announced {
    /// As `userdata` has it.
    #[must_use]
    pub fn octets(&self) -> Vec<u8> {
        let ClaimedAddress { ip, mac } = self.address;
        let mut octets = self.port.as_bytes().to_vec();
        octets.extend(mac.octets());
        match ip {
            IpAddr::V4(ip) => octets.extend(ip.octets()),
            IpAddr::V6(ip) => octets.extend(ip.octets()),
        }
        octets
    }

    /// What `userdata` says; `None` if it is not ours.
    #[must_use]
    pub fn read(octets: &[u8]) -> Option<Self> {
        let (port, rest) = octets.split_first_chunk::<16>()?;
        let (mac, ip) = rest.split_first_chunk::<6>()?;
        let ip = match ip.len() {
            4 => IpAddr::V4(Ipv4Addr::from_octets(ip.try_into().ok()?)),
            _ => IpAddr::V6(Ipv6Addr::from_octets(ip.try_into().ok()?)),
        };
        Some(Self { port: Uuid::from_bytes(*port), address: ClaimedAddress { ip, mac: Mac::new(*mac) } })
    }
}

/// The addresses a port may take: its pairs of a single address.
fn takeable(vm: &PortView) -> impl Iterator<Item = ClaimedAddress> {
    let single = vm.allowed.iter().filter(|pair| pair.ip.prefix_len() == pair.ip.max_prefix_len());
    single.map(|pair| ClaimedAddress { ip: pair.ip.addr(), mac: pair.mac })
}

/// Whether a port may take any.
pub(super) fn concerns(vm: &PortView) -> bool {
    takeable(vm).next().is_some()
}

/// Where a port's frames go once nothing speaks against them.
pub(super) fn onward(vm: &PortView, next: u8) -> u8 {
    if concerns(vm) { ANNOUNCED } else { next }
}

/// What the table does with the rest.
pub(super) fn default(next: u8) -> ProgramFlow {
    ProgramFlow::new(ANNOUNCED, 0, "", format!("resubmit(,{next})"))
}

/// A port's flows: one for each address it may take and does not have.
pub(super) fn flows(vm: &PortView, next: u8) -> Vec<ProgramFlow> {
    let own = |ip: IpAddr| vm.addresses.iter().any(|address| address.addr() == ip);
    let mut open: Vec<ClaimedAddress> = takeable(vm).collect();
    open.sort();
    open.dedup();
    open.retain(|address| !vm.claimed.contains(address) && !own(address.ip));
    let flow = |address: ClaimedAddress| {
        let ClaimedAddress { ip, mac } = address;
        let at = format!("in_port={}", port(&vm.port));
        // RFC 5227 §3: an announcement has the address as its sender's. A probe does not, and takes nothing.
        let matching = match ip {
            IpAddr::V4(ip) => format!("{at},arp,arp_sha={mac},arp_spa={ip}"),
            IpAddr::V6(ip) => format!("{at},{ADVERTISEMENT},nd_target={ip},nd_tll={mac}"),
        };
        let said = userdata(&Announced { port: vm.id, address }.octets());
        let actions = format!("controller(userdata={said}),resubmit(,{next})");
        ProgramFlow::new(ANNOUNCED, 1, matching, actions)
    };
    open.into_iter().map(flow).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_reads_back() {
        for ip in ["10.1.0.100", "fd00::64"] {
            let address = ClaimedAddress { ip: ip.parse().expect("legal"), mac: Mac::new([2, 0, 0, 0, 0, 9]) };
            let announced = Announced { port: Uuid::from_u128(7), address };
            let octets = announced.octets();
            assert_eq!(Announced::read(&octets), Some(announced));
            assert_eq!(Announced::read(&octets[..octets.len() - 1]), None);
        }
        assert_eq!(Announced::read(b"another's"), None);
    }
}
