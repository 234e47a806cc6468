//! A client's connection to the agent, and how calls over it end badly.

use std::{error::Error as _, future::Future, io, path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};
use tonic::{
    Code, Response, Status,
    transport::{Channel, Endpoint},
};
use tonic_types::StatusExt as _;

/// How long a hung agent may keep us: far above any answer, which comes from memory or one commit.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// As [`DEADLINE`], where the agent itself asks others and gives them their time.
pub(crate) const LONG_DEADLINE: Duration = DEADLINE.saturating_mul(3);

/// Why a call did not end well.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The agent answered, and the answer is no: `STATUS/REASON: message`.
    #[error("{}", refusal(.0))]
    Refused(Box<Status>),
    /// Nobody listens, or nobody may.
    #[error("cannot reach the agent at {path}: {source}{}", hint(.source))]
    Connect {
        /// The socket.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The agent listens and says nothing.
    #[error("no answer from the agent within {0:?}; is it hung?")]
    Deadline(Duration),
    /// The connection ended before the answer, or in the middle of a stream.
    #[error("lost the agent: {0}")]
    Lost(String),
}

impl CallError {
    /// Whether the same call may go through a little later: the agent is starting, or about to.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Refused(status) => status.code() == Code::Unavailable,
            Self::Connect { source, .. } => {
                // The last one: so many wait to be let in that the kernel takes no more.
                use io::ErrorKind::{ConnectionRefused, NotFound, WouldBlock};
                matches!(source.kind(), NotFound | ConnectionRefused | WouldBlock)
            }
            Self::Deadline(_) | Self::Lost(_) => true,
        }
    }

    /// Whether the same call may go through later: it is passing, or the agent says when.
    pub fn retry_helps(&self) -> bool {
        let says_when = |status: &Status| status.get_details_retry_info().is_some();
        self.is_passing() || matches!(self, Self::Refused(status) if says_when(status))
    }

    /// `ErrorInfo.reason` of a refusal; empty where there is none.
    pub fn reason(&self) -> String {
        match self {
            Self::Refused(status) => reason(status),
            Self::Connect { .. } | Self::Deadline(_) | Self::Lost(_) => String::new(),
        }
    }
}

impl From<Status> for CallError {
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

/// Why there is no connection to a socket.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// Nobody listens, or nobody may connect.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// Somebody else listens than should.
    #[error("uid {is} listens there, and not uid {wanted}")]
    Owner {
        /// Who listens.
        is: u32,
        /// Who should.
        wanted: u32,
    },
    /// Whoever listens does not speak HTTP/2.
    #[error(transparent)]
    Transport(#[from] tonic::transport::Error),
}

/// Connects once to a Unix socket, where this user listens, if one is named. A connection that breaks is
/// not made anew: the call fails.
///
/// # Errors
/// Nobody listens at `path`, or another user, or not with HTTP/2.
pub async fn channel(path: &Path, owner: Option<u32>) -> Result<Channel, ChannelError> {
    let stream = UnixStream::connect(path).await?;
    if let Some(wanted) = owner {
        // Whoever has called listen(2), as it was then.
        let is = stream.peer_cred()?.uid();
        if is != wanted {
            return Err(ChannelError::Owner { is, wanted });
        }
    }
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let stream = stream.take().ok_or(io::ErrorKind::NotConnected);
        async move { stream.map_err(io::Error::from) }
    });
    // The authority that HTTP/2 wants; the connector has no use for it.
    Ok(Endpoint::from_static("http://guard").connect_with_connector(connector).await?)
}

/// Connects once to the agent, as [`channel`] does.
///
/// # Errors
/// Nobody listens at `path`, or not with HTTP/2, or not in time.
pub async fn connect(path: &Path) -> Result<Channel, CallError> {
    let connected = timeout(DEADLINE, channel(path, None)).await;
    connected.map_err(|_| CallError::Deadline(DEADLINE))?.map_err(|error| match error {
        ChannelError::Socket(source) => {
            CallError::Connect { path: path.display().to_string(), source }
        }
        ChannelError::Owner { .. } => Status::from_error(error.into()).into(),
        ChannelError::Transport(error) => Status::from_error(error.into()).into(),
    })
}

/// Awaits the answer to a call; for a stream, its beginning.
///
/// # Errors
/// The agent refused, went away or did not answer in time.
pub async fn answer<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CallError> {
    within(DEADLINE, call).await
}

/// As [`answer`], where the agent itself asks others and gives them their time.
///
/// # Errors
/// As [`answer`].
pub async fn with_long_deadline<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CallError> {
    within(LONG_DEADLINE, call).await
}

pub(crate) async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, CallError> {
    match timeout(deadline, call).await {
        Ok(answered) => Ok(answered?.into_inner()),
        Err(_) => Err(CallError::Deadline(deadline)),
    }
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

/// `STATUS/REASON: message`, or `STATUS: message` where no reason came with it.
fn refusal(status: &Status) -> String {
    let name = name(status.code());
    match reason(status).as_str() {
        "" => format!("{name}: {}", status.message()),
        reason => format!("{name}/{reason}: {}", status.message()),
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => "; is guard-agent running?",
        io::ErrorKind::WouldBlock => "; too many wait to be let in: try again",
        io::ErrorKind::PermissionDenied => {
            "; who has no role in the agent's [access] cannot connect: try as root"
        }
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
        let error = CallError::from(status);
        assert_eq!(error.to_string(), "RESOURCE_EXHAUSTED/POOL_EXHAUSTED: no free one");
        assert_eq!((error.reason().as_str(), error.is_passing()), ("POOL_EXHAUSTED", false));
    }

    #[test]
    fn a_refusal_without_reason_names_the_status() {
        let error = CallError::from(Status::unimplemented("not yet"));
        assert_eq!(error.to_string(), "UNIMPLEMENTED: not yet");
    }

    #[test]
    fn a_socket_on_which_too_many_wait_is_tried_again() {
        let connect = |kind: io::ErrorKind| CallError::Connect {
            path: "/run/guard/guard.sock".into(),
            source: kind.into(),
        };
        assert!(connect(io::ErrorKind::WouldBlock).retry_helps());
        assert!(!connect(io::ErrorKind::PermissionDenied).retry_helps());
    }

    #[test]
    fn a_broken_connection_is_not_a_refusal() {
        let error = CallError::from(Status::from_error(io::Error::other("reset").into()));
        assert_eq!(
            (error.to_string().as_str(), error.is_passing()),
            ("lost the agent: reset", true)
        );
    }
}
