//! `detect`: from the second claimant's frame to the news at a subscriber, next to what arpwatch and
//! arpalert make of the same frames, and to what two wake-ups take at least.

mod bare;
mod cost;
mod peers;

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aya::sys::{Stats, enable_stats};
use guard_tests::{
    Agent, Arp, BRIDGE, Client, Crowd, Lab, Launch, Mac, NOBODY, POOL, Sandbox, Watch,
};
use serde::Serialize;

use self::bare::BARE;
use self::cost::Cost;
use self::peers::{ARPALERT, ARPWATCH, Peer};
use crate::report::{line, percentile, round};

const GUARD: &str = "guard";

/// Incidents in each load, each of an address of its own.
const INCIDENTS: usize = 1_000;

/// Ports that steal, each in its turn: none of them claims more than have an incident each (claims.md
/// A19b), or more in a second than its budget.
const THIEVES: usize = 200;

/// How long all are given to tell of one before the next: the slow ones are heard later.
const PACE: Duration = Duration::from_millis(20);

/// When the next incident comes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// As soon as the agent has told of the last.
    Told,
    /// After [`PACE`]: by then the processor's caches may have forgotten everything about it.
    Paced,
}

/// How long what was not told yet may take in the end, before it counts as missed.
const GRACE: Duration = Duration::from_secs(3);

/// How long the flood lasts before the first incident, for the time that each frame takes of a
/// processor.
const FLOOD: Duration = Duration::from_secs(10);

#[derive(Serialize)]
struct Point {
    bench: &'static str,
    peer: &'static str,
    load: &'static str,
    p50_us: f64,
    p99_us: f64,
    missed: usize,
    /// Null where hardly a frame was processed.
    cpu_s_per_million: Option<f64>,
    frames: u64,
    dropped: u64,
}

impl Point {
    fn new(
        peer: &'static str,
        load: &'static str,
        mut latencies: Vec<Duration>,
        sent: usize,
    ) -> Self {
        latencies.sort_unstable();
        Self {
            bench: "detect",
            peer,
            load,
            p50_us: percentile(&latencies, 0.5),
            p99_us: percentile(&latencies, 0.99),
            missed: sent.saturating_sub(latencies.len()),
            cpu_s_per_million: None,
            frames: 0,
            dropped: 0,
        }
    }
}

/// That somebody tells of an address, and when.
type News = (&'static str, Ipv4Addr, Instant);

/// Runs the benchmark.
pub(crate) fn run(json: bool) -> Result<()> {
    let lab = Lab::with_prefix(20)?;
    let agent = lab.agent_with(Launch::config(&lab.config()?)?)?;
    let (owner, thief) = (lab.sandbox("owner")?, lab.sandbox("thief")?);
    let flooder = lab.sandbox("flooder")?;
    let thieves = lab.crowd(THIEVES)?;
    let (known, own) = (agent.admit(&flooder)?, agent.admit(&thief)?);
    let leased = lease(&agent, &owner, 3 * INCIDENTS)?;
    let program = *lab.programs_on(thief.port())?.first().context("no program on the port")?;
    let _stats = enable_stats(Stats::RunTime).context("counting the program's time")?;

    let (sender, news) = channel();
    let peers = [Peer::arpwatch(&lab, sender.clone())?, Peer::arpalert(&lab, sender.clone())?];
    introduce(&owner, &leased, &thief, own.address, &peers)?;
    let bench =
        Bench { agent: &agent, thief: &thief, thieves: &thieves, program, peers: &peers, json };
    if !json {
        println!(
            "{:<10} {:<6} {:>12} {:>12} {:>7} {:>22} {:>10} {:>10}",
            "peer", "load", "p50", "p99", "missed", "CPU s/million frames", "frames", "dropped"
        );
    }
    let watch = agent.incidents()?;
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let done = &done;
        let subscriber = scope.spawn(move || subscribe(&watch, &sender, done));
        let (quiet, rest) = leased.split_at(INCIDENTS);
        let (rare, loud) = rest.split_at(INCIDENTS);
        let addresses = |leased: &[(Mac, Ipv4Addr)]| -> Vec<Ipv4Addr> {
            leased.iter().map(|(_, address)| *address).collect()
        };
        let outcome = bench
            .load("quiet", Next::Told, &addresses(quiet), &news, Duration::ZERO)
            .and_then(|()| bench.load("rare", Next::Paced, &addresses(rare), &news, Duration::ZERO))
            .and_then(|()| bench.limit("quiet", Next::Told, &lab, own.address))
            .and_then(|()| bench.limit("rare", Next::Paced, &lab, own.address))
            .and_then(|()| {
                // Nothing of it is new to anybody.
                let frame = Arp::request(flooder.mac(), known.address, NOBODY).frame();
                let flood = lab.flood(&flooder, &[frame], 1)?;
                bench.load("flood", Next::Paced, &addresses(loud), &news, FLOOD)?;
                eprintln!("the flood was {:.0} frames a second", flood.rate()?);
                Ok(())
            });
        done.store(true, Ordering::Relaxed);
        subscriber.join().map_err(|_| anyhow::anyhow!("the subscriber panicked"))??;
        outcome
    })?;
    agent.stop()
}

/// Leases by declared MACs, all on one port.
fn lease(agent: &Agent, owner: &Sandbox, count: usize) -> Result<Vec<(Mac, Ipv4Addr)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut client = Client::connect(&agent.socket()).await?;
        let mut leased = Vec::with_capacity(count);
        for number in 0..count {
            let (mac, key) = (Crowd::mac(number)?, number.to_string());
            let leases = client.allocate_bound(&[POOL], ("owner", &key), mac, owner.port()).await?;
            leased.push((mac, leases.first().context("no lease")?.address.parse()?));
        }
        Ok(leased)
    })
}

