//! `reconcile`: a pass of the reconciler over leases that are all in use, in this process: what it
//! costs to compare them with what is known, without disk and sources.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use guard_agent::{
    clock,
    health::Health,
    inventory::Sources,
    ledger::Ledger,
    live::SharedEvidence,
    metrics::Metrics,
    reconcile::{Ask, Deps, Reconciler},
    store::{Boot, Store},
};
use guard_core::{
    evidence::{Claim, Entry, Listing, Place, PortName, Source, Station, Strength, Unread},
    lease::{
        Lease, Pool, PoolSpec, Pools,
        command::{Allocate, Command, Reply},
    },
    mac::Mac,
    reconcile::Settings,
    segment::Segment,
};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::report::{line, round};

/// How many leases there are.
const LEASES: [u32; 3] = [1_000, 10_000, 65_000];
/// Behind how many ports.
const PORTS: u32 = 1_000;
/// The median of so many passes counts.
const PASSES: usize = 9;
/// How many allocations wait for one commit.
const AT_ONCE: u32 = 512;

const BRIDGE: &str = "rt0";
const POOL: &str = "sandboxes";

#[derive(Debug, Serialize)]
struct Point {
    bench: &'static str,
    leases: u32,
    ports: u32,
    cpu_ms: f64,
    wall_ms: f64,
}

/// Runs the benchmark.
pub(crate) fn run(json: bool) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut node = Node::start()?;
        if !json {
            println!("{:>7} {:>6}  {:>10} {:>10}", "leases", "ports", "CPU", "wall");
        }
        for leases in LEASES {
            eprintln!("{leases} leases");
            node.fill(leases).await?;
            let Point { bench: _, leases, ports, cpu_ms, wall_ms } = node.measure().await?;
            if json {
                line(&Point { bench: "reconcile", leases, ports, cpu_ms, wall_ms })?;
            } else {
                println!("{leases:>7} {ports:>6}  {cpu_ms:>7.1} ms {wall_ms:>7.1} ms");
            }
        }
        node.ledger.shutdown().await;
        Ok(())
    })
}

/// The parts of an agent that a pass goes through.
struct Node {
    segment: Segment,
    live: Arc<SharedEvidence>,
    ledger: Ledger,
    reconciler: Reconciler,
    listing: Listing,
    filled: u32,
    _dir: tempfile::TempDir,
}

impl Node {
    fn start() -> Result<Self> {
        let dir = tempfile::tempdir().context("a directory")?;
        let boot = Boot { id: clock::boot_id()?, now: clock::now() };
        let store = Store::open(&dir.path().join("leases.db"), &boot)?;
        let segment = Segment::new(BRIDGE, 0);
        let spec = PoolSpec::new(POOL, segment.clone(), "10.8.0.0/16".parse()?);
        let live = Arc::new(SharedEvidence::default());
        let pools = Pools::new(vec![Pool::new(spec)?])?;
        let changes = live.changes().clone();
        let ledger = Ledger::start(pools.clone(), store, live.clone(), changes, Vec::new())?;
        live.set_watched(&segment.bridge, true);
        live.boot_pass_ended();
        for port in 0..PORTS {
            let name =
                PortName { interface: port_name(port), bridge: BRIDGE.into(), uplink: false };
            live.port_added(ifindex(port), name);
        }
        let reconciler = Reconciler::new(Deps {
            settings: Settings {
                interval: Duration::from_secs(300),
                misses: 3,
                max_reap_share: 0.2,
            },
            grace: Duration::ZERO,
            ledger: ledger.clone(),
            live: live.clone(),
            sources: Arc::new(Sources::default()),
            health: Arc::new(Health::default()),
            metrics: Arc::new(Metrics::new()?),
            pools,
        });
        let listing = Listing::default();
        Ok(Self { segment, live, ledger, reconciler, listing, filled: 0, _dir: dir })
    }

    /// Brings it to so many leases, a third of which each way to be in use speaks for: a bound port
    /// that exists, a claim on the wire, a sandbox that the controller lists.
    async fn fill(&mut self, leases: u32) -> Result<()> {
        let numbers: Vec<_> = (self.filled..leases).collect();
        for some in numbers.chunks(AT_ONCE as usize) {
            let mut tasks = JoinSet::new();
            for number in some {
                tasks.spawn(admit(self.ledger.clone(), *number));
            }
            while let Some(lease) = tasks.join_next().await {
                let lease = lease.context("an allocation panicked")??;
                self.use_address(&lease)?;
            }
        }
        self.filled = leases;
        self.live.listed(Source::Controller, &self.listing, &[]);
        Ok(())
    }

    fn use_address(&mut self, lease: &Lease) -> Result<()> {
        let Lease { address, owner, binding, generation, .. } = lease;
        if binding.ifindex.is_some() {
            return Ok(());
        }
        if generation.is_multiple_of(2) {
            self.listing.entries.push(Entry {
                owner: owner.clone().context("no owner")?,
                id: Arc::from(""),
                addresses: Vec::new(),
                labelled: true,
                named: true,
                dead: None,
                detail: Arc::from("the directory lists the sandbox"),
                since: clock::now().wall,
                unread: Unread::default(),
                place: Place::Clear,
            });
            return Ok(());
        }
        let number = u32::try_from(generation % u64::from(PORTS))?;
        let station =
            Station { mac: mac(number), interface: port_name(number), ifindex: ifindex(number) };
        let now = clock::monotonic();
        let claim = Claim { station, strength: Strength::Assert, first: now, seen: now };
        ensure!(self.live.claimed(&self.segment, *address, claim), "{address} was claimed");
        Ok(())
    }

    async fn measure(&self) -> Result<Point> {
        let mut times = Vec::with_capacity(PASSES);
        for _ in 0..PASSES {
            let (cpu, wall) = (cpu_time()?, Instant::now());
            let report = self.reconciler.pass(Ask::default()).await?;
            times.push((cpu_time()? - cpu, wall.elapsed()));
            ensure!(report.result() == "done" && report.silent.is_empty(), "{report:?}");
        }
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times.get(PASSES / 2).map_or(0.0, |time| round(time.as_secs_f64() * 1e3))
        };
        let (cpu, wall) = times.into_iter().unzip();
        Ok(Point {
            bench: "reconcile",
            leases: self.filled,
            ports: PORTS,
            cpu_ms: median(cpu),
            wall_ms: median(wall),
        })
    }
}

/// One in three has its port from the start.
async fn admit(ledger: Ledger, number: u32) -> Result<Arc<Lease>> {
    let port = number % PORTS;
    let is_bound = number.is_multiple_of(3);
    let allocate = Allocate {
        pools: vec![Arc::from(POOL)],
        sandbox: format!("sandbox-{number}").into(),
        lifecycle: "run-1".into(),
        key: Arc::from("eth0"),
        mac: is_bound.then(|| mac(number)),
        interface: is_bound.then(|| port_name(port)),
        ..Allocate::default()
    };
    let lease = one(ledger.call(Command::Allocate(allocate)).await?)?;
    one(ledger.call(Command::Confirm(lease.generation)).await?)
}

fn one(reply: Reply) -> Result<Arc<Lease>> {
    match reply {
        Reply::Leases(leases) => leases.into_iter().next().context("no lease"),
        reply => bail!("the engine answered {reply:?}"),
    }
}

fn mac(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac([2, 0, a, b, c, d])
}

fn port_name(port: u32) -> Arc<str> {
    format!("veth-{port}").into()
}

fn ifindex(port: u32) -> u32 {
    port + 2
}

/// What this process has used so far, on all of its threads.
fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}
