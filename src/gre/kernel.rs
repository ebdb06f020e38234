//! The kernel's side of GRE: equivalents of `ip link add type gretap` and `type ip6gretap`.

use core::net::IpAddr;
use std::os::fd::RawFd;

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{GreIOFlags, InfoData, InfoGre, InfoGre6, InfoKind, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use crate::netlink::{Connection, Error};
use crate::types::IfName;

use super::{DeviceSpec, DeviceState};

/// The hops a packet may take, which would be the frame's own without (`ip_tunnel_xmit()`, `net/ipv4/ip_tunnel.c`).
const HOPS: u8 = 64;
/// `IFLA_GRE_FLAGS` (`linux/if_tunnel.h`), which the crate does not name, and `IP6_TNL_F_IGN_ENCAP_LIMIT`
/// (`linux/ip6_tunnel.h`): without it each packet has a destination option that limits encapsulation (RFC 2473 §4.1.1).
const FLAGS: u16 = 13;
const NO_ENCAPSULATION_LIMIT: u32 = 1;

/// Makes a device in the namespace `netns` stands for, or in the connection's; its packets pass through the connection's.
///
/// It is made here and then moved: made there, it would take that namespace for its packets' (`ip_tunnel_newlink()`).
///
/// # Errors
/// When the kernel refuses; nothing is left behind.
pub(crate) fn create(
    connection: &mut Connection,
    name: &IfName,
    spec: &DeviceSpec,
    netns: Option<RawFd>,
) -> Result<(), Error> {
    let made = RouteNetlinkMessage::NewLink(device(name, spec));
    connection.request(made, NLM_F_CREATE | NLM_F_EXCL)?;
    let Some(fd) = netns else { return Ok(()) };
    let by_name = || LinkUnspec::new_with_name(name.as_str());
    let moved = connection.request(RouteNetlinkMessage::SetLink(by_name().setns_by_fd(fd).build()), 0);
    if moved.is_err() {
        // The first error is the one to tell.
        let _removed = connection.request(RouteNetlinkMessage::DelLink(by_name().build()), 0);
    }
    moved
}

pub(crate) fn device(name: &IfName, spec: &DeviceSpec) -> LinkMessage {
    let DeviceSpec { key, local, remote } = spec;
    let key = key.get();
    let (kind, data) = match (local, remote) {
        (IpAddr::V6(local), IpAddr::V6(remote)) => {
            let flags = InfoGre6::Other(DefaultNla::new(FLAGS, NO_ENCAPSULATION_LIMIT.to_ne_bytes().to_vec()));
            let data = vec![
                InfoGre6::IFlags(GreIOFlags::Key),
                InfoGre6::OFlags(GreIOFlags::Key),
                InfoGre6::IKey(key),
                InfoGre6::OKey(key),
                InfoGre6::Local(*local),
                InfoGre6::Remote(*remote),
                InfoGre6::Ttl(HOPS),
                flags,
            ];
            (InfoKind::GreTap6, InfoData::GreTap6(data))
        }
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            let data = vec![
                InfoGre::IFlags(GreIOFlags::Key),
                InfoGre::OFlags(GreIOFlags::Key),
                InfoGre::IKey(key),
                InfoGre::OKey(key),
                InfoGre::Local(*local),
                InfoGre::Remote(*remote),
                InfoGre::Ttl(HOPS),
                InfoGre::PathMTUDiscovery(true),
            ];
            (InfoKind::GreTap, InfoData::GreTap(data))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            unreachable!("endpoints of a device are of one family")
        }
    };
    let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind).name(name.as_str());
    message.set_info_data(data).build()
}

/// Flags, keys and endpoints as told, whichever family they are of.
#[derive(Default)]
struct Told {
    flags_in: Option<GreIOFlags>,
    flags_out: Option<GreIOFlags>,
    key_in: u32,
    key_out: u32,
    local: Option<IpAddr>,
    remote: Option<IpAddr>,
}

impl Told {
    fn state(self) -> DeviceState {
        let key = |flags: Option<GreIOFlags>, key| flags.is_some_and(|f| f.contains(GreIOFlags::Key)).then_some(key);
        let given = |ip: Option<IpAddr>| ip.filter(|ip| !ip.is_unspecified());
        DeviceState {
            key_in: key(self.flags_in, self.key_in),
            key_out: key(self.flags_out, self.key_out),
            local: given(self.local),
            remote: given(self.remote),
        }
    }
}

