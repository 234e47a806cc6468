//! How fast the ledger is against what SQLite can do at all on the same disk.
#![expect(clippy::unwrap_used, reason = "a measurement ends where it fails")]

use std::{
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use guard_agent::{
    clock,
    ledger::{Ledger, View},
    store::{Boot, Store},
};
use guard_core::{
    evidence::{Device, Evidence, EvidenceView, PortName, Unknown},
    lease::{
        LeaseFilter, Pool, PoolSpec, Pools,
        command::{Allocate, Command, Reply},
    },
    owner::Owner,
    segment::Segment,
};

struct Nothing;

impl EvidenceView for Nothing {
    fn evidence(&self, _: &Segment, _: IpAddr) -> Vec<Evidence> {
        Vec::new()
    }

    fn held_back(&self, _: &Segment, _: IpAddr) -> Option<Duration> {
        None
    }

    fn addresses(&self, _: &Segment) -> Vec<IpAddr> {
        Vec::new()
    }

    fn owner(&self, _owner: &Owner) -> Vec<Evidence> {
        Vec::new()
    }

    fn port_exists(&self, _: u32) -> bool {
        false
    }

    fn port(&self, _: u32) -> Option<PortName> {
        None
    }

    fn port_named(&self, _: &str, _: &str) -> Option<u32> {
        None
    }

    fn device(&self, _: u32) -> Option<Device> {
        None
    }

    fn hosts(&self, _: &Segment) -> Vec<IpAddr> {
        Vec::new()
    }

    fn complete(&self, _: &Segment, _: Duration) -> Result<(), Unknown> {
        Ok(())
    }

    fn link_exists(&self, _: &str) -> bool {
        false
    }
}

fn start(dir: &Path) -> Ledger {
    let boot = Boot { id: "boot".to_owned(), now: clock::now() };
    let store = Store::open(&dir.join("leases.db"), &boot).unwrap();
    let prefix = "10.8.0.0/16".parse().unwrap();
    let spec = PoolSpec::new("p", Segment::new("rt0", 0), prefix);
    let pools = Pools::new(vec![Pool::new(spec).unwrap()]).unwrap();
    let view: View = Arc::new(Nothing);
    Ledger::start(pools, store, view, Arc::default(), Vec::new()).unwrap()
}

fn allocate(sandbox: String) -> Command {
    Command::Allocate(Allocate {
        pools: vec![Arc::from("p")],
        sandbox: Arc::from(sandbox),
        lifecycle: Arc::from("2f6c0f4e-6d0c-4a39-a6f6-0d3f3f6f3c11"),
        key: Arc::from("eth0"),
        ..Allocate::default()
    })
}

/// Commits of one row of the same table, one at a time.
fn raw(dir: &Path, times: u32) -> Duration {
    let db = rusqlite::Connection::open(dir.join("raw.db")).unwrap();
    db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    db.pragma_update(None, "synchronous", "FULL").unwrap();
    db.execute_batch(include_str!("../src/store/schema/1.sql")).unwrap();
    let mut insert = db
        .prepare(
            "INSERT INTO lease VALUES ('rt0', 0, ?1, 1, 0, 'p', ?2, ?3, 'eth0', ?4, 0, NULL, \
             NULL, NULL, '', NULL, 0, 1, 1, 1, 0, NULL, 7)",
        )
        .unwrap();
    let start = Instant::now();
    for n in 0..times {
        let lifecycle = "2f6c0f4e-6d0c-4a39-a6f6-0d3f3f6f3c11";
        let address = n.to_be_bytes();
        insert.execute((&address[..], format!("sandbox-{n}"), lifecycle, n)).unwrap();
    }
    start.elapsed()
}

async fn clients(ledger: &Ledger, clients: u32, each: u32, tag: &str) -> (Duration, Vec<Duration>) {
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (ledger, tag) = (ledger.clone(), tag.to_owned());
            tokio::spawn(async move {
                let mut times = Vec::new();
                for n in 0..each {
                    let start = Instant::now();
                    let ask = allocate(format!("sandbox-{tag}-{client}-{n}"));
                    let reply = ledger.call(ask).await.unwrap();
                    assert!(matches!(reply, Reply::Leases(_)));
                    times.push(start.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    times.sort();
    (start.elapsed(), times)
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "measures: cargo test --release --test ledger_speed -- --ignored --nocapture"]
fn sixty_four_clients_reach_three_times_the_raw_commit_rate() {
    let dir = tempfile::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let raw_time = raw(dir.path(), 2000);
    let raw_rate = 2000.0 / raw_time.as_secs_f64();
    println!("raw: {raw_rate:.0}/s, {:?} each", raw_time / 2000);

    let ledger = start(dir.path());
    let mut best = 0.0;
    for (fill, count) in [(0, 0), (50, 32_000), (95, 60_000)] {
        runtime.block_on(async {
            let have = ledger.pools().await.unwrap()[0].states[0];
            let missing = u32::try_from(count - have.min(count)).unwrap();
            clients(&ledger, 256, missing / 256, &format!("fill{fill}")).await;
        });
        for number in [1, 16, 64] {
            let tag = format!("{fill}-{number}");
            let each = 1_500 / number;
            let (all, times) = runtime.block_on(clients(&ledger, number, each, &tag));
            let rate = f64::from(number * each) / all.as_secs_f64();
            println!(
                "fill {fill} clients {number}: {rate:.0}/s, {:.2} of raw, p50 {:?}, p99 {:?}",
                rate / raw_rate,
                times[times.len() / 2],
                times[times.len() * 99 / 100]
            );
            if number == 64 {
                best = rate / raw_rate;
            }
        }
    }
    runtime.block_on(ledger.shutdown());
    drop(ledger);
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "restarted"])
        .env(STORE, dir.path())
        .status();
    assert!(child.unwrap().success());
    assert!(best >= 3.0, "64 clients at {best:.1} times the raw rate");
}

/// Where the other test's leases are, for the process that it starts.
const STORE: &str = "GUARD_SPEED_STORE";

#[test]
#[ignore = "the other test runs it in a process of its own"]
fn restarted() {
    let Some(dir) = std::env::var_os(STORE) else { return };
    let begin = Instant::now();
    let ledger = start(Path::new(&dir));
    let ready = begin.elapsed();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let resident = resident_kib();
    let leases = runtime.block_on(ledger.leases(LeaseFilter::default())).unwrap().len();
    println!("{leases} leases: ready in {ready:?}, {resident} KiB resident");
    runtime.block_on(ledger.shutdown());
    assert!(ready < Duration::from_secs(1));
    assert!(resident < 64 * 1024);
}
