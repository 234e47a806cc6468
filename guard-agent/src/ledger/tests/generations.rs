use std::path::PathBuf;

use guard_core::lease::HighWater;
use jiff::SignedDuration;

use super::*;

/// Knows what was handed out, as the kernel does while stores come and go.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u64>>>);

impl Memory {
    fn is(&self, generations: &[u64]) {
        *self.0.lock() = generations.to_vec();
    }

    fn highest(&self) -> u64 {
        self.0.lock().iter().copied().max().unwrap_or(0)
    }
}

impl AfterCommit for Memory {
    fn restored(&mut self, _: &[Arc<Lease>]) {}

    fn committed(&mut self, _: &[Change], _: Now) {}

    fn given(&self) -> Vec<u64> {
        self.0.lock().clone()
    }

    fn handed_out(&mut self, generation: u64) {
        if generation > self.highest() {
            self.is(&[generation]);
        }
    }

    fn correct(&mut self, generation: u64) {
        self.is(&[generation]);
    }
}

struct Node {
    setup: Setup,
    memory: Memory,
}

impl Node {
    fn new() -> Self {
        Self { setup: Setup::new(), memory: Memory::default() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.setup.dir.path().join(name)
    }

    /// Starts as the agent does.
    fn start_in(&self, boot: &str) -> Ledger {
        let path = self.file("leases.db");
        let boot = Boot { id: boot.to_owned(), now: clock::now() };
        let opened = open(&path, &boot, &self.memory.given());
        self.start_with(opened.map_err(|error| StoreFault::of(error, &path, &boot).unwrap()))
    }

    fn start_with(&self, opened: Result<Store, StoreFault>) -> Ledger {
        let p = PoolSpec::new("p", Segment::new("br0", 0), "10.0.0.0/16".parse().unwrap());
        let pools = Pools::new(vec![Pool::new(p).unwrap()]).unwrap();
        let view: View = Arc::new(all_known());
        let after_commit: Vec<Box<dyn AfterCommit>> = vec![Box::new(self.memory.clone())];
        match opened {
            Ok(store) => Ledger::start(pools, store, view, Arc::default(), after_commit).unwrap(),
            Err(fault) => {
                Ledger::start_without(pools, fault, view, Arc::default(), after_commit).unwrap()
            }
        }
    }

    fn start(&self) -> Ledger {
        self.start_in("boot")
    }

    fn copy(&self, from: &str, to: &str) {
        for name in ["leases.db", "leases.db.marker"] {
            let file = |suffix| self.file(&format!("{name}{suffix}"));
            std::fs::copy(file(from), file(to)).unwrap();
        }
    }

    fn remove(&self) {
        for name in ["leases.db", "leases.db.marker"] {
            std::fs::remove_file(self.file(name)).unwrap();
        }
    }
}

async fn is_lost(ledger: &Ledger, what: &str) {
    let fault = ledger.fault().unwrap();
    assert!(fault.message.contains(what) && fault.message.contains("guardctl recover"), "{fault}");
    assert_eq!(lease(ledger, "c").await.unwrap_err().reason, Reason::StoreDamaged);
}

#[tokio::test]
async fn rule_11_a_store_from_the_past_is_noticed_and_no_generation_comes_twice() {
    let node = Node::new();
    let ledger = node.start();
    lease(&ledger, "a").await.unwrap();
    ledger.shutdown().await;
    node.copy("", ".old");

    let ledger = node.start();
    assert_eq!(ledger.fault(), None);
    let last = lease(&ledger, "b").await.unwrap();
    assert_eq!(node.memory.highest(), last.generation, "known before the answer");
    ledger.shutdown().await;
    node.copy(".old", "");

    let ledger = node.start();
    is_lost(&ledger, "older copy: the last generation that it knows of").await;
    let recovered = ledger.recover(Recovery::default()).await.unwrap().unwrap();
    assert_eq!(recovered.kept, 1);
    assert!(lease(&ledger, "c").await.unwrap().generation > last.generation);
    ledger.shutdown().await;
}

#[tokio::test]
async fn rule_11_a_store_that_is_gone_with_its_marker_is_missing_where_the_kernel_knows_of_one() {
    let node = Node::new();
    let ledger = node.start();
    let last = lease(&ledger, "a").await.unwrap().generation;
    ledger.shutdown().await;
    node.remove();
    for _ in 0..2 {
        let ledger = node.start();
        is_lost(&ledger, &format!("missing, although the kernel knows that generation {last}"))
            .await;
        assert!(!node.file("leases.db").exists(), "none is made in its place");
        assert_eq!(node.memory.highest(), last, "the kernel goes on knowing");
        ledger.shutdown().await;
    }
    // One that is there and empty is no other.
    let boot = Boot { id: "boot".to_owned(), now: clock::now() };
    Store::open(&node.file("leases.db"), &boot).unwrap().close().unwrap();
    let ledger = node.start();
    is_lost(&ledger, "missing").await;
    ledger.recover(Recovery::default()).await.unwrap().unwrap();
    assert_eq!(ledger.fault(), None);
    assert!(lease(&ledger, "b").await.unwrap().generation > last);
    ledger.shutdown().await;
    let ledger = node.start();
    assert_eq!(ledger.fault(), None, "it stays recovered");
    ledger.shutdown().await;
}

#[tokio::test]
async fn rule_11_what_is_in_the_place_of_a_store_that_the_kernel_knows_of_is_damage() {
    let node = Node::new();
    node.memory.is(&[HighWater::seed(clock::now().wall).generation]);
    std::fs::write(node.file("leases.db"), "no store, and longer than a header is ".repeat(99))
        .unwrap();
    let ledger = node.start();
    is_lost(&ledger, "damaged").await;
    ledger.recover(Recovery::default()).await.unwrap().unwrap();
    lease(&ledger, "a").await.unwrap();
    ledger.shutdown().await;
}

#[tokio::test]
async fn a_first_start_is_one_also_after_a_run_that_gave_nothing() {
    let node = Node::new();
    for _ in 0..2 {
        let ledger = node.start();
        assert_eq!((ledger.fault(), node.memory.highest()), (None, 0));
        ledger.shutdown().await;
        node.remove();
    }
    // One that has quarantined, and given nothing, is not another one after a restart, also where an
    // older agent has told of its seed.
    let ledger = node.start();
    let (segment, address) = (Segment::new("br0", 0), "10.0.0.9".parse().unwrap());
    ledger.call(Command::Quarantine { segment, address }).await.unwrap();
    ledger.shutdown().await;
    for told in [false, true] {
        if told {
            let boot = Boot { id: "boot".to_owned(), now: clock::now() };
            let mut store = Store::open(&node.file("leases.db"), &boot).unwrap();
            node.memory.is(&[store.take_restored().high_water.generation]);
            store.close().unwrap();
        }
        let ledger = node.start();
        assert_eq!(ledger.fault(), None, "{told}");
        ledger.shutdown().await;
    }
    // After `guard-agent detach` nobody knows of any.
    node.remove();
    node.memory.is(&[]);
    let ledger = node.start();
    lease(&ledger, "a").await.unwrap();
    ledger.shutdown().await;
    node.remove();
    node.memory.is(&[]);
    let ledger = node.start();
    lease(&ledger, "a").await.unwrap();
    ledger.shutdown().await;
}

#[tokio::test]
async fn rule_11_the_first_open_in_a_boot_repeats_no_generation_of_a_store_from_yesterday() {
    let node = Node::new();
    // Yesterday's clock is in its generations.
    let boot = Boot { id: "yesterday".to_owned(), now: clock::now() };
    let yesterday = Now { wall: boot.now.wall - SignedDuration::from_hours(24), ..boot.now };
    let boot = Boot { now: yesterday, ..boot };
    let mut store = Store::open(&node.file("leases.db"), &boot).unwrap();
    let mut high = store.take_restored().high_water;
    high.generation += 5;
    store.commit([], high, yesterday).unwrap();
    store.close().unwrap();
    node.copy("", ".old");
    let mut given = HashSet::new();
    for (boot, forgets) in [("one", true), ("two", true), ("two", true), ("two", true)] {
        if forgets {
            // By a reboot, or by `guard-agent detach`.
            node.memory.is(&[]);
        }
        let ledger = node.start_in(boot);
        assert_eq!(ledger.fault(), None);
        let lease = lease(&ledger, "a").await.unwrap();
        assert!(lease.generation > HighWater::seed(yesterday.wall + HOURS_23).generation);
        assert!(given.insert(lease.generation), "{} twice", lease.generation);
        ledger.shutdown().await;
        node.copy(".old", "");
        next_second().await;
    }
}

/// The clock goes on between one disaster and the next.
async fn next_second() {
    let second = clock::now().wall.as_second();
    while clock::now().wall.as_second() == second {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const HOURS_23: SignedDuration = SignedDuration::from_hours(23);

#[tokio::test]
async fn rule_11_a_pin_that_cannot_be_right_is_written_anew_and_allocation_goes_on() {
    let node = Node::new();
    let ledger = node.start();
    let last = lease(&ledger, "a").await.unwrap().generation;
    ledger.shutdown().await;
    for damaged in [u64::MAX, last + (1 << 41), 1 << 62] {
        node.memory.is(&[damaged, last]);
        let ledger = node.start();
        assert_eq!(ledger.fault(), None);
        assert_eq!(node.memory.highest(), last, "written anew");
        ledger.shutdown().await;
    }
    // Beside the damage, what is right still tells of an older copy.
    node.memory.is(&[u64::MAX, last + 3]);
    let ledger = node.start();
    is_lost(&ledger, "older copy").await;
    ledger.recover(Recovery::default()).await.unwrap().unwrap();
    assert!(lease(&ledger, "b").await.unwrap().generation > last + 3);
    assert!(node.memory.highest() < u64::MAX);
    ledger.shutdown().await;

    // Beside a lost store it is a loss.
    next_second().await;
    node.remove();
    node.memory.is(&[u64::MAX]);
    let ledger = node.start();
    is_lost(&ledger, "missing").await;
    ledger.recover(Recovery::default()).await.unwrap().unwrap();
    let next = lease(&ledger, "c").await.unwrap().generation;
    assert!(next > last && next < HighWater::default().limit(clock::now().wall), "{next}");
    assert_eq!(node.memory.highest(), next);
    ledger.shutdown().await;
}

#[tokio::test]
async fn a_clock_that_was_ahead_is_no_damage() {
    let node = Node::new();
    let boot = Boot { id: "boot".to_owned(), now: clock::now() };
    let ahead = Now { wall: "2099-01-01T00:00:00Z".parse().unwrap(), ..boot.now };
    let store = Store::open(&node.file("leases.db"), &Boot { now: ahead, ..boot }).unwrap();
    store.close().unwrap();
    let ledger = node.start();
    let first = lease(&ledger, "a").await.unwrap().generation;
    ledger.shutdown().await;
    let ledger = node.start();
    assert_eq!((ledger.fault(), node.memory.highest()), (None, first));
    assert_eq!(lease(&ledger, "b").await.unwrap().generation, first + 1);
    ledger.shutdown().await;
}

/// As a disk without room for all that a reboot has to carry over.
#[tokio::test]
async fn rule_11_a_disk_without_room_at_the_first_start_in_a_boot_is_waited_for() {
    let node = Node::new();
    let ledger = node.start();
    let given = lease(&ledger, "a").await.unwrap();
    ledger.shutdown().await;
    let path = node.file("leases.db");
    let boot = Boot { id: "next".to_owned(), now: clock::now() };
    let store = Store::open(&path, &boot).unwrap();
    store.failing.store(1, Ordering::Relaxed);
    let ledger = node.start_with(Ok(store));
    let trouble = ledger.trouble().borrow().clone().expect("it is told");
    assert!(trouble.contains("cannot be written"), "{trouble}");
    let refusal = lease(&ledger, "b").await.unwrap_err();
    assert_eq!(refusal.reason, Reason::StoreUnwritable);
    let mut told = ledger.trouble();
    tokio::time::timeout(Duration::from_secs(10), told.wait_for(Option::is_none))
        .await
        .expect("it is picked up when there is room")
        .unwrap();
    let found = ledger.leases(LeaseFilter::default()).await.unwrap();
    assert_eq!(found[0].0.generation, given.generation);
    lease(&ledger, "b").await.unwrap();
    ledger.shutdown().await;
}