/// A `gretap` device from what the kernel says of it.
#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum names every attribute of every kernel")]
pub(crate) fn decode(attributes: &[InfoGre]) -> DeviceState {
    let mut told = Told::default();
    for attribute in attributes {
        match attribute {
            InfoGre::IFlags(flags) => told.flags_in = Some(*flags),
            InfoGre::OFlags(flags) => told.flags_out = Some(*flags),
            InfoGre::IKey(key) => told.key_in = *key,
            InfoGre::OKey(key) => told.key_out = *key,
            InfoGre::Local(ip) => told.local = Some(IpAddr::V4(*ip)),
            InfoGre::Remote(ip) => told.remote = Some(IpAddr::V4(*ip)),
            _ => {}
        }
    }
    told.state()
}

/// An `ip6gretap` device from what the kernel says of it.
#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum names every attribute of every kernel")]
pub(crate) fn decode6(attributes: &[InfoGre6]) -> DeviceState {
    let mut told = Told::default();
    for attribute in attributes {
        match attribute {
            InfoGre6::IFlags(flags) => told.flags_in = Some(*flags),
            InfoGre6::OFlags(flags) => told.flags_out = Some(*flags),
            InfoGre6::IKey(key) => told.key_in = *key,
            InfoGre6::OKey(key) => told.key_out = *key,
            InfoGre6::Local(ip) => told.local = Some(IpAddr::V6(*ip)),
            InfoGre6::Remote(ip) => told.remote = Some(IpAddr::V6(*ip)),
            _ => {}
        }
    }
    told.state()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::golden::{attribute, emitted};
    use crate::types::Vni;

    fn made(spec: &DeviceSpec) -> Vec<u8> {
        emitted(&device(&IfName::new("k1").expect("a name"), spec), 16)
    }

    /// Attributes by their numbers in `linux/if_link.h` (IFNAME 3, LINKINFO 18, INFO_KIND 1, INFO_DATA 2) and
    /// `linux/if_tunnel.h` (IFLAGS 2, OFLAGS 3, IKEY 4, OKEY 5, LOCAL 6, REMOTE 7, TTL 8, PMTUDISC 10, FLAGS 13).
    fn golden(kind: &[u8], local: &[u8], remote: &[u8], last: &[u8]) -> Vec<u8> {
        let key = [0, 0x12, 0x34, 0x56];
        let flags = [0x20, 0];
        let data = [
            attribute(2, &flags),
            attribute(3, &flags),
            attribute(4, &key),
            attribute(5, &key),
            attribute(6, local),
            attribute(7, remote),
            attribute(8, &[64]),
            last.to_vec(),
        ];
        let info = [attribute(1, kind), attribute(2, &data.concat())].concat();
        [attribute(3, b"k1\0"), attribute(18, &info)].concat()
    }

    #[test]
    fn a_device_over_either_family() {
        let key = Vni::new(0x12_3456).expect("a key");
        let spec = DeviceSpec { key, local: [10, 0, 0, 1].into(), remote: [10, 0, 0, 2].into() };
        let wanted = golden(b"gretap\0", &[10, 0, 0, 1], &[10, 0, 0, 2], &attribute(10, &[1]));
        assert_eq!(made(&spec), wanted);
        let ip = |last| core::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
        let spec = DeviceSpec { key, local: ip(1).into(), remote: ip(2).into() };
        let limit = attribute(13, &1_u32.to_ne_bytes());
        assert_eq!(made(&spec), golden(b"ip6gretap\0", &ip(1).octets(), &ip(2).octets(), &limit));
    }

    /// What the kernel says of a device is what was asked for; without the flags its keys mean nothing.
    #[test]
    fn a_device_is_recognized() {
        let key = Vni::new(7).expect("a key");
        let spec = DeviceSpec { key, local: [10, 0, 0, 1].into(), remote: [10, 0, 0, 2].into() };
        let told = |flags| {
            decode(&[
                InfoGre::IFlags(flags),
                InfoGre::OFlags(flags),
                InfoGre::IKey(7),
                InfoGre::OKey(7),
                InfoGre::Local([10, 0, 0, 1].into()),
                InfoGre::Remote([10, 0, 0, 2].into()),
                InfoGre::Ttl(64),
            ])
        };
        assert!(told(GreIOFlags::Key).is(&spec) && told(GreIOFlags::Key | GreIOFlags::Seq).is(&spec));
        assert!(!told(GreIOFlags::empty()).is(&spec));
        assert!(!told(GreIOFlags::Key).is(&DeviceSpec { remote: [10, 0, 0, 3].into(), ..spec }));
        assert_eq!(decode(&[InfoGre::Local([0; 4].into())]), DeviceState::default());
    }
}
