use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;
/// Of what the kernel knows while stores come and go.
mod generations;

use guard_core::{
    lease::{Pool, PoolSpec, State, command::Allocate},
    segment::Segment,
};

use crate::{clock, live::tests::all_known, store::Boot};

/// What a hook was told.
#[derive(Default)]
struct Log {
    restored: Vec<Arc<Lease>>,
    changes: Vec<Change>,
}

struct Observer(Arc<Mutex<Log>>);

impl AfterCommit for Observer {
    fn restored(&mut self, leases: &[Arc<Lease>]) {
        self.0.lock().restored = leases.to_vec();
    }

    fn committed(&mut self, changes: &[Change], _: Now) {
        self.0.lock().changes.extend_from_slice(changes);
    }
}

struct Setup {
    dir: TempDir,
    log: Arc<Mutex<Log>>,
}

impl Setup {
    fn new() -> Self {
        Self { dir: TempDir::new().unwrap(), log: Arc::default() }
    }

    fn store(&self) -> Store {
        let boot = Boot { id: "boot".to_owned(), now: clock::now() };
        Store::open(&self.dir.path().join("leases.db"), &boot).unwrap()
    }

    fn start_with(&self, store: Store, spec: impl FnOnce(&mut PoolSpec)) -> Ledger {
        let mut p = PoolSpec::new("p", Segment::new("br0", 0), "10.0.0.0/16".parse().unwrap());
        spec(&mut p);
        let pools = Pools::new(vec![Pool::new(p).unwrap()]).unwrap();
        let view: View = Arc::new(all_known());
        let hook = Box::new(Observer(Arc::clone(&self.log)));
        Ledger::start(pools, store, view, Arc::default(), vec![hook]).unwrap()
    }

    fn start(&self) -> Ledger {
        self.start_with(self.store(), |_| {})
    }
}

fn allocate(sandbox: &str) -> Command {
    Command::Allocate(Allocate {
        pools: vec![Arc::from("p")],
        sandbox: Arc::from(sandbox),
        ..Allocate::default()
    })
}

async fn lease(ledger: &Ledger, sandbox: &str) -> Result<Arc<Lease>, Refusal> {
    match ledger.call(allocate(sandbox)).await? {
        Reply::Leases(leases) => Ok(Arc::clone(&leases[0])),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 32)]
async fn thirty_two_callers_and_no_address_twice() {
    let setup = Setup::new();
    let ledger = setup.start();
    let tasks: Vec<_> = (0..32)
        .map(|client| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                let mut addresses = Vec::new();
                for n in 0..20 {
                    addresses
                        .push(lease(&ledger, &format!("s{client}-{n}")).await.unwrap().address);
                }
                addresses
            })
        })
        .collect();
    let mut seen = HashSet::new();
    for task in tasks {
        for address in task.await.unwrap() {
            assert!(seen.insert(address), "{address} twice");
        }
    }
    assert_eq!(ledger.check().await.unwrap(), Vec::<String>::new());
    assert_eq!(ledger.pools().await.unwrap()[0].count(State::Held), 640);
    assert_eq!(setup.log.lock().changes.len(), 640);
    ledger.shutdown().await;
    assert!(!ledger.is_alive());
    assert_eq!(ledger.call(Command::Tick).await.unwrap_err().reason, Reason::Stopping);

    let ledger = setup.start();
    assert_eq!(setup.log.lock().restored.len(), 640);
    let listed = ledger.leases(LeaseFilter::default()).await.unwrap();
    assert_eq!(listed.iter().map(|(l, _)| l.address).collect::<HashSet<_>>(), seen);
    let again = lease(&ledger, "s0-0").await.unwrap();
    assert!(seen.contains(&again.address));
    ledger.shutdown().await;
}

#[tokio::test]
async fn a_commit_that_fails_is_told_undone_and_passes() {
    let setup = Setup::new();
    let store = setup.store();
    // As with a full disk: what is there can be changed, nothing can be added.
    let pages: i64 =
        store.connection().pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
    store.connection().pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    let ledger = setup.start_with(store, |_| {});
    let mut given = HashSet::new();
    let mut refusals = 0;
    for n in 0..200 {
        match lease(&ledger, &format!("s{n}")).await {
            Ok(lease) => assert!(given.insert(lease.address)),
            Err(refusal) => {
                assert_eq!(refusal.reason, Reason::StoreUnwritable);
                refusals += 1;
            }
        }
    }
    assert!(refusals > 10 && !given.is_empty());
    assert_eq!(ledger.pools().await.unwrap()[0].count(State::Held), given.len() as u64);
    assert_eq!(setup.log.lock().changes.len(), given.len());
    assert_eq!(ledger.check().await.unwrap(), Vec::<String>::new());
    ledger.shutdown().await;
    assert_eq!(setup.store().rows(), given.len() as u64);
}

