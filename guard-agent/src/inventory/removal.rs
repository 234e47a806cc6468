//! Taking a container away: what runs in it, its snapshot and its record, each through containerd's
//! API, and then a look whether anything of it is left.
//!
//! containerd's calls name a container by its id, and ids are used again. So each step first looks
//! whether the container is still the one that was judged.

use std::{future::Future, time::Duration};

use guard_api::proto::containerd::{
    containers::{
        Container, DeleteContainerRequest, GetContainerRequest, containers_client::ContainersClient,
    },
    snapshots::{RemoveSnapshotRequest, StatSnapshotRequest, snapshots_client::SnapshotsClient},
    tasks::{DeleteTaskRequest, GetRequest, KillRequest, WaitRequest, tasks_client::TasksClient},
};
use guard_core::evidence::{Entry, Listing};
use tokio::time::timeout;
use tonic::{Code, Response, Status, transport::Channel};

use super::{ANSWER_TIMEOUT, SourceError};
use crate::config::containerd::Settings;

const SIGQUIT: u32 = nix::sys::signal::Signal::SIGQUIT as u32;
const SIGKILL: u32 = nix::sys::signal::Signal::SIGKILL as u32;

/// Why a container is not gone, or not known to be.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// containerd refuses, or does not answer.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Nothing helps, not even the signal that cannot be ignored.
    #[error("it still runs {0:?} after SIGKILL")]
    Runs(Duration),
    /// What was deleted is there.
    #[error("its {0} is still there after it was deleted")]
    Left(&'static str),
    /// The one that was meant is gone, and its id is another's.
    #[error("its id is another container's by now")]
    Another,
}

/// Removes a container, and confirms that it is gone: SIGQUIT, `stop_timeout`, SIGKILL, its task,
/// its snapshot, its record. What is gone already is no error, so that it can be tried again after
/// any failure.
///
/// # Errors
/// What of it may still be there, and why.
pub async fn remove(
    settings: &Settings,
    entry: &Entry,
    stop_timeout: Duration,
) -> Result<(), RemovalError> {
    let channel = super::connect(&settings.socket, None).await?;
    let removal = Removal {
        settings,
        entry,
        containers: ContainersClient::new(channel.clone()),
        snapshots: SnapshotsClient::new(channel.clone()),
        tasks: TasksClient::new(channel),
    };
    removal.remove(stop_timeout).await
}

struct Removal<'a> {
    settings: &'a Settings,
    entry: &'a Entry,
    containers: ContainersClient<Channel>,
    snapshots: SnapshotsClient<Channel>,
    tasks: TasksClient<Channel>,
}

impl Removal<'_> {
    async fn remove(mut self, stop_timeout: Duration) -> Result<(), RemovalError> {
        let record = self.still().await?;
        self.end(stop_timeout).await?;
        if self.still().await?.is_some() {
            let container_id = self.id();
            let request = self.settings.request(DeleteTaskRequest { container_id })?;
            answer("delete its task", self.tasks.delete(request)).await?;
        }
        // Its record last: whoever has failed finds the container again by it.
        let snapshot = record.map(|record| (record.snapshotter, record.snapshot_key));
        let snapshot = snapshot.filter(|(_, key)| !key.is_empty());
        if let Some((snapshotter, key)) = snapshot.clone()
            && self.still().await?.is_some()
        {
            let request = self.settings.request(RemoveSnapshotRequest { snapshotter, key })?;
            answer("remove its snapshot", self.snapshots.remove(request)).await?;
        }
        if self.still().await?.is_some() {
            let request = self.settings.request(DeleteContainerRequest { id: self.id() })?;
            answer("delete the container", self.containers.delete(request)).await?;
        }
        self.confirm(snapshot).await
    }

    /// Ends what runs in it, if anything does.
    async fn end(&mut self, stop_timeout: Duration) -> Result<(), RemovalError> {
        for (signal, limit) in [(SIGQUIT, stop_timeout), (SIGKILL, ANSWER_TIMEOUT)] {
            if self.still().await?.is_none() {
                return Ok(());
            }
            // Whoever could act on SIGQUIT is the first process; SIGKILL is for all.
            let kill = KillRequest { container_id: self.id(), signal, all: signal == SIGKILL };
            let kill = self.settings.request(kill)?;
            answer("signal what runs in it", self.tasks.kill(kill)).await?;
            let wait = self.settings.request(WaitRequest { container_id: self.id() })?;
            match timeout(limit, answered("await its end", self.tasks.wait(wait))).await {
                Ok(ended) => return Ok(ended.map(drop)?),
                Err(_) if signal == SIGQUIT => {}
                Err(_) => return Err(RemovalError::Runs(limit)),
            }
        }
        Ok(())
    }

    /// Asks anew, by name, whether anything is left.
    async fn confirm(mut self, snapshot: Option<(String, String)>) -> Result<(), RemovalError> {
        if self.record().await?.is_some() {
            return Err(RemovalError::Left("record"));
        }
        let task = self.settings.request(GetRequest { container_id: self.id() })?;
        if answer("look for its task", self.tasks.get(task)).await?.is_some() {
            return Err(RemovalError::Left("task"));
        }
        if let Some((snapshotter, key)) = snapshot {
            let stat = self.settings.request(StatSnapshotRequest { snapshotter, key })?;
            if answer("look for its snapshot", self.snapshots.stat(stat)).await?.is_some() {
                return Err(RemovalError::Left("snapshot"));
            }
        }
        Ok(())
    }

    /// The container, unless it is gone.
    async fn still(&mut self) -> Result<Option<Container>, RemovalError> {
        let Some(record) = self.record().await? else { return Ok(None) };
        let mut listing = Listing::default();
        self.settings.read(&record, &mut listing);
        let same = |now: &Entry| now.owner == self.entry.owner && now.since == self.entry.since;
        if listing.entries.iter().any(same) { Ok(Some(record)) } else { Err(RemovalError::Another) }
    }

    async fn record(&mut self) -> Result<Option<Container>, RemovalError> {
        let request = self.settings.request(GetContainerRequest { id: self.id() })?;
        let found = answer("look at the container", self.containers.get(request)).await?;
        let none = || SourceError::Unreadable("a container without contents".to_owned());
        Ok(found.map(|found| found.container.ok_or_else(none)).transpose()?)
    }

    fn id(&self) -> String {
        self.entry.id.to_string()
    }
}

/// What is not there is no error.
async fn answered<T>(
    what: &'static str,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Option<T>, SourceError> {
    match call.await {
        Ok(response) => Ok(Some(response.into_inner())),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(SourceError::call(what, &status)),
    }
}

/// As [`answered`], in time.
async fn answer<T>(
    what: &'static str,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Option<T>, SourceError> {
    let late = || SourceError::Call { what, why: SourceError::Late(ANSWER_TIMEOUT).to_string() };
    timeout(ANSWER_TIMEOUT, answered(what, call)).await.unwrap_or_else(|_| Err(late()))
}

#[cfg(test)]
mod tests;
