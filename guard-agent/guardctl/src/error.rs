//! What can go wrong, how it reads, and the exit code that it means.

use std::io;

use guard_api::client::CallError;
use tonic::Status;

use crate::{
    output::printable,
    replay::{CaptureError, ConfigError},
};

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The agent refused, or cannot be reached.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The answer is printed, and it is not a good one.
    #[error("{0}")]
    Found(String),
    /// The agent ended a stream in good order, which it never does.
    #[error("lost the agent: it ended the stream")]
    Ended,
    /// A file cannot be replayed.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The configuration says nothing of the capture.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The man pages cannot be written.
    #[error("cannot write into {dir}: {source}")]
    Directory {
        /// The directory.
        dir: String,
        /// Why not.
        source: io::Error,
    },
    /// Somebody was asked, and did not say yes.
    #[error("not confirmed: nothing was changed")]
    Declined,
    /// What is dangerous wants a word more, or what is asked for is not there.
    #[error("{0}")]
    Usage(String),
    /// Standard output cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    /// The answer is not one that this program can print.
    #[error("cannot print the answer as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            // A reader that has read enough (`guardctl leases | head`) is not a failure.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Call(CallError::Refused(_))
            | Self::Found(_)
            | Self::Capture(_)
            | Self::Config(_)
            | Self::Directory { .. }
            | Self::Declined
            | Self::Output(_)
            | Self::Json(_) => 1,
            Self::Usage(_) => 2,
            Self::Call(_) | Self::Ended => 3,
        }
    }

    /// The line for stderr, where there is something to say.
    pub(crate) fn message(&self) -> Option<String> {
        (self.exit_code() != 0).then(|| printable(&self.to_string()))
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Self::Call(status.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_and_an_agent_out_of_reach_end_differently() {
        assert_eq!(Error::from(Status::unimplemented("not yet")).exit_code(), 1);
        let broken = Status::from_error(io::Error::other("reset").into());
        assert_eq!(Error::from(broken).exit_code(), 3);
    }

    #[test]
    fn a_broken_pipe_is_not_a_failure() {
        let error = Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((error.exit_code(), error.message()), (0, None));
    }
}
