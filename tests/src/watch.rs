//! A subscriber of incidents.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use guard_api::proto::guard_client::GuardClient;
use guard_api::proto::{Conflict, WatchConflictsRequest};
use tokio::sync::oneshot;
use tonic::Streaming;

use crate::agent::Agent;

/// `Guard.WatchConflicts`, read by a thread as it comes.
#[derive(Debug)]
pub struct Watch {
    incidents: Receiver<(Instant, Conflict)>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// Subscribes to incidents: first those that are open, then what becomes of them and of others.
    ///
    /// # Errors
    /// The agent does not take the call.
    pub fn incidents(&self) -> Result<Watch> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let socket = self.socket();
        let stream = runtime.block_on(async {
            let mut client = GuardClient::new(guard_api::client::connect(&socket).await?);
            let answer = client.watch_conflicts(WatchConflictsRequest {}).await;
            anyhow::Ok(answer.context("Guard.WatchConflicts")?.into_inner())
        })?;
        let (sender, incidents) = channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = read(stream, sender) => {}
                }
            });
        });
        Ok(Watch { incidents, stop: Some(stop), thread: Some(thread) })
    }
}

async fn read(mut stream: Streaming<Conflict>, sender: Sender<(Instant, Conflict)>) {
    while let Ok(Some(conflict)) = stream.message().await {
        if sender.send((Instant::now(), conflict)).is_err() {
            return;
        }
    }
}

impl Watch {
    /// What comes next, and when it came; `None` if nothing does.
    ///
    /// # Errors
    /// The agent has ended the stream.
    pub fn next(&self, patience: Duration) -> Result<Option<(Instant, Conflict)>> {
        match self.incidents.recv_timeout(patience) {
            Ok(next) => Ok(Some(next)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the agent ended the stream"),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        let joined = self.thread.take().map(JoinHandle::join);
        if let Some(Err(_)) = joined {
            eprintln!("{}", anyhow!("the subscriber panicked"));
        }
    }
}
