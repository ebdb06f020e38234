//! Octets of messages, for tests that say what they must be.

use netlink_packet_core::Emitable;

/// An attribute of the kernel's: length, type, value, padded to four octets (`linux/rtnetlink.h`).
pub(crate) fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("short");
    let mut octets = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    octets.extend(value);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

/// A message's octets behind so many of its header.
pub(crate) fn emitted(message: &impl Emitable, header: usize) -> Vec<u8> {
    let mut octets = vec![0; message.buffer_len()];
    message.emit(&mut octets);
    octets.split_off(header)
}
