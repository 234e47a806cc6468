//! Streams: one line for each message, until somebody ends it.

use guard_api::client::CallError;
use tokio::signal;
use tonic::Streaming;

use crate::{
    error::Error,
    output::{Output, View},
};

/// Prints what comes, until interrupted.
///
/// # Errors
/// The agent went away (also when it ended the stream in good order: it does so only to stop), or
/// standard output cannot be written.
pub(crate) async fn follow<M, V>(mut stream: Streaming<M>, output: Output) -> Result<(), Error>
where
    V: From<M> + View,
{
    let mut interrupt = std::pin::pin!(signal::ctrl_c());
    loop {
        let message = tokio::select! {
            biased;
            _ = &mut interrupt => return Ok(()),
            message = stream.message() => message?,
        };
        match message {
            Some(message) => output.print(&V::from(message))?,
            None => return Err(CallError::Lost("it ended the stream".to_owned()).into()),
        }
    }
}
