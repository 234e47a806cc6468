//! An agent among what is true of a machine: whoever runs on it, its links, and those who list what
//! there is. The agent knows of it what it has read since it started.

mod agent;
mod calls;
mod children;
mod node;
mod op;
mod passes;
mod ports;
mod rules;
mod settle;
mod sources;
mod step;
mod stories;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use guard_agent::{live::SharedEvidence, store::Store};
use guard_core::{
    evidence::Changes,
    lease::{
        Applied, Engine, Lease, Place, Pool, PoolSpec, Pools, Row, Write,
        command::{Allocate, Command, Reason, Refusal, Reply},
    },
    reconcile::Recent,
    segment::Segment,
    time::Now,
};
use jiff::Timestamp;
use tempfile::TempDir;

pub(crate) use self::op::{Op, Setup, Story};
use self::{
    agent::{Part, Phase},
    calls::POOLS,
    node::{Node, Serial, segment},
    rules::Given,
    sources::{Asked, DIRECTORY, Outcome, RUNTIME, SOURCES},
};

pub(crate) struct World {
    setup: Setup,
    dir: TempDir,
    engine: Engine,
    store: Option<Store>,
    live: SharedEvidence,
    phase: Phase,
    unread: Vec<Part>,
    /// The links that the agent has seen, or had when it ended.
    known_ports: BTreeMap<u32, Serial>,
    /// Links whose end the observer has noted, as long as the store may not have it.
    noted_ends: BTreeSet<u32>,
    sources: [Asked; 2],
    /// The VLAN of the pool on the second bridge.
    vlan: u16,
    /// What the passes have taken back unasked.
    recent: Recent,
    /// What an operator has agreed to.
    consented: BTreeSet<u64>,
    /// What the last pass would not take back unasked.
    blocked: Vec<Arc<Lease>>,
    node: Node,
    now: Now,
    boot: u32,
    opened: bool,
    fails: bool,
    lag: bool,
    drained: bool,
    frames: u64,
    /// All generations that were ever told, the last one last.
    told: Vec<u64>,
    /// Requests that were granted.
    asked: Vec<Allocate>,
    given: BTreeMap<u64, Given>,
    /// Whose release ended the last lease of a place.
    gave_back: BTreeMap<Place, guard_core::owner::Owner>,
    /// The rows as they were after the last change.
    shadow: BTreeMap<Place, Row>,
}

impl Setup {
    fn pools(self, vlan: u16) -> Pools {
        let pool = |(name, bridge): (&str, u8)| {
            let prefix = match name {
                "six" => "fd00::/126",
                "many" => "10.1.0.0/27",
                _ => "10.0.0.0/29",
            };
            let segment =
                Segment { vlan: if name == "west" { vlan } else { 0 }, ..segment(bridge) };
            let spec = PoolSpec::new(name, segment, prefix.parse().unwrap());
            Pool::new(PoolSpec { cooldown_bypass: self.bypass, ..spec }).unwrap()
        };
        Pools::new(POOLS.map(pool).to_vec()).unwrap()
    }

    /// Who has to acknowledge a release, and for how long it is waited for.
    fn subscribers(self) -> Vec<(Arc<str>, Duration)> {
        let all = [("proxy", 300), ("firewall", 1200)].into_iter().filter(|_| self.subscribers);
        all.map(|(name, seconds)| (Arc::from(name), Duration::from_secs(seconds))).collect()
    }
}

/// Where commits cost little: what is tested is not the disk.
fn fast_dir() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { TempDir::new_in(memory).unwrap() } else { TempDir::new().unwrap() }
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let now = Now {
            boot: Duration::from_secs(100_000),
            wall: Timestamp::from_second(1_700_000_000).unwrap(),
        };
        let mut world = Self {
            setup,
            dir: fast_dir(),
            engine: Engine::default(),
            store: None,
            live: SharedEvidence::default(),
            phase: Phase::Down,
            unread: Vec::new(),
            known_ports: BTreeMap::new(),
            noted_ends: BTreeSet::new(),
            vlan: 0,
            recent: Recent::default(),
            consented: BTreeSet::new(),
            blocked: Vec::new(),
            sources: [Asked::new(setup.runtime), Asked::new(setup.directory)],
            node: Node::default(),
            now,
            boot: 1,
            opened: false,
            fails: false,
            lag: false,
            drained: true,
            frames: 0,
            told: Vec::new(),
            asked: Vec::new(),
            given: BTreeMap::new(),
            gave_back: BTreeMap::new(),
            shadow: BTreeMap::new(),
        };
        world.start();
        world.end_boot_pass();
        world
    }

    /// The ledger looks at what it was told, as it does before each call.
    fn drain(&mut self) {
        if self.phase == Phase::Down {
            return;
        }
        loop {
            let changes = self.live.changes().take(2);
            if changes.is_empty() {
                break;
            }
            let again = changes.clone();
            if self.apply(&Command::Look(changes)).is_err() {
                self.live.changes().put_back(Changes { known: true, ..again });
            }
        }
        self.drained = true;
        self.noted_ends.clear();
        self.ports_are_right();
    }

    /// The ledger looks before it takes a call, unless what happened came in between.
    fn before_call(&mut self) {
        if !std::mem::take(&mut self.lag) {
            self.drain();
        }
        self.lag = false;
    }

    /// No two things happen at one moment.
    fn later(&mut self) {
        self.now.boot += Duration::from_millis(1);
    }

    /// Asks the agent, if it runs.
    #[expect(clippy::needless_pass_by_value, reason = "it is made for this call")]
    fn run(&mut self, command: Command) -> Result<Reply, Refusal> {
        if self.phase == Phase::Down {
            return Err(Refusal::new(Reason::Stopping, "it does not run"));
        }
        self.before_call();
        self.apply(&command)
    }

    /// Applies, commits (or fails to) and checks what must hold after every step.
    fn apply(&mut self, command: &Command) -> Result<Reply, Refusal> {
        self.later();
        let before = self.contents();
        let Applied { result, changes, notices: _ } =
            self.engine.apply(command.clone(), &self.live, self.now);
        if std::mem::take(&mut self.fails) {
            self.engine.undo(&changes);
            assert_eq!(self.contents(), before, "a failed commit left something behind");
            assert_eq!(self.engine.check(), Vec::<String>::new());
            self.engine.look_again(&changes);
            self.live.changes().tell(|changes| changes.known = true);
            return Err(Refusal::new(Reason::StoreUnwritable, "as the test says"));
        }
        let store = self.store.as_mut().unwrap();
        store.commit(&changes, self.engine.high_water(), self.now).unwrap();
        for change in &changes {
            if let Write::Address(change) = change {
                self.takes_port(change, command);
            }
        }
        for change in &changes {
            if let Write::Address(change) = change {
                self.judge(change, command);
            }
        }
        assert_eq!(self.engine.check(), Vec::<String>::new());
        let mut on_disk = self.store.as_ref().unwrap().read_again().unwrap();
        on_disk.rows.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(on_disk, self.contents(), "the store has something else");
        self.children_are_apart();
        result
    }
}
