//! Frames as machines and routers send them, and where to look in one.

#![expect(clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dvr::types::Mac;
use dvr::wire::{arp, checksum};
use zerocopy::IntoBytes;

pub(crate) fn ethernet(dst: Mac, src: Mac, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    [&dst.octets()[..], &src.octets(), &ether_type.to_be_bytes(), payload].concat()
}

pub(crate) fn arp(dst: Mac, op: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    ethernet(dst, sender.0, 0x0806, arp::Packet::new(op, sender, target).as_bytes())
}

pub(crate) fn question(src: (Mac, Ipv4Addr), ip: Ipv4Addr) -> Vec<u8> {
    arp(Mac::BROADCAST, 1, src, (Mac::ZERO, ip))
}

pub(crate) fn ipv4(dst: Mac, src: Mac, ips: (Ipv4Addr, Ipv4Addr)) -> Vec<u8> {
    let mut header = [0x45, 0, 0, 28, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    header[12..16].copy_from_slice(&ips.0.octets());
    header[16..].copy_from_slice(&ips.1.octets());
    let sum = checksum::of(&header).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    ethernet(dst, src, 0x0800, &[&header[..], &[0, 1, 0, 2, 0, 8, 0, 0]].concat())
}

/// A neighbour message with one link-layer address option.
pub(crate) fn nd(
    dst: Mac,
    src: Mac,
    ips: (Ipv6Addr, Ipv6Addr),
    kind: u8,
    target: Ipv6Addr,
    (option, mac): (u8, Mac),
) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), &[option, 1], &mac.octets()].concat();
    let sum = checksum::pseudo(&ips.0.octets(), &ips.1.octets(), 58, message.len());
    let sum = !checksum::fold(checksum::add(sum, &message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let header = [&[0x60, 0, 0, 0, 0, 32, 58, 255][..], &ips.0.octets(), &ips.1.octets()].concat();
    ethernet(dst, src, 0x86dd, &[header, message].concat())
}

pub(crate) fn solicitation(src: (Mac, Ipv6Addr), target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    nd(Mac::new([0x33, 0x33, 0xff, a, b, c]), src.0, (src.1, group), 135, target, (1, src.0))
}

/// Word that a packet is too big: as if its receiver said so, to whoever sent it.
pub(crate) fn too_big((dst, src): (Mac, Mac), from: IpAddr, to: IpAddr) -> Vec<u8> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut frame = ipv4(dst, src, (from, to));
            frame[23] = 1;
            frame[34..42].copy_from_slice(&[3, 4, 0, 0, 0, 0, 5, 0x46]);
            frame
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = [&[0x60, 0, 0, 0, 0, 8, 58, 64][..], &from.octets(), &to.octets()].concat();
            ethernet(dst, src, 0x86dd, &[&header[..], &[2, 0, 0, 0, 0, 0, 5, 0x46]].concat())
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("{from} to {to}"),
    }
}

pub(crate) fn dst(frame: &[u8]) -> Mac {
    Mac::new(frame[..6].try_into().expect("six octets"))
}

pub(crate) fn src(frame: &[u8]) -> Mac {
    Mac::new(frame[6..12].try_into().expect("six octets"))
}

pub(crate) fn mac_at(frame: &[u8], at: usize) -> Mac {
    Mac::new(frame[at..at + 6].try_into().expect("six octets"))
}
