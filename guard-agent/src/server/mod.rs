//! The gRPC API on a Unix socket: requests in, commands to the ledger, responses out.

mod access;
mod admin;
mod admit;
pub(crate) mod audit;
mod binding;
mod capability;
mod check;
pub(crate) mod convert;
mod enforcement;
mod error;
mod explain;
mod guard;
pub(crate) mod http;
mod interfaces;
mod leases;
mod limit;
mod live;
mod page;
mod passed;
mod peer;
mod pools;
mod refusals;
mod report;
mod revoked;
mod rightful;
mod socket;
mod sources;
mod subnets;
mod trace;
mod transport;
mod watched;
mod why;
mod work;

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt as _, stream};
use guard_api::proto::{
    self, admin_server::AdminServer, guard_server::GuardServer,
    interfaces_server::InterfacesServer, leases_server::LeasesServer, pools_server::PoolsServer,
    subnets_server::SubnetsServer,
};
use prost::Message as _;
use tokio::sync::watch;
use tonic::{Status, service::Routes};
use tower::Layer as _;

use access::Role;
use guard_core::lease::{
    Engine, Lease, LeaseFilter, LeaseKey, Order, Pool, StretchOf,
    command::{Command, Refusal, Reply},
};
use page::Page;
pub(crate) use passed::Passed;
pub(crate) use socket::{Door, listen, open_to};

use crate::{
    config::{Config, WhenDegraded},
    enforcement::Enforcement,
    events::{EventBus, IncidentReporter},
    health::{self, Health},
    ledger::Ledger,
    live::SharedEvidence,
    metrics::Metrics,
    observer,
    owners::Owners,
    reconcile::Reconciler,
    watchdog::Watchdog,
};

/// How long open streams may take to end when the agent stops.
const DRAIN: Duration = Duration::from_secs(2);

/// What the services work with.
pub(crate) struct Deps {
    /// The checked configuration, as it is now.
    pub config: watch::Receiver<Arc<Config>>,
    /// The leases.
    pub ledger: Ledger,
    /// Handle to the observer.
    pub observer: observer::Handle,
    /// What is in use.
    pub live: Arc<SharedEvidence>,
    /// Who may claim what.
    pub owners: Arc<Owners>,
    /// The incidents.
    pub reporter: Arc<IncidentReporter>,
    /// The event stream.
    pub bus: Arc<EventBus>,
    /// What is dropped.
    pub enforcement: Arc<Enforcement>,
    /// The reconciler.
    pub reconciler: Arc<Reconciler>,
    /// The watchdog.
    pub watchdog: Arc<Watchdog>,
    /// What is degraded.
    pub health: Arc<Health>,
    /// What Prometheus reads.
    pub metrics: Arc<Metrics>,
    /// True once the agent is to stop: streams end.
    pub stopping: watch::Receiver<bool>,
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    /// The descriptors of the proto files.
    #[error("server reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves until `stopping` is true.
///
/// # Errors
/// The server ended by itself.
pub(crate) async fn serve(
    deps: Arc<Deps>,
    door: Door,
    readers: Option<Door>,
) -> Result<(), ServeError> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<LeasesServer<leases::Service>>().await;
    reporter.set_serving::<PoolsServer<pools::Service>>().await;
    reporter.set_serving::<SubnetsServer<subnets::Service>>().await;
    reporter.set_serving::<InterfacesServer<interfaces::Service>>().await;
    reporter.set_serving::<GuardServer<guard::Service>>().await;
    reporter.set_serving::<AdminServer<admin::Service>>().await;
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let stopping = deps.stopping.clone();
    /// The generated servers have this in common, and no trait.
    macro_rules! small {
        ($server:expr) => {
            $server.max_decoding_message_size(admit::MESSAGE)
        };
    }
    let settings = deps.config.clone();
    let refusals = refusals::Refusals::new(deps.metrics.clone());
    let routes = Routes::new(health)
        .add_service(reflection().build_v1()?)
        // Python's package and older tools know no other.
        .add_service(reflection().build_v1alpha()?)
        .add_service(small!(LeasesServer::new(leases::Service(deps.clone()))))
        .add_service(small!(PoolsServer::new(pools::Service(deps.clone()))))
        .add_service(small!(SubnetsServer::new(subnets::Service(deps.clone()))))
        .add_service(small!(InterfacesServer::new(interfaces::Service(deps.clone()))))
        .add_service(small!(GuardServer::new(guard::Service(deps.clone()))))
        .add_service(small!(AdminServer::new(admin::Service(deps))))
        .prepare();
    let service = admit::Admission::new(settings.clone(), refusals.clone()).layer(routes);
    let connections =
        |door, most| admit::connections(door, most, settings.clone(), refusals.clone());
    let all = connections(door, Role::Administrator).boxed();
    let readers = readers.map(|door| connections(door, Role::Reader).boxed());
    let connections = stream::select_all([Some(all), readers].into_iter().flatten());
    let times = transport::Times::default();
    let served = transport::serve(connections, service, times, refusals.clone(), stopping.clone());
    tokio::select! {
        () = served => {}
        () = drained(stopping) => {}
    }
    Ok(())
}

