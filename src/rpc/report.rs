//! What an agent says of its node, within what a controller takes and keeps of it.

/// Errors told at most: the first say what is wrong.
const ERRORS_MAX: usize = 8;
/// Octets of each.
const ERROR_LEN: usize = 300;

/// As many errors as are told, and as much of each.
#[must_use]
pub fn cut_errors(mut errors: Vec<String>) -> Vec<String> {
    errors.truncate(ERRORS_MAX);
    for error in &mut errors {
        error.truncate(error.floor_char_boundary(ERROR_LEN));
    }
    errors
}
