//! Random changes of the tables between packets: strict and loose, filtered, refused, in bundles; and filters of dumps.

use super::{Maker, Shape, TABLES, Tag, prefixed};
use crate::ovs::case::Step;

/// The cookies that flows have, and masks to ask for them with.
pub(super) const COOKIES: &[u64] = &[1, 0xdead_beef, u64::MAX - 1];
const COOKIE_MASKS: &[&str] = &["-1", "0x1", "0xffff", "0"];

/// Without flows that must not overlap after another was added to the same table with their priority: whether OVS sees
/// that one depends on its tables' past, as `ovs_differential.rs` explains.
fn without_unpublished(changes: Vec<(String, String)>) -> Vec<(String, String)> {
    let place = |flow: &str| {
        let head = flow.split(" actions=").next().unwrap_or_default();
        let part = |name: &str| head.split(',').find_map(|part| part.strip_prefix(name)?.parse::<u16>().ok());
        (part("table=").unwrap_or(0), part("priority=").unwrap_or(0x8000))
    };
    let mut kept: Vec<(String, String)> = Vec::new();
    for (how, flow) in changes {
        let added = kept.iter().any(|(how, other)| how == "add" && place(other) == place(&flow));
        if !(added && flow.contains("check_overlap")) {
            kept.push((how, flow));
        }
    }
    kept
}

impl Maker {
    /// A change between two packets.
    pub(super) fn change(&mut self) -> Step {
        self.bridge = self.bridge_name();
        let bridge = self.bridge.to_owned();
        match self.rng.below(10) {
            0 | 1 => {
                let flow = self.overlapping();
                Step::Try { how: "add".to_owned(), bridge, flow }
            }
            2 if self.openflow == 15 => {
                let changes = (0..self.rng.below(4) + 1).map(|_| self.one_change(15)).collect();
                Step::Bundle { bridge, changes: without_unpublished(changes) }
            }
            _ => {
                let (how, flow) = self.one_change(0);
                Step::Change { how, bridge, flow }
            }
        }
    }

    /// A word of `add-flows` and its flow, which in so many of a hundred may be one that is refused.
    fn one_change(&mut self, refused: usize) -> (String, String) {
        if self.rng.chance(refused) {
            return ("add".to_owned(), self.overlapping());
        }
        let table = self.rng.below(TABLES);
        // In OpenFlow 1.0 a modification that finds nothing adds; ours is that of later versions.
        let all: &[&str] = &["add", "add", "delete", "delete_strict", "modify", "modify_strict"];
        let how = self.rng.pick(if self.openflow == 10 { &all[..4] } else { all });
        let flow = match how {
            "delete" => {
                let (selector, matching) = (self.selector(), self.matching());
                format!("table={table}{selector}{}", prefixed(&matching))
            }
            "delete_strict" => {
                let (head, selector) = (self.head(), self.selector());
                format!("{head}{selector}")
            }
            "modify_strict" => {
                (self.shape, self.tag) = (Shape::Any, Tag::Unknown);
                let (head, selector, actions) = (self.head(), self.cookies(), self.actions(0));
                format!("{head}{selector} actions={}", actions.replace("delete_learned,", ""))
            }
            "modify" => {
                self.table = table;
                let (selector, matching) = (self.cookies(), self.matching());
                let actions = self.actions(0).replace("delete_learned,", "");
                format!("table={table}{selector}{} actions={actions}", prefixed(&matching))
            }
            // One that is there, with other actions.
            _ if self.rng.chance(40) => {
                (self.shape, self.tag) = (Shape::Any, Tag::Unknown);
                let (head, actions) = (self.head(), self.actions(0));
                let counted = if self.openflow == 15 { ",reset_counts" } else { "" };
                let flag = self.rng.pick(&["", counted, ",cookie=0x5"]);
                format!("{head}{flag} actions={actions}")
            }
            _ => self.flow(table),
        };
        (how.to_owned(), flow)
    }

    /// A flow to be added only if it overlaps with none of its priority, which is one in use.
    fn overlapping(&mut self) -> String {
        let head = self.head();
        let priority = head.split(',').nth(1).expect("a head says its priority").to_owned();
        let matching = prefixed(&self.matching());
        let (table, actions) = (self.table, self.actions(0));
        // One that overlaps but is refused nowhere would make the outcome of a lookup chance.
        format!("table={table},check_overlap,{priority}{matching} actions={actions}")
    }

    /// The cookies that a change asks of the flows it concerns.
    fn cookies(&mut self) -> String {
        if self.rng.chance(80) {
            return String::new();
        }
        format!(",cookie={:#x}/{}", self.rng.number(COOKIES), self.rng.pick(COOKIE_MASKS))
    }

    /// What more a deletion or a dump asks of the flows it concerns.
    fn selector(&mut self) -> String {
        match self.rng.below(10) {
            0 | 1 => self.cookies(),
            2 | 3 => format!(",out_port={}", self.rng.pick(&["1", "2", "10", "LOCAL", "IN_PORT", "NORMAL", "ANY"])),
            _ => String::new(),
        }
    }

    /// What a dump shows.
    pub(super) fn filter(&mut self) -> String {
        let mut words = Vec::new();
        if self.rng.chance(40) {
            words.push(format!("table={}", self.rng.below(TABLES)));
        }
        words.push(self.selector().trim_start_matches(',').to_owned());
        if self.rng.chance(40) {
            words.push(self.matching());
        }
        words.retain(|word| !word.is_empty());
        words.join(",")
    }

    /// What a flow of this bridge is called in strict changes.
    fn head(&mut self) -> String {
        let own = self.heads.iter().filter(|(bridge, _)| *bridge == self.bridge);
        let own: Vec<String> = own.map(|(_, head)| head.clone()).collect();
        let head = own[self.rng.below(own.len())].clone();
        let table = head.split(',').next().and_then(|part| part.strip_prefix("table="));
        self.table = table.and_then(|table| table.parse().ok()).expect("a head starts with its table");
        head
    }
}