/// Has everybody say once who they are, and waits until the peers know.
fn introduce(
    owner: &Sandbox,
    leased: &[(Mac, Ipv4Addr)],
    thief: &Sandbox,
    own: Ipv4Addr,
    peers: &[Peer],
) -> Result<()> {
    eprintln!("introducing {} addresses", leased.len());
    let socket = owner.raw_socket()?;
    thief.announce(own)?;
    for (number, (mac, address)) in leased.iter().enumerate() {
        socket.send(&Arp::announcement(*mac, *address).frame())?;
        // Not faster than they can write it down.
        if number % 50 == 49 {
            for peer in peers {
                peer.await_known(number + 2)?;
            }
        }
    }
    Ok(())
}

/// Hands on what the agent tells.
fn subscribe(watch: &Watch, sender: &Sender<News>, done: &AtomicBool) -> Result<()> {
    while !done.load(Ordering::Relaxed) {
        let Some((at, conflict)) = watch.next(Duration::from_millis(100))? else { continue };
        if let Ok(address) = conflict.address.parse()
            && conflict.open
        {
            sender.send((GUARD, address, at)).context("nobody listens")?;
        }
    }
    Ok(())
}

struct Bench<'a> {
    agent: &'a Agent,
    thief: &'a Sandbox,
    thieves: &'a Crowd,
    program: u32,
    peers: &'a [Peer; 2],
    json: bool,
}

impl Bench<'_> {
    /// Counts what all take of the processors for a while, has each address claimed by the thief,
    /// and reports who told of it when: the agent and its peers.
    fn load(
        &self,
        load: &'static str,
        next: Next,
        addresses: &[Ipv4Addr],
        news: &Receiver<News>,
        counted: Duration,
    ) -> Result<()> {
        eprintln!("{load}: {} incidents on {BRIDGE}", addresses.len());
        let sockets = (0..THIEVES).map(|port| self.thieves.raw_socket(port));
        let sockets = sockets.collect::<Result<Vec<_>>>()?;
        let mut heard = Heard::default();
        let before = self.costs()?;
        heard.listen(news, Instant::now() + counted, |_| false)?;
        let after = self.costs()?;
        let names = [GUARD, ARPWATCH, ARPALERT];
        for (&address, (port, socket)) in addresses.iter().zip(sockets.iter().enumerate().cycle()) {
            // The owners have the first numbers.
            let frame = Arp::announcement(Crowd::mac(3 * INCIDENTS + port)?, address).frame();
            let sent = Instant::now();
            socket.send(&frame)?;
            heard.sent.insert(address, sent);
            heard.listen(news, sent + PACE, |heard| {
                next == Next::Told && heard.told.contains_key(&(GUARD, address))
            })?;
        }
        let all = names.len() * addresses.len();
        heard.listen(news, Instant::now() + GRACE, |heard| heard.told.len() == all)?;
        let costs =
            before.into_iter().zip(after).map(|((_, before), (_, after))| after.since(&before));
        for (peer, cost) in names.into_iter().zip(costs) {
            let latencies = heard.latencies(peer, addresses);
            self.report(&Point {
                cpu_s_per_million: cost.seconds_per_million(),
                frames: cost.frames,
                dropped: cost.dropped,
                ..Point::new(peer, load, latencies, addresses.len())
            })?;
        }
        ensure!(heard.told.len() <= all, "told of more than there was");
        Ok(())
    }

    /// Reports what a watcher without any logic would reach in the same minute.
    fn limit(&self, load: &'static str, next: Next, lab: &Lab, own: Ipv4Addr) -> Result<()> {
        let latencies = bare::latencies(lab, self.thief, own, INCIDENTS, next)?;
        self.report(&Point::new(BARE, load, latencies, INCIDENTS))
    }

    fn costs(&self) -> Result<[(&'static str, Cost); 3]> {
        let [arpwatch, arpalert] = self.peers;
        Ok([
            (GUARD, Cost::of_guard(self.agent.pid(), self.program)?),
            (ARPWATCH, arpwatch.cost()?),
            (ARPALERT, arpalert.cost()?),
        ])
    }

    fn report(&self, point: &Point) -> Result<()> {
        if self.json {
            return line(point);
        }
        let cpu = point.cpu_s_per_million.map_or("-".to_owned(), |cpu| format!("{cpu:.3}"));
        println!(
            "{:<10} {:<6} {:>9} µs {:>9} µs {:>7} {cpu:>22} {:>10} {:>10}",
            point.peer,
            point.load,
            round(point.p50_us),
            round(point.p99_us),
            point.missed,
            point.frames,
            point.dropped
        );
        Ok(())
    }
}

/// What was sent, and what was told of it, the first time.
#[derive(Default)]
struct Heard {
    sent: HashMap<Ipv4Addr, Instant>,
    told: HashMap<(&'static str, Ipv4Addr), Instant>,
}

impl Heard {
    /// Listens until a moment, or until `enough`.
    fn listen(
        &mut self,
        news: &Receiver<News>,
        until: Instant,
        enough: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        while !enough(self) {
            match news.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((peer, address, at)) if self.sent.contains_key(&address) => {
                    self.told.entry((peer, address)).or_insert(at);
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => anyhow::bail!("all have ended"),
            }
        }
        Ok(())
    }

    fn latencies(&self, peer: &'static str, addresses: &[Ipv4Addr]) -> Vec<Duration> {
        let latency = |address: &Ipv4Addr| {
            let told = self.told.get(&(peer, *address))?;
            Some(told.saturating_duration_since(*self.sent.get(address)?))
        };
        addresses.iter().filter_map(latency).collect()
    }
}
