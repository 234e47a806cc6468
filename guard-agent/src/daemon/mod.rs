//! The daemon: puts the parts together, in the order in which they need each other, runs until it is
//! told to stop or one of them ends, and takes them down in the reverse order.

mod boot;
mod build;
pub mod capabilities;
pub mod files;
mod journald;
mod liveness;
pub mod log;
pub mod malloc;
mod reload;
mod state_dir;

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
    time::timeout,
};

use self::build::Leases;
pub use self::state_dir::keep_to_ourselves;
use crate::{
    clock,
    config::Config,
    daemon::{liveness::Liveness, reload::Reloader},
    datapath::{self, Kernel},
    enforcement::{self, Enforcement},
    health::Health,
    inventory::{Publisher, Sources},
    observer::{self, Handle, Observer},
    owners::fence::{self, GenerationFence},
    reconcile::{self, Reconciler},
    server::{
        self, Door, Passed,
        http::{self, Http},
    },
    store::Boot,
    supervisor::{PartEnded, Supervisor},
    watchdog::{self, Watchdog},
};

/// How long the store may take to be closed: less than a service manager waits before it kills. What
/// hangs then, such as a disk, would keep an agent that lost a part from being started again.
const STOP: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or SIGINT; what callers ask for, on the threads of `api`.
///
/// # Errors
/// What is missing or wrong on this machine, and what to do; or which part of the agent ended.
pub async fn run(path: &Path, config: Config, api: &runtime::Handle) -> anyhow::Result<()> {
    // Before anyone can know that we are there: until then a signal ends us on the spot.
    let signals = Signals::listen()?;
    // What is in use by another agent is found before anything is touched.
    let mut passed = Passed::all();
    let mut listen = |path| server::listen(path, &config.access, &mut passed);
    let door = listen(&config.socket)?;
    let readers = config.reader_socket.as_deref().map(listen).transpose()?;
    let health = Arc::new(Health::default());
    let web = http::open(config.http.clone(), &mut passed, &health);
    passed.warn_of_others();
    remark(&config);
    serve(path, Arc::new(config), health, (door, readers, web, api), signals).await
}

/// Says what of the configuration is taken otherwise than it is written.
fn remark(config: &Config) {
    for remark in &config.remarks {
        tracing::warn!("configuration: {remark}");
    }
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
    config: Arc<Config>,
    health: Arc<Health>,
    (door, readers, web, api): (Door, Option<Door>, Http, &runtime::Handle),
    signals: Signals,
) -> anyhow::Result<()> {
    let id = clock::boot_id().context("cannot read the boot id; is /proc mounted?")?;
    let boot = Boot { id, now: clock::now() };
    let (supervisor, mut first_end) = Supervisor::new();
    // Whoever has it has the maps of owners and of generations.
    let _pins = datapath::claim(&config.bpffs)?;
    let generations = GenerationFence::open(&config.bpffs, health.clone())?;
    // The kernel verifies the program while the leases are read.
    let bpffs = config.bpffs.clone();
    let apart = (fence::NAME, fence::pin(&bpffs));
    let kernel = tokio::task::spawn_blocking(move || Kernel::load(&bpffs, apart));
    let leases = Leases::open(&config, &boot, generations, health, &supervisor).await?;
    let Signals { terminate, interrupt, hangup } = signals;
    let started = async {
        let kernel = kernel.await.context("loading the program panicked")??;
        let faces = Faces { path, door, readers, web, api, hangup };
        Running::start(&config, &leases, kernel, faces, &supervisor).await
    };
    let ended = match started.await {
        Ok(running) => {
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
            tracing::info!(socket = %config.socket.display(), http = %config.http, "serving");
            let ended = until_stopped([terminate, interrupt], &mut first_end).await;
            running.stop();
            ended
        }
        // Where one has ended already, that is why another could not be started.
        Err(error) => Err(first_end.try_recv().map_or(error, lost)),
    };
    if timeout(STOP, leases.ledger.shutdown()).await.is_err() {
        tracing::error!("the store has not been closed for {STOP:?}; is the disk stuck?");
    }
    leases.reporter.write_down();
    tracing::info!("stopped; the program goes on watching");
    ended
}

/// What the agent is reached by.
struct Faces<'a> {
    /// The configuration file, read anew on SIGHUP.
    path: &'a Path,
    hangup: Signal,
    door: Door,
    /// Where nobody is more than a reader.
    readers: Option<Door>,
    web: Http,
    /// Where whoever reaches it is served.
    api: &'a runtime::Handle,
}

/// All parts, running.
struct Running {
    stop: watch::Sender<bool>,
    /// Those that would go on asking a ledger that has stopped.
    tasks: Vec<AbortHandle>,
    _liveness: oneshot::Sender<()>,
}

