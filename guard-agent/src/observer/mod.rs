//! The observer: the program on every port of the watched bridges, and what it tells.
//!
//! One task owns the program and its maps. It follows netlink, drains the ring, and reads the maps
//! anew after any loss. What it learns goes, in this order, to the incident reporter, into the shared
//! evidence, and to the lease engine, which it never waits for.

mod above;
mod announce;
mod coverage_check;
mod executor;
mod follow;
mod handle;
mod hook;
mod kind;
mod log_limiter;
mod neighbours;
mod never_port;
mod ports;
mod repair;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use aya::maps::{MapData, RingBuf};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use guard_ebpf::abi::Event;
use ipnet::IpNet;
use parking_lot::RwLock;
use tokio::{
    io::unix::AsyncFd,
    sync::mpsc,
    task::yield_now,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

pub(crate) use handle::{EnsureError, Handle};
pub(crate) use kind::PortKind;
pub(crate) use ports::{PortStatus, SharedPorts};

use above::Above;
use coverage_check::CoverageCheck;
use executor::{Carrier, ClaimMaps, Executor};
use guard_core::{
    arbiter::{self, Arbiter, Read},
    policy::{Conflict, Quota},
    segment::Segment,
};
use handle::Ensure;
use neighbours::NeighbourReader;
use ports::{PortMaps, Ports};

use crate::{
    clock,
    config::Bridge,
    datapath::{self, Kernel, KernelError, Snapshot},
    events::IncidentReporter,
    failpoint::{self, Moment},
    health::{self, Health, Heartbeat},
    live::SharedEvidence,
    metrics::Counters,
    network::{
        Netlink, NetlinkError, Notice,
        probe::Prober,
        topology::{Topology, View},
    },
    owners::MacTable,
    owners::Owners,
    supervisor::Supervisor,
};

/// Records are read from the ring in batches of at most so many, so that nothing else starves.
const BATCH: usize = 256;

/// How long alerts wait to be written down, and what follows from them: the threads that send them to
/// subscribers, and those, have the processors for themselves meanwhile. What comes in this time is
/// written down together.
const WRITE_DOWN: Duration = Duration::from_millis(1);

/// How soon it is looked whether maps without room have some.
const ROOM: Duration = Duration::from_secs(5);

/// How a failure of netlink is listed.
const NETLINK: &str = "netlink";

/// What the observer works with.
pub(crate) struct Deps {
    /// Where the program is pinned.
    pub bpffs: PathBuf,
    /// The bridges to watch.
    pub bridges: Vec<Bridge>,
    /// The prefixes on each segment, besides those of the host's addresses.
    pub prefixes: Vec<(Segment, IpNet)>,
    /// Those of them in which guests number themselves (`slaac`).
    pub first_come: Vec<(Segment, IpNet)>,
    /// The pools by name.
    pub pools: Vec<(Arc<str>, Segment)>,
    /// When claims age, how long a doubt may be held.
    pub conflict: Conflict,
    /// What one port may add about addresses that nobody owns.
    pub quota: Quota,
    /// Where claims go.
    pub live: Arc<SharedEvidence>,
    /// Where conflicts go.
    pub reporter: Arc<IncidentReporter>,
    /// Who may claim what.
    pub owners: Arc<Owners>,
    /// What is degraded.
    pub health: Arc<Health>,
    /// Who hears of work that panics.
    pub supervisor: Supervisor,
}

/// Why the observer does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ObserverError {
    /// The program does not run.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Netlink does not answer.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// There is no packet socket.
    #[error("cannot open a packet socket for probes: {0}; grant CAP_NET_RAW")]
    Prober(io::Error),
    /// The ring cannot be waited on.
    #[error("cannot wait on the ring buffer: {0}")]
    Ring(io::Error),
    /// The maps cannot be read.
    #[error("cannot read the program's maps: {0}")]
    Maps(#[from] aya::maps::MapError),
}

/// The observer, loaded and up to date, and about to run.
pub(crate) struct Observer {
    deps: Deps,
    netlink: Netlink,
    notices: BoxStream<'static, Notice>,
    topology: Topology,
    view: View,
    ports: Ports,
    arbiter: Arbiter,
    executor: Executor,
    above: Above,
    ring: AsyncFd<RingBuf<MapData>>,
    requests: mpsc::Receiver<Ensure>,
    counters: Arc<Counters>,
    prober: Arc<Prober>,
    heartbeat: Arc<Heartbeat>,
    /// How often it was found that events were lost.
    losses: u64,
    /// Notices were lost: once those that were left are taken in, everything is read again.
    dump_again: bool,
    /// With what is over the bridges the neighbour tables are to be read.
    read_all_neighbours: bool,
    /// When to write down the alerts that were sent.
    write_down_at: Option<Instant>,
    /// When to read the maps again.
    snapshot_at: Instant,
    /// When to compare what the kernel has with what was written.
    repair_at: Instant,
}

impl Observer {
    /// Puts the program on every port, in the place of an earlier agent's, and reads what there is:
    /// ports, host addresses, maps. That is the observer's part of the boot pass: when this returns,
    /// the evidence of the wire is complete.
    ///
    /// # Errors
    /// What is missing on this machine, and what to do.
    pub(crate) async fn start(
        mut kernel: Kernel,
        deps: Deps,
    ) -> Result<(Self, Handle), ObserverError> {
        let maps = kernel.maps()?;
        let bound_macs = kernel.bound_macs()?;
        let exceptions = kernel.exceptions()?;
        let (owned, macs) = (kernel.owned()?, kernel.macs()?);
        deps.owners.set_maps(owned, macs, bound_macs, maps.policies, exceptions);
        #[expect(unsafe_code, reason = "the kernel tells of records by the ring's descriptor")]
        // SAFETY: a `RingBuf` owns its map's descriptor, gives the same one always, and keeps it
        // open until it is dropped.
        let ring = unsafe { AsyncFd::register(kernel.ring()?) }
            .map_err(|error| ObserverError::Ring(error.into()))?;
        let prober = Arc::new(Prober::open().map_err(ObserverError::Prober)?);
        let names: Vec<_> = deps.bridges.iter().map(|bridge| bridge.name.clone()).collect();
        let slots: Vec<_> = kernel.slots(names.iter().map(|name| &**name))?;
        let slots: BTreeMap<_, _> =
            names.iter().cloned().zip(slots.iter().map(|slot| slot.at)).collect();
        let counters = Arc::new(Counters::new(maps.counters, maps.frames, slots.clone()));
        let shared = SharedPorts::new(RwLock::default());
        let ports = Ports::new(
            kernel,
            PortMaps::new(
                maps.ports,
                maps.near_ports,
                maps.vlans,
                MacTable::new(maps.macs, maps.port_states),
            ),
            &deps,
            slots,
            shared.clone(),
            counters.clone(),
        )?;
        let claim_maps =
            ClaimMaps { live: maps.live, challengers: maps.challengers, prefixes: maps.prefixes };
        let executor = Executor::new(&deps, claim_maps, prober.clone());
        let arbiter = Arbiter::new(deps.conflict, &deps.quota);
        let (netlink, notices) = Netlink::open()?;
        let (sender, requests) = mpsc::channel(64);
        let topology = Topology::new(named_vlans(&deps));
        let heartbeat = Arc::new(Heartbeat::new(std::time::Instant::now()));
        let handle = Handle {
            requests: sender,
            ports: shared,
            counters: counters.clone(),
            heartbeat: heartbeat.clone(),
        };
        let view = View::default();
        let mut observer = Self {
            above: Above::new(deps.supervisor.clone()),
            deps,
            netlink,
            notices,
            topology,
            view,
            ports,
            arbiter,
            executor,
            ring,
            requests,
            counters,
            prober,
            heartbeat,
            losses: 0,
            dump_again: false,
            read_all_neighbours: false,
            write_down_at: None,
            snapshot_at: Instant::now(),
            repair_at: Instant::now() + repair::EVERY,
        };
        observer.begin().await?;
        observer.ports.forget_others(&observer.view);
        observer.ports.retire_others(&observer.deps.bpffs);
        observer.deps.owners.forget_others();
        let snapshot = datapath::read(&observer.deps.bpffs)?;
        observer.take_snapshot(snapshot, true);
        observer.drain();
        observer.read_neighbours();
        observer.write_down();
        Ok((observer, handle))
    }

    /// Watches until the handle is dropped.
    pub(crate) async fn run(mut self) {
        let snapshot_every = (self.deps.conflict.live_window / 4)
            .clamp(Duration::from_millis(250), Duration::from_secs(30));
        self.snapshot_at = Instant::now() + snapshot_every;
        let mut second = interval(Duration::from_secs(1));
        second.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (snapshots, mut read) = mpsc::channel::<(u64, Snapshot)>(1);
        let (coverage_check, mut found) = CoverageCheck::new(self.deps.supervisor.clone());
        let (reader, mut neighbours) = NeighbourReader::new(self.deps.supervisor.clone());
        let owners = self.deps.owners.clone();
        loop {
            let decide_at = self.next_due();
            let write_down_at = self.next_write_down();
            tokio::select! {
                ready = self.ring.readable_mut() => match ready {
                    Ok(mut guard) => {
                        let records = batch(guard.get_inner_mut());
                        let full = records.len() == BATCH;
                        // What is left keeps the ring ready.
                        if !full {
                            guard.clear_ready();
                        }
                        self.take(records);
                        if full {
                            // Others get their turn in between, the timers among them.
                            yield_now().await;
                        }
                    }
                    Err(error) => return tracing::error!(%error, "the ring cannot be waited on"),
                },
                request = self.requests.recv() => match request {
                    Some(request) => self.ensure(request).await,
                    None => return,
                },
                notice = self.notices.next() => self.notice(notice).await,
                () = owners.handed_over() => self.handed_over(),
                () = sleep_until(decide_at.unwrap_or_else(Instant::now)),
                    if decide_at.is_some() => self.arbitrate(arbiter::Event::Tick),
                () = sleep_until(write_down_at.unwrap_or_else(Instant::now)),
                    if write_down_at.is_some() => self.write_down(),
                Some((losses, snapshot)) = read.recv() => {
                    self.take_snapshot(snapshot, false);
                    if losses == self.losses {
                        self.deps.health.recovered(health::LOST);
                    }
                    let evidence = self.deps.live.claims(None);
                    self.arbitrate(arbiter::Event::Evidence(evidence));
                }
                Some(found) = found.recv() => {
                    if self.ports.repair(&found.uncovered) {
                        self.snapshot_at = Instant::now();
                    }
                    self.handed_over();
                    self.look_at(found.differing).await;
                }
                Some(read) = neighbours.recv() => self.take_neighbours(read),
                heard = self.above.next() => self.heard_above(heard),
                _ = second.tick() => self.every_second(&coverage_check).await,
                () = sleep_until(self.snapshot_at) => {
                    self.snapshot_at = Instant::now() + snapshot_every;
                    self.read_maps(snapshots.clone());
                    self.start_reading_neighbours(&reader);
                }
            }
        }
    }

    /// What nothing reports, and what failed before.
    async fn every_second(&mut self, coverage_check: &CoverageCheck) {
        let again = std::mem::take(&mut self.dump_again);
        if self.deps.health.why(NETLINK).is_some() {
            self.reconnect().await;
        } else if again {
            self.try_resync().await;
        }
        self.ports.repair_pins();
        let owners = &self.deps.owners;
        self.ports.forget_ends(|ifindex| owners.has_ended(ifindex));
        let bridges = self.view.bridges.values().map(|bridge| bridge.ifindex).collect();
        coverage_check.start(bridges, self.ports.shared());
        let silent = self.deps.reporter.silent(clock::now());
        self.arbitrate(arbiter::Event::Silent(silent));
        self.deps.reporter.close_quiet(clock::now());
        self.repair_maps();
        self.look_for_room(None);
        if self.deps.health.why(health::FULL).is_some() {
            self.snapshot_at = self.snapshot_at.min(Instant::now() + ROOM);
        }
        if self.counters.unjudged_more() {
            let why = "frames passed unjudged: the program found no policy of their port";
            self.deps.health.degraded(health::UNJUDGED, why);
        } else {
            self.deps.health.recovered(health::UNJUDGED);
        }
        if self.counters.lost_more() {
            let why = "the ring had no room for some; the maps are read for what they told";
            self.deps.health.degraded(health::LOST, why);
            self.losses += 1;
            self.snapshot_at = Instant::now();
        }
        failpoint::reach(Moment::ObserverRound);
        self.heartbeat.beat(std::time::Instant::now());
    }

    /// A full map means claims that nobody sees: nothing can be vouched for until it is found to have
    /// room. `full` is what a look at the maps has shown.
    fn look_for_room(&self, full: Option<bool>) {
        if self.counters.full_more() || full == Some(true) {
            let why = "there are more claims than they have room for; some were not noted";
            self.deps.health.degraded(health::FULL, why);
        } else if full == Some(false) {
            self.deps.health.recovered(health::FULL);
        }
    }

    /// Reads the maps on a thread of its own; the result comes back through the channel.
    fn read_maps(&self, snapshots: mpsc::Sender<(u64, Snapshot)>) {
        let (bpffs, health) = (self.deps.bpffs.clone(), self.deps.health.clone());
        let losses = self.losses;
        let read = move || match datapath::read(&bpffs) {
            Ok(snapshot) => {
                health.recovered("maps");
                // The observer has stopped: nobody wants it.
                let _ = snapshots.blocking_send((losses, snapshot));
            }
            Err(error) => health.degraded("maps", &format!("cannot be read: {error}")),
        };
        self.deps.supervisor.spawn_blocking("sweep of the maps", read);
    }

    /// Takes in what the maps say. An incident that goes on is one still, whatever was reported of it.
    /// At the `start` that is also what happened while no agent ran.
    fn take_snapshot(&mut self, snapshot: Snapshot, start: bool) {
        self.look_for_room(Some(snapshot.full));
        self.ports.take_snapshot(&snapshot);
        let Snapshot { live, owned, challengers, clones, used: _, full: _ } = snapshot;
        for (key, live) in live {
            self.arbitrate(arbiter::Event::Live(key, live));
        }
        for (key, owned) in owned {
            self.arbitrate(arbiter::Event::Owner(key, owned));
        }
        for (key, challenger) in challengers {
            let live = Read::needs_live(key.kind).then(|| self.executor.live(&key.key)).flatten();
            let blocked = self.view.is_blocked(key.ifindex);
            let missed =
                if start { self.executor.missed(&key, &challenger) } else { arbiter::Missed::No };
            self.arbitrate(arbiter::Event::Challenger { key, challenger, live, blocked, missed });
        }
        let now = clock::monotonic();
        for event in clones {
            // What an incident that closed has been about is not news.
            if now.saturating_sub(Duration::from_nanos(event.time_ns)) < self.deps.conflict.quiet {
                self.event(event);
            }
        }
    }

    /// Takes all records off the ring that are there now.
    fn drain(&mut self) {
        loop {
            let records = batch(self.ring.get_mut());
            if records.is_empty() {
                return;
            }
            self.take(records);
        }
    }

    fn take(&mut self, records: Vec<Bytes>) {
        for record in records {
            match bytemuck::try_pod_read_unaligned::<Event>(&record) {
                Ok(event) => self.event(event),
                Err(error) => {
                    let why = format!("a record of {} bytes is no event: {error}", record.len());
                    self.deps.health.degraded("ring", &why);
                }
            }
            if self.next_write_down().is_some_and(|at| at <= Instant::now()) {
                self.write_down();
            }
        }
    }

    /// When to write down the alerts and what follows from them, if there are any.
    fn next_write_down(&mut self) -> Option<Instant> {
        let waiting = self.executor.must_follow_up() || self.deps.reporter.unwritten() > 0;
        if self.write_down_at.is_none() && waiting {
            self.write_down_at = Some(Instant::now() + WRITE_DOWN);
        }
        self.write_down_at
    }

    fn write_down(&mut self) {
        self.write_down_at = None;
        self.executor.follow_up();
        self.deps.reporter.write_down();
    }

    fn event(&mut self, event: Event) {
        let (executor, ports) = (&mut self.executor, &mut self.ports);
        let read = Carrier { executor, ports }.read(&event);
        self.arbitrate(arbiter::Event::Frame { event, read });
    }

    fn arbitrate(&mut self, event: arbiter::Event) {
        let (executor, ports) = (&mut self.executor, &mut self.ports);
        self.arbiter.handle(event, &mut Carrier { executor, ports });
    }

    /// When the arbiter wants to look again at what is in doubt.
    fn next_due(&self) -> Option<Instant> {
        let due = self.arbiter.next_due()?;
        Some(Instant::now() + due.saturating_sub(clock::monotonic()))
    }
}

/// The bridges by name, each with the VLANs that the configuration names on it.
fn named_vlans(deps: &Deps) -> BTreeMap<Arc<str>, BTreeSet<u16>> {
    let vlans = |bridge: &Bridge| {
        let prefixes = deps.prefixes.iter().filter(|(segment, _)| segment.bridge == bridge.name);
        let rules = bridge.allow.iter().map(|rule| rule.vlan);
        prefixes.map(|(segment, _)| segment.vlan).chain(rules).collect()
    };
    deps.bridges.iter().map(|bridge| (bridge.name.clone(), vlans(bridge))).collect()
}

/// Some of the records that the ring holds, each a slice of one buffer.
fn batch(ring: &mut RingBuf<MapData>) -> Vec<Bytes> {
    let mut buffer = BytesMut::with_capacity(BATCH * size_of::<Event>());
    let mut records = Vec::new();
    while records.len() < BATCH
        && let Some(item) = ring.next()
    {
        buffer.put_slice(&item);
        records.push(buffer.split().freeze());
    }
    records
}
