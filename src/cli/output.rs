//! Printing: tables for people, JSON and YAML for programs. The only place that writes to standard output and error.

use std::io::{ErrorKind, Write};

use serde::Serialize;

use super::args::Output;
use super::error::{CliError, DONE};

/// Prints a text as it is. A reader that has gone, such as `head`, is no error.
///
/// # Errors
/// [`CliError::Output`] when it cannot be written.
pub(super) fn print(text: &str) -> Result<u8, CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(DONE),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(DONE),
        Err(source) => Err(CliError::Output { source }),
    }
}

/// Prints a value in the form asked for; `table` makes the text for people.
///
/// # Errors
/// [`CliError::Output`] or [`CliError::Encode`].
pub(super) fn render<T: Serialize>(
    output: Output,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<u8, CliError> {
    match output {
        Output::Table => print(&table(value)),
        Output::Json => {
            let text = serde_json::to_string_pretty(value);
            print(&format!("{}\n", text.map_err(|error| CliError::Encode { form: "JSON", why: error.to_string() })?))
        }
        Output::Yaml => {
            let text = serde_saphyr::to_string(value);
            let text = text.map_err(|error| CliError::Encode { form: "YAML", why: error.to_string() })?;
            print(&format!("{}\n", text.trim_end()))
        }
    }
}

/// Says on standard error what went wrong.
pub(super) fn complain(text: &str) {
    // Where standard error is closed there is nobody to tell.
    let _unheard = writeln!(std::io::stderr().lock(), "dvr: {text}");
}

/// Columns side by side, as wide as their widest cell, the last one ragged. Says `nothing` instead of an empty table.
#[must_use]
pub(super) fn columns<const N: usize>(head: [&str; N], rows: &[[String; N]], nothing: &str) -> String {
    if rows.is_empty() {
        return format!("{nothing}\n");
    }
    let head = head.map(str::to_owned);
    let all = || core::iter::once(&head).chain(rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut out = String::new();
    for row in all() {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["a".to_owned(), "bb".to_owned()], ["ccc".to_owned(), String::new()]];
        assert_eq!(columns(["X", "Y"], &rows, "none"), "X    Y\na    bb\nccc\n");
        assert_eq!(columns(["X"], &[], "none"), "none\n");
    }
}
