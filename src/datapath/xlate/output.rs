//! Where a walk's packet leaves: by a port, through a tunnel, or into the bridge at a patch's other end.

use std::sync::Arc;

use super::{Effect, LIMIT_ACTIONS, TUNNEL_TTL, Xlate};
use crate::api::switch::Answer;
use crate::datapath::NewPortKind;
use crate::datapath::action::port;
use crate::datapath::commit::{DpAction, commit};
use crate::datapath::drop::DropReason;
use crate::datapath::field::Needs;
use crate::datapath::io::TunnelMeta;
use crate::datapath::key;
use crate::datapath::switch::Place;

impl Xlate<'_> {
    /// An `output` action to `number`, which may be a reserved one.
    pub(crate) fn output(&mut self, number: u32) {
        let in_port = self.key.get32(key::IN_PORT);
        match number {
            port::IN_PORT => self.send(in_port),
            port::NORMAL => crate::datapath::normal::forward(self),
            port::FLOOD | port::ALL => {
                let Some(bridge) = self.switch.bridge(self.bridge) else { return };
                let others: Vec<u32> = bridge.ports.keys().copied().filter(|other| *other != in_port).collect();
                // Outputs to patch ports are run later, in this order, as part of the same walk.
                for other in others {
                    self.send(other);
                }
            }
            port::CONTROLLER | port::TABLE | port::NONE => {}
            _ if number == in_port => self.warn(|| "skipping output to input port".to_owned()),
            _ => self.send(number),
        }
    }

    /// Sends to a port of this bridge, the one it came in by included.
    pub(crate) fn send(&mut self, number: u32) {
        let Some(port) = self.switch.bridge(self.bridge).and_then(|bridge| bridge.ports.get(&number)) else {
            self.warn(|| "Nonexistent output port".to_owned());
            return;
        };
        match &port.kind {
            NewPortKind::Netdev { dp } => {
                let port = *dp;
                if !self.go_past(number) {
                    self.transmit(DpAction::Output { port, tunnel: None });
                }
            }
            NewPortKind::Vxlan { dp, local, remote } | NewPortKind::Gre { dp, local, remote } => {
                let (port, local, remote) = (*dp, *local, *remote);
                self.mask.raise_all(key::TUN_ID);
                let id = u64::try_from(self.key.get(key::TUN_ID)).unwrap_or(0);
                self.note(|| "output to kernel tunnel".to_owned());
                let tunnel = TunnelMeta { id, src: local, dst: remote, tos: self.outer_tos(), ttl: TUNNEL_TTL };
                self.transmit(DpAction::Output { port, tunnel: Some(tunnel) });
            }
            NewPortKind::Patch { .. } => self.patch(number),
        }
    }

    /// The outer type of service: the packet's ECN, "congestion experienced" as "capable" (`tnl_port_send()`).
    fn outer_tos(&mut self) -> u8 {
        if !Needs::Ip.met_by(&self.key) {
            return 0;
        }
        self.mask.raise(key::IP_TOS, 3);
        match self.key.get(key::IP_TOS) & 3 {
            0 => 0,
            1 => 1,
            _ => 2,
        }
    }

    fn transmit(&mut self, output: DpAction) {
        if self.actions.len() >= LIMIT_ACTIONS {
            self.fatal = Some(DropReason::TooManyActions);
            return;
        }
        commit(&mut self.actions, &self.key, &mut self.base, &mut self.mask);
        self.actions.push(output);
    }

    /// A `controller` action: what it says is said, of the packet as it is by then (`xlate_controller_action()`).
    pub(super) fn say(&mut self, said: &Arc<[u8]>) {
        if self.actions.len() >= LIMIT_ACTIONS {
            self.fatal = Some(DropReason::TooManyActions);
            return;
        }
        commit(&mut self.actions, &self.key, &mut self.base, &mut self.mask);
        let action = match Answer::read(said) {
            Some(answer) => self.answer(answer),
            None => Some(DpAction::Say(Arc::clone(said))),
        };
        self.actions.extend(action);
    }

    /// What a `controller` action says if it is for the switch itself, and the packet came by a port that can be answered.
    fn answer(&mut self, answer: Answer) -> Option<DpAction> {
        self.note(|| format!("answered by the switch: {answer}"));
        let in_port = self.key.get32(key::IN_PORT);
        match self.switch.bridge(self.bridge)?.ports.get(&in_port)?.kind {
            NewPortKind::Netdev { dp } => Some(DpAction::Answer { port: dp, answer: Arc::new(answer) }),
            NewPortKind::Vxlan { .. } | NewPortKind::Gre { .. } | NewPortKind::Patch { .. } => None,
        }
    }

    /// Goes on in the bridge at the other end.
    fn patch(&mut self, number: u32) {
        let Some((bridge, other)) = self.switch.peer(self.bridge, number) else {
            self.reason.get_or_insert(DropReason::NoPeer);
            self.warn(|| "patch port has no peer".to_owned());
            return;
        };
        self.effect(Effect::Patch { from: (self.bridge, number), to: (bridge, other) });
        self.arrive((bridge, other), |_| {});
    }

    /// Has the packet, once changed, come in by a port and runs what becomes of it there.
    pub(super) fn arrive(&mut self, (bridge, number): Place, change: impl FnOnce(&mut Self)) {
        // The other side starts afresh; afterwards this side is as it was. The stack runs its last frame first, so
        // what a list sends to several patches is put together here in reverse and turned round at the end.
        let earlier = core::mem::take(&mut self.pending);
        let restore = self.save();
        self.pending.push(restore);
        change(self);
        self.bridge = bridge;
        self.key.clear(key::TUNNEL_WORDS);
        self.key.clear(key::STATE_WORDS);
        self.key.set(key::IN_PORT, number.into());
        // The other bridge's tables as they are by now.
        self.view = self.taught.len();
        self.enter_bridge(false);
        self.walk_nested();
        self.pending = earlier;
    }

    /// Runs what is pending to its end before anything else on the stack.
    fn walk_nested(&mut self) {
        let outer = core::mem::take(&mut self.stack);
        self.run();
        self.stack = outer;
        // Nothing that ends the other side ends this one.
        (self.stop, self.exits) = (false, false);
        if let Some(reason) = self.fatal
            && reason != DropReason::TooManyActions
        {
            self.reason.get_or_insert(reason);
            self.fatal = None;
        }
    }
}
