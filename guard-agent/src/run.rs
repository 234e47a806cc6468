//! The daemon: puts the parts together, in the order in which they need each other, and takes them
//! down in the reverse.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    alerts::Alerts,
    api,
    bindings::Bindings,
    clock::{self, Now},
    config::{Config, WhenDegraded},
    feed::Feed,
    health::{Health, STORE},
    history::{History, HistoryError},
    http,
    hub::Hub,
    incident::{Flaps, Incident, Incidents},
    lease::command::Command,
    ledger::{Ledger, Lifecycle, Loss},
    live::LiveSet,
    memory,
    metrics::Metrics,
    observer::{Observer, Parts},
    store::{Boot, Store},
};

/// How often a store that could not be written is tried again.
const STORE_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What is missing or wrong on this machine, and what to do.
pub async fn run(config: Config) -> anyhow::Result<()> {
    // Before anyone can know that we are there: until then a signal ends us on the spot.
    let signals = Signals::listen()?;
    // What is in use by another agent is found before anything is touched.
    let listener = api::listen(&config.socket)?;
    let served = serve(config.clone(), listener, signals).await;
    // A later agent makes its own; one that is there says that someone listens.
    let _ = std::fs::remove_file(&config.socket);
    served
}

/// What asks us to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?,
        })
    }
}

async fn serve(
    config: Config,
    listener: tokio::net::UnixListener,
    signals: Signals,
) -> anyhow::Result<()> {
    let web = http::listen(config.http).await?;
    let id = clock::boot_id().context("cannot read the boot id; is /proc mounted?")?;
    let boot = Boot { id, now: Now::read() };
    let opened = open_store(&config.state_dir, &boot)?;
    let health = Arc::new(Health::default());
    let metrics = Arc::new(Metrics::new().context("the metrics' definitions")?);
    let epoch = match &opened {
        Ok(store) => store.epoch(),
        Err(loss) => loss.epoch,
    };
    let hub = Arc::new(Hub::new(epoch));
    let live = Arc::new(LiveSet::default());
    let gateways =
        config.pools.iter().filter_map(|pool| Some((pool.segment().clone(), pool.gateway()?)));
    let bindings = Arc::new(Bindings::new(gateways, health.clone()));
    // Ids grow over restarts, as the epoch does.
    let flaps = Flaps::new(config.conflict.flap_window, config.conflict.flap_count);
    let mut incidents = Incidents::new(config.conflict.quiet, flaps, (epoch << 32) + 1);
    let (history, past) = open_history(&config.state_dir, &boot.id)?;
    incidents.restore(past);
    let alerts = Arc::new(Alerts::new(incidents, hub.clone(), metrics.clone(), history));
    let observers: Vec<Box<dyn Lifecycle>> = vec![
        Box::new(bindings.clone()),
        Box::new(alerts.clone()),
        Box::new(metrics.clone()),
        Box::new(hub.clone()),
    ];
    let pools = config.pools.clone();
    let ledger = match opened {
        Ok(store) => Ledger::start(pools, store, live.clone(), observers)?,
        Err(loss) => {
            health.degraded(STORE, &loss.why);
            Ledger::start_without(pools, loss, live.clone(), observers)?
        }
    };

    let feed = Feed::start(ledger.clone(), health.clone());
    let prefixes =
        config.pools.iter().map(|pool| (pool.segment().clone(), pool.prefix())).collect();
    let (observer, handle) = Observer::start(Parts {
        bpffs: config.bpffs.clone(),
        bridges: config.bridges.clone(),
        prefixes,
        conflict: config.conflict,
        quota: config.quota,
        live: live.clone(),
        alerts: alerts.clone(),
        bindings: bindings.clone(),
        health: health.clone(),
        feed: feed.clone(),
    })
    .await?;
    let watching = tokio::spawn(observer.run());
    let store = tokio::spawn(watch_store(ledger.clone(), health.clone()));
    let boot = tokio::spawn(boot_pass(config.clone(), feed, health.clone()));

    let (stop, stopping) = watch::channel(false);
    let context = Arc::new(api::Context {
        config,
        ledger: ledger.clone(),
        observer: handle,
        live,
        bindings,
        alerts,
        hub,
        health,
        metrics,
        stopping,
    });
    let grpc = tokio::spawn(api::serve(context.clone(), listener));
    let web = tokio::spawn(http::serve(context.clone(), web));
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    tracing::info!(
        socket = %context.config.socket.display(),
        http = %context.config.http,
        "serving"
    );
    let ended = until_stopped(signals, grpc, web, watching).await;
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    stop.send_replace(true);
    boot.abort();
    store.abort();
    ledger.shutdown().await;
    tracing::info!("stopped; the program goes on watching");
    ended
}

