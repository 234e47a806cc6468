//! What others know to exist: the container runtime's containers, the controller's sandboxes.
//!
//! A source adds reasons to keep an address. Its silence proves something only in an answer that
//! was complete, and whether it was is part of the answer.

pub mod containerd;
pub mod directory;
mod events;
pub mod host_local;
mod label;
mod netns;
mod pace;
mod place;
mod publisher;
pub mod removal;
mod source;
mod status;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use guard_api::client::{self, ChannelError};
use guard_core::{
    bounds::TooMuch,
    evidence::{CONTAINERD, DIRECTORY, PollResult, SandboxState, Source},
    owner::Owner,
};
use tonic::{Status, transport::Channel};

pub use publisher::Publisher;
pub use source::{ANSWER_TIMEOUT, Handle};
pub use status::{AWAY, Awaited, SourceStatus};

use self::{containerd::Containerd, directory::Directory};
use crate::{
    clock,
    config::inventory::{self as settings, Settings},
    supervisor::Supervisor,
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nobody listens.
    #[error("{path}: {source}")]
    Connect {
        /// Which socket.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another user listens there than should.
    #[error(
        "{path}: uid {is} listens there, and not uid {wanted} (directory.uid): nothing that it says is \
         believed"
    )]
    Owner {
        /// Which socket.
        path: PathBuf,
        /// Who listens.
        is: u32,
        /// Who should.
        wanted: u32,
    },
    /// No HTTP/2 on the socket.
    #[error("it speaks no gRPC: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// A call failed, or its answer was cut off.
    #[error("cannot {what}: {why}")]
    Call {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        why: String,
    },
    /// The answer did not come.
    #[error("no answer within {0:?}")]
    Late(Duration),
    /// An answer that means nothing.
    #[error("{0}")]
    Unreadable(String),
    /// It lists more than anybody has.
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    /// A namespace that no request can name.
    #[error("the namespace {0:?} is not printable ASCII")]
    Namespace(String),
}

/// Why a source is not done without.
#[derive(Debug, thiserror::Error)]
pub enum IgnoreError {
    /// There is none of this name.
    #[error("there is no source {name:?}; {}", configured(.known))]
    Unknown {
        /// Which name.
        name: String,
        /// Those that are configured.
        known: Vec<&'static str>,
    },
    /// Nothing waits for it.
    #[error("source {name:?} answers completely: there is nothing to ignore")]
    Healthy {
        /// Which source.
        name: &'static str,
    },
}

fn configured(known: &[&str]) -> String {
    match known {
        [] => "none is configured ([inventory.containerd], [directory])".to_owned(),
        known => format!("configured: {}", known.join(", ")),
    }
}

/// Connects once to a source's socket, where this user listens, if one is named.
async fn connect(socket: &Path, owner: Option<u32>) -> Result<Channel, SourceError> {
    client::channel(socket, owner).await.map_err(|error| match error {
        ChannelError::Owner { is, wanted } => {
            SourceError::Owner { path: socket.to_owned(), is, wanted }
        }
        ChannelError::Socket(source) => SourceError::Connect { path: socket.to_owned(), source },
        ChannelError::Transport(error) => SourceError::Transport(error),
    })
}

impl SourceError {
    fn call(what: &'static str, status: &Status) -> Self {
        Self::Call { what, why: format!("{:?}: {}", status.code(), status.message()) }
    }
}

/// Those that are configured.
#[derive(Default)]
pub struct Sources {
    all: Vec<Handle>,
    directory: Option<settings::Directory>,
    publisher: Option<Publisher>,
}

impl Sources {
    /// Starts asking them.
    pub fn start(settings: Settings, publisher: &Publisher, supervisor: &Supervisor) -> Self {
        let Settings { containerd, directory } = settings;
        let containerd = containerd.map(|settings| {
            let lister = Containerd::new(settings, Arc::clone(&publisher.live));
            Handle::start(Source::Inventory, CONTAINERD, lister, publisher.clone(), supervisor)
        });
        let listed = directory.clone().map(|settings| {
            let lister = Directory::new(settings);
            Handle::start(Source::Controller, DIRECTORY, lister, publisher.clone(), supervisor)
        });
        let all: Vec<_> = containerd.into_iter().chain(listed).collect();
        // What an earlier run had against one that is not asked any more is over.
        for source in [Source::Inventory, Source::Controller] {
            if !all.iter().any(|handle| handle.source() == source) {
                publisher.reporter.unreadable(source, &[], clock::now());
            }
        }
        Self { all, directory, publisher: Some(publisher.clone()) }
    }

