//! One line at a time, of bounded length.

use std::io::{self, BufRead, Read};

use crate::api::LINE_LIMIT;

/// What came instead of, or as, a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A whole line is in the buffer, without its end.
    Whole,
    /// The peer closed where a line would begin.
    End,
    /// The peer closed in the middle of a line.
    Torn,
    /// The line is longer than [`LINE_LIMIT`].
    TooLong,
}

/// Reads one line into `buffer`, replacing what is there.
pub(super) fn read(from: &mut impl BufRead, buffer: &mut Vec<u8>) -> io::Result<Line> {
    read_limited(from, buffer, LINE_LIMIT)
}

fn read_limited(from: &mut impl BufRead, buffer: &mut Vec<u8>, limit: usize) -> io::Result<Line> {
    buffer.clear();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    from.take(most).read_until(b'\n', buffer)?;
    if buffer.last() == Some(&b'\n') {
        buffer.pop();
        return Ok(Line::Whole);
    }
    Ok(match buffer.len() {
        0 => Line::End,
        length if length > limit => Line::TooLong,
        _ => Line::Torn,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_is_told_apart() {
        let mut buffer = Vec::new();
        for (octets, expected) in [
            (&b"abc\nrest"[..], Line::Whole),
            (b"\n", Line::Whole),
            (b"", Line::End),
            (b"ab", Line::Torn),
            (b"abcd\n", Line::Whole),
            (b"abcde", Line::TooLong),
            (b"abcde\n", Line::TooLong),
        ] {
            let line = read_limited(&mut io::Cursor::new(octets), &mut buffer, 4).expect("memory cannot fail");
            assert_eq!(line, expected, "{}", octets.escape_ascii());
        }
    }
}
