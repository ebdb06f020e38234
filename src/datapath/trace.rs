//! What a walk did, as `ofproto/trace` tells it.

use core::fmt::Write;

use super::bridge::{Bridge, BridgePorts};
use super::table::Flow;
use super::text::{print_actions, print_match};

/// Writes a walk down as it goes.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    pub(crate) text: String,
}

impl Recorder {
    fn indent(depth: usize) -> usize {
        depth * 4
    }

    pub(crate) fn bridge(&mut self, depth: usize, name: &str) {
        let indent = Self::indent(depth);
        let title = format!("bridge(\"{name}\")");
        let _ = write!(self.text, "\n{:indent$}{title}\n{:indent$}{:-<1$}\n", "", title.len(), "");
    }

    pub(crate) fn flow(&mut self, depth: usize, bridge: &Bridge, flow: &Flow) {
        let indent = Self::indent(depth);
        let ports = BridgePorts { bridge, names: false };
        let mut line = String::new();
        print_match(&mut line, &flow.matching, &ports);
        let _ = write!(line, " priority {}", flow.priority);
        if flow.cookie != 0 {
            let _ = write!(line, ", cookie {:#x}", flow.cookie);
        }
        let _ = writeln!(self.text, "{:indent$}{:2}. {}", "", flow.table, line.trim_start());
        let mut actions = String::new();
        print_actions(&mut actions, &flow.actions, &ports);
        let _ = writeln!(self.text, "{:indent$}    {actions}", "");
    }

    pub(crate) fn detail(&mut self, depth: usize, text: String) {
        let indent = Self::indent(depth);
        let _ = writeln!(self.text, "{:indent$}     -> {text}", "");
    }
}
