//! One frame followed through the tables: what is told of it, and what leaves by which port. Nothing is sent, learned
//! or counted.

use super::bridge::{BridgePorts, NewPortKind};
use super::error::SwitchError;
use super::execute::execute;
use super::extract::extract;
use super::io::{DpPort, Egress, Ingress, TunnelMeta};
use super::key::DETOUR;
use super::packet::{HEADROOM, Offload, Packet};
use super::switch::Switch;
use super::trace::{self, Recorder};
use super::xlate::Xlate;
use crate::api::switch::{Dropped, Followed, Sent, Tunnel};
use crate::types::{IfName, Timestamp};

/// The most frames one may become: enough for a flood in any network that a person asks about.
const LIMIT_SENT: usize = 4096;

/// Hops left to what comes by a tunnel, as far as anybody can know: what its other end gave it.
const OUTER_TTL: u8 = 64;

/// Keeps what would have been sent.
#[derive(Default)]
struct Kept(Vec<(DpPort, Option<TunnelMeta>, Vec<u8>)>);

impl Egress for Kept {
    fn transmit(&mut self, port: DpPort, tunnel: Option<&TunnelMeta>, packet: &mut Packet<'_>) {
        if self.0.len() < LIMIT_SENT {
            self.0.push((port, tunnel.copied(), packet.head().to_vec()));
        }
    }
}

impl Switch {
    /// Follows a frame that comes in by a port, and by a tunnel if that port is one; to a router's port if it comes to one,
    /// though most like it go past the router's namespace. The first 4,096 frames it becomes
    /// are returned.
    ///
    /// # Errors
    /// [`SwitchError::UnknownBridge`], [`SwitchError::UnknownPort`].
    pub fn follow(
        &mut self,
        bridge: &IfName,
        port: &IfName,
        (tunnel, frame): (Option<Tunnel>, &[u8]),
        now: Timestamp,
    ) -> Result<Followed, SwitchError> {
        let id = self.id(bridge)?;
        let unknown = || SwitchError::UnknownPort { bridge: bridge.clone(), port: port.clone() };
        let number = self.named(bridge)?.number_of(port.as_str()).ok_or_else(unknown)?;
        let meta = tunnel.map(|Tunnel { key, source, destination }| TunnelMeta {
            id: key,
            src: source,
            dst: destination,
            tos: 0,
            ttl: OUTER_TTL,
        });
        let mut room = vec![0; HEADROOM];
        room.extend(frame);
        let end = room.len();
        let mut packet = Packet::new(&mut room, HEADROOM, end, &[], Offload::default());
        let (mut key, layout) = extract(&Ingress { port: DpPort(number), tunnel: meta }, &packet);
        // Whoever follows it wants to see it enter routers' namespaces and come back.
        key.raise_all(DETOUR);
        let mut recorder = Recorder::new();
        let verdict = Xlate::walk(self, (id, number), &key, now, false, Some(&mut recorder));
        let mut kept = Kept::default();
        let cut_short = execute(&verdict.actions, &mut packet, layout, &mut kept);
        let text =
            trace::report(&recorder, &key, &verdict, &BridgePorts { bridge: self.named(bridge)?, names: false }, self);
        let sent: Vec<Sent> = kept.0.into_iter().filter_map(|kept| self.sent(kept)).collect();
        let reason = verdict.drop.or(cut_short).filter(|_| sent.is_empty());
        let dropped = reason.map(|reason| {
            let (bridge, table) = recorder.last();
            Dropped { reason: reason.name().to_owned(), bridge, table }
        });
        Ok(Followed { text, sent, dropped })
    }