/// The store, or why the agent has to do without it. An error is what it cannot do without.
fn open_store(state_dir: &Path, boot: &Boot) -> anyhow::Result<Result<Store, Loss>> {
    std::fs::create_dir_all(state_dir)
        .with_context(|| format!("cannot make state_dir {}", state_dir.display()))?;
    let path = state_dir.join("leases.db");
    Ok(match Store::open(&path, boot) {
        Ok(store) => Ok(store),
        Err(error) => Err(Loss::of(error, &path, boot)?),
    })
}

/// The history of incidents; in memory where the disk cannot be written, since no lease rests on
/// it.
fn open_history(state_dir: &Path, boot_id: &str) -> Result<(History, Vec<Incident>), HistoryError> {
    History::open(&state_dir.join("incidents.db"), boot_id).or_else(|error| {
        tracing::warn!(%error, "incidents are remembered until the agent ends");
        History::open(Path::new(":memory:"), boot_id)
    })
}

/// Looks whether a store that could not be written can be again.
async fn watch_store(ledger: Ledger, health: Arc<Health>) {
    loop {
        tokio::time::sleep(STORE_INTERVAL).await;
        if let Some(why) = ledger.loss() {
            health.degraded(STORE, &why);
        } else if health.why(STORE).is_some() && ledger.probe().await.is_ok() {
            health.recovered(STORE);
        }
    }
}

/// The observer has read ports, host addresses and maps; the ledger looks at every lease with that
/// evidence before the first allocation.
async fn boot_pass(config: Config, feed: Feed, health: Arc<Health>) {
    let ended = loop {
        match tokio::time::timeout(config.boot_timeout, feed.ask(Command::RecheckAll)).await {
            // The store says so itself, and everything is looked at once it is back.
            Ok(Err(refusal)) if refusal.reason.is_store() => {
                tokio::time::sleep(STORE_INTERVAL).await;
            }
            ended => break ended,
        }
    };
    match ended {
        Ok(Ok(_)) => {
            health.boot_pass_ended();
            return memory::give_back();
        }
        Ok(Err(refusal)) => health.degraded("boot pass", &refusal.to_string()),
        Err(_) => health.degraded("boot pass", "it takes longer than allocate.boot_timeout"),
    }
    if config.when_degraded == WhenDegraded::Allow {
        health.boot_pass_ended();
    }
}

/// Waits for a signal, or for a part that ended by itself.
async fn until_stopped(
    mut signals: Signals,
    grpc: JoinHandle<Result<(), api::ServeError>>,
    web: JoinHandle<std::io::Result<()>>,
    watching: JoinHandle<()>,
) -> anyhow::Result<()> {
    tokio::select! {
        _ = signals.terminate.recv() => Ok(()),
        _ = signals.interrupt.recv() => Ok(()),
        ended = grpc => Ok(ended.context("the gRPC server panicked")??),
        ended = web => ended.context("the HTTP server panicked")?.context("the HTTP server"),
        ended = watching => Err(ended.map_or_else(Into::into, |()| anyhow::anyhow!("the observer ended"))),
    }
}
