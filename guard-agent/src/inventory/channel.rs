//! A gRPC connection to a Unix socket.

use std::path::Path;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::SourceError;

/// Connects once. A connection that breaks is not made anew by itself.
pub(super) async fn connect(path: &Path) -> Result<Channel, SourceError> {
    let fault = |source| SourceError::Connect { path: path.to_owned(), source };
    let mut stream = Some(TokioIo::new(UnixStream::connect(path).await.map_err(fault)?));
    let connector = tower::service_fn(move |_: tonic::codegen::http::Uri| {
        let stream = stream.take().ok_or(std::io::ErrorKind::NotConnected);
        async move { stream.map_err(std::io::Error::from) }
    });
    // The authority that HTTP/2 wants; the connector has no use for it.
    Ok(Endpoint::from_static("http://guard").connect_with_connector(connector).await?)
}
