//! What others know to exist: the container runtime's containers, the controller's sandboxes.
//!
//! A source adds reasons to keep an address. Its silence proves something only in an answer that
//! was complete, and whether it was is part of the answer.

mod channel;
pub mod containerd;
mod listing;
mod source;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use futures_util::future::join_all;
use parking_lot::RwLock;
use tonic::Status;

use listing::Listed;
pub use listing::{Entry, Listing};
pub use source::{Answer, Handle, Heard, PATIENCE, SourceStatus, Told};

use self::containerd::Containerd;
use crate::{
    clock::Now,
    evidence::{Evidence, Source},
    lease::Owner,
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
    /// A namespace that no request can name.
    #[error("the namespace {0:?} is not printable ASCII")]
    Namespace(String),
}

impl SourceError {
    fn call(what: &'static str, status: &Status) -> Self {
        Self::Call { what, why: format!("{:?}: {}", status.code(), status.message()) }
    }
}

/// Those that are configured.
#[derive(Debug, Default)]
pub struct Sources(Vec<Handle>);

impl Sources {
    /// Starts asking them.
    pub fn start(containerd: Option<containerd::Settings>, told: &Told) -> Self {
        let containerd = containerd.map(|settings| {
            let lister = Containerd::new(settings);
            Handle::start(Source::Inventory, "containerd", lister, told.clone())
        });
        Self(containerd.into_iter().collect())
    }

    /// Asks all of them now.
    pub async fn ask(&self) -> Vec<Heard> {
        join_all(self.0.iter().map(Handle::ask)).await
    }

    /// How they are.
    pub fn status(&self) -> Vec<SourceStatus> {
        self.0.iter().map(Handle::status).collect()
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
    /// Takes an answer of a source over. Gives back the addresses of which it says something else
    /// now.
    pub fn take(&self, source: Source, listing: &Listing, now: Now) -> Vec<IpAddr> {
        let [inventory, controller] = &mut *self.0.write();
        match source {
            Source::Controller => controller.take(listing, now),
            _ => inventory.take(listing, now),
        }
    }

    /// The addresses that any source names.
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.0.read().iter().flat_map(Listed::addresses).collect()
    }

    /// What is said of an address.
    pub fn of_address(&self, address: IpAddr) -> Vec<Evidence> {
        let now = Now::read();
        self.0.read().iter().flat_map(|listed| listed.of_address(address, now)).collect()
    }

    /// What is said of an owner.
    pub fn of_owner(&self, owner: &Owner) -> Vec<Evidence> {
        let now = Now::read();
        self.0.read().iter().flat_map(|listed| listed.of_owner(owner, now)).collect()
    }
}
