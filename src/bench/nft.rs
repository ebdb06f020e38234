//! Rules that put one source MAC for another, by nf_tables: what the peer `kernel` has for the host MAC.
//!
//! Messages of `linux/netfilter/nf_tables.h`, in one batch (`linux/netfilter/nfnetlink.h`): a table of the family netdev,
//! a chain on a device's egress, a rule for each pair of addresses.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use crate::types::{IfName, Mac};

use super::Error;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_CREATE: u16 = 0x400;
const NLM_F_APPEND: u16 = 0x800;
const NLMSG_ERROR: u16 = 2;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES`, in the high octet of a message's type.
const NF_TABLES: u16 = 10;
const NEW_TABLE: u16 = NF_TABLES << 8;
const NEW_CHAIN: u16 = NF_TABLES << 8 | 3;
const NEW_RULE: u16 = NF_TABLES << 8 | 6;
/// `NFPROTO_NETDEV`.
const NETDEV: u8 = 5;
/// `NF_NETDEV_EGRESS`, Linux 5.16.
const EGRESS: u32 = 1;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;
const REGISTER: u32 = 1;
/// `NFT_PAYLOAD_LL_HEADER`.
const LINK_LAYER: u32 = 0;
/// Where an Ethernet header has its source, and how long that is.
const SOURCE: (u32, u32) = (6, 6);
const TABLE: &[u8] = b"bench\0";

/// Has frames that leave by `device` of the caller's namespace bear the address `to` as their source where it was `from`.
///
/// # Errors
/// [`Error::Os`] with what the kernel said.
pub(super) fn rewrite_source(device: &IfName, from: Mac, to: Mac) -> Result<(), Error> {
    let name = [device.as_str().as_bytes(), b"\0"].concat();
    let hook = [number(1, EGRESS), number(2, 0), attribute(3, &name)].concat();
    let chain =
        [attribute(1, TABLE), attribute(3, &name), attribute(4 | NESTED, &hook), attribute(7, b"filter\0")].concat();
    let rule = [attribute(1, TABLE), attribute(2, &name), attribute(4 | NESTED, &expressions(from, to))].concat();
    let messages = [
        (NEW_TABLE, NLM_F_CREATE, attribute(1, TABLE)),
        (NEW_CHAIN, NLM_F_CREATE, chain),
        (NEW_RULE, NLM_F_CREATE | NLM_F_APPEND, rule),
    ];
    send(&messages).map_err(|source| Error::os(format!("write an nf_tables rule for {device}"), source))
}

/// Load the source, compare, put the other there.
fn expressions(from: Mac, to: Mac) -> Vec<u8> {
    let value = |mac: Mac| attribute(1, &mac.octets());
    let (offset, length) = SOURCE;
    let place = [number(2, LINK_LAYER), number(3, offset), number(4, length)].concat();
    let load = [number(1, REGISTER), place.clone()].concat();
    let equal = [number(1, REGISTER), number(2, 0), attribute(3 | NESTED, &value(from))].concat();
    let set = [number(1, REGISTER), attribute(2 | NESTED, &value(to))].concat();
    let store = [place, number(5, REGISTER)].concat();
    let all = [(&b"payload\0"[..], load), (b"cmp\0", equal), (b"immediate\0", set), (b"payload\0", store)];
    let element = |(name, data): (&[u8], Vec<u8>)| {
        attribute(1 | NESTED, &[attribute(1, name), attribute(2 | NESTED, &data)].concat())
    };
    all.into_iter().flat_map(element).collect()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut octets = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    octets.extend_from_slice(value);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

/// Numbers of nf_tables are in network order.
fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// A netlink message with its `nfgenmsg`.
fn message(kind: u16, flags: u16, sequence: u32, (family, resource): (u8, u16), attributes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(20 + attributes.len()).unwrap_or(u32::MAX);
    let mut octets = length.to_ne_bytes().to_vec();
    octets.extend_from_slice(&kind.to_ne_bytes());
    octets.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
    octets.extend_from_slice(&sequence.to_ne_bytes());
    octets.extend_from_slice(&[0, 0, 0, 0, family, 0]);
    octets.extend_from_slice(&resource.to_be_bytes());
    octets.extend_from_slice(attributes);
    octets
}

fn send(messages: &[(u16, u16, Vec<u8>)]) -> io::Result<()> {
    let mut octets = message(BATCH_BEGIN, 0, 0, (0, NF_TABLES), &[]);
    for ((kind, flags, attributes), sequence) in messages.iter().zip(1..) {
        octets.extend(message(*kind, flags | NLM_F_ACK, sequence, (NETDEV, 0), attributes));
    }
    octets.extend(message(BATCH_END, 0, 0, (0, NF_TABLES), &[]));
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.send_to(&octets, &SocketAddr::new(0, 0), 0)?;
    for _ in messages {
        let (answer, _) = socket.recv_from_full()?;
        // Behind its header an acknowledgement has an errno, 0 if all is well. The first that is not ends the batch.
        let kind = answer.get(4..6).and_then(|field| field.try_into().ok()).map(u16::from_ne_bytes);
        let errno = answer.get(16..20).and_then(|field| field.try_into().ok()).map_or(0, i32::from_ne_bytes);
        if kind == Some(NLMSG_ERROR) && errno != 0 {
            return Err(io::Error::from_raw_os_error(-errno));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_say_their_own_length() {
        assert_eq!(attribute(3, b"ab\0"), [&7_u16.to_ne_bytes()[..], &3_u16.to_ne_bytes(), b"ab\0\0"].concat());
        assert_eq!(number(2, 1), [&8_u16.to_ne_bytes()[..], &2_u16.to_ne_bytes(), &[0, 0, 0, 1]].concat());
    }

    /// Every length in a message is that of what it stands for: the kernel would refuse it otherwise.
    #[test]
    fn a_rule_s_parts_fill_it() {
        let all = expressions(Mac::new([1; 6]), Mac::new([2; 6]));
        let mut rest = &all[..];
        let mut names = Vec::new();
        while let Some((head, _)) = rest.split_first_chunk::<4>() {
            let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
            let inner = &rest[4..length];
            let name = usize::from(u16::from_ne_bytes([inner[0], inner[1]]));
            names.push(String::from_utf8_lossy(&inner[4..name - 1]).into_owned());
            rest = &rest[length.next_multiple_of(4)..];
        }
        assert_eq!(names, ["payload", "cmp", "immediate", "payload"]);
    }
}
