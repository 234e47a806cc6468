//! A node that reboots again and again with all of its leases out: nobody releases them, and nothing
//! is left of those who had them.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::{collections::BTreeSet, num::NonZeroU32, path::Path, sync::Arc, time::Duration};

use futures_util::future::join_all;
use guard_agent::{
    alerts::Alerts,
    clock::Now,
    health::Health,
    history::History,
    hub::Hub,
    incident::{Flaps, Incidents},
    inventory::{Settings as Asked, Sources, Told},
    lease::{
        Lease, Pool, PoolSpec, Pools,
        command::{Allocate, Command, Reply},
    },
    ledger::Ledger,
    live::{LiveSet, PortName},
    mac::Mac,
    metrics::Metrics,
    proto::directory::{
        GetRequest, GetResponse, ListRequest, ListResponse, Sandbox, State, directory_server,
    },
    reconcile::{Ask, Parts, Reconciler, Settings},
    segment::Segment,
    store::{Boot, Store},
    supervisor::Supervisor,
};
use parking_lot::Mutex;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::{Request, Response, Status, transport::Server};

const REBOOTS: u32 = 300;
const LEASES: u32 = 100;

/// A controller's directory, which lists what runs.
#[derive(Clone, Default)]
struct Directory(Arc<Mutex<BTreeSet<String>>>);

#[tonic::async_trait]
impl directory_server::Directory for Directory {
    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let running = self.0.lock();
        let sandboxes = running.iter().map(|name| alive(name)).collect();
        Ok(Response::new(ListResponse { sandboxes }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let running = self.0.lock();
        let sandbox = running.get(&request.into_inner().sandbox).map(|name| alive(name));
        Ok(Response::new(GetResponse { sandbox }))
    }
}

fn alive(name: &str) -> Sandbox {
    Sandbox { sandbox: name.to_owned(), state: State::Alive.into(), ..Sandbox::default() }
}

/// The agent's parts in one boot.
struct Node {
    ledger: Ledger,
    live: Arc<LiveSet>,
    reconciler: Reconciler,
}

impl Node {
    fn boot(number: u32, store: &Path, directory: &Path) -> Self {
        let boot = Boot { id: format!("boot-{number}"), now: Now::read() };
        let store = Store::open(store, &boot).unwrap();
        let segment = Segment::new("br0", 0);
        let mut spec = PoolSpec::new("p", segment.clone(), "10.0.0.0/24".parse().unwrap());
        spec.cooldown = Duration::ZERO;
        let pools = Pools::new(vec![Pool::new(spec).unwrap()]).unwrap();
        let (live, health) = (Arc::new(LiveSet::default()), Arc::new(Health::default()));
        let changes = live.changes().clone();
        let ledger =
            Ledger::start(pools.clone(), store, live.clone(), changes, Vec::new()).unwrap();
        live.set_watched(&segment.bridge, true);
        live.boot_pass_ended();
        let told = Told {
            live: live.clone(),
            health: health.clone(),
            segments: Arc::new([segment]),
            alerts: alerts(),
        };
        let asked = Asked { containerd: None, directory: Some(directory.to_owned()) };
        let reconciler = Reconciler::new(Parts {
            // Each pass counts.
            settings: Settings { interval: Duration::ZERO, misses: 3, max_reap_share: 0.2 },
            ledger: ledger.clone(),
            live: live.clone(),
            sources: Arc::new(Sources::start(asked, &told, &Supervisor::new().0)),
            health,
            metrics: Arc::new(Metrics::new().unwrap()),
            bridges: vec!["br0".into()],
            pools,
        });
        Self { ledger, live, reconciler }
    }

    /// Gives a sandbox a lease; every second one has its port by name and number.
    async fn start(&self, boot: u32, number: u32) -> Arc<Lease> {
        let is_bound = number.is_multiple_of(2);
        let (name, ifindex) = (format!("veth{number}"), 1000 + number);
        let port = PortName { interface: name.clone().into(), bridge: "br0".into(), uplink: false };
        self.live.port_added(ifindex, port);
        let [a, b, c, d] = number.to_be_bytes();
        let allocate = Allocate {
            pools: vec!["p".into()],
            sandbox: sandbox(boot, number).into(),
            mac: is_bound.then_some(Mac([2, 0, a, b, c, d])),
            interface: is_bound.then(|| name.into()),
            ifindex: is_bound.then_some(ifindex),
            ..Allocate::default()
        };
        let lease = one(self.ledger.call(Command::Allocate(allocate)).await.unwrap());
        one(self.ledger.call(Command::Confirm(lease.generation)).await.unwrap())
    }

    async fn reaped(&self) -> usize {
        let report = self.reconciler.pass(Ask::default()).await.unwrap();
        assert_eq!(report.result(), "done", "{:?}", report.why());
        report.reaped.len()
    }
}

/// Incidents that nobody looks at.
fn alerts() -> Arc<Alerts> {
    let minute = Duration::from_secs(60);
    let incidents = Incidents::new(minute, Flaps::new(minute, NonZeroU32::MIN), 1);
    let (hub, metrics) = (Arc::new(Hub::new(1, [])), Arc::new(Metrics::new().unwrap()));
    let (history, _) = History::open(Path::new(":memory:"), "boot", &Supervisor::new().0).unwrap();
    Arc::new(Alerts::new(incidents, hub, metrics, history))
}

fn sandbox(boot: u32, number: u32) -> String {
    format!("sandbox-{boot}-{number}")
}

fn one(reply: Reply) -> Arc<Lease> {
    let Reply::Leases(mut leases) = reply else { unreachable!("a lease was asked for") };
    leases.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_reboots_leave_no_lease_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (store, socket) = (dir.path().join("leases.db"), dir.path().join("directory.sock"));
    let directory = Directory::default();
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    let service = directory_server::DirectoryServer::new(directory.clone());
    let serving = Server::builder().add_service(service);
    tokio::spawn(serving.serve_with_incoming(UnixListenerStream::new(listener)));

    let mut highest = 0;
    for boot in 0..REBOOTS {
        let node = Node::boot(boot, &store, &socket);
        let had = if boot == 0 { 0 } else { LEASES as usize };
        assert_eq!(node.ledger.reservations().await.unwrap().len(), had, "boot {boot}");
        // Slow and sure, and without consent: whoever had them has ended with their boot.
        assert_eq!((node.reaped().await, node.reaped().await), (0, 0), "boot {boot}");
        assert_eq!(node.reaped().await, had, "boot {boot}");
        node.ledger.call(Command::Tick).await.unwrap();
        let pool = &node.ledger.pools().await.unwrap()[0];
        assert_eq!(pool.free, pool.capacity, "boot {boot}: {pool:?}");

        let names = (0..LEASES).map(|number| sandbox(boot, number));
        directory.0.lock().extend(names);
        let leases = join_all((0..LEASES).map(|number| node.start(boot, number))).await;
        let addresses: BTreeSet<_> = leases.iter().map(|lease| lease.address).collect();
        assert_eq!(addresses.len(), LEASES as usize);
        assert!(leases.iter().all(|lease| lease.generation > highest), "boot {boot}");
        highest = leases.iter().map(|lease| lease.generation).max().unwrap();
        assert_eq!(node.reaped().await, 0);
        assert_eq!(node.ledger.check().await.unwrap(), Vec::<String>::new());
        node.ledger.shutdown().await;
        directory.0.lock().clear();
    }
}
