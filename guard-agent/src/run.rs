//! The daemon: puts the parts together, in the order in which they need each other, and takes them
//! down in the reverse.

use std::{
    io::ErrorKind,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

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
    generations::{self, Generations},
    health::{BOOT, Health, STORE},
    history::{History, HistoryError},
    http,
    hub::Hub,
    incident::{Flaps, Incident, Incidents},
    inventory::{Awaited, Sources, Told},
    lease::{Generation, command::Command},
    ledger::{self, Ledger, Lifecycle, Loss},
    live::LiveSet,
    memory,
    metrics::Metrics,
    observer::{Kernel, Observer, Parts},
    reconcile::{self, Ask, Reconciler},
    reload::Reloader,
    store::{Boot, Store},
    vitals::Vitals,
    watchdog::{self, Watchdog},
};

/// How soon the boot pass is tried again.
const BOOT_INTERVAL: Duration = Duration::from_secs(1);

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// What is missing or wrong on this machine, and what to do.
pub async fn run(path: &Path, config: Config) -> anyhow::Result<()> {
    // Before anyone can know that we are there: until then a signal ends us on the spot.
    let signals = Signals::listen()?;
    // What is in use by another agent is found before anything is touched.
    let listener = api::listen(&config.socket, &config.access)?;
    let served = serve(path, config.clone(), listener, signals).await;
    // A later agent makes its own; one that is there says that someone listens.
    let _ = std::fs::remove_file(&config.socket);
    served
}

/// What asks us to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?,
            hangup: signal(SignalKind::hangup()).context("cannot wait for SIGHUP")?,
        })
    }
}

async fn serve(
    path: &Path,
    config: Config,
    listener: tokio::net::UnixListener,
    signals: Signals,
) -> anyhow::Result<()> {
    let web = http::listen(config.http).await?;
    let id = clock::boot_id().context("cannot read the boot id; is /proc mounted?")?;
    let boot = Boot { id, now: Now::read() };
    let health = Arc::new(Health::default());
    let generations = Generations::open(&config.bpffs, health.clone())?;
    // The kernel verifies the program while the leases are read.
    let bpffs = config.bpffs.clone();
    let apart = (generations::NAME, generations::pin(&bpffs));
    let kernel = tokio::task::spawn_blocking(move || Kernel::load(&bpffs, apart));
    let opened = open_store(&config.state_dir, &boot, &generations.known())?;
    let metrics = Arc::new(Metrics::new().context("the metrics' definitions")?);
    metrics.prepare(&config);
    let epoch = match &opened {
        Ok(store) => store.epoch(),
        Err(loss) => loss.epoch,
    };
    let subscribers = config.subscribers.iter().map(|(name, _)| name.clone());
    let hub = Arc::new(Hub::new(epoch, subscribers));
    let live = Arc::new(LiveSet::default());
    let having = config.pools.iter().map(|pool| (pool.segment().clone(), pool.prefix()));
    live.set_prefixes(having.collect());
    let gateways =
        config.pools.iter().filter_map(|pool| Some((pool.segment().clone(), pool.gateway()?)));
    let bindings = Arc::new(Bindings::new(gateways, health.clone()));
    // Ids grow over restarts, as the epoch does.
    let flaps = Flaps::new(config.conflict.flap_window, config.conflict.flap_count);
    let mut incidents = Incidents::new(config.conflict.quiet, flaps, (epoch << 32) + 1);
    let (history, past) = open_history(&config.state_dir, &boot.id)?;
    incidents.restore(past, boot.now);
    let alerts = Arc::new(Alerts::new(incidents, hub.clone(), metrics.clone(), history));
    let observers: Vec<Box<dyn Lifecycle>> = vec![
        Box::new(generations),
        Box::new(bindings.clone()),
        Box::new(alerts.clone()),
        Box::new(metrics.clone()),
        Box::new(hub.clone()),
    ];
    let (pools, changes) = (config.pools.clone(), live.changes().clone());
    let ledger = match opened {
        Ok(store) => Ledger::start(pools, store, live.clone(), changes, observers)?,
        Err(loss) => Ledger::start_without(pools, loss, live.clone(), changes, observers)?,
    };

    // Before anything can be released.
    ledger.call(Command::Subscribers(config.subscribers.clone())).await?;
    let prefixes =
        config.pools.iter().map(|pool| (pool.segment().clone(), pool.prefix())).collect();
    let kernel = kernel.await.context("loading the program panicked")??;
    let (observer, handle) = Observer::start(
        kernel,
        Parts {
            bpffs: config.bpffs.clone(),
            bridges: config.bridges.clone(),
            prefixes,
            conflict: config.conflict,
            quota: config.quota,
            live: live.clone(),
            alerts: alerts.clone(),
            bindings: bindings.clone(),
            health: health.clone(),
        },
    )
    .await?;
    let watching = tokio::spawn(observer.run());
    let store = tokio::spawn(watch_store(ledger.trouble(), health.clone()));
    let vitals = Vitals {
        ledger: ledger.clone(),
        observer: handle.heartbeat.clone(),
        tasks: tokio::runtime::Handle::current(),
        health: health.clone(),
    };
    let vitals = vitals.start().context("starting the thread that watches the others")?;
    let told = Told {
        live: live.clone(),
        health: health.clone(),
        segments: config.segments().into(),
        alerts: alerts.clone(),
    };
    let sources = Arc::new(Sources::start(config.sources.clone(), &told));
    let watchdog = Arc::new(Watchdog::new(watchdog::Parts {
        settings: config.watchdog,
        places: config.sources.clone(),
        ledger: ledger.clone(),
        live: live.clone(),
        sources: sources.clone(),
        health: health.clone(),
        metrics: metrics.clone(),
    }));
    let reconciler = Arc::new(Reconciler::new(reconcile::Parts {
        settings: config.reconcile,
        ledger: ledger.clone(),
        live: live.clone(),
        sources,
        health: health.clone(),
        metrics: metrics.clone(),
        bridges: config.bridges.iter().map(|bridge| bridge.name.clone()).collect(),
        pools: config.pools.clone(),
    }));
    let boot =
        boot_pass(config.clone(), live.clone(), ledger.clone(), health.clone(), reconciler.clone());
    let reconciling = tokio::spawn({
        let (reconciler, watchdog) = (reconciler.clone(), watchdog.clone());
        async move {
            boot.await;
            tokio::join!(reconciler.run(), watchdog.run());
        }
    });

    let last_alerts = alerts.clone();
    let (current, settings) = watch::channel(Arc::new(config.clone()));
    let Signals { terminate, interrupt, hangup } = signals;
    let reloader = Reloader {
        path: path.to_owned(),
        current,
        ledger: ledger.clone(),
        hub: hub.clone(),
        metrics: metrics.clone(),
        reconciler: reconciler.clone(),
    };
    let reloading = tokio::spawn(reloader.run(hangup));
    let (stop, stopping) = watch::channel(false);
    let context = Arc::new(api::Context {
        config: settings,
        ledger: ledger.clone(),
        observer: handle,
        live,
        bindings,
        alerts,
        hub,
        reconciler,
        watchdog,
        health,
        metrics,
        stopping,
    });
    let grpc = tokio::spawn(api::serve(context.clone(), listener));
    let web = tokio::spawn(http::serve(context.clone(), web));
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    tracing::info!(socket = %config.socket.display(), http = %config.http, "serving");
    let ended = until_stopped([terminate, interrupt], grpc, web, watching).await;
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
    stop.send_replace(true);
    reconciling.abort();
    reloading.abort();
    store.abort();
    drop(vitals);
    ledger.shutdown().await;
    last_alerts.write_down();
    tracing::info!("stopped; the program goes on watching");
    ended
}

