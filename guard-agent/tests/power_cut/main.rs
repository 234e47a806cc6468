//! Power cuts: what was acknowledged is there afterwards, whatever the disk had not synced yet.
//!
//! Files lie on a disk that keeps what is not synced apart, and at the cut keeps a part of it, sector
//! by sector. `GUARD_POWER_CUTS` sets the number of cuts.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test ends where it fails")]

mod client;
mod disk;
mod vfs;

use std::{path::PathBuf, sync::Arc, time::Duration};

use fastrand::Rng;
use futures_util::future::join_all;
use guard_agent::{
    clock,
    ledger::{Ledger, StoreFault},
    live::SharedEvidence,
    store::{Boot, Store, StoreError},
};
use guard_core::lease::{LeaseFilter, Pool, PoolSpec, Pools, command::Command};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::{
    client::{Client, SUBSCRIBER, Seen, segment},
    disk::Disk,
};

const CLIENTS: usize = 4;

/// So many cuts a store lives through, from its first start on.
const LIVES: u32 = 20;

fn cuts() -> u32 {
    let wanted = std::env::var("GUARD_POWER_CUTS").ok().and_then(|cuts| cuts.parse().ok());
    wanted.unwrap_or(100)
}

/// A node whose power is cut again and again.
struct Node {
    dir: TempDir,
    disk: Arc<Disk>,
    clients: Vec<Client>,
    runtime: Runtime,
    rng: Rng,
    boots: u32,
    cuts: u32,
    /// The power was cut while leases were carried over to a new boot.
    carrying: bool,
}

impl Node {
    fn new(seed: u64, lies: bool) -> Self {
        vfs::install();
        let dir = TempDir::new().unwrap();
        let disk = Disk::of(dir.path(), dir.path().join("leases.db.marker"), lies);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let clients = (0..CLIENTS).map(Client::new).collect();
        Self {
            dir,
            disk,
            clients,
            runtime,
            rng: Rng::with_seed(seed),
            boots: 0,
            cuts: 0,
            carrying: false,
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("leases.db")
    }

    fn open(&mut self) -> Result<Store, StoreError> {
        self.boots += 1;
        let boot = Boot { id: format!("boot-{}", self.boots), now: clock::now() };
        Store::open(&self.path(), &boot)
    }

    fn start(store: Store) -> Ledger {
        let four = PoolSpec::new("p", segment(), "10.0.0.0/16".parse().unwrap());
        let six = PoolSpec::new("six", segment(), "fd00::/64".parse().unwrap());
        let pools = [four, six].map(|spec| Pool::new(spec).unwrap());
        let pools = Pools::new(pools.into()).unwrap();
        let live = Arc::new(SharedEvidence::default());
        let changes = live.changes().clone();
        Ledger::start(pools, store, live, changes, Vec::new()).unwrap()
    }

    /// From power to power: opens the store, compares, and works until the power is cut.
    fn live(&mut self) {
        let changes =
            if self.rng.u8(0..4) == 0 { self.rng.u64(0..40) } else { self.rng.u64(0..600) };
        self.disk.power_on(changes);
        match self.open() {
            Ok(store) => self.work(store),
            Err(error) => {
                assert!(self.disk.is_off(), "after {} boots: {error}", self.boots);
                let boot = Boot { id: String::new(), now: clock::now() };
                // And without power it would have been told why.
                StoreFault::of(error, &self.path(), &boot).unwrap();
            }
        }
        // Whether it was cut off or ended in order: what was not synced is lost in part.
        self.cuts += 1;
        self.disk.cut();
        self.disk.lose(&mut self.rng);
    }

    fn work(&mut self, store: Store) {
        self.disk.all_is_named();
        let seen = Seen::of(store.read_again().unwrap_or_else(|error| {
            assert!(self.disk.is_off(), "{error}");
            panic!("the power is cut while nothing is written: {error}")
        }));
        self.clients.iter_mut().for_each(|client| client.verify(&seen, self.carrying));
        for lease in seen.owned() {
            let known = self.clients.iter().any(|client| client.has(lease.generation));
            assert!(known, "nobody asked for {lease:?}");
        }
        let before = self.clients.iter().map(Client::highest).max().unwrap();
        let ledger = Self::start(store);
        let steps = self.rng.u32(1..60);
        let mut seeds: Vec<_> = self.clients.iter().map(|_| self.rng.fork()).collect();
        self.carrying = ledger.fault().is_some();
        self.runtime.block_on(async {
            if self.carrying {
                assert!(self.disk.is_off(), "{:?}", ledger.fault());
                return ledger.shutdown().await;
            }
            let leases = ledger.leases(LeaseFilter::default()).await.unwrap();
            let leases: Vec<_> = leases.into_iter().map(|(lease, _)| lease).collect();
            self.clients.iter_mut().for_each(|client| client.learn(&leases));
            let subscribers = vec![(Arc::from(SUBSCRIBER), Duration::from_secs(3600))];
            ledger.call(Command::Subscribers(subscribers)).await.unwrap();
            let clients = self.clients.iter_mut().zip(&mut seeds);
            join_all(clients.map(|(client, rng)| client.work(&ledger, rng, steps))).await;
            assert_eq!(ledger.check().await.unwrap(), Vec::<String>::new());
            ledger.shutdown().await;
        });
        let given = self.clients.iter().map(Client::highest).max().unwrap();
        assert!(given >= before, "generations went back");
    }
}

#[test]
fn what_was_acknowledged_survives_a_thousand_power_cuts() {
    let (mut cuts_left, mut answers) = (cuts(), 0);
    let all = cuts_left;
    for seed in 0.. {
        let mut node = Node::new(seed, false);
        while node.cuts < LIVES.min(cuts_left) {
            node.live();
        }
        cuts_left -= node.cuts;
        answers += node.clients.iter().map(|client| client.answers).sum::<u64>();
        if cuts_left == 0 {
            break;
        }
    }
    assert!(answers > u64::from(all) * 10, "{answers} answers say little");
}

#[test]
fn a_first_start_that_is_cut_off_anywhere_is_a_first_start_still() {
    let mut opened = 0;
    for changes in 0..60 {
        let mut node = Node::new(changes, false);
        node.disk.power_on(changes);
        opened += u32::from(node.open().is_ok());
        node.disk.cut();
        node.disk.lose(&mut node.rng);
        node.disk.power_on(u64::MAX);
        let mut store = node.open().unwrap_or_else(|error| panic!("after {changes}: {error}"));
        assert!(store.take_restored().contents.rows.is_empty());
    }
    assert!((1..60).contains(&opened), "{opened} were not cut off");
}

/// What the first test would find: were nothing synced, it is noticed each time, by the marker.
#[test]
fn rule_11_a_disk_that_lies_about_what_it_has_synced_is_found_out() {
    let mut noticed = 0;
    for seed in 0..20 {
        let mut node = Node::new(seed, true);
        node.disk.power_on(u64::MAX);
        let store = node.open().unwrap();
        node.work(store);
        node.disk.cut();
        node.disk.lose(&mut node.rng);
        node.disk.power_on(u64::MAX);
        match node.open() {
            Ok(_) => panic!("nothing was on disk, and it was opened"),
            Err(
                StoreError::Missing { .. } | StoreError::Behind { .. } | StoreError::Damaged { .. },
            ) => {
                noticed += 1;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(noticed, 20);
}
