//! The agent's parts without the kernel, and a controller's directory that says what a test wants.

use std::{collections::BTreeMap, num::NonZeroU32, path::Path, sync::Arc, time::Duration};

use guard_agent::{
    clock,
    config::inventory::{self as config, Settings as Asked},
    events::{EventBus, IncidentLog, IncidentReporter},
    health::Health,
    inventory::{Publisher, Sources},
    ledger::Ledger,
    live::SharedEvidence,
    metrics::Metrics,
    reconcile::{Ask, Deps, Reconciler, Report},
    store::{Boot, Store},
    supervisor::Supervisor,
};
use guard_api::proto::directory::{
    GetRequest, GetResponse, ListRequest, ListResponse, Sandbox, State, directory_server,
};
use guard_core::{
    incident::{Flaps, Incidents},
    lease::{
        Lease, Pool, PoolSpec, Pools,
        command::{Allocate, Command, Reply},
    },
    reconcile::Settings,
    segment::Segment,
};
use parking_lot::Mutex;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// What a directory says.
#[derive(Default)]
pub(crate) struct Said {
    /// Its index.
    pub listed: Vec<Sandbox>,
    /// Its word about each run, by sandbox and lifecycle.
    pub found: BTreeMap<(String, String), State>,
}

/// A controller's directory.
#[derive(Clone, Default)]
pub(crate) struct Directory(Arc<Mutex<Said>>);

#[tonic::async_trait]
impl directory_server::Directory for Directory {
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        Ok(Response::new(ListResponse { sandboxes: self.0.lock().listed.clone() }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let GetRequest { sandbox, lifecycle } = request.into_inner();
        let said = self.0.lock();
        let of_sandbox = said.found.iter().filter(|((name, run), _)| {
            *name == sandbox && (lifecycle.is_empty() || *run == lifecycle)
        });
        // Whichever run there is, and rather one that lives.
        let found = of_sandbox.min_by_key(|(_, state)| **state != State::Alive);
        let sandbox = found.map(|((name, run), state)| listed(name, run, *state));
        Ok(Response::new(GetResponse { sandbox }))
    }
}

impl Directory {
    pub(crate) fn serve(socket: &Path) -> Self {
        let directory = Self::default();
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let service = directory_server::DirectoryServer::new(directory.clone());
        let serving = Server::builder().add_service(service);
        tokio::spawn(serving.serve_with_incoming(UnixListenerStream::new(listener)));
        directory
    }

    /// Changes what it says.
    pub(crate) fn say(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.0.lock());
    }
}

/// An entry of the index.
pub(crate) fn listed(sandbox: &str, lifecycle: &str, state: State) -> Sandbox {
    let (sandbox, lifecycle) = (sandbox.to_owned(), lifecycle.to_owned());
    Sandbox { sandbox, lifecycle, state: state.into(), since: None }
}

/// The agent's parts in one boot.
pub(crate) struct Node {
    pub ledger: Ledger,
    pub live: Arc<SharedEvidence>,
    pub reconciler: Reconciler,
}

impl Node {
    /// The agent's first or next start in a boot.
    pub(crate) fn start(number: u32, store: &Path, directory: Option<&Path>) -> Self {
        let boot = Boot { id: format!("boot-{number}"), now: clock::now() };
        let store = Store::open(store, &boot).unwrap();
        let segment = Segment::new("br0", 0);
        let mut spec = PoolSpec::new("p", segment.clone(), "10.0.0.0/24".parse().unwrap());
        spec.cooldown = Duration::ZERO;
        let pools = Pools::new(vec![Pool::new(spec).unwrap()]).unwrap();
        let (live, health) = (Arc::new(SharedEvidence::default()), Arc::new(Health::default()));
        let changes = live.changes().clone();
        let ledger =
            Ledger::start(pools.clone(), store, live.clone(), changes, Vec::new()).unwrap();
        live.set_watched(&segment.bridge, true);
        live.boot_pass_ended();
        let publisher = Publisher {
            live: live.clone(),
            health: health.clone(),
            segments: Arc::new([segment]),
            reporter: reporter(),
        };
        let directory =
            directory.map(|socket| config::Directory { socket: socket.to_owned(), uid: None });
        let asked = Asked { containerd: None, directory };
        let reconciler = Reconciler::new(Deps {
            // Each pass counts.
            settings: Settings { interval: Duration::ZERO, misses: 3, max_reap_share: 0.2 },
            grace: Duration::ZERO,
            ledger: ledger.clone(),
            live: live.clone(),
            sources: Arc::new(Sources::start(asked, &publisher, &Supervisor::new().0)),
            health,
            metrics: Arc::new(Metrics::new().unwrap()),
            pools,
        });
        Self { ledger, live, reconciler }
    }

    /// Gives a run of a sandbox the lease that it has, or a new one. Nothing is bound to it.
    pub(crate) async fn admit(&self, sandbox: &str, lifecycle: &str) -> Arc<Lease> {
        let allocate = Allocate {
            pools: vec!["p".into()],
            sandbox: sandbox.into(),
            lifecycle: lifecycle.into(),
            confirmed: true,
            ..Allocate::default()
        };
        one(self.ledger.call(Command::Allocate(allocate)).await.unwrap())
    }

    /// Waits until nothing is left in the pool.
    pub(crate) async fn await_free(&self) {
        let all_free = async {
            loop {
                let pool = &self.ledger.pools().await.unwrap()[0];
                if pool.free == pool.capacity {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let free = tokio::time::timeout(Duration::from_secs(20), all_free).await;
        assert!(free.is_ok(), "{:?}", self.ledger.pools().await);
    }

    pub(crate) async fn pass(&self) -> Report {
        self.reconciler.pass(Ask::default()).await.unwrap()
    }
}

pub(crate) fn one(reply: Reply) -> Arc<Lease> {
    let Reply::Leases(mut leases) = reply else { unreachable!("a lease was asked for") };
    leases.remove(0)
}

/// Incidents that nobody looks at.
fn reporter() -> Arc<IncidentReporter> {
    let minute = Duration::from_secs(60);
    let incidents = Incidents::new(minute, Flaps::new(minute, NonZeroU32::MIN), 1);
    let (bus, metrics) = (Arc::new(EventBus::new(1, [])), Arc::new(Metrics::new().unwrap()));
    let (log, _) = IncidentLog::open(Path::new(":memory:"), "boot", &Supervisor::new().0).unwrap();
    Arc::new(IncidentReporter::new(incidents, bus, metrics, log, Vec::new()))
}
