//! DHCP for IPv4 (RFC 2131, RFC 2132): the fixed part of a message, and its options.

use core::net::Ipv4Addr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The server's UDP port.
pub const SERVER_PORT: u16 = 67;
/// The client's UDP port.
pub const CLIENT_PORT: u16 = 68;
/// What [`Header::op`] of a client's message is.
pub const REQUEST: u8 = 1;
/// What [`Header::op`] of a server's message is.
pub const REPLY: u8 = 2;
/// What [`Header::hardware`] is for Ethernet.
pub const ETHERNET: u8 = 1;
/// What stands before the options (RFC 2131 §3).
pub const COOKIE: u32 = 0x6382_5363;
/// The flag of a client that hears no unicast before it has an address (RFC 2131 §4.1).
pub const FLAG_BROADCAST: u16 = 0x8000;
/// The least octets of a message: what BOOTP's have (RFC 951 §3), and what some clients insist on.
pub const LEAST: usize = 300;

/// Option without a length: nothing.
pub const PAD: u8 = 0;
/// Option: the subnet's mask.
pub const SUBNET_MASK: u8 = 1;
/// Option: routers.
pub const ROUTER: u8 = 3;
/// Option: the interface's MTU.
pub const INTERFACE_MTU: u8 = 26;
/// Option: the address asked for.
pub const REQUESTED_ADDRESS: u8 = 50;
/// Option: seconds of the lease.
pub const LEASE_TIME: u8 = 51;
/// Option: which message it is.
pub const MESSAGE_TYPE: u8 = 53;
/// Option: the server's address.
pub const SERVER_IDENTIFIER: u8 = 54;
/// Option: the client's identifier, which answers bear as well (RFC 6842 §3).
pub const CLIENT_IDENTIFIER: u8 = 61;
/// Option without a length: the end of all.
pub const END: u8 = 255;

/// Message: who would give me an address?
pub const DISCOVER: u8 = 1;
/// Message: I would.
pub const OFFER: u8 = 2;
/// Message: give me this one, or let me keep it.
pub const ASK: u8 = 3;
/// Message: it is yours.
pub const ACK: u8 = 5;
/// Message: it is not.
pub const NAK: u8 = 6;
/// Message: I have an address, and want to know the rest.
pub const INFORM: u8 = 8;

/// A message up to its options.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// [`REQUEST`] or [`REPLY`].
    pub op: u8,
    /// The link's kind: [`ETHERNET`].
    pub hardware: u8,
    /// Octets of an address of the link: 6.
    pub hardware_len: u8,
    /// How many relays passed it on.
    pub hops: u8,
    /// What the answer repeats.
    pub transaction: U32,
    /// Since when the client tries, in seconds.
    pub seconds: U16,
    /// [`FLAG_BROADCAST`], or nothing.
    pub flags: U16,
    /// The address the client has (`ciaddr`).
    pub client_ip: [u8; 4],
    /// The address the client is given (`yiaddr`).
    pub your_ip: [u8; 4],
    /// Where the next step of a boot is.
    pub next_server: [u8; 4],
    /// The relay that passed it on; zero if none did.
    pub relay: [u8; 4],
    /// The client's address on its link; the rest is zero.
    pub client_mac: [u8; 16],
    /// The server's name.
    pub server_name: [u8; 64],
    /// A file to boot.
    pub file: [u8; 128],
    /// [`COOKIE`].
    pub cookie: U32,
}

/// What an option holds, in what follows the fixed part: the first of its kind. `None` if there is none such, or if the
/// options end before it does.
#[must_use]
pub fn option(mut options: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        match *options {
            [PAD, ref rest @ ..] => options = rest,
            [END, ..] | [] => return None,
            [kind, length, ref rest @ ..] => {
                let (content, rest) = rest.split_at_checked(length.into())?;
                if kind == wanted {
                    return Some(content);
                }
                options = rest;
            }
            [_] => return None,
        }
    }
}

/// The address an option holds.
#[must_use]
pub fn address(options: &[u8], wanted: u8) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from_octets(option(options, wanted)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_fixed_part_is_as_the_rfc_has_it() {
        assert_eq!(size_of::<Header>(), 240);
        assert_eq!(core::mem::offset_of!(Header, client_mac), 28);
        assert_eq!(core::mem::offset_of!(Header, cookie), 236);
    }

    #[test]
    fn options_are_found_behind_others() {
        let options = [PAD, 53, 1, 3, 61, 2, 9, 9, PAD, 50, 4, 10, 1, 0, 2, END, 54, 4, 1, 1, 1, 1];
        assert_eq!(option(&options, MESSAGE_TYPE), Some(&[ASK][..]));
        assert_eq!(address(&options, REQUESTED_ADDRESS), Some(Ipv4Addr::new(10, 1, 0, 2)));
        assert_eq!(address(&options, SERVER_IDENTIFIER), None, "it stands behind the end");
        assert_eq!(address(&options, CLIENT_IDENTIFIER), None, "two octets are no address");
        for end in 0..options.len() {
            assert!(option(&options[..end], 99).is_none(), "cut after {end} octets");
        }
    }

    proptest! {
        #[test]
        fn nothing_is_read_beyond_the_end(octets in proptest::collection::vec(any::<u8>(), 0..64), wanted: u8) {
            let found = option(&octets, wanted);
            prop_assert!(found.is_none_or(|found| octets.as_ptr_range().end >= found.as_ptr_range().end));
        }
    }
}
