//! A node that reboots again and again with all of its leases out: nobody releases them, and nothing
//! is left of those who had them.
#![expect(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use futures_util::future::join_all;
use guard_agent::{
    clock::{self, Now},
    evidence::Station,
    feed::Feed,
    health::Health,
    inventory::{Settings as Asked, Sources, Told},
    lease::{
        Lease, Pool, PoolSpec, Pools,
        command::{Allocate, Command, Reply},
    },
    ledger::Ledger,
    live::{Claim, LiveSet, PortName, Strength},
    mac::Mac,
    metrics::Metrics,
    proto::directory::{
        GetRequest, GetResponse, ListRequest, ListResponse, Sandbox, State, directory_server,
    },
    reconcile::{Ask, Parts, Reconciler, Report, Settings},
    segment::Segment,
    store::{Boot, Store},
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

impl Directory {
    fn serve(socket: &Path) -> Self {
        let directory = Self::default();
        let listener = tokio::net::UnixListener::bind(socket).unwrap();
        let service = directory_server::DirectoryServer::new(directory.clone());
        let serving = Server::builder().add_service(service);
        tokio::spawn(serving.serve_with_incoming(UnixListenerStream::new(listener)));
        directory
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
    /// The agent's first or next start in a boot.
    fn start(number: u32, store: &Path, directory: Option<&Path>) -> Self {
        let boot = Boot { id: format!("boot-{number}"), now: Now::read() };
        let store = Store::open(store, &boot).unwrap();
        let segment = Segment::new("br0", 0);
        let mut spec = PoolSpec::new("p", segment.clone(), "10.0.0.0/24".parse().unwrap());
        spec.cooldown = Duration::ZERO;
        let pools = Pools::new(vec![Pool::new(spec).unwrap()]).unwrap();
        let (live, health) = (Arc::new(LiveSet::default()), Arc::new(Health::default()));
        let ledger = Ledger::start(pools.clone(), store, live.clone(), Vec::new()).unwrap();
        let told = Told {
            live: live.clone(),
            feed: Feed::start(ledger.clone(), health.clone()),
            health: health.clone(),
            segments: Arc::new([segment]),
        };
        let asked = Asked { containerd: None, directory: directory.map(Path::to_owned) };
        let reconciler = Reconciler::new(Parts {
            // Each pass counts.
            settings: Settings { interval: Duration::ZERO, misses: 3, max_reap_share: 0.2 },
            grace: Duration::ZERO,
            ledger: ledger.clone(),
            live: live.clone(),
            sources: Arc::new(Sources::start(asked, &told)),
            health,
            metrics: Arc::new(Metrics::new().unwrap()),
            bridges: vec!["br0".into()],
            pools,
        });
        Self { ledger, live, reconciler }
    }

    /// Gives a sandbox a lease; every second one has its port by name and number.
    async fn admit(&self, boot: u32, number: u32) -> Arc<Lease> {
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

    /// Gives sandboxes leases that nothing is bound to.
    async fn admit_unbound(&self, names: &[&str]) {
        for name in names {
            let allocate = Allocate {
                pools: vec!["p".into()],
                sandbox: (*name).into(),
                confirmed: true,
                ..Allocate::default()
            };
            one(self.ledger.call(Command::Allocate(allocate)).await.unwrap());
        }
    }

    /// A frame of who has the lease.
    fn claims(&self, lease: &Lease) {
        let port = PortName { interface: "veth".into(), bridge: "br0".into(), uplink: false };
        self.live.port_added(7, port);
        let station =
            Station { mac: Mac([2, 0, 0, 0, 0, 7]), interface: "veth".into(), ifindex: 7 };
        let seen = clock::monotonic();
        let claim = Claim { station, strength: Strength::Assert, first: seen, seen };
        assert!(self.live.claimed(&lease.segment, lease.address, claim));
    }

    async fn pass(&self) -> Report {
        self.reconciler.pass(Ask::default()).await.unwrap()
    }

    async fn reaped(&self) -> usize {
        let report = self.pass().await;
        assert_eq!(report.result(), "done", "{:?}", report.why());
        report.reaped.len()
    }
}

fn sandbox(boot: u32, number: u32) -> String {
    format!("sandbox-{boot}-{number}")
}

fn one(reply: Reply) -> Arc<Lease> {
    let Reply::Leases(mut leases) = reply else { unreachable!("a lease was asked for") };
    leases.remove(0)
}

/// Owners of leases, oldest first.
fn owners(leases: &[Arc<Lease>]) -> Vec<&str> {
    let owner = |lease: &&Arc<Lease>| lease.generation;
    let mut leases: Vec<_> = leases.iter().collect();
    leases.sort_by_key(owner);
    leases.iter().map(|lease| &*lease.owner.as_ref().unwrap().sandbox).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_hundred_reboots_leave_no_lease_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (store, socket) = (dir.path().join("leases.db"), dir.path().join("directory.sock"));
    let directory = Directory::serve(&socket);

    let mut highest = 0;
    for boot in 0..REBOOTS {
        let node = Node::start(boot, &store, Some(&socket));
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
        let leases = join_all((0..LEASES).map(|number| node.admit(boot, number))).await;
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

const TEN: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

#[tokio::test]
async fn rule_6_whose_owner_has_asked_in_this_boot_is_of_this_boot() {
    let dir = tempfile::tempdir().unwrap();
    let (store, socket) = (dir.path().join("leases.db"), dir.path().join("directory.sock"));
    let directory = Directory::serve(&socket);
    let start = |boot| Node::start(boot, &store, Some(&socket));
    let node = start(0);
    node.admit_unbound(&TEN).await;
    node.admit_unbound(&["dead"]).await;
    node.ledger.shutdown().await;

    // The ten come back with the node and ask again; the generations are those of before.
    let node = start(1);
    node.admit_unbound(&TEN).await;
    // That the agent has been restarted since takes nothing from what it knows.
    node.ledger.shutdown().await;
    let node = start(1);
    // The directory loses its list: what says so of the dead one says so of all.
    directory.0.lock().clear();
    assert_eq!((node.reaped().await, node.reaped().await), (0, 0));
    let report = node.pass().await;
    assert_eq!((report.result(), owners(&report.reaped)), ("blocked", vec!["dead"]));
    assert_eq!(owners(&report.blocked.unwrap().leases), TEN);
    node.ledger.shutdown().await;
}

#[tokio::test]
async fn rule_6_after_a_reboot_what_nothing_speaks_for_goes_also_where_nobody_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("leases.db");
    let node = Node::start(0, &store, None);
    node.admit_unbound(&TEN).await;
    node.admit_unbound(&["again", "seen"]).await;
    let report = node.pass().await;
    assert_eq!((report.silent.len(), report.unverifiable.len()), (0, 12), "within a boot");
    node.ledger.shutdown().await;

    let node = Node::start(1, &store, None);
    node.admit_unbound(&["again"]).await;
    let leases = node.ledger.reservations().await.unwrap();
    let seen = leases.iter().find(|lease| owners(&[(*lease).clone()]) == ["seen"]).unwrap();
    node.claims(seen);
    // Slow and sure, one miss in each pass, and without consent, however many they are.
    for misses in 1..=3 {
        let report = node.pass().await;
        assert_eq!(owners(&report.silent), TEN);
        assert!(report.silent.iter().all(|lease| lease.misses == misses));
        assert_eq!(owners(&report.unverifiable), ["again"]);
        assert_eq!(report.reaped.len(), if misses == 3 { 10 } else { 0 });
    }
    assert_eq!(owners(&node.ledger.reservations().await.unwrap()), ["again", "seen"]);
    node.ledger.shutdown().await;
}
