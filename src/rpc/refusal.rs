//! What a controller refuses, and how that travels: a status of gRPC whose details are all problems.

use core::fmt;

use prost::Message;
use tonic::{Code, Status};

use super::proto::{Name, Problem, Problems};

/// Problems told at most: the first say what is wrong.
const PROBLEMS_MAX: usize = 100;
/// Octets of the problems told, encoded: they travel in a header, which both sides bound at 16 KiB with all others.
const OCTETS_MAX: usize = 6 << 10;

/// A refusal as the asking side has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// Its kind.
    pub code: Code,
    /// The whole in one sentence.
    pub message: String,
    /// What is wrong with each resource; empty if the refusal is not about resources.
    pub problems: Vec<Problem>,
}

/// Octets of the whole in one sentence, which travels in the same header, with up to three octets for each.
const MESSAGE_LEN: usize = 2 << 10;

/// The status that carries problems with what was wished: the first, and in the message how many more there are.
#[must_use]
pub fn refuse(code: Code, message: impl Into<String>, mut problems: Vec<Problem>) -> Status {
    let count = problems.len();
    let mut octets = 0;
    let fit = problems.iter().take_while(|problem| {
        octets += problem.encoded_len() + 4;
        octets <= OCTETS_MAX
    });
    let told = fit.take(PROBLEMS_MAX).count();
    problems.truncate(told);
    let mut message = message.into();
    if message.len() > MESSAGE_LEN {
        message.truncate(message.floor_char_boundary(MESSAGE_LEN));
        message.push('…');
    }
    if told < count {
        message = format!("{message}; the first {told} of {count} are told");
    }
    Status::with_details(code, message, Problems { problems }.encode_to_vec().into())
}

impl From<&Status> for Refused {
    fn from(status: &Status) -> Self {
        // Details of another shape are another release's: the message alone says enough.
        let details = Problems::decode(status.details()).unwrap_or_default();
        Self { code: status.code(), message: status.message().to_owned(), problems: details.problems }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)?;
        for problem in &self.problems {
            write!(out, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, what, remedy } = self;
        if let Some(name) = name {
            write!(out, "{name}: ")?;
        }
        out.write_str(what)?;
        if remedy.is_empty() { Ok(()) } else { write!(out, "; {remedy}") }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} `{}`", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_a_header_is_counted() {
        let problem = Problem { name: None, what: "x".repeat(1_000), remedy: String::new() };
        let status = refuse(Code::InvalidArgument, "50 problems", vec![problem; 50]);
        assert!(status.details().len() <= OCTETS_MAX, "{}", status.details().len());
        let refused = Refused::from(&status);
        assert_eq!(refused.problems.len(), 6);
        assert_eq!(refused.message, "50 problems; the first 6 of 50 are told");
        let long = refuse(Code::Internal, "é".repeat(10_000), Vec::new());
        assert!(long.message().len() <= MESSAGE_LEN + '…'.len_utf8() && long.details().is_empty());
    }

    #[test]
    fn problems_survive_the_way() {
        let name = Some(Name { kind: "port".into(), name: "blue1".into() });
        let problem = Problem { name, what: "10.1.0.9 is taken".into(), remedy: "choose another".into() };
        let status = refuse(Code::InvalidArgument, "1 problem", vec![problem.clone()]);
        let refused = Refused::from(&status);
        assert_eq!(refused.problems, [problem]);
        assert_eq!(refused.to_string(), "1 problem\n  port `blue1`: 10.1.0.9 is taken; choose another");
        assert_eq!(Refused::from(&Status::new(Code::Internal, "x")).problems, []);
    }
}