/// The store, or why the agent has to do without it. An error is what it cannot do without.
fn open_store(
    state_dir: &Path,
    boot: &Boot,
    given: &[Generation],
) -> anyhow::Result<Result<Store, Loss>> {
    if let Err(error) = std::fs::create_dir_all(state_dir)
        && !matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::ReadOnlyFilesystem)
    {
        let what = format!("cannot make state_dir {}", state_dir.display());
        return Err(anyhow::Error::new(error).context(what));
    }
    let path = state_dir.join("leases.db");
    Ok(match ledger::open(&path, boot, given) {
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

/// Lists the store as degraded while it is not there or cannot be written.
async fn watch_store(mut trouble: watch::Receiver<Option<String>>, health: Arc<Health>) {
    loop {
        let why = trouble.borrow_and_update().clone();
        match why {
            Some(why) => health.degraded(STORE, &why),
            None => health.recovered(STORE),
        }
        if trouble.changed().await.is_err() {
            return;
        }
    }
}

/// Rule 8: the observer has read ports, host addresses and maps, every configured source has
/// answered completely once, and the ledger has looked at every lease with that evidence. Only then
/// is anything handed out.
async fn boot_pass(
    config: Config,
    live: Arc<LiveSet>,
    ledger: Ledger,
    health: Arc<Health>,
    reconciler: Arc<Reconciler>,
) {
    let began = Instant::now();
    let mut why = "it takes longer than allocate.boot_timeout".to_owned();
    loop {
        let left = config.boot_timeout.saturating_sub(began.elapsed());
        // Once it is late it takes as long as it takes.
        let left = if left.is_zero() { Duration::MAX } else { left };
        match tokio::time::timeout(left, look_at_everything(&live, &ledger, &reconciler)).await {
            Ok(Ok(())) => break,
            Ok(Err(reason)) => why = reason,
            Err(_) => {}
        }
        if began.elapsed() >= config.boot_timeout {
            health.degraded(BOOT, &why);
            if config.when_degraded == WhenDegraded::Allow {
                health.boot_pass_ended();
            }
        }
        tokio::time::sleep(BOOT_INTERVAL.min(left)).await;
    }
    health.recovered(BOOT);
    health.boot_pass_ended();
    memory::give_back();
}

async fn look_at_everything(
    live: &LiveSet,
    ledger: &Ledger,
    reconciler: &Reconciler,
) -> Result<(), String> {
    let look = || async {
        ledger.call(Command::RecheckAll).await.map(drop).map_err(|refusal| refusal.to_string())
    };
    // What the observer has read, so that the pass does not miss it.
    look().await?;
    reconciler.pass(Ask::default()).await.map_err(|refusal| refusal.to_string())?;
    if let Some(Awaited { name, why, .. }) = reconciler.sources().unanswered() {
        return Err(format!("{name} has not answered completely yet: {why}"));
    }
    // From here on absence proves something.
    live.boot_pass_ended();
    // What the sources have answered.
    look().await
}

/// Waits for a signal, or for a part that ended by itself.
async fn until_stopped(
    [mut terminate, mut interrupt]: [Signal; 2],
    grpc: JoinHandle<Result<(), api::ServeError>>,
    web: JoinHandle<std::io::Result<()>>,
    watching: JoinHandle<()>,
) -> anyhow::Result<()> {
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        ended = grpc => Ok(ended.context("the gRPC server panicked")??),
        ended = web => ended.context("the HTTP server panicked")?.context("the HTTP server"),
        ended = watching => Err(ended.map_or_else(Into::into, |()| anyhow::anyhow!("the observer ended"))),
    }
}
