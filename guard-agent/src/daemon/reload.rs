//! SIGHUP: reads the configuration anew, and takes over what can change while the agent runs.

use std::{path::PathBuf, sync::Arc};

use guard_core::lease::command::Command;
use tokio::{signal::unix::Signal, sync::watch};

use crate::{
    config::{Change, Config},
    enforcement::Enforcement,
    events::EventBus,
    ledger::Ledger,
    metrics::Metrics,
    reconcile::Reconciler,
    server,
};

/// Knows those who work with settings that can change.
pub(super) struct Reloader {
    /// The file.
    pub path: PathBuf,
    /// The settings that hold.
    pub current: watch::Sender<Arc<Config>>,
    /// The leases.
    pub ledger: Ledger,
    /// The event stream.
    pub bus: Arc<EventBus>,
    /// What Prometheus reads.
    pub metrics: Arc<Metrics>,
    /// What is dropped.
    pub enforcement: Arc<Enforcement>,
    /// The reconciler.
    pub reconciler: Arc<Reconciler>,
}

impl Reloader {
    /// Reads the file at each signal. A file that is wrong changes nothing.
    pub(super) async fn run(self, mut hangup: Signal) {
        while hangup.recv().await.is_some() {
            match Config::load(&self.path) {
                Ok(new) => {
                    super::remark(&new);
                    self.apply(new).await;
                }
                Err(error) => {
                    tracing::error!(%error, "the configuration is wrong, and nothing is changed");
                }
            }
        }
    }

    async fn apply(&self, new: Config) {
        let (config, changes) = self.current.borrow().changed_to(new);
        let Config { socket, reader_socket, access, reconcile, subscribers, pools, .. } = &config;
        let commands = [Command::Pools(pools.clone()), Command::Subscribers(subscribers.clone())];
        for command in commands {
            if let Err(refusal) = self.ledger.call(command).await {
                tracing::error!(%refusal, "the configuration cannot be changed");
                return;
            }
        }
        self.bus.set_subscribers(subscribers.iter().map(|(name, _)| name.clone()));
        self.metrics.prepare(&config);
        self.reconciler.set(*reconcile);
        self.enforcement.configured(&config);
        for socket in std::iter::once(socket).chain(reader_socket) {
            if let Err(error) = server::open_to(socket, access) {
                tracing::error!(%error, "who could connect so far still can");
            }
        }
        self.current.send_replace(Arc::new(config));
        for Change { what, applied } in &changes {
            if *applied {
                tracing::info!(what, "configuration: changed");
            } else {
                tracing::warn!(what, "configuration: not changed, this needs a restart");
            }
        }
        tracing::info!(path = %self.path.display(), changes = changes.len(), "configuration read anew");
    }
}
