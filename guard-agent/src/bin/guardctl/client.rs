//! The connection to the agent.

use std::{future::Future, path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};
use tonic::{
    Response, Status,
    transport::{Channel, Endpoint},
};

use crate::error::Error;

/// How long a hung agent may keep us: far above any answer, which comes from memory or one commit.
const DEADLINE: Duration = Duration::from_secs(10);

/// Connects once. A connection that breaks is not made anew: the command fails and says so.
///
/// # Errors
/// Nobody listens at `path`, or not with HTTP/2, or not in time.
pub async fn connect(path: &Path) -> Result<Channel, Error> {
    let stream = UnixStream::connect(path).await.map_err(|error| Error::connect(path, error))?;
    let mut stream = Some(TokioIo::new(stream));
    let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let stream = stream.take().ok_or(std::io::ErrorKind::NotConnected);
        async move { stream.map_err(std::io::Error::from) }
    });
    // The authority that HTTP/2 wants; the connector has no use for it.
    let endpoint = Endpoint::from_static("http://guard");
    match timeout(DEADLINE, endpoint.connect_with_connector(connector)).await {
        Ok(connected) => connected.map_err(|error| Error::from(Status::from_error(error.into()))),
        Err(_) => Err(Error::Deadline(DEADLINE)),
    }
}

/// Awaits the answer to a call; for a stream, its beginning.
///
/// # Errors
/// The agent refused, went away or did not answer in time.
pub async fn answer<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Error> {
    within(DEADLINE, call).await
}

/// As [`answer`], where the agent itself asks others and gives them their time.
///
/// # Errors
/// As [`answer`].
pub async fn patiently<T>(
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Error> {
    within(3 * DEADLINE, call).await
}

async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Error> {
    match timeout(deadline, call).await {
        Ok(answered) => Ok(answered?.into_inner()),
        Err(_) => Err(Error::Deadline(deadline)),
    }
}
