//! The kernel's side of VXLAN: equivalents of `ip link add type vxlan` and `bridge fdb`.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::RawFd;

use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkMessage, VxlanDf};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use crate::link::kernel::{absent_is_done, index_of, mac};
use crate::netlink::{BATCH_MAX, Connection, Error};
use crate::types::IfName;

use super::{DeviceSpec, DeviceState, FdbEntry, FdbState};

/// Makes a device in the namespace `netns` stands for, or in the connection's; its packets pass through the connection's.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn create(
    connection: &mut Connection,
    name: &IfName,
    spec: &DeviceSpec,
    netns: Option<RawFd>,
) -> Result<(), Error> {
    let message = RouteNetlinkMessage::NewLink(device(name, spec, netns));
    connection.request(message, NLM_F_CREATE | NLM_F_EXCL)
}

fn device(name: &IfName, spec: &DeviceSpec, netns: Option<RawFd>) -> LinkMessage {
    let DeviceSpec { vni, local, udp_port } = spec;
    let data = vec![
        InfoVxlan::Id(vni.get()),
        match local {
            IpAddr::V4(ip) => InfoVxlan::Local(*ip),
            IpAddr::V6(ip) => InfoVxlan::Local6(*ip),
        },
        InfoVxlan::Port(*udp_port),
        InfoVxlan::Learning(false),
        InfoVxlan::UDPCsum(true),
        InfoVxlan::Df(VxlanDf::Set),
    ];
    let mut message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Vxlan)
        .name(name.as_str())
        .set_info_data(InfoData::Vxlan(data));
    if let Some(fd) = netns {
        message = message.setns_by_fd(fd);
    }
    message.build()
}

/// A device from what the kernel says of it.
#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum names every attribute of every kernel")]
pub(crate) fn decode(attributes: &[InfoVxlan]) -> DeviceState {
    let mut state = DeviceState { checksums: true, ..DeviceState::default() };
    for attribute in attributes {
        match attribute {
            InfoVxlan::Id(vni) => state.vni = *vni,
            InfoVxlan::Local(ip) if !ip.is_unspecified() => state.local = Some(IpAddr::V4(*ip)),
            InfoVxlan::Local6(ip) if !ip.is_unspecified() => state.local = Some(IpAddr::V6(*ip)),
            InfoVxlan::Port(port) => state.udp_port = *port,
            InfoVxlan::Learning(learns) => state.learns = *learns,
            InfoVxlan::UDPCsum(over_v4) => state.checksums &= over_v4,
            InfoVxlan::UDPZeroCsumTX(none_over_v6) => state.checksums &= !none_over_v6,
            InfoVxlan::Df(df) => state.dont_fragment = *df == VxlanDf::Set,
            _ => {}
        }
    }
    state
}

/// Every forwarding entry with a remote endpoint in the connection's namespace, with its device's index.
///
/// # Errors
/// When the dump fails.
pub(crate) fn observe(connection: &mut Connection) -> Result<Vec<(u32, FdbState)>, Error> {
    let mut all = NeighbourMessage::default();
    all.header.family = AddressFamily::Bridge;
    let objects = connection.dump(&RouteNetlinkMessage::GetNeighbour(all))?;
    Ok(objects.iter().filter_map(decode_entry).collect())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "the crate's enum names every attribute of every kernel")]
fn decode_entry(object: &RouteNetlinkMessage) -> Option<(u32, FdbState)> {
    let RouteNetlinkMessage::NewNeighbour(message) = object else { return None };
    let (mut remote, mut address) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => remote = Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => remote = Some(IpAddr::V6(*v6)),
            // The family of the message is the bridge's, so the length tells the address's.
            NeighbourAttribute::Destination(NeighbourAddress::Other(octets)) => remote = endpoint(octets),
            NeighbourAttribute::LinkLayerAddress(octets) => address = mac(octets),
            _ => {}
        }
    }
    let permanent = u16::from(message.header.state) & u16::from(NeighbourState::Permanent) != 0;
    let entry = FdbEntry { mac: address?, remote: remote? };
    Some((message.header.ifindex, FdbState { entry, permanent }))
}

fn endpoint(octets: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(octets).ok().map(Ipv4Addr::from).map(IpAddr::V4);
    let v6 = || <[u8; 16]>::try_from(octets).ok().map(Ipv6Addr::from).map(IpAddr::V6);
    v4().or_else(v6)
}

/// Why a change of several entries failed: at which entry, and why.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The entry, unless the change failed as a whole.
    pub(crate) entry: Option<FdbEntry>,
    /// Why.
    pub(crate) source: Error,
}

impl From<Error> for Failure {
    fn from(source: Error) -> Self {
        Self { entry: None, source }
    }
}

/// Writes entries of a device of the connection's namespace.
///
/// # Errors
/// The first entry the kernel refused.
pub(crate) fn set(connection: &mut Connection, device: &IfName, entries: &[FdbEntry]) -> Result<(), Failure> {
    let index = index_of(connection, device)?;
    let (floods, stations): (Vec<FdbEntry>, Vec<FdbEntry>) = entries.iter().partition(|entry| entry.is_flood());
    for (entries, flags) in [(stations, NLM_F_REPLACE), (floods, NLM_F_APPEND)] {
        let messages = entries.iter().map(|entry| RouteNetlinkMessage::NewNeighbour(message(index, entry)));
        connection
            .batch(messages, NLM_F_CREATE | flags)
            .map_err(|failure| Failure { entry: entries.get(failure.index).copied(), source: failure.source })?;
    }
    Ok(())
}

