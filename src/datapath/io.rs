//! Where the engine meets the ports: what comes with a frame, and where frames go.

use core::fmt;
use core::net::IpAddr;
use std::sync::Arc;

use super::offer::Offer;
use super::packet::Packet;
use crate::types::Timestamp;

/// A datapath port's number: what a frame is received on and sent to. Bridges give their ports numbers of their own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DpPort(pub u32);

impl fmt::Debug for DpPort {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "dp{}", self.0)
    }
}

/// What a tunnel said about a frame, or is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TunnelMeta {
    /// The tunnel key: a VNI or GRE key.
    pub id: u64,
    /// The outer source address; unspecified in a frame to be sent lets the tunnel choose.
    pub src: IpAddr,
    /// The outer destination address.
    pub dst: IpAddr,
    /// The outer type of service.
    pub tos: u8,
    /// The outer time to live.
    pub ttl: u8,
}

/// What comes with a frame.
#[derive(Clone, Copy, Debug)]
pub struct Ingress {
    /// The port it came in by.
    pub port: DpPort,
    /// What its tunnel said; a tunnel port's frames always have it.
    pub tunnel: Option<TunnelMeta>,
}

/// The ports, as the engine sees them.
pub trait Egress {
    /// Sends the packet as it is now; it may be rewritten and sent elsewhere as soon as this returns. What the port
    /// cannot take is counted there. With `tunnel`, the port is a tunnel's.
    fn transmit(&mut self, port: DpPort, tunnel: Option<&TunnelMeta>, packet: &mut Packet<'_>);

    /// Says what a flow's `controller` action says of a packet; nobody hears it unless told otherwise.
    fn say(&mut self, said: &Arc<[u8]>) {
        let _ = said;
    }

    /// Whether decisions about frames from this port can be carried out without the worker.
    #[inline]
    fn takes_offers(&self, from: DpPort) -> bool {
        let _ = from;
        false
    }

    /// Takes a decision over, or not: the worker goes on either way with the frames it gets.
    fn offer(&mut self, offer: &Offer<'_>, now: Timestamp) {
        let _ = (offer, now);
    }
}
