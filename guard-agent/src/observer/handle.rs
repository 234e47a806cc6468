//! How others reach a running observer.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::ports::SharedPorts;
use crate::{health::Heartbeat, metrics::Counters};

/// Why a port cannot be bound to.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EnsureError {
    /// There is no such port.
    #[error("{interface:?} is not a port of bridge {bridge:?}; name the host's side of the veth")]
    NoSuchPort {
        /// The interface.
        interface: String,
        /// The bridge that it should be a port of.
        bridge: String,
    },
    /// It is something else.
    #[error(
        "{interface:?} cannot be a port of bridge {bridge:?}: {why}; name the host's side of the \
         sandbox's veth, which need not exist yet"
    )]
    NeverPort {
        /// The interface.
        interface: String,
        /// The bridge that it should be a port of.
        bridge: String,
        /// What it is.
        why: String,
    },
    /// The program cannot be put on it.
    #[error("port {interface:?} is not watched: {why}")]
    NotCovered {
        /// The interface.
        interface: String,
        /// Why not.
        why: String,
    },
    /// The observer does not run.
    #[error("the observer does not run")]
    Stopped,
}

/// Asks for the program on a port, now.
pub(super) struct Ensure {
    pub(super) interface: String,
    pub(super) bridge: Arc<str>,
    pub(super) reply: oneshot::Sender<Result<u32, EnsureError>>,
}

/// Handle to a running observer.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(super) requests: mpsc::Sender<Ensure>,
    /// The ports by ifindex.
    pub ports: SharedPorts,
    /// What the program counts.
    pub counters: Arc<Counters>,
    /// Whether its loop still runs.
    pub heartbeat: Arc<Heartbeat>,
}

impl Handle {
    /// Sees to it that the program is on a port now. Gives back its ifindex.
    ///
    /// # Errors
    /// It is not a port of the bridge, or the program cannot be put on it.
    pub(crate) async fn ensure(
        &self,
        bridge: &Arc<str>,
        interface: &str,
    ) -> Result<u32, EnsureError> {
        let (reply, answer) = oneshot::channel();
        let (interface, bridge) = (interface.to_owned(), bridge.clone());
        let request = Ensure { interface, bridge, reply };
        self.requests.send(request).await.map_err(|_| EnsureError::Stopped)?;
        answer.await.map_err(|_| EnsureError::Stopped)?
    }
}