/// Removes entries of a device of the connection's namespace.
///
/// # Errors
/// The first entry the kernel would not remove.
pub(crate) fn remove(connection: &mut Connection, device: &IfName, entries: &[FdbEntry]) -> Result<(), Failure> {
    let index = index_of(connection, device)?;
    let delete = |entry: &FdbEntry| RouteNetlinkMessage::DelNeighbour(message(index, entry));
    let Err(failure) = connection.batch(entries.iter().map(delete), 0) else { return Ok(()) };
    // An entry that went by itself stops its batch short: the rest goes one by one.
    let left = failure.index / BATCH_MAX * BATCH_MAX;
    for entry in entries.get(left..).unwrap_or_default() {
        let removed = connection.request(delete(entry), 0);
        absent_is_done(removed).map_err(|source| Failure { entry: Some(*entry), source })?;
    }
    Ok(())
}

fn message(index: u32, entry: &FdbEntry) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(entry.mac.octets().to_vec()),
        NeighbourAttribute::Destination(match entry.remote {
            IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
            IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
        }),
    ];
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::golden::{attribute, emitted};
    use crate::types::Vni;

    /// Attributes by their numbers in `linux/if_link.h`: IFNAME 3, LINKINFO 18, INFO_KIND 1, INFO_DATA 2; VXLAN_ID 1, LOCAL
    /// 4, LOCAL6 17, PORT 15, LEARNING 7, UDP_CSUM 18, DF 29; NET_NS_FD 28.
    #[test]
    fn a_device_over_either_family() {
        let vni = Vni::new(0x12_3456).expect("a VNI");
        let golden = |local: Vec<u8>| {
            let data = [
                attribute(1, &0x12_3456_u32.to_ne_bytes()),
                local,
                attribute(15, &[0x12, 0xb5]),
                attribute(7, &[0]),
                attribute(18, &[1]),
                attribute(29, &[1]),
            ];
            let info = [attribute(1, b"vxlan\0"), attribute(2, &data.concat())].concat();
            [attribute(3, b"vx-1\0"), attribute(28, &9_i32.to_ne_bytes()), attribute(18, &info)].concat()
        };
        let name = IfName::new("vx-1").expect("a name");
        let of = |local: IpAddr| emitted(&device(&name, &DeviceSpec { vni, local, udp_port: 4789 }, Some(9)), 16);
        assert_eq!(of([10, 0, 0, 1].into()), golden(attribute(4, &[10, 0, 0, 1])));
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
        assert_eq!(of(v6.into()), golden(attribute(17, &v6.octets())));
    }

    /// `struct ndmsg` and NDA_LLADDR 2, NDA_DST 1 (`linux/neighbour.h`).
    #[test]
    fn an_entry() {
        let entry = FdbEntry { mac: crate::types::Mac::new([2, 0, 0, 0, 0, 9]), remote: [10, 0, 0, 2].into() };
        let header = [vec![7, 0, 0, 0], 5_u32.to_ne_bytes().into(), 0x80_u16.to_ne_bytes().into(), vec![2, 0]].concat();
        let golden = [header, attribute(2, &[2, 0, 0, 0, 0, 9]), attribute(1, &[10, 0, 0, 2])].concat();
        assert_eq!(emitted(&message(5, &entry), 0), golden);
        // The kernel's answer names the address by its octets alone.
        let mut told = message(5, &entry);
        told.attributes[1] = NeighbourAttribute::Destination(NeighbourAddress::Other(vec![10, 0, 0, 2]));
        let state = FdbState { entry, permanent: true };
        assert_eq!(decode_entry(&RouteNetlinkMessage::NewNeighbour(told)), Some((5, state)));
    }

    #[test]
    fn a_device_is_recognized() {
        let vni = Vni::new(7).expect("a VNI");
        let spec = DeviceSpec { vni, local: [10, 0, 0, 1].into(), udp_port: 4789 };
        let told = |more: InfoVxlan| {
            let df = InfoVxlan::Df(VxlanDf::Set);
            let local = InfoVxlan::Local([10, 0, 0, 1].into());
            decode(&[InfoVxlan::Id(7), local, InfoVxlan::Port(4789), InfoVxlan::UDPCsum(true), df, more])
        };
        assert!(told(InfoVxlan::Learning(false)).is(&spec));
        for other in [
            InfoVxlan::Id(8),
            InfoVxlan::Local([10, 0, 0, 2].into()),
            InfoVxlan::Port(4790),
            InfoVxlan::Learning(true),
            InfoVxlan::UDPCsum(false),
            InfoVxlan::UDPZeroCsumTX(true),
            InfoVxlan::Df(VxlanDf::Unset),
        ] {
            assert!(!told(other.clone()).is(&spec), "{other:?} makes no difference");
        }
    }
}
