//! What others know to exist: the container runtime's containers, the controller's sandboxes.
//!
//! A source adds reasons to keep an address. Its silence proves something only in an answer that
//! was complete, and whether it was is part of the answer.

mod channel;
pub mod containerd;
pub mod directory;
mod listing;
pub mod removal;
mod source;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    path::PathBuf,
    time::Duration,
};

use futures_util::future::join_all;
use parking_lot::RwLock;
use tonic::Status;

use listing::Listed;
pub use listing::{Death, Entry, Listing, News};
pub use source::{Answer, Handle, Heard, PATIENCE, SourceStatus, Told};

use self::{
    containerd::Containerd,
    directory::{Directory, Word},
};
use crate::{
    clock::Now,
    evidence::{Evidence, Source},
    lease::Owner,
};

/// The directory's name in the configuration.
pub const DIRECTORY: &str = "directory";

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
    /// A namespace that no request can name.
    #[error("the namespace {0:?} is not printable ASCII")]
    Namespace(String),
}

impl SourceError {
    fn call(what: &'static str, status: &Status) -> Self {
        Self::Call { what, why: format!("{:?}: {}", status.code(), status.message()) }
    }
}

/// Who is to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The container runtime.
    pub containerd: Option<containerd::Settings>,
    /// The socket of the controller's directory.
    pub directory: Option<PathBuf>,
}

/// Those that are configured.
#[derive(Debug, Default)]
pub struct Sources {
    all: Vec<Handle>,
    directory: Option<PathBuf>,
}

impl Sources {
    /// Starts asking them.
    pub fn start(settings: Settings, told: &Told) -> Self {
        let Settings { containerd, directory } = settings;
        let containerd = containerd.map(|settings| {
            let lister = Containerd::new(settings);
            Handle::start(Source::Inventory, "containerd", lister, told.clone())
        });
        let listed = directory.clone().map(|socket| {
            Handle::start(Source::Controller, DIRECTORY, Directory::new(socket), told.clone())
        });
        Self { all: containerd.into_iter().chain(listed).collect(), directory }
    }

    /// The directory's word about each of these owners; nothing where there is no directory.
    ///
    /// # Errors
    /// There is one, and about one of them it does not answer.
    pub async fn look_up(
        &self,
        owners: HashSet<Owner>,
    ) -> Result<Option<HashMap<Owner, Word>>, SourceError> {
        let Some(socket) = &self.directory else { return Ok(None) };
        directory::look_up(socket, owners).await.map(Some)
    }

    /// Asks all of them now.
    pub async fn ask(&self) -> Vec<Heard> {
        join_all(self.all.iter().map(Handle::ask)).await
    }

    /// Asks one of them now; nothing where it is not configured.
    pub async fn ask_one(&self, source: Source) -> Option<Heard> {
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

/// What all sources are known to list, answered from memory.
#[derive(Debug)]
pub struct Listings(RwLock<[Listed; 2]>);

impl Default for Listings {
    fn default() -> Self {
        let all = [Source::Inventory, Source::Controller];
        Self(RwLock::new(all.map(Listed::new)))
    }
}

impl Listings {
    /// Takes an answer of a source over. Gives back what it says that the last one did not.
    pub fn take(&self, source: Source, listing: &Listing, now: Now) -> News {
        let [inventory, controller] = &mut *self.0.write();
        match source {
            Source::Controller => controller.take(listing, now),
            _ => inventory.take(listing, now),
        }
    }

    /// All that a source lists.
    pub fn entries(&self, source: Source) -> Vec<Entry> {
        let [inventory, controller] = &*self.0.read();
        let listed = if source == Source::Controller { controller } else { inventory };
        listed.entries().to_vec()
    }

    /// The addresses that any source names.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.0.read().iter().flat_map(Listed::addresses).collect()
    }

    /// What is said of an address.
    pub fn of_address(&self, address: IpAddr) -> Vec<Evidence> {
        self.0.read().iter().flat_map(|listed| listed.of_address(address)).collect()
    }

    /// What is said of an owner.
    pub fn of_owner(&self, owner: &Owner) -> Vec<Evidence> {
        self.0.read().iter().flat_map(|listed| listed.of_owner(owner)).collect()
    }

    /// Whether anything is said of an address.
    pub fn names(&self, address: IpAddr) -> bool {
        self.0.read().iter().any(|listed| listed.names(address))
    }

    /// Whether anything is said of an owner.
    pub fn knows(&self, owner: &Owner) -> bool {
        self.0.read().iter().any(|listed| listed.knows(owner))
    }
}

#[cfg(test)]
mod tests;