impl Running {
    async fn start(
        config: &Arc<Config>,
        leases: &Leases,
        mut kernel: Kernel,
        faces: Faces<'_>,
        supervisor: &Supervisor,
    ) -> anyhow::Result<Self> {
        let Leases { health, metrics, bus, live, owners, reporter, ledger } = leases;
        let Faces { path, hangup, door, readers, web, api } = faces;
        let enforcement = open_enforcement(config, leases, &mut kernel)?;
        let (observer, handle) =
            Observer::start(kernel, observer_parts(config, leases, supervisor)).await?;
        supervisor.spawn("observer", observer.run());
        enforcement.begin(handle.ports.clone());
        supervisor.spawn("enforcement", enforcement.clone().run());
        let liveness = start_liveness(leases, &handle, api, supervisor)?;
        let (reconciler, watchdog) = judges(config, leases, supervisor);
        let (current, settings) = watch::channel(config.clone());
        let reloader = Reloader {
            path: path.to_owned(),
            current,
            ledger: ledger.clone(),
            bus: bus.clone(),
            metrics: metrics.clone(),
            enforcement: enforcement.clone(),
            reconciler: reconciler.clone(),
        };
        let store = boot::watch_store(ledger.trouble(), health.clone());
        let mut tasks = boot::start_passes(config, leases, &reconciler, &watchdog, supervisor);
        tasks.push(supervisor.spawn("watch over the store", store));
        tasks.push(supervisor.spawn("reloader", reloader.run(hangup)));
        let (stop, stopping) = watch::channel(false);
        let deps = Arc::new(server::Deps {
            config: settings,
            ledger: ledger.clone(),
            observer: handle,
            live: live.clone(),
            owners: owners.clone(),
            reporter: reporter.clone(),
            bus: bus.clone(),
            enforcement,
            reconciler,
            watchdog,
            health: health.clone(),
            metrics: metrics.clone(),
            stopping,
        });
        let _there = api.enter();
        supervisor.spawn_fallible("gRPC server", server::serve(deps.clone(), door, readers));
        supervisor.spawn("HTTP server", http::serve(deps, web));
        Ok(Self { stop, tasks, _liveness: liveness })
    }

    fn stop(self) {
        let Self { stop, tasks, _liveness } = self;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        stop.send_replace(true);
        for task in tasks {
            task.abort();
        }
    }
}

/// Before any port is known: its first policy is the one that is configured.
fn open_enforcement(
    config: &Config,
    leases: &Leases,
    kernel: &mut Kernel,
) -> anyhow::Result<Arc<Enforcement>> {
    let deps = enforcement::Deps {
        modes: kernel.modes()?,
        slots: kernel.slots(config.bridges.iter().map(|bridge| &*bridge.name))?,
        drops: kernel.drops()?,
        owners: leases.owners.clone(),
        reporter: leases.reporter.clone(),
        health: leases.health.clone(),
        state_dir: config.state_dir.clone(),
    };
    Ok(Arc::new(Enforcement::open(deps, config)))
}

fn observer_parts(config: &Config, leases: &Leases, supervisor: &Supervisor) -> observer::Deps {
    let Leases { health, live, owners, reporter, .. } = leases;
    observer::Deps {
        bpffs: config.bpffs.clone(),
        bridges: config.bridges.clone(),
        prefixes: config.prefixes(),
        first_come: config.first_come(),
        pools: config
            .pools
            .iter()
            .map(|pool| (pool.name().clone(), pool.segment().clone()))
            .collect(),
        conflict: config.conflict,
        quota: config.quota,
        live: live.clone(),
        reporter: reporter.clone(),
        owners: owners.clone(),
        health: health.clone(),
        supervisor: supervisor.clone(),
    }
}

/// What asks the sources, and judges what is over.
fn judges(
    config: &Config,
    leases: &Leases,
    supervisor: &Supervisor,
) -> (Arc<Reconciler>, Arc<Watchdog>) {
    let Leases { health, metrics, live, reporter, ledger, .. } = leases;
    let publisher = Publisher {
        live: live.clone(),
        health: health.clone(),
        segments: config.segments().into(),
        reporter: reporter.clone(),
    };
    let sources = Arc::new(Sources::start(config.sources.clone(), &publisher, supervisor));
    let watchdog = Watchdog::new(watchdog::Deps {
        settings: config.watchdog,
        places: config.sources.clone(),
        ledger: ledger.clone(),
        live: live.clone(),
        sources: sources.clone(),
        health: health.clone(),
        metrics: metrics.clone(),
    });
    let reconciler = Reconciler::new(reconcile::Deps {
        settings: config.reconcile,
        grace: config.watchdog.grace,
        ledger: ledger.clone(),
        live: live.clone(),
        sources,
        health: health.clone(),
        metrics: metrics.clone(),
        pools: config.pools.clone(),
    });
    (Arc::new(reconciler), Arc::new(watchdog))
}

fn start_liveness(
    leases: &Leases,
    observer: &Handle,
    api: &runtime::Handle,
    supervisor: &Supervisor,
) -> anyhow::Result<oneshot::Sender<()>> {
    let liveness = Liveness {
        ledger: leases.ledger.clone(),
        observer: observer.heartbeat.clone(),
        tasks: [runtime::Handle::current(), api.clone()],
        health: leases.health.clone(),
    };
    liveness.start(supervisor).context("starting the thread that watches the others")
}

/// Waits for a signal, or for a part that ended by itself.
async fn until_stopped(
    [mut terminate, mut interrupt]: [Signal; 2],
    first_end: &mut mpsc::Receiver<PartEnded>,
) -> anyhow::Result<()> {
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        Some(ended) = first_end.recv() => Err(lost(ended)),
    }
}

/// The agent ends with a part that it has lost (leases.md rule 13).
fn lost(ended: PartEnded) -> anyhow::Error {
    let PartEnded { name, why } = &ended;
    tracing::error!(part = name, why, "a part of the agent has ended, and the agent ends with it");
    ended.into()
}
