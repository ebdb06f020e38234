//! Whole flows in text: what `add-flow`, `mod-flows`, `del-flows` and `dump-flows` take.

use std::sync::Arc;

use hashbrown::HashMap;

use super::super::action::{self, Actions};
use super::super::matching::{DEFAULT_PRIORITY, Match};
use super::PortNames;
use super::actions::{Before, parse_actions};
use super::lexer::{Piece, TextError, Word, words};
use super::matching::{Demand, check_icmp, check_needs, read_word};
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

/// Where `actions=` starts, outside of any value; or `action=`, where that does not.
fn find_actions(text: &str) -> Option<(usize, usize)> {
    const MARKS: [&[u8]; 2] = [b"actions=", b"action="];
    let octets = text.as_bytes();
    let mut other = None;
    let bounded = |at: usize| at == 0 || octets[at - 1] == b',' || octets[at - 1].is_ascii_whitespace();
    for at in (0..octets.len()).filter(|at| octets[*at] == b'a' && bounded(*at)) {
        if octets[at..].starts_with(MARKS[0]) {
            return Some((at, at + MARKS[0].len()));
        }
        if octets[at..].starts_with(MARKS[1]) {
            other.get_or_insert((at, at + MARKS[1].len()));
        }
    }
    other
}

/// What a word says of a flow, whatever stands before it.
#[derive(Clone, Copy, Debug)]
enum Part {
    Table(Option<u8>),
    Priority(u16),
    Match(Demand),
}

/// Texts of actions up to this long are looked for among all that were read. A longer one says addresses, mostly, which no
/// other flow says.
const SHARED_OCTETS: usize = 128;

/// What was read of a list so far, for one purpose and with the ports as they are. Most flows of a list say word for word
/// what the one before says, but for an address.
#[derive(Debug, Default)]
pub(crate) struct Read<'a> {
    purpose: Option<Use>,
    /// Each word of the last match, and what it said if that does not depend on what came before.
    words: Vec<(&'a str, Option<Part>)>,
    /// The last actions, by word.
    before: Before<'a>,
    /// Actions by their text: flows that do the same share one list.
    actions: HashMap<&'a str, Actions>,
    /// The last actions' text.
    latest: &'a str,
}

impl<'a> Read<'a> {
    /// The actions of a text, from its octet `start` on.
    fn actions(&mut self, text: &'a str, start: usize, ports: &impl PortNames) -> Result<Actions, TextError> {
        let written = &text[start..];
        if written == self.latest && !written.is_empty() {
            return Ok(Arc::clone(self.before.actions()));
        }
        let is_short = written.len() <= SHARED_OCTETS;
        if let Some(known) = self.actions.get(written).filter(|_| is_short) {
            return Ok(Arc::clone(known));
        }
        let actions = parse_actions(Piece::all(text).cut(start, text.len()), ports, &mut self.before)?;
        self.latest = written;
        if is_short {
            self.actions.insert(written, Arc::clone(&actions));
        }
        Ok(actions)
    }
}

impl FlowText {
    /// Reads a flow.
    pub(crate) fn parse(text: &str, purpose: Use, ports: &impl PortNames) -> Result<Self, TextError> {
        Self::parse_among(text, purpose, ports, &mut Read::default())
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
        flow.read_head(head, purpose, ports, read)?;
        check_icmp(&mut flow.matching, head)?;
        if purpose != Use::Packet {
            check_needs(&flow.matching, head)?;
            flow.matching.normalise();
        }
        let with_actions = matches!(purpose, Use::Add | Use::Modify);
        match split {
            Some((_, start)) if with_actions => {
                let actions = read.actions(text, start, ports)?;
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

    /// Reads what stands before the actions.
    fn read_head<'a>(
        &mut self,
        head: Piece<'a>,
        purpose: Use,
        ports: &impl PortNames,
        read: &mut Read<'a>,
    ) -> Result<(), TextError> {
        if read.purpose != Some(purpose) {
            read.purpose = Some(purpose);
            read.words.clear();
        }
        let mut words = words(head);
        for at in 0.. {
            if let Some((known, Some(part))) = read.words.get(at)
                && words.pass(known)
            {
                self.take(*part);
                continue;
            }
            let Some(word) = words.next() else { break };
            let word = word?;
            let part = self.word(word, purpose, ports)?;
            if let Some(part) = part {
                self.take(part);
            }
            let said = (word.whole.text(), part);
            match read.words.get_mut(at) {
                Some(place) => *place = said,
                None => read.words.push(said),
            }
        }
        Ok(())
    }

    fn take(&mut self, part: Part) {
        match part {
            Part::Table(table) => self.table = table,
            Part::Priority(priority) => self.priority = priority,
            Part::Match(demand) => demand.add_to(&mut self.matching),
        }
    }

    /// Reads a word: gives what it says of a table, a priority or a match, and takes the rest.
    fn word(&mut self, word: Word<'_>, purpose: Use, ports: &impl PortNames) -> Result<Option<Part>, TextError> {
        match (word.key.text(), word.value) {
            ("table", Some(value)) => {
                let table = decimal(value).and_then(|table| u8::try_from(table).ok());
                let table = table.ok_or_else(|| value.error("tables are 0 to 254, in decimal"))?;
                if table == 255 && matches!(purpose, Use::Add) {
                    return Err(value.error("tables are 0 to 254"));
                }
                return Ok(Some(Part::Table((table != 255).then_some(table))));
            }
            ("priority", Some(value)) => {
                if matches!(purpose, Use::Delete { strict: false } | Use::Filter) {
                    return Err(word.key.error("a priority is of use only with strict matching"));
                }
                return Ok(Some(Part::Priority(number16(value)?)));
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
                let demand = read_word(word, ports)?;
                let demand = demand.ok_or_else(|| word.key.error(format!("a flow has no `{name}`")))?;
                return Ok(Some(Part::Match(demand)));
            }
        }
        Ok(None)
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
