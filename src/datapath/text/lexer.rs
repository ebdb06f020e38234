//! Words of a flow's text: `key`, `key=value`, `key:value`, `key(value)`, separated by commas or spaces.

use core::fmt;

/// Text that is no flow: what is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct TextError {
    /// What is wrong and what to write instead.
    pub message: String,
    /// The text.
    pub text: String,
    /// The octet where it goes wrong.
    pub at: usize,
}

/// Octets of the text shown on either side of the error.
const WINDOW: usize = 60;

impl fmt::Display for TextError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut start = self.at.saturating_sub(WINDOW).min(self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        let mut end = (self.at + WINDOW).min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        let lead = self.text.get(start..self.at.min(self.text.len())).map_or(0, |lead| lead.chars().count());
        let shown: String =
            self.text[start..end].chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
        write!(out, "{} (at character {})\n  {shown}\n  {:lead$}^", self.message, self.at + 1, "")
    }
}

/// A piece of a longer text, which remembers where it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    whole: &'a str,
    start: usize,
    end: usize,
}

impl<'a> Piece<'a> {
    pub(super) const fn all(whole: &'a str) -> Self {
        Self { whole, start: 0, end: whole.len() }
    }

    pub(super) fn text(self) -> &'a str {
        &self.whole[self.start..self.end]
    }

    pub(super) fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The octets `from..to` of this piece.
    pub(super) const fn cut(self, from: usize, to: usize) -> Self {
        Self { whole: self.whole, start: self.start + from, end: self.start + to }
    }

    pub(super) fn error(self, message: impl Into<String>) -> TextError {
        TextError { message: message.into(), text: self.whole.to_owned(), at: self.start }
    }

    /// What is before and after the first `mark`.
    pub(super) fn split(self, mark: &str) -> Option<(Self, Self)> {
        let at = match mark.as_bytes() {
            // Most are one letter of ASCII, which no other's octets contain.
            [letter] => self.text().bytes().position(|octet| octet == *letter)?,
            _ => self.text().find(mark)?,
        };
        Some((self.cut(0, at), self.cut(at + mark.len(), self.end - self.start)))
    }

    /// The same without the last `mark`.
    pub(super) fn split_last(self, mark: &str) -> Option<(Self, Self)> {
        let at = self.text().as_bytes().windows(mark.len()).rposition(|octets| octets == mark.as_bytes())?;
        Some((self.cut(0, at), self.cut(at + mark.len(), self.end - self.start)))
    }

    /// Without white space at the ends.
    pub(super) fn trim(self) -> Self {
        let text = self.text();
        let lead = text.len() - text.trim_start().len();
        self.cut(lead, lead + text.trim().len())
    }
}

/// A word: its key, and its value if it has one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a> {
    pub(super) key: Piece<'a>,
    pub(super) value: Option<Piece<'a>>,
    /// The key and value together.
    pub(super) whole: Piece<'a>,
}

impl<'a> Word<'a> {
    pub(super) fn needs_value(self) -> Result<Piece<'a>, TextError> {
        match self.value {
            Some(value) if !value.is_empty() => Ok(value),
            Some(_) | None => Err(self.key.error(format!("`{}` needs a value", self.key.text()))),
        }
    }
}

const fn separates(octet: u8) -> bool {
    matches!(octet, b',' | b' ' | b'\t' | b'\r' | b'\n')
}

/// The words of `piece`, in order.
pub(super) fn words(piece: Piece<'_>) -> Words<'_> {
    Words { piece, at: 0 }
}

/// Takes words off a text.
pub(super) struct Words<'a> {
    piece: Piece<'a>,
    at: usize,
}

impl<'a> Words<'a> {
    fn octets(&self) -> &'a [u8] {
        self.piece.text().as_bytes()
    }

    /// Goes past a value's end: the next separator outside of parentheses and quotes.
    fn value_end(&self, mut at: usize) -> Result<usize, TextError> {
        let octets = self.octets();
        let (start, mut depth, mut quoted) = (at, 0_usize, false);
        while at < octets.len() {
            match octets[at] {
                b'"' => quoted = !quoted,
                b'(' if !quoted => depth += 1,
                b')' if !quoted && depth == 0 => {
                    return Err(self.piece.cut(at, octets.len()).error("`)` closes nothing"));
                }
                b')' if !quoted => depth -= 1,
                octet if !quoted && depth == 0 && separates(octet) => break,
                _ => {}
            }
            at += 1;
        }
        if quoted || depth > 0 {
            let missing = if quoted { "a closing quote" } else { "`)`" };
            return Err(self.piece.cut(start, octets.len()).error(format!("{missing} is missing")));
        }
        Ok(at)
    }

    /// Goes past separators.
    fn skip(&mut self) {
        let octets = self.octets();
        while self.at < octets.len() && separates(octets[self.at]) {
            self.at += 1;
        }
    }

    /// Goes past the next word if it is `known`, the whole of a word that was taken before. Whatever follows, the same
    /// octets are the same word if a separator ends them: a word ends at the first outside of its parentheses and quotes.
    pub(super) fn pass(&mut self, known: &str) -> bool {
        self.skip();
        let rest = &self.octets()[self.at..];
        let ends = |after: &[u8]| after.first().is_none_or(|octet| separates(*octet));
        let is_known = !known.is_empty() && rest.strip_prefix(known.as_bytes()).is_some_and(ends);
        if is_known {
            self.at += known.len();
        }
        is_known
    }

    fn take(&mut self) -> Result<Option<Word<'a>>, TextError> {
        self.skip();
        let octets = self.octets();
        if self.at >= octets.len() {
            return Ok(None);
        }
        let start = self.at;
        let mut end = start;
        let mut quoted = false;
        while end < octets.len() && (quoted || !(separates(octets[end]) || matches!(octets[end], b'=' | b':' | b'('))) {
            quoted ^= octets[end] == b'"';
            end += 1;
        }
        let key = self.piece.cut(start, end);
        let value = match octets.get(end) {
            Some(b'=' | b':') => {
                let stop = self.value_end(end + 1)?;
                self.at = stop;
                Some(self.piece.cut(end + 1, stop))
            }
            Some(b'(') => {
                let stop = self.value_end(end)?;
                self.at = stop;
                // `key(value)`; anything behind the parenthesis belongs to no word we know.
                if octets[stop - 1] != b')' {
                    return Err(self.piece.cut(start, stop).error("nothing may follow `)` but a comma or a space"));
                }
                Some(self.piece.cut(end + 1, stop - 1))
            }
            Some(_) | None => {
                self.at = end;
                None
            }
        };
        if key.is_empty() {
            return Err(self.piece.cut(start, self.at).error("a name is missing"));
        }
        Ok(Some(Word { key, value, whole: self.piece.cut(start, self.at) }))
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = Result<Word<'a>, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        let word = self.take().transpose();
        if matches!(word, Some(Err(_))) {
            self.at = self.octets().len();
        }
        word
    }
}
