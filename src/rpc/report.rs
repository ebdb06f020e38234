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

#[cfg(test)]
mod tests {
    use super::*;

    /// Input: more errors than are told, long ones of letters of two octets; few short ones. Output: the first, cut between
    /// letters; the others as they are.
    #[test]
    fn the_first_errors_are_told_and_none_is_cut_within_a_letter() {
        let few = vec!["no switch".to_owned(), "no link".to_owned()];
        assert_eq!(cut_errors(few.clone()), few);
        let told = cut_errors(vec![format!("x{}", "é".repeat(40_000)); 64]);
        assert_eq!(told, vec![format!("x{}", "é".repeat((ERROR_LEN - 1) / 2)); ERRORS_MAX]);
    }
}