/// Ends when the agent is to stop.
pub(crate) async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error says that the agent is gone already.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// A stream until the agent is to stop, which it then says.
fn until_stopped<T: Send + 'static>(
    stream: impl Stream<Item = Result<T, Status>> + Send + 'static,
    stopping: watch::Receiver<bool>,
) -> Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>> {
    let end = stream::once(async { Err(error::stopping()) });
    stream.take_until(stopped(stopping)).chain(end).boxed()
}

async fn drained(stopping: watch::Receiver<bool>) {
    stopped(stopping).await;
    tokio::time::sleep(DRAIN).await;
}

impl Deps {
    /// The configuration as it is now.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.borrow().clone()
    }

    /// Carries out a command, or only says what would come of it.
    async fn ask(&self, command: Command, dry_run: bool) -> Result<Reply, Refusal> {
        let Self { ledger, .. } = self;
        if dry_run { ledger.preview(command).await } else { ledger.call(command).await }
    }

    /// A lease with what says that its address is in use.
    fn message(&self, lease: &Lease) -> proto::Lease {
        let evidence = Engine::evidence_of(lease, &*self.live);
        convert::lease(lease, &evidence, &self.config(), &*self.live)
    }

    /// The leases on a page.
    async fn page(
        &self,
        filter: LeaseFilter,
        page: &mut Page<LeaseKey>,
    ) -> Result<Vec<proto::Lease>, Refusal> {
        let mut rows = Vec::new();
        let mut after = page.after.clone();
        loop {
            let of = StretchOf {
                filter: filter.clone(),
                bridge: None,
                order: Order::Pool,
                after,
                most: page.wanted(),
            };
            let stretch = self.ledger.stretch(of).await?;
            for lease in &stretch.leases {
                let message = self.message(lease);
                if !page.takes(&page::lease_key(lease), message.encoded_len()) {
                    return Ok(rows);
                }
                rows.push(message);
            }
            match stretch.reached {
                Some(reached) => after = Some(reached),
                None => return Ok(rows),
            }
            tokio::task::yield_now().await;
        }
    }

    /// What was given back, as far as one response holds it.
    fn released(&self, outcome: proto::Outcome, leases: Vec<Arc<Lease>>) -> proto::ReleaseResponse {
        let total_size = page::count(leases.len());
        let key = |lease: &Arc<Lease>| page::lease_key(lease);
        let leases = Page::only().of_all(leases, key, |lease| self.message(lease));
        proto::ReleaseResponse { outcome: outcome.into(), leases, total_size }
    }

    /// Whether these pools can be allocated from now.
    fn may_allocate<'a>(&self, pools: impl Iterator<Item = &'a Pool>) -> Result<(), error::Closed> {
        if let Some(fault) = self.ledger.fault() {
            return Err(error::Closed::Store(fault));
        }
        for pool in pools {
            let bridge = &pool.segment().bridge;
            if let Some(why) = self.health.why(&health::bridge(bridge)) {
                let pool = pool.name().clone();
                return Err(error::Closed::BridgeAbsent { pool, bridge: bridge.clone(), why });
            }
            if let Some(why) = self.health.why(&health::pool(pool.name())) {
                return Err(error::Closed::VlanAbsent { pool: pool.name().clone(), why });
            }
        }
        let sources = self.reconciler.sources();
        if !self.health.booted() {
            // Until it has taken too long, it is only starting.
            let late = self.health.why(health::BOOT).and_then(|_| sources.unanswered());
            return Err(late.map_or(error::Closed::Starting, error::Closed::InventoryDegraded));
        }
        let config = self.config();
        if config.when_degraded == WhenDegraded::Allow {
            return Ok(());
        }
        match (self.health.observer_itself(), sources.outdated(config.source_stale)) {
            (Some(degraded), _) => Err(error::Closed::ObserverDegraded(degraded)),
            (None, Some(degraded)) => Err(error::Closed::InventoryDegraded(degraded)),
            (None, None) => Ok(()),
        }
    }
}
