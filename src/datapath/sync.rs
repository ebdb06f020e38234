//! All flows under one cookie, told as a whole: what is missing, differs or is too much is found here, where flows are
//! compared as what they mean and not as they are written.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::bridge::PortNumbers;
use super::error::SwitchError;
use super::flows::fresh;
use super::matching::Shapes;
use super::switch::Switch;
use super::table::{Flow, FlowRef};
use super::text::{FlowText, Read, TextError, Use};
use crate::api::switch::Synced;
use crate::types::{IfName, Timestamp};

/// Flows that were read. Each is where it will stay, in a table; what it took to read them goes as a whole.
pub(crate) type Wanted = Vec<Box<Flow>>;

impl Switch {
    /// Makes the flows under a cookie those of `text`, one a line as `add-flow` takes them, at one instant, and touches no
    /// others but those in their place. One that is there already keeps its counters; one that differs is modified. Of two
    /// lines that say the same table, priority and match the later counts.
    ///
    /// # Errors
    /// [`SwitchError::BadFlow`] says which line is wrong, and where: as for `add-flow`, and what a whole cannot mean,
    /// `check_overlap` and `reset_counts`. [`SwitchError::TableFull`]. Nothing is changed then.
    pub fn sync_flows(
        &mut self,
        bridge: &IfName,
        cookie: u64,
        text: &str,
        now: Timestamp,
    ) -> Result<Synced, SwitchError> {
        let wanted = self.port_numbers(bridge)?.read_lines(text, cookie, now)?;
        self.apply_sync(bridge, cookie, wanted)
    }

    /// The same with flows that were read with the ports as they are.
    pub(crate) fn apply_sync(&mut self, bridge: &IfName, cookie: u64, wanted: Wanted) -> Result<Synced, SwitchError> {
        let (id, limit) = (self.id(bridge)?, self.flow_limit());
        let Some(held) = self.bridge_mut(id) else { unreachable!("its name was found") };
        // What each flow there is to become: the last line that says it.
        let mut claimed: BTreeMap<FlowRef, usize> = BTreeMap::new();
        let mut missing = Vec::new();
        for (at, flow) in wanted.iter().enumerate() {
            match held.tables.find_kept(flow.table, &flow.matching, flow.priority) {
                Some(found) => drop(claimed.insert(found, at)),
                None => missing.push(at),
            }
        }
        let ours = held.tables.iter().filter(|(_, flow)| flow.cookie == cookie);
        let gone: Vec<FlowRef> = ours.map(|(found, _)| found).filter(|found| !claimed.contains_key(found)).collect();
        let (flows, more) = (held.tables.len() - gone.len(), missing.len());
        if flows + more > limit {
            return Err(SwitchError::TableFull { bridge: bridge.clone(), flows, more, limit });
        }
        claimed.retain(|found, at| held.tables.get(*found).is_some_and(|flow| !is_as_wanted(flow, &wanted[*at])));
        let changes = claimed.len() + missing.len() + gone.len();
        held.tables.defer();
        for (found, at) in claimed {
            held.tables.modify(found, |flow| become_as_wanted(flow, &wanted[at]));
        }
        let mut missing = missing.into_iter().peekable();
        for (_, flow) in wanted.into_iter().enumerate().filter(|(at, _)| missing.next_if_eq(at).is_some()) {
            held.tables.insert(flow);
        }
        gone.into_iter().for_each(|found| drop(held.tables.remove(found)));
        held.tables.settle();
        held.flows_revision += u64::from(changes > 0);
        let revision = held.revision();
        if changes > 0 {
            self.revisions().publish();
        }
        Ok(Synced { changes, revision })
    }
}

fn is_as_wanted(flow: &Flow, wanted: &Flow) -> bool {
    let said = |flow: &Flow| (flow.cookie, flow.idle_timeout, flow.hard_timeout, flow.send_flow_rem, flow.importance);
    said(flow) == said(wanted) && flow.actions == wanted.actions
}

