//! `alloc`: durable allocations, by the number of clients and the fill of the pool.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_tests::{Agent, Client, Lab, Launch};
use tokio::runtime::Runtime;

use crate::{
    bare, disk, load, peer,
    raw::Raw,
    report::{Point, Report, Restart, percentile, round},
};

/// How many clients there are at once.
pub(crate) const CLIENTS: [usize; 3] = [1, 16, 64];
/// How much of the pool is taken.
pub(crate) const FILL: [f64; 3] = [0.0, 0.5, 0.95];

/// Each point is measured in turns with the raw limit, since a disk is not always equally fast.
const ROUNDS: usize = 3;

/// In each round. All of a point fit into what is left of the pool at 95 %.
const ALLOCATIONS: usize = 1000;

/// How many clients fill the pool, which is not timed.
const FILLING: usize = 64;

/// How many leases the agent is to start with.
const LEASES: usize = 65_000;

/// Runs the benchmark with its stores in `dir`.
pub(crate) fn run(dir: &Path, json: bool, counts: &[usize], fills: &[f64]) -> Result<()> {
    let most = counts.iter().copied().max().unwrap_or(1).max(FILLING);
    ensure!(fills.iter().all(|fill| (0.0..=0.95).contains(fill)), "a fill is 0 to 0.95");
    ensure!(counts.iter().all(|count| (1..=1000).contains(count)), "clients are 1 to 1000");
    let dir = disk::directory(dir)?;
    let lab = Lab::with_prefix(16)?;
    let state = dir.path().join("state");
    let config = lab.config()?.with(&format!("state_dir = {state:?}"))?;
    // What fills the pool is to stay there.
    let config = config.with_pool("unconfirmed_ttl", "\"24h\"")?;
    let mut agent = lab.agent_with(Launch::config(&config)?)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let clients = runtime.block_on(load::connect(&agent.socket(), most))?;
    let mut bench = Bench { lab: &lab, dir: dir.path(), runtime, clients, filled: 0 };

    let report = Report::new(json);
    for &fill in fills {
        let rows = share(lab.prefix().hosts().count() - 1, fill);
        bench.fill(rows)?;
        let mut raw = Raw::create(&bench.file("raw", rows), first(&lab)?, rows)?;
        let bare = bench.bare(first(&lab)?, rows)?;
        let host_local = peer::fill(&lab, &bench.file("host-local", rows), rows)?;
        for &clients in counts {
            eprintln!("{clients} client(s) at {:.0} %", fill * 100.0);
            let mut point = bench.point(clients, fill, &mut raw, &bare)?;
            let rate = peer::per_second(&host_local, &lab, clients, &format!("c{clients}"))?;
            point.host_local_per_second = round(rate);
            report.point(&point)?;
        }
    }
    bench.fill(LEASES)?;
    report.restart(&restart(&mut agent, LEASES)?)?;
    agent.stop()
}

struct Bench<'a> {
    lab: &'a Lab,
    dir: &'a Path,
    runtime: Runtime,
    clients: Vec<Client>,
    filled: usize,
}

impl Bench<'_> {
    fn file(&self, name: &str, rows: usize) -> std::path::PathBuf {
        self.dir.join(format!("{name}-{rows}"))
    }

    /// Brings the pool to so many leases, which stay.
    fn fill(&mut self, rows: usize) -> Result<()> {
        let missing = rows.saturating_sub(self.filled);
        eprintln!("filling the pool with {missing} more leases");
        let prefix = format!("fill-{rows}");
        self.runtime.block_on(load::allocate(&self.clients, missing, &prefix))?;
        self.filled += missing;
        ensure!(self.filled <= self.lab.prefix().hosts().count(), "more leases than addresses");
        Ok(())
    }

    /// Clients of a bare server with so many rows.
    fn bare(&self, first: Ipv4Addr, rows: usize) -> Result<Vec<Client>> {
        let socket = self.file("bare", rows).with_extension("sock");
        bare::start(&socket, Raw::create(&self.file("bare", rows), first, rows)?)?;
        self.runtime.block_on(load::connect(&socket, self.clients.len()))
    }

    fn point(&self, clients: usize, fill: f64, raw: &mut Raw, bare: &[Client]) -> Result<Point> {
        let (Some(clients), Some(bare)) = (self.clients.get(..clients), bare.get(..clients)) else {
            anyhow::bail!("too few clients")
        };
        let (mut latencies, mut elapsed) = (Vec::new(), Duration::ZERO);
        let (mut bare_latencies, mut bare_elapsed) = (Vec::new(), Duration::ZERO);
        let mut commits = Vec::new();
        for number in 0..ROUNDS {
            commits.extend(raw.commit(ALLOCATIONS)?);
            let round = self.runtime.block_on(load::allocate(bare, ALLOCATIONS, "bare"))?;
            bare_latencies.extend(round.latencies);
            bare_elapsed += round.elapsed;
            let prefix = format!("timed-{}-{fill}-{number}", clients.len());
            let round = self.runtime.block_on(load::allocate(clients, ALLOCATIONS, &prefix))?;
            latencies.extend(round.latencies);
            elapsed += round.elapsed;
            self.runtime.block_on(load::release(&self.clients, round.generations))?;
        }
        latencies.sort_unstable();
        bare_latencies.sort_unstable();
        commits.sort_unstable();
        let per_second = rate(latencies.len(), elapsed);
        let bare_per_second = rate(bare_latencies.len(), bare_elapsed);
        let raw_per_second = rate(commits.len(), commits.iter().sum());
        Ok(Point {
            bench: "alloc",
            clients: clients.len(),
            fill,
            allocations: latencies.len(),
            p50_us: percentile(&latencies, 0.5),
            p99_us: percentile(&latencies, 0.99),
            per_second: round(per_second),
            raw_commit_p50_us: percentile(&commits, 0.5),
            raw_commit_per_second: round(raw_per_second),
            bare_p50_us: percentile(&bare_latencies, 0.5),
            bare_per_second: round(bare_per_second),
            host_local_per_second: 0.0,
            ratio_to_raw: ratio(per_second, raw_per_second),
            ratio_to_bare: ratio(per_second, bare_per_second),
        })
    }
}

fn restart(agent: &mut Agent, leases: usize) -> Result<Restart> {
    eprintln!("restarting the agent with {leases} leases");
    let before = agent.resident_kib()?;
    agent.stop()?;
    let start = Instant::now();
    agent.start_again()?;
    let ready = start.elapsed();
    let mib = |kib| round(f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0);
    Ok(Restart {
        bench: "alloc_restart",
        leases,
        ready_ms: round(ready.as_secs_f64() * 1e3),
        rss_mib: mib(agent.resident_kib()?),
        rss_before_mib: mib(before),
    })
}

fn first(lab: &Lab) -> Result<Ipv4Addr> {
    lab.prefix().hosts().next().context("a prefix without hosts")
}

fn share(of: usize, fill: f64) -> usize {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a /16"
    )]
    let rows = (of as f64 * fill) as usize;
    rows
}

fn ratio(of: f64, to: f64) -> f64 {
    (of / to * 100.0).round() / 100.0
}

fn rate(count: usize, elapsed: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "thousands")]
    let count = count as f64;
    count / elapsed.as_secs_f64()
}
