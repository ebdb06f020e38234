//! The engine as its users see it: flows in text, frames in, frames out.

use std::sync::Mutex;

use super::*;
use crate::api::switch::{BridgeMode, FlowChange, VlanMode};
use crate::types::{IfName, Timestamp};
use crate::wire::checksum;

mod acceptance;
mod answered;
mod bounds;
mod changes;
mod forwarding;
mod megaflow;
mod partial;
mod properties;
mod random;
mod routed;
mod standing;
mod text;
mod upcalls;

/// A switch with a worker, and what it sent.
pub(super) struct Bench {
    pub(super) switch: Mutex<Switch>,
    pub(super) worker: Worker,
    pub(super) now: Timestamp,
}

/// A frame that was sent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sent {
    pub(super) port: u32,
    pub(super) tunnel: Option<TunnelMeta>,
    pub(super) octets: Vec<u8>,
}

/// What stands for whoever hears what flows say, among ports.
pub(super) const SAID: u32 = u32::MAX;

#[derive(Default)]
pub(super) struct Wire(pub(super) Vec<Sent>);

impl Egress for Wire {
    fn transmit(&mut self, port: DpPort, tunnel: Option<&TunnelMeta>, packet: &mut Packet<'_>) {
        let mut octets = packet.head().to_vec();
        packet.tail().iter().for_each(|piece| octets.extend_from_slice(piece));
        self.0.push(Sent { port: port.0, tunnel: tunnel.copied(), octets });
    }

    fn say(&mut self, said: &std::sync::Arc<[u8]>) {
        self.0.push(Sent { port: SAID, tunnel: None, octets: said.to_vec() });
    }
}

pub(super) fn name(text: &str) -> IfName {
    IfName::new(text).expect("a legal name")
}

impl Bench {
    /// Bridge `br` in flow mode with ports 1 to `ports`, each its own datapath port of the same number.
    pub(super) fn new(ports: u32) -> Self {
        Self::with_flow_limit(ports, LIMIT_FLOWS)
    }

    /// The same, with so many flows at most.
    pub(super) fn with_flow_limit(ports: u32, flow_limit: u32) -> Self {
        let mut switch = Switch::with_flow_limit(flow_limit);
        switch.add_bridge(&name("br"), BridgeMode::Flow).expect("a new bridge");
        // The time stands still unless a test says otherwise.
        let worker = Worker::with_upcall_limit(UpcallLimit::NONE);
        let mut bench = Self { switch: Mutex::new(switch), worker, now: Timestamp::from_secs(1_000) };
        for number in 1..=ports {
            bench.netdev("br", number, VlanMode::Trunk);
        }
        bench
    }

    pub(super) fn switch(&mut self) -> &mut Switch {
        self.switch.get_mut().expect("no panic")
    }

    pub(super) fn netdev(&mut self, bridge: &str, number: u32, vlan: VlanMode) {
        let kind = NewPortKind::Netdev { dp: DpPort(number) };
        let port = NewPort { name: name(&format!("p{number}")), kind, vlan, number: Some(number) };
        self.switch().add_port(&name(bridge), port).expect("a new port");
    }

    pub(super) fn add(&mut self, flows: &[&str]) {
        self.add_to("br", flows);
    }

    pub(super) fn add_to(&mut self, bridge: &str, flows: &[&str]) {
        let changes: Vec<FlowChange> = flows.iter().map(|flow| FlowChange::Add((*flow).to_owned())).collect();
        let now = self.now;
        if let Err(error) = self.switch().change_flows(&name(bridge), &changes, now) {
            panic!("{error}");
        }
    }

    /// Flows of `br` without what changes with time: the text `add-flow` takes.
    pub(super) fn flows(&mut self) -> Vec<String> {
        let now = self.now;
        self.worker.push_stats(&self.switch, now);
        let flows = self.switch().dump_flows(&name("br"), "", false, now).expect("a bridge");
        flows.iter().map(|flow| flow.line.split_once("priority=").map_or("", |(_, rest)| rest).to_owned()).collect()
    }

    pub(super) fn send(&mut self, port: u32, frame: &[u8]) -> Vec<Sent> {
        self.send_with(Ingress { port: DpPort(port), tunnel: None }, frame)
    }

    pub(super) fn send_with(&mut self, ingress: Ingress, frame: &[u8]) -> Vec<Sent> {
        let mut room = vec![0; HEADROOM];
        room.extend_from_slice(frame);
        let end = room.len();
        let mut packet = Packet::new(&mut room, HEADROOM, end, &[], Offload::default());
        let mut wire = Wire::default();
        self.worker.process(&self.switch, &ingress, &mut packet, self.now, &mut wire);
        wire.0
    }
}

/// Octets of a text of hexadecimal digits and spaces.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(|octet| !octet.is_ascii_whitespace()).collect();
    let octet = |pair: &[u8]| u8::from_str_radix(core::str::from_utf8(pair).expect("ASCII"), 16).expect("digits");
    digits.chunks(2).map(octet).collect()
}

/// A UDP datagram over IPv4, with right checksums.
pub(super) fn udp4(src: [u8; 4], dst: [u8; 4], ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("short");
    let mut udp = Vec::new();
    for word in [ports.0, ports.1, length, 0] {
        udp.extend_from_slice(&word.to_be_bytes());
    }
    udp.extend_from_slice(payload);
    let sum = !checksum::fold(checksum::add(checksum::pseudo(&src, &dst, 17, udp.len()), &udp));
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    let mut ip = hex("4500 0000 1234 4000 40 11 0000");
    ip[2..4].copy_from_slice(&(length + 20).to_be_bytes());
    ip.extend_from_slice(&src);
    ip.extend_from_slice(&dst);
    let sum = checksum::of(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    [hex("020000000002 020000000001 0800"), ip, udp].concat()
}
