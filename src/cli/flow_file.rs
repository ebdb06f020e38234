//! Files of flows: one a line, `#` begins a comment, as `ovs-ofctl add-flows` and `replace-flows` read them.

use std::io::Read;
use std::path::Path;

use super::error::CliError;
use crate::api::switch::FlowChange;
use crate::datapath::{FlowBook, SwitchError, TextError};

/// The most octets of a file that are read: what one request carries, less what it is wrapped in.
const FILE_LIMIT: u64 = 48 << 20;

/// What a line without a word of its own does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Implied {
    Add,
    Modify { strict: bool },
    Delete { strict: bool },
}

/// A line that has a flow.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    /// Counted from 1.
    number: usize,
    whole: String,
    /// Octets before the flow.
    lead: usize,
    change: FlowChange,
}

/// A file's flows, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FlowFile {
    name: String,
    lines: Vec<Line>,
}

impl FlowFile {
    /// Reads a file, or standard input for `-`. With `words`, a line may begin with `add`, `modify`, `modify_strict`,
    /// `delete` or `delete_strict`.
    ///
    /// # Errors
    /// When it cannot be read or is too long.
    pub(super) fn read(path: &Path, default: Implied, words: bool) -> Result<Self, CliError> {
        let failed = |source| CliError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        let (name, read) = if path == Path::new("-") {
            ("standard input".to_owned(), std::io::stdin().lock().take(FILE_LIMIT + 1).read_to_string(&mut text))
        } else {
            let file = std::fs::File::open(path).map_err(failed)?;
            (path.display().to_string(), file.take(FILE_LIMIT + 1).read_to_string(&mut text))
        };
        let octets = read.map_err(failed)?;
        if u64::try_from(octets).is_ok_and(|octets| octets > FILE_LIMIT) {
            let message =
                format!("{name} is longer than {} MiB, the most one request carries: split it", FILE_LIMIT >> 20);
            return Err(CliError::Usage(message));
        }
        Ok(Self::parse(name, &text, default, words))
    }

    fn parse(name: String, text: &str, default: Implied, words: bool) -> Self {
        let line = |(index, whole): (usize, &str)| {
            let flow = whole.split_once('#').map_or(whole, |(flow, _)| flow).trim_end();
            let flow = flow.trim_start();
            if flow.is_empty() {
                return None;
            }
            let (make, flow) = if words { command(flow, default) } else { (maker(default), flow) };
            let lead = flow.as_ptr() as usize - whole.as_ptr() as usize;
            Some(Line { number: index + 1, whole: whole.to_owned(), lead, change: make(flow.to_owned()) })
        };
        Self { name, lines: text.lines().enumerate().filter_map(line).collect() }
    }

    /// What it asks for, in order.
    pub(super) fn changes(&self) -> Vec<FlowChange> {
        self.lines.iter().map(|line| line.change.clone()).collect()
    }

    /// Has a book make the changes, so that a mistake is told with its place in the file.
    ///
    /// # Errors
    /// [`CliError::FlowLine`] names file, line and character.
    pub(super) fn enter(&self, book: &mut FlowBook) -> Result<(), CliError> {
        book.change(&self.changes()).map(|_| ()).map_err(|error| self.place(error))
    }

    /// What a switch says of the changes, told of the file.
    fn place(&self, error: SwitchError) -> CliError {
        let SwitchError::BadFlow { number, source: TextError { message, at, .. }, .. } = error else {
            return CliError::Usage(format!("{}: {error}", self.name));
        };
        let Some(line) = self.lines.get(number.saturating_sub(1)) else {
            unreachable!("a book is told of as many changes as there are lines");
        };
        let source = TextError { message, text: line.whole.clone(), at: line.lead + at };
        CliError::FlowLine { file: self.name.clone(), line: line.number, source }
    }
}

/// What makes a change of a flow's text.
type Make = fn(String) -> FlowChange;

const fn maker(default: Implied) -> Make {
    match default {
        Implied::Add => FlowChange::Add,
        Implied::Modify { strict: false } => FlowChange::Modify,
        Implied::Modify { strict: true } => FlowChange::ModifyStrict,
        Implied::Delete { strict: false } => FlowChange::Delete,
        Implied::Delete { strict: true } => FlowChange::DeleteStrict,
    }
}

/// The word a line begins with, if it is one of a bundle's, and the rest.
fn command(line: &str, default: Implied) -> (Make, &str) {
    let separates = |letter: char| letter == ',' || letter.is_whitespace();
    let end = line.find(separates).unwrap_or(line.len());
    let (word, rest) = line.split_at(end);
    let make: Make = match word {
        "add" => FlowChange::Add,
        "modify" => FlowChange::Modify,
        "modify_strict" => FlowChange::ModifyStrict,
        "delete" => FlowChange::Delete,
        "delete_strict" => FlowChange::DeleteStrict,
        _ => return (maker(default), line),
    };
    (make, rest.trim_start_matches(separates))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, words: bool) -> FlowFile {
        FlowFile::parse("flows".to_owned(), text, Implied::Add, words)
    }

    #[test]
    fn lines_words_and_comments() {
        let file = parse(
            "# all of it\n\n add table=1,actions=drop\ndelete\nmodify_strict,ip,actions=1 # why\ntcp,actions=2",
            true,
        );
        assert_eq!(
            file.changes(),
            [
                FlowChange::Add("table=1,actions=drop".to_owned()),
                FlowChange::Delete(String::new()),
                FlowChange::ModifyStrict("ip,actions=1".to_owned()),
                FlowChange::Add("tcp,actions=2".to_owned()),
            ]
        );
        assert_eq!(file.lines.iter().map(|line| line.number).collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert_eq!(parse("delete table=1", false).changes(), [FlowChange::Add("delete table=1".to_owned())]);
    }

    #[test]
    fn a_mistake_is_told_where_it_stands() {
        let file = parse("actions=drop\n  add ip,nw_dst=10.0.0.256,actions=drop", true);
        let error = file.enter(&mut FlowBook::new([]).expect("no ports")).expect_err("no such address");
        assert_eq!(
            error.to_string(),
            "flows:2: `10.0.0.256` is not an IPv4 address (at character 17)\n  \
             \u{20}\u{20}add ip,nw_dst=10.0.0.256,actions=drop\n                  ^"
        );
    }
}