#[tokio::test]
async fn a_release_whose_commit_fails_ten_times_has_not_happened_and_can_be_asked_for_again() {
    let setup = Setup::new();
    let store = setup.store();
    let failing = Arc::clone(&store.failing);
    let ledger = setup.start_with(store, |_| {});
    let given = lease(&ledger, "s").await.unwrap();
    ledger.call(Command::Confirm(given.generation)).await.unwrap();
    failing.store(10, Ordering::Relaxed);
    for _ in 0..10 {
        let refusal = ledger.call(Command::Release(given.generation)).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::StoreUnwritable);
        assert!(refusal.retry_after.is_some());
        let found = ledger.leases(LeaseFilter::default()).await.unwrap();
        assert_eq!((found.len(), found[0].0.state), (1, State::Active));
    }
    let Reply::Released(State::Cooling, released) =
        ledger.call(Command::Release(given.generation)).await.unwrap()
    else {
        panic!("not released");
    };
    assert_eq!(released[0].address, given.address);
    assert_eq!(ledger.check().await.unwrap(), Vec::<String>::new());
    // Of ten attempts nobody was told.
    assert_eq!(setup.log.lock().changes.len(), 3);
    ledger.shutdown().await;
}

#[tokio::test]
async fn what_nobody_asked_for_is_tried_again_until_its_commit_succeeds() {
    let setup = Setup::new();
    let store = setup.store();
    let failing = Arc::clone(&store.failing);
    let ledger = setup.start_with(store, |spec| spec.unconfirmed_ttl = Duration::from_millis(50));
    lease(&ledger, "s").await.unwrap();
    failing.store(10, Ordering::Relaxed);
    tokio::time::timeout(Duration::from_secs(10), async {
        while setup.log.lock().changes.len() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(failing.load(Ordering::Relaxed), 0);
    assert_eq!(ledger.pools().await.unwrap()[0].count(State::Cooling), 1);
    ledger.shutdown().await;
}

#[tokio::test]
async fn deadlines_take_effect_without_anyone_asking() {
    let setup = Setup::new();
    let ledger = setup.start_with(setup.store(), |spec| {
        spec.unconfirmed_ttl = Duration::from_millis(50);
        spec.cooldown = Duration::from_millis(50);
    });
    lease(&ledger, "s").await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), async {
        while !matches!(setup.log.lock().changes.last(), Some(Change::Free(_))) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    let states: Vec<_> = setup
        .log
        .lock()
        .changes
        .iter()
        .map(|change| match change {
            Change::Put(lease) => lease.state.name(),
            Change::Free(_) => "free",
        })
        .collect();
    assert_eq!(states, ["held", "cooling", "free"]);
    ledger.shutdown().await;
}

/// A hook that breaks takes the thread with it; nobody hangs.
#[tokio::test]
async fn a_dead_thread_is_an_error_and_not_a_wait() {
    struct Breaks(AtomicUsize);
    impl AfterCommit for Breaks {
        fn restored(&mut self, _: &[Arc<Lease>]) {}
        fn committed(&mut self, _: &[Change], _: Now) {
            assert!(self.0.fetch_add(1, Ordering::Relaxed) < 1, "the test's own");
        }
    }
    let setup = Setup::new();
    let spec = PoolSpec::new("p", Segment::new("br0", 0), "10.0.0.0/24".parse().unwrap());
    let pools = Pools::new(vec![Pool::new(spec).unwrap()]).unwrap();
    let view: View = Arc::new(all_known());
    let breaks = Box::new(Breaks(AtomicUsize::new(0)));
    let ledger = Ledger::start(pools, setup.store(), view, Arc::default(), vec![breaks]).unwrap();
    lease(&ledger, "a").await.unwrap();
    assert_eq!(lease(&ledger, "b").await.unwrap_err().reason, Reason::Stopping);
    assert_eq!(lease(&ledger, "c").await.unwrap_err().reason, Reason::Stopping);
    assert!(!ledger.is_alive());
    ledger.shutdown().await;
}

#[tokio::test]
async fn leases_of_an_earlier_boot_are_told_from_those_of_this_one() {
    let setup = Setup::new();
    let ledger = setup.start();
    let old = lease(&ledger, "old").await.unwrap();
    assert_eq!(old.boot, ledger.boot());
    ledger.shutdown().await;
    let path = setup.dir.path().join("leases.db");
    let next = || {
        let boot = Boot { id: "next".to_owned(), now: clock::now() };
        setup.start_with(Store::open(&path, &boot).unwrap(), |_| {})
    };
    let of_now = async |ledger: &Ledger| -> Vec<bool> {
        let leases = ledger.reservations().await.unwrap();
        leases.iter().map(|lease| lease.boot == ledger.boot()).collect()
    };
    let ledger = next();
    assert_eq!(of_now(&ledger).await, [false]);
    lease(&ledger, "new").await.unwrap();
    ledger.shutdown().await;
    // A second run of this boot knows as much.
    let ledger = next();
    assert_eq!(of_now(&ledger).await, [false, true]);
    // Whose owner asks for it is of this boot, whatever its generation.
    assert_eq!(lease(&ledger, "old").await.unwrap().generation, old.generation);
    assert_eq!(of_now(&ledger).await, [true, true]);
    ledger.shutdown().await;
}