fn become_as_wanted(flow: &mut Flow, wanted: &Flow) {
    flow.cookie = wanted.cookie;
    (flow.idle_timeout, flow.hard_timeout) = (wanted.idle_timeout, wanted.hard_timeout);
    (flow.send_flow_rem, flow.importance) = (wanted.send_flow_rem, wanted.importance);
    flow.actions = Arc::clone(&wanted.actions);
    flow.modified = wanted.modified;
}

/// Refuses what says how a flow is added: those of a whole are compared, and most are there.
fn of_a_whole(flow: &FlowText, line: &str) -> Result<(), TextError> {
    for (word, is_said) in [("check_overlap", flow.check_overlap), ("reset_counts", flow.reset_counts)] {
        if is_said {
            let message = format!("`{word}` is for flows that are added one by one: leave it out");
            return Err(TextError { message, text: line.to_owned(), at: line.find(word).unwrap_or(0) });
        }
    }
    Ok(())
}

impl PortNumbers {
    /// Reads flows, one a line: all of them, or with an error none. Each gets this cookie, whatever it says.
    pub(crate) fn read_lines(&self, text: &str, cookie: u64, now: Timestamp) -> Result<Wanted, SwitchError> {
        let count = text.lines().count();
        let (mut before, mut shapes) = (Read::default(), Shapes::default());
        let mut flows = Vec::with_capacity(count);
        for (at, line) in text.lines().enumerate() {
            let bad = |source| SwitchError::BadFlow { number: at + 1, count, source };
            let mut read = FlowText::parse_among(line, Use::Add, self, &mut before).map_err(bad)?;
            of_a_whole(&read, line).map_err(bad)?;
            read.cookie = Some(cookie);
            flows.push(fresh(read, now, &mut shapes));
        }
        Ok(flows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::switch::{BridgeMode, FlowChange, VlanMode};
    use crate::datapath::{DpPort, NewPort, NewPortKind};

    const OURS: u64 = 0x64;

    fn name(text: &str) -> IfName {
        text.parse().expect("a name")
    }

    fn switch() -> Switch {
        let mut switch = Switch::new();
        switch.add_bridge(&name("br"), BridgeMode::Flow).expect("the first");
        let port = NewPort {
            name: name("p1"),
            kind: NewPortKind::Netdev { dp: DpPort(1) },
            vlan: VlanMode::Trunk,
            number: Some(1),
        };
        switch.add_port(&name("br"), port).expect("the first");
        switch
    }

    fn sync(switch: &mut Switch, text: &str) -> Synced {
        switch.sync_flows(&name("br"), OURS, text, Timestamp::ZERO).expect("good flows")
    }

    fn flows(switch: &Switch) -> Vec<String> {
        let flows = switch.dump_flows(&name("br"), "", true, Timestamp::ZERO).expect("it is there");
        flows.iter().map(crate::datapath::without_stats).collect()
    }

    fn revision(switch: &Switch) -> u64 {
        switch.bridges()[0].revision
    }

    /// Input: a whole program, then another, with a foreign flow beside. Output: each change is counted, the foreign flow
    /// stays, and the same again changes nothing, the revision neither.
    #[test]
    fn what_differs_is_changed_and_nothing_else() {
        let mut switch = switch();
        let foreign = FlowChange::Add("cookie=7,table=3,priority=1 actions=drop".to_owned());
        switch.change_flows(&name("br"), &[foreign], Timestamp::ZERO).expect("a good flow");
        let first = "table=0,priority=5,in_port=p1,dl_dst=02:00:00:00:00:01 actions=drop\n\
                     table=0,priority=4,arp,arp_tpa=10.0.0.1 actions=output:p1\n\
                     table=1 actions=drop";
        let made = sync(&mut switch, first);
        assert_eq!((made.changes, made.revision), (3, revision(&switch)));
        // The same flows in other words, and in another order.
        let again = "table=1,actions=\n\
                     table=0,priority=4,arp,nw_dst=10.0.0.1/255.255.255.255 actions=1\n\
                     table=0,priority=5,dl_dst=02:00:00:00:00:01,in_port=1 actions=drop";
        assert_eq!(sync(&mut switch, again), Synced { changes: 0, revision: made.revision });
        let second = "table=0,priority=4,arp,arp_tpa=10.0.0.1 actions=drop\ntable=2 actions=drop";
        let made = sync(&mut switch, second);
        assert_eq!(made.changes, 1 + 1 + 2, "one modified, one new, two gone");
        let expected = [
            "cookie=0x64, priority=4,arp,arp_tpa=10.0.0.1 actions=drop",
            "cookie=0x64, table=2, actions=drop",
            "cookie=0x7, table=3, priority=1 actions=drop",
        ];
        assert_eq!(flows(&switch), expected);
    }

    /// Input: two lines for one flow; a flow of somebody else's in our place; a bad line. Output: the later line counts, every time;
    /// the place becomes ours; nothing happens.
    #[test]
    fn the_later_line_counts_and_a_bad_one_undoes_all() {
        let mut switch = switch();
        let foreign = FlowChange::Add("cookie=7,table=1 actions=drop".to_owned());
        switch.change_flows(&name("br"), &[foreign], Timestamp::ZERO).expect("a good flow");
        let text = "table=1 actions=output:p1\ntable=0 actions=drop\ntable=0 actions=output:p1";
        sync(&mut switch, text);
        let expected = ["cookie=0x64, actions=output:p1", "cookie=0x64, table=1, actions=output:p1"];
        assert_eq!(flows(&switch), expected);
        assert_eq!(sync(&mut switch, text).changes, 0);
        let before = revision(&switch);
        for (line, at) in [("table=4,check_overlap actions=drop", 8), ("reset_counts actions=drop", 0)] {
            let error = switch.sync_flows(&name("br"), OURS, line, Timestamp::ZERO);
            let Err(SwitchError::BadFlow { number: 1, count: 1, source }) = error else { panic!("{error:?}") };
            assert_eq!(source.at, at, "{source}");
        }
        let error = switch.sync_flows(&name("br"), OURS, "table=4 actions=drop\nnonsense", Timestamp::ZERO);
        assert!(matches!(error, Err(SwitchError::BadFlow { number: 2, count: 2, .. })), "{error:?}");
        assert_eq!((flows(&switch), revision(&switch)), (expected.map(str::to_owned).to_vec(), before));
    }

    /// Input: whatever somebody else may do to the bridge. Output: another revision each time, and never an earlier one's.
    #[test]
    fn a_revision_stands_for_ports_and_flows() {
        let mut switch = switch();
        sync(&mut switch, "table=0 actions=drop");
        let mut seen = std::collections::BTreeSet::from([revision(&switch)]);
        let change = |switch: &mut Switch, change: FlowChange| {
            switch.change_flows(&name("br"), &[change], Timestamp::ZERO).expect("a good flow");
        };
        change(&mut switch, FlowChange::Add("table=9 actions=drop".to_owned()));
        assert!(seen.insert(revision(&switch)));
        change(&mut switch, FlowChange::Delete("table=9".to_owned()));
        assert!(seen.insert(revision(&switch)));
        change(&mut switch, FlowChange::Delete("table=9".to_owned()));
        assert!(!seen.insert(revision(&switch)), "it changed nothing");
        switch.del_port(&name("br"), &name("p1")).expect("it is there");
        assert!(seen.insert(revision(&switch)));
        switch.del_bridge(&name("br")).expect("it is there");
        switch.add_bridge(&name("br"), BridgeMode::Flow).expect("it is gone");
        assert!(seen.insert(revision(&switch)));
    }
}
