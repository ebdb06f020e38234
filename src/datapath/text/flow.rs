//! Whole flows in text: what `add-flow`, `mod-flows`, `del-flows` and `dump-flows` take.

use std::sync::Arc;

use hashbrown::HashMap;

use super::super::action::{self, Actions};
use super::super::matching::{DEFAULT_PRIORITY, Match};
use super::PortNames;
use super::lexer::{Piece, TextError, words};
use super::matching::{check_icmp, check_needs, parse_word};
use super::value::{decimal, number16, number64, port_number};

/// What a flow's text is for: which parts it must and may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// A flow to be added, with actions.
    Add,
    /// Flows to be modified, with actions.
    Modify,
    /// Flows to be removed, or the one of exactly this match and priority.
    Delete { strict: bool },
    /// Flows to be shown.
    Filter,
    /// A packet, to be traced.
    Packet,
}

impl Use {
    /// Whether the text gives flows what they are to do and to be.
    const fn gives(self) -> bool {
        match self {
            Self::Add | Self::Modify => true,
            Self::Delete { .. } | Self::Filter | Self::Packet => false,
        }
    }
}

/// A flow as its text says.
#[derive(Clone, Debug)]
pub(crate) struct FlowText {
    /// The table; all of them if a filter names none.
    pub(crate) table: Option<u8>,
    pub(crate) priority: u16,
    pub(crate) matching: Match,
    /// `cookie=VALUE`.
    pub(crate) cookie: Option<u64>,
    /// `cookie=VALUE/MASK`: only flows with this cookie.
    pub(crate) cookie_filter: Option<(u64, u64)>,
    pub(crate) idle_timeout: u16,
    pub(crate) hard_timeout: u16,
    pub(crate) send_flow_rem: bool,
    /// Kept and shown: flows are never evicted for others here.
    pub(crate) importance: u16,
    pub(crate) check_overlap: bool,
    pub(crate) reset_counts: bool,
    /// Only flows that send to this port.
    pub(crate) out_port: Option<u32>,
    pub(crate) actions: Option<Actions>,
}

/// Where `actions=` starts, outside of any value.
fn find_actions(text: &str) -> Option<(usize, usize)> {
    ["actions=", "action="].iter().find_map(|mark| {
        text.match_indices(mark).find_map(|(at, _)| {
            let bounded =
                text[..at].bytes().next_back().is_none_or(|octet| octet == b',' || octet.is_ascii_whitespace());
            bounded.then_some((at, at + mark.len()))
        })
    })
}

/// Actions that were read, by their text: flows that do the same share one list.
pub(crate) type Read<'a> = HashMap<&'a str, Actions>;

impl FlowText {
    /// Reads a flow.
    pub(crate) fn parse(text: &str, purpose: Use, ports: &impl PortNames) -> Result<Self, TextError> {
        Self::parse_among(text, purpose, ports, &mut Read::new())
    }

    /// Reads one flow of several.
    pub(crate) fn parse_among<'a>(
        text: &'a str,
        purpose: Use,
        ports: &impl PortNames,
        read: &mut Read<'a>,
    ) -> Result<Self, TextError> {
        let all = Piece::all(text);
        let mut flow = Self {
            table: None,
            priority: DEFAULT_PRIORITY,
            matching: Match::ANY,
            cookie: None,
            cookie_filter: None,
            idle_timeout: 0,
            hard_timeout: 0,
            send_flow_rem: false,
            importance: 0,
            check_overlap: false,
            reset_counts: false,
            out_port: None,
            actions: None,
        };
        let split = find_actions(text);
        let head = split.map_or(all, |(at, _)| all.cut(0, at));
        for word in words(head) {
            flow.word(word?, purpose, ports)?;
        }
        check_icmp(&mut flow.matching, head)?;
        if purpose != Use::Packet {
            check_needs(&flow.matching, head)?;
            flow.matching.normalise();
        }
        let with_actions = matches!(purpose, Use::Add | Use::Modify);
        match split {
            Some((_, start)) if with_actions => {
                let actions = match read.get(&text[start..]) {
                    Some(actions) => Arc::clone(actions),
                    None => {
                        let actions = super::action::parse_actions(all.cut(start, text.len()), ports)?;
                        read.insert(&text[start..], Arc::clone(&actions));
                        actions
                    }
                };
                let checked = action::check(&actions, &flow.matching, flow.table.unwrap_or(0));
                checked.map_err(|error| all.cut(start, text.len()).error(error.to_string()))?;
                flow.actions = Some(actions);
            }
            Some((at, _)) => {
                return Err(all.cut(at, text.len()).error("actions have no place here: give the match only"));
            }
            None if with_actions => return Err(all.cut(text.len(), text.len()).error("`actions=` is missing")),
            None => {}
        }
        Ok(flow)
    }

    fn word(&mut self, word: super::lexer::Word<'_>, purpose: Use, ports: &impl PortNames) -> Result<(), TextError> {
        match (word.key.text(), word.value) {
            ("table", Some(value)) => {
                let table = decimal(value).and_then(|table| u8::try_from(table).ok());
                let table = table.ok_or_else(|| value.error("tables are 0 to 254, in decimal"))?;
                if table == 255 && matches!(purpose, Use::Add) {
                    return Err(value.error("tables are 0 to 254"));
                }
                self.table = (table != 255).then_some(table);
            }
            ("priority", Some(value)) => {
                if matches!(purpose, Use::Delete { strict: false } | Use::Filter) {
                    return Err(word.key.error("a priority is of use only with strict matching"));
                }
                self.priority = number16(value)?;
            }
            ("cookie", Some(value)) => self.cookie(value, purpose)?,
            ("idle_timeout", Some(value)) if purpose.gives() => self.idle_timeout = number16(value)?,
            ("hard_timeout", Some(value)) if purpose.gives() => self.hard_timeout = number16(value)?,
            ("out_port", Some(value)) if !purpose.gives() => self.out_port = Some(port_number(value, ports)?),
            ("importance", Some(value)) if purpose == Use::Add => self.importance = number16(value)?,
            // What `dump-flows` prints of a flow's past, so that its lines can be added again.
            ("duration" | "n_packets" | "n_bytes" | "idle_age" | "hard_age", Some(_)) if purpose == Use::Add => {}
            ("send_flow_rem", None) if purpose.gives() => self.send_flow_rem = true,
            ("check_overlap", None) if purpose.gives() => self.check_overlap = true,
            ("reset_counts", None) if purpose.gives() => self.reset_counts = true,
            ("no_packet_counts" | "no_byte_counts", None) if purpose.gives() => {}
            (name, _) => {
                if !parse_word(&mut self.matching, word, ports)? {
                    return Err(word.key.error(format!("a flow has no `{name}`")));
                }
            }
        }
        Ok(())
    }

    fn cookie(&mut self, value: Piece<'_>, purpose: Use) -> Result<(), TextError> {
        match value.split("/") {
            Some(_) if purpose == Use::Add => Err(value.error("a new flow's cookie takes no mask")),
            Some((cookie, mask)) => {
                let mask = number64(mask)?;
                self.cookie_filter = Some((number64(cookie)? & mask, mask));
                Ok(())
            }
            None => {
                let cookie = number64(value)?;
                match purpose {
                    Use::Add | Use::Modify | Use::Packet => self.cookie = Some(cookie),
                    Use::Delete { .. } | Use::Filter => self.cookie_filter = Some((cookie, u64::MAX)),
                }
                Ok(())
            }
        }
    }
}
