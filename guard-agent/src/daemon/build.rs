//! What stands before anything runs: the leases, and those who hear of each change of them.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use guard_core::{
    incident::{Flaps, Incident, Incidents},
    lease::{Generation, command::Command},
};

use super::state_dir;
use crate::{
    config::Config,
    events::{EventBus, IncidentLog, IncidentLogError, IncidentReporter},
    health::Health,
    ledger::{self, AfterCommit, Ledger, StoreFault},
    live::SharedEvidence,
    metrics::Metrics,
    owners::{Owners, fence::GenerationFence},
    store::{Boot, Store},
    supervisor::Supervisor,
};

/// The leases, and what is notified of their changes before the callers are.
pub(super) struct Leases {
    /// What is degraded.
    pub health: Arc<Health>,
    /// What Prometheus reads.
    pub metrics: Arc<Metrics>,
    /// The event stream.
    pub bus: Arc<EventBus>,
    /// What is in use.
    pub live: Arc<SharedEvidence>,
    /// Who may claim what.
    pub owners: Arc<Owners>,
    /// The incidents.
    pub reporter: Arc<IncidentReporter>,
    /// Engine and store.
    pub ledger: Ledger,
}

impl Leases {
    /// Opens the store and starts the ledger on it, or without one where it is lost.
    pub(super) async fn open(
        config: &Config,
        boot: &Boot,
        generations: GenerationFence,
        health: Arc<Health>,
        supervisor: &Supervisor,
    ) -> anyhow::Result<Self> {
        let opened = open_store(&config.state_dir, boot, &generations.known())?;
        let metrics = Arc::new(Metrics::new().context("the metrics' definitions")?);
        metrics.prepare(config);
        let epoch = match &opened {
            Ok(store) => store.epoch(),
            Err(fault) => fault.epoch,
        };
        let subscribers = config.subscribers.iter().map(|(name, _)| name.clone());
        let bus = Arc::new(EventBus::new(epoch, subscribers));
        let live = Arc::new(SharedEvidence::default());
        let having = config.pools.iter().map(|pool| (pool.segment().clone(), pool.prefix()));
        live.set_prefixes(having.collect());
        let owners = Arc::new(Owners::new(config.gateways(), health.clone()));
        // Ids grow over restarts, as the epoch does.
        let flaps = Flaps::new(config.conflict.flap_window, config.conflict.flap_count);
        let mut incidents = Incidents::new(config.conflict.quiet, flaps, (epoch << 32) + 1);
        let (log, past) = open_incident_log(&config.state_dir, &boot.id, supervisor)?;
        incidents.restore(past, boot.now);
        let slaac = config.first_come();
        let reporter =
            Arc::new(IncidentReporter::new(incidents, bus.clone(), metrics.clone(), log, slaac));
        let after_commit: Vec<Box<dyn AfterCommit>> = vec![
            Box::new(generations),
            Box::new(owners.clone()),
            Box::new(reporter.clone()),
            Box::new(metrics.clone()),
            Box::new(bus.clone()),
        ];
        let (pools, changes) = (config.pools.clone(), live.changes().clone());
        let ledger = match opened {
            Ok(store) => Ledger::start(pools, store, live.clone(), changes, after_commit)?,
            Err(fault) => Ledger::start_without(pools, fault, live.clone(), changes, after_commit)?,
        };
        let thread = ledger.clone();
        supervisor.spawn_fallible("ledger", async move { thread.ended().await });
        // Before anything can be released.
        ledger.call(Command::Subscribers(config.subscribers.clone())).await?;
        Ok(Self { health, metrics, bus, live, owners, reporter, ledger })
    }
}

/// The store, or why the agent has to do without it. An error is what it cannot do without.
fn open_store(
    state_dir: &Path,
    boot: &Boot,
    given: &[Generation],
) -> anyhow::Result<Result<Store, StoreFault>> {
    state_dir::prepare(state_dir)?;
    let path = state_dir.join("leases.db");
    Ok(match ledger::open(&path, boot, given) {
        Ok(store) => Ok(store),
        Err(error) => Err(StoreFault::of(error, &path, boot)?),
    })
}

/// The history of incidents; in memory where the disk cannot be written, since no lease rests on
/// it.
fn open_incident_log(
    state_dir: &Path,
    boot_id: &str,
    supervisor: &Supervisor,
) -> Result<(IncidentLog, Vec<Incident>), IncidentLogError> {
    IncidentLog::open(&state_dir.join("incidents.db"), boot_id, supervisor).or_else(|error| {
        tracing::warn!(%error, "incidents are remembered until the agent ends");
        IncidentLog::open(Path::new(":memory:"), boot_id, supervisor)
    })
}
