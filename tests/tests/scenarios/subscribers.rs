//! Rule 9: subscribers that behave badly cost the allocator nothing, the agent little, and none of
//! them an event without a marker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use guard_api::proto::{Event, event};
use guard_tests::{Agent, Client, Lab, Launch, POOL, TIMEOUT, eventually};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tonic::Streaming;

const NAMES: [&str; 2] = ["nfs-proxy", "firewall"];

/// More than are held for those who lag, with those that are on their way.
const FLOOD: usize = 6_000;

/// With its store in memory: what is measured is who waits for whom, and not a disk.
fn start(lab: &Lab) -> Result<Agent> {
    lab.small_state(256 << 10)?;
    let subscribers: String = NAMES
        .iter()
        .map(|name| format!("[[subscriber]]\nname = {name:?}\nhold_deadline = \"1h\"\n"))
        .collect();
    lab.agent_with(Launch::config(&lab.config()?.with(&subscribers)?)?)
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Allocates one after the other, and returns how long each took, and what was given.
async fn allocate(client: &mut Client, prefix: &str, count: usize) -> Result<Vec<(Duration, u64)>> {
    let mut given = Vec::with_capacity(count);
    for number in 0..count {
        let asked = Instant::now();
        let lease = client.allocate(POOL, &format!("{prefix}-{number}")).await?;
        given.push((asked.elapsed(), lease.generation));
    }
    Ok(given)
}

/// Leases that come and go: two events each.
async fn flood(agent: &Agent, prefix: &str, leases: usize) -> Result<()> {
    const CLIENTS: usize = 32;
    let mut tasks = JoinSet::new();
    for number in 0..CLIENTS {
        let mut client = Client::connect(&agent.socket()).await?;
        let prefix = format!("{prefix}-{number}");
        tasks.spawn(async move {
            for (_, generation) in allocate(&mut client, &prefix, leases / CLIENTS).await? {
                client.release(generation).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.context("a client panicked")??;
    }
    Ok(())
}

/// How subscribers behave.
#[derive(Clone, Copy, PartialEq)]
enum Manners {
    /// They read what comes, and acknowledge it once.
    Good,
    /// All ways to behave badly at once.
    Bad,
}

/// As many subscribers as there are connections for, for as long as it lives.
struct Company {
    /// They have subscribed, and never read.
    _unread: Vec<Streaming<Event>>,
    /// They read.
    _readers: JoinSet<()>,
    /// How often those that come and go may come back.
    turns: Arc<Semaphore>,
    tasks: Vec<JoinHandle<Result<()>>>,
}

impl Company {
    async fn new(agent: &Agent, manners: Manners) -> Result<Self> {
        let (mut unread, mut readers) = (Vec::new(), JoinSet::new());
        for name in NAMES.iter().copied().chain([""; 14]) {
            let mut events = Client::connect(&agent.socket()).await?.watch(name, Some(0)).await?;
            match manners {
                Manners::Good => {
                    readers.spawn(async move { while let Ok(Some(_)) = events.message().await {} });
                }
                Manners::Bad => unread.push(events),
            }
        }
        let turns = Arc::new(Semaphore::new(NAMES.len()));
        let mut tasks = Vec::new();
        for name in NAMES {
            let (socket, turns) = (agent.socket(), Arc::clone(&turns));
            tasks.push(tokio::spawn(async move {
                while let Ok(turn) = turns.acquire().await {
                    turn.forget();
                    come_and_go(&mut Client::connect(&socket).await?, name, manners).await?;
                }
                Ok(())
            }));
        }
        Ok(Self { _unread: unread, _readers: readers, turns, tasks })
    }

    async fn end(self) -> Result<()> {
        self.turns.close();
        for task in self.tasks {
            task.await.context("a subscriber panicked")??;
        }
        Ok(())
    }
}

/// One takes in what it has missed. The other vanishes in mid-stream, with all that is on its way to
/// it, and acknowledges twice what it has seen so far, or what is long over.
async fn come_and_go(client: &mut Client, name: &str, manners: Manners) -> Result<()> {
    let (events, times) = if manners == Manners::Good { (300, 1) } else { (3, 2) };
    let mut stream = client.watch(name, Some(0)).await?;
    for number in 0..events {
        if let Some(event::Subject::Lease(lease)) =
            stream.message().await?.and_then(|event| event.subject)
            && number < 3
        {
            for _ in 0..times {
                client.acknowledge(lease.generation, name).await?;
            }
        }
    }
    Ok(())
}

fn p99(mut latencies: Vec<Duration>) -> Result<Duration> {
    latencies.sort_unstable();
    latencies.get(latencies.len() * 99 / 100).copied().context("no latencies")
}

#[test]
fn rule_9_the_allocator_waits_for_no_subscriber() -> Result<()> {
    const ROUNDS: usize = 10;
    const EACH: usize = 50;
    let lab = Lab::with_prefix(16)?;
    let agent = start(&lab)?;
    runtime()?.block_on(async {
        let mut client = Client::connect(&agent.socket()).await?;
        // What there is to be told of.
        flood(&agent, "before", 640).await?;
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            // In turns, since a machine is not always equally fast.
            for (manners, given) in [(Manners::Good, &mut good), (Manners::Bad, &mut bad)] {
                let company = Company::new(&agent, manners).await?;
                for part in 0..5 {
                    company.turns.add_permits(NAMES.len());
                    let prefix = format!("{}-{round}-{part}", manners == Manners::Good);
                    given.extend(allocate(&mut client, &prefix, EACH / 5).await?);
                }
                company.end().await?;
            }
        }
        let worst = bad.iter().map(|(took, _)| *took).max().context("no latencies")?;
        let latencies = |given: Vec<(Duration, u64)>| given.into_iter().map(|(took, _)| took);
        let (good, bad) = (p99(latencies(good).collect())?, p99(latencies(bad).collect())?);
        let ratio = bad.as_secs_f64() / good.as_secs_f64();
        eprintln!(
            "p99 beside good subscribers {good:?}, beside bad ones {bad:?}: {ratio:.2} times"
        );
        // They are read and written on the same CPUs, and each that comes back is sent thousands of
        // events. What must not be is a wait for them, which would last as long as they do.
        ensure!(worst < TIMEOUT / 2, "{worst:?} beside bad subscribers");
        Ok(())
    })
}

/// Reads to the event about this generation: each number follows on the one before, unless a marker
/// says how many were lost. Gives back how many were.
async fn read(mut events: Streaming<Event>, last: u64) -> Result<u64> {
    let (mut seq, mut lost) = (None, 0);
    loop {
        let event = events.message().await?.context("the stream has ended")?;
        match seq {
            Some(before) if event.r#type == "gap" => lost += event.seq - before,
            Some(before) => ensure!(event.seq == before + 1, "{before}, and then {event:?}"),
            None => {}
        }
        seq = Some(event.seq);
        if let Some(event::Subject::Lease(lease)) = &event.subject
            && lease.generation == last
        {
            return Ok(lost);
        }
    }
}

#[test]
fn rule_9_who_sleeps_is_told_what_it_missed_and_costs_no_memory() -> Result<()> {
    const SLEEPERS: usize = 16;
    let lab = Lab::with_prefix(16)?;
    let agent = start(&lab)?;
    let files =
        || -> Result<usize> { Ok(std::fs::read_dir(format!("/proc/{}/fd", agent.pid()))?.count()) };
    runtime()?.block_on(async {
        // What is held for everyone is held by now.
        flood(&agent, "first", FLOOD).await?;
        let (before, open) = (agent.resident_kib()?, files()?);
        let mut asleep = Vec::new();
        for number in 0..SLEEPERS {
            let name = NAMES.get(number).copied().unwrap_or_default();
            asleep.push(Client::connect(&agent.socket()).await?.watch(name, None).await?);
        }
        // Beyond what is held for them, and what their connections take in unread.
        flood(&agent, "second", 2 * FLOOD).await?;
        let grown = agent.resident_kib()?.saturating_sub(before);
        eprintln!("{grown} KiB more, of which 12,000 leases have a part");
        ensure!(grown < 32 << 10, "{grown} KiB more for {SLEEPERS} subscribers that sleep");

        let last = Client::connect(&agent.socket()).await?.allocate(POOL, "last").await?;
        for events in asleep {
            let lost = read(events, last.generation).await?;
            ensure!(lost > 1000, "only {lost} were lost: nothing is shown");
        }
        // Nothing is left of them.
        eventually("their end", || Ok((files()? <= open).then_some(())))
    })
}
