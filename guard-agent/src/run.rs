//! The daemon: puts the parts together, in the order in which they need each other, and takes them
//! down in the reverse.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
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
    health::Health,
    history::History,
    http,
    hub::Hub,
    incident::Incidents,
    lease::command::Command,
    ledger::{Ledger, Lifecycle},
    live::LiveSet,
    metrics::Metrics,
    observer::{Observer, Parts},
    store::{Boot, Store},
};

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What is missing or wrong on this machine, and what to do.
pub async fn run(config: Config) -> anyhow::Result<()> {
    // What is in use by another agent is found before anything is touched.
    let listener = api::listen(&config.socket)?;
    let served = serve(config.clone(), listener).await;
    // A later agent makes its own; one that is there says that someone listens.
    let _ = std::fs::remove_file(&config.socket);
    served
}

async fn serve(config: Config, listener: tokio::net::UnixListener) -> anyhow::Result<()> {
    let web = http::listen(config.http).await?;
    let id = clock::boot_id().context("cannot read the boot id; is /proc mounted?")?;
    let boot = Boot { id, now: Now::read() };
    let store = open_store(&config.state_dir, &boot)?;
    let health = Arc::new(Health::default());
    let metrics = Arc::new(Metrics::new().context("the metrics' definitions")?);
    let hub = Arc::new(Hub::new(store.epoch()));
    let live = Arc::new(LiveSet::default());
    let gateways =
        config.pools.iter().filter_map(|pool| Some((pool.segment().clone(), pool.gateway()?)));
    let bindings = Arc::new(Bindings::new(gateways, health.clone()));
    // Ids grow over restarts, as the epoch does.
    let mut incidents = Incidents::new(config.conflict.quiet, (store.epoch() << 32) + 1);
    let (history, past) = History::open(&config.state_dir.join("incidents.db"), &boot.id)?;
    incidents.restore(past);
    let alerts = Arc::new(Alerts::new(incidents, hub.clone(), metrics.clone(), history));
    let observers: Vec<Box<dyn Lifecycle>> = vec![
        Box::new(bindings.clone()),
        Box::new(alerts.clone()),
        Box::new(metrics.clone()),
        Box::new(hub.clone()),
    ];
    let ledger = Ledger::start(config.pools.clone(), store, live.clone(), observers)?;

    let feed = Feed::start(ledger.clone(), health.clone());
    let prefixes =
        config.pools.iter().map(|pool| (pool.segment().clone(), pool.prefix())).collect();
    let (observer, handle) = Observer::start(Parts {
        bpffs: config.bpffs.clone(),
        bridges: config.bridges.clone(),
        prefixes,
        conflict: config.conflict,
        live: live.clone(),
        alerts: alerts.clone(),
        bindings: bindings.clone(),
        health: health.clone(),
        feed: feed.clone(),
    })
    .await?;
    let watching = tokio::spawn(observer.run());
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
    let ended = until_stopped(grpc, web, watching).await;
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    stop.send_replace(true);
    boot.abort();
    ledger.shutdown().await;
    tracing::info!("stopped; the program goes on watching");
    ended
}

fn open_store(state_dir: &Path, boot: &Boot) -> anyhow::Result<Store> {
    std::fs::create_dir_all(state_dir)
        .with_context(|| format!("cannot make state_dir {}", state_dir.display()))?;
    Ok(Store::open(&state_dir.join("leases.db"), boot)?)
}

/// The observer has read ports, host addresses and maps; the ledger looks at every lease with that
/// evidence before the first allocation.
async fn boot_pass(config: Config, feed: Feed, health: Arc<Health>) {
    let pass = feed.ask(Command::RecheckAll);
    match tokio::time::timeout(config.boot_timeout, pass).await {
        Ok(Ok(_)) => return health.boot_pass_ended(),
        Ok(Err(refusal)) => health.degraded("boot pass", &refusal.to_string()),
        Err(_) => health.degraded("boot pass", "it takes longer than allocate.boot_timeout"),
    }
    if config.when_degraded == WhenDegraded::Allow {
        health.boot_pass_ended();
    }
}

/// Waits for a signal, or for a part that ended by itself.
async fn until_stopped(
    grpc: JoinHandle<Result<(), api::ServeError>>,
    web: JoinHandle<std::io::Result<()>>,
    watching: JoinHandle<()>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = grpc => Ok(ended.context("the gRPC server panicked")??),
        ended = web => ended.context("the HTTP server panicked")?.context("the HTTP server"),
        ended = watching => Err(ended.map_or_else(Into::into, |()| anyhow::anyhow!("the observer ended"))),
    }
}
