//! From packets to frames.

use core::net::IpAddr;
use core::ops::Range;
use std::os::fd::AsFd;

use super::Endpoint;
use crate::datapath::port::joining::{self, Segment};
use crate::datapath::port::{Arrival, Batch, Ready, Received};
use crate::datapath::{DropReason, TunnelMeta};
use crate::wire::gre::BadGre;
use crate::wire::{ethernet, gre, ipv4, prefix};

/// Reads what waits at the endpoint, at most one batch, takes the frames out, joins what belongs together, and hands
/// each to `take`.
pub fn read(endpoint: &Endpoint, batch: &mut Batch, mut take: impl FnMut(Arrival<'_, '_>)) -> Ready {
    let open = |message: &Received, memory: &[u8], at| open(message, endpoint.local, memory, at);
    joining::read(endpoint.socket.as_fd(), batch, open, &mut take)
}

/// The frame in a packet, which begins with its IP header if that is IPv4's (raw(7)).
fn open(message: &Received, local: IpAddr, memory: &[u8], packet: Range<usize>) -> Result<Segment, DropReason> {
    message.is_whole()?;
    let source = message.source.ok_or(DropReason::BadTunnel)?;
    let outer = match local {
        IpAddr::V4(_) => {
            prefix::<ipv4::Header>(&memory[packet.clone()]).map_err(|_| DropReason::Truncated)?.0.header_len()
        }
        IpAddr::V6(_) => 0,
    };
    let octets = memory[packet.clone()].get(outer..).ok_or(DropReason::Truncated)?;
    let (key, length) = gre::open(octets).map_err(|bad| match bad {
        BadGre::Truncated(_) => DropReason::Truncated,
        BadGre::Flags(_) | BadGre::Protocol(_) => DropReason::BadTunnel,
        BadGre::Checksum => DropReason::TunnelChecksum,
        BadGre::Keyless => DropReason::Keyless,
    })?;
    if octets.len() < length + ethernet::HEADER_LEN {
        return Err(DropReason::Truncated);
    }
    let meta = TunnelMeta { id: u64::from(key), src: source.ip(), dst: local, tos: message.tos, ttl: message.ttl };
    Ok(Segment { meta, frame: packet.start + outer + length..packet.end })
}
