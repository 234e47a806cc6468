//! A gRPC server of the test's own, which the agent asks.

use std::path::Path;

use anyhow::{Context, Result};
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::Router;

/// Serves on a socket until the runtime is dropped.
///
/// # Errors
/// The socket cannot be made.
pub(crate) fn serve(socket: &Path, services: Router) -> Result<Runtime> {
    let runtime =
        Builder::new_multi_thread().worker_threads(1).enable_all().build().context("a runtime")?;
    let listener = {
        let _inside = runtime.enter();
        UnixListener::bind(socket).with_context(|| socket.display().to_string())?
    };
    runtime.spawn(services.serve_with_incoming(UnixListenerStream::new(listener)));
    Ok(runtime)
}
