//! What can go wrong, how it reads, and the exit code that it means.

use std::{error::Error as _, io, path::Path, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::output::printable;

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The agent answered, and the answer is no.
    #[error("{}", refusal(.0))]
    Refused(Box<Status>),
    /// The answer is printed, and it is not a good one.
    #[error("{0}")]
    Found(String),
    /// A file cannot be replayed.
    #[error(transparent)]
    Capture(#[from] guard_agent::replay::CaptureError),
    /// Somebody was asked, and did not say yes.
    #[error("not confirmed: nothing was changed")]
    Declined,
    /// What is dangerous wants a word more.
    #[error("{0}")]
    Usage(String),
    /// Nobody listens, or nobody may.
    #[error("cannot reach the agent at {path}: {source}{}", hint(.source))]
    Connect { path: String, source: io::Error },
    /// The agent listens and says nothing.
    #[error("no answer from the agent within {}; is it hung?", humantime::format_duration(*.0))]
    Deadline(Duration),
    /// The connection ended before the answer, or in the middle of a stream.
    #[error("lost the agent: {0}")]
    Lost(String),
    /// Standard output cannot be written.
    #[error("cannot write the answer: {0}")]
    Output(#[from] io::Error),
    /// The answer is not one that this program can print.
    #[error("cannot print the answer as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// No connection to `path`.
    pub fn connect(path: &Path, source: io::Error) -> Self {
        Self::Connect { path: path.display().to_string(), source }
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            // A reader that has read enough (`guardctl leases | head`) is not a failure.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Refused(_)
            | Self::Found(_)
            | Self::Capture(_)
            | Self::Declined
            | Self::Output(_)
            | Self::Json(_) => 1,
            Self::Usage(_) => 2,
            Self::Connect { .. } | Self::Deadline(_) | Self::Lost(_) => 3,
        }
    }

    /// The line for stderr, where there is something to say.
    pub fn message(&self) -> Option<String> {
        (self.exit_code() != 0).then(|| printable(&self.to_string()))
    }
}

impl From<Status> for Error {
    /// tonic makes a status of a broken connection too; that one has a source, which a status that
    /// came over the wire cannot have.
    fn from(status: Status) -> Self {
        let Some(mut source) = status.source() else { return Self::Refused(Box::new(status)) };
        while let Some(deeper) = source.source() {
            source = deeper;
        }
        Self::Lost(source.to_string())
    }
}

/// `STATUS/REASON: message`, or `STATUS: message` where no reason came with it.
fn refusal(status: &Status) -> String {
    let name = name(status.code());
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    match reason.as_str() {
        "" => format!("{name}: {}", status.message()),
        reason => format!("{name}/{reason}: {}", status.message()),
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => "; is guard-agent running?",
        io::ErrorKind::PermissionDenied => "; try as root",
        _ => "",
    }
}

/// The name that the gRPC specification gives the code.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_refusal_names_status_and_reason() {
        let details = ErrorDetails::with_error_info("POOL_EXHAUSTED", "guard.v1", []);
        let status = Status::with_error_details(Code::ResourceExhausted, "no free one", details);
        let error = Error::from(status);
        assert_eq!(error.to_string(), "RESOURCE_EXHAUSTED/POOL_EXHAUSTED: no free one");
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn a_refusal_without_reason_names_the_status() {
        let error = Error::from(Status::unimplemented("not yet"));
        assert_eq!(error.to_string(), "UNIMPLEMENTED: not yet");
    }

    #[test]
    fn a_broken_connection_is_not_a_refusal() {
        let error = Error::from(Status::from_error(io::Error::other("reset").into()));
        assert_eq!((error.to_string().as_str(), error.exit_code()), ("lost the agent: reset", 3));
    }

    #[test]
    fn a_broken_pipe_is_not_a_failure() {
        let error = Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!((error.exit_code(), error.message()), (0, None));
    }
}
