//! What the command line can fail with, and the exit code of each.

use std::path::PathBuf;

use crate::control::ControlError;
use crate::lab;
use crate::rpc::RpcError;

/// Everything went as it should.
pub(super) const DONE: u8 = 0;
/// The operation or a check failed.
pub(super) const FAILED: u8 = 1;
/// Bad usage or bad input.
const USAGE: u8 = 2;
/// Two things that were compared differ, as `ovs-ofctl diff-flows` says it.
pub(super) const DIFFERENT: u8 = 2;
/// Not running, or not found.
const ABSENT: u8 = 3;
/// No such command, as a shell says it.
const NO_COMMAND: u8 = 127;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// A lab could not do it.
    #[error(transparent)]
    Lab(#[from] lab::Error),
    /// A daemon could not be asked, or refused.
    #[error("node `{node}`: {source}")]
    Daemon {
        /// The node.
        node: String,
        /// Why.
        source: ControlError,
    },
    /// A file that was named cannot be read.
    #[error("cannot read {}: {source}; check the path", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// A file that was named cannot be made.
    #[error("cannot write {}: {source}; check the path", path.display())]
    Create {
        /// The file.
        path: PathBuf,
        /// The kernel's word.
        source: std::io::Error,
    },
    /// A file has a flow that makes no sense.
    #[error("{file}:{line}: {source}")]
    FlowLine {
        /// The file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong, and where in the line.
        source: crate::datapath::TextError,
    },
    /// The arguments do not make sense together.
    #[error("{0}")]
    Usage(String),
    /// What was asked for is not there.
    #[error("{0}")]
    Absent(String),
    /// A capture could not start or go on.
    #[error("capturing at {place}: {source}")]
    Capture {
        /// Where.
        place: String,
        /// Why.
        source: crate::capture::socket::CaptureError,
    },
    /// The output could not be written.
    #[error("cannot write the output: {source}")]
    Output {
        /// The kernel's word.
        source: std::io::Error,
    },
    /// The output could not be put in the form asked for.
    #[error("cannot encode the output as {form}: {why}; use another -o")]
    Encode {
        /// The form.
        form: &'static str,
        /// Why not.
        why: String,
    },
    /// A controller could not be asked, or refused.
    #[error(transparent)]
    Controller(#[from] RpcError),
    /// What was applied does not fit what there is.
    #[error("{0}")]
    Refused(String),
    /// A daemon ended with an error.
    #[error("{0}")]
    Ended(String),
}

impl CliError {
    /// The program's exit code for it.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Lab(error) => of_lab(error),
            Self::Daemon { source, .. } => match source {
                ControlError::NotRunning { .. } => ABSENT,
                ControlError::Refused { refusal, .. } if refusal.code.starts_with("unknown") => ABSENT,
                ControlError::Refused { refusal, .. } if refusal.code.starts_with("bad") => USAGE,
                ControlError::Refused { .. }
                | ControlError::Connect { .. }
                | ControlError::Broken { .. }
                | ControlError::TimedOut { .. }
                | ControlError::Protocol { .. } => FAILED,
                ControlError::TooLong { .. } => USAGE,
            },
            Self::Controller(error) => of_rpc(error),
            Self::Read { .. } | Self::Create { .. } | Self::FlowLine { .. } | Self::Usage(_) | Self::Refused(_) => {
                USAGE
            }
            Self::Absent(_) => ABSENT,
            Self::Output { .. } | Self::Capture { .. } | Self::Encode { .. } | Self::Ended(_) => FAILED,
        }
    }
}

fn of_rpc(error: &RpcError) -> u8 {
    match error {
        RpcError::Absent { .. } => ABSENT,
        RpcError::Transport { .. } | RpcError::Untrusted { .. } => FAILED,
        RpcError::NoCertificates { .. } => USAGE,
        RpcError::Refused(refused) if refused.code == tonic::Code::InvalidArgument => USAGE,
        RpcError::Refused(refused) if refused.code == tonic::Code::NotFound => ABSENT,
        RpcError::Refused(_) => FAILED,
    }
}

fn of_lab(error: &lab::Error) -> u8 {
    use lab::Error;
    match error {
        Error::Name(_) | Error::Topology(_) | Error::SocketPath { .. } => USAGE,
        Error::NotRunning { .. }
        | Error::NoLab
        | Error::SeveralLabs(_)
        | Error::SeveralDead(_)
        | Error::NoPlace { .. } => ABSENT,
        Error::NoCommand { .. } => NO_COMMAND,
        Error::Interrupted { signal, .. } => u8::try_from(128 + *signal as i32).unwrap_or(u8::MAX),
        Error::Os { .. }
        | Error::UserNamespace { .. }
        | Error::Exists { .. }
        | Error::Busy { .. }
        | Error::NotOurs { .. }
        | Error::Start { .. }
        | Error::NotReady { .. }
        | Error::Control(_)
        | Error::Wire { .. }
        | Error::Underlay(_) => FAILED,
    }
}
