//! The ways to the other nodes: what tunnels need of them, and what they are like now.

use core::net::IpAddr;

use crate::api::agent::PeerPath;
use crate::datapath::port::{PortError, way};
use crate::model::view::{NetworkView, NodeView, Peer};
use crate::program;

/// Tries the way to every other node.
///
/// # Errors
/// As [`way::ways`].
pub(super) fn tried(view: &NodeView) -> Result<Vec<PeerPath>, PortError> {
    let local = view.node.tunnel_ip;
    // Endpoints of the other family are no tunnel's, and the agent says so.
    let peers = || view.peers.iter().filter(|peer| peer.tunnel_ip.is_ipv4() == local.is_ipv4());
    let ends: Vec<way::End> =
        peers().map(|peer| way::End { to: peer.tunnel_ip, needed: needed(view, &peer.name, local) }).collect();
    let ways = way::ways(local, &ends)?;
    let told = |((peer, end), way): ((&Peer, way::End), way::Way)| PeerPath {
        node: peer.name.clone(),
        tunnel_ip: peer.tunnel_ip,
        needed: end.needed,
        answered_micros: way.answered.map(|took| u64::try_from(took.as_micros()).unwrap_or(u64::MAX)),
        room: way.room,
    };
    Ok(peers().zip(ends).zip(ways).map(told).collect())
}

/// The octets of the largest packet that a tunnel sends to a node; 0 if none leads there.
fn needed(view: &NodeView, node: &str, local: IpAddr) -> u32 {
    let of = |network: &NetworkView| {
        let kind = network.segment.kind().tunnel()?;
        let leads = program::remote_nodes(network).any(|there| there == node);
        leads.then(|| network.mtu.get() + kind.overhead_octets(local))
    };
    view.networks.iter().filter_map(of).max().unwrap_or(0)
}
