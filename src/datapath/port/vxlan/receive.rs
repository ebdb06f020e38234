//! From datagrams to frames.

use core::net::IpAddr;
use core::ops::Range;
use std::os::fd::AsFd;

use super::Endpoint;
use crate::datapath::port::joining::{self, Segment};
use crate::datapath::port::{Arrival, Batch, Ready, Received};
use crate::datapath::{DropReason, TunnelMeta};
use crate::wire::{ethernet, prefix, vxlan};

/// Reads what waits at the endpoint, at most one batch, takes the frames out, joins what belongs together, and hands
/// each to `take`.
pub fn read(endpoint: &Endpoint, batch: &mut Batch, mut take: impl FnMut(Arrival<'_, '_>)) -> Ready {
    let open = |message: &Received, memory: &[u8], at| open(message, endpoint.local, memory, at);
    joining::read(endpoint.receive.as_fd(), batch, open, &mut take)
}

/// The frame in a datagram.
fn open(message: &Received, local: IpAddr, memory: &[u8], datagram: Range<usize>) -> Result<Segment, DropReason> {
    message.is_whole()?;
    let source = message.source.ok_or(DropReason::BadTunnel)?;
    let octets = &memory[datagram.clone()];
    let (header, frame) = prefix::<vxlan::Header>(octets).map_err(|_| DropReason::BadTunnel)?;
    // Reserved bits say that the rest is not what RFC 7348 has there: another protocol than
    // Ethernet (VXLAN-GPE), or a policy that would be lost. Linux's device refuses them as well (`vxlan_rcv`, `drivers/net/vxlan/vxlan_core.c`).
    if !header.has_vni() || header.vni_bits() == 0 || header.has_reserved() {
        return Err(DropReason::BadTunnel);
    }
    if frame.len() < ethernet::HEADER_LEN {
        return Err(DropReason::Truncated);
    }
    let id = u64::from(header.vni_bits());
    let meta = TunnelMeta { id, src: source.ip(), dst: local, tos: message.tos, ttl: message.ttl };
    Ok(Segment { meta, frame: datagram.start + vxlan::HEADER_LEN..datagram.end })
}