    /// What was sent by a datapath port, told by the port of a bridge that it is.
    fn sent(&self, (dp, tunnel, frame): (DpPort, Option<TunnelMeta>, Vec<u8>)) -> Option<Sent> {
        for view in self.bridges() {
            for port in view.ports {
                let tunnel = match (&port.kind, &tunnel) {
                    (NewPortKind::Netdev { dp: there }, None) if *there == dp => None,
                    (
                        NewPortKind::Vxlan { dp: there, local, remote } | NewPortKind::Gre { dp: there, local, remote },
                        Some(meta),
                    ) if *there == dp && *remote == meta.dst => {
                        Some(Tunnel { key: meta.id, source: *local, destination: meta.dst })
                    }
                    (
                        NewPortKind::Netdev { .. }
                        | NewPortKind::Vxlan { .. }
                        | NewPortKind::Gre { .. }
                        | NewPortKind::Patch { .. },
                        _,
                    ) => continue,
                };
                return Some(Sent { bridge: view.name, port: port.name, tunnel, frame });
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::switch::{BridgeMode, FlowChange, VlanMode};
    use crate::datapath::NewPort;

    fn name(text: &str) -> IfName {
        text.parse().expect("a legal name")
    }

    /// br-a's port 1 patched to a tunnel of br-b, with a tag taken off on the way.
    fn switch() -> Switch {
        let mut switch = Switch::new();
        let (local, remote) = ("192.0.2.1".parse().expect("legal"), "192.0.2.2".parse().expect("legal"));
        let add = |switch: &mut Switch, bridge: &str, port: &str, kind| {
            let port = NewPort { name: name(port), kind, vlan: VlanMode::Trunk, number: None };
            switch.add_port(&name(bridge), port).expect("a free name");
        };
        for bridge in ["br-a", "br-b"] {
            switch.add_bridge(&name(bridge), BridgeMode::Flow).expect("a free name");
        }
        add(&mut switch, "br-a", "one", NewPortKind::Netdev { dp: DpPort(5) });
        add(&mut switch, "br-a", "to-b", NewPortKind::Patch { peer: name("to-a") });
        add(&mut switch, "br-b", "to-a", NewPortKind::Patch { peer: name("to-b") });
        add(&mut switch, "br-b", "far", NewPortKind::Vxlan { dp: DpPort(9), local, remote });
        let flows = |texts: &[&str]| texts.iter().map(|text| FlowChange::Add((*text).to_owned())).collect::<Vec<_>>();
        let a = flows(&["in_port=one,actions=mod_vlan_vid:7,output:to-b", "in_port=to-b,actions=output:one"]);
        switch.change_flows(&name("br-a"), &a, Timestamp::ZERO).expect("good flows");
        let b = flows(&[
            "in_port=to-a,dl_vlan=7,dl_dst=02:00:00:00:00:02,actions=strip_vlan,set_tunnel:70,mod_dl_src:02:00:00:00:00:09,output:far",
            "in_port=far,tun_id=70,actions=mod_vlan_vid:7,output:to-a",
        ]);
        switch.change_flows(&name("br-b"), &b, Timestamp::ZERO).expect("good flows");
        switch
    }

    fn frame(destination: u8) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, destination, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
        frame.extend([0; 46]);
        frame
    }

    #[test]
    fn a_frame_leaves_as_the_flows_made_it() {
        let mut switch = switch();
        let followed = switch.follow(&name("br-a"), &name("one"), (None, &frame(2)), Timestamp::ZERO).expect("known");
        let [Sent { bridge, port, tunnel: Some(tunnel), frame: sent }] = followed.sent.as_slice() else {
            panic!("{followed:?}");
        };
        assert_eq!((bridge.as_str(), port.as_str(), tunnel.key, followed.dropped), ("br-b", "far", 70, None));
        let mut expected = frame(2);
        expected[11] = 9;
        assert_eq!(*sent, expected, "its tag came and went, its source is another");
        assert!(followed.text.contains("bridge(\"br-b\")"), "{}", followed.text);
        let back = Tunnel { key: 70, source: tunnel.destination, destination: tunnel.source };
        let back = switch.follow(&name("br-b"), &name("far"), (Some(back), &frame(1)), Timestamp::ZERO).expect("known");
        assert_eq!((back.sent[0].port.as_str(), back.sent[0].frame.len()), ("one", 64), "the tag was not taken off");
        let counted = switch.dump_flows(&name("br-a"), "", false, Timestamp::ZERO).expect("known");
        assert!(counted.iter().all(|flow| flow.n_packets == 0), "following counts nothing");
    }

    #[test]
    fn a_drop_says_where_and_why() {
        let mut switch = switch();
        let followed = switch.follow(&name("br-a"), &name("one"), (None, &frame(3)), Timestamp::ZERO).expect("known");
        let dropped = followed.dropped.expect("no flow takes it");
        assert_eq!(
            (dropped.reason.as_str(), dropped.bridge.as_deref(), dropped.table),
            ("table-miss", Some("br-b"), Some(0))
        );
        assert!(
            switch.follow(&name("br-a"), &name("far"), (None, &frame(3)), Timestamp::ZERO).is_err(),
            "not its port"
        );
        for length in 0..20 {
            assert!(
                switch.follow(&name("br-a"), &name("one"), (None, &frame(2)[..length]), Timestamp::ZERO).is_ok(),
                "a frame of {length} octets"
            );
        }
    }
}