    /// Does without a source for a while, or until its next complete answer: what waits for it waits
    /// no more. A span of zero ends that. A dry run only says what would come of it.
    ///
    /// # Errors
    /// There is no such source, or it answers.
    pub fn ignore(
        &self,
        name: &str,
        span: Duration,
        dry_run: bool,
    ) -> Result<SourceStatus, IgnoreError> {
        let known = || self.all.iter().map(Handle::name).collect();
        let handle = self.all.iter().find(|handle| handle.is_called(name));
        let unknown = || IgnoreError::Unknown { name: name.to_owned(), known: known() };
        let (handle, publisher) = handle.zip(self.publisher.as_ref()).ok_or_else(unknown)?;
        let now = clock::now();
        let was_ignored = {
            let mut known = handle.known().write();
            let status = &mut known.status;
            if status.healthy() {
                return Err(IgnoreError::Healthy { name: handle.name() });
            }
            let ignored = (!span.is_zero()).then_some(now.boot.saturating_add(span));
            if dry_run {
                return Ok(SourceStatus { ignored, ..status.clone() });
            }
            let was_ignored = status.is_ignored(now.boot);
            status.ignored = ignored;
            publisher.answered(&known);
            was_ignored
        };
        if !span.is_zero() {
            publisher.ignored(handle.name(), span, now);
        } else if was_ignored {
            publisher.heeded(handle.name());
        }
        Ok(handle.status())
    }

    /// Whether an operator does without a source now.
    pub fn ignored(&self, name: &str) -> bool {
        let now = clock::now().boot;
        let mut named = self.all.iter().filter(|handle| handle.is_called(name));
        named.any(|handle| handle.known().read().status.is_ignored(now))
    }

    /// Those that are not ignored.
    fn heeded(&self) -> impl Iterator<Item = &Handle> {
        let now = clock::now().boot;
        self.all.iter().filter(move |handle| !handle.known().read().status.is_ignored(now))
    }

    /// The first source that has never answered completely.
    pub fn unanswered(&self) -> Option<Awaited> {
        let never = |handle: &&Handle| handle.known().read().status.complete.is_none();
        self.heeded().find(never).map(|handle| handle.status().awaited())
    }

    /// The first source that keeps addresses from being handed out: one that does not answer, for
    /// longer than what it said last is good for, or that has never answered.
    pub fn outdated(&self, good_for: Duration) -> Option<Awaited> {
        let now = clock::now().boot;
        let outdated = |handle: &&Handle| {
            let SourceStatus { complete, failing, .. } = handle.known().read().status;
            failing.is_some_and(|since| complete.is_none() || now.saturating_sub(since) >= good_for)
        };
        self.heeded().find(outdated).map(|handle| handle.status().awaited())
    }

    /// The directory's word about each of these owners; nothing where there is no directory.
    ///
    /// # Errors
    /// There is one, and about one of them it does not answer.
    pub async fn look_up(
        &self,
        owners: HashSet<Owner>,
    ) -> Result<Option<HashMap<Owner, SandboxState>>, SourceError> {
        let Some(settings) = &self.directory else { return Ok(None) };
        directory::look_up(settings, owners).await.map(Some)
    }

    /// Asks all of them now, but for those that an operator does without.
    pub async fn ask(&self) -> Vec<PollResult> {
        join_all(self.heeded().map(Handle::ask)).await
    }

    /// Asks one of them now; nothing where it is not configured.
    pub async fn ask_one(&self, source: Source) -> Option<PollResult> {
        Some(self.all.iter().find(|handle| handle.source() == source)?.ask().await)
    }

    /// Whether there is a directory to be asked.
    pub fn has_directory(&self) -> bool {
        self.directory.is_some()
    }

    /// Whether none is configured.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// How they are.
    pub fn status(&self) -> Vec<SourceStatus> {
        self.all.iter().map(Handle::status).collect()
    }
}

#[cfg(test)]
mod tests;
